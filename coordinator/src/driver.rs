//! The loop of one release: fold → `next` → call a port → append. It decides nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::{AbortHandle, Abortable, BoxFuture, Shared, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use pointsman_core::machine::{self, Next};
use pointsman_core::ports::{Clock, Fleet, Journal, JournalError, Signals};
use pointsman_core::{
    Action, Aftermath, CheckSeen, Code, Event, Evidence, HostName, Order, OrderKey, Phase, Plan, Problem,
    Reading, Request, RequestKind, State, Step, Timestamp, invariants, judging, route_change,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::gates::{self, Counted};
use crate::noted::{self, Noted};
use crate::old_side::OldSide;
use crate::watcher::Watcher;

/// How much longer than its own bound an order may take before its answer counts as lost: the port's bound comes
/// first in all but a hang.
const GRACE_MS: u64 = 2_000;

/// Which part of an order's time it may take to prepare it: there is time left to perform it then.
const PREPARE_SHARE: u64 = 2;

/// How long preparing an order may take at most. Whoever was ready first holds it until the last one is, and until what is
/// said then has come.
const PREPARE_WITHIN_MS: u64 = 6_000;
const _: () = assert!(PREPARE_WITHIN_MS + GRACE_MS < route_change::LEASE_MS);

/// Pause before agents that could not be fenced are asked again.
const FENCE_AGAIN_MS: u64 = 500;

/// A request of a person with the way back to them.
pub type Asked = (Request, oneshot::Sender<Result<(), Problem>>);

/// Drives one release at a time over the ports.
pub struct Driver<J, F, C, S> {
    /// Where facts are recorded.
    pub journal: J,
    /// The agents.
    pub fleet: F,
    /// The clock.
    pub clock: C,
    /// What visitors meet.
    pub signals: S,
    /// What is known of the slot that they would go back to.
    pub old_side: Arc<OldSide>,
}

/// The old slot being looked after, while visitors are watched after a step.
type Beside<'a> = Option<(Step, BoxFuture<'a, Infallible>)>;

struct Flight<'a, P: Fn(&State)> {
    state: State,
    publish: &'a P,
    aborts: BTreeMap<OrderKey, AbortHandle>,
    /// Since when the release has waited for what it waits for now, by the time that does not jump: see
    /// [`State::fencing_since`], which each life of a coordinator begins anew.
    waits_from_ms: u64,
}

impl<P: Fn(&State)> Flight<'_, P> {
    fn waited_ms(&self, steady_ms: u64) -> u64 {
        steady_ms.saturating_sub(self.waits_from_ms)
    }
}

/// An order on its way out.
#[derive(Clone)]
struct Outgoing {
    order: Order,
    /// When it is too late for an answer, by the time that does not jump.
    until_ms: u64,
}

/// What woke the loop.
enum Woken {
    Answered(OrderKey, Result<Evidence, Problem>),
    Asked(Option<Asked>),
    Time,
    Read(Timestamp, Reading, Vec<(HostName, Vec<CheckSeen>)>),
    Heard(Vec<Event>),
    Fenced(Vec<(HostName, Result<(), Problem>)>),
}

