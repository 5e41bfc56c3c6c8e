//! Where a release stands: the fold of its journal entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::step::Kind;
use crate::verdict::Verdict;
use crate::{
    Aftermath, CheckName, CheckSeen, Code, DatabaseWork, Epoch, Evidence, HostName, Judged, LeftOut,
    OrderKey, Plan, Problem, Purpose, Request, Step, Timestamp,
};

/// How long a load balancer that was lost on the way forward is asked again while visitors of the others have the new
/// version already, and bound on each of these attempts: an agent that restarts is back, and what it has done before is
/// answered at once.
pub(crate) const PARTED_MS: u64 = 2_000;

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is live, and what watched it was content.
    Confirmed,
    /// Visitors are back on the old slot.
    RolledBack,
    /// Visitors were never touched; what was prepared is undone.
    Aborted,
    /// Nothing was touched at all.
    Refused,
}

impl Outcome {
    /// Every outcome, for tables.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::RolledBack, Self::Aborted, Self::Refused];

    /// The word operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
        }
    }

    /// Finds the outcome that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// Where a held release goes on when it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldAt {
    /// In this step.
    Step(Step),
    /// In the watch after this step, which stays armed meanwhile.
    Watch(Step),
}

/// Where a release stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In a step, forward or back.
    Doing(Step),
    /// Visitors use the new slot, some of them or all, and the gates are read.
    Watching {
        /// The step that moved them there.
        after: Step,
        /// When it has been watched long enough.
        until: Timestamp,
    },
    /// It waits for a person.
    Held {
        /// Where it goes on.
        at: HeldAt,
        /// Since when.
        since: Timestamp,
        /// Why.
        why: Problem,
    },
    /// It is over.
    Finished(Outcome),
}

/// How one order is getting on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How often it was sent.
    pub attempts: u32,
    /// How often it was sent since the release was last resumed.
    pub tries: u32,
    /// It was sent, and neither answer nor loss is recorded yet.
    pub open: bool,
    /// An attempt that is over may have taken effect, once or in part.
    pub acted: bool,
    /// What the agent confirmed.
    pub done: Option<Evidence>,
    /// What went wrong last.
    pub problem: Option<Problem>,
    /// When it was sent last, as recorded before it left.
    pub sent_at: Timestamp,
    /// When the last of these was recorded.
    pub at: Timestamp,
}

impl Progress {
    /// Whether the last answer tells which database is live: it was refused for what was found there, as it is now. Any
    /// other failure says of its own attempt alone that it changed nothing.
    fn looked(&self) -> bool {
        let tells = |code| matches!(code, Code::CopyMissing | Code::LossGrown | Code::SwapRefused);
        let said = self.problem.as_ref().filter(|problem| problem.aftermath == Aftermath::Unchanged);
        said.is_some_and(|problem| tells(problem.code))
    }
}

/// A watch whose gates cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blind {
    /// Since when.
    pub since: Timestamp,
    /// Why not, when that began: which agent or source says nothing.
    pub why: Problem,
}

/// What the watch has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchProgress {
    /// Failed readings in a row.
    pub failures: u32,
    /// Of these, the last ones in a row in which the old slot was not found to fail as well.
    pub alone: u32,
    /// Since when the gates cannot be read, if they cannot.
    pub blind: Option<Blind>,
}

impl WatchProgress {
    /// Another failed reading, in which the old slot failed as well, or not.
    pub(crate) fn fails(&mut self, shared: bool) {
        self.failures = self.failures.saturating_add(1);
        self.alone = if shared { 0 } else { self.alone.saturating_add(1) };
    }

    /// Whether the old slot was found to fail as well in this row of failures.
    pub fn is_shared(&self) -> bool {
        self.alone < self.failures
    }
}

/// What was made of the visitors' signals so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictProgress {
    /// Which judge is at work: another one begins when a person lets a held watch go on.
    pub judge: u32,
    /// The verdict that was recorded last in this watch.
    pub known: Option<Verdict>,
    /// Requests that this judge had counted on the new slot when the watch before this one ended.
    pub before: u64,
    /// It was recorded in this watch that something is too bad which the plan only warns of.
    pub warned: bool,
    /// It was recorded in this watch that the new version is slower than what served before.
    pub slowed: bool,
    /// What was recorded last, with its numbers.
    pub last: Option<Box<Judged>>,
}

