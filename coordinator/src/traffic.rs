//! What visitors meet, over all load balancers: one stream from each, merged second by second, with the slots and releases
//! that the journal knows. It decides nothing, and no release waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_core::ports::{Clock as _, Mark};
use pointsman_core::signal::{CellKey, Coverage, SUFFICIENT_PERCENT, Tick};
use pointsman_core::{BackendName, Code, HostName, Problem, RouteEpoch};
use pointsman_proto::{convert, status_of_problem, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::environment::Environment;
use crate::fleet::GrpcFleet;
use crate::office::{Exposed, Office};
use crate::offset::Offset;

/// Watchers at once, over all environments: each has a stream of its own to every load balancer.
const WATCHERS: usize = 16;
/// Ticks on their way to a watcher. One that is slower misses nothing of this length, then waits for its own network.
const TICKS: usize = 8;
/// Reports of load balancers on their way to the merger, of which there is one a second from each.
pub(crate) const REPORTS: usize = 32;
/// How long a second is kept open for a load balancer that is late, from the first one that has told of it.
pub(crate) const LATE: Duration = Duration::from_millis(1_500);
/// Without a tick for so long a stream is taken for dead. An agent sends one each second.
const SILENCE: Duration = Duration::from_secs(5);
/// Bound on opening a stream.
const OPEN_MS: u64 = 3_000;
/// Pause before a stream that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where an agent says that it has no signals: that is so until somebody changes its configuration.
const WITHOUT_AGAIN: Duration = Duration::from_secs(60);
/// Between two ticks that were held up there is less than this: they come as fast as the network has them.
const BURST: Duration = Duration::from_millis(200);
/// The same where a stream begins with what another coordinator has not heard: only after that comes what is new, once a
/// second.
const FIRST_BURST: Duration = Duration::from_millis(500);
/// Ticks of one burst: the 900 that an agent keeps, and what comes while they are read.
const MOST_IN_BURST: usize = 1_000;
/// How long after a start each load balancer that another coordinator has heard is waited for, until it tells what came
/// since: without it all those seconds would be incomplete. Shorter than what takes visitors out of sight.
const ALL_BACK: Duration = Duration::from_secs(4);
/// Ticks that are older than this are of no use to anybody: whoever judges has taken their seconds for lost, and a person
/// may have looked meanwhile.
const OF_USE_S: u64 = 60;
/// For so many seconds coverage may be unknown: a reload takes 10. Whoever counts no lines and cannot read HAProxy's counters
/// would look for ever like a load balancer without visitors.
const UNKNOWN_S: u32 = 15;
/// A second that has just ended, and is so many before one that was sent: the coordinator's clock was set back.
const SET_BACK_S: u64 = 10;
/// Seconds that are open at once: more would be a clock that jumps.
const OPEN_SECONDS: usize = 8;

/// Ticks for a watcher.
pub type Ticks = Pin<Box<dyn Stream<Item = Result<v1::TrafficTick, Status>> + Send>>;

/// Everybody who watches.
pub struct Watchers(Arc<Semaphore>);

impl Default for Watchers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WATCHERS)))
    }
}

impl Watchers {
    /// Lets one more watch an environment.
    pub fn watch(&self, office: Arc<Office>) -> Result<Ticks, Problem> {
        let place = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            Problem::new(Code::NotPossibleNow, format!("{WATCHERS} others are watching traffic already"))
                .retry_useful()
                .hint("end one of the other `pointsman traffic watch`")
        })?;
        let (send, ticks) = mpsc::channel(TICKS);
        tokio::spawn(watch(office, send, place));
        Ok(Box::pin(ReceiverStream::new(ticks)))
    }
}

/// What came from a load balancer: a tick, or why there is none.
pub(crate) enum Report {
    Ticked(Ticked),
    Silent(Problem),
}

pub(crate) struct Ticked {
    /// The second it belongs to, by the coordinator's clock.
    second: u64,
    tick: Box<Tick>,
    /// What is wrong with its lines.
    problem: Option<Problem>,
    /// It came as soon as it was over, as far as that can be told.
    fresh: bool,
    /// How far the load balancer is read with it.
    mark: Mark,
}

/// How far a load balancer has been read. It outlives a stream: what was counted while one was broken comes first in the
/// next, as long as the agent keeps it.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The life and the number of the tick that was read last; without a life a stream begins with what comes now.
    pub(crate) life: String,
    pub(crate) number: u64,
    /// The load balancer's clock may be off. What counts is which of its ticks belong together with those of others.
    offset: Offset,
    /// Another coordinator has read it so far, and nothing has come since: whoever judges waits for all of it.
    goes_on: bool,
}

