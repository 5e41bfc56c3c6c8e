//! What two databases have and do not have in common, table by table, of a partitioned one partition by partition where a restore
//! puts rows into the same: rows are compared by hashes of their keys and of
//! themselves, group by group. Only groups that differ are read, in the order of the keys' hashes on both sides, so that a
//! table of any size takes no more memory than a few rows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use pointsman_core::{Code, Problem};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, RowStream};

use super::loss::TableLoss;
use crate::contents::{Name, Scattered};
use crate::statement::{field, literal, quoted, refused, releasing_locks};
use crate::{Settings, held};

/// Into how many groups the rows of a table go.
const GROUPS: u32 = 1024;
/// Bytes of a large object that are hashed at once.
const PIECE_BYTES: u32 = 1 << 20;

/// Of the tables of extensions those rows that a dump holds. What every row got when its column was added, or gets by a
/// constant default, is no row's own; both are compared as the server writes elements of arrays, which is how it keeps the
/// former. A default that calls anything is no constant: it is not evaluated, and what a domain forbids is not asked. No default
/// names a column, so that it can be read without its table, which somebody may hold.
const COLUMNS: &str = "
    SELECT n.nspname::text, c.relname::text, a.attname::text, coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false),
           CASE WHEN a.attgenerated = '' THEN
               CASE WHEN a.atthasmissing AND ty.typcategory = 'A' THEN
                    't.' || quote_ident(a.attname) || '::text IS DISTINCT FROM '
                        || quote_nullable(((a.attmissingval::text)::text[])[1])
               WHEN a.atthasmissing THEN
                    'ARRAY[t.' || quote_ident(a.attname) || ']::text IS DISTINCT FROM ' || quote_literal(a.attmissingval::text)
               ELSE 'ARRAY[t.' || quote_ident(a.attname) || ']::text IS DISTINCT FROM ARRAY[(' || CASE
                        WHEN a.attidentity <> ''
                          OR regexp_replace(pg_get_expr(d.adbin, 0), '''([^'']|'''')*''', '', 'g') ~ '[^[ (,]\\(' THEN 'NULL'
                        ELSE coalesce(pg_get_expr(d.adbin, 0), 'NULL') END
                        || ')::' || base.name || ']::text' END END,
           coalesce(e.condition, ''), c.relkind = 'p'
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type ty ON ty.oid = a.atttypid
     CROSS JOIN LATERAL (
           WITH RECURSIVE down (id, modifier) AS (
             SELECT a.atttypid, a.atttypmod
              UNION ALL
             SELECT t.typbasetype, t.typtypmod FROM down JOIN pg_type t ON t.oid = down.id AND t.typtype = 'd')
           SELECT format_type(down.id, down.modifier) AS name FROM down JOIN pg_type t ON t.oid = down.id AND t.typtype <> 'd') base
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
      LEFT JOIN (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) e
             ON e.oid = c.oid
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pointsman')
       AND (e.oid IS NOT NULL OR NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
     ORDER BY a.attnum";

/// What to type when a table is free again.
pub(crate) const AGAIN: &str = "the same command again: what is restored stands ready";

/// A table's columns, and those of its key.
#[derive(Clone, Debug, Default)]
struct Columns {
    all: Vec<String>,
    key: BTreeSet<String>,
    /// Of a column whether a row has a value of its own in it, as SQL; not of computed ones.
    own: BTreeMap<String, String>,
    /// Which rows count, as SQL; empty where all do.
    condition: String,
    /// Whether its rows are those of its partitions.
    whole: bool,
}

impl Columns {
    /// Where its rows are.
    fn rows_of(&self, name: &Name) -> String {
        let only = if self.whole { "" } else { "ONLY " };
        format!("{only}{}.{}", quoted(&name.0), quoted(&name.1))
    }
}

/// Compares every table of the live database with the restored one's, each in one snapshot, in transactions that keep no locks.
/// A table that somebody holds is asked for again until patience ends; then its holders are named.
pub(crate) async fn compare(
    settings: &Settings,
    (live, restored): (&Client, &Client),
    seed: i64,
    patience: Duration,
    mut tell: impl FnMut(&str),
) -> Result<Vec<TableLoss>, Problem> {
    let pair = Pair { settings, live, restored, patience };
    let catalog = |table: &str| ("pg_catalog".to_owned(), table.to_owned());
    let columns = || async { Ok((columns(live).await?, columns(restored).await?)) };
    let (in_live, in_restored) = pair.look(&catalog("pg_class"), &mut tell, columns).await?;
    let (in_live, in_restored) = (&in_live, &in_restored);
    let names: BTreeSet<&Name> = in_live.keys().chain(in_restored.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        tell(&format!("{}.{}", name.0, name.1));
        let loss = || async move {
            Ok(match (in_live.get(name), in_restored.get(name)) {
                (Some(live_columns), Some(restored_columns)) => {
                    both(live, restored, name, live_columns, restored_columns, seed).await?
                }
                (Some(of_live), None) => {
                    TableLoss { inserted: count(live, name, of_live).await?, ..TableLoss::of(name) }
                }
                (None, Some(of_restored)) => {
                    TableLoss { deleted: count(restored, name, of_restored).await?, ..TableLoss::of(name) }
                }
                (None, None) => TableLoss::of(name),
            })
        };
        found.push(pair.look(name, &mut tell, loss).await?);
    }
    tell("large objects");
    let (name, sorted) = (&catalog("pg_largeobject"), &Query::sorted(&large_objects(seed), seed));
    let loss = || difference(name, (live, sorted), (restored, sorted), &[0]);
    found.push(pair.look(name, &mut tell, loss).await?);
    found.retain(|loss| loss.total() > 0);
    Ok(found)
}

/// Both databases, and how long a table that somebody holds is waited for.
struct Pair<'a> {
    settings: &'a Settings,
    live: &'a Client,
    restored: &'a Client,
    patience: Duration,
}

