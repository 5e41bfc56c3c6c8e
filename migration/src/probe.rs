//! How to see in the catalog whether a statement that ran outside of a transaction took effect.

use crate::Relation;

/// Where to look after a crash. Statements in transactions need none: their record commits with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing to see, or nothing needed.
    None,
    /// Done if the index is there, on that table, and `indisvalid`; if it is there and invalid, drop it and begin again.
    IndexValid {
        /// The index; without a schema it is in that of the table.
        index: Relation,
        /// The table that it is built on.
        table: Relation,
    },
    /// Done if the index is not there.
    IndexGone {
        /// The index.
        index: Relation,
    },
    /// Done if the partition is no longer in `pg_inherits`; `inhdetachpending` asks for `DETACH … FINALIZE`.
    PartitionDetached {
        /// The partitioned table.
        parent: Relation,
        /// The table that leaves it.
        partition: Relation,
    },
    /// Does no harm twice; what a failed `REINDEX CONCURRENTLY` leaves are invalid indexes with names of the server's own
    /// making, to be dropped before it begins again.
    Reindexed {
        /// The index or table; none for a whole schema or database.
        relation: Option<Relation>,
    },
    /// Leaves no trace and does no harm twice: `VACUUM`, `ANALYZE`. Begin again.
    Repeatable,
}

impl Probe {
    /// Whether the statement may simply be run again.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Reindexed { .. } | Self::Repeatable)
    }
}
