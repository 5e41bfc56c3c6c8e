//! What is really so, seen from outside the agents and the coordinator, and the rules it must keep. Looked at whenever
//! anything changes, and once more when everything is at rest.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::receipt::Fence;
use pointsman_core::verdict::Verdict;
use pointsman_core::{
    Action, ArtifactDigest, Code, Epoch, Event, HostName, MigrationPhase, Order, OrderDigest, OrderKey,
    Outcome, Phase, Plan, Problem, Purpose, ReleaseId, RequestKind, Route, State, Step, SwapTo, Timestamp,
};

use crate::host::{Balancer, Web};
use crate::network::Sent;
use crate::server::{Database, Restore, Versions};
use crate::world::{Life, World};

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant: `I1` ...
    pub rule: &'static str,
    /// What was found.
    pub what: String,
}

/// A change that somebody outside could see.
#[derive(Clone, Copy, Debug)]
pub enum Effect<'a> {
    /// An artifact is named complete.
    Staged,
    /// What an unfinished transfer left is gone.
    Discarded(ArtifactDigest),
    /// `current` moved.
    Link(Option<ArtifactDigest>),
    /// The server was started anew.
    Restarted,
    /// The maintenance file came or went.
    Flag(bool),
    /// A route reached the disk.
    OnDisk(&'a Route),
    /// A route reached the worker that takes new connections.
    InWorker {
        /// What stood before.
        before: &'a Route,
        /// What stands now.
        wanted: &'a Route,
    },
    /// A backup is there.
    BackedUp,
    /// A version of migrations takes effect.
    Migrated {
        /// Which.
        version: u8,
        /// Which of its files.
        phase: MigrationPhase,
    },
    /// A backup stands restored beside the live database.
    Restored,
    /// Another database is live.
    Swapped {
        /// Rows that are lost by it.
        loss: u64,
        /// Rows that a person gives up.
        accepted: u64,
    },
    /// A database goes.
    Dropped,
}

/// What was lost by some moment: the host's disks, and ends of the journal.
#[derive(Clone, Copy, Debug)]
struct Lost {
    receipts: u32,
    tails: u32,
}

/// What only somebody who sees everything can know.
#[derive(Debug, Default)]
pub struct Truth {
    /// The highest epoch that each agent has acknowledged.
    acknowledged: Vec<Epoch>,
    /// Every intent that was ever recorded: release, order, attempt and epoch.
    intents: BTreeSet<(ReleaseId, OrderKey, u32, Epoch)>,
    /// Orders that were really done, each with how many disks its host had lost by then.
    done: BTreeMap<(ReleaseId, OrderKey), u32>,
    /// How often an order changed the same thing, and what was lost by the first time.
    changes: BTreeMap<(ReleaseId, OrderKey, &'static str), (u32, Lost)>,
    /// Which coordinator had effects in an epoch.
    ruled: BTreeMap<Epoch, Life>,
    /// When each host's own checks last passed, and with what.
    locally: BTreeMap<usize, (Option<ArtifactDigest>, u64)>,
    /// When the checks through each load balancer last passed for a release.
    through: BTreeMap<(usize, ReleaseId), u64>,
    /// When each host's gate was last seen well.
    well: BTreeMap<usize, u64>,
    /// When gates were looked at in this watch.
    readings: Vec<u64>,
    /// The release that is not over.
    unfinished: Option<ReleaseId>,
    /// Orders that a load balancer was ready for.
    prepared: BTreeSet<(ReleaseId, OrderKey)>,
    /// Since when its agent is ready for which try of them.
    ready_at: BTreeMap<(ReleaseId, OrderKey, u32, Epoch), u64>,
    /// The step that moved visitors last.
    moved_by: Option<Step>,
    /// A person asked for the end of the watch.
    promoted: bool,
    /// What was judged last in this watch was a proof.
    proven: bool,
    /// Versions of migrations that were rehearsed for a release.
    pub rehearsed: BTreeMap<ReleaseId, Versions>,
    /// A restored database was ever put in the live one's place.
    pub swapped: bool,
    /// Hosts that were put back to an older disk, and when.
    put_back: BTreeMap<usize, u64>,
    /// Releases that were open when a person accepted the journal.
    void: BTreeSet<ReleaseId>,
    /// Hosts whose agents have forgotten since then.
    forgot: BTreeSet<HostName>,
    /// Releases that have turned back.
    turned: BTreeSet<ReleaseId>,
    /// Hosts that a person left out of a release's way back.
    left_out: BTreeMap<ReleaseId, BTreeSet<HostName>>,
    /// For how long the disk held back what is recorded just now.
    pub late_ms: u64,
    /// How far the clock was set back in all.
    pub set_back_ms: u64,
    /// Since when the release that is shown has been where it is, or was let go on there.
    trying: Option<(Phase, Timestamp, u64)>,
}

impl Truth {
    /// Nothing has happened yet.
    pub fn new(hosts: usize) -> Self {
        Self { acknowledged: vec![Epoch::default(); hosts], ..Self::default() }
    }