impl From<&Mark> for Read {
    fn from(mark: &Mark) -> Self {
        let Mark { life, number, ahead_s } = mark;
        Self { life: life.clone(), number: *number, offset: Offset::known((*ahead_s).into()), goes_on: true }
    }
}

/// Reads one load balancer for ever, from where it was read to.
pub(crate) async fn read(
    fleet: GrpcFleet,
    host: HostName,
    mut so_far: Read,
    send: mpsc::Sender<(HostName, Report)>,
) {
    loop {
        let Err(problem) = read_once(&fleet, &host, &mut so_far, &send).await else { return };
        let again = if has_none(&problem) { WITHOUT_AGAIN } else { AGAIN };
        if send.send((host.clone(), Report::Silent(problem))).await.is_err() {
            return;
        }
        tokio::time::sleep(again).await;
    }
}

/// Whether an agent says that it has no signals, or is too old to have any.
fn has_none(problem: &Problem) -> bool {
    matches!(problem.code, Code::SignalsMissing | Code::NotAllowed)
}

/// Reads a stream until it breaks. Ends well only when nobody listens any more.
async fn read_once(
    fleet: &GrpcFleet,
    host: &HostName,
    so_far: &mut Read,
    send: &mpsc::Sender<(HostName, Report)>,
) -> Result<(), Problem> {
    let mut ticks = fleet.signals(host, so_far, OPEN_MS).await?;
    loop {
        let next = tokio::time::timeout(SILENCE, ticks.message()).await;
        let next = next.map_err(|_| broken(host).cause(format!("nothing for {} s", SILENCE.as_secs())))?;
        let mut burst = vec![received(host, next)?];
        let mut end = None;
        // What was held up comes in a burst, the newest last: only that one shows how far the clocks are apart.
        while so_far.goes_on || burst.last().is_some_and(|tick| so_far.offset.is_late(apart_s(tick, now_s())))
        {
            let pause = if so_far.goes_on { FIRST_BURST } else { BURST };
            let Ok(next) = tokio::time::timeout(pause, ticks.message()).await else { break };
            match received(host, next) {
                Ok(tick) if burst.len() < MOST_IN_BURST => burst.push(tick),
                Ok(tick) => burst = vec![tick],
                Err(problem) => {
                    end = Some(problem);
                    break;
                }
            }
        }
        if so_far.goes_on && end.is_some() {
            // Only the newest would show how far the clocks are apart. All of it comes again.
            return end.map_or(Ok(()), Err);
        }
        let (reports, unreadable) = so_far.take(host, burst, now_s());
        for report in reports {
            if send.send((host.clone(), Report::Ticked(report))).await.is_err() {
                return Ok(());
            }
        }
        if let Some(problem) = unreadable.or(end) {
            return Err(problem);
        }
    }
}

fn received(
    host: &HostName,
    came: Result<Option<v1::SignalTick>, Status>,
) -> Result<v1::SignalTick, Problem> {
    came.map_err(|status| broken(host).because(&status))?
        .ok_or_else(|| broken(host).cause("the agent ended it"))
}

fn now_s() -> u64 {
    SystemClock.now().0 / 1000
}

/// How far the load balancer's clock is ahead, as this tick shows it if it has just come.
fn apart_s(tick: &v1::SignalTick, now_s: u64) -> i128 {
    i128::from(tick.at_ms / 1000).saturating_sub(i128::from(now_s))
}

impl Read {
    /// Takes in ticks that came at once, the newest last; with what is wrong with one that cannot be read. What is so old that
    /// whoever judges has gone on is left out; a judge that was taken up has not gone on.
    fn take(
        &mut self,
        host: &HostName,
        burst: Vec<v1::SignalTick>,
        now_s: u64,
    ) -> (Vec<Ticked>, Option<Problem>) {
        let Some(newest) = burst.last() else { return (Vec::new(), None) };
        let (ahead_s, last) = (self.offset.take(apart_s(newest, now_s)), newest.number);
        let all = std::mem::take(&mut self.goes_on);
        let (mut reports, mut unreadable) = (Vec::new(), None);
        for wire in burst {
            // One that cannot be read is not asked for again.
            (self.life, self.number) = (wire.life.clone(), wire.number);
            let tick = match convert::tick_from_wire(&wire) {
                Ok(tick) => tick,
                Err(problem) => {
                    unreadable = Some(problem.on(host));
                    continue;
                }
            };
            let second = i128::from(tick.at.0 / 1000).saturating_sub(ahead_s);
            let second = u64::try_from(second).unwrap_or(0);
            let problem = wire.problem.and_then(convert::problem_from_wire).map(|problem| problem.on(host));
            if all || second.saturating_add(OF_USE_S) >= now_s {
                let fresh = tick.number == last;
                let ahead_s = i64::try_from(ahead_s).unwrap_or(0);
                let mark = Mark { life: wire.life, number: tick.number, ahead_s };
                reports.push(Ticked { second, tick: Box::new(tick), problem, fresh, mark });
            }
        }
        (reports, unreadable)
    }
}

