//! Samples in few words.

/// What is told of many samples, by nearest rank; nothing where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub p50: Option<i64>,
    pub p99: Option<i64>,
    pub max: Option<i64>,
    pub count: usize,
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
