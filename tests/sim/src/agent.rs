//! Agents: they fence, keep receipts and do one thing after the other. Whether an order may act is decided by the same
//! function as in the real ones.

use std::hash::{Hash as _, Hasher};
use std::sync::Arc;

use pointsman_core::receipt::{self, Admission, Fate, Fence, Incoming};
use pointsman_core::route_change::Lease;
use pointsman_core::{
    Action, Aftermath, CheckSeen, CheckVerdict, Code, Epoch, Evidence, Migrations, Order, OrderDigest,
    Problem, Route, Step, Timestamp,
};

use crate::guard::Guard;
use crate::host::{Job, Web};
use crate::network::{Call, Message, Sent, Told, Word};
use crate::scenario::{Accepts, Met};
use crate::world::{BEGINNING, Happening, Who, World};

/// How a job goes on.
pub enum Go {
    /// Again after so many milliseconds.
    Again(u64),
    /// It is over.
    End(Result<Evidence, Problem>),
}

/// Done, and something changed.
pub fn done() -> Go {
    Go::End(Ok(Evidence::default()))
}

/// Done: it was so already.
pub fn already() -> Go {
    Go::End(Ok(Evidence { already: true, ..Evidence::default() }))
}

/// It went wrong.
pub fn failed(code: Code, aftermath: Aftermath) -> Go {
    Go::End(Err(Problem::new(code, "it went wrong").aftermath(aftermath).retry_useful()))
}

impl World {
    /// A message reaches a host.
    pub fn arrive(&mut self, host: usize, message: Message) {
        if self.before_loss.get(message.from.coordinator).is_some_and(|last| message.from.number <= *last) {
            return;
        }
        let Some(agent) = self.hosts.get_mut(host) else { return };
        // Its connection ended with the process that lost its disk: nobody puts one in again within a connection's life.
        if message.disks_lost != agent.disks_lost {
            return;
        }
        if !agent.up {
            return self.refuse(host, message.call);
        }
        if let Some(inbox) = &mut agent.frozen {
            return inbox.push(message);
        }
        self.tell(|| match &message.word {
            Word::Fence(epoch) => format!("host {host} hears of epoch {epoch}"),
            Word::Describe => format!("host {host} is asked for its fence"),
            Word::Forget(accepted) => {
                format!(
                    "host {host} is to forget under epoch {}, for entry {}",
                    accepted.epoch, accepted.head_seq
                )
            }
            Word::Prepare(sent) => {
                format!("host {host} is to prepare {} {}", sent.order.release, sent.order.key.step)
            }
            Word::Order(sent) => {
                let order = &sent.order;
                format!(
                    "host {host} hears {} {} of epoch {} after entry {}",
                    order.release, order.key.step, order.epoch, sent.journal_seq
                )
            }
            Word::Observe(_) => format!("host {host} is asked to look"),
        });
        match message.word {
            Word::Fence(epoch) => self.fence(host, message.call, epoch),
            Word::Describe => {
                let fence = self.hosts.get(host).map(|agent| agent.fence).unwrap_or_default();
                self.answer(host, message.call, Told::Fenced(fence));
            }
            Word::Forget(accepted) => self.forget(host, message.call, accepted),
            Word::Prepare(sent) => self.prepare(host, message.call, &sent),
            Word::Order(sent) => self.hear(host, message.call, &sent),
            Word::Observe(action) => {
                let told = match self.look(host, &action, true) {
                    // What the gates said when they passed is noted, which nothing here depends on.
                    Ok(()) if self.is_gate(host, &action) => Told::Done(Evidence::default()),
                    Ok(()) => Told::Done(Evidence {
                        checks: made(&action, CheckVerdict::Passed),
                        ..Evidence::default()
                    }),
                    Err(problem) if problem.code == Code::CheckFailed => {
                        Told::Failed(problem.with_checks(made(&action, CheckVerdict::Failed)))
                    }
                    Err(problem) => Told::Failed(problem),
                };
                self.answer(host, message.call, told);
            }
        }
    }

