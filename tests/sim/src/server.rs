//! The simulated database's server: databases by name with their schemas and rows, backups beside them, and the note of a
//! restore. Nothing of it goes away when the agent dies.

use std::collections::BTreeMap;

use pointsman_core::{ArtifactDigest, BackupId, Epoch, MigrationPhase, ReleaseId};

use crate::host::Tree;

/// How often visitors write a row, in milliseconds: seldom enough that a loss can be accepted and not grow.
const ROW_EVERY_MS: u64 = 9_000;

/// Versions of migrations, by the wish that brings them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions(u32);

impl Versions {
    /// These and one more.
    pub fn add(&mut self, version: u8) {
        self.0 |= 1_u32.checked_shl(u32::from(version)).unwrap_or(0);
    }

    /// These without one.
    pub fn remove(&mut self, version: u8) {
        self.0 &= !1_u32.checked_shl(u32::from(version)).unwrap_or(0);
    }

    /// Whether a version is among them.
    pub fn has(self, version: u8) -> bool {
        self.0.checked_shr(u32::from(version)).unwrap_or(0) & 1 == 1
    }

    /// Whether all of them are among others.
    pub fn within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Every one of them, in order.
    pub fn each(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |version| self.has(*version))
    }
}

/// What was applied to a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Versions whose expand statements are in effect.
    pub expanded: Versions,
    /// Versions whose contract statements are in effect.
    pub contracted: Versions,
    /// Versions that are recorded as expanded.
    pub expand_recorded: Versions,
    /// Versions that are recorded as contracted.
    pub contract_recorded: Versions,
}

impl Schema {
    /// The versions of a phase that are recorded.
    pub fn recorded(&self, phase: MigrationPhase) -> Versions {
        match phase {
            MigrationPhase::Expand => self.expand_recorded,
            MigrationPhase::Contract => self.contract_recorded,
            // What is taken back leaves no record: it can be expanded again.
            MigrationPhase::Down => Versions::default(),
        }
    }

    /// The versions of a phase that are in effect.
    pub fn effective(&self, phase: MigrationPhase) -> Versions {
        match phase {
            MigrationPhase::Expand => self.expanded,
            MigrationPhase::Contract => self.contracted,
            MigrationPhase::Down => Versions::default(),
        }
    }

    /// The statements of a version take effect.
    pub fn apply(&mut self, version: u8, phase: MigrationPhase) {
        match phase {
            MigrationPhase::Expand => self.expanded.add(version),
            MigrationPhase::Contract => self.contracted.add(version),
            MigrationPhase::Down => self.expanded.remove(version),
        }
    }

    /// A version is recorded.
    pub fn record(&mut self, version: u8, phase: MigrationPhase) {
        match phase {
            MigrationPhase::Expand => self.expand_recorded.add(version),
            MigrationPhase::Contract => self.contract_recorded.add(version),
            MigrationPhase::Down => self.expand_recorded.remove(version),
        }
    }
}

/// What a database is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// As the site knows it.
    Live,
    /// As nobody knows it: restored, or replaced.
    Aside,
    /// A copy that a rehearsal works on.
    Scratch,
}

/// One database. Its number stays when it is renamed.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name now.
    pub name: Name,
    /// Clients may connect.
    pub open: bool,
    /// What was applied to it.
    pub schema: Schema,
    /// The epoch that rules it.
    pub fence: Epoch,
    /// The backup it was restored from.
    pub origin: Option<BackupId>,
    rows: u64,
    written_since: Option<u64>,
}

impl Database {
    /// Rows in it now.
    pub fn rows(&self, now: u64) -> u64 {
        let since = self.written_since.map_or(0, |since| now.saturating_sub(since));
        self.rows.saturating_add(since / ROW_EVERY_MS)
    }

    /// Opens or shuts it, or gives it another name: visitors write only to what is open and live.
    fn change(&mut self, now: u64, name: Name, open: bool) {
        self.rows = self.rows(now);
        (self.name, self.open) = (name, open);
        self.written_since = (name == Name::Live && open).then_some(now);
    }
}

/// A backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What it is called.
    pub id: BackupId,
    /// The release it was taken for.
    pub release: ReleaseId,
    /// The database it is of.
    pub of: u32,
    /// What was applied by then.
    pub schema: Schema,
    /// Rows in it.
    pub rows: u64,
    /// It cannot be restored.
    pub damaged: bool,
    /// It was read to its end, or restored, and nothing was wrong.
    pub checked: bool,
    /// It is known to be damaged.
    pub given_up: bool,
}

/// How far a restore is, as the real agent notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The new database is being filled.
    Filling,
    /// It stands beside the live one.
    Ready,
    /// It is being put in the live one's place.
    Swapping,
    /// It is live.
    Swapped,
    /// The old one is being put back.
    SwappingBack,
    /// The old one is live again.
    TakenBack,
}

