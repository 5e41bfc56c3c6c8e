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

    /// The mode as `pg_locks` spells it.
    pub fn in_catalog(self) -> &'static str {
        match self {
            LockMode::AccessShare => "AccessShareLock",
            LockMode::RowShare => "RowShareLock",
            LockMode::RowExclusive => "RowExclusiveLock",
            LockMode::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            LockMode::Share => "ShareLock",
            LockMode::ShareRowExclusive => "ShareRowExclusiveLock",
            LockMode::Exclusive => "ExclusiveLock",
            LockMode::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// The modes that two sessions cannot have beside this one on one table: table 13.2 of PostgreSQL's documentation.
    pub fn conflicts(self) -> &'static [LockMode] {
        use LockMode::{
            AccessExclusive, AccessShare, Exclusive, RowExclusive, RowShare, Share, ShareRowExclusive,
            ShareUpdateExclusive,
        };
        const ALL: [LockMode; 8] = [
            AccessShare,
            RowShare,
            RowExclusive,
            ShareUpdateExclusive,
            Share,
            ShareRowExclusive,
            Exclusive,
            AccessExclusive,
        ];
        let [_, but_readers @ ..] = &ALL;
        let [_, _, but_lockers @ ..] = &ALL;
        match self {
            AccessShare => &[AccessExclusive],
            RowShare => &[Exclusive, AccessExclusive],
            RowExclusive => &[Share, ShareRowExclusive, Exclusive, AccessExclusive],
            ShareUpdateExclusive => {
                &[ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive]
            }
            Share => &[RowExclusive, ShareUpdateExclusive, ShareRowExclusive, Exclusive, AccessExclusive],
            ShareRowExclusive => but_lockers,
            Exclusive => but_readers,
            AccessExclusive => &ALL,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_one_from_both_sides() {
        let all = LockMode::AccessExclusive.conflicts();
        assert_eq!(all.len(), 8);
        let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
        let mut found = 0;
        for (one, other) in pairs {
            assert_eq!(one.conflicts().contains(other), other.conflicts().contains(one), "{one:?} {other:?}");
            found += usize::from(one.conflicts().contains(other));
        }
        // The crosses of the documentation's table.
        assert_eq!(found, 38);
    }
}
