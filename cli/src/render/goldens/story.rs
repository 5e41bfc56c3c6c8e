//! Releases told fact by fact through the real state machine, so that no golden shows what cannot be.

use std::collections::BTreeMap;

use pointsman_core::machine::apply;
use pointsman_core::{
    Activation, ArtifactDigest, BackendName, Check, CheckFrom, CheckName, CheckSeen, CheckSpec, CheckVerdict,
    Code, DatabaseWork, DrainEnd, EnvironmentName, Epoch, Event, Evidence, HookName, HostName, HttpPath,
    Limits, Note, OrderKey, Phase, Plan, Problem, Purpose, Reading, ReleaseId, Request, RequestKind, Route,
    RouteEpoch, SlotName, SlotPlan, Split, Stamped, State, Step, Timestamp, UnitName, VerdictMode,
    VerdictPlan, WatchPlan,
};
use pointsman_proto::{convert, v1};

/// When every story begins: 2026-11-23T21:14:00Z.
pub const T0: Timestamp = Timestamp(1_795_468_440_000);
/// Between two facts, in milliseconds.
const FACT_MS: u64 = 400;

pub fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

pub fn artifact(byte: u8) -> ArtifactDigest {
    ArtifactDigest::from_bytes([byte; 32])
}

pub fn new_artifact() -> ArtifactDigest {
    artifact(0x4f)
}

pub fn old_artifact() -> ArtifactDigest {
    artifact(0x9c)
}

pub fn route(text: &str) -> Route {
    Route::parse(text).unwrap()
}

pub fn slot(name: &str) -> SlotPlan {
    SlotPlan {
        name: SlotName::parse(name).unwrap(),
        backend: BackendName::parse(&format!("be_{name}")).unwrap(),
        hosts: vec![host(if name == "blue" { "web1" } else { "web2" })],
    }
}

fn check(name: &str, from: CheckFrom, path: &str) -> Check {
    Check {
        name: CheckName::parse(name).unwrap(),
        from,
        before_switch: true,
        after_switch: from == CheckFrom::Balancers,
        spec: CheckSpec::get(&HttpPath::parse(path).unwrap(), 200, None),
        timeout_ms: 5_000,
        patience_ms: 20_000,
        bound_ms: 5_000,
    }
}

/// A plan of the usual site: two load balancers, blue on `web1` serves, green on `web2` is idle.
pub fn plan(release: &str, purpose: Purpose, to: &str) -> Plan {
    Plan {
        database: None,
        release: ReleaseId::parse(release).unwrap(),
        environment: EnvironmentName::parse("production").unwrap(),
        purpose,
        created_at: T0,
        created_by: "operator anna".to_owned(),
        request_id: None,
        reason: None,
        balancers: vec![host("lb1"), host("lb2")],
        from: Some(slot("blue")),
        to: slot(to),
        maintenance_backend: BackendName::parse("be_maint").unwrap(),
        under_maintenance: false,
        flag_hosts: Vec::new(),
        without: Vec::new(),
        route_before: route("be_blue:be_green:0:40"),
        route_epoch_base: RouteEpoch(40),
        links_before: [(host("web2"), Some(artifact(0x77)))].into(),
        activation: Activation {
            restart: vec![UnitName::parse("app.service").unwrap()],
            hooks: vec![HookName::parse("warm-up").unwrap()],
        },
        splits: Vec::new(),
        checks: vec![
            check("api", CheckFrom::Hosts, "/api/health"),
            check("frontend", CheckFrom::Balancers, "/"),
            check("wfs", CheckFrom::Balancers, "/wfs?request=GetCapabilities"),
        ],
        watch: WatchPlan { duration_ms: 300_000, interval_ms: 1_000, fail_after: 3, blind_ms: 30_000 },
        verdict: VerdictPlan::default(),
        automatic_rollback: true,
        drain_end: DrainEnd::Cut,
        limits: Limits {
            inspect_ms: 5_000,
            stage_ms: 600_000,
            activate_ms: 120_000,
            route_ms: 10_000,
            check_ms: 120_000,
            healthy_ms: 20_000,
            drain_ms: 30_000,
            gate_ttl_ms: 300_000,
            attempts: 4,
            persist_ms: 30_000,
        },
        found_ill: None,
        stood: None,
    }
}

