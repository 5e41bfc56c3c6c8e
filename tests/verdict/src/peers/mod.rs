//! Rules of other tools, rebuilt from their sources and documents, and given more than they have in life: counters that
//! are scraped every 15 seconds without delay, jitter or loss.

mod interval;
mod kayenta;
mod query;

pub use interval::Interval;
pub use kayenta::Kayenta;
pub use query::Query;

use crate::rule::Rule;
use crate::traffic::{CLASSES, Seen};

/// What the peers look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Errors: at most 1 %.
    Errors,
    /// The 99th percentile: at most two seconds.
    Times,
}

/// Largest share of errors.
const MOST_ERRORS: f64 = 0.01;
/// Largest 99th percentile, in seconds.
const MOST_P99_S: f64 = 2.0;

/// The peers by name, in the order in which they are reported.
pub const NAMES: [&str; 5] = ["flagger", "argo60", "kayenta", "seed", "seed0"];

/// One of each.
pub fn all(looks: Looks) -> [Box<dyn Rule>; 5] {
    [
        Box::new(Interval::flagger(looks)),
        Box::new(Interval::argo(looks)),
        Box::new(Kayenta::new(looks)),
        Box::new(Query::labelled(looks)),
        Box::new(Query::literal(looks)),
    ]
}

impl Looks {
    /// What is looked at, of what was seen in a window; `None` where the query gives no number.
    fn value(self, seen: &Seen) -> Option<f64> {
        if seen.requests == 0 {
            return None;
        }
        match self {
            Self::Errors => Some(f64::from(seen.errors) / f64::from(seen.requests)),
            Self::Times => Some(histogram_p99(&seen.times)),
        }
    }

    fn bad(self, value: f64) -> bool {
        match self {
            Self::Errors => value > MOST_ERRORS,
            Self::Times => value > MOST_P99_S,
        }
    }
}

/// `histogram_quantile(0.99, ..)` over the buckets 1, 2.5, 5, 10 and infinity: linear inside a bucket, and the last bound
/// for what lies beyond it.
fn histogram_p99(times: &[u32; CLASSES]) -> f64 {
    let [to_1, to_baseline, to_2, to_2_5, to_5, to_10, over] = times.map(f64::from);
    let buckets =
        [(0.0, 1.0, to_1), (1.0, 2.5, to_baseline + to_2 + to_2_5), (2.5, 5.0, to_5), (5.0, 10.0, to_10)];
    let all = buckets.iter().map(|bucket| bucket.2).sum::<f64>() + over;
    let (rank, mut below) = (0.99 * all, 0.0);
    for (start, end, count) in buckets {
        if count > 0.0 && below + count >= rank {
            return start + (end - start) * (rank - below) / count;
        }
        below += count;
    }
    10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Call;
    use crate::traffic::Second;

    fn calls(rule: &mut dyn Rule, seconds: impl IntoIterator<Item = (Seen, Seen)>) -> Option<(u64, Call)> {
        (1..)
            .zip(seconds)
            .find_map(|(at, (new, old))| rule.see(at, &Second { new, old }).map(|call| (at, call)))
    }

    fn seen(requests: u32, errors: u32) -> Seen {
        Seen { requests, errors, times: [requests, 0, 0, 0, 0, 0, 0] }
    }

    #[test]
    fn a_dead_slot_is_seen_as_early_as_each_rule_can() {
        let good = seen(50, 0);
        for (rule, expected) in all(Looks::Errors).iter_mut().zip([360, 240, 300, 30, 15]) {
            (0..300).for_each(|_| rule.before(&seen(100, 0)));
            let dead = std::iter::repeat_n((seen(50, 50), good), 1_000);
            assert_eq!(calls(rule.as_mut(), dead), Some((expected, Call::Rollback)));
        }
    }

    #[test]
    fn no_traffic_is_a_failure_for_flagger_and_an_error_for_argo() {
        let none = || std::iter::repeat_n((Seen::default(), seen(50, 0)), 1_000);
        assert_eq!(calls(&mut Interval::flagger(Looks::Errors), none()), Some((360, Call::Rollback)));
        assert_eq!(calls(&mut Interval::argo(Looks::Errors), none()), Some((300, Call::Rollback)));
        assert_eq!(calls(&mut Query::labelled(Looks::Errors), none()), None);
    }

    #[test]
    fn good_slots_stay() {
        for rule in &mut all(Looks::Errors) {
            let good = std::iter::repeat_n((seen(50, 0), seen(50, 0)), 2_000);
            assert_eq!(calls(rule.as_mut(), good), None);
        }
    }

    #[test]
    fn buckets_report_one_and_a_half_seconds_as_more_than_two() {
        // 97.8 % within 1 s, 2.2 % within 1 to 2.5 s: the percentile is at about 1.8 s by the bucket.
        let p99 = histogram_p99(&[978, 10, 8, 4, 0, 0, 0]);
        assert!((p99 - (1.0 + 1.5 * 12.0 / 22.0)).abs() < 1e-9);
        assert_eq!(histogram_p99(&[0, 0, 0, 0, 0, 0, 9]), 10.0);
    }
}
