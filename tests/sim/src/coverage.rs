//! What a walk along the seeds must have seen, so that no change of what goes wrong lets later phases be covered less unnoticed.

use std::collections::BTreeMap;

/// How often each of these must be seen in 200 000 histories. When they came into the list all were seen ten times as often, most
/// of them a thousand times.
const AT_LEAST: u64 = 20;

/// What is recorded while a release stands at a phase: each phase of a plan and its way back, with everything that happens there now
/// and then.
const FLOOR: [(&str, &[&str]); 25] = [
    (
        "preflight",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "stage",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    ("backup", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    ("rehearse", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    ("expand", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    (
        "drain",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "activate",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "expose",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "check",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "canary-1",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "gates-expired",
            "turned-back",
        ],
    ),
    ("canary-2", &["fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    (
        "switch",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "gates-expired",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    (
        "watching",
        &[
            "epoch-taken",
            "fenced",
            "gates-read",
            "watch-moved",
            "judged",
            "watch-passed",
            "requested",
            "turned-back",
            "held",
            "noted",
        ],
    ),
    (
        "maintain",
        &[
            "epoch-taken",
            "fenced",
            "order-intended",
            "order-done",
            "order-failed",
            "requested",
            "turned-back",
            "held",
        ],
    ),
    ("contract", &["order-intended", "order-done", "order-failed"]),
    ("restore", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    ("swap", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "turned-back"]),
    ("lift", &["order-intended", "order-done", "order-failed"]),
    ("unswap", &["order-intended", "order-done"]),
    ("unmaintain", &["fenced", "order-intended", "order-done", "order-failed", "held"]),
    ("route-back", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "held"]),
    ("conceal", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "held"]),
    ("link-back", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "held"]),
    ("discard", &["epoch-taken", "fenced", "order-intended", "order-done", "order-failed", "held"]),
    ("held", &["epoch-taken", "gates-read", "judged", "requested", "turned-back", "noted", "adopted"]),
];

/// The pairs of phase and event that were seen too seldom, each with how often it was.
pub fn below_floor(seen: &BTreeMap<(&'static str, &'static str), u64>) -> Vec<(String, u64)> {
    let pairs = FLOOR.iter().flat_map(|(phase, events)| events.iter().map(|event| (*phase, *event)));
    let times = pairs.map(|pair| (pair, seen.get(&pair).copied().unwrap_or(0)));
    let below = times.filter(|(_, times)| *times < AT_LEAST);
    below.map(|((phase, event), times)| (format!("{phase}/{event}"), times)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_too_seldom_is_named() {
        let all = || FLOOR.iter().flat_map(|(phase, events)| events.iter().map(|event| (*phase, *event)));
        let mut seen: BTreeMap<_, _> = all().map(|pair| (pair, AT_LEAST)).collect();
        assert_eq!(below_floor(&seen), []);
        seen.insert(("switch", "order-done"), AT_LEAST - 1);
        seen.remove(&("route-back", "order-intended"));
        let below =
            [("switch/order-done".to_owned(), AT_LEAST - 1), ("route-back/order-intended".to_owned(), 0)];
        assert_eq!(below_floor(&seen), below);
    }
}