/// The note of a restore.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub backup: BackupId,
    /// How far it is.
    pub stage: Stage,
    /// The restored database.
    pub restored: u32,
    /// The one that was live when it began.
    pub replaced: u32,
    /// Rows in the restored one when it was swapped.
    pub rows_at_swap: u64,
    /// Rows in the backup.
    pub rows_in_backup: u64,
}

/// The server, and what lies beside it on the host's disk.
#[derive(Clone, Debug)]
pub struct Server {
    /// Databases by number.
    pub databases: BTreeMap<u32, Database>,
    /// Backups, oldest first.
    pub backups: Vec<Backup>,
    /// The restore that is under way or not settled.
    pub restore: Option<Restore>,
    /// Files of migrations on the disk.
    pub trees: BTreeMap<ArtifactDigest, Tree>,
    last: u32,
}

impl Default for Server {
    fn default() -> Self {
        let live = Database {
            name: Name::Live,
            open: true,
            schema: Schema::default(),
            fence: Epoch::default(),
            origin: None,
            rows: 100,
            written_since: Some(0),
        };
        Self {
            databases: BTreeMap::from([(1, live)]),
            backups: Vec::new(),
            restore: None,
            trees: BTreeMap::new(),
            last: 1,
        }
    }
}

impl Server {
    /// The live database and its number; none while no database, or more than one, has its name.
    pub fn live(&self) -> Option<(u32, &Database)> {
        let mut live = self.databases.iter().filter(|(_, database)| database.name == Name::Live);
        live.next().filter(|_| live.next().is_none()).map(|(number, database)| (*number, database))
    }

    /// The live database, to change.
    pub fn live_mut(&mut self) -> Option<&mut Database> {
        self.databases.values_mut().find(|database| database.name == Name::Live)
    }

    /// The backup of this name.
    pub fn backup(&self, id: &BackupId) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.id == *id)
    }

    /// The backup of what is live that was taken for a release and is not known to be damaged.
    pub fn backup_of(&self, release: &ReleaseId) -> Option<usize> {
        let (live, _) = self.live()?;
        let ours = |backup: &Backup| backup.release == *release && backup.of == live && !backup.given_up;
        self.backups.iter().rposition(ours)
    }

    /// Takes a backup of the live database.
    pub fn take(&mut self, release: &ReleaseId, now: u64, damaged: bool) {
        let Ok(id) = BackupId::parse(&format!("b{}-{release}", self.backups.len())) else { return };
        let Some((of, live)) = self.live() else { return };
        let (schema, rows, release) = (live.schema, live.rows(now), release.clone());
        self.backups.push(Backup { id, release, of, schema, rows, damaged, checked: false, given_up: false });
    }

    /// Makes a database out of a backup.
    pub fn copy(&mut self, id: &BackupId, name: Name) -> Option<u32> {
        let backup = self.backup(id)?;
        let database = Database {
            name,
            open: true,
            schema: backup.schema,
            fence: Epoch::default(),
            origin: Some(id.clone()),
            rows: backup.rows,
            written_since: None,
        };
        self.last += 1;
        self.databases.insert(self.last, database);
        Some(self.last)
    }

    /// Shuts the live database, or opens it.
    pub fn let_in(&mut self, now: u64, open: bool) {
        if let Some(live) = self.live_mut() {
            live.change(now, Name::Live, open);
        }
    }

    /// Gives a database another name.
    pub fn rename(&mut self, number: u32, name: Name, now: u64) {
        if let Some(database) = self.databases.get_mut(&number) {
            let open = database.open;
            database.change(now, name, open);
        }
    }

    /// Rows that are lost when the live database gives way to the other one of the restore.
    pub fn loss(&self, now: u64) -> u64 {
        let (Some(restore), Some((number, live))) = (&self.restore, self.live()) else { return 0 };
        let kept = if number == restore.restored { restore.rows_at_swap } else { restore.rows_in_backup };
        live.rows(now).saturating_sub(kept)
    }

    /// What an agent says of a swap that can be taken back.
    pub fn written_since_swap(&self, now: u64) -> Option<u64> {
        match self.restore.as_ref()?.stage {
            Stage::Swapped => Some(self.loss(now)),
            Stage::Swapping | Stage::SwappingBack => Some(0),
            Stage::Filling | Stage::Ready | Stage::TakenBack => None,
        }
    }

    /// Ends a swap that was cut short: whoever is live is open, and it is noted who that is.
    pub fn finish(&mut self, now: u64) {
        let Some(live) = self.live().map(|(number, _)| number) else { return };
        let Some(restore) = &mut self.restore else { return };
        restore.stage = match (restore.stage, live == restore.restored) {
            (Stage::Swapping, true) | (Stage::SwappingBack, true) => Stage::Swapped,
            (Stage::Swapping, false) => Stage::Ready,
            (Stage::SwappingBack, false) => Stage::TakenBack,
            _ => return,
        };
        self.let_in(now, true);
    }

    /// Drops what a rehearsal left.
    pub fn drop_scratch(&mut self) {
        self.databases.retain(|_, database| database.name != Name::Scratch);
    }
}
