//! Signals: what visitors met, second by second, as the load balancers' access lines and counters tell it.
//!
//! A [`Tick`] is one second of one load balancer, or of several merged. Nothing here decides whether a release is good;
//! that is for whoever reads them.

use std::collections::BTreeMap;

use crate::histogram::Histogram;
use crate::{BackendName, RouteClass, RouteEpoch, Timestamp};

/// Of the requests that HAProxy's counters know, at least so many in a hundred must have come as access lines before
/// anything is said about how long requests took. Lines are not lost evenly: the slow ones come when it is busiest.
pub const SUFFICIENT_PERCENT: u64 = 99;

/// The class of the checks that pointsman itself makes through the load balancer.
pub const OWN_CHECKS: &str = "check";

/// The class of visitors who failed before a release as they do now, whatever served them: a crawler at a broken page, a monitor,
/// something that is stuck. By chance they are all on one side of a split, and say nothing of it.
pub const FAILED_BEFORE: &str = "failed-before";

/// Whether slots are judged by requests of this class.
pub fn is_judged(class: &RouteClass) -> bool {
    !matches!(class.as_str(), OWN_CHECKS | FAILED_BEFORE)
}

/// The status of a connection that became something else, as a WebSocket: its time is how long the visitor stayed.
const UPGRADED: u16 = 101;

/// How a request ended, seen from the slot that it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was answered: anything below 500 is the site's word.
    Answered,
    /// The slot failed it: a 5xx, or an answer that the servers did not bring to an end.
    Failed {
        /// No server took the connection.
        unconnected: bool,
    },
    /// The visitor went away, or fell silent: that is neither a success nor a failure of the slot.
    ClientLeft {
        /// Nothing of an answer had come by then: they waited for the slot as long as they stayed.
        unanswered: bool,
    },
    /// HAProxy answered by itself (denied, redirected, the maintenance page): no server saw the request.
    NotForwarded,
}

impl Ending {
    /// Reads status and the first two letters of the termination state (`%tsc`).
    ///
    /// `c`, a client's silence, counts as leaving just as `C` does: what a slow network does to a visitor says nothing of
    /// the slot. Whoever left (`C`) in the queue, while a server was connected to or while its answer was awaited (`Q`, `C`, `H`) had
    /// no answer, whatever status HAProxy made of that; and one that broke the connection is told of as in the middle of data (`D`)
    /// without a status. Whoever fell silent is no such one: that may have been in the middle of what they sent.
    pub fn of(status: u16, termination: [u8; 2]) -> Self {
        let [who, when] = termination;
        match (who, when) {
            (b'C', b'Q' | b'C' | b'H') => Self::ClientLeft { unanswered: true },
            (b'C', b'D') => Self::ClientLeft { unanswered: status == 0 },
            (b'C' | b'c', _) => Self::ClientLeft { unanswered: false },
            (b'L', _) | (b'P', b'R' | b'T') => Self::NotForwarded,
            (b'S' | b's', _) => Self::Failed { unconnected: matches!(when, b'C' | b'Q') },
            // A server that was taken down or cut under the request.
            (b'D' | b'K', _) => Self::Failed { unconnected: false },
            _ if status >= 500 => Self::Failed { unconnected: when == b'C' },
            _ => Self::Answered,
        }
    }
}

/// What a cell counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellKey {
    /// The slot's backend.
    pub backend: BackendName,
    /// The route that brought the request there: which release that was, the journal knows. 0 where a line does not say.
    pub epoch: RouteEpoch,
    /// The kind of request.
    pub class: RouteClass,
}