    /// An agent acknowledged an epoch.
    pub fn acknowledged(&mut self, host: usize, epoch: Epoch) {
        if let Some(known) = self.acknowledged.get_mut(host) {
            *known = (*known).max(epoch);
        }
    }

    /// An agent lost its disk. Nobody can hold it to what it acknowledged there.
    pub fn disk_lost(&mut self, host: usize) {
        if let Some(known) = self.acknowledged.get_mut(host) {
            *known = Epoch::default();
        }
    }

    /// A load balancer is ready for an order.
    pub fn prepared(&mut self, order: &Order, now: u64) {
        let attempt = (order.release.clone(), order.key.clone(), order.attempt, order.epoch);
        self.ready_at.insert(attempt, now);
        self.prepared.insert((order.release.clone(), order.key.clone()));
    }

    /// An agent died: whatever it was ready for, the next one is not.
    pub fn agent_died(&mut self, host: &HostName) {
        self.ready_at.retain(|(_, key, ..), _| key.host != *host);
    }

    /// A host's own checks passed.
    pub fn passed_locally(&mut self, host: usize, current: Option<ArtifactDigest>, now: u64) {
        self.locally.insert(host, (current, now));
    }

    /// The checks through a load balancer passed.
    pub fn passed_through(&mut self, host: usize, release: &ReleaseId, now: u64) {
        self.through.insert((host, release.clone()), now);
    }

    /// The release that is not over.
    pub fn unfinished(&self) -> Option<&ReleaseId> {
        self.unfinished.as_ref()
    }

    /// A gate of the watch was looked at, and was well or not.
    pub fn looked(&mut self, host: usize, now: u64, well: bool) {
        if well {
            self.well.insert(host, now);
        }
        self.readings.push(now);
    }

    /// An order took back what it had written.
    pub fn taken_back(&mut self, sent: &Sent) {
        let order = &sent.order;
        self.changes.remove(&(order.release.clone(), order.key.clone(), "map"));
    }

    /// A starting agent took back what orders had written to its host's disk.
    pub fn disk_taken_back(&mut self, host: &HostName) {
        self.changes.retain(|(_, key, what), _| *what != "map" || key.host != *host);
    }

    /// The journal lost its tail: what was over may be open again, and a promotion that stands in what is left of it is
    /// still to happen, also where it had happened before. A hold that somebody ended after what is left stands again.
    pub fn forget(&mut self, promoted: bool) {
        self.unfinished = None;
        self.trying = None;
        self.promoted = promoted;
    }

    /// A host was put back to an older disk. What it holds at rest nobody ordered, and what was done there is to be done anew.
    pub fn put_back(&mut self, host: usize, name: &HostName, now: u64) {
        self.put_back.insert(host, now);
        self.changes.retain(|(_, key, _), _| key.host != *name);
    }

