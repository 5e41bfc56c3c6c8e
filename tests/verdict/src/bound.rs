//! What no test can beat, however clever.

use pointsman_core::verdict::{Choices, divergence, least_requests};

use crate::traffic::Load;

/// Steps of the search for the healthy pair of slots that is hardest to tell from the sick one.
const STEPS: u32 = 20_000;

/// Mean number of requests of the whole site that any test needs to see that the new slot fails too often, when it may be
/// wrong with the chance that ours may (Wald 1945).
///
/// A release is healthy if the new slot keeps to the limit, and to the floor or to the ratio. The bound is for the
/// healthy pair of rates that looks most like the one at hand.
pub fn least_site_requests(load: &Load, new: f64, old: f64) -> f64 {
    let choices = Choices::default();
    let bounds = choices.errors;
    let per_request = |new_healthy: f64, old_healthy: f64| {
        let ours = if new > new_healthy { divergence(new, new_healthy) } else { 0.0 };
        let theirs = if old < old_healthy { divergence(old, old_healthy) } else { 0.0 };
        load.split * ours + (1.0 - load.split) * theirs
    };
    let by_ratio = (1..=STEPS).map(|step| {
        let healthy = bounds.limit * f64::from(step) / f64::from(STEPS);
        per_request(healthy, healthy / bounds.ratio)
    });
    let by_floor = per_request(bounds.floor, 0.0);
    let hardest = by_ratio.fold(by_floor, f64::min);
    // The logarithm of the chance is all that is taken from this; the divergence is the one just found.
    let nats = least_requests(new, bounds.limit, choices.false_rollback) * divergence(new, bounds.limit);
    nats / hardest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bounds() {
        let half = Load { per_second: 100.0, split: 0.5 };
        let tenth = Load { per_second: 100.0, split: 0.1 };
        let known = [
            (half, 0.015, 3_955.0),
            (half, 0.02, 2_189.0),
            (half, 0.05, 316.0),
            (half, 0.2, 32.0),
            (tenth, 0.015, 10_573.0),
            (tenth, 0.05, 1_099.0),
            (tenth, 1.0, 14.9),
        ];
        for (load, new, expected) in known {
            let found = least_site_requests(&load, new, 0.001);
            assert!((found / expected - 1.0).abs() < 0.02, "{new}: {found} is not {expected}");
        }
    }
}
