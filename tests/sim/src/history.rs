//! One history: coordinators are polled when something wakes them, and in between the earliest event happens, until
//! nothing is left to happen.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pointsman_coordinator::opening;
use pointsman_core::left_out::{self, Heard};
use pointsman_core::{
    Entry, Event, HostName, Outcome, Phase, Request, RequestKind, Stamped, Standing, State, machine,
};
use tokio::sync::oneshot;

use crate::coordinator::{Ended, Ports, live};
use crate::guard::Guard;
use crate::journal::Store;
use crate::scenario::{Accepts, Met, Net, Scenario, What};
use crate::truth::Violation;
use crate::world::{CrashAt, Happening, Life, World};

/// No history has more events, and none lasts longer: one that does goes round and round. Two coordinators that both watch a release
/// which is held until an agent is back after twenty minutes come to two thirds of them.
const MOST_EVENTS: u64 = 60_000;
const LONGEST_MS: u64 = 4 * 3_600_000;

/// How often people help a release that waits for them before they give it up, and before they see to the network and the
/// hosts first: a release ends once nothing goes wrong any more, and with luck before.
const HELPED_AT_MOST: u32 = 12;
const SEEN_TO_AFTER: u32 = 6;

/// What is tried in a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A guard that is switched off.
    pub off: Option<Guard>,
    /// Crashes, each at one point.
    pub crashes: [Option<CrashAt>; 2],
    /// Keep what happened for people to read.
    pub trace: bool,
}

/// What came of a history.
#[derive(Debug, Default)]
pub struct Report {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Events that happened.
    pub events: u64,
    /// Points at which somebody could have crashed.
    pub points: u64,
    /// How the releases ended, in order; none for one that waits for a person.
    pub outcomes: Vec<Option<Outcome>>,
    /// Wishes that could not be planned.
    pub given_up: usize,
    /// How often a person had to help.
    pub helped: u32,
    /// Phases and events seen together.
    pub coverage: Vec<((&'static str, &'static str), u64)>,
    /// What happened.
    pub trace: Vec<String>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Process {
    life: Life,
    future: Pin<Box<dyn Future<Output = Ended> + Send>>,
    woken: Arc<Woken>,
    waker: Waker,
}

struct History {
    world: Arc<Mutex<World>>,
    processes: [Option<Process>; 2],
    ended: Option<Ended>,
}

/// Has a scenario happen.
pub fn run(scenario: Scenario, options: Options) -> anyhow::Result<Report> {
    let environment = crate::site::environment(&scenario)?;
    let mut world = World::new(scenario, environment, options.off);
    world.trace = options.trace.then(Vec::new);
    world.crashes = options.crashes;
    world.troubles += 1;
    world.later(0, Happening::StartCoordinator(0));
    let mut history = History { world: Arc::new(Mutex::new(world)), processes: [None, None], ended: None };
    history.happen();
    Ok(history.report())
}

impl History {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happen(&mut self) {
        let mut died = false;
        loop {
            self.poll(std::mem::take(&mut died));
            let mut world = self.world();
            if world.violation.is_some() {
                return;
            }
            if world.events > MOST_EVENTS || world.now > LONGEST_MS {
                let shown = world.shown.clone();
                return world.broken("I11", || format!("goes on and on at {shown:?}"));
            }
            if world.left {
                return;
            }
            let Some(happening) = world.next_happening() else { return };
            match happening {
                Happening::StartCoordinator(coordinator) => {
                    drop(world);
                    self.start(coordinator);
                }
                happening => {
                    world.happens(happening);
                    died = std::mem::take(&mut world.died);
                }
            }
        }
    }

    fn start(&mut self, coordinator: usize) {
        let life = {
            let mut world = self.world();
            world.troubles -= 1;
            world.active = coordinator;
            let Some(shown) = world.coordinators.get_mut(coordinator) else { return };
            shown.number += 1;
            shown.alive = true;
            shown.stalled_until = 0;
            let life = Life { coordinator, number: shown.number };
            world.tell(|| format!("coordinator {coordinator} starts its life {}", life.number));
            life
        };
        let future = Box::pin(live(Ports::new(Arc::clone(&self.world), life)));
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        if let Some(place) = self.processes.get_mut(coordinator) {
            *place = Some(Process { life, future, woken, waker });
        }
    }

