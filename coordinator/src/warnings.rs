//! Checks that only warn. Nothing follows where one fails, so people must be told of it.

use std::collections::BTreeSet;

use pointsman_core::{CheckName, CheckSeen, HostName, OnFail, State};
use pointsman_proto::{convert, v1};

/// Those that did not pass when they were made last, by whose agent made them.
fn standing(state: &State) -> impl Iterator<Item = (&CheckName, &HostName, &CheckSeen)> {
    let warns = |name: &CheckName| {
        let check = state.plan.checks.iter().find(|check| check.name == *name);
        check.and_then(pointsman_checks::parsed_alone).is_some_and(|spec| spec.on_fail == OnFail::Warn)
    };
    let amiss = state.amiss.iter().filter(move |((name, _), _)| warns(name));
    amiss.map(|((name, host), seen)| (name, host, seen))
}

/// The same for the wire.
pub fn to_wire(state: &State) -> Vec<v1::CheckMade> {
    let made = |(_, host, seen): (&CheckName, &HostName, &CheckSeen)| v1::CheckMade {
        host: host.to_string(),
        seen: convert::seen_to_wire(std::slice::from_ref(seen)).into_iter().next(),
    };
    standing(state).map(made).collect()
}

/// Of which warnings a follower was told: of each check once, however often it fails.
#[derive(Debug, Default)]
pub struct Told(BTreeSet<CheckName>);

impl Told {
    /// What is to be said of checks that warn for the first time, and whose agent says it first.
    pub fn news(&mut self, state: &State) -> Option<(String, String)> {
        let new: Vec<(&CheckName, &HostName, &CheckSeen)> =
            standing(state).filter(|(name, ..)| self.0.insert((*name).clone())).collect();
        let (_, host, _) = *new.first()?;
        let says = |(name, _, seen): &(&CheckName, &HostName, &CheckSeen)| {
            format!("`{name}` did not pass, and only warns: {}", seen.what)
        };
        Some((host.to_string(), new.iter().map(says).collect::<Vec<_>>().join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::machine::fold;
    use pointsman_core::{CheckVerdict, Epoch, Event, Note, Stamped, Step, Timestamp};

    use crate::fixture;

    const CHECKS: &str = r#"
        [[checks]]
        name = "gate"
        on_fail = "warn"
        phase = ["after-switch"]
        http = { path = "/gate" }
        [[checks]]
        name = "page"
        phase = ["after-switch"]
        http = { path = "/" }
    "#;

    fn noted(state: &mut State, host: &str, seen: &[(&str, CheckVerdict)]) {
        let seen = seen.iter().map(|(name, verdict)| {
            CheckSeen::new(name.parse().unwrap(), *verdict, 3, &format!("{name} {}", verdict.as_str()))
        });
        let (step, host) = (Step::Switch, host.parse().unwrap());
        let event = Event::Noted(Note::Checks { step, host, seen: seen.collect() });
        fold(state, &Stamped { at: Timestamp(1), event }).unwrap();
    }

    #[test]
    fn a_check_that_only_warns_is_told_once_and_stands_until_it_passes() {
        use CheckVerdict::{Failed, NotMade, Passed};
        let plan = fixture::plan(&fixture::environment(&["lb1", "lb2"], CHECKS), "r1");
        let (mut state, mut told) = (State::begin(plan, Epoch(1), fixture::PLANNED_AT), Told::default());
        let stands = |state: &State| -> Vec<(String, String)> {
            let made = to_wire(state).into_iter();
            made.map(|made| (made.host, made.seen.unwrap_or_default().what)).collect()
        };
        noted(&mut state, "lb1", &[("gate", Passed), ("page", Failed)]);
        assert!(stands(&state).is_empty() && told.news(&state).is_none());
        // At several servers from one load balancer: the worst is told.
        noted(&mut state, "lb1", &[("gate", NotMade), ("gate", Failed), ("gate", Passed), ("page", Passed)]);
        assert_eq!(stands(&state), [("lb1".to_owned(), "gate failed".to_owned())]);
        let news = Some(("lb1".to_owned(), "`gate` did not pass, and only warns: gate failed".to_owned()));
        assert_eq!(told.news(&state), news);
        noted(&mut state, "lb2", &[("gate", Failed)]);
        assert_eq!((stands(&state).len(), told.news(&state)), (2, None));
        noted(&mut state, "lb1", &[("gate", Passed)]);
        noted(&mut state, "lb2", &[("gate", Passed)]);
        assert!(stands(&state).is_empty());
    }
}
