//! Visitors at a given rate, at as little cost as a machine with two cores needs: half of them reuse a connection and
//! do not look whether it was closed before they write, the others come anew for each request. Only counted, never kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use kit::Wire;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Clients; each asks once at a time.
const CLIENTS: u32 = 64;
/// Longest time for one request; slower counts as lost.
const LONGEST: Duration = Duration::from_secs(10);
/// Failures that are kept in words.
const FAILURES_KEPT: usize = 10;

const KEPT: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\n\r\n";
const ONCE: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n";

/// Which page an answer must have: by the route epoch that it is marked with, which alternates between two slots.
#[derive(Clone, Debug)]
pub struct Pages {
    /// An epoch of the first page's slot.
    pub from: u64,
    /// The page of that slot, and that of the other.
    pub of: [String; 2],
}

impl Pages {
    fn of_epoch(&self, epoch: u64) -> &[u8] {
        let [this, other] = &self.of;
        if epoch.abs_diff(self.from).is_multiple_of(2) { this.as_bytes() } else { other.as_bytes() }
    }
}

/// What became of the visitors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Those without a whole answer of status 200.
    pub lost: u64,
    /// Answers whose mark and page are of two slots.
    pub torn: u64,
    /// Answers by an older route than the one that was reported before the request began.
    pub stale: u64,
    /// How long it lasted, in seconds.
    pub seconds: f64,
}

impl Counted {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            lost: self.lost.saturating_add(other.lost),
            torn: self.torn.saturating_add(other.torn),
            stale: self.stale.saturating_add(other.stale),
            seconds: self.seconds + other.seconds,
        }
    }
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    reported: AtomicU64,
    requests: AtomicU64,
    lost: AtomicU64,
    torn: AtomicU64,
    stale: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn lose(&self, why: String) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_KEPT {
            failures.push(why);
        }
    }
}

/// Visitors at work, on a thread of their own. Dropping them ends them.
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
    began: Instant,
}

impl Crowd {
    /// Lets visitors in, so many requests a second.
    pub fn start(frontend: SocketAddr, rate: u32, pages: &Pages) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (counting, pages) = (Arc::clone(&shared), Arc::new(pages.clone()));
        let every = Duration::from_secs(1) * CLIENTS / rate.max(1);
        let thread = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let clients = (0..CLIENTS).map(|number| {
                    let (shared, pages) = (Arc::clone(&counting), Arc::clone(&pages));
                    let (offset, keeps) = (every * number / CLIENTS, number % 2 == 0);
                    tokio::spawn(client(shared, pages, frontend, keeps, (offset, every)))
                });
                for client in clients.collect::<Vec<_>>() {
                    client.await?;
                }
                Ok(())
            })
        })?;
        Ok(Self { shared, thread: Some(thread), began: Instant::now() })
    }

    /// From now on an answer by an older route than this is stale.
    pub fn reported(&self, epoch: u64) {
        self.shared.reported.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Waits until so many more requests were answered.
    pub async fn more(&self, count: u64) -> Result<()> {
        let enough = self.shared.requests.load(Ordering::Relaxed).saturating_add(count);
        let there = || async { (self.shared.requests.load(Ordering::Relaxed) >= enough).then_some(()) };
        kit::until("visitors go on", Duration::from_secs(60), there).await
    }

    /// Lets the visitors end what they do, and counts.
    pub fn stop(mut self) -> Result<Counted> {
        let lasted = self.began.elapsed();
        self.shared.ended.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("the visitors ended before")?;
        thread.join().map_err(|_| anyhow!("a visitor panicked"))??;
        for failure in self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            eprintln!("   lost: {failure}");
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Ok(Counted {
            requests: count(&self.shared.requests),
            lost: count(&self.shared.lost),
            torn: count(&self.shared.torn),
            stale: count(&self.shared.stale),
            seconds: lasted.as_secs_f64(),
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What became of the requests matters only to whoever stops them.
            let _ = thread.join();
        }
    }
}

async fn client(
    shared: Arc<Shared>,
    pages: Arc<Pages>,
    frontend: SocketAddr,
    keeps: bool,
    (offset, every): (Duration, Duration),
) {
    let mut wire = None;
    tokio::time::sleep(offset).await;
    let mut timetable = interval(every);
    // Late requests are made up for: a slow answer must not thin out the load.
    timetable.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !shared.ended.load(Ordering::Relaxed) {
        timetable.tick().await;
        let reused = wire.is_some();
        // Read before the request begins: what was reported until then, it must obey.
        let reported = shared.reported.load(Ordering::SeqCst);
        let one = one(&mut wire, frontend, keeps, (&shared, &pages, reported));
        let failure = match timeout(LONGEST, one).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#} (reused: {reused})")),
            Err(_) => Some(format!("no answer in {} s (reused: {reused})", LONGEST.as_secs())),
        };
        if let Some(failure) = failure {
            wire = None;
            shared.lose(failure);
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
}

async fn one(
    kept: &mut Option<Wire>,
    frontend: SocketAddr,
    keeps: bool,
    (shared, pages, reported): (&Shared, &Pages, u64),
) -> Result<()> {
    let mut wire = match kept.take() {
        Some(wire) => wire,
        None => Wire::open(frontend).await?,
    };
    let reply = wire.ask(if keeps { KEPT } else { ONCE }).await?;
    if reply.status != 200 {
        return Err(anyhow!("status {}", reply.status));
    }
    let epoch = reply.epoch.context("an answer without its route epoch")?;
    if reply.canary || reply.body != pages.of_epoch(epoch) {
        shared.torn.fetch_add(1, Ordering::Relaxed);
    }
    if epoch < reported {
        shared.stale.fetch_add(1, Ordering::Relaxed);
    }
    let closes = reply.closes;
    *kept = (keeps && !closes).then_some(wire);
    Ok(())
}