impl<J: Journal, F: Fleet, C: Clock, S: Signals> Driver<J, F, C, S> {
    /// Drives a release to its end. `publish` sees every new state. An error means that the journal did not take a
    /// fact: nothing was ordered on the strength of it.
    pub async fn drive(
        &self,
        state: State,
        requests: &mut mpsc::Receiver<Asked>,
        publish: impl Fn(&State),
    ) -> Result<State, JournalError> {
        let waits_from_ms = self.clock.steady_ms();
        let mut flight = Flight { state, publish: &publish, aborts: BTreeMap::new(), waits_from_ms };
        let mut answers = FuturesUnordered::new();
        let mut last_read: Option<Timestamp> = None;
        let mut watched: Option<Timestamp> = None;
        let (mut noted, counted) = (Noted::default(), Counted::default());
        let mut watcher: Option<Watcher<S::Ear>> = None;
        let mut beside: Beside<'_> = None;
        loop {
            let now = self.clock.now();
            let waited_ms = flight.waited_ms(self.clock.steady_ms());
            // What was read before or while the release was held is no part of the watch that follows.
            watched = watched.filter(|_| matches!(flight.state.phase, Phase::Watching { .. }));
            let woken = match machine::next(&flight.state, now, waited_ms) {
                Next::Stop => return Ok(flight.state),
                Next::Record(event) => {
                    if let Err(error) = self.record(&mut flight, vec![event]).await {
                        self.without_room(&mut flight, error).await?;
                    }
                    continue;
                }
                Next::Send(keys) => {
                    let orders = match self.intend(&mut flight, keys).await {
                        Ok(orders) => orders,
                        Err(error) => {
                            self.without_room(&mut flight, error).await?;
                            continue;
                        }
                    };
                    let together = self.prepare_together(&orders);
                    for (key, outgoing) in orders {
                        let (abort, registration) = AbortHandle::new_pair();
                        flight.aborts.insert(key.clone(), abort);
                        let prepared = together.clone().filter(|_| moves_route(&outgoing.order));
                        let sending = async move {
                            match prepared {
                                Some(prepared) => {
                                    prepared.await?;
                                    self.send(&outgoing, self.fleet.commit(&outgoing.order)).await
                                }
                                None => self.send(&outgoing, self.fleet.perform(&outgoing.order)).await,
                            }
                        };
                        answers.push(async move { (key, Abortable::new(sending, registration).await) });
                    }
                    continue;
                }
                Next::GiveUp(keys) => {
                    for abort in keys.iter().filter_map(|key| flight.aborts.get(key)) {
                        abort.abort();
                    }
                    match answers.next().await {
                        Some((key, answer)) => {
                            let answer = answer.unwrap_or_else(|_| Err(given_up(&key)));
                            Woken::Answered(key, answer)
                        }
                        None => Woken::Time,
                    }
                }
                Next::Fence(hosts) => {
                    let epoch = flight.state.epoch;
                    let timeout_ms = flight.state.plan.limits.inspect_ms;
                    let fencing = join_all(hosts.into_iter().map(|host| async move {
                        let fenced = self.fleet.fence(&host, epoch, timeout_ms).await;
                        (host, fenced)
                    }));
                    tokio::select! { biased;
                        asked = requests.recv() => Woken::Asked(asked),
                        fenced = fencing => Woken::Fenced(fenced),
                    }
                }
                Next::ReadGates => {
                    let every_ms = flight.state.plan.watch.interval_ms;
                    let wait_ms =
                        last_read.map_or(0, |last| last.plus_ms(every_ms).ms_since(now).min(every_ms));
                    self.watch_visitors(&mut watcher, &flight.state).await;
                    let reading = async {
                        self.clock.pause(wait_ms).await;
                        let began = self.clock.now();
                        let ports = (&self.fleet, &self.clock, self.old_side.as_ref(), &counted);
                        let after = flight.state.watched_after().unwrap_or(Step::Switch);
                        let in_row = flight.state.watch.is_shared();
                        let (reading, seen) = gates::read(ports, &flight.state, after, in_row).await;
                        (began, reading, seen)
                    };
                    // A second that changes nothing must not begin a reading anew, nor does a look at the old slot.
                    let news = self.news_of_visitors(&mut watcher, &flight.state);
                    tokio::select! { biased;
                        asked = requests.recv() => Woken::Asked(asked),
                        events = news => Woken::Heard(events),
                        (began, reading, seen) = reading => Woken::Read(began, reading, seen),
                        never = self.look_after_old_side(&mut beside, &flight.state) => match never {},
                    }
                }
                Next::HearVisitors => {
                    self.watch_visitors(&mut watcher, &flight.state).await;
                    let news = self.news_of_visitors(&mut watcher, &flight.state);
                    tokio::select! { biased;
                        asked = requests.recv() => Woken::Asked(asked),
                        events = news => Woken::Heard(events),
                    }
                }
                Next::Await(until) => {
                    let wait_ms = until.map(|until| until.ms_since(now).max(1));
                    let time = async {
                        match wait_ms {
                            Some(wait_ms) => self.clock.pause(wait_ms).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! { biased;
                        Some((key, answer)) = answers.next() => {
                            let answer = answer.unwrap_or_else(|_| Err(given_up(&key)));
                            Woken::Answered(key, answer)
                        }
                        asked = requests.recv() => Woken::Asked(asked),
                        () = time => Woken::Time,
                    }
                }
            };
            match woken {
                Woken::Time => {}
                Woken::Answered(key, mut answer) => {
                    flight.aborts.remove(&key);
                    let noted = noted::of_order(&key, &mut answer);
                    let event = match answer {
                        Ok(evidence) => Event::OrderDone { key, evidence },
                        Err(problem) => Event::OrderFailed { key, problem },
                    };
                    self.record(&mut flight, noted.into_iter().chain([event]).collect()).await?;
                }
                Woken::Fenced(results) => self.fenced(&mut flight, results).await?,
                Woken::Read(began, reading, seen) => {
                    let now = self.clock.now();
                    let began = machine::read_at(began, now, &reading);
                    let reading = in_sight(watcher.as_ref(), &flight.state, now, reading);
                    let events = machine::gates_read(&flight.state, watched, began, reading);
                    let judgement = watcher.as_ref().map(Watcher::judgement);
                    let seen_now = watcher.as_ref().is_some_and(|watcher| watcher.sees(now));
                    let events = judging::gates_and_visitors(&flight.state, now, events, judgement, seen_now);
                    (watched, last_read) = (Some(began), Some(now));
                    let noted = noted.read(&flight.state, seen, &events);
                    self.record(&mut flight, noted.into_iter().chain(events).collect()).await?;
                }
                Woken::Heard(events) => self.record(&mut flight, events).await?,
                Woken::Asked(Some((request, reply))) => self.asked(&mut flight, request, reply).await?,
                // Nobody can ask any more: the coordinator ends, and the journal knows where to go on.
                Woken::Asked(None) => std::future::pending().await,
            }
        }
    }

    /// Records the intents of orders, durably, and only then makes the orders.
    async fn intend<P: Fn(&State)>(
        &self,
        flight: &mut Flight<'_, P>,
        keys: Vec<OrderKey>,
    ) -> Result<Vec<(OrderKey, Outgoing)>, JournalError> {
        let attempt = |key: &OrderKey| {
            flight.state.orders.get(key).map_or(1, |progress| progress.attempts.saturating_add(1))
        };
        let events =
            keys.iter().map(|key| Event::OrderIntended { key: key.clone(), attempt: attempt(key) }).collect();
        // From the recorded moment on: one that is recorded and then sleeps must not act on what was so before.
        let from_ms = self.clock.steady_ms();
        self.record(flight, events).await?;
        let state = &flight.state;
        let orders = keys.into_iter().filter_map(|key| {
            let progress = state.orders.get(&key)?;
            let order = Order {
                release: state.plan.release.clone(),
                attempt: progress.attempts,
                epoch: state.epoch,
                deadline: progress.sent_at.plus_ms(state.attempt_ms(&key)),
                leads_back: state.plan.leads_back(key.step),
                action: state.plan.action(key.step, &key.host)?,
                key: key.clone(),
            };
            let until_ms = from_ms.saturating_add(state.attempt_ms(&key));
            Some((key, Outgoing { order, until_ms }))
        });
        Ok(orders.collect())
    }

    /// Where there was no room to record what leads on, what leads back still finds some: see [`machine::no_room`].
    async fn without_room<P: Fn(&State)>(
        &self,
        flight: &mut Flight<'_, P>,
        JournalError(problem): JournalError,
    ) -> Result<(), JournalError> {
        let full = problem.code == Code::JournalFull;
        match machine::no_room(&flight.state, problem.clone()).filter(|_| full) {
            Some(event) => self.record(flight, vec![event]).await,
            None => Err(JournalError(problem)),
        }
    }

    /// Has every load balancer make ready for one move of the visitors, where several of them are to move together on the
    /// way forward. One that is not ready, or cannot be reached, keeps all of them from moving. Back, each goes as soon as
    /// it can.
    fn prepare_together<'a>(
        &'a self,
        orders: &[(OrderKey, Outgoing)],
    ) -> Option<Shared<BoxFuture<'a, Result<(), Problem>>>> {
        let moves: Vec<Order> = orders
            .iter()
            .map(|(_, outgoing)| &outgoing.order)
            .filter(|order| order.key.step.together() && moves_route(order))
            .cloned()
            .collect();
        if moves.len() < 2 {
            return None;
        }
        let ready = async move {
            let asked = moves.iter().map(|order| async move {
                let timeout_ms = order.deadline.ms_since(self.clock.now()) / PREPARE_SHARE;
                let timeout_ms = timeout_ms.min(PREPARE_WITHIN_MS);
                let bound_ms = timeout_ms.saturating_add(GRACE_MS);
                tokio::select! { biased;
                    prepared = self.fleet.prepare(order, timeout_ms) => prepared.map(drop),
                    () = self.clock.pause(bound_ms) => {
                        let message = format!("step `{}` was not prepared within {bound_ms} ms", order.key.step);
                        Err(Problem::new(Code::AgentUnreachable, message).retry_useful().on(&order.key.host))
                    }
                }
            });
            join_all(asked).await.into_iter().collect()
        };
        Some(ready.boxed().shared())
    }

