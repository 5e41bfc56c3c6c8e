//! Random walks of a release through a small simulated world: agents that confirm, fail, half-fail or say
//! nothing, a coordinator that crashes, a clock that is set back, people who ask for things, gates that fail or
//! cannot be read.
//!
//! The world is a model of its own: it does what `Plan::action` says and knows nothing of phases. At the end
//! of a walk it must look as the outcome says. Each walk follows from its seed alone; a failure prints the
//! seed and the story, and the seed then belongs into `ONCE_FAILED`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a walk that breaks a rule is a failed test"
)]

mod plans;
mod waited;

use std::collections::{BTreeMap, BTreeSet};

use plans::{CREATED_AT, NEW, Site, deploy, maintenance, plan, rollback};
use pointsman_core::machine::{Next, apply, gates_read, possible};
use pointsman_core::{
    Action, Aftermath, ArtifactDigest, Code, Epoch, Event, Evidence, HeldAt, HostName, LiveRelease,
    MaintenanceStanding, OrderKey, Outcome, Phase, Plan, Problem, Purpose, Reading, Request, RequestKind,
    Route, Stamped, Standing, State, Step, Timestamp, invariants,
};
use waited::{fence_failed, next};

/// Walks of each kind of release: together 22 000.
const DEPLOYS: u64 = 10_000;
const ROLLBACKS: u64 = 4_000;
const GATHERINGS: u64 = 2_000;
const MAINTENANCES: u64 = 6_000;
/// No walk may go round more often than this, whether it records anything or not. The longest of half a million
/// without splits went round 110 times.
const MOST_ROUNDS: u32 = 400;
/// Seeds of walks that once broke a rule, each with the kind of release: they are walked first.
const ONCE_FAILED: &[(&str, u64)] = &[];

const BACKWARD: [Step; 5] = [Step::Unmaintain, Step::RouteBack, Step::Conceal, Step::LinkBack, Step::Discard];

// ------------------------------------------------------------------------------------------------- chance

/// Xorshift64*: small, and the same numbers everywhere.
struct Chance(u64);

impl Chance {
    fn from_seed(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and zero would stay zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64) as usize;
        *choices.get(index).expect("the index is below the length")
    }
}

// -------------------------------------------------------------------------------------------------- world

/// What is really so on the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct World {
    routes: BTreeMap<HostName, Route>,
    links: BTreeMap<HostName, Option<ArtifactDigest>>,
    staged: BTreeSet<HostName>,
    flags: BTreeMap<HostName, bool>,
}

impl World {
    fn before(plan: &Plan) -> Self {
        let flag = matches!(plan.purpose, Purpose::Maintenance { on: false, .. });
        Self {
            routes: plan.balancers.iter().map(|host| (host.clone(), plan.route_before.clone())).collect(),
            links: plan.links_before.clone(),
            staged: BTreeSet::new(),
            flags: plan.flag_hosts.iter().map(|host| (host.clone(), flag)).collect(),
        }
    }

    /// Does what an agent does on an order, and fails where an agent would call it drift.
    fn take_effect(&mut self, plan: &Plan, key: &OrderKey) {
        let host = key.host.clone();
        match plan.action(key.step, &host).expect("an order has an action") {
            Action::SetRoute { expected, wanted, .. } => {
                let stands = self.routes.get(&host).expect("routes are set on load balancers");
                assert!(expected.contains(stands) || *stands == wanted, "{key:?} meets `{stands}`: drift");
                self.routes.insert(host, wanted);
            }
            Action::InspectBalancer { expected, .. } => assert_eq!(self.routes.get(&host), Some(&expected)),
            Action::Stage { .. } => drop(self.staged.insert(host)),
            Action::Discard { .. } => drop(self.staged.remove(&host)),
            Action::Activate { artifact, .. } => {
                assert!(
                    artifact != Some(NEW) || self.staged.contains(&host),
                    "activated before it was staged"
                );
                self.links.insert(host, artifact);
            }
            Action::SetFlag { on } => drop(self.flags.insert(host, on)),
            Action::InspectHost { .. }
            | Action::Drain { .. }
            | Action::ProbeHost { .. }
            | Action::ProbeBalancer { .. }
            | Action::InspectDatabase { .. }
            | Action::BackUp { .. }
            | Action::VerifyBackup { .. }
            | Action::Rehearse { .. }
            | Action::Migrate { .. }
            | Action::Restore { .. }
            | Action::SettleRestore { .. }
            | Action::SwapDatabase { .. } => {}
        }
    }
}

