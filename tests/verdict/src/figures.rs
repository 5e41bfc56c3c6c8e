//! Samples of whole seconds, and what is said of them.

use serde_json::{Value, json};

/// Samples, some of which never came.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Option<u64>>);

impl Samples {
    /// Adds a sample; `None` is one that did not come before the end.
    pub fn push(&mut self, sample: Option<u64>) {
        self.0.push(sample);
    }

    /// By nearest rank; `None` if so many did not come.
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let mut sorted: Vec<u64> = self.0.iter().map(|sample| sample.unwrap_or(u64::MAX)).collect();
        sorted.sort_unstable();
        let rank = sorted.len().saturating_mul(percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().filter(|sample| *sample < u64::MAX)
    }

    /// The middle.
    pub fn median(&self) -> Option<u64> {
        self.percentile(50)
    }

    /// How many came.
    pub fn came(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Median, 95th percentile, and how many there are.
    pub fn told(&self) -> Value {
        json!({ "median": self.median(), "p95": self.percentile(95), "n": self.len() })
    }
}

/// A figure for people.
pub fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// So many of so many, in percent.
pub fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { rounded(part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_is_later_than_everything() {
        let mut samples = Samples::default();
        [Some(3), None, Some(1), Some(2)].into_iter().for_each(|sample| samples.push(sample));
        assert_eq!((samples.median(), samples.percentile(95), samples.came()), (Some(2), None, 3));
        assert_eq!(Samples::default().median(), None);
    }
}
