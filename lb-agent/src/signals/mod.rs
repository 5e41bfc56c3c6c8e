//! Signals: access lines and counters of HAProxy become ticks, one a second, kept for a while and told to the coordinator.
//!
//! It decides nothing by them, and steering traffic never waits for it.

mod astray;
mod coverage;
mod failed_before;
mod frame;
mod line;
mod receiver;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use pointsman_chassis::SystemClock;
use pointsman_chassis::agent_service::{SignalTicks, SignalsFrom};
use pointsman_core::ports::Clock as _;
use pointsman_core::signal::{Growth, Tick};
use pointsman_core::{BackendName, Code, Problem, Route, Timestamp};
use pointsman_proto::{convert, v1};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

pub use self::receiver::receive;
pub use self::tally::{Counted, Tally};

pub use self::astray::Astray;

use self::coverage::{Counters, Look, Watch};
use self::receiver::Ear;
use crate::config;
use crate::reply::StatRow;
use crate::workers::Workers;

/// Ticks that are kept: a quarter of an hour, so that a coordinator that was started anew goes on where it was.
const KEPT_TICKS: usize = 900;
/// Buckets in all kept ticks together, about 24 MB: what a busy site fills in a quarter of an hour is a tenth of it.
const KEPT_BUCKETS: usize = 2_000_000;
/// How long after a full second it is closed. Lines take a few milliseconds from HAProxy's ring to here, and HAProxy's
/// counters are read meanwhile.
const WATERMARK_MS: u64 = 200;
/// A second is named by the full one that is nearest: timers and wall clock differ by a little, either way.
const HALF_SECOND_MS: u64 = 500;
/// See [`wait_ms`].
const JUST_AHEAD_MS: u64 = 50;
/// How long after HAProxy's counters were read lines are waited for that belong to them, at most, and how often they are
/// counted meanwhile. On a machine that has better things to do they take tens of milliseconds.
const SETTLE: Duration = Duration::from_millis(150);
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// A look at the counters that took longer is not compared with lines: too many came in between.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// Broken lines are warned of no more often than this.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The signals of one load balancer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Signals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: config::Signals,
    workers: Workers,
    backends: Vec<BackendName>,
    /// Of these backends, those that are pages of HAProxy's own.
    pages: Vec<BackendName>,
    life: String,
    started: Instant,
    tally: Arc<Tally>,
    ear: Arc<Ear>,
    watch: Mutex<Watch>,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    ticks: VecDeque<Arc<v1::SignalTick>>,
    buckets: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a load balancer without `[signals]` says.
pub fn missing() -> Problem {
    Problem::new(Code::SignalsMissing, "this load balancer's agent listens for no access lines")
        .hint("add `[signals]` to lb-agent.toml and the ring to haproxy.cfg: see docs/signals.md")
}

fn buckets_of(tick: &v1::SignalTick) -> usize {
    let latencies = tick.cells.iter().filter_map(|cell| cell.latency.as_ref());
    latencies.map(|latency| latency.bucket.len()).sum()
}

impl Kept {
    fn add(&mut self, tick: v1::SignalTick) {
        self.buckets = self.buckets.saturating_add(buckets_of(&tick));
        self.ticks.push_back(Arc::new(tick));
        while self.ticks.len() > KEPT_TICKS || (self.buckets > KEPT_BUCKETS && self.ticks.len() > 1) {
            let gone = self.ticks.pop_front().map_or(0, |tick| buckets_of(&tick));
            self.buckets = self.buckets.saturating_sub(gone);
        }
    }

    fn after(&self, number: u64) -> Option<Arc<v1::SignalTick>> {
        self.ticks.iter().find(|tick| tick.number > number).cloned()
    }
}

/// What a worker's counters stand at. Requests are counted by how they were answered: in every version that happens when
/// they end, as their line is written.
fn counters(rows: &[StatRow], backends: &[BackendName]) -> Counters {
    let own = rows.iter().filter(|row| row.server == "BACKEND");
    own.filter_map(|row| {
        let backend = backends.iter().find(|backend| backend.as_str() == row.backend)?;
        let growth = Growth {
            requests: row.responses,
            responses_5xx: row.responses_5xx,
            connection_errors: row.connection_errors,
            response_errors: row.response_errors,
            retries: row.retries.saturating_add(row.redispatches),
            client_aborts: row.client_aborts,
        };
        Some((backend.clone(), growth))
    })
    .collect()
}