// --------------------------------------------------------------------------------------------------- walk

/// How unlucky one walk is.
struct Mood {
    /// Orders that do not go well, in percent.
    trouble: u64,
    /// Readings that fail, and readings that see nothing, in percent.
    gates_fail: u64,
    gates_blind: u64,
    /// Agents that do not answer a fence, in percent.
    deaf: u64,
    /// Events before which all goes well, so that trouble also begins late.
    calm: usize,
    /// What is still to come: crashes, and things that people ask for.
    crashes: u32,
    requests: u32,
}

impl Mood {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            trouble: chance.pick(&[0, 0, 3, 15, 50, 95]),
            gates_fail: chance.pick(&[0, 0, 10, 50, 95]),
            gates_blind: chance.pick(&[0, 0, 10, 60]),
            deaf: chance.pick(&[0, 0, 20, 90]),
            calm: chance.pick(&[0, 0, 10, 30, 45]),
            crashes: chance.pick(&[0, 0, 1, 4]),
            requests: chance.pick(&[0, 0, 1, 4]),
        }
    }
}

/// One release, its world, and all that happened.
struct Walk {
    name: &'static str,
    seed: u64,
    chance: Chance,
    mood: Mood,
    state: State,
    world: World,
    now: Timestamp,
    journal: Vec<Stamped>,
    rounds: u32,
    /// When this coordinator read the gates last.
    last_read: Option<Timestamp>,
    /// A person asked the release to stop or to go back, and was told yes.
    called_off: bool,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("{} walk with seed {}:", self.name, self.seed);
        for Stamped { at, event } in &self.journal {
            eprintln!("  {:>8} ms  {event:?}", at.ms_since(CREATED_AT));
        }
        eprintln!("stands at {:?}, with {:#?}", self.state.phase, self.world);
    }
}

impl Walk {
    fn begin(name: &'static str, seed: u64, plans: &[fn(Site) -> Plan]) -> Self {
        let mut chance = Chance::from_seed(seed);
        let planned = chance.pick(plans);
        let for_maintenance = name == "maintenance";
        let site = Site {
            live: chance.percent(80),
            page_up: !for_maintenance && chance.percent(10),
            splits: chance.pick::<&[u8]>(&[&[], &[], &[10], &[5, 50], &[1, 2, 3, 5, 10, 25, 50, 99]]),
            ..Site::of(chance.pick(&[1, 2]), chance.pick(&[1, 2]))
        };
        let mut plan = planned(site);
        plan.automatic_rollback = chance.percent(80);
        Self {
            name,
            seed,
            mood: Mood::draw(&mut chance),
            chance,
            world: World::before(&plan),
            state: State::begin(plan, Epoch(1), CREATED_AT),
            now: CREATED_AT,
            journal: Vec::new(),
            rounds: 0,
            last_read: None,
            called_off: false,
        }
    }

    /// Walks until the release is over, or waits for a person and nobody comes.
    fn go(&mut self) {
        while self.rounds < MOST_ROUNDS {
            self.rounds += 1;
            self.now = self.now.plus_ms(self.chance.below(40));
            if self.strikes(1) {
                self.now = Timestamp(self.now.0.saturating_sub(self.chance.below(60_000)));
            }
            if self.mood.crashes > 0 && self.strikes(5) {
                self.crash();
            } else if self.mood.requests > 0 && self.strikes(4) {
                self.ask();
            } else if !self.work() {
                return;
            }
        }
        panic!("goes round and round");
    }

