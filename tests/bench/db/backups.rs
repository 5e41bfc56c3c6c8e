//! What a backup costs, how large it is, and what a busy database notices of it.

use std::process::Child;

use anyhow::{Context as _, Result, ensure};
use pointsman_database::{Progress, VerifyLevel, backup};
use serde_json::{Value, json};

use super::ROUNDS;
use super::cost::{self, middle};
use super::place::{Place, rule};
use crate::figures::rounded;

/// Transactions a second that are offered while backups are taken, and for how long.
const RATE: u32 = 150;
const SECONDS: u32 = 30;

pub async fn measure(place: &Place) -> Result<Value> {
    eprintln!("== backups");
    let (mut cpu, mut wall, mut size) = (Vec::new(), Vec::new(), Vec::new());
    let seed = place.folder.path().join("seed.sql.gz");
    for round in 0..ROUNDS {
        let line = format!("pg_dump {} | gzip > {}", place.settings.name, seed.display());
        let theirs = cost::of_shell(place, &line).await?;
        let (ours, taken) = taken(place, &format!("round-{round}")).await?;
        cpu.push(ours.cpu / theirs.cpu);
        wall.push(ours.wall / theirs.wall);
        size.push(taken.bytes as f64 / std::fs::metadata(&seed)?.len() as f64);
    }
    let alone = pgbench(place)?.wait_with_output()?;
    let running = pgbench(place)?;
    let busy = tokio::task::spawn_blocking(move || running.wait_with_output());
    let mut backups = 0_u32;
    while !busy.is_finished() {
        taken(place, &format!("busy-{backups}")).await?;
        backups += 1;
    }
    let (alone, busy) = (reached(&alone.stdout)?, reached(&busy.await??.stdout)?);
    Ok(json!({
        "backup_cpu_ratio": rounded(middle(cpu)),
        "backup_wall_ratio": rounded(middle(wall)),
        "backup_size_ratio": rounded(middle(size)),
        "backup_tps_ratio": rounded(busy / alone),
        "backup_tps": rounded(busy),
        "backups_meanwhile": backups,
    }))
}

async fn taken(place: &Place, release: &str) -> Result<(cost::Cost, backup::Backup)> {
    let order = place.order(release);
    let (authority, progress) = (rule(), Progress::default());
    let (taken, cost) = cost::of(backup::take(&place.settings, &order, &authority, &progress)).await?;
    let taken = taken?;
    ensure!(!taken.already && taken.verified == Some(VerifyLevel::Digest), "{taken:?}");
    Ok((cost, taken))
}

/// A busy application.
fn pgbench(place: &Place) -> Result<Child> {
    let app = format!("{}_app", place.settings.name);
    let mut command = place.cluster.client("pgbench", &app, &place.settings.name);
    command.args(["--client=8", "--jobs=2", "--no-vacuum"]);
    command.args([format!("--rate={RATE}"), format!("--time={SECONDS}")]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    command.spawn().context("cannot start pgbench")
}

/// Transactions a second that pgbench says it reached.
fn reached(said: &[u8]) -> Result<f64> {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says no tps")?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}
