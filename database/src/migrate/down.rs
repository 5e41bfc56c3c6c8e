//! The way back of an expand that no contract has followed: the down file of the newest version.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Phase, Set, Version};

use super::ledger::{self, Record};
use super::measure::Measure;
use super::order::{Measured, Ran, RunOrder};
use super::run::{Ending, Run};
use crate::{Authority, Progress, Settings};

/// Takes a version back, if it is the newest that is applied.
pub async fn down(
    settings: &Settings,
    set: &Set,
    version: &Version,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Ran, Problem> {
    let run = Run::open(settings, order, authority, progress).await?;
    ended(run, set, version).await.map(|(ran, _)| ran)
}

/// The same on a copy, with what each statement does. Never on the live database: what is measured asks for its locks one by
/// one, and waits for them.
pub(crate) async fn measured(
    settings: &Settings,
    set: &Set,
    version: &Version,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<(Ran, Vec<Measured>), Problem> {
    let mut run = Run::open(settings, order, authority, progress).await?;
    run.measure = Some(Measure::default());
    ended(run, set, version).await
}

async fn ended<'a>(
    mut run: Run<'a>,
    set: &'a Set,
    version: &Version,
) -> Result<(Ran, Vec<Measured>), Problem> {
    let ran = run.back(set, version).await;
    run.progress.done();
    Ok((ran?, run.measure.take().map(|measure| measure.statements).unwrap_or_default()))
}

impl<'a> Run<'a> {
    async fn back(&mut self, set: &'a Set, version: &Version) -> Result<Ran, Problem> {
        let records = ledger::records(&self.sessions.second).await?;
        let of = |phase| records.iter().filter(move |row: &&Record| row.phase == phase);
        let refuse = |message: String, hint: &str| Err(Problem::new(Code::NoWayDown, message).hint(hint));
        if of(Phase::Contract).any(|row| row.version == *version) {
            let message = format!("the contract of version {version} is applied; nothing was taken back");
            return refuse(
                message,
                "the way back is a restore, with its loss: `pointsman db list ENV`, `pointsman db restore ENV --backup ID`",
            );
        }
        // Taken back by an earlier try of the same order.
        if !of(Phase::Expand).any(|row| row.version == *version) {
            return Ok(Ran { already: true, ..Ran::default() });
        }
        if let Some(newer) = of(Phase::Expand).find(|row| row.version > *version) {
            let message =
                format!("version {} is applied above {version}; nothing was taken back", newer.version);
            return refuse(message, "versions are taken back one by one, the newest first");
        }
        let Some((migration, script)) =
            set.get(version).and_then(|found| found.down.as_ref().map(|down| (found, down)))
        else {
            let message = format!("version {version} has no down file; nothing was taken back");
            return refuse(
                message,
                "write one, or leave the expanded schema: the version before works on it",
            );
        };
        let applied = self.apply(&migration.version, script, Ending::Undone).await?;
        Ok(Ran { already: false, applied: vec![applied], notes: std::mem::take(&mut self.notes) })
    }
}