    /// An agent forgot what it had heard of: what it did it may be asked for anew, by releases of a journal that knows
    /// nothing of it.
    pub fn forgotten(&mut self, host: &HostName) {
        self.changes.retain(|(_, key, _), _| key.host != *host);
        self.done.retain(|(_, key), _| key.host != *host);
        self.forgot.insert(host.clone());
    }

    /// A person accepted the journal as it is: these releases were open.
    fn adopted(&mut self, open: impl Iterator<Item = ReleaseId>) {
        self.void.extend(open);
        self.forgot.clear();
        self.unfinished = None;
        (self.promoted, self.proven) = (false, false);
        self.readings.clear();
    }

    /// A release is shown by its coordinator. Where it stands elsewhere now, or was let go on, returns where it stood and for how
    /// long it was tried to get on from there.
    pub fn stands(&mut self, state: &State, now: u64) -> Option<(Phase, u64)> {
        let same = |(phase, since, _): &(Phase, Timestamp, u64)| {
            *phase == state.phase && *since == state.fencing_since
        };
        if self.trying.as_ref().is_some_and(same) {
            return None;
        }
        let before = self.trying.replace((state.phase.clone(), state.fencing_since, now));
        before.map(|(phase, _, since)| (phase, now.saturating_sub(since)))
    }

    /// A release is over.
    pub fn over(&mut self, release: &ReleaseId) {
        if self.unfinished.as_ref() == Some(release) {
            self.unfinished = None;
        }
    }

    /// Milliseconds of the last watch in which somebody looked.
    fn watched_ms(&self, longest_ms: u64) -> u64 {
        let pairs = self.readings.windows(2).filter_map(|pair| match pair {
            [earlier, later] => Some(later.saturating_sub(*earlier)),
            _ => None,
        });
        pairs.filter(|gap| *gap <= longest_ms).sum()
    }
}

impl World {
    /// Looks at a visible change at the moment it happens.
    pub fn effect(&mut self, host: usize, sent: &Sent, effect: &Effect<'_>) {
        let order = &sent.order;
        self.tell(|| format!("host {host}: {effect:?} by {} {}", order.release, order.key.step));
        let acknowledged = self.truth.acknowledged.get(host).copied().unwrap_or_default();
        if order.epoch < acknowledged {
            let epoch = order.epoch;
            self.broken("I4", || {
                format!("host {host} acknowledged epoch {acknowledged}, and epoch {epoch} acts")
            });
        }
        let ruled = *self.truth.ruled.entry(order.epoch).or_insert(sent.from);
        // A journal that was put back to an older copy counts epochs anew.
        if ruled != sent.from && self.store.losses == 0 {
            self.broken("I4", || format!("{ruled:?} and {:?} act in one epoch", sent.from));
        }
        let intent = (order.release.clone(), order.key.clone(), order.attempt, order.epoch);
        if !self.truth.intents.contains(&intent) {
            self.broken("I12", || format!("an effect of {intent:?}, which nobody recorded"));
        }
        let Some(plan) = self.plans.get(&order.release).cloned() else {
            return self.broken("I12", || format!("an effect of {}, which was never planned", order.release));
        };
        let name = self.hosts.get(host).map(|host| host.name.clone());
        if self.truth.void.contains(&order.release) && self.truth.forgot.contains(&order.key.host) {
            self.broken("I3b", || format!("{} is void, and goes on at host {host}", order.release));
        }
        let old_slot = plan.from.as_ref().filter(|_| matches!(plan.purpose, Purpose::Deploy { .. }));
        if old_slot.is_some_and(|slot| name.is_some_and(|name| slot.hosts.contains(&name))) {
            self.broken("I8", || {
                format!("{} touches host {host} of the slot it would go back to", order.release)
            });
        }
        self.effect_of_its_kind(host, order, &plan, effect);
    }

    /// I3b: an order comes from a journal that holds what the agent has heard of.
    pub fn newest(&mut self, host: usize, sent: &Sent, head: &Fence) {
        let known = self.store.hash(head.head_seq);
        let since = sent.losses == self.store.losses && !sent.order.action.only_looks();
        if since && head.head_seq > 0 && known != Some(head.head_hash) {
            let seq = head.head_seq;
            self.broken("I3b", || {
                format!("host {host} has heard of entry {seq}, which this journal does not have")
            });
        }
    }

