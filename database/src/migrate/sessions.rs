//! The sessions of a run: the guard, one that works, and one that watches it and keeps the records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_core::{Code, Epoch, Problem};

use super::fault::Fault;
use super::{fence, pooler, records};
use crate::guard::Guard;
use crate::{Session, Settings};

/// Settings that roles, databases and files may have changed, as a run needs them. Those that a server does not know are
/// left out. The server ends a statement whose client is gone within a second. Rows that a policy hides even from the owner are
/// not passed over in silence: a statement that would fails.
const PREPARE: &str = "
SELECT set_config(s.name, w.value, false)
  FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '60s'),
               ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('default_transaction_read_only', 'off'),
               ('default_transaction_isolation', 'read committed'), ('row_security', 'off'), ('standard_conforming_strings', 'on'),
               ('client_min_messages', 'warning'), ('session_replication_role', 'origin'),
               ('client_connection_check_interval', '1s'), ('synchronous_commit', 'on')) AS w (name, value)
  JOIN pg_catalog.pg_settings s USING (name)
 WHERE s.setting IS DISTINCT FROM w.value AND (s.context = 'user' OR w.name = 'session_replication_role' AND $1)";

const SERVER: &str = "
SELECT pg_is_in_recovery(), r.rolsuper, current_user::text,
       CASE WHEN d.datdba <> r.oid AND pg_has_role(r.oid, d.datdba, 'MEMBER') AND NOT r.rolsuper
            THEN quote_ident(pg_get_userbyid(d.datdba)) END
  FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()";

/// The search path that a session in the live database begins with: of the owner, else of the agent's role, else as the
/// database has it. A copy has another name, and what is set for a role in one database would not hold there; `SET ROLE` brings
/// none of the owner's settings. Without any, nothing changes.
const PATH: &str = "
SELECT set_config('search_path', own.path, false)
  FROM (SELECT substr(c.setting, length('search_path=') + 1) AS path
          FROM pg_catalog.pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS c (setting)
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
         WHERE c.setting LIKE 'search_path=%' AND (s.setrole = 0 OR r.rolname IN (current_user, session_user))
           AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1))
         ORDER BY coalesce(r.rolname = current_user, false) DESC, s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1) own";

/// What else a session of the agent's role begins with in the live database, on a copy of it: that is set for it there by name.
const OF_LIVE: &str = "
SELECT set_config(own.name, substr(own.setting, length(own.name) + 2), false)
  FROM (SELECT split_part(c.setting, '=', 1) AS name, c.setting
          FROM pg_catalog.pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS c (setting)
          JOIN pg_catalog.pg_roles r ON r.oid = s.setrole AND r.rolname = session_user
          JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = $1 AND d.datname <> current_database()) own
  LEFT JOIN pg_catalog.pg_settings k ON lower(k.name) = lower(own.name)
 WHERE own.name NOT IN ('role', 'search_path') AND CASE WHEN k.name IS NULL THEN own.name LIKE '%.%' ELSE k.context = 'user' END";

const LEAVE: &str = "
SELECT set_config('search_path', coalesce((
           SELECT string_agg(quote_ident(s), ', ' ORDER BY n) FROM unnest(current_schemas(false)) WITH ORDINALITY AS u (s, n)
            WHERE s <> 'pointsman'), ''), false)
 WHERE 'pointsman' = ANY (current_schemas(false))";

/// The same, whatever is on it.
const FLATTEN: &str = "
SELECT set_config('search_path', coalesce((
           SELECT string_agg(quote_ident(s), ', ' ORDER BY n) FROM unnest(current_schemas(false)) WITH ORDINALITY AS u (s, n)
            WHERE s <> 'pointsman'), ''), false)";

/// Sessions that an agent before this one left working.
const LEFT: &str = "
SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname = current_database() AND application_name IN ('pointsman-migrate', 'pointsman-watch')
   AND pid <> ALL ($1::int[]) AND usename = current_user";

/// How long a dump or a restore that runs is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(30);
/// How long the end of such a session is waited for. A commit that waits for a replica ends when it is terminated.
const LEFT_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks at it.
const LEFT_PAUSE: Duration = Duration::from_millis(20);

/// The three sessions, fit for work.
pub(crate) struct Sessions {
    guard: Guard,
    /// Runs what the files say.
    pub(crate) work: Session,
    /// Watches the other, and writes what has to be known if that one dies.
    pub(crate) second: Arc<Session>,
    /// The database's owner as SQL, where that is a role of its own: what files make is to belong to it, not to the agent.
    owner: Option<String>,
    /// The database that serves, whether it or a copy is worked on.
    live: String,
}

