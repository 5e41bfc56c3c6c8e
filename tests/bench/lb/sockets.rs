//! HAProxy's sockets with nothing around them: what a switch asks of it, and for how long it waits at least.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kit::{Site, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::floor::Durable;

const LOOK: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nX-Pointsman: stable\r\nConnection: close\r\n\r\n";

/// One command on a new connection, read to its end.
async fn ask(socket: &Path, command: &str) -> Result<String> {
    exchange(&mut UnixStream::connect(socket).await?, command).await
}

async fn exchange(stream: &mut UnixStream, command: &str) -> Result<String> {
    stream.write_all(command.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// From sending a bare `set map` to the end of its answer. The connection stands before.
pub async fn bare_set_map(socket: &Path, map: &Path, route: &str) -> Result<Duration> {
    let command = format!("set map {} route {route}\n", map.display());
    let mut stream = UnixStream::connect(socket).await?;
    let began = Instant::now();
    let answer = exchange(&mut stream, &command).await?;
    let took = began.elapsed();
    if !answer.trim().is_empty() {
        bail!("HAProxy did not take `{route}`: {answer}");
    }
    Ok(took)
}

/// What a switch consists of, in its order and as much of it at once, done by hand. It sets the route that stands.
pub struct Floor {
    durable: Durable,
    socket: PathBuf,
    master: PathBuf,
    map: PathBuf,
    frontend: SocketAddr,
}

impl Floor {
    /// Beside the first load balancer's agent, on its disk.
    pub fn new(site: &Site) -> Result<Self> {
        let state = site.folder().join("lb1/state");
        let layout = site.haproxy.layout();
        Ok(Self {
            durable: Durable::new(&site.folder().join("coordinator/state"), &state)?,
            socket: layout.socket(),
            master: layout.master(),
            map: layout.map.clone(),
            frontend: layout.frontend,
        })
    }

    async fn look(&self) -> Result<()> {
        let mut wire = Wire::open(self.frontend).await?;
        wire.ask(LOOK).await?.epoch.context("no route epoch").map(drop)
    }

    /// Once.
    pub async fn once(&mut self, route: &str) -> Result<Duration> {
        let show_map = format!("show map {}\n", self.map.display());
        let set_map = format!("set map {} route {route}\n", self.map.display());
        let began = Instant::now();
        self.durable.begun()?;
        let socket = &self.socket;
        tokio::try_join!(ask(socket, &show_map), ask(socket, "show backend\n"), ask(socket, "show stat\n"))?;
        ask(socket, "show info\n").await?;
        self.durable.lay_map_ready()?;
        self.durable.rename_map()?;
        ask(socket, &set_map).await?;
        let flushing = tokio::task::spawn_blocking(self.durable.folder_flush()?);
        tokio::try_join!(
            ask(&self.master, "show proc;quit\n"),
            ask(socket, "show info\n"),
            ask(socket, &show_map),
            self.look(),
            self.look(),
            self.look(),
            async { flushing.await? }
        )?;
        ask(socket, "show info\n").await?;
        self.durable.done()?;
        Ok(began.elapsed())
    }
}
