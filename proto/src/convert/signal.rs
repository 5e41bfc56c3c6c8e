//! Signals.

use pointsman_core::histogram::Histogram;
use pointsman_core::signal::{Cell, CellKey, Coverage, Growth, Probes, Tick};
use pointsman_core::{BackendName, Code, Problem, RouteEpoch, Timestamp};

use super::field;
use crate::v1;

fn histogram_to_wire(histogram: &Histogram) -> v1::SignalHistogram {
    let (bucket, count) = histogram.buckets().map(|(bucket, count)| (u32::from(bucket), count)).unzip();
    v1::SignalHistogram { bucket, count }
}

fn histogram_from_wire(wire: &v1::SignalHistogram) -> Result<Histogram, Problem> {
    let wrong = || Problem::new(Code::MessageInvalid, "a field of times in the message is no histogram");
    if wire.bucket.len() != wire.count.len() {
        return Err(wrong());
    }
    let buckets = wire.bucket.iter().copied().zip(wire.count.iter().copied());
    Histogram::from_buckets(buckets).map_err(|error| wrong().because(&error))
}

/// A cell for the wire.
pub fn cell_to_wire(key: &CellKey, cell: &Cell) -> v1::SignalCell {
    v1::SignalCell {
        backend: key.backend.to_string(),
        route_epoch: key.epoch.0,
        class: key.class.to_string(),
        requests: cell.requests,
        failures: cell.failures,
        responses_5xx: cell.responses_5xx,
        connection_errors: cell.connection_errors,
        client_aborts: cell.client_aborts,
        retried: cell.retried,
        retries: cell.retries,
        rescued: cell.rescued,
        not_forwarded: cell.not_forwarded,
        upgraded: cell.upgraded,
        latency: Some(histogram_to_wire(&cell.latency)),
        abandoned: (cell.abandoned.total() > 0).then(|| histogram_to_wire(&cell.abandoned)),
    }
}

/// A cell from the wire. One that counts more failures than requests is refused: nothing could be concluded from it.
pub fn cell_from_wire(wire: &v1::SignalCell) -> Result<(CellKey, Cell), Problem> {
    let key = CellKey {
        backend: field("backend", &wire.backend)?,
        epoch: RouteEpoch(wire.route_epoch),
        class: field("class", &wire.class)?,
    };
    let cell = Cell {
        requests: wire.requests,
        failures: wire.failures,
        responses_5xx: wire.responses_5xx,
        connection_errors: wire.connection_errors,
        client_aborts: wire.client_aborts,
        retried: wire.retried,
        retries: wire.retries,
        rescued: wire.rescued,
        not_forwarded: wire.not_forwarded,
        upgraded: wire.upgraded,
        latency: wire.latency.as_ref().map_or_else(|| Ok(Histogram::default()), histogram_from_wire)?,
        abandoned: wire.abandoned.as_ref().map_or_else(|| Ok(Histogram::default()), histogram_from_wire)?,
    };
    let counted = cell.failed_by_servers().saturating_add(cell.client_aborts);
    let parts = [counted, cell.retried, cell.latency.total(), cell.upgraded];
    if parts.iter().any(|part| *part > cell.requests)
        || cell.responses_5xx.max(cell.connection_errors) > cell.failures
        || cell.rescued > cell.retried
        || cell.abandoned.total() > cell.client_aborts
    {
        return Err(Problem::new(
            Code::MessageInvalid,
            "a cell of the message counts more than its requests",
        ));
    }
    Ok((key, cell))
}

/// Coverage for the wire.
pub fn coverage_to_wire(coverage: Coverage) -> v1::SignalCoverage {
    v1::SignalCoverage { seen: coverage.seen, expected: coverage.expected }
}

/// Coverage from the wire.
pub fn coverage_from_wire(wire: v1::SignalCoverage) -> Coverage {
    Coverage { seen: wire.seen, expected: wire.expected }
}

fn covered_to_wire(backend: &BackendName, coverage: Coverage) -> v1::BackendCoverage {
    v1::BackendCoverage { backend: backend.to_string(), coverage: Some(coverage_to_wire(coverage)) }
}

fn covered_from_wire(wire: &v1::BackendCoverage) -> Result<(BackendName, Coverage), Problem> {
    let missing =
        || Problem::new(Code::MessageInvalid, "field `coverage` of a backend is missing in the message");
    let coverage = wire.coverage.map(coverage_from_wire).ok_or_else(missing)?;
    Ok((field("backend", &wire.backend)?, coverage))
}

/// What grew, for the wire.
pub fn growth_to_wire(backend: &BackendName, growth: Growth) -> v1::SignalGrowth {
    v1::SignalGrowth {
        backend: backend.to_string(),
        requests: growth.requests,
        responses_5xx: growth.responses_5xx,
        connection_errors: growth.connection_errors,
        response_errors: growth.response_errors,
        retries: growth.retries,
        client_aborts: growth.client_aborts,
    }
}

fn growth_from_wire(wire: &v1::SignalGrowth) -> Result<(BackendName, Growth), Problem> {
    let growth = Growth {
        requests: wire.requests,
        responses_5xx: wire.responses_5xx,
        connection_errors: wire.connection_errors,
        response_errors: wire.response_errors,
        retries: wire.retries,
        client_aborts: wire.client_aborts,
    };
    Ok((field("backend", &wire.backend)?, growth))
}

/// Probes for the wire.
pub fn probes_to_wire(backend: &BackendName, probes: Probes) -> v1::SignalProbes {
    let Probes { requests, failures } = probes;
    v1::SignalProbes { backend: backend.to_string(), requests, failures }
}

