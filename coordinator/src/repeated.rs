//! Whether a request is one that was made before: the same work, of the same artifact, under the same name.

use pointsman_core::{Plan, Purpose, ReleaseId};

use crate::planner::{Files, Wanted};

/// Whether what is wanted is what this plan was made for. `release` is the id that was asked for; a plan of a further try
/// bears it with a number.
pub fn repeats(plan: &Plan, wanted: &Wanted, release: Option<&ReleaseId>) -> bool {
    release.is_none_or(|asked| is_named(&plan.release, asked)) && is_same_work(plan, wanted)
}

fn is_named(planned: &ReleaseId, asked: &ReleaseId) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let rest = planned.as_str().strip_prefix(asked.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(is_number))
}

fn is_same_work(plan: &Plan, wanted: &Wanted) -> bool {
    match (wanted, &plan.purpose) {
        (Wanted::Deploy { artifact, migrations, .. }, Purpose::Deploy { artifact: planned }) => {
            artifact == planned && has_files(plan, migrations.as_ref())
        }
        (Wanted::Rollback, Purpose::Rollback { .. }) => true,
        (Wanted::MaintenanceOn(_), Purpose::Maintenance { on, .. }) => *on,
        (Wanted::MaintenanceOff, Purpose::Maintenance { on, .. }) => !*on,
        (Wanted::Database(work, migrations), Purpose::Database(planned)) => {
            work == planned && has_files(plan, migrations.as_ref())
        }
        _ => false,
    }
}

/// Files of which nothing was left to apply are in no plan.
fn has_files(plan: &Plan, files: Option<&Files>) -> bool {
    let planned = plan.database.as_ref().and_then(|database| database.migrations.as_ref());
    planned.zip(files).is_none_or(|(planned, files)| planned.artifact == files.artifact)
}
