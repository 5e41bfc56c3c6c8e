//! What makes a verdict understandable: how well a rate is known, what is still needed, and what no test can beat.
//!
//! Nothing here decides.

use super::gamma::ln_gamma;
use super::params::{Params, Rule};
use super::promotion::{Comparison, against_rate};
use super::tick::Slot;

/// How often an interval may ever miss the truth, over all looks.
const MISSES: f64 = 0.05;

/// Halvings until two doubles between 0 and 1 are neighbours, with room for very small rates.
const HALVINGS: u32 = 200;

/// More requests than any watch sees: beyond it a verdict is out of reach.
const MOST_REQUESTS: f64 = 1e9;

/// A counted rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Bad requests.
    pub bad: u64,
    /// All requests.
    pub requests: u64,
    /// How much bad requests come in bunches: so many of them count as one.
    pub dispersion: f64,
}

impl Rate {
    /// The share of bad requests; none without requests.
    pub fn share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.bad as f64 / self.requests as f64)
    }

    /// Where the true share lies: right at every look at once with a chance of 95 %.
    pub fn interval(&self) -> (f64, f64) {
        let effective = |count: u64| count as f64 / self.dispersion;
        confidence_sequence(effective(self.bad), effective(self.requests), MISSES)
    }

    /// Whether all of that interval is above a share: the same in one look, for what is asked each second.
    pub fn is_above(&self, share: f64) -> bool {
        let [bad, all] = [self.bad, self.requests].map(|count| count as f64 / self.dispersion);
        self.share().is_some_and(|counted| counted > share) && rejects(share, bad, all, MISSES)
    }
}

/// Whether `bad` of `all` reject a share at level `alpha`, at any time.
fn rejects(share: f64, bad: f64, all: f64, alpha: f64) -> bool {
    let good = all - bad;
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let mixture = ln_beta(bad + 0.5, good + 0.5) - std::f64::consts::PI.ln();
    // A count of nothing says nothing, also for a share of 0 or 1, where its logarithm is infinite.
    let part = |count: f64, ln: f64| if count > 0.0 { count * ln } else { 0.0 };
    part(bad, share.ln()) + part(good, (-share).ln_1p()) <= mixture + alpha.ln()
}

/// The shares that `bad` of `all` do not reject at level `alpha`, at any time: the confidence sequence of a mixture of
/// all shares, weighted by the beta distribution with parameters one half.
pub fn confidence_sequence(bad: f64, all: f64, alpha: f64) -> (f64, f64) {
    let good = all - bad;
    if !(all > 0.0 && good >= 0.0 && bad >= 0.0) {
        return (0.0, 1.0);
    }
    let inside = |share: f64| !rejects(share, bad, all, alpha);
    let middle = bad / all;
    let low = if inside(0.0) { 0.0 } else { border(0.0, middle, inside) };
    let high = if inside(1.0) { 1.0 } else { border(1.0, middle, inside) };
    (low, high)
}

/// The border between `outside` and `within`.
fn border(mut outside: f64, mut within: f64, inside: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(outside, within);
        if middle == outside || middle == within {
            break;
        }
        if inside(middle) {
            within = middle;
        } else {
            outside = middle;
        }
    }
    within
}

/// How many nats one request of a slot that fails at `rate` says, on average, against failing at `boundary`: the
/// divergence of Kullback and Leibler.
pub fn divergence(rate: f64, boundary: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(rate, boundary) + part(1.0 - rate, 1.0 - boundary)
}

/// Requests that any test needs on average to tell `rate` from `boundary`, wrong with a chance of `alpha` (Wald).
pub fn least_requests(rate: f64, boundary: f64, alpha: f64) -> f64 {
    -alpha.ln() / divergence(rate, boundary)
}

/// Shares of bad requests that are expected of a good release.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expected {
    /// Of errors.
    pub errors: f64,
    /// Of requests over the limit.
    pub over_limit: f64,
    /// Of requests over the frozen threshold.
    pub over_baseline: f64,
    /// The new slot's share of the visitors while it is watched: the old slot is expected to be as good beside it. 0 or 1: nobody
    /// is there to compare with.
    pub new_share: f64,
}

/// Requests on the new slot until a good release is promoted, to be said before it starts. `None` is: never, at these
/// rates.
pub fn requests_to_promote(params: &Params, expected: &Expected) -> Option<u64> {
    let outlook = |rule: &Rule, limit_share: f64, baseline_share: f64| Outlook {
        seen: Slot::default(),
        limit_share,
        baseline_share,
        comparison: Comparison::default(),
        each: Comparison::of_equals(baseline_share, expected.new_share, rule.bounds.ratio),
        rule: *rule,
        dispersions: (rule.limit_dispersion, rule.baseline_dispersion),
        limit_counts: params.limits_count(),
        target: params.promote_at(),
    };
    let errors = outlook(&params.errors, expected.errors, expected.errors).requests_needed()?;
    let slow = outlook(&params.slowness, expected.over_limit, expected.over_baseline).requests_needed()?;
    Some(errors.max(slow))
}

