//! How many access lines a second of one core is enough for, whether one is lost, and how far p99 is off: the lb-agent's
//! own receiver, on a thread of its own, fed over loopback TCP as fast as it takes them.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use pointsman_core::histogram::Histogram;
use pointsman_lb_agent::signals::{Tally, receive};
use serde_json::{Value, json};

/// Lines that are sent: some seconds of work.
const LINES: u32 = 400_000;
/// Bytes that are written at once, as HAProxy's ring does.
const WRITE_BYTES: usize = 16 << 10;

/// A sequence of numbers in [0, 1) that is the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Times as web applications have them: a median of 200 ms and a long tail.
    fn time(&mut self) -> u64 {
        let (one, another) = (self.next().max(f64::MIN_POSITIVE), self.next());
        let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * another).cos();
        (200.0 * (0.7 * normal).exp()) as u64
    }
}

/// The lines of visitors, each with its time.
fn lines() -> (Vec<u8>, Vec<u64>) {
    let mut chance = Chance(7);
    let (mut bytes, mut times) = (Vec::new(), Vec::new());
    for number in 0..LINES {
        let slot = if number % 2 == 0 { "blue" } else { "green" };
        let class = match number % 3 {
            0 => "api",
            1 => "other",
            _ => "ows",
        };
        let (took, size) = (chance.time(), (chance.next() * 90_000.0) as u64);
        let first = took.saturating_sub(3);
        bytes.extend_from_slice(
            format!(
                "pm1 be=be_{slot} sv=s1 st=200 tsc=---- ta={took} tw=0 tc=1 tr={first} by={size} epoch=41 side=stable class={class} rc=0\n"
            )
            .as_bytes(),
        );
        times.push(took);
    }
    (bytes, times)
}

/// Time that this thread has been on a processor, in nanoseconds.
fn on_processor_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    stat.split_whitespace().next().context("no time of the thread")?.parse().context("no time of the thread")
}

/// Receives one connection on this thread. Returns the seconds of processor that took.
fn received(listener: &TcpListener, tally: &Tally) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let before = on_processor_ns()?;
    runtime.block_on(async { receive(tokio::net::TcpStream::from_std(stream)?, tally).await })?;
    Ok(on_processor_ns()?.saturating_sub(before) as f64 / 1e9)
}

/// Sends every line, and compares what was counted with what was sent.
pub async fn measure() -> Result<Value> {
    tokio::task::spawn_blocking(compare).await?
}

fn compare() -> Result<Value> {
    let (bytes, mut times) = lines();
    let backends = ["be_blue", "be_green"].map(str::parse).into_iter().collect::<Result<_, _>>()?;
    let tally = Arc::new(Tally::new(backends));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let counting = Arc::clone(&tally);
    let receiver = std::thread::Builder::new()
        .name("receiver".to_owned())
        .spawn(move || received(&listener, &counting))?;
    let mut stream = TcpStream::connect(address)?;
    for chunk in bytes.chunks(WRITE_BYTES) {
        stream.write_all(chunk)?;
    }
    drop(stream);
    let seconds = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    let counted = tally.close();
    let mut latency = Histogram::default();
    counted.cells.values().for_each(|cell| latency.merge(&cell.latency));
    times.sort_unstable();
    let exact = *times.get(times.len() * 99 / 100 - 1).context("no times")? as f64;
    let found = latency.quantile_ms(990).context("nothing was counted")?;
    let requests: u64 = counted.cells.values().map(|cell| cell.requests).sum();
    Ok(json!({
        "log_lines_per_s": (f64::from(LINES) / seconds).round(),
        "log_lost": u64::from(LINES).saturating_sub(requests),
        "p99_relative_error": (found - exact).abs() / exact,
    }))
}
