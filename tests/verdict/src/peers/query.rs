//! The query that sites write by hand: `rate(5xx[5m]) / rate(all[5m]) > 0.01` or `histogram_quantile(0.99, ..[5m]) > 2`.

use std::collections::VecDeque;

use super::Looks;
use crate::rule::{Call, Rule};
use crate::traffic::{Second, Seen};

/// Seconds between two scrapes, after each of which it is asked.
const SCRAPE: u64 = 15;
/// Scrapes in five minutes.
const WINDOW: usize = 20;

/// The query, over counters of one slot or of both.
#[derive(Clone, Debug)]
pub struct Query {
    looks: Looks,
    /// Whether it has a slot label: then the new slot's counters begin with the release.
    labelled: bool,
    /// What grew between two scrapes, the newest last.
    growths: VecDeque<Seen>,
    growing: Seen,
    seconds: u64,
}

impl Query {
    /// With a label: the new slot alone.
    pub fn labelled(looks: Looks) -> Self {
        Self { looks, labelled: true, growths: VecDeque::new(), growing: Seen::default(), seconds: 0 }
    }

    /// Without: both slots are one.
    pub fn literal(looks: Looks) -> Self {
        Self { labelled: false, ..Self::labelled(looks) }
    }

    /// Whether a scrape is due.
    fn grow(&mut self, seen: &Seen) -> bool {
        self.growing = self.growing.plus(seen);
        self.seconds += 1;
        if !self.seconds.is_multiple_of(SCRAPE) {
            return false;
        }
        let growth = std::mem::take(&mut self.growing);
        // A rate takes two scrapes: what came before the first one is in no rate.
        if !self.labelled || self.seconds > SCRAPE {
            self.growths.push_back(growth);
        }
        if self.growths.len() > WINDOW {
            self.growths.pop_front();
        }
        true
    }
}

impl Rule for Query {
    fn before(&mut self, seen: &Seen) {
        if !self.labelled {
            self.grow(seen);
        }
    }

    fn see(&mut self, _at: u64, second: &Second) -> Option<Call> {
        let seen = if self.labelled { second.new } else { second.new.plus(&second.old) };
        if !self.grow(&seen) {
            return None;
        }
        let window = self.growths.iter().fold(Seen::default(), |sum, growth| sum.plus(growth));
        // No number compares as false.
        let value = self.looks.value(&window)?;
        self.looks.bad(value).then_some(Call::Rollback)
    }
}
