//! What one tick of one environment costs.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use pointsman_core::SlotName;
use pointsman_core::verdict::{Judge, Params};

use crate::chance::Chance;
use crate::traffic::{Doing, Load, Scenario, Second};

/// Ticks that are timed, after as many that are not.
const TICKS: u64 = 100_000;

/// Microseconds for one tick.
pub struct Cost {
    /// Judged, and the state written for the journal.
    pub judged_us: f64,
    /// And told in words, with intervals and the requests that are still needed.
    pub told_us: f64,
}

/// Times a judge on ticks that were drawn before.
pub fn of_a_tick(seed: u64) -> Result<Cost> {
    let load = Load { per_second: 100.0, split: 0.5 };
    let mut doing = Doing::taking(1.0);
    doing.errors = 0.005;
    let (scenario, mut chance) = (Scenario::steady(load, doing, doing), Chance::of(seed, 1, 0));
    let seconds: Vec<Second> = (1..=TICKS).map(|at| scenario.second(at, &mut chance)).collect();
    let (new, old) = (SlotName::parse("green")?, SlotName::parse("blue")?);
    let time = |told: bool| {
        let mut judge = Judge::new(Params::default());
        let mut began = Instant::now();
        for (number, second) in (1..).zip(seconds.iter().chain(&seconds)) {
            if number == TICKS + 1 {
                began = Instant::now();
            }
            let judgement = judge.step(&second.tick(number));
            black_box(judge.to_bytes());
            if told {
                black_box(judgement.told(&new, &old).to_string());
            }
            black_box(judgement);
        }
        began.elapsed().as_secs_f64() * 1e6 / TICKS as f64
    };
    Ok(Cost { judged_us: time(false), told_us: time(true) })
}
