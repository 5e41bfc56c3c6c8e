//! How far a long job is, for whoever looks meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

/// The last sentence about a running job; cheap to share, empty while nothing runs.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<String>>);

impl Progress {
    /// Says how far it is, in words and figures.
    pub fn say(&self, words: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words.into();
    }

    /// What was said last.
    pub fn words(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The job is over.
    pub fn done(&self) {
        self.say("");
    }
}
