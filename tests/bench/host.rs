//! What the kernel says of the machine and of the site's processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::figures::rounded;

/// How long the site must be quiet to count as idle, how much of one CPU its processes may use meanwhile (standing
/// connections are asked for signs of life), and how long that is waited for.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_SHARE: f64 = 0.02;
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// The machine, with its load before anything was started.
pub fn machine() -> Result<Value> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load1: f64 = load.split(' ').next().context("no load average")?.parse()?;
    Ok(json!({
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "load1": load1,
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
    }))
}

/// The processes of a program that were started with a file below this folder.
pub fn processes(program: &str, folder: &Path) -> Result<Vec<u32>> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        let named = words.next().is_some_and(|path| Path::new(path).ends_with(program));
        if named && words.any(|word| word.starts_with(&folder)) {
            found.push(pid);
        }
    }
    if found.is_empty() {
        bail!("no `{program}` runs with files of `{folder}`");
    }
    Ok(found)
}

/// What the threads of a process have spent on the CPU, those that have ended left out.
fn spent(pid: u32) -> Result<BTreeMap<PathBuf, u64>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        // It may have ended since.
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        if let Some(nanoseconds) = text.split(' ').next().and_then(|first| first.parse().ok()) {
            threads.insert(path, nanoseconds);
        }
    }
    Ok(threads)
}

/// Waits until these processes are idle. Returns the share of one CPU that all of them use then, housekeeping
/// included; it is the share they were left with if they never came to rest.
pub async fn quiet(pids: &[u32]) -> Result<f64> {
    let all = || pids.iter().map(|pid| spent(*pid)).collect::<Result<Vec<_>>>();
    let give_up = Instant::now() + QUIET_WITHIN;
    loop {
        let (before, since) = (all()?, Instant::now());
        tokio::time::sleep(QUIET).await;
        let (after, window) = (all()?, since.elapsed());
        let before: BTreeMap<_, _> = before.into_iter().flatten().collect();
        let used = after
            .into_iter()
            .flatten()
            .map(|(thread, now)| now.saturating_sub(before.get(&thread).copied().unwrap_or(0)));
        let share = Duration::from_nanos(used.sum()).as_secs_f64() / window.as_secs_f64();
        if share <= QUIET_SHARE {
            return Ok(share);
        }
        if Instant::now() > give_up {
            eprintln!("   the site did not come to rest within {} s", QUIET_WITHIN.as_secs());
            return Ok(share);
        }
    }
}

/// Memory of a process, in MB of 1024 kB: what is in RAM, and the part of it that is no file's.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All of it.
    pub rss: f64,
    /// Heap and stacks; the rest is program text and is shared between processes of one program.
    pub anonymous: f64,
}

impl Memory {
    /// The memory of a process now.
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mb = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kb: f64 =
                line.and_then(|line| line.trim().strip_suffix(" kB")).context("no memory")?.parse()?;
            Ok(rounded(kb / 1024.0))
        };
        Ok(Self { rss: mb("VmRSS")?, anonymous: mb("RssAnon")? })
    }

    /// The memory of the largest of some processes.
    pub fn largest(pids: &[u32]) -> Result<Self> {
        let all: Vec<Self> = pids.iter().map(|pid| Self::of(*pid)).collect::<Result<_>>()?;
        all.into_iter().reduce(|a, b| if b.rss > a.rss { b } else { a }).context("no process")
    }
}
