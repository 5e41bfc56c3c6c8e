//! Whether what was migrated could be restored from a backup: a restore checks constraints, builds indexes, computes columns
//! and runs the queries of materialized views with an empty search path, so a function in them that looks for a table by its
//! bare name finds nothing. One row of each tells.

use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// What to ask, and what is asked by it: whatever calls functions of users, in it or below. What a restore does not look at is
/// left out: constraints that are not valid, indexes that are not, and views that were never filled. A row outside of a partial
/// index is none of its expressions' business. The values of domains are checked as their columns are filled; the checks of one
/// cannot be asked alone, so one with a check that old values need not pass is left out. Whether a computed column calls
/// functions by itself or by its default depends on the server's version.
const EXPRESSIONS: &str = "
WITH RECURSIVE calls AS (
    SELECT classid, objid, objsubid FROM pg_catalog.pg_depend
     WHERE refclassid = 'pg_proc'::regclass AND refobjid >= 16384 GROUP BY 1, 2, 3),
checked AS (
    SELECT c.* FROM pg_catalog.pg_constraint c JOIN calls d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
     WHERE c.contype = 'c' AND c.convalidated),
domains AS (
    SELECT oid AS domain, oid AS base, typbasetype, typtypmod, 0 AS depth FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT d.domain, t.oid, t.typbasetype, t.typtypmod, d.depth + 1
      FROM domains d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype AND t.typtype = 'd'),
checked_domains AS (
    SELECT domain, (SELECT format_type(l.typbasetype, l.typtypmod) FROM domains l WHERE l.domain = d.domain ORDER BY depth DESC LIMIT 1) AS base
      FROM domains d
     GROUP BY domain
    HAVING bool_or(EXISTS (SELECT FROM checked c WHERE c.contypid = d.base))
       AND NOT bool_or(EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.contypid = d.base AND NOT c.convalidated))),
reads AS (
    SELECT c.oid AS view, r.oid AS rule
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
     WHERE c.relkind = 'm' AND c.relispopulated
    UNION
    SELECT reads.view, r.oid
      FROM reads
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = reads.rule AND d.refclassid = 'pg_class'::regclass
      JOIN pg_catalog.pg_class v ON v.oid = d.refobjid AND v.relkind = 'v'
      JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid)
SELECT format('SELECT %s FROM ONLY %s LIMIT 1', pg_get_expr(c.conbin, c.conrelid), c.conrelid::regclass),
       format('the constraint %I of %s', c.conname, c.conrelid::regclass)
  FROM checked c WHERE c.conrelid <> 0
UNION ALL
SELECT format('SELECT %s FROM ONLY %s%s LIMIT 1', e.text, i.indrelid::regclass, ' WHERE ' || e.condition),
       format('the index %s of %s', i.indexrelid::regclass, i.indrelid::regclass)
  FROM pg_catalog.pg_index i JOIN calls d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid,
       LATERAL (VALUES (pg_get_expr(i.indpred, i.indrelid), NULL),
                       ('ROW(' || pg_get_expr(i.indexprs, i.indrelid) || ')', pg_get_expr(i.indpred, i.indrelid))) AS e (text, condition)
 WHERE e.text IS NOT NULL AND i.indisvalid
UNION ALL
SELECT format('SELECT %s FROM ONLY %s LIMIT 1', pg_get_expr(f.adbin, f.adrelid), f.adrelid::regclass),
       format('the column %I of %s', a.attname, f.adrelid::regclass)
  FROM pg_catalog.pg_attrdef f
  JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated = 's'
 WHERE EXISTS (SELECT FROM calls d WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                  OR d.classid = 'pg_class'::regclass AND d.objid = f.adrelid AND d.objsubid = f.adnum)
UNION ALL
SELECT format('SELECT %1$I::%2$s::%3$s FROM ONLY %4$s WHERE %1$I IS NOT NULL LIMIT 1', a.attname, d.base, d.domain::regtype,
              a.attrelid::regclass),
       format('the type %s of the column %I of %s', d.domain::regtype, a.attname, a.attrelid::regclass)
  FROM checked_domains d
  JOIN pg_catalog.pg_attribute a ON a.atttypid = d.domain AND NOT a.attisdropped
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
UNION ALL
SELECT format('SELECT filled FROM (%s) AS filled LIMIT 1', rtrim(pg_get_viewdef(v.view), '; ')),
       format('the materialized view %s', v.view::regclass)
  FROM (SELECT DISTINCT r.view FROM reads r JOIN calls d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.rule) v
LIMIT 5000";

/// How what is said of a view begins.
const VIEW: &str = "the materialized view";

/// Longest that one of them may take: most are asked of one row. A restore waits for them, so one that is slow is none that fails.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest that all may take. What is not asked by then the next restore test asks.
const LONGEST: Duration = Duration::from_secs(120);

/// Asks every expression of one row, as a restore would find it.
pub(crate) async fn look(session: &Session) -> Result<(), Problem> {
    let failed = |fault: Fault| fault.while_doing("look whether the copy could be restored");
    let begun = Instant::now();
    begin(session).await.map_err(failed)?;
    let asked = session.client().query(EXPRESSIONS, &[]).await.map_err(|error| failed(error.into()));
    own(session, "ROLLBACK").await.map_err(failed)?;
    let asked = asked?;
    for (number, row) in asked.iter().enumerate() {
        if begun.elapsed() > LONGEST {
            let left = asked.len().saturating_sub(number);
            tracing::warn!(left, "whether the copy could be restored was not looked at to the end");
            break;
        }
        let text = |index| row.try_get::<_, String>(index).map_err(|error| failed(error.into()));
        let (expression, what) = (text(0)?, text(1)?);
        begin(session).await.map_err(failed)?;
        let answered = own(session, &expression).await;
        if let Err(Fault::Lost(why)) = answered {
            return Err(failed(Fault::Lost(why)));
        }
        own(session, "ROLLBACK").await.map_err(failed)?;
        if let Err(fault) = answered
            && shows(&what, &fault)
        {
            return Err(unrestorable(&what, &fault));
        }
    }
    Ok(())
}

/// Whether a failure says what a restore would meet. A materialized view may do what this look may not: write, read what is not
/// filled, ask a foreign server as its owner. Of it only what an empty search path does not find is told.
fn shows(what: &str, fault: &Fault) -> bool {
    let not_found = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    match what.starts_with(VIEW) {
        true => not_found.iter().any(|state| fault.is(state)),
        false => !fault.is(&SqlState::QUERY_CANCELED) && !fault.is(&SqlState::READ_ONLY_SQL_TRANSACTION),
    }
}

async fn begin(session: &Session) -> Result<(), Fault> {
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL search_path = pg_catalog",
        LIMIT.as_millis()
    );
    own(session, &begin).await
}

fn unrestorable(what: &str, fault: &Fault) -> Problem {
    let message = format!("a backup of the migrated database could not be restored: {what} fails there");
    Problem::new(Code::MigrationDangerous, message)
        .cause(fault.words())
        .cause("this was the rehearsal on a copy; the live database was not touched")
        .hint("add `SET search_path = pg_catalog, public` to the functions that it calls")
}