    fn effect_of_its_kind(&mut self, host: usize, order: &Order, plan: &Plan, effect: &Effect<'_>) {
        let web = self.hosts.get(host).and_then(|host| host.web());
        match effect {
            Effect::Staged => self.once(host, order, "tree"),
            Effect::Discarded(artifact) => {
                if web.is_some_and(|web| web.current == Some(*artifact)) {
                    self.broken("I9", || format!("host {host} dropped what it serves"));
                }
            }
            Effect::Link(artifact) => {
                let whole = |web: &Web| {
                    artifact.is_none_or(|artifact| web.trees.get(&artifact).is_some_and(|tree| tree.whole))
                };
                if !web.is_some_and(whole) {
                    self.broken("I9", || format!("host {host} serves a tree that is not whole"));
                }
                if !matches!(&order.action, Action::Activate { artifact: wanted, .. } if wanted == artifact) {
                    self.broken("I9", || format!("host {host} serves nothing for a while"));
                }
                self.nobody_is_served(host);
                self.schema_is_there(host, order);
                self.once(host, order, "link");
            }
            Effect::Restarted => {
                let key = (order.release.clone(), order.key.clone());
                // Without its receipts an agent cannot know, and begins once more where nobody is served.
                if self.truth.done.get(&key) == Some(&self.receipts_lost(host)) {
                    self.broken("I5", || format!("{key:?} was done, and is done again"));
                }
                self.nobody_is_served(host);
            }
            Effect::Flag(_) => {
                if !matches!(plan.purpose, Purpose::Maintenance { .. }) {
                    self.broken("I10", || format!("{} changes the maintenance file", order.release));
                }
                self.once(host, order, "flag");
            }
            Effect::OnDisk(_) => self.once(host, order, "map"),
            Effect::InWorker { before, wanted } => {
                self.all_ready(order, plan);
                self.fits_whoever_is_served("a move of visitors");
                let slot = &plan.to.backend;
                let Purpose::Deploy { artifact } = plan.purpose else { return };
                if order.key.step.moves_visitors() && wanted.share_of(slot) > before.share_of(slot) {
                    self.gate(order, plan, artifact);
                }
            }
            Effect::BackedUp => {
                let server = self.hosts.get(host).and_then(|host| host.server());
                if server.is_some_and(|server| server.backup_of(&order.release).is_some()) {
                    self.broken("I5", || format!("{} takes another backup", order.release));
                }
            }
            Effect::Migrated { version, phase } => self.applied(host, order, *version, *phase),
            Effect::Swapped { loss, accepted } => self.loses_no_more(order, *loss, *accepted),
            Effect::Restored | Effect::Dropped => {}
        }
    }

    fn once(&mut self, host: usize, order: &Order, what: &'static str) {
        let key = (order.release.clone(), order.key.clone(), what);
        let lost = Lost { receipts: self.receipts_lost(host), tails: self.store.losses };
        let (times, before) = self.truth.changes.entry(key).or_insert((0, lost));
        // Where the journal lost the entry and the host its receipt nobody can know, and what was changed back since by
        // orders that are forgotten as well is changed again.
        if lost.receipts > before.receipts && lost.tails > before.tails {
            (*times, *before) = (0, lost);
        }
        *times += 1;
        if *times > 1 {
            self.broken("I5", || format!("{} {} changed the {what} again", order.release, order.key.step));
        }
    }

    /// Whether visitors are served on a host.
    pub fn is_served(&self, host: usize) -> bool {
        let backend = self.hosts.get(host).and_then(|host| Some(&host.web()?.backend));
        let Some(backend) = backend else { return false };
        self.hosts.iter().filter_map(|host| host.balancer()).any(|balancer| {
            balancer.standing().is_some_and(|route| route.share_of(backend) > 0)
                || balancer.busy_until.get(backend).is_some_and(|until| *until > self.now)
        })
    }

