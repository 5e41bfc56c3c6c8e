//! Restores a backup into a new database beside the live one, which nobody uses yet.

use std::time::Duration;

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::prepared;
use super::record::{Named, Record, Stage, old_name, restore_name};
use crate::backup::{self, Archive, BackupId, Jobs, Manifest, must_be_of, must_be_whole};
use crate::guard::Guard;
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, quoted, refused};
use crate::tools::Tools;
use crate::{Authority, Progress, Session, Settings, contents, copy, obstacle, room};

/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);
/// The longest restore: beyond it something hangs.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What is said of a database while it is filled.
const BEING_RESTORED: &str = "pointsman: being restored from ";
/// Names that are tried.
const MAX_NAMES: u32 = 100;

/// A restored database that stands ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Its name.
    pub database: String,
    /// The backup in it.
    pub backup: String,
    /// Statements that only a superuser may run and that would give it the rest of the live database's settings.
    pub not_copied: Vec<String>,
    /// Statements that fill its materialized views from other databases, in their order: no restore asks those.
    pub not_filled: Vec<String>,
    /// Whether it stood there before it was asked for.
    pub already: bool,
}

/// Restores a backup beside the live database and compares it with its manifest. Asked for again it finds what it made.
pub async fn beside(
    settings: &Settings,
    id: &str,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Beside, Problem> {
    let made = tokio::time::timeout(LONGEST, made(settings, id, authority, progress)).await;
    progress.done();
    made.unwrap_or_else(|_| {
        Err(Problem::new(Code::BackupUnrestorable, "the restore did not end within 24 hours"))
    })
}

/// What a restore is made from.
enum Source {
    /// A database that was restored ahead of need.
    Prepared(String),
    /// The backup's file, loaded with these tools.
    Archive(Tools),
}

async fn made(
    settings: &Settings,
    id: &str,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Beside, Problem> {
    let id = BackupId::parse(id)?;
    authority.check()?;
    progress.say("restore: waiting for other work on the database");
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let client = guard.session().client();
    let archive = Archive::open(&settings.backup.dir, &id)?;
    if let Some(database) = standing(settings, client, id.as_str()).await? {
        let shape = to_be_dressed_as(settings, client, &id).await?;
        let mut not_copied = dress(client, &shape, &database).await?;
        not_copied.extend(obstacle::to_be_set_by_hand(settings).await?);
        raise_fence(settings, &database, authority).await?;
        let not_filled = not_filled(settings, &archive.manifest, &database).await?;
        let backup = id.as_str().to_owned();
        return Ok(Beside { database, backup, not_copied, not_filled, already: true });
    }
    let server = Server::ask(guard.session()).await?;
    must_be_of(settings, &archive.manifest)?;
    let prepared = prepared::of(settings, client, &server, id.as_str()).await?;
    let source = match prepared {
        // What was loaded from the file was compared then, and nobody could change it since: the file is not read for it.
        Some(prepared) => Source::Prepared(prepared),
        None => {
            must_be_whole(settings, &archive, progress).await?;
            Source::Archive(Tools::find(settings, server.major()).await?)
        }
    };
    copy::must_be_possible(client, &archive.manifest).await?;
    let live = to_be_dressed_as(settings, client, &id).await?;
    room::for_copy(settings, guard.session(), &archive.manifest).await?;

    authority.check()?;
    guard.check()?;
    let name = free_name(client, || restore_name(settings)).await?;
    let shape = Shape {
        owner: live.owner.clone(),
        tablespace: live.tablespace.clone(),
        ..archive.manifest.shape.clone()
    };
    let comment = format!("{BEING_RESTORED}{}", id.as_str());
    // Written before it is there: what a crash leaves, perhaps a whole copy, is found by its name.
    let restored = Named { oid: 0, aside: name.clone() };
    let replaced = Named { oid: live.oid, aside: old_name(settings) };
    let mut record = Record::new(settings, id.as_str(), restored, replaced);
    record.write(settings)?;
    failpoint::pass("restore-recorded");
    let created = match &source {
        Source::Prepared(prepared) => {
            async {
                shape.create(client, &name, prepared).await?;
                copy::say_whose(client, &name, &comment).await
            }
            .await
        }
        Source::Archive(_) => copy::create(settings, client, &shape, &name, &comment).await,
    };
    if let Err(problem) = created {
        // Refused, it leaves nothing to settle; nor is a database of that name ours that somebody made a moment before.
        if is_taken(&problem) {
            Record::remove(settings)?;
        } else if let Ok(None) = still_aside(client, &record.restored).await {
            Record::remove(settings)?;
        }
        return Err(problem);
    }
    failpoint::pass("restore-created");
    record.restored.oid = Shape::of(client, &name).await?.oid;
    record.write(settings)?;

    match &source {
        Source::Prepared(_) => copy::compare(settings, &archive.manifest, &name, progress).await?,
        Source::Archive(tools) => {
            let jobs = backup::best(settings, &archive, &name).await?;
            let filled = copy::fill(settings, tools, &archive, (&name, jobs), progress).await;
            if copy::is_worth_one_job(&filled, jobs, progress) {
                authority.check()?;
                guard.check()?;
                // As before it was there: what a crash leaves is found by its name.
                record.restored.oid = 0;
                record.write(settings)?;
                copy::drop_database(client, &name).await?;
                let created = copy::create(settings, client, &shape, &name, &comment).await;
                // A database that somebody else made under that name meanwhile is not ours to settle.
                if created.as_ref().is_err_and(is_taken) {
                    Record::remove(settings)?;
                }
                created?;
                record.restored.oid = Shape::of(client, &name).await?.oid;
                record.write(settings)?;
                copy::fill(settings, tools, &archive, (&name, Jobs::One), progress).await?;
            } else {
                filled?;
            }
        }
    }
    if matches!(source, Source::Archive(_)) || !copy::is_analyzed(settings, &name).await? {
        progress.say("restore: gathering statistics");
        copy::analyze(settings, &name).await?;
    }
    let mut not_copied = dress(client, &live, &name).await?;
    not_copied.extend(obstacle::to_be_set_by_hand(settings).await?);
    raise_fence(settings, &name, authority).await?;
    record.at(Stage::Ready, settings)?;
    let not_filled = not_filled(settings, &archive.manifest, &name).await?;
    Ok(Beside { database: name, backup: id.as_str().to_owned(), not_copied, not_filled, already: false })
}

/// The database that was restored from this backup and stands ready. One that an earlier try left, or that was made
/// from another backup, is dropped; one that is live, or whose predecessor is kept, is not touched.
async fn standing(settings: &Settings, client: &Client, backup: &str) -> Result<Option<String>, Problem> {
    let Some(record) = Record::read(settings)? else { return Ok(None) };
    match record.stage {
        Stage::Swapping | Stage::SwappingBack => Err(cut_short(&settings.name)),
        Stage::Swapped => Err(Problem::new(
            Code::RestorePending,
            format!("the restore of `{}` is neither confirmed nor taken back", record.backup),
        )
        .hint("`pointsman db status ENV`; then confirm it, or take it back")),
        // What was written to the restored one is nowhere else.
        Stage::TakenBack => Record::remove(settings).map(|()| None),
        Stage::Filling | Stage::Ready => {
            let ours = still_aside(client, &record.restored).await?;
            if record.stage == Stage::Ready && record.backup == backup && ours.is_some() {
                return Ok(ours);
            }
            if let Some(name) = ours {
                copy::drop_database(client, &name).await?;
            }
            Record::remove(settings)?;
            Ok(None)
        }
    }
}

/// A swap that stands in the middle.
pub(crate) fn cut_short(database: &str) -> Problem {
    Problem::new(Code::SwapCutShort, format!("a swap of `{database}` was cut short"))
        .aftermath(pointsman_core::Aftermath::Unknown)
        .hint("`systemctl restart pointsman-agent` on the database host finishes it or opens the database again")
}

/// The name that a database has now.
pub(crate) async fn name_of(client: &Client, oid: u32) -> Result<Option<String>, Problem> {
    let row = client
        .query_opt("SELECT datname::text FROM pg_database WHERE oid = $1", &[&oid])
        .await
        .map_err(|error| refused("look for a database", &error))?;
    row.map(|row| field(&row, 0)).transpose()
}

/// The name of a database that still has the one that it was given. One whose number nobody came to write down had none to
/// itself: it is known by what is said of it, if anything is.
pub(crate) async fn still_aside(client: &Client, named: &Named) -> Result<Option<String>, Problem> {
    if named.oid != 0 {
        let name = name_of(client, named.oid).await?;
        return Ok(name.filter(|name| *name == named.aside));
    }
    let sql = "SELECT datname::text FROM pg_database
                WHERE datname = $1 AND starts_with(coalesce(shobj_description(oid, 'pg_database'), $2), $2)";
    let found = client.query_opt(sql, &[&named.aside, &BEING_RESTORED]).await;
    let found = found.map_err(|error| refused("look for a database", &error))?;
    found.map(|row| field(&row, 0)).transpose()
}

/// A name that no database has: never one that exists, whoever made it.
pub(crate) async fn free_name(client: &Client, wanted: impl Fn() -> String) -> Result<String, Problem> {
    let wanted = wanted();
    for attempt in 1..=MAX_NAMES {
        let name = if attempt == 1 { wanted.clone() } else { format!("{wanted}_{attempt}") };
        if Shape::ask(client, &name).await?.is_none() {
            return Ok(name);
        }
    }
    Err(Problem::new(Code::DatabaseUnfit, format!("there are {MAX_NAMES} databases called `{wanted}`")))
}

/// Whether a database could not be created because its name is taken.
fn is_taken(problem: &Problem) -> bool {
    problem.causes.iter().any(|cause| cause.starts_with(SqlState::DUPLICATE_DATABASE.code()))
}

/// What a restored database is given beside what a dump holds: what the live one has. One in which nothing is was made in the
/// place of one that is gone: what that had is in the backup's manifest, and what an extension has set for the new one counts for
/// nothing.
pub(crate) async fn to_be_dressed_as(
    settings: &Settings,
    client: &Client,
    backup: &BackupId,
) -> Result<Shape, Problem> {
    let live = Shape::of(client, &settings.name).await?;
    let session = Session::open(settings, &settings.name, "restore").await?;
    let sql = "SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                   AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i')))";
    let row = session.client().query_one(sql, &[]).await;
    let is_bare: bool = field(&row.map_err(|error| refused("look into the live database", &error))?, 0)?;
    if !is_bare {
        return Ok(live);
    }
    let manifest = Manifest::read(&settings.backup.dir, backup)?;
    Ok(Shape { oid: live.oid, owner: live.owner, tablespace: live.tablespace, ..manifest.shape })
}

/// Gives it what the live one has and a dump does not hold. What the role may not set is told.
async fn dress(client: &Client, live: &Shape, name: &str) -> Result<Vec<String>, Problem> {
    let mut not_copied = Vec::new();
    for statement in live.dressing(name) {
        if let Err(error) = set(client, &statement, live.role_of(&statement, name)).await? {
            if error.as_db_error().is_none() {
                return Err(refused("copy the settings of the live database", &error));
            }
            // Whatever is set may be secret: what it is called is enough to set it again.
            let statement = live.told(&statement, name);
            tracing::warn!(statement, %error, "a setting of the live database could not be copied");
            not_copied.push(statement);
        }
    }
    Ok(not_copied)
}

/// Statements that fill what is filled from other databases, as long as nobody has.
async fn not_filled(settings: &Settings, manifest: &Manifest, name: &str) -> Result<Vec<String>, Problem> {
    let session = Session::open(settings, name, "restore").await?;
    let empty = contents::empty(session.client(), &manifest.contents.filled_from_elsewhere).await?;
    Ok(empty.into_iter().map(|view| format!("REFRESH MATERIALIZED VIEW {view}")).collect())
}

/// Runs such a statement. What is set of a role that role may set itself, and so may whoever can act as it.
async fn set(
    client: &Client,
    statement: &str,
    role: Option<&str>,
) -> Result<Result<(), tokio_postgres::Error>, Problem> {
    let done = client.batch_execute(statement).await;
    let lacks = |error: &tokio_postgres::Error| error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
    let Some(role) = role.filter(|_| done.as_ref().is_err_and(lacks)) else { return Ok(done) };
    if client.batch_execute(&format!("SET ROLE {}", quoted(role))).await.is_err() {
        return Ok(done);
    }
    let done = client.batch_execute(statement).await;
    let reset = client.batch_execute("RESET ROLE").await;
    reset.map_err(|error| refused("act as the agent's own role again", &error))?;
    Ok(done)
}

/// A restored copy carries the epoch of its time: the one that rules now must stand in it before anybody uses it.
pub(crate) async fn raise_fence(
    settings: &Settings,
    name: &str,
    authority: &dyn Authority,
) -> Result<(), Problem> {
    authority.check()?;
    let session = Session::open(settings, name, "fence").await?;
    let epoch = i64::try_from(authority.epoch().0).unwrap_or(i64::MAX);
    let failed = |error: tokio_postgres::Error| refused("raise the epoch of the restored database", &error);
    let there = session
        .client()
        .query_one("SELECT to_regclass('pointsman.fence') IS NOT NULL", &[])
        .await
        .map_err(failed)?;
    if field(&there, 0)? {
        let raise = "UPDATE pointsman.fence SET epoch = greatest(epoch, $1)";
        session.client().execute(raise, &[&epoch]).await.map_err(failed)?;
    }
    Ok(())
}
