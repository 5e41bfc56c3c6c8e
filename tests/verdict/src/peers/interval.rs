//! Flagger and Argo Rollouts: a check each minute on the last minute, and a count of failed checks.

use super::Looks;
use crate::rule::{Call, Rule};
use crate::traffic::{Second, Seen};

/// Seconds between two checks, and seconds that a check looks back on.
const INTERVAL: u64 = 60;

/// What a check says that got no number, because there was no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nothing {
    Failed,
    Error,
}

/// A rule that counts failed checks.
#[derive(Clone, Debug)]
pub struct Interval {
    looks: Looks,
    nothing: Nothing,
    /// Failed checks that are too many.
    most_failed: u32,
    /// Whether it acts at the check after that only.
    acts_late: bool,
    /// Checks without a number, in a row, that are too many.
    most_errors: u32,
    window: Seen,
    failed: u32,
    errors: u32,
}

impl Interval {
    /// Flagger with `threshold: 5`: failed checks add up over the analysis, no traffic is one, and the rollback comes at the
    /// check after the fifth.
    pub fn flagger(looks: Looks) -> Self {
        Self {
            looks,
            nothing: Nothing::Failed,
            most_failed: 5,
            acts_late: true,
            most_errors: u32::MAX,
            window: Seen::default(),
            failed: 0,
            errors: 0,
        }
    }

    /// Argo Rollouts with `failureLimit: 3`: the fourth failed check ends it, or the fifth error in a row.
    pub fn argo(looks: Looks) -> Self {
        Self {
            nothing: Nothing::Error,
            most_failed: 4,
            acts_late: false,
            most_errors: 5,
            ..Self::flagger(looks)
        }
    }

    fn check(&mut self) {
        let seen = std::mem::take(&mut self.window);
        let failed = match (self.looks.value(&seen), self.nothing) {
            (Some(value), _) => self.looks.bad(value),
            (None, Nothing::Failed) => true,
            (None, Nothing::Error) => {
                self.errors += 1;
                return;
            }
        };
        self.errors = 0;
        self.failed += u32::from(failed);
    }
}

impl Rule for Interval {
    fn see(&mut self, at: u64, second: &Second) -> Option<Call> {
        self.window = self.window.plus(&second.new);
        if !at.is_multiple_of(INTERVAL) {
            return None;
        }
        if self.acts_late && self.failed >= self.most_failed {
            return Some(Call::Rollback);
        }
        self.check();
        let too_many = self.failed >= self.most_failed || self.errors >= self.most_errors;
        (too_many && !self.acts_late).then_some(Call::Rollback)
    }
}
