//! The demo's visitors, and its last page.
//!
//! `pointsman-visitors load ADDRESS REPORT` asks for pages until it is told to end (SIGTERM), then writes what became
//! of every request. `pointsman-visitors account REPORT SUMMARY OUTCOME...` reads that and the outcome documents of
//! the releases, writes `SUMMARY`, and prints an account for people; its exit status says whether anything failed.
#![expect(clippy::print_stdout, reason = "the account is for people")]

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kit::{Load, LoadPlan};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", address, report] => load(address, Path::new(report)),
        ["account", report, summary, outcomes @ ..] => {
            account(Path::new(report), Path::new(summary), outcomes)
        }
        _ => bail!("usage: pointsman-visitors load ADDRESS REPORT | account REPORT SUMMARY OUTCOME..."),
    }
}

fn load(address: &str, report: &Path) -> Result<()> {
    let address = address.parse().context("the address of the load balancer")?;
    let visitors = Load::start(address, LoadPlan::default())?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        anyhow::Ok(())
    })?;
    let seen = visitors.stop()?;
    let mut answered: BTreeMap<&str, u64> = BTreeMap::new();
    for visit in &seen.visits {
        let count = answered.entry(visit.marker.as_str()).or_default();
        *count = count.saturating_add(1);
    }
    let failures = seen.failures();
    let document = json!({
        "requests": seen.visits.len(), "failed": failures.len(), "per_second": seen.rate().round() as u64,
        "answered_by": answered, "first_failures": failures.iter().take(5).collect::<Vec<_>>(),
    });
    std::fs::write(report, document.to_string())
        .with_context(|| format!("cannot write `{}`", report.display()))
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON document", path.display()))
}

/// How long the load balancers took to confirm the switch of a release, in milliseconds.
fn switch_ms(outcome: &Value) -> Option<f64> {
    let orders = outcome.pointer("/detail/orders")?.as_array()?;
    let took = orders.iter().filter(|order| order.get("step").and_then(Value::as_str) == Some("switch"));
    took.filter_map(|order| order.get("took_us")?.as_f64()).map(|us| us / 1000.0).reduce(f64::max)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("?")
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn account(report: &Path, summary: &Path, outcomes: &[&str]) -> Result<()> {
    let seen = read(report)?;
    let outcomes: Vec<Value> = outcomes.iter().map(|path| read(Path::new(path))).collect::<Result<_>>()?;
    let releases: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "id": text(outcome, "/release"), "outcome": text(outcome, "/outcome"),
                "duration_ms": number(outcome, "/duration_ms"),
            })
        })
        .collect();
    let of = |purpose: &str| {
        let of_purpose = outcomes.iter().filter(|outcome| text(outcome, "/detail/plan/purpose") == purpose);
        of_purpose.filter_map(switch_ms).next_back()
    };
    let (requests, failed) = (number(&seen, "/requests"), number(&seen, "/failed"));
    let (switch, rollback) = (of("deploy"), of("rollback"));
    let document = json!({
        "requests": requests, "failed": failed, "releases": releases, "switch_ms": switch, "rollback_ms": rollback,
    });
    std::fs::write(summary, format!("{document:#}\n"))?;

    println!(
        "What the visitors saw: {requests} requests, {failed} failed, {} per second",
        number(&seen, "/per_second")
    );
    for (version, count) in seen.pointer("/answered_by").and_then(Value::as_object).into_iter().flatten() {
        println!("  {count:>7} answered by {version}");
    }
    for failure in seen.pointer("/first_failures").and_then(Value::as_array).into_iter().flatten() {
        println!("  failed: {failure}");
    }
    println!("What was released:");
    for outcome in &outcomes {
        let (id, how) = (text(outcome, "/release"), text(outcome, "/outcome"));
        let switched =
            switch_ms(outcome).map_or_else(String::new, |ms| format!(", visitors moved in {ms:.1} ms"));
        println!("  {id:<24} {how}, {} ms{switched}", number(outcome, "/duration_ms"));
    }
    let confirmed =
        releases.iter().all(|release| release.get("outcome").and_then(Value::as_str) == Some("confirmed"));
    if failed > 0 || !confirmed || requests == 0 {
        bail!("something failed: see above");
    }
    println!("No visitor saw a release happen.");
    Ok(())
}