pub fn deploy() -> Plan {
    plan("4f2c1ab", Purpose::Deploy { artifact: new_artifact() }, "green")
}

/// A deploy to a site that fails for a few seconds now and then.
pub fn judged_by_blips() -> Plan {
    let verdict = VerdictPlan { mode: VerdictMode::Act, blip_s: 5, ..VerdictPlan::default() };
    Plan { verdict, ..deploy() }
}

/// A deploy that begins with a tenth of the visitors, then half of them.
pub fn canary() -> Plan {
    let split = |percent| Split { percent, hold_ms: 120_000 };
    Plan { splits: vec![split(10), split(50)], ..deploy() }
}

/// The site's first release: visitors are on the maintenance page until then.
pub fn first_deploy() -> Plan {
    Plan {
        database: None,
        from: None,
        to: slot("blue"),
        route_before: route("be_maint:be_maint:0:0"),
        route_epoch_base: RouteEpoch(0),
        links_before: [(host("web1"), None)].into(),
        ..deploy()
    }
}

/// A backup that is asked for before anything was released.
pub fn first_backup() -> Plan {
    Plan {
        from: None,
        to: slot("blue"),
        links_before: BTreeMap::new(),
        ..plan("db-backup-1795468440", Purpose::Database(DatabaseWork::Backup), "blue")
    }
}

pub fn deploy_under_maintenance() -> Plan {
    Plan { under_maintenance: true, route_before: route("be_maint:be_blue:0:40"), ..deploy() }
}

/// The way back to green, after a deploy to blue was confirmed.
pub fn rollback(to: Option<&str>) -> Plan {
    let purpose = Purpose::Rollback {
        artifact: to.map(|_| artifact(0x77)),
        to: to.map(|release| ReleaseId::parse(release).unwrap()),
    };
    Plan { reason: Some("checkout broken".to_owned()), ..plan("rollback-1795468440", purpose, "green") }
}

/// The same by itself, because the deploy fared badly after its end.
pub fn rollback_from_ill() -> Plan {
    let found = "errors on `blue` 20 % of 163, limit 1 %".to_owned();
    Plan {
        created_by: "pointsman".to_owned(),
        reason: Some(format!("after its end: {found}")),
        found_ill: Some(found),
        ..rollback(Some("77ab012"))
    }
}

/// A share of the visitors is led back from green for which no release accounts.
pub fn gather() -> Plan {
    let purpose = Purpose::Rollback { artifact: None, to: None };
    Plan { route_before: route("be_blue:be_green:10:40"), ..plan("rollback-1795468440", purpose, "blue") }
}

/// The same while a load balancer is out of service.
pub fn rollback_without_one() -> Plan {
    Plan { balancers: vec![host("lb1")], without: vec![host("lb2")], ..rollback(Some("77ab012")) }
}

pub fn maintenance(on: bool) -> Plan {
    let until = on.then(|| T0.plus_ms(1_800_000));
    let release = if on { "maintenance-on-1795468440" } else { "maintenance-off-1795470000" };
    let before = if on { "be_blue:be_green:0:40" } else { "be_maint:be_blue:0:41" };
    Plan {
        database: None,
        route_before: route(before),
        route_epoch_base: RouteEpoch(if on { 40 } else { 41 }),
        under_maintenance: !on,
        flag_hosts: vec![host("web1"), host("web2")],
        reason: on.then(|| "database upgrade".to_owned()),
        ..plan(release, Purpose::Maintenance { on, until }, "blue")
    }
}

pub fn check_failed() -> Problem {
    Problem::new(Code::CheckFailed, "check `wfs` failed: /wfs?request=GetCapabilities expected status 200, got 502")
        .cause("asked 127.0.0.1:443 for host `www.example.org`")
        .hint("ask it yourself: `curl -i -H 'Host: www.example.org' http://127.0.0.1:443/wfs?request=GetCapabilities`")
        .on(&host("lb1"))
}

