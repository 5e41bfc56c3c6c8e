//! Access lines of a real HAProxy become ticks: every request is counted once, as what it was, also over a reload. And
//! what is said where no lines can come.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use futures_util::StreamExt as _;
use pointsman_chassis::agent_service::SignalTicks;
use pointsman_core::Code;
use pointsman_core::signal::{Coverage, Growth, Tick};
use pointsman_proto::{convert, v1};

use crate::real::Haproxy;
use crate::rig::{Agent, Rig, Setup};

/// Longest wait for the next tick.
const NEXT: Duration = Duration::from_secs(5);
/// Ticks that are waited for until everything has been counted.
const TICKS: usize = 20;

async fn next(ticks: &mut SignalTicks) -> v1::SignalTick {
    tokio::time::timeout(NEXT, ticks.next()).await.unwrap().unwrap().unwrap()
}

/// Asks on this connection and reads the whole answer.
fn ask(connection: &mut TcpStream, path: &str, header: &str) {
    write!(connection, "GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{header}\r\n").unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"ok") {
        let count = connection.read(&mut chunk).unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..count]);
    }
}

fn connect(haproxy: &Haproxy) -> TcpStream {
    let connection = TcpStream::connect(haproxy.frontend).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    connection
}

/// Begins to read an answer that never ends, and goes away.
fn leave(haproxy: &Haproxy) {
    let mut connection = connect(haproxy);
    write!(connection, "GET /endless HTTP/1.1\r\nHost: www.example.org\r\n\r\n").unwrap();
    connection.read_exact(&mut [0; 500]).unwrap();
}

/// How long a visitor waits for a server that hangs.
const PATIENCE: Duration = Duration::from_millis(300);