    /// Sends an order. Whatever the port does, there is an answer within the order's bound and some grace.
    async fn send(
        &self,
        Outgoing { order, until_ms }: &Outgoing,
        sending: impl Future<Output = Result<Evidence, Problem>>,
    ) -> Result<Evidence, Problem> {
        // A clock that was set back must not lengthen the wait, and one that ran on while the machine slept counts.
        let left_ms = until_ms.saturating_sub(self.clock.steady_ms());
        let left_ms = left_ms.min(order.deadline.ms_since(self.clock.now()));
        if left_ms == 0 {
            let message =
                format!("step `{}` was not sent: its time was over before it could be", order.key.step);
            return Err(Problem::new(Code::DeadlinePassed, message).retry_useful().on(&order.key.host));
        }
        let bound_ms = left_ms.saturating_add(GRACE_MS);
        tokio::select! { biased;
            answer = sending => answer,
            () = self.clock.pause(bound_ms) => {
                let message = format!("step `{}` was not answered within {bound_ms} ms", order.key.step);
                Err(Problem::new(Code::AnswerLost, message).aftermath(Aftermath::Unknown).retry_useful().on(&order.key.host))
            }
        }
    }

    /// Has the visitors of a watched release be heard, by the judge it has now.
    async fn watch_visitors(&self, watcher: &mut Option<Watcher<S::Ear>>, state: &State) {
        if !watcher.as_ref().is_some_and(|watcher| watcher.serves(state)) {
            *watcher = Watcher::begin(&self.signals, &self.clock, state).await;
        }
    }

