//! What the catalog says about a statement that ran outside of a transaction: done, not done, or half done and to be
//! cleared away first.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Probe, Relation};

use super::fault::Fault;
use crate::Session;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its effect is there.
    Done,
    /// Its effect is not there.
    NotDone,
    /// Something half made is in its place. These commands clear it away, or finish it.
    Half {
        /// The commands, each to be run by itself and outside of a transaction.
        commands: Vec<String>,
        /// Whether the statement is done once they have run.
        finishes: bool,
        /// What it is, for people.
        what: String,
    },
    /// The catalog does not show whether it was done.
    Unseen,
}

const INDEX: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), i.indisvalid AND i.indisready,
       i.indrelid = to_regclass($2), EXISTS (
           SELECT 1 FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid OR p.relid = i.indrelid)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = $1 AND c.relnamespace = (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = to_regclass($2))";

const GONE: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), i.indisvalid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass($1)";

/// Read as a row of text, because servers before 14 do not know the column.
const PARTITION: &str = "
SELECT coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false) FROM pg_catalog.pg_inherits i
 WHERE i.inhparent = to_regclass($1) AND i.inhrelid = to_regclass($2)";

/// Indexes that a `REINDEX CONCURRENTLY` left, of one index, one table or all: the new one beside the one that is valid
/// still, or the old one behind the one that is valid now. Nothing uses them, and every write keeps them up.
const LEFT_BY_REINDEX: &str = "
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index wanted ON wanted.indexrelid = to_regclass($1::text)
 WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' AND n.nspname <> 'pg_toast'
   AND ($1::text IS NULL OR i.indrelid = coalesce(wanted.indrelid, to_regclass($1::text)::oid) OR i.indrelid IN (
        SELECT relid FROM pg_catalog.pg_partition_tree(coalesce(wanted.indrelid::regclass, to_regclass($1::text)))))
   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
 ORDER BY 1 LIMIT 100";

/// Looks.
pub(crate) async fn look(session: &Session, probe: &Probe) -> Result<Found, Problem> {
    let found = match probe {
        Probe::None => Ok(Found::Unseen),
        Probe::Repeatable => Ok(Found::NotDone),
        Probe::Reindexed { relation } => left_by_reindex(session, relation.as_ref()).await,
        Probe::IndexValid { index, table } => return index_valid(session, index, table).await,
        Probe::IndexGone { index } => index_gone(session, index).await,
        Probe::PartitionDetached { parent, partition } => detached(session, parent, partition).await,
    };
    found.map_err(unreadable)
}

fn unreadable(fault: Fault) -> Problem {
    fault.while_doing("look into the catalog")
}

async fn index_valid(session: &Session, index: &Relation, table: &Relation) -> Result<Found, Problem> {
    let row = session.client().query_opt(INDEX, &[&index.name, &table.as_sql()]).await.map_err(Fault::from);
    let Some(row) = row.map_err(unreadable)? else { return Ok(Found::NotDone) };
    let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    let (name, valid, same_table, building): (String, bool, bool, bool) =
        read().map_err(|error: tokio_postgres::Error| unreadable(error.into()))?;
    match (same_table, valid, building) {
        // The server will say so itself: the name is taken.
        (false, _, _) => Ok(Found::NotDone),
        (true, true, _) => Ok(Found::Done),
        (true, false, true) => {
            Err(Problem::new(Code::DatabaseBusy, format!("another session builds the index {name}"))
                .retry_useful()
                .hint("on the database: `SELECT * FROM pg_stat_progress_create_index`"))
        }
        (true, false, false) => Ok(Found::Half {
            commands: vec![dropped(&name)],
            finishes: false,
            what: format!("the index {name} of an earlier try was invalid: dropped"),
        }),
    }
}

async fn left_by_reindex(session: &Session, relation: Option<&Relation>) -> Result<Found, Fault> {
    let relation = relation.map(Relation::as_sql);
    let rows = session.client().query(LEFT_BY_REINDEX, &[&relation]).await?;
    let names = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    if names.is_empty() {
        return Ok(Found::NotDone);
    }
    Ok(Found::Half {
        commands: names.iter().map(|name| dropped(name)).collect(),
        finishes: false,
        what: format!("an earlier REINDEX left {}, invalid: dropped", names.join(", ")),
    })
}

fn dropped(index: &str) -> String {
    format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")
}

async fn index_gone(session: &Session, index: &Relation) -> Result<Found, Fault> {
    let Some(row) = session.client().query_opt(GONE, &[&index.as_sql()]).await? else {
        return Ok(Found::Done);
    };
    let (name, valid): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    if valid {
        return Ok(Found::NotDone);
    }
    Ok(Found::Half {
        commands: vec![dropped(&name)],
        finishes: true,
        what: format!("the index {name} was half dropped: finished"),
    })
}

async fn detached(session: &Session, parent: &Relation, partition: &Relation) -> Result<Found, Fault> {
    let (parent, partition) = (parent.as_sql(), partition.as_sql());
    let Some(row) = session.client().query_opt(PARTITION, &[&parent, &partition]).await? else {
        return Ok(Found::Done);
    };
    if !row.try_get::<_, bool>(0)? {
        return Ok(Found::NotDone);
    }
    Ok(Found::Half {
        commands: vec![format!("ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE")],
        finishes: true,
        what: format!("the partition {partition} was half detached: finished"),
    })
}
