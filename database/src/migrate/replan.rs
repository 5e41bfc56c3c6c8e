//! Whether the statements of the slot that serves still work on the new schema: they are planned again on the copy, and
//! what is no longer planned there is planned on the schema of today too, to tell what broke from what never could be told.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use super::order::Replanned;
use super::sessions::leave_our_schema;
use super::transaction::own;
use crate::{Session, Settings};

/// The statements most called, of this database, that read or write rows. Our own and those of psql's `\d` are not a slot's.
const MOST_CALLED: &str = "
SELECT s.query, s.userid FROM {schema}.pg_stat_statements s
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

/// A role's own `search_path`, for this database or for all.
const PATHS: &str = "
SELECT s.setrole, substr(c.setting, length('search_path=') + 1) FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) AS c (setting)
 WHERE c.setting LIKE 'search_path=%'
   AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
 ORDER BY s.setdatabase, s.setrole";

/// Plans the running slot's statements again. The note says why nothing could be looked at.
pub(crate) async fn look(
    settings: &Settings,
    scratch: &str,
) -> Result<(Vec<Replanned>, Option<String>), Problem> {
    let live = Session::open(settings, &settings.name, "look").await?;
    let Some(schema) = extension(&live).await? else {
        let note = "the extension `pg_stat_statements` is not there: which queries the slot that serves needs is not known";
        return Ok((Vec::new(), Some(note.to_owned())));
    };
    let statements = match called(&live, &schema).await {
        Ok(statements) => statements,
        // It needs to be preloaded, and the role needs `pg_read_all_stats`.
        Err(fault) => {
            let note = format!(
                "`pg_stat_statements` cannot be read, so no query was planned again: {}",
                fault.words()
            );
            return Ok((Vec::new(), Some(note)));
        }
    };
    let copy = Session::open(settings, scratch, "look").await?;
    leave_our_schema(&live).await?;
    leave_our_schema(&copy).await?;
    let paths = paths(&live).await.map_err(|fault| fault.while_doing("read search paths"))?;
    let mut found = Vec::new();
    for (query, role) in statements {
        let path = paths.get(&role).or_else(|| paths.get(&0)).map(String::as_str);
        let Err(new) = plan(&copy, &query, path).await? else {
            found.push(Replanned::Works);
            continue;
        };
        let shown = shown(&query);
        found.push(match plan(&live, &query, path).await? {
            Ok(()) => Replanned::Broken { query: shown, why: new },
            Err(_) => Replanned::Undecided { query: shown, why: new },
        });
    }
    Ok((found, None))
}

/// Refuses when something broke.
pub(crate) fn judge(found: &[Replanned]) -> Result<(), Problem> {
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
    let problem = Problem::new(Code::QueriesBroken, message)
        .hint("move what they need into a contract file: `-- pointsman: phase=contract`");
    Err(broken.iter().skip(1).fold(problem, Problem::cause))
}

async fn extension(live: &Session) -> Result<Option<String>, Problem> {
    let sql = "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                WHERE e.extname = 'pg_stat_statements'";
    let row = live.client().query_opt(sql, &[]).await;
    let read = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
    read.map_err(|error| Fault::from(error).while_doing("look for extensions"))
}

async fn called(live: &Session, schema: &str) -> Result<Vec<(String, u32)>, Fault> {
    let rows = live.client().query(&MOST_CALLED.replace("{schema}", schema), &[&MAX_STATEMENTS]).await?;
    Ok(rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?)
}

async fn paths(live: &Session) -> Result<BTreeMap<u32, String>, Fault> {
    let rows = live.client().query(PATHS, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?)
}

/// Plans one statement in a transaction that may not write and is rolled back; the inner error is what the server said.
async fn plan(session: &Session, query: &str, path: Option<&str>) -> Result<Result<(), String>, Problem> {
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {PLAN_LOCK_MS}; {}",
        PLAN_LIMIT.as_millis(),
        path.map(|path| format!("SET LOCAL search_path = {path}")).unwrap_or_default()
    );
    own(session, &begin).await.map_err(|fault| fault.while_doing("begin to plan queries"))?;
    let planned = own(session, &format!("PREPARE pointsman_query AS {query}")).await;
    let told = match planned {
        Ok(()) => {
            own(session, "DEALLOCATE pointsman_query")
                .await
                .map_err(|fault| fault.while_doing("plan queries"))?;
            Ok(())
        }
        Err(Fault::Lost(why)) => return Err(super::fault::lost("plan queries").cause(why)),
        Err(fault) => Err(fault.words()),
    };
    own(session, "ROLLBACK").await.map_err(|fault| fault.while_doing("end the planning of queries"))?;
    Ok(told)
}

fn shown(query: &str) -> String {
    let words = query.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(SHOWN_CHARS).collect()
}
