//! The last words of a command that waited.

use pointsman_core::EnvironmentName;
use pointsman_proto::v1;

use super::{or, span};
use crate::exit::Exit;

/// How a release ended, and what to type next.
pub fn ending(release: &v1::Release) -> String {
    let plan = release.plan.clone().unwrap_or_default();
    let (environment, id) = (&plan.environment, &plan.release);
    let took = span(release.entered_at_ms.saturating_sub(release.started_at_ms));
    if release.held.is_some() {
        let undo = if release.visitors_moved { "rollback" } else { "abort" };
        return format!(
            "held after {took}: release {id} of {environment} waits for a person in step {}\n  to go on: `pointsman resume {environment}`\n  to stop:  `pointsman {undo} {environment}`",
            or(&release.step, "watch")
        );
    }
    match (release.outcome.as_str(), plan.purpose.as_str()) {
        ("confirmed", "deploy") if plan.under_maintenance => format!(
            "done in {took}: {environment} will serve {id} on {} when the maintenance page comes down: `pointsman maintenance off {environment}`",
            plan.to_slot
        ),
        ("confirmed", "deploy") => format!(
            "done in {took}: {environment} serves {id} on {}; way back: `pointsman rollback {environment}`",
            plan.to_slot
        ),
        ("confirmed", "rollback") => format!(
            "done in {took}: {environment} serves {} on {} again",
            or(&plan.to_release, "what it served before"),
            plan.to_slot
        ),
        ("confirmed", "maintenance-on") => format!(
            "done in {took}: every visitor of {environment} sees the maintenance page; to end it: `pointsman maintenance off {environment}`"
        ),
        ("confirmed", _) => format!("done in {took}: the maintenance page of {environment} is down"),
        ("rolled-back", _) => format!(
            "rolled back after {took}: visitors of {environment} are on {} again; {id} stays on {} to be looked at",
            or(&plan.from_slot, "the maintenance page"),
            plan.to_slot
        ),
        ("aborted", _) => format!(
            "aborted after {took}: no visitor of {environment} was moved; what {id} had prepared is undone"
        ),
        ("refused", _) => format!("refused after {took}: {id} touched nothing in {environment}"),
        (other, _) => format!("release {id} of {environment}: {}", or(other, "still running")),
    }
}

/// What is said when the command leaves and the release goes on.
pub fn left(environment: &EnvironmentName, release: &str, exit: Exit) -> String {
    let why = if exit == Exit::TimedOut { "time is up" } else { "detached" };
    format!(
        "{why}: release {release} of {environment} goes on by itself\n  follow it: `pointsman status {environment} --release {release} -f`\n  stop it:   `pointsman rollback {environment}`"
    )
}
