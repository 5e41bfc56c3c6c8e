//! The demo's visitors: people with browsers, who keep the cookie that HAProxy gives them and reuse their connection,
//! and programs, which keep no cookie, come from addresses of their own and open a connection for each request. Each
//! asks on a timetable of its own, whatever becomes of the others.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::visit::Visit;

/// So many that a share of ten percent is one of forty, and few enough for one thread and `maxconn`.
const PEOPLE: u32 = 400;
/// Every so manyth of them is a program.
const PROGRAM_EACH: u32 = 4;
/// Between two requests of one visitor: 640 requests a second together.
const EVERY: Duration = Duration::from_millis(625);
/// Longest time for one request; slower counts as failed.
const LONGEST: Duration = Duration::from_secs(10);
/// Most bytes of one answer's head: HAProxy's own buffer.
const LONGEST_HEAD: usize = 16_384;

/// Lets everybody visit until `end` is over. Requests that are under way then are brought to their end.
pub async fn visit_until(frontend: SocketAddr, end: impl Future) -> Vec<Visit> {
    let ended = Arc::new(AtomicBool::new(false));
    let people: Vec<_> = (0..PEOPLE)
        .map(|number| {
            let person = Person { number, frontend, cookie: None, connection: None };
            tokio::spawn(person.visits(EVERY.saturating_mul(number) / PEOPLE, Arc::clone(&ended)))
        })
        .collect();
    end.await;
    ended.store(true, Ordering::Relaxed);
    let mut visits = Vec::new();
    for person in people {
        // One that panicked must not look like one that never came.
        let lost =
            |error| vec![Visit { failure: Some(format!("a visitor ended: {error}")), ..Visit::default() }];
        visits.extend(person.await.unwrap_or_else(lost));
    }
    visits
}

/// A visitor between two requests.
struct Person {
    number: u32,
    frontend: SocketAddr,
    cookie: Option<String>,
    connection: Option<TcpStream>,
}

/// What came back.
struct Answer {
    status: u16,
    epoch: Option<u64>,
    canary: bool,
    version: String,
    torn: bool,
}

impl Person {
    fn is_program(&self) -> bool {
        self.number.is_multiple_of(PROGRAM_EACH)
    }

    async fn visits(mut self, offset: Duration, ended: Arc<AtomicBool>) -> Vec<Visit> {
        let mut visits = Vec::new();
        tokio::time::sleep(offset).await;
        let mut timetable = interval(EVERY);
        // Late requests are made up for: a slow answer must not thin out the load.
        timetable.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !ended.load(Ordering::Relaxed) {
            timetable.tick().await;
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let began = Instant::now();
            let answered = timeout(LONGEST, self.ask()).await;
            let answered = answered.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", LONGEST.as_secs())));
            let mut visit = Visit {
                person: self.number.into(),
                began_us: microseconds(since_1970),
                took_us: microseconds(began.elapsed()),
                ..Visit::default()
            };
            match answered {
                Ok(answer) => {
                    visit.failure = answer.failure();
                    visit.epoch = answer.epoch;
                    visit.canary = answer.canary;
                    visit.version = answer.version;
                }
                Err(error) => visit.failure = Some(format!("{error:#}")),
            }
            visits.push(visit);
        }
        visits
    }

    /// One request and its whole answer.
    async fn ask(&mut self) -> Result<Answer> {
        let mut stream = match self.connection.take().filter(still_open) {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(self.request().as_bytes()).await.context("cannot ask")?;
        let mut bytes = Vec::with_capacity(8192);
        let head = loop {
            if let Some(head) = Head::parse(&bytes)? {
                break head;
            }
            ensure!(bytes.len() < LONGEST_HEAD, "the answer's head does not end");
            if stream.read_buf(&mut bytes).await.context("no answer")? == 0 {
                bail!("closed after {} bytes of the answer's head", bytes.len());
            }
        };
        while bytes.len() < head.whole {
            if stream.read_buf(&mut bytes).await.context("answer cut short")? == 0 {
                bail!("answer cut short: {} of {} bytes", bytes.len(), head.whole);
            }
        }
        if !self.is_program() {
            self.cookie = head.cookie.or(self.cookie.take());
            self.connection = (!head.closes).then_some(stream);
        }
        let page =
            String::from_utf8_lossy(bytes.get(head.body_at..head.whole).unwrap_or_default()).into_owned();
        let version = page.lines().next().unwrap_or("").to_owned();
        let torn = page.lines().any(|line| line != version);
        Ok(Answer { status: head.status, epoch: head.epoch, canary: head.canary, version, torn })
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.is_program() {
            let [_, _, high, low] = self.number.to_be_bytes();
            let own = Ipv4Addr::new(127, 1, high, low);
            socket.bind((IpAddr::V4(own), 0).into()).with_context(|| format!("cannot come from {own}"))?;
        }
        socket.connect(self.frontend).await.context("cannot connect")
    }

    fn request(&self) -> String {
        let line = "GET /page.txt HTTP/1.1\r\nHost: www.example.org\r\n";
        if self.is_program() {
            return format!("{line}User-Agent: program\r\nConnection: close\r\n\r\n");
        }
        let cookie = self.cookie.as_ref().map_or_else(String::new, |id| format!("Cookie: pm_id={id}\r\n"));
        format!("{line}User-Agent: browser\r\nAccept: text/html,*/*\r\n{cookie}\r\n")
    }
}

fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A server may close a connection on which nothing is asked: whoever looks before asking sees it.
fn still_open(stream: &TcpStream) -> bool {
    let mut nothing = [0u8; 1];
    matches!(stream.try_read(&mut nothing), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

impl Answer {
    fn failure(&self) -> Option<String> {
        if self.status != 200 {
            return Some(format!("status {}", self.status));
        }
        self.torn.then(|| format!("torn page of {}", self.version))
    }
}

/// The head of an answer, as far as visitors look at it.
struct Head {
    status: u16,
    epoch: Option<u64>,
    canary: bool,
    cookie: Option<String>,
    closes: bool,
    body_at: usize,
    whole: usize,
}

impl Head {
    /// Reads it, once it is there whole.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = header("content-length:").context("no length")?.parse()?;
        let mark = header("x-pointsman:").unwrap_or("");
        let marked = |word: &str| mark.split(' ').find_map(|field| field.strip_prefix(word));
        let cookie = header("set-cookie:").and_then(|cookie| cookie.strip_prefix("pm_id="));
        let body_at = end.saturating_add(4);
        Ok(Some(Self {
            status,
            epoch: marked("epoch=").and_then(|epoch| epoch.parse().ok()),
            canary: marked("side=") == Some("canary"),
            cookie: cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned),
            closes: header("connection:") == Some("close"),
            body_at,
            whole: body_at.saturating_add(length),
        }))
    }
}
