//! The backups that lie in the folder.

use std::path::Path;

use pointsman_core::{Code, Problem};

use super::manifest::{ENDING, Manifest, Mark};
use super::name::{self, BackupId};
use super::part;
use crate::{BackupFormat, Settings, VerifyLevel};

/// Most backups that are looked at: a folder with more holds something else.
const MAX_LISTED: usize = 100_000;

/// A backup in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What it is called: the names of its files without their endings.
    pub id: String,
    /// The dump's file name.
    pub file: String,
    /// The dump's size.
    pub bytes: u64,
    /// When its snapshot was taken, in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// Its number among the backups in its folder; 0 where none had one yet, or that cannot be read.
    pub sequence: u64,
    /// The release that it was taken for.
    pub release: String,
    /// The version that was about to be released.
    pub label: String,
    /// The database.
    pub database: String,
    /// The server's version.
    pub server_version: String,
    /// The highest version in the table of versions, then.
    pub schema_version: Option<String>,
    /// Rows of all tables.
    pub rows: u64,
    /// The deepest check that it passed.
    pub verified: Option<VerifyLevel>,
    /// When it passed it, in milliseconds since 1970.
    pub verified_at_ms: Option<u64>,
    /// Whether it was there before it was asked for.
    pub already: bool,
    /// Why it is none: its manifest cannot be read, its dump is gone or has another size.
    pub fault: Option<String>,
}

impl Backup {
    pub(crate) fn of(folder: &Path, id: &BackupId) -> Self {
        match Manifest::read(folder, id) {
            Ok(manifest) => Self::described(folder, id, &manifest),
            Err(problem) => Self::unreadable(id, &problem),
        }
    }

    pub(crate) fn described(folder: &Path, id: &BackupId, manifest: &Manifest) -> Self {
        let mark = Mark::read(folder, id).filter(|mark| mark.sha256 == manifest.sha256);
        let fault = match std::fs::metadata(folder.join(&manifest.file)) {
            Err(error) => Some(format!("`{}` cannot be read: {error}", manifest.file)),
            Ok(found) if found.len() != manifest.bytes => {
                Some(format!("`{}` has {} bytes instead of {}", manifest.file, found.len(), manifest.bytes))
            }
            Ok(_) => None,
        };
        Self {
            id: id.as_str().to_owned(),
            file: manifest.file.clone(),
            bytes: manifest.bytes,
            taken_at_ms: manifest.taken_at_ms,
            sequence: manifest.sequence,
            release: manifest.release.clone(),
            label: manifest.label.clone(),
            database: manifest.database.clone(),
            server_version: manifest.server_version.clone(),
            schema_version: manifest.schema_version.clone(),
            rows: manifest.contents.rows(),
            verified: mark.as_ref().map(|mark| mark.level.into()),
            verified_at_ms: mark.map(|mark| mark.at_ms),
            already: false,
            fault,
        }
    }

    fn unreadable(id: &BackupId, problem: &Problem) -> Self {
        Self {
            id: id.as_str().to_owned(),
            file: String::new(),
            bytes: 0,
            taken_at_ms: 0,
            sequence: 0,
            release: String::new(),
            label: String::new(),
            database: String::new(),
            server_version: String::new(),
            schema_version: None,
            rows: 0,
            verified: None,
            verified_at_ms: None,
            already: false,
            fault: Some(problem.message.clone()),
        }
    }
}

/// All backups of the database, the oldest first: by their numbers, and by their times only where they have none, because a
/// clock that was set would have the newest given up. Those that are damaged on the face of it are among them.
pub async fn list(settings: &Settings) -> Result<Vec<Backup>, Problem> {
    let (folder, database) = (settings.backup.dir.clone(), settings.name.clone());
    let looking = tokio::task::spawn_blocking(move || found(&folder, &database));
    looking.await.unwrap_or_else(|_| Err(Problem::new(Code::FileSystem, "cannot list backups")))
}

/// The same, on a thread that may block.
pub(crate) fn found(folder: &Path, database: &str) -> Result<Vec<Backup>, Problem> {
    let mut backups: Vec<Backup> = ids(folder)?.iter().map(|id| Backup::of(folder, id)).collect();
    // What cannot be read may be anybody's, and should be seen.
    backups.retain(|backup| backup.database == database || backup.fault.is_some());
    backups.sort_by(|a, b| (a.sequence, a.taken_at_ms, &a.id).cmp(&(b.sequence, b.taken_at_ms, &b.id)));
    Ok(backups)
}

/// The number of the next backup in a folder.
pub(crate) fn next_number(folder: &Path) -> Result<u64, Problem> {
    let numbers = ids(folder)?.into_iter().map(|id| Backup::of(folder, &id).sequence);
    Ok(numbers.max().unwrap_or(0).saturating_add(1))
}

/// A database that has sound backups in the folder too, if there is one.
pub(crate) fn neighbour(folder: &Path, database: &str) -> Result<Option<String>, Problem> {
    let backups = ids(folder)?.into_iter().map(|id| Backup::of(folder, &id));
    let mut others = backups.filter(|backup| backup.fault.is_none() && backup.database != database);
    Ok(others.next().map(|backup| backup.database))
}

/// Dumps in our format that no manifest tells of: a crash of an agent from before it left a trace, or a person, took that away.
pub(crate) fn untold(folder: &Path) -> Result<Vec<String>, Problem> {
    let dumped = stems(folder, name::ending(BackupFormat::Custom))?;
    let path = |id: &BackupId, ending: &str| id.file(folder, &format!("{ENDING}{ending}"));
    let told = |id: &BackupId| path(id, "").exists() || path(id, part::ENDING).exists();
    Ok(dumped.into_iter().filter(|id| !told(id)).map(|id| id.as_str().to_owned()).collect())
}

fn ids(folder: &Path) -> Result<Vec<BackupId>, Problem> {
    stems(folder, ENDING)
}

fn stems(folder: &Path, ending: &str) -> Result<Vec<BackupId>, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(Code::FileSystem, format!("cannot list the folder of backups `{}`", folder.display()))
            .because(&error)
            .hint(
                "`dir` in the agent's [database.backup] section must be a folder that the agent may write to",
            )
    };
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)?.take(MAX_LISTED) {
        let name = entry.map_err(failed)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(ending));
        ids.extend(stem.and_then(|stem| BackupId::parse(stem).ok()));
    }
    Ok(ids)
}

/// Size of the newest sound dump and of what was in it, to judge how much room the next one needs.
pub(crate) fn last_sizes(folder: &Path, database: &str) -> Option<(u64, u64)> {
    let backups = found(folder, database).ok()?;
    let newest = backups.into_iter().rev().find(|backup| backup.fault.is_none())?;
    let manifest = Manifest::read(folder, &BackupId::parse(&newest.id).ok()?).ok()?;
    Some((manifest.bytes, manifest.raw_bytes))
}