    fn fence(&mut self, host: usize, call: Option<Call>, epoch: Epoch) {
        if self.point(Who::Agent(host)) {
            return;
        }
        let checks = self.stands(Guard::FenceCheck);
        let Some(agent) = self.hosts.get_mut(host) else { return };
        let permitted = receipt::still_rules(agent.fence.epoch, epoch);
        if let (Err(problem), true) = (permitted, checks) {
            return self.answer(host, call, Told::Failed(problem));
        }
        agent.fence.epoch = agent.fence.epoch.max(epoch);
        let fence = agent.fence;
        self.truth.acknowledged(host, epoch);
        if !self.point(Who::Agent(host)) {
            self.answer(host, call, Told::Fenced(fence));
        }
    }

    /// What it heard of the journal goes, receipts too, under an epoch that it has never heard of; what it has heard of from then
    /// on is the entry that is named.
    fn forget(&mut self, host: usize, call: Option<Call>, accepted: Fence) {
        if self.point(Who::Agent(host)) {
            return;
        }
        let epoch = accepted.epoch;
        let of_before = matches!(self.scenario.accepts, Accepts::Copied { met: Met::AgentsOfBefore, .. });
        let keeps = self.stands(Guard::AcceptedKept) && !of_before;
        let Some(agent) = self.hosts.get_mut(host) else { return };
        let newer = Epoch(agent.fence.epoch.0 + 1);
        if let Err(problem) = receipt::still_rules(newer, epoch) {
            return self.answer(host, call, Told::Failed(problem));
        }
        agent.fence = if keeps { accepted } else { Fence { epoch, ..Fence::default() } };
        agent.receipts.clear();
        agent.last = None;
        let (fence, name) = (agent.fence, agent.name.clone());
        self.truth.acknowledged(host, epoch);
        self.truth.forgotten(&name);
        if !self.point(Who::Agent(host)) {
            self.answer(host, call, Told::Fenced(fence));
        }
    }

    /// Takes an order in and looks whether it could be done.
    fn prepare(&mut self, host: usize, call: Option<Call>, sent: &Arc<Sent>) {
        if !self.admit(host, call, sent) {
            return;
        }
        let possible = match &sent.order.action {
            Action::SetRoute { expected, wanted, min_up, .. } => {
                self.route_is_possible(host, expected, wanted, *min_up)
            }
            _ => Ok(()),
        };
        let told = match possible {
            Ok(()) => {
                let now = self.now;
                if let Some(balancer) = self.hosts.get_mut(host).and_then(|host| host.balancer_mut()) {
                    let lease = Lease::of(&sent.order);
                    balancer.held = balancer.standing().cloned().map(|before| (lease, now, before));
                }
                self.truth.prepared(&sent.order, now);
                Told::Done(Evidence::default())
            }
            Err(problem) => {
                let key = (sent.order.release.clone(), sent.order.key.step);
                if let Some(agent) = self.hosts.get_mut(host) {
                    agent.receipts.remove(&key);
                }
                Told::Failed(problem)
            }
        };
        if !self.point(Who::Agent(host)) {
            self.answer(host, call, told);
        }
    }

    fn hear(&mut self, host: usize, call: Option<Call>, sent: &Arc<Sent>) {
        self.leaves_the_database_alone(host, &sent.order);
        if !self.admit(host, call, sent) {
            return;
        }
        let key = (sent.order.release.clone(), sent.order.key.step);
        if self.chance.percent(self.scenario.clumsy) {
            if let Some(agent) = self.hosts.get_mut(host) {
                agent.receipts.remove(&key);
            }
            let problem = Problem::new(Code::FileSystem, "no room").retry_useful();
            return self.answer(host, call, Told::Failed(problem));
        }
        let mut waiting = vec![call];
        if !self.stands(Guard::EffectBeforeAnswer) {
            self.answer(host, call, Told::Done(Evidence::default()));
            waiting.clear();
        }
        self.begin(host, sent, waiting);
    }

