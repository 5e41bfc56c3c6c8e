//! The demo's visitors, and its last page.
//!
//! `pointsman-visitors load ADDRESS VISITS` lets a crowd ask for pages until it is told to end (SIGTERM), then writes
//! every request down. `pointsman-visitors account VISITS RELOAD SUMMARY OUTCOME...` reads that, when HAProxy was
//! reloaded, and the outcome documents of the releases; it writes `SUMMARY` and prints an account for people. Its exit
//! status says whether anything failed.
#![expect(clippy::print_stdout, reason = "the account is for people")]

mod account;
mod crowd;
mod visit;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use account::{Account, Reload};
use visit::Visit;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", address, visits] => load(address, Path::new(visits)),
        ["account", visits, reload, summary, outcomes @ ..] => {
            account(Path::new(visits), Path::new(reload), Path::new(summary), outcomes)
        }
        _ => {
            bail!("usage: pointsman-visitors load ADDRESS VISITS | account VISITS RELOAD SUMMARY OUTCOME...")
        }
    }
}

fn load(address: &str, file: &Path) -> Result<()> {
    let address = address.parse().context("the address of the load balancer")?;
    let visits = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        anyhow::Ok(crowd::visit_until(address, end.recv()).await)
    })?;
    let mut lines = String::new();
    for visit in &visits {
        writeln!(lines, "{}", visit.line())?;
    }
    // Whoever waits for the file finds it whole.
    let part = file.with_extension("part");
    std::fs::write(&part, lines).with_context(|| format!("cannot write `{}`", part.display()))?;
    std::fs::rename(&part, file).with_context(|| format!("cannot write `{}`", file.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn account(visits: &Path, reload: &Path, summary: &Path, outcomes: &[&str]) -> Result<()> {
    let visits: Vec<Visit> = read(visits)?.lines().map(Visit::parse).collect::<Result<_>>()?;
    let reload = Reload::parse(&read(reload)?)?;
    let outcomes = outcomes.iter().map(|path| {
        serde_json::from_str(&read(Path::new(path))?).with_context(|| format!("`{path}` is no JSON document"))
    });
    let account = Account::of(&visits, reload, outcomes.collect::<Result<Vec<_>>>()?);
    std::fs::write(summary, format!("{:#}\n", account.json()))?;
    print!("{account}");
    if !account.well() {
        bail!("something failed: see above");
    }
    println!("No visitor saw a release happen, nor the reload.");
    Ok(())
}
