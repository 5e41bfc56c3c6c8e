//! Many releases, each with faults of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::run::{Ran, run};

/// How many seeds are run: a fixed set, so that everybody runs the same.
const SEEDS: Range<u64> = 0..200;
/// Seeds that failed once. They stay.
const ONCE_FAILED: &[u64] = &[];
/// Another range of seeds, `FROM..TO`, for a longer search.
const VARIABLE: &str = "POINTSMAN_NET_SEEDS";

fn seeds() -> Vec<u64> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return ONCE_FAILED.iter().copied().chain(SEEDS).collect();
    };
    let (from, to) = text.split_once("..").unwrap();
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

/// Runs every seed, on as many threads as there are processors.
fn run_all(seeds: &[u64]) -> (Vec<Ran>, Vec<String>) {
    let (next, told) = (AtomicU64::new(0), Mutex::new((Vec::new(), Vec::new())));
    let work = || {
        let take = || usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
        while let Some(seed) = seeds.get(take()) {
            let ran = run(*seed);
            let mut told = told.lock().unwrap();
            match ran {
                Ok(ran) => told.0.push(ran),
                Err(story) => told.1.push(story),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(work);
        }
    });
    told.into_inner().unwrap()
}

#[test]
fn every_release_ends_as_its_journal_says_whatever_the_network_does() {
    let (runs, failed) = run_all(&seeds());
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    runs.iter().for_each(|ran| *outcomes.entry(ran.outcome.as_str()).or_default() += 1);
    let resumed = runs.iter().filter(|ran| ran.resumed).count();
    let longest_ms = runs.iter().map(|ran| ran.over_ms).max().unwrap_or_default();
    println!("{outcomes:?}, resumed by a person: {resumed}, longest: {longest_ms} ms simulated");
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}
