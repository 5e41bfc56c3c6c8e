//! The E-cell: the one primitive of every test.
//!
//! A cell holds evidence against "the mean is at most `m0`" for ten worse means at once. If the hypothesis is true, its
//! value is a nonnegative supermartingale that starts at 1, so by Ville's inequality it ever reaches `1 / alpha` with
//! probability at most `alpha`, however often it is looked at. Nothing is assumed of the requests inside one tick, and
//! the rate may change from tick to tick. A fault that holds over several ticks counts as what it is: a failure.

/// Alternatives that one cell weighs at once.
pub const ALTERNATIVES: usize = 10;

/// Evidence that is larger says nothing more; a bound keeps sums and products finite.
const CAP: f64 = 1e300;

/// The worst alternative: a slot that fails nearly always.
const WORST: f64 = 0.98;

/// How much each alternative counts, worst first: chosen once and for all, together 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prior([f64; ALTERNATIVES]);

impl Prior {
    /// All alike, as the vectors have it.
    #[cfg(test)]
    pub const EVEN: Self = Self([0.1; ALTERNATIVES]);
    /// What is worst counts most. A tick with many requests is one observation all the same, and is best weighed by the two
    /// or three worst alternatives whatever the rate of failures is; the others tell where a tick has few requests.
    pub const WORST_FIRST: Self = Self([0.22, 0.16, 0.12, 0.10, 0.08, 0.07, 0.07, 0.06, 0.06, 0.06]);
}

/// A boundary and the alternatives beyond it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    m0: f64,
    worse: [f64; ALTERNATIVES],
}

impl Grid {
    /// Failure rates beyond `m0`, which is well below 98 %: from there down, each half as far from `m0` as the one before.
    pub fn absolute(m0: f64) -> Self {
        let mut distance = WORST - m0;
        let worse = std::array::from_fn(|_| {
            let rate = m0 + distance;
            distance /= 2.0;
            rate
        });
        Self { m0, worse }
    }

    /// A boundary with alternatives of one's own, all beyond it and below 1.
    pub(super) fn new(m0: f64, worse: [f64; ALTERNATIVES]) -> Self {
        Self { m0, worse }
    }

    /// The alternatives, worst first.
    pub fn worse(&self) -> &[f64; ALTERNATIVES] {
        &self.worse
    }

    /// What the bad share of one tick says for each alternative. The whole tick counts as one observation, because
    /// failures come in bunches.
    fn of_tick(&self, share: f64) -> [f64; ALTERNATIVES] {
        self.worse.map(|q| share * q / self.m0 + (1.0 - share) * (1.0 - q) / (1.0 - self.m0))
    }

    /// What `bad` of `all` independent observations say for each alternative, softened by their dispersion.
    fn of_requests(&self, bad: f64, all: f64, dispersion: f64) -> [f64; ALTERNATIVES] {
        self.worse.map(|q| {
            let ln = bad * (q / self.m0).ln() + (all - bad) * ((1.0 - q) / (1.0 - self.m0)).ln();
            (ln / dispersion).exp()
        })
    }
}

/// How the weight of 1 that a cell may spend is spread over the ticks: half of it at the first, for what is bad from the
/// start, the rest evenly over a horizon, for what turns bad later. Without that a long healthy time would hide a
/// failure.
///
/// After the horizon every tick with data gets as much again, so that a cell never falls asleep. The chance of a false
/// alarm by then is `alpha * (1 + t / (2 * horizon))` at most, `t` ticks with data after the horizon: twice `alpha` after
/// three horizons. Ticks without data get nothing then: silence is no evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    horizon: u64,
}

impl Weights {
    /// Weight of the first tick beside its part of the rest.
    const FIRST: f64 = 0.5;

    /// Weights over so many ticks.
    pub fn over(horizon: u64) -> Self {
        Self { horizon: horizon.max(1) }
    }

    fn each(&self) -> f64 {
        (1.0 - Self::FIRST) / self.horizon as f64
    }

    /// What a tick with data gets.
    fn of(&self, tick: u64) -> f64 {
        self.each() + if tick <= 1 { Self::FIRST } else { 0.0 }
    }

