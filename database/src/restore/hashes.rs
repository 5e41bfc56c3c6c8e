//! What two databases have and do not have in common, table by table: rows are compared by their keys and a hash, group
//! by group, and only groups that differ are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pointsman_core::Problem;
use tokio_postgres::Client;

use super::loss::TableLoss;
use crate::statement::{field, literal, quoted, refused};

/// Into how many groups the rows of a table go.
const GROUPS: u32 = 1024;

const COLUMNS: &str = "
    SELECT n.nspname::text, c.relname::text, a.attname::text, coalesce(a.attnum = ANY (i.indkey), false)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
     WHERE c.relkind = 'r' AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pointsman')
       AND NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY a.attnum";

/// A table's columns, and those of its key.
#[derive(Clone, Debug, Default)]
struct Columns {
    all: Vec<String>,
    key: BTreeSet<String>,
}

type Name = (String, String);

/// Compares every table of the live database with the restored one's, each in one snapshot.
pub(crate) async fn compare(
    live: &Client,
    restored: &Client,
    seed: i64,
    mut tell: impl FnMut(&str),
) -> Result<Vec<TableLoss>, Problem> {
    let (in_live, in_restored) = (columns(live).await?, columns(restored).await?);
    let names: BTreeSet<&Name> = in_live.keys().chain(in_restored.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        tell(&format!("{}.{}", name.0, name.1));
        let loss = match (in_live.get(name), in_restored.get(name)) {
            (Some(live_columns), Some(restored_columns)) => {
                both(live, restored, name, live_columns, restored_columns, seed).await?
            }
            (Some(_), None) => TableLoss { inserted: count(live, name).await?, ..TableLoss::of(name) },
            (None, _) => TableLoss { deleted: count(restored, name).await?, ..TableLoss::of(name) },
        };
        if loss.total() > 0 {
            found.push(loss);
        }
    }
    tell("large objects");
    let name = ("pg_catalog".to_owned(), "pg_largeobject".to_owned());
    let query =
        format!("SELECT oid::text, hashtextextended(md5(lo_get(oid)), {seed}) FROM pg_largeobject_metadata");
    let loss = difference(&name, pairs(live, &query).await?, pairs(restored, &query).await?);
    found.extend((loss.total() > 0).then_some(loss));
    Ok(found)
}

/// Keys and hashes.
async fn pairs(client: &Client, sql: &str) -> Result<Vec<(String, i64)>, Problem> {
    let rows = client.query(sql, &[]).await.map_err(|error| refused("compare large objects", &error))?;
    rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
}

async fn columns(client: &Client) -> Result<BTreeMap<Name, Columns>, Problem> {
    let rows = client.query(COLUMNS, &[]).await.map_err(|error| refused("list columns", &error))?;
    let mut tables: BTreeMap<Name, Columns> = BTreeMap::new();
    for row in &rows {
        let table = tables.entry((field(row, 0)?, field(row, 1)?)).or_default();
        let column: String = field(row, 2)?;
        if field(row, 3)? {
            table.key.insert(column.clone());
        }
        table.all.push(column);
    }
    Ok(tables)
}

async fn count(client: &Client, name: &Name) -> Result<u64, Problem> {
    let sql = format!("SELECT count(*) FROM ONLY {}.{}", quoted(&name.0), quoted(&name.1));
    let row = client.query_one(&sql, &[]).await.map_err(|error| refused("count rows", &error))?;
    Ok(field::<i64>(&row, 0)?.unsigned_abs())
}

/// A table that both have: of its columns those that both have count.
async fn both(
    live: &Client,
    restored: &Client,
    name: &Name,
    in_live: &Columns,
    in_restored: &Columns,
    seed: i64,
) -> Result<TableLoss, Problem> {
    let common: Vec<&String> = in_live.all.iter().filter(|column| in_restored.all.contains(column)).collect();
    // Without a key that both have the whole row is the key: a change is then a deletion and an insertion.
    let keyed = !in_live.key.is_empty() && in_live.key == in_restored.key;
    let key: Vec<&String> =
        common.iter().copied().filter(|column| !keyed || in_live.key.contains(*column)).collect();
    let query = Query { name, key: &row_of(&key), row: &row_of(&common), seed };
    let (mine, theirs) = (query.groups(live).await?, query.groups(restored).await?);
    let numbers: BTreeSet<&i32> = mine.keys().chain(theirs.keys()).collect();
    let differing: Vec<i32> =
        numbers.into_iter().filter(|number| mine.get(number) != theirs.get(number)).copied().collect();
    if differing.is_empty() {
        return Ok(TableLoss::of(name));
    }
    Ok(difference(name, query.rows(live, &differing).await?, query.rows(restored, &differing).await?))
}

/// What the live rows have that the restored ones have not, and the other way round.
fn difference(name: &Name, live: Vec<(String, i64)>, restored: Vec<(String, i64)>) -> TableLoss {
    let mut loss = TableLoss::of(name);
    let mut left: HashMap<String, Vec<i64>> = HashMap::new();
    for (key, hash) in restored {
        left.entry(key).or_default().push(hash);
    }
    for (key, hash) in live {
        match left.get_mut(&key).and_then(|hashes| take(hashes, hash)) {
            None => loss.inserted = loss.inserted.saturating_add(1),
            Some(found) if found != hash => loss.updated = loss.updated.saturating_add(1),
            Some(_) => {}
        }
    }
    loss.deleted = left.values().map(|hashes| hashes.len() as u64).sum();
    loss
}

/// Takes the same hash out, or any other.
fn take(hashes: &mut Vec<i64>, wanted: i64) -> Option<i64> {
    match hashes.iter().position(|hash| *hash == wanted) {
        Some(index) => Some(hashes.swap_remove(index)),
        None => hashes.pop(),
    }
}

fn row_of(columns: &[&String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("t.{}", quoted(column))).collect();
    format!("ROW({})::text", names.join(", "))
}

struct Query<'a> {
    name: &'a Name,
    key: &'a str,
    row: &'a str,
    seed: i64,
}

impl Query<'_> {
    fn source(&self) -> String {
        let Self { name, key, row, seed } = self;
        format!(
            "SELECT k, (hashtextextended(k, {seed}) & {mask})::int AS g, hashtextextended(r, {seed}) AS h
               FROM (SELECT {key} AS k, {row} AS r FROM ONLY {}.{} t) rows",
            quoted(&name.0),
            quoted(&name.1),
            mask = GROUPS.saturating_sub(1),
        )
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Problem {
        refused(&format!("compare the rows of {}", literal(&self.name.1)), error)
    }

    /// Of each group how many rows it has, and what their hashes come to.
    async fn groups(&self, client: &Client) -> Result<BTreeMap<i32, (i64, String)>, Problem> {
        let sql = format!("SELECT g, count(*), sum(h::numeric)::text FROM ({}) s GROUP BY g", self.source());
        let rows = client.query(&sql, &[]).await.map_err(|error| self.failed(&error))?;
        rows.iter().map(|row| Ok((field(row, 0)?, (field(row, 1)?, field(row, 2)?)))).collect()
    }

    /// Keys and hashes of some groups.
    async fn rows(&self, client: &Client, groups: &[i32]) -> Result<Vec<(String, i64)>, Problem> {
        let sql = format!("SELECT k, h FROM ({}) s WHERE g = ANY ($1)", self.source());
        let rows = client.query(&sql, &[&groups]).await.map_err(|error| self.failed(&error))?;
        rows.iter().map(|row| Ok((field(row, 0)?, field(row, 1)?))).collect()
    }
}
