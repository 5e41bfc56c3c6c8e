//! What one look at the route says: whether it stands as it was confirmed last and, if not, who changed it. Pure: the
//! guard looks and acts.

use pointsman_core::Route;

use crate::reply::WorkerId;

/// What a look found.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The worker that takes new connections.
    pub worker: WorkerId,
    /// The worker that was last seen with the route on disk.
    pub settled: Option<WorkerId>,
    /// The route that a reload would bring; `None` when there is no valid one.
    pub on_disk: Option<&'a Route>,
    /// The route that new requests are routed by; `None` when there is no valid one.
    pub runtime: Option<&'a Route>,
    /// How often the key stands in the worker's map.
    pub keys: usize,
    /// The route that was confirmed last, if the agent remembers one.
    pub confirmed: Option<&'a Route>,
    /// The route that the agent itself led to last, confirmed or not.
    pub begun: Option<&'a Route>,
    /// The route that was on disk for a while and was taken back.
    pub given_away: Option<&'a Route>,
    /// HAProxy is steered by states of servers: a start makes all of them ready, which is no person's doing.
    pub by_states: bool,
    /// The states of servers are the agent's own half-done work.
    pub cut_short: bool,
}

/// What follows from a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// All is as it was confirmed.
    Stands,
    /// A new worker has the route on disk.
    Reloaded,
    /// A new worker has an older route than is on disk, or one that was taken back: a reload that began before the file was
    /// written brought it.
    BroughtBack,
    /// Somebody or something else has changed it. What differs, in words.
    Changed(Change),
}

/// What somebody else has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The running worker routes by another route than was confirmed.
    Runtime(String),
    /// The map file holds another one.
    File(String),
    /// Both hold the same, and it is another one than was confirmed.
    Both(String),
    /// The key stands not once in the worker's map, which only `add map` or `del map` by hand does.
    Keys(usize),
}

impl Change {
    /// What differs, for people.
    pub fn words(&self) -> String {
        match self {
            Self::Runtime(what) | Self::File(what) | Self::Both(what) => what.clone(),
            Self::Keys(keys) => format!("the route stands {keys} times in HAProxy's map, expected once"),
        }
    }
}

fn named(route: Option<&Route>) -> String {
    route.map_or_else(|| "no valid route".to_owned(), |route| format!("`{route}`"))
}