/// Requests of visitors to one backend, by one route, of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Requests that a server was to answer. What HAProxy answered by itself is not among them.
    pub requests: u64,
    /// Of these, the slot's failures: see [`Ending::Failed`].
    pub failures: u64,
    /// Of the failures, those with a status of 500 to 599.
    pub responses_5xx: u64,
    /// Of the failures, those that no server took a connection for.
    pub connection_errors: u64,
    /// Of the requests, those whose visitor went away: neither failure nor success.
    pub client_aborts: u64,
    /// Of the requests, those that were tried again or given to another server.
    pub retried: u64,
    /// How often such tries were made.
    pub retries: u64,
    /// Of the requests that were tried again, those that were answered then: their visitors only waited, but a server of the
    /// slot had failed them.
    pub rescued: u64,
    /// Beside the requests: what HAProxy answered by itself.
    pub not_forwarded: u64,
    /// Of the requests whose visitor stayed, those whose connection became something else, as a WebSocket.
    pub upgraded: u64,
    /// How long the requests took whose visitor stayed, from the first byte of the request to the end of the answer. A
    /// connection that was upgraded has no such time.
    pub latency: Histogram,
    /// How long those waited who went away before anything of an answer had come.
    pub abandoned: Histogram,
}

impl Cell {
    /// Requests that were either a success or a failure.
    pub fn judged(&self) -> u64 {
        self.requests.saturating_sub(self.client_aborts)
    }

    /// Requests that a server of the slot failed, also where another try hid that from the visitor.
    pub fn failed_by_servers(&self) -> u64 {
        self.failures.saturating_add(self.rescued)
    }

    /// How many of the requests that have a time came with it: lines that are written before an answer is over do not know
    /// it.
    pub fn timed(&self) -> Coverage {
        Coverage { seen: self.latency.total(), expected: self.judged().saturating_sub(self.upgraded) }
    }

    /// Requests that were given up after more than this time without a word from the slot: how long they would have taken nobody
    /// knows, but it was longer. Whoever left sooner may have left for any reason.
    pub fn given_up(&self, after_ms: u64) -> u64 {
        self.abandoned.above(after_ms)
    }

    /// Adds another cell to this one.
    pub fn merge(&mut self, other: &Self) {
        let Self { requests, failures, responses_5xx, connection_errors, .. } = other;
        let Self { client_aborts, retried, retries, rescued, not_forwarded, upgraded, .. } = other;
        let Self { latency, abandoned, .. } = other;
        self.requests = self.requests.saturating_add(*requests);
        self.failures = self.failures.saturating_add(*failures);
        self.responses_5xx = self.responses_5xx.saturating_add(*responses_5xx);
        self.connection_errors = self.connection_errors.saturating_add(*connection_errors);
        self.client_aborts = self.client_aborts.saturating_add(*client_aborts);
        self.retried = self.retried.saturating_add(*retried);
        self.retries = self.retries.saturating_add(*retries);
        self.rescued = self.rescued.saturating_add(*rescued);
        self.not_forwarded = self.not_forwarded.saturating_add(*not_forwarded);
        self.upgraded = self.upgraded.saturating_add(*upgraded);
        self.latency.merge(latency);
        self.abandoned.merge(abandoned);
    }

    /// Counts one request. `took_ms` is missing where HAProxy does not know it, and nothing is made of it where the
    /// connection was upgraded; `retries` is missing where the line does not say.
    pub fn count(&mut self, ending: Ending, status: u16, took_ms: Option<u64>, retries: Retries) {
        if ending == Ending::NotForwarded {
            self.not_forwarded = self.not_forwarded.saturating_add(1);
            return;
        }
        self.requests = self.requests.saturating_add(1);
        self.retries = self.retries.saturating_add(retries.count);
        let again = retries.count > 0 || retries.redispatched;
        self.retried = self.retried.saturating_add(u64::from(again));
        if let Ending::ClientLeft { unanswered } = ending {
            self.client_aborts = self.client_aborts.saturating_add(1);
            if let Some(waited_ms) = took_ms.filter(|_| unanswered) {
                self.abandoned.record(waited_ms);
            }
            return;
        }
        if let Ending::Failed { unconnected } = ending {
            self.failures = self.failures.saturating_add(1);
            self.responses_5xx = self.responses_5xx.saturating_add(u64::from(status >= 500));
            self.connection_errors = self.connection_errors.saturating_add(u64::from(unconnected));
        }
        self.rescued = self.rescued.saturating_add(u64::from(again && ending == Ending::Answered));
        match took_ms {
            _ if status == UPGRADED => self.upgraded = self.upgraded.saturating_add(1),
            Some(took_ms) => self.latency.record(took_ms),
            None => {}
        }
    }
}

