//! The form of entries on disk: JSON with a version, of types of its own, so that neither a change of the wire nor
//! one of the domain can change what old entries mean. An operator can read it with `sqlite3`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use pointsman_core as domain;
use pointsman_core::{Code, Event};
use serde::{Deserialize, Serialize};

use super::note;
use super::standing_record::{self, Standing};
use super::verdict_record::{self, Judged, VerdictPlan};

/// The newest version that is written. Readers know all versions up to it: 2 knows splits, which 1 had none of, 3 knows verdicts
/// and databases, 4 notes, and checks by their description, 5 who is left out of the way back.
pub const VERSION: u32 = 5;

/// The version of what says nothing that only a newer one knows: a coordinator that was put back to the one before reads on.
const USUAL_VERSION: u32 = 4;

/// The oldest version that reads a fact for what it is.
fn version_of(event: &Event) -> u32 {
    match event {
        Event::Requested(request) if !request.without.is_empty() => VERSION,
        _ => USUAL_VERSION,
    }
}

/// Why bytes are no fact to this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A later version wrote them.
    Newer(u64),
    /// No version did. The text says what is wrong.
    Malformed(String),
}

/// The journal's own word for a kind of fact.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Planned(_) => "plan",
        Event::EpochTaken(_) => "lease",
        Event::OrderIntended { .. } => "intent",
        Event::OrderDone { .. } | Event::OrderFailed { .. } => "outcome",
        Event::Fenced(_) | Event::GatesRead(_) => "observed",
        Event::Requested(_) | Event::Adopted { .. } => "call",
        Event::GatesExpired
        | Event::WatchMoved { .. }
        | Event::Judged(_)
        | Event::WatchPassed
        | Event::TurnedBack(_)
        | Event::Noted(_)
        | Event::Held(_) => "note",
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    v: u32,
    #[serde(flatten)]
    fact: Fact,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Fact {
    Planned {
        plan: Box<Plan>,
    },
    EpochTaken {
        epoch: u64,
    },
    Fenced {
        host: String,
    },
    OrderIntended {
        step: String,
        host: String,
        attempt: u32,
    },
    OrderDone {
        step: String,
        host: String,
        already: bool,
        detail: String,
        took_us: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect_at_us: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unreached: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unkept: Option<String>,
    },
    OrderFailed {
        step: String,
        host: String,
        problem: Problem,
    },
    GatesPassed,
    GatesFailed {
        problem: Problem,
    },
    GatesShared {
        problem: Problem,
    },
    GatesUnknown {
        problem: Problem,
    },
    GatesExpired,
    WatchMoved {
        until_ms: u64,
    },
    Judged {
        judged: Box<Judged>,
    },
    WatchPassed,
    Requested {
        kind: String,
        by: String,
        reason: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        without: Vec<String>,
    },
    TurnedBack {
        problem: Problem,
    },
    Held {
        problem: Problem,
    },
    Adopted {
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        page: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unaccounted: Option<Unaccounted>,
    },
    Noted {
        note: note::Note,
    },
}

/// [`domain::Unaccounted`].
#[derive(Serialize, Deserialize)]
pub(super) struct Unaccounted {
    slot: String,
    percent: u8,
}

impl Unaccounted {
    /// For the disk.
    pub(super) fn of(share: &domain::Unaccounted) -> Self {
        Self { slot: share.slot.to_string(), percent: share.percent }
    }

    /// From the disk.
    pub(super) fn read(self) -> Option<domain::Unaccounted> {
        let slot = domain::SlotName::parse(&self.slot).ok()?;
        (1..=100).contains(&self.percent).then_some(domain::Unaccounted { slot, percent: self.percent })
    }
}

