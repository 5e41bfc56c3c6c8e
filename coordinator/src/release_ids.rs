//! Under which id a new release goes: one that nothing bears which could be taken for a part of it.

use pointsman_core::{Code, DatabaseWork, Outcome, Problem, ReleaseId, Timestamp};
use pointsman_proto::v1;

use crate::opening::Opened;
use crate::planner::Wanted;

/// How often an id may be tried again before it is refused.
const MOST_TRIES: u32 = 99;

/// A free id: the one that was asked for, if any, and with a number where a release of it was given up. Refused where one is open or
/// went well. Taken is what the journal tells of, and whatever the database's host has a backup for: `backups` outlive a journal that
/// is gone, and an agent that is asked to take one for a release finds the one that it has.
pub fn free(
    told: &Opened,
    backups: &[v1::BackupFacts],
    (id, wanted, now): (Option<ReleaseId>, &Wanted, Timestamp),
) -> Result<ReleaseId, Problem> {
    let base = id.map_or_else(|| format!("{}-{}", word(wanted), now.0 / 1000), |id| id.to_string());
    let backed_up = |id: &ReleaseId| backups.iter().any(|backup| backup.release == id.as_str());
    for number in 1..=MOST_TRIES {
        let text = if number == 1 { base.clone() } else { format!("{base}.{number}") };
        let id =
            ReleaseId::parse(&text).map_err(|error| Problem::new(Code::UsageWrong, error.to_string()))?;
        match told.releases.get(&id).map(|kept| kept.state.outcome()) {
            None if told.void.contains(&id) || backed_up(&id) => {}
            None => return Ok(id),
            Some(Some(Outcome::Aborted | Outcome::Refused | Outcome::RolledBack)) => {}
            Some(Some(Outcome::Confirmed)) if !matches!(wanted, Wanted::Deploy { .. }) => {}
            Some(ended) => {
                let how = ended.map_or("still running", Outcome::as_str);
                let message = format!("release `{id}` is {how} already");
                return Err(Problem::new(Code::ReleaseIdTaken, message).hint(format!(
                    "choose another `--release`, or look: `pointsman status ENV --release {id}`"
                )));
            }
        }
    }
    Err(Problem::new(Code::ReleaseIdTaken, format!("release `{base}` was tried {MOST_TRIES} times"))
        .hint("choose another `--release`"))
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
    use std::sync::Arc;

    use pointsman_core::{Epoch, Phase, State};

    use super::*;
    use crate::fixture;
    use crate::opening::Kept;

    fn told(ended: &[(&str, Option<Outcome>)]) -> Opened {
        let environment = fixture::environment(&["lb1"], "");
        let kept = |(id, outcome): &(&str, Option<Outcome>)| {
            let plan = Arc::new(fixture::plan(&environment, id));
            let mut state = State::begin(plan, Epoch(1), fixture::PLANNED_AT);
            if let Some(outcome) = outcome {
                state.phase = Phase::Finished(*outcome);
            }
            (ReleaseId::parse(id).unwrap(), Kept::new(fixture::PLANNED_AT, 1, state))
        };
        Opened { releases: ended.iter().map(kept).collect(), ..Opened::default() }
    }

    fn free_of(told: &Opened, backups: &[&str], wanted: &Wanted) -> Result<String, Code> {
        let facts = |release: &&str| v1::BackupFacts { release: (*release).to_owned(), ..Default::default() };
        let backups: Vec<v1::BackupFacts> = backups.iter().map(facts).collect();
        let asked = (ReleaseId::parse("v7").ok(), wanted, fixture::PLANNED_AT);
        free(told, &backups, asked).map(|id| id.to_string()).map_err(|problem| problem.code)
    }

    #[test]
    fn an_id_is_given_again_with_a_number_and_never_what_went_well() {
        let deploy = fixture::deploy("v7").wanted;
        for (ended, wanted) in [
            (&[][..], Ok("v7")),
            (&[("v7", Some(Outcome::Aborted))][..], Ok("v7.2")),
            (&[("v7", Some(Outcome::Refused)), ("v7.2", Some(Outcome::RolledBack))], Ok("v7.3")),
            (&[("v7", None)], Err(Code::ReleaseIdTaken)),
            (&[("v7", Some(Outcome::Confirmed))], Err(Code::ReleaseIdTaken)),
        ] {
            assert_eq!(free_of(&told(ended), &[], &deploy), wanted.map(str::to_owned), "{ended:?}");
        }
        let confirmed = told(&[("v7", Some(Outcome::Confirmed))]);
        assert_eq!(free_of(&confirmed, &[], &Wanted::Rollback).unwrap(), "v7.2");
        let unnamed = free(&told(&[]), &[], (None, &Wanted::Rollback, Timestamp(7_000)));
        assert_eq!(unnamed.unwrap().as_str(), "rollback-7");
    }

    /// A journal that was lost knows nothing of it, and the agent would take the backup for this release's own.
    #[test]
    fn a_release_that_the_journal_has_lost_leaves_its_name_to_its_backup() {
        let deploy = fixture::deploy("v7").wanted;
        assert_eq!(free_of(&told(&[]), &["v6", "v7"], &deploy).unwrap(), "v7.2");
        let mut void = told(&[]);
        void.void.insert(ReleaseId::parse("v7").unwrap());
        assert_eq!(free_of(&void, &["v7", "v7.2"], &deploy).unwrap(), "v7.3");
    }
}
