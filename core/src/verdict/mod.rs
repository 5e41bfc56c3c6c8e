//! How the watch decides: the mathematics, without clock, files or chance.
//!
//! While the new slot takes traffic, every tick of counts goes to a [`Judge`]. It runs sequential tests (four of them:
//! errors and slow requests, each against a limit and against the old slot at the same time) that may be looked at as
//! often as one likes: over all tests and all looks, a healthy release is rolled back with a chance of at most
//! [`Choices::false_rollback`]. Nothing is promoted without evidence that it is good: no data is neither success nor
//! failure. What strikes both slots is a hold.
//!
//! A failure counts by its share of the tick, not by its number, because failures come in bunches: a test that takes
//! requests for independent would roll healthy releases back. What this costs is a few seconds.
//!
//! ```
//! use pointsman_core::SlotName;
//! use pointsman_core::verdict::{Choices, Counts, Judge, Latency, Params, Tick, Verdict};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let params = Params::new(Choices { max_watch: 900, ..Choices::default() })?;
//! let (green, blue) = (SlotName::parse("green")?, SlotName::parse("blue")?);
//! let mut judge = Judge::new(params);
//!
//! let good = Counts { requests: 50, ..Counts::default() };
//! let failing = Counts { requests: 50, errors: 40, ..Counts::default() };
//! let mut stored = Vec::new();
//! for number in 1..=2 {
//!     let judgement = judge.step(&Tick { number, new: failing, old: good, latency: Latency::Known });
//!     assert_eq!(judgement.verdict(), Verdict::Undecided);
//!     stored = judge.to_bytes();
//! }
//!
//! // A coordinator that restarts takes the judge up where it was: nothing that was seen is lost.
//! let mut judge = Judge::from_bytes(params, &stored)?;
//! let judgement = judge.step(&Tick { number: 3, new: failing, old: good, latency: Latency::Known });
//! assert_eq!(judgement.verdict(), Verdict::Rollback);
//! assert!(judgement.told(&green, &blue).to_string().starts_with("errors on `green`: 120 of 150 (80.0 %"));
//! # Ok(())
//! # }
//! ```

mod bytes;
mod cell;
mod company;
mod dispersion;
mod explain;
mod gamma;
mod judge;
mod judgement;
mod ledger;
mod params;
mod promotion;
mod ratio;
mod sick;
mod telling;
mod tick;
#[cfg(test)]
mod vectors;

pub use cell::{ALTERNATIVES, Cell, Grid, Weights};
pub use dispersion::{Dispersion, UNKNOWN_DISPERSION};
pub use explain::{Expected, Rate, confidence_sequence, divergence, least_requests, requests_to_promote};
pub use gamma::ln_gamma;
pub use judge::{BLIND_TICKS, Judge, NotRestored};
pub use judgement::{Finding, Judgement, Metric, Reason, Verdict};
pub use params::{Against, Bounds, Choices, Dispersions, Excused, InvalidParams, MOST_BAD, Params};
pub use promotion::against_rate;
pub use ratio::relative;
pub use telling::Told;
pub use tick::{Counts, Latency, Refused, Tick};