#[derive(Serialize, Deserialize)]
struct Problem {
    code: String,
    aftermath: String,
    retry_useful: bool,
    host: Option<String>,
    message: String,
    causes: Vec<String>,
    hint: String,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    name: String,
    backend: String,
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Split {
    percent: u8,
    hold_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Check {
    name: String,
    from_hosts: bool,
    before_switch: bool,
    after_switch: bool,
    #[serde(flatten)]
    does: Does,
    timeout_ms: u64,
    patience_ms: u64,
    #[serde(default)]
    bound_ms: u64,
}

/// What a check does: until version 2 one request.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Does {
    Described { spec: String },
    Get { path: String, status: u16, body_contains: Option<String> },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case")]
enum Purpose {
    Deploy { artifact: String },
    Rollback { artifact: Option<String>, to: Option<String> },
    Maintenance { on: bool, until_ms: Option<u64> },
    DatabaseBackup,
    DatabaseVerify { backup: String },
    DatabaseContract,
    DatabaseDown { version: String },
    DatabaseRestore { backup: String },
    DatabaseSwap { backup: String, accept_loss: u64 },
    DatabaseSwapBack { backup: String, accept_loss: u64 },
    DatabaseSettle { backup: String },
}

#[derive(Serialize, Deserialize)]
struct Migrations {
    artifact: String,
    phase: String,
    versions: Vec<String>,
    out_of_order: Vec<String>,
    max_stall_ms: u64,
    lock_budget_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Database {
    host: String,
    migrations: Option<Migrations>,
    verify: String,
    /// Not there in records from before it was possible.
    #[serde(default)]
    keeps_away: bool,
    backup_ms: u64,
    migrate_ms: u64,
}

/// What plans did not say before they said it.
fn five_minutes() -> u64 {
    300_000
}

#[derive(Serialize, Deserialize)]
struct Plan {
    release: String,
    environment: String,
    purpose: Purpose,
    created_at_ms: u64,
    created_by: String,
    request_id: Option<String>,
    reason: Option<String>,
    balancers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    from: Option<Slot>,
    to: Slot,
    maintenance_backend: String,
    under_maintenance: bool,
    flag_hosts: Vec<String>,
    route_before: String,
    route_epoch_base: u64,
    links_before: BTreeMap<String, Option<String>>,
    restart: Vec<String>,
    hooks: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<Database>,
    #[serde(default)]
    splits: Vec<Split>,
    checks: Vec<Check>,
    watch_duration_ms: u64,
    watch_interval_ms: u64,
    watch_fail_after: u32,
    watch_blind_ms: u64,
    #[serde(default)]
    verdict: Option<VerdictPlan>,
    automatic_rollback: bool,
    drain_cut: bool,
    inspect_ms: u64,
    stage_ms: u64,
    activate_ms: u64,
    route_ms: u64,
    check_ms: u64,
    healthy_ms: u64,
    drain_ms: u64,
    #[serde(default = "five_minutes")]
    gate_ttl_ms: u64,
    attempts: u32,
    persist_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found_ill: Option<String>,
    // Versions before this was said read over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stood: Option<Box<Standing>>,
}

/// A fact for the disk.
pub fn encode(event: &Event) -> Vec<u8> {
    let versioned = Versioned { v: version_of(event), fact: fact_of(event) };
    // These types hold nothing that JSON cannot express: no map with other keys than text, no failing serializer.
    serde_json::to_vec(&versioned).unwrap_or_default()
}

/// A fact from the disk.
pub fn decode(bytes: &[u8]) -> Result<Event, Unreadable> {
    let malformed = |error| Unreadable::Malformed(format!("is no record: {error}"));
    let read: Result<Versioned, _> = serde_json::from_slice(bytes);
    // Nearly every record is of a known version, and is read once.
    if !read.as_ref().is_ok_and(|versioned| (1..=VERSION).contains(&versioned.v)) {
        let version: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        match version.get("v").and_then(serde_json::Value::as_u64) {
            Some(v) if v > u64::from(VERSION) => return Err(Unreadable::Newer(v)),
            Some(v) if v > 0 => {}
            _ => return Err(Unreadable::Malformed("has no version".to_owned())),
        }
    }
    event_of(read.map_err(malformed)?.fact)
        .ok_or_else(|| Unreadable::Malformed("holds a value that cannot be".to_owned()))
}

/// The bytes that a plan's fingerprint is made of: all choices, without when and by whom they were made, and without what
/// was measured, which is another number each time, nor how the environment stood.
pub fn plan_bytes(plan: &domain::Plan) -> Vec<u8> {
    let mut record = plan_of(plan);
    if let Some(verdict) = &mut record.verdict {
        verdict.before = None;
    }
    record.created_at_ms = 0;
    record.created_by.clear();
    record.stood = None;
    serde_json::to_vec(&record).unwrap_or_default()
}

fn text(value: &impl ToString) -> String {
    value.to_string()
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn parse_all<T: FromStr>(texts: &[String]) -> Option<Vec<T>> {
    texts.iter().map(|text| parse(text)).collect()
}

/// `None` stays `None`; a text that does not parse is an error, shown by the outer `None`.
fn parse_optional<T: FromStr>(text: Option<&String>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| parse(text).map(Some))
}

fn fact_of(event: &Event) -> Fact {
    match event {
        Event::Planned(plan) => Fact::Planned { plan: Box::new(plan_of(plan)) },
        Event::EpochTaken(epoch) => Fact::EpochTaken { epoch: epoch.0 },
        Event::Fenced(host) => Fact::Fenced { host: text(host) },
        Event::OrderIntended { key, attempt } => {
            Fact::OrderIntended { step: text(&key.step), host: text(&key.host), attempt: *attempt }
        }
        Event::OrderDone { key, evidence } => Fact::OrderDone {
            step: text(&key.step),
            host: text(&key.host),
            already: evidence.already,
            detail: evidence.detail.clone(),
            took_us: evidence.took_us,
            effect_at_us: evidence.effect_at_us,
            unreached: evidence.unreached.clone(),
            unkept: evidence.unkept.clone(),
        },
        Event::OrderFailed { key, problem } => {
            Fact::OrderFailed { step: text(&key.step), host: text(&key.host), problem: problem_of(problem) }
        }
        Event::GatesRead(domain::Reading::Pass) => Fact::GatesPassed,
        Event::GatesRead(domain::Reading::Fail(problem)) => {
            Fact::GatesFailed { problem: problem_of(problem) }
        }
        Event::GatesRead(domain::Reading::Shared(problem)) => {
            Fact::GatesShared { problem: problem_of(problem) }
        }
        Event::GatesRead(domain::Reading::Unknown(problem)) => {
            Fact::GatesUnknown { problem: problem_of(problem) }
        }
        Event::GatesExpired => Fact::GatesExpired,
        Event::WatchMoved { until } => Fact::WatchMoved { until_ms: until.0 },
        Event::Judged(judged) => Fact::Judged { judged: Box::new(verdict_record::judged_of(judged)) },
        Event::WatchPassed => Fact::WatchPassed,
        Event::Requested(request) => Fact::Requested {
            kind: request.kind.as_str().to_owned(),
            by: request.by.clone(),
            reason: request.reason.clone(),
            without: texts(&request.without),
        },
        Event::TurnedBack(problem) => Fact::TurnedBack { problem: problem_of(problem) },
        Event::Adopted { by, found } => Fact::Adopted {
            by: by.clone(),
            slot: found.slot.as_ref().map(ToString::to_string),
            page: found.page,
            unaccounted: found.unaccounted.as_ref().map(Unaccounted::of),
        },
        Event::Held(problem) => Fact::Held { problem: problem_of(problem) },
        Event::Noted(noted) => Fact::Noted { note: note::note_of(noted) },
    }
}

fn event_of(fact: Fact) -> Option<Event> {
    let key = |step: &str, host: &str| {
        Some(domain::OrderKey { step: domain::Step::parse(step)?, host: parse(host)? })
    };
    Some(match fact {
        Fact::Planned { plan } => Event::Planned(Arc::new(plan_from(*plan)?)),
        Fact::EpochTaken { epoch } => Event::EpochTaken(domain::Epoch(epoch)),
        Fact::Fenced { host } => Event::Fenced(parse(&host)?),
        Fact::OrderIntended { step, host, attempt } => {
            Event::OrderIntended { key: key(&step, &host)?, attempt }
        }
        Fact::OrderDone { step, host, already, detail, took_us, effect_at_us, unreached, unkept } => {
            Event::OrderDone {
                key: key(&step, &host)?,
                evidence: domain::Evidence {
                    already,
                    detail,
                    took_us,
                    effect_at_us,
                    unreached,
                    unkept,
                    checks: Vec::new(),
                },
            }
        }
        Fact::OrderFailed { step, host, problem } => {
            Event::OrderFailed { key: key(&step, &host)?, problem: problem_from(problem)? }
        }
        Fact::GatesPassed => Event::GatesRead(domain::Reading::Pass),
        Fact::GatesFailed { problem } => Event::GatesRead(domain::Reading::Fail(problem_from(problem)?)),
        Fact::GatesShared { problem } => Event::GatesRead(domain::Reading::Shared(problem_from(problem)?)),
        Fact::GatesUnknown { problem } => Event::GatesRead(domain::Reading::Unknown(problem_from(problem)?)),
        Fact::GatesExpired => Event::GatesExpired,
        Fact::WatchMoved { until_ms } => Event::WatchMoved { until: domain::Timestamp(until_ms) },
        Fact::Judged { judged } => Event::Judged(Box::new(verdict_record::judged_from(*judged)?)),
        Fact::WatchPassed => Event::WatchPassed,
        Fact::Requested { kind, by, reason, without } => {
            let (kind, without) = (domain::RequestKind::parse(&kind)?, parse_all(&without)?);
            Event::Requested(domain::Request { kind, by, reason, without })
        }
        Fact::TurnedBack { problem } => Event::TurnedBack(problem_from(problem)?),
        Fact::Adopted { by, slot, page, unaccounted } => {
            let slot = slot
                .map(|slot| domain::SlotName::parse(&slot).ok())
                .map_or(Some(None), |slot| slot.map(Some))?;
            let unaccounted = unaccounted.map_or(Some(None), |share| share.read().map(Some))?;
            Event::Adopted { by, found: domain::Found { slot, page, unaccounted } }
        }
        Fact::Held { problem } => Event::Held(problem_from(problem)?),
        Fact::Noted { note } => Event::Noted(note::note_from(note)?),
    })
}

fn problem_of(problem: &domain::Problem) -> Problem {
    let aftermath = match problem.aftermath {
        domain::Aftermath::Unchanged => "unchanged",
        domain::Aftermath::Changed => "changed",
        domain::Aftermath::Unknown => "unknown",
    };
    Problem {
        code: text(&problem.code),
        aftermath: aftermath.to_owned(),
        retry_useful: problem.retry == domain::Retry::Useful,
        host: problem.host.as_ref().map(text),
        message: problem.message.clone(),
        causes: problem.causes.clone(),
        hint: problem.hint.clone(),
    }
}

fn problem_from(record: Problem) -> Option<domain::Problem> {
    Some(domain::Problem {
        code: Code::parse(&record.code)?,
        aftermath: match record.aftermath.as_str() {
            "unchanged" => domain::Aftermath::Unchanged,
            "changed" => domain::Aftermath::Changed,
            "unknown" => domain::Aftermath::Unknown,
            _ => return None,
        },
        retry: if record.retry_useful { domain::Retry::Useful } else { domain::Retry::Useless },
        host: parse_optional(record.host.as_ref())?,
        message: record.message,
        causes: record.causes,
        hint: record.hint,
        checks: Vec::new(),
    })
}

fn slot_of(slot: &domain::SlotPlan) -> Slot {
    Slot { name: text(&slot.name), backend: text(&slot.backend), hosts: texts(&slot.hosts) }
}

fn slot_from(record: &Slot) -> Option<domain::SlotPlan> {
    Some(domain::SlotPlan {
        name: parse(&record.name)?,
        backend: parse(&record.backend)?,
        hosts: parse_all(&record.hosts)?,
    })
}

fn check_of(check: &domain::Check) -> Check {
    Check {
        name: text(&check.name),
        from_hosts: check.from == domain::CheckFrom::Hosts,
        before_switch: check.before_switch,
        after_switch: check.after_switch,
        does: Does::Described { spec: text(&check.spec) },
        timeout_ms: check.timeout_ms,
        patience_ms: check.patience_ms,
        bound_ms: check.bound_ms,
    }
}

fn check_from(record: &Check) -> Option<domain::Check> {
    Some(domain::Check {
        name: parse(&record.name)?,
        from: if record.from_hosts { domain::CheckFrom::Hosts } else { domain::CheckFrom::Balancers },
        before_switch: record.before_switch,
        after_switch: record.after_switch,
        spec: match &record.does {
            Does::Described { spec } => parse(spec)?,
            Does::Get { path, status, body_contains } => {
                domain::CheckSpec::get(&parse(path)?, *status, body_contains.as_deref())
            }
        },
        timeout_ms: record.timeout_ms,
        patience_ms: record.patience_ms,
        bound_ms: record.bound_ms,
    })
}

/// Splits of a plan: no more than there are steps for, and each a share that leaves somebody on either side.
fn splits_from(records: &[Split]) -> Option<Vec<domain::Split>> {
    let sound = |split: &Split| (1..=99).contains(&split.percent);
    if records.len() > domain::MAX_SPLITS || !records.iter().all(sound) {
        return None;
    }
    let split = |record: &Split| domain::Split { percent: record.percent, hold_ms: record.hold_ms };
    Some(records.iter().map(split).collect())
}

fn work_of(work: &domain::DatabaseWork) -> Purpose {
    use domain::DatabaseWork as Work;
    match work {
        Work::Backup => Purpose::DatabaseBackup,
        Work::Verify { backup } => Purpose::DatabaseVerify { backup: text(backup) },
        Work::Contract => Purpose::DatabaseContract,
        Work::Down { version } => Purpose::DatabaseDown { version: version.clone() },
        Work::Restore { backup } => Purpose::DatabaseRestore { backup: text(backup) },
        Work::Swap { backup, accept_loss } => {
            Purpose::DatabaseSwap { backup: text(backup), accept_loss: *accept_loss }
        }
        Work::SwapBack { backup, accept_loss } => {
            Purpose::DatabaseSwapBack { backup: text(backup), accept_loss: *accept_loss }
        }
        Work::Settle { backup } => Purpose::DatabaseSettle { backup: text(backup) },
    }
}

fn work_from(purpose: &Purpose) -> Option<domain::DatabaseWork> {
    use domain::DatabaseWork as Work;
    Some(match purpose {
        Purpose::DatabaseBackup => Work::Backup,
        Purpose::DatabaseVerify { backup } => Work::Verify { backup: parse(backup)? },
        Purpose::DatabaseContract => Work::Contract,
        Purpose::DatabaseDown { version } => Work::Down { version: version.clone() },
        Purpose::DatabaseRestore { backup } => Work::Restore { backup: parse(backup)? },
        Purpose::DatabaseSwap { backup, accept_loss } => {
            Work::Swap { backup: parse(backup)?, accept_loss: *accept_loss }
        }
        Purpose::DatabaseSwapBack { backup, accept_loss } => {
            Work::SwapBack { backup: parse(backup)?, accept_loss: *accept_loss }
        }
        Purpose::DatabaseSettle { backup } => Work::Settle { backup: parse(backup)? },
        Purpose::Deploy { .. } | Purpose::Rollback { .. } | Purpose::Maintenance { .. } => return None,
    })
}

fn database_of(database: &domain::DatabasePlan) -> Database {
    let migrations = database.migrations.as_ref().map(|migrations| Migrations {
        artifact: text(&migrations.artifact),
        phase: migrations.phase.as_str().to_owned(),
        versions: migrations.versions.clone(),
        out_of_order: migrations.out_of_order.clone(),
        max_stall_ms: migrations.max_stall_ms,
        lock_budget_ms: migrations.lock_budget_ms,
    });
    Database {
        host: text(&database.host),
        migrations,
        verify: database.verify.as_str().to_owned(),
        keeps_away: database.keeps_away,
        backup_ms: database.backup_ms,
        migrate_ms: database.migrate_ms,
    }
}

fn database_from(record: &Database) -> Option<domain::DatabasePlan> {
    let migrations = match &record.migrations {
        None => None,
        Some(record) => Some(domain::Migrations {
            artifact: parse(&record.artifact)?,
            phase: domain::MigrationPhase::parse(&record.phase)?,
            versions: record.versions.clone(),
            out_of_order: record.out_of_order.clone(),
            max_stall_ms: record.max_stall_ms,
            lock_budget_ms: record.lock_budget_ms,
        }),
    };
    Some(domain::DatabasePlan {
        host: parse(&record.host)?,
        migrations,
        verify: domain::VerifyLevel::parse(&record.verify)?,
        keeps_away: record.keeps_away,
        backup_ms: record.backup_ms,
        migrate_ms: record.migrate_ms,
    })
}

fn plan_of(plan: &domain::Plan) -> Plan {
    let limits = &plan.limits;
    Plan {
        release: text(&plan.release),
        environment: text(&plan.environment),
        purpose: match &plan.purpose {
            domain::Purpose::Deploy { artifact } => Purpose::Deploy { artifact: text(artifact) },
            domain::Purpose::Rollback { artifact, to } => {
                Purpose::Rollback { artifact: artifact.as_ref().map(text), to: to.as_ref().map(text) }
            }
            domain::Purpose::Maintenance { on, until } => {
                Purpose::Maintenance { on: *on, until_ms: until.map(|until| until.0) }
            }
            domain::Purpose::Database(work) => work_of(work),
        },
        created_at_ms: plan.created_at.0,
        created_by: plan.created_by.clone(),
        request_id: plan.request_id.as_ref().map(text),
        reason: plan.reason.clone(),
        balancers: texts(&plan.balancers),
        without: texts(&plan.without),
        from: plan.from.as_ref().map(slot_of),
        to: slot_of(&plan.to),
        maintenance_backend: text(&plan.maintenance_backend),
        under_maintenance: plan.under_maintenance,
        flag_hosts: texts(&plan.flag_hosts),
        route_before: text(&plan.route_before),
        route_epoch_base: plan.route_epoch_base.0,
        links_before: plan
            .links_before
            .iter()
            .map(|(host, link)| (text(host), link.as_ref().map(text)))
            .collect(),
        restart: texts(&plan.activation.restart),
        hooks: texts(&plan.activation.hooks),
        database: plan.database.as_ref().map(database_of),
        splits: plan
            .splits
            .iter()
            .map(|split| Split { percent: split.percent, hold_ms: split.hold_ms })
            .collect(),
        checks: plan.checks.iter().map(check_of).collect(),
        watch_duration_ms: plan.watch.duration_ms,
        watch_interval_ms: plan.watch.interval_ms,
        watch_fail_after: plan.watch.fail_after,
        watch_blind_ms: plan.watch.blind_ms,
        verdict: Some(verdict_record::plan_of(&plan.verdict)),
        automatic_rollback: plan.automatic_rollback,
        drain_cut: plan.drain_end == domain::DrainEnd::Cut,
        inspect_ms: limits.inspect_ms,
        stage_ms: limits.stage_ms,
        activate_ms: limits.activate_ms,
        route_ms: limits.route_ms,
        check_ms: limits.check_ms,
        healthy_ms: limits.healthy_ms,
        drain_ms: limits.drain_ms,
        gate_ttl_ms: limits.gate_ttl_ms,
        attempts: limits.attempts,
        persist_ms: limits.persist_ms,
        found_ill: plan.found_ill.clone(),
        stood: plan.stood.as_deref().map(|stood| Box::new(standing_record::standing_of(stood))),
    }
}

fn plan_from(record: Plan) -> Option<domain::Plan> {
    let links =
        record.links_before.iter().map(|(host, link)| Some((parse(host)?, parse_optional(link.as_ref())?)));
    Some(domain::Plan {
        release: parse(&record.release)?,
        environment: parse(&record.environment)?,
        purpose: match &record.purpose {
            Purpose::Deploy { artifact } => domain::Purpose::Deploy { artifact: parse(artifact)? },
            Purpose::Rollback { artifact, to } => domain::Purpose::Rollback {
                artifact: parse_optional(artifact.as_ref())?,
                to: parse_optional(to.as_ref())?,
            },
            Purpose::Maintenance { on, until_ms } => {
                domain::Purpose::Maintenance { on: *on, until: until_ms.map(domain::Timestamp) }
            }
            work => domain::Purpose::Database(work_from(work)?),
        },
        created_at: domain::Timestamp(record.created_at_ms),
        created_by: record.created_by.clone(),
        request_id: parse_optional(record.request_id.as_ref())?,
        reason: record.reason.clone(),
        balancers: parse_all(&record.balancers)?,
        without: parse_all(&record.without)?,
        from: match &record.from {
            Some(slot) => Some(slot_from(slot)?),
            None => None,
        },
        to: slot_from(&record.to)?,
        maintenance_backend: parse(&record.maintenance_backend)?,
        under_maintenance: record.under_maintenance,
        flag_hosts: parse_all(&record.flag_hosts)?,
        route_before: parse(&record.route_before)?,
        route_epoch_base: domain::RouteEpoch(record.route_epoch_base),
        links_before: links.collect::<Option<_>>()?,
        activation: domain::Activation {
            restart: parse_all(&record.restart)?,
            hooks: parse_all(&record.hooks)?,
        },
        database: match &record.database {
            Some(database) => Some(database_from(database)?),
            None => None,
        },
        splits: splits_from(&record.splits)?,
        checks: record.checks.iter().map(check_from).collect::<Option<_>>()?,
        watch: domain::WatchPlan {
            duration_ms: record.watch_duration_ms,
            interval_ms: record.watch_interval_ms,
            fail_after: record.watch_fail_after,
            blind_ms: record.watch_blind_ms,
        },
        verdict: verdict_record::plan_from(record.verdict.as_ref())?,
        automatic_rollback: record.automatic_rollback,
        drain_end: if record.drain_cut { domain::DrainEnd::Cut } else { domain::DrainEnd::Leave },
        limits: domain::Limits {
            inspect_ms: record.inspect_ms,
            stage_ms: record.stage_ms,
            activate_ms: record.activate_ms,
            route_ms: record.route_ms,
            check_ms: record.check_ms,
            healthy_ms: record.healthy_ms,
            drain_ms: record.drain_ms,
            gate_ttl_ms: record.gate_ttl_ms,
            attempts: record.attempts,
            persist_ms: record.persist_ms,
        },
        found_ill: record.found_ill,
        stood: match record.stood {
            Some(stood) => Some(Box::new(standing_record::standing_from(*stood)?)),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_is_wrong_with_them() {
        for (bytes, expected) in [
            (&b"\xff"[..], "is no record"),
            (b"{}", "has no version"),
            (b"{\"v\":0,\"event\":\"watch-passed\"}", "has no version"),
            (b"{\"v\":1,\"event\":\"what\"}", "is no record"),
            (b"{\"v\":1,\"event\":\"fenced\",\"host\":\"/\"}", "holds a value that cannot be"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(matches!(&error, Unreadable::Malformed(what) if what.contains(expected)), "{error:?}");
        }
    }

    #[test]
    fn records_of_a_later_version_are_told_apart() {
        // Also where nothing else of them is as this version knows it.
        assert_eq!(decode(b"{\"v\":6,\"fact\":[]}"), Err(Unreadable::Newer(6)));
    }

    /// One that leaves somebody out would be read by the version before as one that does not: it must not try. Everything else
    /// it reads on.
    #[test]
    fn only_what_the_version_before_would_misread_is_of_a_newer_one() {
        let asked = |without| {
            let kind = domain::RequestKind::Resume;
            encode(&Event::Requested(domain::Request { kind, by: "ada".to_owned(), reason: None, without }))
        };
        let version = |bytes: Vec<u8>| {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            value["v"].as_u64().unwrap()
        };
        assert_eq!(version(asked(Vec::new())), 4);
        assert_eq!(version(asked(vec![domain::HostName::parse("lb2").unwrap()])), 5);
    }

    #[test]
    fn a_check_of_an_older_record_is_the_request_it_was() {
        let old = r#"{"name":"health","from_hosts":true,"before_switch":true,"after_switch":false,
            "path":"/api/health","status":200,"body_contains":"ok","timeout_ms":5000,"patience_ms":20000}"#;
        let check = check_from(&serde_json::from_str(old).unwrap()).unwrap();
        let path = domain::HttpPath::parse("/api/health").unwrap();
        assert_eq!(check.spec, domain::CheckSpec::get(&path, 200, Some("ok")));
        let again = serde_json::to_string(&check_of(&check)).unwrap();
        assert_eq!(check_from(&serde_json::from_str(&again).unwrap()), Some(check));
    }

    #[test]
    fn an_accepted_journal_is_read_as_an_older_version_wrote_it() {
        let read = |more: &str| decode(format!(r#"{{"v":4,"event":"adopted","by":"ada"{more}}}"#).as_bytes());
        let found = domain::Found { slot: domain::SlotName::parse("blue").ok(), ..domain::Found::default() };
        assert_eq!(read(r#","slot":"blue""#), Ok(Event::Adopted { by: "ada".to_owned(), found }));
        for malformed in [
            r#"{"slot":"green","percent":0}"#,
            r#"{"slot":"","percent":10}"#,
            r#"{"slot":"green","percent":101}"#,
        ] {
            let found = read(&format!(r#","unaccounted":{malformed}"#));
            assert!(matches!(found, Err(Unreadable::Malformed(_))), "{malformed}: {found:?}");
        }
    }

    #[test]
    fn facts_come_back_as_they_went() {
        let key =
            domain::OrderKey { step: domain::Step::Stage, host: domain::HostName::parse("green").unwrap() };
        let key_host = key.host.clone();
        let problem = domain::Problem::new(Code::NoRoom, "x").on(&key.host).cause("y").retry_useful();
        let evidence = domain::Evidence {
            already: true,
            detail: "d".to_owned(),
            took_us: 7,
            effect_at_us: Some(9),
            unreached: Some("u".to_owned()),
            unkept: Some("k".to_owned()),
            checks: Vec::new(),
        };
        let asked = |without| {
            Event::Requested(domain::Request {
                kind: domain::RequestKind::Resume,
                by: "ada".to_owned(),
                reason: Some("burnt".to_owned()),
                without,
            })
        };
        let events = [
            Event::EpochTaken(domain::Epoch(4)),
            Event::Fenced(key.host.clone()),
            Event::OrderIntended { key: key.clone(), attempt: 3 },
            Event::OrderDone { key: key.clone(), evidence },
            Event::OrderFailed { key, problem: problem.clone() },
            Event::GatesRead(domain::Reading::Pass),
            Event::GatesRead(domain::Reading::Fail(problem.clone())),
            Event::GatesRead(domain::Reading::Shared(problem.clone())),
            Event::GatesRead(domain::Reading::Unknown(problem.clone())),
            Event::Adopted { by: "ada".to_owned(), found: domain::Found::default() },
            Event::Adopted {
                by: "ada".to_owned(),
                found: domain::Found {
                    slot: domain::SlotName::parse("blue").ok(),
                    page: true,
                    unaccounted: None,
                },
            },
            Event::Adopted {
                by: "ada".to_owned(),
                found: domain::Found {
                    slot: domain::SlotName::parse("blue").ok(),
                    page: false,
                    unaccounted: Some(domain::Unaccounted {
                        slot: domain::SlotName::parse("green").unwrap(),
                        percent: 10,
                    }),
                },
            },
            asked(Vec::new()),
            asked(vec![key_host.clone()]),
            Event::GatesExpired,
            Event::WatchMoved { until: domain::Timestamp(7) },
            Event::WatchPassed,
            Event::TurnedBack(problem.clone()),
            Event::Held(problem),
            Event::Noted(domain::Note::Checks {
                step: domain::Step::Check,
                host: key_host,
                seen: vec![domain::CheckSeen::new(
                    "home".parse().unwrap(),
                    domain::CheckVerdict::Passed,
                    12,
                    "200",
                )],
            }),
            Event::Noted(domain::Note::Traffic(domain::TrafficSeen {
                seconds: 60,
                incomplete: 2,
                blind: Some(1),
                lost: Some(4),
                lost_failures: Some(3),
                requests: 1000,
                failures: 3,
                timed: Some(990),
                slow: Some(1),
                p99_ms: Some(120),
                too_slow: Some(2),
                to_the_end: true,
            })),
            Event::Noted(domain::Note::Tick {
                point: "phone".parse().unwrap(),
                by: "operator ada".to_owned(),
                text: Some("nobody rings".to_owned()),
            }),
        ];
        for event in events {
            assert_eq!(decode(&encode(&event)), Ok(event));
        }
    }
}
