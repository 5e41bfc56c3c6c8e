//! Pointsman without one of its guards: every one of these must be caught.

use std::collections::BTreeMap;

use crate::guard::Guard;
use crate::history::{Options, run};
use crate::scenario::Scenario;
use crate::truth::Violation;

/// How each mutant was caught: the seeds it took, and the rule that was broken. None for one that got away.
pub fn hunt(most_seeds: u64) -> anyhow::Result<BTreeMap<String, Option<(u64, Violation)>>> {
    let mut caught = BTreeMap::new();
    for guard in Guard::ALL {
        let options = Options { off: Some(guard), ..Options::default() };
        let mut killed = None;
        for seed in 0..most_seeds {
            if let Some(violation) = run(Scenario::of(seed), options)?.violation {
                killed = Some((seed + 1, violation));
                break;
            }
        }
        caught.insert(guard.name(), killed);
    }
    Ok(caught)
}