    /// Polls every coordinator that something woke, until none is. Most events wake none.
    fn poll(&mut self, mut died: bool) {
        loop {
            let mut polled = false;
            for index in 0..self.processes.len() {
                let Some(process) = self.processes.get_mut(index).and_then(Option::as_mut) else { continue };
                if !died && !process.woken.0.load(Ordering::Relaxed) {
                    continue;
                }
                let life = process.life;
                let (alive, still) = {
                    let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
                    let shown = world.coordinators.get(index);
                    (world.lives(life), shown.is_some_and(|shown| shown.stalled_until > world.now))
                };
                if !alive {
                    if let Some(place) = self.processes.get_mut(index) {
                        *place = None;
                    }
                    continue;
                }
                if still || !process.woken.0.swap(false, Ordering::Relaxed) {
                    continue;
                }
                polled = true;
                let ready = process.future.as_mut().poll(&mut Context::from_waker(&process.waker));
                if let Poll::Ready(ended) = ready {
                    self.over(index, life, ended);
                }
            }
            if !polled {
                return;
            }
            died = std::mem::take(&mut self.world().died);
        }
    }

    fn over(&mut self, index: usize, life: Life, ended: Ended) {
        if let Some(place) = self.processes.get_mut(index) {
            *place = None;
        }
        let mut world = self.world();
        if !world.lives(life) {
            return;
        }
        world.tell(|| format!("coordinator {index} ends: {ended:?}"));
        if let Some(shown) = world.coordinators.get_mut(index) {
            shown.alive = false;
        }
        match ended {
            Ended::Idle => {
                world.active = index;
                // One that was superseded and only looks would look for ever.
                world.coordinators.iter_mut().for_each(|shown| shown.alive = false);
                world.died = true;
            }
            _ if index != world.active => return,
            _ => {}
        }
        world.idle = ended == Ended::Idle;
        drop(world);
        self.ended = Some(ended);
    }

    /// Looks at how everything ended, and at what is so at rest.
    fn report(self) -> Report {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let states = folded(&world);
        let void = void(&world);
        if world.violation.is_none() && world.store.losses == world.store.accepted {
            let open = states.iter().find(|state| state.outcome().is_none());
            if let Some(state) = open {
                let (phase, helped) = (state.phase.clone(), world.helped);
                world.broken("I11", || {
                    format!("a release never ends: {phase:?} after {helped} times of help")
                });
            } else if let Some(Ended::Trouble(problem)) = &self.ended {
                world.broken("I11", || {
                    format!("the coordinator gives up: {} {problem} {:?}", problem.code, problem.causes)
                });
            } else if !world.idle {
                world.broken("I11", || "nothing happens any more, and wishes are left".to_owned());
            }
            if world.violation.is_none() {
                let since = states.get(before_acceptance(&world)..).unwrap_or_default();
                world.at_rest(since);
            }
        }
        Report {
            violation: world.violation.take(),
            events: world.events,
            points: world.points,
            outcomes: states.iter().map(State::outcome).collect(),
            given_up: world.given_up + void,
            helped: world.helped,
            coverage: std::mem::take(&mut world.coverage),
            trace: world.trace.take().unwrap_or_default(),
        }
    }
}

/// How many releases were over when a person last accepted the journal.
fn before_acceptance(world: &World) -> usize {
    let accepted = |entry: &&Entry| matches!(entry.fact.event, Event::Adopted { .. });
    let Some(last) = world.store.entries.iter().rposition(|entry| accepted(&entry)) else { return 0 };
    fold(world.store.entries.iter().take(last)).0.iter().filter(|state| state.outcome().is_some()).count()
}

/// How many releases were open whenever a person accepted the journal: how they went on nobody knows.
fn void(world: &World) -> usize {
    fold(world.store.entries.iter()).1
}

/// The releases as the journal tells them, without those that are void.
pub fn folded(world: &World) -> Vec<State> {
    fold(world.store.entries.iter()).0
}

fn fold<'a>(entries: impl Iterator<Item = &'a Entry>) -> (Vec<State>, usize) {
    let (mut states, mut void): (Vec<State>, usize) = (Vec::new(), 0);
    for entry in entries {
        if let Event::Adopted { .. } = entry.fact.event {
            void += states.iter().filter(|state| state.outcome().is_none()).count();
            states.retain(|state| state.outcome().is_some());
            continue;
        }
        if let Event::Planned(plan) = &entry.fact.event {
            states.push(State::begin(Arc::clone(plan), pointsman_core::Epoch(0), entry.fact.at));
            continue;
        }
        let known = states.iter_mut().find(|state| state.plan.release == entry.release);
        if let Some(state) = known {
            // What the coordinator would not have taken is what `I11` finds.
            let _ = machine::fold(state, &entry.fact);
        }
    }
    (states, void)
}

