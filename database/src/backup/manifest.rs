//! What is written beside a backup: everything that a check or a restore must know and the dump does not tell. Its
//! presence is what makes a backup complete, so it is written last.

use std::io;
use std::path::Path;

use pointsman_core::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::name::BackupId;
use super::part::{self, Part};
use crate::contents::Contents;
use crate::shape::Shape;
use crate::{BackupFormat, VerifyLevel};

/// The version of the form below.
const SCHEMA: u32 = 1;
/// The ending of a manifest.
pub(crate) const ENDING: &str = ".manifest.json";
/// The ending of the mark of a check that passed.
pub(crate) const MARK_ENDING: &str = ".verified.json";
/// Longest manifest that is read: a hundred thousand tables need a tenth of it.
const MAX_BYTES: u64 = 256 << 20;

/// A backup's manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub schema: u32,
    /// The names of the files without their endings.
    pub id: String,
    /// The dump's file name.
    pub file: String,
    /// `custom` or `sql.gz`.
    pub format: Format,
    /// The release that it was taken for.
    pub release: String,
    /// The version that was about to be released.
    pub label: String,
    /// When its snapshot was taken, in milliseconds since 1970.
    pub taken_at_ms: u64,
    /// Its number among the backups in its folder, whatever the clock said; 0 in manifests of before they had one.
    #[serde(default)]
    pub sequence: u64,
    /// The dump's size.
    pub bytes: u64,
    /// Its size before it was compressed.
    pub raw_bytes: u64,
    /// The size of the database on the server's disk, then; 0 in manifests of before it was told.
    #[serde(default)]
    pub database_bytes: u64,
    /// SHA-256 of the dump, in hexadecimal.
    pub sha256: String,
    /// The database's name.
    pub database: String,
    /// What tells the server's cluster from others.
    pub system: String,
    /// The server's version: `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// `pg_dump --version`.
    pub tool_version: String,
    /// `pg_current_snapshot()` of the dump.
    pub snapshot: String,
    /// `pg_current_wal_lsn()` before it.
    pub lsn: String,
    /// The highest version in the table of versions.
    pub schema_version: Option<String>,
    /// The database from outside.
    pub shape: Shape,
    /// What is in it.
    pub contents: Contents,
}

/// How the dump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// An archive of `pg_dump`, compressed with zstd.
    #[serde(rename = "custom")]
    Custom,
    /// Plain SQL, compressed with gzip.
    #[serde(rename = "sql.gz")]
    SqlGz,
}

impl From<BackupFormat> for Format {
    fn from(format: BackupFormat) -> Self {
        match format {
            BackupFormat::Custom => Self::Custom,
            BackupFormat::SqlGz => Self::SqlGz,
        }
    }
}

/// That a check passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    schema: u32,
    /// Of the dump that was checked: a mark says nothing of another one under the same name.
    pub sha256: String,
    pub level: Level,
    pub at_ms: u64,
}

/// How far it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    Digest,
    Read,
    RestoreTest,
}

impl From<VerifyLevel> for Level {
    fn from(level: VerifyLevel) -> Self {
        match level {
            VerifyLevel::Digest => Self::Digest,
            VerifyLevel::Read => Self::Read,
            VerifyLevel::RestoreTest => Self::RestoreTest,
        }
    }
}

impl From<Level> for VerifyLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Digest => Self::Digest,
            Level::Read => Self::Read,
            Level::RestoreTest => Self::RestoreTest,
        }
    }
}

impl Manifest {
    /// The version to write.
    pub(crate) fn schema() -> u32 {
        SCHEMA
    }

    /// 15 of a server 15.18.
    pub(crate) fn server_major(&self) -> Option<u32> {
        self.server_version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Writes it under the name that it has until the backup is complete: what a crash leaves then tells whose the other
    /// files are.
    pub(crate) fn withheld(&self, folder: &Path, id: &BackupId) -> io::Result<Part> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        part::written(&id.file(folder, ENDING), &text)
    }

    /// Reads the manifest of a backup.
    pub(crate) fn read(folder: &Path, id: &BackupId) -> Result<Self, Problem> {
        let path = id.file(folder, ENDING);
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("there is no backup `{}`", id.as_str());
                return Err(Problem::new(Code::BackupUnknown, message)
                    .hint("`pointsman db list ENV` shows the backups that are there"));
            }
            Err(error) => return Err(damaged(id, "its manifest cannot be read").because(&error)),
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(id, "its manifest cannot be read").because(&error))?;
        if manifest.schema != SCHEMA {
            let version = manifest.schema;
            return Err(damaged(id, &format!("its manifest has version {version}, not {SCHEMA}")));
        }
        // What the manifest names is opened: it must be this backup's.
        let expected = format!("{}{}", id.as_str(), super::name::ending(manifest.format.into()));
        if manifest.id != id.as_str() || manifest.file != expected {
            return Err(damaged(id, &format!("its manifest is that of `{}`", manifest.id)));
        }
        Ok(manifest)
    }
}

impl From<Format> for BackupFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Custom => Self::Custom,
            Format::SqlGz => Self::SqlGz,
        }
    }
}

/// A backup that cannot be what it was.
pub(crate) fn damaged(id: &BackupId, how: &str) -> Problem {
    Problem::new(Code::BackupDamaged, format!("backup `{}` is damaged: {how}", id.as_str()))
        .hint("`pointsman db backup ENV` takes another one; `pointsman db list ENV` shows the verified ones")
}

impl Mark {
    /// Notes durably that a check passed. A deeper one that is noted already stays.
    pub(crate) fn write(
        folder: &Path,
        id: &BackupId,
        sha256: &str,
        level: Level,
        at_ms: u64,
    ) -> io::Result<()> {
        if Self::read(folder, id).is_some_and(|mark| mark.sha256 == sha256 && mark.level > level) {
            return Ok(());
        }
        let mark = Self { schema: SCHEMA, sha256: sha256.to_owned(), level, at_ms };
        let text = serde_json::to_vec(&mark)?;
        pointsman_chassis::durable::replace(&id.file(folder, MARK_ENDING), &text, 0o600)
    }

    /// The mark of a backup, if it has one that can be read.
    pub(crate) fn read(folder: &Path, id: &BackupId) -> Option<Self> {
        let text = read_bounded(&id.file(folder, MARK_ENDING)).ok()?;
        serde_json::from_slice(&text).ok().filter(|mark: &Self| mark.schema == SCHEMA)
    }

    /// Takes it away: the backup turned out to be damaged.
    pub(crate) fn remove(folder: &Path, id: &BackupId) -> io::Result<()> {
        match std::fs::remove_file(id.file(folder, MARK_ENDING)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => pointsman_chassis::durable::sync_directory(folder),
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}
