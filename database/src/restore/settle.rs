//! The end of a restore: confirmed, the old database goes; given up before the swap, the new one goes.

use std::time::Duration;

use pointsman_core::{Code, Problem};
use tokio_postgres::Client;

use super::beside::{name_of, still_aside};
use super::loss::TableLoss;
use super::record::{Compared, Named, Record, Stage};
use super::recover::finish;
use crate::guard::Guard;
use crate::statement::{field, refused};
use crate::{Authority, Settings, copy};

/// How long other work on the database is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// A restore that is not settled yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The backup.
    pub backup: String,
    /// Where it stands.
    pub stage: Stage,
    /// The restored database's name while it is not live.
    pub restored: String,
    /// The replaced database's name while it is not live.
    pub replaced: String,
    /// What a swap would lose, as both databases were compared last.
    pub compared: Option<ComparedLoss>,
}

/// What a swap would lose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComparedLoss {
    /// Rows of all tables.
    pub rows: u64,
    /// The tables that lose most of them; none in records from before they were kept.
    pub tables: Vec<TableLoss>,
    /// Of how many tables they are.
    pub of_tables: usize,
    /// When it was compared, in milliseconds since 1970; 0 where that was not noted.
    pub at_ms: u64,
}

/// The restore that is not settled yet, if there is one.
pub fn pending(settings: &Settings) -> Result<Option<Pending>, Problem> {
    let told = |compared: Compared| ComparedLoss {
        rows: compared.lost,
        tables: compared.tables,
        of_tables: compared.of_tables,
        at_ms: compared.at_ms,
    };
    Ok(Record::read(settings)?.map(|record| Pending {
        backup: record.backup,
        stage: record.stage,
        restored: record.restored.aside,
        replaced: record.replaced.aside,
        compared: record.compared.filter(|_| record.stage == Stage::Ready).map(told),
    }))
}

/// The restored database stays: the old one is dropped, unless something in it would vanish with it that a dump does
/// not hold. Returns the name of the old one if it was kept for that reason.
pub async fn confirm(settings: &Settings, authority: &dyn Authority) -> Result<Option<String>, Problem> {
    authority.check()?;
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let client = guard.session().client();
    finish(settings, client).await?;
    let Some(record) = Record::read(settings)? else { return Ok(None) };
    if record.stage != Stage::Swapped {
        return Err(Problem::new(Code::CopyMissing, "no restore waits to be confirmed")
            .hint("`pointsman db status ENV` shows where a restore stands"));
    }
    let kept = replaced_is_bound(client, &record.replaced).await?;
    authority.check()?;
    let kept =
        if kept { Some(record.replaced.aside.clone()) } else { drop_aside(client, &record.replaced).await? };
    Record::remove(settings)?;
    Ok(kept)
}

/// Gives a restore up that was not swapped, or that was taken back: the restored database is dropped.
pub async fn discard(settings: &Settings, authority: &dyn Authority) -> Result<(), Problem> {
    authority.check()?;
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let client = guard.session().client();
    finish(settings, client).await?;
    match Record::read(settings)? {
        None => Ok(()),
        Some(record) if record.stage == Stage::Swapped => {
            Err(Problem::new(Code::RestorePending, "the restored database is live")
                .hint("take it back first, or confirm it: `pointsman db status ENV`"))
        }
        Some(record) => {
            authority.check()?;
            drop_aside(client, &record.restored).await?;
            Record::remove(settings)
        }
    }
}

/// Drops a database that still has the name that it was given; returns that name if it has another one.
async fn drop_aside(client: &Client, named: &Named) -> Result<Option<String>, Problem> {
    match still_aside(client, named).await? {
        Some(name) => copy::drop_database(client, &name).await.map(|()| None),
        None => name_of(client, named.oid).await,
    }
}

/// Whether a replication slot or a subscription belongs to the old database: dropping it would silently end them.
async fn replaced_is_bound(client: &Client, replaced: &Named) -> Result<bool, Problem> {
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM pg_replication_slots WHERE datoid = $1)
                 OR EXISTS (SELECT 1 FROM pg_subscription WHERE subdbid = $1)",
            &[&replaced.oid],
        )
        .await
        .map_err(|error| refused("look for replication slots of the old database", &error))?;
    field(&row, 0)
}
