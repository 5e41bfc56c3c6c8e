//! What stands between SQL and the rest: refusals of the server as problems, fields of rows, names and texts put
//! into statements that take no parameters.

use std::error::Error as _;

use pointsman_core::{Code, Problem};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Row};

/// What the server says when its table of locks is full.
pub(crate) const TOO_MANY_LOCKS: &str = "out of shared memory";
/// What to do then.
pub(crate) const MORE_LOCKS: &str = "the server can hold too few locks for so many tables: raise `max_locks_per_transaction` in postgresql.conf and restart it";

/// What the server says, by its programs, when it lets nobody else in.
pub(crate) const TOO_MANY_SESSIONS: [&str; 3] =
    ["too many connections for ", "too many clients already", "remaining connection slots are reserved"];
/// What to do then.
pub(crate) const MORE_SESSIONS: &str = "all connections are taken; who has them, as a superuser: `SELECT datname, usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC`; end what is left over (`pg_terminate_backend`), or raise what the cause names, `max_connections` or the `CONNECTION LIMIT` of the database or role: the agent needs up to 4 beside those of the application";

/// Runs something in a transaction that only looks, and gives back the locks that it took; the snapshot stays. Whoever looks
/// at thousands of tables would fill the server's table of locks: each table takes one, and each of its indexes.
pub(crate) async fn releasing_locks<T>(
    client: &Client,
    look: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let run = async |sql: &str| {
        client.batch_execute(sql).await.map_err(|error| refused("look at a table for itself", &error))
    };
    run("SAVEPOINT pointsman_look").await?;
    let seen = look.await;
    let back = run("ROLLBACK TO SAVEPOINT pointsman_look; RELEASE SAVEPOINT pointsman_look").await;
    // Why it could not look tells more than that the session is gone.
    let seen = seen?;
    back?;
    Ok(seen)
}

/// Whether a statement was refused because what it names is not there any more.
pub(crate) fn is_gone(problem: &Problem) -> bool {
    let states = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    problem.causes.iter().any(|cause| states.iter().any(|state| cause.starts_with(state.code())))
}

/// A statement that the server refused, or whose answer was lost.
pub(crate) fn refused(doing: &str, error: &tokio_postgres::Error) -> Problem {
    let message = format!("cannot {doing}");
    match error.as_db_error() {
        Some(found) => {
            let problem = Problem::new(Code::StatementRefused, message);
            let problem = problem.cause(format!("{}: {}", found.code().code(), found.message()));
            let problem = match found.message() {
                message if message.contains(TOO_MANY_LOCKS) => problem.hint(MORE_LOCKS),
                _ => problem,
            };
            details(found).into_iter().fold(problem, Problem::cause)
        }
        None if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            Problem::new(Code::DatabaseUnreachable, format!("{message}: the session ended"))
                .retry_useful()
                .because(error)
        }
        None => Problem::new(Code::StatementRefused, message).because(error),
    }
}

/// What the server said beside its message. Where it found fault with values it quotes them, and rows are not for the journal:
/// then only whose they are is told.
pub(crate) fn details(found: &DbError) -> Vec<String> {
    if !tells_values(found.code()) {
        return found.detail().into_iter().chain(found.where_()).map(str::to_owned).collect();
    }
    let parts = [
        ("table", found.table()),
        ("column", found.column()),
        ("constraint", found.constraint()),
        ("type", found.datatype()),
    ];
    let named: Vec<String> =
        parts.iter().filter_map(|(what, name)| name.map(|name| format!("{what} `{name}`"))).collect();
    if named.is_empty() { Vec::new() } else { vec![named.join(", ")] }
}

/// Classes of what is wrong with data, and of what it breaks.
fn tells_values(state: &SqlState) -> bool {
    ["22", "23"].iter().any(|class| state.code().starts_with(class))
}

/// A field of a row.
pub(crate) fn field<T: FromSqlOwned>(row: &Row, index: usize) -> Result<T, Problem> {
    row.try_get(index).map_err(|error| refused("read an answer of the server", &error))
}

/// A name as it stands in a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in a statement.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'; x"), "E'\\\\''; x'");
    }
}
