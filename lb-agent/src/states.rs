//! Moving visitors by the states of servers, for a HAProxy whose configuration cannot look a route up: the servers of
//! the wanted slot are made ready, are seen to be up, and only then the servers of the other slots are drained.
//!
//! It is a fallback and weaker than the map. It takes several commands, so for some milliseconds both slots serve.
//! A reload makes every server ready again until the guard has looked. A process of before a reload refuses the
//! commands (`Proxy is disabled.`, measured on 2.6.12), so it goes on as it was until it ends. HAProxy shows no epoch,
//! so what stands is recognised by comparing the states with the routes that the agent remembers.

mod permit;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use pointsman_core::{Aftermath, BackendName, Code, Problem, Route};
use tokio::time::Instant;

use crate::command::Command;
use crate::config::Haproxy;
use crate::reply::{self, ServerState, StatRow};
use crate::route_file::RouteFile;
use crate::socket::unreadable;
use crate::workers::Line;
pub use permit::refuse_strangers;
use record::{Record, Recorded};

/// How long servers that were made ready may take to be up. They were seen healthy while drained, and checks go on
/// in that state, so as a rule it is the first look.
const UP_WITHIN: Duration = Duration::from_secs(5);

/// Pause between two looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest name of a backend or server.
const MAX_NAME_BYTES: usize = 128;

/// HAProxy's highest weight.
const MAX_WEIGHT: u32 = 256;

/// Algorithms that take weights at runtime whatever else is configured. `source`, `uri`, `hdr` and the like do only
/// with `hash-type consistent`, which HAProxy does not show.
const TAKE_WEIGHTS: [&str; 4] = ["roundrobin", "leastconn", "random", "first"];

/// `haproxybackend/server`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerName {
    backend: String,
    server: String,
}

impl ServerName {
    /// HAProxy's backend.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The server in it.
    pub fn server(&self) -> &str {
        &self.server
    }
}

impl FromStr for ServerName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fit = |name: &str| {
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
            letters && (1..=MAX_NAME_BYTES).contains(&name.len())
        };
        match text.split_once('/') {
            Some((backend, server)) if fit(backend) && fit(server) => {
                Ok(Self { backend: backend.to_owned(), server: server.to_owned() })
            }
            _ => Err(format!("`{}` is no server: expected `haproxybackend/server`", text.escape_default())),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// The driver.
#[derive(Clone, Debug)]
pub struct ServerStates {
    slots: BTreeMap<BackendName, Vec<ServerName>>,
    maintenance: BackendName,
    balance_static: Option<bool>,
    record: Record,
    file: RouteFile,
}

/// What has to be sent, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Steps {
    /// Weights of servers that take no visitors yet, or share them already.
    weights: Vec<(ServerName, String)>,
    /// Servers to be made ready.
    ready: Vec<ServerName>,
    /// Servers to be drained once those above are up.
    drain: Vec<ServerName>,
    /// Weights that go back to what the configuration says.
    reset: Vec<ServerName>,
}

fn invalid(message: String) -> Problem {
    Problem::new(Code::ConfigInvalid, message)
        .hint("`[haproxy.servers]` in lb-agent.toml: `be_blue = [\"be_app/blue1\"]`, a line for each backend of a route")
}

/// Weights for one server of each side, so that `percent` of the visitors go to the canary's: as exact as whole
/// numbers up to 256 allow, and never 0, which would be nobody.
fn weights(stable: usize, canary: usize, percent: u8) -> (u32, u32) {
    let count = |servers: usize| u32::try_from(servers.clamp(1, 1000)).unwrap_or(1);
    let (of_stable, of_canary) =
        ((100 - u32::from(percent.min(100))) * count(canary), u32::from(percent) * count(stable));
    let (smaller, larger) = (of_stable.min(of_canary).max(1), of_stable.max(of_canary).max(1));
    if larger <= MAX_WEIGHT {
        return (of_stable, of_canary);
    }
    // The smaller one first, as a whole number: the larger one then follows it more finely than the other way round.
    let small = (MAX_WEIGHT * smaller / larger).max(1);
    let large = ((larger * small + smaller / 2) / smaller).min(MAX_WEIGHT);
    if of_stable < of_canary { (small, large) } else { (large, small) }
}