fn probes_from_wire(wire: &v1::SignalProbes) -> Result<(BackendName, Probes), Problem> {
    if wire.failures > wire.requests {
        return Err(Problem::new(
            Code::MessageInvalid,
            "probes of the message fail more often than they are made",
        ));
    }
    let probes = Probes { requests: wire.requests, failures: wire.failures };
    Ok((field("backend", &wire.backend)?, probes))
}

/// A tick for the wire. Its life, and what else only the agent knows, the agent adds.
pub fn tick_to_wire(tick: &Tick) -> v1::SignalTick {
    v1::SignalTick {
        number: tick.number,
        at_ms: tick.at.0,
        span_ms: tick.span_ms,
        cells: tick.cells.iter().map(|(key, cell)| cell_to_wire(key, cell)).collect(),
        probes: tick.probes.iter().map(|(backend, probes)| probes_to_wire(backend, *probes)).collect(),
        coverage: tick.coverage.map(coverage_to_wire),
        counters: tick.counters.iter().map(|(backend, growth)| growth_to_wire(backend, *growth)).collect(),
        lines_tell_retries: tick.lines_tell_retries,
        broken_lines: tick.broken_lines,
        covered: tick.covered.iter().map(|(backend, coverage)| covered_to_wire(backend, *coverage)).collect(),
        ..Default::default()
    }
}

/// A tick from the wire. One that cannot be is refused whole: half a tick would be a wrong one.
pub fn tick_from_wire(wire: &v1::SignalTick) -> Result<Tick, Problem> {
    if wire.number == 0 || wire.span_ms == 0 {
        return Err(Problem::new(Code::MessageInvalid, "a tick of the message has no number or no length"));
    }
    Ok(Tick {
        number: wire.number,
        at: Timestamp(wire.at_ms),
        span_ms: wire.span_ms,
        cells: wire.cells.iter().map(cell_from_wire).collect::<Result<_, _>>()?,
        probes: wire.probes.iter().map(probes_from_wire).collect::<Result<_, _>>()?,
        coverage: wire.coverage.map(coverage_from_wire),
        counters: wire.counters.iter().map(growth_from_wire).collect::<Result<_, _>>()?,
        lines_tell_retries: wire.lines_tell_retries,
        broken_lines: wire.broken_lines,
        covered: wire.covered.iter().map(covered_from_wire).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::signal::{Ending, Retries};

    fn tick() -> Tick {
        let key = CellKey {
            backend: "be_blue".parse().unwrap(),
            epoch: RouteEpoch(7),
            class: "api".parse().unwrap(),
        };
        let mut cell = Cell::default();
        for ms in [0, 3, 511, 512, 2_000, 70_000] {
            cell.count(Ending::Answered, 200, Some(ms), Retries::default());
        }
        cell.count(Ending::Answered, 101, Some(70_000), Retries::default());
        cell.count(Ending::Answered, 200, Some(1_003), Retries { count: 1, redispatched: false });
        cell.count(Ending::Failed { unconnected: true }, 503, None, Retries { count: 3, redispatched: true });
        cell.count(Ending::ClientLeft { unanswered: true }, 400, Some(9_000), Retries::default());
        Tick {
            number: 3,
            at: Timestamp(1_000),
            span_ms: 1_000,
            cells: [(key.clone(), cell)].into(),
            probes: [(key.backend.clone(), Probes { requests: 2, failures: 1 })].into(),
            coverage: Some(Coverage { seen: 7, expected: 7 }),
            covered: [(key.backend.clone(), Coverage { seen: 6, expected: 7 })].into(),
            counters: [(key.backend, Growth { requests: 7, retries: 3, ..Growth::default() })].into(),
            lines_tell_retries: true,
            broken_lines: 1,
        }
    }

    #[test]
    fn a_tick_arrives_as_it_was_sent() {
        assert_eq!(tick_from_wire(&tick_to_wire(&tick())), Ok(tick()));
    }

    #[test]
    fn an_agent_of_before_it_was_counted_tells_of_nobody_who_gave_up() {
        let mut wire = tick_to_wire(&tick());
        wire.cells[0].abandoned = None;
        let told = tick_from_wire(&wire).unwrap();
        assert!(told.cells.values().all(|cell| cell.abandoned.total() == 0 && cell.client_aborts == 1));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let spoils: [fn(&mut v1::SignalTick); 14] = [
            |tick| tick.covered[0].coverage = None,
            |tick| tick.covered[0].backend = "blue".to_owned(),
            |tick| tick.number = 0,
            |tick| tick.span_ms = 0,
            |tick| tick.cells[0].failures = 11,
            |tick| tick.cells[0].abandoned.as_mut().unwrap().count[0] = 2,
            |tick| tick.cells[0].upgraded = 11,
            |tick| tick.cells[0].rescued = 3,
            |tick| tick.cells[0].rescued = u64::MAX,
            |tick| tick.cells[0].client_aborts = u64::MAX,
            |tick| tick.cells[0].backend = "blue".to_owned(),
            |tick| tick.cells[0].latency.as_mut().unwrap().bucket[0] = 4_000,
            |tick| tick.cells[0].latency.as_mut().unwrap().count.clear(),
            |tick| tick.probes[0].failures = 3,
        ];
        for spoil in spoils {
            let mut wire = tick_to_wire(&tick());
            spoil(&mut wire);
            assert_eq!(tick_from_wire(&wire).unwrap_err().code, Code::MessageInvalid, "{wire:?}");
        }
    }
}
