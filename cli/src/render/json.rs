//! JSON documents. Units end the key; readers ignore keys they do not know.

use super::ending::skew_us;
use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::{convert, v1};
use serde_json::{Value, json};

use super::look::share_of;
use crate::exit::Exit;

/// A problem.
pub fn problem(problem: &Problem) -> Value {
    wire_problem(&convert::problem_to_wire(problem))
}

pub(super) fn wire_problem(problem: &v1::Problem) -> Value {
    let aftermath = match problem.aftermath() {
        v1::Aftermath::Unchanged => "unchanged",
        v1::Aftermath::Changed => "changed",
        _ => "unknown",
    };
    json!({
        "code": problem.code, "host": text(&problem.host), "message": problem.message, "causes": problem.causes,
        "hint": problem.hint, "aftermath": aftermath, "retry_useful": problem.retry_useful,
    })
}

/// `null` for an empty text.
fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

fn moment(ms: u64) -> Value {
    if ms == 0 { Value::Null } else { ms.into() }
}

fn plan_fields(plan: &v1::Plan) -> Value {
    let mut fields = json!({
        "environment": plan.environment, "release": plan.release, "purpose": plan.purpose,
        "artifact": text(&plan.artifact), "artifact_files": plan.artifact_files, "artifact_bytes": plan.artifact_bytes,
        "from_slot": text(&plan.from_slot), "to_slot": plan.to_slot, "to_hosts": plan.to_hosts, "balancers": plan.balancers, "without": plan.without,
        "route_before": plan.route_before, "route_after": plan.route_after, "checks": plan.checks,
        "watch_ms": plan.watch_ms, "under_maintenance": plan.under_maintenance, "created_by": plan.created_by,
        "reason": text(&plan.reason), "created_at_ms": plan.created_at_ms, "to_release": text(&plan.to_release),
        "splits": plan.splits.iter().map(|split| json!({
            "percent": split.percent, "hold_ms": split.hold_ms,
        })).collect::<Vec<_>>(),
        "migrations": plan.migrations,
        "steps": plan.steps.iter().map(|step| json!({
            "step": step.step, "hosts": step.hosts, "what": step.what, "attempt_ms": step.attempt_ms,
        })).collect::<Vec<_>>(),
    });
    let verdict = plan.verdict.as_ref().filter(|verdict| verdict.mode != "off");
    add(&mut fields, "verdict", verdict.map(super::verdict::plan_json));
    add(&mut fields, "ill", Some(text(&plan.ill)).filter(|ill| !ill.is_null()));
    fields
}

/// Adds a key that is there only where there is something to say.
fn add(fields: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(fields), Some(value)) = (fields.as_object_mut(), value) {
        fields.insert(key.to_owned(), value);
    }
}

/// A plan with its fingerprint.
pub fn plan(plan: &v1::Plan, fingerprint: &str) -> Value {
    json!({ "kind": "plan", "plan": plan_fields(plan), "fingerprint": fingerprint })
}

/// What is there, if anything is.
fn some(values: Vec<Value>) -> Option<Value> {
    (!values.is_empty()).then_some(Value::Array(values))
}

fn release_fields(release: &v1::Release) -> Value {
    let orders = release.orders.iter().map(|order| {
        json!({
            "step": order.step, "host": order.host, "state": order.state, "attempts": order.attempts,
            "detail": order.detail, "took_us": order.took_us, "effect_at_us": moment(order.effect_at_us),
            "unreached": text(&order.unreached), "unkept": text(&order.unkept), "problem": order.problem.as_ref().map(wire_problem),
        })
    });
    let mut fields = json!({
        "plan": release.plan.as_ref().map(plan_fields), "phase": release.phase, "step": text(&release.step),
        "step_number": release.step_number, "step_count": release.step_count, "outcome": text(&release.outcome),
        "turned_back": release.turned_back.as_ref().map(wire_problem), "held": release.held.as_ref().map(wire_problem),
        "started_at_ms": release.started_at_ms, "entered_at_ms": release.entered_at_ms,
        "watch_until_ms": moment(release.watch_until_ms),
        "watched_on_until_ms": moment(release.watched_on_until_ms),
        "after_end": release.after_end.as_ref().map(wire_problem), "epoch": release.epoch,
        "visitors_moved": release.visitors_moved, "skew_us": skew_us(release).map(|(_, skew_us)| skew_us), "orders": orders.collect::<Vec<_>>(),
    });
    let left_out = release.left_out.iter().map(|out| {
        json!({ "host": out.host, "by": out.by, "reason": text(&out.reason), "at": super::time(out.at_ms) })
    });
    add(&mut fields, "left_out", some(left_out.collect()));
    add(&mut fields, "may_leave_out", some(release.may_leave_out.iter().map(|host| json!(host)).collect()));
    let blind = |blind: &v1::Blind| {
        json!({
            "since_ms": blind.since_ms, "why": blind.why.as_ref().map(wire_problem), "held_at_ms": moment(blind.held_at_ms),
        })
    };
    add(&mut fields, "blind", release.blind.as_ref().map(blind));
    let warns = |made: &v1::CheckMade| {
        let seen = made.seen.clone().unwrap_or_default();
        json!({ "check": seen.name, "host": made.host, "verdict": seen.verdict, "what": seen.what })
    };
    add(&mut fields, "warnings", some(release.warnings.iter().map(warns).collect()));
    add(&mut fields, "verdict", release.verdict.as_ref().map(super::verdict::verdict_json));
    add(&mut fields, "met", release.met.as_ref().map(super::verdict::met_json));
    fields
}

