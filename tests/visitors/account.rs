//! The demo's last page: what the visitors met while releases happened, and how that became of what was asked for.
//! Everything here is counted from the visitors' side but the moment of a switch, which the release itself reports.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::visit::Visit;

/// Most failures that are shown.
const SHOWN_FAILURES: usize = 5;

/// When HAProxy was reloaded, and when the last process of before was gone, in microseconds since 1970.
#[derive(Clone, Copy)]
pub struct Reload {
    began_us: u64,
    ended_us: u64,
}

impl Reload {
    /// Reads two numbers.
    pub fn parse(text: &str) -> Result<Self> {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).context("the reload has two moments");
        Ok(Self { began_us: next()?, ended_us: next()? })
    }
}

/// Requests of some stretch of time.
#[derive(Clone, Copy, Default)]
struct Count {
    requests: usize,
    failed: usize,
}

impl Count {
    fn of<'a>(visits: impl Iterator<Item = &'a Visit>) -> Self {
        visits.fold(Self::default(), |count, visit| Self {
            requests: count.requests.saturating_add(1),
            failed: count.failed.saturating_add(usize::from(visit.failure.is_some())),
        })
    }

    fn json(self) -> Value {
        json!({ "requests": self.requests, "failed": self.failed })
    }
}

/// One share of the visitors, while it lasted.
struct Canary {
    asked_percent: u64,
    visitors: usize,
    on_canary: usize,
    /// Visitors that were on both sides.
    changed: usize,
    lasted_us: u64,
    count: Count,
    /// Slot and p99 of the new version and of the old one.
    p99: [(String, Option<u64>); 2],
}

impl Canary {
    fn share(&self) -> f64 {
        self.on_canary as f64 * 100.0 / self.visitors.max(1) as f64
    }

    /// How far so many visitors, each on a side by the chance of its id, may be off: two standard deviations.
    fn chance(&self) -> f64 {
        let asked = self.asked_percent as f64;
        2.0 * (asked * (100.0 - asked) / self.visitors.max(1) as f64).sqrt()
    }

    fn json(&self) -> Value {
        let p99 = self
            .p99
            .iter()
            .map(|(slot, us)| (slot.clone(), json!(us.map(ms))))
            .collect::<serde_json::Map<_, _>>();
        json!({
            "asked_percent": self.asked_percent, "percent": self.share(), "visitors": self.visitors,
            "on_canary": self.on_canary, "changed_sides": self.changed, "lasted_ms": ms(self.lasted_us),
            "requests": self.count.requests, "failed": self.count.failed, "p99_ms": p99,
        })
    }
}

/// When all visitors were moved.
struct Switch {
    /// From the order to its confirmation.
    took_us: u64,
    effect_us: u64,
    /// When the last request began that was routed as before, relative to the effect.
    last_old_us: Option<i64>,
}

struct Release {
    id: String,
    purpose: String,
    outcome: String,
    duration_ms: u64,
    asked_splits: usize,
    canaries: Vec<Canary>,
    switch: Option<Switch>,
    count: Count,
}

/// The account.
pub struct Account {
    count: Count,
    visitors: usize,
    first_failures: Vec<String>,
    releases: Vec<Release>,
    reload: Count,
    reload_us: u64,
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The time of day, in UTC.
fn clock(us: u64) -> String {
    let (ms, s) = (us / 1000, us / 1_000_000);
    format!("{:02}:{:02}:{:02}.{:03}Z", s / 3600 % 24, s / 60 % 60, s % 60, ms % 1000)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("?")
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn people<'a>(visits: impl Iterator<Item = &'a Visit>) -> BTreeSet<u64> {
    visits.map(|visit| visit.person).collect()
}

/// The 99th percentile of what visits took: the exact one, of all of them.
fn p99_us<'a>(visits: impl Iterator<Item = &'a Visit>) -> Option<u64> {
    let mut took: Vec<u64> = visits.map(|visit| visit.took_us).collect();
    took.sort_unstable();
    took.get(took.len().saturating_mul(99).div_ceil(100).checked_sub(1)?).copied()
}

