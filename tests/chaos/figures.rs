//! Samples in few words.

use std::fmt;

/// The bound on the time from a start of a killed coordinator to its release going on, for 99 of 100, in milliseconds.
/// What a person waits for a command to answer; the second that systemd waits before it starts a unit is not in it.
pub const BACK_P99_MS: i64 = 2_000;

/// What is told of many samples, by nearest rank; nothing where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub p50: Option<i64>,
    pub p99: Option<i64>,
    pub max: Option<i64>,
    pub count: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |figure: Option<i64>| figure.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        write!(
            f,
            "p50 {} ms, p99 {} ms, at most {} ms, {} times",
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
            self.count
        )
    }
}

pub fn figures(samples: &[i64]) -> Figures {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = |percent: usize| {
        let rank = sorted.len().saturating_mul(percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().filter(|_| rank > 0)
    };
    Figures { p50: rank(50), p99: rank(99), max: sorted.last().copied(), count: sorted.len() }
}
