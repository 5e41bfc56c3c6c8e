//! Which backups are kept. Only verified ones count; what counts is never given up for what does not.

use std::collections::BTreeSet;
use std::path::Path;

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};

use super::catalog::{self, Backup};
use super::name::BackupId;
use super::{manifest, part, take};
use crate::{Settings, VerifyLevel};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Ids that stay.
    pub kept: Vec<String>,
    /// Ids that are gone.
    pub removed: Vec<String>,
}

/// The least check after which a backup counts as good: all of it was read.
const COUNTS_FROM: VerifyLevel = VerifyLevel::Read;

/// Removes what is older than the newest `keep` good backups. What a release that is not confirmed yet may need stays,
/// and so does everything as long as no good one stands for it; a damaged one is never removed, somebody should look.
pub async fn retain(settings: &Settings, keep_for: &[String]) -> Result<Retained, Problem> {
    let backups = catalog::list(settings).await?;
    let pending = crate::restore::pending(settings)?.map(|pending| pending.backup);
    let mut doomed = doomed(&backups, settings.backup.keep, keep_for);
    doomed.retain(|id| pending.as_ref() != Some(id));
    let folder = settings.backup.dir.clone();
    let mut retained = Retained::default();
    for backup in backups {
        if doomed.contains(&backup.id) {
            remove(&folder, &backup)?;
            retained.removed.push(backup.id);
        } else {
            retained.kept.push(backup.id);
        }
    }
    Ok(retained)
}

/// The ids that may go. `backups` are sorted, the oldest first. The newest that was restored for its check stays until one
/// after it was: of those that were only read nobody knows yet whether they can be restored.
fn doomed(backups: &[Backup], keep: usize, keep_for: &[String]) -> BTreeSet<String> {
    let good = |backup: &&Backup| {
        backup.fault.is_none() && backup.verified.is_some_and(|level| level >= COUNTS_FROM)
    };
    // The oldest good one that stays; with none there is nothing that older ones could be given up for.
    let Some(oldest) = backups.iter().rev().filter(good).take(keep.max(1)).last() else {
        return BTreeSet::new();
    };
    let enough = backups.iter().filter(good).count() >= keep.max(1);
    let restored =
        |backup: &&Backup| backup.fault.is_none() && backup.verified == Some(VerifyLevel::RestoreTest);
    let proven = backups.iter().rfind(restored).map(|backup| backup.id.as_str());
    let before = backups.iter().take_while(|backup| backup.id != oldest.id);
    before
        .filter(|backup| enough && backup.fault.is_none() && !keep_for.contains(&backup.release))
        .filter(|backup| proven != Some(backup.id.as_str()))
        .map(|backup| backup.id.clone())
        .collect()
}

/// Removes the files of a backup, its manifest first: what is left of a crash is no backup any more, and is removed by the next.
fn remove(folder: &Path, backup: &Backup) -> Result<(), Problem> {
    let id = BackupId::parse(&backup.id)?;
    let failed = |error: std::io::Error| {
        Problem::new(Code::FileSystem, format!("cannot remove backup `{}`", backup.id)).because(&error)
    };
    part::withhold(&id.file(folder, manifest::ENDING)).map_err(failed)?;
    failpoint::pass("backup-withdrawn");
    take::withdraw(folder, &id).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(id: &str, verified: Option<VerifyLevel>, fault: bool) -> Backup {
        Backup {
            id: id.to_owned(),
            file: String::new(),
            bytes: 1,
            taken_at_ms: 0,
            sequence: 0,
            release: format!("r{id}"),
            label: String::new(),
            database: "d".into(),
            server_version: String::new(),
            schema_version: None,
            rows: 0,
            verified,
            verified_at_ms: None,
            already: false,
            fault: fault.then(|| "gone".to_owned()),
        }
    }

    /// Ids with `+` for restored, `~` for read, `-` for digest only, `!` for damaged; the oldest first.
    fn check(backups: &str, keep: usize, keep_for: &[&str], expected: &str) {
        let backups: Vec<Backup> = backups
            .split_whitespace()
            .map(|text| {
                let (id, kind) = text.split_at(1);
                let level = match kind {
                    "+" => VerifyLevel::RestoreTest,
                    "~" => VerifyLevel::Read,
                    _ => VerifyLevel::Digest,
                };
                backup(id, Some(level), kind == "!")
            })
            .collect();
        let keep_for: Vec<String> = keep_for.iter().map(|release| (*release).to_owned()).collect();
        let doomed: Vec<String> = doomed(&backups, keep, &keep_for).into_iter().collect();
        assert_eq!(doomed.join(" "), expected);
    }

    #[test]
    fn only_verified_ones_count_and_the_last_good_one_never_goes() {
        check("a+ b+ c+", 2, &[], "a");
        check("a+ b- c- d-", 1, &[], "");
        check("a+ b- c+ d-", 1, &[], "a b");
        check("a- b- c-", 1, &[], "");
        check("a+ b+", 3, &[], "");
        check("a- b+", 3, &[], "");
        check("a+ b+ c+", 0, &[], "a b");
        check("a+ b+ c+", 1, &["ra"], "b");
        check("a! b+ c+", 1, &[], "b");
        check("a+ b!", 1, &[], "");
        check("", 1, &[], "");
    }

    #[test]
    fn what_is_known_to_restore_is_not_given_up_for_what_was_only_read() {
        check("a+ b~", 1, &[], "");
        check("a+ b+ c~", 1, &[], "a");
        check("a+ b~ c+", 1, &[], "a b");
        check("a~ b~", 1, &[], "a");
    }
}
