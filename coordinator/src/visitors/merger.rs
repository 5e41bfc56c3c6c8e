//! Puts the seconds of all load balancers together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pointsman_core::ports::Mark;
use pointsman_core::signal::{Coverage, SUFFICIENT_PERCENT, Tick};
use pointsman_core::{Code, HostName, Problem};
use tokio::time::Instant;

use super::reading::{MOST_IN_BURST, Report, Ticked, has_none};

/// How long a second is kept open for a load balancer that is late, from the first one that has told of it.
pub(crate) const LATE: Duration = Duration::from_millis(1_500);
/// How long after a start each load balancer that another coordinator has heard is waited for, until it tells what came
/// since: without it all those seconds would be incomplete. Shorter than what takes visitors out of sight.
const ALL_BACK: Duration = Duration::from_secs(4);
/// For so many seconds coverage may be unknown: a reload takes 10. Whoever counts no lines and cannot read HAProxy's counters
/// would look for ever like a load balancer without visitors.
const UNKNOWN_S: u32 = 15;
/// A second that has just ended, and is so many before one that was sent: the coordinator's clock was set back.
const SET_BACK_S: u64 = 10;
/// Seconds that are open at once: more would be a clock that jumps.
const OPEN_SECONDS: usize = 8;

/// A second that not every load balancer has told of yet.
struct Second {
    merged: Tick,
    told: BTreeSet<HostName>,
    /// What was wrong with the lines of those who told, as it was then.
    troubles: BTreeMap<HostName, Problem>,
    marks: BTreeMap<HostName, Mark>,
    until: Instant,
    /// Whoever told of it first did so late: it is one of a burst, which has an end.
    late: bool,
}

/// Who told of a second.
struct Told {
    host: HostName,
    mark: Mark,
    /// What is wrong with its lines.
    trouble: Option<Problem>,
}

/// Puts the seconds of all load balancers together.
pub(crate) struct Merger {
    balancers: Vec<HostName>,
    open: BTreeMap<u64, Second>,
    /// The newest second that was sent.
    sent: u64,
    /// How far each load balancer is read with everything up to that second.
    read: BTreeMap<HostName, Mark>,
    /// Load balancers that another coordinator has heard, and that have not told anything since; and how long that is waited
    /// for, also where one is silent at first.
    expected: BTreeSet<HostName>,
    expected_until: Instant,
    /// Load balancers that tell nothing.
    silent: BTreeMap<HostName, Problem>,
    /// For how many of its seconds in a row each load balancer has not told how complete its lines are.
    unknown_s: BTreeMap<HostName, u32>,
}

/// A second that is to be sent.
pub(crate) struct Whole {
    pub(crate) second: u64,
    pub(crate) merged: Tick,
    pub(crate) told: BTreeSet<HostName>,
    /// What was wrong then with the lines of those who told. Of a second that is caught up that is not what is wrong now.
    pub(crate) troubles: BTreeMap<HostName, Problem>,
    /// How far each load balancer is read with it and everything before it.
    pub(crate) read: BTreeMap<HostName, Mark>,
}

impl Merger {
    pub(crate) fn new(balancers: &[HostName]) -> Self {
        Self::going_on(balancers, BTreeMap::new(), Instant::now())
    }