pub fn check_holds() -> Problem {
    Problem::new(
        Code::CheckHolds,
        "check `wfs` failed: /wfs?request=GetCapabilities expected status 200, got 502",
    )
    .cause("asked 127.0.0.1:443 for host `www.example.org`")
    .hint("make it again: `pointsman check ENV --name wfs`")
    .on(&host("lb1"))
}

pub fn unreachable(name: &str) -> Problem {
    Problem::new(Code::AgentUnreachable, format!("no answer from agent `{name}` within 5000 ms"))
        .aftermath(pointsman_core::Aftermath::Unknown)
        .retry_useful()
        .on(&host(name))
        .hint(format!("on `{name}`: `systemctl status 'pointsman-*agent'`"))
}

pub fn drifted() -> Problem {
    Problem::new(Code::RouteDrift, "the route is `be_green:be_green:0:999`, expected `be_blue:be_green:0:40`")
        .hint("see it: `pointsman traffic show ENV`")
        .on(&host("lb1"))
}

/// A pause, as the machine words it.
pub fn pause(reason: Option<&str>) -> Problem {
    let why = reason.unwrap_or("no reason given");
    Problem::new(Code::OperatorStopped, format!("operator ben asked for pause: {why}"))
        .hint("`pointsman resume production` goes on")
}

pub fn unhealthy() -> Problem {
    Problem::new(Code::BackendUnhealthy, "`be_green` has 0 of 1 servers healthy, 1 needed")
        .cause("web2 is DOWN (L4CON)")
        .retry_useful()
        .hint("see its checks: `echo 'show stat be_green 6 -1' | socat - /run/haproxy/pointsman.sock`")
        .on(&host("lb1"))
}

/// A release and what was recorded of it.
#[derive(Clone)]
pub struct Story {
    pub state: State,
    pub now: Timestamp,
    facts: Vec<(Timestamp, Event, State)>,
}

impl Story {
    pub fn of(plan: Plan) -> Self {
        let plan = std::sync::Arc::new(plan);
        let planned = Event::Planned(std::sync::Arc::clone(&plan));
        let state = State::begin(plan, Epoch(7), T0);
        Self { facts: vec![(T0, planned, state.clone())], state, now: T0 }
    }

    pub fn after_ms(mut self, ms: u64) -> Self {
        self.now = self.now.plus_ms(ms);
        self
    }

    pub fn tell(mut self, event: Event) -> Self {
        self.now = self.now.plus_ms(FACT_MS);
        self.state = apply(&self.state, &Stamped { at: self.now, event: event.clone() }).unwrap();
        self.facts.push((self.now, event, self.state.clone()));
        self
    }

    pub fn fenced(self) -> Self {
        self.state.unfenced.clone().into_iter().fold(self, |story, host| story.tell(Event::Fenced(host)))
    }

    fn key(step: Step, host: &HostName) -> OrderKey {
        OrderKey { step, host: host.clone() }
    }

    pub fn send(self, step: Step, name: &str) -> Self {
        let attempt = self.state.progress(step, &host(name)).map_or(1, |progress| progress.attempts + 1);
        self.tell(Event::OrderIntended { key: Self::key(step, &host(name)), attempt })
    }

    pub fn done(self, step: Step, name: &str) -> Self {
        let evidence = evidence(&self.state.plan, step, &host(name));
        self.tell(Event::OrderDone { key: Self::key(step, &host(name)), evidence })
    }

    pub fn failed(self, step: Step, name: &str, problem: Problem) -> Self {
        self.tell(Event::OrderFailed { key: Self::key(step, &host(name)), problem })
    }

    /// Every host of the step is asked.
    pub fn sent(self, step: Step) -> Self {
        let targets = self.state.plan.targets(step);
        targets.iter().fold(self, |story, host| story.send(step, host.as_str()))
    }

    /// Every host of the step confirms it.
    pub fn confirmed(self, step: Step) -> Self {
        let targets = self.state.plan.targets(step);
        targets.iter().fold(self.sent(step), |story, host| story.done(step, host.as_str()))
    }

