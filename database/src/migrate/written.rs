//! Whether tables that a migration alters still take rows as the version that serves writes them: one is written, changed and
//! replaced on the copy before and after, each time in a transaction that is taken back. A new column without a value, a
//! constraint on it, a trigger whose function fails, a rule that swallows writes: all of it shows by trying.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::Problem;
use pointsman_migration::{LockMode, Script};
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Longest that one try may take, in milliseconds.
const TRY_LIMIT_MS: u32 = 5_000;

const TABLE: &str = "
SELECT quote_ident(a.attname), a.attgenerated <> '', a.attidentity = 'a'
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p') ORDER BY a.attnum";

/// How one way to write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The row was taken; or only its key was there already, which is asked after everything else.
    Taken,
    /// The server reported success, and no row was written.
    Swallowed,
    /// It was refused.
    Refused(String),
}

/// Ways to write a row, and how each ended.
type Outcomes = BTreeMap<&'static str, Outcome>;

/// Tables as they took rows before, and their columns then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    tables: BTreeMap<String, (BTreeSet<String>, Outcomes)>,
}

/// Tables that the scripts alter, or add triggers and rules to.
fn altered(scripts: &[&Script]) -> BTreeSet<String> {
    let locks = scripts.iter().flat_map(|script| script.statements()).flat_map(|statement| &statement.locks);
    locks.filter(|lock| lock.mode >= LockMode::ShareRowExclusive).map(|lock| lock.relation.as_sql()).collect()
}

/// Tries each of them as it is now.
pub(crate) async fn look(session: &Session, scripts: &[&Script]) -> Result<Written, Problem> {
    let mut written = Written::default();
    for table in altered(scripts) {
        let columns = columns(session, &table).await?;
        if !columns.is_empty() {
            let outcomes = outcomes(session, &table, &columns, &[]).await?;
            let names = columns.into_iter().map(|column| column.name).collect();
            written.tables.insert(table, (names, outcomes));
        }
    }
    Ok(written)
}

impl Written {
    /// Tries them again, with what was a column then; says in words what was taken before and is no longer.
    pub(crate) async fn refused_now(&self, session: &Session) -> Result<Vec<String>, Problem> {
        let mut refused = Vec::new();
        for (table, (old, before)) in &self.tables {
            let (of_old, fresh): (Vec<_>, Vec<_>) =
                columns(session, table).await?.into_iter().partition(|column| old.contains(&column.name));
            let after = outcomes(session, table, &of_old, &fresh).await?;
            for (way, outcome) in &after {
                if before.get(way) != Some(&Outcome::Taken) {
                    continue;
                }
                match outcome {
                    Outcome::Taken => {}
                    Outcome::Swallowed => {
                        refused.push(format!("to {way} a row of {table} does nothing any more"));
                    }
                    Outcome::Refused(why) => {
                        refused.push(format!("to {way} a row of {table} as before is refused: {why}"));
                    }
                }
            }
        }
        Ok(refused)
    }
}

struct Column {
    name: String,
    generated: bool,
    always: bool,
}

async fn columns(session: &Session, table: &str) -> Result<Vec<Column>, Problem> {
    let failed = |error| Fault::from(error).while_doing("look at the columns of a table");
    let rows = session.client().query(TABLE, &[&table]).await.map_err(failed)?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Column { name: row.try_get(0)?, generated: row.try_get(1)?, always: row.try_get(2)? })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// Writes in every way, with the columns that the version that serves knows; the others have what they have by default.
async fn outcomes(
    session: &Session,
    table: &str,
    known: &[Column],
    fresh: &[Column],
) -> Result<Outcomes, Problem> {
    let mut outcomes = Outcomes::new();
    for (way, sql) in ways(table, known, fresh) {
        if let Some(outcome) = tried(session, &sql).await? {
            outcomes.insert(way, outcome);
        }
    }
    Ok(outcomes)
}

fn ways(table: &str, known: &[Column], fresh: &[Column]) -> Vec<(&'static str, String)> {
    let given: Vec<&str> = known.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect();
    let all = given.join(", ");
    let one = format!("(SELECT tableoid, ctid FROM {table} LIMIT 1)");
    let mut ways = Vec::new();
    if given.is_empty() {
        return ways;
    }
    let insert = format!("INSERT INTO {table} ({all}) OVERRIDING SYSTEM VALUE");
    ways.push(("add", format!("{insert} SELECT {all} FROM {table} LIMIT 1")));
    // The row itself again, so that its key is free and everything after that is asked too.
    ways.push((
        "replace",
        format!(
            "WITH one AS (DELETE FROM {table} WHERE (tableoid, ctid) = {one} RETURNING {all}) {insert} SELECT {all} FROM one"
        ),
    ));
    if let Some(some) = known.iter().find(|column| !column.generated && !column.always) {
        let by_default = fresh.iter().filter(|column| !column.generated);
        let set: String = by_default.map(|column| format!(", {} = DEFAULT", column.name)).collect();
        let name = &some.name;
        ways.push((
            "change",
            format!("UPDATE {table} SET {name} = {name}{set} WHERE (tableoid, ctid) = {one}"),
        ));
    }
    ways
}

/// Nothing where it cannot be told.
async fn tried(session: &Session, sql: &str) -> Result<Option<Outcome>, Problem> {
    let doing = "try whether a table takes rows";
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = {TRY_LIMIT_MS}; SET LOCAL lock_timeout = {TRY_LIMIT_MS}"
    );
    own(session, &begin).await.map_err(|fault| fault.while_doing(doing))?;
    let sent = session.client().execute(sql, &[]).await.map_err(Fault::from);
    let outcome = match sent {
        Ok(0) => Some(Outcome::Swallowed),
        Ok(_) => deferred(session).await?,
        Err(Fault::Lost(why)) => return Err(super::fault::lost(doing).cause(why)),
        Err(fault) => refusal(fault),
    };
    own(session, "ROLLBACK").await.map_err(|fault| fault.while_doing(doing))?;
    Ok(outcome)
}

/// What is asked at the end of a transaction is asked now.
async fn deferred(session: &Session) -> Result<Option<Outcome>, Problem> {
    match own(session, "SET CONSTRAINTS ALL IMMEDIATE").await {
        Ok(()) => Ok(Some(Outcome::Taken)),
        Err(Fault::Lost(why)) => Err(super::fault::lost("try whether a table takes rows").cause(why)),
        Err(fault) => Ok(refusal(fault)),
    }
}

fn refusal(fault: Fault) -> Option<Outcome> {
    let is = |states: &[SqlState]| states.iter().any(|state| fault.is(state));
    if is(&[SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION]) {
        return Some(Outcome::Taken);
    }
    let of_the_moment =
        [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    (!is(&of_the_moment)).then(|| Outcome::Refused(fault.words()))
}
