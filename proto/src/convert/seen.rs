//! What came of checks.

use pointsman_core::{CheckName, CheckSeen, CheckVerdict, MAX_SEEN};

use crate::v1;

/// Checks that were made, for the wire: no more of them than fit into the headers of an answer.
pub fn seen_to_wire(seen: &[CheckSeen]) -> Vec<v1::CheckSeen> {
    let wire = |seen: &CheckSeen| v1::CheckSeen {
        name: seen.name.to_string(),
        verdict: seen.verdict.as_str().to_owned(),
        took_ms: seen.took_ms,
        what: seen.what.clone(),
    };
    seen.iter().take(MAX_SEEN).map(wire).collect()
}

/// Checks from the wire. What this version does not know is left out: it is evidence, and nothing is decided by it.
pub fn seen_from_wire(wire: &[v1::CheckSeen]) -> Vec<CheckSeen> {
    let seen = |wire: &v1::CheckSeen| {
        let name = CheckName::parse(&wire.name).ok()?;
        Some(CheckSeen::new(name, CheckVerdict::parse(&wire.verdict)?, wire.took_ms, &wire.what))
    };
    wire.iter().take(MAX_SEEN).filter_map(seen).collect()
}
