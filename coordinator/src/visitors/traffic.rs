//! What visitors meet, over all load balancers: one stream from each, merged second by second, with the slots and releases
//! that the journal knows. It decides nothing, and no release waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::signal::{CellKey, Coverage, Tick};
use pointsman_core::{BackendName, Code, HostName, Problem, RouteEpoch, SlotPlan};
use pointsman_proto::{convert, status_of_problem, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::merger::{LATE, Merger, Whole, too_few_lines};
use super::reading::{REPORTS, Read, read};
use crate::environment::Environment;
use crate::office::{Exposed, Office};

/// Watchers at once, over all environments: each has a stream of its own to every load balancer.
const WATCHERS: usize = 16;
/// Ticks on their way to a watcher. One that is slower misses nothing of this length, then waits for its own network.
const TICKS: usize = 8;

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
        if merger.due().is_none() && last.elapsed() > LATE.saturating_mul(2) {
            last = Instant::now();
            let second = SystemClock.now().0 / 1000;
            let merged = Tick { span_ms: 1000, ..Tick::default() };
            let nobody = Whole {
                second,
                merged,
                told: BTreeSet::new(),
                troubles: BTreeMap::new(),
                read: BTreeMap::new(),
            };
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
    let Whole { second, merged, told, troubles, .. } = whole;
    let missing = merger.missing(&told);
    let because = unusable_because(&merged, &missing, &troubles);
    let slots = environment.slots.values().map(|slot| slot_to_wire(exposed, &merged, slot));
    let pages = merged.cells.iter().filter(|(key, _)| key.backend == environment.maintenance_backend);
    let problems = missing.iter().chain(troubles.values());
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
    troubles: &BTreeMap<HostName, Problem>,
) -> Option<String> {
    if !missing.is_empty() {
        let hosts: Vec<String> =
            missing.iter().filter_map(|problem| problem.host.as_ref()).map(ToString::to_string).collect();
        return Some(format!("no signals from {}", hosts.join(", ")));
    }
    if let Some(problem) = troubles.values().next() {
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

fn slot_to_wire(exposed: &[Exposed], merged: &Tick, slot: &SlotPlan) -> v1::SlotTraffic {
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
    use pointsman_core::ReleaseId;
    use pointsman_core::signal::Cell;

    #[test]
    fn who_is_missing_comes_before_everything_else() {
        let gone = |host: &str| {
            Problem::new(Code::AgentUnreachable, "nothing comes").on(&host.parse::<HostName>().unwrap())
        };
        let troubles = [("lb1".parse().unwrap(), Problem::new(Code::SignalsMissing, "no connection"))].into();
        let because = |missing: &[Problem]| unusable_because(&Tick::default(), missing, &troubles).unwrap();
        assert_eq!(because(&[gone("lb2"), gone("lb3")]), "no signals from lb2, lb3");
        assert!(because(&[]).contains("no connection"));
    }

    #[test]
    fn coverage_says_why() {
        let because = |coverage| {
            let merged = Tick { coverage, ..Tick::default() };
            unusable_because(&merged, &[], &BTreeMap::new())
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
        let told = unusable_because(&merged, &[], &BTreeMap::new()).unwrap();
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
        let because = unusable_because(&tick, &[], &BTreeMap::new()).unwrap();
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
