//! The visitors of the simulated world: what each second of them looks like to the load balancers, who hears of it, and
//! what a coordinator keeps of it on its disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pointsman_coordinator::visitors::kept::{Kept, Whose};
use pointsman_core::histogram::Histogram;
use pointsman_core::ports::{Ear, Heard, Position, Second, Signals};
use pointsman_core::signal::{Cell, CellKey, Coverage, Probed, Tick};
use pointsman_core::verdict::{Judge, Judgement};
use pointsman_core::{ArtifactDigest, BackendName, Code, Plan, Problem, RouteClass, VerdictMode};
use tokio::sync::mpsc;

use crate::coordinator::Ports;
use crate::guard::Guard;
use crate::scenario::Quality;
use crate::world::{Happening, Life, World};

/// Requests a second: so many that a proof takes seconds, also for a tenth of them.
const RATE: u64 = 20_000;
/// One in so many visitors of a version that fails them gets an error.
const FAILING: u64 = 5;
/// How long every request takes, in milliseconds.
const TOOK_MS: u32 = 1;
/// Seconds of failing visitors that were judged and kept, after which they must not be all that the release goes on with:
/// a verdict takes four.
const MUST_FALL: u64 = 6;
/// How long signals may have been lost when a watch ends well: what is older than that nobody saw.
const OUT_OF_SIGHT_MS: u64 = 8_000;
/// Seconds that the load balancers' agents remember.
const REMEMBERED: usize = 900;
/// Seconds that pass unheard before nobody counts them any more: no coordinator is away for so long.
const UNHEARD: u32 = 120;

/// Visitors, and whoever hears of them.
#[derive(Default)]
pub struct Visitors {
    ears: Vec<(Life, mpsc::UnboundedSender<Heard>)>,
    counting: bool,
    /// Seconds in a row that nobody heard.
    unheard: u32,
    last: u64,
    /// What the agents remember.
    remembered: VecDeque<Second>,
    /// Since when the load balancers tell nothing of them.
    pub lost_since: Option<u64>,
    /// The coordinator's disk: what is known of them.
    kept: Option<Vec<u8>>,
    /// Who kept that, unless it was superseded: what it knows is less then.
    kept_by: Option<Life>,
    /// The second that was heard and is not kept yet was one in which visitors failed.
    failing: bool,
    /// Such seconds that were kept since the judge began.
    pub failed_seconds: u64,
}

impl Visitors {
    /// A new judge begins.
    pub fn judged_anew(&mut self) {
        self.failed_seconds = 0;
    }
}

/// An ear of a coordinator.
pub struct SimEar {
    ports: Ports,
    /// Whom the release that is judged leads visitors to.
    judged: BackendName,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Ear for SimEar {
    async fn next(&mut self) -> Heard {
        let Some(heard) = self.heard.recv().await else { return std::future::pending().await };
        let mut world = self.ports.world();
        world.visitors.failing = match &heard {
            Heard::Second(second) => second.blind.is_none() && world.fails_visitors(second, &self.judged),
            Heard::Silence(_) => false,
        };
        heard
    }
}

impl Signals for Ports {
    type Ear = SimEar;

    fn listen(&self, plan: &Plan, after: Option<u64>) -> SimEar {
        let (sender, heard) = mpsc::unbounded_channel();
        let mut world = self.world();
        let missed = |second: &&Second| after.is_some_and(|after| second.position.number > after);
        if world.stands(Guard::MissedIsHeard) {
            for second in world.visitors.remembered.iter().filter(missed) {
                // The other end is here.
                let _ = sender.send(Heard::Second(second.clone()));
            }
        }
        world.visitors.ears.push((self.life(), sender));
        if !std::mem::replace(&mut world.visitors.counting, true) {
            let ms = 1_000 - world.now % 1_000;
            world.later(ms, Happening::Second);
        }
        SimEar { ports: self.clone(), judged: plan.to.backend.clone(), heard }
    }

