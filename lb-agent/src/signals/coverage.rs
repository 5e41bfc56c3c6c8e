//! How complete the lines are, by HAProxy's own counters.
//!
//! HAProxy counts a request on its backend's row when it is over, right before it writes the line; so the growth of those
//! counters is what lines are due for, and requests that are still running are in neither. Each worker counts from zero:
//! growth is taken per process, and never over a counter that fell.
//!
//! More lines than requests are no better than fewer: somebody makes lines up. What came too late, or before it was counted, is
//! known to be little, but where a worker has ended, and in the first seconds, when a ring sends what it has kept.
//!
//! A worker that ends takes with it what it counted since it was last looked at, and one that was reloaded away writes no
//! lines of that: neither side knows of these requests. Where they may be many, coverage is unknown.

use std::collections::{BTreeMap, VecDeque};

use pointsman_core::BackendName;
use pointsman_core::signal::{Coverage, Growth};

/// How far back coverage is judged. Long enough that the few lines on their way at either end do not matter, short enough
/// that a loss is seen, and forgotten, within seconds.
const WINDOW_MS: u64 = 10_000;

/// Counters that were not read for so long say nothing of now: what grew since then is not compared with anything.
const STALE_MS: u64 = 3_000;

/// Lines that may be on their way when the counters are read: this part of those in the window, and at least so many.
const ON_THE_WAY_PART: u64 = 500;
const ON_THE_WAY_LEAST: u64 = 3;

/// Coverage is unknown where more than this part of the requests of the window may have been counted by workers that ended
/// before they were looked at: more could hide what latencies are not to be spoken of for.
const UNSEEN_PART: u64 = 100;

/// Workers that are remembered; of more the older ones have ended long ago.
const KNOWN_WORKERS: usize = 64;

/// What a worker's counters stand at, by backend.
pub type Counters = BTreeMap<BackendName, Growth>;

/// How many lines were ever counted, by backend: all backends that are looked at, also those without a line.
pub type Lines = BTreeMap<BackendName, u64>;

/// One look at all workers.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, in milliseconds of a clock that only goes forward.
    pub at_ms: u64,
    /// Each worker's counters, by process.
    pub workers: BTreeMap<u32, Counters>,
    /// Lines that had been counted before the counters were read, and when they had been.
    pub lines: (Lines, Lines),
}

/// How complete the lines are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complete {
    /// Of all backends together. What one has too many of does not make up for what another lacks.
    pub whole: Coverage,
    /// Of each backend. Where more lines came than there were requests, the requests are so many of the lines.
    pub backends: BTreeMap<BackendName, Coverage>,
    /// The backend of which far more lines came than there were requests.
    pub made_up: Option<BackendName>,
}

/// Where one backend stands at a look.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Requests by the counters, in all.
    expected: u64,
    /// Lines before the counters were read, and those that count for this look.
    lines: (u64, u64),
    /// Lines that had been counted when the counters had just been read.
    read: u64,
}

#[derive(Clone, Debug)]
struct Mark {
    at_ms: u64,
    /// Requests that workers may have ended after they were last looked at, in all.
    unseen: u64,
    /// Workers that had ended by now; at the first look of all nobody knows.
    ended: Option<u64>,
    flows: BTreeMap<BackendName, Flow>,
}