impl VerdictProgress {
    /// Another watch begins: what was recorded before it is no verdict in it.
    pub(crate) fn anew(&mut self) {
        (self.known, self.warned, self.slowed) = (None, false, false);
    }

    /// Another watch follows one that ended well: the judge goes on, and what it knows is known, but more visitors are there
    /// now, and some of them must have been seen before it is proof of anything.
    pub(crate) fn next_watch(&mut self) {
        self.anew();
        self.before =
            self.last.as_ref().map_or(self.before, |last| last.errors.new.requests.max(self.before));
    }

    /// Another judge begins.
    pub(crate) fn next_judge(&mut self) {
        self.anew();
        (self.judge, self.before) = (self.judge.saturating_add(1), 0);
    }
}

/// A release as its journal entries tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The frozen choices.
    pub plan: Arc<Plan>,
    /// Where it stands.
    pub phase: Phase,
    /// Since when it stands there.
    pub entered_at: Timestamp,
    /// The fencing token of the coordinator that drives it.
    pub epoch: Epoch,
    /// Agents that have not yet acknowledged that token.
    pub unfenced: BTreeSet<HostName>,
    /// Since when they are being asked, or it is tried to get on: what bounds the tries begins anew here, in each life of a
    /// coordinator and whenever a person lets the release go on. For how long that is, clocks that are set are not asked.
    pub fencing_since: Timestamp,
    /// Every order that ever left.
    pub orders: BTreeMap<OrderKey, Progress>,
    /// Who is left out of the way back.
    pub left_out: BTreeMap<HostName, LeftOut>,
    /// What a person asked for and has not happened yet.
    pub asked: Option<Request>,
    /// Why the release turned back, if it did.
    pub turned_back: Option<Problem>,
    /// What the watch has seen.
    pub watch: WatchProgress,
    /// What was made of the visitors' signals.
    pub verdict: VerdictProgress,
    /// When the watch of the last split ended well: what the next move of visitors rests on.
    pub split_passed_at: Option<Timestamp>,
    /// Checks that did not pass when they were noted last, by whose agent made them. Nothing follows from it.
    pub amiss: BTreeMap<(CheckName, HostName), CheckSeen>,
}

impl State {
    /// A release that was just planned and accepted.
    pub fn begin(plan: impl Into<Arc<Plan>>, epoch: Epoch, at: Timestamp) -> Self {
        let plan = plan.into();
        let first = plan.steps().first().copied().unwrap_or(Step::Preflight);
        Self {
            phase: Phase::Doing(first),
            entered_at: at,
            epoch,
            unfenced: plan.hosts().cloned().collect(),
            fencing_since: at,
            orders: BTreeMap::new(),
            left_out: BTreeMap::new(),
            asked: None,
            turned_back: None,
            watch: WatchProgress::default(),
            verdict: VerdictProgress::default(),
            split_passed_at: None,
            amiss: BTreeMap::new(),
            plan,
        }
    }

    /// How the release ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The step that the release is in, or was held in.
    pub fn step(&self) -> Option<Step> {
        match self.phase {
            Phase::Doing(step) | Phase::Held { at: HeldAt::Step(step), .. } => Some(step),
            Phase::Watching { after, .. } | Phase::Held { at: HeldAt::Watch(after), .. } => {
                Some(if after == Step::Switch { Step::Watch } else { after })
            }
            Phase::Finished(_) => None,
        }
    }

    /// The step after which visitors are watched now, also while the release is held there.
    pub fn watched_after(&self) -> Option<Step> {
        match self.phase {
            Phase::Watching { after, .. } | Phase::Held { at: HeldAt::Watch(after), .. } => Some(after),
            _ => None,
        }
    }

    /// The step after which visitors are judged now: the one that they are watched after. Where the release is held on its way
    /// to more of them it is the split that stands.
    pub fn judged_after(&self) -> Option<Step> {
        let Phase::Held { at: HeldAt::Step(step), .. } = self.phase else { return self.watched_after() };
        let before = self.plan.step_before(step).filter(|_| step.kind() == Kind::Forward);
        before.filter(|before| matches!(before, Step::Canary(_)) && self.complete(*before))
    }

