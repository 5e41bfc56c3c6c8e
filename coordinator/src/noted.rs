//! What the driver notes of checks, for the checklist: all that were made before the switch, and during the watch what they
//! said first, whatever changed, and what they said last.

use std::collections::BTreeMap;

use pointsman_core::{
    CheckName, CheckSeen, CheckVerdict, Event, Evidence, HostName, Note, OrderKey, Problem, State, Step,
};

/// Takes the checks out of an answer: they are noted on their own, once.
pub fn taken(answer: &mut Result<Evidence, Problem>) -> Vec<CheckSeen> {
    match answer {
        Ok(evidence) => std::mem::take(&mut evidence.checks),
        Err(problem) => std::mem::take(&mut problem.checks),
    }
}

/// The note of an order that made checks.
pub fn of_order(key: &OrderKey, answer: &mut Result<Evidence, Problem>) -> Option<Event> {
    note(key.step, &key.host, taken(answer))
}

fn note(step: Step, host: &HostName, seen: Vec<CheckSeen>) -> Option<Event> {
    (!seen.is_empty()).then(|| Event::Noted(Note::Checks { step, host: host.clone(), seen }))
}

/// What was noted last of the watch that runs.
#[derive(Debug, Default)]
pub struct Noted {
    watch: Option<Step>,
    verdicts: BTreeMap<HostName, BTreeMap<CheckName, CheckVerdict>>,
}

impl Noted {
    /// The notes of one reading of the gates. `follows` is what the reading led to.
    pub fn read(
        &mut self,
        state: &State,
        seen: Vec<(HostName, Vec<CheckSeen>)>,
        follows: &[Event],
    ) -> Vec<Event> {
        let Some(step) = state.watched_after() else { return Vec::new() };
        if self.watch != Some(step) {
            (self.watch, self.verdicts) = (Some(step), BTreeMap::new());
        }
        // What ends the watch rests on this reading.
        let ends =
            |event: &Event| matches!(event, Event::WatchPassed | Event::TurnedBack(_) | Event::Held(_));
        let last = follows.iter().any(ends);
        let mut notes = Vec::new();
        for (host, seen) in seen {
            let mut verdicts: BTreeMap<CheckName, CheckVerdict> = BTreeMap::new();
            for seen in &seen {
                let verdict = verdicts.entry(seen.name.clone()).or_insert(seen.verdict);
                *verdict = verdict.worse(seen.verdict);
            }
            let before = self.verdicts.insert(host.clone(), verdicts.clone());
            if last || before.as_ref() != Some(&verdicts) {
                notes.extend(note(step, &host, seen));
            }
        }
        notes
    }
}