impl Pair<'_> {
    /// Looks at a table of both, without keeping any locks, until it can be read or patience ends.
    async fn look<T, F: Future<Output = Result<T, Problem>>>(
        &self,
        name: &Name,
        tell: &mut impl FnMut(&str),
        look: impl Fn() -> F,
    ) -> Result<T, Problem> {
        let since = Instant::now();
        loop {
            // Below a swap what goes on here would be more than a thread's stack has room for.
            let seen = releasing_locks(self.live, releasing_locks(self.restored, Box::pin(look()))).await;
            let problem = match seen {
                Err(problem) if held::is_held(&problem) => problem,
                Err(problem) => return Err(explained(self.live, name, problem).await),
                seen => return seen,
            };
            // Who looks may find the server's own tables held by now: then it is not known who holds this one.
            let held = match releasing_locks(self.live, Box::pin(self.held(name))).await {
                Err(unseen) if held::is_held(&unseen) => problem.retry_useful(),
                held => held?,
            };
            if since.elapsed() >= self.patience {
                return Err(held);
            }
            tell(&format!("{}.{}: {}", name.0, name.1, held.causes.join("; ")));
        }
    }

    /// Who keeps others from reading a table.
    async fn held(&self, name: &Name) -> Result<Problem, Problem> {
        let table = format!("{}.{}", quoted(&name.0), quoted(&name.1));
        let message = format!("rows of `{}.{}` cannot be compared", name.0, name.1);
        let named = held::by_whom(self.settings, self.live, Some(&table), (&message, AGAIN)).await;
        named.map_err(|error| refused("look who holds a table", &error))
    }
}

/// A table that cannot be read, made since the backup perhaps, by whom the agent cannot become: what it takes is told.
async fn explained(live: &Client, name: &Name, problem: Problem) -> Problem {
    let lacks = SqlState::INSUFFICIENT_PRIVILEGE.code();
    // Rights on the server's own tables say nothing of those on large objects.
    let of_users = name.0 != "pg_catalog";
    let Some(cause) = problem.causes.iter().find(|cause| of_users && cause.starts_with(lacks)).cloned()
    else {
        return problem;
    };
    let asked = "SELECT format('in `%s`, as a superuser: `GRANT USAGE ON SCHEMA %I TO %I; GRANT SELECT ON %I.%I TO %3$I;`', current_database(), $1::text, current_user, $1::text, $2::text)";
    let row = live.query_one(asked, &[&name.0, &name.1]).await;
    let hint: String = row.ok().and_then(|row| field(&row, 0).ok()).unwrap_or_default();
    let message = format!("rows of `{}.{}` cannot be compared: the agent may not read them", name.0, name.1);
    Problem::new(Code::DatabaseUnfit, message)
        .cause(cause)
        .hint(format!("{hint} then the same command again: what is restored stands ready"))
}

