//! Visitors: clients that reuse a connection and clients that open one per request, on a timetable of their own, and
//! a record of every request. They run on a thread of their own, so that a busy test does not slow them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest time for one request; slower counts as failed.
const LONGEST: Duration = Duration::from_secs(10);
/// What is asked for. Every line of the page names the version.
const REQUEST: &str = "GET /page.txt HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: visitor\r\n";

/// How many visitors, and how often each asks.
#[derive(Clone, Copy, Debug)]
pub struct LoadPlan {
    /// Clients that reuse their connection.
    pub keep_alive: u32,
    /// Clients that open a connection for each request.
    pub fresh: u32,
    /// Time between two requests of a client.
    pub every: Duration,
    /// Each client has an id of its own, as browsers have; else all of them are known by their address alone, and a
    /// split takes them all to one side.
    pub with_ids: bool,
}

impl Default for LoadPlan {
    /// 640 requests per second, a quarter of them on new connections.
    fn default() -> Self {
        Self { keep_alive: 12, fresh: 4, every: Duration::from_millis(25), with_ids: false }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When it began.
    pub began: Instant,
    /// When its answer was complete, or it failed.
    pub ended: Instant,
    /// The number of the client, from 0.
    pub client: u32,
    /// The connection had carried requests before.
    pub reused: bool,
    /// The status; `None` when there was no whole answer.
    pub status: Option<u16>,
    /// The route epoch that the answer is marked with.
    pub epoch: Option<u64>,
    /// The version that every line of the page names.
    pub marker: String,
    /// What went wrong: no connection, an answer cut short, a torn page, a 5xx.
    pub failure: Option<String>,
}

/// Everything that happened to the visitors.
#[derive(Debug)]
pub struct Report {
    /// Every request, in no order.
    pub visits: Vec<Visit>,
    /// How long the load lasted.
    pub lasted: Duration,
}

/// Visitors at work. Dropping them ends them.
pub struct Load {
    ended: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<Result<Vec<Visit>>>>,
    began: Instant,
}

impl Load {
    /// Lets visitors in.
    pub fn start(frontend: SocketAddr, plan: LoadPlan) -> Result<Self> {
        let (ended, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, counter) = (Arc::clone(&ended), Arc::clone(&counted));
        let thread = std::thread::Builder::new().name("visitors".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(visitors(frontend, plan, flag, counter)))
        })?;
        Ok(Self { ended, counted, thread: Some(thread), began: Instant::now() })
    }

    /// How many requests have been answered.
    pub fn so_far(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests have been answered.
    pub async fn more(&self, count: u64) -> Result<()> {
        let enough = self.so_far().saturating_add(count);
        crate::until("visitors go on", LONGEST, || async { (self.so_far() >= enough).then_some(()) }).await
    }

    /// Lets the visitors end what they do, and reports.
    pub fn stop(mut self) -> Result<Report> {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the visitors ended before")?;
        let visits = thread.join().map_err(|_| anyhow!("a visitor panicked"))??;
        Ok(Report { visits, lasted: self.began.elapsed() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What became of the requests matters only to a test that asks.
            let _ = thread.join();
        }
    }
}

impl Report {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.visits.len() as f64 / self.lasted.as_secs_f64()
    }

    /// The requests that failed, in words.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.visits.iter().filter_map(|visit| Some((visit, visit.failure.as_ref()?)));
        failed.map(|(visit, failure)| format!("{failure} (reused: {})", visit.reused)).collect()
    }

    /// How many requests that began after `moment` were answered by `marker`.
    pub fn after(&self, moment: Instant, marker: &str) -> usize {
        self.visits.iter().filter(|visit| visit.began > moment && visit.marker == marker).count()
    }

    /// How many requests were answered by `marker`.
    pub fn by(&self, marker: &str) -> usize {
        self.visits.iter().filter(|visit| visit.marker == marker).count()
    }
}

async fn visitors(
    frontend: SocketAddr,
    plan: LoadPlan,
    ended: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
) -> Vec<Visit> {
    let clients = (0..plan.keep_alive).map(|_| true).chain((0..plan.fresh).map(|_| false));
    let count = plan.keep_alive.saturating_add(plan.fresh).max(1);
    let tasks: Vec<_> = (0u32..)
        .zip(clients)
        .map(|(number, keeps)| {
            let offset = plan.every.saturating_mul(number) / count;
            let cookie =
                if plan.with_ids { format!("Cookie: pm_id=visitor-{number}\r\n") } else { String::new() };
            let client = Client { number, keeps, request: format!("{REQUEST}{cookie}") };
            let times = (offset, plan.every);
            tokio::spawn(visitor(frontend, client, times, Arc::clone(&ended), Arc::clone(&counted)))
        })
        .collect();
    let mut visits = Vec::new();
    for task in tasks {
        visits.extend(task.await.unwrap_or_default());
    }
    visits
}

