//! How much failures come in bunches: measured on the old slot before the release, and on the new one meanwhile.

/// Failures, and ticks with failures, below which an estimate says nothing: one more bunch would change it by half.
const ENOUGH: f64 = 20.0;

/// What is assumed while too little was seen: bunches of about ten.
pub const UNKNOWN_DISPERSION: f64 = 10.0;

/// Sums over ticks of one slot, from which the dispersion follows: the variance of failures per tick over what it were
/// if requests failed independently of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dispersion {
    ticks: f64,
    bad_ticks: f64,
    requests: f64,
    failed: f64,
    /// Sum of `failed^2 / requests` over the ticks.
    squares: f64,
}

impl Dispersion {
    /// Adds a tick. One that counts more failures than requests, or none of either, says nothing.
    pub fn add(&mut self, requests: u32, failed: u32) {
        if failed <= requests {
            self.add_exact(f64::from(requests), f64::from(failed));
        }
    }

    pub(super) fn add_exact(&mut self, requests: f64, failed: f64) {
        if requests <= 0.0 {
            return;
        }
        self.ticks += 1.0;
        self.bad_ticks += if failed > 0.0 { 1.0 } else { 0.0 };
        self.requests += requests;
        self.failed += failed;
        self.squares += failed * failed / requests;
    }

    /// Pearson's estimate, at least 1: what was seen, however little that is.
    pub fn seen(&self) -> f64 {
        let share = if self.requests > 0.0 { self.failed / self.requests } else { 0.0 };
        let expected = (self.ticks - 1.0) * share * (1.0 - share);
        if expected > 0.0 { ((self.squares - self.failed * share) / expected).max(1.0) } else { 1.0 }
    }

    /// The same once enough bunches were seen to tell.
    pub fn estimate(&self) -> Option<f64> {
        (self.failed >= ENOUGH && self.bad_ticks >= ENOUGH).then(|| self.seen())
    }

    /// The estimate, or what is assumed without one: never less than what was seen.
    pub fn or_unknown(&self) -> f64 {
        self.estimate().unwrap_or_else(|| self.seen().max(UNKNOWN_DISPERSION))
    }

    pub(super) fn numbers(&self) -> [f64; 5] {
        [self.ticks, self.bad_ticks, self.requests, self.failed, self.squares]
    }

    pub(super) fn from_numbers([ticks, bad_ticks, requests, failed, squares]: [f64; 5]) -> Self {
        Self { ticks, bad_ticks, requests, failed, squares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ticks: impl IntoIterator<Item = (u32, u32)>) -> Dispersion {
        let mut dispersion = Dispersion::default();
        ticks.into_iter().for_each(|(requests, failed)| dispersion.add(requests, failed));
        dispersion
    }

    #[test]
    fn is_the_formula() {
        let ticks: Vec<(u32, u32)> = (0..90).map(|at| (40 + at % 7, at * at % 5)).collect();
        let (requests, failed) = ticks.iter().fold((0, 0), |sum, tick| (sum.0 + tick.0, sum.1 + tick.1));
        let p = f64::from(failed) / f64::from(requests);
        let term = |n: f64, e: f64| (e - n * p).powi(2) / (n * p * (1.0 - p));
        let direct = ticks.iter().map(|(n, e)| term(f64::from(*n), f64::from(*e))).sum::<f64>() / 89.0;
        let found = of(ticks).estimate().unwrap();
        assert!(direct > 1.0 && (found - direct).abs() < 1e-9, "{found} is not {direct}");
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(of([]).or_unknown(), UNKNOWN_DISPERSION);
        assert_eq!(of((0..900).map(|_| (100, 0))).estimate(), None);
        // Two bunches are 100 failures, and yet only two observations.
        let two = of((0..900).map(|at| (100, if at % 450 == 7 { 50 } else { 0 })));
        assert_eq!(two.estimate(), None);
        assert!((45.0..55.0).contains(&two.or_unknown()), "{}", two.or_unknown());
        assert_eq!(of((0..900).map(|_| (100, 100))).or_unknown(), 1.0);
        assert_eq!(of([(100, 7)]).or_unknown(), UNKNOWN_DISPERSION);
    }

    #[test]
    fn bunches_of_ten_are_about_ten() {
        let found = of((0..900).map(|at| (100, if at % 20 == 3 { 10 } else { 0 }))).estimate().unwrap();
        assert!((9.0..11.0).contains(&found), "{found}");
    }

    #[test]
    fn bad_ticks_do_not_count() {
        assert_eq!(of([(5, 6), (0, 0), (0, 1)]), Dispersion::default());
    }
}
