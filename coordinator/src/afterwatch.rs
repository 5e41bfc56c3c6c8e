//! The visitors of a release that is over, watched on for as long as its plan says: some failures come late. Where they fare
//! too badly a release back begins, as a person would begin it. It needs no proof that all is well: nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::verdict::Verdict;
use pointsman_core::{Judged, Outcome, Purpose, Ruling, State, Timestamp};
use tracing::{error, info};

use crate::office::{Office, WishOf};
use crate::planner::Wanted;
use crate::watcher::Watcher;

/// How often it is looked whether a release is over, or another has begun, where nothing else tells.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before a release back is tried again: it could not begin, or was refused.
const AGAIN: Duration = Duration::from_secs(10);

/// Watches on after every release of an environment, for ever.
pub async fn afterwatch(office: Arc<Office>) {
    loop {
        match office.watched_on() {
            Some((state, _)) => watch(&office, &state).await,
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Until when the visitors of a release are watched on, if they are at all.
pub fn until(state: &State) -> Option<Timestamp> {
    let plan = &state.plan;
    let deployed =
        state.outcome() == Some(Outcome::Confirmed) && matches!(plan.purpose, Purpose::Deploy { .. });
    let wanted = deployed && plan.verdict.acts() && plan.automatic_rollback && plan.verdict.after_ms > 0;
    wanted.then(|| state.entered_at.plus_ms(plan.verdict.after_ms))
}

/// Watches until it is over, another release begins, or this one goes back.
async fn watch(office: &Arc<Office>, state: &State) {
    let (plan, visitors) = (&state.plan, office.visitors());
    let Some(mut watcher) = Watcher::begin(visitors, &SystemClock, state).await else {
        return tokio::time::sleep(LOOK).await;
    };
    info!(release = %plan.release, for_ms = plan.verdict.after_ms, "visitors are watched on");
    let still = || office.watched_on().is_some_and(|(on, _)| on.plan.release == plan.release);
    while still() {
        // Whoever gives up this wait loses nothing.
        if tokio::time::timeout(LOOK, watcher.hear(visitors, &SystemClock, plan)).await.is_err() {
            continue;
        }
        let judgement = watcher.judgement();
        if Ruling::of(plan, judgement).verdict != Verdict::Rollback {
            continue;
        }
        let judged = Judged::of(plan, judgement);
        match turn_back(office, &judged.told).await {
            Ok(back) => {
                info!(release = %plan.release, %back, told = judged.told, "visitors fare too badly: back");
            }
            Err(problem) => {
                error!(release = %plan.release, %problem, causes = ?problem.causes, told = judged.told, "visitors fare too badly, and the way back is closed");
            }
        }
        // Once it is under way nobody is watched on, and that is seen then.
        tokio::time::sleep(AGAIN).await;
    }
    info!(release = %plan.release, at = SystemClock.now().0, "visitors are not watched on any more");
}

async fn turn_back(
    office: &Office,
    told: &str,
) -> Result<pointsman_core::ReleaseId, pointsman_core::Problem> {
    let wish = WishOf {
        request_id: None,
        reason: Some(format!("after its end: {told}")),
        by: "pointsman".to_owned(),
    };
    let plan = office.plan(Wanted::Rollback, None, wish).await?;
    office.begin(plan).await
}
