//! What something costs: seconds on the wall, and of the CPU in this process and its children.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::place::Place;

/// The kernel counts CPU time in hundredths of a second for those who read it from files.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cost of something.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Seconds on the wall.
    pub wall: f64,
    /// Seconds of the CPU.
    pub cpu: f64,
}

/// Does something and says what it cost.
pub async fn of<T>(work: impl Future<Output = T>) -> Result<(T, Cost)> {
    let (start, before) = (Instant::now(), cpu()?);
    let done = work.await;
    Ok((done, Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu()? - before }))
}

/// CPU seconds of this process and of its children that have ended.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in the process's state")?;
    // utime, stime, cutime, cstime are the 14th to the 17th field; two went before the name's end.
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Runs a line of shell as an operator would, as the superuser, and says what it cost.
pub async fn of_shell(place: &Place, line: &str) -> Result<Cost> {
    let client = place.cluster.client("psql", "postgres", "postgres");
    let variables = client.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().envs(variables.collect::<Vec<_>>()).current_dir(place.folder.path()).args(["-c", line]);
    let running = tokio::task::spawn_blocking(move || shell.output());
    let (output, cost) = of(running).await?;
    let output = output??;
    ensure!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(cost)
}

/// The middle one.
pub fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
