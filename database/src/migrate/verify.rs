//! A verify file: only looks, in a transaction that may not write and is rolled back. Every statement must succeed and,
//! where it returns one boolean a row, return true in every row.

use std::time::Duration;

use futures_util::TryStreamExt as _;
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

/// Where the migration stands that a verify file looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// In the live database, whatever the look says.
    Live,
    /// On the copy of a rehearsal, and nowhere else.
    OnCopy,
}

/// Looks. What was applied before stays applied, whatever this says.
pub(crate) async fn look(session: &Session, script: &Script, stands: Stands) -> Result<(), Problem> {
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {LOCK_LIMIT_MS}",
        STATEMENT_LIMIT.as_millis()
    );
    own(session, &begin).await.map_err(|fault| fault.while_doing("begin a look"))?;
    let mut looked = Ok(());
    for statement in script.statements() {
        looked = one(session, script, statement, stands).await;
        if looked.is_err() {
            break;
        }
    }
    own(session, "ROLLBACK").await.map_err(|fault| fault.while_doing("end a look"))?;
    looked
}

async fn one(
    session: &Session,
    script: &Script,
    statement: &Statement,
    stands: Stands,
) -> Result<(), Problem> {
    let (aftermath, hint) = match stands {
        Stands::Live => (
            Aftermath::Changed,
            "the migration stands: correct the data, or take an expand that has a `.down.sql` back: \
             `pointsman db down ENV VERSION --migrations FOLDER`; then, if it was a deploy, `pointsman deploy ENV ...`",
        ),
        Stands::OnCopy => (
            Aftermath::Unchanged,
            "correct the migration or its verify file, or the data that it meets; then the same command again: \
             `pointsman deploy ENV ...` or `pointsman db contract ENV ...`",
        ),
    };
    let refused = |why: String| {
        let at = format!("{}:{}:{}", script.path, statement.line, statement.column);
        Problem::new(Code::VerifyFailed, format!("{at}: statement {}: {why}", statement.ordinal))
            .aftermath(aftermath)
            .hint(hint)
    };
    match tokio::time::timeout(STATEMENT_LIMIT * 2, counted(session, &statement.sql)).await {
        Ok(Ok(Told { untrue: 0, .. })) => Ok(()),
        Ok(Ok(Told { untrue, rows })) => Err(refused(format!("{untrue} of {rows} rows are not true"))),
        Ok(Err(error)) => Err(refused(Fault::from(error).words())),
        Err(_) => Err(super::fault::lost("look at what a verify file wants")),
    }
}

/// What the rows of a statement say.
#[derive(Default)]
struct Told {
    rows: u64,
    /// Those that are not true; none where they say nothing.
    untrue: u64,
}

/// Reads the rows as they come and keeps none: it may be a whole table.
async fn counted(session: &Session, sql: &str) -> Result<Told, tokio_postgres::Error> {
    let rows = session.client().query_raw(sql, NO_PARAMETERS).await?;
    let mut rows = std::pin::pin!(rows);
    let mut told = Told::default();
    while let Some(row) = rows.try_next().await? {
        told.rows = told.rows.saturating_add(1);
        let says = matches!(row.columns(), [column] if *column.type_() == Type::BOOL);
        if says && row.try_get::<_, Option<bool>>(0)? != Some(true) {
            told.untrue = told.untrue.saturating_add(1);
        }
    }
    Ok(told)
}

/// A statement of a file has none.
const NO_PARAMETERS: [bool; 0] = [];
