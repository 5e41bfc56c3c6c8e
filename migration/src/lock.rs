//! The locks of PostgreSQL on tables, and which a statement takes.

use crate::Relation;

/// A table lock's mode, weakest first. The order is that of PostgreSQL's documentation (13.3.1); it is total here and
/// stands for "locks out at least as much as" well enough to keep the strongest of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Reading.
    AccessShare,
    /// `SELECT … FOR UPDATE` and the like.
    RowShare,
    /// Writing rows.
    RowExclusive,
    /// `VACUUM`, `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT`.
    ShareUpdateExclusive,
    /// `CREATE INDEX`: no writes.
    Share,
    /// `CREATE TRIGGER`, `ADD FOREIGN KEY`: no writes, one at a time.
    ShareRowExclusive,
    /// `REFRESH MATERIALIZED VIEW CONCURRENTLY`: reads only.
    Exclusive,
    /// Nothing else, not even reads.
    AccessExclusive,
}

impl LockMode {
    /// The mode as `LOCK TABLE … IN … MODE` spells it.
    pub fn as_sql(self) -> &'static str {
        match self {
            LockMode::AccessShare => "ACCESS SHARE",
            LockMode::RowShare => "ROW SHARE",
            LockMode::RowExclusive => "ROW EXCLUSIVE",
            LockMode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            LockMode::Share => "SHARE",
            LockMode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            LockMode::Exclusive => "EXCLUSIVE",
            LockMode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// Whether visitors who read or write the table may have to wait for it.
    pub fn stalls_visitors(self) -> bool {
        self >= LockMode::Share
    }
}

/// A lock that a statement takes on a table that was there before the script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// The table.
    pub relation: Relation,
    /// How strongly.
    pub mode: LockMode,
    /// Whether partitions and children stay free, so that `LOCK TABLE` must say `ONLY` too.
    pub only: bool,
}
