//! Time, passed in.

use crate::Timestamp;

/// The clock of a coordinator.
pub trait Clock: Send + Sync {
    /// The time now. It may jump, forward and back.
    fn now(&self) -> Timestamp;

    /// Milliseconds of a time that does not jump, from a beginning that is the same in one life of the process: how long
    /// something was waited for.
    fn steady_ms(&self) -> u64;

    /// Comes back after `ms` milliseconds of a time that does not jump.
    fn pause(&self, ms: u64) -> impl Future<Output = ()> + Send;
}