impl ServerStates {
    /// The driver of this configuration. `file` holds the route that must stand.
    pub fn new(haproxy: &Haproxy, file: &RouteFile, state: &std::path::Path) -> Result<Self, Problem> {
        let slots: BTreeMap<BackendName, Vec<ServerName>> = haproxy
            .servers
            .iter()
            .map(|(slot, servers)| (slot.0.clone(), servers.iter().map(|server| server.0.clone()).collect()))
            .collect();
        if let Some(lacking) = haproxy.backends.iter().find(|backend| !slots.contains_key(&backend.0)) {
            return Err(invalid(format!("`haproxy.servers` names no servers for `{}`", lacking.0)));
        }
        let mut seen = BTreeSet::new();
        let mut backends: Option<BTreeSet<&str>> = None;
        for (slot, servers) in &slots {
            if let Some(twice) = servers.iter().find(|server| !seen.insert((*server).clone())) {
                return Err(invalid(format!("`haproxy.servers` names `{twice}` twice")));
            }
            let own: BTreeSet<&str> = servers.iter().map(|server| server.backend.as_str()).collect();
            // Draining the others would leave a HAProxy backend without any server.
            if own.is_empty() || backends.as_ref().is_some_and(|others| *others != own) {
                return Err(invalid(format!(
                    "`{slot}` has no servers in a HAProxy backend in which others have some"
                )));
            }
            backends = Some(own);
        }
        Ok(Self {
            slots,
            maintenance: haproxy.maintenance_backend.0.clone(),
            balance_static: haproxy.balance_static,
            record: Record { path: state.join("server-states") },
            file: file.clone(),
        })
    }

    /// The backends of a route whose servers HAProxy all has, and the one that needs none.
    pub fn known(&self, states: &[ServerState]) -> Vec<String> {
        let has = |name: &ServerName| find(states, name).is_some();
        let whole = self.slots.iter().filter(|(_, servers)| servers.iter().all(has));
        let mut known: Vec<String> = whole.map(|(slot, _)| slot.to_string()).collect();
        if !self.slots.contains_key(&self.maintenance) {
            known.push(self.maintenance.to_string());
        }
        known
    }

    /// HAProxy's rows as rows of a route's backends. A server that is drained and passes its checks could take
    /// visitors: whether it does is the route's affair, so it counts as up. A backend's row sums its servers': what
    /// HAProxy answers itself for want of a server stands on none of them and is not in it.
    pub fn rows(&self, rows: &[StatRow]) -> Vec<StatRow> {
        let mut found = Vec::new();
        for (slot, servers) in &self.slots {
            let mut sum =
                StatRow { backend: slot.to_string(), server: "BACKEND".to_owned(), ..StatRow::default() };
            let known: Vec<_> =
                servers.iter().filter_map(|name| Some((name, find_row(rows, name)?))).collect();
            // A worker of before the slot was made cannot lead there.
            if known.is_empty() {
                continue;
            }
            for (name, row) in known {
                sum.add(row);
                let status = if row.status == "DRAIN" { "UP".to_owned() } else { row.status.clone() };
                found.push(StatRow {
                    backend: slot.to_string(),
                    server: name.to_string(),
                    status,
                    ..row.clone()
                });
            }
            found.push(sum);
        }
        found
    }

