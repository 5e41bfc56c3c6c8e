//! Many histories at once, one after the other on every processor.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::history::{Options, Report, run};
use crate::scenario::Scenario;
use crate::truth::Violation;

/// Failing seeds that are kept; the others are only counted.
const KEPT: usize = 20;

/// What came of many histories.
#[derive(Debug, Default)]
pub struct Tally {
    /// Histories.
    pub seeds: u64,
    /// Events in all of them.
    pub events: u64,
    /// Histories that broke a rule.
    pub violations: u64,
    /// Some of them.
    pub failed: Vec<(u64, Violation)>,
    /// Processor time, in seconds.
    pub cpu_s: f64,
    /// How releases ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Phases and events seen together.
    pub coverage: BTreeMap<(&'static str, &'static str), u64>,
}

impl Tally {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        for outcome in report.outcomes {
            *self.outcomes.entry(outcome.map_or("left", |outcome| outcome.as_str())).or_default() += 1;
        }
        for (pair, times) in report.coverage {
            *self.coverage.entry(pair).or_default() += times;
        }
        if let Some(violation) = report.violation {
            self.violations += 1;
            if self.failed.len() < KEPT {
                self.failed.push((seed, violation));
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.violations += other.violations;
        self.failed.extend(other.failed);
        for (outcome, times) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += times;
        }
        for (pair, times) in other.coverage {
            *self.coverage.entry(pair).or_default() += times;
        }
    }
}

fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Has the histories of these seeds happen.
pub fn walk(first: u64, count: u64, options: Options) -> anyhow::Result<Tally> {
    let (next, began) = (AtomicU64::new(first), cpu_s());
    let (whole, end) = (Mutex::new(Tally::default()), first.saturating_add(count));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || -> anyhow::Result<()> {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            tally.add(seed, run(Scenario::of(seed), options)?);
        }
        whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join(tally);
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a history ended abruptly"),
        })
    })?;
    let mut tally = whole.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.failed.sort_by_key(|(seed, _)| *seed);
    tally.cpu_s = cpu_s() - began;
    Ok(tally)
}