struct Client {
    number: u32,
    keeps: bool,
    request: String,
}

async fn visitor(
    frontend: SocketAddr,
    client: Client,
    (offset, every): (Duration, Duration),
    ended: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
) -> Vec<Visit> {
    let mut visits = Vec::new();
    let mut connection: Option<TcpStream> = None;
    tokio::time::sleep(offset).await;
    let mut timetable = interval(every);
    // Late requests are made up for: a slow answer must not thin out the load.
    timetable.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !ended.load(Ordering::Relaxed) {
        timetable.tick().await;
        let kept = connection.take().filter(still_open);
        let reused = kept.is_some();
        let began = Instant::now();
        let answered = timeout(LONGEST, exchange(frontend, kept, &client)).await;
        let answered = answered.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", LONGEST.as_secs())));
        visits.push(record(began, (client.number, reused), &answered));
        counted.fetch_add(1, Ordering::Relaxed);
        connection = answered.ok().and_then(|answer| answer.connection);
    }
    visits
}

/// A server may close a connection on which nothing is asked: whoever looks before asking sees it.
fn still_open(stream: &TcpStream) -> bool {
    let mut nothing = [0u8; 1];
    matches!(stream.try_read(&mut nothing), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn record(began: Instant, (client, reused): (u32, bool), answered: &Result<Answer>) -> Visit {
    let ended = Instant::now();
    match answered {
        Ok(answer) => Visit {
            began,
            ended,
            client,
            reused,
            status: Some(answer.status),
            epoch: answer.epoch,
            marker: answer.marker.clone(),
            failure: answer.failure(),
        },
        Err(error) => Visit {
            began,
            ended,
            client,
            reused,
            status: None,
            epoch: None,
            marker: String::new(),
            failure: Some(format!("{error:#}")),
        },
    }
}

struct Answer {
    status: u16,
    epoch: Option<u64>,
    marker: String,
    torn: bool,
    connection: Option<TcpStream>,
}

impl Answer {
    fn failure(&self) -> Option<String> {
        if self.status >= 500 {
            return Some(format!("status {}", self.status));
        }
        self.torn.then(|| format!("torn page of {}", self.marker))
    }
}

async fn exchange(frontend: SocketAddr, kept: Option<TcpStream>, client: &Client) -> Result<Answer> {
    let Client { keeps, request, .. } = client;
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(frontend).await.context("cannot connect")?,
    };
    let request =
        if *keeps { format!("{request}\r\n") } else { format!("{request}Connection: close\r\n\r\n") };
    stream.write_all(request.as_bytes()).await.context("cannot ask")?;
    let mut bytes = Vec::with_capacity(8192);
    let (status, length, epoch, closes, body_at) = loop {
        if stream.read_buf(&mut bytes).await.context("no answer")? == 0 {
            bail!("closed after {} bytes of the answer's head", bytes.len());
        }
        if let Some(head) = head(&bytes)? {
            break head;
        }
    };
    let whole = body_at.saturating_add(length);
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await.context("answer cut short")? == 0 {
            bail!("answer cut short: {} of {whole} bytes", bytes.len());
        }
    }
    let body = bytes.get(body_at..whole).unwrap_or_default();
    let (marker, torn) = marker(body);
    let connection = (*keeps && !closes).then_some(stream);
    Ok(Answer { status, epoch, marker, torn: status == 200 && torn, connection })
}

type Head = (u16, usize, Option<u64>, bool, usize);

/// Status, length of the body, route epoch, whether the connection closes, and where the body begins.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = header("content-length:").context("no length")?.parse()?;
    let mark = header("x-pointsman:").and_then(|mark| mark.split(' ').find_map(|f| f.strip_prefix("epoch=")));
    let closes = header("connection:") == Some("close");
    Ok(Some((status, length, mark.and_then(|epoch| epoch.parse().ok()), closes, end.saturating_add(4))))
}

/// The version that the page names, and whether two lines of it disagree.
fn marker(body: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(body);
    let first = text.lines().next().unwrap_or("");
    (first.to_owned(), text.lines().any(|line| line != first))
}