/// How the environment stands as the whole journal tells it.
pub fn standing(world: &World) -> Standing {
    let entries = &world.store.entries;
    let accepted = entries.iter().rposition(|entry| matches!(entry.fact.event, Event::Adopted { .. }));
    let mut standing = match accepted.and_then(|last| entries.get(last)) {
        Some(Entry { fact: Stamped { at, event: Event::Adopted { by, found } }, .. }) => {
            Standing::found(found, by, *at)
        }
        _ => Standing::default(),
    };
    let since = entries.iter().skip(accepted.map_or(0, |last| last + 1));
    fold(since).0.iter().for_each(|state| standing.fold(state));
    standing
}

impl World {
    /// What a coordinator makes of the end of its journal must be what the whole of it says.
    pub fn told(&mut self, life: Life, told: &Standing) {
        if let Some((_, whole)) = self.read.take().filter(|(read, whole)| *read == life && whole != told) {
            self.broken("I3", || {
                format!("the journal says how the environment stands: {whole:?}; its end says: {told:?}")
            });
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            // Who paused may be gone.
            Happening::Wake(sender) => drop(sender.send(())),
            Happening::Commit { writing, reply } => self.commit(writing, reply),
            Happening::Arrive { host, message } => self.arrive(host, message),
            Happening::Answer { call, told } => self.answered(call, told),
            Happening::Job { host, number, job } => self.work(host, number, job),
            Happening::Fault(what) => {
                self.troubles -= 1;
                self.tell(|| format!("{what:?}"));
                self.goes_wrong(what);
            }
            Happening::StartCoordinator(_) => {}
            Happening::GoOn | Happening::SharedBack => self.troubles -= 1,
            Happening::StartAgent(host) => {
                self.troubles -= 1;
                if let Some(agent) = self.hosts.get_mut(host) {
                    agent.up = true;
                }
                self.settle_at_start(host);
                self.recover_database(host);
                self.one_is_live(host);
                self.guard_soon(host);
            }
            Happening::Thaw(host) => {
                self.troubles -= 1;
                let inbox = self.hosts.get_mut(host).and_then(|agent| agent.frozen.take());
                for message in inbox.into_iter().flatten() {
                    self.arrive(host, message);
                }
            }
            Happening::Heal(number) => {
                self.troubles -= 1;
                self.partitions.remove(&number);
            }
            Happening::Reloaded { host, pid } => self.reloaded(host, pid),
            Happening::StartHaproxy(host) => self.start_haproxy(host),
            Happening::ServerUp(host) => {
                self.troubles -= 1;
                if let Some(web) = self.hosts.get_mut(host).and_then(|host| host.web_mut()) {
                    web.server_up = true;
                }
            }
            Happening::Guard { host, number } => self.guard(host, number),
            Happening::JournalRoom => {
                self.troubles -= 1;
                self.store.full = false;
            }
            Happening::JournalSilent(number) => self.journal_silent(number),
            Happening::JournalAnswers => {
                self.troubles -= 1;
                self.journal_answers();
            }
            Happening::PutBack(host) => self.put_back(host),
            Happening::Attend => self.attend(),
            Happening::Second => self.second(),
            Happening::SignalsBack => self.signals_back(),
        }
    }

    /// The `number`-th of the hosts of a kind, counted round.
    fn nth(&self, number: u64, balancers: bool) -> Option<usize> {
        let of_kind = |host: &&usize| {
            let wanted = |host: &crate::host::Host| {
                if balancers { host.balancer().is_some() } else { host.web().is_some() }
            };
            self.hosts.get(**host).is_some_and(wanted)
        };
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        let fitting: Vec<usize> = all.iter().filter(of_kind).copied().collect();
        let index = number.checked_rem(u64::try_from(fitting.len()).ok()?)?;
        fitting.get(usize::try_from(index).ok()?).copied()
    }

    fn any_host(&self, number: u64) -> usize {
        let count = u64::try_from(self.hosts.len()).unwrap_or(1);
        usize::try_from(number.checked_rem(count).unwrap_or(0)).unwrap_or(0)
    }