/// How far a long job is, as one line while it runs.
pub fn progress(update: &v1::ReleaseUpdate) -> Value {
    json!({
        "format_version": "1.0", "kind": "progress", "at": super::time(update.at_ms),
        "step": update.step, "host": update.host, "detail": update.detail,
    })
}

/// What is known of the visitors after one more second, where an update tells of it.
pub fn visitors(update: &v1::ReleaseUpdate) -> Option<Value> {
    let release = update.release.as_ref().filter(|_| update.kind == "visitors")?;
    let plan = release.plan.clone().unwrap_or_default();
    Some(json!({
        "format_version": "1.0", "kind": "visitors", "at": super::time(update.at_ms),
        "environment": plan.environment, "release": plan.release,
        "verdict": release.verdict.as_ref().map(super::verdict::verdict_json),
    }))
}

/// How a release ended, for a job that reads one document.
pub fn outcome(release: &v1::Release, exit: Exit) -> Value {
    let plan = release.plan.clone().unwrap_or_default();
    let why = release.held.as_ref().or(release.turned_back.as_ref());
    json!({
        "kind": "outcome", "environment": plan.environment, "release": plan.release, "outcome": text(&release.outcome),
        "exit_code": exit.code(), "code": why.map(|problem| problem.code.clone()), "problem": why.map(wire_problem),
        "duration_ms": release.entered_at_ms.saturating_sub(release.started_at_ms), "detail": release_fields(release),
    })
}

fn live(live: Option<&v1::Live>) -> Value {
    live.map_or(
        Value::Null,
        |live| json!({ "slot": live.slot, "release": text(&live.release), "artifact": text(&live.artifact) }),
    )
}

fn agent(agent: &v1::AgentStatus) -> Value {
    let facts = agent.facts.unwrap_or_default();
    json!({
        "host": agent.host, "role": agent.role, "slot": text(&agent.slot), "version": text(&agent.version),
        "problem": agent.problem.as_ref().map(wire_problem),
        "facts": agent.facts.map(|_| json!({
            "disk_free_bytes": facts.disk_free_bytes, "disk_total_bytes": facts.disk_total_bytes,
            "inodes_free": facts.inodes_free, "inodes_total": facts.inodes_total, "load1_milli": facts.load1_milli,
            "memory_available_bytes": facts.memory_available_bytes, "memory_total_bytes": facts.memory_total_bytes,
            "clock_ms": facts.clock_ms,
        })),
        "web": agent.web.as_ref().map(|web| json!({
            "current": text(&web.current), "previous": text(&web.previous), "artifacts": web.artifacts,
            "maintenance_file": web.maintenance_file,
        })),
        "balancer": agent.balancer.as_ref().map(balancer),
    })
}

fn balancer(found: &v1::BalancerFacts) -> Value {
    let backends = found.backends.iter().map(|backend| {
        json!({
            "name": backend.name, "percent": share_of(&found.route, &backend.name), "servers_up": backend.servers_up,
            "servers_total": backend.servers_total, "sessions": backend.sessions,
            "requests_total": backend.requests_total, "responses_5xx": backend.responses_5xx,
            "running": backend.running.iter().map(|server| json!({
                "server": server.server, "sessions": server.sessions, "oldest_s": server.oldest_s,
            })).collect::<Vec<_>>(),
        })
    });
    json!({
        "route": text(&found.route), "route_on_disk": text(&found.route_on_disk), "stale_workers": found.stale_workers,
        "backends": backends.collect::<Vec<_>>(), "haproxy_version": found.haproxy_version,
        "unkept": text(&found.unkept), "highest_epoch": found.highest_epoch, "drift": text(&found.drift), "drift_since_ms": moment(found.drift_since_ms),
        "events": found.events.iter().map(|event| json!({
            "at_ms": event.at_ms, "kind": event.kind, "detail": event.detail,
        })).collect::<Vec<_>>(),
        "certificates": found.certificates.iter().map(certificate_fields).collect::<Vec<_>>(),
    })
}

