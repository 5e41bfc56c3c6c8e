//! HAProxy's workers: the one that takes new connections, and after a reload the old ones that still serve theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{BackendName, Code, Problem, Route};

use crate::command::Command;
use crate::config::{Driver, Haproxy};
use crate::reply::{self, Info, MapValue, StatRow};
use crate::route_file::RouteFile;
use crate::socket::{CommandSocket, Endpoint, unreadable};
use crate::states::ServerStates;

/// The way to every worker of one HAProxy.
#[derive(Clone, Debug)]
pub struct Workers {
    current: CommandSocket,
    master: Option<CommandSocket>,
    steering: Steering,
    /// How long an old process may live that no master leads to.
    old_process: Duration,
}

/// By what a worker is steered: the one place that knows how a route is read from a worker and set in it.
#[derive(Clone, Debug)]
pub(crate) enum Steering {
    /// One key of a map.
    Map(MapKey),
    /// States and weights of servers.
    ServerStates(Arc<ServerStates>),
}

/// The key that holds the route.
#[derive(Clone, Debug)]
pub(crate) struct MapKey {
    map: String,
    key: String,
}

/// The way to one worker.
pub(crate) enum Line<'a> {
    /// The worker that takes new connections, by its own socket.
    Current(&'a CommandSocket),
    /// An old one, through the master.
    Old(&'a OldWorker),
}

impl Line<'_> {
    /// Its answer; `None` when the worker has gone.
    pub(crate) async fn ask(&self, command: &Command) -> Result<Option<String>, Problem> {
        match self {
            Self::Current(socket) => socket.ask(command).await.map(Some),
            Self::Old(worker) => Ok(Some(worker.ask(command).await?).filter(|reply| !is_gone(reply))),
        }
    }
}

/// An old worker, reached through the master.
#[derive(Clone, Debug)]
pub struct OldWorker {
    /// Its process id.
    pub pid: u32,
    master: CommandSocket,
    steering: Steering,
}

/// What comes for an answer when a worker's process has gone: the master's word for it, and nothing else.
fn is_gone(reply: &str) -> bool {
    reply.starts_with("Can't find the target PID")
}

/// Longest part of an unexpected answer that is shown.
const MAX_SHOWN_CHARS: usize = 200;

/// What HAProxy answers where it has no table of that name.
pub(crate) const NO_TABLE: &str = "No such table";

/// What HAProxy answers where a session has ended meanwhile.
const NO_SESSION: &str = "No such session";

/// What HAProxy answers where it has no map of that name.
const NO_MAP: &str = "Unknown map identifier";

/// What HAProxy answers to a value for a key that its map does not have.
const NO_ENTRY: &str = "entry not found.";