fn broken(host: &HostName) -> Problem {
    Problem::new(Code::AgentUnreachable, format!("the stream of signals from `{host}` broke"))
        .retry_useful()
        .on(host)
        .hint(format!("on `{host}`: `systemctl status pointsman-lb-agent`"))
}

/// A second that not every load balancer has told of yet.
struct Second {
    merged: Tick,
    told: BTreeSet<HostName>,
    marks: BTreeMap<HostName, Mark>,
    until: Instant,
    /// Whoever told of it first did so late: it is one of a burst, which has an end.
    late: bool,
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
    /// Load balancers that tell nothing, and those that tell with a problem.
    silent: BTreeMap<HostName, Problem>,
    troubled: BTreeMap<HostName, Problem>,
    /// For how many seconds those of whom it is not known now have not told how complete their lines are.
    unknown_s: BTreeMap<HostName, u32>,
}

/// A second that is to be sent.
pub(crate) struct Whole {
    pub(crate) second: u64,
    pub(crate) merged: Tick,
    pub(crate) told: BTreeSet<HostName>,
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
            troubled: BTreeMap::new(),
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
                match tick.coverage {
                    Some(_) => drop(self.unknown_s.remove(&host)),
                    None => {
                        let unknown_s = self.unknown_s.entry(host.clone()).or_default();
                        *unknown_s = unknown_s.saturating_add(1);
                    }
                }
                match problem {
                    Some(problem) => drop(self.troubled.insert(host.clone(), problem)),
                    None => drop(self.troubled.remove(&host)),
                }
                self.place((second, fresh), &tick, (host, mark), now);
            }
        }
    }

    /// A tick that comes after its second was sent, or twice, is left out: a number that was shown does not change.
    fn place(
        &mut self,
        (second, fresh): (u64, bool),
        tick: &Tick,
        (host, mark): (HostName, Mark),
        now: Instant,
    ) {
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
                open.marks.insert(host, mark);
            }
            return;
        }
        let (most, alike) = if fresh { (OPEN_SECONDS, false) } else { (MOST_IN_BURST, true) };
        if self.open.values().filter(|open| open.late == alike).count() >= most {
            return;
        }
        let until = if self.expected.is_empty() { now + LATE } else { self.expected_until.max(now + LATE) };
        let (told, marks) = ([host.clone()].into(), [(host, mark)].into());
        self.open.insert(second, Second { merged: tick.clone(), told, marks, until, late: !fresh });
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
        let Second { merged, told, marks, .. } = self.open.remove(&second)?;
        self.sent = second;
        marks.into_iter().for_each(|(host, mark)| self.is_read(host, mark));
        Some(Whole { second, merged, told, read: self.read.clone() })
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

    /// What is wrong with the lines of those who told.
    pub(crate) fn trouble_of(&self, told: &BTreeSet<HostName>) -> Option<Problem> {
        self.troubled.iter().find(|(host, _)| told.contains(*host)).map(|(_, problem)| problem.clone())
    }

    /// Of whom it has not been known for too long how complete their lines are.
    pub(crate) fn unknown_of(&self, told: &BTreeSet<HostName>) -> Option<Problem> {
        let unknown = |(host, seconds): &(&HostName, &u32)| told.contains(*host) && **seconds > UNKNOWN_S;
        let (host, seconds) = self.unknown_s.iter().find(unknown)?;
        let message = format!("for {seconds} s `{host}` has not told how many of its access lines came");
        Some(
            Problem::new(Code::SignalsMissing, message)
                .cause("the agent there cannot read HAProxy's counters, or not soon enough")
                .retry_useful()
                .on(host)
                .hint("see docs/signals.md: when coverage is below 99 %"),
        )
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
    fn hopeless(&self) -> Option<Problem> {
        let off = |host: &HostName| {
            self.silent.get(host).is_some_and(|problem| problem.code == Code::SignalsMissing)
        };
        let all = !self.balancers.is_empty() && self.balancers.iter().all(off);
        self.silent.values().next().filter(|_| all).cloned()
    }
}

