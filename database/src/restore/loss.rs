//! What a restore would lose: rows written since the backup, table by table.

use std::time::Duration;

use pointsman_core::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::beside::name_of;
use super::gate::{Written, uncounted};
use super::hashes;
use super::record::{Compared, Record, Stage};
use crate::backup::{BackupId, Manifest};
use crate::guard::Guard;
use crate::statement::{field, refused};
use crate::{Progress, Session, Settings, contents, held, moment};

/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);
/// The longest count: beyond it something hangs.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long a table that somebody holds is waited for while nobody is kept waiting for it.
const TABLE_WAIT: Duration = Duration::from_secs(60);
/// The same in a swap.
pub(crate) const TABLE_WAIT_IN_SWAP: Duration = Duration::from_secs(5);
/// Tables that are noted with their loss: whoever accepts it reads no more.
const KEPT: usize = 100;

/// What would be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// The backup.
    pub backup: String,
    /// Tables that were written to.
    pub tables: Vec<TableLoss>,
    /// Whether rows were compared. Otherwise it is what the server has counted, also of writes that were taken back.
    pub exact: bool,
    /// Whether it may be more: the server's counters began anew since the backup, or do not count everybody.
    pub at_least: bool,
}

/// What would be lost of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableLoss {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that are others.
    pub updated: u64,
    /// Rows that would come back.
    pub deleted: u64,
}

impl TableLoss {
    pub(crate) fn of(name: &(String, String)) -> Self {
        Self { schema: name.0.clone(), table: name.1.clone(), ..Self::default() }
    }

    /// Rows.
    pub fn total(&self) -> u64 {
        self.inserted.saturating_add(self.updated).saturating_add(self.deleted)
    }
}

impl Loss {
    /// Rows of all tables: the number that a person accepts.
    pub fn total(&self) -> u64 {
        self.tables.iter().map(TableLoss::total).sum()
    }

    /// As many tables as that, those that lose most.
    pub fn greatest(&self, most: usize) -> Vec<TableLoss> {
        let mut tables: Vec<TableLoss> =
            self.tables.iter().filter(|table| table.total() > 0).cloned().collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.total()));
        tables.truncate(most);
        tables
    }
}

/// Counts what would be lost: exactly if the backup stands restored beside the live database, which is noted for the
/// swap; otherwise by the server's counters.
pub async fn loss(settings: &Settings, id: &str, progress: &Progress) -> Result<Loss, Problem> {
    let counting = async {
        match counted(settings, id, progress).await {
            Err(problem) => Err(Box::pin(held::unless_in_catalog(settings, problem, hashes::AGAIN)).await),
            counted => counted,
        }
    };
    let counted = tokio::time::timeout(LONGEST, counting).await;
    counted.unwrap_or_else(|_| {
        Err(Problem::new(
            Code::BackupUnrestorable,
            "the comparison of both databases did not end within 24 hours",
        ))
    })
}

async fn counted(settings: &Settings, id: &str, progress: &Progress) -> Result<Loss, Problem> {
    let id = BackupId::parse(id)?;
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    if let Some(mut record) = Record::read(settings)?
        && record.stage == Stage::Ready
        && record.backup == id.as_str()
        && name_of(guard.session().client(), record.restored.oid).await?.as_ref()
            == Some(&record.restored.aside)
    {
        let live = Session::open(settings, &settings.name, "loss").await?;
        let restored = written_in(settings, &record.restored.aside).await?;
        let (loss, live) = exact(settings, &live, &record, TABLE_WAIT, progress).await?;
        let (lost, at_ms) = (loss.total(), moment::now_ms());
        let (tables, of_tables) = (loss.greatest(KEPT), loss.tables.len());
        record.compared = Some(Compared { lost, at_ms, tables, of_tables, live, restored });
        record.write(settings)?;
        return Ok(loss);
    }
    estimate(settings, &id).await
}