/// Large objects by the hashes of their pieces, one in memory at a time: they may be greater than any value may be. The last
/// piece is the first that is not whole.
fn large_objects(seed: i64) -> String {
    format!(
        "SELECT m.oid::text AS k, 0 AS g, (
           WITH RECURSIVE pieces (start, length, hash) AS (
             SELECT 0::bigint, length(first.piece), md5(first.piece)
               FROM (SELECT lo_get(m.oid, 0, {PIECE_BYTES}) AS piece OFFSET 0) first
             UNION ALL
             SELECT p.start + {PIECE_BYTES}, length(next.piece), md5(next.piece)
               FROM pieces p
              CROSS JOIN LATERAL (SELECT lo_get(m.oid, p.start + {PIECE_BYTES}, {PIECE_BYTES}) AS piece OFFSET 0) next
              WHERE p.length = {PIECE_BYTES})
           SELECT hashtextextended(string_agg(hash, '' ORDER BY start), {seed}) FROM pieces) AS h
           FROM pg_largeobject_metadata m"
    )
}

async fn columns(client: &Client) -> Result<BTreeMap<Name, Columns>, Problem> {
    let scattered = Scattered::ask(client).await?;
    let wholes = scattered.wholes();
    let rows = client.query(COLUMNS, &[]).await.map_err(|error| refused("list columns", &error))?;
    let mut tables: BTreeMap<Name, Columns> = BTreeMap::new();
    for row in &rows {
        let (name, whole) = ((field(row, 0)?, field(row, 1)?), field(row, 6)?);
        // Rows of a partitioned table are compared with their partitions, or the other way round.
        if whole != wholes.contains(&name) || scattered.whole(&name).is_some() {
            continue;
        }
        let table = tables.entry(name).or_default();
        table.whole = whole;
        let column: String = field(row, 2)?;
        if field(row, 3)? {
            table.key.insert(column.clone());
        }
        if let Some(own) = field(row, 4)? {
            table.own.insert(column.clone(), own);
        }
        table.condition = field(row, 5)?;
        table.all.push(column);
    }
    Ok(tables)
}

async fn count(client: &Client, name: &Name, columns: &Columns) -> Result<u64, Problem> {
    let sql = format!("SELECT count(*) FROM {}", columns.rows_of(name));
    let row = client.query_one(&sql, &[]).await.map_err(|error| refused("count rows", &error))?;
    Ok(field::<i64>(&row, 0)?.unsigned_abs())
}

/// A table that both have: the columns that both have count, and of those that only the live one has what rows have of their
/// own in them, because a restore takes it from them.
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
    let only_live = in_live.all.iter().filter(|column| !in_restored.all.contains(column));
    let own: Vec<&str> = only_live.filter_map(|column| in_live.own.get(column)).map(String::as_str).collect();
    let row = row_of(&common);
    let with_own = match own.is_empty() {
        true => row.clone(),
        false => format!("{row} || CASE WHEN {} THEN ' and more' ELSE '' END", own.join(" OR ")),
    };
    let (key, condition) = (row_of(&key), in_live.condition.as_str());
    let (mine, theirs) = (in_live.rows_of(name), in_restored.rows_of(name));
    let of_live = Query { name, rows: &mine, key: &key, row: &with_own, condition, seed };
    let of_restored = Query { rows: &theirs, row: &row, ..of_live };
    let (mine, theirs) = (of_live.groups(live).await?, of_restored.groups(restored).await?);
    let numbers: BTreeSet<&i32> = mine.keys().chain(theirs.keys()).collect();
    let differing: Vec<i32> =
        numbers.into_iter().filter(|number| mine.get(number) != theirs.get(number)).copied().collect();
    if differing.is_empty() {
        return Ok(TableLoss::of(name));
    }
    let sorted = [of_live, of_restored].map(|query| Query::sorted(&query.source(), seed));
    let [of_live, of_restored] = &sorted;
    difference(name, (live, of_live), (restored, of_restored), &differing).await
}

/// What the live rows of these groups have that the restored ones have not, and the other way round.
async fn difference(
    name: &Name,
    live: (&Client, &str),
    restored: (&Client, &str),
    groups: &[i32],
) -> Result<TableLoss, Problem> {
    let (mut live, mut restored) =
        tokio::try_join!(Sorted::ask(name, live, groups), Sorted::ask(name, restored, groups))?;
    let mut loss = TableLoss::of(name);
    let (mut mine, mut theirs) = tokio::try_join!(live.next(), restored.next())?;
    loop {
        let order = match (&mine, &theirs) {
            (None, None) => return Ok(loss),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(mine), Some(theirs)) => mine.key.cmp(&theirs.key),
        };
        let had = if order.is_le() { std::mem::replace(&mut mine, live.next().await?) } else { None };
        let kept = if order.is_ge() { std::mem::replace(&mut theirs, restored.next().await?) } else { None };
        let rows = |same: Option<Same>| same.map(|same| same.rows).unwrap_or_default();
        tell_apart(rows(had), rows(kept), &mut loss);
    }
}

