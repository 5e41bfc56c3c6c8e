//! The visitors of a release that is over, watched on for as long as its plan says: some failures come late. Where they fare
//! too badly a release back begins, as a person would begin it. It needs no proof that all is well: nothing waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::verdict::Verdict;
use pointsman_core::{
    Judged, OnFail, Outcome, Problem, Purpose, ReleaseId, Ruling, State, Timestamp, judging,
};
use tracing::info;

use crate::office::{Office, WishOf};
use crate::watcher::Watcher;

/// How often it is looked whether the time is over, where nothing else tells.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before a release back is tried again: it could not begin, or was refused.
const AGAIN: Duration = Duration::from_secs(10);

/// Visitors who are out of sight for longer than this are told of: a reload takes 10 s. Nothing else follows, as nothing waits.
const BLIND_MS: u64 = 15_000;

/// Watches on after every release of an environment, for ever.
pub async fn afterwatch(office: Arc<Office>) {
    let mut moves = office.moves();
    loop {
        moves.mark_unchanged();
        match office.watched_on() {
            Some((state, _)) => watch(&office, &state).await,
            // Nobody is watched on before some release has ended.
            None if moves.changed().await.is_err() => return,
            None => {}
        }
    }
}

/// Until when the visitors of a release are watched on, if they are at all. One that mends a site which is over its limits
/// is not: it was held against the old slot, which nobody visits any more.
pub fn until(state: &State) -> Option<Timestamp> {
    let (plan, verdict) = (&state.plan, &state.plan.verdict);
    let deployed =
        state.outcome() == Some(Outcome::Confirmed) && matches!(plan.purpose, Purpose::Deploy { .. });
    let says = [verdict.on_errors, verdict.on_slowness].iter().any(|action| *action != OnFail::Warn);
    let wanted = deployed && verdict.acts() && plan.automatic_rollback && !verdict.fix_forward && says;
    (wanted && verdict.after_ms > 0).then(|| state.entered_at.plus_ms(verdict.after_ms))
}

/// Watches until it is over, another release begins, or this one goes back.
async fn watch(office: &Arc<Office>, state: &State) {
    let (plan, visitors) = (&state.plan, office.visitors());
    let Some(mut watcher) = Watcher::begin(visitors, &SystemClock, state).await else {
        // This plan's visitors cannot be judged, and nothing would tell when: only another release ends that.
        return tokio::time::sleep(AGAIN).await;
    };
    info!(release = %plan.release, for_ms = plan.verdict.after_ms, "visitors are watched on");
    let mut next_try = Instant::now();
    let still = || office.watched_on().is_some_and(|(on, _)| on.plan.release == plan.release);
    while still() {
        // Whoever gives up this wait loses nothing.
        let heard = tokio::time::timeout(LOOK, watcher.hear(visitors, &SystemClock, state)).await.is_ok();
        let (judgement, release) = (watcher.judgement(), &plan.release);
        let verdict = Ruling::of(plan, judgement).verdict;
        let judged = || Judged::of(plan, judgement);
        match verdict {
            // The visitors are heard on meanwhile: they may fare well again before there is a way back.
            // It stands, and there is nothing new.
            Verdict::Rollback | Verdict::Hold if !heard => {}
            Verdict::Rollback if Instant::now() < next_try => {}
            Verdict::Rollback => {
                let closed = turn_back(office, release, &judged().told).await.err();
                let found = closed.map(|problem| judging::after_end(state, &judged(), Some(&problem)));
                office.found_after_end(release, found);
                next_try = Instant::now() + AGAIN;
            }
            Verdict::Hold => {
                office.found_after_end(release, Some(judging::after_end(state, &judged(), None)))
            }
            Verdict::Promote | Verdict::Inconclusive | Verdict::Undecided => {
                let unseen = watcher.unseen(SystemClock.now(), BLIND_MS);
                let environment = &plan.environment;
                let unseen = unseen.map(|problem| problem.hint(format!("`pointsman doctor {environment}`")));
                office.found_after_end(release, unseen);
            }
        }
    }
    office.found_after_end(&plan.release, None);
    info!(release = %plan.release, at = SystemClock.now().0, "visitors are not watched on any more");
}

async fn turn_back(office: &Office, release: &ReleaseId, told: &str) -> Result<ReleaseId, Problem> {
    let wish = WishOf {
        request_id: None,
        reason: Some(format!("after its end: {told}")),
        by: "pointsman".to_owned(),
        without: Vec::new(),
    };
    let back = office.roll_back(wish, Some(release)).await?;
    info!(%release, %back, told, "visitors fare too badly: back");
    Ok(back)
}
