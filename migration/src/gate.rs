//! What files' texts alone rule out, wherever they would run: judged in the order in which they would, when a release is
//! planned and again by whoever runs them.

use crate::{Finding, Phase, Relation, Script, breaking_after, dangerous_after};

/// What stalls nobody and breaks nothing once the old version no longer runs: said of expand files alone.
const FINE_IN_CONTRACT: &[&str] = &["ban-drop-constraint", "ban-drop-not-null"];

/// What a file may say that it means to do, with the header `allow-rewrite`: on a small table it is quick. The rehearsal
/// measures it, and the watch cancels it where it is not.
const ALLOWED_BY_HEADER: &[&str] = &["data-under-lock", "every-row-at-once"];

/// What was found in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// What would break the version that serves.
    pub breaking: Vec<Finding>,
    /// What would make visitors wait, or fail at the next restore.
    pub dangerous: Vec<Finding>,
}

impl Gate {
    /// Judges files in the order in which they would run: what an earlier one makes, nobody knows or uses yet.
    pub fn of<'s>(scripts: impl IntoIterator<Item = &'s Script>) -> Self {
        let (mut gate, mut made) = (Self::default(), Vec::<Relation>::new());
        for script in scripts {
            if script.phase == Phase::Expand {
                gate.breaking.extend(breaking_after(script, &made));
            }
            let found = dangerous_after(script, &made);
            gate.dangerous.extend(found.into_iter().filter(|finding| matters(script, finding)));
            made.extend(script.makes());
        }
        gate
    }
}

fn matters(script: &Script, finding: &Finding) -> bool {
    let fine = script.phase != Phase::Expand && FINE_IN_CONTRACT.contains(&finding.rule);
    let allowed = script.headers.allow_rewrite && ALLOWED_BY_HEADER.contains(&finding.rule);
    !fine && !allowed
}
