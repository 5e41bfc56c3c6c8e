//! A coordinator on a simulated host: the real driver over the real journal and the real fleet. What it intends and
//! what it hears is noted in the world, so that rules can be checked by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman_coordinator::driver::{Asked, Driver};
use pointsman_coordinator::journal::JournalStore;
use pointsman_coordinator::{ArtifactStore, GrpcFleet, opening};
use pointsman_core::ports::{Clock as _, Ear, Fleet, Heard, Journal, JournalError, Memory, Signals};
use pointsman_core::receipt::Fence;
use pointsman_core::signal::Probed;
use pointsman_core::verdict::Judgement;
use pointsman_core::{
    Action, Entry, EnvironmentName, Epoch, Event, Evidence, HostName, Order, Plan, Problem, ReleaseId,
    Request, RequestKind, Stamped, State, Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use crate::network::{Simulated, SimulatedClock};
use crate::release::CENTRE;
use crate::world::{Deed, World};
use crate::{identities, release};

/// How long a beginning coordinator waits for agents, as the office has it.
const LOOK_MS: u64 = 1_000;
/// How often somebody looks whether the release is held.
const PERSON_LOOKS: Duration = Duration::from_millis(100);

/// Where a coordinator keeps what outlives it.
#[derive(Clone, Debug)]
pub struct Place(pub PathBuf);

impl Place {
    /// The journal.
    pub fn journal(&self) -> JournalStore {
        JournalStore::open(&self.0.join("journal.db"), CENTRE).unwrap()
    }

    /// The folder of the artifact store.
    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    /// The agents of the simulated site.
    pub fn fleet(&self, journal: JournalStore) -> GrpcFleet {
        let store = ArtifactStore::open(self.artifacts()).unwrap();
        let (environment, credentials) = (release::environment(), identities::of(CENTRE));
        GrpcFleet::over(Simulated, &environment, &credentials, store, journal).unwrap()
    }
}

/// A port that tells the world what passes through it.
struct Noted<P> {
    port: P,
    world: World,
}

impl Journal for Noted<JournalStore> {
    async fn take_lease(&self, environment: &EnvironmentName, holder: &str) -> Result<Epoch, JournalError> {
        Journal::take_lease(&self.port, environment, holder).await
    }

    async fn raise_lease(&self, environment: &EnvironmentName, epoch: Epoch) -> Result<(), JournalError> {
        Journal::raise_lease(&self.port, environment, epoch).await
    }

    async fn leads(&self, environment: &EnvironmentName, fence: &Fence) -> Result<(), JournalError> {
        Journal::leads(&self.port, environment, fence).await
    }

    async fn fold<T: Send + 'static>(
        &self,
        environment: &EnvironmentName,
        folded: T,
        take: fn(&mut T, Entry) -> Result<(), Problem>,
    ) -> Result<(T, bool), JournalError> {
        Journal::fold(&self.port, environment, folded, take).await
    }

    async fn append(
        &self,
        environment: &EnvironmentName,
        epoch: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> Result<Vec<Stamped>, JournalError> {
        let facts = self.port.append(environment, epoch, release, at, events).await?;
        for fact in &facts {
            if let Event::OrderIntended { key, attempt } = &fact.event {
                self.world.note(Deed::Intended(key.clone(), *attempt));
            }
        }
        Ok(facts)
    }
}

impl Memory for Noted<GrpcFleet> {
    async fn remembered(&self, host: &HostName, timeout_ms: u64) -> Result<Fence, Problem> {
        self.port.remembered(host, timeout_ms).await
    }

    async fn forget(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        self.port.forget(host, epoch, timeout_ms).await
    }
}

impl Fleet for Noted<GrpcFleet> {
    async fn fence(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        self.port.fence(host, epoch, timeout_ms).await?;
        self.world.note(Deed::Acknowledged(host.clone(), epoch));
        Ok(())
    }

    async fn prepare(&self, order: &Order, timeout_ms: u64) -> Result<Evidence, Problem> {
        self.port.prepare(order, timeout_ms).await
    }

    async fn perform(&self, order: &Order) -> Result<Evidence, Problem> {
        self.note(order, self.port.perform(order).await)
    }

    async fn commit(&self, order: &Order) -> Result<Evidence, Problem> {
        self.note(order, self.port.commit(order).await)
    }

    async fn observe(&self, host: &HostName, action: &Action, timeout_ms: u64) -> Result<Evidence, Problem> {
        self.port.observe(host, action, timeout_ms).await
    }
}

impl Noted<GrpcFleet> {
    fn note(&self, order: &Order, answer: Result<Evidence, Problem>) -> Result<Evidence, Problem> {
        let heard = answer.as_ref().map(|_| ()).map_err(Clone::clone);
        self.world.note(Deed::Answered(order.key.clone(), order.attempt, heard));
        answer
    }
}

/// Nobody listens to visitors here: there are none.
pub struct Unheard;

impl Ear for Unheard {
    async fn next(&mut self) -> Heard {
        std::future::pending().await
    }
}

impl Signals for Unheard {
    type Ear = Self;

    fn listen(&self, _: &Plan, _: Option<u64>) -> Self {
        Self
    }

    async fn kept(&self, _: &Plan) -> Option<Vec<u8>> {
        None
    }

    async fn keep(&self, _: &Plan, _: Vec<u8>) -> Result<(), Problem> {
        Ok(())
    }

    fn show(&self, _: &Arc<Plan>, _: &Judgement, _: &Probed, _: &Heard) {}
}

/// Runs a coordinator until its host crashes or the release is over. The first one plans the release, every later
/// one goes on with it.
pub async fn run(place: Place, plan: Plan, world: World) -> turmoil::Result {
    world.note(Deed::Begun);
    let journal = place.journal();
    let driver = Driver {
        fleet: Noted { port: place.fleet(journal.clone()), world: world.clone() },
        journal: Noted { port: journal, world: world.clone() },
        clock: SimulatedClock,
        signals: Unheard,
        old_side: Arc::default(),
    };
    let Some(state) = open(&driver, plan, &world).await? else { return Ok(()) };
    world.publish(&state);
    let (ask, mut requests) = mpsc::channel(1);
    let driven = tokio::select! {
        driven = driver.drive(state, &mut requests, |state| world.publish(state)) => driven,
        () = look_after(ask, &world) => return Ok(()),
    };
    world.publish(&driven?);
    Ok(())
}

async fn open(
    driver: &Driver<Noted<JournalStore>, Noted<GrpcFleet>, SimulatedClock, Unheard>,
    plan: Plan,
    world: &World,
) -> Result<Option<State>, Problem> {
    let (journal, clock) = (&driver.journal, &driver.clock);
    let (environment, id) = (plan.environment.clone(), plan.release.clone());
    let agents: Vec<HostName> = plan.hosts().cloned().collect();
    let ports = (journal, &driver.fleet, clock);
    let opened = opening::open(ports, &environment, &agents, CENTRE, LOOK_MS).await?;
    if let Some(problem) = opened.trouble {
        world.note(Deed::Wrong(format!("a coordinator does not dare to act: {problem}")));
        return Ok(None);
    }
    if let Some(kept) = opened.releases.get(&id) {
        world.publish(&kept.state);
        return Ok(kept.state.outcome().is_none().then(|| kept.state.clone()));
    }
    let (plan, now) = (Arc::new(plan), clock.now());
    let planned = vec![Event::Planned(Arc::clone(&plan))];
    journal.append(&environment, opened.epoch, &id, now, planned).await.map_err(|error| error.0)?;
    Ok(Some(State::begin(plan, opened.epoch, now)))
}

/// The person who looks after held releases, once there is one.
async fn look_after(ask: mpsc::Sender<Asked>, world: &World) {
    loop {
        tokio::time::sleep(PERSON_LOOKS).await;
        if world.person_is_to_act() {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                kind: RequestKind::Resume,
                by: "ada".to_owned(),
                reason: None,
                without: Vec::new(),
            };
            world.note(Deed::Resumed);
            ask.send((request, reply)).await.unwrap();
            answer.await.unwrap().unwrap();
        }
    }
}