async fn estimate(settings: &Settings, id: &BackupId) -> Result<Loss, Problem> {
    let manifest = Manifest::read(&settings.backup.dir, id)?;
    let session = Session::open(settings, &settings.name, "loss").await?;
    let now = contents::counters(session.client()).await?;
    let at_least = uncounted(session.client()).await?;
    let mut loss = Loss { backup: id.as_str().to_owned(), at_least, ..Loss::default() };
    for table in manifest.contents.tables.iter().filter(|table| table.schema != "pointsman") {
        let name = (table.schema.clone(), table.name.clone());
        let Some(counters) = now.get(&name) else {
            loss.tables.push(TableLoss { deleted: table.rows, ..TableLoss::of(&name) });
            continue;
        };
        let then = table.counters;
        // Counters that went back have begun anew: what they say now was certainly written since.
        let anew = counters.inserted < then.inserted
            || counters.updated < then.updated
            || counters.deleted < then.deleted;
        let then = if anew { contents::Counters::default() } else { then };
        loss.at_least |= anew;
        loss.tables.push(TableLoss {
            inserted: counters.inserted.saturating_sub(then.inserted),
            updated: counters.updated.saturating_sub(then.updated),
            deleted: counters.deleted.saturating_sub(then.deleted),
            ..TableLoss::of(&name)
        });
    }
    let known = |name: &(String, String)| {
        name.0 == "pointsman"
            || manifest.contents.tables.iter().any(|table| (&table.schema, &table.name) == (&name.0, &name.1))
    };
    loss.tables.extend(now.iter().filter(|(name, _)| !known(name)).map(|(name, counters)| TableLoss {
        inserted: counters.inserted.saturating_sub(counters.deleted),
        ..TableLoss::of(name)
    }));
    loss.tables.retain(|table| table.total() > 0);
    Ok(loss)
}

/// What is lost by what was compared before and what the server has counted since. Nothing where that is not all: tables
/// were made or rewritten since, or the restored database is another than the one that was compared.
pub(crate) async fn since_compared(
    settings: &Settings,
    live: &Session,
    record: &Record,
) -> Result<Option<(u64, Written)>, Problem> {
    let Some(compared) = &record.compared else { return Ok(None) };
    let written = Written::ask(live.client()).await?;
    let restored = written_in(settings, &record.restored.aside).await?;
    let untouched = restored.since(&compared.restored) == Some(0);
    let more = written.since(&compared.live).filter(|_| untouched);
    Ok(more.map(|more| (compared.lost.saturating_add(more), written)))
}

/// What the server has counted in a database so far.
pub(crate) async fn written_in(settings: &Settings, database: &str) -> Result<Written, Problem> {
    let session = Session::open(settings, database, "loss").await?;
    Written::ask(session.client()).await
}

/// Compares the live database with the restored one. Beside it, what the server had counted right before: whatever is
/// counted later was not compared.
pub(crate) async fn exact(
    settings: &Settings,
    live: &Session,
    record: &Record,
    patience: Duration,
    progress: &Progress,
) -> Result<(Loss, Written), Problem> {
    let restored = Session::open(settings, &record.restored.aside, "loss").await?;
    let written = Written::ask(live.client()).await?;
    for session in [live, &restored] {
        for statement in [
            "SET row_security = off",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "SET LOCAL lock_timeout = '2s'",
        ] {
            let begun = session.client().batch_execute(statement).await;
            begun.map_err(|error| refused("compare the databases", &error))?;
        }
    }
    let say = |table: &str| progress.say(format!("restore: comparing rows of {table}"));
    let seed = seed(restored.client()).await?;
    let tables = hashes::compare(settings, (live.client(), restored.client()), seed, patience, say).await;
    let ended = live.client().batch_execute("COMMIT").await;
    let loss = Loss { backup: record.backup.clone(), tables: tables?, exact: true, at_least: false };
    ended.map_err(|error| refused("compare the databases", &error))?;
    Ok((loss, written))
}

/// A number that nobody knew when rows were written: nobody can make two of them look alike.
async fn seed(client: &tokio_postgres::Client) -> Result<i64, Problem> {
    let row = client
        .query_one("SELECT hashtextextended(gen_random_uuid()::text, 0)", &[])
        .await
        .map_err(|error| refused("compare the databases", &error))?;
    field(&row, 0)
}

/// Refuses a loss that is greater than a person has accepted.
pub fn must_be_accepted(loss: &Loss, accepted: u64) -> Result<(), Problem> {
    if loss.total() > accepted { Err(grown(loss.total(), accepted)) } else { Ok(()) }
}

/// More would be lost than a person accepted.
pub(crate) fn grown(loss: u64, accepted: u64) -> Problem {
    Problem::new(
        Code::LossGrown,
        format!("{loss} rows would be lost, {accepted} were accepted: the databases stay as they are"),
    )
    .hint(
        "without `--accept-loss` the same command counts again; where it keeps growing, stop the writers first: \
         `pointsman maintenance on ENV`",
    )
}