/// Watches until nobody listens. The streams to the load balancers end with it.
async fn watch(
    office: Arc<Office>,
    send: mpsc::Sender<Result<v1::TrafficTick, Status>>,
    _place: OwnedSemaphorePermit,
) {
    let environment = office.environment();
    let (report, mut reports) = mpsc::channel(REPORTS);
    let mut readers = JoinSet::new();
    for host in &environment.balancers {
        readers.spawn(read(office.fleet().clone(), host.clone(), Read::default(), report.clone()));
    }
    drop(report);
    let mut merger = Merger::new(&environment.balancers);
    let mut last = Instant::now();
    loop {
        // Where nobody tells anything, that is told.
        let due = merger.due().unwrap_or_else(|| last + LATE.saturating_mul(2));
        tokio::select! {
            () = send.closed() => return,
            came = reports.recv() => match came {
                Some((host, report)) => merger.take(host, report, Instant::now()),
                None => return,
            },
            () = tokio::time::sleep_until(due) => {}
        }
        if let Some(problem) = merger.hopeless() {
            return drop(send.send(Err(status_of_problem(&problem))).await);
        }
        while let Some(whole) = merger.whole(Instant::now()) {
            last = Instant::now();
            let tick = to_wire(environment, &office.exposed(), &merger, whole);
            if send.send(Ok(tick)).await.is_err() {
                return;
            }
        }
        if merger.open.is_empty() && last.elapsed() > LATE.saturating_mul(2) {
            last = Instant::now();
            let second = SystemClock.now().0 / 1000;
            let merged = Tick { span_ms: 1000, ..Tick::default() };
            let nobody = Whole { second, merged, told: BTreeSet::new(), read: BTreeMap::new() };
            let tick = to_wire(environment, &[], &merger, nobody);
            if send.send(Ok(tick)).await.is_err() {
                return;
            }
        }
    }
}

/// The release that a route brought visitors of a backend to: the last one that was put there by then.
fn release_on<'a>(exposed: &'a [Exposed], backend: &BackendName, epoch: RouteEpoch) -> Option<&'a Exposed> {
    exposed.iter().rev().find(|exposed| exposed.backend == *backend && exposed.since <= epoch)
}

fn to_wire(environment: &Environment, exposed: &[Exposed], merger: &Merger, whole: Whole) -> v1::TrafficTick {
    let Whole { second, merged, told, .. } = whole;
    let missing = merger.missing(&told);
    let because = unusable_because(&merged, &missing, merger, &told);
    let slots = environment.slots.values().map(|slot| slot_to_wire(exposed, &merged, slot));
    let pages = merged.cells.iter().filter(|(key, _)| key.backend == environment.maintenance_backend);
    let problems =
        missing.iter().chain(merger.troubled.iter().filter(|(host, _)| told.contains(*host)).map(|(_, p)| p));
    v1::TrafficTick {
        environment: environment.name.to_string(),
        at_ms: second.saturating_mul(1000),
        span_ms: merged.span_ms,
        slots: slots.collect(),
        balancers: told.iter().map(ToString::to_string).collect(),
        missing: problems.map(convert::problem_to_wire).collect(),
        coverage: merged.coverage.map(convert::coverage_to_wire),
        latency_usable: because.is_none(),
        latency_unusable_because: because.unwrap_or_default(),
        maintenance_pages: pages.map(|(_, cell)| cell.not_forwarded.saturating_add(cell.requests)).sum(),
        broken_lines: merged.broken_lines,
    }
}

/// Why nothing can be said about how long requests took.
fn unusable_because(
    merged: &Tick,
    missing: &[Problem],
    merger: &Merger,
    told: &BTreeSet<HostName>,
) -> Option<String> {
    if !missing.is_empty() {
        let hosts: Vec<String> =
            missing.iter().filter_map(|problem| problem.host.as_ref()).map(ToString::to_string).collect();
        return Some(format!("no signals from {}", hosts.join(", ")));
    }
    if let Some((_, problem)) = merger.troubled.iter().find(|(host, _)| told.contains(*host)) {
        return Some(problem.to_string());
    }
    if merged.coverage.is_none() {
        return Some("HAProxy was just reloaded or started, or its counters cannot be read".to_owned());
    }
    if let Some(few) = too_few_lines(merged) {
        return Some(few);
    }
    let Coverage { seen, expected } = merged.timed();
    (!merged.timed().sufficient())
        .then(|| format!("{seen} of {expected} requests came with a time: is `option logasap` set?"))
}

