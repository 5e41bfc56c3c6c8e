//! How busy the ticks are that requests find themselves in, and what a tick with fewer requests than that counts for.
//!
//! A limit bounds the share of bad requests; the mean share of ticks is another thing. Where pages of forty requests and lone
//! polls take turns, a poll that fails fills a tick of its own, and forty that succeed fill one as well. So a tick with few
//! requests counts in proportion to them.

/// Ticks with data that are remembered: what is older weighs less by this factor for each.
const KEPT: f64 = 0.9;

/// Part of the usual company from which a tick counts as one in full. At steady rates nearly all do.
const FULL: f64 = 0.5;

/// Sums over the last ticks with data.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Company {
    pub requests: f64,
    pub squares: f64,
}

impl Company {
    /// What a tick with so many requests counts for, at most 1, by what the ticks before it had: 1 where there were none.
    ///
    /// The usual company is the mean over requests of how many came in the same tick, `sum n^2 / sum n`. It is known before the
    /// tick, so that the tick's own part depends on nothing but its number of requests.
    pub fn part(&self, requests: f64) -> f64 {
        // n / (FULL * squares / sum), without a division by what may be 0.
        let (whole, own) = (FULL * self.squares, requests * self.requests);
        if own < whole { own / whole } else { 1.0 }
    }

    /// Takes in a tick. One without requests says nothing of how they come.
    pub fn step(&mut self, requests: f64) {
        if requests > 0.0 {
            self.requests = self.requests * KEPT + requests;
            self.squares = self.squares * KEPT + requests * requests;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(ticks: impl IntoIterator<Item = f64>) -> Company {
        let mut company = Company::default();
        ticks.into_iter().for_each(|requests| company.step(requests));
        company
    }

    #[test]
    fn lone_requests_between_pages_count_as_what_they_are() {
        // A page of 40 in every fifth tick with data, a poll in the others.
        let company = after((0..200).map(|tick| if tick % 5 == 0 { 40.0 } else { 1.0 }));
        assert!(company.part(1.0) < 0.06, "{company:?}");
        assert!((company.part(40.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn at_a_steady_rate_ticks_count_in_full() {
        for rate in [1.0, 10.0, 1_000.0] {
            let company = after([rate; 100]);
            assert!((company.part(rate) - 1.0).abs() < 1e-12);
            assert!((company.part(rate * 0.51) - 1.0).abs() < 1e-12);
            assert!((company.part(rate * 0.3) - 0.6).abs() < 1e-6);
        }
    }

    #[test]
    fn the_first_tick_counts_in_full_and_silence_changes_nothing() {
        assert!((Company::default().part(1.0) - 1.0).abs() < 1e-12);
        assert_eq!(after([3.0, 0.0, 0.0]), after([3.0]));
    }

    proptest! {
        #[test]
        fn a_part_is_a_part(ticks in proptest::collection::vec(0u32..=u32::MAX, 0..300), requests in 1u32..=u32::MAX) {
            let company = after(ticks.into_iter().map(f64::from));
            let part = company.part(requests.into());
            prop_assert!(part > 0.0 && part <= 1.0, "{part} of {company:?}");
        }
    }
}
