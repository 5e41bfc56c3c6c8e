//! The coordinator in the simulated world: the real opening, the real planner and the real driver, over ports that lead
//! into the world instead of to SQLite, gRPC and the clock.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_coordinator::Environment;
use pointsman_coordinator::driver::Driver;
use pointsman_coordinator::opening::{self, Opened};
use pointsman_coordinator::planner::{self, Files, Seen, Wanted};
use pointsman_core::ports::{Clock, Fleet, Journal, JournalError, Memory};
use pointsman_core::{
    Action, Activation, Aftermath, BackupId, Code, DatabaseWork, Entry, EnvironmentName, Epoch, Event,
    Evidence, HeldAt, HostName, LiveRelease, Order, OrderKey, Outcome, Phase, Problem, ReleaseId, Retry,
    Route, SlotName, Stamped, Standing, State, Step, Timestamp,
    receipt::{self, Fence},
};
use pointsman_proto::v1;
use tokio::sync::{mpsc, oneshot};

use crate::agent::digest;
use crate::guard::Guard;
use crate::history;
use crate::journal::{Writing, silent};
use crate::network::{Sent, Told, Word};
use crate::scenario::{Accepts, What, Wish};
use crate::server::Backup;
use crate::world::{Happening, Life, Who, World};

/// How long a start waits for agents, a full journal or silent hosts, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// Longer than any order is waited for, in milliseconds.
const LONGEST_MS: u64 = 120_000;

/// How often a wish that cannot be planned is tried before people give it up.
const PLANNED_AT_MOST: u32 = 5;

/// How often a person tries to accept a journal before they give it up.
const ACCEPTED_AT_MOST: u32 = 40;

/// How soon a coordinator that must not act is started again by whoever hopes that this helps, in milliseconds.
const STARTED_AGAIN_MS: u64 = 300;

/// Where people reach a coordinator that drives a release: with requests, and to accept the journal.
type Ears = (mpsc::Sender<pointsman_coordinator::driver::Asked>, oneshot::Sender<()>);

/// How a coordinator's life ends, unless it is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody wishes for anything any more.
    Idle,
    /// Another coordinator has taken over.
    Superseded,
    /// It must not act, and says why.
    Trouble(Problem),
}

/// The ports of one life of a coordinator.
#[derive(Clone)]
pub struct Ports {
    world: Arc<Mutex<World>>,
    life: Life,
}

impl Ports {
    /// The ports of a life.
    pub fn new(world: Arc<Mutex<World>>, life: Life) -> Self {
        Self { world, life }
    }

    /// Which life this is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The world.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever was superseded does not know it before it records something. People tell their wishes to the other one, so
    /// it neither grants the last of them nor gives one up.
    fn still_asked(&self, epoch: Epoch) -> Result<(), JournalError> {
        if self.world().store.lease == epoch {
            return Ok(());
        }
        Err(JournalError(Problem::new(Code::Fenced, "another coordinator has taken over")))
    }

    /// Refuses while the journal's disk hangs. Only records are sent to it then: what comes late of anything else changes nothing
    /// that an agent has heard of.
    fn answers(&self) -> Result<(), JournalError> {
        match self.world().store.hangs {
            true => Err(JournalError(silent())),
            false => Ok(()),
        }
    }

    /// Never comes back when the coordinator dies here.
    pub async fn point(&self) {
        let crashed = self.world().point(Who::Coordinator);
        if crashed {
            std::future::pending().await
        }
    }

    async fn say(&self, host: &HostName, word: Word, timeout_ms: u64) -> Result<Told, Problem> {
        let lost =
            || Problem::new(Code::AnswerLost, "nobody answers").aftermath(Aftermath::Unknown).retry_useful();
        let receiver = {
            let mut world = self.world();
            let host = world.host_named(host).ok_or_else(lost)?;
            world.say(self.life, host, word, timeout_ms)
        };
        let told = receiver.await.map_err(|_| lost())?;
        self.point().await;
        Ok(told)
    }
}

