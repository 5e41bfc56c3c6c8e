//! Tables that cannot be read because somebody holds them: who does, and what to type.

use pointsman_core::{Code, Problem};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::migrate::blockers;
use crate::{Session, Settings};

/// Whether something gave up because somebody holds a lock. `pg_dump` limits the statement with which it asks for its locks.
pub(crate) fn is_held(problem: &Problem) -> bool {
    let says = |words: &str| problem.causes.iter().any(|cause| cause.contains(words));
    let not_had = SqlState::LOCK_NOT_AVAILABLE.code();
    problem.causes.iter().any(|cause| cause.starts_with(not_had))
        || says("canceling statement due to") && says("LOCK TABLE ")
}

/// Who keeps others from reading this table, or any where none is named, as the reason why something was not done; `again` is
/// what to type when the table is free.
pub(crate) async fn by_whom(
    client: &Client,
    table: Option<&str>,
    (message, again): (&str, &str),
) -> Result<Problem, tokio_postgres::Error> {
    let blockers = blockers::of_readers(client, table).await?;
    let hint = match blockers::to_end(&blockers) {
        Some(statement) => format!("on the database: {statement}, or wait for it; then {again}"),
        None => again.to_owned(),
    };
    let problem = Problem::new(Code::LockNotHad, message).cause(blockers::named(&blockers));
    Ok(problem.retry_useful().hint(hint))
}

/// A backup that met such a table, with whoever holds it; as it was where nobody can be asked any more.
pub(crate) async fn in_backup(settings: &Settings, problem: Problem) -> Problem {
    let Ok(session) = Session::open(settings, &settings.name, "blockers").await else { return problem };
    let words =
        (problem.message.as_str(), "the same command again: `pointsman db backup ENV`, or the release");
    match by_whom(session.client(), None, words).await {
        Ok(named) => problem.causes.iter().fold(named, Problem::cause),
        Err(_) => problem,
    }
}
