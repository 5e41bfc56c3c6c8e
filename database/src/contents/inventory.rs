//! Counts what is in the database of a session, in the session's snapshot.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_core::Problem;
use tokio_postgres::Client;

use super::elsewhere::filled_from_elsewhere;
use super::{Contents, Counters, Home, Sequence, Table};
use crate::Progress;
use crate::statement::{field, is_gone, quoted, refused, releasing_locks};

/// Tables whose rows a dump holds: those of people, and what an extension says of its own, whose owner is in no dump: it is
/// whoever makes the extension. `condition` is the extension's; the counters are those of whole tables.
const TABLES: &str = "
    SELECT n.nspname::text, c.relname::text, CASE WHEN e.oid IS NULL THEN r.rolname::text ELSE '' END, coalesce(e.condition, ''),
           pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_roles r ON r.oid = c.relowner
      LEFT JOIN (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) e
             ON e.oid = c.oid
     WHERE c.relkind = 'r' AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND (e.oid IS NOT NULL OR NOT EXISTS (
            SELECT 1 FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
     ORDER BY 1, 2";

const SEQUENCES: &str = "
    SELECT n.nspname::text, c.relname::text, c.oid
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY 1, 2";

/// By how many names in a row a sequence is looked for.
const NAMES_TRIED: u32 = 3;

const EXTENSIONS: &str = "SELECT extname::text, extversion FROM pg_extension";

const HOMES: &str = "
    SELECT e.extname::text, pg_get_userbyid(e.extowner)::text, n.nspname::text,
           CASE WHEN d.objid IS NULL THEN pg_get_userbyid(n.nspowner)::text END
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
      LEFT JOIN pg_depend d ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e'";

const ROLES: &str = "
    SELECT DISTINCT r.rolname::text
      FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
     WHERE d.refclassid = 'pg_authid'::regclass
       AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// An index that is not valid, as a concurrent build leaves it that failed, is in no dump. Since version 18 what is `NOT NULL` is a constraint too: not counted, so that a copy on another version compares.
const OBJECTS: &str = "
    WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
    SELECT 'indexes', count(*) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
     WHERE (i.indisvalid OR c.relkind = 'I') AND c.relnamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'views', count(*) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'constraints', count(*) FROM pg_constraint
     WHERE contype <> 'n' AND connamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'functions', count(*) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'types', count(*) FROM pg_type WHERE typnamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'triggers', count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE NOT t.tgisinternal AND c.relnamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT 'policies', count(*) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
     WHERE c.relnamespace IN (SELECT oid FROM ours)";

/// Counts everything, in a transaction that keeps no locks. Sequences have one value: that of now.
pub(crate) async fn take(client: &Client, progress: &Progress, doing: &str) -> Result<Contents, Problem> {
    let mut tables = releasing_locks(client, listed(client)).await?;
    let many = tables.len();
    for (index, (table, condition)) in tables.iter_mut().enumerate() {
        progress.say(format!("{doing}: counting rows, table {} of {many}", index.saturating_add(1)));
        table.rows = releasing_locks(client, count(client, table, condition)).await?;
    }
    let tables = tables.into_iter().map(|(table, _)| table).collect();
    let sequences = sequences(client).await?;
    let others = async {
        let large: i64 =
            one(client, "SELECT count(*) FROM pg_largeobject_metadata", "count large objects").await?;
        Ok(Contents {
            tables,
            sequences,
            large_objects: large.unsigned_abs(),
            extensions: pairs(client, EXTENSIONS, "list extensions").await?,
            homes: homes(client).await?,
            roles: names(client, ROLES, "list roles").await?,
            objects: counted(client).await?,
            filled_from_elsewhere: filled_from_elsewhere(client).await?,
        })
    };
    releasing_locks(client, others).await
}

/// What the server has counted of each table so far, by schema and name.
pub(crate) async fn counters(client: &Client) -> Result<BTreeMap<(String, String), Counters>, Problem> {
    let tables = listed(client).await?;
    Ok(tables.into_iter().map(|(table, _)| ((table.schema, table.name), table.counters)).collect())
}

/// Every sequence with its value of now, in a transaction that keeps no locks. What the transaction's snapshot knows by a name may
/// be called otherwise by now, or be gone: of a sequence that is gone any value is right.
pub(crate) async fn sequences(client: &Client) -> Result<Vec<Sequence>, Problem> {
    let mut found = Vec::new();
    let listed =
        async { client.query(SEQUENCES, &[]).await.map_err(|error| refused("list sequences", &error)) };
    for row in releasing_locks(client, listed).await? {
        let (schema, name, oid): (String, String, u32) = (field(&row, 0)?, field(&row, 1)?, field(&row, 2)?);
        let value = value(client, (&schema, &name), oid).await?;
        let (before, after) = value.map_or((i64::MIN, i64::MAX), |value| (value, value));
        found.push(Sequence { schema, name, before, after });
    }
    Ok(found)
}

/// The value of a sequence of now, whatever it is called by now; none where it is gone, or is renamed again and again.
async fn value(client: &Client, known_as: (&str, &str), oid: u32) -> Result<Option<i64>, Problem> {
    let (schema, name) = known_as;
    let doing = format!("read the sequence `{schema}.{name}`");
    let mut by_now = format!("{}.{}", quoted(schema), quoted(name));
    for _ in 0..NAMES_TRIED {
        let sql = format!("SELECT last_value, tableoid FROM {by_now}");
        let read = async {
            let row = client.query_one(&sql, &[]).await.map_err(|error| refused(&doing, &error))?;
            Ok((field::<i64>(&row, 0)?, field::<u32>(&row, 1)?))
        };
        match releasing_locks(client, read).await {
            Ok((value, read)) if read == oid => return Ok(Some(value)),
            Err(problem) if !is_gone(&problem) => return Err(problem),
            // Another one is called so by now, or none.
            _ => {}
        }
        let row = client.query_one("SELECT $1::oid::regclass::text", &[&oid]).await;
        by_now = field(&row.map_err(|error| refused(&doing, &error))?, 0)?;
        // The number alone is what the server says of one that is gone.
        if by_now.parse::<u32>().is_ok() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The tables with their extension's condition; rows are not counted yet.
async fn listed(client: &Client) -> Result<Vec<(Table, String)>, Problem> {
    let rows = client.query(TABLES, &[]).await.map_err(|error| refused("list tables", &error))?;
    rows.iter()
        .map(|row| {
            let count = |index| field::<i64>(row, index).map(i64::unsigned_abs);
            let counters = Counters { inserted: count(4)?, updated: count(5)?, deleted: count(6)? };
            let table = Table {
                schema: field(row, 0)?,
                name: field(row, 1)?,
                owner: field(row, 2)?,
                rows: 0,
                counters,
            };
            Ok((table, field(row, 3)?))
        })
        .collect()
}

async fn count(client: &Client, table: &Table, condition: &str) -> Result<u64, Problem> {
    let (schema, name) = (&table.schema, &table.name);
    let sql = format!("SELECT count(*) FROM ONLY {}.{} {condition}", quoted(schema), quoted(name));
    let rows = one(client, &sql, &format!("count the rows of `{schema}.{name}`")).await;
    let rows = rows.map_err(useful_again)?;
    Ok(rows.unsigned_abs())
}

async fn one(client: &Client, sql: &str, doing: &str) -> Result<i64, Problem> {
    let row = client.query_one(sql, &[]).await.map_err(|error| refused(doing, &error))?;
    field(&row, 0)
}

/// What was dropped or renamed in the middle is not there the next time.
fn useful_again(problem: Problem) -> Problem {
    if is_gone(&problem) { problem.retry_useful() } else { problem }
}

async fn names(client: &Client, sql: &str, doing: &str) -> Result<BTreeSet<String>, Problem> {
    let rows = client.query(sql, &[]).await.map_err(|error| refused(doing, &error))?;
    rows.iter().map(|row| field(row, 0)).collect()
}

async fn pairs(client: &Client, sql: &str, doing: &str) -> Result<BTreeMap<String, String>, Problem> {
    let rows = client.query(sql, &[]).await.map_err(|error| refused(doing, &error))?;
    rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
}

async fn homes(client: &Client) -> Result<BTreeMap<String, Home>, Problem> {
    let rows = client.query(HOMES, &[]).await.map_err(|error| refused("list extensions", &error))?;
    rows.iter()
        .map(|row| {
            let home = Home { owner: field(row, 1)?, schema: field(row, 2)?, schema_owner: field(row, 3)? };
            Ok((field(row, 0)?, home))
        })
        .collect()
}

async fn counted(client: &Client) -> Result<BTreeMap<String, u64>, Problem> {
    let rows = client.query(OBJECTS, &[]).await.map_err(|error| refused("count objects", &error))?;
    rows.iter().map(|row| Ok((field(row, 0)?, field::<i64>(row, 1)?.unsigned_abs()))).collect()
}
