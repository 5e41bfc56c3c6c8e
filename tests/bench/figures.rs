//! Samples and their percentiles.

use std::time::Duration;

/// Durations of one kind, in the order in which they were measured.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds a sample.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample that this share of all samples does not exceed, in milliseconds: the nearest rank, never a value
    /// between two samples.
    fn rank(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = sorted.len().saturating_mul(percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1000.0)
    }

    /// The middle, in milliseconds.
    pub fn p50(&self) -> f64 {
        self.rank(50)
    }

    /// What one in a hundred exceeds, in milliseconds; with fewer than a hundred samples it is the slowest.
    pub fn p99(&self) -> f64 {
        self.rank(99)
    }
}

/// A figure for people: microseconds are the last digits that mean anything.
pub fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
