//! How long a broken version hurts visitors before a verdict has them back: on a whole site of real parts.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kit::{Load, LoadPlan, Report, Site, binary};
use serde_json::{Value, json};

use crate::figures::{Samples, rounded};

/// Reactions that are measured.
const RUNS: usize = 7;
/// How long the new version is good before it breaks: a verdict that knows good seconds falls later.
const GOOD: Duration = Duration::from_secs(3);

const METHOD: &str = "live_*: real HAProxy, nginx, agents and coordinator over mutual TLS on one machine, release \
profile, 640 requests per second, everybody on the new slot; after at least 3 s it begins to answer one request in five \
with 500, and no check knows of it. live_reaction_ms = median, over live_runs, of: end of the first bad answer that a \
visitor got to end of the last answer of the new version; the verdict, the orders and the route back are all in it. The \
verdict itself takes 4 to 5 whole seconds at that rate (detect_elsewhere), and the second in which it breaks is not \
whole. live_hurt_median = visitors who got an error; live_counted_median = errors that the verdict itself had counted; \
live_reported_median = errors that the release reports after its end, with those that came after the verdict, over the runs \
in which it heard of all of them";

/// Adds the figures of the real site to those of the simulation.
pub async fn measure(releases: &str) -> Result<Value> {
    let simulated = tokio::task::spawn_blocking({
        let releases = releases.to_owned();
        move || simulated(&releases)
    });
    let mut found = simulated.await??;
    let (mut reactions, mut hurt, mut counted) = (Samples::default(), Vec::new(), Vec::new());
    let mut reported = Vec::new();
    for _ in 0..RUNS {
        let run = once().await?;
        reactions.push(run.reaction);
        hurt.push(run.hurt);
        counted.push(run.counted);
        reported.extend(run.reported);
    }
    let fields = found.as_object_mut().context("the simulation printed no object")?;
    for (key, value) in [
        ("live_reaction_ms", json!(rounded(reactions.p50()))),
        ("live_reaction_slowest_ms", json!(rounded(reactions.p99()))),
        ("live_hurt_median", json!(median(hurt))),
        ("live_counted_median", json!(median(counted))),
        ("live_reported_median", json!(median(reported))),
        ("live_runs", json!(RUNS)),
        ("live_method", json!(METHOD)),
    ] {
        fields.insert(key.to_owned(), value);
    }
    Ok(found)
}

fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

fn simulated(releases: &str) -> Result<Value> {
    let mut command = Command::new(binary("pointsman-verdict")?);
    let output = command.args(["--output", "json", "--releases", releases]).output()?;
    if !output.status.success() {
        bail!("the simulation failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

struct Run {
    reaction: Duration,
    hurt: u64,
    counted: u64,
    reported: Option<u64>,
}

async fn once() -> Result<Run> {
    let site = Site::builder().watch("120s").start().await?;
    site.released_unwatched("v1").await?;
    let load = Load::start(site.frontend(), LoadPlan::default())?;
    load.more(300).await?;
    let mut client = site.client()?;
    let digest = kit::publish(&mut client, &site.artifact("v2")?).await?;
    client.deploy(&digest, "v2").await?;
    client.follow("v2", |seen| seen.done("switch")).await?;
    tokio::time::sleep(GOOD).await;
    site.green.fail_visitors(true)?;
    let outcome = client.outcome("v2").await?;
    load.more(300).await?;
    let report = load.stop()?;
    if outcome != "rolled-back" {
        bail!("the broken version ended {outcome}");
    }
    let release = client.status().await?.release.context("no release")?;
    let errors = release.verdict.and_then(|verdict| verdict.errors).and_then(|errors| errors.new_slot);
    Ok(Run {
        reaction: reaction(&report).context("nobody was hurt")?,
        hurt: u64::try_from(report.failures().len())?,
        counted: errors.map_or(0, |new| new.bad),
        reported: release.met.filter(|met| met.to_the_end).map(|met| met.failures),
    })
}

/// From the first bad answer to the last answer of the new version.
fn reaction(report: &Report) -> Option<Duration> {
    let first =
        report.visits.iter().filter(|visit| visit.failure.is_some()).map(|visit| visit.ended).min()?;
    let new = |visit: &&kit::Visit| visit.marker == "v2" || visit.failure.is_some();
    let last = report.visits.iter().filter(new).map(|visit| visit.ended).max()?;
    Some(last.saturating_duration_since(first))
}
