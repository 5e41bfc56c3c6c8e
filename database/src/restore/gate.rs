//! Shuts a database for everybody and opens it again, and tells whether anything was written meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pointsman_core::{Aftermath, Code, Problem};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::statement::{field, quoted, refused};

/// How long sessions may take to end when they are told to.
const ENDING: Duration = Duration::from_secs(2);
/// How often it is looked whether they have: each look costs a millisecond of the gap.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How often those that are still there are told again: a session that was just being opened may have missed it.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// Lets nobody in any more, not even superusers. Sessions that are open stay. Whether this outlives a crash of the
/// server does not matter: it is made durable by the commit of the swap, and without that nothing should be shut.
pub(crate) async fn shut(client: &Client, database: &str) -> Result<(), Problem> {
    let database = quoted(database);
    let sql = format!(
        "BEGIN; SET LOCAL synchronous_commit = off; ALTER DATABASE {database} ALLOW_CONNECTIONS false; COMMIT"
    );
    let done = client.batch_execute(&sql).await;
    if done.is_err() {
        // The session is used on: what failed must not stay open in it.
        _ = client.batch_execute("ROLLBACK").await;
    }
    done.map_err(|error| refused("shut the database", &error).aftermath(Aftermath::Unknown))
}

/// Lets everybody in again.
pub(crate) async fn open(client: &Client, database: &str) -> Result<(), Problem> {
    let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", quoted(database));
    let done = client.batch_execute(&sql).await;
    done.map_err(|error| refused("open the database", &error).aftermath(Aftermath::Unknown))
}

/// Sessions that cannot be ended by the agent's role, named before anything is shut.
pub(crate) async fn must_be_endable(client: &Client, databases: [u32; 2]) -> Result<(), Problem> {
    let failed = |error: tokio_postgres::Error| refused("look for sessions", &error);
    let rows = client
        .query(
            "SELECT format('session %s of superuser `%s` (`%s`)', a.pid, r.rolname, a.application_name)
               FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
              WHERE a.datid = ANY ($1) AND r.rolsuper
                AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
             UNION ALL
             SELECT format('prepared transaction `%s` of `%s`: ROLLBACK PREPARED, or COMMIT PREPARED', gid, owner)
               FROM pg_prepared_xacts
              WHERE database IN (SELECT datname FROM pg_database WHERE oid = ANY ($1))",
            &[&databases.as_slice()],
        )
        .await
        .map_err(failed)?;
    if rows.is_empty() {
        return Ok(());
    }
    let problem =
        Problem::new(Code::SwapRefused, "something holds the databases that the agent's role cannot end")
            .hint("end what is named, then try again");
    rows.iter().try_fold(problem, |problem, row| Ok(problem.cause(field::<String>(row, 0)?))).and_then(Err)
}