    /// Whether something of this likelihood happens now.
    fn strikes(&mut self, percent: u64) -> bool {
        self.journal.len() >= self.mood.calm && self.chance.percent(percent)
    }

    /// Does what comes next; `false` when there is nothing left to do.
    fn work(&mut self) -> bool {
        match next(&self.state, self.now) {
            Next::Fence(hosts) => self.fence(hosts),
            Next::Send(keys) => self.send(keys),
            Next::GiveUp(keys) => keys.into_iter().for_each(|key| self.lose(key)),
            Next::Await(until) => return self.wait(until),
            Next::HearVisitors => return self.wait(None),
            Next::ReadGates => return self.read_gates(),
            Next::Record(event) => self.record(event),
            Next::Stop => return false,
        }
        true
    }

    fn record(&mut self, event: Event) {
        let fact = Stamped { at: self.now, event };
        self.journal.push(fact.clone());
        self.state = apply(&self.state, &fact).unwrap_or_else(|e| panic!("{e}"));
        invariants::all(&self.state, self.now).unwrap_or_else(|e| panic!("{e}"));
        self.visitors_meet_only_what_was_checked();
    }

    fn fence(&mut self, hosts: Vec<HostName>) {
        assert!(!hosts.is_empty(), "fences nobody");
        let (deaf, hears): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|_| self.strikes(self.mood.deaf));
        hears.into_iter().for_each(|host| self.record(Event::Fenced(host)));
        if deaf.is_empty() {
            return;
        }
        self.now = self.now.plus_ms(self.state.plan.limits.inspect_ms);
        let unreachable = Problem::new(Code::AgentUnreachable, "no answer").retry_useful();
        if let Some(event) = fence_failed(&self.state, self.now, unreachable) {
            self.record(event);
        }
    }

    fn send(&mut self, keys: Vec<OrderKey>) {
        assert!(!keys.is_empty(), "sends nothing");
        for key in keys {
            let backward = BACKWARD.contains(&key.step);
            assert!(!self.state.unfenced.contains(&key.host), "sends to an agent that is not fenced");
            assert!(backward || self.state.unfenced.is_empty(), "goes forward before every agent is fenced");
            assert!(backward || self.state.turned_back.is_none(), "goes forward after it turned back");
            assert!(backward || !self.called_off, "goes forward after it was called off");
            let old_slot = self.state.plan.from.as_ref().filter(|_| self.state.maintenance_on().is_none());
            assert!(old_slot.is_none_or(|slot| !slot.hosts.contains(&key.host)), "touches the old slot");
            let attempt = self.state.progress(key.step, &key.host).map_or(0, |p| p.attempts) + 1;
            self.record(Event::OrderIntended { key, attempt });
        }
    }

    /// The answer never comes; whether the order took effect only the world knows.
    fn lose(&mut self, key: OrderKey) {
        self.half_the_time_takes_effect(&key);
        let problem =
            Problem::new(Code::AnswerLost, "no answer").aftermath(Aftermath::Unknown).retry_useful();
        self.record(Event::OrderFailed { key, problem });
    }

    fn half_the_time_takes_effect(&mut self, key: &OrderKey) {
        if self.chance.percent(50) {
            self.world.take_effect(&self.state.plan, key);
        }
    }

    /// Waits for an answer, for a moment, or for a person; `false` when nobody comes.
    fn wait(&mut self, until: Option<Timestamp>) -> bool {
        assert!(until.is_none_or(|until| until > self.now), "waits for a moment that is over");
        let open: Vec<&OrderKey> = self.state.open().collect();
        if !open.is_empty() {
            let key = self.chance.pick(&open).clone();
            self.now = self.now.plus_ms(self.chance.below(2_000));
            self.answer(key);
            return true;
        }
        if let Some(until) = until {
            self.now = until;
            return true;
        }
        assert!(matches!(self.state.phase, Phase::Held { .. }), "waits for nobody");
        self.person_comes()
    }

    fn answer(&mut self, key: OrderKey) {
        if !self.strikes(self.mood.trouble) {
            self.world.take_effect(&self.state.plan, &key);
            let evidence = Evidence { already: self.chance.percent(20), ..Evidence::default() };
            return self.record(Event::OrderDone { key, evidence });
        }
        if self.chance.percent(30) {
            return self.lose(key);
        }
        let aftermath = self.chance.pick(&[
            Aftermath::Unchanged,
            Aftermath::Unchanged,
            Aftermath::Changed,
            Aftermath::Unknown,
        ]);
        if aftermath != Aftermath::Unchanged {
            self.half_the_time_takes_effect(&key);
        }
        let mut problem = Problem::new(Code::FileSystem, "it went wrong").aftermath(aftermath);
        if self.chance.percent(50) {
            problem = problem.retry_useful();
        }
        self.record(Event::OrderFailed { key, problem });
    }

    fn read_gates(&mut self) -> bool {
        let held = matches!(self.state.phase, Phase::Held { at: HeldAt::Watch(_), .. });
        if held && self.chance.percent(20) {
            return self.person_comes();
        }
        self.now = self.now.plus_ms(self.state.plan.watch.interval_ms);
        let problem = Problem::new(Code::CheckFailed, "not as it should be");
        let reading = if self.strikes(self.mood.gates_fail) {
            if self.chance.percent(30) { Reading::Shared(problem) } else { Reading::Fail(problem) }
        } else if self.strikes(self.mood.gates_blind) {
            Reading::Unknown(problem)
        } else {
            Reading::Pass
        };
        let last = self.last_read.replace(self.now);
        for event in gates_read(&self.state, last, self.now, reading) {
            self.record(event);
        }
        true
    }

    /// Everybody who waited is gone; what was under way took effect, or did not.
    fn crash(&mut self) {
        if self.state.outcome().is_some() {
            return;
        }
        self.mood.crashes -= 1;
        let open: Vec<OrderKey> = self.state.open().cloned().collect();
        open.iter().for_each(|key| self.half_the_time_takes_effect(key));
        self.now = self.now.plus_ms(self.chance.below(30_000));
        self.last_read = None;
        self.record(Event::EpochTaken(Epoch(self.state.epoch.0 + 1)));
    }

    fn ask(&mut self) {
        self.mood.requests -= 1;
        let kind = self.chance.pick(&RequestKind::ALL);
        let request = Request { kind, by: "ada".to_owned(), reason: None, without: Vec::new() };
        match possible(&self.state, kind) {
            Ok(()) => {
                self.record(Event::Requested(request));
                self.called_off |= matches!(kind, RequestKind::Abort | RequestKind::Rollback);
            }
            Err(problem) => {
                let fact = Stamped { at: self.now, event: Event::Requested(request) };
                assert!(apply(&self.state, &fact).is_err(), "a refused request can be recorded");
                assert!(problem.hint.contains("`pointsman "), "no command in the hint: {}", problem.hint);
            }
        }
    }

    fn person_comes(&mut self) -> bool {
        let comes = self.mood.requests > 0;
        if comes {
            self.ask();
        }
        comes
    }

    // ------------------------------------------------------------------------------------- what must hold

    /// I2, seen from the world: no load balancer sends visitors to the new slot before all is checked.
    fn visitors_meet_only_what_was_checked(&self) {
        let plan = &self.state.plan;
        let Purpose::Deploy { artifact } = plan.purpose else { return };
        let moved = self.world.routes.values().any(|route| route.share_of(&plan.to.backend) > 0);
        let switching = self.state.open().any(|key| key.step.moves_visitors());
        if !moved && !switching {
            return;
        }
        assert!(!moved || !plan.under_maintenance, "visitors left the maintenance page");
        assert!(self.state.complete(Step::Check), "visitors moved before every check was made");
        assert!(self.world.links.values().all(|link| *link == Some(artifact)), "not current on every host");
    }

    /// At rest the world is as the outcome and the journal say.
    fn outcome_tells_the_truth(&self, outcome: Outcome) {
        let (state, plan, world) = (&self.state, &self.state.plan, &self.world);
        let before = World::before(plan);
        assert!(world.routes.values().all(|route| *route == state.route()), "not the route in the journal");
        match outcome {
            Outcome::Refused => assert_eq!(*world, before),
            Outcome::Aborted => {
                assert!(world.routes.values().all(|route| route.same_decision(&plan.route_before)));
                assert_eq!(
                    (&world.links, &world.staged, &world.flags),
                    (&before.links, &before.staged, &before.flags)
                );
                assert!(!state.visitors_moved());
            }
            Outcome::RolledBack => {
                assert!(state.complete(Step::RouteBack), "ended rolled back, but not everywhere");
                for host in &plan.balancers {
                    let confirmed = state.progress(Step::RouteBack, host).is_some_and(|p| p.done.is_some());
                    let stable = world.routes.get(host).map(|route| &route.stable);
                    assert!(confirmed && stable == Some(&plan.route_before.stable), "not back on `{host}`");
                }
            }
            Outcome::Confirmed => {
                assert!(plan.steps().iter().all(|step| state.complete(*step)), "confirmed, but not complete");
                assert!(state.turned_back.is_none());
                if let Some(on) = state.maintenance_on() {
                    assert!(world.flags.values().all(|flag| *flag == on));
                }
            }
        }
    }

    /// What is live afterwards follows from what was live before and from the outcome.
    fn standing_makes_sense(&self, outcome: Outcome) {
        let plan = &self.state.plan;
        let before = standing_before(plan);
        let mut after = before.clone();
        after.fold(&self.state);
        if outcome == Outcome::Refused {
            return assert_eq!(after, before);
        }
        assert_eq!(after.route, Some(self.state.route()));
        let to_is_live = after.live.as_ref().is_some_and(|live| live.slot == plan.to.name);
        let confirmed = outcome == Outcome::Confirmed;
        if let Purpose::Maintenance { on, .. } = plan.purpose {
            let up = if confirmed { on } else { before.maintenance.is_some() };
            assert_eq!(after.maintenance.is_some(), up);
            assert_eq!(
                (after.live, after.previous, after.slots),
                (before.live, before.previous, before.slots)
            );
            return;
        }
        assert_eq!(after.maintenance, before.maintenance);
        if plan.gathers() {
            let share = |route: &Route| 100 - route.share_of(&plan.to.backend);
            assert_eq!(self.world.routes.values().map(share).max(), Some(0), "somebody is elsewhere");
            return assert_eq!((after.live, after.previous), (before.live, before.previous));
        }
        assert_eq!(to_is_live, confirmed);
        if confirmed {
            assert_eq!(after.live.and_then(|live| live.artifact), plan.artifact());
            assert_eq!(after.previous.map(|previous| previous.slot), before.live.map(|live| live.slot));
            return;
        }
        assert_eq!(after.live, before.live);
        let leads_to_failed = after.previous.is_some_and(|previous| previous.slot == plan.to.name)
            && matches!(plan.purpose, Purpose::Deploy { .. });
        assert!(!leads_to_failed || outcome == Outcome::Aborted, "a rollback would lead to what just failed");
    }
}

