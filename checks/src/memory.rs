//! Earlier passes. A check that does much is not made anew at each reading of the watch: its pass is good for a while. A
//! failure is never good for anything: it is looked at again at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pointsman_core::{Check, CheckSeen};
use tokio::time::Instant;

use crate::place::Place;

/// Most passes that are remembered: environments have a few dozen checks.
const MOST: usize = 512;

/// Passes by place, name and description of their check, each with its moment.
type Passes = HashMap<(String, String, String), (Instant, CheckSeen)>;

/// The passes of one agent.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Passes>);

impl Memory {
    fn key(check: &Check, place: &Place) -> (String, String, String) {
        (place.key.clone(), check.name.to_string(), check.spec.to_string())
    }

    /// A pass that is not older than that.
    pub fn pass(&self, check: &Check, place: &Place, every: Duration) -> Option<CheckSeen> {
        let passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, seen) = passes.get(&Self::key(check, place))?;
        (at.elapsed() < every).then(|| seen.clone())
    }

    /// Remembers a pass.
    pub fn keep(&self, check: &Check, place: &Place, seen: &CheckSeen) {
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passes.len() >= MOST {
            passes.clear();
        }
        passes.insert(Self::key(check, place), (Instant::now(), seen.clone()));
    }

    /// Forgets everything: what comes is another release's.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