    /// I1: what is changed on a host is changed while nobody is served there.
    fn nobody_is_served(&mut self, host: usize) {
        if self.is_served(host) {
            self.broken("I1", || format!("host {host} is changed while visitors are served there"));
        }
    }

    /// I1: what all load balancers do together none of them begins before every one was ready for it.
    fn all_ready(&mut self, order: &Order, plan: &Plan) {
        if !order.key.step.together() || plan.balancers.len() < 2 {
            return;
        }
        let unready = plan.balancers.iter().find(|host| {
            let key = OrderKey { step: order.key.step, host: (*host).clone() };
            !self.truth.prepared.contains(&(order.release.clone(), key))
        });
        if let Some(unready) = unready {
            let (host, step) = (&order.key.host, order.key.step);
            self.broken("I1", || format!("`{host}` moves visitors in {step} before `{unready}` was ready"));
        }
    }

    /// I2b: what is taken because all were ready, this one was ready for a moment ago, for just that.
    pub fn still_ready(&mut self, host: usize, order: &Order) {
        let attempt = (order.release.clone(), order.key.clone(), order.attempt, order.epoch);
        let ready_ms = self.truth.ready_at.get(&attempt).map(|at| self.now.saturating_sub(*at));
        if ready_ms.is_none_or(|ms| ms > 10_000) {
            self.broken("I2b", || format!("host {host} takes {attempt:?}, ready {ready_ms:?} ms ago"));
        }
    }

    /// I2: visitors are moved on the strength of checks that passed, on every host, not long ago, with this artifact.
    fn gate(&mut self, order: &Order, plan: &Plan, artifact: ArtifactDigest) {
        // An agent that stood still takes an order for a while after its deadline, as one does whose clock is a little ahead.
        let late_ms = self.wall().ms_since(order.deadline).min(30_000);
        let longest_ms = plan
            .limits
            .gate_ttl_ms
            .min(60_000)
            .saturating_add(plan.limits.route_ms)
            .saturating_add(late_ms)
            .saturating_add(self.truth.set_back_ms);
        let (now, all) = (self.now, |names: &[HostName]| -> Vec<usize> {
            names.iter().filter_map(|name| self.host_named(name)).collect()
        });
        let (hosts, balancers) = (all(&plan.to.hosts), all(&plan.balancers));
        for host in hosts {
            let current = self.hosts.get(host).and_then(|host| host.web()?.current);
            let passed = self.truth.locally.get(&host).copied();
            let checked = passed.filter(|(what, _)| *what == Some(artifact)).map(|(_, at)| at);
            // Behind a split its watch counts as well: it looks again and again.
            let watched = self.truth.well.get(&host).copied();
            let green = checked.max(watched).is_some_and(|at| now <= at + longest_ms);
            // What happens to a host between its last look and the move the next look finds.
            let looked = checked.max(watched);
            let since = self.truth.put_back.get(&host).is_some_and(|at| looked < Some(*at));
            if !green || (current != Some(artifact) && !since) {
                self.broken("I2", || {
                    format!("visitors are moved, and host {host} passed {passed:?} with {current:?}")
                });
            }
        }
        for host in balancers {
            let checked = self.truth.through.get(&(host, order.release.clone())).copied();
            let passed = checked.max(self.truth.well.get(&host).copied());
            if passed.is_none_or(|at| now > at + longest_ms) {
                self.broken("I2", || {
                    format!("visitors are moved, and the checks through host {host} passed {passed:?}")
                });
            }
        }
    }