impl Signals {
    /// Nothing is listened for before [`Signals::gather`].
    pub fn new(config: config::Signals, haproxy: &config::Haproxy, workers: Workers) -> Self {
        let mut backends: Vec<BackendName> =
            haproxy.backends.iter().map(|backend| backend.0.clone()).collect();
        let pages = std::iter::once(&haproxy.maintenance_backend).chain(&haproxy.hold_backend);
        let pages: Vec<BackendName> = pages.map(|page| page.0.clone()).collect();
        for page in &pages {
            if !backends.contains(page) {
                backends.push(page.clone());
            }
        }
        let tally = match haproxy.driver {
            config::Driver::Map => Tally::new(backends.clone()),
            config::Driver::ServerState => Tally::by_servers(backends.clone(), |backend| {
                let named = haproxy.servers.iter().filter(|(slot, _)| slot.0 == *backend);
                named.flat_map(|(_, servers)| servers.iter().map(|server| server.0.clone())).collect()
            }),
        };
        Self(Arc::new(Inner {
            config,
            workers,
            tally: Arc::new(tally),
            backends,
            pages,
            life: format!("{:x}-{:x}", SystemClock.now().0, std::process::id()),
            started: Instant::now(),
            ear: Arc::default(),
            watch: Mutex::default(),
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
        }))
    }

    /// Listens, looks and counts, for ever.
    pub async fn gather(&self) {
        let Inner { config, tally, ear, .. } = &*self.0;
        let listening =
            receiver::listen(config.listen, config.max_connections, Arc::clone(tally), Arc::clone(ear));
        tokio::join!(listening, self.look_each_second(), self.close_each_second());
    }

    /// Where lines are listened for, on how many connections they come, and why none can come.
    pub fn facts(&self) -> (String, u32, Option<Problem>) {
        (self.0.config.listen.to_string(), self.0.ear.connections(), self.0.ear.problem())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn look_each_second(&self) {
        let mut known = Known::default();
        loop {
            until_ms_of_second(0).await;
            let (before, began) = (self.0.tally.covered(), Instant::now());
            // HAProxy is down or busy: the next look will tell, and meanwhile coverage is unknown.
            let Some(workers) = self.counters_of_all(&mut known).await else { continue };
            if began.elapsed() > LONGEST_LOOK {
                continue;
            }
            let lines = (before, self.0.tally.covered());
            locked(&self.0.watch).take(Look { at_ms: self.now_ms(), workers, lines });
            let until = Instant::now() + SETTLE;
            while !self.settled() && Instant::now() < until {
                tokio::time::sleep(SETTLE_STEP).await;
            }
            locked(&self.0.watch).judge();
        }
    }

    fn settled(&self) -> bool {
        let lines = self.0.tally.covered();
        locked(&self.0.watch).settle(&lines)
    }

    /// The counters of every worker. The master is asked only while there are old ones, or may be.
    async fn counters_of_all(&self, known: &mut Known) -> Option<BTreeMap<u32, Counters>> {
        let Inner { workers, backends, .. } = &*self.0;
        let pid = workers.info().await.ok()?.pid;
        let rows = workers.stat().await.ok()?;
        // A reload in between: nobody knows whose counters these are.
        if workers.info().await.ok()?.pid != pid {
            return None;
        }
        let mut all = BTreeMap::from([(pid, counters(&rows, backends))]);
        if known.current != Some(pid) || known.old {
            for old in workers.old().await.ok()? {
                if let Some(rows) = old.stat().await.ok()? {
                    all.insert(old.pid, counters(&rows, backends));
                }
            }
        }
        *known = Known { current: Some(pid), old: all.len() > 1 };
        Some(all)
    }

    async fn close_each_second(&self) {
        let (mut number, mut closed, mut ended) = (0u64, Instant::now(), 0u64);
        let mut warned: Option<Instant> = None;
        let mut doubted: Option<Instant> = None;
        loop {
            until_ms_of_second(WATERMARK_MS).await;
            let (counted, now) = (self.0.tally.close(), Instant::now());
            // The full second that is over. Where the clock was set back, the seconds still follow each other.
            let wall_ms = SystemClock.now().0.saturating_sub(WATERMARK_MS).saturating_add(HALF_SECOND_MS);
            let second_ms = wall_ms.saturating_sub(wall_ms % 1000);
            ended = if second_ms <= ended && ended.saturating_sub(second_ms) < 2_000 {
                ended.saturating_add(1000)
            } else {
                second_ms
            };
            let lasted_ms = now.saturating_duration_since(closed).as_millis();
            closed = now;
            number = number.saturating_add(1);
            if counted.broken > 0 && warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                warn!(
                    lines = counted.broken,
                    "access lines cannot be read: compare `log-format` with docs/signals.md"
                );
                warned = Some(now);
            }
            let (complete, counters) = {
                let mut watch = locked(&self.0.watch);
                (watch.complete(self.now_ms()).cloned(), watch.grown())
            };
            let made_up = complete.as_ref().and_then(|complete| complete.made_up.as_ref());
            if let Some(backend) = made_up.filter(|_| doubted.is_none_or(|at| at.elapsed() > WARN_EVERY)) {
                warn!(
                    %backend,
                    "more access lines than HAProxy answered requests: somebody else makes lines up; see `log-format` of `pointsman doctor lb ENV`"
                );
                doubted = Some(now);
            }
            let coverage = complete.as_ref().map(|complete| complete.whole);
            // A page is no slot: nobody asks how long it takes.
            let slots = complete.into_iter().flat_map(|complete| complete.backends);
            let covered = slots.filter(|(backend, _)| !self.0.pages.contains(backend)).collect();
            let tick = Tick {
                number,
                at: Timestamp(ended),
                span_ms: u64::try_from(lasted_ms).unwrap_or(u64::MAX).max(1),
                cells: counted.cells,
                probes: counted.probes,
                coverage,
                covered,
                counters,
                lines_tell_retries: counted.lines_tell_retries,
                broken_lines: counted.broken,
            };
            let mut wire = convert::tick_to_wire(&tick);
            wire.life.clone_from(&self.0.life);
            wire.connections = self.0.ear.connections();
            wire.problem = self.0.ear.problem().as_ref().map(convert::problem_to_wire);
            locked(&self.0.kept).add(wire);
            self.0.newest.send_replace(number);
        }
    }