    /// The servers of a backend of a route, as HAProxy names them.
    fn servers(&self, slot: &BackendName) -> &[ServerName] {
        self.slots.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Whether a server of HAProxy's is one of a backend of a route.
    pub fn has_server(&self, slot: &BackendName, backend: &str, server: &str) -> bool {
        self.servers(slot).iter().any(|name| name.backend == backend && name.server == server)
    }

    /// The HAProxy backends that hold the servers.
    fn haproxy_backends(&self) -> BTreeSet<&str> {
        self.slots.values().flatten().map(|server| server.backend.as_str()).collect()
    }

    /// Whether a worker's servers are as the route wants them. A server that a person has put into maintenance takes
    /// no visitors and is left out, but a slot needs one that is not.
    fn matches(&self, states: &[ServerState], route: &Route) -> bool {
        let (of_stable, of_canary) = self.weights(route);
        let receives = |slot: &BackendName| route.share_of(slot) > 0;
        if [&route.stable, &route.canary]
            .into_iter()
            .any(|slot| receives(slot) && self.servers(slot).is_empty())
        {
            return false;
        }
        self.slots.iter().all(|(slot, servers)| {
            let found: Option<Vec<&ServerState>> = servers.iter().map(|name| find(states, name)).collect();
            let Some(found) = found else { return false };
            if !receives(slot) {
                return found.iter().all(|state| state.drained || state.in_maintenance);
            }
            let mut serving = found.iter().filter(|state| !state.in_maintenance).peekable();
            let split = !share_is_whole(route);
            let wanted = if *slot == route.canary { of_canary } else { of_stable };
            let right = |state: &&&ServerState| match split {
                true => u32::from(state.weight) == wanted,
                false => state.weight > 0 || state.initial_weight == 0,
            };
            serving.peek().is_some() && serving.all(|state| !state.drained && right(&state))
        })
    }

    fn weights(&self, route: &Route) -> (u32, u32) {
        weights(self.servers(&route.stable).len(), self.servers(&route.canary).len(), route.percent)
    }

    /// What leads from these states to the route.
    fn steps(&self, states: &[ServerState], route: &Route) -> Steps {
        let (of_stable, of_canary) = self.weights(route);
        let split = !share_is_whole(route);
        let mut steps = Steps::default();
        for (slot, servers) in &self.slots {
            for name in servers {
                let Some(state) = find(states, name) else { continue };
                // Maintenance is a person's: to make such a server ready would count it as up before any check.
                if state.in_maintenance {
                    continue;
                }
                if route.share_of(slot) == 0 {
                    if !state.drained {
                        steps.drain.push(name.clone());
                    }
                    if state.weight != state.initial_weight {
                        steps.reset.push(name.clone());
                    }
                    continue;
                }
                let wanted = if *slot == route.canary { of_canary } else { of_stable };
                if split && u32::from(state.weight) != wanted {
                    steps.weights.push((name.clone(), wanted.to_string()));
                } else if !split && state.weight != state.initial_weight {
                    // With weight 0 it would be ready and get nobody. Any other weight is put right when it is alone:
                    // before that it would change how visitors are shared.
                    match state.weight {
                        0 => steps.weights.push((name.clone(), "100%".to_owned())),
                        _ => steps.reset.push(name.clone()),
                    }
                }
                if state.drained {
                    steps.ready.push(name.clone());
                }
            }
        }
        steps
    }

    /// The route that a worker's servers stand for: the one last set, or the one on disk. Neither is `None`.
    fn recognise(&self, states: &[ServerState]) -> Option<Route> {
        let candidates = [self.record.read().whole, self.file.read()];
        candidates.into_iter().flatten().find(|route| self.matches(states, route))
    }

    /// Whether setting a route was cut short: what stands is the agent's own half-done work, and no person's.
    pub fn cut_short(&self) -> bool {
        self.record.read().begun.is_some()
    }

    /// The states of a worker's servers; `None` when it has gone.
    pub async fn states(&self, line: &Line<'_>) -> Result<Option<Vec<ServerState>>, Problem> {
        let command = Command::of(&["show", "servers", "state"])?;
        let Some(reply) = line.ask(&command).await? else { return Ok(None) };
        let states =
            reply::server_states(&reply).ok_or_else(|| unreadable(&command, "columns are missing"))?;
        Ok(Some(states))
    }

    /// The route of a worker; `None` when it has gone.
    pub async fn route(&self, line: &Line<'_>) -> Result<Option<Option<Route>>, Problem> {
        Ok(self.states(line).await?.map(|states| self.recognise(&states)))
    }

    /// Where the servers of a backend of a route listen, to ask them past HAProxy.
    pub fn addresses(&self, states: &[ServerState], slot: &BackendName) -> Result<Vec<SocketAddr>, Problem> {
        let serving = self.servers(slot).iter().filter_map(|name| Some((name, find(states, name)?)));
        serving
            .filter(|(_, state)| !state.in_maintenance)
            .map(|(name, state)| {
                let address = state.address.parse::<IpAddr>().ok().filter(|_| state.port > 0 && !state.tls);
                address.map(|address| SocketAddr::new(address, state.port)).ok_or_else(|| {
                    Problem::new(Code::DriverCannot, format!("cannot check `{name}` before it has visitors"))
                        .cause("the driver `server-state` asks it directly, and HAProxy speaks TLS to it or shows no address")
                        .hint("leave the checks of the idle slot out, or use the driver `map`")
                })
            })
            .collect()
    }

    /// Sets a route in the worker that takes new connections: open, see that it is up, then close.
    pub async fn set(&self, line: &Line<'_>, route: &Route) -> Result<(), Problem> {
        let gone =
            || Problem::new(Code::RuntimeSocketUnreachable, "HAProxy's worker has gone").retry_useful();
        let states = self.states(line).await?.ok_or_else(gone)?;
        let steps = self.steps(&states, route);
        let before = self.rows_of(line).await?;
        self.can_open(&states, &before, route, &steps)?;
        let recorded = self.record.read();
        self.record.write(&Recorded { begun: Some(route.clone()), ..recorded.clone() })?;
        if let Err(problem) = self.open(line, (&states, &before), route, &steps).await {
            return Err(self.close_again(line, &states, &steps, &recorded, problem).await);
        }
        for name in &steps.drain {
            set_state(line, name, "drain").await?;
        }
        for name in &steps.reset {
            set_weight(line, name, "100%").await?;
        }
        self.record.write(&Recorded { whole: Some(route.clone()), begun: None })
    }

    /// Sets a route in an old worker, without waiting: it makes no checks any more. HAProxy refuses that as far as is
    /// known, and then its visitors stay as they are until it ends.
    pub async fn set_old(&self, line: &Line<'_>, route: &Route) -> Result<(), Problem> {
        let Some(states) = self.states(line).await? else { return Ok(()) };
        let steps = self.steps(&states, route);
        for (name, weight) in &steps.weights {
            set_weight(line, name, weight).await?;
        }
        for name in &steps.ready {
            set_state(line, name, "ready").await?;
        }
        for name in &steps.drain {
            set_state(line, name, "drain").await?;
        }
        Ok(())
    }

    async fn rows_of(&self, line: &Line<'_>) -> Result<Vec<StatRow>, Problem> {
        let command = Command::of(&["show", "stat"])?;
        let reply = line.ask(&command).await?.unwrap_or_default();
        reply::stat(&reply).ok_or_else(|| unreadable(&command, "columns are missing"))
    }

    /// Each slot that gets visitors must have a server for them now: one that has proved itself if it is to be made
    /// ready, one that HAProxy sends visitors to if it is ready already. Else the others are not drained.
    fn can_open(
        &self,
        states: &[ServerState],
        rows: &[StatRow],
        route: &Route,
        steps: &Steps,
    ) -> Result<(), Problem> {
        for slot in [&route.stable, &route.canary].into_iter().filter(|slot| route.share_of(slot) > 0) {
            let serves = |name: &&ServerName| {
                let in_maintenance = find(states, name).is_none_or(|state| state.in_maintenance);
                let row = find_row(rows, name);
                let opens = steps.ready.contains(name);
                !in_maintenance
                    && row.is_some_and(|row| {
                        if opens {
                            proved(row)
                        } else {
                            row.status.starts_with("UP") || row.status == "no check"
                        }
                    })
            };
            if !self.servers(slot).iter().any(|name| serves(&name)) {
                let shown: Vec<String> = self.servers(slot).iter().map(|name| shown(rows, name)).collect();
                return Err(Problem::new(
                    Code::BackendUnhealthy,
                    format!("no server of `{slot}` can take visitors"),
                )
                .cause(shown.join(", "))
                .retry_useful()
                .hint("see why its checks fail: `pointsman status ENV`"));
            }
        }
        Ok(())
    }

    /// Makes servers ready and waits until each that had proved itself is up: `UP 1/3` is not. Which those are is told by
    /// the rows by which opening was permitted: of a server that fails right after that nobody may say that nothing is
    /// awaited of it.
    async fn open(
        &self,
        line: &Line<'_>,
        (states, before): (&[ServerState], &[StatRow]),
        route: &Route,
        steps: &Steps,
    ) -> Result<(), Problem> {
        for (name, weight) in &steps.weights {
            set_weight(line, name, weight).await?;
        }
        for name in &steps.ready {
            set_state(line, name, "ready").await?;
        }
        let awaited: Vec<&ServerName> =
            steps.ready.iter().filter(|name| find_row(before, name).is_some_and(proved)).collect();
        let give_up = Instant::now() + UP_WITHIN;
        loop {
            let rows = self.rows_of(line).await?;
            let lacking: Vec<&&ServerName> =
                awaited.iter().filter(|name| !find_row(&rows, name).is_some_and(StatRow::healthy)).collect();
            // One that was ready before may have failed meanwhile, too.
            let opened = self.can_open(states, &rows, route, steps);
            if lacking.is_empty() && opened.is_ok() {
                return Ok(());
            }
            if Instant::now() >= give_up {
                if lacking.is_empty() {
                    return opened;
                }
                let shown: Vec<String> = lacking.into_iter().map(|name| shown(&rows, name)).collect();
                let message =
                    format!("servers were made ready and are not up after {} s", UP_WITHIN.as_secs());
                return Err(Problem::new(Code::BackendUnhealthy, message)
                    .cause(shown.join(", "))
                    .retry_useful());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Drains what was opened in vain. The others have not been drained yet, so nobody was without a server.
    async fn close_again(
        &self,
        line: &Line<'_>,
        before: &[ServerState],
        steps: &Steps,
        recorded: &Recorded,
        problem: Problem,
    ) -> Problem {
        let undo = async {
            for name in &steps.ready {
                set_state(line, name, "drain").await?;
            }
            for (name, _) in &steps.weights {
                let weight = find(before, name).map_or(1, |state| state.weight);
                set_weight(line, name, &weight.to_string()).await?;
            }
            self.record.write(recorded)
        };
        match undo.await {
            Ok(()) => problem.aftermath(Aftermath::Unchanged),
            Err(second) => problem.aftermath(Aftermath::Unknown).cause(second.to_string()),
        }
    }
}

/// Whether this algorithm takes weights at runtime for certain.
pub(crate) fn takes_weights(algorithm: &str) -> bool {
    TAKE_WEIGHTS.contains(&algorithm)
}

/// All visitors go to one slot.
fn share_is_whole(route: &Route) -> bool {
    matches!(route.share_of(&route.stable), 0 | 100)
}

/// Its checks pass, whether it is drained or not.
fn proved(row: &StatRow) -> bool {
    row.healthy() || (row.status == "DRAIN" && StatRow { status: "UP".to_owned(), ..row.clone() }.healthy())
}

fn find<'a>(states: &'a [ServerState], name: &ServerName) -> Option<&'a ServerState> {
    states.iter().find(|state| state.backend == name.backend && state.server == name.server)
}

fn find_row<'a>(rows: &'a [StatRow], name: &ServerName) -> Option<&'a StatRow> {
    rows.iter().find(|row| is_row(row, name))
}