/// Further tries that a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// How many.
    pub count: u64,
    /// The last one was made at another server.
    pub redispatched: bool,
}

/// Requests of pointsman itself, and of testers, that went through the load balancer to one backend: no visitors, so they are
/// counted apart from them and decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Requests that a server was to answer.
    pub requests: u64,
    /// Of these, those that failed: see [`Ending::Failed`].
    pub failures: u64,
}

impl Probes {
    /// Counts one request.
    pub fn count(&mut self, ending: Ending) {
        let (requests, failures) = match ending {
            Ending::NotForwarded => (0, 0),
            Ending::Failed { .. } => (1, 1),
            Ending::Answered | Ending::ClientLeft { .. } => (1, 0),
        };
        self.add(Self { requests, failures });
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
    }
}

/// The probes of both slots of a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// On the slot that is being released.
    pub new: Probes,
    /// On the slot that served before.
    pub old: Probes,
}

/// How many of what was expected came: of the requests that HAProxy's own counters know those with an access line, of the
/// requests that have a time those that came with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// What came.
    pub seen: u64,
    /// What should have come.
    pub expected: u64,
}

/// So many lines of a slot may be missing: of few requests one line is more than a hundredth.
const SPARED: u64 = 3;

impl Coverage {
    /// The share, 0 to 1. Where nothing was expected, nothing is missing.
    pub fn share(self) -> f64 {
        if self.expected == 0 { 1.0 } else { self.seen.min(self.expected) as f64 / self.expected as f64 }
    }

    /// How many are missing.
    fn lacks(self) -> u64 {
        self.expected.saturating_sub(self.seen)
    }

    /// Whether enough came to speak of latencies.
    pub fn sufficient(self) -> bool {
        u128::from(self.seen) * 100 >= u128::from(self.expected) * u128::from(SUFFICIENT_PERCENT)
    }

    /// Of both together. What one load balancer, or one backend, has too many of does not make up for what another lacks.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let seen = |coverage: Self| coverage.seen.min(coverage.expected);
        Self {
            seen: seen(self).saturating_add(seen(other)),
            expected: self.expected.saturating_add(other.expected),
        }
    }
}

/// How HAProxy's own counters of a backend grew: what is known without a single access line. Checks of pointsman and
/// what HAProxy answered by itself are in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Requests that ended.
    pub requests: u64,
    /// Answers with a status of 500 to 599.
    pub responses_5xx: u64,
    /// Connections to servers that failed.
    pub connection_errors: u64,
    /// Answers of servers that failed.
    pub response_errors: u64,
    /// Tries to connect again, and to another server.
    pub retries: u64,
    /// Transfers that the client cut.
    pub client_aborts: u64,
}

impl Growth {
    /// Adds what grew elsewhere.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.responses_5xx = self.responses_5xx.saturating_add(other.responses_5xx);
        self.connection_errors = self.connection_errors.saturating_add(other.connection_errors);
        self.response_errors = self.response_errors.saturating_add(other.response_errors);
        self.retries = self.retries.saturating_add(other.retries);
        self.client_aborts = self.client_aborts.saturating_add(other.client_aborts);
    }
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Its number in the life of the agent that counted it: from 1, each once. 0 when merged.
    pub number: u64,
    /// When it ended, by the clock of the load balancer.
    pub at: Timestamp,
    /// How long it was, in milliseconds: 1000, and longer where the agent was held up.
    pub span_ms: u64,
    /// What visitors met.
    pub cells: BTreeMap<CellKey, Cell>,
    /// What was asked by no visitor, by backend.
    pub probes: BTreeMap<BackendName, Probes>,
    /// How complete the lines are, over the last seconds; unknown while HAProxy's counters cannot be read.
    pub coverage: Option<Coverage>,
    /// The same of each slot's backend, where it is known: one of which no lines come would hide behind a busy one. Of several
    /// load balancers it is that of the one where least of its lines came.
    pub covered: BTreeMap<BackendName, Coverage>,
    /// What HAProxy's own counters say, by backend.
    pub counters: BTreeMap<BackendName, Growth>,
    /// The lines say how often a request was tried again; else only the counters do.
    pub lines_tell_retries: bool,
    /// Access lines that could not be read, or found no place.
    pub broken_lines: u64,
}

