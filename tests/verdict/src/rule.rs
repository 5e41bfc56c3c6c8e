//! A rule that watches a release, and what it makes of a history.

use crate::chance::Chance;
use crate::traffic::{Scenario, Second, Seen};

/// What a rule calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Back to the old slot.
    Rollback,
    /// Let a person look.
    Hold,
    /// The new slot is good.
    Promote,
}

/// A rule, second by second.
pub trait Rule {
    /// What the old slot did in one second before the release, oldest first.
    fn before(&mut self, _seen: &Seen) {}

    /// Takes in second `at` of the watch, from 1.
    fn see(&mut self, at: u64, second: &Second) -> Option<Call>;
}

/// How one history ended for one rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    /// The second in which it first called for a rollback.
    pub rollback_at: Option<u64>,
    /// The second in which it first promoted, if it had not rolled back.
    pub promote_at: Option<u64>,
    /// Seconds in which it held.
    pub held: u64,
    /// Requests of the new slot that failed or took too long until the rollback, or until the end.
    pub bad: u64,
}

/// How long histories are, and what ends them.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Seconds of the old slot before the release.
    pub before: u64,
    /// Seconds of the watch at most.
    pub seconds: u64,
    /// Whether a promotion ends it too. Otherwise the rule stays armed.
    pub to_promotion: bool,
}

/// Draws a history and lets every rule watch it: all of them see the same.
pub fn watch(
    scenario: &Scenario,
    span: &Span,
    chance: &mut Chance,
    rules: &mut [&mut dyn Rule],
) -> Vec<Ending> {
    for _ in 0..span.before {
        let seen = scenario.before(chance);
        rules.iter_mut().for_each(|rule| rule.before(&seen));
    }
    let mut endings = vec![Ending::default(); rules.len()];
    for at in 1..=span.seconds {
        let second = scenario.second(at, chance);
        let slow: u32 = second.new.times.iter().skip(3).sum();
        let mut open = false;
        for (rule, ending) in rules.iter_mut().zip(&mut endings) {
            if ending.rollback_at.is_some() || (span.to_promotion && ending.promote_at.is_some()) {
                continue;
            }
            open = true;
            ending.bad += u64::from(second.new.errors) + u64::from(slow);
            match rule.see(at, &second) {
                Some(Call::Rollback) => ending.rollback_at = Some(at),
                Some(Call::Promote) => ending.promote_at = ending.promote_at.or(Some(at)),
                Some(Call::Hold) => ending.held += 1,
                None => {}
            }
        }
        if !open {
            break;
        }
    }
    endings
}
