//! How a statement behaves in time: which limits and which kind of transaction it gets.

/// A statement's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Changes the catalog alone: quick once it has its locks.
    Metadata,
    /// Rewrites or reads a whole table under a lock that stalls visitors.
    Rewrite,
    /// Runs outside of transactions and waits for others by itself.
    Concurrent,
    /// Reads a whole table under a lock that lets visitors read and write.
    Validate,
    /// Changes rows in batches by key range (header `batch`).
    Backfill,
    /// Changes rows, in one go.
    Data,
    /// Nobody can tell from its text: queries, `DO`, `CALL`.
    Other,
}
