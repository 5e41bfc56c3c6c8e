//! The numbers of an independent implementation: `tests/verdict/vectors.json`, matched to 1e-9.
//!
//! There all alternatives of a cell count alike. The judge reads the cells of the limits by another mean of the
//! same ten numbers (`Prior::WORST_FIRST`): what it decides by has vectors of its own, in `tests/verdict/judge.json`.

use serde_json::Value;

use super::cell::{Cell, Grid, Weights};
use super::explain::{confidence_sequence, divergence, least_requests};
use super::ledger::{Ledger, Stretch};
use super::params::{Choices, Dispersions, Params};
use super::promotion::against_rate;
use super::ratio::{Blame, relative};
use super::tick::{Counts, Latency, Sample, Tick};

const VECTORS: &str = include_str!("../../tests/verdict/vectors.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Relative to 1e-9; above 1e6 the logarithms are compared, which many steps have fewer digits of.
fn same(what: &str, found: f64, expected: f64) {
    let (found, expected) =
        if expected.abs() > 1e6 { (found.log10(), expected.log10()) } else { (found, expected) };
    let allowed = 1e-9 * expected.abs().max(f64::MIN_POSITIVE);
    assert!((found - expected).abs() <= allowed, "{what}: {found} is not {expected}");
}

/// The tests of the note, fed with one metric.
struct Lanes {
    params: Params,
    ledger: Ledger,
    independent: [Cell; 3],
    ticks: u64,
}

impl Lanes {
    fn new(dispersion: f64) -> Self {
        let dispersions =
            Dispersions { errors: dispersion, over_limit: dispersion, over_baseline: dispersion };
        let params = Params::new(Choices { dispersions, ..Choices::default() }).unwrap();
        Self { params, ledger: Ledger::default(), independent: [Cell::default(); 3], ticks: 0 }
    }

    fn step(&mut self, tick: &Value) {
        let count = |at: usize| u32::try_from(tick[at].as_u64().unwrap()).unwrap();
        let slot = |requests, errors| Counts { requests, errors, ..Counts::default() };
        let (new, old) = (slot(count(0), count(1)), slot(count(2), count(3)));
        self.ticks += 1;
        let tick = Tick { number: self.ticks, new, old, latency: Latency::Known };
        let (sample, rule, weights) = (tick.errors(), self.params.errors, self.params.weights);
        let stretch = Stretch { from: self.ticks - 1, to: self.ticks, blip: 1 };
        self.ledger.step(&stretch, &sample, &rule, &weights);
        self.step_independent(&sample, &weights);
    }

    fn step_independent(&mut self, sample: &Sample, weights: &Weights) {
        let (rule, at, new) = (self.params.errors, self.ticks, sample.new);
        let counts = (new.over_limit, new.requests);
        let [limit, floor, ratio] = &mut self.independent;
        for (cell, grid) in [(limit, rule.limit), (floor, rule.floor)] {
            cell.step_independent(at, counts, rule.limit_dispersion, &grid, weights);
        }
        match Blame::of(sample) {
            Some(blame) => {
                let grid: Grid = relative(blame.new_share, rule.bounds.ratio);
                let counts = (blame.new, blame.new + blame.old);
                ratio.step_independent(at, counts, rule.limit_dispersion, &grid, weights);
            }
            None => ratio.step(at, None, &rule.limit, weights),
        }
    }

    /// By the names of the vector file.
    fn found(&self) -> [(&'static str, f64); 9] {
        let (rule, weights) = (&self.params.errors, &self.params.weights);
        let values = self.ledger.values(self.ticks, rule, weights);
        let independent = self.independent.map(|cell| cell.value(self.ticks, weights));
        let over_limit = self.ledger.limit.value(self.ticks, weights);
        let new = self.ledger.total.new;
        let floor = against_rate(new.over_limit, new.requests, rule.bounds.floor, rule.limit_dispersion);
        let ratio = self.ledger.comparison.value(rule.baseline_dispersion);
        same(
            "mean of floor and ratio",
            self.ledger.not_worse(rule, rule.baseline_dispersion),
            f64::midpoint(floor, ratio),
        );
        [
            ("e_abs_tick", over_limit),
            ("e_floor_tick", values.floor),
            ("e_rel_tick", values.ratio),
            ("e_abs", independent[0]),
            ("e_floor", independent[1]),
            ("e_rel", independent[2]),
            ("g_abs", self.ledger.within_limit(rule, rule.limit_dispersion)),
            ("g_floor", floor),
            ("g_rel", ratio),
        ]
    }

    fn rolls_back(&self, [limit, floor, ratio]: [f64; 3]) -> bool {
        let at = self.params.rollback_at();
        limit >= at || (floor >= at && ratio >= at)
    }

    fn rolls_back_by_tick(&self) -> bool {
        let weights = &self.params.weights;
        let values = self.ledger.values(self.ticks, &self.params.errors, weights);
        self.rolls_back([self.ledger.limit.value(self.ticks, weights), values.floor, values.ratio])
    }

    fn decides_independent(&self) -> Option<&'static str> {
        let values = self.independent.map(|cell| cell.value(self.ticks, &self.params.weights));
        if self.rolls_back(values) {
            return Some("rollback");
        }
        let (rule, at) = (&self.params.errors, self.params.promote_at());
        let good = self.ledger.within_limit(rule, rule.limit_dispersion) >= at
            && self.ledger.not_worse(rule, rule.baseline_dispersion) >= at;
        good.then_some("promote")
    }
}

#[test]
fn cases() {
    let vectors = vectors();
    let mut compared = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let mut lanes = Lanes::new(number(&case["phi"]));
        let (mut by_tick, mut independent) = (Value::Null, Value::Null);
        for tick in case["ticks"].as_array().unwrap() {
            lanes.step(tick);
            if by_tick.is_null() && lanes.rolls_back_by_tick() {
                by_tick = serde_json::json!(["rollback", lanes.ticks]);
            }
            if let (Some(verdict), true) = (lanes.decides_independent(), independent.is_null()) {
                independent = serde_json::json!([verdict, lanes.ticks]);
            }
            let expected = case["expect"].as_array().unwrap().iter().find(|row| row["t"] == lanes.ticks);
            for (field, found) in lanes.found() {
                if let Some(row) = expected {
                    same(&format!("{name}, tick {}, {field}", lanes.ticks), found, number(&row[field]));
                    compared += 1;
                }
            }
        }
        assert_eq!(by_tick, case["first_rollback_tick_lane"], "{name}");
        assert_eq!(independent, case["first_decision_iid"], "{name}");
    }
    let rows =
        vectors["cases"].as_array().unwrap().iter().map(|case| case["expect"].as_array().unwrap().len());
    assert_eq!(compared, rows.sum::<usize>() * 9);
}

