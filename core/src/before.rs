//! What served before a release: measured once, when its plan is made, and frozen with it.

use crate::verdict::{Bounds, MOST_BAD, Rate};

/// Bad requests lately below which it is not said that a limit is passed now: one unlucky visitor is no state of a site.
const LEAST_BAD: u64 = 3;

/// What the old slot was like before the release: measured when the plan was made. Shares are in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Seconds in which signals of the old slot came.
    pub seconds: u64,
    /// Requests of visitors in them.
    pub requests: u64,
    /// Share of errors.
    pub errors_ppm: u32,
    /// Share of requests over the limit.
    pub over_limit_ppm: u32,
    /// The 99th percentile, in milliseconds; none where too few requests came to speak of one.
    pub p99_ms: Option<u64>,
    /// How much errors, and requests over the limit, come in bunches, in thousandths; none where that is not known.
    pub bunches_milli: Option<(u64, u64)>,
    /// Errors, and requests over the limit, as counted; none where no request was seen, and in plans of before this was kept.
    pub usual: Option<(Usual, Usual)>,
    /// Requests that were as slow as makes one slower than before; none where no percentile is known, and in plans of before this
    /// was measured.
    pub slower: Option<Slower>,
}

/// Requests slower than the threshold that follows from the 99th percentile: some are so by its construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slower {
    /// Their share, in millionths.
    pub ppm: u32,
    /// How much they come in bunches, in thousandths.
    pub bunches_milli: u64,
}

/// Much slower than before is this many hundredths of the 99th percentile before.
const SLOWER_PERCENT: u64 = 125;
/// And at least so many milliseconds slower. Where nearly all answers take one or two, a busy scheduler or a cold cache makes
/// one in fifty take three: nobody notices, and nothing could ever prove such a slot good.
const SLOWER_MS: u64 = 20;

/// Requests that take longer than this are slower than before, where the 99th percentile was `p99_ms` and the limit is `limit_ms`:
/// they are never those that the limit forbids anyway.
pub fn slower_than_ms(p99_ms: u64, limit_ms: u64) -> u64 {
    let percent = p99_ms.saturating_mul(SLOWER_PERCENT).div_ceil(100);
    percent.max(p99_ms.saturating_add(SLOWER_MS)).min(limit_ms)
}

/// So many bad requests of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Bad ones.
    pub bad: u64,
    /// All of them.
    pub requests: u64,
}

impl Part {
    /// The share of bad ones; 0 of nothing.
    pub fn share(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.bad as f64 / self.requests as f64 }
    }

    /// The largest share that these counts do not rule out, if they came one by one: to the next millionth, so that it is the same
    /// wherever it is computed.
    fn at_most(self) -> f64 {
        let (_, most) = Rate { bad: self.bad, requests: self.requests, dispersion: 1.0 }.interval();
        (most * 1e6).ceil() / 1e6
    }
}

/// How bad one metric usually is. Two stretches are told apart, because an incident that is over, or has begun just now, is
/// nothing usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usual {
    /// Over all that is remembered.
    pub whole: Part,
    /// In the last two minutes of seconds that had requests, after the last minutes in which nobody came.
    pub lately: Part,
}

impl Usual {
    /// The share that it was all the time, and is still as far as the last two minutes do not rule that out: in which few requests
    /// come, and sometimes none of them is bad.
    pub fn lasting(&self) -> f64 {
        self.whole.share().min(self.lately.at_most())
    }

    /// The share of bad requests up to which a version is no worse than this: as many times what was counted as the bounds call no
    /// worse, of the worse stretch. What was over the limit already may have been counted too low, so there it is at least what
    /// the counts do not rule out.
    pub fn no_worse(&self, bounds: &Bounds) -> f64 {
        let share = self.whole.share().max(self.lately.share());
        let most = if share > bounds.limit { self.whole.at_most() } else { 0.0 };
        (bounds.ratio * share).max(most).min(MOST_BAD)
    }

    /// Whether a limit was passed all the time, and is still, as clearly as counts can say it. Bad requests that come in bunches
    /// of about `bunches` say less than their number.
    pub fn clearly_over(&self, limit: f64, bunches: f64) -> bool {
        let Part { bad, requests } = self.whole;
        let (least, _) = Rate { bad, requests, dispersion: bunches }.interval();
        least > limit && self.lately.bad >= LEAST_BAD && self.lately.share() > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(whole: (u64, u64), lately: (u64, u64)) -> Usual {
        let part = |(bad, requests)| Part { bad, requests };
        Usual { whole: part(whole), lately: part(lately) }
    }

    #[test]
    fn only_what_lasts_and_is_known_well_is_clear() {
        for (whole, lately, bunches, expected) in [
            // 3 % at ten requests a second, and at one.
            ((270, 9_000), (36, 1_200), 1.0, true),
            ((27, 900), (4, 120), 1.0, true),
            // A minute without an answer, which is over, and one that goes on.
            ((600, 9_000), (0, 1_200), 10.0, false),
            ((600, 9_000), (600, 1_200), 10.0, true),
            // Just above the limit; too few to say so; too much in bunches.
            ((92, 9_000), (14, 1_200), 1.0, false),
            ((3, 100), (3, 100), 1.0, false),
            ((270, 9_000), (36, 1_200), 50.0, false),
            // One unlucky visitor of ten.
            ((27, 900), (1, 10), 1.0, false),
            ((0, 0), (0, 0), 1.0, false),
        ] {
            let found = usual(whole, lately).clearly_over(0.01, bunches);
            assert_eq!(found, expected, "{whole:?} {lately:?} {bunches}");
        }
    }

    #[test]
    fn no_worse_is_the_ratio_of_the_worse_stretch_and_what_few_requests_do_not_rule_out() {
        let worse = |whole, lately, bounds: &Bounds| usual(whole, lately).no_worse(bounds);
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        near(worse((270, 9_000), (36, 1_200), &Bounds::ERRORS), 0.06);
        near(worse((0, 9_000), (36, 1_200), &Bounds::ERRORS), 0.06);
        near(worse((36_000, 1_200_000), (36, 1_200), &Bounds::SLOWNESS), 0.0375);
        // Three in a hundred are told from five only by many.
        let few = worse((3, 100), (3, 100), &Bounds::SLOWNESS);
        assert!((0.08..0.2).contains(&few), "{few}");
        // Nothing that is within the limit is excused by how little was seen.
        near(worse((0, 10), (0, 10), &Bounds::ERRORS), 0.0);
        near(worse((9_000, 9_000), (1_200, 1_200), &Bounds::ERRORS), MOST_BAD);
    }

    #[test]
    fn what_is_over_or_has_just_begun_does_not_last() {
        let over = usual((600, 9_000), (0, 1_200)).lasting();
        assert!(over < 0.01, "{over}");
        // Nothing was bad lately, of so few that this says little.
        assert_eq!(usual((27, 900), (0, 120)).lasting(), 0.03);
        assert_eq!(usual((12, 1_200), (60, 600)).lasting(), 0.01);
    }
}
