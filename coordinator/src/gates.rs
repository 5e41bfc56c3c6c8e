//! One reading of the gates: what the plan's checks say of the slot that visitors were brought to, and where they fail, what the
//! slot says that visitors came from. It decides nothing.

use futures_util::future::join_all;
use pointsman_core::machine;
use pointsman_core::ports::{Clock, Fleet};
use pointsman_core::{Action, CheckSeen, Code, HostName, Problem, Reading, State, Step};

use crate::noted;
use crate::old_side::{self, OldSide};

/// Whether a host that cannot be asked says nothing: it makes no checks, and is asked only whether it holds the release still.
/// One of many that is restarted is no reason to wait; whether its server answers, load balancers say.
fn may_be_silent(action: &Action, problem: &Problem) -> bool {
    matches!(action, Action::ProbeHost { checks, .. } if checks.is_empty()) && problem.code != Code::NotHeld
}

/// What was seen of each check, and where.
pub type Seen = Vec<(HostName, Vec<CheckSeen>)>;

/// Reads the gates of the watch after a step. `in_row` says that the old slot failed, too, in the row of failures so far.
pub async fn read(
    (fleet, clock, old_side): (&impl Fleet, &impl Clock, &OldSide),
    state: &State,
    after: Step,
    in_row: bool,
) -> (Reading, Seen) {
    let (plan, began) = (&state.plan, clock.now());
    let (timeout_ms, gates) = (plan.reading_ms(), plan.gates(after));
    let asked = gates.iter().map(|(host, action)| async move {
        let mut observed = fleet.observe(host, action, timeout_ms).await;
        let seen = (host.clone(), noted::taken(&mut observed));
        let reading = observed.map(drop).map_err(|problem| problem.on(host));
        (reading.or_else(|problem| if may_be_silent(action, &problem) { Ok(()) } else { Err(problem) }), seen)
    });
    let (readings, seen): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
    let by_checks = machine::checks_alone_fail(&readings);
    let problem = match machine::timely(state, began, clock.now(), machine::join_readings(readings)) {
        Reading::Fail(problem) if by_checks => problem,
        reading => return (reading, seen),
    };
    // What fails on the old slot, too, is no fault of the new one.
    let (compared_at, failed) = (clock.now(), old_side::failed_in(plan, &seen));
    let said = old_side.fails_too(fleet, clock, (plan, after, in_row), &failed).await;
    let reading = match said.is_empty() {
        true => Reading::Fail(problem),
        false => Reading::Shared(said.iter().fold(problem, Problem::cause)),
    };
    (machine::timely_compared(state, compared_at, clock.now(), reading), seen)
}
