//! What is asked of the database's host.

use pointsman_core::{Code, MigrationPhase, Migrations, Problem, VerifyLevel, clean};

use super::{action, field};
use crate::agent_v1 as wire;

/// Longest version of a migration, in characters.
const MAX_VERSION_CHARS: usize = 64;

/// Migrations for the wire.
pub(super) fn migrations_to_wire(migrations: &Migrations) -> wire::Migrations {
    wire::Migrations {
        artifact: migrations.artifact.to_string(),
        phase: migrations.phase.as_str().to_owned(),
        versions: migrations.versions.clone(),
        out_of_order: migrations.out_of_order.clone(),
        max_stall_ms: migrations.max_stall_ms,
        lock_budget_ms: migrations.lock_budget_ms,
    }
}

/// Migrations from the wire.
pub(super) fn migrations_from_wire(wire: &wire::Migrations) -> Result<Migrations, Problem> {
    let phase = MigrationPhase::parse(&wire.phase)
        .ok_or_else(|| Problem::new(Code::MessageInvalid, "field `migrations.phase` names no phase"))?;
    Ok(Migrations {
        artifact: field("migrations.artifact", &wire.artifact)?,
        phase,
        versions: versions("migrations.versions", &wire.versions)?,
        out_of_order: versions("migrations.out_of_order", &wire.out_of_order)?,
        max_stall_ms: wire.max_stall_ms,
        lock_budget_ms: wire.lock_budget_ms,
    })
}

/// Versions as they are named: what they mean the agent reads from the files.
fn versions(name: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    let versions: Vec<String> = action::list(name, texts)?;
    let sound = |text: &String| {
        (1..=MAX_VERSION_CHARS).contains(&text.chars().count())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c))
    };
    match versions.iter().find(|version| !sound(version)) {
        None => Ok(versions),
        Some(version) => Err(Problem::new(
            Code::MessageInvalid,
            format!("field `{name}` of the message has `{}`, which is no version", clean(version)),
        )),
    }
}

/// How far a backup is to be checked.
pub(super) fn verify_from_wire(name: &str, text: &str) -> Result<VerifyLevel, Problem> {
    VerifyLevel::parse(text)
        .ok_or_else(|| Problem::new(Code::MessageInvalid, format!("field `{name}` of the message is wrong")))
}
