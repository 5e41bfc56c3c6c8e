//! The hosts of the simulated world: what is on their disks, what is in their memory, and what a crash leaves of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_coordinator::Environment;
use pointsman_core::receipt::{Fate, Fence};
use pointsman_core::route_change::{LEASE_MS, Lease};
use pointsman_core::{
    ArtifactDigest, BackendName, HostName, OrderDigest, ReleaseId, Route, RouteEpoch, Step,
};

use crate::network::{Call, Message, Sent};
use crate::scenario::Scenario;
use crate::server::Server;
use crate::site::FIRST;

/// How much of an artifact is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Every file is there.
    pub whole: bool,
    /// It is named complete.
    pub marked: bool,
}

/// A web host.
#[derive(Clone, Debug)]
pub struct Web {
    /// The backend that leads to it.
    pub backend: BackendName,
    /// Artifacts on its disk.
    pub trees: BTreeMap<ArtifactDigest, Tree>,
    /// What `current` points to.
    pub current: Option<ArtifactDigest>,
    /// The maintenance file.
    pub flag: bool,
    /// Its server can run.
    pub server_up: bool,
    /// Its server is starting until then.
    pub boots_until: u64,
}

impl Web {
    /// Whether an artifact is there, whole, and current.
    pub fn holds(&self, artifact: ArtifactDigest) -> bool {
        self.current == Some(artifact) && self.trees.get(&artifact).is_some_and(|tree| tree.marked)
    }

    /// Whether its server answers health checks.
    pub fn healthy(&self, now: u64) -> bool {
        self.server_up && now >= self.boots_until && self.current.is_some()
    }
}

/// A process of HAProxy that serves.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// The route in its map.
    pub route: Route,
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// The route on disk.
    pub disk: Route,
    /// The highest route epoch that was ever on disk.
    pub highest: RouteEpoch,
    /// The route that was given that epoch and taken back.
    pub given_away: Option<Route>,
    /// HAProxy's processes: the last one takes new connections. Empty while HAProxy is down.
    pub workers: Vec<Worker>,
    /// One that has read the map and serves nobody yet. Until it takes over it cannot be told another route.
    pub starting: Option<Worker>,
    /// The newest process id.
    pub last_pid: u32,
    /// Until when requests run on a backend that gets no new ones.
    pub busy_until: BTreeMap<BackendName, u64>,
    /// On disk: the worker that was last seen with the route on disk.
    pub settled: Option<u32>,
    /// On disk: the route that was confirmed last.
    pub confirmed: Route,
    /// What stood before somebody changed it by hand.
    pub before_hand: Option<Route>,
    /// In memory: for which order it is ready, since when, and what stood then.
    pub held: Option<(Lease, u64, Route)>,
}

impl Balancer {
    /// The route for new connections.
    pub fn standing(&self) -> Option<&Route> {
        self.workers.last().map(|worker| &worker.route)
    }

    /// Whether nothing but an order may move the route, because it is held ready for one.
    pub fn is_held(&self, now: u64) -> bool {
        self.held.as_ref().is_some_and(|(_, since, _)| now.saturating_sub(*since) < LEASE_MS)
    }
}

/// What a host is for.
#[derive(Clone, Debug)]
pub enum Part {
    /// It serves the site.
    Web(Web),
    /// It sends visitors on.
    Balancer(Box<Balancer>),
    /// It has the database.
    Database(Box<Server>),
}

/// An order that is being done.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub number: u64,
    /// The order.
    pub sent: Arc<Sent>,
    /// Who waits for its answer.
    pub waiting: Vec<Option<Call>>,
    /// How far it is.
    pub stage: u8,
    /// When it began.
    pub began: u64,
    /// Something was changed.
    pub changed: bool,
    /// The worker that was told.
    pub told: u32,
    /// Since when what was told is confirmed.
    pub confirms: Option<u64>,
    /// The route before.
    pub before: Option<Route>,
}

/// A host with its agent.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its agent runs.
    pub up: bool,
    /// How often its agent was started.
    pub number: u32,
    /// How far its clock is off, in milliseconds.
    pub clock_off: i64,
    /// Its agent is stopped, and what arrived meanwhile.
    pub frozen: Option<Vec<Message>>,
    /// On disk: the fence.
    pub fence: Fence,
    /// On disk: the receipts.
    pub receipts: BTreeMap<(ReleaseId, Step), (OrderDigest, Fate)>,
    /// How many disks it has lost.
    pub disks_lost: u32,
    /// How often it lost its receipts, with its disk or without.
    pub receipts_lost: u32,
    /// The order that it took in last.
    pub last: Option<Arc<Sent>>,
    /// In memory: orders under way.
    pub jobs: Vec<Job>,
    /// What it is for.
    pub part: Part,
    /// What it held and served before it was put back to an older disk.
    pub newer: Option<Web>,
}

