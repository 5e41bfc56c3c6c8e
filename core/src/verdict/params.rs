//! What a watch is to decide by: chosen with the plan, frozen, and checked once.

use super::cell::{Grid, Weights};
use super::dispersion::UNKNOWN_DISPERSION;

/// What the new slot must keep to in one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Largest share of bad requests, whatever the old slot does.
    pub limit: f64,
    /// Share of bad requests up to which the new slot may be worse than the old one.
    pub floor: f64,
    /// How many times as often as on the old slot requests may be bad, above the floor.
    pub ratio: f64,
}

impl Bounds {
    /// At most 1 % of errors, and not more than twice those of the old slot once they exceed 0.5 %.
    pub const ERRORS: Self = Self { limit: 0.01, floor: 0.005, ratio: 2.0 };
    /// At most 1 % over the limit of the 99th percentile, and not more than 1.25 times as many as on the old slot over
    /// the frozen threshold once they exceed 1 %.
    pub const SLOWNESS: Self = Self { limit: 0.01, floor: 0.01, ratio: 1.25 };
}

/// How much failures come in bunches, as [`Dispersion`](super::Dispersion) measured it on the old slot before the release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersions {
    /// Of errors.
    pub errors: f64,
    /// Of requests over the limit.
    pub over_limit: f64,
    /// Of requests over the frozen threshold.
    pub over_baseline: f64,
}

impl Dispersions {
    /// Nothing was measured.
    pub const UNKNOWN: Self = Self {
        errors: UNKNOWN_DISPERSION,
        over_limit: UNKNOWN_DISPERSION,
        over_baseline: UNKNOWN_DISPERSION,
    };
}

/// Shares of bad requests up to which a new slot over the limit is no worse than what served before, where that was over it
/// already; 0: it was not. They count while the old slot has no requests: then nothing else says whether going back would help.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Excused {
    /// Of errors.
    pub errors: f64,
    /// Of requests over the limit.
    pub over_limit: f64,
}

/// What the new slot is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The limits, and the old slot.
    LimitsAndOldSlot,
    /// The old slot alone, for a fix of a site that is over its limits already, and of which nothing was counted before.
    OldSlot,
}

/// The choices, before they are checked. Times are in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choices {
    /// Largest chance that a healthy release is rolled back, over all tests and all looks.
    pub false_rollback: f64,
    /// Largest chance that a bad release is promoted.
    pub false_promotion: f64,
    /// For errors.
    pub errors: Bounds,
    /// For slow requests.
    pub slowness: Bounds,
    /// How much failures come in bunches.
    pub dispersions: Dispersions,
    /// How bad it may be without being worse than before.
    pub excused: Excused,
    /// What the new slot is held against.
    pub against: Against,
    /// Ticks over which the attention of the tests is spread. `false_rollback` holds for that long; afterwards the chance
    /// grows by half of it per horizon of ticks with data.
    pub horizon: u64,
    /// Ticks with data before anything is promoted.
    pub min_watch: u64,
    /// Ticks after which pointsman stops waiting for evidence, and only a person may promote. [`Self::NO_END`]: whoever
    /// watches decides when it has taken long enough.
    pub max_watch: u64,
    /// Ticks that are judged as one. With more than 1 a total failure of that many ticks is a blip, and everything is
    /// noticed that many times later.
    pub blip: u64,
}

impl Choices {
    /// A watch without an end of its own.
    pub const NO_END: u64 = u64::MAX;
}

impl Default for Choices {
    /// The figures that the simulations are about.
    fn default() -> Self {
        Self {
            false_rollback: 0.001,
            false_promotion: 0.01,
            errors: Bounds::ERRORS,
            slowness: Bounds::SLOWNESS,
            dispersions: Dispersions::UNKNOWN,
            excused: Excused::default(),
            against: Against::LimitsAndOldSlot,
            horizon: 3_600,
            min_watch: 60,
            max_watch: 1_800,
            blip: 1,
        }
    }
}

/// Choices that cannot be judged by.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` is {found}, expected {expected}")]
pub struct InvalidParams {
    field: &'static str,
    found: f64,
    expected: &'static str,
}

