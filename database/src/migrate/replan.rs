//! Whether the statements of the slot that serves still work on the new schema: they are planned again on the copy, and
//! what is no longer planned there is planned on the schema of today too, to tell what broke from what never could be told.
//!
//! The server counts calls since long ago, of versions that are gone too. An expand takes nothing from any of them; a contract
//! and a way down do by design, so of those only what is called while the rehearsal goes on counts as the serving slot's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem, several};
use pointsman_migration::Phase;

use super::fault::Fault;
use super::order::Replanned;
use super::sessions::leave_our_schema;
use super::transaction::own;
use crate::shape::elements;
use crate::statement::literal;
use crate::{Progress, Session, Settings};

/// The statements most called, of this database, that read or write rows. Our own and those of psql's `\d` are not a slot's.
const MOST_CALLED: &str = "
SELECT s.query, s.userid, sum(s.calls)::bigint FROM {schema}.pg_stat_statements s
 WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND s.query ~* '^\\s*(/\\*.*?\\*/\\s*)*(select|insert|update|delete|with|merge|values|table)\\y'
   AND s.query !~* '\\ypointsman\\.' AND s.query !~* 'pg_catalog\\.|pg_stat_|pg_locks|pg_backend_pid'
 GROUP BY s.query, s.userid ORDER BY sum(s.calls) DESC LIMIT $1";

/// Statements looked at: what is called less than these is not what breaks a site at once.
const MAX_STATEMENTS: i64 = 500;
/// Longest statement kept in a message.
const SHOWN_CHARS: usize = 200;
/// Longest that planning may take.
const PLAN_LIMIT: Duration = Duration::from_secs(5);
/// Longest it may wait for a lock on the live database, in milliseconds; it asks for the weakest.
const PLAN_LOCK_MS: u32 = 100;
/// How often a lock that was missed there is asked for again, and the pause between.
const LIVE_TRIES: u32 = 10;
const LIVE_PAUSE: Duration = Duration::from_millis(200);
/// How long it is heard at least which queries the serving slot calls.
const HEARD: Duration = Duration::from_secs(10);

/// What a session of each role begins with as its `search_path`, and the role's name: set for it in this database or for it in
/// all, for this database, or for everybody.
const ROLES: &str = "
SELECT r.oid, r.rolname::text, coalesce((
       SELECT substr(c.setting, length('search_path=') + 1)
         FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) AS c (setting)
        WHERE c.setting LIKE 'search_path=%' AND s.setrole IN (0, r.oid)
          AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
        ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1), p.reset_val)
  FROM pg_catalog.pg_roles r, pg_catalog.pg_settings p WHERE p.name = 'search_path'";

/// Calls of each statement as a rehearsal begins.
pub(crate) struct Window {
    live: Session,
    began: Instant,
    /// Why nothing can be looked at, or what was called how often.
    called: Result<BTreeMap<(String, u32), i64>, String>,
    schema: String,
}

impl Window {
    /// Notes what was called until now.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Problem> {
        let live = Session::open(settings, &settings.name, "look").await?;
        leave_our_schema(&live).await?;
        let (schema, called) = match extension(&live).await? {
            Some(schema) => {
                let called = called(&live, &schema).await.map(|all| all.into_iter().collect());
                // It needs to be preloaded, and the role needs `pg_read_all_stats`.
                let unread = |fault: Fault| {
                    format!("`pg_stat_statements` cannot be read, so no query was planned again: {}", fault.words())
                };
                (schema, called.map_err(unread))
            }
            None => (
                String::new(),
                Err("the extension `pg_stat_statements` is not there: which queries the slot that serves needs is not known"
                    .to_owned()),
            ),
        };
        Ok(Self { live, began: Instant::now(), called, schema })
    }

    /// What was called since, after a while of at least `least`.
    async fn since(&self, least: Duration, progress: &Progress) -> Result<BTreeSet<(String, u32)>, Problem> {
        let (Ok(before), left) = (&self.called, least.saturating_sub(self.began.elapsed())) else {
            return Ok(BTreeSet::new());
        };
        if !before.is_empty() && !left.is_zero() {
            progress.say(format!("hearing for {} s which queries are called", left.as_secs().max(1)));
            tokio::time::sleep(left).await;
        }
        let now = called(&self.live, &self.schema)
            .await
            .map_err(|fault| fault.while_doing("read which queries are called"))?;
        let grew =
            now.into_iter().filter(|(statement, calls)| before.get(statement).is_none_or(|had| calls != had));
        Ok(grew.map(|(statement, _)| statement).collect())
    }
}

