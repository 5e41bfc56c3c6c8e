//! The fingerprint of a plan: what `deploy` compares with the plan that a person looked at.

use pointsman_core::Plan;
use ring::digest::{SHA256, digest};

use crate::journal::plan_bytes;

/// SHA-256 over every choice of a plan, in hexadecimal. When and by whom it was made is left out.
pub fn fingerprint(plan: &Plan) -> String {
    digest(&SHA256, &plan_bytes(plan)).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
