//! Tells a release's story fact by fact, as its journal would, and stops at once when a fact cannot follow.

#![expect(clippy::panic, reason = "a story that cannot be told is a broken test")]

use pointsman_core::machine::apply;
use pointsman_core::{
    Aftermath, Code, Epoch, Event, Evidence, HostName, OrderKey, Phase, Plan, Problem, Stamped, State, Step,
    Timestamp,
};

use crate::plans::CREATED_AT;

/// A release and the time: every fact takes one second.
#[derive(Clone)]
pub struct Story {
    pub state: State,
    pub now: Timestamp,
}

impl Story {
    /// A release whose agents have not acknowledged the epoch yet.
    pub fn planned(plan: Plan) -> Self {
        Self { state: State::begin(plan, Epoch(1), CREATED_AT), now: CREATED_AT }
    }

    /// A release in its first step, with every agent fenced.
    pub fn begun(plan: Plan) -> Self {
        let mut story = Self::planned(plan);
        story.fence();
        story
    }

    /// Folds one fact, a second later.
    pub fn tell(&mut self, event: Event) {
        self.now = self.now.plus_ms(1_000);
        self.state = apply(&self.state, &Stamped { at: self.now, event }).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Every agent acknowledges the epoch.
    pub fn fence(&mut self) {
        for host in self.state.unfenced.clone() {
            self.tell(Event::Fenced(host));
        }
    }

    /// The coordinator starts again; nobody has acknowledged it yet.
    pub fn restart(&mut self) {
        self.tell(Event::EpochTaken(Epoch(self.state.epoch.0 + 1)));
    }

    /// The orders of a step that no host has confirmed yet.
    pub fn left(&self, step: Step) -> Vec<OrderKey> {
        let done = |host: &HostName| self.state.progress(step, host).is_some_and(|p| p.done.is_some());
        let targets = self.state.plan.targets(step);
        targets.into_iter().filter(|host| !done(host)).map(|host| OrderKey { step, host }).collect()
    }

    /// The order leaves, as the next attempt.
    pub fn send(&mut self, key: &OrderKey) {
        let before = self.state.progress(key.step, &key.host).map_or(0, |progress| progress.attempts);
        self.tell(Event::OrderIntended { key: key.clone(), attempt: before + 1 });
    }

    /// The agent confirms it.
    pub fn done(&mut self, key: &OrderKey) {
        self.tell(Event::OrderDone { key: key.clone(), evidence: Evidence::default() });
    }

    /// The agent says that it failed, or nothing.
    pub fn failed(&mut self, key: &OrderKey, problem: Problem) {
        self.tell(Event::OrderFailed { key: key.clone(), problem });
    }

    /// The order leaves and is confirmed.
    pub fn confirm_on(&mut self, key: &OrderKey) {
        self.send(key);
        self.done(key);
    }

    /// Every order of the step that is left leaves and is confirmed.
    pub fn confirm(&mut self, step: Step) {
        self.left(step).iter().for_each(|key| self.confirm_on(key));
    }

    /// Every order of the step that is left leaves and fails alike.
    pub fn fail(&mut self, step: Step, problem: &Problem) {
        for key in self.left(step) {
            self.send(&key);
            self.failed(&key, problem.clone());
        }
    }

    /// Confirms step after step until the release stands in `step`, or is watched.
    pub fn reach(&mut self, step: Step) {
        while self.state.step() != Some(step) {
            match self.state.phase {
                Phase::Doing(now) => self.confirm(now),
                Phase::Watching { after: Step::Canary(_), .. } => self.tell(Event::WatchPassed),
                _ => panic!("never reached {step}"),
            }
        }
    }
}

/// The agent refused, nothing changed, and the same will happen again.
pub fn refused() -> Problem {
    Problem::new(Code::NotGranted, "refused")
}

/// The order may have taken effect; another try finds out.
pub fn lost() -> Problem {
    Problem::new(Code::AnswerLost, "no answer").aftermath(Aftermath::Unknown).retry_useful()
}