/// A rollback of a share of the visitors on green, for which no release accounts, to blue that serves the others.
fn gather(site: Site) -> Plan {
    let plan = plan(Purpose::Rollback { artifact: None, to: None }, site);
    let serves = plan.from.clone().unwrap();
    let route_before = Route { canary: "be_green".parse().unwrap(), percent: 10, ..plan.route_before };
    Plan { to: serves, route_before, ..plan }
}

/// How the environment stood: the old slot live, an older release on the target slot.
fn standing_before(plan: &Plan) -> Standing {
    let release = |slot: &pointsman_core::SlotPlan, id: &str| LiveRelease {
        slot: slot.name.clone(),
        release: Some(id.parse().unwrap()),
        artifact: Some(plans::OLD),
    };
    let page_up = plan.under_maintenance || matches!(plan.purpose, Purpose::Maintenance { on: false, .. });
    let on_slots = plan.from.as_ref().map(|slot| release(slot, "r1"));
    Standing {
        previous: on_slots.is_some().then(|| release(&plan.to, "r0")),
        slots: on_slots.iter().map(|live| (live.slot.clone(), live.clone())).collect(),
        live: on_slots,
        route: Some(plan.route_before.clone()),
        maintenance: page_up.then(|| MaintenanceStanding {
            since: Timestamp(1),
            by: "eve".to_owned(),
            reason: None,
            until: None,
        }),
        ..Standing::default()
    }
}

