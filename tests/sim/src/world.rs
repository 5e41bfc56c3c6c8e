//! The simulated world: hosts with disks, load balancers with workers, a network, a journal on a disk, and time. Events
//! wait in one heap; what happens next is the earliest.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use pointsman_coordinator::Environment;
use pointsman_core::ports::JournalError;
use pointsman_core::{
    ArtifactDigest, BackendName, HostName, Phase, Plan, ReleaseId, Stamped, Standing, Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use crate::chance::Chance;
use crate::guard::Guard;
use crate::host::{Host, Job};
use crate::journal::{Store, Writing};
use crate::network::{Call, Calls, Message, Told};
use crate::scenario::{Scenario, What};
use crate::truth::{Truth, Violation};
use crate::visitors::Visitors;

/// The wall clock at the beginning.
pub const BEGINNING: Timestamp = Timestamp(1_700_000_000_000);

/// A coordinator process: which one, and in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Which coordinator.
    pub coordinator: usize,
    /// How often it was started.
    pub number: u32,
}

/// Something that waits for its moment.
pub enum Happening {
    /// A pause is over.
    Wake(oneshot::Sender<()>),
    /// Facts reach the journal's disk.
    Commit {
        /// What is written.
        writing: Writing,
        /// Who waits for it.
        reply: oneshot::Sender<Result<Vec<Stamped>, JournalError>>,
    },
    /// A message reaches a host.
    Arrive {
        /// Which host.
        host: usize,
        /// The message.
        message: Message,
    },
    /// An answer, or the end of waiting for one, reaches a coordinator.
    Answer {
        /// Which call.
        call: Call,
        /// What came of it; nothing when nobody is there, or the time is over.
        told: Option<Told>,
    },
    /// A job on a host goes on.
    Job {
        /// Which host.
        host: usize,
        /// The life of its agent.
        number: u32,
        /// Which job.
        job: u64,
    },
    /// Something goes wrong.
    Fault(What),
    /// A coordinator starts.
    StartCoordinator(usize),
    /// A coordinator that stood still goes on.
    GoOn,
    /// An agent starts.
    StartAgent(usize),
    /// A stopped agent goes on.
    Thaw(usize),
    /// A partition heals.
    Heal(u64),
    /// A worker that was starting takes over.
    Reloaded {
        /// Which host.
        host: usize,
        /// Its process id.
        pid: u32,
    },
    /// HAProxy starts again.
    StartHaproxy(usize),
    /// A server answers again.
    ServerUp(usize),
    /// The guard of a load balancer's agent looks.
    Guard {
        /// Which host.
        host: usize,
        /// The life of its agent.
        number: u32,
    },
    /// The journal's disk has room again.
    JournalRoom,
    /// A record that was sent to a disk which hangs, by its number, is not waited for any longer.
    JournalSilent(u64),
    /// The journal's disk answers again.
    JournalAnswers,
    /// What was changed by hand is put back.
    PutBack(usize),
    /// Somebody looks whether a release waits for a person.
    Attend,
    /// A second of visitors is over.
    Second,
    /// The load balancers tell of visitors again.
    SignalsBack,
    /// What both slots use is there again.
    SharedBack,
}

/// A moment in the heap. What happens then waits beside it: moments are moved about much, and are small.
struct Due {
    at: u64,
    order: u64,
    place: usize,
}

/// What waits for its moment, each at a place of its own.
#[derive(Default)]
struct Waiting {
    places: Vec<Option<Happening>>,
    free: Vec<usize>,
}

impl Waiting {
    fn put(&mut self, happening: Happening) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(place) {
            Some(free) => *free = Some(happening),
            None => self.places.push(Some(happening)),
        }
        place
    }

    fn take(&mut self, place: usize) -> Option<Happening> {
        self.free.push(place);
        self.places.get_mut(place)?.take()
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A crash that is tried at one point of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashAt {
    /// The number of the point.
    pub point: u64,
    /// Who crashes.
    pub who: Who,
}

/// Somebody who can crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The coordinator that works.
    Coordinator,
    /// An agent.
    Agent(usize),
    /// HAProxy on a host.
    Haproxy(usize),
}

/// How long those who crash at a point stay away, in milliseconds.
const CRASHED_MS: u64 = 300;