    /// What the ticks after `from` up to `to` get together, without data.
    fn between(&self, from: u64, to: u64) -> f64 {
        let first = if from == 0 && to > 0 { Self::FIRST } else { 0.0 };
        let ticks = to.min(self.horizon).saturating_sub(from.min(self.horizon));
        first + self.each() * ticks as f64
    }

    /// What is not spent yet after tick `tick`.
    fn rest(&self, tick: u64) -> f64 {
        let left = self.horizon.saturating_sub(tick);
        self.each() * left as f64 + if tick == 0 { Self::FIRST } else { 0.0 }
    }
}

/// Evidence for each alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    pub(super) evidence: [f64; ALTERNATIVES],
}

impl Cell {
    /// Takes in tick `tick` (counted from 1) with its bad share; `None` is a tick without data.
    pub fn step(&mut self, tick: u64, share: Option<f64>, grid: &Grid, weights: &Weights) {
        self.step_part(tick, share.map(|share| (share, 1.0)), grid, weights);
    }

    /// The same for a tick that counts as a part of one, between 0 and 1: of what it says for an alternative, only that part is
    /// bet on. If a factor has a conditional mean of at most 1 given the part, so has `1 + part * (factor - 1)`.
    pub(super) fn step_part(
        &mut self,
        tick: u64,
        share_and_part: Option<(f64, f64)>,
        grid: &Grid,
        weights: &Weights,
    ) {
        match share_and_part {
            Some((share, part)) => {
                let factors = grid.of_tick(share).map(|factor| 1.0 + part * (factor - 1.0));
                self.weigh(tick, factors, weights);
            }
            None => self.skip(tick.saturating_sub(1), tick, weights),
        }
    }

    /// Takes in tick `tick` as `bad` of `all` independent observations. Never decides: with failures in bunches it
    /// would roll healthy releases back. It is the yardstick for what averaging over the tick costs.
    pub fn step_independent(
        &mut self,
        tick: u64,
        (bad, all): (f64, f64),
        dispersion: f64,
        grid: &Grid,
        weights: &Weights,
    ) {
        self.weigh(tick, grid.of_requests(bad, all, dispersion), weights);
    }

    fn weigh(&mut self, tick: u64, factors: [f64; ALTERNATIVES], weights: &Weights) {
        let weight = weights.of(tick);
        for (evidence, factor) in self.evidence.iter_mut().zip(factors) {
            *evidence = ((*evidence + weight) * factor).min(CAP);
        }
    }

    /// Passes the ticks after `from` up to `to`, which had no data.
    pub fn skip(&mut self, from: u64, to: u64, weights: &Weights) {
        let weight = weights.between(from, to);
        for evidence in &mut self.evidence {
            *evidence = (*evidence + weight).min(CAP);
        }
    }

    /// The e-value after tick `tick`, with alternatives that all count alike.
    pub fn value(&self, tick: u64, weights: &Weights) -> f64 {
        self.evidence.iter().sum::<f64>() / ALTERNATIVES as f64 + weights.rest(tick)
    }