// -------------------------------------------------------------------------------------------------- tests

/// How the walks of one kind ended: a walk that never goes wrong, or never goes well, proves nothing.
#[derive(Debug, Default)]
struct Tally {
    ends: BTreeMap<&'static str, u32>,
    steps: BTreeSet<Step>,
    longest: u32,
}

fn walk(name: &'static str, seed: u64, plans: &[fn(Site) -> Plan], tally: &mut Tally) {
    let mut walk = Walk::begin(name, seed, plans);
    walk.go();
    let end = match walk.state.outcome() {
        Some(outcome) => {
            walk.outcome_tells_the_truth(outcome);
            walk.standing_makes_sense(outcome);
            outcome.as_str()
        }
        None => "held",
    };
    *tally.ends.entry(end).or_default() += 1;
    tally.steps.extend(walk.state.orders.keys().map(|key| key.step));
    tally.longest = tally.longest.max(walk.rounds);
}

/// Walks every seed, and sees to it that each of these ends was met often enough to mean something.
fn walks(name: &'static str, count: u64, plans: &[fn(Site) -> Plan], ends: &[&str], steps: &[Step]) {
    let mut tally = Tally::default();
    let once_failed = ONCE_FAILED.iter().filter(|(kind, _)| *kind == name).map(|(_, seed)| *seed);
    for seed in once_failed.chain(0..count) {
        walk(name, seed, plans, &mut tally);
    }
    let met: Vec<&str> = tally.ends.iter().filter(|(_, count)| **count >= 20).map(|(end, _)| *end).collect();
    assert_eq!(met, ends, "{tally:?}");
    assert_eq!(tally.steps, steps.iter().copied().collect(), "{tally:?}");
}