    /// Hears visitors until something follows from it.
    async fn news_of_visitors(&self, watcher: &mut Option<Watcher<S::Ear>>, state: &State) -> Vec<Event> {
        let Some(watcher) = watcher else { return std::future::pending().await };
        loop {
            watcher.hear(&self.signals, &self.clock, state).await;
            let events = judging::heard(state, self.clock.now(), watcher.judgement());
            if !events.is_empty() {
                return events;
            }
        }
    }

    /// Has the old slot be looked after, for ever, beside what else is done: from where that was when it was left.
    async fn look_after_old_side<'a>(&'a self, beside: &mut Beside<'a>, state: &State) -> Infallible {
        let Some(after) = state.watched_after() else { return std::future::pending().await };
        if beside.as_ref().is_none_or(|(known, _)| *known != after) {
            let plan = Arc::clone(&state.plan);
            let looking = self.old_side.look_after(&self.fleet, &self.clock, plan, after);
            *beside = Some((after, looking.boxed()));
        }
        match beside {
            Some((_, looking)) => looking.await,
            None => std::future::pending().await,
        }
    }

    async fn fenced<P: Fn(&State)>(
        &self,
        flight: &mut Flight<'_, P>,
        results: Vec<(pointsman_core::HostName, Result<(), Problem>)>,
    ) -> Result<(), JournalError> {
        let (fenced, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
        let events = fenced.into_iter().map(|(host, _)| Event::Fenced(host)).collect();
        self.record(flight, events).await?;
        let Some((host, Err(problem))) = failed.into_iter().next() else { return Ok(()) };
        let problem = problem.on(&host).in_environment(&flight.state.plan.environment);
        let waited_ms = flight.waited_ms(self.clock.steady_ms());
        match machine::fence_failed(&flight.state, waited_ms, problem) {
            Some(event) => self.record(flight, vec![event]).await,
            None => {
                self.clock.pause(FENCE_AGAIN_MS).await;
                Ok(())
            }
        }
    }

    async fn asked<P: Fn(&State)>(
        &self,
        flight: &mut Flight<'_, P>,
        request: Request,
        reply: oneshot::Sender<Result<(), Problem>>,
    ) -> Result<(), JournalError> {
        let possible = machine::may_ask(&flight.state, &request);
        if possible.is_ok() {
            info!(release = %flight.state.plan.release, by = request.by, what = request.kind.as_str(), "asked");
            if let Err(JournalError(problem)) = self.record(flight, vec![Event::Requested(request)]).await {
                // Nobody else knows whether it was recorded all the same.
                let _ = reply.send(Err(problem.clone()));
                return Err(JournalError(problem));
            }
        }
        // Whoever asked may have gone; what they asked for is recorded.
        let _ = reply.send(possible);
        Ok(())
    }

    /// Records facts, folds them, and shows the new state. A broken invariant holds the release.
    async fn record<P: Fn(&State)>(
        &self,
        flight: &mut Flight<'_, P>,
        events: Vec<Event>,
    ) -> Result<(), JournalError> {
        if events.is_empty() {
            return Ok(());
        }
        let (plan, epoch) = (Arc::clone(&flight.state.plan), flight.state.epoch);
        let now = self.clock.now();
        let notes = events.iter().all(|event| matches!(event, Event::Noted(_)));
        let facts = match self.journal.append(&plan.environment, epoch, &plan.release, now, events).await {
            // Nobody stops watching because there is no room for what belongs on a checklist.
            Err(JournalError(problem)) if notes && problem.code == Code::JournalFull => {
                warn!(release = %plan.release, problem = %problem.in_full(), "not noted");
                return Ok(());
            }
            appended => appended?,
        };
        let waits_since = flight.state.fencing_since;
        for fact in &facts {
            tell(&plan, &fact.event);
            machine::fold(&mut flight.state, fact).map_err(|error| {
                error!(%error, "the release engine recorded a fact that cannot be");
                let what = "a fact was recorded that cannot follow";
                JournalError(invariants::problem(what).because(&error).in_environment(&plan.environment))
            })?;
        }
        if flight.state.fencing_since != waits_since {
            flight.waits_from_ms = self.clock.steady_ms();
        }
        if let Err(broken) = invariants::all(&flight.state, self.clock.now()) {
            error!(release = %flight.state.plan.release, %broken, "invariant broken");
            let problem = invariants::problem(broken.to_string());
            return Err(JournalError(problem.in_environment(&plan.environment)));
        }
        (flight.publish)(&flight.state);
        Ok(())
    }
}

