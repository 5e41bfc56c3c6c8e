//! The way back of an expand that no confirm has followed: down files of what the release applied, newest first.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Phase, Set, Version};

use super::ledger;
use super::order::{Applied, Ran, RunOrder};
use super::run::{Ending, Run};
use crate::{Authority, Progress, Settings};

/// Takes back what the release of the order applied in its expand phase, also the part of a file that was not finished.
pub async fn down(
    settings: &Settings,
    set: &Set,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Ran, Problem> {
    let mut run = Run::open(settings, order, authority, progress).await?;
    let ran = run.back(set).await;
    progress.done();
    ran
}

const PARTS: &str = "
SELECT DISTINCT version FROM pointsman.statement s WHERE release = $1 AND phase = 'expand'
   AND NOT EXISTS (SELECT 1 FROM pointsman.migration m WHERE m.version = s.version AND m.state IN ('applied', 'adopted'))";

impl<'a> Run<'a> {
    async fn back(&mut self, set: &'a Set) -> Result<Ran, Problem> {
        let versions = self.of_this_release().await?;
        // All ways are looked for before the first is taken.
        let mut scripts = Vec::new();
        for version in &versions {
            let migration = set.get(version);
            let Some((migration, script)) =
                migration.and_then(|found| found.down.as_ref().map(|down| (found, down)))
            else {
                let message = format!("version {version} has no down file; nothing was taken back");
                return Err(Problem::new(Code::NoWayDown, message).hint(
                    "the expanded schema serves the old slot too: leave it, or write a down file and `pointsman resume ENV`",
                ));
            };
            scripts.push((&migration.version, script));
        }
        let mut applied: Vec<Applied> = Vec::new();
        for (version, script) in scripts {
            applied.push(self.apply(version, script, Ending::Undone).await?);
        }
        Ok(Ran { already: applied.is_empty(), applied, notes: std::mem::take(&mut self.notes) })
    }

    /// Versions of this release, newest first. Those with a contract applied have no way back.
    async fn of_this_release(&self) -> Result<Vec<Version>, Problem> {
        let second = &self.sessions.second;
        let records = ledger::records(second).await?;
        let whole = records
            .iter()
            .filter(|row| row.phase == Phase::Expand && !row.adopted && row.release == self.order.release);
        let mut versions: Vec<Version> = whole.map(|row| row.version.clone()).collect();
        if let Some(gone) = versions.iter().find(|version| {
            records.iter().any(|row| row.phase == Phase::Contract && row.version == **version)
        }) {
            let message = format!("the contract of version {gone} is applied; nothing was taken back");
            return Err(Problem::new(Code::NoWayDown, message)
                .hint("the way back is a restore, with its loss: `pointsman db restore ENV`"));
        }
        let rows = second.client().query(PARTS, &[&self.order.release]).await;
        for row in rows.map_err(|error| super::fault::Fault::from(error).while_doing("read the records"))? {
            let text: String = row.try_get(0).unwrap_or_default();
            versions.extend(Version::parse(&text).ok());
        }
        versions.sort();
        versions.reverse();
        versions.dedup();
        Ok(versions)
    }
}
