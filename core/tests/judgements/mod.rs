//! Verdicts for the tests of the state machine, as a journal holds them.

use pointsman_core::verdict::Verdict;
use pointsman_core::{Judged, MetricJudged};

/// What was judged of a release, without numbers.
pub fn judged(verdict: Verdict) -> Judged {
    Judged {
        verdict,
        warns: false,
        shared: false,
        told: "a line".to_owned(),
        errors: MetricJudged::default(),
        slowness: MetricJudged::default(),
        seconds: 3,
        rollback_at_milli: 4_000_000,
        promote_at_milli: 100_000,
        needed: None,
        slowed: None,
    }
}
