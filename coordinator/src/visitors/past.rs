//! What each backend was like in the last quarter of an hour, as a release will be compared with it.

use std::collections::{BTreeMap, VecDeque};

use pointsman_core::histogram::Histogram;
use pointsman_core::ports::Second;
use pointsman_core::signal::is_judged;
use pointsman_core::verdict::Dispersion;
use pointsman_core::{BackendName, Before, Part, Slower, Usual, slower_than_ms};

/// Seconds that are remembered: a quarter of an hour, as the lb-agents do.
const SECONDS: usize = 900;
/// Seconds in one histogram of times. Two of them are remembered, so the 99th percentile is of 450 to 900 seconds.
const TIMES_SECONDS: u32 = 450;
/// Requests below which nothing is said of a 99th percentile: fewer than five of them are above it.
const LEAST_REQUESTS: u64 = 500;

/// Seconds with requests that say what a backend is like now: two minutes.
const LATELY_SECONDS: usize = 120;

/// Seconds without any request after which what was before them says nothing of what a backend is like now: it may be mended, and
/// whoever deploys is not to be told of it as if it went on.
const SILENT_SECONDS: usize = 180;

/// Seconds after which it is looked anew what is slower than usual: as the past grows that moves less and less.
const LOOK_SECONDS: u32 = 10;

/// What one second saw of a backend.
#[derive(Debug, Default)]
struct Moment {
    /// Requests, errors, requests whose time is known, and those over the limit.
    counts: [u32; 4],
    /// Those slower than was usual by then, once that was known.
    slower: Option<u32>,
}

/// One backend.
#[derive(Debug, Default)]
struct Backend {
    moments: VecDeque<Moment>,
    times: [Histogram; 2],
    /// What takes longer is slower than usual, in milliseconds.
    usual_ms: Option<u64>,
}

impl Backend {
    fn all_times(&self) -> Histogram {
        let [newer, older] = &self.times;
        let mut times = newer.clone();
        times.merge(older);
        times
    }
}

/// The 99th percentile, in milliseconds, where enough requests came to speak of one.
fn p99_ms(times: &Histogram) -> Option<u64> {
    times.quantile_ms(990).filter(|_| times.total() >= LEAST_REQUESTS).map(|ms| ms.ceil() as u64)
}

/// Every backend.
#[derive(Debug)]
pub struct Past {
    limit_ms: u64,
    /// Seconds in the newer histograms.
    newer: u32,
    backends: BTreeMap<BackendName, Backend>,
}

impl Past {
    /// Nothing is known yet. Slower than `limit_ms` is too slow.
    pub fn new(limit_ms: u64) -> Self {
        Self { limit_ms, newer: 0, backends: BTreeMap::new() }
    }

    /// Remembers a second that tells everything.
    pub fn take(&mut self, second: &Second) {
        if second.blind.is_some() {
            return;
        }
        let mut found: BTreeMap<&BackendName, ([u64; 4], u64)> = BTreeMap::new();
        let tells_times = second.seen.latency_usable();
        for (key, cell) in second.seen.cells.iter().filter(|(key, _)| is_judged(&key.class)) {
            let backend = self.backends.entry(key.backend.clone()).or_default();
            let (sums, slower) = found.entry(&key.backend).or_default();
            // As a release is judged: whoever gave up after the limit was served too slowly.
            let given_up = cell.given_up(self.limit_ms);
            let times = [cell.latency.total(), cell.latency.above(self.limit_ms)];
            let [timed, slow] = times.map(|timed| timed.saturating_add(given_up));
            let now = [cell.judged(), cell.failed_by_servers(), timed, slow];
            sums.iter_mut().zip(now).for_each(|(sum, now)| *sum = sum.saturating_add(now));
            let over_usual = backend.usual_ms.map_or(0, |ms| cell.latency.above(ms));
            *slower = slower.saturating_add(over_usual).saturating_add(given_up);
            if tells_times {
                let [newer, _] = &mut backend.times;
                newer.merge(&cell.latency);
            }
        }
        let look = self.newer.is_multiple_of(LOOK_SECONDS);
        for (name, backend) in &mut self.backends {
            let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let (counts, slower) = found.get(name).copied().unwrap_or_default();
            let slower = backend.usual_ms.filter(|_| tells_times).map(|_| small(slower));
            backend.moments.push_back(Moment { counts: counts.map(small), slower });
            if backend.moments.len() > SECONDS {
                backend.moments.pop_front();
            }
            if look {
                let p99_ms = p99_ms(&backend.all_times());
                backend.usual_ms = p99_ms.map(|p99_ms| slower_than_ms(p99_ms, self.limit_ms));
            }
        }
        self.newer = self.newer.saturating_add(1);
        if self.newer >= TIMES_SECONDS {
            self.newer = 0;
            for backend in self.backends.values_mut() {
                let [newer, older] = &mut backend.times;
                *older = std::mem::take(newer);
            }
        }
    }

