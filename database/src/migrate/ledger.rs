//! Rows of our records, written and read. What a transaction of a file did is written within it; what is intended, and what
//! ran outside of one, by the second session.

use pointsman_core::{Code, Problem};
use pointsman_migration::{Phase, Recorded, Script, Statement, Version};

use super::fault::Fault;
use crate::Session;

/// The place, before a file's statements, of the look that its verify file takes once they stand: owed while its attempt has
/// no outcome.
const LOOK: i32 = 0;

/// Most rows read of any table of ours: far beyond a long life of releases.
pub(crate) const MAX_ROWS: i64 = 100_000;

/// The file that rows are about, and in whose name they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// Its version.
    pub(crate) version: &'a Version,
    /// The file.
    pub(crate) script: &'a Script,
    /// The release that runs it.
    pub(crate) release: &'a str,
    /// The coordinator's epoch.
    pub(crate) epoch: i64,
}

/// A row of what was applied or adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version.
    pub version: Version,
    /// Phase.
    pub phase: Phase,
    /// Whether it was only marked as there.
    pub adopted: bool,
    /// Whether the verify file of its version has not passed since it was applied.
    pub unverified: bool,
    /// Whether its version had a verify file when it was applied.
    pub had_verify_file: bool,
    /// The release that applied it.
    pub release: String,
    /// When, as the server writes it.
    pub at: String,
    /// Hash of the file's bytes.
    pub raw_hash: [u8; 32],
    /// Hash of its tokens.
    pub token_hash: [u8; 32],
}

impl Record {
    /// The same for the rules about what is left to run.
    pub(crate) fn to_recorded(&self) -> Recorded {
        Recorded {
            version: self.version.clone(),
            phase: self.phase,
            adopted: self.adopted,
            raw_hash: Some(self.raw_hash),
            token_hash: Some(self.token_hash),
        }
    }
}

/// A try of a transaction or of a statement outside of one, by its first statement and its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) ordinal: i32,
    pub(crate) number: i32,
}

/// An attempt that has no outcome.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) attempt: Attempt,
    /// Its transaction, as far as it came.
    pub(crate) xid: Option<String>,
    /// Whether it was one of the statement that stands there now: the file may have been corrected since.
    pub(crate) same: bool,
}

/// A text as SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A hash as SQL.
pub(crate) fn bytes(hash: &[u8; 32]) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{hex}'::bytea")
}

/// A statement's place in its file, as the tables hold it.
pub(crate) fn ordinal(statement: &Statement) -> i32 {
    i32::try_from(statement.ordinal).unwrap_or(i32::MAX)
}