/// How often each hash is there, of rows of one key.
type Rows = BTreeMap<i64, u64>;

/// Rows of one key: equal ones are the same, of the others as many as both have are changed, and the rest is there once.
fn tell_apart(live: Rows, mut restored: Rows, loss: &mut TableLoss) {
    let mut more: u64 = 0;
    for (hash, count) in live {
        let there = restored.remove(&hash).unwrap_or_default();
        more = more.saturating_add(count.saturating_sub(there));
        if there > count {
            restored.insert(hash, there.saturating_sub(count));
        }
    }
    let less: u64 = restored.values().sum();
    let changed = more.min(less);
    loss.updated = loss.updated.saturating_add(changed);
    loss.inserted = loss.inserted.saturating_add(more.saturating_sub(changed));
    loss.deleted = loss.deleted.saturating_add(less.saturating_sub(changed));
}

/// Rows of one key.
struct Same {
    /// Two hashes of the key: two keys with both in common are not to be expected in any database.
    key: (i64, i64),
    rows: Rows,
}

/// Rows in the order of their keys' hashes, as they come.
struct Sorted {
    rows: Pin<Box<RowStream>>,
    of: String,
    /// The first row of the next key.
    ahead: Option<((i64, i64), i64)>,
}

impl Sorted {
    async fn ask(name: &Name, (client, sql): (&Client, &str), groups: &[i32]) -> Result<Self, Problem> {
        let of = format!("compare the rows of {}", literal(&name.1));
        let rows = client.query_raw(sql, [groups]).await.map_err(|error| refused(&of, &error))?;
        let mut sorted = Self { rows: Box::pin(rows), of, ahead: None };
        sorted.ahead = sorted.row().await?;
        Ok(sorted)
    }

    async fn row(&mut self) -> Result<Option<((i64, i64), i64)>, Problem> {
        let row = self.rows.try_next().await.map_err(|error| refused(&self.of, &error))?;
        row.map(|row| Ok(((field(&row, 0)?, field(&row, 1)?), field(&row, 2)?))).transpose()
    }

    /// All rows of the next key.
    async fn next(&mut self) -> Result<Option<Same>, Problem> {
        let Some((key, hash)) = self.ahead.take() else { return Ok(None) };
        let mut rows = Rows::from([(hash, 1)]);
        while let Some((of, hash)) = self.row().await? {
            if of != key {
                self.ahead = Some((of, hash));
                break;
            }
            let count = rows.entry(hash).or_default();
            *count = count.saturating_add(1);
        }
        Ok(Some(Same { key, rows }))
    }
}

fn row_of(columns: &[&String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("t.{}", quoted(column))).collect();
    format!("ROW({})::text", names.join(", "))
}

#[derive(Clone, Copy)]
struct Query<'a> {
    name: &'a Name,
    /// Where its rows are, as SQL.
    rows: &'a str,
    key: &'a str,
    row: &'a str,
    /// Which rows count; empty where all do.
    condition: &'a str,
    seed: i64,
}

impl Query<'_> {
    fn source(&self) -> String {
        let Self { rows, key, row, condition, seed, .. } = self;
        format!(
            "SELECT k, (hashtextextended(k, {seed}) & {mask})::int AS g, hashtextextended(r, {seed}) AS h
               FROM (SELECT {key} AS k, {row} AS r FROM {rows} t {condition}) rows",
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

    /// Hashes of the keys and rows of some groups, in the order of the keys'.
    fn sorted(source: &str, seed: i64) -> String {
        let other = seed.wrapping_add(1);
        format!(
            "SELECT hashtextextended(k, {seed}), hashtextextended(k, {other}), h FROM ({source}) s
              WHERE g = ANY ($1::int[]) ORDER BY 1, 2"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_are_told_apart_by_how_often_each_is_there() {
        let told = |live: &[(i64, u64)], restored: &[(i64, u64)]| {
            let mut loss = TableLoss::default();
            let rows = |rows: &[(i64, u64)]| rows.iter().copied().collect::<Rows>();
            tell_apart(rows(live), rows(restored), &mut loss);
            (loss.inserted, loss.updated, loss.deleted)
        };
        assert_eq!(told(&[(1, 1)], &[(1, 1)]), (0, 0, 0));
        assert_eq!(told(&[(1, 1)], &[(2, 1)]), (0, 1, 0));
        assert_eq!(told(&[(1, 3)], &[(1, 1)]), (2, 0, 0));
        assert_eq!(told(&[(1, 1), (3, 1)], &[(1, 4), (2, 1)]), (0, 1, 3));
        assert_eq!(told(&[], &[(7, 2)]), (0, 0, 2));
    }
}