    /// What a backend was like.
    pub fn of(&self, backend: &BackendName) -> Before {
        let Some(backend) = self.backends.get(backend) else { return Before::default() };
        let moments = &backend.moments;
        let mut bunches = [Dispersion::default(); 3];
        for Moment { counts: [all, failed, timed, late], slower } in moments {
            let [of_errors, of_slow, of_slower] = &mut bunches;
            of_errors.add(*all, *failed);
            of_slow.add(*timed, *late);
            if let Some(slower) = slower {
                of_slower.add(*timed, *slower);
            }
        }
        let counts = moments.iter().map(|moment| moment.counts);
        let [requests, errors, timed, slow] = summed(counts.clone());
        let is_busy = |[requests, _, timed, _]: &[u32; 4]| requests.max(timed) > &0;
        let mut silent_for = 0_usize;
        let since_silence = counts.rev().take_while(|counts| {
            silent_for = if is_busy(counts) { 0 } else { silent_for.saturating_add(1) };
            silent_for < SILENT_SECONDS
        });
        let lately = summed(since_silence.filter(is_busy).take(LATELY_SECONDS));
        let ppm = |part: u64, all: u64| match part.saturating_mul(1_000_000).checked_div(all) {
            Some(ppm) => u32::try_from(ppm).unwrap_or(u32::MAX),
            None => 0,
        };
        let times = backend.all_times();
        let p99_ms = p99_ms(&times);
        let slower = |p99_ms| times.above(slower_than_ms(p99_ms, self.limit_ms));
        let seen = requests.max(timed) > 0;
        let milli = |bunches: &Dispersion| (bunches.or_unknown() * 1_000.0).round() as u64;
        let [of_errors, of_slow, of_slower] = &bunches;
        Before {
            seconds: u64::try_from(moments.len()).unwrap_or(u64::MAX),
            requests,
            errors_ppm: ppm(errors, requests),
            over_limit_ppm: ppm(slow, timed),
            p99_ms,
            bunches_milli: seen.then(|| (milli(of_errors), milli(of_slow))),
            slower: p99_ms.map(|p99_ms| Slower {
                ppm: ppm(slower(p99_ms), times.total()),
                bunches_milli: milli(of_slower),
            }),
            usual: seen.then(|| usual([requests, errors, timed, slow], lately)),
        }
    }
}

fn summed(counts: impl Iterator<Item = [u32; 4]>) -> [u64; 4] {
    counts.fold([0; 4], |mut sums: [u64; 4], counts| {
        sums.iter_mut().zip(counts).for_each(|(sum, now)| *sum = sum.saturating_add(u64::from(now)));
        sums
    })
}