    /// The same, and the first host may not have reached everybody.
    pub fn confirmed_for_some(self, step: Step, unreached: &str) -> Self {
        let targets = self.state.plan.targets(step);
        let Some((first, others)) = targets.split_first() else { return self };
        let story = others.iter().fold(self.sent(step), |story, host| story.done(step, host.as_str()));
        let unreached = Some(unreached.to_owned());
        let evidence = Evidence { unreached, ..evidence(&story.state.plan, step, first) };
        story.tell(Event::OrderDone { key: Self::key(step, first), evidence })
    }

    /// Every host confirms it, and the first could not have it kept.
    pub fn confirmed_unkept(self, step: Step, unkept: &str) -> Self {
        let targets = self.state.plan.targets(step);
        let Some((first, others)) = targets.split_first() else { return self };
        let story = others.iter().fold(self.sent(step), |story, host| story.done(step, host.as_str()));
        let unkept = Some(unkept.to_owned());
        let evidence = Evidence { unkept, ..evidence(&story.state.plan, step, first) };
        story.tell(Event::OrderDone { key: Self::key(step, first), evidence })
    }

    /// One host of the step fails, every other confirms it.
    pub fn failing_on(self, step: Step, name: &str, problem: Problem) -> Self {
        let targets = self.state.plan.targets(step);
        let others = targets.iter().filter(|host| host.as_str() != name);
        let story = others.fold(self.sent(step), |story, host| story.done(step, host.as_str()));
        story.failed(step, name, problem)
    }

    /// Everything on the way forward before this step is confirmed.
    pub fn until(self, step: Step) -> Self {
        let steps = self.state.plan.steps().iter().copied().take_while(|before| *before != step);
        steps.fold(self.fenced(), |story, step| story.split_watched().confirmed(step)).split_watched()
    }

    /// The watch of a split, if there is one under way, has passed.
    fn split_watched(self) -> Self {
        match self.state.phase {
            Phase::Watching { after: Step::Canary(_), .. } => self.after_ms(120_000).tell(Event::WatchPassed),
            _ => self,
        }
    }

    /// A split that is being watched.
    pub fn split(self, number: u8) -> Self {
        self.until(Step::Canary(number)).confirmed(Step::Canary(number))
    }

    /// The whole way back is confirmed.
    pub fn all_back(mut self) -> Self {
        while let Phase::Doing(step) = self.state.phase {
            self = self.confirmed(step);
        }
        self
    }

    pub fn turned_back(self, problem: Problem) -> Self {
        self.tell(Event::TurnedBack(problem))
    }

    pub fn held(self, problem: Problem) -> Self {
        self.tell(Event::Held(problem))
    }

    pub fn requested(self, kind: RequestKind, reason: Option<&str>) -> Self {
        self.asked(kind, reason, Vec::new())
    }

    /// What is gone for good is left out of the way back.
    pub fn left_out(self, name: &str, reason: &str) -> Self {
        self.asked(RequestKind::Resume, Some(reason), vec![host(name)])
    }

    fn asked(self, kind: RequestKind, reason: Option<&str>, without: Vec<HostName>) -> Self {
        let reason = reason.map(str::to_owned);
        self.tell(Event::Requested(Request { kind, by: "operator ben".to_owned(), reason, without }))
    }

    pub fn read(self, reading: Reading) -> Self {
        self.after_ms(1_000).tell(Event::GatesRead(reading))
    }

    /// Watched to its end.
    pub fn watched(self) -> Self {
        self.until(Step::Watch).after_ms(300_000).tell(Event::WatchPassed)
    }

    /// What an operator asked for turns the release back, as the machine words it.
    pub fn stopped(self, kind: RequestKind) -> Self {
        let problem = Problem::new(
            Code::OperatorStopped,
            format!("operator ben asked for {}: too early", kind.as_str()),
        )
        .hint("start again with a new release when it is time");
        self.requested(kind, Some("too early")).turned_back(problem)
    }

