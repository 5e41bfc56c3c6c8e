//! The judge of a watch: told as stories, cut and restored at every tick, and over seeded traffic.

#![expect(clippy::unwrap_used, reason = "a story that goes another way is a failed test")]

mod judged;
mod properties;
mod stories;
mod traffic;
mod words;

use pointsman_core::verdict::{Choices, Counts, Dispersions, Judge, Judgement, Latency, Params, Tick};

/// Requests that fail one by one.
pub const SINGLY: Dispersions = Dispersions { errors: 1.0, over_limit: 1.0, over_baseline: 1.0 };

/// The default choices, for failures that come one by one.
pub fn singly() -> Choices {
    Choices { dispersions: SINGLY, ..Choices::default() }
}

/// A judge with these choices who has seen nothing yet.
pub fn judge(choices: Choices) -> Judge {
    Judge::new(Params::new(choices).unwrap())
}

/// So many requests, errors and slow requests, by both thresholds.
pub fn slot(requests: u32, errors: u32, slow: u32) -> Counts {
    Counts { requests, errors, given_up: 0, timed: requests, over_limit: slow, over_baseline: slow }
}

/// A tick whose times are known.
pub fn tick(number: u64, new: Counts, old: Counts) -> Tick {
    Tick { number, new, old, latency: Latency::Known }
}

/// The same in every tick from `from` to `to`; the last judgement.
pub fn repeat(judge: &mut Judge, from: u64, to: u64, new: Counts, old: Counts) -> Judgement {
    (from..=to).map(|number| judge.step(&tick(number, new, old))).last().unwrap()
}