    /// Goes on where these load balancers were read to.
    pub(crate) fn going_on(balancers: &[HostName], read: BTreeMap<HostName, Mark>, now: Instant) -> Self {
        Self {
            balancers: balancers.to_vec(),
            open: BTreeMap::new(),
            sent: 0,
            expected: read.keys().cloned().collect(),
            expected_until: now + ALL_BACK,
            read,
            silent: BTreeMap::new(),
            unknown_s: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, host: HostName, report: Report, now: Instant) {
        match report {
            Report::Silent(problem) => {
                if has_none(&problem) {
                    self.expected.remove(&host);
                }
                self.silent.insert(host, problem);
            }
            Report::Ticked(Ticked { second, tick, problem, fresh, mark }) => {
                self.silent.remove(&host);
                if fresh {
                    self.expected.remove(&host);
                }
                let unknown = self.unknown(&host, &tick);
                let told = Told { host, mark, trouble: problem.or(unknown) };
                self.place((second, fresh), &tick, told, now);
            }
        }
    }

    /// Notes whether a load balancer knows how complete its lines are; the trouble if it has not for too long.
    fn unknown(&mut self, host: &HostName, tick: &Tick) -> Option<Problem> {
        if tick.coverage.is_some() {
            self.unknown_s.remove(host);
            return None;
        }
        let seconds = self.unknown_s.entry(host.clone()).or_default();
        *seconds = seconds.saturating_add(1);
        let message = format!("for {seconds} s `{host}` has not told how many of its access lines came");
        (*seconds > UNKNOWN_S).then(|| {
            Problem::new(Code::SignalsMissing, message)
                .cause("the agent there cannot read HAProxy's counters, or not soon enough")
                .retry_useful()
                .on(host)
                .hint("see docs/signals.md: when coverage is below 99 %")
        })
    }

    /// A tick that comes after its second was sent, or twice, is left out: a number that was shown does not change.
    fn place(&mut self, (second, fresh): (u64, bool), tick: &Tick, told: Told, now: Instant) {
        let Told { host, mark, trouble } = told;
        if fresh && second.saturating_add(SET_BACK_S) < self.sent {
            self.open.clear();
            self.sent = 0;
        }
        if second <= self.sent {
            return self.is_read(host, mark);
        }
        if let Some(open) = self.open.get_mut(&second) {
            if open.told.insert(host.clone()) {
                open.merged.merge(tick);
                open.troubles.extend(trouble.map(|trouble| (host.clone(), trouble)));
                open.marks.insert(host, mark);
            }
            return;
        }
        let (most, alike) = if fresh { (OPEN_SECONDS, false) } else { (MOST_IN_BURST, true) };
        if self.open.values().filter(|open| open.late == alike).count() >= most {
            return;
        }
        let until = if self.expected.is_empty() { now + LATE } else { self.expected_until.max(now + LATE) };
        let troubles = trouble.map(|trouble| (host.clone(), trouble)).into_iter().collect();
        let (told, marks) = ([host.clone()].into(), [(host, mark)].into());
        self.open.insert(second, Second { merged: tick.clone(), told, troubles, marks, until, late: !fresh });
    }

    /// Notes how far a load balancer is read with what is sent, or was left out.
    fn is_read(&mut self, host: HostName, mark: Mark) {
        let older = |known: &Mark| known.life == mark.life && known.number > mark.number;
        if !self.read.get(&host).is_some_and(older) {
            self.read.insert(host, mark);
        }
    }

    /// The oldest second, if nobody else is waited for.
    pub(crate) fn whole(&mut self, now: Instant) -> Option<Whole> {
        let (second, open) = self.open.first_key_value()?;
        let expected = |host: &HostName| self.expected.contains(host) && now < self.expected_until;
        let gone = |host: &HostName| self.silent.contains_key(host) && !expected(host);
        let waited_for = self.balancers.iter().any(|host| !open.told.contains(host) && !gone(host));
        if waited_for && now < open.until {
            return None;
        }
        let second = *second;
        let Second { merged, told, troubles, marks, .. } = self.open.remove(&second)?;
        self.sent = second;
        marks.into_iter().for_each(|(host, mark)| self.is_read(host, mark));
        Some(Whole { second, merged, told, troubles, read: self.read.clone() })
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.open.first_key_value().map(|(_, open)| open.until)
    }

    /// Why the load balancers that are not in `told` are not.
    pub(crate) fn missing(&self, told: &BTreeSet<HostName>) -> Vec<Problem> {
        let absent = self.balancers.iter().filter(|host| !told.contains(*host));
        let late = |host: &HostName| {
            Problem::new(Code::AgentUnreachable, format!("no signals from `{host}` for this second"))
                .retry_useful()
                .on(host)
                .hint(format!("on `{host}`: `systemctl status pointsman-lb-agent`"))
        };
        absent.map(|host| self.silent.get(host).cloned().unwrap_or_else(|| late(host))).collect()
    }

    /// Whether every load balancer says that it has no signals. Where only some have none, the visitors behind them are
    /// not seen, and that is no reason to judge nobody.
    pub(crate) fn without_signals(&self) -> bool {
        let none = |host: &HostName| self.silent.get(host).is_some_and(has_none);
        !self.balancers.is_empty() && self.balancers.iter().all(none)
    }

    /// Whether every load balancer has told of a second, or says that it never will.
    pub(crate) fn heard_of_all(&self) -> bool {
        self.sent > 0 && self.silent.values().all(has_none)
    }

    /// Why nothing comes.
    pub(crate) fn why_silent(&self) -> Problem {
        let nothing =
            || Problem::new(Code::AgentUnreachable, "no load balancer tells anything").retry_useful();
        self.silent.values().next().cloned().unwrap_or_else(nothing)
    }

    /// No load balancer has signals, and none will before somebody changes its configuration.
    pub(super) fn hopeless(&self) -> Option<Problem> {
        let off = |host: &HostName| {
            self.silent.get(host).is_some_and(|problem| problem.code == Code::SignalsMissing)
        };
        let all = !self.balancers.is_empty() && self.balancers.iter().all(off);
        self.silent.values().next().filter(|_| all).cloned()
    }
}

/// That too few access lines came, and of what.
pub(crate) fn too_few_lines(merged: &Tick) -> Option<String> {
    let (backend, Coverage { seen, expected }) = merged.too_few()?;
    let of = backend.map_or_else(String::new, |backend| format!(" of `{backend}`"));
    Some(format!("{seen} of {expected} access lines{of} came, {SUFFICIENT_PERCENT} % needed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::Timestamp;
    use pointsman_core::signal::Growth;

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    fn tick(number: u64, requests: u64) -> Report {
        let growth = Growth { requests, ..Growth::default() };
        let tick = Tick {
            number,
            at: Timestamp(number * 1000),
            span_ms: 1000,
            counters: [("be_blue".parse().unwrap(), growth)].into(),
            coverage: Some(Coverage { seen: requests, expected: requests }),
            ..Tick::default()
        };
        let mark = Mark { life: "a".to_owned(), number, ahead_s: 0 };
        Report::Ticked(Ticked { second: number, tick: Box::new(tick), problem: None, fresh: true, mark })
    }

    fn requests(whole: &Whole) -> u64 {
        whole.merged.counters.values().map(|growth| growth.requests).sum()
    }

    fn lost(code: Code) -> Report {
        Report::Silent(Problem::new(code, "gone"))
    }

    #[test]
    fn a_second_is_whole_when_everybody_has_told() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        merger.take(host("lb1"), tick(10, 3), now);
        assert!(merger.whole(now).is_none());
        // The same again, and what comes too late, changes nothing.
        merger.take(host("lb1"), tick(10, 3), now);
        merger.take(host("lb2"), tick(10, 4), now);
        let whole = merger.whole(now).unwrap();
        assert_eq!((whole.second, requests(&whole), whole.told.len()), (10, 7, 2));
        assert!(merger.missing(&whole.told).is_empty());
        merger.take(host("lb2"), tick(10, 4), now);
        merger.take(host("lb2"), tick(9, 4), now);
        assert!(merger.open.is_empty());
    }

    #[test]
    fn a_slow_one_is_waited_for_so_long_and_then_named() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        merger.take(host("lb1"), tick(10, 3), now);
        merger.take(host("lb1"), tick(11, 5), now + Duration::from_secs(1));
        assert!(merger.whole(now + Duration::from_secs(1)).is_none());
        let whole = merger.whole(now + LATE).unwrap();
        assert_eq!((whole.second, requests(&whole)), (10, 3));
        let missing = merger.missing(&whole.told);
        assert_eq!(
            missing.iter().map(|problem| problem.host.clone()).collect::<Vec<_>>(),
            [Some(host("lb2"))]
        );
    }

    #[test]
    fn one_that_is_known_to_be_gone_is_not_waited_for() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        merger.take(host("lb2"), lost(Code::AgentUnreachable), now);
        merger.take(host("lb1"), tick(10, 3), now);
        assert_eq!(merger.whole(now).unwrap().second, 10);
        merger.take(host("lb2"), tick(11, 3), now);
        assert!(merger.whole(now).is_none(), "it is back");
    }