    /// The step that brought visitors where they are: the one that they are judged after, and the last one when the release
    /// is over.
    pub fn visitors_since(&self) -> Step {
        self.judged_after().unwrap_or(Step::Switch)
    }

    /// How long visitors are to be watched where the release stands, in milliseconds.
    pub fn watch_ms(&self) -> u64 {
        self.watched_after().and_then(|after| self.plan.watch_ms(after)).unwrap_or_default()
    }

    /// A watch that cannot see its visitors now; none where it can, or nobody watches.
    pub fn blind(&self) -> Option<&Blind> {
        self.watch.blind.as_ref().filter(|_| self.watched_after().is_some())
    }

    /// When a watch that is blind will be held, if it does not see again before; none where it is not, or waits for a person
    /// already.
    pub fn blind_until(&self) -> Option<Timestamp> {
        let watching = matches!(self.phase, Phase::Watching { .. });
        self.blind().filter(|_| watching).map(|blind| blind.since.plus_ms(self.plan.watch.blind_ms))
    }

    /// Orders whose answers are awaited.
    pub fn open(&self) -> impl Iterator<Item = &OrderKey> {
        self.orders.iter().filter(|(_, progress)| progress.open).map(|(key, _)| key)
    }

    /// How a host gets on in a step.
    pub fn progress(&self, step: Step, host: &HostName) -> Option<&Progress> {
        // A release has few orders, and this is asked all the time.
        let mut orders = self.orders.iter().filter(|(key, _)| key.step == step);
        orders.find(|(key, _)| key.host == *host).map(|(_, progress)| progress)
    }

    /// Whether every host of a step has confirmed it, but for those that were left out.
    pub fn complete(&self, step: Step) -> bool {
        self.still_asked(step).all(|host| self.progress(step, host).is_some_and(|p| p.done.is_some()))
    }

    /// When the oldest and the newest of the checks that stand were asked for: they were made then or later, however long
    /// their answers took to be recorded. None while not every one stands.
    pub fn checked_at(&self) -> Option<(Timestamp, Timestamp)> {
        let checks =
            self.orders.iter().filter(|(key, progress)| key.step == Step::Check && progress.done.is_some());
        let at = || checks.clone().map(|(_, progress)| progress.sent_at);
        if !self.complete(Step::Check) {
            return None;
        }
        at().min().zip(at().max())
    }

    /// Since when visitors meet two versions at once, because one load balancer has taken the route of a release and another
    /// has not yet. A rollback is none: what it leaves is the version that people want to be rid of, and going back to that
    /// would make them one again.
    pub fn parted_since(&self, step: Step) -> Option<Timestamp> {
        let moves = step.moves_visitors() && matches!(self.plan.purpose, Purpose::Deploy { .. });
        if !moves || self.complete(step) {
            return None;
        }
        let done = self.orders.iter().filter(|(key, progress)| key.step == step && progress.done.is_some());
        let first = done.map(|(_, progress)| progress.at).min()?;
        Some(first.max(self.fencing_since))
    }

    /// Bound on the attempt of an order that was sent last, in milliseconds. A repeat while visitors are parted is short: an
    /// agent that is there answers from what it has done, or does it, in far less.
    pub fn attempt_ms(&self, key: &OrderKey) -> u64 {
        let bound_ms = self.plan.attempt_ms(key.step);
        let repeated = self.orders.get(key).is_some_and(|progress| progress.tries > 1);
        match repeated && self.parted_since(key.step).is_some() {
            true => bound_ms.min(PARTED_MS),
            false => bound_ms,
        }
    }

    /// Whether a step may have changed something anywhere.
    pub fn touched(&self, step: Step) -> bool {
        self.orders.iter().any(|(key, progress)| key.step == step && (progress.acted || progress.open))
    }

    /// Whether an order of a step ever left. Where a copy of it may have come first, and done something that nobody was
    /// told of, its failure does not say that nothing changed.
    pub fn ordered(&self, step: Step) -> bool {
        self.orders.keys().any(|key| key.step == step)
    }

