//! Whether what was migrated could be restored from a backup: a restore checks constraints and builds indexes with an empty
//! search path, so a function in them that looks for a table by its bare name finds nothing. One row of each tells.

use std::time::Duration;

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Constraints, indexes and generated columns that call functions of users.
const EXPRESSIONS: &str = "
WITH calls AS (
    SELECT classid, objid, objsubid FROM pg_catalog.pg_depend
     WHERE refclassid = 'pg_proc'::regclass AND refobjid >= 16384 GROUP BY 1, 2, 3)
SELECT c.conrelid::regclass::text, pg_get_expr(c.conbin, c.conrelid), 'the constraint ' || quote_ident(c.conname)
  FROM pg_catalog.pg_constraint c JOIN calls d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
 WHERE c.contype = 'c' AND c.conrelid <> 0
UNION ALL
SELECT i.indrelid::regclass::text, e.text, 'the index ' || i.indexrelid::regclass::text
  FROM pg_catalog.pg_index i JOIN calls d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid,
       LATERAL (VALUES (pg_get_expr(i.indpred, i.indrelid)),
                       ('ROW(' || pg_get_expr(i.indexprs, i.indrelid) || ')')) AS e (text)
 WHERE e.text IS NOT NULL
LIMIT 5000";

/// Longest that one of them may take: it is asked of one row.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks every expression of one row, as a restore would find it.
pub(crate) async fn look(session: &Session) -> Result<(), Problem> {
    let failed = |fault: Fault| fault.while_doing("look whether the copy could be restored");
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL search_path = pg_catalog",
        LIMIT.as_millis()
    );
    own(session, &begin).await.map_err(failed)?;
    let looked = expressions(session).await;
    own(session, "ROLLBACK").await.map_err(failed)?;
    looked
}

async fn expressions(session: &Session) -> Result<(), Problem> {
    let failed = |error| Fault::from(error).while_doing("look whether the copy could be restored");
    for row in session.client().query(EXPRESSIONS, &[]).await.map_err(failed)? {
        let (table, expression, what): (String, String, String) = (
            row.try_get(0).map_err(failed)?,
            row.try_get(1).map_err(failed)?,
            row.try_get(2).map_err(failed)?,
        );
        let asked = own(session, &format!("SELECT {expression} FROM ONLY {table} LIMIT 1")).await;
        if let Err(fault) = asked {
            let message = format!(
                "a backup of the migrated database could not be restored: {what} of {table} fails there"
            );
            return Err(Problem::new(Code::MigrationDangerous, message)
                .cause(fault.words())
                .cause("this was the rehearsal on a copy; the live database was not touched")
                .hint("add `SET search_path = pg_catalog, public` to the functions that it calls"));
        }
    }
    Ok(())
}
