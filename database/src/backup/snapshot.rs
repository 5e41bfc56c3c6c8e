//! One moment of the database, held open: the dump and everything that is counted beside it see the same rows. It holds no lock
//! meanwhile: whoever waited for one, to rewrite a table of the server's own say, would keep `pg_dump` waiting, for which this waits.

use pointsman_core::Problem;

use crate::contents::{self, Contents};
use crate::statement::{field, refused, releasing_locks};
use crate::{Progress, Session, Settings, moment};

/// The moment, and what was read right before it. It ends when this is dropped.
pub(crate) struct Snapshot {
    session: Session,
    /// What `pg_dump --snapshot` takes.
    pub exported: String,
    /// `pg_current_snapshot()`.
    pub current: String,
    /// `pg_current_wal_lsn()`.
    pub lsn: String,
    /// In milliseconds since 1970.
    pub taken_at_ms: u64,
    /// Whether rows of partitions must be loaded through the tables above them.
    pub by_root: bool,
    before: Vec<contents::Sequence>,
    counters: std::collections::BTreeMap<(String, String), contents::Counters>,
}

impl Snapshot {
    pub(crate) async fn take(settings: &Settings) -> Result<Self, Problem> {
        let failed = |error: tokio_postgres::Error| refused("take a snapshot of the database", &error);
        let session = Session::open(settings, &settings.name, "snapshot").await?;
        let client = session.client();
        // Counters first: what is written between them and the snapshot is then told twice, never not at all.
        let counters = contents::counters(client).await?;
        let begin = "SET lock_timeout = '5s'; BEGIN READ ONLY";
        client.batch_execute(begin).await.map_err(failed)?;
        let before = contents::sequences(client).await?;
        for statement in [
            "COMMIT",
            // Rows that the role may not see must not be left out silently.
            "SET row_security = off",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        ] {
            client.batch_execute(statement).await.map_err(failed)?;
        }
        let row = client
            .query_one(
                "SELECT pg_export_snapshot(), pg_current_snapshot()::text, pg_current_wal_lsn()::text",
                &[],
            )
            .await
            .map_err(failed)?;
        let (exported, current, lsn) = (field(&row, 0)?, field(&row, 1)?, field(&row, 2)?);
        let taken_at_ms = moment::now_ms();
        let by_root = releasing_locks(client, contents::unseen_by_pg_dump(client)).await?;
        Ok(Self { session, exported, current, lsn, taken_at_ms, by_root, before, counters })
    }

    /// Counts what is in the database at this moment.
    pub(crate) async fn contents(&self, progress: &Progress) -> Result<Contents, Problem> {
        let mut contents = contents::take(self.session.client(), progress, "backup").await?;
        for table in &mut contents.tables {
            let key = (table.schema.clone(), table.name.clone());
            table.counters = self.counters.get(&key).copied().unwrap_or_default();
        }
        Ok(contents)
    }

    /// Sequences with their values before the snapshot and now, which is after the dump.
    pub(crate) async fn sequences(&self) -> Result<Vec<contents::Sequence>, Problem> {
        let mut now = contents::sequences(self.session.client()).await?;
        for sequence in &mut now {
            let same = |before: &&contents::Sequence| {
                before.schema == sequence.schema && before.name == sequence.name
            };
            if let Some(before) = self.before.iter().find(same) {
                sequence.before = before.before;
            }
        }
        Ok(now)
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}
