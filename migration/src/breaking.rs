//! The compatibility gate.

use crate::{Finding, Script};

/// What in an expand script would break the version that still serves. Empty: nothing that its text shows.
pub fn breaking(script: &Script) -> Vec<Finding> {
    crate::lint::findings(script, crate::lint::BREAKING)
}