    /// The requests of visitors, in the seconds since `since`, that slots answered to which `route` leads nobody.
    pub fn astray(&self, route: &Route, since: Timestamp) -> Astray {
        let newest: Vec<Arc<v1::SignalTick>> =
            locked(&self.0.kept).ticks.iter().rev().take(astray::TICKS).cloned().collect();
        let ticks: Vec<Tick> = newest.iter().filter_map(|wire| convert::tick_from_wire(wire).ok()).collect();
        astray::among(&ticks, route, &self.0.pages, since)
    }

    /// Ticks as they come, after what the reader has read.
    pub fn ticks(&self, from: &SignalsFrom) -> SignalTicks {
        let after = match &from.life {
            life if life.is_empty() => *self.0.newest.borrow(),
            life if *life == self.0.life => from.after,
            // Numbers of another life mean nothing here.
            _ => 0,
        };
        let state = (self.clone(), after, self.0.newest.subscribe());
        Box::pin(stream::unfold(state, |(signals, after, mut newest)| async move {
            loop {
                newest.borrow_and_update();
                let next = locked(&signals.0.kept).after(after);
                if let Some(tick) = next {
                    let mut sent = (*tick).clone();
                    sent.newest = Some(*newest.borrow());
                    return Some((Ok(sent), (signals, tick.number, newest)));
                }
                newest.changed().await.ok()?;
            }
        }))
    }
}

/// What the last look found.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    current: Option<u32>,
    old: bool,
}

/// Waits until the next moment that is so many milliseconds after a full second of the wall clock, so that the ticks of
/// all load balancers are of the same seconds.
async fn until_ms_of_second(offset_ms: u64) {
    tokio::time::sleep(Duration::from_millis(wait_ms(SystemClock.now().0, offset_ms))).await;
}

/// A moment that is only just ahead is the one that was waited for, by a clock that was slowed down a little meanwhile.
fn wait_ms(now_ms: u64, offset_ms: u64) -> u64 {
    let into_ms = now_ms.saturating_add(1000).saturating_sub(offset_ms) % 1000;
    let wait_ms = 1000u64.saturating_sub(into_ms);
    if wait_ms < JUST_AHEAD_MS { wait_ms.saturating_add(1000) } else { wait_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_follow_each_other_whatever_the_clocks_do() {
        let cases = [(10_200, 1000), (10_199, 1001), (10_250, 950), (10_100, 100), (10_900, 300), (0, 200)];
        for (now_ms, expected) in cases {
            assert_eq!(wait_ms(now_ms, 200), expected, "{now_ms}");
        }
        assert_eq!((wait_ms(10_000, 0), wait_ms(9_999, 0), wait_ms(10_004, 0)), (1000, 1001, 996));
    }

    fn tick(number: u64, buckets: usize) -> v1::SignalTick {
        let latency = v1::SignalHistogram { bucket: vec![1; buckets], count: vec![1; buckets] };
        let cell = v1::SignalCell { latency: Some(latency), ..Default::default() };
        v1::SignalTick { number, cells: vec![cell], ..Default::default() }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        (1..=2_000).for_each(|number| kept.add(tick(number, 3)));
        assert_eq!((kept.ticks.len(), kept.buckets), (KEPT_TICKS, 3 * KEPT_TICKS));
        assert_eq!(kept.after(0).unwrap().number, 2_000 - KEPT_TICKS as u64 + 1);
        assert_eq!(kept.after(1_999).unwrap().number, 2_000);
        assert!(kept.after(2_000).is_none());
        (2_001..=2_010).for_each(|number| kept.add(tick(number, KEPT_BUCKETS / 3)));
        assert_eq!(kept.ticks.len(), 3);
        kept.add(tick(2_011, 2 * KEPT_BUCKETS));
        assert_eq!(kept.ticks.len(), 1);
    }
}
