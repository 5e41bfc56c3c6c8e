//! Where a restore stands, durably, beside the backups: written before anything changes that others can see. Databases
//! are told apart by their numbers, which stay when they are renamed.

use std::io;
use std::path::PathBuf;

use pointsman_core::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::gate::Written;
use super::loss::TableLoss;
use crate::{Settings, moment};

/// The version of the form below.
const SCHEMA: u32 = 1;
/// Longest record that is read.
const MAX_BYTES: u64 = 16 << 20;

/// The record of the restore that is under way, or that is not settled yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    schema: u32,
    /// The database.
    pub database: String,
    /// The backup that is restored.
    pub backup: String,
    /// Where it stands.
    pub stage: Stage,
    /// The restored database.
    pub restored: Named,
    /// The one that was live when the restore began.
    pub replaced: Named,
    /// What both databases were compared at, and what came out. Not there in records from before it was kept.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// What the server had counted right before the swap, to tell what a swap back would lose.
    #[serde(default)]
    pub at_swap: Option<Written>,
    /// The rows of it alone, in records from before all of it was kept.
    pub written_at_swap: Option<u64>,
}

/// A database by number and by the name that it has while it is not live. The number is 0 as long as it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub oid: u32,
    pub aside: String,
}

/// A comparison of both databases, and what the server had counted in each right before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// Rows that would be lost.
    pub lost: u64,
    /// When, in milliseconds since 1970; 0 in records from before it was kept.
    #[serde(default)]
    pub at_ms: u64,
    /// The tables that would lose most of them, and of how many tables they are.
    #[serde(default)]
    pub tables: Vec<TableLoss>,
    #[serde(default)]
    pub of_tables: usize,
    pub live: Written,
    pub restored: Written,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The new database is being filled.
    Filling,
    /// It stands beside the live one, complete and compared.
    Ready,
    /// It is being put in the live one's place; connections may be shut.
    Swapping,
    /// It is live. The old one is kept.
    Swapped,
    /// The old one is being put back; connections may be shut.
    SwappingBack,
    /// The old one is live again. The restored one is kept, with what was written to it.
    TakenBack,
}

impl Record {
    pub(crate) fn new(settings: &Settings, backup: &str, restored: Named, replaced: Named) -> Self {
        Self {
            schema: SCHEMA,
            database: settings.name.clone(),
            backup: backup.to_owned(),
            stage: Stage::Filling,
            restored,
            replaced,
            compared: None,
            at_swap: None,
            written_at_swap: None,
        }
    }

    fn path(settings: &Settings) -> PathBuf {
        settings.backup.dir.join("restore.json")
    }

    /// Reads the record of this database, if there is one.
    pub(crate) fn read(settings: &Settings) -> Result<Option<Self>, Problem> {
        use std::io::Read as _;
        let path = Self::path(settings);
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Problem::new(
                Code::FileSystem,
                format!("cannot read the record of a restore `{}`", path.display()),
            )
            .because(error)
        };
        let mut text = Vec::new();
        match std::fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
            Ok(file) => _ = file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| failed(&error))?,
        }
        let record: Self = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        if record.schema != SCHEMA {
            return Err(Problem::new(
                Code::StateTooNew,
                format!("`{}` has version {}, not {SCHEMA}", path.display(), record.schema),
            ));
        }
        Ok(Some(record).filter(|record| record.database == settings.name))
    }

    /// Writes it durably.
    pub(crate) fn write(&self, settings: &Settings) -> Result<(), Problem> {
        let path = Self::path(settings);
        let written = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| pointsman_chassis::durable::replace(&path, &text, 0o600));
        written.map_err(|error| {
            Problem::new(
                Code::FileSystem,
                format!("cannot write the record of a restore `{}`", path.display()),
            )
            .because(&error)
        })
    }

    /// The same at another stage, written durably.
    pub(crate) fn at(&mut self, stage: Stage, settings: &Settings) -> Result<(), Problem> {
        self.stage = stage;
        self.write(settings)
    }

    /// Removes it: nothing is to be settled any more.
    pub(crate) fn remove(settings: &Settings) -> Result<(), Problem> {
        let path = Self::path(settings);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Problem::new(Code::FileSystem, format!("cannot remove `{}`", path.display()))
                    .because(&error))
            }
            _ => Ok(()),
        }
    }
}

/// A name for the live database once it is put aside: `p2d2_old_20240115t101500z`.
pub(crate) fn old_name(settings: &Settings) -> String {
    format!("{}_old_{}", settings.name, moment::stamp(moment::now_ms()).to_ascii_lowercase())
}

/// A name for a restored database: `p2d2_restore_20240115t101500z`.
pub(crate) fn restore_name(settings: &Settings) -> String {
    format!("{}_restore_{}", settings.name, moment::stamp(moment::now_ms()).to_ascii_lowercase())
}
