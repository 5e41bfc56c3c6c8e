//! What visitors meet, second by second.

use pointsman_core::Problem;
use pointsman_core::signal::{Cell, Coverage};
use pointsman_proto::{convert, v1};
use serde_json::{Value, json};

use super::{problem_line, time};

/// The quantiles that are shown, in thousandths.
const QUANTILES: [(&str, u64); 3] = [("p50", 500), ("p95", 950), ("p99", 990)];

/// A slot in one second: its cells as one.
struct Slot<'a> {
    wire: &'a v1::SlotTraffic,
    /// The releases that visitors met there, the busiest first.
    releases: Vec<String>,
    cell: Cell,
}

fn slot(wire: &v1::SlotTraffic) -> Result<Slot<'_>, Problem> {
    let (mut cell, mut releases) = (Cell::default(), Vec::<(u64, String)>::new());
    for part in &wire.cells {
        let counted = part.cell.as_ref().map(convert::cell_from_wire).transpose()?;
        let counted = counted.map(|(_, cell)| cell).unwrap_or_default();
        cell.merge(&counted);
        match releases.iter_mut().find(|(_, known)| *known == part.release) {
            Some((requests, _)) => *requests = requests.saturating_add(counted.requests),
            None if part.release.is_empty() => {}
            None => releases.push((counted.requests, part.release.clone())),
        }
    }
    releases.sort_by(|(one, a), (another, b)| another.cmp(one).then_with(|| a.cmp(b)));
    Ok(Slot { wire, releases: releases.into_iter().map(|(_, release)| release).collect(), cell })
}

fn slots(tick: &v1::TrafficTick) -> Result<Vec<Slot<'_>>, Problem> {
    tick.slots.iter().map(slot).collect()
}

fn per_second(count: u64, span_ms: u64) -> f64 {
    count as f64 * 1000.0 / span_ms.max(1) as f64
}

fn coverage(tick: &v1::TrafficTick) -> Option<f64> {
    tick.coverage.map(|wire| Coverage::share(convert::coverage_from_wire(wire)))
}

impl Slot<'_> {
    fn error_share(&self) -> Option<f64> {
        let judged = self.cell.judged();
        (judged > 0).then(|| self.cell.failures as f64 / judged as f64)
    }

    /// The figures of a line, without the slot's name.
    fn figures(&self, tick: &v1::TrafficTick) -> String {
        let share =
            self.error_share().map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0));
        let latency: Vec<String> = QUANTILES
            .iter()
            .map(|(name, per_mille)| {
                let ms = self.cell.latency.quantile_ms(*per_mille).filter(|_| tick.latency_usable);
                format!("{name} {:>8}", ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms")))
            })
            .collect();
        let release = self.releases.first().map_or("-", String::as_str);
        let more =
            if self.releases.len() > 1 { format!(" +{}", self.releases.len() - 1) } else { String::new() };
        let probes = self.wire.probes.as_ref().map(|probes| format!("  probes {}", probes_told(probes)));
        format!(
            "{:<12} {:>8.1}/s  errors {:>4} ({share:>7})  {}  aborts {}  retries {}{}",
            format!("{release}{more}"),
            per_second(self.cell.requests, tick.span_ms),
            self.cell.failures,
            latency.join("  "),
            self.cell.client_aborts,
            self.wire.retries,
            probes.unwrap_or_default(),
        )
    }

    fn json(&self, tick: &v1::TrafficTick) -> Value {
        let ms = |per_mille| self.cell.latency.quantile_ms(per_mille).filter(|_| tick.latency_usable);
        json!({
            "slot": self.wire.slot, "backend": self.wire.backend, "releases": self.releases,
            "coverage": self.wire.coverage.map(|wire| convert::coverage_from_wire(wire).share()),
            "requests": self.cell.requests, "rate_per_s": per_second(self.cell.requests, tick.span_ms),
            "errors": self.cell.failures, "error_share": self.error_share(),
            "responses_5xx": self.cell.responses_5xx, "connection_errors": self.cell.connection_errors,
            "client_aborts": self.cell.client_aborts, "retries": self.wire.retries, "rescued": self.cell.rescued,
            "p50_ms": ms(500), "p95_ms": ms(950), "p99_ms": ms(990),
            "probes": probes_json(self.wire.probes.as_ref()),
        })
    }
}