fn page(status: &v1::StatusReply) -> Value {
    match status.maintenance.as_ref().filter(|page| page.on) {
        Some(page) => json!({
            "on": true, "since_ms": page.since_ms, "by": page.by, "reason": text(&page.reason),
            "until_ms": moment(page.until_ms),
        }),
        None => json!({ "on": false }),
    }
}

/// How an environment stands.
pub fn status(status: &v1::StatusReply) -> Value {
    let mut fields = json!({
        "kind": "status", "environment": status.environment, "url": status.url, "live": live(status.live.as_ref()),
        "previous": live(status.previous.as_ref()),
        "way_back": status.way_back.as_ref().map(|found| json!({
            "ready": found.ready, "found": found.found, "slot": text(&found.slot), "release": text(&found.release),
        })),
        "wanted_route": text(&status.wanted_route),
        "maintenance": page(status), "release": status.release.as_ref().map(release_fields),
        "watched_on": status.watched_on.as_ref().map(release_fields),
        "agents": status.agents.iter().map(agent).collect::<Vec<_>>(), "now_ms": status.now_ms,
        "coordinator_version": status.coordinator_version, "trouble": status.trouble.as_ref().map(wire_problem),
        "trouble_since_ms": Some(status.trouble_since_ms).filter(|since| *since > 0),
        "certificate_ends_s": Some(status.certificate_ends_s).filter(|end| *end > 0),
    });
    let share =
        status.unaccounted.as_ref().map(|share| json!({ "slot": share.slot, "percent": share.percent }));
    add(&mut fields, "unaccounted", share);
    let turned_back = status.turned_back.as_ref().map(
        |turned| json!({ "what": live(turned.what.as_ref()), "at_ms": turned.at_ms, "why": turned.why }),
    );
    add(&mut fields, "turned_back", turned_back);
    fields
}

/// Where visitors go.
pub fn traffic(status: &v1::StatusReply) -> Value {
    let balancers = status.agents.iter().filter(|agent| agent.role == "lb-agent").map(agent);
    json!({
        "kind": "traffic", "environment": status.environment, "wanted_route": text(&status.wanted_route),
        "balancers": balancers.collect::<Vec<_>>(),
    })
}

/// Whether the maintenance page is up.
pub fn maintenance(status: &v1::StatusReply) -> Value {
    json!({ "kind": "maintenance", "environment": status.environment, "maintenance": page(status) })
}

/// The releases that were.
pub fn history(releases: &[v1::Release]) -> Value {
    json!({ "kind": "history", "releases": releases.iter().map(release_fields).collect::<Vec<_>>() })
}

/// What `doctor` found.
pub fn findings(findings: &[v1::Finding]) -> Value {
    json!({ "kind": "doctor", "findings": findings.iter().map(finding).collect::<Vec<_>>() })
}

fn finding(finding: &v1::Finding) -> Value {
    json!({
        "subject": finding.subject, "verdict": finding.verdict, "what": finding.what,
        "problem": finding.problem.as_ref().map(wire_problem), "check": text(&finding.check),
        "why": text(&finding.why), "fix": text(&finding.fix),
    })
}

