//! Whether tables that a migration alters still take rows as the version that serves writes them: one is written, changed and
//! replaced on the copy before and after, each time in a transaction that is taken back. A new column without a value, a
//! constraint on it, a trigger whose function fails, a rule that swallows writes: all of it shows by trying.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::Problem;
use pointsman_migration::{LockMode, Script};
use tokio_postgres::error::SqlState;

use super::elsewhere::PASS_OVER;
use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Longest that one try may take, in milliseconds.
const TRY_LIMIT_MS: u32 = 5_000;

/// Columns, with their types and whether they are of the key.
const TABLE: &str = "
SELECT quote_ident(a.attname), a.attgenerated <> '', a.attidentity = 'a', format_type(a.atttypid, a.atttypmod),
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i
                WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
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

/// Tables as they took rows before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    tables: BTreeMap<String, Tried>,
}

/// A table that was tried.
#[derive(Clone, Debug)]
struct Tried {
    /// Its columns then: the version that serves knows no others.
    columns: BTreeSet<String>,
    /// The row that it was tried with, as a condition: the same before and after, where the table has a key.
    row: String,
    outcomes: Outcomes,
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
        let row = match one_row(session, &table, &columns).await {
            Ok(Some(row)) => row,
            // What may not even be read will be told by the run itself.
            Ok(None) | Err(Fault::Refused(_)) => continue,
            Err(fault) => return Err(fault.while_doing("look for a row of a table")),
        };
        let outcomes = outcomes(session, &table, &columns, &row).await?;
        let columns = columns.into_iter().map(|column| column.name).collect();
        written.tables.insert(table, Tried { columns, row, outcomes });
    }
    Ok(written)
}

impl Written {
    /// Tries them again, with what was a column then; says in words what was taken before and is no longer.
    pub(crate) async fn refused_now(&self, session: &Session) -> Result<Vec<String>, Problem> {
        let mut refused = Vec::new();
        for (table, before) in &self.tables {
            let mut known = columns(session, table).await?;
            known.retain(|column| before.columns.contains(&column.name));
            // The migration may have deleted it, or made the key another one: that is seen by who looks at columns.
            let there = match is_there(session, table, &before.row).await {
                Err(Fault::Refused(_)) => false,
                there => there.map_err(|fault| fault.while_doing("look for a row of a table"))?,
            };
            if known.is_empty() || !there {
                continue;
            }
            let after = outcomes(session, table, &known, &before.row).await?;
            for (way, outcome) in &after {
                if before.outcomes.get(way) != Some(&Outcome::Taken) {
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
    kind: String,
    of_key: bool,
}

async fn columns(session: &Session, table: &str) -> Result<Vec<Column>, Problem> {
    let failed = |error| Fault::from(error).while_doing("look at the columns of a table");
    let rows = session.client().query(TABLE, &[&table]).await.map_err(failed)?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Column {
            name: row.try_get(0)?,
            generated: row.try_get(1)?,
            always: row.try_get(2)?,
            kind: row.try_get(3)?,
            of_key: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// A row to try with, as a condition; none where there is none.
async fn one_row(session: &Session, table: &str, columns: &[Column]) -> Result<Option<String>, Fault> {
    let key: Vec<&Column> = columns.iter().filter(|column| column.of_key).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    if key.is_empty() {
        let any = format!("(tableoid, ctid) = (SELECT tableoid, ctid FROM {table} LIMIT 1)");
        return Ok(is_there(session, table, &any).await?.then_some(any));
    }
    let texts: Vec<String> =
        key.iter().map(|column| format!("quote_literal({}::text)", column.name)).collect();
    let sql = format!("SELECT {} FROM {table} LIMIT 1", texts.join(", "));
    let Some(row) = session.client().query_opt(&sql, &[]).await? else { return Ok(None) };
    let mut equal = Vec::new();
    for (at, column) in key.iter().enumerate() {
        let value: String = row.try_get(at)?;
        equal.push(format!("{} = {value}::{}", column.name, column.kind));
    }
    Ok(Some(equal.join(" AND ")))
}

async fn is_there(session: &Session, table: &str, row: &str) -> Result<bool, Fault> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {row})");
    Ok(session.client().query_one(&sql, &[]).await?.try_get(0)?)
}

/// Writes in every way, with the columns that the version that serves knows: what is new has what it has by default.
async fn outcomes(session: &Session, table: &str, known: &[Column], row: &str) -> Result<Outcomes, Problem> {
    let mut outcomes = Outcomes::new();
    for (way, sql) in ways(table, known, row) {
        if let Some(outcome) = tried(session, &sql).await? {
            outcomes.insert(way, outcome);
        }
    }
    Ok(outcomes)
}

fn ways(table: &str, known: &[Column], row: &str) -> Vec<(&'static str, String)> {
    let given: Vec<&str> = known.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect();
    let all = given.join(", ");
    let mut ways = Vec::new();
    if given.is_empty() {
        return ways;
    }
    let insert = format!("INSERT INTO {table} ({all}) OVERRIDING SYSTEM VALUE");
    ways.push(("add", format!("{insert} SELECT {all} FROM {table} WHERE {row}")));
    // The row itself again, so that its key is free and everything after that is asked too.
    let replaced = format!(
        "WITH one AS (DELETE FROM {table} WHERE {row} RETURNING {all}) {insert} SELECT {all} FROM one"
    );
    ways.push(("replace", replaced));
    if let Some(some) = known.iter().find(|column| !column.generated && !column.always) {
        let name = &some.name;
        ways.push(("change", format!("UPDATE {table} SET {name} = {name} WHERE {row}")));
    }
    ways
}

/// Nothing where it cannot be told.
async fn tried(session: &Session, sql: &str) -> Result<Option<Outcome>, Problem> {
    let doing = "try whether a table takes rows";
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = {TRY_LIMIT_MS}; SET LOCAL lock_timeout = {TRY_LIMIT_MS}; {PASS_OVER}"
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
