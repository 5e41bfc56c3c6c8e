//! What a file's text alone rules out, wherever it would run.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Class, Phase, Script};

use super::failure;

/// Refuses an expand file that would break the slot that serves, and a rewrite that nobody allowed.
pub(crate) fn check(script: &Script) -> Result<(), Problem> {
    if script.phase == Phase::Expand {
        let breaking = pointsman_migration::breaking(script);
        if !breaking.is_empty() {
            return Err(failure::refused(Code::MigrationBreaking, &breaking));
        }
    }
    let stalling = script.statements().find(|statement| {
        statement.class == Class::Rewrite && statement.locks.iter().any(|lock| lock.mode.stalls_visitors())
    });
    match stalling.filter(|_| !script.headers.allow_rewrite) {
        None => Ok(()),
        Some(statement) => {
            let message = format!(
                "{}:{}:{}: statement {} rewrites or reads a whole table under a lock that makes visitors wait",
                script.path, statement.line, statement.column, statement.ordinal
            );
            Err(Problem::new(Code::RewriteRefused, message).hint(
                "write it in steps that do not (`CONCURRENTLY`, `NOT VALID` and `VALIDATE`), or allow it: `-- pointsman: allow-rewrite`",
            ))
        }
    }
}