    #[test]
    fn without_signals_anywhere_there_is_nothing_to_watch() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        merger.take(host("lb1"), lost(Code::SignalsMissing), now);
        assert_eq!((merger.hopeless(), merger.without_signals()), (None, false));
        merger.take(host("lb2"), lost(Code::SignalsMissing), now);
        assert_eq!(merger.hopeless().unwrap().code, Code::SignalsMissing);
        assert!(merger.without_signals());
    }

    #[test]
    fn clocks_that_jump_do_not_fill_the_memory() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        (1..1000).for_each(|second| merger.take(host("lb1"), tick(second, 1), now));
        assert_eq!(merger.open.len(), OPEN_SECONDS);
    }

    fn late(number: u64) -> Report {
        match tick(number, 1) {
            Report::Ticked(ticked) => Report::Ticked(Ticked { fresh: false, ..ticked }),
            silent @ Report::Silent(_) => silent,
        }
    }

    fn going_on(now: Instant) -> Merger {
        let mark = Mark { life: "a".to_owned(), number: 9, ahead_s: 0 };
        let read = [host("lb1"), host("lb2")].map(|host| (host, mark.clone()));
        Merger::going_on(&[host("lb1"), host("lb2")], read.into(), now)
    }

    #[test]
    fn all_that_was_missed_comes_together_however_late_one_is_back() {
        let now = Instant::now();
        let mut merger = going_on(now);
        (10..900).for_each(|number| merger.take(host("lb1"), late(number), now));
        merger.take(host("lb1"), tick(900, 1), now);
        merger.take(host("lb2"), lost(Code::AgentUnreachable), now);
        let later = now + LATE + LATE;
        merger.take(host("lb1"), tick(901, 1), later);
        assert!(merger.whole(later).is_none(), "the other one is waited for");
        (10..901).for_each(|number| merger.take(host("lb2"), late(number), later));
        merger.take(host("lb2"), tick(901, 1), later);
        let sent: Vec<Whole> = std::iter::from_fn(|| merger.whole(later)).collect();
        assert_eq!(sent.len(), 892);
        assert!(sent.iter().all(|whole| whole.told.len() == 2 && requests(whole) == 2));
        let read = |whole: &Whole| whole.read.values().map(|mark| mark.number).collect::<Vec<_>>();
        assert_eq!((read(&sent[0]), read(&sent[891])), (vec![10, 10], vec![901, 901]));
    }

    #[test]
    fn one_that_does_not_come_back_is_waited_for_so_long() {
        let now = Instant::now();
        let mut merger = going_on(now);
        (10..20).for_each(|number| merger.take(host("lb1"), late(number), now));
        merger.take(host("lb2"), lost(Code::AgentUnreachable), now);
        assert!(merger.whole(now + LATE).is_none());
        let later = now + ALL_BACK;
        let sent: Vec<Whole> = std::iter::from_fn(|| merger.whole(later)).collect();
        assert_eq!(sent.len(), 10);
        // Where it was read to, it is read from when it is back.
        assert_eq!(sent[9].read[&host("lb2")].number, 9);
        merger.take(host("lb1"), tick(20, 1), later);
        assert!(merger.whole(later).is_some(), "it is gone");

        let mut merger = going_on(now);
        merger.take(host("lb1"), late(10), now);
        merger.take(host("lb2"), lost(Code::SignalsMissing), now);
        assert!(merger.whole(now).is_some(), "it has none");
    }

    #[test]
    fn what_came_too_late_is_read_all_the_same() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        let numbers = |whole: &Whole| whole.read.values().map(|mark| mark.number).collect::<Vec<_>>();
        merger.take(host("lb1"), tick(10, 3), now);
        assert_eq!(numbers(&merger.whole(now + LATE).unwrap()), [10]);
        merger.take(host("lb2"), tick(10, 4), now + LATE);
        merger.take(host("lb1"), tick(11, 3), now + LATE);
        // It is left out for good: to be read again it would have to count.
        assert_eq!(numbers(&merger.whole(now + LATE + LATE).unwrap()), [11, 10]);
    }

    #[test]
    fn a_second_that_comes_late_does_not_set_the_clock_back() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        merger.take(host("lb2"), lost(Code::AgentUnreachable), now);
        merger.take(host("lb1"), tick(100, 3), now);
        assert_eq!(merger.whole(now).unwrap().second, 100);
        let Report::Ticked(late) = tick(50, 3) else { panic!("a tick") };
        merger.take(host("lb2"), Report::Ticked(Ticked { fresh: false, ..late }), now);
        assert!(merger.whole(now).is_none());
    }

    fn with(report: Report, change: impl Fn(&mut Ticked)) -> Report {
        match report {
            Report::Ticked(mut ticked) => {
                change(&mut ticked);
                Report::Ticked(ticked)
            }
            silent @ Report::Silent(_) => silent,
        }
    }

    fn unknown(report: Report) -> Report {
        with(report, |ticked| ticked.tick.coverage = None)
    }

    #[test]
    fn who_never_knows_how_many_lines_there_are_is_not_seen() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        let mut second = |number, lb1: Report| {
            merger.take(host("lb1"), lb1, now);
            merger.take(host("lb2"), tick(number, 0), now);
            merger.whole(now).unwrap().troubles
        };
        for number in 1..=u64::from(UNKNOWN_S) {
            assert!(second(number, unknown(tick(number, 0))).is_empty(), "a reload");
        }
        let troubles = second(16, unknown(tick(16, 0)));
        let problem = &troubles[&host("lb1")];
        assert_eq!((troubles.len(), problem.code), (1, Code::SignalsMissing));
        assert!(second(17, tick(17, 0)).is_empty());
        assert!(second(18, unknown(tick(18, 0))).is_empty(), "another reload");
    }

    #[test]
    fn what_is_caught_up_has_the_troubles_of_its_own_time() {
        let now = Instant::now();
        let mut merger = going_on(now);
        let no_lines = Problem::new(Code::SignalsMissing, "HAProxy has no connection to the ring");
        // There was trouble for a while, for longer nobody knew of any lines, and now all is well.
        for number in 10..60 {
            let report = match number {
                20..30 => with(late(number), |ticked| ticked.problem = Some(no_lines.clone())),
                30..50 => unknown(late(number)),
                _ => late(number),
            };
            merger.take(host("lb1"), report, now);
            merger.take(host("lb2"), late(number), now);
        }
        let troubled: Vec<u64> = std::iter::from_fn(|| merger.whole(now))
            .filter(|whole| !whole.troubles.is_empty())
            .map(|whole| whole.second)
            .collect();
        assert_eq!(troubled, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 45, 46, 47, 48, 49]);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_end_everything() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1")]));
        merger.take(host("lb1"), tick(10_000, 3), now);
        assert_eq!(merger.whole(now).unwrap().second, 10_000);
        for second in [6_400, 6_401] {
            merger.take(host("lb1"), tick(second, 3), now);
            assert_eq!(merger.whole(now).unwrap().second, second);
        }
    }
}
