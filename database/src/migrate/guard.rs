//! One at a time: dump, migration and restore of a database exclude each other, whoever starts them.
//!
//! An advisory lock in the maintenance database, held by a session that is idle outside of any transaction. It is keyed by
//! the database's name, because advisory locks are per database and a session inside of the target would block its rename.
//! Nothing of it is in a table: a lock in a row comes back with a restored copy.

use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use crate::{Session, Settings};

/// How long the guard is asked for: a backup that ends soon is waited for, a long one is named.
const GUARD_WAIT: Duration = Duration::from_secs(30);
/// Pause between two tries.
const GUARD_PAUSE: Duration = Duration::from_millis(500);

const TAKE: &str = "SELECT pg_try_advisory_lock(hashtextextended('pointsman:' || $1, 0))";

const HOLDER: &str = "
SELECT a.pid, a.application_name, extract(epoch FROM now() - a.backend_start)::float8
  FROM pg_locks l JOIN pg_stat_activity a USING (pid), hashtextextended('pointsman:' || $1, 0) AS key
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.classid = ((key >> 32) & 4294967295)::oid AND l.objid = (key & 4294967295)::oid LIMIT 1";

/// The lock, held until this is dropped.
pub(crate) struct Guard(Session);

impl Guard {
    /// Takes it, waiting a little for whoever has it.
    pub(crate) async fn take(settings: &Settings, database: &str) -> Result<Self, Problem> {
        let session = Session::open(settings, &settings.maintenance, "guard").await?;
        let failed = |error| Fault::from(error).while_doing("take the guard");
        let quiet = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        session.client().batch_execute(quiet).await.map_err(failed)?;
        let began = Instant::now();
        loop {
            let row = session.client().query_one(TAKE, &[&database]).await.map_err(failed)?;
            if row.try_get(0).map_err(failed)? {
                return Ok(Self(session));
            }
            if began.elapsed() >= GUARD_WAIT {
                return Err(held_by_another(&session, database).await);
            }
            tokio::time::sleep(GUARD_PAUSE).await;
        }
    }

    /// Refuses to go on when the session, and with it the lock, is gone.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.0.client().is_closed() {
            Err(super::fault::lost("hold the database's guard"))
        } else {
            Ok(())
        }
    }
}

async fn held_by_another(session: &Session, database: &str) -> Problem {
    let problem = Problem::new(
        Code::DatabaseBusy,
        format!("another one of pointsman works on the database `{database}`"),
    )
    .retry_useful()
    .hint("what it does: `pointsman db status ENV`");
    let Ok(Some(row)) = session.client().query_opt(HOLDER, &[&database]).await else { return problem };
    let (pid, application, age): (Option<i32>, Option<String>, Option<f64>) =
        (row.try_get(0).ok(), row.try_get(1).ok(), row.try_get(2).ok());
    problem.cause(format!(
        "its guard is held by pid {} ({}) since {:.0} s",
        pid.unwrap_or_default(),
        application.unwrap_or_default(),
        age.unwrap_or_default()
    ))
}
