//! Traffic of two slots, second by second.

use pointsman_core::verdict::{Counts, Latency, Tick};

use crate::chance::{Chance, Poisson, normal_tail};

/// Upper ends of the classes of request times, in seconds; the last class has none. They are the buckets of a common
/// histogram, and between them the two thresholds that pointsman counts by.
const ENDS: [f64; CLASSES - 1] = [1.0, BASELINE_S, LIMIT_S, 2.5, 5.0, 10.0];
/// Classes of request times.
pub const CLASSES: usize = 7;
/// The limit of the 99th percentile.
const LIMIT_S: f64 = 2.0;
/// The frozen threshold: a quarter above the 99th percentile of the old slot, which is one second.
const BASELINE_S: f64 = 1.25;
/// The first class over the frozen threshold, and over the limit.
const FIRST_OVER: (usize, usize) = (2, 3);

/// What one slot does.
#[derive(Clone, Copy, Debug)]
pub struct Doing {
    /// Share of requests that fail.
    pub errors: f64,
    /// Failures, and slow requests, come in bunches of so many within a second.
    pub bunch: u32,
    /// How long requests take.
    pub times: Times,
}

/// How long requests take.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    /// This share takes too long by every threshold, in bunches like the failures, the rest no time.
    Share(f64),
    /// Lognormal, with a median of a fifth of this 99th percentile.
    Percentile(f64),
}

impl Doing {
    /// Fails by itself, and is never slow.
    pub fn failing(errors: f64) -> Self {
        Self { errors, bunch: 1, times: Times::Share(0.0) }
    }

    /// Never fails, and takes so long.
    pub fn taking(percentile_s: f64) -> Self {
        Self { errors: 0.0, bunch: 1, times: Times::Percentile(percentile_s) }
    }

    fn class_shares(&self) -> [f64; CLASSES] {
        let mut shares = [0.0; CLASSES];
        match self.times {
            Times::Share(slow) => {
                shares = [1.0 - slow, 0.0, 0.0, slow, 0.0, 0.0, 0.0];
            }
            Times::Percentile(p99) => {
                let sigma = 5.0_f64.ln() / 2.326_347_874;
                let above = |end: f64| normal_tail((end / (p99 / 5.0)).ln() / sigma);
                let (mut last, mut class) = (1.0, 0);
                for end in ENDS.map(above).into_iter().chain([0.0]) {
                    if let Some(share) = shares.get_mut(class) {
                        *share = last - end;
                    }
                    (last, class) = (end, class + 1);
                }
            }
        }
        shares
    }
}

/// What one slot did in one second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Requests.
    pub requests: u32,
    /// Those that failed.
    pub errors: u32,
    /// All requests by how long they took.
    pub times: [u32; CLASSES],
}

impl Seen {
    fn counts(&self) -> Counts {
        let from = |first: usize| self.times.iter().skip(first).sum();
        Counts {
            requests: self.requests,
            errors: self.errors,
            given_up: 0,
            timed: self.requests,
            over_baseline: from(FIRST_OVER.0),
            over_limit: from(FIRST_OVER.1),
        }
    }

    /// Both together.
    pub fn plus(mut self, other: &Self) -> Self {
        self.requests += other.requests;
        self.errors += other.errors;
        self.times.iter_mut().zip(other.times).for_each(|(sum, more)| *sum += more);
        self
    }
}

/// One second of both slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// The slot that is being released.
    pub new: Seen,
    /// The slot that served before.
    pub old: Seen,
}

impl Second {
    /// The second as pointsman counts it.
    pub fn tick(&self, number: u64) -> Tick {
        Tick { number, new: self.new.counts(), old: self.old.counts(), latency: Latency::Known }
    }
}

/// One slot: every kind of event comes by itself, independently of the others.
#[derive(Clone, Debug)]
struct Source {
    bunch: u32,
    failures: Poisson,
    times: [Option<Poisson>; CLASSES],
}

impl Source {
    fn of(per_second: f64, doing: &Doing) -> Self {
        let bunch = f64::from(doing.bunch);
        let good = per_second * (1.0 - doing.errors);
        let mut class = 0;
        let times = doing.class_shares().map(|share| {
            let in_bunches = matches!(doing.times, Times::Share(_)) && class > 0;
            class += 1;
            let mean = if in_bunches { good * share / bunch } else { good * share };
            (share > 0.0).then(|| Poisson::of(mean))
        });
        Self { bunch: doing.bunch, failures: Poisson::of(per_second * doing.errors / bunch), times }
    }

    fn second(&self, chance: &mut Chance, in_bunches: bool) -> Seen {
        let errors = self.failures.draw(chance) * self.bunch;
        let mut seen = Seen { requests: errors, errors, ..Seen::default() };
        for (class, (count, poisson)) in seen.times.iter_mut().zip(&self.times).enumerate() {
            let drawn = poisson.as_ref().map_or(0, |poisson| poisson.draw(chance));
            *count = if in_bunches && class > 0 { drawn * self.bunch } else { drawn };
            seen.requests += *count;
        }
        // Failures are quick: they are in the first class, as a histogram has them.
        if let Some(first) = seen.times.first_mut() {
            *first += errors;
        }
        seen
    }
}

