//! Visitors who failed before a release, whatever served them: a crawler at a page that is broken, a monitor, an application that is
//! stuck. A split pins a visitor to one side, so one that fails as it always did makes that side look worse, by chance. Who that is
//! was known before the release had any visitor: what it meets says nothing of it, and is counted apart.
//!
//! Whoever begins to fail later is not told from somebody whom the release fails, and is counted like everybody.

use std::collections::HashMap;

use pointsman_core::EPOCHS_OF_A_RELEASE;

/// Outcomes of one visitor that are remembered, the last ones: the bits of a word.
const OUTCOMES: u32 = u64::BITS;
/// Failures among them below which a visitor is like any other.
const FAILURES: u64 = 3;
/// How many times as often as those of everybody a visitor's requests must have failed, in each of the minutes that are remembered. So
/// whoever is counted apart makes up less than a tenth of the requests, and after a fault that struck many nobody is.
const TIMES_AS_OFTEN: u64 = 10;
/// Minutes that are remembered.
const MINUTES: usize = 15;
/// Seconds of one of them.
const MINUTE_S: u64 = 60;
/// Most visitors that are remembered, each for having failed: with more of them at once it is no matter of single ones.
const MAX_VISITORS: usize = 4_096;

/// One who failed lately.
#[derive(Clone, Copy, Debug)]
struct Visitor {
    /// The last outcomes, the newest in the lowest bit: set where it failed.
    outcomes: u64,
    /// How many of the bits are outcomes.
    known: u32,
    /// The minute in which they were here last.
    minute: u64,
    /// The release whose route brought them here last.
    release: u64,
    /// They had failed before it.
    before: bool,
}

/// Requests of everybody in a minute.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    requests: u64,
    failures: u64,
}

/// What is remembered of visitors who fail.
#[derive(Debug, Default)]
pub struct FailedBefore {
    visitors: HashMap<u32, Visitor>,
    minutes: [Minute; MINUTES],
    seconds: u64,
}

impl FailedBefore {
    /// Takes in the outcome of a request, and says whether its visitor had failed before the release of this route.
    pub fn take(&mut self, visitor: u32, epoch: u64, failed: bool) -> bool {
        let now = self.minute();
        if let Some(minute) = self.minutes.get_mut(Self::place(now)) {
            minute.requests = minute.requests.saturating_add(1);
            minute.failures = minute.failures.saturating_add(u64::from(failed));
        }
        let release = epoch / EPOCHS_OF_A_RELEASE;
        let room = self.visitors.len() < MAX_VISITORS;
        let Some(found) = self.visitors.get_mut(&visitor) else {
            if failed && room {
                let new = Visitor { outcomes: 1, known: 1, minute: now, release, before: false };
                self.visitors.insert(visitor, new);
            }
            return false;
        };
        // Judged by what they met until now, and once: whatever the release does to them changes nothing.
        if release > found.release {
            (found.release, found.before) = (release, found.stands_out(&self.minutes));
        }
        found.outcomes = found.outcomes << 1 | u64::from(failed);
        found.known = found.known.saturating_add(1).min(OUTCOMES);
        found.minute = now;
        let found = *found;
        if found.outcomes == 0 && !found.before {
            self.visitors.remove(&visitor);
        }
        // A line that does not say its route is of the last one; one of an earlier route is judged by nobody.
        found.before && (epoch == 0 || release == found.release)
    }

    /// Ends a second.
    pub fn close(&mut self) {
        self.seconds = self.seconds.saturating_add(1);
        if !self.seconds.is_multiple_of(MINUTE_S) {
            return;
        }
        let now = self.minute();
        if let Some(minute) = self.minutes.get_mut(Self::place(now)) {
            *minute = Minute::default();
        }
        let oldest = now.saturating_sub(MINUTES as u64);
        self.visitors.retain(|_, visitor| visitor.minute >= oldest);
    }

    fn minute(&self) -> u64 {
        self.seconds / MINUTE_S
    }

    fn place(minute: u64) -> usize {
        usize::try_from(minute % MINUTES as u64).unwrap_or_default()
    }
}

impl Visitor {
    fn stands_out(&self, minutes: &[Minute]) -> bool {
        let (failures, requests) = (u64::from(self.outcomes.count_ones()), u64::from(self.known));
        let more_than = |all: &Minute| {
            let theirs = failures.saturating_mul(all.requests);
            theirs >= all.failures.saturating_mul(TIMES_AS_OFTEN).saturating_mul(requests)
        };
        failures >= FAILURES && minutes.iter().all(more_than)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: u32 = 7;

    /// Seconds in which a hundred visitors are served well, and one is not.
    fn seconds(known: &mut FailedBefore, count: u64, epoch: u64, failing: bool) {
        for _ in 0..count {
            (100..200).for_each(|visitor| assert!(!known.take(visitor, epoch, false)));
            known.take(ODD, epoch, failing);
            known.close();
        }
    }

    #[test]
    fn whoever_failed_all_along_is_counted_apart_from_the_next_release_on() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        assert!(!known.take(ODD, 17, true), "another split of the same release");
        assert!(known.take(ODD, 32, true));
        // Also what they are served well, on any split of it; but not what an earlier route does to them.
        assert!(known.take(ODD, 33, false) && known.take(ODD, 0, true) && !known.take(ODD, 17, true));
        assert!(!known.take(ODD + 1, 33, true));
    }

    #[test]
    fn whoever_fails_only_now_is_counted() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, false);
        for _ in 0..100 {
            assert!(!known.take(ODD, 32, true));
        }
        // Two failures are anybody's.
        let mut known = FailedBefore::default();
        seconds(&mut known, 2, 16, true);
        assert!(!known.take(ODD, 32, true));
    }

    #[test]
    fn whoever_has_recovered_is_counted() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        seconds(&mut known, 64, 16, false);
        assert!(known.visitors.is_empty() && !known.take(ODD, 32, true));
        // So is who was away for as long as is remembered.
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        (0..MINUTE_S * (MINUTES as u64 + 2)).for_each(|_| known.close());
        assert!(known.visitors.is_empty() && !known.take(ODD, 32, true));
    }

    #[test]
    fn after_a_fault_that_struck_everybody_nobody_is_counted_apart() {
        let mut known = FailedBefore::default();
        for _ in 0..5 {
            (100..200).for_each(|visitor| assert!(!known.take(visitor, 16, true)));
            known.close();
        }
        // Minutes later all is well, but for one who has not come again until now.
        for _ in 0..300 {
            (100..199).for_each(|visitor| assert!(!known.take(visitor, 16, false)));
            known.close();
        }
        (100..200).for_each(|visitor| assert!(!known.take(visitor, 32, true)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = FailedBefore::default();
        (0..MAX_VISITORS as u32 * 2).for_each(|visitor| assert!(!known.take(visitor, 16, true)));
        assert_eq!(known.visitors.len(), MAX_VISITORS);
    }
}
