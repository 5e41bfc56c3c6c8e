//! What is asked of the rules, each as many histories of a scenario.

use pointsman_core::verdict::Choices;
use serde_json::{Map, Value, json};

use crate::bound::least_site_requests;
use crate::chance::Chance;
use crate::figures::{Samples, percent, rounded};
use crate::ours::{Bunches, Ours};
use crate::peers::{self, Looks};
use crate::requests::ByRequest;
use crate::rule::{Ending, Rule, Span, watch};
use crate::traffic::{Doing, Load, Part, Scenario, Times};

/// What the old slot fails of itself.
const HEALTHY: f64 = 0.001;
/// Seconds of the old slot that are measured before a release.
const BEFORE: u64 = 900;
/// Seconds of a watch of a good release: half an hour.
const HALF_HOUR: u64 = 1_800;
/// Seconds after which something that is wrong counts as not noticed.
const TWO_HOURS: u64 = 7_200;

/// The shares of errors that are to be noticed, by the names they are reported under.
pub const ERRORS: [(&str, f64); 5] =
    [("1.0", 1.0), ("0.2", 0.2), ("0.05", 0.05), ("0.02", 0.02), ("0.015", 0.015)];

/// Where most goals are set.
const USUAL: Load = Load { per_second: 100.0, split: 0.5 };

/// How many histories, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Good releases in all.
    pub releases: u64,
    /// Histories of each other scenario.
    pub others: u64,
    /// The seed of all.
    pub seed: u64,
}

/// Runs one scenario: the endings of our rule, and of each peer.
fn histories(
    series: u64,
    count: u64,
    size: &Size,
    scenario: &Scenario,
    span: &Span,
    looks: Option<Looks>,
) -> Vec<Vec<Ending>> {
    let rules = if looks.is_some() { 1 + peers::NAMES.len() } else { 1 };
    let mut endings = vec![Vec::new(); rules];
    for history in 0..count {
        let mut chance = Chance::of(size.seed, series, history);
        let mut judge = Ours::new(Bunches::Measured);
        let mut peers: Vec<Box<dyn Rule>> = looks.map(|looks| peers::all(looks).into()).unwrap_or_default();
        let mut rules: Vec<&mut dyn Rule> = vec![&mut judge];
        rules.extend(peers.iter_mut().map(|peer| peer.as_mut() as &mut dyn Rule));
        for (all, ending) in endings.iter_mut().zip(watch(scenario, span, &mut chance, &mut rules)) {
            all.push(ending);
        }
    }
    endings
}

fn rolled_back(endings: &[Ending]) -> usize {
    endings.iter().filter(|ending| ending.rollback_at.is_some()).count()
}

fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("pointsman").chain(peers::NAMES)
}

// ------------------------------------------------------------------------------------------ good releases

/// What good releases came to.
pub struct Good {
    /// How many there were.
    pub releases: usize,
    /// How many of them we rolled back.
    pub false_rollbacks: usize,
    /// The same by rule, in percent, and by how failures came.
    pub by_rule: Value,
    /// And what a test would have done that takes requests for independent.
    pub by_request_percent: Value,
}

/// Both slots fail alike and are slow alike, over the grid of traffic, splits, rates and bunches.
pub fn good_releases(size: &Size) -> Good {
    let mut grid = Vec::new();
    for bunch in [1, 10, 50] {
        for per_second in [1.0, 10.0, 100.0, 1_000.0] {
            for split in [0.1, 0.5] {
                grid.extend([0.001, 0.005, 0.009].map(|rate| (bunch, Load { per_second, split }, rate)));
            }
        }
    }
    let count = size.releases.div_ceil(grid.len() as u64);
    let (mut releases, mut false_rollbacks) = (0, 0);
    let mut by_rule: Map<String, Value> = Map::new();
    let mut by_request: Map<String, Value> = Map::new();
    for bunch in [1, 10, 50] {
        let mut sums = [0; 6];
        let (mut rolled_by_request, mut all) = (0, 0);
        for (series, (_, load, rate)) in (100..).zip(&grid).filter(|(_, (bunches, ..))| *bunches == bunch) {
            let doing = Doing { errors: *rate, bunch, times: Times::Share(*rate) };
            let scenario = Scenario::steady(*load, doing, doing);
            let span = Span { before: 300, seconds: HALF_HOUR, to_promotion: false };
            let endings = histories(series, count, size, &scenario, &span, Some(Looks::Errors));
            for (sum, endings) in sums.iter_mut().zip(&endings) {
                *sum += rolled_back(endings);
            }
            all += endings.first().map_or(0, Vec::len);
            rolled_by_request += by_request_rollbacks(series, count, size, &scenario);
        }
        false_rollbacks += sums.first().copied().unwrap_or(0);
        releases += all;
        let told: Map<String, Value> =
            names().zip(sums).map(|(name, sum)| (name.to_owned(), json!(percent(sum, all)))).collect();
        by_rule.insert(format!("bunches of {bunch}"), told.into());
        by_request.insert(format!("bunches of {bunch}"), json!(percent(rolled_by_request, all)));
    }
    Good { releases, false_rollbacks, by_rule: by_rule.into(), by_request_percent: by_request.into() }
}

