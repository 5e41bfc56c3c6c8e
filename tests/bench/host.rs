//! What the kernel says of the machine and of the site's processes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::figures::rounded;

/// How long no process may have used the CPU to count as idle, and how long that is waited for.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

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

/// Clock ticks that a process has spent on the CPU.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces: fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(") ").context("no fields in `stat`")?;
    let spent = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    spent.sum::<Result<u64, _>>().context("no times in `stat`")
}

/// Waits until none of these processes has used the CPU for a while.
pub async fn quiet(pids: &[u32]) -> Result<()> {
    let spent = || pids.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>();
    let give_up = Instant::now() + QUIET_WITHIN;
    let (mut last, mut since) = (spent()?, Instant::now());
    while since.elapsed() < QUIET {
        if Instant::now() > give_up {
            bail!("the site was not quiet within {} s", QUIET_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let now = spent()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
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
            let kb: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no memory")?.parse()?;
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