/// Ends every session of these databases but one, and waits until they are gone. Workers of autovacuum are left: only a
/// superuser may end them, and the server does so itself when the database is renamed.
pub(crate) async fn clear(client: &Client, databases: [u32; 2], but: i32) -> Result<(), Problem> {
    let failed = |error: tokio_postgres::Error| refused("end the sessions of the database", &error);
    let (give_up, mut tell_at) = (Instant::now() + ENDING, Instant::now());
    loop {
        let now = Instant::now();
        let sql = if now >= tell_at {
            tell_at = now + TELL_EVERY;
            "SELECT count(*), count(pg_terminate_backend(pid))
               FROM pg_stat_activity
              WHERE datid = ANY ($1) AND pid <> $2 AND backend_type <> 'autovacuum worker'"
        } else {
            "SELECT count(*), 0::bigint FROM pg_stat_activity
              WHERE datid = ANY ($1) AND pid <> $2 AND backend_type <> 'autovacuum worker'"
        };
        let row = client.query_one(sql, &[&databases.as_slice(), &but]).await.map_err(failed)?;
        match field::<i64>(&row, 0)? {
            0 => return Ok(()),
            left if Instant::now() >= give_up => {
                let message = format!("{left} sessions of the database did not end within 2 s");
                return Err(Problem::new(Code::SwapRefused, message)
                    .retry_useful()
                    .hint("`pointsman db status ENV` shows the sessions; end them, then try again"));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What the server has counted of the rows of a database, and which files its tables have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    rows: u64,
    files: BTreeMap<u32, u32>,
    /// The same as `rows`, of each table. Empty in records from before it was kept.
    #[serde(default)]
    tables: BTreeMap<u32, u64>,
    /// Whether somebody may write who is not counted.
    #[serde(default)]
    uncounted: bool,
}

/// Whether the server counts no writes, or not those of some role: with `track_counts` off the counters stand still, and say
/// that nothing was written.
pub(crate) async fn uncounted(client: &Client) -> Result<bool, Problem> {
    let sql = "
        SELECT current_setting('track_counts') <> 'on' OR EXISTS (
               SELECT 1 FROM pg_db_role_setting s, unnest(s.setconfig) AS c (setting)
                WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                  AND c.setting ~* '^track_counts=' AND c.setting !~* '=(on|true|yes|1)$')";
    let row = client.query_one(sql, &[]).await;
    row.map_err(|error| refused("ask what the server counts", &error)).and_then(|row| field(&row, 0))
}

impl Written {
    pub(crate) async fn ask(client: &Client) -> Result<Self, Problem> {
        // One look after the other must not see what the first one saw.
        let rows = client
            .query(
                "SELECT c.oid, c.relfilenode,
                        pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
                          + pg_stat_get_tuples_deleted(c.oid)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'r' AND c.relpersistence <> 't'
                    AND (n.nspname !~ '^pg_' OR c.relname = 'pg_largeobject')
                    AND n.nspname NOT IN ('information_schema', 'pointsman')",
                &[],
            )
            .await
            .map_err(|error| refused("ask how much was written", &error))?;
        let mut written = Self { uncounted: uncounted(client).await?, ..Self::default() };
        for row in &rows {
            let (table, rows) = (field(row, 0)?, field::<i64>(row, 2)?.unsigned_abs());
            written.rows = written.rows.saturating_add(rows);
            written.tables.insert(table, rows);
            written.files.insert(table, field(row, 1)?);
        }
        Ok(written)
    }

    /// Rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows were written since an earlier look; `None` when tables were emptied, rewritten, made or dropped,
    /// the counters began anew, or not everybody is counted, so that nobody can tell.
    pub(crate) fn since(&self, earlier: &Self) -> Option<u64> {
        (!self.uncounted && !earlier.uncounted).then_some(())?;
        (self.files == earlier.files).then_some(())?;
        // A crash of the server sets them all to nothing: what was written since may hide it in the sum, but not in every
        // table.
        let begun_anew = earlier.tables.iter().any(|(table, then)| self.tables.get(table) < Some(then));
        (!begun_anew).then_some(())?;
        self.rows.checked_sub(earlier.rows)
    }
}

/// Rows that stand in the tables, about: as many can have been written at most, where nobody can tell how many were.
pub(crate) async fn all_rows(client: &Client) -> Result<u64, Problem> {
    let row = client
        .query_one(
            "SELECT coalesce(sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)), 0)::bigint
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'r' AND n.nspname !~ '^pg_'
                AND n.nspname NOT IN ('information_schema', 'pointsman')",
            &[],
        )
        .await
        .map_err(|error| refused("ask how many rows there are", &error))?;
    Ok(field::<i64>(&row, 0)?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tables: &[(u32, u64)]) -> Written {
        Written {
            rows: tables.iter().map(|(_, rows)| rows).sum(),
            files: tables.iter().map(|(table, _)| (*table, *table)).collect(),
            tables: tables.iter().copied().collect(),
            uncounted: false,
        }
    }

    #[test]
    fn counters_that_began_anew_count_nothing_however_high_they_are_again() {
        let then = written(&[(1, 500), (2, 7)]);
        assert_eq!(written(&[(1, 501), (2, 9)]).since(&then), Some(3));
        assert_eq!(written(&[(1, 3), (2, 0)]).since(&then), None);
        assert_eq!(written(&[(1, 9_000), (2, 0)]).since(&then), None, "the sum alone would say 8,493");
        assert_eq!(written(&[(1, 501), (3, 9)]).since(&then), None, "a table is another one");
        let uncounted = Written { uncounted: true, ..written(&[(1, 500), (2, 7)]) };
        assert_eq!(uncounted.since(&then), None, "who counts nothing has not seen that nothing happened");
        // What was noted before tables were told apart.
        let then = Written { tables: BTreeMap::new(), ..then };
        assert_eq!(written(&[(1, 501), (2, 9)]).since(&then), Some(3));
    }
}
