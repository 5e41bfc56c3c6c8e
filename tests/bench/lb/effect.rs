//! From the agent's `set map` to the moment from which every new request takes the new route. A relay between the agent
//! and HAProxy's socket sees the command pass; visitors that never pause see the route change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use kit::{Daemon, Site, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::sockets;
use super::steer::Steered;
use crate::figures::Samples;

/// Clients that ask again as soon as they are answered.
const PROBES: usize = 4;
/// Requests of all of them together that are waited for before a switch and after it.
const BESIDE: usize = 200;
/// Longest time for them.
const LONGEST: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\n\r\n";
/// Bytes of one command or of a part of an answer.
const PIECE: usize = 64 << 10;

/// What was measured.
#[derive(Default)]
pub struct Effects {
    /// From `set map` sent to every new request on the new route: the next request that was observed to begin after
    /// the last old one, so what is not known counts as time.
    pub effect: Samples,
    /// The same until the last request that was answered by the old route began: what is known for certain.
    pub certain: Samples,
    /// The round trip of a bare `set map`.
    pub bare: Samples,
}

/// When the agent's last `set map` passed the relay.
type Passed = Arc<Mutex<Option<Instant>>>;

/// Stands between the agent and HAProxy's socket. The way on is open before the command comes, so that the relay adds
/// to the time after it passed what the agent's own way would have added before: one hop.
async fn relay(listener: UnixListener, to: PathBuf, passed: Passed) {
    while let Ok((agent, _)) = listener.accept().await {
        let (to, passed) = (to.clone(), Arc::clone(&passed));
        // A connection that fails is for the agent to see.
        tokio::spawn(async move { carry(agent, &to, &passed).await.ok() });
    }
}

async fn carry(mut agent: UnixStream, to: &Path, passed: &Mutex<Option<Instant>>) -> Result<()> {
    let mut haproxy = UnixStream::connect(to).await?;
    let mut command = Vec::new();
    while !command.ends_with(b"\n") {
        if command.len() > PIECE || agent.read_buf(&mut command).await? == 0 {
            bail!("no whole command");
        }
    }
    if command.starts_with(b"set map ") {
        *passed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    haproxy.write_all(&command).await?;
    tokio::io::copy(&mut haproxy, &mut agent).await?;
    Ok(agent.shutdown().await?)
}

/// When a request began, and by which route it was answered.
type Seen = (Instant, u64);

struct Probes {
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Probes {
    fn start(frontend: SocketAddr) -> Result<Self> {
        let (seen, ended) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        let (noting, flag) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = std::thread::Builder::new().name("probes".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let probes = (0..PROBES).map(|_| probe(frontend, &noting, &flag));
                futures(probes).await
            })
        })?;
        Ok(Self { seen, ended, thread: Some(thread) })
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn more(&self) -> Result<()> {
        let count = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
        let enough = count().saturating_add(BESIDE);
        kit::until("probes go on", LONGEST, || async { (count() >= enough).then_some(()) }).await
    }

    fn stop(mut self) -> Result<()> {
        self.ended.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("the probes ended before")?;
        thread.join().map_err(|_| anyhow!("a probe panicked"))?
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What became of them matters only to whoever stops them.
            let _ = thread.join();
        }
    }
}

/// Waits for all of them, on one thread.
async fn futures(probes: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    let mut probes: Vec<_> = probes.map(Box::pin).collect();
    let mut open: Vec<_> = probes.iter_mut().collect();
    std::future::poll_fn(move |context| {
        let mut failed = None;
        open.retain_mut(|probe| match probe.as_mut().poll(context) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(ended) => {
                failed = failed.take().or(ended.err());
                false
            }
        });
        match (failed, open.is_empty()) {
            (Some(error), _) => std::task::Poll::Ready(Err(error)),
            (None, true) => std::task::Poll::Ready(Ok(())),
            (None, false) => std::task::Poll::Pending,
        }
    })
    .await
}

async fn probe(frontend: SocketAddr, seen: &Mutex<Vec<Seen>>, ended: &AtomicBool) -> Result<()> {
    let mut wire = Wire::open(frontend).await?;
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reply = wire.ask(REQUEST).await?;
        let epoch = reply.epoch.context("an answer without its route epoch")?;
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((began, epoch));
    }
    Ok(())
}

/// The moments between which the route took effect for every new request: the last that was on the old route began at
/// the one, the next at the other.
fn between(sent: Instant, epoch: u64, seen: &[Seen]) -> Result<(Instant, Instant)> {
    let old = seen.iter().filter(|(_, by)| *by < epoch).map(|(began, _)| *began);
    let last = old.max().context("nobody was on the old route")?.max(sent);
    let next = seen.iter().map(|(began, _)| *began).filter(|began| *began > last).min();
    Ok((last, next.context("nobody came after the switch")?))
}

/// Measures on the second load balancer, whose agent is started anew behind the relay.
pub async fn measure(site: &mut Site, switches: usize) -> Result<Effects> {
    let layout = site.second_haproxy()?.layout().clone();
    let relayed = site.folder().join("lb2/relay.sock");
    let config = site.folder().join("lb2/lb-agent.toml");
    let text = std::fs::read_to_string(&config)?;
    let own = format!("socket = {:?}", layout.socket());
    if !text.contains(&own) {
        bail!("`{}` has no `{own}`", config.display());
    }
    let passed = Passed::default();
    let relaying = tokio::spawn(relay(UnixListener::bind(&relayed)?, layout.socket(), Arc::clone(&passed)));
    site.kill(Daemon::SecondLbAgent)?;
    std::fs::write(&config, text.replace(&own, &format!("socket = {relayed:?}")))?;
    site.start(Daemon::SecondLbAgent, None)?;
    let route = site.second_haproxy()?.route().await?;
    let mut steered = kit::until("the agent behind the relay answers", LONGEST, || async {
        Steered::take(site, "lb2", &route).await.ok()
    })
    .await?;

    let probes = Probes::start(layout.frontend)?;
    let mut effects = Effects::default();
    for _ in 0..switches {
        let _ = probes.take();
        probes.more().await?;
        let wanted = steered.flipped();
        steered.set(&wanted).await?;
        probes.more().await?;
        let sent = passed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sent = sent.context("no `set map` passed the relay")?;
        let (last, next) = between(sent, wanted.epoch.0, &probes.take())?;
        effects.effect.push(next.saturating_duration_since(sent));
        effects.certain.push(last.saturating_duration_since(sent));
        effects.bare.push(sockets::bare_set_map(&layout.socket(), &layout.map, &wanted.to_string()).await?);
    }
    probes.stop()?;
    relaying.abort();
    Ok(effects)
}