/// Of errors, and of requests over the limit.
fn usual(whole: [u64; 4], lately: [u64; 4]) -> (Usual, Usual) {
    let errors = |[requests, bad, ..]: [u64; 4]| Part { bad, requests };
    let slow = |[.., requests, bad]: [u64; 4]| Part { bad, requests };
    (
        Usual { whole: errors(whole), lately: errors(lately) },
        Usual { whole: slow(whole), lately: slow(lately) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use pointsman_core::ports::Position;
    use pointsman_core::signal::{Cell, CellKey, Coverage, FAILED_BEFORE, OWN_CHECKS, Tick};
    use pointsman_core::{Code, Problem, RouteClass, RouteEpoch};

    fn second(number: u64, requests: u64, failures: u64, ms: u64) -> Second {
        let key = |class: &str| CellKey {
            backend: "be_blue".parse().unwrap(),
            epoch: RouteEpoch(4),
            class: RouteClass::parse(class).unwrap(),
        };
        let mut cell = Cell { requests, failures, ..Cell::default() };
        (0..requests).for_each(|_| cell.latency.record(ms));
        let own = Cell { requests: 5, failures: 5, ..Cell::default() };
        let seen = Tick {
            cells: [(key("other"), cell), (key(OWN_CHECKS), own.clone()), (key(FAILED_BEFORE), own)].into(),
            coverage: Some(Coverage { seen: requests, expected: requests }),
            ..Tick::default()
        };
        let position = Position { number, read: BTreeMap::new() };
        Second { position, seen: Arc::new(seen), blind: None }
    }

    #[test]
    fn what_visitors_met_is_remembered_and_nothing_else() {
        let mut past = Past::new(2_000);
        (0..2_000).for_each(|number| past.take(&second(number, 10, u64::from(number % 10 == 0), 80)));
        let mut blind = second(2_000, 1_000, 1_000, 9_000);
        blind.blind = Some(Problem::new(Code::SignalsMissing, "lines are missing"));
        past.take(&blind);
        let found = past.of(&"be_blue".parse().unwrap());
        assert_eq!((found.seconds, found.requests, found.errors_ppm), (900, 9_000, 10_000));
        assert_eq!((found.p99_ms, found.over_limit_ppm), (Some(80), 0));
        assert!((1_000..1_200).contains(&found.bunches_milli.unwrap().0), "{found:?}");
        let (errors, over_limit) = found.usual.unwrap();
        assert_eq!(errors.whole, Part { bad: 90, requests: 9_000 });
        assert_eq!(errors.lately, Part { bad: 12, requests: 1_200 });
        assert_eq!(over_limit.whole, Part { bad: 0, requests: 9_000 });
        assert_eq!(past.of(&"be_green".parse().unwrap()), Before::default());
    }

    #[test]
    fn lately_is_of_seconds_with_requests() {
        let mut past = Past::new(2_000);
        (0..300).for_each(|number| past.take(&second(number, 10, 0, 9_000)));
        (300..700).for_each(|number| past.take(&second(number, u64::from(number % 4 == 0), 0, 80)));
        let (errors, over_limit) = past.of(&"be_blue".parse().unwrap()).usual.unwrap();
        assert_eq!((errors.whole.requests, errors.lately.requests), (3_100, 100 + 20 * 10));
        assert_eq!(over_limit.lately, Part { bad: 200, requests: 300 });
    }

    #[test]
    fn what_was_before_a_long_silence_is_not_what_is_now() {
        let mut past = Past::new(2_000);
        (0..300).for_each(|number| past.take(&second(number, 10, 2, 80)));
        (300..479).for_each(|number| past.take(&second(number, 0, 0, 80)));
        let now = |past: &Past| past.of(&"be_blue".parse().unwrap()).usual.unwrap().0;
        let failing = now(&past);
        assert!(failing.clearly_over(0.01, 1.0), "{failing:?}");
        past.take(&second(479, 0, 0, 80));
        let silent = now(&past);
        assert_eq!((silent.lately, silent.whole), (Part::default(), failing.whole));
        assert!(!silent.clearly_over(0.01, 1.0));
        // Whoever comes then says how it is.
        past.take(&second(480, 10, 5, 80));
        assert_eq!(now(&past).lately, Part { bad: 5, requests: 10 });
    }

    /// 80 ms, and one request in two hundred three times as long, each in a second of its own: 1.25 times the 99th percentile leaves
    /// them over it, and they do not come in bunches.
    #[test]
    fn what_is_slower_than_usual_is_measured_where_no_limit_is_near() {
        let mut past = Past::new(2_000);
        for number in 0..900 {
            let mut second = second(number, 50, 0, 80);
            if number % 4 == 0 {
                let seen = Arc::get_mut(&mut second.seen).unwrap();
                let (_, cell) = seen.cells.iter_mut().find(|(key, _)| key.class.as_str() == "other").unwrap();
                cell.requests += 1;
                cell.latency.record(240);
            }
            past.take(&second);
        }
        let found = past.of(&"be_blue".parse().unwrap());
        assert_eq!((found.p99_ms, found.over_limit_ppm), (Some(80), 0));
        assert_eq!(found.bunches_milli.unwrap().1, 10_000, "over the limit nothing is known");
        let slower = found.slower.unwrap();
        assert!((4_900..5_000).contains(&slower.ppm), "{slower:?}");
        assert!((1_000..1_100).contains(&slower.bunches_milli), "{slower:?}");
    }

    /// Nobody is answered, and nobody waits for that: the site is as slow as can be.
    #[test]
    fn who_gave_up_is_remembered() {
        let mut past = Past::new(2_000);
        for number in 0..300 {
            let mut second = second(number, 0, 0, 80);
            let seen = Arc::get_mut(&mut second.seen).unwrap();
            let (_, cell) = seen.cells.iter_mut().find(|(key, _)| key.class.as_str() == "other").unwrap();
            (cell.requests, cell.client_aborts) = (2, 2);
            cell.abandoned.record(5_000);
            cell.abandoned.record(100);
            past.take(&second);
        }
        let (errors, slow) = past.of(&"be_blue".parse().unwrap()).usual.unwrap();
        assert_eq!(
            (slow.whole, slow.lately),
            (Part { bad: 300, requests: 300 }, Part { bad: 120, requests: 120 })
        );
        assert_eq!(errors.whole.requests, 0);
    }

    #[test]
    fn few_requests_have_no_percentile() {
        let mut past = Past::new(2_000);
        (0..49).for_each(|number| past.take(&second(number, 10, 0, 80)));
        let found = past.of(&"be_blue".parse().unwrap());
        assert_eq!((found.p99_ms, found.bunches_milli), (None, Some((10_000, 10_000))));
    }
}