impl Entry<'_> {
    /// Version and phase as SQL.
    pub(crate) fn key(&self) -> String {
        format!("{}, {}", literal(&self.version.to_string()), literal(self.script.phase.as_str()))
    }

    /// Notes durably that an attempt begins; returns its number.
    pub(crate) async fn intend(
        &self,
        second: &Session,
        first: &Statement,
        backend: i32,
    ) -> Result<Attempt, Problem> {
        let ordinal = ordinal(first);
        let sql = format!(
            "INSERT INTO pointsman.attempt (version, phase, ordinal, attempt, state, epoch, release, backend, token_hash)
             SELECT {}, {ordinal}, coalesce(max(attempt), 0) + 1, 'intended', $1, $2, $3, $4 FROM pointsman.attempt
              WHERE (version, phase, ordinal) = ({}, {ordinal}) RETURNING attempt",
            self.key(),
            self.key()
        );
        let hash = first.token_hash.as_slice();
        let row = second.client().query_one(&sql, &[&self.epoch, &self.release, &backend, &hash]).await;
        let number = row.and_then(|row| row.try_get(0));
        let number = number.map_err(|error| Fault::from(error).while_doing("note what is intended"))?;
        Ok(Attempt { ordinal, number })
    }

    /// Notes which transaction the attempt is in now. Not flushed: after a crash of the server none runs on.
    pub(crate) async fn note_xid(&self, second: &Session, attempt: Attempt, xid: &str) -> Result<(), Fault> {
        let sql = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; UPDATE pointsman.attempt SET xid = {}::xid8 WHERE {}; COMMIT",
            literal(xid),
            self.intended(attempt)
        );
        Ok(second.client().batch_execute(&sql).await?)
    }

    fn intended(&self, Attempt { ordinal, number }: Attempt) -> String {
        format!(
            "(version, phase, ordinal, attempt, state) = ({}, {ordinal}, {number}, 'intended')",
            self.key()
        )
    }

    /// What goes into the transaction itself: every statement of it, and that it is done.
    pub(crate) fn done_sql(&self, attempt: Attempt, statements: &[&Statement], backend: i32) -> String {
        let (key, release) = (self.key(), literal(self.release));
        let row = |s: &&Statement| format!("({key}, {}, {}, {release})", ordinal(s), bytes(&s.token_hash));
        let rows = statements.iter().map(row).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO pointsman.statement (version, phase, ordinal, token_hash, release) VALUES {rows};
             INSERT INTO pointsman.attempt (version, phase, ordinal, attempt, state, epoch, release, backend)
             VALUES ({key}, {}, {}, 'done', {}, {release}, {backend});",
            attempt.ordinal, attempt.number, self.epoch
        )
    }

    /// The row of the whole file, applied.
    pub(crate) fn applied_sql(&self) -> String {
        self.file_sql("applied")
    }

    /// That the verify file has still to look at what stands now. Goes into the transaction that ends the file.
    pub(crate) fn owed_look_sql(&self) -> String {
        format!(
            "INSERT INTO pointsman.attempt (version, phase, ordinal, attempt, state, epoch, release, backend)
             SELECT {}, {LOOK}, coalesce(max(attempt), 0) + 1, 'intended', {}, {}, 0 FROM pointsman.attempt
              WHERE (version, phase, ordinal) = ({}, {LOOK});",
            self.key(),
            self.epoch,
            literal(self.release),
            self.key()
        )
    }

    /// The row of a file whose effects were there before.
    pub(crate) fn adopted_sql(&self) -> String {
        self.file_sql("adopted")
    }

    fn file_sql(&self, state: &str) -> String {
        format!(
            "INSERT INTO pointsman.migration (version, phase, state, token_hash, raw_hash, release)
             VALUES ({}, '{state}', {}, {}, {})
             ON CONFLICT (version, phase) DO UPDATE SET state = EXCLUDED.state, token_hash = EXCLUDED.token_hash,
                 raw_hash = EXCLUDED.raw_hash, release = EXCLUDED.release, at = now();",
            self.key(),
            bytes(&self.script.token_hash),
            bytes(&self.script.raw_hash),
            literal(self.release)
        )
    }

    /// The rows that a taken back expand leaves: undone, and free to be run again.
    pub(crate) fn undone_sql(&self) -> String {
        let version = literal(&self.version.to_string());
        format!(
            "UPDATE pointsman.migration SET state = 'undone', release = {}, at = now()
              WHERE version = {version} AND phase = 'expand';
             DELETE FROM pointsman.statement WHERE version = {version} AND phase IN ('expand', 'down');
             DELETE FROM pointsman.backfill WHERE version = {version} AND phase IN ('expand', 'down');
             UPDATE pointsman.attempt SET outcome = 'undone'
              WHERE (version, phase, ordinal) = ({version}, 'expand', {LOOK}) AND outcome IS NULL;",
            literal(self.release)
        )
    }

    /// Confirms a done attempt. This commit is flushed, and with it everything before it; no row means that the server
    /// lost the transaction.
    pub(crate) async fn confirm(
        &self,
        second: &Session,
        Attempt { ordinal, number }: Attempt,
    ) -> Result<(), Problem> {
        let sql = format!(
            "UPDATE pointsman.attempt SET outcome = 'confirmed'
              WHERE (version, phase, ordinal, attempt, state) = ({}, {ordinal}, {number}, 'done')",
            self.key()
        );
        let confirmed = second.client().execute(&sql, &[]).await;
        match confirmed.map_err(|error| Fault::from(error).while_doing("confirm what was done"))? {
            1 => Ok(()),
            _ => Err(super::fault::lost("confirm what was done")),
        }
    }

    /// Notes how an attempt ended that did nothing. Best effort: its absence says the same.
    pub(crate) async fn note_outcome(&self, second: &Session, attempt: Attempt, outcome: &str) {
        let sql = format!("UPDATE pointsman.attempt SET outcome = $1 WHERE {}", self.intended(attempt));
        _ = second.client().execute(&sql, &[&outcome]).await;
    }

    /// Statements of the file that are recorded as done, in their order.
    pub(crate) async fn done(&self, session: &Session) -> Result<Vec<(i32, Vec<u8>)>, Problem> {
        let sql = format!(
            "SELECT ordinal, token_hash FROM pointsman.statement WHERE (version, phase) = ({}) ORDER BY ordinal LIMIT {MAX_ROWS}",
            self.key()
        );
        let rows = session.client().query(&sql, &[]).await.map_err(unreadable)?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, _>>()
            .map_err(unreadable)
    }

    /// Attempts at this place of the file that have no outcome.
    pub(crate) async fn open_attempts(
        &self,
        session: &Session,
        first: &Statement,
    ) -> Result<Vec<Open>, Problem> {
        let ordinal = ordinal(first);
        let sql = format!(
            "SELECT attempt, xid::text, coalesce(token_hash = $1, true) FROM pointsman.attempt i
              WHERE (version, phase, ordinal, state) = ({}, {ordinal}, 'intended') AND outcome IS NULL
                AND NOT EXISTS (SELECT 1 FROM pointsman.attempt d WHERE d.state = 'done'
                    AND (d.version, d.phase, d.ordinal, d.attempt) = (i.version, i.phase, i.ordinal, i.attempt))
              ORDER BY attempt LIMIT {MAX_ROWS}",
            self.key()
        );
        let hash = first.token_hash.as_slice();
        let rows = session.client().query(&sql, &[&hash]).await.map_err(unreadable)?;
        let read = |row: &tokio_postgres::Row| {
            let attempt = Attempt { ordinal, number: row.try_get(0)? };
            Ok(Open { attempt, xid: row.try_get(1)?, same: row.try_get(2)? })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(unreadable)
    }
}

