//! What follows where no clock was set: whatever the time says was waited.

use pointsman_core::machine::{self, Next};
use pointsman_core::{Event, Problem, State, Timestamp};

pub fn next(state: &State, now: Timestamp) -> Next {
    machine::next(state, now, now.ms_since(state.fencing_since))
}

pub fn fence_failed(state: &State, now: Timestamp, problem: Problem) -> Option<Event> {
    machine::fence_failed(state, now.ms_since(state.fencing_since), problem)
}
