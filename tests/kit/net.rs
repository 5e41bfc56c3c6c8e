//! Loopback addresses and single requests. Every site has a loopback address of its own, so that sites which run
//! side by side cannot take each other's ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Loopback addresses tried before giving up.
const TRIES: u32 = 20;
/// Longest time for one request.
const LONGEST: Duration = Duration::from_secs(10);

/// One address of 127.64.0.0/10 per process and call.
fn next_loopback() -> IpAddr {
    static SITES: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() << 5).wrapping_add(SITES.fetch_add(1, Ordering::Relaxed));
    let [_, b, c, d] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 | (b & 0x3f), c, d))
}

/// Free ports on a loopback address that nobody else uses. All are held at once, so no two are the same; where the
/// system takes one away, the next address is tried.
pub fn reserve(count: usize) -> Result<Vec<SocketAddr>> {
    for _ in 0..TRIES {
        let ip = next_loopback();
        let held: std::io::Result<Vec<TcpListener>> =
            (0..count).map(|_| TcpListener::bind((ip, 0))).collect();
        if let Ok(held) = held {
            return Ok(held.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?);
        }
    }
    bail!("no loopback address with {count} free ports was found")
}

/// Asks for a path on a new connection. Returns the whole answer: status line, headers and body.
pub async fn ask(address: SocketAddr, path: &str) -> Result<String> {
    ask_with(address, path, "").await
}

/// The same with headers of one's own, each with its end of line.
pub async fn ask_with(address: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: www.example.org\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answered = tokio::time::timeout(LONGEST, asking).await.context("no answer in time")?;
    answered.with_context(|| format!("cannot ask {address} for {path}"))
}
