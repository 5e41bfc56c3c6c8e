//! Refuses files by their texts alone, before anything of them runs.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Gate, Script};

use super::failure;

/// Refuses files, in the order in which they would run, that would break the slot that serves, make visitors wait, or fail
/// at the next restore.
pub(crate) fn check(scripts: &[&Script]) -> Result<(), Problem> {
    let Gate { breaking, dangerous } = Gate::of(scripts.iter().copied());
    match (breaking.is_empty(), dangerous.is_empty()) {
        (false, _) => Err(failure::refused(Code::MigrationBreaking, &breaking)),
        (true, false) => Err(failure::refused(Code::MigrationDangerous, &dangerous)),
        (true, true) => Ok(()),
    }
}