/// What a coordinator shows of itself.
#[derive(Default)]
pub struct Shown {
    /// Its latest life.
    pub number: u32,
    /// It lives.
    pub alive: bool,
    /// It stands still until then.
    pub stalled_until: u64,
    /// Where a person accepts the journal although a release is held.
    pub accept: Option<oneshot::Sender<()>>,
    /// Where people reach it.
    pub ear: Option<mpsc::Sender<pointsman_coordinator::driver::Asked>>,
}

/// The simulated world.
pub struct World {
    /// Milliseconds since the beginning.
    pub now: u64,
    order: u64,
    heap: BinaryHeap<Due>,
    waiting: Waiting,
    /// The lives of coordinators that were over when the journal lost its tail.
    pub before_loss: [u32; 2],
    /// What happens by chance.
    pub chance: Chance,
    /// What happens by plan.
    pub scenario: Scenario,
    /// The site.
    pub environment: Arc<Environment>,
    /// The guard that is switched off.
    pub off: Option<Guard>,
    /// The journal's disk.
    pub store: Store,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Calls that are not answered yet.
    pub calls: Calls,
    /// The visitors.
    pub visitors: Visitors,
    /// What is really so, and the rules it must keep.
    pub truth: Truth,
    /// The coordinators.
    pub coordinators: [Shown; 2],
    /// The one that is started again when it dies, and that people talk to.
    pub active: usize,
    /// Partitions: which host, whether messages to it and from it are lost.
    pub partitions: BTreeMap<u64, (usize, bool, bool)>,
    /// How far the coordinator's clock is off, in milliseconds.
    pub clock_off: i64,
    /// Faults that are not over.
    pub troubles: u32,
    /// Where the release stands, as the active coordinator last showed it.
    pub shown: Option<Phase>,
    /// Every wish was granted or refused.
    pub idle: bool,
    /// Wishes that could not be planned and were given up.
    pub given_up: usize,
    /// How often a person has tried to accept the journal.
    pub accepting: u32,
    /// The copy of the journal of before it was accepted was put in its place, or is about to be.
    pub copied: bool,
    /// How often that is started again before a person accepts it.
    pub starts_left: u64,
    /// People have given up a release that waits for them.
    pub left: bool,
    /// How often a person helped.
    pub helped: u32,
    /// Plans by release.
    pub plans: BTreeMap<ReleaseId, Arc<Plan>>,
    /// What broke.
    pub violation: Option<Violation>,
    /// Who read the journal last, and how the environment stood by all of it.
    pub read: Option<(Life, Standing)>,
    /// What happened, where somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// Events handled.
    pub events: u64,
    /// Points passed.
    pub points: u64,
    /// The crashes to try.
    pub crashes: [Option<CrashAt>; 2],
    /// Names of phases and events seen together.
    pub coverage: Vec<((&'static str, &'static str), u64)>,
    /// A coordinator died, and its process is to be dropped.
    pub died: bool,
    /// Until when what both slots use is away.
    pub shared_away_until: u64,
}

impl World {
    /// The world before anything happens.
    pub fn new(scenario: Scenario, environment: Arc<Environment>, off: Option<Guard>) -> Self {
        let hosts = Host::all(&environment, &scenario);
        let mut faults = scenario.faults.clone();
        faults.sort_by_key(|fault| fault.after_entries);
        Self {
            now: 0,
            order: 0,
            heap: BinaryHeap::new(),
            waiting: Waiting::default(),
            chance: Chance::from_seed(scenario.seed ^ 0x5157),
            truth: Truth::new(hosts.len()),
            visitors: Visitors::default(),
            store: Store::new(faults),
            scenario,
            environment,
            off,
            before_loss: [0; 2],
            hosts,
            calls: Calls::default(),
            coordinators: Default::default(),
            active: 0,
            partitions: BTreeMap::new(),
            clock_off: 0,
            troubles: 0,
            shown: None,
            idle: false,
            given_up: 0,
            accepting: 0,
            copied: false,
            starts_left: 0,
            left: false,
            helped: 0,
            plans: BTreeMap::new(),
            violation: None,
            read: None,
            trace: None,
            events: 0,
            points: 0,
            crashes: [None; 2],
            coverage: Vec::with_capacity(64),
            died: false,
            shared_away_until: 0,
        }
    }

    /// Whether a guard stands.
    pub fn stands(&self, guard: Guard) -> bool {
        self.off != Some(guard)
    }