    /// I3: what an agent says it has done is so.
    pub fn truth_of_answer(&mut self, host: usize, order: &Order) {
        let Some(asked) = self.hosts.get(host) else { return };
        let so = match &order.action {
            Action::Stage { artifact } => {
                let tree = asked.trees().and_then(|trees| trees.get(artifact));
                tree.is_some_and(|tree| tree.whole && tree.marked)
            }
            Action::Migrate { migrations } => {
                asked.server().and_then(|server| server.live()).is_some_and(|(_, live)| {
                    let there = live.schema.effective(migrations.phase);
                    let mut versions =
                        migrations.versions.iter().filter_map(|version| crate::site::number(version));
                    versions.all(|version| there.has(version))
                })
            }
            Action::SwapDatabase { backup, to } => {
                let restored = matches!(to, SwapTo::Restored { .. });
                asked.server().is_some_and(|server| {
                    let of_this = |database: &Database| database.origin.as_ref() == Some(backup);
                    let replaced = |restore: &Restore| server.databases.get(&restore.replaced);
                    // Where what was replaced was restored from the same backup only their numbers tell them apart.
                    let twice = |restore: &&Restore| {
                        restore.backup == *backup && replaced(restore).is_some_and(of_this)
                    };
                    server.live().is_some_and(|(number, live)| match server.restore.as_ref().filter(twice) {
                        Some(restore) => (number == restore.restored) == restored,
                        None => of_this(live) == restored,
                    })
                })
            }
            // Of a new host there is nothing to lead back from, nor to.
            Action::Activate { artifact, .. } => asked.web().is_some_and(|web| {
                let lacks = artifact.is_some_and(|artifact| !web.trees.contains_key(&artifact));
                let new = order.key.step == Step::LinkBack && web.current.is_none() && lacks;
                new || web.current == *artifact
            }),
            Action::SetFlag { on } => asked.web().is_some_and(|web| web.flag == *on),
            Action::SetRoute { wanted, .. } => {
                asked.balancer().is_some_and(|balancer| stands(balancer, wanted))
            }
            _ => true,
        };
        if !so {
            self.broken("I3", || {
                format!("host {host} says {} {} is done, and it is not", order.release, order.key.step)
            });
        }
        self.backup_is_there(host, order);
        let receipts_lost = self.receipts_lost(host);
        self.truth.done.insert((order.release.clone(), order.key.clone()), receipts_lost);
    }

    /// I3: what is answered from a receipt was done, and is what is asked for.
    pub fn truth_of_receipt(&mut self, host: usize, sent: &Sent, kept: Option<OrderDigest>) {
        if kept == Some(sent.digest) {
            return;
        }
        let (release, step) = (sent.order.release.clone(), sent.order.key.step);
        self.broken("I3", || format!("host {host} says {release} {step} is done, and did something else"));
    }

    /// Looks at a fact at the moment it is recorded.
    pub fn recorded(&mut self, life: Life, epoch: Epoch, release: &ReleaseId, event: &Event) {
        match event {
            Event::Planned(plan) => {
                let other = self.truth.unfinished.replace(release.clone());
                // Its coordinator may have died before it could show the end.
                let open = |other: &ReleaseId| {
                    let states = crate::history::folded(self);
                    states.iter().any(|state| state.plan.release == *other && state.outcome().is_none())
                };
                if let Some(other) = other.filter(open) {
                    self.broken("I6", || format!("{release} begins, and {other} is not over"));
                }
                self.nobody_is_forgotten_by(plan);
                self.plans.insert(release.clone(), std::sync::Arc::clone(plan));
                // A copy of before does not know that another one of this name became void after it was made.
                self.truth.void.remove(release);
                // What was well in another release's watch says nothing of this one.
                self.truth.well.clear();
                self.truth.promoted = false;
                self.visitors.judged_anew();
            }
            Event::OrderIntended { key, attempt } => {
                self.truth.intents.insert((release.clone(), key.clone(), *attempt, epoch));
            }
            Event::OrderDone { key, .. } => {
                let known = (release.clone(), key.clone());
                if !matches!(key.step, Step::Preflight | Step::Check | Step::Drain)
                    && !self.truth.done.contains_key(&known)
                {
                    self.broken("I3", || format!("{life:?} records {known:?} as done, and it never was"));
                }
                if key.step.moves_visitors() {
                    self.truth.readings.clear();
                    self.truth.moved_by = Some(key.step);
                }
            }
            Event::EpochTaken(_) => {
                self.truth.readings.clear();
                self.truth.proven = false;
            }
            Event::Requested(request) => {
                self.truth.promoted |= request.kind == RequestKind::Promote;
                if request.kind == RequestKind::Resume {
                    self.visitors.judged_anew();
                }
                if !request.without.is_empty() {
                    self.left_out(release, &request.without);
                }
            }
            Event::Judged(judged) => self.truth.proven = judged.verdict == Verdict::Promote,
            Event::TurnedBack(problem) => {
                self.truth.promoted = false;
                self.truth.turned.insert(release.clone());
                if let Some(plan) = self.plans.get(release).cloned() {
                    self.turned_by_verdict(&plan, problem);
                }
            }
            Event::Held(_) => self.truth.promoted = false,
            Event::Adopted { .. } => {
                let states = crate::history::folded(self);
                let open = states.into_iter().filter(|state| state.outcome().is_none());
                self.truth.adopted(open.map(|state| state.plan.release.clone()));
                self.visitors.judged_anew();
            }
            Event::WatchPassed => self.watch_passed(release),
            _ => {}
        }
    }

