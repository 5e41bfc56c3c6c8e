//! pointsman's own records, in the schema `pointsman` of the database that they tell of, so that a restored copy tells the
//! truth about itself. Created once, in one transaction; a shape of a later version is refused.

use pointsman_core::{Code, Problem};

use super::fault::Fault;
use crate::Session;

/// The shape of the tables below. A change counts it up.
const FORMAT: i32 = 3;

/// What makes each shape, from the first, the next. Looking works on all of them.
const STEPS: [&str; 2] = [
    "ALTER TABLE pointsman.attempt ADD COLUMN token_hash bytea;",
    "ALTER TABLE pointsman.backfill ADD COLUMN token_hash bytea, ADD COLUMN key text;",
];

const CREATE: &str = "
CREATE SCHEMA pointsman;
CREATE TABLE pointsman.fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL, format int NOT NULL);
CREATE TABLE pointsman.migration (
    version text, phase text, state text NOT NULL CHECK (state IN ('adopted', 'applied', 'undone')),
    token_hash bytea NOT NULL, raw_hash bytea NOT NULL, release text NOT NULL, at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (version, phase));
CREATE TABLE pointsman.statement (
    version text, phase text, ordinal int, token_hash bytea NOT NULL, release text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (version, phase, ordinal));
CREATE TABLE pointsman.attempt (
    version text, phase text, ordinal int, attempt int, state text CHECK (state IN ('intended', 'done')),
    epoch bigint NOT NULL, release text NOT NULL, backend int NOT NULL, xid xid8, outcome text,
    at timestamptz NOT NULL DEFAULT now(), token_hash bytea, PRIMARY KEY (version, phase, ordinal, attempt, state));
CREATE TABLE pointsman.backfill (
    version text, phase text, ordinal int, last_key text, rows bigint NOT NULL, token_hash bytea, key text,
    PRIMARY KEY (version, phase, ordinal));
COMMENT ON SCHEMA pointsman IS 'records of pointsman: which migrations this database has, and in whose name';
";

/// Whether a database has our records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has none.
    Absent,
    /// It has them, as this program writes them.
    Present,
    /// It has them as an earlier version wrote them: enough to look at, and brought up to date by the next run.
    Older {
        /// What the next run has still to change.
        steps: &'static [&'static str],
    },
}

/// Looks for the records; refuses what it does not know.
pub(crate) async fn find(session: &Session) -> Result<Found, Problem> {
    let row = session
        .client()
        .query_one(
            "SELECT to_regnamespace('pointsman') IS NOT NULL, to_regclass('pointsman.fence') IS NOT NULL",
            &[],
        )
        .await
        .map_err(|error| Fault::from(error).while_doing("look for the records"))?;
    match (row.try_get(0).unwrap_or(false), row.try_get(1).unwrap_or(false)) {
        (false, _) => Ok(Found::Absent),
        (true, false) => Err(Problem::new(
            Code::RecordsUnfit,
            "the database has a schema `pointsman` that is not pointsman's own: it lacks the table `fence`",
        )
        .hint("rename that schema: `ALTER SCHEMA pointsman RENAME TO …`")),
        (true, true) => known_format(session).await,
    }
}

async fn known_format(session: &Session) -> Result<Found, Problem> {
    let row = session.client().query_opt("SELECT format FROM pointsman.fence", &[]).await;
    let row = row.map_err(|error| Fault::from(error).while_doing("read the records' format"))?;
    match row.and_then(|row| row.try_get::<_, i32>(0).ok()) {
        Some(FORMAT) => Ok(Found::Present),
        Some(found) => {
            let steps = found.checked_sub(1).and_then(|done| STEPS.get(usize::try_from(done).ok()?..));
            steps.map(|steps| Found::Older { steps }).ok_or_else(|| {
                Problem::new(
                    Code::StateTooNew,
                    format!(
                        "the records in schema `pointsman` have format {found}; this agent knows {FORMAT}"
                    ),
                )
                .hint("install on the database host the version of pointsman that wrote them")
            })
        }
        None => Err(Problem::new(Code::RecordsUnfit, "the table `pointsman.fence` has lost its row")
            .hint("compare with a backup: `pointsman db list ENV`")),
    }
}

/// Creates the records if they are not there, or brings them up to date. The caller holds the database's guard.
pub(crate) async fn ensure(session: &Session, epoch: i64) -> Result<(), Problem> {
    let create = match find(session).await? {
        Found::Present => return Ok(()),
        Found::Older { steps } => {
            format!("BEGIN; {} UPDATE pointsman.fence SET format = {FORMAT}; COMMIT", steps.join(" "))
        }
        Found::Absent => format!(
            "BEGIN; {CREATE} INSERT INTO pointsman.fence (epoch, format) VALUES ({epoch}, {FORMAT}); COMMIT"
        ),
    };
    if let Err(error) = session.client().batch_execute(&create).await {
        _ = session.client().batch_execute("ROLLBACK").await;
        return Err(Fault::from(error).while_doing("create the schema `pointsman`"));
    }
    Ok(())
}