/// The share in one route epoch.
fn canary(visits: &[Visit], epoch: u64, asked_percent: u64, slots: [&str; 2]) -> Canary {
    let meanwhile = || visits.iter().filter(|visit| visit.epoch == Some(epoch));
    let (new, old) = (|| meanwhile().filter(|v| v.canary), || meanwhile().filter(|v| !v.canary));
    let (on, off) = (people(new()), people(old()));
    let first_us = meanwhile().map(|visit| visit.began_us).min().unwrap_or_default();
    let last_us = meanwhile().map(|visit| visit.began_us).max().unwrap_or_default();
    let [new_slot, old_slot] = slots.map(str::to_owned);
    Canary {
        asked_percent,
        visitors: on.union(&off).count(),
        on_canary: on.len(),
        changed: on.intersection(&off).count(),
        lasted_us: last_us.saturating_sub(first_us),
        count: Count::of(meanwhile()),
        p99: [(new_slot, p99_us(new())), (old_slot, p99_us(old()))],
    }
}

fn switch(visits: &[Visit], outcome: &Value) -> Option<Switch> {
    let orders = || items(outcome, "/detail/orders").iter().filter(|order| text(order, "/step") == "switch");
    let effect_us = orders().filter_map(|order| order.get("effect_at_us")?.as_u64()).max()?;
    let took_us = orders().map(|order| number(order, "/took_us")).max()?;
    let epoch: u64 = text(outcome, "/detail/plan/route_after").rsplit(':').next()?.parse().ok()?;
    let before = visits.iter().filter(|visit| visit.epoch.is_some_and(|seen| seen < epoch));
    let last_us = before.map(|visit| visit.began_us).max();
    let last_old_us = last_us.and_then(|last| last.checked_signed_diff(effect_us));
    Some(Switch { took_us, effect_us, last_old_us })
}

fn release(visits: &[Visit], outcome: &Value) -> Release {
    let id = text(outcome, "/release").to_owned();
    let [started_us, ended_us] = ["/detail/started_at_ms", "/detail/entered_at_ms"]
        .map(|moment| number(outcome, moment).saturating_mul(1000));
    let slots = [text(outcome, "/detail/plan/to_slot"), text(outcome, "/detail/plan/from_slot")];
    let splits = items(outcome, "/detail/plan/splits");
    // The epochs in which a part of the visitors got the new version: seen by them, not taken from the plan.
    let met = visits.iter().filter(|visit| visit.canary && visit.version == id);
    let epochs: BTreeSet<u64> = met.filter_map(|visit| visit.epoch).collect();
    let shares = epochs.into_iter().zip(splits);
    Release {
        purpose: text(outcome, "/detail/plan/purpose").to_owned(),
        outcome: text(outcome, "/outcome").to_owned(),
        duration_ms: number(outcome, "/duration_ms"),
        asked_splits: splits.len(),
        canaries: shares
            .map(|(epoch, split)| canary(visits, epoch, number(split, "/percent"), slots))
            .collect(),
        switch: switch(visits, outcome),
        count: Count::of(visits.iter().filter(|v| (started_us..=ended_us).contains(&v.began_us))),
        id,
    }
}

impl Account {
    /// Counts.
    pub fn of(visits: &[Visit], reload: Reload, outcomes: Vec<Value>) -> Self {
        let during =
            |visit: &&Visit| visit.ended_us() >= reload.began_us && visit.began_us <= reload.ended_us;
        let failures = visits.iter().filter_map(|visit| visit.failure.clone());
        Self {
            count: Count::of(visits.iter()),
            visitors: people(visits.iter()).len(),
            first_failures: failures.take(SHOWN_FAILURES).collect(),
            releases: outcomes.iter().map(|outcome| release(visits, outcome)).collect(),
            reload: Count::of(visits.iter().filter(during)),
            reload_us: reload.ended_us.saturating_sub(reload.began_us),
        }
    }