/// What the gates said, unless visitors are out of sight. A person who promotes goes on without them.
fn in_sight<E: pointsman_core::ports::Ear>(
    watcher: Option<&Watcher<E>>,
    state: &State,
    now: Timestamp,
    gates: Reading,
) -> Reading {
    let promoted = state.asked.as_ref().is_some_and(|asked| asked.kind == RequestKind::Promote);
    match (watcher, gates) {
        (_, gates) if promoted => gates,
        (Some(watcher), gates) => watcher.join(gates, now, &state.plan),
        // Visitors are to decide, and nobody can judge by this plan.
        (None, Reading::Pass) if state.plan.verdict.acts() => {
            Reading::Unknown(Problem::new(Code::WatchBlind, "visitors cannot be judged by this plan"))
        }
        (None, gates) => gates,
    }
}

/// Whether an order moves visitors, or may.
fn moves_route(order: &Order) -> bool {
    matches!(order.action, Action::SetRoute { .. })
}

fn given_up(key: &OrderKey) -> Problem {
    Problem::new(Code::OperatorStopped, format!("step `{}` was given up on request", key.step))
        .aftermath(Aftermath::Unknown)
        .on(&key.host)
}

/// Says in the log what an operator looks for there: why a release goes back, or waits.
fn tell(plan: &Plan, event: &Event) {
    let (environment, release) = (&plan.environment, &plan.release);
    let (problem, what) = match event {
        Event::OrderFailed { problem, .. } => (problem, "an order failed"),
        Event::GatesRead(Reading::Fail(problem)) => (problem, "the gates failed"),
        Event::GatesRead(Reading::Shared(problem)) => (problem, "the gates failed, on the old slot too"),
        Event::GatesRead(Reading::Unknown(problem)) => (problem, "the gates cannot be read"),
        Event::TurnedBack(problem) => (problem, "turning back"),
        Event::Held(problem) => (problem, "held: it waits for a person"),
        _ => return,
    };
    warn!(%environment, %release, code = %problem.code, problem = %problem.in_full(), "{what}");
}