/// Judges a look.
pub fn judge(look: &Look<'_>) -> Found {
    let Look { runtime, on_disk, .. } = *look;
    let new_worker = !look.settled.is_some_and(|settled| settled.is(look.worker));
    let same = runtime.is_some() && runtime == on_disk;
    if same && look.keys == 1 {
        if let Some(confirmed) = look.confirmed.filter(|confirmed| runtime != Some(*confirmed))
            && runtime != look.begun
        {
            return Found::Changed(Change::Both(format!(
                "HAProxy and the map file hold {}, and `{confirmed}` was confirmed last",
                named(runtime)
            )));
        }
        return if new_worker { Found::Reloaded } else { Found::Stands };
    }
    let Some(disk) = on_disk else {
        return Found::Changed(Change::File(format!(
            "the map file holds {}, HAProxy routes by {}",
            named(None),
            named(runtime)
        )));
    };
    // A worker that nobody has seen before may have read the map before it was written. The first one that the agent ever
    // sees is told apart from it: what it has, somebody gave it.
    let restores = new_worker && (look.by_states || look.settled.is_some()) || look.cut_short;
    let was_there = |runtime: &Route| runtime.epoch < disk.epoch || look.given_away == Some(runtime);
    if restores && runtime.is_none_or(was_there) {
        return Found::BroughtBack;
    }
    if same {
        return Found::Changed(Change::Keys(look.keys));
    }
    let what = format!("HAProxy routes by {}, the map file holds `{disk}`", named(runtime));
    let file_changed = runtime.is_some() && runtime == look.confirmed;
    Found::Changed(if file_changed { Change::File(what) } else { Change::Runtime(what) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(epoch: u64) -> Route {
        Route::parse(&format!("be_blue:be_green:0:{epoch}")).unwrap()
    }

    fn worker(pid: u32) -> WorkerId {
        WorkerId { pid, started_s: None }
    }

    struct Case {
        settled: Option<u32>,
        disk: Option<u64>,
        runtime: Option<u64>,
        confirmed: Option<u64>,
        begun: Option<u64>,
        given_away: Option<u64>,
        keys: usize,
    }

    fn found(case: &Case) -> Found {
        let routes = [case.disk, case.runtime, case.confirmed, case.begun, case.given_away];
        let [disk, runtime, confirmed, begun, given_away] = routes.map(|n| n.map(route));
        judge(&Look {
            worker: worker(7),
            settled: case.settled.map(worker),
            on_disk: disk.as_ref(),
            runtime: runtime.as_ref(),
            keys: case.keys,
            confirmed: confirmed.as_ref(),
            begun: begun.as_ref(),
            given_away: given_away.as_ref(),
            by_states: false,
            cut_short: false,
        })
    }

    const WELL: Case = Case {
        settled: Some(7),
        disk: Some(5),
        runtime: Some(5),
        confirmed: Some(5),
        begun: None,
        given_away: None,
        keys: 1,
    };

    #[test]
    fn what_a_look_says() {
        let kind = |case: Case| match found(&case) {
            Found::Stands => "stands",
            Found::Reloaded => "reloaded",
            Found::BroughtBack => "brought back",
            Found::Changed(Change::Runtime(_)) => "runtime",
            Found::Changed(Change::File(_)) => "file",
            Found::Changed(Change::Both(_)) => "both",
            Found::Changed(Change::Keys(_)) => "keys",
        };
        let cases = [
            (WELL, "stands"),
            (Case { settled: Some(6), ..WELL }, "reloaded"),
            (Case { settled: None, ..WELL }, "reloaded"),
            (Case { settled: Some(6), runtime: Some(4), ..WELL }, "brought back"),
            (Case { settled: Some(6), runtime: None, ..WELL }, "brought back"),
            // By the same worker nothing comes back: a person did it.
            (Case { runtime: Some(4), ..WELL }, "runtime"),
            (Case { runtime: Some(9), ..WELL }, "runtime"),
            (Case { runtime: None, ..WELL }, "runtime"),
            // The first worker that was ever seen has what somebody gave it.
            (Case { settled: None, runtime: Some(4), confirmed: None, ..WELL }, "runtime"),
            (Case { disk: Some(9), ..WELL }, "file"),
            (Case { disk: None, ..WELL }, "file"),
            // A reload brought an edited file into force: newer than what was confirmed, and on disk too.
            (Case { settled: Some(6), disk: Some(5), runtime: Some(9), ..WELL }, "runtime"),
            // Map and file together, by hand or by a file that was edited and a reload.
            (Case { confirmed: Some(4), ..WELL }, "both"),
            (Case { confirmed: Some(6), ..WELL }, "both"),
            (Case { confirmed: Some(4), settled: Some(6), ..WELL }, "both"),
            // The agent's own doing, which a crash or a lost answer kept from being confirmed.
            (Case { confirmed: Some(4), begun: Some(5), ..WELL }, "stands"),
            (Case { confirmed: Some(4), begun: Some(5), settled: Some(6), ..WELL }, "reloaded"),
            // Nothing was ever confirmed.
            (Case { confirmed: None, ..WELL }, "stands"),
            // A reload read a route that was taken back before the reload had ended.
            (Case { settled: Some(6), runtime: Some(6), given_away: Some(6), ..WELL }, "brought back"),
            (Case { runtime: Some(6), given_away: Some(6), ..WELL }, "runtime"),
            (Case { keys: 2, ..WELL }, "keys"),
            (Case { keys: 0, runtime: None, ..WELL }, "runtime"),
        ];
        for (case, expected) in cases {
            let told = format!(
                "settled {:?}, disk {:?}, runtime {:?}, confirmed {:?}, {} keys",
                case.settled, case.disk, case.runtime, case.confirmed, case.keys
            );
            assert_eq!(kind(case), expected, "{told}");
        }
    }

    #[test]
    fn states_are_set_again_after_every_start_and_a_crash() {
        let (disk, older) = (route(5), route(4));
        let look = Look {
            worker: worker(7),
            settled: None,
            on_disk: Some(&disk),
            runtime: Some(&older),
            keys: 1,
            confirmed: None,
            begun: None,
            given_away: None,
            by_states: true,
            cut_short: false,
        };
        assert_eq!(judge(&look), Found::BroughtBack);
        let cut = Look { settled: Some(worker(7)), runtime: None, cut_short: true, ..look };
        assert_eq!(judge(&cut), Found::BroughtBack);
        let person = Look { settled: Some(worker(7)), runtime: None, ..look };
        assert!(matches!(judge(&person), Found::Changed(_)));
    }
}