/// One metric of the new slot, if it goes on like this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outlook {
    pub seen: Slot,
    pub limit_share: f64,
    pub baseline_share: f64,
    pub comparison: Comparison,
    /// What every further request adds to it.
    pub each: Comparison,
    pub rule: Rule,
    /// By the limit and by the comparison.
    pub dispersions: (f64, f64),
    /// Whether the limit must be kept.
    pub limit_counts: bool,
    pub target: f64,
}

impl Outlook {
    /// Requests until both criteria of promotion are met; 0 when they are.
    pub fn requests_needed(&self) -> Option<u64> {
        let limit = if self.limit_counts { self.until(|more| self.within_limit(more))? } else { 0 };
        let baseline = self.until(|more| self.not_worse(more))?;
        Some(limit.max(baseline))
    }

    fn within_limit(&self, more: f64) -> f64 {
        let (bad, all) = (self.seen.over_limit + more * self.limit_share, self.seen.requests + more);
        against_rate(bad, all, self.rule.bounds.limit, self.dispersions.0)
    }

    fn not_worse(&self, more: f64) -> f64 {
        let (bad, all) = (self.seen.over_baseline + more * self.baseline_share, self.seen.requests + more);
        let floor = against_rate(bad, all, self.rule.bounds.floor, self.dispersions.1);
        f64::midpoint(floor, self.comparison.plus(more, &self.each).value(self.dispersions.1))
    }

    /// The fewest requests more with which `evidence` reaches the target: doubled until it does, then halved.
    fn until(&self, evidence: impl Fn(f64) -> f64) -> Option<u64> {
        if evidence(0.0) >= self.target {
            return Some(0);
        }
        let (mut few, mut enough) = (0.0, 1.0);
        while evidence(enough) < self.target {
            few = enough;
            enough *= 2.0;
            if enough > MOST_REQUESTS {
                return None;
            }
        }
        while enough - few > 1.0 {
            let middle = f64::midpoint(few, enough);
            if evidence(middle) < self.target {
                few = middle;
            } else {
                enough = middle;
            }
        }
        Some(enough.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::{Choices, Dispersions};
    use super::*;
    use proptest::prelude::*;

    fn independent() -> Params {
        let dispersions = Dispersions { errors: 1.0, over_limit: 1.0, over_baseline: 1.0 };
        Params::new(Choices { dispersions, ..Choices::default() }).unwrap()
    }

    #[test]
    fn what_a_release_takes_is_said_before() {
        let with = |errors| requests_to_promote(&independent(), &Expected { errors, ..Expected::default() });
        // Simulated medians are 27 and 48 s at 50 requests a second, with an old slot whose failures help a little.
        assert!((1_280..1_360).contains(&with(0.0).unwrap()), "{:?}", with(0.0));
        assert!((2_200..2_800).contains(&with(0.001).unwrap()), "{:?}", with(0.001));
        assert_eq!(with(0.02), None);
    }

    /// 0.8 % of errors are within the limit, and over the half of it that a slot alone has to keep to.
    #[test]
    fn what_nobody_can_prove_alone_a_comparison_can() {
        let of = |new_share| {
            let expected = Expected { errors: 0.008, new_share, ..Expected::default() };
            requests_to_promote(&independent(), &expected)
        };
        assert_eq!((of(0.0), of(1.0)), (None, None));
        for share in [0.1, 0.5] {
            let needed = of(share).unwrap();
            assert!((10_000..100_000).contains(&needed), "{share}: {needed}");
        }
    }

    #[test]
    fn bunches_take_as_many_times_more() {
        let of = |params: &Params| requests_to_promote(params, &Expected::default()).unwrap() as f64;
        let times = of(&Params::default()) / of(&independent());
        assert!((9.9..10.1).contains(&times), "{times}");
    }

    #[test]
    fn an_interval_of_nothing_is_everything() {
        assert_eq!(Rate { bad: 0, requests: 0, dispersion: 1.0 }.interval(), (0.0, 1.0));
        assert_eq!(confidence_sequence(2.0, 1.0, 0.05), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn the_share_lies_in_its_interval(bad in 0u64..10_000, good in 0u64..10_000_000, dispersion in 1.0..50.0f64) {
            let rate = Rate { bad, requests: bad + good, dispersion };
            let (low, high) = rate.interval();
            prop_assert!(0.0 <= low && low <= high && high <= 1.0);
            if let Some(share) = rate.share() {
                prop_assert!(low <= share && share <= high);
            }
        }
    }
}