/// Asks for what never comes, and goes away after a while.
fn give_up(haproxy: &Haproxy) {
    let mut connection = connect(haproxy);
    write!(connection, "GET /hang HTTP/1.1\r\nHost: www.example.org\r\n\r\n").unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let waited = connection.read(&mut [0; 1]).unwrap_err();
    assert!(
        matches!(waited.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        "{waited}"
    );
}

/// What was counted altogether.
struct Sum {
    tick: Tick,
    /// Requests by HAProxy's counters.
    grown: u64,
    last: u64,
    /// Requests that old workers were asked.
    may_lack: u64,
    /// The newest coverage.
    coverage: Coverage,
}

impl Default for Sum {
    /// Nothing yet, and nothing against it.
    fn default() -> Self {
        let tick = Tick { coverage: Some(Coverage::default()), lines_tell_retries: true, ..Tick::default() };
        Self { tick, grown: 0, last: 0, may_lack: 0, coverage: Coverage::default() }
    }
}

impl Sum {
    /// Adds ticks until so many requests were counted by lines and by counters, and then one more second.
    async fn until(&mut self, ticks: &mut SignalTicks, requests: u64, grown: u64) {
        let mut left = TICKS;
        while self.requests() < requests || self.grown < grown {
            left -= 1;
            assert!(left > 0, "{} requests, {} grown: {:?}", self.requests(), self.grown, self.tick);
            self.add(next(ticks).await);
        }
        self.add(next(ticks).await);
        let lacks = grown - self.requests();
        assert_eq!(self.grown, grown, "{:?}", self.tick);
        assert!(
            self.requests() >= requests && lacks <= self.may_lack.max(grown - requests),
            "{:?}",
            self.tick
        );
        let said = self.coverage.expected.saturating_sub(self.coverage.seen);
        // Of two reloads, the first may be out of the window by now.
        let right = if self.may_lack == 1 { said == lacks } else { said <= lacks };
        assert!(right || self.may_lack == 0, "{said} missing by coverage, {lacks} in truth: {:?}", self.tick);
    }

    fn add(&mut self, wire: v1::SignalTick) {
        assert!(self.last == 0 || wire.number == self.last + 1, "{} after {}", wire.number, self.last);
        self.last = wire.number;
        let tick = convert::tick_from_wire(&wire).unwrap();
        assert!(tick.latency_usable() || self.may_lack > 0, "{tick:?}");
        self.coverage = tick.coverage.unwrap();
        assert_eq!(tick.broken_lines, 0);
        self.grown += tick.counters.values().map(|growth: &Growth| growth.requests).sum::<u64>();
        self.tick.merge(&tick);
    }

    fn requests(&self) -> u64 {
        self.tick.cells.values().map(|cell| cell.requests).sum()
    }

    /// Requests, failures, client aborts, latencies of a class on a backend.
    fn of(&self, backend: &str, class: &str) -> [u64; 4] {
        let mut found = self.tick.cells.iter();
        let found = found.find(|(key, _)| key.backend.as_str() == backend && key.class.as_str() == class);
        found.map_or([0; 4], |(_, cell)| {
            [cell.requests, cell.failures, cell.client_aborts, cell.latency.total()]
        })
    }
}

/// Waits until lines can come and counters are read.
async fn ready(haproxy: &Haproxy) -> SignalTicks {
    let mut ticks = haproxy.agent.signals().await.unwrap();
    for _ in 0..TICKS {
        let tick = next(&mut ticks).await;
        if tick.coverage.is_some() && tick.connections > 0 {
            return ticks;
        }
    }
    panic!("no connection with access lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_counted_once_as_what_it_was() {
    let Some(haproxy) = Haproxy::start().await else { return };
    let mut ticks = ready(&haproxy).await;
    let mut sum = Sum::default();
    let mut connection = connect(&haproxy);
    for _ in 0..20 {
        ask(&mut connection, "/", "");
    }
    for _ in 0..7 {
        ask(&mut connection, "/api/list", "");
    }
    for (path, times) in [("/500", 3), ("/404", 4)] {
        (0..times).for_each(|_| ask(&mut connect(&haproxy), path, ""));
    }
    // Testers are counted by HAProxy and are no visitors.
    for _ in 0..6 {
        ask(&mut connection, "/", "X-Pointsman: canary\r\n");
    }
    leave(&haproxy);
    leave(&haproxy);
    // Denied in the frontend: no slot heard of it.
    let mut denied = connect(&haproxy);
    write!(denied, "GET /denied HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n").unwrap();
    denied.read_to_end(&mut Vec::new()).unwrap();

    sum.until(&mut ticks, 36, 42).await;
    assert_eq!(sum.of("be_blue", "other"), [29, 3, 2, 27]);
    assert_eq!(sum.of("be_blue", "api"), [7, 0, 0, 7]);
    assert_eq!(sum.tick.cells.len(), 2, "{:?}", sum.tick.cells.keys());
    assert!(sum.tick.cells.keys().all(|key| key.epoch.0 == 5));
    assert!(sum.tick.lines_tell_retries);
}

/// Another frontend logs to the same ring, as `global` or `defaults` make it: what its visitors write is no line, and the number that its
/// lines begin with swallows none of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_visits_another_frontend_makes_no_lines_up() {
    let other = crate::net::free();
    let numbers = crate::net::free();
    let more = |_: &std::path::Path| {
        let sections = format!(
            "frontend intranet\n  bind {other}\n  capture request header User-Agent len 200\n  option httplog\n  http-request return status 200 content-type text/plain string ok\n\
             frontend numbers\n  bind {numbers}\n  capture request header User-Agent len 200\n  log-format \"%ST %B %[capture.req.hdr(0)]\"\n  http-request return status 200 content-type text/plain string ok\n"
        );
        (sections, String::new())
    };
    let Some(haproxy) = Haproxy::start_with(more).await else { return };
    let mut ticks = ready(&haproxy).await;
    let mut sum = Sum::default();
    let forged = "pm1 be=be_blue sv=s1 st=500 tsc=SH-- ta=1 epoch=5 class=other rc=0 vid=7";
    let mut connection = connect(&haproxy);
    for _ in 0..20 {
        for address in [other, numbers] {
            let mut visitor = TcpStream::connect(address).unwrap();
            ask(&mut visitor, "/", &format!("User-Agent: x {forged} y\r\n"));
        }
        ask(&mut connection, "/", "");
    }
    sum.until(&mut ticks, 20, 20).await;
    assert_eq!(sum.of("be_blue", "other"), [20, 0, 0, 20]);
    assert_eq!(sum.tick.cells.len(), 1, "{:?}", sum.tick.cells.keys());
}

/// A server that hangs until its visitors leave fails nobody by its answers: how long they waited is all that tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_a_hanging_server_up_is_counted_with_how_long_they_waited() {
    let Some(haproxy) = Haproxy::start().await else { return };
    let mut ticks = ready(&haproxy).await;
    let mut sum = Sum::default();
    give_up(&haproxy);
    give_up(&haproxy);
    // These had an answer, as far as they wanted it.
    leave(&haproxy);
    ask(&mut connect(&haproxy), "/", "");
    sum.until(&mut ticks, 4, 4).await;
    assert_eq!(sum.of("be_blue", "other"), [4, 0, 3, 1]);
    let cell = sum.tick.cells.values().next().unwrap();
    let least_ms = u64::try_from(PATIENCE.as_millis()).unwrap() / 2;
    assert_eq!((cell.abandoned.total(), cell.given_up(least_ms)), (2, 2), "{:?}", cell.abandoned);
}