/// Every file that is applied or adopted.
pub(crate) async fn records(session: &Session) -> Result<Vec<Record>, Problem> {
    let sql = format!(
        "SELECT version, phase, state, release, at::text, raw_hash, token_hash, EXISTS (
                SELECT 1 FROM pointsman.attempt a
                 WHERE (a.version, a.phase, a.ordinal, a.state) = (m.version, m.phase, {LOOK}, 'intended')
                   AND a.outcome IS NULL), EXISTS (
                SELECT 1 FROM pointsman.attempt a
                 WHERE (a.version, a.phase, a.ordinal, a.state) = (m.version, m.phase, {LOOK}, 'intended')
                   AND a.outcome IS DISTINCT FROM 'undone')
           FROM pointsman.migration m WHERE state IN ('applied', 'adopted') LIMIT {MAX_ROWS}"
    );
    let rows = session.client().query(&sql, &[]).await.map_err(unreadable)?;
    let mut records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    records.sort_by(|a, b| (&a.version, a.phase).cmp(&(&b.version, b.phase)));
    Ok(records)
}

fn record(row: &tokio_postgres::Row) -> Result<Record, Problem> {
    let text = |at: usize| row.try_get::<_, String>(at).map_err(unreadable);
    let hash = |at: usize| -> Result<[u8; 32], Problem> {
        let bytes: Vec<u8> = row.try_get(at).map_err(unreadable)?;
        bytes.try_into().map_err(|_| unfit("a hash in `pointsman.migration` is not of 32 bytes"))
    };
    Ok(Record {
        version: Version::parse(&text(0)?)
            .map_err(|error| unfit("a version in `pointsman.migration`").because(&error))?,
        phase: Phase::parse(&text(1)?).ok_or_else(|| unfit("a phase in `pointsman.migration` is unknown"))?,
        adopted: text(2)? == "adopted",
        unverified: row.try_get(7).map_err(unreadable)?,
        had_verify_file: row.try_get(8).map_err(unreadable)?,
        release: text(3)?,
        at: text(4)?,
        raw_hash: hash(5)?,
        token_hash: hash(6)?,
    })
}

/// Notes that the verify file of a version passed.
pub(crate) async fn verified(second: &Session, version: &Version, phase: Phase) -> Result<(), Problem> {
    let sql = format!(
        "UPDATE pointsman.attempt SET outcome = 'verified'
          WHERE (version, phase, ordinal, state) = ($1, $2, {LOOK}, 'intended') AND outcome IS NULL"
    );
    let noted = second.client().execute(&sql, &[&version.to_string(), &phase.as_str()]).await;
    noted.map_err(|error| Fault::from(error).while_doing("note that a verify file passed"))?;
    Ok(())
}

/// Makes durable, and marks so, what earlier tries did without having said so.
pub(crate) async fn settle(second: &Session) -> Result<(), Problem> {
    let sql = "UPDATE pointsman.attempt SET outcome = 'confirmed' WHERE state = 'done' AND outcome IS NULL";
    second
        .client()
        .execute(sql, &[])
        .await
        .map_err(|error| Fault::from(error).while_doing("confirm what was done"))?;
    Ok(())
}

pub(crate) fn unreadable(error: tokio_postgres::Error) -> Problem {
    Fault::from(error).while_doing("read the records")
}

fn unfit(message: &str) -> Problem {
    Problem::new(Code::RecordsUnfit, message).hint("compare with a backup: `pointsman db list ENV`")
}
