//! How a database stands: which versions it has, in whose name, and what an earlier try left unfinished. Only looks.

use pointsman_core::{Epoch, Problem, several};
use pointsman_migration::{Begun, Migration, Pending, Phase, Set, Version};

use super::failure;
use super::fault::Fault;
use super::ledger::{self, Record};
use super::records::{self, Found};
use super::version_table::VersionTable;
use crate::{Session, Settings};

/// How a database stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The highest version that it is known to have, by number; of expand files, and of the table that was there before.
    pub schema_version: Option<String>,
    /// Files that were applied or adopted, by version.
    pub records: Vec<Record>,
    /// The epoch that rules it; none before the first run.
    pub epoch: Option<Epoch>,
    /// Files of which a part was applied, or tried, and no more.
    pub leftovers: Vec<Leftover>,
    /// Rows of the table that was there before which are no versions.
    pub unreadable: Vec<String>,
}

/// A file that an earlier try did not finish. The next run of the same file goes on exactly there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Version.
    pub version: String,
    /// Phase.
    pub phase: String,
    /// Statements that stand, from the first.
    pub done: usize,
    /// The statement, from 1, whose try has no outcome.
    pub trying: Option<usize>,
    /// Rows that batches of the statement after those that stand have changed; none where no batch stands.
    pub batched: Option<u64>,
    /// Whether nothing recorded tells what came of that try: it was, as far as is known, in no transaction.
    pub unclear: bool,
}

impl Leftover {
    /// Whether the file has changed anything, as far as is recorded.
    pub fn stands(&self) -> bool {
        self.done > 0 || self.batched.is_some()
    }

    /// What of the file has to be ended before anything else may take its place; nothing where it changed nothing.
    pub fn begun(&self) -> Option<Begun> {
        let statements = (self.done > 0).then(|| several(self.done, "statement stands", "statements stand"));
        let next = self.done.saturating_add(1);
        let rows =
            self.batched.map(|rows| format!("{rows} rows that batches of statement {next} changed stand"));
        let tried = self.trying.filter(|_| self.unclear && rows.is_none());
        let tried =
            tried.map(|statement| format!("what came of statement {statement} was not looked up yet"));
        let stands: Vec<String> = [statements, rows, tried].into_iter().flatten().collect();
        let (version, phase) = (Version::parse(&self.version).ok()?, Phase::parse(&self.phase)?);
        (!stands.is_empty()).then(|| Begun { version, phase, stands: stands.join(", ") })
    }
}

const LEFTOVERS: &str = "
WITH done AS (SELECT version, phase, count(*) AS n FROM pointsman.statement GROUP BY 1, 2),
     trying AS (
    SELECT version, phase, max(ordinal) AS ordinal, bool_or(xid IS NULL) AS unclear FROM pointsman.attempt i
     WHERE state = 'intended' AND outcome IS NULL AND NOT EXISTS (
           SELECT 1 FROM pointsman.attempt d WHERE d.state = 'done'
              AND (d.version, d.phase, d.ordinal, d.attempt) = (i.version, i.phase, i.ordinal, i.attempt))
     GROUP BY 1, 2),
     batched AS (
    SELECT version, phase, sum(rows)::bigint AS rows FROM pointsman.backfill b
     WHERE NOT EXISTS (SELECT 1 FROM pointsman.statement s
                        WHERE (s.version, s.phase, s.ordinal) = (b.version, b.phase, b.ordinal))
     GROUP BY 1, 2)
SELECT f.version, f.phase, f.n, f.ordinal, f.rows, f.unclear
  FROM (SELECT version, phase, coalesce(d.n, 0) AS n, t.ordinal, b.rows, coalesce(t.unclear, false) AS unclear
          FROM done d FULL JOIN trying t USING (version, phase) FULL JOIN batched b USING (version, phase)) f
 WHERE NOT EXISTS (SELECT 1 FROM pointsman.migration m WHERE m.state IN ('applied', 'adopted')
                      AND (m.version, m.phase) = (f.version, f.phase))
 ORDER BY 1, 2 LIMIT 1000";

/// Looks at the configured database. One without our records is as welcome as one with them.
pub async fn status(settings: &Settings) -> Result<Status, Problem> {
    let session = Session::open(settings, &settings.name, "look").await?;
    look(settings, &session).await
}

/// What of a phase is left to run on the configured database.
pub async fn pending<'s>(
    settings: &Settings,
    set: &'s Set,
    phase: Phase,
    out_of_order: &[Version],
) -> Result<Pending<'s>, Problem> {
    let status = status(settings).await?;
    left(&status.records, &status.leftovers, set, phase, out_of_order)
}

/// The same from records that were read.
pub(crate) fn left<'s>(
    records: &[Record],
    leftovers: &[Leftover],
    set: &'s Set,
    phase: Phase,
    out_of_order: &[Version],
) -> Result<Pending<'s>, Problem> {
    let recorded: Vec<_> = records.iter().map(Record::to_recorded).collect();
    let begun: Vec<_> = leftovers.iter().filter_map(Leftover::begun).collect();
    pointsman_migration::pending(set, phase, &recorded, &begun, out_of_order)
        .map_err(|findings| failure::refused(pointsman_core::Code::MigrationsUnfit, &findings))
}

pub(crate) async fn look(settings: &Settings, session: &Session) -> Result<Status, Problem> {
    let table = match settings.named_version_table() {
        Some(name) => VersionTable::read(session, name).await?,
        None => None,
    };
    let mut status = Status::default();
    if records::find(session).await? != Found::Absent {
        status.records = ledger::records(session).await?;
        status.epoch = Some(epoch(session).await?);
        status.leftovers = leftovers(session).await?;
    }
    let expanded = status.records.iter().filter(|record| record.phase == Phase::Expand);
    let ours = expanded.map(|record| &record.version).max();
    let theirs = table.as_ref().and_then(VersionTable::highest);
    status.schema_version = ours.max(theirs).map(Version::to_string);
    status.unreadable = table.map(|table| table.unreadable).unwrap_or_default();
    Ok(status)
}

async fn epoch(session: &Session) -> Result<Epoch, Problem> {
    let row = session.client().query_one("SELECT epoch FROM pointsman.fence", &[]).await;
    let epoch: i64 = row.and_then(|row| row.try_get(0)).map_err(unreadable)?;
    Ok(Epoch(u64::try_from(epoch).unwrap_or_default()))
}

pub(crate) async fn leftovers(session: &Session) -> Result<Vec<Leftover>, Problem> {
    let rows = session.client().query(LEFTOVERS, &[]).await.map_err(unreadable)?;
    let read = |row: &tokio_postgres::Row| {
        let (done, trying): (i64, Option<i32>) = (row.try_get(2)?, row.try_get(3)?);
        let batched: Option<i64> = row.try_get(4)?;
        Ok(Leftover {
            version: row.try_get(0)?,
            phase: row.try_get(1)?,
            done: usize::try_from(done).unwrap_or_default(),
            trying: trying.and_then(|ordinal| usize::try_from(ordinal).ok()),
            batched: batched.map(|rows| u64::try_from(rows).unwrap_or_default()),
            unclear: row.try_get(5)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(unreadable)
}

fn unreadable(error: tokio_postgres::Error) -> Problem {
    Fault::from(error).while_doing("read the records")
}

/// The files of one version that this set holds, of those that adoption marks.
pub(crate) fn adoptable(migration: &Migration) -> impl Iterator<Item = &pointsman_migration::Script> {
    [Phase::Expand, Phase::Contract].into_iter().filter_map(|phase| migration.script(phase))
}
