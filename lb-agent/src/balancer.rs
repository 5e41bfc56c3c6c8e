//! The balancer as one thing: its configuration, its workers, its route on disk, its frontend.

use std::fmt::Write as _;
use std::sync::Arc;

use pointsman_chassis::http_check::{self, Answer, Target};
use pointsman_checks::Grants;
use pointsman_core::{BackendName, Code, Problem, Route, several};
use tokio::sync::Mutex;

use crate::certificates::Certificates;
use crate::config::{Config, SharedConfig};
use crate::events::Events;
use crate::guard::Guard;
use crate::inspect::Looks;
use crate::loaded::Loaded;
use crate::own_address;
use crate::reply::StatRow;
use crate::route_file::RouteFile;
use crate::signals::Signals;
use crate::switch::{Prepared, WaysBack};
use crate::workers::Workers;

/// Bound on one request to the frontend that only looks at the route.
const LOOK: std::time::Duration = std::time::Duration::from_secs(2);

/// What every action of the agent works with.
#[derive(Clone)]
pub struct Balancer {
    pub(crate) config: SharedConfig,
    pub(crate) workers: Workers,
    pub(crate) file: RouteFile,
    pub(crate) frontend: Target,
    /// One change of the route at a time. Whoever holds this may change it, and finds what was made ready.
    pub(crate) changing: Arc<Mutex<Option<Prepared>>>,
    /// Who leads back and waits for that.
    pub(crate) ways_back: WaysBack,
    /// Looks after the route between orders.
    pub(crate) guard: Guard,
    /// What happened to the route that no order asked for.
    pub(crate) events: Events,
    /// What visitors meet, where access lines are listened for.
    pub(crate) signals: Option<Signals>,
    /// The certificates that may be renewed.
    pub(crate) certificates: Certificates,
    /// What checks may use.
    pub(crate) grants: Arc<Grants>,
    /// How it stood when somebody looked last.
    pub(crate) looks: Looks,
    /// The files that HAProxy runs by.
    pub(crate) loaded: Loaded,
}

/// How many servers of a backend are healthy, of how many. Backup servers are none of them: they answer in place of the slot,
/// where it has nobody left, and say nothing of the release on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub(crate) up: u32,
    pub(crate) total: u32,
}

/// How many servers of a backend must be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Before visitors are led forward to it: every one that takes visitors; and HAProxy has one for each of so many hosts.
    Every {
        /// The slot's hosts.
        hosts: u32,
    },
    /// Before visitors are led back to it, and while they are there: so many are better than none.
    AtLeast(u32),
}

/// All servers of a backend.
pub(crate) fn rows_of<'a>(rows: &'a [StatRow], backend: &BackendName) -> impl Iterator<Item = &'a StatRow> {
    rows.iter().filter(move |row| row.backend == backend.as_str() && row.server != "BACKEND")
}

/// The servers of a backend that serve its visitors. One marked `backup` answers in their place when they are down, as a
/// rule with a page that says sorry: that it is up says nothing of a release. Where a backend has no others, those are its servers.
/// A spare place of a template is no server, unless nothing else is there.
pub(crate) fn servers<'a>(rows: &'a [StatRow], backend: &BackendName) -> Vec<&'a StatRow> {
    let (backups, own): (Vec<_>, Vec<_>) = rows_of(rows, backend).partition(|row| row.backup);
    if own.is_empty() {
        return backups;
    }
    let (spare, taken): (Vec<_>, Vec<_>) = own.into_iter().partition(|row| row.spare);
    if taken.is_empty() { spare } else { taken }
}

/// Counts the healthy servers of a backend.
pub fn health(rows: &[StatRow], backend: &BackendName) -> Health {
    let counted = servers(rows, backend).into_iter().fold((0u32, 0u32), |(up, total), row| {
        (up.saturating_add(u32::from(row.healthy())), total.saturating_add(1))
    });
    Health { up: counted.0, total: counted.1 }
}

