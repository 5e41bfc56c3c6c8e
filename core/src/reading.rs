//! What one look at the gates said.

use crate::Problem;

/// The result of reading every gate of the watch once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All is well.
    Pass,
    /// The new slot fails its visitors.
    Fail(Problem),
    /// It does, and so does the slot that visitors would go back to, by the very same check, which it passed a while ago.
    Shared(Problem),
    /// It could not be seen: never the same as well, and never the same as failing.
    Unknown(Problem),
}