    /// I8: whoever is left out, visitors of another load balancer are led back, and nobody is left out on the way forward.
    fn left_out(&mut self, release: &ReleaseId, without: &[HostName]) {
        if !self.truth.turned.contains(release) {
            self.broken("I8", || format!("{release} goes forward without {without:?}"));
        }
        let out = self.truth.left_out.entry(release.clone()).or_default();
        out.extend(without.iter().cloned());
        let out = out.clone();
        let mut balancers = self.hosts.iter().filter(|host| host.balancer().is_some());
        if balancers.all(|host| out.contains(&host.name)) {
            self.broken("I8", || format!("{release} goes back without any load balancer"));
        }
    }

    /// A release is confirmed by what was seen, all along and to the last.
    fn watch_passed(&mut self, release: &ReleaseId) {
        let Some(plan) = self.plans.get(release).cloned() else { return };
        // Two readings are that far apart when the one before took its time.
        let usual_ms = 2 * plan.watch.interval_ms + plan.reading_ms() + 1_500;
        let watched_ms = self.truth.watched_ms(usual_ms);
        let after = self.truth.moved_by.unwrap_or(Step::Switch);
        let (promoted, proven) =
            (std::mem::take(&mut self.truth.promoted), std::mem::take(&mut self.truth.proven));
        self.passed_on_visitors(&plan, promoted, proven);
        let early_ms = plan.verdict.min_watch_ms.filter(|_| proven);
        let wanted_ms = early_ms.unwrap_or_else(|| plan.watch_ms(after).unwrap_or_default());
        // Who promotes does not wait for the time to be over, and still only goes on with gates that are green.
        if !promoted && watched_ms + usual_ms < wanted_ms {
            self.broken("I2", || format!("{release} was watched for {watched_ms} ms and is confirmed"));
        }
        for (name, _) in plan.gates(after) {
            let seen = self.host_named(&name).and_then(|host| self.truth.well.get(&host).copied());
            // What its disk held back was so when it was sent there.
            if seen.is_none_or(|at| self.now - self.truth.late_ms > at + usual_ms) {
                self.broken("I2", || {
                    format!("{release} is confirmed, and `{name}` was last well at {seen:?}")
                });
            }
        }
    }

    /// The largest share of the visitors that a load balancer leads to another slot.
    fn share_elsewhere(&self) -> u8 {
        let routes = self.hosts.iter().filter_map(|host| host.balancer()?.standing());
        let shares = routes.filter(|route| route.stable != route.canary).map(|route| route.percent);
        shares.max().unwrap_or(0)
    }

    /// I13: whoever asks for a rollback while some visitors are on a slot that no release accounts for is not told that there is
    /// nothing to go back to.
    pub fn nobody_is_forgotten(&mut self, problem: &Problem) {
        let share = self.share_elsewhere();
        if problem.code == Code::NothingToRollBack && share > 0 {
            self.broken("I13", || format!("{share} % are on another slot, and nothing leads them back"));
        }
    }

