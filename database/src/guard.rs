//! Dump, migration and restore of one database exclude each other: an advisory lock in the maintenance database, keyed
//! by the name, because a session inside the database itself would keep it from being renamed.

use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};

use crate::statement::{field, quoted, refused};
use crate::{Session, Settings};

/// How often a lock that somebody else holds is asked for. A session that waited in the server's queue would keep
/// `CREATE INDEX CONCURRENTLY` waiting; this one is idle outside of any transaction.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The right to work on the database; given back when this is dropped.
pub struct Guard {
    session: Session,
}

impl Guard {
    /// Takes it, waiting at most this long for whoever has it.
    pub async fn take(settings: &Settings, within: Duration) -> Result<Self, Problem> {
        let session = Session::open(settings, &settings.maintenance, "guard").await?;
        must_be_fit(&session, settings).await?;
        let give_up = Instant::now() + within;
        loop {
            let row = session
                .client()
                .query_one(
                    "SELECT pg_try_advisory_lock(hashtextextended('pointsman:' || $1, 0))",
                    &[&settings.name],
                )
                .await
                .map_err(|error| refused("ask for the guard", &error))?;
            if field(&row, 0)? {
                return Ok(Self { session });
            }
            if Instant::now() >= give_up {
                return Err(busy(&session, settings).await);
            }
            tokio::time::sleep(ASK_EVERY.min(within)).await;
        }
    }

    /// Refuses to go on without it: somebody may have ended its session, and somebody else have it now.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if !self.session.client().is_closed() {
            return Ok(());
        }
        let problem =
            Problem::new(Code::DatabaseUnreachable, "the guard of the database was lost: its session ended");
        Err(problem
            .retry_useful()
            .hint("somebody ended the session `pointsman-guard`, or the server was restarted"))
    }

    /// The session that holds it, in the maintenance database, for statements outside of transactions.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

/// A superuser that the role is a member of, if there is one: with `SET ROLE` it is one itself.
pub(crate) const SUPERUSER_TO_BECOME: &str = "
    SELECT s.rolname::text FROM pg_catalog.pg_roles s
     WHERE s.rolsuper AND s.rolname <> current_user AND pg_has_role(s.oid, 'MEMBER') LIMIT 1";

/// A role that is a superuser in all but name.
pub(crate) fn may_become(settings: &Settings, superuser: &str) -> Problem {
    let user = &settings.user;
    let message = format!(
        "`{user}` is a member of the superuser `{superuser}`, and could become it; the agent needs less"
    );
    Problem::new(Code::DatabaseUnfit, message).hint(format!(
        "give the database to a role of the application (`ALTER DATABASE … OWNER TO …`, and the same for what is in it), then as a superuser: \
         `REVOKE {} FROM {};` and `database-role.sql` with the new owner",
        quoted(superuser),
        quoted(user)
    ))
}

/// Whatever is done with the database is done on a primary, and by a role that could not do more than it must: a dump
/// brings code, and indexes run it.
async fn must_be_fit(session: &Session, settings: &Settings) -> Result<(), Problem> {
    let sql = format!(
        "SELECT r.rolsuper, pg_is_in_recovery(), ({SUPERUSER_TO_BECOME}) FROM pg_roles r WHERE r.rolname = current_user"
    );
    let asked = session.client().query_one(&sql, &[]).await;
    let row = asked.map_err(|error| refused("ask who the agent is to the server", &error))?;
    if field(&row, 1)? {
        let message = "the server is in recovery: the agent works on the primary";
        return Err(Problem::new(Code::DatabaseUnfit, message)
            .hint("set `host` in the agent's [database] section to the primary"));
    }
    if field(&row, 0)? && !settings.allow_superuser {
        let message = format!("`{}` is a superuser; the agent needs less", settings.user);
        return Err(Problem::new(Code::DatabaseUnfit, message).hint(
            "the script `database-role.sql` makes a role with less power; else `allow_superuser = true` in the agent's \
             [database] section",
        ));
    }
    match field::<Option<String>>(&row, 2)? {
        Some(superuser) if !settings.allow_superuser => Err(may_become(settings, &superuser)),
        _ => Ok(()),
    }
}

async fn busy(session: &Session, settings: &Settings) -> Problem {
    let problem = Problem::new(
        Code::DatabaseBusy,
        format!("`{}` is held by another dump, migration or restore", settings.name),
    )
    .retry_useful()
    .hint("`pointsman db status ENV` shows what runs; wait for it, or abort its release");
    let holder = session
        .client()
        .query_opt(
            "SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'this host')
               FROM pg_locks l JOIN pg_stat_activity a USING (pid)
              WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('pointsman:' || $1, 0)
              LIMIT 1",
            &[&settings.name],
        )
        .await;
    let Ok(Some(row)) = holder else { return problem };
    match (row.try_get::<_, i32>(0), row.try_get::<_, String>(1), row.try_get::<_, String>(2)) {
        (Ok(pid), Ok(name), Ok(from)) => problem.cause(format!("session {pid} (`{name}`, from {from})")),
        _ => problem,
    }
}
