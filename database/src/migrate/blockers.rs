//! Who holds what a migration, a backup or a restore waits for: found before anything is asked for, named when patience ends.

use std::collections::BTreeMap;
use std::fmt;

use pointsman_migration::LockMode;
use tokio_postgres::{Client, Row};

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Most holders that are read: a message names a few, a count says the rest.
const MAX_BLOCKERS: i64 = 50;
/// Holders named in a message.
const NAMED: usize = 3;
/// How the server calls a worker of its own that vacuums.
const AUTOVACUUM: &str = "autovacuum worker";
/// A transaction older than this is an old one: waiting for it is not waiting for a busy table.
const OLD_S: f64 = 1.0;

const HOLDERS: &str = "
SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.backend_type, ''), coalesce(a.state, ''),
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8, l.mode, l.relation::regclass::text,
       left(coalesce(a.query, ''), 200), p.gid, p.owner::text, l.relation
  FROM pg_catalog.pg_locks l
  JOIN unnest($1::oid[], $2::text[]) AS wanted (relation, modes)
    ON wanted.relation = l.relation AND l.mode = ANY (string_to_array(wanted.modes, ' '))
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN LATERAL (
       SELECT x.gid, x.owner FROM pg_catalog.pg_locks own JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
        WHERE own.pid IS NULL AND own.locktype = 'transactionid' AND own.virtualtransaction = l.virtualtransaction) p ON l.pid IS NULL
 WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND l.granted AND l.pid IS DISTINCT FROM $3 AND l.pid IS DISTINCT FROM pg_backend_pid()
 ORDER BY a.xact_start NULLS FIRST LIMIT $4";

/// Tables that nobody may read at this moment.
const UNREADABLE: &str = "
WITH RECURSIVE tree (id) AS (
    SELECT to_regclass($1)::oid
     UNION ALL
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.id)
SELECT DISTINCT l.relation
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
 WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND l.granted AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND ($1::text IS NULL OR l.relation IN (SELECT id FROM tree))";

/// Whoever holds one of the server's own tables of a database against everybody, or waits for it with everybody behind: such tables
/// have the same number in all databases.
const OF_CATALOG: &str = "
SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.backend_type, ''), coalesce(a.state, ''),
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8, l.mode, l.relation::regclass::text,
       left(coalesce(a.query, ''), 200), NULL::text, NULL::text, l.relation
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1)
   AND l.locktype = 'relation' AND l.relation < 16384 AND l.mode = 'AccessExclusiveLock'
 ORDER BY l.granted DESC, a.xact_start LIMIT $2";

/// Whoever waits longer than `deadlock_timeout` for a vacuum cancels it. For long it is not waited: that may be a minute.
const WAIT_FOR_VACUUM: &str = "
SELECT format('BEGIN; SET LOCAL lock_timeout = %s; LOCK TABLE ONLY %I.%I IN SHARE UPDATE EXCLUSIVE MODE',
              least(s.setting::bigint + 1000, 10000), n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.pg_settings s
 WHERE c.oid = $1 AND c.relkind IN ('r', 'p') AND s.name = 'deadlock_timeout'
   AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')";

const WAITED_FOR: &str = "
SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.backend_type, ''), coalesce(a.state, ''),
       extract(epoch FROM now() - a.xact_start)::float8, ''::text, NULL::text,
       left(coalesce(a.query, ''), 200), NULL::text, NULL::text, NULL::oid
  FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) ORDER BY a.xact_start LIMIT $2";

/// One session, or prepared transaction, in the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// The server's process; none for a prepared transaction.
    pub pid: Option<i32>,
    /// Its application's name, or what kind of process it is.
    pub application: String,
    /// `active`, `idle in transaction` and the like.
    pub state: String,
    /// Age of its transaction in seconds, where it has one.
    pub age_s: Option<f64>,
    /// The lock's mode, as `pg_locks` spells it.
    pub mode: String,
    /// The table that it holds.
    pub relation: Option<String>,
    /// The same by number.
    pub relation_oid: Option<u32>,
    /// Its last query, shortened.
    pub query: String,
    /// Identifier and owner of a prepared transaction.
    pub prepared: Option<(String, String)>,
}

impl Blocker {
    /// Whether its transaction has been open for a while, so that no quick retry gets past it.
    pub(crate) fn is_old(&self) -> bool {
        self.prepared.is_some() || self.age_s.is_some_and(|age| age >= OLD_S)
    }

    /// Whether it is a vacuum of the server itself that ends when somebody waits for it. One that keeps the server from
    /// running out of transaction numbers does not.
    pub(crate) fn gives_way(&self) -> bool {
        self.application == AUTOVACUUM && !self.query.contains("to prevent wraparound")
    }

    fn read(row: &Row) -> Option<Self> {
        let application: String = row.try_get(1).ok()?;
        let kind: String = row.try_get(2).ok()?;
        let gid: Option<String> = row.try_get(8).ok()?;
        Some(Self {
            pid: row.try_get(0).ok()?,
            application: if application.is_empty() { kind } else { application },
            state: row.try_get(3).ok()?,
            age_s: row.try_get(4).ok()?,
            mode: row.try_get(5).ok()?,
            relation: row.try_get(6).ok()?,
            query: row.try_get(7).ok()?,
            prepared: gid.zip(row.try_get(9).ok()?),
            relation_oid: row.try_get(10).ok()?,
        })
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(relation) = &self.relation {
            write!(f, "`{relation}` is held by ")?;
        }
        match (&self.prepared, self.pid) {
            (Some((gid, owner)), _) => write!(f, "the prepared transaction `{gid}` of {owner}"),
            (None, Some(pid)) => {
                let age = self.age_s.map_or_else(|| "age not known".to_owned(), |age| format!("{age:.0} s"));
                write!(f, "pid {pid} ({}, {}, {age}, `{}`)", self.application, self.state, self.query.trim())
            }
            (None, None) => f.write_str("a prepared transaction"),
        }
    }
}