impl Mark {
    fn flow(&self, backend: &BackendName) -> Flow {
        self.flows.get(backend).copied().unwrap_or_default()
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    last: BTreeMap<u32, Counters>,
    /// Requests that each worker of the last look ended in the stretch before it.
    lately: BTreeMap<u32, u64>,
    marks: VecDeque<Mark>,
    /// Growth that no tick has taken yet.
    grown: Counters,
    /// What the last look that is over has found, and when it began.
    judged: Option<(u64, Complete)>,
}

fn fell(before: &Growth, now: &Growth) -> bool {
    now.requests < before.requests || now.retries < before.retries || now.responses_5xx < before.responses_5xx
}

fn between(before: Growth, now: Growth) -> Growth {
    Growth {
        requests: now.requests.saturating_sub(before.requests),
        responses_5xx: now.responses_5xx.saturating_sub(before.responses_5xx),
        connection_errors: now.connection_errors.saturating_sub(before.connection_errors),
        response_errors: now.response_errors.saturating_sub(before.response_errors),
        retries: now.retries.saturating_sub(before.retries),
        client_aborts: now.client_aborts.saturating_sub(before.client_aborts),
    }
}

/// Lines that may be on their way at a moment.
fn on_the_way(expected: u64) -> u64 {
    (expected / ON_THE_WAY_PART).max(ON_THE_WAY_LEAST)
}

/// How many lines there can be between two looks: those of the requests, those that came while HAProxy's counters were read, and
/// those on their way at either end.
fn most(first: &Flow, last: &Flow, expected: u64) -> u64 {
    let meanwhile = |flow: &Flow| flow.read.saturating_sub(flow.lines.0);
    let more = meanwhile(first).saturating_add(meanwhile(last)).saturating_add(2 * on_the_way(expected));
    expected.saturating_add(more)
}

impl Watch {
    /// Takes a look in.
    pub fn take(&mut self, look: Look) {
        let begins = self.marks.back().is_none_or(|mark| look.at_ms.saturating_sub(mark.at_ms) > STALE_MS);
        if begins {
            self.marks.clear();
            self.last.clear();
            self.lately.clear();
            self.judged = None;
        }
        let mut flows = self.marks.back().map(|mark| mark.flows.clone()).unwrap_or_default();
        let unseen = self.unseen_with(&look);
        let gone = self.lately.keys().filter(|pid| !look.workers.contains_key(pid)).count();
        let before = self.marks.back().map(|mark| mark.ended.unwrap_or(0));
        let ended = before.map(|ended| ended.saturating_add(u64::try_from(gone).unwrap_or(u64::MAX)));
        self.lately.clear();
        for (pid, counters) in &look.workers {
            for (backend, now) in counters {
                let before = match self.last.get(pid).and_then(|counters| counters.get(backend)) {
                    Some(before) if !fell(before, now) => *before,
                    // Counters that were cleared, or those of the first look of all: nothing is known of what grew.
                    Some(_) => *now,
                    None if begins => *now,
                    // A worker that was not there a second ago has counted everything since.
                    None => Growth::default(),
                };
                let growth = between(before, *now);
                let flow = flows.entry(backend.clone()).or_default();
                flow.expected = flow.expected.saturating_add(growth.requests);
                let lately = self.lately.entry(*pid).or_default();
                *lately = lately.saturating_add(growth.requests);
                self.grown.entry(backend.clone()).or_default().add(growth);
            }
        }
        // A worker that one look missed is not taken for a new one by the next.
        if self.last.len() > KNOWN_WORKERS {
            self.last.clear();
        }
        self.last.extend(look.workers);
        let (at_ms, (before, read)) = (look.at_ms, look.lines);
        for (backend, read) in read {
            let before = before.get(&backend).copied().unwrap_or(read);
            let flow = flows.entry(backend).or_default();
            (flow.lines, flow.read) = ((before, read), read);
        }
        self.marks.push_back(Mark { at_ms, unseen, ended, flows });
        while self.marks.len() > 2
            && self.marks.get(1).is_some_and(|mark| at_ms.saturating_sub(mark.at_ms) >= WINDOW_MS)
        {
            self.marks.pop_front();
        }
    }

    /// What workers may have ended unseen, with those that this look does not find any more. A worker that was reloaded away
    /// only loses connections, so it is taken to have done no more than in the stretch before.
    fn unseen_with(&self, look: &Look) -> u64 {
        let gone = self.lately.iter().filter(|(pid, _)| !look.workers.contains_key(pid));
        let before = self.marks.back().map_or(0, |mark| mark.unseen);
        gone.fold(before, |unseen, (_, lately)| unseen.saturating_add(*lately))
    }

