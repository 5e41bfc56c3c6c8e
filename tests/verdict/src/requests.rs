//! The test that must not be built: the same absolute test of errors, with every request as an observation of its own.
//! It shows what failures in bunches do to it.

use pointsman_core::verdict::{Cell, Grid, Params, Weights};

use crate::rule::{Call, Rule};
use crate::traffic::Second;

/// The absolute test of errors, request by request.
#[derive(Clone, Debug)]
pub struct ByRequest {
    cell: Cell,
    grid: Grid,
    weights: Weights,
    reject_at: f64,
}

impl ByRequest {
    /// Nothing seen.
    pub fn new() -> Self {
        let params = Params::default();
        let choices = params.choices();
        Self {
            cell: Cell::default(),
            grid: Grid::absolute(choices.errors.limit),
            weights: Weights::over(choices.horizon),
            reject_at: params.rollback_at(),
        }
    }
}

impl Rule for ByRequest {
    fn see(&mut self, at: u64, second: &Second) -> Option<Call> {
        let counts = (f64::from(second.new.errors), f64::from(second.new.requests));
        self.cell.step_independent(at, counts, 1.0, &self.grid, &self.weights);
        (self.cell.value(at, &self.weights) >= self.reject_at).then_some(Call::Rollback)
    }
}