/// Plans the running slot's statements again. The notes say what could not be looked at, or is not judged.
pub(crate) async fn look(
    copy: &Session,
    window: &Window,
    phase: Phase,
    progress: &Progress,
) -> Result<(Vec<Replanned>, Vec<String>), Problem> {
    let statements = match &window.called {
        Ok(statements) => statements,
        Err(note) => return Ok((Vec::new(), vec![note.clone()])),
    };
    let live = &window.live;
    let roles = roles(live).await.map_err(|fault| fault.while_doing("read search paths"))?;
    let in_use = match phase {
        Phase::Expand => None,
        _ => Some(window.since(HEARD, progress).await?),
    };
    let (mut found, mut unused): (Vec<Replanned>, u64) = (Vec::new(), 0);
    let mut told: BTreeMap<u32, Told> = BTreeMap::new();
    for (query, role) in statements.keys() {
        let path = roles.get(role).map(|role| role.path.as_str());
        let of_role = told.entry(*role).or_default();
        let Err(new) = plan(copy, query, path).await? else {
            of_role.some = true;
            found.push(Replanned::Works);
            continue;
        };
        let (shown, why) = (shown(query), new.words());
        if plan_live(live, query, path).await?.is_err() {
            of_role.undecided = of_role.undecided.saturating_add(1);
            of_role.first.get_or_insert_with(|| format!("`{shown}`: {why}"));
            found.push(Replanned::Undecided { query: shown, why });
            continue;
        }
        of_role.some = true;
        if in_use.as_ref().is_none_or(|called| called.contains(&(query.clone(), *role))) {
            found.push(Replanned::Broken { query: shown, why });
        } else {
            unused = unused.saturating_add(1);
        }
    }
    let blind = told.into_iter().filter_map(|(role, told)| told.note(roles.get(&role)?));
    let note = || {
        format!(
            "{} that nobody called for {} s no longer works: left to the versions that are gone",
            several(unused, "query", "queries"),
            window.began.elapsed().as_secs()
        )
    };
    let notes = blind.chain((unused > 0).then(note)).collect();
    Ok((found, notes))
}

/// A role that calls queries.
struct Role {
    name: String,
    /// What its sessions begin with, as it may be set.
    path: String,
}

/// What could be told of a role's queries.
#[derive(Default)]
struct Told {
    /// Whether anything could.
    some: bool,
    /// Queries that can be planned neither before nor after, and the first of them.
    undecided: u64,
    first: Option<String>,
}

impl Told {
    /// Where nothing can be planned as a role something is wrong with how, and not with the queries.
    fn note(self, role: &Role) -> Option<String> {
        let first = self.first.filter(|_| !self.some)?;
        Some(format!(
            "attention: of the {} that `{}` calls none could be planned, neither before nor after: whether a version that calls \
             as it does survives this is not known; {first}",
            several(self.undecided, "query", "queries"),
            role.name
        ))
    }
}

/// Planned on the live database, where a moment's lock says nothing.
async fn plan_live(live: &Session, query: &str, path: Option<&str>) -> Result<Result<(), Fault>, Problem> {
    let mut planned = plan(live, query, path).await?;
    for _ in 0..LIVE_TRIES {
        if !planned.as_ref().is_err_and(Fault::is_lock_missed) {
            break;
        }
        tokio::time::sleep(LIVE_PAUSE).await;
        planned = plan(live, query, path).await?;
    }
    Ok(planned)
}

