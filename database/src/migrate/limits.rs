//! How long a statement may take, by its class. A limit for all is wrong for some: one on locks kills a concurrent index
//! build and leaves it invalid, one on time kills a backfill.

use std::time::Duration;

use pointsman_migration::Class;

/// The catalog alone: more than this is no change of the catalog alone.
const METADATA: Duration = Duration::from_secs(5);
/// Allowed rewrites: rehearsed before, and watched, so this only bounds what is stuck.
const REWRITE: Duration = Duration::from_secs(30 * 60);
/// Rows in one go, queries, `DO`.
const DATA: Duration = Duration::from_secs(5 * 60);
/// One batch of a backfill.
const BATCH: Duration = Duration::from_secs(30);
/// Reading a whole table beside visitors, or building an index beside them.
const BESIDE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long one try may wait for a lock that was not among those asked for beforehand, in milliseconds.
pub(crate) const UNFORESEEN_LOCK_MS: u64 = 50;
/// How long a batch may wait for rows that visitors hold, in milliseconds.
pub(crate) const ROW_LOCK_MS: u64 = 2_000;
/// Above every limit of the server: when this passes, the session is given up.
const GRACE: Duration = Duration::from_secs(30);
/// Longest a small statement of our own may take.
pub(crate) const OWN: Duration = Duration::from_secs(30);

/// The server's limit for a statement.
pub(crate) fn statement_timeout(class: Class) -> Duration {
    match class {
        Class::Metadata => METADATA,
        Class::Rewrite => REWRITE,
        Class::Data | Class::Other => DATA,
        Class::Backfill => BATCH,
        Class::Validate | Class::Concurrent => BESIDE,
    }
}

/// When the agent itself no longer waits for an answer.
pub(crate) fn patience(class: Class) -> Duration {
    statement_timeout(class) + GRACE
}