    /// Whether it gives way to a rollback of what visitors get: work on the database that moves none of them, and has not
    /// begun to change what they use. Then it is stopped at once.
    pub fn gives_way(&self) -> bool {
        match &self.plan.purpose {
            Purpose::Database(DatabaseWork::Contract | DatabaseWork::Down { .. }) => {
                !self.ordered(Step::Contract)
            }
            Purpose::Database(
                DatabaseWork::Backup | DatabaseWork::Verify { .. } | DatabaseWork::Restore { .. },
            ) => true,
            _ => false,
        }
    }

    /// Whether it has begun to take away what the version before needs: from then on no rollback leads there.
    pub fn closes_the_way_back(&self) -> bool {
        matches!(self.plan.purpose, Purpose::Database(DatabaseWork::Contract)) && self.ordered(Step::Contract)
    }

    /// Whether it leads visitors away from a release that something was found against. Whoever asks for a rollback meanwhile wants
    /// just that.
    pub fn leads_from_ill(&self) -> bool {
        self.plan.ill().is_some() && self.outcome().is_none() && !self.going_back()
    }

    /// Whether the release is on its way back.
    pub fn going_back(&self) -> bool {
        self.turned_back.is_some() || self.step().is_some_and(|step| step.kind() == Kind::Backward)
    }

    /// The steps back from here, in order: traffic first, then links, then files.
    pub fn way_back(&self) -> Vec<Step> {
        if let Purpose::Database(work) = &self.plan.purpose {
            // Visitors come back last: to a database that stays the live one.
            let swapped = matches!(work, DatabaseWork::Swap { .. }) && self.touched(Step::Swap);
            let unswap = swapped.then_some(Step::Unswap);
            let unmaintain = self.touched(Step::Maintain).then_some(Step::Unmaintain);
            return unswap.into_iter().chain(unmaintain).collect();
        }
        if self.touched(Step::Maintain) {
            return vec![Step::Unmaintain];
        }
        if self.visitors_moved() {
            return vec![Step::RouteBack];
        }
        [(Step::Expose, Step::Conceal), (Step::Activate, Step::LinkBack), (Step::Stage, Step::Discard)]
            .into_iter()
            .filter(|(step, _)| self.touched(*step))
            .map(|(_, undo)| undo)
            .collect()
    }

    /// How the release ends when the way back is done.
    pub fn outcome_back(&self) -> Outcome {
        if self.visitors_moved() {
            Outcome::RolledBack
        } else if Step::ALL.iter().any(|step| *step != Step::Preflight && self.touched(*step)) {
            Outcome::Aborted
        } else {
            Outcome::Refused
        }
    }

    /// Whether visitors may have been moved: from then on the way back is a rollback.
    pub fn visitors_moved(&self) -> bool {
        let mut moves = self.orders.iter().filter(|(key, _)| key.step.moves_visitors());
        moves.any(|(_, progress)| progress.acted || progress.open)
    }

    /// Whether nobody can tell which database is live while a swap is taken back: that order is out, or an attempt may have
    /// taken effect and no later one has looked.
    pub fn swap_back_in_doubt(&self) -> bool {
        if !matches!(self.plan.purpose, Purpose::Database(DatabaseWork::SwapBack { .. })) {
            return false;
        }
        let mut swaps = self.orders.iter().filter(|(key, _)| key.step == Step::Swap);
        swaps.any(|(_, progress)| progress.open || (progress.acted && !progress.looked()))
    }

    /// The route that should stand on the load balancers now, as far as every one of them has confirmed one that was not left
    /// out.
    pub fn route(&self) -> crate::Route {
        let back = [Step::Unmaintain, Step::RouteBack, Step::Conceal];
        let forward = self.plan.steps().iter().rev().copied();
        let latest = back
            .into_iter()
            .chain(forward)
            .filter(|step| self.plan.route(*step).is_some())
            .find(|step| self.balancers_done(*step));
        latest.and_then(|step| self.plan.route(step)).unwrap_or_else(|| self.plan.route_before.clone())
    }

    fn balancers_done(&self, step: Step) -> bool {
        let mut asked = self.plan.balancers.iter().filter(|host| !self.left_out_of(step, host));
        asked.all(|host| self.progress(step, host).is_some_and(|p| p.done.is_some()))
    }

    /// Whether a person put the maintenance page up with this release.
    pub fn maintenance_on(&self) -> Option<bool> {
        match self.plan.purpose {
            Purpose::Maintenance { on, .. } => Some(on),
            _ => None,
        }
    }
}