/// That too few access lines came, and of what.
pub(crate) fn too_few_lines(merged: &Tick) -> Option<String> {
    let (backend, Coverage { seen, expected }) = merged.too_few()?;
    let of = backend.map_or_else(String::new, |backend| format!(" of `{backend}`"));
    Some(format!("{seen} of {expected} access lines{of} came, {SUFFICIENT_PERCENT} % needed"))
}

fn slot_to_wire(exposed: &[Exposed], merged: &Tick, slot: &pointsman_core::SlotPlan) -> v1::SlotTraffic {
    let own = merged.cells.iter().filter(|(key, _)| key.backend == slot.backend);
    let cells: Vec<v1::TrafficCell> = own
        .map(|(key, cell)| {
            let CellKey { backend, epoch, .. } = key;
            let release = release_on(exposed, backend, *epoch).map(|exposed| exposed.release.to_string());
            v1::TrafficCell {
                release: release.unwrap_or_default(),
                cell: Some(convert::cell_to_wire(key, cell)),
            }
        })
        .collect();
    let counters = merged.counters.get(&slot.backend).copied().unwrap_or_default();
    let of_lines = cells.iter().filter_map(|cell| cell.cell.as_ref()).map(|cell| cell.retries).sum();
    v1::SlotTraffic {
        slot: slot.name.to_string(),
        backend: slot.backend.to_string(),
        cells,
        retries: if merged.lines_tell_retries { of_lines } else { counters.retries },
        counters: Some(convert::growth_to_wire(&slot.backend, counters)),
        coverage: merged.covered.get(&slot.backend).copied().map(convert::coverage_to_wire),
        probes: merged
            .probes
            .get(&slot.backend)
            .map(|probes| convert::probes_to_wire(&slot.backend, *probes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::signal::{Cell, Growth};
    use pointsman_core::{ReleaseId, Timestamp};

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
        let because = unusable_because(&whole.merged, &missing, &merger, &whole.told);
        assert_eq!(because.as_deref(), Some("no signals from lb2"));
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

    fn wire(number: u64, at_s: u64) -> v1::SignalTick {
        let life = "a".to_owned();
        v1::SignalTick { life, number, at_ms: at_s * 1000, span_ms: 1000, ..Default::default() }
    }

    #[test]
    fn what_was_counted_while_a_stream_was_broken_belongs_to_its_own_seconds() {
        let (lb1, mut read) = (host("lb1"), Read::default());
        let mut take = |burst: Vec<v1::SignalTick>, now_s| -> Vec<(u64, bool)> {
            let (reports, unreadable) = read.take(&lb1, burst, now_s);
            assert_eq!(unreadable, None);
            reports.iter().map(|report| (report.second, report.fresh)).collect()
        };
        // Its clock is 40 seconds ahead.
        assert_eq!(take(vec![wire(7, 1_040)], 1_000), [(1_000, true)]);
        let missed = (8..=11).map(|number| wire(number, 1_033 + number)).collect();
        assert_eq!(take(missed, 1_004), [(1_001, false), (1_002, false), (1_003, false), (1_004, true)]);
        // After a long time only the last minute is of use.
        let missed: Vec<_> = (12..=411).map(|number| wire(number, 1_033 + number)).collect();
        assert_eq!(take(missed, 1_404).first(), Some(&(1_344, false)));
        assert_eq!((read.life.as_str(), read.number), ("a", 411));
        let spoilt = v1::SignalTick { span_ms: 0, ..wire(413, 1_446) };
        let (reports, unreadable) = read.take(&lb1, vec![wire(412, 1_445), spoilt], 1_406);
        assert_eq!((reports.len(), unreadable.is_some()), (1, true));
        assert_eq!(read.number, 413, "it is not asked for again");
    }

    #[test]
    fn what_another_coordinator_has_not_heard_is_all_of_use() {
        let mark = Mark { life: "a".to_owned(), number: 7, ahead_s: 40 };
        let mut read = Read::from(&mark);
        assert_eq!((read.life.as_str(), read.number), ("a", 7));
        let missed: Vec<_> = (8..=907).map(|number| wire(number, 1_033 + number)).collect();
        let (reports, _) = read.take(&host("lb1"), missed, 1_900);
        let seconds: Vec<u64> = reports.iter().map(|report| report.second).collect();
        assert_eq!(seconds, (1_001..=1_900).collect::<Vec<u64>>());
        assert_eq!(reports.last().unwrap().mark, Mark { number: 907, ..mark });
        // From then on it is a stream like any other.
        let (reports, _) = read.take(&host("lb1"), vec![wire(908, 1_941), wire(1_100, 2_133)], 2_093);
        assert_eq!(reports.len(), 1);
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

    #[test]
    fn who_never_knows_how_many_lines_there_are_is_not_seen() {
        let (now, mut merger) = (Instant::now(), Merger::new(&[host("lb1"), host("lb2")]));
        let told = BTreeSet::from([host("lb1"), host("lb2")]);
        let unknown = |second| match tick(second, 0) {
            Report::Ticked(mut ticked) => {
                ticked.tick.coverage = None;
                Report::Ticked(ticked)
            }
            silent @ Report::Silent(_) => silent,
        };
        for second in 1..=u64::from(UNKNOWN_S) {
            merger.take(host("lb1"), unknown(second), now);
            merger.take(host("lb2"), tick(second, 0), now);
        }
        assert_eq!(merger.unknown_of(&told), None, "a reload");
        merger.take(host("lb1"), unknown(16), now);
        let problem = merger.unknown_of(&told).unwrap();
        assert_eq!((problem.code, problem.host), (Code::SignalsMissing, Some(host("lb1"))));
        assert_eq!(merger.unknown_of(&BTreeSet::from([host("lb2")])), None);
        merger.take(host("lb1"), tick(17, 0), now);
        assert_eq!(merger.unknown_of(&told), None);
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

    #[test]
    fn coverage_says_why() {
        let merger = Merger::new(&[]);
        let because = |coverage| {
            let merged = Tick { coverage, ..Tick::default() };
            unusable_because(&merged, &[], &merger, &BTreeSet::new())
        };
        assert_eq!(because(Some(Coverage { seen: 99, expected: 100 })), None);
        assert_eq!(
            because(Some(Coverage { seen: 98, expected: 100 })).unwrap(),
            "98 of 100 access lines came, 99 % needed"
        );
        assert!(because(None).unwrap().contains("just reloaded"));
        // One slot lacks its lines, and all together do not.
        let of = |backend: &str, seen| (backend.parse().unwrap(), Coverage { seen, expected: 100 });
        let merged = Tick {
            coverage: Some(Coverage { seen: 9_950, expected: 10_000 }),
            covered: [of("be_blue", 100), of("be_canary", 97), of("be_green", 50)].into(),
            ..Tick::default()
        };
        let told = unusable_because(&merged, &[], &merger, &BTreeSet::new()).unwrap();
        assert_eq!(told, "50 of 100 access lines of `be_green` came, 99 % needed");
    }

    #[test]
    fn lines_without_times_say_nothing_of_latencies() {
        let key = CellKey {
            backend: "be_blue".parse().unwrap(),
            epoch: RouteEpoch(4),
            class: "api".parse().unwrap(),
        };
        let tick = Tick {
            coverage: Some(Coverage { seen: 3, expected: 3 }),
            cells: [(key, Cell { requests: 3, ..Cell::default() })].into(),
            ..Tick::default()
        };
        let merger = Merger::new(&[]);
        let because = unusable_because(&tick, &[], &merger, &BTreeSet::new()).unwrap();
        assert_eq!(because, "0 of 3 requests came with a time: is `option logasap` set?");
    }

    #[test]
    fn which_release_a_route_leads_to() {
        let exposed = |release: &str, backend: &str, since| Exposed {
            release: ReleaseId::parse(release).unwrap(),
            backend: backend.parse().unwrap(),
            since: RouteEpoch(since),
        };
        // v3 took the slot of v1 while v2 was live.
        let journal =
            [exposed("v1", "be_blue", 2), exposed("v2", "be_green", 5), exposed("v3", "be_blue", 9)];
        let on = |backend: &str, epoch| {
            release_on(&journal, &backend.parse().unwrap(), RouteEpoch(epoch))
                .map(|found| found.release.to_string())
        };
        assert_eq!(on("be_blue", 1), None);
        assert_eq!(on("be_blue", 3).as_deref(), Some("v1"));
        assert_eq!(on("be_blue", 8).as_deref(), Some("v1"));
        assert_eq!(on("be_green", 8).as_deref(), Some("v2"));
        assert_eq!(on("be_blue", 10).as_deref(), Some("v3"));
        assert_eq!(on("be_maint", 10), None);
    }
}