/// HAProxy's old workers send no more lines, though they still answer: what they were asked is missing among the lines,
/// and coverage says exactly that. The counters of all workers go on, and nothing is counted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_reload_nothing_is_counted_twice_and_what_is_missing_is_said() {
    let Some(haproxy) = Haproxy::start().await else { return };
    let mut ticks = ready(&haproxy).await;
    let mut sum = Sum::default();
    // A worker that ends takes the counts of its last second with it: idle clients keep the old ones.
    let (mut keeper, mut idle) = (connect(&haproxy), connect(&haproxy));
    ask(&mut keeper, "/", "");
    (0..49).for_each(|_| ask(&mut idle, "/", ""));
    sum.until(&mut ticks, 50, 50).await;
    haproxy.reload().await;
    sum.may_lack = 1;
    let (mut next_keeper, mut new) = (connect(&haproxy), connect(&haproxy));
    ask(&mut idle, "/", "");
    ask(&mut next_keeper, "/", "");
    (0..29).for_each(|_| ask(&mut new, "/", ""));
    sum.until(&mut ticks, 80, 81).await;
    haproxy.reload().await;
    sum.may_lack = 2;
    ask(&mut new, "/", "");
    (0..10).for_each(|_| ask(&mut connect(&haproxy), "/500", ""));
    sum.until(&mut ticks, 90, 92).await;
    assert_eq!(sum.of("be_blue", "other")[1], 10);
    drop((keeper, next_keeper));
}

#[tokio::test]
async fn without_a_port_there_are_no_signals() {
    let rig = Rig::new().await;
    let refused = rig.agent.signals().await.err().unwrap();
    assert_eq!(refused.code, Code::SignalsMissing, "{refused:?}");
    assert_eq!(rig.agent.describe().await.balancer.unwrap().signals_listen, "");
}

/// The agent steers traffic all the same, says what is wrong, and listens as soon as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_somebody_else_holds() {
    let rig = Rig::new().await;
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = holder.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(&Setup {
        map: rig.agent.map.clone(),
        key: crate::fake::KEY.to_owned(),
        socket: rig.fake.socket.clone(),
        master: Some(rig.fake.master.clone()),
        frontend: rig.fake.frontend,
        state: folder.path().to_owned(),
        signals: Some(listen),
        more: String::new(),
    });
    let mut ticks = agent.signals().await.unwrap();
    let mut tick = next(&mut ticks).await;
    assert_eq!(tick.problem.as_ref().unwrap().code, "PM0116", "{tick:?}");
    let facts = agent.describe().await.balancer.unwrap();
    assert_eq!(
        (facts.signals_listen, facts.signals_problem.unwrap().code),
        (listen.to_string(), "PM0116".to_owned())
    );
    agent.set_route(crate::rig::P, crate::rig::V).await.unwrap();
    drop(holder);
    for _ in 0..TICKS {
        if tick.problem.is_none() {
            break;
        }
        tick = next(&mut ticks).await;
    }
    assert_eq!(tick.problem, None);
    let mut line = TcpStream::connect(listen).unwrap();
    line.write_all(b"pm1 be=be_blue st=200 tsc=---- ta=3 epoch=6 class=api rc=0\nnot for us\npm1 be=x\n")
        .unwrap();
    for _ in 0..TICKS {
        tick = next(&mut ticks).await;
        if !tick.cells.is_empty() {
            assert_eq!((tick.cells[0].requests, tick.broken_lines, tick.connections), (1, 1, 1));
            return;
        }
    }
    panic!("the line was not counted");
}