    fn goes_wrong(&mut self, what: What) {
        match what {
            What::KillCoordinator { back_ms } => self.kill_coordinator(back_ms),
            What::StallCoordinator { for_ms } => {
                let (active, until) = (self.active, self.now + for_ms);
                if let Some(shown) = self.coordinators.get_mut(active).filter(|shown| shown.alive) {
                    shown.stalled_until = until;
                    self.troubles += 1;
                    self.later(for_ms, Happening::GoOn);
                }
            }
            What::TakeOver => {
                let other = 1 - self.active;
                if self.coordinators.get(other).is_some_and(|shown| !shown.alive) && !self.idle {
                    self.troubles += 1;
                    self.later(0, Happening::StartCoordinator(other));
                }
            }
            What::KillAgent { host, back_ms } => self.kill_agent(self.any_host(host), back_ms),
            What::FreezeAgent { host, for_ms } => {
                let host = self.any_host(host);
                if let Some(agent) =
                    self.hosts.get_mut(host).filter(|agent| agent.up && agent.frozen.is_none())
                {
                    agent.frozen = Some(Vec::new());
                    self.troubles += 1;
                    self.later(for_ms, Happening::Thaw(host));
                }
            }
            What::Partition { host, to, from, for_ms } => {
                let (number, host) = (self.number(), self.any_host(host));
                self.partitions.insert(number, (host, to, from));
                self.troubles += 1;
                self.later(for_ms, Happening::Heal(number));
            }
            What::Reload { balancer, slow_ms } => {
                if let Some(host) = self.nth(balancer, true) {
                    self.reload(host, slow_ms);
                }
            }
            What::KillHaproxy { balancer, back_ms } => {
                if let Some(host) = self.nth(balancer, true) {
                    self.kill_haproxy(host, back_ms);
                }
            }
            What::ServerDown { host, for_ms } => {
                let Some(host) = self.nth(host, false) else { return };
                let web = self.hosts.get_mut(host).and_then(|host| host.web_mut());
                if let Some(web) = web.filter(|web| web.server_up) {
                    web.server_up = false;
                    self.troubles += 1;
                    self.later(for_ms, Happening::ServerUp(host));
                }
            }
            What::SetClock { by_ms } => {
                self.clock_off += by_ms;
                self.truth.set_back_ms += by_ms.min(0).unsigned_abs();
            }
            What::SetAgentClock { host, by_ms } => {
                let host = self.any_host(host);
                if let Some(agent) = self.hosts.get_mut(host) {
                    agent.clock_off += by_ms;
                }
            }
            What::JournalFull { for_ms } => {
                self.store.full = true;
                self.troubles += 1;
                self.later(for_ms, Happening::JournalRoom);
            }
            What::JournalHangs { for_ms } => {
                self.store.hangs = true;
                self.troubles += 1;
                self.later(for_ms, Happening::JournalAnswers);
            }
            What::TailLost { entries } => {
                self.replace_journal(|store| {
                    store.lose(entries);
                    true
                });
            }
            What::CopyOfBefore => self.bring_back_the_copy(),
            What::ChangedByHand { balancer, for_ms } => {
                if let Some(host) = self.nth(balancer, true) {
                    self.change_by_hand(host, for_ms);
                }
            }
            What::LoseDisk { host, back_ms } => {
                let host = self.any_host(host);
                self.kill_agent(host, back_ms);
                if let Some(agent) = self.hosts.get_mut(host) {
                    agent.lose_disk();
                }
                self.truth.disk_lost(host);
            }
            What::DamageReceipts { host, back_ms } => {
                let host = self.any_host(host);
                self.kill_agent(host, back_ms);
                if let Some(agent) = self.hosts.get_mut(host) {
                    agent.lose_receipts();
                }
            }
            What::SharedAway { for_ms } => {
                self.shared_away_until = self.now + for_ms;
                self.troubles += 1;
                self.later(for_ms, Happening::SharedBack);
            }
            What::PutBackHost { host, back_ms } => {
                let Some(host) = self.nth(host, false).filter(|host| !self.is_served(*host)) else { return };
                let older = crate::host::Host::all(&self.environment, &self.scenario);
                self.kill_agent(host, back_ms);
                if let (Some(agent), Some(older)) = (self.hosts.get_mut(host), older.get(host)) {
                    agent.put_back(older);
                }
                self.truth.disk_lost(host);
                if let Some(name) = self.hosts.get(host).map(|host| host.name.clone()) {
                    self.truth.put_back(host, &name, self.now);
                }
            }
            What::LoseSignals { for_ms } => self.lose_signals(for_ms),
            What::Contradict { host } => self.contradict(self.any_host(host)),
            What::Ask(kind) => self.ask(kind, Vec::new()),
        }
    }

    /// The coordinator is killed, and comes back with another journal. Whoever puts that there takes longer than a message does.
    /// Says whether it is another one.
    fn replace_journal(&mut self, replace: impl FnOnce(&mut Store) -> bool) -> bool {
        self.kill_coordinator(500);
        if self.coordinators.iter().any(|shown| shown.alive) || !replace(&mut self.store) {
            return false;
        }
        let promotes =
            |state: &State| state.asked.as_ref().is_some_and(|asked| asked.kind == RequestKind::Promote);
        let promoted = folded(self).iter().any(promotes);
        self.truth.forget(promoted);
        self.shown = None;
        // A judge that only the lost entries knew of is not taken up.
        self.visitors.judged_anew();
        self.before_loss = [0, 1].map(|index| self.coordinators.get(index).map_or(0, |shown| shown.number));
        true
    }

