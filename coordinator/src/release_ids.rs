//! Under which id a new release goes: one that nothing bears which could be taken for a part of it.

use pointsman_core::{Code, DatabaseWork, Outcome, Problem, ReleaseId, Timestamp};
use pointsman_proto::v1;

use crate::planner::Wanted;

/// How often an id may be tried again before it is refused.
const MOST_TRIES: u32 = 99;

/// What bears an id, as the journal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Borne {
    /// Nothing.
    ByNone,
    /// A release that was open when a person accepted the journal: its name stays taken.
    ByVoid,
    /// A release, with how it ended; none where it runs.
    By(Option<Outcome>),
}

/// The ids to try, in their order: the one that was asked for, if any, then with numbers.
pub fn tries(
    id: Option<&ReleaseId>,
    wanted: &Wanted,
    now: Timestamp,
) -> impl Iterator<Item = Result<ReleaseId, Problem>> + use<> {
    let base = id.map_or_else(|| format!("{}-{}", word(wanted), now.0 / 1000), ToString::to_string);
    (1..=MOST_TRIES).map(move |number| {
        let text = if number == 1 { base.clone() } else { format!("{base}.{number}") };
        ReleaseId::parse(&text).map_err(|error| Problem::new(Code::UsageWrong, error.to_string()))
    })
}

/// Whether a new release may bear the id, or the next one is to be tried, because a release of it was given up. Refused where one is
/// open or went well. Taken is what the journal tells of, and whatever the database's host has a backup for: `backups` outlive a
/// journal that is gone, and an agent that is asked to take one for a release finds the one that it has.
pub fn is_free(
    id: &ReleaseId,
    borne: Borne,
    backups: &[v1::BackupFacts],
    wanted: &Wanted,
) -> Result<bool, Problem> {
    match borne {
        Borne::ByNone => Ok(!backups.iter().any(|backup| backup.release == id.as_str())),
        Borne::ByVoid | Borne::By(Some(Outcome::Aborted | Outcome::Refused | Outcome::RolledBack)) => {
            Ok(false)
        }
        Borne::By(Some(Outcome::Confirmed)) if !matches!(wanted, Wanted::Deploy { .. }) => Ok(false),
        Borne::By(ended) => {
            let how = ended.map_or("still running", Outcome::as_str);
            Err(Problem::new(Code::ReleaseIdTaken, format!("release `{id}` is {how} already"))
                .hint(format!("choose another `--release`, or look: `pointsman status ENV --release {id}`")))
        }
    }
}

/// That all ids were tried.
pub fn all_taken() -> Problem {
    Problem::new(Code::ReleaseIdTaken, format!("a release of this name was tried {MOST_TRIES} times"))
        .hint("choose another `--release`")
}

/// What the id begins with where nobody chose one.
fn word(wanted: &Wanted) -> &'static str {
    match wanted {
        Wanted::Deploy { .. } => "release",
        Wanted::Rollback => "rollback",
        Wanted::MaintenanceOn(_) => "maintenance-on",
        Wanted::MaintenanceOff => "maintenance-off",
        Wanted::Database(DatabaseWork::Backup, _) => "db-backup",
        Wanted::Database(DatabaseWork::Verify { .. }, _) => "db-verify",
        Wanted::Database(DatabaseWork::Contract, _) => "db-contract",
        Wanted::Database(DatabaseWork::Down { .. }, _) => "db-down",
        Wanted::Database(DatabaseWork::Restore { .. }, _) => "db-restore",
        Wanted::Database(DatabaseWork::Swap { .. }, _) => "db-swap",
        Wanted::Database(DatabaseWork::SwapBack { .. }, _) => "db-swap-back",
        Wanted::Database(DatabaseWork::Settle { .. }, _) => "db-settle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn free_of(known: &[(&str, Borne)], backups: &[&str], wanted: &Wanted) -> Result<String, Code> {
        let facts = |release: &&str| v1::BackupFacts { release: (*release).to_owned(), ..Default::default() };
        let backups: Vec<v1::BackupFacts> = backups.iter().map(facts).collect();
        let asked = ReleaseId::parse("v7").unwrap();
        for id in tries(Some(&asked), wanted, fixture::PLANNED_AT) {
            let id = id.unwrap();
            let borne =
                known.iter().find(|(known, _)| *known == id.as_str()).map_or(Borne::ByNone, |(_, by)| *by);
            if is_free(&id, borne, &backups, wanted).map_err(|problem| problem.code)? {
                return Ok(id.to_string());
            }
        }
        Err(all_taken().code)
    }

    #[test]
    fn an_id_is_given_again_with_a_number_and_never_what_went_well() {
        let deploy = fixture::deploy("v7").wanted;
        for (ended, wanted) in [
            (&[][..], Ok("v7")),
            (&[("v7", Borne::By(Some(Outcome::Aborted)))][..], Ok("v7.2")),
            (
                &[("v7", Borne::By(Some(Outcome::Refused))), ("v7.2", Borne::By(Some(Outcome::RolledBack)))],
                Ok("v7.3"),
            ),
            (&[("v7", Borne::By(None))], Err(Code::ReleaseIdTaken)),
            (&[("v7", Borne::By(Some(Outcome::Confirmed)))], Err(Code::ReleaseIdTaken)),
        ] {
            assert_eq!(free_of(ended, &[], &deploy), wanted.map(str::to_owned), "{ended:?}");
        }
        let confirmed = [("v7", Borne::By(Some(Outcome::Confirmed)))];
        assert_eq!(free_of(&confirmed, &[], &Wanted::Rollback).unwrap(), "v7.2");
        let unnamed = tries(None, &Wanted::Rollback, Timestamp(7_000)).next().unwrap();
        assert_eq!(unnamed.unwrap().as_str(), "rollback-7");
    }

    /// A journal that was lost knows nothing of it, and the agent would take the backup for this release's own.
    #[test]
    fn a_release_that_the_journal_has_lost_leaves_its_name_to_its_backup() {
        let deploy = fixture::deploy("v7").wanted;
        assert_eq!(free_of(&[], &["v6", "v7"], &deploy).unwrap(), "v7.2");
        assert_eq!(free_of(&[("v7", Borne::ByVoid)], &["v7", "v7.2"], &deploy).unwrap(), "v7.3");
    }
}