    async fn kept(&self, _: &Plan) -> Option<Vec<u8>> {
        let world = self.world();
        world.visitors.kept.clone().filter(|_| world.stands(Guard::EvidenceKept))
    }

    async fn keep(&self, plan: &Plan, bytes: Vec<u8>) -> Result<(), Problem> {
        self.point().await;
        self.world().keeps(self.life(), plan, bytes);
        self.point().await;
        Ok(())
    }

    fn show(&self, _: &Arc<Plan>, _: &Judgement, _: &Probed, _: &Heard) {}
}

impl World {
    /// A second of visitors is over.
    pub fn second(&mut self) {
        self.visitors.ears.retain(|(_, ear)| !ear.is_closed());
        let unheard = if self.visitors.ears.is_empty() { self.visitors.unheard + 1 } else { 0 };
        self.visitors.unheard = unheard;
        if unheard > UNHEARD {
            self.visitors.counting = false;
            self.visitors.remembered.clear();
            return;
        }
        self.later(1_000, Happening::Second);
        // Where the clock was set back seconds are told again only when it is as late as it was.
        let number = self.wall().0 / 1_000;
        if number <= self.visitors.last {
            return;
        }
        self.visitors.last = number;
        let lost = self.visitors.lost_since.is_some();
        let blind = (lost && self.stands(Guard::OutOfSight))
            .then(|| Problem::new(Code::SignalsMissing, "access lines are missing"));
        let seen = if lost { Tick { coverage: known(0), ..Tick::default() } } else { self.visits() };
        let position = Position { number, read: BTreeMap::new() };
        let second = Second { position, seen: Arc::new(seen), blind };
        for (_, ear) in &self.visitors.ears {
            // Who just went hears nothing.
            let _ = ear.send(Heard::Second(second.clone()));
        }
        self.visitors.remembered.push_back(second);
        if self.visitors.remembered.len() > REMEMBERED {
            self.visitors.remembered.pop_front();
        }
    }

    /// What the load balancers see in this second.
    fn visits(&self) -> Tick {
        let balancers: Vec<_> = self.hosts.iter().filter_map(|host| host.balancer()).collect();
        let each = RATE / u64::try_from(balancers.len()).unwrap_or(1).max(1);
        let mut tick = Tick { coverage: known(RATE), ..Tick::default() };
        let Ok(class) = RouteClass::parse("other") else { return tick };
        for route in balancers.iter().filter_map(|balancer| balancer.standing()) {
            for slot in self.environment.slots.values() {
                let requests = each * u64::from(route.share_of(&slot.backend)) / 100;
                if requests == 0 {
                    continue;
                }
                let serves =
                    self.hosts.iter().filter_map(|host| host.web()).find(|web| web.backend == slot.backend);
                let fails =
                    serves.is_some_and(|web| self.hurts(web.current)) && self.stands(Guard::VisitorsCount);
                let failures = if fails { requests / FAILING } else { 0 };
                let key = CellKey { backend: slot.backend.clone(), epoch: route.epoch, class: class.clone() };
                let latency = Histogram::from_buckets([(TOOK_MS, requests)]).unwrap_or_default();
                let cell = Cell { requests, failures, latency, ..Cell::default() };
                tick.cells.entry(key).or_default().merge(&cell);
            }
        }
        tick
    }

    fn hurts(&self, artifact: Option<ArtifactDigest>) -> bool {
        artifact
            .is_some_and(|artifact| crate::site::quality(&self.scenario, artifact) == Quality::FailsVisitors)
    }

    /// Whether visitors whom the judged release leads to a version that fails them are in a second. Who fails on the slot that
    /// served before, as after a journal was accepted that had lost a bad release, is no evidence against the new one.
    fn fails_visitors(&self, second: &Second, judged: &BackendName) -> bool {
        let hosts = || self.hosts.iter().filter_map(|host| host.web());
        let hurt = |key: &CellKey| {
            key.backend == *judged && hosts().any(|web| web.backend == key.backend && self.hurts(web.current))
        };
        second.seen.cells.keys().any(hurt)
    }