    /// Counts lines that were still on their way when the counters were read. Says whether more of them matter.
    ///
    /// Only a few may be: with many, what came later would make up for what was lost before.
    pub fn settle(&mut self, lines: &Lines) -> bool {
        if self.marks.len() < 2 {
            return true;
        }
        let Some(mut last) = self.marks.pop_back() else { return true };
        let first = self.marks.front();
        let mut settled = true;
        for (backend, flow) in &mut last.flows {
            let first = first.map(|mark| mark.flow(backend)).unwrap_or_default();
            let expected = flow.expected.saturating_sub(first.expected);
            let most = flow.read.saturating_add(on_the_way(expected));
            let so_far = lines.get(backend).copied().unwrap_or(flow.lines.1);
            flow.lines.1 = so_far.clamp(flow.lines.1, most.max(flow.lines.1));
            settled &= flow.lines.1 == most || flow.lines.1.saturating_sub(first.lines.0) >= expected;
        }
        self.marks.push_back(last);
        settled
    }

    fn span(&self) -> Option<(&Mark, &Mark)> {
        self.marks.front().zip(self.marks.back()).filter(|_| self.marks.len() > 1)
    }

    /// Ends a look: what has not come by now does not count for it.
    ///
    /// Lines are counted from before the first look until a little after the last, so that one on its way is not taken for
    /// a lost one. What that hides is about two thousandths.
    pub fn judge(&mut self) {
        let judged = self.span().and_then(|(first, last)| {
            let mut complete = Complete::default();
            for (backend, flow) in &last.flows {
                let since = first.flow(backend);
                let seen = flow.lines.1.saturating_sub(since.lines.0);
                let expected = flow.expected.saturating_sub(since.expected);
                let mut coverage = Coverage { seen, expected };
                if first.ended == last.ended && seen > most(&since, flow, expected) {
                    coverage = Coverage { seen: expected, expected: seen };
                    if !coverage.sufficient() {
                        complete.made_up.get_or_insert_with(|| backend.clone());
                    }
                }
                complete.whole = complete.whole.merge(coverage);
                complete.backends.insert(backend.clone(), coverage);
            }
            let unseen = last.unseen.saturating_sub(first.unseen);
            let known = unseen.saturating_mul(UNSEEN_PART) <= complete.whole.expected;
            known.then_some((last.at_ms, complete))
        });
        self.judged = judged;
    }

    /// How complete the lines of the last seconds are; `None` while the counters cannot be read.
    pub fn complete(&self, now_ms: u64) -> Option<&Complete> {
        let (at_ms, complete) = self.judged.as_ref()?;
        (now_ms.saturating_sub(*at_ms) <= STALE_MS).then_some(complete)
    }