/// Smallest share that anything is tested for: below it a verdict takes millions of requests, and factors lose digits.
const MIN_SHARE: f64 = 0.000_01;
/// Largest share that anything is tested for: all alternatives lie above it, and below 98 %.
pub const MOST_BAD: f64 = 0.9;
/// A week of seconds: no watch is longer, and every counter is far from its end.
const MAX_TICKS: f64 = 604_800.0;

/// A range with its words.
struct Range(f64, f64, &'static str);

const CHANCE: Range = Range(0.000_001, 0.1, "0.000001 to 0.1");
const LIMIT: Range = Range(MIN_SHARE, MOST_BAD, "0.00001 to 0.9");
const SHARE: Range = Range(MIN_SHARE, 0.5, "0.00001 to 0.5");
const EXCUSED: Range = Range(0.0, MOST_BAD, "0 to 0.9");
const RATIO: Range = Range(1.05, 20.0, "1.05 to 20");
const DISPERSION: Range = Range(1.0, 10_000.0, "1 to 10000");
const TICKS: Range = Range(1.0, MAX_TICKS, "1 to 604800");
const BLIP: Range = Range(1.0, 60.0, "1 to 60");

fn within(field: &'static str, found: f64, range: &Range) -> Result<(), InvalidParams> {
    if (range.0..=range.1).contains(&found) {
        return Ok(());
    }
    Err(InvalidParams { field, found, expected: range.2 })
}

/// How one metric is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    pub bounds: Bounds,
    pub limit: Grid,
    pub floor: Grid,
    /// Beyond what is excused, where anything is.
    pub excused: Option<Grid>,
    /// Of requests that are bad by the limit.
    pub limit_dispersion: f64,
    /// Of requests that are bad by the comparison.
    pub baseline_dispersion: f64,
}

impl Rule {
    fn of(bounds: Bounds, excused: f64, (limit_dispersion, baseline_dispersion): (f64, f64)) -> Self {
        Self {
            bounds,
            excused: (excused > 0.0).then(|| Grid::absolute(excused)),
            limit: Grid::absolute(bounds.limit),
            floor: Grid::absolute(bounds.floor),
            limit_dispersion,
            baseline_dispersion,
        }
    }
}

/// Choices that can be judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    choices: Choices,
    pub(super) errors: Rule,
    pub(super) slowness: Rule,
    pub(super) weights: Weights,
}

impl Params {
    /// Absolute and relative, errors and slowness: each gets its part of `false_rollback`.
    const TESTS: f64 = 4.0;

    /// Checks the choices.
    pub fn new(choices: Choices) -> Result<Self, InvalidParams> {
        within("false_rollback", choices.false_rollback, &CHANCE)?;
        within("false_promotion", choices.false_promotion, &CHANCE)?;
        for bounds in [choices.errors, choices.slowness] {
            within("limit", bounds.limit, &LIMIT)?;
            within("floor", bounds.floor, &SHARE)?;
            within("ratio", bounds.ratio, &RATIO)?;
        }
        let Dispersions { errors, over_limit, over_baseline } = choices.dispersions;
        for dispersion in [errors, over_limit, over_baseline] {
            within("dispersion", dispersion, &DISPERSION)?;
        }
        for excused in [choices.excused.errors, choices.excused.over_limit] {
            within("excused", excused, &EXCUSED)?;
        }
        within("horizon", choices.horizon as f64, &TICKS)?;
        let ends = choices.max_watch != Choices::NO_END;
        if ends {
            within("max_watch", choices.max_watch as f64, &TICKS)?;
        }
        within("min_watch", choices.min_watch as f64, &TICKS)?;
        within("blip", choices.blip as f64, &BLIP)?;
        if choices.min_watch > choices.max_watch {
            let (found, expected) = (choices.min_watch as f64, "`max_watch` or less");
            return Err(InvalidParams { field: "min_watch", found, expected });
        }
        if ends && choices.horizon < choices.max_watch {
            let (found, expected) = (choices.horizon as f64, "`max_watch` or more");
            return Err(InvalidParams { field: "horizon", found, expected });
        }
        Ok(Self {
            errors: Rule::of(choices.errors, choices.excused.errors, (errors, errors)),
            slowness: Rule::of(choices.slowness, choices.excused.over_limit, (over_limit, over_baseline)),
            weights: Weights::over(choices.horizon.div_ceil(choices.blip)),
            choices,
        })
    }

