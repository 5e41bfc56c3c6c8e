//! The port that HAProxy's log ring sends access lines to. One connection for each worker process: while old ones end,
//! several at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_core::{Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::frame::Framer;
use super::tally::Tally;

/// How long a port that cannot be bound is left alone before it is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: file descriptors, as a rule, that others give back.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Bytes read at once: some hundred lines, so that the tally is entered seldom.
const CHUNK_BYTES: usize = 64 << 10;

/// How the port stands.
#[derive(Debug, Default)]
pub struct Ear {
    connections: AtomicUsize,
    problem: Mutex<Option<Problem>>,
}

impl Ear {
    /// Connections on which lines come.
    pub fn connections(&self) -> u32 {
        u32::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Why none can come.
    pub fn problem(&self) -> Option<Problem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, problem: Option<Problem>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Counts a connection as long as it is there.
struct Connected(Arc<Ear>);

impl Connected {
    fn new(ear: &Arc<Ear>) -> Self {
        ear.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(ear))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Listens for ever. A port that cannot be bound is tried again and again: traffic is steered meanwhile.
pub async fn listen(address: SocketAddr, most: usize, tally: Arc<Tally>, ear: Arc<Ear>) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                ear.tell(None);
                info!(%address, "access lines are listened for");
                return accept(listener, most, tally, ear).await;
            }
            Err(error) => {
                let problem = unheard(address, &error);
                if ear.problem().is_none() {
                    warn!(problem = %problem.in_full(), "no access lines until the port is free");
                }
                ear.tell(Some(problem));
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    }
}

fn unheard(address: SocketAddr, error: &std::io::Error) -> Problem {
    Problem::new(Code::SignalsUnheard, format!("cannot listen for access lines on `{address}`"))
        .retry_useful()
        .because(error)
        .hint(format!("see who holds the port: `ss -ltnp 'sport = :{}'`", address.port()))
}

async fn accept(listener: TcpListener, most: usize, tally: Arc<Tally>, ear: Arc<Ear>) {
    // Ends every connection with this future.
    let mut connections = JoinSet::new();
    let mut told = false;
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection with access lines");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if connections.len() >= most {
            if !std::mem::replace(&mut told, true) {
                warn!(most, "too many connections with access lines: the newest is closed");
            }
            continue;
        }
        told = false;
        connections.spawn(serve(stream, Arc::clone(&tally), Connected::new(&ear)));
    }
}

async fn serve(stream: TcpStream, tally: Arc<Tally>, _connected: Connected) {
    // A worker that ends closes its connection; what was lost on the way shows in the coverage.
    let _ = receive(stream, &tally).await;
}

/// Counts every line of one connection until it ends. A last line that was cut is left out.
pub async fn receive(mut stream: impl AsyncRead + Unpin, tally: &Tally) -> std::io::Result<()> {
    let (mut framer, mut chunk) = (Framer::default(), vec![0; CHUNK_BYTES]);
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            count => tally.feed(&mut framer, chunk.get(..count).unwrap_or_default()),
        }
    }
}