/// Requests of one page.
const PAGE: u32 = 40;

/// Both slots alike, on sites where pages of forty requests and lone polls take turns, and only polls fail: by the share of all
/// requests that fail and the split, how often each rule rolled back, in percent.
pub fn pages_and_polls(size: &Size) -> Value {
    let sites = [(0.2, 1.0, 0.03), (0.2, 0.5, 0.05), (1.0, 2.0, 0.05), (0.05, 0.2, 0.08)];
    let mut told = Map::new();
    for (series, (pages, polls, failing)) in (200..).step_by(10).zip(sites) {
        let share: f64 = polls * failing / (polls + pages * f64::from(PAGE));
        for (series, split) in (series..).zip([0.1, 0.5, 0.99]) {
            let load = |per_second| Load { per_second, split };
            let doing = Doing::failing(failing);
            let scenario = Scenario::steady(load(polls), doing, doing).with_pages(load(pages), PAGE);
            let span = Span { before: 300, seconds: HALF_HOUR, to_promotion: false };
            let endings = histories(series, size.others, size, &scenario, &span, Some(Looks::Errors));
            let row = names()
                .zip(&endings)
                .map(|(name, ends)| (name.to_owned(), json!(percent(rolled_back(ends), ends.len()))));
            let name = format!("{} % fail, split {split}", rounded(share * 100.0));
            told.insert(name, Value::from(row.collect::<Map<String, Value>>()));
        }
    }
    told.into()
}

fn by_request_rollbacks(series: u64, count: u64, size: &Size, scenario: &Scenario) -> usize {
    let span = Span { before: 0, seconds: HALF_HOUR, to_promotion: false };
    (0..count)
        .filter(|history| {
            let mut rule = ByRequest::new();
            let mut chance = Chance::of(size.seed, series, *history);
            watch(scenario, &span, &mut chance, &mut [&mut rule]).iter().any(|end| end.rollback_at.is_some())
        })
        .count()
}

// -------------------------------------------------------------------------------------------------- detection

/// What is noticed of a slot that fails from the start, by share of errors.
pub struct Detection {
    /// Seconds until the rollback: by rule (ours first), by share of errors.
    pub seconds: Vec<Vec<Samples>>,
    /// Bad requests served until then.
    pub bad: Vec<Vec<Samples>>,
    /// What no test can beat, in seconds.
    pub bound_s: Vec<f64>,
}

/// The new slot fails from the start.
pub fn detection(size: &Size, series: u64, load: Load, with_peers: bool) -> Detection {
    let mut found = Detection { seconds: Vec::new(), bad: Vec::new(), bound_s: Vec::new() };
    let rules = if with_peers { 1 + peers::NAMES.len() } else { 1 };
    found.seconds = vec![Vec::new(); rules];
    found.bad = vec![Vec::new(); rules];
    for (series, (_, errors)) in (series..).zip(ERRORS) {
        let scenario = Scenario::steady(load, Doing::failing(errors), Doing::failing(HEALTHY));
        let span = Span { before: 300, seconds: TWO_HOURS, to_promotion: false };
        let looks = with_peers.then_some(Looks::Errors);
        let endings = histories(series, size.others, size, &scenario, &span, looks);
        for ((seconds, bad), endings) in found.seconds.iter_mut().zip(&mut found.bad).zip(&endings) {
            let (mut ends, mut served) = (Samples::default(), Samples::default());
            for ending in endings {
                ends.push(ending.rollback_at);
                served.push(ending.rollback_at.map(|_| ending.bad));
            }
            seconds.push(ends);
            bad.push(served);
        }
        found.bound_s.push(least_site_requests(&load, errors, HEALTHY) / load.per_second);
    }
    found
}

