//! Visitors on another slot than the one that serves, while no release is open. Where a journal was accepted in the middle of a
//! canary, the release that led them there is void; a rollback leads them to the others.

use pointsman_core::{Code, EnvironmentName, Problem, Route, SlotPlan, Standing, Unaccounted};

use crate::environment::Environment;

/// The largest such share that is known of, where no release is open: by the route that the journal knows, else by those that
/// were `seen`, and where none was by what was found when the journal was accepted.
pub fn unaccounted<'a>(
    environment: &Environment,
    standing: &Standing,
    seen: impl IntoIterator<Item = &'a Route>,
) -> Option<Unaccounted> {
    if let Some(route) = &standing.route {
        return environment.unaccounted(route);
    }
    let mut seen = seen.into_iter().peekable();
    if seen.peek().is_none() {
        return standing.unaccounted.clone();
    }
    seen.filter_map(|route| environment.unaccounted(route)).max_by_key(|share| share.percent)
}

/// What there is to say of such a share.
pub fn told(Unaccounted { slot, percent }: &Unaccounted) -> String {
    format!("{percent} % of the visitors are on `{slot}`, which no release accounts for")
}

/// Refuses what would change the slot that they are on.
pub fn refused(share: &Unaccounted, serves: &SlotPlan, environment: &EnvironmentName) -> Problem {
    Problem::new(Code::NotPossibleNow, told(share))
        .cause("nothing is changed on a slot while visitors are led there, and nobody judges what they meet")
        .hint(format!("`pointsman rollback {environment}` leads them back to `{}`; then again", serves.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn route(text: &str) -> Route {
        Route::parse(text).unwrap()
    }

    #[test]
    fn what_the_journal_knows_comes_first_then_what_is_seen_then_what_was_found() {
        let environment = fixture::environment(&["lb1"], "");
        let on_green = |percent| Some(Unaccounted { slot: "green".parse().unwrap(), percent });
        let found = Standing { unaccounted: on_green(10), ..Standing::default() };
        let knows = |known: &str| Standing { route: Some(route(known)), ..Standing::default() };
        let (share, none) = ("be_blue:be_green:10:98", "be_blue:be_blue:0:99");
        for (standing, seen, expected) in [
            (&found, &[][..], on_green(10)),
            // Somebody has led them back by hand since.
            (&found, &[none], None),
            (&found, &[none, "be_blue:be_green:25:98"], on_green(25)),
            (&Standing::default(), &[share], on_green(10)),
            (&Standing::default(), &[], None),
            // What differs from the journal's route is somebody's change by hand, and told as one.
            (&knows(none), &[share], None),
            (&knows(share), &[], on_green(10)),
        ] {
            let seen: Vec<Route> = seen.iter().map(|text| route(text)).collect();
            assert_eq!(unaccounted(&environment, standing, &seen), expected, "{standing:?} {seen:?}");
        }
    }

    #[test]
    fn only_a_share_on_another_slot_is_one() {
        let environment = fixture::environment(&["lb1"], "");
        let of = |text: &str| environment.unaccounted(&route(text)).map(|share| told(&share));
        let told = "10 % of the visitors are on `green`, which no release accounts for";
        assert_eq!(of("be_blue:be_green:10:98").as_deref(), Some(told));
        for well in ["be_blue:be_green:0:98", "be_blue:be_blue:100:98", "be_maint:be_blue:0:98"] {
            assert_eq!(of(well), None, "{well}");
        }
    }
}
