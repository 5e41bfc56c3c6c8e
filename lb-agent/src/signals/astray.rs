//! Visitors who do not go by the route: what access lines tell of them. Pure.
//!
//! Only requests count that cannot have begun before the route stood. Those that looked it up carry its epoch; of those that
//! look nothing up nobody knows when they began, so their slots are given some seconds to end what they had.

use std::collections::BTreeMap;

use pointsman_core::signal::Tick;
use pointsman_core::{BackendName, Route, Timestamp};

/// Seconds that are looked through: as long as the guard is alert after a move, and those that are open meanwhile.
pub const TICKS: usize = 12;

/// How long after a move requests count that carry no epoch, in milliseconds: nearly all that ran have ended by then, and so
/// have the connections that were idle on them.
const GRACE_MS: u64 = 3_000;

/// Requests of visitors by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Astray {
    /// They looked the route up, and were led elsewhere.
    pub past_the_route: BTreeMap<BackendName, u64>,
    /// Their frontend does not look it up.
    pub without_route: BTreeMap<BackendName, u64>,
}

impl Astray {
    /// What was found, in words; `None` where there is none.
    pub fn words(&self) -> Option<String> {
        let of = |found: &BTreeMap<BackendName, u64>, why: &str| {
            let each = found.iter().map(|(slot, requests)| format!("{requests} on `{slot}`"));
            let each: Vec<String> = each.collect();
            (!each.is_empty()).then(|| format!("{}, {why}", each.join(", ")))
        };
        let parts = [
            of(&self.past_the_route, "led there by a rule that comes before the route's"),
            of(&self.without_route, "by a frontend that does not look the route up"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Sums them up. Testers and pointsman's own checks are probes, and in no cell; `pages` are no slots.
pub fn among(ticks: &[Tick], route: &Route, pages: &[BackendName], since: Timestamp) -> Astray {
    let mut astray = Astray::default();
    for tick in ticks.iter().filter(|tick| tick.at > since) {
        let began_late = tick.at.0.saturating_sub(tick.span_ms) >= since.0.saturating_add(GRACE_MS);
        for (key, cell) in &tick.cells {
            if route.share_of(&key.backend) > 0 || pages.contains(&key.backend) || cell.requests == 0 {
                continue;
            }
            let found = match key.epoch.0 {
                0 if began_late => &mut astray.without_route,
                epoch if epoch == route.epoch.0 => &mut astray.past_the_route,
                _ => continue,
            };
            let sum = found.entry(key.backend.clone()).or_default();
            *sum = sum.saturating_add(cell.requests);
        }
    }
    astray
}

#[cfg(test)]
mod tests {
    use pointsman_core::signal::{Cell, CellKey};
    use pointsman_core::{RouteClass, RouteEpoch};

    use super::*;

    /// A second that ended `at_s` after the move, with so many requests on a slot by an epoch.
    fn second(at_s: u64, cells: &[(&str, u64, u64)]) -> Tick {
        let cells = cells.iter().map(|(backend, epoch, requests)| {
            let class = RouteClass::parse("other").unwrap();
            let key = CellKey { backend: backend.parse().unwrap(), epoch: RouteEpoch(*epoch), class };
            (key, Cell { requests: *requests, ..Cell::default() })
        });
        Tick { at: Timestamp(at_s * 1000), span_ms: 1000, cells: cells.collect(), ..Tick::default() }
    }

    fn found(route: &str, ticks: &[Tick]) -> Option<String> {
        let pages = ["be_maint".parse().unwrap()];
        among(ticks, &Route::parse(route).unwrap(), &pages, Timestamp(100_000)).words()
    }

    #[test]
    fn only_what_the_route_that_stands_should_have_led_elsewhere_counts() {
        let moved = "be_green:be_blue:0:7";
        for (route, cell, why) in [
            (moved, ("be_green", 7, 90), "led there by the route"),
            (
                moved,
                ("be_blue", 6, 9),
                "began before the move, or is on an old worker, which is told elsewhere",
            ),
            ("be_green:be_blue:5:7", ("be_blue", 7, 9), "a share of visitors is there"),
            ("be_blue:be_green:0:7", ("be_maint", 7, 9), "a page, also where HAProxy itself shows it"),
            (moved, ("be_blue", 7, 0), "none"),
        ] {
            assert_eq!(found(route, &[second(105, &[cell])]), None, "{why}");
        }
        let told = found(moved, &[second(101, &[("be_blue", 7, 3)]), second(102, &[("be_blue", 7, 4)])]);
        assert_eq!(told.unwrap(), "7 on `be_blue`, led there by a rule that comes before the route's");
        let page = found("be_maint:be_green:0:7", &[second(101, &[("be_green", 7, 1), ("be_maint", 7, 5)])]);
        assert!(page.unwrap().starts_with("1 on `be_green`"));
    }

    #[test]
    fn what_looks_nothing_up_is_given_time_to_end() {
        let moved = "be_green:be_blue:0:7";
        let at = |at_s| found(moved, &[second(at_s, &[("be_blue", 0, 2)])]);
        assert_eq!((at(99), at(100), at(101), at(103)), (None, None, None, None));
        assert_eq!(at(104).unwrap(), "2 on `be_blue`, by a frontend that does not look the route up");
    }
}
