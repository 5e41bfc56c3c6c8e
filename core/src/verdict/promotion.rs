//! Evidence that the new slot is good: without it nothing is promoted, however long nothing bad was seen.

use super::ratio::{Blame, blamed_share};
use super::tick::Sample;

/// Better alternatives that are weighed at once.
pub const ALTERNATIVES: usize = 6;

/// Better rates, as multiples of the boundary.
const BETTER_RATES: [f64; ALTERNATIVES] = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9];

/// Better ratios, as multiples of the ratio that is allowed.
const BETTER_RATIOS: [f64; ALTERNATIVES] = [0.05, 0.15, 0.3, 0.5, 0.7, 0.85];

/// Largest logarithm of evidence whose exponential is finite by far; more says nothing more.
const MAX_LN: f64 = 690.0;

/// The mean of the exponentials.
fn mean_exp(lns: impl Iterator<Item = f64>) -> f64 {
    lns.map(|ln| ln.min(MAX_LN).exp()).sum::<f64>() / ALTERNATIVES as f64
}

/// Evidence against "at least `m0` of the requests are bad", after `bad` of `all`. Failures in bunches say less than
/// their number: their dispersion divides the logarithm.
///
/// `bad` need not be whole: what would be, if it went on like this, is asked in the same way.
pub fn against_rate(bad: f64, all: f64, m0: f64, dispersion: f64) -> f64 {
    mean_exp(BETTER_RATES.iter().map(|times| {
        let q = m0 * times;
        // `ln_1p` of the difference keeps digits when both rates are tiny.
        let ln_good = ((m0 - q) / (1.0 - m0)).ln_1p();
        (bad * times.ln() + (all - bad) * ln_good) / dispersion
    }))
}

/// Evidence against "the new slot fails at least `ratio` times as often as the old one": a sum of logarithms for each
/// alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    pub(super) sums: [f64; ALTERNATIVES],
}

impl Comparison {
    /// Takes in one tick; one in which there is nothing to compare changes nothing.
    pub(super) fn step(&mut self, sample: &Sample, ratio: f64) {
        if let Some(blame) = Blame::of(sample) {
            self.add(&blame, ratio);
        }
    }

    /// What one request of the new slot adds on average, where both slots fail alike and it has this share of the requests.
    /// Nothing where one of them has all.
    pub(super) fn of_equals(bad: f64, new_share: f64, ratio: f64) -> Self {
        let mut each = Self::default();
        if new_share > 0.0 && new_share < 1.0 {
            each.add(&Blame { new_share, new: bad, old: bad * (1.0 - new_share) / new_share }, ratio);
        }
        each
    }

    fn add(&mut self, blame: &Blame, ratio: f64) {
        let boundary = blamed_share(blame.new_share, ratio);
        for (sum, times) in self.sums.iter_mut().zip(BETTER_RATIOS) {
            let better = blamed_share(blame.new_share, ratio * times);
            *sum +=
                blame.new * (better / boundary).ln() + blame.old * ((1.0 - better) / (1.0 - boundary)).ln();
        }
    }

    /// With so many times `each` beside it.
    pub(super) fn plus(mut self, times: f64, each: &Self) -> Self {
        self.sums.iter_mut().zip(each.sums).for_each(|(sum, each)| *sum += times * each);
        self
    }

    /// The evidence.
    pub fn value(&self, dispersion: f64) -> f64 {
        mean_exp(self.sums.iter().map(|sum| sum / dispersion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_negative_never_infinite(all in 0.0..1e12f64, share in 0.0..=1.0f64, m0 in 1e-6..0.5f64) {
            let value = against_rate(all * share, all, m0, 1.0);
            prop_assert!(value.is_finite() && value >= 0.0);
        }

        #[test]
        fn bunches_say_less(all in 0.0..1e5f64, dispersion in 1.0..50.0f64) {
            let good = against_rate(0.0, all, 0.01, dispersion);
            prop_assert!(good <= against_rate(0.0, all, 0.01, 1.0) + 1e-9);
        }

        #[test]
        fn more_failures_say_less(bad in 0.0..100.0f64, more in 0.0..100.0f64, all in 200.0..1e5f64) {
            let value = |bad| against_rate(bad, all, 0.01, 1.0);
            prop_assert!(value(bad + more) <= value(bad));
        }
    }
}