    /// Whether an order is to be acted on now. Otherwise it is answered, waits for what is under way, or its host died.
    fn admit(&mut self, host: usize, call: Option<Call>, sent: &Arc<Sent>) -> bool {
        let order = &sent.order;
        if let Err(late) = self.in_time(host, order) {
            self.hear_late(host, sent);
            self.answer(host, call, Told::Failed(late));
            return false;
        }
        if self.point(Who::Agent(host)) {
            return false;
        }
        let (checks, overtakes) = (self.stands(Guard::FenceCheck), self.stands(Guard::Overtaken));
        let compares = self.stands(Guard::KeyReused);
        let Some(agent) = self.hosts.get_mut(host) else { return false };
        let key = (order.release.clone(), order.key.step);
        let mut fence = agent.fence;
        if !checks {
            fence.epoch = Epoch::default();
        }
        if !overtakes {
            fence.head_seq = 0;
        }
        let under_way = agent
            .jobs
            .iter_mut()
            .find(|job| job.sent.order.key == order.key && job.sent.order.release == order.release);
        if let Some(job) = under_way {
            let same = receipt::still_rules(fence.epoch, order.epoch).and_then(|()| {
                let reused = || Problem::new(Code::KeyReused, "the step is running with another content");
                if compares && job.sent.digest != sent.digest { Err(reused()) } else { Ok(()) }
            });
            match same {
                // What is under way goes on in the name of the newest coordinator.
                Ok(()) => {
                    job.waiting.push(call);
                    if order.epoch >= job.sent.order.epoch {
                        job.sent = Arc::clone(sent);
                    }
                }
                Err(problem) => self.answer(host, call, Told::Failed(problem)),
            }
            return false;
        }
        let incoming = Incoming { epoch: order.epoch, journal_seq: sent.journal_seq, digest: sent.digest };
        let kept = agent.receipts.get(&key).cloned();
        let said = kept.as_ref().map(|(digest, _)| *digest);
        let compared = kept.map(|(digest, fate)| (if compares { digest } else { sent.digest }, fate));
        match receipt::admit(&fence, compared, &incoming) {
            Err(problem) => {
                self.answer(host, call, Told::Failed(problem));
                return false;
            }
            Ok(Admission::Done(evidence)) => {
                agent.fence.epoch = agent.fence.epoch.max(order.epoch);
                if sent.journal_seq >= agent.fence.head_seq {
                    (agent.fence.head_seq, agent.fence.head_hash) = (sent.journal_seq, sent.journal_hash);
                }
                self.truth.acknowledged(host, order.epoch);
                self.truth_of_receipt(host, sent, said);
                self.answer(host, call, Told::Done(evidence));
                return false;
            }
            Ok(Admission::Act) => {}
        }
        agent.fence.epoch = agent.fence.epoch.max(order.epoch);
        let head = agent.fence;
        if sent.journal_seq >= head.head_seq {
            (agent.fence.head_seq, agent.fence.head_hash) = (sent.journal_seq, sent.journal_hash);
        }
        agent.receipts.insert(key, (sent.digest, Fate::Started));
        agent.last = Some(Arc::clone(sent));
        self.truth.acknowledged(host, order.epoch);
        self.newest(host, sent, &head);
        !self.point(Who::Agent(host))
    }

    /// An order that comes too late was heard of: a copy of it is too late as well, whatever the clock says then.
    fn hear_late(&mut self, host: usize, sent: &Sent) {
        let Some(agent) = self.hosts.get_mut(host) else { return };
        if agent.fence.epoch <= sent.order.epoch && agent.fence.head_seq < sent.journal_seq {
            let (epoch, head_seq) = (sent.order.epoch, sent.journal_seq);
            agent.fence = Fence { epoch, head_seq, head_hash: sent.journal_hash };
            self.truth.acknowledged(host, epoch);
        }
    }

