//! A verify file: only looks, in a transaction that may not write and is rolled back. Every statement must succeed and,
//! where it returns one boolean a row, return true in every row.

use std::time::Duration;

use pointsman_core::{Aftermath, Code, Problem};
use pointsman_migration::{Script, Statement};
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Longest a statement of it may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
/// Longest it waits for a lock, in milliseconds: it asks for none that stalls anybody.
const LOCK_LIMIT_MS: u32 = 2_000;

/// Looks. What was applied before stays applied, whatever this says.
pub(crate) async fn look(session: &Session, script: &Script) -> Result<(), Problem> {
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {LOCK_LIMIT_MS}",
        STATEMENT_LIMIT.as_millis()
    );
    own(session, &begin).await.map_err(|fault| fault.while_doing("begin a look"))?;
    let mut looked = Ok(());
    for statement in script.statements() {
        looked = one(session, script, statement).await;
        if looked.is_err() {
            break;
        }
    }
    own(session, "ROLLBACK").await.map_err(|fault| fault.while_doing("end a look"))?;
    looked
}

async fn one(session: &Session, script: &Script, statement: &Statement) -> Result<(), Problem> {
    let refused = |why: String| {
        let at = format!("{}:{}:{}", script.path, statement.line, statement.column);
        Problem::new(Code::VerifyFailed, format!("{at}: statement {}: {why}", statement.ordinal))
            .aftermath(Aftermath::Changed)
            .hint(
                "the migration stands: correct the data, or take an expand that has a `.down.sql` back: \
                 `pointsman db down ENV VERSION --migrations FOLDER`; then, if it was a deploy, \
                 `pointsman deploy ENV ...`",
            )
    };
    let asked = tokio::time::timeout(STATEMENT_LIMIT * 2, session.client().query(&statement.sql, &[])).await;
    let rows = match asked {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(refused(Fault::from(error).words())),
        Err(_) => return Err(super::fault::lost("look at what a verify file wants")),
    };
    let boolean =
        rows.first().is_some_and(|row| matches!(row.columns(), [column] if *column.type_() == Type::BOOL));
    if !boolean {
        return Ok(());
    }
    let untrue =
        rows.iter().filter(|row| row.try_get::<_, Option<bool>>(0).ok().flatten() != Some(true)).count();
    if untrue == 0 { Ok(()) } else { Err(refused(format!("{untrue} of {} rows are not true", rows.len()))) }
}
