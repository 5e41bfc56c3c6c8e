//! Checks that an expand adds `NOT VALID`: they bind whatever is written from then on. Rows that break one are rows
//! that the version that serves writes, or has written and may change again; on the copy that is seen by validating it, in a
//! transaction that is taken back. Foreign keys are left out: a row that is an orphan already may be changed all the same.

use std::collections::BTreeSet;

use pointsman_core::Problem;
use tokio_postgres::error::SqlState;

use super::fault::Fault;
use super::transaction::own;
use crate::Session;

/// Longest that one is validated, in milliseconds. What takes longer is not told.
const LIMIT_MS: u32 = 60_000;

/// Those that are not enforced (since version 18) bind nobody.
const UNVALIDATED: &str = "
SELECT format('ALTER TABLE ONLY %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname),
       format('%I of %I.%I', k.conname, n.nspname, c.relname)
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'c' AND NOT k.convalidated AND c.relkind = 'r'
   AND (to_jsonb(k) ->> 'conenforced') IS DISTINCT FROM 'false' AND n.nspname <> 'pointsman'
 ORDER BY n.nspname, c.relname, k.conname";

/// Those that stood before, by name: one that is made anew, wider mostly, is not held against rows that broke it before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unvalidated(BTreeSet<String>);

struct Constraint {
    validate: String,
    named: String,
}

/// Those that stand now.
pub(crate) async fn look(session: &Session) -> Result<Unvalidated, Problem> {
    Ok(Unvalidated(constraints(session).await?.into_iter().map(|constraint| constraint.named).collect()))
}

impl Unvalidated {
    /// Says in words which new ones rows break.
    pub(crate) async fn broken_now(&self, session: &Session) -> Result<Vec<String>, Problem> {
        let mut broken = Vec::new();
        for constraint in constraints(session).await?.iter().filter(|now| !self.0.contains(&now.named)) {
            if let Some(why) = breaks(session, &constraint.validate).await? {
                let named = &constraint.named;
                broken.push(format!(
                    "to write rows like some that are there breaks the new constraint {named}: {why}"
                ));
            }
        }
        Ok(broken)
    }
}

async fn constraints(session: &Session) -> Result<Vec<Constraint>, Problem> {
    let failed = |error| Fault::from(error).while_doing("look at the constraints");
    let rows = session.client().query(UNVALIDATED, &[]).await.map_err(failed)?;
    let read =
        |row: &tokio_postgres::Row| Ok(Constraint { validate: row.try_get(0)?, named: row.try_get(1)? });
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

async fn breaks(session: &Session, validate: &str) -> Result<Option<String>, Problem> {
    let doing = "try whether rows keep to a new constraint";
    let begin =
        format!("BEGIN; SET LOCAL statement_timeout = {LIMIT_MS}; SET LOCAL lock_timeout = {LIMIT_MS}");
    own(session, &begin).await.map_err(|fault| fault.while_doing(doing))?;
    let validated = session.client().batch_execute(validate).await.map_err(Fault::from);
    own(session, "ROLLBACK").await.map_err(|fault| fault.while_doing(doing))?;
    Ok(validated.err().filter(|fault| fault.is(&SqlState::CHECK_VIOLATION)).map(|fault| fault.words()))
}