/// `3 (1 failed)`: what was asked by no visitor, and is in no other number.
pub fn probes_told(probes: &v1::SignalProbes) -> String {
    match probes.failures {
        0 => probes.requests.to_string(),
        failures => format!("{} ({failures} failed)", probes.requests),
    }
}

/// The same for programs; zeros where nothing was asked.
pub fn probes_json(probes: Option<&v1::SignalProbes>) -> Value {
    let (requests, failures) = probes.map_or((0, 0), |probes| (probes.requests, probes.failures));
    json!({ "requests": requests, "failures": failures })
}

/// What is not as it should be, a line each.
fn notes(tick: &v1::TrafficTick) -> Vec<String> {
    let mut notes = Vec::new();
    if !tick.latency_usable {
        notes.push(format!("no latencies: {}", tick.latency_unusable_because));
    }
    notes.extend(tick.missing.iter().map(|problem| format!("{}; {}", problem_line(problem), problem.hint)));
    if tick.maintenance_pages > 0 {
        notes.push(format!("maintenance page {:.1}/s", per_second(tick.maintenance_pages, tick.span_ms)));
    }
    if tick.broken_lines > 0 {
        notes.push(format!("{} access lines cannot be read: see docs/signals.md", tick.broken_lines));
    }
    notes
}

fn coverage_word(tick: &v1::TrafficTick) -> String {
    // Rounded down: what is not enough must not look like it.
    coverage(tick).map_or_else(
        || "coverage unknown".to_owned(),
        |share| format!("coverage {:.1} %", (share * 1000.0).floor() / 10.0),
    )
}

/// One line for every slot, and one for everything that is not as it should be.
pub fn tick_lines(tick: &v1::TrafficTick) -> Result<String, Problem> {
    let moment = time(tick.at_ms);
    let covered = coverage_word(tick);
    let lines = slots(tick)?;
    let lines = lines
        .iter()
        .map(|slot| format!("{moment} {:<8} {}  {covered}\n", slot.wire.slot, slot.figures(tick)));
    let notes = notes(tick).into_iter().map(|note| format!("{moment} {note}\n"));
    Ok(lines.chain(notes).collect())
}

/// A block that takes the place of the one before.
pub fn tick_block(tick: &v1::TrafficTick) -> Result<String, Problem> {
    let mut text = format!("{}  {}  {}\n", tick.environment, time(tick.at_ms), coverage_word(tick));
    for slot in slots(tick)? {
        text.push_str(&format!("{:<8} {}\n", slot.wire.slot, slot.figures(tick)));
    }
    notes(tick).into_iter().for_each(|note| text.push_str(&format!("{note}\n")));
    Ok(text)
}

/// One second for programs. Latencies are `null` where the lines are not complete enough to speak of them.
pub fn tick_json(tick: &v1::TrafficTick) -> Result<Value, Problem> {
    let slots: Vec<Value> = slots(tick)?.iter().map(|slot| slot.json(tick)).collect();
    let because = Some(&tick.latency_unusable_because).filter(|_| !tick.latency_usable);
    Ok(json!({
        "kind": "traffic-tick", "environment": tick.environment, "at_ms": tick.at_ms, "span_ms": tick.span_ms,
        "slots": slots, "coverage": coverage(tick), "latency_usable": tick.latency_usable,
        "latency_unusable_because": because, "balancers": tick.balancers,
        "missing": tick.missing.iter().map(super::json::wire_problem).collect::<Vec<_>>(),
        "maintenance_pages": tick.maintenance_pages, "broken_lines": tick.broken_lines,
    }))
}
