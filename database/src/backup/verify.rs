//! Checks a backup: its digest, all of it, or by restoring it.

use std::time::Duration;

use pointsman_core::{Code, Problem};

use super::archive::Archive;
use super::catalog::Backup;
use super::manifest::{Format, Manifest, Mark, damaged};
use super::name::BackupId;
use super::{Jobs, stream, take};
use crate::guard::Guard;
use crate::scratch::{self, Scratch};
use crate::server::Server;
use crate::tools::Tools;
use crate::{Authority, Progress, Settings, VerifyLevel, copy, moment, room};

/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);
/// The longest check: beyond it something hangs.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A backup that passed.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The backup, with the mark of its deepest check.
    pub backup: Backup,
    /// The copy that it was restored into, if it was to be kept.
    pub scratch: Option<Scratch>,
}

/// Checks a backup to this level and notes durably that it passed. One that does not pass loses the mark that it had.
pub async fn verify(
    settings: &Settings,
    id: &str,
    level: VerifyLevel,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Verified, Problem> {
    let mut verified = bounded(settings, id, level, authority, progress).await?;
    if let Some(scratch) = verified.scratch.take() {
        scratch.remove(settings).await?;
    }
    Ok(verified)
}

/// Checks a backup by restoring it, and keeps the copy: whoever asked removes it.
pub async fn verify_keeping(
    settings: &Settings,
    id: &str,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<(Verified, Scratch), Problem> {
    let mut verified = bounded(settings, id, VerifyLevel::RestoreTest, authority, progress).await?;
    let scratch = verified.scratch.take().unwrap_or_else(|| Scratch::of(settings, id));
    Ok((verified, scratch))
}

async fn bounded(
    settings: &Settings,
    id: &str,
    level: VerifyLevel,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Verified, Problem> {
    let checked = tokio::time::timeout(LONGEST, checked(settings, id, level, authority, progress)).await;
    progress.done();
    checked.unwrap_or_else(|_| Err(Problem::new(Code::BackupFailed, "the check did not end within 24 hours")))
}

async fn checked(
    settings: &Settings,
    id: &str,
    level: VerifyLevel,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Verified, Problem> {
    let (id, folder) = (BackupId::parse(id)?, settings.backup.dir.as_path());
    authority.check()?;
    progress.say("check: waiting for other work on the database");
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let archive = Archive::open(folder, &id)?;
    let passed = passes(settings, &guard, &archive, level, authority, progress).await;
    if let Err(problem) = &passed
        && tells_of_the_backup(problem.code)
    {
        Mark::remove(folder, &id).unwrap_or_else(
            |error| tracing::warn!(backup = id.as_str(), %error, "cannot take the mark away"),
        );
    }
    let scratch = passed?;
    Mark::write(folder, &id, &archive.manifest.sha256, level.into(), moment::now_ms()).map_err(|error| {
        Problem::new(Code::FileSystem, format!("cannot note that `{}` was checked", id.as_str()))
            .because(&error)
    })?;
    Ok(Verified { backup: Backup::described(folder, &id, &archive.manifest), scratch })
}

/// Loads a backup into a database of its own, unchecked: only to measure how long that takes.
pub async fn load_into_scratch(
    settings: &Settings,
    id: &str,
    progress: &Progress,
) -> Result<Scratch, Problem> {
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let client = guard.session().client();
    let archive = Archive::open(&settings.backup.dir, &BackupId::parse(id)?)?;
    let tools = Tools::find(settings, Server::ask(guard.session()).await?.major()).await?;
    let scratch = Scratch::of(settings, id);
    scratch::drop_if_ours(client, &scratch.database).await?;
    let comment = Scratch::comment(settings, id);
    copy::create(settings, client, &archive.manifest.shape, &scratch.database, &comment).await?;
    let jobs = super::best(settings, &archive, &scratch.database).await?;
    super::load(settings, &tools, &archive, (&scratch.database, jobs), progress).await?;
    Ok(scratch)
}

/// Whether a failure says something about the backup, and not only about the moment.
fn tells_of_the_backup(code: Code) -> bool {
    matches!(code, Code::BackupDamaged | Code::BackupForeign | Code::BackupUnrestorable | Code::CopyDiffers)
}

async fn passes(
    settings: &Settings,
    guard: &Guard,
    archive: &Archive,
    level: VerifyLevel,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Option<Scratch>, Problem> {
    let server = Server::ask(guard.session()).await?;
    let tools = Tools::find(settings, server.major()).await?;
    must_be_whole(settings, archive, progress).await?;
    if archive.manifest.format == Format::Custom {
        archive.list(&tools).await?;
    }
    if level == VerifyLevel::Digest {
        return Ok(None);
    }
    archive.read_all(&tools, progress).await?;
    if level == VerifyLevel::Read {
        return Ok(None);
    }
    restore(settings, guard, &tools, archive, authority, progress).await.map(Some)
}

/// The backup must be one of this database.
pub(crate) fn must_be_of(settings: &Settings, manifest: &Manifest) -> Result<(), Problem> {
    if manifest.database == settings.name {
        return Ok(());
    }
    let message =
        format!("backup `{}` is one of `{}`, not of `{}`", manifest.id, manifest.database, settings.name);
    Err(Problem::new(Code::BackupForeign, message)
        .hint("`pointsman db list ENV` shows the backups that are there"))
}

/// The dump must be the one that was written, of this database.
pub(crate) async fn must_be_whole(
    settings: &Settings,
    archive: &Archive,
    progress: &Progress,
) -> Result<(), Problem> {
    let (manifest, folder) = (&archive.manifest, settings.backup.dir.as_path());
    let id = BackupId::parse(&manifest.id)?;
    must_be_of(settings, manifest)?;
    progress.say("check: reading the digest");
    let path = archive.path().to_owned();
    let reading = tokio::task::spawn_blocking(move || stream::digest(&path, |_| {}));
    let found = reading
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("its thread failed")))
        .map_err(|error| damaged(&id, "its dump cannot be read").because(&error))?;
    if found.bytes != manifest.bytes {
        return Err(damaged(&id, &format!("it has {} bytes instead of {}", found.bytes, manifest.bytes)));
    }
    let sum = take::sum_of(folder, &id).ok();
    if found.sha256 != manifest.sha256 || sum.is_some_and(|sum| sum != found.sha256) {
        return Err(damaged(&id, "its digest is another one"));
    }
    Ok(())
}

/// Restores it into a database of its own and compares that with the manifest. What failed is dropped: what it was
/// like stands in the problem.
async fn restore(
    settings: &Settings,
    guard: &Guard,
    tools: &Tools,
    archive: &Archive,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Scratch, Problem> {
    let (client, manifest) = (guard.session().client(), &archive.manifest);
    copy::must_be_possible(client, manifest).await?;
    let scratch = Scratch::of(settings, &manifest.id);
    scratch::drop_if_ours(client, &scratch.database).await?;
    room::for_copy(settings, guard.session(), manifest).await?;
    authority.check()?;
    guard.check()?;
    let comment = Scratch::comment(settings, &manifest.id);
    let name = scratch.database.as_str();
    copy::create(settings, client, &manifest.shape, name, &comment).await?;
    let filled = async {
        let jobs = super::best(settings, archive, name).await?;
        let filled = copy::fill(settings, tools, archive, (name, jobs), progress).await;
        if !copy::is_worth_one_job(&filled, jobs, progress) {
            return filled;
        }
        authority.check()?;
        guard.check()?;
        scratch::drop_if_ours(client, name).await?;
        copy::create(settings, client, &manifest.shape, name, &comment).await?;
        copy::fill(settings, tools, archive, (name, Jobs::One), progress).await
    };
    match filled.await {
        Ok(()) => Ok(scratch),
        Err(problem) => {
            if let Err(left) = scratch::drop_if_ours(client, &scratch.database).await {
                tracing::warn!(database = scratch.database, error = %left, "a copy is left over");
            }
            Err(problem)
        }
    }
}
