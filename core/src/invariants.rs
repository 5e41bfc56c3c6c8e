//! What must never break, as named functions. Tests, the simulator and the running coordinator all check
//! them; the coordinator stops a release that breaks one. The numbers are those of ARCHITECTURE.md.

use crate::machine::{Next, next};
use crate::{Code, Phase, Problem, Purpose, State, Step, Timestamp};

/// The way out for a person: a release of which the record contradicts itself cannot go on, also not after a restart.
const WAY_OUT: &str = "see whether the record is whole: `pointsman audit verify ENV`; keep what `pointsman explain PM0709` names; \
     then go on with what stands, the release void: `pointsman audit accept ENV --confirm ENV`";

/// The problem of a broken invariant: what it is, and what a person can do about it.
pub fn problem(what: impl AsRef<str>) -> Problem {
    Problem::new(Code::InvariantBroken, what).hint(WAY_OUT)
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {id} is broken: {what}")]
pub struct Broken {
    /// `I2`, `I6` ...
    pub id: &'static str,
    /// What was found.
    pub what: String,
}

fn ensure(holds: bool, id: &'static str, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { id, what: what() }) }
}

/// I2, gate: visitors are moved to a slot only after every host of it holds the artifact, made it current and
/// passed its checks.
pub fn gate_before_share(state: &State) -> Result<(), Broken> {
    let Purpose::Deploy { .. } = state.plan.purpose else { return Ok(()) };
    let gates = [Step::Stage, Step::Activate, Step::Expose, Step::Check];
    let ready = !state.visitors_moved() || gates.into_iter().all(|step| state.complete(step));
    ensure(ready, "I2", || {
        format!("release `{}` moved visitors before its gates were green", state.plan.release)
    })
}

/// I6, single flight: at most one unfinished release per environment.
pub fn single_flight<'a>(states: impl IntoIterator<Item = &'a State>) -> Result<(), Broken> {
    let mut unfinished = std::collections::BTreeMap::new();
    for state in states.into_iter().filter(|state| state.outcome().is_none()) {
        let other = unfinished.insert(state.plan.environment.clone(), state.plan.release.clone());
        ensure(other.is_none(), "I6", || format!("two unfinished releases in `{}`", state.plan.environment))?;
    }
    Ok(())
}

/// I7, backup before migration: nothing is applied to the live database before a checked backup of it was taken for this
/// release, and the migrations were rehearsed on what was restored from it.
pub fn backup_before_migration(state: &State) -> Result<(), Broken> {
    let migrates = state.touched(Step::Expand) || state.touched(Step::Contract);
    let ready = !migrates || (state.complete(Step::Backup) && state.complete(Step::Rehearse));
    ensure(ready, "I7", || {
        format!(
            "release `{}` migrated before a backup was checked and the migrations rehearsed",
            state.plan.release
        )
    })
}

/// I8, way back: once visitors may have moved, nothing that the old slot needs is touched, and the release
/// ends confirmed or with visitors moved back on every load balancer that no person has left out, and on one at least.
pub fn way_back(state: &State) -> Result<(), Broken> {
    let undone = matches!(state.phase, Phase::Finished(crate::Outcome::RolledBack))
        && !state.complete(Step::RouteBack);
    ensure(!undone, "I8", || {
        format!("release `{}` ended rolled back, but not everywhere", state.plan.release)
    })?;
    let nowhere = matches!(state.phase, Phase::Finished(crate::Outcome::RolledBack))
        && state.still_asked(Step::RouteBack).next().is_none();
    ensure(!nowhere, "I8", || {
        format!("release `{}` ended rolled back, and every load balancer was left out", state.plan.release)
    })?;
    let forgotten = matches!(state.phase, Phase::Finished(crate::Outcome::Aborted | crate::Outcome::Refused))
        && state.visitors_moved();
    ensure(!forgotten, "I8", || {
        format!("release `{}` moved visitors, and ended as if it had not", state.plan.release)
    })
}

/// I11, liveness: every phase has an exit. Only a held release, and one that waits for an answer (which is
/// bounded), may be without work of its own.
pub fn has_exit(state: &State, now: Timestamp) -> Result<(), Broken> {
    // How long it has waited already only brings an end nearer.
    let waits = matches!(next(state, now, 0), Next::Await(None));
    let may_wait = matches!(state.phase, Phase::Held { .. }) || state.open().next().is_some();
    ensure(!waits || may_wait, "I11", || format!("release `{}` waits for nothing", state.plan.release))
}

/// Every invariant of one release.
pub fn all(state: &State, now: Timestamp) -> Result<(), Broken> {
    gate_before_share(state)?;
    backup_before_migration(state)?;
    way_back(state)?;
    has_exit(state, now)
}
