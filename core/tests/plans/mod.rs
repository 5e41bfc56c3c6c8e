//! Plans for the tests of the state machine: one small site in several sizes, and nothing about what happens
//! to a plan.

#![expect(clippy::unwrap_used, reason = "the names below are literals that parse")]

use pointsman_core::{
    Activation, ArtifactDigest, BackendName, Check, CheckFrom, CheckName, CheckSpec, DrainEnd,
    EnvironmentName, HostName, HttpPath, Limits, Plan, Purpose, ReleaseId, Route, RouteEpoch, SlotName,
    SlotPlan, Split, Timestamp, VerdictPlan, WatchPlan,
};

/// When every plan is made.
pub const CREATED_AT: Timestamp = Timestamp(1_000_000_000);
/// What a deploy brings.
pub const NEW: ArtifactDigest = ArtifactDigest::from_bytes([2; 32]);
/// What was current on the target slot before.
pub const OLD: ArtifactDigest = ArtifactDigest::from_bytes([1; 32]);

/// How big the site is, and how it stands when the plan is made.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Load balancers.
    pub balancers: u32,
    /// Hosts of each slot.
    pub hosts: u32,
    /// Blue serves visitors; otherwise nothing was ever released.
    pub live: bool,
    /// The maintenance page is up.
    pub page_up: bool,
    /// Shares of the visitors that a new version gets first, each watched for 20 seconds.
    pub splits: &'static [u8],
}

impl Site {
    /// The usual site: a blue slot that serves, and no maintenance page.
    pub fn of(balancers: u32, hosts: u32) -> Self {
        Self { balancers, hosts, live: true, page_up: false, splits: &[] }
    }
}

/// The purpose of a deploy.
pub fn deploy() -> Purpose {
    Purpose::Deploy { artifact: NEW }
}

/// The purpose of a rollback.
pub fn rollback() -> Purpose {
    Purpose::Rollback { artifact: Some(OLD), to: Some(ReleaseId::parse("r1").unwrap()) }
}

/// The purpose of putting the maintenance page up, or of taking it down.
pub fn maintenance(on: bool) -> Purpose {
    Purpose::Maintenance { on, until: None }
}

/// A host by its name.
pub fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn hosts(name: &str, count: u32) -> Vec<HostName> {
    (1..=count).map(|number| host(&format!("{name}{number}"))).collect()
}

fn backend(name: &str) -> BackendName {
    BackendName::parse(name).unwrap()
}

fn slot(name: &str, count: u32) -> SlotPlan {
    SlotPlan {
        name: SlotName::parse(name).unwrap(),
        backend: backend(&format!("be_{name}")),
        hosts: hosts(name, count),
    }
}

fn check(name: &str, from: CheckFrom) -> Check {
    Check {
        name: CheckName::parse(name).unwrap(),
        from,
        before_switch: true,
        after_switch: true,
        spec: CheckSpec::get(&HttpPath::parse("/health").unwrap(), 200, None),
        timeout_ms: 1_000,
        patience_ms: 2_000,
        bound_ms: 1_000,
    }
}

/// The plan of a release of that purpose on that site: from blue to green, or the maintenance page for blue.
pub fn plan(purpose: Purpose, site: Site) -> Plan {
    let blue = slot("blue", site.hosts);
    let green = slot("green", site.hosts);
    let page = backend("be_maintenance");
    let serving = if site.live { blue.backend.clone() } else { page.clone() };
    let page_up = site.page_up || matches!(purpose, Purpose::Maintenance { on: false, .. });
    let stable = if page_up { page.clone() } else { serving.clone() };
    let for_maintenance = matches!(purpose, Purpose::Maintenance { .. });
    let to = if for_maintenance { blue.clone() } else { green };
    let split = |percent: &u8| Split { percent: *percent, hold_ms: 20_000 };
    // As the planner has it: a share can be moved only from a slot that serves visitors.
    let splits = if site.live && !page_up { site.splits.iter().map(split).collect() } else { Vec::new() };
    Plan {
        release: ReleaseId::parse("r2").unwrap(),
        environment: EnvironmentName::parse("production").unwrap(),
        purpose,
        created_at: CREATED_AT,
        created_by: "ada".to_owned(),
        request_id: None,
        reason: Some("a reason".to_owned()),
        balancers: hosts("lb", site.balancers),
        links_before: to.hosts.iter().map(|host| (host.clone(), Some(OLD))).collect(),
        to,
        maintenance_backend: page,
        under_maintenance: page_up,
        without: Vec::new(),
        flag_hosts: if for_maintenance { blue.hosts.clone() } else { Vec::new() },
        route_before: Route { stable, canary: serving, percent: 0, epoch: RouteEpoch(10) },
        route_epoch_base: RouteEpoch(12),
        from: site.live.then_some(blue),
        activation: Activation::default(),
        database: None,
        splits,
        checks: vec![check("local", CheckFrom::Hosts), check("outside", CheckFrom::Balancers)],
        watch: WatchPlan { duration_ms: 60_000, interval_ms: 10_000, fail_after: 3, blind_ms: 25_000 },
        verdict: VerdictPlan::default(),
        automatic_rollback: true,
        drain_end: DrainEnd::Cut,
        limits: Limits {
            inspect_ms: 5_000,
            stage_ms: 60_000,
            activate_ms: 30_000,
            route_ms: 5_000,
            check_ms: 10_000,
            drain_ms: 30_000,
            gate_ttl_ms: 300_000,
            attempts: 3,
            persist_ms: 20_000,
            healthy_ms: 10_000,
        },
        found_ill: None,
        stood: None,
    }
}