fn is_row(row: &StatRow, name: &ServerName) -> bool {
    row.backend == name.backend && row.server == name.server
}

fn shown(rows: &[StatRow], name: &ServerName) -> String {
    find_row(rows, name).map_or_else(
        || format!("{name} is missing"),
        |row| format!("{name} is {} ({})", row.status, row.check_status),
    )
}

async fn set_state(line: &Line<'_>, name: &ServerName, state: &str) -> Result<(), Problem> {
    taken(line, &Command::of(&["set", "server", &name.to_string(), "state", state])?, name).await
}

async fn set_weight(line: &Line<'_>, name: &ServerName, weight: &str) -> Result<(), Problem> {
    taken(line, &Command::of(&["set", "weight", &name.to_string(), weight])?, name).await
}

async fn taken(line: &Line<'_>, command: &Command, name: &ServerName) -> Result<(), Problem> {
    let Some(reply) = line.ask(command).await? else { return Ok(()) };
    if reply::is_empty_success(&reply) {
        return Ok(());
    }
    let code = if reply.starts_with("Backend is using a static LB") {
        Code::DriverCannot
    } else {
        Code::RouteNotApplied
    };
    let message =
        format!("HAProxy did not take `{}` for `{name}`: it answered `{}`", command.verb(), reply.trim());
    Err(Problem::new(code, message).hint(
        "compare `[haproxy.servers]` in lb-agent.toml with haproxy.cfg; the socket must be `level admin`",
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::socket::{CommandSocket, Endpoint};

    fn driver(folder: &std::path::Path, blue: usize, green: usize) -> ServerStates {
        let names = |slot: &str, count: usize| -> Vec<ServerName> {
            (1..=count).map(|number| format!("be_app/{slot}{number}").parse().unwrap()).collect()
        };
        let slot = |name: &str| BackendName::parse(name).unwrap();
        ServerStates {
            slots: BTreeMap::from([
                (slot("be_blue"), names("blue", blue)),
                (slot("be_green"), names("green", green)),
            ]),
            maintenance: slot("be_maint"),
            balance_static: None,
            record: Record { path: folder.join("server-states") },
            file: RouteFile::new(&folder.join("route.map"), "route", folder),
        }
    }

    fn state(name: &ServerName, drained: bool, in_maintenance: bool, weight: u16) -> ServerState {
        ServerState {
            backend: name.backend.clone(),
            server: name.server.clone(),
            address: "127.0.0.1".to_owned(),
            port: 1,
            resolves: String::new(),
            tls: false,
            drained,
            in_maintenance,
            weight,
            initial_weight: 1,
        }
    }

    fn gets_visitors(states: &[ServerState]) -> bool {
        states.iter().any(|state| !state.drained && !state.in_maintenance && state.weight > 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, rng_seed: RngSeed::Fixed(1), cases: 500, ..ProptestConfig::default()
        })]

        /// From any states to any route: it stands at the end, and on the way there is always somebody who serves.
        #[test]
        fn the_steps_lead_to_the_route_and_never_leave_nobody(
            counts in (1usize..4, 1usize..4),
            found in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.2), 0u16..=256), 6),
            percent in prop_oneof![Just(0u8), Just(100), 1u8..100],
            green in any::<bool>(),
        ) {
            let driver = driver(std::path::Path::new("/nonexistent"), counts.0, counts.1);
            let names: Vec<ServerName> = driver.slots.values().flatten().cloned().collect();
            let mut states: Vec<ServerState> = names.iter().zip(found)
                .map(|(name, (drained, maintenance, weight))| state(name, drained, maintenance, weight)).collect();
            let (stable, canary) = if green { ("green", "blue") } else { ("blue", "green") };
            let route = Route::parse(&format!("be_{stable}:be_{canary}:{percent}:7")).unwrap();
            let can_serve = |slot: &BackendName| {
                driver.servers(slot).iter().any(|name| !find(&states, name).unwrap().in_maintenance)
            };
            let receivers = [&route.stable, &route.canary].into_iter().filter(|slot| route.share_of(slot) > 0);
            prop_assume!(receivers.into_iter().all(can_serve));
            let mut served = gets_visitors(&states);
            let steps = driver.steps(&states, &route);
            let mut apply = |name: &ServerName, change: &dyn Fn(&mut ServerState)| {
                let state = states.iter_mut().find(|state| state.server == name.server).unwrap();
                assert!(!state.in_maintenance, "maintenance is a person's");
                change(state);
                assert!(!served || gets_visitors(&states), "nobody serves after {name}: {steps:?}");
                served = served || gets_visitors(&states);
            };
            for (name, weight) in &steps.weights {
                apply(name, &|state| state.weight = weight.parse().unwrap_or(state.initial_weight));
            }
            for name in &steps.ready {
                apply(name, &|state| state.drained = false);
            }
            for name in &steps.drain {
                apply(name, &|state| state.drained = true);
            }
            for name in &steps.reset {
                apply(name, &|state| state.weight = state.initial_weight);
            }
            prop_assert!(driver.matches(&states, &route), "{states:?}");
            prop_assert_eq!(driver.steps(&states, &route), Steps::default());
        }

        #[test]
        fn weights_share_as_asked(stable in 1usize..9, canary in 1usize..9, percent in 1u8..100) {
            let (of_stable, of_canary) = weights(stable, canary, percent);
            prop_assert!((1..=MAX_WEIGHT).contains(&of_stable) && (1..=MAX_WEIGHT).contains(&of_canary));
            let (all_stable, all_canary) = (f64::from(of_stable) * stable as f64, f64::from(of_canary) * canary as f64);
            let share = 100.0 * all_canary / (all_stable + all_canary);
            // No server can have less than 1: one against many cannot be shared more finely.
            let finest = of_stable == 1 || of_canary == 1;
            prop_assert!(finest || (share - f64::from(percent)).abs() < 1.0, "{share} for {percent}");
        }
    }

    #[test]
    fn names_of_servers() {
        assert_eq!("be_app/blue-1".parse::<ServerName>().unwrap().to_string(), "be_app/blue-1");
        for text in ["", "be_app", "/a", "a/", "a/b/c", "a/b c", "a/b;c", "a/é", "a/b\n"] {
            assert!(text.parse::<ServerName>().is_err(), "{text:?}");
        }
    }

    /// Answers as HAProxy would, with blue1 ready and green1 drained. After it was made ready, green1 is `UP 1/3` for
    /// so many looks. With `fails` its check fails after the first look.
    fn fake(socket: &std::path::Path, unproved_for: usize, fails: bool) -> Arc<Mutex<Vec<String>>> {
        let listener = UnixListener::bind(socket).unwrap();
        let commands: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&commands);
        tokio::spawn(async move {
            let (mut blue, mut green, mut looks, mut first) = (0, 8, 0, true);
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut chunk = vec![0; 1024];
                let count = stream.read(&mut chunk).await.unwrap();
                let command = String::from_utf8_lossy(&chunk[..count]).trim().to_owned();
                let answer = match command.as_str() {
                    "show servers state" => format!(
                        "1\n# be_name srv_name srv_addr srv_admin_state srv_uweight srv_iweight srv_port\nbe_app blue1 1.1.1.1 {blue} 1 1 80\nbe_app green1 1.1.1.1 {green} 1 1 80\n\n"
                    ),
                    "show stat" => {
                        looks += usize::from(green == 0);
                        let shown = match green {
                            0 if looks <= unproved_for => "UP 1/3",
                            0 => "UP",
                            _ => "DRAIN",
                        };
                        let (shown, check) = match fails && !std::mem::take(&mut first) {
                            true => ("DOWN", "L4CON"),
                            false => (shown, "L7OK"),
                        };
                        format!(
                            "# pxname,svname,scur,status,check_status,hrsp_5xx,req_tot\nbe_app,blue1,0,UP,L7OK,0,0\nbe_app,green1,0,{shown},{check},0,0\n\n"
                        )
                    }
                    set => {
                        let to = if set.ends_with("drain") { 8 } else { 0 };
                        if set.contains("blue1") {
                            blue = to
                        } else {
                            green = to
                        }
                        "\n".to_owned()
                    }
                };
                heard.lock().unwrap().push(command);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        commands
    }

    async fn switched(
        unproved_for: usize,
        fails: bool,
    ) -> (Result<(), Problem>, Vec<String>, ServerStates, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let commands = fake(&path, unproved_for, fails);
        let socket = CommandSocket::new(&Endpoint::Unix(path));
        let driver = driver(folder.path(), 1, 1);
        let done = driver.set(&Line::Current(&socket), &Route::parse("be_green:be_blue:0:7").unwrap()).await;
        let commands = commands.lock().unwrap().clone();
        (done, commands, driver, folder)
    }

    #[tokio::test]
    async fn the_old_slot_is_drained_only_when_the_new_one_is_up() {
        let (done, commands, driver, _folder) = switched(4, false).await;
        done.unwrap();
        let place = |wanted: &str| commands.iter().position(|command| command == wanted).unwrap();
        let (open, close) =
            (place("set server be_app/green1 state ready"), place("set server be_app/blue1 state drain"));
        assert_eq!(commands[open + 1..close], ["show stat"; 5], "{commands:?}");
        assert!(!commands.iter().any(|command| command.contains("maint")));
        assert!(!driver.cut_short() && driver.record.read().whole.is_some());
    }

    #[tokio::test]
    async fn a_new_slot_that_stays_unproved_is_drained_again_and_the_old_one_never_is() {
        let (done, commands, driver, _folder) = switched(usize::MAX, false).await;
        let problem = done.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
        assert!(problem.causes[0].contains("green1 is UP 1/3"), "{problem:?}");
        assert_eq!(commands.last().unwrap(), "set server be_app/green1 state drain");
        assert!(!commands.iter().any(|command| command.contains("blue1")), "{commands:?}");
        assert!(!driver.cut_short());
    }

    #[tokio::test]
    async fn a_new_slot_that_fails_right_before_it_is_opened_leaves_the_old_one_alone() {
        let (done, commands, driver, _folder) = switched(0, true).await;
        let problem = done.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
        assert_eq!(commands.last().unwrap(), "set server be_app/green1 state drain");
        assert!(!commands.iter().any(|command| command.contains("blue1")), "{commands:?}");
        assert!(!driver.cut_short());
    }
}
