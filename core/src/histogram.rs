//! A histogram of milliseconds that is small, bounded and can be added to another one: how long requests took, on one
//! load balancer or on all of them together.
//!
//! Log-linear: up to [`EXACT_MS`] every millisecond has a bucket of its own; above, every doubling of the time has 256
//! buckets. A quantile is therefore off by at most 0.2 % of its value, whatever the times are.

use std::collections::BTreeMap;

/// Below this every value is kept as it is.
pub const EXACT_MS: u64 = 512;

/// Buckets per doubling, as a power of two.
const STEPS_LOG2: u32 = 8;
const STEPS: u64 = 1 << STEPS_LOG2;

/// Longer times count as this long: 70 minutes, more than the longest `timeout tunnel` in use.
pub const LONGEST_MS: u64 = (1 << 22) - 1;

/// How many buckets there are: 512 exact ones, and 256 for each of the 13 doublings up to [`LONGEST_MS`].
pub const BUCKETS: u16 = 3840;

/// Counts of times, by length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<u16, u64>,
    total: u64,
}

/// A bucket that no histogram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a histogram has no bucket {0}: expected 0 to {last}, each once", last = BUCKETS - 1)]
pub struct InvalidBucket(pub u32);

fn bucket_of(ms: u64) -> u16 {
    let ms = ms.min(LONGEST_MS);
    if ms < EXACT_MS {
        return u16::try_from(ms).unwrap_or(0);
    }
    // `ms` is at least 512: its highest bit is the ninth or above.
    let doubling = 63u32.saturating_sub(ms.leading_zeros()).saturating_sub(STEPS_LOG2);
    let step = (ms >> doubling) & (STEPS - 1);
    let index = u64::from(doubling).saturating_add(1).saturating_mul(STEPS).saturating_add(step);
    u16::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The lowest value of a bucket, and how many values it takes.
fn bounds(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < EXACT_MS {
        return (bucket, 1);
    }
    let doubling = (bucket / STEPS).saturating_sub(1);
    ((STEPS + bucket % STEPS) << doubling, 1 << doubling)
}

impl Histogram {
    /// Counts one time.
    pub fn record(&mut self, ms: u64) {
        self.add(bucket_of(ms), 1);
    }

    fn add(&mut self, bucket: u16, count: u64) {
        let counted = self.counts.entry(bucket).or_default();
        *counted = counted.saturating_add(count);
        self.total = self.total.saturating_add(count);
    }

    /// Adds another histogram to this one, as if its times had been counted here.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            self.add(*bucket, *count);
        }
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The time that `per_mille` of 1000 requests did not exceed, in milliseconds: the nearest rank, as the middle of its
    /// bucket. `None` where nothing was counted.
    pub fn quantile_ms(&self, per_mille: u64) -> Option<f64> {
        let rank =
            u128::from(self.total).saturating_mul(u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut below = 0u128;
        for (bucket, count) in &self.counts {
            below = below.saturating_add(u128::from(*count));
            if below >= rank {
                let (low, width) = bounds(*bucket);
                return Some(low as f64 + (width.saturating_sub(1)) as f64 / 2.0);
            }
        }
        None
    }

    /// How many times were above a limit. Exact up to [`EXACT_MS`]; above, a time that exceeds the limit by less than
    /// 0.4 % may count as not above.
    pub fn above(&self, limit_ms: u64) -> u64 {
        let limit = bucket_of(limit_ms);
        self.counts.range(limit.saturating_add(1)..).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The buckets in use with their counts, ascending: how a histogram travels.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        self.counts.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// How many buckets are in use.
    pub fn width(&self) -> usize {
        self.counts.len()
    }

    /// The histogram with these buckets. Each may come once.
    pub fn from_buckets(buckets: impl IntoIterator<Item = (u32, u64)>) -> Result<Self, InvalidBucket> {
        let mut histogram = Self::default();
        for (bucket, count) in buckets {
            let known = u16::try_from(bucket).ok().filter(|bucket| *bucket < BUCKETS);
            let bucket = known.ok_or(InvalidBucket(bucket))?;
            if histogram.counts.contains_key(&bucket) {
                return Err(InvalidBucket(bucket.into()));
            }
            histogram.add(bucket, count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Far below the 1 % that is promised: half a bucket of the widest kind.
    const ERROR: f64 = 0.002;

    fn of(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|ms| histogram.record(*ms));
        histogram
    }

    fn exact(times: &[u64], per_mille: u64) -> u64 {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let rank = (sorted.len() as u64 * per_mille).div_ceil(1000).max(1);
        sorted[rank as usize - 1]
    }

    #[test]
    fn every_value_is_in_the_bucket_that_says_so_and_buckets_follow_each_other() {
        let mut last = 0;
        for ms in 0..=LONGEST_MS {
            let bucket = bucket_of(ms);
            let (low, width) = bounds(bucket);
            assert!(low <= ms && ms < low + width, "{ms} in {bucket}: {low} + {width}");
            assert!(bucket == last || bucket == last + 1, "{ms}: {last}, then {bucket}");
            last = bucket;
        }
        assert_eq!((last, bucket_of(u64::MAX)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn nothing_and_one() {
        assert_eq!(Histogram::default().quantile_ms(990), None);
        assert_eq!(Histogram::default().above(0), 0);
        let one = of(&[7]);
        assert_eq!([0, 500, 1000, 9999].map(|q| one.quantile_ms(q)), [Some(7.0); 4]);
        assert_eq!((one.above(6), one.above(7)), (1, 0));
    }

    #[test]
    fn what_no_histogram_can_say_is_refused() {
        assert_eq!(Histogram::from_buckets([(3840, 1)]), Err(InvalidBucket(3840)));
        assert_eq!(Histogram::from_buckets([(70_000, 1)]), Err(InvalidBucket(70_000)));
        assert_eq!(Histogram::from_buckets([(3, 1), (3, 1)]), Err(InvalidBucket(3)));
        let full = Histogram::from_buckets([(1, u64::MAX), (2, u64::MAX)]).unwrap();
        assert_eq!((full.total(), full.above(0)), (u64::MAX, u64::MAX));
        assert!(full.quantile_ms(990).is_some());
    }

    /// Times as sites have them: all alike, evenly spread, a long tail, two humps, almost all zero.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let sized = |value: BoxedStrategy<u64>| prop::collection::vec(value, 1..800).boxed();
        let tail = (0.0f64..1.0).prop_map(|u| (200.0 * (-(1.0 - u).ln() * 1.6).exp()) as u64).boxed();
        prop_oneof![
            sized((0..3u64).boxed()),
            sized((0..5_000u64).boxed()),
            sized(tail.prop_map(|ms| ms.min(LONGEST_MS)).boxed()),
            sized(prop_oneof![10..30u64, 1_900..2_100u64].boxed()),
            sized(prop_oneof![20 => Just(0u64), 1 => 0..LONGEST_MS].boxed()),
        ]
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_times(times in times(), per_mille in 0..=1000u64) {
            let (found, wanted) = (of(&times).quantile_ms(per_mille).unwrap(), exact(&times, per_mille) as f64);
            prop_assert!((found - wanted).abs() <= wanted * ERROR, "{} instead of {}", found, wanted);
        }

        #[test]
        fn above_a_limit(times in times(), limit in 0..6_000u64) {
            let wanted = |limit: f64| times.iter().filter(|ms| **ms as f64 > limit).count() as u64;
            let found = of(&times).above(limit);
            prop_assert!(found <= wanted(limit as f64));
            prop_assert!(found >= wanted(limit as f64 * (1.0 + 2.0 * ERROR)));
            if limit < EXACT_MS { prop_assert_eq!(found, wanted(limit as f64)); }
        }

        #[test]
        fn parts_give_the_whole(times in times(), cut in 0usize..800) {
            let (left, right) = times.split_at(cut.min(times.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(&merged, &of(&times));
            let travelled = Histogram::from_buckets(merged.buckets().map(|(b, n)| (u32::from(b), n)));
            prop_assert_eq!(travelled, Ok(merged));
        }
    }
}