/// The first line of an answer that is not as expected, short.
pub(crate) fn first_line(reply: &str) -> String {
    let line = reply.lines().next().filter(|line| !line.is_empty());
    format!("it is `{}`", line.unwrap_or("nothing").chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

impl MapKey {
    fn get(&self) -> Result<Command, Problem> {
        Command::of(&["get", "map", &self.map, &self.key])
    }

    async fn route(&self, line: &Line<'_>) -> Result<Option<Option<Route>>, Problem> {
        let command = self.get()?;
        let Some(reply) = line.ask(&command).await? else { return Ok(None) };
        // Its configuration does not name the map any more, or not yet.
        if reply.starts_with(NO_MAP) {
            return Ok(Some(None));
        }
        match reply::map_value(&reply) {
            Some(MapValue::Found(value)) => Ok(Some(Route::parse(&value).ok())),
            Some(MapValue::Missing) => Ok(Some(None)),
            None => Err(unreadable(&command, reply.lines().next().unwrap_or("it is empty"))),
        }
    }

    /// Sets the route. Where somebody has deleted the entry, and everybody gets the maintenance page, it is added again.
    async fn set(&self, line: &Line<'_>, route: &Route) -> Result<(), Problem> {
        let command = |verb| Command::of(&[verb, "map", &self.map, &self.key, &route.to_string()]);
        let Some(mut reply) = line.ask(&command("set")?).await? else { return Ok(()) };
        if reply.trim() == NO_ENTRY {
            let Some(added) = line.ask(&command("add")?).await? else { return Ok(()) };
            reply = added;
        }
        if reply::is_empty_success(&reply) {
            return Ok(());
        }
        let message =
            format!("HAProxy did not take the route for `{}`: it answered `{}`", self.map, reply.trim());
        Err(Problem::new(Code::RouteNotApplied, message).hint(
            "compare the map's path in haproxy.cfg and lb-agent.toml; the socket must be `level admin`",
        ))
    }
}

impl Steering {
    /// The route that a worker routes by; `None` inside when it is by none that is valid, `None` when it has gone.
    async fn route(&self, line: &Line<'_>) -> Result<Option<Option<Route>>, Problem> {
        match self {
            Self::Map(key) => key.route(line).await,
            Self::ServerStates(states) => states.route(line).await,
        }
    }

    /// Whether a session is on a server of a backend of the route.
    fn is_on(&self, session: &reply::Session, backend: &BackendName) -> bool {
        match self {
            Self::Map(_) => session.backend == backend.as_str(),
            Self::ServerStates(states) => states.has_server(backend, &session.backend, &session.server),
        }
    }

    fn rows(&self, rows: Vec<StatRow>) -> Vec<StatRow> {
        match self {
            Self::Map(_) => rows,
            Self::ServerStates(states) => states.rows(&rows),
        }
    }
}

impl Workers {
    /// The workers of the configured HAProxy; `file` holds the route that must stand.
    pub fn new(haproxy: &Haproxy, file: &RouteFile, state: &Path) -> Result<Self, Problem> {
        let master = haproxy.master.as_ref().map(|path| Endpoint::Unix(path.0.0.clone()));
        let steering = match haproxy.driver {
            Driver::Map => Steering::Map(MapKey { map: haproxy.map_name(), key: haproxy.key.clone() }),
            Driver::ServerState => Steering::ServerStates(Arc::new(ServerStates::new(haproxy, file, state)?)),
        };
        Ok(Self {
            current: CommandSocket::new(&haproxy.socket.0),
            master: master.as_ref().map(CommandSocket::new),
            steering,
            old_process: Duration::from_secs(haproxy.old_process_s),
        })
    }

    /// The same workers for somebody who only looks, and keeps no order waiting.
    pub fn for_looks(&self) -> Self {
        let master = self.master.as_ref().map(CommandSocket::for_looks);
        Self { current: self.current.for_looks(), master, ..self.clone() }
    }

    fn line(&self) -> Line<'_> {
        Line::Current(&self.current)
    }

    /// Whether answers of the frontend can show by which route they came.
    pub fn shows_epoch(&self) -> bool {
        matches!(self.steering, Steering::Map(_))
    }

    /// Whether the states of servers are the agent's own half-done work, which it may finish.
    pub fn cut_short(&self) -> bool {
        matches!(&self.steering, Steering::ServerStates(states) if states.cut_short())
    }

    /// What the current worker says of itself.
    pub async fn info(&self) -> Result<Info, Problem> {
        let command = Command::of(&["show", "info"])?;
        reply::info(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "fields are missing"))
    }

    /// How much longer a process of before a reload may serve its connections by the route before, unseen: without a
    /// master socket nothing leads to it. `None` when it would have ended, or can be seen.
    pub async fn unseen_old_process(&self) -> Result<Option<Duration>, Problem> {
        if self.master.is_some() {
            return Ok(None);
        }
        let uptime = Duration::from_secs(self.info().await?.uptime_s);
        Ok(self.old_process.checked_sub(uptime).filter(|left| !left.is_zero()))
    }

    /// The backends of a route that the current worker can serve.
    pub async fn backends(&self) -> Result<Vec<String>, Problem> {
        match &self.steering {
            Steering::Map(_) => self.haproxy_backends().await,
            Steering::ServerStates(states) => {
                Ok(states.known(&states.states(&self.line()).await?.unwrap_or_default()))
            }
        }
    }

    /// Whether HAProxy has a backend of this name, of the route or not.
    pub(crate) async fn names_backend(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.haproxy_backends().await?.iter().any(|known| known == name))
    }

    async fn haproxy_backends(&self) -> Result<Vec<String>, Problem> {
        let command = Command::of(&["show", "backend"])?;
        reply::backends(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "it is no list"))
    }

    /// Servers and backends with their counters, as the current worker has them.
    pub async fn stat(&self) -> Result<Vec<StatRow>, Problem> {
        let mut rows = self.haproxy_stat().await?;
        // By states of servers each is named, and none is a place for whoever comes.
        if self.shows_epoch() && rows.iter().any(StatRow::unresolved) {
            let states = self.current.ask(&Command::of(&["show", "servers", "state"])?).await?;
            // What cannot be read marks none: each then counts as a server that is down.
            reply::mark_spare(&mut rows, &reply::server_states(&states).unwrap_or_default());
        }
        Ok(self.steering.rows(rows))
    }

    /// The same, by HAProxy's own names.
    pub(crate) async fn haproxy_stat(&self) -> Result<Vec<StatRow>, Problem> {
        let command = Command::of(&["show", "stat"])?;
        reply::stat(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "columns are missing"))
    }

    /// By what algorithm each of HAProxy's backends picks a server.
    pub(crate) async fn algorithms(&self) -> Result<BTreeMap<String, String>, Problem> {
        let command = Command::of(&["show", "stat"])?;
        reply::algorithms(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "columns are missing"))
    }

    /// Refuses a route that this driver cannot express on this HAProxy.
    pub async fn permit(&self, route: &Route) -> Result<(), Problem> {
        match &self.steering {
            Steering::Map(_) => Ok(()),
            Steering::ServerStates(states) => {
                let servers = states.states(&self.line()).await?.unwrap_or_default();
                states.permit(route, &self.algorithms().await?, &self.haproxy_stat().await?, &servers)
            }
        }
    }

    /// The servers that take visitors, or would when they are up, although nobody named them; `rows` are HAProxy's. A map leads
    /// past such.
    pub(crate) async fn strangers(&self, rows: &[StatRow]) -> Result<Vec<String>, Problem> {
        match &self.steering {
            Steering::Map(_) => Ok(Vec::new()),
            Steering::ServerStates(states) => {
                Ok(states.strangers(rows, &states.states(&self.line()).await?.unwrap_or_default()))
            }
        }
    }

    /// The route that the current worker routes by; `None` when it is by none that is valid.
    pub async fn route(&self) -> Result<Option<Route>, Problem> {
        Ok(self.steering.route(&self.line()).await?.flatten())
    }

    /// How often the key stands in the current worker's map: 1, unless somebody added it by hand. States have none.
    pub async fn key_count(&self) -> Result<usize, Problem> {
        let Steering::Map(map) = &self.steering else { return Ok(1) };
        let command = Command::of(&["show", "map", &map.map])?;
        let entries = reply::map_entries(&self.current.ask(&command).await?)
            .ok_or_else(|| unreadable(&command, "it is no map"))?;
        Ok(entries.iter().filter(|(key, _)| *key == map.key).count())
    }

    /// Sets the route in the current worker.
    pub async fn set_route(&self, route: &Route) -> Result<(), Problem> {
        match &self.steering {
            Steering::Map(key) => key.set(&self.line(), route).await,
            Steering::ServerStates(states) => states.set(&self.line(), route).await,
        }
    }

    /// Where the servers of a backend listen, to ask them past HAProxy: for a driver that cannot lead a tester there.
    pub async fn addresses(&self, backend: &BackendName) -> Result<Vec<SocketAddr>, Problem> {
        match &self.steering {
            Steering::Map(_) => Ok(Vec::new()),
            Steering::ServerStates(states) => {
                states.addresses(&states.states(&self.line()).await?.unwrap_or_default(), backend)
            }
        }
    }

    /// The old workers that still serve connections. Without a master socket they cannot be seen.
    pub async fn old(&self) -> Result<Vec<OldWorker>, Problem> {
        let Some(master) = &self.master else { return Ok(Vec::new()) };
        let processes = self.processes().await.unwrap_or_else(|| Ok(reply::Processes::default()))?;
        let listed: Vec<u32> = processes.workers.into_iter().chain(processes.old_workers).collect();
        // One worker and nothing else: it is the current one, and need not be asked who it is.
        if listed.len() <= 1 {
            return Ok(Vec::new());
        }
        let current = self.info().await?.pid;
        let old = listed.into_iter().filter(|pid| *pid != current);
        let (master, steering) = (master.clone(), self.steering.clone());
        Ok(old.map(|pid| OldWorker { pid, master: master.clone(), steering: steering.clone() }).collect())
    }

    /// Whether a worker is starting that has not taken over yet. From version 3.1 on the master answers meanwhile, and the
    /// worker, which may have read the route of before, cannot be told another one. Before that the master is silent.
    pub(crate) async fn starting(&self) -> Result<bool, Problem> {
        let Some(processes) = self.processes().await else { return Ok(false) };
        let workers = processes?.workers;
        let current = self.info().await?.pid;
        Ok(workers.iter().any(|pid| *pid != current))
    }

    /// The route of an old worker; `None` when it has gone.
    pub async fn old_route(&self, worker: &OldWorker) -> Result<Option<Option<Route>>, Problem> {
        self.steering.route(&Line::Old(worker)).await
    }

    /// Sets the route in an old worker. One that has gone counts as done. One that lacks a backend of the route,
    /// because it is of before a change of the configuration, is left alone and named: the route would send its
    /// visitors to the maintenance page.
    pub async fn set_old_route(&self, worker: &OldWorker, route: &Route) -> Result<(), Problem> {
        let line = Line::Old(worker);
        let key = match &self.steering {
            Steering::ServerStates(states) => return states.set_old(&line, route).await,
            Steering::Map(key) => key,
        };
        let command = Command::of(&["show", "backend"])?;
        let Some(known) = line.ask(&command).await? else { return Ok(()) };
        let known = reply::backends(&known).ok_or_else(|| unreadable(&command, "it is no list"))?;
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
        key.set(&line, route).await
    }

    /// Forgets what a table of rate limits has counted for an address, as it stands there, also in the old workers: they limit whoever still
    /// has a connection with them.
    pub async fn clear_key(&self, table: &str, key: std::net::IpAddr) -> Result<(), Problem> {
        let command = Command::of(&["clear", "table", table, "key", &key.to_string()])?;
        let old = self.old().await?;
        let clear = async |line: Line<'_>| {
            let Some(reply) = line.ask(&command).await? else { return Ok(()) };
            // One of before a change of the configuration may count in no such table, and limits nobody by it.
            let counts_not = matches!(line, Line::Old(_)) && reply.trim_end().ends_with(NO_TABLE);
            match counts_not || reply::is_empty_success(&reply) {
                true => Ok(()),
                false => Err(unreadable(&command, &first_line(&reply))),
            }
        };
        // All of them, whatever one says: whoever is left out goes on refusing the address.
        let mut cleared = Ok(());
        for line in std::iter::once(self.line()).chain(old.iter().map(Line::Old)) {
            let said = clear(line).await;
            cleared = cleared.and(said);
        }
        cleared
    }

    /// The current worker's answer to a command that only looks.
    pub async fn ask<T>(&self, words: &[&str], parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Problem> {
        let command = Command::of(words)?;
        let reply = self.current.ask(&command).await?;
        parse(&reply).ok_or_else(|| unreadable(&command, &first_line(&reply)))
    }

    /// The processes that the master knows; `None` without a master socket.
    pub async fn processes(&self) -> Option<Result<reply::Processes, Problem>> {
        let master = self.master.as_ref()?;
        let asked = async {
            let command = Command::of(&["show", "proc"])?;
            let answer = master.ask_master(&command).await?;
            reply::processes(&answer).ok_or_else(|| unreadable(&command, "it is no list"))
        };
        Some(asked.await)
    }

    /// The way to the current worker.
    pub(crate) fn current(&self) -> &CommandSocket {
        &self.current
    }

    /// The requests that the current worker and these old ones serve on servers.
    pub async fn running(&self, old: &[OldWorker]) -> Result<Vec<reply::Session>, Problem> {
        let command = Command::of(&["show", "sess"])?;
        let mut running = Vec::new();
        for line in std::iter::once(self.line()).chain(old.iter().map(Line::Old)) {
            let Some(reply) = line.ask(&command).await? else { continue };
            running.extend(reply::sessions(&reply).ok_or_else(|| unreadable(&command, &first_line(&reply)))?);
        }
        Ok(running)
    }

    /// Ends every session that the current worker has on a server.
    pub async fn cut(&self, backend: &str, server: &str) -> Result<(), Problem> {
        let named = match self.steering {
            Steering::Map(_) => format!("{backend}/{server}"),
            // It is named as HAProxy names it already: see `ServerStates::rows`.
            Steering::ServerStates(_) => server.to_owned(),
        };
        let command = Command::of(&["shutdown", "sessions", "server", &named])?;
        let said = self.current.ask(&command).await?;
        if !said.trim().is_empty() {
            return Err(unreadable(&command, said.trim()));
        }
        Ok(())
    }

    /// Ends every session that old workers have on a server of a backend, each by itself: in a worker that takes no more connections
    /// HAProxy does not end those of a server at once (measured on 2.6 and 2.8: `Proxy is disabled.`).
    pub async fn cut_old(&self, backend: &BackendName) -> Result<(), Problem> {
        let list = Command::of(&["show", "sess"])?;
        for worker in self.old().await? {
            let line = Line::Old(&worker);
            let Some(reply) = line.ask(&list).await? else { continue };
            let sessions = reply::sessions(&reply).ok_or_else(|| unreadable(&list, &first_line(&reply)))?;
            for session in sessions.iter().filter(|session| self.steering.is_on(session, backend)) {
                let command = Command::of(&["shutdown", "session", &session.pointer])?;
                // With its last session a worker ends.
                let Some(said) = line.ask(&command).await? else { break };
                if !said.trim().is_empty() && !said.starts_with(NO_SESSION) {
                    return Err(unreadable(&command, said.trim()));
                }
            }
        }
        Ok(())
    }
}

impl OldWorker {
    async fn ask(&self, command: &Command) -> Result<String, Problem> {
        self.master.ask_master(&command.for_worker(self.pid)).await
    }

    /// Its servers and backends; `None` when it has gone.
    pub async fn stat(&self) -> Result<Option<Vec<StatRow>>, Problem> {
        let command = Command::of(&["show", "stat"])?;
        let reply = self.ask(&command).await?;
        if is_gone(&reply) {
            return Ok(None);
        }
        let rows = reply::stat(&reply).ok_or_else(|| unreadable(&command, &first_line(&reply)))?;
        Ok(Some(self.steering.rows(rows)))
    }
}
