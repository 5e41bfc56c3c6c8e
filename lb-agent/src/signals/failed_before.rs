//! Visitors who failed before a release, whatever served them: a crawler at a page that is broken, a monitor, an application that is
//! stuck. A split pins a visitor to one side, so one that fails as it always did makes that side look worse, by chance. Who that is
//! was known before the release had any visitor: what it meets says nothing of it, and is counted apart.
//!
//! Only what they met on the slot that everybody was on when the release began counts: what an earlier release did to them on the
//! other one, and was turned back for, its second try may do again. Whoever begins to fail later is not told from somebody whom the
//! release fails, and is counted like everybody.

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
    /// The backend that served them last.
    backend: usize,
    /// The last outcomes there, the newest in the lowest bit: set where it failed.
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
    /// The newest route, by its epoch, and the backend of its first request.
    newest: (u64, usize),
    /// The release of that route, and the backend that served when it began: the last route of a release leads everybody to one.
    served: (u64, Option<usize>),
}

impl FailedBefore {
    /// Takes in the outcome of a request to a backend, and says whether its visitor had failed before the release of this route.
    pub fn take(&mut self, visitor: u32, epoch: u64, backend: usize, failed: bool) -> bool {
        let now = self.minute();
        if let Some(minute) = self.minutes.get_mut(Self::place(now)) {
            minute.requests = minute.requests.saturating_add(1);
            minute.failures = minute.failures.saturating_add(u64::from(failed));
        }
        let release = epoch / EPOCHS_OF_A_RELEASE;
        if epoch > self.newest.0 {
            if release > self.served.0 {
                self.served = (release, (self.newest.0 > 0).then_some(self.newest.1));
            }
            self.newest = (epoch, backend);
        }
        let served = self.served.1.filter(|_| release == self.served.0);
        let room = self.visitors.len() < MAX_VISITORS;
        let Some(found) = self.visitors.get_mut(&visitor) else {
            if failed && room {
                let new = Visitor { backend, outcomes: 1, known: 1, minute: now, release, before: false };
                self.visitors.insert(visitor, new);
            }
            return false;
        };
        // Judged by what they met until now, and once: whatever the release does to them changes nothing.
        if release > found.release {
            let there = served == Some(found.backend);
            (found.release, found.before) = (release, there && found.stands_out(&self.minutes));
        }
        if backend != found.backend {
            (found.backend, found.outcomes, found.known) = (backend, 0, 0);
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
    const BLUE: usize = 0;
    const GREEN: usize = 1;

    /// Seconds in which a hundred visitors are served well, and one is not.
    fn seconds(known: &mut FailedBefore, count: u64, epoch: u64, failing: bool) {
        for _ in 0..count {
            (100..200).for_each(|visitor| assert!(!known.take(visitor, epoch, BLUE, false)));
            known.take(ODD, epoch, BLUE, failing);
            known.close();
        }
    }

    #[test]
    fn whoever_failed_all_along_is_counted_apart_from_the_next_release_on() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        assert!(!known.take(ODD, 17, BLUE, true), "another split of the same release");
        assert!(known.take(ODD, 32, GREEN, true));
        // Also what they are served well, on any split of it; but not what an earlier route does to them.
        assert!(
            known.take(ODD, 33, GREEN, false)
                && known.take(ODD, 0, GREEN, true)
                && !known.take(ODD, 17, GREEN, true)
        );
        assert!(!known.take(ODD + 1, 33, GREEN, true));
    }

    #[test]
    fn whoever_fails_only_now_is_counted() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, false);
        for _ in 0..100 {
            assert!(!known.take(ODD, 32, GREEN, true));
        }
        // Two failures are anybody's.
        let mut known = FailedBefore::default();
        seconds(&mut known, 2, 16, true);
        assert!(!known.take(ODD, 32, GREEN, true));
    }

    #[test]
    fn whoever_has_recovered_is_counted() {
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        seconds(&mut known, 64, 16, false);
        assert!(known.visitors.is_empty() && !known.take(ODD, 32, GREEN, true));
        // So is who was away for as long as is remembered.
        let mut known = FailedBefore::default();
        seconds(&mut known, 20, 16, true);
        (0..MINUTE_S * (MINUTES as u64 + 2)).for_each(|_| known.close());
        assert!(known.visitors.is_empty() && !known.take(ODD, 32, GREEN, true));
    }

    /// A release that fails for one in a hundred is turned back, and tried again.
    #[test]
    fn whom_an_earlier_release_failed_is_counted_when_it_is_tried_again() {
        for comes_meanwhile in [true, false] {
            let mut known = FailedBefore::default();
            seconds(&mut known, 20, 16, false);
            for second in 0..20 {
                (100..200).for_each(|visitor| assert!(!known.take(visitor, 32, BLUE, false)));
                (0..if second < 10 { 4 } else { 0 }).for_each(|_| assert!(!known.take(ODD, 32, GREEN, true)));
                known.close();
            }
            // It is led back, and all is well.
            for _ in 0..20 {
                (100..200).for_each(|visitor| assert!(!known.take(visitor, 33, BLUE, false)));
                if comes_meanwhile {
                    assert!(!known.take(ODD, 33, BLUE, false));
                }
                known.close();
            }
            (100..200).for_each(|visitor| assert!(!known.take(visitor, 48, BLUE, false)));
            assert!(!known.take(ODD, 48, GREEN, true) && !known.take(ODD, 48, GREEN, true));
            // What fails there, too, was known before the one after that.
            (0..4).for_each(|_| assert!(!known.take(ODD, 49, BLUE, true)));
            assert!(known.take(ODD, 64, GREEN, true));
        }
    }

    #[test]
    fn after_a_fault_that_struck_everybody_nobody_is_counted_apart() {
        let mut known = FailedBefore::default();
        for _ in 0..5 {
            (100..200).for_each(|visitor| assert!(!known.take(visitor, 16, BLUE, true)));
            known.close();
        }
        // Minutes later all is well, but for one who has not come again until now.
        for _ in 0..300 {
            (100..199).for_each(|visitor| assert!(!known.take(visitor, 16, BLUE, false)));
            known.close();
        }
        (100..200).for_each(|visitor| assert!(!known.take(visitor, 32, BLUE, true)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = FailedBefore::default();
        (0..MAX_VISITORS as u32 * 2).for_each(|visitor| assert!(!known.take(visitor, 16, BLUE, true)));
        assert_eq!(known.visitors.len(), MAX_VISITORS);
    }
}