impl Sessions {
    /// Opens them on a primary, without a pooler between, under the guard and this epoch; ends what an earlier agent left.
    pub(crate) async fn open(settings: &Settings, database: &str, epoch: Epoch) -> Result<Self, Problem> {
        // Keyed by the name of the database that is worked on, which need not be the live one.
        let of_it = Settings { name: database.to_owned(), ..settings.clone() };
        let guard = Guard::take(&of_it, GUARD_WAIT).await?;
        let work = Session::open(settings, database, "migrate").await?;
        let second = Session::open(settings, database, "watch").await?;
        let owner = fit_server(settings, &work).await?;
        pooler::refuse(settings, &work, &second).await?;
        prepare(&second, None).await?;
        end_what_was_left(&second, &[work.pid(), second.pid()]).await?;
        let sessions = Self { guard, work, second: Arc::new(second), owner, live: settings.name.clone() };
        // The table of versions is named as the agent's own sessions would name it.
        sessions.become_owner().await?;
        records::ensure(&sessions.work, fence::as_number(epoch)?).await?;
        fence::raise(&sessions.second, epoch).await?;
        Ok(sessions)
    }

    /// Sets the working session to what a transaction of a file needs, whatever one before it has set.
    pub(crate) async fn prepare_work(&self) -> Result<(), Problem> {
        self.become_owner().await?;
        let set = self.work.client().query(PATH, &[&self.live]).await;
        set.map_err(|error| Fault::from(error).while_doing("set the search path"))?;
        leave_our_schema(&self.work).await
    }

    async fn become_owner(&self) -> Result<(), Problem> {
        prepare(&self.work, Some(&self.live)).await?;
        if let Some(owner) = &self.owner {
            let failed = |error| Fault::from(error).while_doing("become the database's owner");
            self.work.client().batch_execute(&format!("SET ROLE {owner}")).await.map_err(failed)?;
        }
        leave_our_schema(&self.work).await
    }

    /// Refuses to go on without the guard.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.guard.check()
    }
}

async fn prepare(session: &Session, as_in: Option<&str>) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("prepare a session");
    session.client().batch_execute("DISCARD ALL").await.map_err(failed)?;
    if let Some(live) = as_in {
        session.client().query(OF_LIVE, &[&live]).await.map_err(failed)?;
    }
    session.client().query(PREPARE, &[&false]).await.map_err(failed)?;
    Ok(())
}

/// Takes the schema of our records off the search path. A role of the same name has it there, by `"$user"`: what a file
/// makes without naming a schema would be put among the records.
pub(crate) async fn leave_our_schema(session: &Session) -> Result<(), Problem> {
    let left = session.client().query(LEAVE, &[]).await;
    left.map_err(|error| Fault::from(error).while_doing("set the search path"))?;
    Ok(())
}

/// Looks for names that have no schema where files of migrations look for them, in the live database or in a copy of it.
pub(crate) async fn look_as_files_do(session: &Session, settings: &Settings) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("set the search path");
    let client = session.client();
    let owner = fit_server(settings, session).await?;
    client.batch_execute("RESET search_path").await.map_err(failed)?;
    if let Some(owner) = &owner {
        client.batch_execute(&format!("SET ROLE {owner}")).await.map_err(failed)?;
    }
    client.query(PATH, &[&settings.name]).await.map_err(failed)?;
    // What the owner's own name means is to be the same when this is not the owner any more.
    client.query(FLATTEN, &[]).await.map_err(failed)?;
    client.batch_execute("RESET ROLE").await.map_err(failed)
}

/// Refuses a server or role that migrations cannot work with; returns the owner to become.
async fn fit_server(settings: &Settings, session: &Session) -> Result<Option<String>, Problem> {
    let failed = |error| Fault::from(error).while_doing("look at the server");
    let row = session.client().query_one(SERVER, &[]).await.map_err(failed)?;
    if row.try_get(0).map_err(failed)? {
        return Err(Problem::new(
            Code::DatabaseUnfit,
            "the server is in recovery; migrations need the primary",
        )
        .hint("set `host` in the agent's [database] section to the primary"));
    }
    let superuser: bool = row.try_get(1).map_err(failed)?;
    if superuser && !settings.allow_superuser {
        let role: String = row.try_get(2).map_err(failed)?;
        return Err(Problem::new(Code::DatabaseUnfit, format!("the role `{role}` is a superuser")).hint(
            "use a role of its own, or set `allow_superuser = true` in the agent's [database] section",
        ));
    }
    row.try_get(3).map_err(failed)
}

/// Ends sessions of an agent that died or lost its connection, and waits until their transactions are over: only then do
/// records and catalog tell what they did.
async fn end_what_was_left(second: &Session, ours: &[i32]) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("end the sessions of an earlier try");
    let began = Instant::now();
    while !second.client().query(LEFT, &[&ours]).await.map_err(failed)?.is_empty() {
        if began.elapsed() >= LEFT_WAIT {
            return Err(Problem::new(Code::DatabaseBusy, "a session of an earlier try does not end")
                .retry_useful()
                .hint("on the database: `SELECT * FROM pg_stat_activity WHERE application_name LIKE 'pointsman-%'`"));
        }
        tokio::time::sleep(LEFT_PAUSE).await;
    }
    Ok(())
}