    /// The wall clock of the coordinators.
    pub fn wall(&self) -> Timestamp {
        Timestamp(BEGINNING.0.saturating_add(self.now).saturating_add_signed(self.clock_off))
    }

    /// Has something happen later.
    pub fn later(&mut self, in_ms: u64, happening: Happening) {
        self.order += 1;
        let place = self.waiting.put(happening);
        self.heap.push(Due { at: self.now.saturating_add(in_ms), order: self.order, place });
    }

    /// The next happening, with the time moved on to it.
    pub fn next_happening(&mut self) -> Option<Happening> {
        let due = self.heap.pop()?;
        self.now = self.now.max(due.at);
        self.events += 1;
        self.waiting.take(due.place)
    }

    /// Writes a line into the trace, if somebody reads it.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>8} ms  {}", line()));
        }
    }

    /// Notes that a rule is broken. The first one counts.
    pub fn broken(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.tell(|| format!("BROKEN {rule}: {what}"));
            self.violation = Some(Violation { rule, what });
        }
    }

    /// Passes a point where somebody may crash. Tells whether the one who passes it just did.
    pub fn point(&mut self, who: Who) -> bool {
        self.points += 1;
        let due = self.crashes.into_iter().flatten().find(|crash| crash.point == self.points);
        let Some(crash) = due else { return false };
        self.tell(|| format!("{:?} crashes at point {}", crash.who, crash.point));
        match crash.who {
            Who::Coordinator => self.kill_coordinator(CRASHED_MS),
            Who::Agent(host) => self.kill_agent(host, CRASHED_MS),
            Who::Haproxy(host) => self.kill_haproxy(host, CRASHED_MS),
        }
        who == crash.who
    }

    /// Whether this life of a coordinator is still going on.
    pub fn lives(&self, life: Life) -> bool {
        self.coordinators
            .get(life.coordinator)
            .is_some_and(|shown| shown.alive && shown.number == life.number)
    }

    /// Kills the active coordinator and starts it again later.
    pub fn kill_coordinator(&mut self, back_ms: u64) {
        let active = self.active;
        if let Some(shown) = self.coordinators.get_mut(active).filter(|shown| shown.alive) {
            shown.alive = false;
            (shown.ear, shown.accept) = (None, None);
            self.died = true;
            self.troubles += 1;
            self.later(back_ms, Happening::StartCoordinator(active));
        }
    }

    /// Kills an agent and starts it again later: what was in its memory is gone.
    pub fn kill_agent(&mut self, host: usize, back_ms: u64) {
        let persistent = (self.stands(Guard::EpochPersistence), self.stands(Guard::ReceiptsDurable));
        let Some(agent) = self.hosts.get_mut(host).filter(|agent| agent.up) else { return };
        agent.crash(persistent);
        let name = agent.name.clone();
        self.truth.agent_died(&name);
        self.troubles += 1;
        self.hang_up(host);
        self.later(back_ms, Happening::StartAgent(host));
    }

    /// The host of this name.
    pub fn host_named(&self, name: &HostName) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == *name)
    }

    /// Healthy servers of a backend; the maintenance page always has one.
    pub fn healthy(&self, backend: &BackendName) -> u32 {
        if *backend == self.environment.maintenance_backend {
            return u32::MAX;
        }
        let up = self
            .hosts
            .iter()
            .filter(|host| host.web().is_some_and(|web| web.backend == *backend && web.healthy(self.now)));
        u32::try_from(up.count()).unwrap_or(u32::MAX)
    }

    /// Whether a version fails what looks at it now.
    pub fn fails(&self, artifact: Option<ArtifactDigest>, after_switch: bool) -> bool {
        use crate::scenario::Quality;
        let Some(artifact) = artifact else { return true };
        let quality = match crate::site::quality(&self.scenario, artifact) {
            Quality::Good | Quality::FailsVisitors => false,
            Quality::FailsChecks => true,
            Quality::FailsLater => after_switch,
        };
        quality || (after_switch && self.now < self.shared_away_until)
    }

    /// The running job of this number.
    pub fn job(&mut self, host: usize, number: u64) -> Option<&mut Job> {
        self.hosts.get_mut(host)?.jobs.iter_mut().find(|job| job.number == number)
    }

    /// A number for a new thing.
    pub fn number(&mut self) -> u64 {
        self.order += 1;
        self.order
    }
}
