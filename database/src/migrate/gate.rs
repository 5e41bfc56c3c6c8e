//! What files' texts alone rule out, wherever they would run.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Finding, Phase, Relation, Script};

use super::failure;

/// What stalls nobody and breaks nothing once the old version no longer runs: said of expand files alone.
const FINE_IN_CONTRACT: &[&str] = &["ban-drop-constraint", "ban-drop-not-null"];

/// What a file may say that it means to do, with the header `allow-rewrite`: on a small table it is quick. The rehearsal
/// measures it, and the watch cancels it where it is not.
const ALLOWED_BY_HEADER: &[&str] = &["data-under-lock", "every-row-at-once"];

/// Refuses files, in the order in which they would run, that would break the slot that serves, make visitors wait, or fail
/// at the next restore.
pub(crate) fn check(scripts: &[&Script]) -> Result<(), Problem> {
    let mut made: Vec<Relation> = Vec::new();
    let (mut breaking, mut dangerous) = (Vec::new(), Vec::new());
    for script in scripts {
        if script.phase == Phase::Expand {
            breaking.extend(pointsman_migration::breaking_after(script, &made));
        }
        let found = pointsman_migration::dangerous_after(script, &made);
        dangerous.extend(found.into_iter().filter(|finding| matters(script, finding)));
        made.extend(script.makes());
    }
    match (breaking.is_empty(), dangerous.is_empty()) {
        (false, _) => Err(failure::refused(Code::MigrationBreaking, &breaking)),
        (true, false) => Err(failure::refused(Code::MigrationDangerous, &dangerous)),
        (true, true) => Ok(()),
    }
}

fn matters(script: &Script, finding: &Finding) -> bool {
    let fine = script.phase != Phase::Expand && FINE_IN_CONTRACT.contains(&finding.rule);
    let allowed = script.headers.allow_rewrite && ALLOWED_BY_HEADER.contains(&finding.rule);
    !fine && !allowed
}