impl Host {
    /// The hosts of a site as they stand before the first wish.
    pub fn all(environment: &Environment, scenario: &Scenario) -> Vec<Self> {
        let blue = environment.slots.iter().find(|(name, _)| name.as_str() == "blue").map(|(_, slot)| slot);
        let page = &environment.maintenance_backend;
        let serving = blue.filter(|_| scenario.live).map_or(page, |slot| &slot.backend);
        let route =
            Route { stable: serving.clone(), canary: serving.clone(), percent: 0, epoch: RouteEpoch(1) };
        let has_database =
            |name: &HostName| environment.database.as_ref().is_some_and(|database| database.host == *name);
        let part = |name: &HostName| match environment.slot_of(name) {
            None if has_database(name) => Part::Database(Box::default()),
            Some(slot) => {
                let first = (scenario.live && slot.backend == *serving).then_some(FIRST);
                let whole = Tree { whole: true, marked: true };
                Part::Web(Web {
                    backend: slot.backend.clone(),
                    trees: first.iter().map(|artifact| (*artifact, whole)).collect(),
                    current: first,
                    flag: false,
                    server_up: true,
                    boots_until: 0,
                })
            }
            None => Part::Balancer(Box::new(Balancer {
                disk: route.clone(),
                highest: route.epoch,
                given_away: None,
                workers: vec![Worker { pid: 1, route: route.clone() }],
                starting: None,
                last_pid: 1,
                busy_until: BTreeMap::new(),
                settled: Some(1),
                confirmed: route.clone(),
                before_hand: None,
                held: None,
            })),
        };
        let host = |name: &HostName| Self {
            name: name.clone(),
            up: true,
            number: 0,
            clock_off: 0,
            frozen: None,
            fence: Fence::default(),
            receipts: BTreeMap::new(),
            disks_lost: 0,
            receipts_lost: 0,
            last: None,
            jobs: Vec::new(),
            part: part(name),
            newer: None,
        };
        environment.agents.keys().map(host).collect()
    }

    /// Its part as a web host.
    pub fn web(&self) -> Option<&Web> {
        match &self.part {
            Part::Web(web) => Some(web),
            _ => None,
        }
    }

    /// Its part as a web host, to change.
    pub fn web_mut(&mut self) -> Option<&mut Web> {
        match &mut self.part {
            Part::Web(web) => Some(web),
            _ => None,
        }
    }

    /// Its database's server.
    pub fn server(&self) -> Option<&Server> {
        match &self.part {
            Part::Database(server) => Some(server),
            _ => None,
        }
    }

    /// Its database's server, to change.
    pub fn server_mut(&mut self) -> Option<&mut Server> {
        match &mut self.part {
            Part::Database(server) => Some(server),
            _ => None,
        }
    }

    /// The artifacts on its disk.
    pub fn trees(&self) -> Option<&BTreeMap<ArtifactDigest, Tree>> {
        match &self.part {
            Part::Web(web) => Some(&web.trees),
            Part::Database(server) => Some(&server.trees),
            Part::Balancer(_) => None,
        }
    }

    /// The artifacts on its disk, to change.
    pub fn trees_mut(&mut self) -> Option<&mut BTreeMap<ArtifactDigest, Tree>> {
        match &mut self.part {
            Part::Web(web) => Some(&mut web.trees),
            Part::Database(server) => Some(&mut server.trees),
            Part::Balancer(_) => None,
        }
    }

    /// Its part as a load balancer.
    pub fn balancer(&self) -> Option<&Balancer> {
        match &self.part {
            Part::Balancer(balancer) => Some(balancer.as_ref()),
            _ => None,
        }
    }

    /// Its part as a load balancer, to change.
    pub fn balancer_mut(&mut self) -> Option<&mut Balancer> {
        match &mut self.part {
            Part::Balancer(balancer) => Some(balancer.as_mut()),
            _ => None,
        }
    }

    /// What the agent kept on its disk is gone.
    pub fn lose_disk(&mut self) {
        self.lose_receipts();
        self.fence = Fence::default();
        self.disks_lost += 1;
    }

    /// Its receipts alone are gone.
    pub fn lose_receipts(&mut self) {
        self.receipts.clear();
        self.last = None;
        self.receipts_lost += 1;
    }

    /// The whole host is put back to an older disk, with what it served then.
    pub fn put_back(&mut self, older: &Self) {
        self.lose_disk();
        self.newer = self.web().cloned();
        self.part = older.part.clone();
    }

    /// A person copies back the trees that it had, and what it served, where it serves nothing yet.
    pub fn mend(&mut self) {
        let Some(newer) = self.newer.take() else { return };
        let Some(web) = self.web_mut() else { return };
        if web.current.is_none() {
            web.current = newer.current;
        }
        for (artifact, tree) in newer.trees {
            web.trees.entry(artifact).or_insert(tree);
        }
    }

    /// The agent dies: its memory is gone. What was not made to last goes with it.
    pub fn crash(&mut self, (epoch_lasts, receipts_last): (bool, bool)) {
        self.up = false;
        self.number += 1;
        self.frozen = None;
        self.jobs.clear();
        if let Some(balancer) = self.balancer_mut() {
            balancer.held = None;
        }
        // Both stand in one row.
        if !epoch_lasts {
            self.fence = Fence::default();
        }
        if !receipts_last {
            self.receipts.clear();
        }
    }
}
