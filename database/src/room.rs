//! Whether there is room for what is about to be written.

use std::path::Path;

use pointsman_core::{Code, Problem};

use crate::statement::{field, refused};
use crate::{Session, Settings, backup};

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

/// Free bytes where the server keeps its data, as far as the role may know where that is.
pub(crate) async fn free_for_data(session: &Session) -> Option<u64> {
    let asked = session.client().query_one("SHOW data_directory", &[]).await.ok()?;
    let folder: String = field(&asked, 0).ok()?;
    free(Path::new(&folder)).ok()
}

/// Refuses when a copy will probably not fit beside the live database.
pub(crate) async fn for_copy(settings: &Settings, session: &Session) -> Result<(), Problem> {
    let Some(free) = free_for_data(session).await else { return Ok(()) };
    let needed = database_bytes(session, &settings.name).await?.saturating_mul(COPY_PERCENT) / 100;
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