    /// What an operator asked for holds the release.
    pub fn paused(self, reason: Option<&str>) -> Self {
        self.requested(RequestKind::Pause, reason).held(pause(reason))
    }

    pub fn wire(&self) -> v1::Release {
        wire(&self.state)
    }

    /// A check that only warns fails by one load balancer.
    pub fn warned(self) -> Self {
        let what = "/wfs?request=GetCapabilities expected status 200, got 502: `<h1>Bad Gateway</h1>`";
        let seen = vec![CheckSeen::new(CheckName::parse("wfs").unwrap(), CheckVerdict::Failed, 12, what)];
        self.tell(Event::Noted(Note::Checks { step: Step::Switch, host: host("lb1"), seen }))
    }

    /// Every fact as the coordinator tells it to a follower.
    pub fn updates(&self) -> Vec<v1::ReleaseUpdate> {
        (1..).zip(&self.facts).map(|(seq, (at, event, state))| update(seq, *at, event, state)).collect()
    }
}

/// What an agent says of an order that it carried out, in its own words.
fn evidence(plan: &Plan, step: Step, host: &HostName) -> Evidence {
    let on_balancer = plan.balancers.contains(host);
    let route = plan.route(step).map(|route| route.to_string()).unwrap_or_default();
    let (detail, took_us) = match step {
        Step::Preflight if on_balancer => (format!("HAProxy 3.2.4, route `{}`", plan.route_before), 4_210),
        Step::Preflight => ("writable, 41 GiB free".to_owned(), 2_900),
        Step::Stage => ("1284 files, 48213377 bytes, verified".to_owned(), 7_412_000),
        Step::Drain => (format!("`{}` serves nobody, after 312 ms", plan.to.backend), 312_400),
        Step::Activate => (format!("`current` is {}", new_artifact().short()), 1_288_000),
        Step::LinkBack => (format!("`current` is {}", artifact(0x77).short()), 1_154_000),
        Step::Discard => (format!("staged files of {} dropped", new_artifact().short()), 21_000),
        Step::Check if on_balancer => {
            (format!("2 checks on `{}` passed, 1 of 1 servers healthy", plan.to.backend), 96_000)
        }
        Step::Check => ("1 check on `127.0.0.1:8080` passed".to_owned(), 18_000),
        Step::Maintain | Step::Unmaintain if !on_balancer => {
            let puts_up = matches!(plan.purpose, Purpose::Maintenance { on: true, .. });
            let there = puts_up == (step == Step::Maintain);
            (format!("maintenance file {}", if there { "there" } else { "gone" }), 900)
        }
        _ => (format!("route `{route}` read back, seen by 3 new connections"), 2_430),
    };
    // Of two load balancers the second is always 400 us later.
    let moment = |host: &HostName| T0.0 * 1000 + if host.as_str() == "lb1" { 7_000 } else { 7_400 };
    let effect_at_us = step.moves_visitors().then(|| moment(host));
    Evidence { already: false, detail, took_us, effect_at_us, ..Evidence::default() }
}

/// As the coordinator tells a fact.
fn update(seq: u64, at: Timestamp, event: &Event, state: &State) -> v1::ReleaseUpdate {
    let mut update = convert::update_to_wire(seq, at.0, event, wire(state));
    if let Event::Noted(Note::Checks { host, seen, .. }) = event {
        let release = update.release.clone().unwrap();
        (update.kind, update.step, update.host) = ("check-warns".to_owned(), release.step, host.to_string());
        update.detail = format!("`{}` did not pass, and only warns: {}", seen[0].name, seen[0].what);
    }
    update
}

/// As the coordinator tells a release. What is amiss in these stories only warns.
fn wire(state: &State) -> v1::Release {
    let made = state.amiss.iter().map(|((_, host), seen)| v1::CheckMade {
        host: host.to_string(),
        seen: convert::seen_to_wire(std::slice::from_ref(seen)).into_iter().next(),
    });
    v1::Release { warnings: made.collect(), ..convert::release_to_wire(state, T0, None) }
}