impl Journal for Ports {
    async fn take_lease(&self, _: &EnvironmentName, _: &str) -> Result<Epoch, JournalError> {
        self.point().await;
        self.answers()?;
        let epoch = {
            let mut world = self.world();
            // Whoever took the lease last is the one people talk to.
            world.active = self.life.coordinator;
            if world.stands(Guard::LeaseGrows) || world.store.lease.0 == 0 {
                world.store.lease.0 += 1;
            }
            world.store.lease
        };
        self.point().await;
        Ok(epoch)
    }

    async fn raise_lease(&self, _: &EnvironmentName, epoch: Epoch) -> Result<(), JournalError> {
        self.answers()?;
        let mut world = self.world();
        world.store.lease = world.store.lease.max(epoch);
        Ok(())
    }

    async fn leads(&self, _: &EnvironmentName, fence: &Fence) -> Result<(), JournalError> {
        let world = self.world();
        if !world.stands(Guard::LookFirst) || !world.stands(Guard::JournalTail) {
            return Ok(());
        }
        let known = world.store.hash(fence.head_seq);
        receipt::journal_leads(fence, world.store.lease, known).map_err(JournalError)
    }

    async fn fold<T: Send + 'static>(
        &self,
        _: &EnvironmentName,
        mut folded: T,
        take: fn(&mut T, Entry) -> Result<(), Problem>,
    ) -> Result<(T, bool), JournalError> {
        self.answers()?;
        let (entries, whole) = {
            let mut world = self.world();
            world.read = Some((self.life, history::standing(&world)));
            world.store.newest_entries()
        };
        entries.into_iter().try_for_each(|entry| take(&mut folded, entry)).map_err(JournalError)?;
        Ok((folded, whole))
    }

    async fn append(
        &self,
        _: &EnvironmentName,
        epoch: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> Result<Vec<Stamped>, JournalError> {
        let (reply, committed) = oneshot::channel();
        {
            let mut world = self.world();
            let ms = world.chance.below(3);
            let (release, sent_ms) = (release.clone(), world.now);
            let writing = Writing { life: self.life, lease: epoch, release, at, sent_ms, events };
            world.later(ms, Happening::Commit { writing, reply });
        }
        match committed.await {
            Ok(result) => result,
            // Only who died is not answered.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Ports {
    /// What is brought is made current in the same breath, without the intent of its own that a guard has it wait for.
    fn go_ahead(&self, staged: &Order, timeout_ms: u64) {
        let Action::Stage { artifact } = staged.action else { return };
        if self.world().stands(Guard::OwnIntent) {
            return;
        }
        let key = OrderKey { step: Step::Activate, host: staged.key.host.clone() };
        let action = Action::Activate { artifact: Some(artifact), activation: Activation::default() };
        let sent = self.sent(&Order { key, action, ..staged.clone() });
        let mut world = self.world();
        if let Some(host) = world.host_named(&staged.key.host) {
            // Nobody waits for the answer.
            drop(world.say(self.life, host, Word::Order(Arc::new(sent)), timeout_ms));
        }
    }

    /// An order as it goes out, with the journal's newest entry.
    fn sent(&self, order: &Order) -> Sent {
        let world = self.world();
        let seq = world.store.newest();
        Sent {
            order: order.clone(),
            journal_seq: seq,
            journal_hash: world.store.hash(seq).unwrap_or_default(),
            only_prepared: false,
            digest: digest(order),
            from: self.life,
            losses: world.store.losses,
        }
    }
}

impl Fleet for Ports {
    async fn fence(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        if !self.world().stands(Guard::FenceFirst) {
            return Ok(());
        }
        match self.say(host, Word::Fence(epoch), timeout_ms).await? {
            Told::Fenced(fence) => {
                let (looks, known) = {
                    let world = self.world();
                    (world.stands(Guard::JournalTail), world.store.hash(fence.head_seq))
                };
                if looks { receipt::journal_holds(&fence, known) } else { Ok(()) }
            }
            Told::Done(_) => Ok(()),
            Told::Failed(problem)
                if problem.code == Code::Fenced && !self.world().stands(Guard::JournalTail) =>
            {
                Ok(())
            }
            Told::Failed(problem) => Err(problem.aftermath(Aftermath::Unchanged)),
        }
    }

    async fn prepare(&self, order: &Order, timeout_ms: u64) -> Result<Evidence, Problem> {
        self.point().await;
        if !self.world().stands(Guard::PrepareAll) {
            return Ok(Evidence::default());
        }
        let word = Word::Prepare(Arc::new(self.sent(order)));
        match self.say(&order.key.host, word, timeout_ms).await? {
            Told::Done(evidence) => Ok(evidence),
            Told::Fenced(_) => Ok(Evidence::default()),
            Told::Failed(problem) => Err(problem.aftermath(Aftermath::Unchanged)),
        }
    }

    async fn perform(&self, order: &Order) -> Result<Evidence, Problem> {
        self.have_done(order, false).await
    }

    async fn commit(&self, order: &Order) -> Result<Evidence, Problem> {
        // Without a preparation there is nothing to take.
        let only_prepared = self.world().stands(Guard::PrepareAll);
        self.have_done(order, only_prepared).await
    }

    async fn observe(&self, host: &HostName, action: &Action, timeout_ms: u64) -> Result<Evidence, Problem> {
        let told = self.say(host, Word::Observe(action.clone()), timeout_ms).await?;
        let world = self.world();
        match told {
            Told::Failed(problem)
                if problem.code == Code::AgentUnreachable && world.stands(Guard::BlindIsNotWell) =>
            {
                Err(problem)
            }
            Told::Failed(problem)
                if problem.code != Code::AgentUnreachable && world.stands(Guard::WatchFails) =>
            {
                Err(problem)
            }
            Told::Failed(problem)
                if world.off != Some(Guard::WatchFails) && world.off != Some(Guard::BlindIsNotWell) =>
            {
                Err(problem)
            }
            Told::Failed(_) | Told::Fenced(_) => Ok(Evidence::default()),
            Told::Done(evidence) => Ok(evidence),
        }
    }
}

impl Memory for Ports {
    async fn remembered(&self, host: &HostName, timeout_ms: u64) -> Result<Fence, Problem> {
        self.fence_of(host, Word::Describe, timeout_ms).await
    }

    async fn forget(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        let accepted = self.world().store.accepted_by(epoch);
        self.fence_of(host, Word::Forget(accepted), timeout_ms).await.map(drop)
    }
}

impl Ports {
    async fn fence_of(&self, host: &HostName, word: Word, timeout_ms: u64) -> Result<Fence, Problem> {
        match self.say(host, word, timeout_ms).await? {
            Told::Fenced(fence) => Ok(fence),
            Told::Failed(problem) => Err(problem),
            Told::Done(_) => Err(Problem::new(Code::MessageInvalid, "no fence in an answer about one")),
        }
    }

    /// A person accepts the journal as it is, and comes back a little later where that led to nothing.
    async fn accept(&self, environment: &Environment) {
        self.world().accepting();
        let agents = || environment.agents.keys();
        if !self.world().stands(Guard::VoidFirst) {
            self.forget_early().await;
        }
        let standing = {
            let world = self.world();
            let mut balancers = world.hosts.iter().filter_map(|host| host.balancer());
            balancers.find_map(|balancer| balancer.standing().cloned())
        };
        let found = standing.map(|route| environment.found(&route)).unwrap_or_default();
        let (three, said) = ((self, self, self), ("simulated", "ada", found));
        match opening::accept(three, &environment.name, agents(), said, AGAIN_MS).await {
            Ok(_) => {
                self.world().accepted();
            }
            Err(problem) => {
                self.world().tell(|| format!("not accepted: {} {problem}", problem.code));
                self.pause(AGAIN_MS).await;
            }
        }
    }

    /// Has every agent forget before it is recorded that what is open is void: without the guard.
    async fn forget_early(&self) {
        let asked: Vec<_> = {
            let mut world = self.world();
            let highest = world.hosts.iter().map(|host| host.fence.epoch.0).max().unwrap_or_default();
            let epoch = Epoch(world.store.lease.0.max(highest) + 1);
            world.store.lease = epoch;
            let accepted = world.store.accepted_by(epoch);
            let word = || Word::Forget(accepted);
            (0..world.hosts.len()).map(|host| world.say(self.life, host, word(), AGAIN_MS)).collect()
        };
        for answer in asked {
            drop(answer.await);
        }
    }

    async fn have_done(&self, order: &Order, only_prepared: bool) -> Result<Evidence, Problem> {
        self.point().await;
        // Its driver has long given it up by a time that does not jump, where the clock was set back.
        let timeout_ms = order.deadline.ms_since(self.world().wall()).min(LONGEST_MS);
        let sent = Sent { only_prepared, ..self.sent(order) };
        let told = self.say(&order.key.host, Word::Order(Arc::new(sent)), timeout_ms).await?;
        match told {
            Told::Done(evidence) => {
                self.go_ahead(order, timeout_ms);
                Ok(evidence)
            }
            Told::Fenced(_) => Ok(Evidence::default()),
            Told::Failed(problem) => Err(problem),
        }
    }
}

impl Clock for Ports {
    fn now(&self) -> Timestamp {
        self.world().wall()
    }

    fn steady_ms(&self) -> u64 {
        let world = self.world();
        if world.stands(Guard::SteadyTime) { world.now } else { world.wall().0 }
    }

    async fn pause(&self, ms: u64) {
        let (sender, woken) = oneshot::channel();
        self.world().later(ms, Happening::Wake(sender));
        if woken.await.is_err() {
            std::future::pending().await
        }
    }
}

/// One life of a coordinator: open, go on with what is open, then grant the next wish.
pub async fn live(ports: Ports) -> Ended {
    let environment = Arc::clone(&ports.world().environment);
    let driver = Driver {
        journal: ports.clone(),
        fleet: ports.clone(),
        clock: ports.clone(),
        signals: ports.clone(),
        old_side: Arc::default(),
    };
    'opening: loop {
        let three = (&ports, &ports, &ports);
        let opened =
            opening::open(three, &environment.name, environment.agents.keys(), "simulated", AGAIN_MS);
        let mut told = match opened.await {
            Ok(Opened { trouble: Some(problem), .. }) => {
                if !ports.world().would_accept(&problem) {
                    return Ended::Trouble(problem);
                }
                ports.accept(&environment).await;
                continue;
            }
            Ok(told) => told,
            Err(problem) if problem.code == Code::Fenced => return Ended::Superseded,
            Err(problem) if matches!(problem.code, Code::InvariantBroken | Code::JournalBehind) => {
                return Ended::Trouble(problem);
            }
            Err(_) => {
                ports.pause(AGAIN_MS).await;
                continue;
            }
        };
        let mut planned = {
            let mut world = ports.world();
            world.told(ports.life, &told.standing);
            world.store.planned()
        };
        let error = loop {
            let (forgets, open) = (!ports.world().stands(Guard::SingleFlight), told.open());
            let state = match open.filter(|_| !forgets) {
                Some(kept) => kept.state.clone(),
                None => match begin(&ports, &mut told, &mut planned).await {
                    Ok(Some(state)) => state,
                    Ok(None) => return Ended::Idle,
                    Err(JournalError(problem))
                        if problem.aftermath == Aftermath::Unknown
                            && !ports.world().stands(Guard::LateCounts) =>
                    {
                        ports.pause(AGAIN_MS).await;
                        continue;
                    }
                    Err(error) => break error,
                },
            };
            let (sender, mut requests) = mpsc::channel(4);
            let (accept, accepted) = oneshot::channel();
            ports.world().listens(ports.life, Some((sender, accept)));
            ports.world().shows(ports.life, &state);
            let driven = tokio::select! { biased;
                driven = driver.drive(state, &mut requests, |state| ports.world().shows(ports.life, state)) => Some(driven),
                Ok(()) = accepted => None,
            };
            ports.world().listens(ports.life, None);
            match driven {
                Some(Ok(state)) => {
                    told.standing.fold(&state);
                    if let Some(kept) = told.releases.get_mut(&state.plan.release) {
                        kept.state = state;
                    }
                }
                Some(Err(JournalError(problem)))
                    if problem.aftermath == Aftermath::Unknown
                        && !ports.world().stands(Guard::LateCounts) =>
                {
                    ports.pause(AGAIN_MS).await;
                }
                Some(Err(error)) => break error,
                None => {
                    ports.accept(&environment).await;
                    continue 'opening;
                }
            }
        };
        match error.0.code {
            Code::Fenced => return Ended::Superseded,
            Code::InvariantBroken => return Ended::Trouble(error.0),
            _ => ports.pause(AGAIN_MS).await,
        }
    }
}

/// Begins the next release that somebody wishes for, after so many that are `planned`.
async fn begin(ports: &Ports, told: &mut Opened, planned: &mut usize) -> Result<Option<State>, JournalError> {
    let mut tried = 0;
    loop {
        let next = ports.world().plan(told, *planned);
        let plan = match next {
            None => return ports.still_asked(told.epoch).map(|()| None),
            Some(Ok(plan)) => {
                Arc::new(pointsman_core::Plan { stood: Some(Box::new(told.standing.clone())), ..plan })
            }
            Some(Err(problem)) => {
                tried += 1;
                if tried >= PLANNED_AT_MOST {
                    ports.still_asked(told.epoch)?;
                }
                ports.world().not_planned(&problem, tried >= PLANNED_AT_MOST);
                ports.pause(AGAIN_MS).await;
                continue;
            }
        };
        let (now, release) = (ports.now(), plan.release.clone());
        let event = Event::Planned(Arc::clone(&plan));
        let facts = ports.append(&plan.environment, told.epoch, &release, now, vec![event]).await?;
        // What was recorded is what counts.
        let Some(Event::Planned(plan)) = facts.into_iter().next().map(|fact| fact.event) else { continue };
        let state = State::begin(plan, told.epoch, now);
        *planned += 1;
        let number = ports.world().store.newest();
        told.releases.insert(release, opening::Kept::new(now, number, state.clone()));
        return Ok(Some(state));
    }
}

impl World {
    /// The plan of the wish after so many that are planned, from what the hosts show: none when every wish was granted or given
    /// up.
    fn plan(&self, told: &Opened, planned: usize) -> Option<Result<pointsman_core::Plan, Problem>> {
        let number = planned + self.given_up;
        let wanted = self.wanted(number)?;
        let mut seen = Seen::default();
        if let Some((_, phase)) = wanted.files() {
            seen.pending = self.pending(u8::try_from(number).ok()?, phase);
        }
        for host in &self.hosts {
            let silent = Problem::new(Code::AgentUnreachable, "no answer").retry_useful();
            if let Some(balancer) = host.balancer() {
                let Some(route) = balancer.standing().filter(|_| host.up) else { return Some(Err(silent)) };
                let facts = v1::BalancerFacts {
                    route: route.to_string(),
                    route_on_disk: balancer.disk.to_string(),
                    highest_epoch: balancer.highest.0,
                    ..Default::default()
                };
                seen.balancers.insert(host.name.clone(), facts);
            } else if let Some(server) = host.server() {
                if !host.up {
                    seen.silent.insert(host.name.clone(), silent);
                    continue;
                }
                let facts =
                    |backup: &Backup| v1::BackupFacts { id: backup.id.to_string(), ..Default::default() };
                let backups = server.backups.iter().filter(|backup| !backup.given_up).map(facts).collect();
                let written_since_swap = server.written_since_swap(self.now);
                seen.database = Some(v1::DatabaseFacts { backups, written_since_swap, ..Default::default() });
            } else if let Some(web) = host.web() {
                if !host.up {
                    seen.silent.insert(host.name.clone(), silent);
                    continue;
                }
                let current = web.current.map(|artifact| artifact.to_string()).unwrap_or_default();
                let facts = v1::WebFacts { current, ..Default::default() };
                seen.hosts.insert(host.name.clone(), facts);
            }
        }
        let release = match ReleaseId::parse(&format!("r{number}")) {
            Ok(release) => release,
            Err(error) => return Some(Err(Problem::new(Code::UsageWrong, error.to_string()))),
        };
        let wish = planner::Wish {
            wanted,
            release,
            request_id: None,
            reason: None,
            by: "ada".to_owned(),
            without: Vec::new(),
            now: self.wall(),
        };
        if !self.stands(Guard::ShareGathered) {
            // Where they are besides is taken for where testers may go.
            for facts in seen.balancers.values_mut() {
                for told in [&mut facts.route, &mut facts.route_on_disk] {
                    if let Ok(route) = Route::parse(told) {
                        *told = Route { percent: 0, ..route }.to_string();
                    }
                }
            }
        }
        let standing = self.remembered(&told.standing);
        Some(planner::plan(&self.environment, &standing, wish, &seen))
    }

    /// What the `number`-th wish asks of pointsman: none when every wish was granted or given up.
    fn wanted(&self, number: usize) -> Option<Wanted> {
        let files = || Some(Files { artifact: crate::site::migrations(number), out_of_order: Vec::new() });
        let deploy = |migrations| Wanted::Deploy {
            artifact: crate::site::version(number),
            at_once: false,
            fix_forward: false,
            migrations,
        };
        let (backup, loss) = self.meant().or_else(|| Some((BackupId::parse("none").ok()?, 0)))?;
        let work = match *self.scenario.wishes.get(number)? {
            Wish::Deploy(_) => return Some(deploy(None)),
            Wish::Migrating(..) => return Some(deploy(files())),
            Wish::Rollback => return Some(Wanted::Rollback),
            Wish::PageUp => return Some(Wanted::MaintenanceOn(None)),
            Wish::PageDown => return Some(Wanted::MaintenanceOff),
            Wish::Contract => return Some(Wanted::Database(DatabaseWork::Contract, files())),
            Wish::Backup => DatabaseWork::Backup,
            Wish::Verify => DatabaseWork::Verify { backup },
            Wish::Restore => DatabaseWork::Restore { backup },
            Wish::Swap { more } => DatabaseWork::Swap { backup, accept_loss: loss + more },
            Wish::SwapBack { more } => DatabaseWork::SwapBack { backup, accept_loss: loss + more },
            Wish::Settle => DatabaseWork::Settle { backup },
        };
        Some(Wanted::Database(work, None))
    }

    /// What a coordinator without one of its guards remembers of what ended.
    fn remembered<'a>(&self, standing: &'a Standing) -> Cow<'a, Standing> {
        if !matches!(self.off, Some(Guard::ContractEndsWayBack | Guard::ContractKnown)) {
            return Cow::Borrowed(standing);
        }
        let mut kept = standing.clone();
        match self.off {
            Some(Guard::ContractEndsWayBack) if kept.previous.is_none() => {
                let other = |slot: &SlotName| kept.live.as_ref().is_some_and(|live| live.slot != *slot);
                let slot = self.environment.slots.keys().find(|slot| other(slot)).cloned();
                kept.previous = slot.map(|slot| LiveRelease { slot, release: None, artifact: None });
            }
            Some(Guard::ContractKnown) => kept.ahead_of_live.clear(),
            _ => {}
        }
        Cow::Owned(kept)
    }

    fn not_planned(&mut self, problem: &Problem, give_up: bool) {
        self.tell(|| format!("no plan: {} {problem}", problem.code));
        self.nobody_is_forgotten(problem);
        if give_up {
            self.given_up += 1;
        }
    }

    /// Whether a person accepts the journal about which a coordinator says this.
    fn would_accept(&mut self, problem: &Problem) -> bool {
        let lost = self.store.losses > 0 && opening::knows_more(problem);
        lost && self.may_accept() && !self.starts_again()
    }

    /// A person who starts a copy of the journal several times before they do anything else does so once more.
    fn starts_again(&mut self) -> bool {
        let again = self.starts_left > 0;
        if again {
            self.starts_left -= 1;
            self.troubles += 1;
            self.later(STARTED_AGAIN_MS, Happening::StartCoordinator(self.active));
        }
        again
    }

    /// Whether people who accept a journal would do so now: what is found at the load balancers counts from then on, so they see
    /// to it first that nothing there is changed by hand.
    pub fn may_accept(&self) -> bool {
        let by_hand = self
            .hosts
            .iter()
            .filter_map(crate::host::Host::balancer)
            .any(|balancer| balancer.before_hand.is_some());
        self.scenario.accepts != Accepts::Never && self.accepting < ACCEPTED_AT_MOST && !by_hand
    }

    /// A person begins to accept the journal.
    fn accepting(&mut self) {
        self.accepting += 1;
        if let (1, Accepts::Killed { after_ms }) = (self.accepting, self.scenario.accepts) {
            self.troubles += 1;
            self.later(after_ms, Happening::Fault(What::KillCoordinator { back_ms: 300 }));
        }
    }

    /// The journal is accepted, and every agent has forgotten. Somebody may put the copy of before in its place all the same.
    fn accepted(&mut self) {
        self.store.accepted = self.store.losses;
        if let Accepts::Copied { after_ms, .. } = self.scenario.accepts
            && !std::mem::replace(&mut self.copied, true)
        {
            self.troubles += 1;
            self.later(after_ms, Happening::Fault(What::CopyOfBefore));
        }
    }

    fn listens(&mut self, life: Life, ears: Option<Ears>) {
        let (ear, accept) = ears.unzip();
        if let Some(shown) =
            self.coordinators.get_mut(life.coordinator).filter(|shown| shown.number == life.number)
        {
            (shown.ear, shown.accept) = (ear, accept);
        }
    }

    /// On the way back only time ends the tries, and it is time that really passed.
    fn tried_for_long_enough(&mut self, state: &State) {
        let Some((Phase::Doing(_), tried_ms)) = self.truth.stands(state, self.now) else { return };
        let Phase::Held { at: HeldAt::Step(step), why, .. } = &state.phase else { return };
        let by_time = matches!(step, Step::RouteBack | Step::LinkBack | Step::Unmaintain | Step::Unswap)
            && why.retry == Retry::Useful;
        let least_ms = state.plan.limits.persist_ms;
        if by_time && tried_ms < least_ms {
            self.broken("I8", || format!("{step} was given up after {tried_ms} ms of {least_ms}"));
        }
    }

    /// A coordinator shows where its release stands.
    fn shows(&mut self, life: Life, state: &State) {
        if state.outcome().is_some() {
            self.truth.over(&state.plan.release);
        }
        if !self.lives(life) || life.coordinator != self.active {
            return;
        }
        self.tried_for_long_enough(state);
        let was_held = self.shown.as_ref().is_some_and(|known| matches!(known, Phase::Held { .. }));
        if matches!(state.phase, Phase::Held { .. }) && !was_held {
            self.later(3_000, Happening::Attend);
        }
        let outcome = state.outcome().map(Outcome::as_str);
        self.tell(|| {
            outcome
                .map_or_else(|| format!("stands at {:?}", state.step()), |outcome| format!("ends {outcome}"))
        });
        self.shown = Some(state.phase.clone());
    }
}
