//! Whether there is room for what is about to be written.

use std::path::{Path, PathBuf};

use pointsman_core::{Code, Problem};

use crate::backup::{self, Manifest};
use crate::statement::{field, refused};
use crate::{Session, Settings};

/// The share of the database that the first dump is expected to take; later ones go by the last.
const FIRST_SHARE_PERCENT: u64 = 50;
/// How much more than the last time.
const MARGIN_PERCENT: u64 = 130;

/// Bytes that the agent's user may still write there.
pub(crate) fn free(folder: &Path) -> Result<u64, Problem> {
    let found = rustix::fs::statvfs(folder).map_err(|error| {
        Problem::new(Code::FileSystem, format!("cannot look at `{}`", folder.display()))
            .because(&std::io::Error::from(error))
    })?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The size of the database.
pub(crate) async fn database_bytes(session: &Session, name: &str) -> Result<u64, Problem> {
    let row = session
        .client()
        .query_one("SELECT pg_database_size($1::text::name)", &[&name])
        .await
        .map_err(|error| refused("ask for the size of the database", &error))?;
    Ok(field::<i64>(&row, 0)?.unsigned_abs())
}

/// Refuses when the dump will probably not fit.
pub(crate) async fn for_dump(settings: &Settings, session: &Session) -> Result<(), Problem> {
    let database = database_bytes(session, &settings.name).await?;
    let folder = &settings.backup.dir;
    let likely = match backup::last_sizes(folder, &settings.name) {
        Some((bytes, _)) => bytes.saturating_mul(MARGIN_PERCENT) / 100,
        None => database.saturating_mul(FIRST_SHARE_PERCENT) / 100,
    };
    let (needed, free) = (likely.saturating_add(settings.backup.floor_bytes), free(folder)?);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "not enough room in `{}` for a backup: {} MiB are needed, of which {} MiB stay free, and {} MiB are free",
        folder.display(),
        needed >> 20,
        settings.backup.floor_bytes >> 20,
        free >> 20
    );
    Err(Problem::new(Code::NoRoom, message)
        .hint("make room in the folder of backups: `df -h`, `pointsman db list ENV`"))
}

/// How much more than the live database a copy of it may take for a while: its log and its indexes being built.
const COPY_PERCENT: u64 = 120;

/// Where the server keeps the database's files, as far as the role may know and the agent may look.
async fn data_folder(settings: &Settings, session: &Session) -> Option<PathBuf> {
    if !settings.is_here() {
        return None;
    }
    let sql = "SELECT coalesce(nullif(pg_tablespace_location(dattablespace), ''), current_setting('data_directory'))
                 FROM pg_database WHERE datname = $1";
    let asked = session.client().query_opt(sql, &[&settings.name]).await.ok()??;
    field::<String>(&asked, 0).ok().map(PathBuf::from)
}

/// Free bytes where the server keeps its data, as far as the role may know where that is.
pub(crate) async fn free_for_data(settings: &Settings, session: &Session) -> Option<u64> {
    free(&data_folder(settings, session).await?).ok()
}

/// What a copy of a backup may take for a while: the database may have been greater when it was taken than it is now, where
/// the manifest tells that.
pub(crate) async fn of_copy(
    settings: &Settings,
    session: &Session,
    manifest: &Manifest,
) -> Result<u64, Problem> {
    let now = database_bytes(session, &settings.name).await?;
    Ok(now.max(manifest.database_bytes).saturating_mul(COPY_PERCENT) / 100)
}

/// What may be written to the folder of backups while a copy of a backup is made: where the server's data are on the same
/// filesystem, or nobody knows, the copy needs its own room there.
pub(crate) async fn beside_copy(
    settings: &Settings,
    session: &Session,
    manifest: &Manifest,
) -> Result<u64, Problem> {
    let folder = &settings.backup.dir;
    let free = free(folder)?.saturating_sub(settings.backup.floor_bytes);
    let device = |folder: &Path| rustix::fs::stat(folder).map(|stat| stat.st_dev).ok();
    let data = data_folder(settings, session).await.and_then(|data| device(&data));
    let apart = !settings.is_here() || data.is_some_and(|data| Some(data) != device(folder));
    if apart {
        return Ok(free);
    }
    Ok(free.saturating_sub(of_copy(settings, session, manifest).await?))
}

/// Refuses when a copy of a backup will probably not fit beside the live database.
pub(crate) async fn for_copy(
    settings: &Settings,
    session: &Session,
    manifest: &Manifest,
) -> Result<(), Problem> {
    let needed = of_copy(settings, session, manifest).await?;
    must_be_free(settings, session, needed).await
}

/// Refuses when a copy of the live database as it is now will probably not fit beside it.
pub(crate) async fn for_copy_of_live(settings: &Settings, session: &Session) -> Result<(), Problem> {
    let needed = database_bytes(session, &settings.name).await?.saturating_mul(COPY_PERCENT) / 100;
    must_be_free(settings, session, needed).await
}

async fn must_be_free(settings: &Settings, session: &Session, needed: u64) -> Result<(), Problem> {
    let Some(free) = free_for_data(settings, session).await else { return Ok(()) };
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "not enough room for a copy beside `{}`: {} MiB are needed and {} MiB are free",
        settings.name,
        needed >> 20,
        free >> 20
    );
    Err(Problem::new(Code::NoRoom, message).hint("make room where the server keeps its data: `df -h`"))
}
