//! Tables that cannot be read because somebody holds them: who does, and what to type.

use pointsman_core::{Code, Problem};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::migrate::Blocker;
use crate::migrate::blockers;
use crate::{Session, Settings};

/// What to type when the table is free again, for a backup.
const BACKUP_AGAIN: &str = "the same command again: `pointsman db backup ENV`, or the release";

/// Whether something gave up because somebody holds a lock. `pg_dump` limits the statement with which it asks for its locks.
pub(crate) fn is_held(problem: &Problem) -> bool {
    let says = |words: &str| problem.causes.iter().any(|cause| cause.contains(words));
    let states = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    problem.causes.iter().any(|cause| states.iter().any(|state| cause.starts_with(state.code())))
        || says("canceling statement due to") && says("LOCK TABLE ")
        || says("ERROR:  deadlock detected")
}

/// Who keeps others from reading this table, or any where none is named, as the reason why something was not done; `again` is
/// what to type when the table is free.
pub(crate) async fn by_whom(
    settings: &Settings,
    client: &Client,
    table: Option<&str>,
    words: (&str, &str),
) -> Result<Problem, tokio_postgres::Error> {
    // While one of the server's own tables is held nobody can look from here.
    let mut blockers = Box::pin(of_catalog(settings)).await;
    if blockers.is_empty() {
        blockers = blockers::of_readers(client, table).await?;
    }
    Ok(named(&blockers, words))
}

fn named(blockers: &[Blocker], (message, again): (&str, &str)) -> Problem {
    let hint = match blockers::to_end(blockers) {
        Some(statement) => format!("on the database: {statement}, or wait for it; then {again}"),
        None => again.to_owned(),
    };
    let problem = Problem::new(Code::LockNotHad, message).cause(blockers::named(blockers));
    problem.retry_useful().hint(hint)
}

/// Whoever writes one of the server's own tables anew (`VACUUM FULL`): of the whole database nobody reads on who needs that one,
/// and it may be that nobody gets a session. Another database has its own.
async fn of_catalog(settings: &Settings) -> Vec<Blocker> {
    let Ok(session) = Session::open(settings, &settings.maintenance, "blockers").await else {
        return Vec::new();
    };
    blockers::of_catalog(session.client(), &settings.name).await.unwrap_or_default()
}

/// The problem, unless it came about because one of the server's own tables is held: then by whom.
pub(crate) async fn unless_in_catalog(settings: &Settings, problem: Problem, again: &str) -> Problem {
    if !is_held(&problem) && problem.code != Code::DatabaseUnreachable {
        return problem;
    }
    let blockers = Box::pin(of_catalog(settings)).await;
    if blockers.is_empty() {
        return problem;
    }
    let named = named(&blockers, (&problem.message, again));
    problem.causes.into_iter().fold(named, Problem::cause)
}

/// A backup that met such a table, with whoever holds it; as it was where nobody can be asked any more.
pub(crate) async fn in_backup(settings: &Settings, problem: Problem) -> Problem {
    let problem = unless_in_catalog(settings, problem, BACKUP_AGAIN).await;
    if problem.code == Code::LockNotHad || !is_held(&problem) {
        return problem;
    }
    let Ok(session) = Session::open(settings, &settings.name, "blockers").await else { return problem };
    match by_whom(settings, session.client(), None, (&problem.message, BACKUP_AGAIN)).await {
        Ok(named) => problem.causes.iter().fold(named, Problem::cause),
        Err(_) => problem,
    }
}