    /// The same: a deploy does not begin beside them, and what leads them back leads all of them.
    fn nobody_is_forgotten_by(&mut self, plan: &Plan) {
        let before = &plan.route_before;
        let share = if before.stable == before.canary { 0 } else { before.percent };
        let leads_back = matches!(plan.purpose, Purpose::Rollback { .. })
            && [Step::Switch, Step::RouteBack]
                .into_iter()
                .filter_map(|step| plan.route(step))
                .all(|route| route.stable == before.stable && route.share_of(&before.stable) == 100);
        let moves = matches!(plan.purpose, Purpose::Deploy { .. } | Purpose::Rollback { .. });
        if share > 0 && moves && !leads_back {
            let (release, purpose) = (&plan.release, &plan.purpose);
            self.broken("I13", || {
                format!("{release} begins as {purpose:?} while {share} % are on a slot that no release accounts for")
            });
        }
    }

    /// I3, I10 at rest: the world is as the journal says.
    pub fn at_rest(&mut self, states: &[State]) {
        // Where a journal was accepted only what came after it says how the world is.
        let accepted = self.store.losses > 0;
        if !accepted {
            self.database_at_rest(states);
        }
        let mut standing = pointsman_core::Standing::default();
        let fresh = crate::host::Host::all(&self.environment, &self.scenario);
        let mut wanted: Vec<(HostName, Option<ArtifactDigest>, bool)> = fresh
            .iter()
            .filter_map(|host| host.web().map(|web| (host.name.clone(), web.current, web.flag)))
            .filter(|_| !accepted)
            .collect();
        for state in states {
            standing.fold(state);
            let (plan, outcome) = (&state.plan, state.outcome());
            for (name, current, flag) in &mut wanted {
                match (&plan.purpose, outcome) {
                    (Purpose::Deploy { artifact }, Some(Outcome::Confirmed | Outcome::RolledBack))
                        if plan.to.hosts.contains(name) =>
                    {
                        *current = Some(*artifact);
                    }
                    (Purpose::Maintenance { on, .. }, Some(Outcome::Confirmed))
                        if plan.flag_hosts.contains(name) =>
                    {
                        *flag = *on;
                    }
                    _ => {}
                }
            }
        }
        let gathered = states.last().filter(|state| state.plan.gathers());
        let back = |state: &State| {
            matches!(state.outcome(), Some(Outcome::Confirmed | Outcome::RolledBack))
                && state.left_out.is_empty()
        };
        let share = self.share_elsewhere();
        if gathered.is_some_and(back) && share > 0 {
            self.broken("I13", || {
                format!("{share} % are on another slot, and were led back by what is recorded")
            });
        }
        let first = fresh.iter().find_map(|host| host.balancer().map(|balancer| balancer.disk.clone()));
        let route = standing.route.or(first.filter(|_| !accepted));
        for host in 0..self.hosts.len() {
            let Some(found) = self.hosts.get(host) else { continue };
            // Whoever was left out is as it was.
            if states.iter().any(|state| state.left_out.contains_key(&found.name)) {
                continue;
            }
            let so = match (found.balancer(), found.web(), &route) {
                (Some(balancer), _, Some(route)) => stands(balancer, route),
                (_, Some(_), _) if accepted || self.truth.put_back.contains_key(&host) => true,
                (_, Some(web), _) => wanted.iter().any(|(name, current, flag)| {
                    *name == found.name && (*current, *flag) == (web.current, web.flag)
                }),
                _ => true,
            };
            if !so {
                let part = found.part.clone();
                self.broken("I3", || {
                    format!("at rest host {host} is {part:?}, the journal says {route:?} {wanted:?}")
                });
            }
        }
    }
}

/// Whether a route stands on disk and in every worker.
fn stands(balancer: &Balancer, route: &Route) -> bool {
    balancer.disk == *route && balancer.workers.iter().all(|worker| worker.route == *route)
}