    /// What grew since this was asked last.
    pub fn grown(&mut self) -> Counters {
        std::mem::take(&mut self.grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blue() -> BackendName {
        "be_blue".parse().unwrap()
    }

    fn look(at_s: u64, workers: &[(u32, u64)], lines: u64) -> Look {
        let counters = |requests| Counters::from([(blue(), Growth { requests, ..Growth::default() })]);
        let workers = workers.iter().map(|(pid, requests)| (*pid, counters(*requests))).collect();
        Look { at_ms: at_s * 1000, workers, lines: (of_blue(lines), of_blue(lines)) }
    }

    fn of_blue(lines: u64) -> Lines {
        Lines::from([(blue(), lines)])
    }

    impl Watch {
        fn coverage(&self, now_ms: u64) -> Option<Coverage> {
            self.complete(now_ms).map(|complete| complete.whole)
        }
    }

    fn after(looks: &[Look]) -> (Option<Coverage>, u64) {
        let mut watch = Watch::default();
        looks.iter().for_each(|look| taken(&mut watch, look.clone()));
        let now = looks.last().map_or(0, |look| look.at_ms);
        (watch.coverage(now), watch.grown().get(&blue()).map_or(0, |growth| growth.requests))
    }

    fn taken(watch: &mut Watch, look: Look) {
        watch.take(look);
        watch.judge();
    }

    fn coverage(seen: u64, expected: u64) -> Option<Coverage> {
        Some(Coverage { seen, expected })
    }

    #[test]
    fn one_look_says_nothing_and_two_say_what_grew() {
        assert_eq!(after(&[look(1, &[(7, 500)], 0)]), (None, 0));
        assert_eq!(after(&[look(1, &[(7, 500)], 20), look(2, &[(7, 600)], 119)]), (coverage(99, 100), 100));
    }

    #[test]
    fn a_reload_is_no_loss_and_nothing_is_negative() {
        let looks = [
            look(1, &[(7, 500)], 0),
            look(2, &[(7, 600)], 100),
            // The new worker counts from zero while the old one ends its connections.
            look(3, &[(7, 640), (8, 60)], 200),
            look(4, &[(7, 641), (8, 159)], 300),
            look(5, &[(8, 259)], 400),
        ];
        assert_eq!(after(&looks), (coverage(400, 400), 400));
    }

    #[test]
    fn a_worker_that_one_look_missed_is_no_new_one() {
        let looks = [look(1, &[(7, 500)], 0), look(2, &[(8, 10)], 10), look(3, &[(7, 505), (8, 20)], 25)];
        assert_eq!(after(&looks), (coverage(25, 25), 25));
    }

    #[test]
    fn what_a_worker_did_before_it_ended_unseen_makes_coverage_unknown() {
        let mut watch = Watch::default();
        for second in 0..=5 {
            taken(&mut watch, look(second, &[(7, second * 600)], second * 600));
        }
        assert_eq!(watch.coverage(5_000), coverage(3_000, 3_000));
        // Reloaded right after: the old worker answered 300 visitors more, wrote no line of that and was gone within the
        // second. What is left to compare agrees, and says nothing.
        for second in 6..=20 {
            taken(&mut watch, look(second, &[(8, (second - 5) * 600 - 300)], second * 600 - 300));
            let known = watch.coverage(second * 1000).is_some();
            assert_eq!(known, second > 15, "second {second}: {:?}", watch.coverage(second * 1000));
        }
    }

    #[test]
    fn lines_on_their_way_are_not_lost_and_later_ones_make_up_for_no_loss() {
        let mut watch = Watch::default();
        taken(&mut watch, look(1, &[(7, 0)], 0));
        taken(&mut watch, look(2, &[(7, 62)], 60));
        assert!(!watch.settle(&of_blue(61)));
        assert!(watch.settle(&of_blue(62)));
        watch.judge();
        assert_eq!(watch.coverage(2_000), coverage(62, 62));
        // A hundred were lost: what comes while we wait does not hide it.
        taken(&mut watch, look(3, &[(7, 10_162)], 10_060));
        assert!(watch.settle(&of_blue(10_162)));
        watch.judge();
        assert_eq!(watch.coverage(3_000), coverage(10_080, 10_162));
    }

    /// A slot of whose requests no line comes is one in two hundred of all, and its own whole.
    #[test]
    fn a_backend_without_lines_does_not_hide_behind_a_busy_one() {
        let green: BackendName = "be_green".parse().unwrap();
        let mut watch = Watch::default();
        for second in 0..=5u64 {
            let counted = |requests| Growth { requests, ..Growth::default() };
            let counters = [(blue(), counted(second * 1_000)), (green.clone(), counted(second * 5))];
            let lines = Lines::from([(blue(), second * 1_001), (green.clone(), 0)]);
            watch.take(Look {
                at_ms: second * 1_000,
                workers: [(7, counters.into())].into(),
                lines: (lines.clone(), lines.clone()),
            });
            assert!(second == 0 || !watch.settle(&lines), "the lines of one are waited for");
            watch.judge();
        }
        let complete = watch.complete(5_000).unwrap();
        assert!(complete.whole.sufficient(), "{complete:?}");
        // What the busy one has too many of counts for nobody.
        assert_eq!(complete.whole, Coverage { seen: 5_000, expected: 5_025 });
        assert_eq!(complete.backends.get(&green), Some(&Coverage { seen: 0, expected: 25 }));
        assert!(complete.backends.get(&blue()).unwrap().sufficient());
    }

    /// On a busy slot, and on one that nobody asks.
    #[test]
    fn more_lines_than_requests_are_not_believed() {
        for (requests, lines, believed) in
            [(100, 100, true), (100, 101, true), (100, 130, false), (0, 0, true), (0, 40, false)]
        {
            let mut watch = Watch::default();
            for second in 0..=20 {
                taken(&mut watch, look(second, &[(7, second * requests)], second * lines));
                // At first a ring may send what it has kept.
                let known = watch.coverage(second * 1000).is_none_or(Coverage::sufficient);
                assert!(second > 10 || known, "second {second}");
            }
            let complete = watch.complete(20_000).unwrap();
            assert_eq!(complete.whole.sufficient(), believed, "{requests} {lines}: {complete:?}");
            assert_eq!(complete.made_up, (!believed).then(blue), "{requests} {lines}");
        }
    }

    /// What comes while the counters are read is in one of both only.
    #[test]
    fn lines_that_come_during_a_long_look_are_no_made_up_ones() {
        let mut watch = Watch::default();
        for second in 0..=20 {
            let at = |requests: u64| of_blue(second * 1_000 + requests);
            watch.take(Look { lines: (at(0), at(300)), ..look(second, &[(7, second * 1_000)], 0) });
            watch.judge();
        }
        assert_eq!(watch.complete(20_000).unwrap().made_up, None);
    }

    #[test]
    fn counters_that_fall_begin_anew() {
        let looks = [look(1, &[(7, 500)], 0), look(2, &[(7, 10)], 10), look(3, &[(7, 20)], 20)];
        assert_eq!(after(&looks).1, 10);
    }

    #[test]
    fn what_grew_while_nobody_looked_is_not_compared() {
        let looks = [look(1, &[(7, 500)], 0), look(2, &[(7, 600)], 100), look(30, &[(7, 9_000)], 100)];
        assert_eq!(after(&looks).0, None);
        let mut watch = Watch::default();
        looks.iter().take(2).for_each(|look| taken(&mut watch, look.clone()));
        assert_eq!(watch.coverage(2_000 + STALE_MS), coverage(100, 100));
        assert_eq!(watch.coverage(2_001 + STALE_MS), None);
    }

    #[test]
    fn a_loss_is_forgotten_after_the_window() {
        let mut watch = Watch::default();
        for second in 0..40 {
            let lost = if second > 5 { 50 } else { 0 };
            taken(&mut watch, look(second, &[(7, second * 100)], second * 100 - lost.min(second * 100)));
            let whole = watch.coverage(second * 1000).is_none_or(Coverage::sufficient);
            assert_eq!(
                whole,
                !(6..=15).contains(&second),
                "second {second}: {:?}",
                watch.coverage(second * 1000)
            );
        }
    }

    proptest! {
        /// Whatever workers come and go: nothing grows that did not, and with no line lost coverage is whole.
        #[test]
        fn no_loss_is_never_taken_for_one(steps in prop::collection::vec((0u64..200, any::<bool>(), 0u64..50), 2..30)) {
            let (mut watch, mut workers, mut lines) = (Watch::default(), vec![(1u32, 1_000u64)], 0);
            taken(&mut watch, look(0, &workers, 0));
            for (second, (requests, reloads, tail)) in (1..).zip(steps) {
                if reloads {
                    // The old worker goes: what it did after it was last seen came as lines, and is in no counter.
                    let next = workers.last().map_or(1, |(pid, _)| pid + 1);
                    if workers.len() > 1 { workers.remove(0); lines += tail; }
                    workers.push((next, 0));
                }
                if let Some(worker) = workers.last_mut() { worker.1 += requests; }
                lines += requests;
                taken(&mut watch, look(second, &workers, lines));
                prop_assert!(watch.coverage(second * 1000).unwrap().sufficient());
                let grown = watch.grown().get(&blue()).map_or(0, |growth| growth.requests);
                prop_assert_eq!(grown, requests);
            }
        }
    }
}