/// What happens from some second on, to the new slot and to the old one.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The first second of it, from 1.
    pub from: u64,
    /// The new slot.
    pub new: Doing,
    /// The old slot.
    pub old: Doing,
}

/// Requests per second of the site and the share of them that the new slot gets.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests per second.
    pub per_second: f64,
    /// Share of the new slot.
    pub split: f64,
}

/// A kind of watch: as many histories as one likes can be drawn of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    parts: Vec<(u64, bool, Source, Source)>,
    before: (bool, Source),
    pages: Option<Pages>,
}

/// Pages whose requests come together and are all well: on the new slot, on the old one, and before the release.
#[derive(Clone, Debug)]
struct Pages {
    requests: u32,
    of: [Poisson; 3],
}

impl Pages {
    fn add(&self, which: usize, seen: &mut Seen, chance: &mut Chance) {
        let pages = self.of.get(which).map_or(0, |pages| pages.draw(chance));
        let requests = pages * self.requests;
        seen.requests += requests;
        if let Some(first) = seen.times.first_mut() {
            *first += requests;
        }
    }
}

impl Scenario {
    /// Two slots of which each does the same all the time.
    pub fn steady(load: Load, new: Doing, old: Doing) -> Self {
        Self::of(load, &[Part { from: 1, new, old }])
    }

    /// Slots that change what they do. Before the release the old slot did what it does at first.
    pub fn of(load: Load, parts: &[Part]) -> Self {
        let bunched = |doing: &Doing| matches!(doing.times, Times::Share(_));
        let source = |share: f64, doing: &Doing| Source::of(load.per_second * share, doing);
        let first = parts.first().map_or(Doing::failing(0.0), |part| part.old);
        let whole = (bunched(&first), source(1.0, &first));
        let parts = parts.iter().map(|part| {
            let (new, old) = (source(load.split, &part.new), source(1.0 - load.split, &part.old));
            (part.from, bunched(&part.new), new, old)
        });
        Self { parts: parts.collect(), before: whole, pages: None }
    }

    /// With pages of so many requests beside all that.
    #[must_use]
    pub fn with_pages(mut self, load: Load, requests: u32) -> Self {
        let shares = [load.split, 1.0 - load.split, 1.0];
        self.pages = Some(Pages { requests, of: shares.map(|share| Poisson::of(load.per_second * share)) });
        self
    }

    /// What the old slot, which has all the traffic, does in a second before the release.
    pub fn before(&self, chance: &mut Chance) -> Seen {
        let mut seen = self.before.1.second(chance, self.before.0);
        if let Some(pages) = &self.pages {
            pages.add(2, &mut seen, chance);
        }
        seen
    }

    /// Second `at` of the watch.
    pub fn second(&self, at: u64, chance: &mut Chance) -> Second {
        let part = self.parts.iter().rev().find(|part| part.0 <= at);
        let mut second = part.map_or_else(Second::default, |(_, bunched, new, old)| Second {
            new: new.second(chance, *bunched),
            old: old.second(chance, *bunched),
        });
        if let Some(pages) = &self.pages {
            pages.add(0, &mut second.new, chance);
            pages.add(1, &mut second.old, chance);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_asked_for() {
        let doing = Doing { errors: 0.02, bunch: 5, times: Times::Share(0.03) };
        let load = Load { per_second: 100.0, split: 0.1 };
        let (scenario, mut chance) = (Scenario::steady(load, doing, doing), Chance::of(1, 0, 0));
        let mut sum = Second::default();
        for at in 1..=50_000 {
            let second = scenario.second(at, &mut chance);
            assert_eq!(second.new.requests, second.new.times.iter().sum::<u32>());
            assert!(second.old.errors.is_multiple_of(5));
            sum.new = sum.new.plus(&second.new);
            sum.old = sum.old.plus(&second.old);
        }
        let share = |part: u32, whole: u32| f64::from(part) / f64::from(whole);
        for (seen, requests) in [(sum.new, 500_000.0), (sum.old, 4_500_000.0)] {
            assert!((f64::from(seen.requests) / requests - 1.0).abs() < 0.02);
            assert!((share(seen.errors, seen.requests) - 0.02).abs() < 0.001);
            assert!((share(seen.counts().over_limit, seen.requests) - 0.0294).abs() < 0.001);
        }
    }

    #[test]
    fn the_99th_percentile_is_where_it_was_asked_for() {
        for (p99, first) in [(1.0, 1), (2.0, 3), (5.0, 5)] {
            let above: f64 = Doing::taking(p99).class_shares().iter().skip(first).sum();
            assert!((above - 0.01).abs() < 1e-5, "{p99}: {above}");
        }
    }
}
