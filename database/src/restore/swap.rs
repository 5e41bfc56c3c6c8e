//! Puts the restored database in the live one's place, by name, in one transaction; and back, the same way.

use std::time::{Duration, Instant};

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};
use tokio_postgres::Client;

use super::beside::{free_name, name_of, raise_fence, to_be_dressed_as};
use super::gate::{self, Written};
use super::loss::{TABLE_WAIT_IN_SWAP, exact, grown, since_compared, written_in};
use super::record::{Record, Stage, old_name};
use super::recover::{Cut, finish};
use super::rename::Renamer;
use crate::backup::BackupId;
use crate::guard::Guard;
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, refused};
use crate::{Authority, Progress, Session, Settings};

/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// How late servers before 15 may tell what was written: their collector has its numbers on disk every half second.
const COUNTED_LATE: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// The backup in the database that is or was restored.
    pub backup: String,
    /// The database that is kept aside now.
    pub aside: String,
    /// Rows that were lost by it, at most.
    pub lost: u64,
    /// For how long nobody could connect, in milliseconds.
    pub gap_ms: u64,
    /// Whether it was so before it was asked for.
    pub already: bool,
}

/// Puts the restored database in the live one's place, if not more than `accepted_loss` rows are lost by it. Counted
/// again when nobody can write any more; if it has grown, everything stays as it is.
pub async fn swap(
    settings: &Settings,
    id: &str,
    accepted_loss: u64,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Swapped, Problem> {
    let id = BackupId::parse(id)?;
    authority.check()?;
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    finish(settings, guard.session().client()).await?;
    let Some(mut record) = Record::read(settings)?.filter(|record| record.backup == id.as_str()) else {
        return Err(missing(id.as_str()));
    };
    match record.stage {
        Stage::Ready => {}
        Stage::Swapped => return Ok(Swapped { already: true, ..told(&record, &record.replaced.aside) }),
        _ => return Err(missing(id.as_str())),
    }
    let client = guard.session().client();
    must_stand(client, settings, record.replaced.oid, (record.restored.oid, &record.restored.aside)).await?;
    // The name was chosen when the restore began; somebody may have taken it meanwhile.
    record.replaced.aside = free_name(client, || old_name(settings)).await?;
    looks_alike(client, settings, &id, &record.restored.aside).await?;
    let live = Session::open(settings, &settings.name, "swap").await?;
    must_not_be_fenced(&live, authority).await?;
    raise_fence(settings, &record.restored.aside, authority).await?;
    gate::must_be_endable(client, [record.replaced.oid, record.restored.oid]).await?;
    let counters_complete = Server::ask(guard.session()).await?.counters_complete();
    // Compared shortly before, with nobody kept waiting, that need not be done again: what came since is counted.
    let known = match counters_complete {
        true => since_compared(settings, &live, &record).await?,
        false => None,
    };
    let (lost, written) = match known.filter(|(lost, _)| *lost <= accepted_loss) {
        Some(known) => known,
        None => {
            let (loss, written) = exact(settings, &live, &record, TABLE_WAIT_IN_SWAP, progress).await?;
            (loss.total(), written)
        }
    };
    progress.done();
    if lost > accepted_loss {
        return Err(grown(lost, accepted_loss));
    }

    // Nobody writes to it yet: what is written from now on would be lost by a swap back.
    record.at_swap = Some(written_in(settings, &record.restored.aside).await?);
    let mut renamer = Renamer::open(settings).await?;
    authority.check()?;
    record.at(Stage::Swapping, settings)?;
    let cut = Cut::armed(settings);
    failpoint::pass("swap-intended");
    let (shut_at, mut gap_ms) = (Instant::now(), 0);
    let outcome = async {
        let client = guard.session().client();
        let both = [record.replaced.oid, record.restored.oid];
        gate::shut(client, &settings.name).await?;
        failpoint::pass("swap-shut");
        let emptied = async {
            gate::clear(client, both, live.pid()).await?;
            failpoint::pass("swap-cleared");
            let lost = match Written::ask(live.client()).await?.since(&written) {
                Some(more) if counters_complete => lost.saturating_add(more),
                // Nobody can tell from outside: all of it is compared again.
                _ => exact(settings, &live, &record, TABLE_WAIT_IN_SWAP, progress).await?.0.total(),
            };
            if lost > accepted_loss {
                return Err(grown(lost, accepted_loss));
            }
            drop(live);
            gate::clear(client, both, 0).await?;
            Ok(lost)
        };
        let (live_name, restored) = (settings.name.as_str(), record.restored.aside.as_str());
        let names = [(live_name, record.replaced.aside.as_str()), (restored, live_name)];
        let lost = renamer.swap(client, record.replaced.oid, names, emptied, authority).await?;
        gap_ms = ms_since(shut_at);
        Ok(lost)
    }
    .await;
    let lost = outcome.as_ref().map_or(lost, |lost| *lost);
    settled(settings, &guard, cut, outcome, Stage::Swapped).await?;
    Ok(Swapped { lost, gap_ms, ..told(&record, &record.replaced.aside) })
}

/// Puts the old database back in its place, if not more than `accepted_loss` rows that were written since the swap are
/// lost by it. The restored one is kept aside, with them.
pub async fn swap_back(
    settings: &Settings,
    accepted_loss: u64,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Swapped, Problem> {
    authority.check()?;
    progress.say("restore: taking it back");
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    finish(settings, guard.session().client()).await?;
    let Some(mut record) = Record::read(settings)? else { return Err(nothing_to_take_back(settings)) };
    match record.stage {
        Stage::Swapped => {}
        // Also of a swap that never came to pass: what is asked for is that the one from before is live.
        Stage::TakenBack | Stage::Ready | Stage::Filling => {
            return Ok(Swapped { already: true, ..told(&record, &record.restored.aside) });
        }
        Stage::Swapping | Stage::SwappingBack => return Err(nothing_to_take_back(settings)),
    }
    let client = guard.session().client();
    must_stand(client, settings, record.restored.oid, (record.replaced.oid, &record.replaced.aside)).await?;
    let live = Session::open(settings, &settings.name, "swap").await?;
    must_not_be_fenced(&live, authority).await?;
    gate::must_be_endable(client, [record.replaced.oid, record.restored.oid]).await?;
    let lost = since_swap(&record, live.client()).await?;
    if lost > accepted_loss {
        return Err(grown(lost, accepted_loss));
    }
    let counters_complete = Server::ask(guard.session()).await?.counters_complete();

    let mut renamer = Renamer::open(settings).await?;
    authority.check()?;
    record.at(Stage::SwappingBack, settings)?;
    let cut = Cut::armed(settings);
    failpoint::pass("swap-intended");
    let (mut shut_at, mut gap_ms) = (Instant::now(), 0);
    let outcome = async {
        let client = guard.session().client();
        let both = [record.replaced.oid, record.restored.oid];
        // Nobody knows its name yet; opened now, it is open in the moment when it is live.
        gate::open(client, &record.replaced.aside).await?;
        shut_at = Instant::now();
        gate::shut(client, &settings.name).await?;
        failpoint::pass("swap-shut");
        let emptied = async {
            gate::clear(client, both, live.pid()).await?;
            failpoint::pass("swap-cleared");
            if !counters_complete {
                tokio::time::sleep(COUNTED_LATE).await;
            }
            let lost = since_swap(&record, live.client()).await?;
            if lost > accepted_loss {
                return Err(grown(lost, accepted_loss));
            }
            drop(live);
            gate::clear(client, both, 0).await?;
            Ok(lost)
        };
        let (live_name, replaced) = (settings.name.as_str(), record.replaced.aside.as_str());
        let names = [(live_name, record.restored.aside.as_str()), (replaced, live_name)];
        let lost = renamer.swap(client, record.restored.oid, names, emptied, authority).await?;
        gap_ms = ms_since(shut_at);
        Ok(lost)
    }
    .await;
    let lost = outcome.as_ref().map_or(lost, |lost| *lost);
    progress.done();
    settled(settings, &guard, cut, outcome, Stage::TakenBack).await?;
    Ok(Swapped { lost, gap_ms, ..told(&record, &record.restored.aside) })
}

/// Rows that a swap back would lose now, by the count of the server that this session of the live database asks; 0 where a
/// swap was cut short and nobody has looked yet, none where no swap can be taken back.
pub async fn written_since_swap(settings: &Settings, live: &Session) -> Result<Option<u64>, Problem> {
    let Some(record) = Record::read(settings)? else { return Ok(None) };
    match record.stage {
        Stage::Swapped => since_swap(&record, live.client()).await.map(Some),
        Stage::Swapping | Stage::SwappingBack => Ok(Some(0)),
        Stage::Filling | Stage::Ready | Stage::TakenBack => Ok(None),
    }
}

/// Rows that were written since the swap. Where nobody can tell, because tables were made, emptied or rewritten since, or
/// the server has crashed and counts anew, it may be all of them.
async fn since_swap(record: &Record, live: &Client) -> Result<u64, Problem> {
    let written = Written::ask(live).await?;
    let since = match (&record.at_swap, record.written_at_swap) {
        (Some(then), _) => written.since(then),
        (None, Some(then)) => written.rows().checked_sub(then),
        (None, None) => Some(written.rows()),
    };
    match since {
        Some(rows) => Ok(rows),
        None => Ok(gate::all_rows(live).await?.max(written.rows()).max(1)),
    }
}

fn told(record: &Record, aside: &str) -> Swapped {
    Swapped { backup: record.backup.clone(), aside: aside.to_owned(), ..Swapped::default() }
}

fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn missing(backup: &str) -> Problem {
    Problem::new(
        Code::CopyMissing,
        format!("backup `{backup}` does not stand restored beside the live database"),
    )
    .hint(format!("`pointsman db restore ENV --backup {backup}`"))
}

fn nothing_to_take_back(settings: &Settings) -> Problem {
    Problem::new(Code::CopyMissing, format!("no restore of `{}` can be taken back", settings.name))
        .hint("`pointsman db status ENV` shows where a restore stands")
}

/// The databases must have the names that the record says: somebody may have renamed them.
async fn must_stand(
    client: &Client,
    settings: &Settings,
    live: u32,
    aside: (u32, &str),
) -> Result<(), Problem> {
    let live_name = name_of(client, live).await?;
    let aside_name = name_of(client, aside.0).await?;
    if live_name.as_ref() == Some(&settings.name) && aside_name.as_deref() == Some(aside.1) {
        return Ok(());
    }
    let message =
        format!("`{}` and `{}` are not the databases that the restore was made for", settings.name, aside.1);
    Err(Problem::new(Code::CopyMissing, message)
        .hint("`pointsman db status ENV`; then restore the backup again"))
}

/// Refuses a restored database whose sessions would see something else than those of the live one; where that is gone, than the
/// backup's manifest says of it. What roles have set for the database must go along, or the application would look for its tables
/// elsewhere.
pub async fn must_look_alike(settings: &Settings, backup: &str, restored: &str) -> Result<(), Problem> {
    let id = BackupId::parse(backup)?;
    let session = Session::open(settings, &settings.maintenance, "swap").await?;
    looks_alike(session.client(), settings, &id, restored).await
}

async fn looks_alike(
    client: &Client,
    settings: &Settings,
    backup: &BackupId,
    restored: &str,
) -> Result<(), Problem> {
    let live = to_be_dressed_as(settings, client, backup).await?;
    let lacking = live.lacking(&Shape::of(client, restored).await?, restored);
    let Some(first) = lacking.first() else { return Ok(()) };
    let message =
        format!("`{restored}` lacks a setting of the live database, which changes what its sessions see");
    let problem = Problem::new(Code::SwapRefused, message).hint(format!(
        "as a superuser, in any database: `{first};` and what else is named, then the same command again"
    ));
    Err(lacking.into_iter().fold(problem, Problem::cause))
}

/// A database whose epoch is newer is ruled by somebody else.
async fn must_not_be_fenced(live: &Session, authority: &dyn Authority) -> Result<(), Problem> {
    let failed = |error: tokio_postgres::Error| refused("ask for the epoch of the database", &error);
    let there = live
        .client()
        .query_one("SELECT to_regclass('pointsman.fence') IS NOT NULL", &[])
        .await
        .map_err(failed)?;
    if !field::<bool>(&there, 0)? {
        return Ok(());
    }
    let row = live
        .client()
        .query_one("SELECT coalesce(max(epoch), 0) FROM pointsman.fence", &[])
        .await
        .map_err(failed)?;
    let (ruling, own) = (field::<i64>(&row, 0)?, authority.epoch().0);
    if u64::try_from(ruling).unwrap_or(0) <= own {
        return Ok(());
    }
    let message = format!("a coordinator with epoch {ruling} rules the database, this one has {own}");
    Err(Problem::new(Code::Fenced, message))
}

/// Whatever came out: the databases themselves tell who is live, and whoever it is, is open. An answer that was lost
/// is no failure if the swap is there.
async fn settled(
    settings: &Settings,
    guard: &Guard,
    cut: Cut,
    outcome: Result<u64, Problem>,
    wanted: Stage,
) -> Result<(), Problem> {
    let stage = match finish(settings, guard.session().client()).await {
        Ok(stage) => stage,
        // The guard's session may be what ended.
        Err(_) => {
            let session = Session::open(settings, &settings.maintenance, "swap").await?;
            finish(settings, session.client()).await?
        }
    };
    cut.disarm();
    if stage == Some(wanted) { Ok(()) } else { outcome.map(drop) }
}