#[test]
fn deploys_end_as_they_say() {
    // No order is of the watch, and these deploys have neither page nor database.
    let others = |step: &Step| {
        use Step::{
            Backup, Contract, Expand, Lift, Maintain, Rehearse, Restore, Swap, Unmaintain, Unswap, Watch,
        };
        let database = matches!(step, Backup | Rehearse | Expand | Contract | Restore | Swap | Lift | Unswap);
        database || matches!(step, Maintain | Unmaintain | Watch)
    };
    let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| !others(step)).collect();
    let deploys = |site| plan(deploy(), site);
    walks("deploy", DEPLOYS, &[deploys], &["aborted", "confirmed", "held", "refused", "rolled-back"], &steps);
}

#[test]
fn rollbacks_end_as_they_say() {
    let steps = [Step::Preflight, Step::Switch, Step::RouteBack];
    let rollbacks = |site| plan(rollback(), site);
    walks("rollback", ROLLBACKS, &[rollbacks], &["confirmed", "held", "refused", "rolled-back"], &steps);
}

/// Whatever happens on its way, it leads nobody anywhere but to the slot that serves.
#[test]
fn whoever_is_gathered_ends_on_the_slot_that_serves() {
    let steps = [Step::Preflight, Step::Switch, Step::RouteBack];
    let gatherings = |site| gather(Site { live: true, page_up: false, ..site });
    walks("gathering", GATHERINGS, &[gatherings], &["confirmed", "held", "refused", "rolled-back"], &steps);
}

#[test]
fn maintenance_ends_as_it_says() {
    let plans: [fn(Site) -> Plan; 2] =
        [|site| plan(maintenance(true), site), |site| plan(maintenance(false), site)];
    let steps = [Step::Maintain, Step::Unmaintain];
    walks("maintenance", MAINTENANCES, &plans, &["aborted", "confirmed", "held", "refused"], &steps);
}
