//! Benchmarks against a whole site of real parts. Each verb prints one JSON object on standard output;
//! whatever else there is to say goes to standard error. Run them by `scripts/bench.sh`, which builds everything in
//! the release profile: the programs that are measured are those beside this one.

mod access_lines;
mod db;
mod figures;
mod floor;
mod host;
mod lb;
mod reaction;
mod restart;
mod switch;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Switches that are measured when `BENCH_SWITCHES` does not say otherwise.
const SWITCHES: usize = 60;
/// The same of `lb`: of fewer than a hundred p99 would be the slowest.
const LB_SWITCHES: usize = 120;
/// Good releases that are simulated when `BENCH_RELEASES` does not say otherwise.
const RELEASES: usize = 10_000;
/// Requests a second when `BENCH_RATE` does not say otherwise.
const RATE: u32 = 5_000;

/// Entries of the oldest journal of `restart` when `BENCH_ENTRIES` does not say otherwise: years of ten releases a day.
const ENTRIES: usize = 1_000_000;

/// pgbench's scale when `BENCH_SCALE` does not say otherwise.
const SCALE: usize = 20;

const USAGE: &str = "usage: pointsman-bench switch | lb | db | verdict | restart | access-lines
  BENCH_SWITCHES=N   how many switches are measured, at least 2 (default 60, for lb 120)
  BENCH_RELEASES=N   how many good releases verdict simulates (default 10000)
  BENCH_RATE=N       requests a second of lb, at least 100 (default 5000)
  BENCH_ENTRIES=N    entries of restart's oldest journal, at least 10000 (default 1000000)
  BENCH_SCALE=N      size of the database of db, in 15 MiB, at least 1 (default 20)
  BENCH_MIGRATIONS=F the program that measures the part of db that needs failpoints; without it that is left out";

enum Bench {
    Switch { switches: usize },
    Lb(lb::Size),
    Verdict { releases: usize },
    Db { scale: usize, migrations: Option<PathBuf> },
    Restart { entries: u64 },
    AccessLines,
}

/// A number from the environment; `None` when it is none, or too small.
fn number(name: &str, least: usize, otherwise: usize) -> Option<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().filter(|count| *count >= least),
        Err(_) => Some(otherwise),
    }
}

/// What is to be measured; `None` when the words or the environment say nothing that is known.
fn asked() -> Option<Bench> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["switch"] => Some(Bench::Switch { switches: number("BENCH_SWITCHES", 2, SWITCHES)? }),
        ["lb"] => Some(Bench::Lb(lb::Size {
            switches: number("BENCH_SWITCHES", 2, LB_SWITCHES)?,
            rate: number("BENCH_RATE", 100, RATE as usize)?.try_into().ok()?,
        })),
        ["verdict"] => Some(Bench::Verdict { releases: number("BENCH_RELEASES", 1, RELEASES)? }),
        ["db"] => Some(Bench::Db {
            scale: number("BENCH_SCALE", 1, SCALE)?,
            migrations: std::env::var_os("BENCH_MIGRATIONS").map(PathBuf::from),
        }),
        ["restart"] => {
            Some(Bench::Restart { entries: number("BENCH_ENTRIES", 10_000, ENTRIES)?.try_into().ok()? })
        }
        ["access-lines"] => Some(Bench::AccessLines),
        _ => None,
    }
}

fn main() -> Result<ExitCode> {
    let Some(bench) = asked() else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let found = runtime.block_on(run(bench))?;
    writeln!(std::io::stdout(), "{found:#}")?;
    Ok(ExitCode::SUCCESS)
}

/// Whoever is told to end takes the site down first.
async fn run(bench: Bench) -> Result<Value> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let measured = async {
        match bench {
            Bench::Switch { switches } => switch::measure(switches).await,
            Bench::Lb(size) => lb::measure(size).await,
            Bench::Verdict { releases } => reaction::measure(&releases.to_string()).await,
            Bench::Db { scale, migrations } => db::measure(scale, migrations.as_deref()).await,
            Bench::Restart { entries } => restart::measure(entries).await,
            Bench::AccessLines => access_lines::measure().await,
        }
    };
    tokio::select! {
        found = measured => found,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to end"),
    }
}