    /// Whether an order comes in time by the clock of its host. One that leads back is never refused for it.
    fn in_time(&mut self, host: usize, order: &Order) -> Result<(), Problem> {
        let off = self.hosts.get(host).map_or(0, |agent| agent.clock_off);
        let now = Timestamp(BEGINNING.0.saturating_add(self.now).saturating_add_signed(off));
        let in_time = match self.stands(Guard::BackNeverLate) {
            true => receipt::in_time(order, now),
            false => receipt::in_time(&Order { leads_back: false, ..order.clone() }, now),
        };
        if in_time.is_err() && matches!(order.key.step, Step::RouteBack | Step::LinkBack | Step::Unmaintain) {
            self.broken("I8", || {
                format!("host {host} keeps {} from leading back: it is late", order.key.step)
            });
        }
        in_time
    }

    /// The order that an agent took in last, and keeps a receipt of, comes once more with another content. Nobody waits for
    /// the answer.
    pub fn contradict(&mut self, host: usize) {
        let Some(agent) = self.hosts.get(host).filter(|agent| agent.up && agent.frozen.is_none()) else {
            return;
        };
        let kept = |last: &&Arc<Sent>| {
            agent.receipts.contains_key(&(last.order.release.clone(), last.order.key.step))
        };
        let Some(last) = agent.last.as_ref().filter(kept).cloned() else { return };
        let Some(mut order) = contradiction(&last.order) else { return };
        let seq = self.store.newest();
        (order.epoch, order.deadline) = (agent.fence.epoch, Timestamp(BEGINNING.0.saturating_add(self.now)));
        let sent = Sent {
            digest: digest(&order),
            order,
            journal_seq: seq,
            journal_hash: self.store.hash(seq).unwrap_or_default(),
            only_prepared: false,
            from: last.from,
            losses: self.store.losses,
        };
        let (disks_lost, word) = (agent.disks_lost, Word::Order(Arc::new(sent)));
        self.arrive(host, Message { call: None, from: last.from, disks_lost, word });
    }

    fn begin(&mut self, host: usize, sent: &Arc<Sent>, waiting: Vec<Option<Call>>) {
        let (job, began, ms) = (self.number(), self.now, self.chance.between(1, 6));
        let Some(agent) = self.hosts.get_mut(host) else { return };
        agent.jobs.push(Job {
            number: job,
            sent: Arc::clone(sent),
            waiting,
            stage: 0,
            began,
            changed: false,
            told: 0,
            confirms: None,
            before: None,
        });
        let number = agent.number;
        self.later(ms, Happening::Job { host, number, job });
    }

    /// A job on a host goes on.
    pub fn work(&mut self, host: usize, number: u32, job: u64) {
        let Some(agent) = self.hosts.get(host).filter(|agent| agent.up && agent.number == number) else {
            return;
        };
        if agent.frozen.is_some() {
            return self.later(100, Happening::Job { host, number, job });
        }
        let Some(at) = agent.jobs.iter().position(|known| known.number == job) else { return };
        let changes =
            |job: &Job| !job.sent.order.action.only_looks() && job.sent.order.key.step != Step::Drain;
        // One change at a time, in the order of their coming.
        if agent.jobs.get(at).is_some_and(changes) && agent.jobs.iter().take(at).any(changes) {
            return self.later(3, Happening::Job { host, number, job });
        }
        let Some(sent) = agent.jobs.get(at).map(|job| Arc::clone(&job.sent)) else { return };
        let go = match &sent.order.action {
            Action::InspectHost { .. } | Action::InspectBalancer { .. } | Action::InspectDatabase { .. } => {
                Go::End(self.look(host, &sent.order.action, false).map(|()| Evidence::default()))
            }
            Action::ProbeHost { .. } => self.probe_host(host, job, &sent),
            Action::ProbeBalancer { .. } => self.probe_balancer(host, job, &sent),
            Action::Stage { artifact } => self.stage(host, job, &sent, *artifact),
            Action::Discard { artifact } => self.discard(host, &sent, *artifact),
            Action::Activate { artifact, .. } => self.activate(host, job, &sent, *artifact),
            Action::SetFlag { on } => self.set_flag(host, &sent, *on),
            Action::BackUp { .. } => self.back_up(host, job, &sent),
            Action::VerifyBackup { backup, .. } => self.verify_backup(host, backup),
            Action::Rehearse { migrations } => self.rehearse(host, job, &sent, migrations),
            Action::Migrate { migrations } => self.migrate(host, job, &sent, migrations),
            Action::Restore { backup, accept_loss } => self.restore(host, job, &sent, (backup, *accept_loss)),
            Action::SettleRestore { .. } => self.settle_restore(host, &sent),
            Action::SwapDatabase { to, .. } => self.swap(host, job, &sent, to),
            Action::Drain { backend, timeout_ms, .. } => self.drain(host, job, backend, *timeout_ms),
            Action::SetRoute { expected, wanted, min_up, .. } => {
                self.set_route(host, job, &sent, (expected, wanted, *min_up))
            }
        };
        self.one_is_live(host);
        // It may have crashed at a point on the way.
        if self.hosts.get(host).is_none_or(|agent| !agent.up || agent.number != number) {
            return;
        }
        match go {
            Go::Again(ms) => self.later(ms, Happening::Job { host, number, job }),
            Go::End(result) => self.settle(host, job, &sent, result),
        }
    }

