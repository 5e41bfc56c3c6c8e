//! Kayenta: a rank test of one-minute points of both slots, judged every five minutes over all of them.
//!
//! The interval comes from rank quantiles of the pairwise differences, as the normal approximation of the test gives
//! them; outliers stay in.

use super::Looks;
use crate::rule::{Call, Rule};
use crate::traffic::{Second, Seen};

/// Seconds that one point is about.
const POINT: u64 = 60;
/// Seconds between two judgements.
const JUDGED: u64 = 300;
/// The normal quantile of an interval of 98 %.
const Z: f64 = 2.326_347_874;
/// The share of the shift by which the interval must miss zero.
const TOLERANCE: f64 = 0.25;

/// The judge of Kayenta with one metric.
#[derive(Clone, Debug)]
pub struct Kayenta {
    looks: Looks,
    window: (Seen, Seen),
    new: Vec<f64>,
    old: Vec<f64>,
}

impl Kayenta {
    /// Nothing seen.
    pub fn new(looks: Looks) -> Self {
        Self { looks, window: (Seen::default(), Seen::default()), new: Vec::new(), old: Vec::new() }
    }

    /// Whether the new slot's points are higher.
    fn high(&self) -> bool {
        let mut shifts: Vec<f64> =
            self.new.iter().flat_map(|new| self.old.iter().map(move |old| new - old)).collect();
        shifts.sort_unstable_by(f64::total_cmp);
        let (new, old) = (self.new.len() as f64, self.old.len() as f64);
        let reach = Z * (new * old * (new + old + 1.0) / 12.0).sqrt();
        let rank = (new * old / 2.0 - reach).floor().max(0.0) as usize;
        let middle = shifts.len() / 2;
        // The middle shift is the estimate of Hodges and Lehmann; of an even number it is the mean of two.
        let upper = shifts.get(middle).copied().unwrap_or(0.0);
        let lower = shifts.get(middle.saturating_sub(1)).copied().unwrap_or(upper);
        let shift = if shifts.len().is_multiple_of(2) { f64::midpoint(lower, upper) } else { upper };
        shifts.get(rank).is_some_and(|low| *low > TOLERANCE * shift.abs())
    }
}

impl Rule for Kayenta {
    fn see(&mut self, at: u64, second: &Second) -> Option<Call> {
        self.window = (self.window.0.plus(&second.new), self.window.1.plus(&second.old));
        if at.is_multiple_of(POINT) {
            let (new, old) = std::mem::take(&mut self.window);
            self.new.extend(self.looks.value(&new));
            self.old.extend(self.looks.value(&old));
        }
        (at.is_multiple_of(JUDGED) && self.high()).then_some(Call::Rollback)
    }
}