    /// The journal that a person accepted is replaced by the copy that it was before, also where every wish was granted since.
    fn bring_back_the_copy(&mut self) {
        let Accepts::Copied { starts, met, .. } = self.scenario.accepts else { return };
        let alone = if met == Met::Nobody { starts } else { 0 };
        if !self.replace_journal(|store| store.put_back(alone)) {
            return;
        }
        self.starts_left = starts - alone;
        if std::mem::take(&mut self.idle) {
            self.troubles += 1;
            self.later(500, Happening::StartCoordinator(self.active));
        }
    }

    fn ask(&mut self, kind: RequestKind, without: Vec<HostName>) {
        let ear = self.coordinators.get(self.active).and_then(|shown| shown.ear.clone());
        if let Some(ear) = ear {
            let (reply, _) = oneshot::channel();
            // Whoever is not heard asks again, or does not.
            let _ = ear.try_send((Request { kind, by: "eve".to_owned(), reason: None, without }, reply));
        }
    }

    /// What a person types who does not wait for an agent that holds the open release: back with it, and then without that agent.
    /// Whether it is really not there is found out as the coordinator finds it out.
    fn without_the_silent(&self) -> Option<(RequestKind, Vec<HostName>)> {
        let open = folded(self).into_iter().find(|state| state.outcome().is_none());
        let open = open.filter(|_| self.scenario.leaves_out)?;
        let heard = |host: &crate::host::Host| if host.up { Heard::Answer } else { Heard::Silence };
        let heard = self.hosts.iter().map(|host| (host.name.clone(), heard(host))).collect();
        let gone = |host: &HostName| left_out::gone(&open, std::slice::from_ref(host), &heard).is_ok();
        if let Some(host) = left_out::candidates(&open).into_iter().find(gone) {
            return Some((RequestKind::Resume, vec![host]));
        }
        let Phase::Held { why, .. } = &open.phase else { return None };
        let silent = why.host.as_ref().is_some_and(|host| heard.get(host) == Some(&Heard::Silence));
        let back = [RequestKind::Abort, RequestKind::Rollback].into_iter();
        let mut back = back.filter(|kind| silent && machine::possible(&open, *kind).is_ok());
        back.next().map(|kind| (kind, Vec::new()))
    }

    /// A person comes to a release that is held, once nothing is wrong any more.
    fn attend(&mut self) {
        if self.idle || !matches!(self.shown, Some(Phase::Held { .. })) {
            return;
        }
        if self.helped >= HELPED_AT_MOST {
            self.left = true;
            return;
        }
        self.later(5_000, Happening::Attend);
        if let Some((kind, without)) = self.without_the_silent() {
            self.tell(|| format!("a person does not wait: {} without {without:?}", kind.as_str()));
            return self.ask(kind, without);
        }
        if self.troubles > 0 {
            return;
        }
        // Nothing but the newest journal helps here, and that is gone.
        let knows_more = matches!(&self.shown, Some(Phase::Held { why, .. }) if opening::knows_more(why));
        let accepts = knows_more && self.may_accept();
        let shown = self.coordinators.get_mut(self.active).filter(|_| accepts);
        if let Some(accept) = shown.and_then(|shown| shown.accept.take()) {
            // Whoever is not heard asks again, or does not.
            let _ = accept.send(());
            return;
        }
        if self.helped == SEEN_TO_AFTER {
            (self.scenario.net, self.scenario.clumsy) = (Net::default(), 0);
            self.hosts.iter_mut().for_each(crate::host::Host::mend);
        }
        self.helped += 1;
        // People set clocks right before they try again.
        self.truth.set_back_ms += self.clock_off.max(0).unsigned_abs();
        self.clock_off = 0;
        self.hosts.iter_mut().for_each(|host| host.clock_off = 0);
        let wanted = [RequestKind::Resume, RequestKind::Resume, RequestKind::Rollback, RequestKind::Abort];
        let index = usize::try_from(self.helped).unwrap_or(0) % wanted.len();
        let open = folded(self).into_iter().find(|state| state.outcome().is_none());
        let possible =
            |kind: &RequestKind| open.is_some_and(|state| machine::possible(&state, *kind).is_ok());
        let kind = wanted.get(index).copied().filter(possible).unwrap_or(RequestKind::Resume);
        self.tell(|| format!("a person comes: {}", kind.as_str()));
        self.ask(kind, Vec::new());
    }
}