    /// The choices.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Whether the limits decide, or the old slot alone.
    pub(super) fn limits_count(&self) -> bool {
        self.choices.against == Against::LimitsAndOldSlot
    }

    /// E-value at which a test rejects.
    pub fn rollback_at(&self) -> f64 {
        Self::TESTS / self.choices.false_rollback
    }

    /// Evidence at which a criterion of promotion is met.
    pub fn promote_at(&self) -> f64 {
        1.0 / self.choices.false_promotion
    }

    /// The choices as numbers, for whoever must know whether they are still the same.
    pub(super) fn fingerprint(&self) -> [f64; 18] {
        let Choices { false_rollback, false_promotion, errors, slowness, dispersions, .. } = self.choices;
        let Choices { excused, against, horizon, min_watch, max_watch, blip, .. } = self.choices;
        [
            false_rollback,
            false_promotion,
            errors.limit,
            errors.floor,
            errors.ratio,
            slowness.limit,
            slowness.floor,
            slowness.ratio,
            dispersions.errors,
            dispersions.over_limit,
            dispersions.over_baseline,
            if against == Against::OldSlot { 1.0 } else { 0.0 },
            horizon as f64,
            min_watch as f64,
            max_watch as f64,
            blip as f64,
            excused.errors,
            excused.over_limit,
        ]
    }
}

impl Default for Params {
    fn default() -> Self {
        let choices = Choices::default();
        let Choices { errors, slowness, excused, horizon, .. } = choices;
        let Dispersions { errors: of_errors, over_limit, over_baseline } = choices.dispersions;
        Self {
            errors: Rule::of(errors, excused.errors, (of_errors, of_errors)),
            slowness: Rule::of(slowness, excused.over_limit, (over_limit, over_baseline)),
            weights: Weights::over(horizon),
            choices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Params::new(Choices::default()), Ok(Params::default()));
        assert_eq!((Params::default().rollback_at(), Params::default().promote_at()), (4_000.0, 100.0));
    }

    #[test]
    fn what_cannot_be_judged_by_is_refused() {
        let good = Choices::default();
        let errors = |bounds| Choices { errors: bounds, ..good };
        let bunched =
            |errors| Choices { dispersions: Dispersions { errors, ..Dispersions::UNKNOWN }, ..good };
        let cases = [
            (Choices { false_rollback: 0.0, ..good }, "false_rollback"),
            (Choices { false_rollback: f64::NAN, ..good }, "false_rollback"),
            (Choices { false_promotion: 0.2, ..good }, "false_promotion"),
            (errors(Bounds { limit: 0.95, ..Bounds::ERRORS }), "limit"),
            (errors(Bounds { floor: 0.0, ..Bounds::ERRORS }), "floor"),
            (errors(Bounds { ratio: 1.0, ..Bounds::ERRORS }), "ratio"),
            (Choices { slowness: Bounds { ratio: f64::INFINITY, ..Bounds::SLOWNESS }, ..good }, "ratio"),
            (Choices { excused: Excused { errors: 0.95, over_limit: 0.0 }, ..good }, "excused"),
            (bunched(0.5), "dispersion"),
            (bunched(f64::INFINITY), "dispersion"),
            (Choices { horizon: 0, ..good }, "horizon"),
            (Choices { horizon: 600, ..good }, "horizon"),
            (Choices { max_watch: 1_000_000, horizon: 1_000_000, ..good }, "horizon"),
            (Choices { max_watch: 59, ..good }, "min_watch"),
            (Choices { min_watch: 0, ..good }, "min_watch"),
            (Choices { blip: 0, ..good }, "blip"),
        ];
        for (choices, field) in cases {
            assert_eq!(Params::new(choices).map_err(|error| error.field), Err(field), "{choices:?}");
        }
        assert!(Params::new(Choices { max_watch: Choices::NO_END, horizon: 600, ..good }).is_ok());
        let error = Params::new(Choices { horizon: 600, ..good }).unwrap_err();
        assert_eq!(error.to_string(), "`horizon` is 600, expected `max_watch` or more");
    }
}