    /// Makes the answer durable, and only then gives it.
    fn settle(&mut self, host: usize, job: u64, sent: &Sent, result: Result<Evidence, Problem>) {
        if self.point(Who::Agent(host)) {
            return;
        }
        let order = &sent.order;
        let Some(agent) = self.hosts.get_mut(host) else { return };
        let key = (order.release.clone(), order.key.step);
        match &result {
            Ok(_) if order.action.only_looks() => drop(agent.receipts.remove(&key)),
            Ok(evidence) => {
                agent.receipts.insert(key, (sent.digest, Fate::Done(evidence.clone())));
            }
            Err(problem) if problem.aftermath == Aftermath::Unchanged => drop(agent.receipts.remove(&key)),
            Err(_) => {}
        }
        let place = agent.jobs.iter().position(|known| known.number == job);
        let waiting = place.map(|place| agent.jobs.remove(place).waiting).unwrap_or_default();
        if result.is_ok() {
            self.truth_of_answer(host, order);
        }
        self.tell(|| match &result {
            Ok(evidence) => format!(
                "host {host} has done {} {}{}",
                order.release,
                order.key.step,
                if evidence.already { " already" } else { "" }
            ),
            Err(problem) => format!(
                "host {host} failed {} {}: {} {:?}",
                order.release, order.key.step, problem.code, problem.aftermath
            ),
        });
        if self.point(Who::Agent(host)) {
            return;
        }
        for call in waiting {
            let told = match &result {
                Ok(evidence) => Told::Done(evidence.clone()),
                Err(problem) => Told::Failed(problem.clone()),
            };
            self.answer(host, call, told);
        }
    }

    /// Looks again whether the coordinator of an order still rules, right before a visible change.
    pub fn rules(&self, host: usize, sent: &Sent) -> Result<(), Problem> {
        let checks = self.stands(Guard::EpochRecheck) && self.stands(Guard::FenceCheck);
        match self.hosts.get(host) {
            Some(agent) if checks => receipt::still_rules(agent.fence.epoch, sent.order.epoch),
            _ => Ok(()),
        }
    }

    /// Whether this is asked of the slot that is being released. What the old one says lets nothing go on.
    fn is_gate(&self, host: usize, action: &Action) -> bool {
        let Some(plan) = self.truth.unfinished().and_then(|release| self.plans.get(release)) else {
            return true;
        };
        match action {
            Action::ProbeBalancer { backend, .. } => *backend == plan.to.backend,
            Action::ProbeHost { .. } => {
                self.hosts.get(host).is_some_and(|host| plan.to.hosts.contains(&host.name))
            }
            _ => true,
        }
    }

