//! Whether what is wrong with the new slot is wrong with the old one too: then going back would not help.

use super::tick::Sample;

/// How much of what was seen is kept each tick: about half a minute is remembered.
const KEPT: f64 = 0.97;

/// E-value of the old slot's absolute test from which it counts as struck. It is low on purpose: to hold wrongly costs a
/// page, to go back wrongly costs a release.
const STRUCK: f64 = 2.0;

/// Ticks for which the old slot counts as struck afterwards.
const STRUCK_TICKS: u64 = 120;

/// Requests of the old slot, decayed, below which its past says nothing about now.
const RECENT_REQUESTS: f64 = 1.0;

/// What is kept of what was seen so many ticks ago.
fn kept_after(ticks: u64) -> f64 {
    KEPT.powi(i32::try_from(ticks).unwrap_or(i32::MAX))
}

/// What happened lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lately {
    pub new_failed: f64,
    pub new_requests: f64,
    pub old_failed: f64,
    pub old_requests: f64,
    /// Ticks for which the old slot still counts as struck.
    pub struck_left: u64,
}

impl Lately {
    /// Takes in the sample of the last of `ticks` ticks; those before it had no data.
    pub fn step(&mut self, ticks: u64, sample: &Sample) {
        let kept = kept_after(ticks);
        self.new_failed = self.new_failed * kept + sample.new.over_limit;
        self.new_requests = self.new_requests * kept + sample.new.requests;
        self.old_failed = self.old_failed * kept + sample.old.over_limit;
        self.old_requests = self.old_requests * kept + sample.old.requests;
        self.struck_left = self.struck_left.saturating_sub(ticks);
    }

    /// Notes the e-value of the old slot's absolute test.
    pub fn note_old(&mut self, value: f64) {
        if value >= STRUCK {
            self.struck_left = STRUCK_TICKS;
        }
    }

    /// Whether both slots are struck, as far as can be told.
    pub fn sick(&self, ratio: f64) -> bool {
        let alike = self.new_failed * self.old_requests <= ratio * self.old_failed * self.new_requests;
        self.struck_left > 0 || (!self.old_is_silent() && alike)
    }

    /// Whether the old slot has had no requests for so long that nothing of it says how it fares now.
    pub fn old_is_silent(&self) -> bool {
        self.old_requests < RECENT_REQUESTS
    }

    /// The new slot's share of the requests, while the old one has some, after so many ticks more without data. Without them it is
    /// all, and nothing is beyond that.
    pub fn new_share(&self, silent: u64) -> Option<f64> {
        let recent = self.old_requests * kept_after(silent) >= RECENT_REQUESTS;
        recent.then(|| self.new_requests / (self.new_requests + self.old_requests))
    }

    /// The failing shares of the new and of the old slot.
    pub fn shares(&self) -> (Option<f64>, Option<f64>) {
        let share = |failed: f64, requests: f64| (requests >= RECENT_REQUESTS).then(|| failed / requests);
        (share(self.new_failed, self.new_requests), share(self.old_failed, self.old_requests))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tick::Slot;
    use super::*;

    fn sample(new: (f64, f64), old: (f64, f64)) -> Sample {
        let slot = |(requests, over_limit)| Slot { requests, over_limit, over_baseline: over_limit };
        Sample { new: slot(new), old: slot(old) }
    }

    #[test]
    fn a_shared_fault_is_shared() {
        let mut lately = Lately::default();
        (0..30).for_each(|_| lately.step(1, &sample((50.0, 15.0), (50.0, 15.0))));
        assert!(lately.sick(2.0));
    }

    #[test]
    fn a_fault_of_the_new_slot_alone_is_its_own() {
        let mut lately = Lately::default();
        (0..30).for_each(|_| lately.step(1, &sample((50.0, 15.0), (50.0, 1.0))));
        assert!(!lately.sick(2.0));
    }

    #[test]
    fn an_old_slot_without_traffic_says_nothing() {
        let mut lately = Lately::default();
        // As bad as the new one, but long ago.
        lately.step(1, &sample((50.0, 10.0), (50.0, 50.0)));
        (0..200).for_each(|_| lately.step(1, &sample((50.0, 10.0), (0.0, 0.0))));
        assert!(lately.old_requests > 0.0 && !lately.sick(2.0));
        assert_eq!(lately.shares().1, None);
    }

    #[test]
    fn struck_lasts_120_ticks() {
        let mut lately = Lately::default();
        lately.note_old(1.9);
        assert!(!lately.sick(2.0));
        lately.note_old(2.0);
        (0..119).for_each(|_| lately.step(1, &sample((1.0, 1.0), (0.0, 0.0))));
        assert!(lately.sick(2.0));
        let mut gap = lately;
        lately.step(1, &sample((1.0, 1.0), (0.0, 0.0)));
        gap.step(1, &sample((1.0, 1.0), (0.0, 0.0)));
        assert!(!lately.sick(2.0) && !gap.sick(2.0));
    }

    #[test]
    fn a_gap_is_so_many_empty_ticks() {
        let (mut gap, mut empty) = (Lately::default(), Lately::default());
        for lately in [&mut gap, &mut empty] {
            lately.step(1, &sample((50.0, 10.0), (40.0, 4.0)));
            lately.note_old(3.0);
        }
        (0..9).for_each(|_| empty.step(1, &Sample::default()));
        gap.step(10, &sample((1.0, 0.0), (1.0, 0.0)));
        empty.step(1, &sample((1.0, 0.0), (1.0, 0.0)));
        assert!((gap.new_failed - empty.new_failed).abs() < 1e-12);
        assert_eq!(gap.struck_left, empty.struck_left);
    }
}