#[test]
fn grids_and_thresholds() {
    let vectors = vectors();
    let params = Params::default();
    let given = &vectors["params"];
    same("rollback", params.rollback_at(), number(&given["threshold_rollback"]));
    same("promote", params.promote_at(), number(&given["threshold_promote"]));
    for (field, grid) in [("grid_bad_slo", params.errors.limit), ("grid_bad_floor", params.errors.floor)] {
        for (found, expected) in grid.worse().iter().zip(given[field].as_array().unwrap()) {
            same(field, *found, number(expected));
        }
    }
}

#[test]
fn confidence_sequences() {
    for row in vectors()["confidence_sequence_beta_half"].as_array().unwrap() {
        let (low, high) = confidence_sequence(number(&row["S"]), number(&row["n"]), number(&row["alpha"]));
        same(&format!("low of {row}"), low, number(&row["lo"]));
        same(&format!("high of {row}"), high, number(&row["hi"]));
    }
}

#[test]
fn lower_bounds() {
    for row in vectors()["kl_lower_bound_requests"].as_array().unwrap() {
        let (rate, boundary) = (number(&row["p"]), number(&row["p0"]));
        same("kl", divergence(rate, boundary), number(&row["kl"]));
        same("requests", least_requests(rate, boundary, number(&row["alpha"])), number(&row["requests"]));
    }
}
