//! What is in a database, as far as it can be compared with a copy: the tables and how many rows they hold, sequences,
//! large objects, extensions, owners, and how many there are of everything else.

mod compare;
mod elsewhere;
mod inventory;
mod scattered;
mod schema_version;

pub use elsewhere::View;

pub(crate) use compare::{Differences, differences};
pub(crate) use elsewhere::{empty, filled_from_elsewhere};
pub(crate) use inventory::{counters, sequences, take};
pub(crate) use scattered::{Name, Scattered, unseen_by_pg_dump};
pub(crate) use schema_version::schema_version;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What is in a database. Part of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Tables with rows of their own.
    pub tables: Vec<Table>,
    /// Sequences.
    pub sequences: Vec<Sequence>,
    /// How many large objects there are.
    pub large_objects: u64,
    /// Extensions and their versions.
    pub extensions: BTreeMap<String, String>,
    /// Whose each of them is, and where; of backups of before none.
    #[serde(default)]
    pub homes: BTreeMap<String, Home>,
    /// Roles that own something, or were granted something.
    pub roles: BTreeSet<String>,
    /// How many there are of each other kind: indexes, constraints, triggers, functions, views, policies, types.
    pub objects: BTreeMap<String, u64>,
    /// Materialized views that were filled from other databases, those first that others read: a restore fills none of them. Of
    /// backups of before none.
    #[serde(default)]
    pub filled_from_elsewhere: Vec<View>,
}

/// Where an extension is, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Whose the extension is.
    pub owner: String,
    /// The schema that it is in.
    pub schema: String,
    /// Whose the schema is; none where the extension itself made it.
    pub schema_owner: Option<String>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Who owns it; empty of a table of an extension, whose owner no dump knows.
    pub owner: String,
    /// Its rows; of a table that belongs to an extension only those that a dump holds.
    pub rows: u64,
    /// What the server's counters said, to estimate later what was written since.
    pub counters: Counters,
}

/// What the server counts of a table since its statistics began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A sequence, which does not belong to a snapshot: what it stood at before and after the dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its last value before the dump.
    pub before: i64,
    /// Its last value after the dump.
    pub after: i64,
}

impl Contents {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}