/// Whether the journal can be trusted.
pub fn audit(environment: &EnvironmentName, verified: &v1::VerifyJournalReply, exit: Exit) -> Value {
    let hash: String = verified.head_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "kind": "audit", "environment": environment.as_str(), "exit_code": exit.code(), "entries": verified.entries,
        "head_hash": text(&hash), "first_at_ms": moment(verified.first_at_ms), "last_at_ms": moment(verified.last_at_ms),
        "findings": verified.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn certificate_fields(found: &v1::CertificateFacts) -> Value {
    json!({
        "path": found.path, "names": found.names, "serial": text(&found.serial), "not_before_s": found.not_before,
        "not_after_s": found.not_after, "served": found.served, "watched": text(&found.watched),
        "problem": found.problem.as_ref().map(wire_problem),
    })
}

/// The certificates of every load balancer.
pub fn certificates(status: &v1::StatusReply) -> Value {
    let balancers = status.agents.iter().filter(|agent| agent.role == "lb-agent").map(|agent| {
        let all =
            agent.balancer.as_ref().map(|balancer| balancer.certificates.as_slice()).unwrap_or_default();
        json!({
            "host": agent.host, "problem": agent.problem.as_ref().map(wire_problem),
            "certificates": all.iter().map(certificate_fields).collect::<Vec<_>>(),
        })
    });
    json!({
        "kind": "certificates", "environment": status.environment, "now_ms": status.now_ms,
        "balancers": balancers.collect::<Vec<_>>(),
    })
}

/// A certificate that every load balancer serves now.
pub fn certificate_deployed(
    environment: &EnvironmentName,
    facts: &pointsman_chassis::site_certificate::LeafFacts,
    deployed: &v1::DeployCertificateReply,
) -> Value {
    let balancers = deployed
        .balancers
        .iter()
        .map(|found| json!({ "host": found.host, "already": found.already, "detail": found.detail }));
    json!({
        "kind": "certificate-deployed", "environment": environment.as_str(), "names": facts.names,
        "serial": facts.serial, "not_before_s": facts.not_before, "not_after_s": facts.not_after,
        "balancers": balancers.collect::<Vec<_>>(), "exit_code": Exit::Done.code(),
    })
}

fn backup(found: &v1::BackupFacts) -> Value {
    json!({
        "id": found.id, "bytes": found.bytes, "taken_at": moment(found.taken_at_ms), "release": text(&found.release),
        "verified": text(&found.verified), "schema_version": text(&found.schema_version), "rows": found.rows,
    })
}

/// How the database stands.
pub fn database(environment: &EnvironmentName, facts: &v1::DatabaseFacts) -> Value {
    let applied: Vec<Value> = facts
        .applied
        .iter()
        .map(|applied| json!({ "version": applied.version, "phase": applied.phase, "state": applied.state }))
        .collect();
    json!({
        "kind": "database", "environment": environment.as_str(), "name": facts.name,
        "server_version": text(&facts.server_version), "bytes": facts.bytes,
        "schema_version": text(&facts.schema_version), "applied": applied,
        "backups": facts.backups.iter().map(backup).collect::<Vec<_>>(), "beside": facts.beside, "unfinished": facts.unfinished,
        "progress": text(&facts.progress), "problem": facts.problem.as_ref().map(wire_problem),
    })
}

/// The backups.
pub fn backups(environment: &EnvironmentName, facts: &v1::DatabaseFacts) -> Value {
    json!({
        "kind": "backups", "environment": environment.as_str(),
        "backups": facts.backups.iter().map(backup).collect::<Vec<_>>(),
    })
}

fn rate(entry: &v1::RateEntry) -> Value {
    json!({
        "host": entry.host, "table": entry.table, "address": entry.key, "requests": entry.rate,
        "period_ms": entry.period_ms, "expires_ms": entry.expires_ms,
    })
}

/// The addresses that are counted.
pub fn limits(environment: &EnvironmentName, found: &v1::RateLimitsReply) -> Value {
    json!({
        "kind": "rate-limits", "environment": environment.as_str(), "found": found.found,
        "entries": found.entries.iter().map(rate).collect::<Vec<_>>(),
        "unread": found.unread.iter().map(wire_problem).collect::<Vec<_>>(),
    })
}

/// What is left of an address after it was forgotten.
pub fn unblocked(
    environment: &EnvironmentName,
    address: std::net::IpAddr,
    left: &v1::RateLimitsReply,
) -> Value {
    json!({
        "kind": "unblocked", "environment": environment.as_str(), "address": address.to_string(),
        "left": left.entries.iter().map(rate).collect::<Vec<_>>(), "exit_code": Exit::Done.code(),
    })
}

/// Checks that were made now.
pub fn checks(environment: &EnvironmentName, made: &v1::MakeChecksReply) -> Value {
    let check = |made: &v1::CheckMade| {
        let seen = made.seen.clone().unwrap_or_default();
        json!({
            "host": made.host, "name": seen.name, "verdict": seen.verdict, "took_ms": seen.took_ms, "what": seen.what,
        })
    };
    json!({
        "kind": "checks", "environment": environment.as_str(), "slot": made.slot, "release": text(&made.release),
        "checks": made.checks.iter().map(check).collect::<Vec<_>>(),
        "silent": made.silent.iter().map(wire_problem).collect::<Vec<_>>(),
    })
}

/// The checklist of a release.
pub fn checklist(list: &v1::ChecklistReply) -> Value {
    let point = |point: &v1::ChecklistPoint| {
        json!({
            "name": point.name, "text": point.text, "manual": point.manual, "verdict": point.verdict,
            "evidence": point.evidence, "at_ms": moment(point.at_ms),
        })
    };
    json!({
        "kind": "checklist", "environment": list.environment, "release": list.release, "outcome": text(&list.outcome),
        "points": list.points.iter().map(point).collect::<Vec<_>>(),
    })
}