impl Tick {
    /// Whether the lines are complete enough to speak of latencies, and tell them.
    pub fn latency_usable(&self) -> bool {
        self.coverage.is_some() && self.too_few().is_none() && self.timed().sufficient()
    }

    /// Where too few lines came to speak of latencies, and how many: the slot that lacks most, or all together. None where
    /// enough came everywhere, or nothing is known.
    pub fn too_few(&self) -> Option<(Option<&BackendName>, Coverage)> {
        let lacks = |coverage: &Coverage| !coverage.sufficient();
        let slots = self.covered.iter().filter(|(_, coverage)| coverage.lacks() > SPARED);
        let slots = slots.map(|(backend, coverage)| (Some(backend), *coverage));
        let all = slots.chain(self.coverage.map(|coverage| (None, coverage)));
        let few = all.filter(|(_, coverage)| lacks(coverage));
        few.min_by(|(_, one), (_, other)| one.share().total_cmp(&other.share()))
    }

    /// How many of the requests that slots are judged by, and that have a time, came with it.
    pub fn timed(&self) -> Coverage {
        let visitors = self.cells.iter().filter(|(key, _)| is_judged(&key.class));
        visitors.fold(Coverage::default(), |sum, (_, cell)| sum.merge(cell.timed()))
    }

    /// Adds the same second of another load balancer.
    pub fn merge(&mut self, other: &Self) {
        self.number = 0;
        self.at = self.at.max(other.at);
        self.span_ms = self.span_ms.max(other.span_ms);
        for (key, cell) in &other.cells {
            self.cells.entry(key.clone()).or_default().merge(cell);
        }
        for (backend, probes) in &other.probes {
            self.probes.entry(backend.clone()).or_default().add(*probes);
        }
        for (backend, growth) in &other.counters {
            self.counters.entry(backend.clone()).or_default().add(*growth);
        }
        // What one of them does not know, nobody knows of all.
        self.coverage = self.coverage.zip(other.coverage).map(|(one, another)| one.merge(another));
        // A load balancer of which no lines come would hide behind a busy one, too.
        for (backend, coverage) in &other.covered {
            let least = self.covered.entry(backend.clone()).or_insert(*coverage);
            if coverage.share() < least.share() {
                *least = *coverage;
            }
        }
        self.lines_tell_retries &= other.lines_tell_retries;
        self.broken_lines = self.broken_lines.saturating_add(other.broken_lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        let failed = |unconnected| Ending::Failed { unconnected };
        let left = |unanswered| Ending::ClientLeft { unanswered };
        let cases = [
            (200, "--", Ending::Answered),
            (404, "--", Ending::Answered),
            (101, "--", Ending::Answered),
            (500, "--", failed(false)),
            (503, "SC", failed(true)),
            (503, "sQ", failed(true)),
            (504, "sH", failed(false)),
            (502, "SH", failed(false)),
            (502, "PH", failed(false)),
            (200, "SD", failed(false)),
            (200, "sD", failed(false)),
            (200, "DD", failed(false)),
            (200, "KD", failed(false)),
            (503, "RC", failed(true)),
            (200, "CD", left(false)),
            (200, "cD", left(false)),
            (500, "CD", left(false)),
            (0, "CD", left(true)),
            (0, "CH", left(true)),
            (400, "CH", left(true)),
            (503, "CQ", left(true)),
            (503, "CC", left(true)),
            (400, "CR", left(false)),
            (408, "cH", left(false)),
            (403, "PR", Ending::NotForwarded),
            (500, "PT", Ending::NotForwarded),
            (503, "LR", Ending::NotForwarded),
        ];
        for (status, termination, expected) in cases {
            let letters = termination.as_bytes().try_into().unwrap();
            assert_eq!(Ending::of(status, letters), expected, "{status} {termination}");
        }
    }

    #[test]
    fn a_cell_counts_each_request_once() {
        let mut cell = Cell::default();
        let none = Retries::default();
        cell.count(Ending::Answered, 200, Some(3), none);
        cell.count(
            Ending::Failed { unconnected: true },
            503,
            Some(2000),
            Retries { count: 3, redispatched: false },
        );
        cell.count(Ending::Failed { unconnected: false }, 200, Some(40), none);
        cell.count(
            Ending::ClientLeft { unanswered: false },
            200,
            Some(9000),
            Retries { count: 0, redispatched: true },
        );
        cell.count(Ending::NotForwarded, 403, Some(0), none);
        assert_eq!((cell.requests, cell.judged(), cell.failures), (4, 3, 2));
        assert_eq!((cell.responses_5xx, cell.connection_errors, cell.client_aborts), (1, 1, 1));
        assert_eq!((cell.retried, cell.retries, cell.not_forwarded), (2, 3, 1));
        // Whoever left took as long as they stayed, which is no time of the slot's.
        assert_eq!((cell.latency.total(), cell.latency.above(2000)), (3, 0));
    }

    #[test]
    fn who_left_without_a_word_from_the_slot_waited_for_it() {
        let mut cell = Cell::default();
        let mut leave = |unanswered, ms| {
            cell.count(Ending::ClientLeft { unanswered }, 0, ms, Retries::default());
        };
        leave(true, Some(30_000));
        leave(true, Some(500));
        leave(true, None);
        leave(false, Some(30_000));
        let mut both = cell.clone();
        both.merge(&cell);
        assert_eq!((cell.client_aborts, cell.judged(), cell.latency.total()), (4, 0, 0));
        assert_eq!(
            [&cell, &both].map(|cell| (cell.given_up(2_000), cell.abandoned.total())),
            [(1, 2), (2, 4)]
        );
    }

    #[test]
    fn another_try_hides_no_failure_of_a_server() {
        let mut cell = Cell::default();
        let again = |count, redispatched| Retries { count, redispatched };
        cell.count(Ending::Answered, 200, Some(3), again(0, false));
        cell.count(Ending::Answered, 200, Some(1_003), again(1, false));
        // The last of the tries was made at another server.
        cell.count(Ending::Answered, 404, Some(1_003), again(0, true));
        // These are failures already, or nobody's.
        cell.count(Ending::Failed { unconnected: true }, 503, Some(4_000), again(3, true));
        cell.count(Ending::ClientLeft { unanswered: false }, 200, Some(1_003), again(1, false));
        assert_eq!((cell.rescued, cell.failures, cell.failed_by_servers()), (2, 1, 3));
        let mut twice = cell.clone();
        twice.merge(&cell);
        assert_eq!(twice.failed_by_servers(), 6);
    }

    #[test]
    fn probes_fail_as_visitors_do() {
        let mut probes = Probes::default();
        let failed = Ending::Failed { unconnected: false };
        for ending in
            [Ending::Answered, failed, Ending::ClientLeft { unanswered: true }, Ending::NotForwarded]
        {
            probes.count(ending);
        }
        assert_eq!(probes, Probes { requests: 3, failures: 1 });
    }

    #[test]
    fn a_connection_that_was_upgraded_has_no_time() {
        let mut cell = Cell::default();
        cell.count(Ending::Answered, 101, Some(3_600_000), Retries::default());
        cell.count(Ending::Failed { unconnected: false }, 101, Some(3_600_000), Retries::default());
        assert_eq!((cell.judged(), cell.failures, cell.latency.total()), (2, 1, 0));
        assert_eq!(cell.timed(), Coverage::default());
    }

    #[test]
    fn requests_that_come_without_their_time_leave_latencies_unknown() {
        let mut second = tick(Some(Coverage::default()), 0);
        let count = |second: &mut Tick, requests, took_ms| {
            let cell = second.cells.values_mut().next().unwrap();
            (0..requests).for_each(|_| cell.count(Ending::Answered, 200, took_ms, Retries::default()));
        };
        count(&mut second, 99, Some(40));
        count(&mut second, 1, None);
        assert!(second.latency_usable());
        count(&mut second, 1, None);
        assert_eq!((second.timed(), second.latency_usable()), (Coverage { seen: 99, expected: 101 }, false));
    }

    #[test]
    fn coverage_below_99_percent_is_insufficient() {
        let of = |seen, expected| Coverage { seen, expected };
        assert!(of(99, 100).sufficient() && !of(98, 100).sufficient() && !of(989, 1000).sufficient());
        assert!(of(0, 0).sufficient() && of(120, 100).sufficient() && !of(0, 1).sufficient());
        assert!(of(u64::MAX, u64::MAX).sufficient());
        assert_eq!((of(120, 100).share(), of(0, 0).share(), of(1, 2).share()), (1.0, 1.0, 0.5));
        // Too many lines here are no excuse for too few there.
        assert_eq!(of(200, 100).merge(of(0, 100)), of(100, 200));
    }

    #[test]
    fn no_slot_and_no_load_balancer_hides_behind_a_busy_one() {
        let of = |backend: &str, seen, expected| (backend.parse().unwrap(), Coverage { seen, expected });
        let whole = Some(Coverage { seen: 9_960, expected: 10_000 });
        let mut one =
            Tick { covered: [of("be_blue", 9_950, 9_950), of("be_green", 50, 50)].into(), ..tick(whole, 10) };
        assert!(one.latency_usable());
        let green = one.covered.get_mut(&"be_green".parse().unwrap()).unwrap();
        green.seen = 10;
        let lacks = one.too_few().map(|(backend, coverage)| (backend.unwrap().to_string(), coverage));
        assert_eq!(lacks, Some(("be_green".to_owned(), Coverage { seen: 10, expected: 50 })));
        assert!(!one.latency_usable());

        let mut both = tick(whole, 10);
        both.covered = [of("be_green", 9_000, 9_000)].into();
        both.merge(&one);
        assert!(!both.latency_usable(), "{:?}", both.covered);
        both.covered.clear();
        both.merge(&Tick { covered: [of("be_green", 9_000, 9_000)].into(), ..tick(whole, 10) });
        assert!(both.latency_usable(), "an agent of before tells of no slot");
        // Of a slot without visitors nothing is missing.
        both.covered.extend([of("be_canary", 0, 0)]);
        assert!(both.latency_usable());
    }

    fn tick(coverage: Option<Coverage>, requests: u64) -> Tick {
        let key = CellKey {
            backend: BackendName::parse("be_blue").unwrap(),
            epoch: RouteEpoch(4),
            class: RouteClass::parse("api").unwrap(),
        };
        let growth = Growth { requests, ..Growth::default() };
        let latency = Histogram::from_buckets([(40, requests)]).unwrap();
        Tick {
            number: 7,
            at: Timestamp(requests),
            span_ms: 1000,
            counters: [(key.backend.clone(), growth)].into(),
            probes: [(key.backend.clone(), Probes { requests: 2, failures: 1 })].into(),
            cells: [(key, Cell { requests, latency, ..Cell::default() })].into(),
            coverage,
            covered: BTreeMap::new(),
            lines_tell_retries: true,
            broken_lines: 1,
        }
    }

    #[test]
    fn two_load_balancers_are_one_site() {
        let whole = Some(Coverage { seen: 100, expected: 100 });
        let mut both = tick(whole, 5);
        both.merge(&tick(whole, 6));
        assert_eq!(both.cells.values().map(|cell| cell.requests).collect::<Vec<_>>(), [11]);
        assert_eq!(both.counters.values().map(|growth| growth.requests).collect::<Vec<_>>(), [11]);
        assert_eq!(both.probes.values().collect::<Vec<_>>(), [&Probes { requests: 4, failures: 2 }]);
        assert_eq!((both.broken_lines, both.at, both.number), (2, Timestamp(6), 0));
        assert!(both.latency_usable());
        both.merge(&tick(None, 1));
        assert!(!both.latency_usable());
    }
}