impl Detection {
    fn by_errors(rows: &[Samples], what: impl Fn(&Samples) -> Option<u64>) -> Value {
        let pairs =
            ERRORS.iter().zip(rows).map(|((name, _), samples)| ((*name).to_owned(), json!(what(samples))));
        pairs.collect::<Map<String, Value>>().into()
    }

    /// The figures of one rule.
    pub fn told(&self, rule: usize) -> (Value, Value, Value) {
        let row = |rows: &[Vec<Samples>]| rows.get(rule).cloned().unwrap_or_default();
        let (seconds, bad) = (row(&self.seconds), row(&self.bad));
        (
            Self::by_errors(&seconds, Samples::median),
            Self::by_errors(&seconds, |samples| samples.percentile(95)),
            Self::by_errors(&bad, Samples::median),
        )
    }

    /// How many times longer than any test must take, by share of errors.
    pub fn bound_ratio(&self) -> Value {
        let medians = self.seconds.first().into_iter().flatten().map(Samples::median);
        let ratios = medians.zip(&self.bound_s).zip(ERRORS).map(|((median, bound), (name, _))| {
            (name.to_owned(), json!(median.map(|median| rounded(median as f64 / bound))))
        });
        ratios.collect::<Map<String, Value>>().into()
    }
}

/// Detection where there is less traffic, for our rule alone.
pub fn detection_elsewhere(size: &Size) -> Value {
    let loads = [("1x50", 1.0, 0.5), ("10x10", 10.0, 0.1), ("10x50", 10.0, 0.5), ("1000x50", 1_000.0, 0.5)];
    let fewer = Size { others: size.others.div_ceil(3), ..*size };
    let told = loads.into_iter().zip(1..).map(|((name, per_second, split), number)| {
        let found = detection(&fewer, 600 + 10 * number, Load { per_second, split }, false);
        let (median, p95, _) = found.told(0);
        let value = json!({ "median_s": median, "p95_s": p95, "bound_ratio": found.bound_ratio() });
        (name.to_owned(), value)
    });
    told.collect::<Map<String, Value>>().into()
}

// ------------------------------------------------------------------------------------------------- what changes

/// The new slot turns bad after ten good minutes.
pub fn late_failure(size: &Size) -> Value {
    let good = Doing::failing(HEALTHY);
    let told = ERRORS.iter().zip(700..).map(|((name, errors), series)| {
        let bad = Part { from: 601, new: Doing::failing(*errors), old: good };
        let scenario = Scenario::of(USUAL, &[Part { from: 1, new: good, old: good }, bad]);
        let span = Span { before: 300, seconds: TWO_HOURS, to_promotion: false };
        let endings = histories(series, size.others, size, &scenario, &span, Some(Looks::Errors));
        let by_rule = names().zip(&endings).map(|(rule, endings)| {
            let mut delays = Samples::default();
            endings.iter().for_each(|end| delays.push(end.rollback_at.map(|at| at.saturating_sub(600))));
            (rule.to_owned(), delays.told())
        });
        ((*name).to_owned(), Value::from(by_rule.collect::<Map<String, Value>>()))
    });
    told.collect::<Map<String, Value>>().into()
}