    /// Looks, and changes nothing.
    pub fn look(&mut self, host: usize, action: &Action, after_switch: bool) -> Result<(), Problem> {
        let seen = match action {
            Action::InspectBalancer { expected, .. } => {
                let standing = self.hosts.get(host).and_then(|host| host.balancer()?.standing());
                if standing == Some(expected) { Ok(()) } else { Err(Code::RouteDrift) }
            }
            Action::InspectDatabase { .. } => {
                let server = self.hosts.get(host).and_then(|host| host.server());
                let open = server.and_then(|server| server.live()).is_some_and(|(_, live)| live.open);
                if open { Ok(()) } else { Err(Code::DatabaseUnreachable) }
            }
            Action::ProbeHost { artifact, .. } => {
                let now = self.now;
                let web = self.hosts.get(host).and_then(|host| host.web());
                let holds = |web: &&Web| artifact.is_none_or(|artifact| web.holds(artifact));
                if self.stands(Guard::HostHolds) && web.is_some_and(|web| !holds(&web)) {
                    return Err(Problem::new(Code::NotHeld, "it is not what was brought"));
                }
                let fine = web.is_some_and(|web| web.healthy(now) && !self.fails(web.current, after_switch));
                if fine { Ok(()) } else { Err(Code::CheckFailed) }
            }
            Action::ProbeBalancer { backend, epoch, min_up, .. } => {
                let standing = self.hosts.get(host).and_then(|host| host.balancer()?.standing());
                let shown = standing.map(|route| route.epoch);
                let versions: Vec<_> = self
                    .hosts
                    .iter()
                    .filter_map(|host| host.web().filter(|web| web.backend == *backend)?.current)
                    .collect();
                if shown.is_none() {
                    return Err(Problem::new(Code::RuntimeSocketUnreachable, "HAProxy does not answer")
                        .retry_useful());
                } else if shown != Some(*epoch) {
                    Err(Code::RouteNotSeen)
                } else if self.healthy(backend) < *min_up {
                    Err(Code::BackendUnhealthy)
                } else if versions.iter().any(|version| self.fails(Some(*version), after_switch)) {
                    Err(Code::CheckFailed)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        };
        if after_switch && self.is_gate(host, action) {
            self.truth.looked(host, self.now, seen.is_ok());
        }
        seen.map_err(|code| Problem::new(code, "not as it should be"))
    }
}

/// The checks that an action asks for, all with the same verdict: a version passes them, or it does not.
fn made(action: &Action, verdict: CheckVerdict) -> Vec<CheckSeen> {
    let (Action::ProbeHost { checks, .. } | Action::ProbeBalancer { checks, .. }) = action else {
        return Vec::new();
    };
    checks.iter().map(|check| CheckSeen::new(check.name.clone(), verdict, 1, "seen")).collect()
}

/// FNV-1a (Fowler, Noll, Vo): the same on every machine, and nobody here looks for collisions.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What an order says: everything but attempt, epoch and deadline, as in the real agents.
pub fn digest(order: &Order) -> OrderDigest {
    let mut hasher = Fnv(0xCBF2_9CE4_8422_2325);
    (&order.release, &order.key, &order.action).hash(&mut hasher);
    let mut bytes = [0_u8; 32];
    for (to, from) in bytes.iter_mut().zip(hasher.finish().to_be_bytes()) {
        *to = from;
    }
    OrderDigest::from_bytes(bytes)
}

/// An order with the same key that says something else; none where that makes no difference to what stands afterwards.
fn contradiction(order: &Order) -> Option<Order> {
    let another = crate::site::version(usize::from(u8::MAX));
    let action = match &order.action {
        Action::Stage { .. } => Action::Stage { artifact: another },
        Action::Activate { artifact, activation } => {
            let artifact = if artifact.is_some() { None } else { Some(another) };
            Action::Activate { artifact, activation: activation.clone() }
        }
        Action::SetFlag { on } => Action::SetFlag { on: !on },
        Action::Migrate { migrations } => {
            let migrations = Migrations { artifact: another, ..migrations.clone() };
            Action::Migrate { migrations }
        }
        Action::SetRoute { expected, wanted, min_up, back } => {
            let wanted =
                Route { stable: wanted.canary.clone(), canary: wanted.stable.clone(), ..wanted.clone() };
            Action::SetRoute { expected: expected.clone(), wanted, min_up: *min_up, back: *back }
        }
        _ => return None,
    };
    Some(Order { action, ..order.clone() }).filter(|other| other.action != order.action)
}
