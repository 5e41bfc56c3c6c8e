//! What was seen before. A check that does much is not made anew at each reading of the watch: its pass is good for a while.
//! So is the failure of a number that others measure: asked again at once, they give the same one again, and what was seen
//! once would be counted as often as it is asked for. And so is the failure of a check that writes, once there were several: each
//! may have left something behind. Every other failure is looked at again at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pointsman_core::{Check, CheckSeen, CheckVerdict};
use tokio::time::Instant;

use crate::place::Place;
use crate::spec::Spec;

/// Most checks that are remembered: environments have a few dozen.
const MOST: usize = 512;

/// What was seen, by place, name and description of its check.
type Seen = HashMap<(String, String, String), Kept>;

/// What was seen of one check.
#[derive(Debug)]
struct Kept {
    at: Instant,
    seen: CheckSeen,
    /// Failures up to this one, each after the other.
    in_a_row: u32,
}

/// What one agent remembers.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Seen>);

impl Memory {
    fn key(check: &Check, place: &Place) -> (String, String, String) {
        (place.key.clone(), check.name.to_string(), check.spec.to_string())
    }

    /// What was seen of a check, as long as it is good.
    pub fn recall(&self, check: &Check, spec: &Spec, place: &Place) -> Option<CheckSeen> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { at, seen, in_a_row } = all.get(&Self::key(check, place))?;
        let passed = seen.verdict == CheckVerdict::Passed;
        let good_for_ms = if passed { spec.every_ms } else { spec.failure_good_for_ms(*in_a_row) };
        (at.elapsed() < Duration::from_millis(good_for_ms)).then(|| seen.clone())
    }

    /// Remembers what was seen just now, or forgets what was seen before.
    pub fn keep(&self, check: &Check, spec: &Spec, place: &Place, seen: &CheckSeen) {
        let good = match seen.verdict {
            CheckVerdict::Passed => true,
            CheckVerdict::Failed => spec.is_measured() || !spec.only_reads(),
            CheckVerdict::NotMade => false,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !good || spec.every_ms == 0 {
            all.remove(&Self::key(check, place));
            return;
        }
        if all.len() >= MOST {
            all.clear();
        }
        let key = Self::key(check, place);
        let in_a_row = match seen.verdict {
            CheckVerdict::Failed => all.get(&key).map_or(0, |kept| kept.in_a_row).saturating_add(1),
            CheckVerdict::Passed | CheckVerdict::NotMade => 0,
        };
        all.insert(key, Kept { at: Instant::now(), seen: seen.clone(), in_a_row });
    }

    /// Forgets everything: what comes is another release's.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
