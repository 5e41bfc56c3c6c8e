//! A release that is over, watched on for as long as its plan says: some failures come late. Where its visitors fare too badly, or
//! its gates fail in a row that would have turned it back, a release back begins, as a person would begin it. It needs no proof
//! that all is well: nothing waits for it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pointsman_chassis::SystemClock;
use pointsman_core::judging::{self, AfterEnd};
use pointsman_core::ports::{Clock as _, Ear, Signals};
use pointsman_core::verdict::Verdict;
use pointsman_core::{
    AFTER_ITS_END, BY_ITSELF, Judged, OnFail, Outcome, Problem, Purpose, ReleaseId, Ruling, State, Step,
    Timestamp, VerdictPlan, WatchProgress,
};
use tracing::info;

use crate::gates::{self, Counted};
use crate::office::{Office, WishOf};
use crate::visitors::Visitors;
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

/// Until when a release that is over is watched on, if it is at all: by its visitors, where these are `heard` and their judge acts,
/// and by the checks of its watch. One that was held to the old slot alone is not: nobody visits that any more.
pub fn until(state: &State, heard: bool) -> Option<Timestamp> {
    let (plan, verdict) = (&state.plan, &state.plan.verdict);
    let deployed =
        state.outcome() == Some(Outcome::Confirmed) && matches!(plan.purpose, Purpose::Deploy { .. });
    let watched = (heard && judges(verdict)) || plan.checks.iter().any(|check| check.after_switch);
    let wanted = deployed && plan.automatic_rollback && verdict.limits_count() && watched;
    (wanted && verdict.after_ms > 0).then(|| state.entered_at.plus_ms(verdict.after_ms))
}

/// Whether anything follows from what visitors meet.
pub fn judges(verdict: &VerdictPlan) -> bool {
    verdict.acts() && [verdict.on_errors, verdict.on_slowness].iter().any(|action| *action != OnFail::Warn)
}

/// Watches until it is over, another release begins, or this one goes back.
async fn watch(office: &Arc<Office>, state: &State) {
    let (plan, by_gates) = (Arc::clone(&state.plan), Mutex::new(AfterEnd::Well));
    tokio::select! {
        () = follow(office, state, &by_gates) => {}
        never = read_gates(office, state, &by_gates) => match never {},
        never = office.old_side().look_after(office.fleet(), &SystemClock, plan, Step::Switch) => match never {},
    }
}

/// Reads the gates, for ever, and leaves there what they come to.
async fn read_gates(office: &Office, state: &State, found: &Mutex<AfterEnd>) -> Infallible {
    let (mut row, counted) = (WatchProgress::default(), Counted::default());
    loop {
        SystemClock.pause(state.plan.watch.interval_ms).await;
        let ports = (office.fleet(), &SystemClock, office.old_side(), &counted);
        let (reading, _) = gates::read(ports, state, Step::Switch, row.is_shared()).await;
        let came_to = judging::gates_after_end(state, &mut row, &reading, SystemClock.now());
        *found.lock().unwrap_or_else(PoisonError::into_inner) = came_to;
    }
}

/// Does what follows from what visitors meet, and from what the gates come to.
async fn follow(office: &Arc<Office>, state: &State, by_gates: &Mutex<AfterEnd>) {
    let (plan, visitors) = (&state.plan, office.visitors());
    let mut watcher = None;
    if visitors.lookout().is_some() && judges(&plan.verdict) {
        watcher = Watcher::begin(visitors, &SystemClock, state).await;
    }
    let (release, environment) = (&plan.release, &plan.environment);
    info!(%release, for_ms = plan.verdict.after_ms, by_visitors = watcher.is_some(), "it is watched on");
    let (mut next_try, mut by_visitors) = (Instant::now(), AfterEnd::Well);
    let still = || office.watched_on().is_some_and(|(on, _)| on.plan.release == *release);
    while still() {
        // Whoever gives up this wait loses nothing.
        let heard = tokio::time::timeout(LOOK, hear(watcher.as_mut(), visitors, state)).await.is_ok();
        by_visitors = watcher.as_ref().and_then(|watcher| met(state, watcher, heard)).unwrap_or(by_visitors);
        let by_gates = by_gates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let in_sight = watcher.as_ref().filter(|watcher| watcher.sees(SystemClock.now()));
        let seen_now = in_sight.map(Watcher::judgement);
        match judging::both_after_end(state, &by_visitors, by_gates, seen_now) {
            // It is watched on meanwhile: it may fare well again before there is a way back.
            AfterEnd::Back(_) if Instant::now() < next_try => {}
            AfterEnd::Back(problem) => {
                let closed = turn_back(office, release, &problem.message).await.err();
                let found = closed.map(|kept_by| judging::kept_after_end(&problem, &kept_by, environment));
                office.found_after_end(release, found);
                next_try = Instant::now() + AGAIN;
            }
            AfterEnd::Told(problem) => office.found_after_end(release, Some(problem)),
            AfterEnd::Well => office.found_after_end(release, None),
        }
    }
    office.found_after_end(release, None);
    info!(%release, at = SystemClock.now().0, "it is not watched on any more");
}