/// Who holds what stands against these modes on these tables, oldest first, but the session `working`.
pub(crate) async fn holders(
    asking: &Session,
    wanted: &BTreeMap<u32, LockMode>,
    working: i32,
) -> Result<Vec<Blocker>, Fault> {
    let tables: Vec<u32> = wanted.keys().copied().collect();
    let modes = wanted.values().map(|mode| {
        let against = mode.conflicts().iter().map(|mode| mode.in_catalog());
        against.collect::<Vec<_>>().join(" ")
    });
    let modes: Vec<String> = modes.collect();
    let rows = asking.client().query(HOLDERS, &[&tables, &modes, &working, &MAX_BLOCKERS]).await?;
    Ok(rows.iter().filter_map(Blocker::read).collect())
}

/// Who keeps everybody from reading this table, with what is below it, or any of the database where none is named, oldest first.
pub(crate) async fn of_readers(
    client: &Client,
    table: Option<&str>,
) -> Result<Vec<Blocker>, tokio_postgres::Error> {
    // A transaction would go on seeing those whom it saw first.
    client.batch_execute("SELECT pg_catalog.pg_stat_clear_snapshot()").await?;
    let rows = client.query(UNREADABLE, &[&table]).await?;
    let tables = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<u32>, _>>()?;
    let modes = vec![LockMode::AccessExclusive.in_catalog(); tables.len()];
    // No process has this number.
    let rows = client.query(HOLDERS, &[&tables, &modes, &0_i32, &MAX_BLOCKERS]).await?;
    Ok(rows.iter().filter_map(Blocker::read).collect())
}

/// Who keeps everybody in a database from one of the server's own tables, asked from another.
pub(crate) async fn of_catalog(
    elsewhere: &Client,
    database: &str,
) -> Result<Vec<Blocker>, tokio_postgres::Error> {
    let rows = elsewhere.query(OF_CATALOG, &[&database, &MAX_BLOCKERS]).await?;
    Ok(rows.iter().filter_map(Blocker::read).collect())
}

/// Sends the server's own vacuum of a table away: it gives way to whoever has waited for it as long as the server takes to
/// look for a deadlock, and only then. Waiting in this mode keeps nobody from reading or writing.
pub(crate) async fn send_vacuum_away(asking: &Session, table: u32) -> Result<(), Fault> {
    let Some(row) = asking.client().query_opt(WAIT_FOR_VACUUM, &[&table]).await? else { return Ok(()) };
    let lock: String = row.try_get(0)?;
    let waited = own(asking, &lock).await;
    own(asking, "ROLLBACK").await?;
    // Whether it went is seen by the next try.
    match waited {
        Err(fault) if !fault.is_lock_missed() => Err(fault),
        _ => Ok(()),
    }
}

/// Whom the session `working` waits for at this moment.
pub(crate) async fn waited_for(asking: &Session, working: i32) -> Result<Vec<Blocker>, Fault> {
    let rows = asking.client().query(WAITED_FOR, &[&working, &MAX_BLOCKERS]).await?;
    Ok(rows.iter().filter_map(Blocker::read).collect())
}

/// The first few in one sentence.
pub(crate) fn named(blockers: &[Blocker]) -> String {
    let mut text = blockers.iter().take(NAMED).map(Blocker::to_string).collect::<Vec<_>>().join("; ");
    if blockers.len() > NAMED {
        text.push_str(&format!("; and {} more", blockers.len() - NAMED));
    }
    if text.is_empty() { "nobody holds it at this moment".to_owned() } else { text }
}

/// The statement that ends the first of them, if it is still there.
pub(crate) fn to_end(blockers: &[Blocker]) -> Option<String> {
    match blockers.first()? {
        Blocker { prepared: Some((gid, _)), .. } => {
            Some(format!("`ROLLBACK PREPARED '{gid}'` or `COMMIT PREPARED '{gid}'`"))
        }
        Blocker { pid, .. } => pid.map(|pid| format!("`SELECT pg_terminate_backend({pid})`")),
    }
}

/// What to type about the first of them.
pub(crate) fn way_out(blockers: &[Blocker]) -> String {
    match blockers.first() {
        Some(Blocker { prepared: Some((gid, _)), .. }) => {
            format!("`ROLLBACK PREPARED '{gid}'` or `COMMIT PREPARED '{gid}'`")
        }
        Some(Blocker { pid: Some(pid), .. }) => {
            format!(
                "wait for it, or on the database: `SELECT pg_cancel_backend({pid})`; then the same command again: \
                 `pointsman deploy ENV ...` or `pointsman db contract ENV ...`"
            )
        }
        _ => "when the table is less busy the same command again: \
              `pointsman deploy ENV ...` or `pointsman db contract ENV ...`"
            .to_owned(),
    }
}