/// `a is` or `a, b are`.
fn are(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

impl Balancer {
    /// The balancer of this configuration.
    pub fn new(config: Config) -> Result<Self, Problem> {
        let file = RouteFile::of(&config)?;
        let workers = Workers::new(&config.haproxy, &file, &config.state)?;
        let signals = config.signals.clone();
        let signals = signals.map(|signals| Signals::new(signals, &config.haproxy, workers.clone()));
        Ok(Self {
            workers,
            file,
            frontend: config.frontend.target()?,
            certificates: Certificates::new(&config)?,
            grants: Arc::new(config.checks.clone()),
            config: Arc::new(config),
            changing: Arc::default(),
            ways_back: WaysBack::default(),
            guard: Guard::default(),
            events: Events::default(),
            signals,
            looks: Looks::default(),
            loaded: Loaded::default(),
        })
    }

    /// Asks the frontend as a trusted client, and returns what it marks its answer with.
    pub(crate) async fn look(&self, side: &str) -> Result<Answer, String> {
        if let Some(why) = self.elsewhere() {
            return Err(why);
        }
        let answer = http_check::ask(&self.frontend, &self.config.frontend.path.0, Some(side), LOOK).await;
        // It may have moved while it was asked: then whoever has it now gave the answer, or nobody did.
        self.elsewhere().map_or(answer, Err)
    }

    /// Why the frontend's address is not the one of the HAProxy here; none where it may be.
    pub(crate) fn elsewhere(&self) -> Option<String> {
        let source = own_address::source_towards(self.frontend.address);
        own_address::elsewhere(&self.config.haproxy, &self.config.frontend, source)
    }

    /// Refuses backends that this agent may not route to.
    pub(crate) fn granted(&self, backend: &BackendName) -> Result<(), Problem> {
        if self.config.haproxy.grants(backend) {
            return Ok(());
        }
        let message = format!("backend `{backend}` is not among those this agent may route to");
        Err(Problem::new(Code::NotGranted, message)
            .hint("add it to `backends` in lb-agent.toml on the load balancer"))
    }

    /// The servers of a backend of which it depends whether visitors may be there.
    fn counted<'a>(&self, rows: &'a [StatRow], backend: &BackendName) -> Vec<&'a StatRow> {
        let own = servers(rows, backend).into_iter();
        let (optional, own): (Vec<_>, Vec<_>) = own.partition(|row| self.config.haproxy.may_be_down(row));
        if own.is_empty() { optional } else { own }
    }

    /// Those of them that a person has put away. By server states the agent itself makes them ready: there they must be up.
    pub(crate) fn put_away<'a>(&self, rows: &'a [StatRow], backend: &BackendName) -> Vec<&'a StatRow> {
        let mut away = self.counted(rows, backend);
        away.retain(|row| self.shows_epoch() && row.put_away());
        away
    }

    /// Refuses a backend whose servers cannot take visitors.
    pub(crate) fn healthy_enough(
        &self,
        rows: &[StatRow],
        backend: &BackendName,
        needed: Needed,
    ) -> Result<(), Problem> {
        if self.config.haproxy.needs_no_servers(backend) {
            return Ok(());
        }
        let (counted, away) = (self.counted(rows, backend), self.put_away(rows, backend));
        let healthy = counted.iter().filter(|row| row.healthy()).count();
        let healthy = u32::try_from(healthy).unwrap_or(u32::MAX);
        let (spare, lines): (Vec<_>, Vec<_>) = rows_of(rows, backend).partition(|row| row.spare);
        let lines = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let spare = match u32::try_from(spare.len()).unwrap_or(u32::MAX) {
            0 => String::new(),
            spare => format!(" beside {} without an address", several(spare, "place", "places")),
        };
        let of = format!("`{backend}` has {healthy} of {} servers healthy", counted.len());
        let message = match needed {
            Needed::AtLeast(servers) if healthy >= servers.max(1) => return Ok(()),
            Needed::AtLeast(servers) => format!("{of}, {} needed", servers.max(1)),
            Needed::Every { hosts } if lines < hosts => {
                format!(
                    "`{backend}` has {} in HAProxy{spare}, and its slot has {}",
                    several(lines, "server", "servers"),
                    several(hosts, "host", "hosts")
                )
            }
            Needed::Every { .. } => {
                let is_away = |row: &StatRow| away.iter().any(|away| away.server == row.server);
                let down: Vec<&str> = counted
                    .iter()
                    .filter(|row| !row.healthy() && !is_away(row))
                    .map(|row| row.server.as_str())
                    .collect();
                match down.as_slice() {
                    [] if healthy > 0 => return Ok(()),
                    [] => format!("{of}: nobody could be served there"),
                    down => format!("{of}, and visitors are led there when all are: {} not up", are(down)),
                }
            }
        };
        let states: Vec<String> = rows_of(rows, backend)
            .map(|row| {
                let why = match row.backup {
                    true => ", a `backup`, which counts for none",
                    false if row.spare => ", a place of a `server-template` that has no address",
                    false if self.config.haproxy.may_be_down(row) => ", which may be down",
                    false => "",
                };
                format!("{} is {} ({}){why}", row.server, row.status, row.check_status)
            })
            .collect();
        let socket = &self.config.haproxy.socket.0;
        let mut hint = format!("see its checks: {}", socket.by_hand(&format!("show stat {backend} 6 -1")));
        if let Some(away) = counted.iter().find(|row| row.put_away()) {
            let (of, server) = away.named();
            let ready = socket.by_hand(&format!("set server {of}/{server} state ready"));
            let _ = write!(
                hint,
                "; `{server}` is not checked while it is put away, by `disabled` in its line or by hand; to bring it back: {ready}"
            );
        }
        let unresolved = counted.iter().find(|row| row.unresolved());
        if let Some(row) = unresolved {
            let of = row.named().0;
            let _ = write!(
                hint,
                "; the name of `{}` has no address: ask the name servers of its `resolvers`, or see {}",
                row.server,
                socket.by_hand(&format!("show servers state {of}"))
            );
        }
        // What has no address stays where it is, whatever it is told.
        if matches!(needed, Needed::Every { .. }) && self.shows_epoch() && unresolved.is_some() {
            hint.push_str("; to go without such a server take its line out, or name it in `optional_servers` of lb-agent.toml");
        } else if matches!(needed, Needed::Every { .. }) && self.shows_epoch() {
            hint.push_str("; to go without a server put it away (`set server ... state maint`), or name it in `optional_servers` of lb-agent.toml");
        }
        Err(Problem::new(Code::BackendUnhealthy, message).cause(states.join(", ")).retry_useful().hint(hint))
    }

    /// Whether enough servers stay healthy while visitors are there. Where a reload has HAProxy begin to check anew, nobody
    /// knows how the servers are, which is no failure of theirs.
    pub(crate) fn stays_healthy(
        &self,
        rows: &[StatRow],
        backend: &BackendName,
        min_up: u32,
    ) -> Result<(), Problem> {
        let Err(problem) = self.healthy_enough(rows, backend, Needed::AtLeast(min_up)) else { return Ok(()) };
        let may_be =
            self.counted(rows, backend).into_iter().filter(|row| row.healthy() || row.untried()).count();
        if u32::try_from(may_be).unwrap_or(u32::MAX) < min_up.max(1) {
            return Err(problem);
        }
        let message = format!("HAProxy has just started and has not checked `{backend}` yet");
        let blind = Problem::new(Code::WatchBlind, message).retry_useful();
        Err(problem.causes.into_iter().fold(blind, Problem::cause).hint(problem.hint))
    }

    /// Whether answers of the frontend can show by which route they came.
    pub(crate) fn shows_epoch(&self) -> bool {
        self.workers.shows_epoch()
    }

    /// The servers stand for none of the routes that the agent knows.
    pub(crate) fn states_differ(&self) -> Problem {
        Problem::new(Code::RouteDrift, "the states of HAProxy's servers are not as the route set them")
            .retry_useful()
            .cause(
                "after a reload the agent puts them right within a second; what a person changed it leaves",
            )
            .hint(format!("see them: {}", self.config.haproxy.socket.0.by_hand("show servers state")))
    }

    /// The current route, which must be there.
    pub(crate) async fn standing_route(&self) -> Result<Route, Problem> {
        let missing = || {
            if !self.shows_epoch() {
                return self.states_differ();
            }
            let show =
                self.config.haproxy.socket.0.by_hand(&format!("show map {}", self.config.haproxy.map_name()));
            Problem::new(Code::RouteDrift, "HAProxy's map holds no valid route")
                .cause("every visitor gets the maintenance page")
                .hint(format!(
                    "`systemctl reload haproxy` reads it from the map file again; what is there: {show}"
                ))
        };
        self.workers.route().await?.ok_or_else(missing)
    }
}
