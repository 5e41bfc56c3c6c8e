//! The judge of pointsman as a rule.

use pointsman_core::verdict::{Choices, Dispersion, Dispersions, Judge, Params, Verdict};

use crate::rule::{Call, Rule};
use crate::traffic::{Second, Seen};

/// The dispersion that the judge is given.
#[derive(Clone, Copy, Debug)]
pub enum Bunches {
    /// As if it were known.
    Known(f64),
    /// Measured on the old slot before the release.
    Measured,
}

/// The judge of one history.
#[derive(Clone, Debug)]
pub struct Ours {
    choices: Choices,
    bunches: Bunches,
    measured: [Dispersion; 3],
    judge: Option<Judge>,
}

impl Ours {
    /// A judge with the default choices.
    pub fn new(bunches: Bunches) -> Self {
        Self { choices: Choices::default(), bunches, measured: [Dispersion::default(); 3], judge: None }
    }

    fn begin(&self) -> Option<Judge> {
        let [errors, over_limit, over_baseline] = match self.bunches {
            Bunches::Known(dispersion) => [dispersion; 3],
            Bunches::Measured => self.measured.map(|measured| measured.or_unknown()),
        };
        let dispersions = Dispersions { errors, over_limit, over_baseline };
        Params::new(Choices { dispersions, ..self.choices }).ok().map(Judge::new)
    }
}

impl Rule for Ours {
    fn before(&mut self, seen: &Seen) {
        let tick = Second { new: *seen, old: *seen }.tick(0);
        let counts = [tick.old.errors, tick.old.over_limit, tick.old.over_baseline];
        for (measured, bad) in self.measured.iter_mut().zip(counts) {
            measured.add(tick.old.requests, bad);
        }
    }

    fn see(&mut self, at: u64, second: &Second) -> Option<Call> {
        if self.judge.is_none() {
            self.judge = self.begin();
        }
        match self.judge.as_mut()?.step(&second.tick(at)).verdict() {
            Verdict::Rollback => Some(Call::Rollback),
            Verdict::Hold => Some(Call::Hold),
            Verdict::Promote => Some(Call::Promote),
            Verdict::Inconclusive | Verdict::Undecided => None,
        }
    }
}
