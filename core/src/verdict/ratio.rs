//! The comparison of the new slot with the old one at the same time.
//!
//! It asks of every failure which slot it hit. If the new slot may fail `ratio` times as often as the old one, its share of
//! the failures is bounded by its share of the requests of the same tick. What hits both slots cancels, and the split may
//! move while it is watched.

use super::cell::{ALTERNATIVES, Grid};
use super::tick::Sample;

/// Worse ratios, as multiples of the ratio that is allowed: `1 + 2^(k-2)`.
const WORSE: [f64; ALTERNATIVES] = [1.25, 1.5, 2.0, 3.0, 5.0, 9.0, 17.0, 33.0, 65.0, 129.0];

/// Share of the failures that hits the new slot when it has `new_share` of the requests and fails `ratio` times as often
/// as the old one.
pub(super) fn blamed_share(new_share: f64, ratio: f64) -> f64 {
    new_share * ratio / (new_share * ratio + 1.0 - new_share)
}

/// Shares that blame the new slot, when it has `new_share` of the requests and may fail `ratio` times as often.
pub fn relative(new_share: f64, ratio: f64) -> Grid {
    Grid::new(blamed_share(new_share, ratio), WORSE.map(|times| blamed_share(new_share, ratio * times)))
}

/// One tick as the comparison sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Blame {
    /// The new slot's share of the requests.
    pub new_share: f64,
    /// Failures of the new slot.
    pub new: f64,
    /// Failures of the old slot.
    pub old: f64,
}

impl Blame {
    /// `None` without requests on both slots and a failure on one of them: then there is nothing to compare.
    pub fn of(sample: &Sample) -> Option<Self> {
        let (new, old) = (sample.new, sample.old);
        let comparable =
            new.requests > 0.0 && old.requests > 0.0 && new.over_baseline + old.over_baseline > 0.0;
        comparable.then(|| Self {
            new_share: new.requests / (new.requests + old.requests),
            new: new.over_baseline,
            old: old.over_baseline,
        })
    }

    /// Share of the failures that hit the new slot.
    pub fn share(self) -> f64 {
        self.new / (self.new + self.old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_slots_share_by_traffic() {
        for share in [0.01, 0.1, 0.5, 0.99] {
            assert!((blamed_share(share, 1.0) - share).abs() < 1e-12);
        }
        assert!((blamed_share(0.5, 2.0) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_compare_is_no_data() {
        let sample = |new: (f64, f64), old: (f64, f64)| {
            let slot =
                |(requests, bad)| super::super::tick::Slot { requests, over_limit: 0.0, over_baseline: bad };
            Sample { new: slot(new), old: slot(old) }
        };
        assert_eq!(Blame::of(&sample((5.0, 5.0), (0.0, 0.0))), None);
        assert_eq!(Blame::of(&sample((0.0, 0.0), (5.0, 5.0))), None);
        assert_eq!(Blame::of(&sample((5.0, 0.0), (5.0, 0.0))), None);
        let blame = Blame::of(&sample((10.0, 3.0), (30.0, 1.0))).unwrap();
        assert_eq!((blame.new_share, blame.share()), (0.25, 0.75));
    }
}