/// Refuses when something broke.
pub(crate) fn judge(found: &[Replanned], phase: Phase) -> Result<(), Problem> {
    let broken: Vec<String> = found
        .iter()
        .filter_map(|replanned| match replanned {
            Replanned::Broken { query, why } => Some(format!("`{query}`: {why}")),
            Replanned::Works | Replanned::Undecided { .. } => None,
        })
        .collect();
    let Some(first) = broken.first() else { return Ok(()) };
    let message = format!(
        "{} of {} queries of the slot that serves no longer work: {first}",
        broken.len(),
        found.len()
    );
    let hint = match phase {
        Phase::Expand => "move what takes it from them into a contract file: `-- pointsman: phase=contract`",
        _ => {
            "the version that serves still uses it: release one that does not, `pointsman deploy ENV`, then again"
        }
    };
    let problem = Problem::new(Code::QueriesBroken, message).hint(hint);
    Err(broken.iter().skip(1).fold(problem, Problem::cause))
}

async fn extension(live: &Session) -> Result<Option<String>, Problem> {
    let sql = "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                WHERE e.extname = 'pg_stat_statements'";
    let row = live.client().query_opt(sql, &[]).await;
    let read = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
    read.map_err(|error| Fault::from(error).while_doing("look for extensions"))
}

async fn called(live: &Session, schema: &str) -> Result<Vec<((String, u32), i64)>, Fault> {
    let rows = live.client().query(&MOST_CALLED.replace("{schema}", schema), &[&MAX_STATEMENTS]).await?;
    Ok(rows
        .iter()
        .map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?)
}

async fn roles(live: &Session) -> Result<BTreeMap<u32, Role>, Fault> {
    let rows = live.client().query(ROLES, &[]).await?;
    let role = |row: &tokio_postgres::Row| {
        let (name, path): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, Role { path: path_of(&name, &path), name }))
    };
    Ok(rows.iter().map(role).collect::<Result<_, tokio_postgres::Error>>()?)
}

/// A path with the role's schema in it by name: planned by the agent, `"$user"` would be the agent.
fn path_of(role: &str, path: &str) -> String {
    let names = elements(path).into_iter().map(|name| match name.as_str() {
        "$user" => literal(role),
        name => literal(name),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Plans one statement in a transaction that may not write and is rolled back; the inner error is what the server said.
async fn plan(session: &Session, query: &str, path: Option<&str>) -> Result<Result<(), Fault>, Problem> {
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {PLAN_LOCK_MS}; {}",
        PLAN_LIMIT.as_millis(),
        path.map(|path| format!("SET LOCAL search_path = {path}")).unwrap_or_default()
    );
    own(session, &begin).await.map_err(|fault| fault.while_doing("begin to plan queries"))?;
    let planned = explained(session, query).await;
    if let Err(Fault::Lost(why)) = planned {
        return Err(super::fault::lost("plan queries").cause(why));
    }
    own(session, "ROLLBACK; DEALLOCATE ALL")
        .await
        .map_err(|fault| fault.while_doing("end the planning of queries"))?;
    Ok(planned)
}

/// Prepared, a statement is only understood; a plan is made when it is to be executed: then an index that `ON CONFLICT` names
/// is missed. Nothing is executed.
async fn explained(session: &Session, query: &str) -> Result<(), Fault> {
    own(session, &format!("PREPARE pointsman_query AS {query}")).await?;
    let sql = "SELECT cardinality(parameter_types) FROM pg_catalog.pg_prepared_statements WHERE name = 'pointsman_query'";
    let count: i32 = session.client().query_one(sql, &[]).await?.try_get(0)?;
    let nulls = vec!["NULL"; usize::try_from(count).unwrap_or_default()].join(", ");
    let arguments = if count > 0 { format!("({nulls})") } else { String::new() };
    own(session, &format!("EXPLAIN EXECUTE pointsman_query{arguments}")).await
}

fn shown(query: &str) -> String {
    let words = query.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_own_schema_is_the_roles_and_not_the_agents() {
        assert_eq!(path_of("app", "\"$user\", public"), "'app', 'public'");
        assert_eq!(path_of("it's", "gis,\"$user\""), "'gis', 'it''s'");
        assert_eq!(path_of("app", "\"\""), "''");
    }
}