    /// The e-value after tick `tick` where the alternatives count by `prior`. It is one for the same reason: what has entered
    /// for each alternative is a supermartingale, and so is any mean of them whose weights do not change on the way.
    pub(super) fn value_by(&self, prior: &Prior, tick: u64, weights: &Weights) -> f64 {
        let Prior(shares) = prior;
        let mean: f64 = self.evidence.iter().zip(shares).map(|(evidence, share)| evidence * share).sum();
        mean + weights.rest(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn starts_at_one_and_stays_there_without_data() {
        let weights = Weights::over(3_600);
        let (mut slow, mut fast) = (Cell::default(), Cell::default());
        assert!((slow.value(0, &weights) - 1.0).abs() < 1e-12);
        for tick in 1..=3_600 {
            slow.step(tick, None, &Grid::absolute(0.01), &weights);
            assert!((slow.value(tick, &weights) - 1.0).abs() < 1e-9, "{tick}");
        }
        fast.skip(0, 1_000_000, &weights);
        assert!((fast.value(1_000_000, &weights) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_long_healthy_time_does_not_put_it_to_sleep() {
        let (weights, grid) = (Weights::over(3_600), Grid::absolute(0.01));
        let mut cell = Cell::default();
        // Two hours and more: healthy evidence has long settled.
        (1..=10_000).for_each(|tick| cell.step(tick, Some(0.0), &grid, &weights));
        let ticks = (10_001..).take_while(|tick| {
            cell.step(*tick, Some(1.0), &grid, &weights);
            cell.value(*tick, &weights) < 4_000.0
        });
        assert!(ticks.count() < 6);
    }

    /// If the boundary is exactly met, no factor has a mean above 1: the whole proof in one line.
    #[test]
    fn no_factor_gains_at_the_boundary() {
        for m0 in [0.001, 0.005, 0.01, 0.3] {
            let grid = Grid::absolute(m0);
            let (bad, good) = (grid.of_tick(1.0), grid.of_tick(0.0));
            for (bad, good) in bad.iter().zip(good) {
                assert!((m0 * bad + (1.0 - m0) * good - 1.0).abs() < 1e-12);
            }
        }
    }

    /// What the e-value comes to on the mean where the boundary is exactly met, over all ways that so many ticks can go.
    fn mean_at_the_boundary(prior: &Prior, weights: &Weights, ticks: u64) -> f64 {
        let (m0, grid) = (0.01, Grid::absolute(0.01));
        let mut mean = 0.0;
        for way in 0..1_u32 << ticks {
            let (mut cell, mut chance) = (Cell::default(), 1.0);
            for tick in 1..=ticks {
                let fails = way >> (tick - 1) & 1 == 1;
                chance *= if fails { m0 } else { 1.0 - m0 };
                cell.step(tick, Some(if fails { 1.0 } else { 0.0 }), &grid, weights);
            }
            mean += chance * cell.value_by(prior, ticks, weights);
        }
        mean
    }

    #[test]
    fn no_prior_gains_at_the_boundary() {
        let weights = Weights::over(60);
        for prior in [Prior::EVEN, Prior::WORST_FIRST] {
            for ticks in [1, 2, 5, 10] {
                let mean = mean_at_the_boundary(&prior, &weights, ticks);
                assert!((mean - 1.0).abs() < 1e-9, "{prior:?}, {ticks}: {mean}");
            }
        }
    }

    #[test]
    fn an_even_prior_is_the_plain_mean() {
        let (weights, grid) = (Weights::over(3_600), Grid::absolute(0.01));
        let mut cell = Cell::default();
        for tick in 1..=40 {
            cell.step(tick, Some(if tick % 3 == 0 { 0.08 } else { 0.02 }), &grid, &weights);
            let (plain, even) = (cell.value(tick, &weights), cell.value_by(&Prior::EVEN, tick, &weights));
            assert!((plain / even - 1.0).abs() < 1e-12, "{plain} is not {even}");
            // What the prior can cost, and gain: never more than 0.6 times as little and 2.2 times as much.
            let worst_first = cell.value_by(&Prior::WORST_FIRST, tick, &weights);
            assert!((0.6..=2.2).contains(&(worst_first / plain)), "{worst_first} for {plain}");
        }
    }

    proptest! {
        #[test]
        fn never_negative_never_infinite(
            shares in proptest::collection::vec(proptest::option::of(0.0..=1.0f64), 1..400),
            repeat in 1usize..20,
            m0 in 0.000_01..0.5f64,
        ) {
            let (grid, weights) = (Grid::absolute(m0), Weights::over(300));
            let mut cell = Cell::default();
            for (tick, share) in (1..).zip(shares.iter().cycle().take(shares.len() * repeat)) {
                cell.step(tick, *share, &grid, &weights);
                let value = cell.value(tick, &weights);
                // The mean of ten caps may be a rounding above the cap.
                prop_assert!((0.0..=CAP * 1.000_001).contains(&value));
            }
        }

        #[test]
        fn a_worse_tick_is_never_weaker_evidence_for_a_dead_slot(share in 0.0..1.0f64, more in 0.0..1.0f64) {
            let grid = Grid::absolute(0.01);
            let worse = share + (1.0 - share) * more;
            for (less, more) in grid.of_tick(share).iter().zip(grid.of_tick(worse)) {
                prop_assert!(more >= *less);
            }
        }
    }
}
