//! The database's part of a release: what is frozen of it when the plan is made.

use crate::{ArtifactDigest, BackupId, HostName};

/// How far a backup is checked before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerifyLevel {
    /// Exit codes, end marker and digest.
    Digest,
    /// All of it is read.
    Read,
    /// It is restored into a database of its own and compared with its manifest.
    RestoreTest,
}

impl VerifyLevel {
    /// Every level, for tables.
    pub const ALL: [Self; 3] = [Self::Digest, Self::Read, Self::RestoreTest];

    /// The word in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Read => "read",
            Self::RestoreTest => "restore-test",
        }
    }

    /// Finds the level that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// Which files of a folder with migrations are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MigrationPhase {
    /// Those that the version which still serves does not notice: before any visitor meets the new one.
    Expand,
    /// Those that it would not survive: once nobody can be led back to it.
    Contract,
    /// Those that take an expand file back.
    Down,
}

impl MigrationPhase {
    /// The word in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
            Self::Down => "down",
        }
    }

    /// Finds the phase that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Expand, Self::Contract, Self::Down].into_iter().find(|phase| phase.as_str() == text)
    }
}

/// The migrations that a release brings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Migrations {
    /// The artifact with the files.
    pub artifact: ArtifactDigest,
    /// Which of them.
    pub phase: MigrationPhase,
    /// The versions that are to be applied, in order, without `v`.
    pub versions: Vec<String>,
    /// Versions among them that are older than one which is applied, as the release says in so many words.
    pub out_of_order: Vec<String>,
    /// How long a request may wait for a lock of a migration, in milliseconds: then the migration lets go.
    pub max_stall_ms: u64,
    /// How long a migration tries to get its locks, in milliseconds.
    pub lock_budget_ms: u64,
}

/// What a release has to do with the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabasePlan {
    /// The database's host.
    pub host: HostName,
    /// The migrations, where it has some.
    pub migrations: Option<Migrations>,
    /// How far the backup is checked.
    pub verify: VerifyLevel,
    /// Visitors are kept away while another database is put in the live one's place.
    pub keeps_away: bool,
    /// Bound on one attempt to take, check or restore a backup, in milliseconds.
    pub backup_ms: u64,
    /// Bound on one attempt to rehearse or apply migrations, in milliseconds.
    pub migrate_ms: u64,
}

/// What is wanted of the database alone: nothing of it moves visitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseWork {
    /// A verified backup.
    Backup,
    /// A backup that was taken before, checked again.
    Verify {
        /// The backup.
        backup: BackupId,
    },
    /// The migrations that the version before would not have survived.
    Contract,
    /// The newest version taken back by its down file.
    Down {
        /// The version, without `v`.
        version: String,
    },
    /// A backup restored beside the live database, compared with its manifest and with what is live.
    Restore {
        /// The backup.
        backup: BackupId,
    },
    /// The restored database in the place of the live one.
    Swap {
        /// The backup it was restored from.
        backup: BackupId,
        /// How many rows written since then a person gives up.
        accept_loss: u64,
    },
    /// The database that was live before such a swap in its place again.
    SwapBack {
        /// The backup that had taken its place.
        backup: BackupId,
        /// How many rows written since the swap a person gives up.
        accept_loss: u64,
    },
    /// The other database of a restore dropped: the one that was live before a swap or, without one, the restored one.
    Settle {
        /// The backup.
        backup: BackupId,
    },
}

/// Which database is to be the live one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SwapTo {
    /// The one restored from the backup, if no more rows are lost with the other than a person accepted.
    Restored {
        /// That many.
        accept_loss: u64,
    },
    /// The one that was live before, under the same condition.
    Before {
        /// That many.
        accept_loss: u64,
    },
}
