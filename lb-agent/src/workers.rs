//! HAProxy's workers: the one that takes new connections, and after a reload the old ones that still serve theirs.

use pointsman_core::{Code, Problem, Route};

use crate::config::Haproxy;
use crate::reply::{self, Info, MapValue, StatRow};
use crate::socket::{CommandSocket, unreadable};

/// The way to every worker of one HAProxy.
#[derive(Clone, Debug)]
pub struct Workers {
    current: CommandSocket,
    master: Option<CommandSocket>,
    map: String,
    key: String,
}

/// An old worker, reached through the master.
#[derive(Clone, Debug)]
pub struct OldWorker {
    /// Its process id.
    pub pid: u32,
    master: CommandSocket,
}

/// What comes for an answer when a worker's process has gone: the master's word for it, or, from one that goes while
/// it is asked, nothing at all. No command that is sent through the master answers nothing.
fn is_gone(reply: &str) -> bool {
    reply.is_empty() || reply.starts_with("Can't find the target PID")
}

/// The first line of an answer that is not as expected, short.
pub(crate) fn first_line(reply: &str) -> String {
    let line = reply.lines().next().filter(|line| !line.is_empty());
    format!("it is `{}`", line.unwrap_or("nothing").chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

/// Longest part of an unexpected answer that is shown.
const MAX_SHOWN_CHARS: usize = 200;

impl Workers {
    /// The workers of the configured HAProxy.
    pub fn new(haproxy: &Haproxy) -> Self {
        Self {
            current: CommandSocket::new(&haproxy.socket),
            master: haproxy.master.as_deref().map(CommandSocket::new),
            map: haproxy.map_name(),
            key: haproxy.key.clone(),
        }
    }

    /// What the current worker says of itself.
    pub async fn info(&self) -> Result<Info, Problem> {
        let command = "show info";
        reply::info(&self.current.ask(command).await?)
            .ok_or_else(|| unreadable(command, "fields are missing"))
    }

    /// The current worker's answer to a command that only looks.
    pub async fn ask<T>(&self, command: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Problem> {
        let reply = self.current.ask(command).await?;
        parse(&reply).ok_or_else(|| unreadable(command, reply.lines().next().unwrap_or("it is empty")))
    }

    /// The processes that the master knows; `None` without a master socket.
    pub async fn processes(&self) -> Option<Result<reply::Processes, Problem>> {
        let command = "show proc";
        let answer = self.master.as_ref()?.ask_master(command).await;
        Some(
            answer.and_then(|reply| {
                reply::processes(&reply).ok_or_else(|| unreadable(command, "it is no list"))
            }),
        )
    }

    /// The backends that the current worker knows.
    pub async fn backends(&self) -> Result<Vec<String>, Problem> {
        let command = "show backend";
        reply::backends(&self.current.ask(command).await?).ok_or_else(|| unreadable(command, "it is no list"))
    }

    /// Servers and backends with their counters, as the current worker has them.
    pub async fn stat(&self) -> Result<Vec<StatRow>, Problem> {
        let command = "show stat";
        reply::stat(&self.current.ask(command).await?)
            .ok_or_else(|| unreadable(command, "columns are missing"))
    }

    /// The route that the current worker routes by; `None` when the map has no valid one.
    pub async fn route(&self) -> Result<Option<Route>, Problem> {
        self.parse_route(&self.current.ask(&self.get_command()).await?)
    }

    /// How often the key stands in the current worker's map: 1, unless somebody added it by hand.
    pub async fn key_count(&self) -> Result<usize, Problem> {
        let command = format!("show map {}", self.map);
        let entries = reply::map_entries(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "it is no map"))?;
        Ok(entries.iter().filter(|(key, _)| *key == self.key).count())
    }

    /// Sets the route in the current worker.
    pub async fn set_route(&self, route: &Route) -> Result<(), Problem> {
        self.taken(&self.current.ask(&self.set_command(route)).await?)
    }

    fn get_command(&self) -> String {
        format!("get map {} {}", self.map, self.key)
    }

    fn set_command(&self, route: &Route) -> String {
        format!("set map {} {} {route}", self.map, self.key)
    }

    fn parse_route(&self, reply: &str) -> Result<Option<Route>, Problem> {
        match reply::map_value(reply) {
            Some(MapValue::Found(value)) => Ok(Route::parse(&value).ok()),
            Some(MapValue::Missing) => Ok(None),
            None => Err(unreadable(&self.get_command(), reply.lines().next().unwrap_or("it is empty"))),
        }
    }

    fn taken(&self, reply: &str) -> Result<(), Problem> {
        if reply::is_empty_success(reply) {
            return Ok(());
        }
        let message =
            format!("HAProxy did not take the route for `{}`: it answered `{}`", self.map, reply.trim());
        Err(Problem::new(Code::RouteNotApplied, message).hint(
            "compare the map's path in haproxy.cfg and lb-agent.toml; the socket must be `level admin`",
        ))
    }

    /// The old workers that still serve connections. Without a master socket they cannot be seen.
    pub async fn old(&self) -> Result<Vec<OldWorker>, Problem> {
        let Some(master) = &self.master else { return Ok(Vec::new()) };
        let command = "show proc";
        let processes = reply::processes(&master.ask_master(command).await?)
            .ok_or_else(|| unreadable(command, "it is no list"))?;
        let listed: Vec<u32> = processes.workers.into_iter().chain(processes.old_workers).collect();
        // One worker and nothing else: it is the current one, and need not be asked who it is.
        if listed.len() <= 1 {
            return Ok(Vec::new());
        }
        let current = self.info().await?.pid;
        let old = listed.into_iter().filter(|pid| *pid != current);
        Ok(old.map(|pid| OldWorker { pid, master: master.clone() }).collect())
    }

    /// The route of an old worker; `None` when it has gone.
    pub async fn old_route(&self, worker: &OldWorker) -> Result<Option<Option<Route>>, Problem> {
        let reply = worker.ask(&self.get_command()).await?;
        if is_gone(&reply) { Ok(None) } else { self.parse_route(&reply).map(Some) }
    }

    /// Sets the route in an old worker. One that has gone counts as done. One that lacks a backend of the route,
    /// because it is of before a change of the configuration, is left alone and named: the route would send its
    /// visitors to the maintenance page.
    pub async fn set_old_route(&self, worker: &OldWorker, route: &Route) -> Result<(), Problem> {
        let known = worker.ask("show backend").await?;
        if is_gone(&known) {
            return Ok(());
        }
        let known = reply::backends(&known).ok_or_else(|| unreadable("show backend", "it is no list"))?;
        let used = [&route.stable, &route.canary].into_iter().filter(|backend| route.share_of(backend) > 0);
        if let Some(lacking) =
            used.into_iter().find(|backend| !known.iter().any(|name| name == backend.as_str()))
        {
            let message = format!(
                "old worker {} does not know `{lacking}`: it keeps its route until it ends",
                worker.pid
            );
            return Err(Problem::new(Code::OldWorkerStale, message).hint("it ends with `hard-stop-after`"));
        }
        let reply = worker.ask(&self.set_command(route)).await?;
        if is_gone(&reply) { Ok(()) } else { self.taken(&reply) }
    }

    /// Forgets what a table of rate limits has counted for an address, also in the old workers: they limit whoever still
    /// has a connection with them.
    pub async fn clear_key(&self, table: &str, key: std::net::IpAddr) -> Result<(), Problem> {
        let command = format!("clear table {table} key {key}");
        let cleared = |reply: &str| match reply::is_empty_success(reply) {
            true => Ok(()),
            false => Err(unreadable(&command, &first_line(reply))),
        };
        cleared(&self.current.ask(&command).await?)?;
        for worker in self.old().await? {
            let reply = worker.ask(&command).await?;
            if !is_gone(&reply) {
                cleared(&reply)?;
            }
        }
        Ok(())
    }

    /// The way to the current worker.
    pub(crate) fn current(&self) -> &CommandSocket {
        &self.current
    }

    /// Ends every session that the current and the old workers have on a server.
    pub async fn cut(&self, backend: &str, server: &str) -> Result<(), Problem> {
        let command = format!("shutdown sessions server {backend}/{server}");
        self.current.ask(&command).await?;
        for worker in self.old().await? {
            worker.ask(&command).await?;
        }
        Ok(())
    }
}

impl OldWorker {
    async fn ask(&self, command: &str) -> Result<String, Problem> {
        self.master.ask_master(&format!("@!{} {command}", self.pid)).await
    }

    /// Its servers and backends; `None` when it has gone.
    pub async fn stat(&self) -> Result<Option<Vec<StatRow>>, Problem> {
        let reply = self.ask("show stat").await?;
        if is_gone(&reply) {
            return Ok(None);
        }
        reply::stat(&reply).map(Some).ok_or_else(|| unreadable("show stat", "columns are missing"))
    }
}
