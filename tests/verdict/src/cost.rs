//! What one tick of one environment costs, and a second of a thousand.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use pointsman_chassis::newest::Newest;
use pointsman_core::signal::{Cell, CellKey, Coverage, Tick};
use pointsman_core::verdict::{Judge, Params};
use pointsman_core::{BackendName, RouteClass, RouteEpoch, SlotName, Timestamp};
use pointsman_proto::{convert, v1};
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};

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

/// Environments that are watched at once.
const ENVIRONMENTS: usize = 1_000;

/// Seconds of theirs that are timed.
const ROUNDS: u64 = 5;

/// Load balancers of each.
const BALANCERS: u64 = 2;

/// A second as a load balancer's agent sends it: three kinds of requests on both slots, each request with its time.
fn sent(number: u64, second: &Second) -> Result<Vec<u8>> {
    let of_slot = |backend: &str, requests: u32, errors: u32| -> Result<Vec<(CellKey, Cell)>> {
        ["other", "api", "ows"]
            .into_iter()
            .zip(1..)
            .map(|(class, part)| {
                let key = CellKey {
                    backend: BackendName::parse(backend)?,
                    epoch: RouteEpoch(17),
                    class: RouteClass::parse(class)?,
                };
                let count = u64::from(requests) / 6 * part;
                let mut cell = Cell { requests: count, failures: u64::from(errors) / 3, ..Cell::default() };
                (0..count).for_each(|at| cell.latency.record(20 + 7 * at));
                Ok((key, cell))
            })
            .collect()
    };
    let tick = second.tick(number);
    let mut cells = of_slot("be_green", tick.new.requests, tick.new.errors)?;
    cells.extend(of_slot("be_blue", tick.old.requests, tick.old.errors)?);
    let all = cells.iter().map(|(_, cell)| cell.requests).sum();
    let covered = Coverage { seen: all, expected: all };
    let told = Tick {
        number,
        at: Timestamp(number * 1_000),
        span_ms: 1_000,
        covered: cells.iter().map(|(key, _)| (key.backend.clone(), covered)).collect(),
        cells: cells.into_iter().collect(),
        coverage: Some(covered),
        lines_tell_retries: true,
        ..Tick::default()
    };
    Ok(convert::tick_to_wire(&told).encode_to_vec())
}

/// What comes from each load balancer, read and added up.
fn received(bytes: &[u8]) -> Result<Tick> {
    let mut merged = Tick::default();
    for _ in 0..BALANCERS {
        let wire = v1::SignalTick::decode(bytes)?;
        merged.merge(&convert::tick_from_wire(&wire)?);
    }
    Ok(merged)
}

/// Processor time for a second of a thousand environments, in seconds, as the coordinator does it: what the agents of two load
/// balancers send is read and added up, judged, told in words and put away in a file of its own, durably. The connections, and
/// the encryption on them, are not in it.
pub fn of_a_thousand(seed: u64) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let load = Load { per_second: 100.0, split: 0.5 };
    let mut doing = Doing::taking(1.0);
    doing.errors = 0.005;
    let (scenario, mut chance) = (Scenario::steady(load, doing, doing), Chance::of(seed, 2, 0));
    let (new, old) = (SlotName::parse("green")?, SlotName::parse("blue")?);
    let file = |number: usize| Newest::new(folder.path().join(number.to_string()));
    let mut judges: Vec<(Judge, Newest)> =
        (0..ENVIRONMENTS).map(|number| (Judge::new(Params::default()), file(number))).collect();
    // The first second makes the files.
    for (judge, file) in &mut judges {
        file.write(&judge.to_bytes())?;
    }
    let mut spent = Duration::ZERO;
    for at in 1..=ROUNDS {
        let second = scenario.second(at, &mut chance);
        let bytes = sent(at, &second)?;
        let began = processor_time();
        for (judge, file) in &mut judges {
            black_box(received(&bytes)?);
            let judgement = judge.step(&second.tick(at));
            black_box(judgement.told(&new, &old).to_string());
            file.write(&judge.to_bytes())?;
        }
        spent += processor_time().saturating_sub(began);
    }
    Ok(spent.as_secs_f64() / ROUNDS as f64)
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
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
