//! In whose name work is done, asked right before every change that others can see.

use pointsman_core::{Epoch, Problem};

/// The coordinator that wants the work.
pub trait Authority: Send + Sync {
    /// Its fencing token.
    fn epoch(&self) -> Epoch;

    /// Refuses when a newer coordinator has taken over.
    fn check(&self) -> Result<(), Problem>;
}
