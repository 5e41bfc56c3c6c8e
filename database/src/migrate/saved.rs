//! Batches of a backfill that was cut short. They stand, so they belong to the exact statement that made them and to the
//! column that it went along: another statement neither goes on after their last key nor begins anew over their rows.

use pointsman_core::{Aftermath, Code, Problem};
use pointsman_migration::{Batch, Statement};

use super::ledger::{Entry, bytes, literal, ordinal};
use super::run::Job;
use crate::Session;

/// What the batches of one statement, which is not recorded as done, have saved.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The statement's place in its file, from 1.
    pub(crate) ordinal: i32,
    /// The last key that is done.
    pub(crate) last_key: String,
    /// Rows that they changed.
    pub(crate) rows: i64,
    /// Of which statement, and along which column; none where the records are older than this is noted.
    of: Option<(Vec<u8>, String)>,
}

impl Saved {
    /// Refuses a file that says something else where these batches were made: half of the rows would have one change and
    /// half the other, or some of them the same change twice.
    pub(crate) fn must_be_of(&self, job: &Job<'_>) -> Result<(), Problem> {
        let statement = job.script.statements().find(|statement| ordinal(statement) == self.ordinal);
        let batch = job.script.headers.batch.as_ref();
        if let (Some(statement), Some(batch)) = (statement, batch)
            && self.is_of(statement, batch)
        {
            return Ok(());
        }
        let place = statement.map_or(job.script.path.clone(), |statement| job.file().place(statement));
        let (number, rows) = (self.ordinal, self.rows);
        let differs = match &self.of {
            Some((_, key)) => {
                format!("along `{key}`, and the file says something else there now, or names another key")
            }
            None => "and an older pointsman did not note of which statement these are".to_owned(),
        };
        let message = format!(
            "{place}: batches of statement {number} have changed {rows} rows in an earlier try, {differs}; they stand, \
             nothing more was changed"
        );
        Err(Problem::new(Code::MigrationsUnfit, message).aftermath(Aftermath::Changed).hint(
            "put the old statement and its key back (the rows of a batch may differ), let it end, and change the rest with \
             a new version; where it cannot end: `pointsman explain PM0330`",
        ))
    }

    fn is_of(&self, statement: &Statement, batch: &Batch) -> bool {
        let is = |(hash, key): &(Vec<u8>, String)| *hash == statement.token_hash && *key == batch.key;
        self.of.as_ref().is_some_and(is)
    }
}

impl Entry<'_> {
    /// What is saved of the file's statements that are not done, in their order.
    pub(crate) async fn saved(&self, session: &Session) -> Result<Vec<Saved>, Problem> {
        let sql = format!(
            "SELECT ordinal, last_key, rows, token_hash, key FROM pointsman.backfill
              WHERE (version, phase) = ({}) AND NOT EXISTS (SELECT 1 FROM pointsman.statement s
                    WHERE (s.version, s.phase, s.ordinal) = (backfill.version, backfill.phase, backfill.ordinal))
              ORDER BY ordinal LIMIT {}",
            self.key(),
            super::ledger::MAX_ROWS
        );
        let rows = session.client().query(&sql, &[]).await.map_err(super::ledger::unreadable)?;
        let read = |row: &tokio_postgres::Row| {
            let (hash, key): (Option<Vec<u8>>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
            let of = hash.zip(key);
            Ok(Saved { ordinal: row.try_get(0)?, last_key: row.try_get(1)?, rows: row.try_get(2)?, of })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(super::ledger::unreadable)
    }

    /// What a batch saves in its own transaction: its last key, and the rows of all batches so far.
    pub(crate) fn save_sql(&self, statement: &Statement, batch: &Batch, last_key: &str, rows: i64) -> String {
        format!(
            "INSERT INTO pointsman.backfill (version, phase, ordinal, token_hash, key, last_key, rows)
             VALUES ({}, {}, {}, {}, {}, {rows})
             ON CONFLICT (version, phase, ordinal) DO UPDATE SET last_key = EXCLUDED.last_key, rows = EXCLUDED.rows",
            self.key(),
            ordinal(statement),
            bytes(&statement.token_hash),
            literal(&batch.key),
            literal(last_key)
        )
    }
}