/// Something strikes both slots for a minute: by traffic and extra errors, how often each rule rolled back.
pub fn shared_incident(size: &Size) -> Value {
    let mut told = Map::new();
    for (series, (per_second, extra)) in (800..).zip([(10.0, 0.05), (10.0, 0.3), (100.0, 0.05), (100.0, 0.3)])
    {
        let (good, struck) = (Doing::failing(HEALTHY), Doing::failing(HEALTHY + extra));
        let part = |from, doing| Part { from, new: doing, old: doing };
        let load = Load { per_second, split: 0.5 };
        let scenario = Scenario::of(load, &[part(1, good), part(121, struck), part(181, good)]);
        let span = Span { before: 300, seconds: 900, to_promotion: false };
        let endings = histories(series, size.others, size, &scenario, &span, Some(Looks::Errors));
        let mut row: Map<String, Value> = names()
            .zip(&endings)
            .map(|(name, ends)| (name.to_owned(), json!(percent(rolled_back(ends), ends.len()))))
            .collect();
        let held = endings.first().map_or(0, |ends| ends.iter().filter(|ending| ending.held > 0).count());
        row.insert("pointsman_held".to_owned(), json!(percent(held, endings.first().map_or(0, Vec::len))));
        told.insert(format!("{per_second} requests/s, {} % more", extra * 100.0), row.into());
    }
    told.into()
}

/// The new slot is slower, at a limit of two seconds and an old slot with a 99th percentile of one.
pub fn slowness(size: &Size) -> Value {
    let mut told = Map::new();
    for (series, p99) in (900..).zip([1.0, 1.5, 2.5, 5.0]) {
        let scenario = Scenario::steady(USUAL, Doing::taking(p99), Doing::taking(1.0));
        let span = Span { before: 300, seconds: HALF_HOUR, to_promotion: false };
        let endings = histories(series, size.others, size, &scenario, &span, Some(Looks::Times));
        let row = names().zip(&endings).map(|(name, ends)| {
            let mut seconds = Samples::default();
            ends.iter().for_each(|ending| seconds.push(ending.rollback_at));
            let share = percent(seconds.came(), seconds.len());
            (name.to_owned(), json!({ "median": seconds.median(), "p95": seconds.percentile(95), "rolled_back_percent": share }))
        });
        told.insert(format!("{p99}"), Value::from(row.collect::<Map<String, Value>>()));
    }
    told.into()
}

// -------------------------------------------------------------------------------------------------- promotion

/// How long a good release takes to be promoted, and how often a bad one is: with bunches of a size that is measured
/// before, and with one that is known.
pub fn promotion(size: &Size) -> (Value, Value) {
    let (mut times, mut falsely) = (Map::new(), Map::new());
    let mut series = 1_000;
    for (name, per_second) in [("100x50", 100.0), ("10x50", 10.0)] {
        let load = Load { per_second, split: 0.5 };
        for (known, bunches) in [("known", Bunches::Known(1.0)), ("measured", Bunches::Measured)] {
            series += 1;
            let scenario = Scenario::steady(load, Doing::failing(HEALTHY), Doing::failing(HEALTHY));
            let mut seconds = Samples::default();
            for end in promotions(series, size.others, size, &scenario, bunches) {
                seconds.push(end.promote_at);
            }
            times.insert(format!("{name}, dispersion {known}"), seconds.told());
        }
    }
    for bunch in [1_u32, 10, 50] {
        for old in [HEALTHY, 0.009] {
            for (known, bunches) in
                [("known", Bunches::Known(f64::from(bunch))), ("measured", Bunches::Measured)]
            {
                series += 1;
                let doing = |errors| Doing { errors, bunch, times: Times::Share(0.0) };
                let scenario = Scenario::steady(USUAL, doing(0.012), doing(old));
                let ends = promotions(series, size.others.saturating_mul(3), size, &scenario, bunches);
                let promoted = ends.iter().filter(|end| end.promote_at.is_some()).count();
                let name = format!(
                    "1.2 % in bunches of {bunch}, old slot {} %, dispersion {known}",
                    rounded(old * 100.0)
                );
                falsely.insert(name, json!(percent(promoted, ends.len())));
            }
        }
    }
    (times.into(), falsely.into())
}

fn promotions(series: u64, count: u64, size: &Size, scenario: &Scenario, bunches: Bunches) -> Vec<Ending> {
    let span = Span { before: BEFORE, seconds: Choices::default().max_watch, to_promotion: true };
    (0..count)
        .flat_map(|history| {
            let mut rule = Ours::new(bunches);
            let mut chance = Chance::of(size.seed, series, history);
            watch(scenario, &span, &mut chance, &mut [&mut rule])
        })
        .collect()
}
