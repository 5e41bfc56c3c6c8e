//! Lints.

use crate::{Finding, Script};

/// What would stall visitors or fail later though it breaks no version.
pub fn dangerous(script: &Script) -> Vec<Finding> {
    crate::lint::findings(script, crate::lint::DANGEROUS)
}