    /// What is known of visitors reaches the disk. I13: no evidence is lost on the way from one coordinator to the next, nor
    /// while none ran, and each second is counted once.
    fn keeps(&mut self, life: Life, plan: &Plan, bytes: Vec<u8>) {
        if !self.lives(life) {
            return;
        }
        let failing = std::mem::take(&mut self.visitors.failing);
        if life.coordinator != self.active {
            // It does not know yet that another one rules, and what it knows is less.
            self.visitors.kept_by = None;
            self.visitors.judged_anew();
            self.visitors.kept = Some(bytes);
            return;
        }
        self.visitors.failed_seconds += u64::from(failing);
        let before = self.visitors.kept_by.replace(life);
        let known = self.visitors.kept.take().filter(|_| before.is_some());
        if let Some(before) = known.as_deref().and_then(|known| Counted::of(plan, known))
            && let Some(after) = Counted::of(plan, &bytes)
            && before.whose == after.whose
        {
            let between = |second: &&Second| {
                let number = second.position.number;
                second.blind.is_none() && number > before.to && number <= after.to
            };
            let told = self.visitors.remembered.iter().filter(between).count();
            let counted = after.seconds.checked_sub(before.seconds);
            if counted != u64::try_from(told).ok() {
                self.broken("I13", || {
                    let (before, after) = (before.seconds, after.seconds);
                    format!("{before} seconds of visitors were counted, {told} more were to be seen, and {after} are counted now")
                });
            }
        }
        self.visitors.kept = Some(bytes);
    }

    /// I13: visitors who fail, or are not seen, are no proof, and an undecided watch does not pass where it must be decided.
    pub fn passed_on_visitors(&mut self, plan: &Plan, promoted: bool, proven: bool) {
        let acts = plan.verdict.mode == VerdictMode::Act;
        if promoted || !acts {
            return;
        }
        let release = &plan.release;
        let failed = self.visitors.failed_seconds;
        if failed >= MUST_FALL {
            self.broken("I13", || format!("{release} goes on, and visitors failed for {failed} seconds"));
        }
        // What its disk held back was decided when it was sent there.
        let decided = self.now - self.truth.late_ms;
        if self.visitors.lost_since.is_some_and(|since| since + OUT_OF_SIGHT_MS < decided) {
            self.broken("I13", || format!("{release} goes on, and nobody saw its visitors"));
        }
        if self.scenario.verdict.must_decide() && !proven {
            self.broken("I13", || format!("{release} goes on undecided"));
        }
    }

    /// I13: a good version is not blamed for anything.
    pub fn turned_by_verdict(&mut self, plan: &Plan, why: &Problem) {
        if why.code == Code::VerdictAgainst && !self.hurts(plan.artifact()) {
            let release = &plan.release;
            self.broken("I13", || format!("{release} is good, and turns back: {why}"));
        }
    }

    /// The load balancers tell nothing of visitors for a while.
    pub fn lose_signals(&mut self, for_ms: u64) {
        if self.visitors.lost_since.is_none() {
            self.visitors.lost_since = Some(self.now);
            self.troubles += 1;
            self.later(for_ms, Happening::SignalsBack);
        }
    }

    /// And tell of them again.
    pub fn signals_back(&mut self) {
        self.troubles -= 1;
        self.visitors.lost_since = None;
    }
}

/// What somebody who put it away has counted.
struct Counted {
    whose: Whose,
    /// The number of the newest second they heard; 0 before the first.
    to: u64,
    /// How many of them could be counted.
    seconds: u64,
}

impl Counted {
    fn of(plan: &Plan, bytes: &[u8]) -> Option<Self> {
        let params = plan.verdict.params(plan.watched_ms()).ok()?;
        let Kept { whose, position, judge, .. } = Kept::parse(bytes)?;
        let seconds = Judge::from_bytes(params, judge).ok()?.look().watched;
        Some(Self { whose, to: position.map_or(0, |position| position.number), seconds })
    }
}

fn known(requests: u64) -> Option<Coverage> {
    Some(Coverage { seen: requests, expected: requests })
}