    /// Whether everything went as it should: nothing failed, everything was seen.
    pub fn well(&self) -> bool {
        let release_well = |release: &Release| {
            release.outcome == "confirmed"
                && release.switch.is_some()
                && release.canaries.len() == release.asked_splits
                && release.canaries.iter().all(|canary| canary.changed == 0 && canary.count.failed == 0)
        };
        let visited = self.count.requests > 0 && self.reload.requests > 0;
        self.count.failed == 0 && visited && self.releases.iter().all(release_well)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let switch_ms = |purpose: &str| {
            let of_purpose = self.releases.iter().filter(|release| release.purpose == purpose);
            of_purpose.filter_map(|release| Some(ms(release.switch.as_ref()?.took_us))).next_back()
        };
        json!({
            "requests": self.count.requests, "failed": self.count.failed, "visitors": self.visitors,
            "releases": self.releases.iter().map(Release::json).collect::<Vec<_>>(),
            "switch_ms": switch_ms("deploy"), "rollback_ms": switch_ms("rollback"),
            "reload": { "lasted_ms": ms(self.reload_us), "requests": self.reload.requests, "failed": self.reload.failed },
        })
    }
}

impl Release {
    fn json(&self) -> Value {
        json!({
            "id": self.id, "outcome": self.outcome, "duration_ms": self.duration_ms, "visitors_met": self.count.json(),
            "canaries": self.canaries.iter().map(Canary::json).collect::<Vec<_>>(),
            "switch": self.switch.as_ref().map(|switch| json!({
                "took_ms": ms(switch.took_us), "effect_at_us": switch.effect_us,
                "last_old_request_began_us_after_it": switch.last_old_us,
            })),
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { requests, failed } = self.count;
        writeln!(f, "What {} visitors met: {requests} requests, {failed} failed", self.visitors)?;
        for failure in &self.first_failures {
            writeln!(f, "  failed: {failure}")?;
        }
        self.releases.iter().try_for_each(|release| write!(f, "{release}"))?;
        let Count { requests, failed } = self.reload;
        writeln!(
            f,
            "  reload   of HAProxy: {requests} requests in the {:.1} s until its old process was gone, {failed} failed",
            ms(self.reload_us) / 1000.0
        )
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { requests, failed } = self.count;
        let name = if self.purpose == "rollback" { "back" } else { &self.id };
        let seconds = self.duration_ms as f64 / 1000.0;
        writeln!(
            f,
            "  {name:<8} {} in {seconds:.1} s: {requests} requests meanwhile, {failed} failed",
            self.outcome
        )?;
        self.canaries.iter().try_for_each(|canary| write!(f, "{canary}"))?;
        match &self.switch {
            Some(switch) => write!(f, "{switch}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    canary of {} %: {} of {} visitors, {:.1} % (±{:.0} is chance), for {:.1} s; {} changed sides",
            self.asked_percent,
            self.on_canary,
            self.visitors,
            self.share(),
            self.chance(),
            ms(self.lasted_us) / 1000.0,
            self.changed
        )?;
        let shown = |(slot, us): &(String, Option<u64>)| match us {
            Some(us) => format!("{slot} {:.1} ms", ms(*us)),
            None => format!("{slot} nobody"),
        };
        let [new, old] = &self.p99;
        writeln!(f, "    p99 meanwhile, as visitors measured it: {} (new), {} (old)", shown(new), shown(old))
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "    everybody moved at {}, confirmed in {:.1} ms",
            clock(self.effect_us),
            ms(self.took_us)
        )?;
        match self.last_old_us {
            Some(us) => {
                let (apart, which) = (ms(us.unsigned_abs()), if us < 0 { "before" } else { "after" });
                writeln!(f, "; the last request on the old slot began {apart:.1} ms {which} that")
            }
            None => writeln!(f),
        }
    }
}