/// Hears visitors; where there is no judge of them, only time passes.
async fn hear<E: Ear>(watcher: Option<&mut Watcher<E>>, visitors: &Visitors, state: &State)
where
    Visitors: Signals<Ear = E>,
{
    match watcher {
        Some(watcher) => watcher.hear(visitors, &SystemClock, state).await,
        None => std::future::pending().await,
    }
}

/// What visitors come to; none where what was said before stands, and there is nothing new.
fn met<E: Ear>(state: &State, watcher: &Watcher<E>, heard: bool) -> Option<AfterEnd> {
    let (plan, judgement) = (&state.plan, watcher.judgement());
    let judged = || Judged::of(plan, judgement);
    Some(match Ruling::of(plan, judgement).verdict {
        Verdict::Rollback | Verdict::Hold if !heard => return None,
        Verdict::Rollback => AfterEnd::Back(judging::after_end(state, &judged())),
        Verdict::Hold => AfterEnd::Told(judging::after_end(state, &judged())),
        Verdict::Promote | Verdict::Inconclusive | Verdict::Undecided => {
            match watcher.unseen(SystemClock.now(), BLIND_MS) {
                Some(unseen) => {
                    AfterEnd::Told(unseen.hint(format!("`pointsman doctor {}`", plan.environment)))
                }
                None => AfterEnd::Well,
            }
        }
    })
}

async fn turn_back(office: &Office, release: &ReleaseId, told: &str) -> Result<ReleaseId, Problem> {
    let wish = WishOf {
        request_id: None,
        reason: Some(format!("{AFTER_ITS_END}{told}")),
        by: BY_ITSELF.to_owned(),
        without: Vec::new(),
    };
    let back = office.roll_back(wish, Some(release), Some(told)).await?;
    info!(%release, %back, told, "it fares too badly: back");
    Ok(back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{ArtifactDigest, Before, Epoch, Phase, Standing, Usual, VerdictMode};

    use crate::fixture;
    use crate::planner::{self, Seen, Wanted};

    /// A release that is over, with a watch of an hour after it.
    fn confirmed(fix_forward: bool, usual: Option<(Usual, Usual)>) -> State {
        let environment = fixture::environment(&["lb1"], "[watch]\nafter = \"1h\"\nverdict = \"act\"");
        let before = Before { usual, ..Before::default() };
        let visitors = [("be_blue".parse().unwrap(), before)].into();
        let seen = Seen { visitors, ..fixture::seen(&environment) };
        let artifact = ArtifactDigest::from_bytes([1; 32]);
        let wanted = Wanted::Deploy { artifact, at_once: false, fix_forward, migrations: None };
        let wish = fixture::wish(wanted, "r1");
        let plan = planner::plan(&environment, &Standing::default(), wish, &seen).unwrap();
        assert_eq!(plan.verdict.mode, VerdictMode::Act);
        let mut state = State::begin(plan, Epoch(1), fixture::PLANNED_AT);
        state.phase = Phase::Finished(Outcome::Confirmed);
        state
    }

    #[test]
    fn a_mend_is_watched_on_where_it_is_known_what_it_must_keep_to() {
        let known = Some((Usual::default(), Usual::default()));
        let hour = Some(Timestamp(3_601_000));
        assert_eq!(until(&confirmed(false, None), true), hour);
        assert_eq!(until(&confirmed(true, known), true), hour);
        assert_eq!(until(&confirmed(true, None), true), None);
    }
}
