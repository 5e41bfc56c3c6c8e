//! The visitors of a release that is over, watched on for as long as its plan says: some failures come late. Where they fare
//! too badly a release back begins, as a person would begin it. It needs no proof that all is well: nothing waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::verdict::Verdict;
use pointsman_core::{
    Judged, OnFail, Outcome, Problem, Purpose, ReleaseId, Ruling, State, Step, Timestamp, judging,
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
            Some((state, _)) => {
                let plan = Arc::clone(&state.plan);
                let beside = office.old_side().look_after(office.fleet(), &SystemClock, plan, Step::Switch);
                tokio::select! {
                    () = watch(&office, &state) => {}
                    never = beside => match never {},
                }
            }
            // Nobody is watched on before some release has ended.
            None if moves.changed().await.is_err() => return,
            None => {}
        }
    }
}

/// Until when the visitors of a release are watched on, if they are at all. One that was held to the old slot alone is not:
/// nobody visits that any more.
pub fn until(state: &State) -> Option<Timestamp> {
    let (plan, verdict) = (&state.plan, &state.plan.verdict);
    let deployed =
        state.outcome() == Some(Outcome::Confirmed) && matches!(plan.purpose, Purpose::Deploy { .. });
    let says = [verdict.on_errors, verdict.on_slowness].iter().any(|action| *action != OnFail::Warn);
    let wanted = deployed && verdict.acts() && plan.automatic_rollback && verdict.limits_count() && says;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use pointsman_core::{ArtifactDigest, Before, Epoch, Phase, Standing, Usual, VerdictMode};
    use pointsman_proto::v1;

    use crate::environment::Environment;
    use crate::planner::{self, Seen, Wanted, Wish};

    /// A release that is over, with a watch of an hour after it.
    fn confirmed(fix_forward: bool, usual: Option<(Usual, Usual)>) -> State {
        let text = r#"
            schema = 1
            environment = "production"
            url = "https://www.example.org"
            agents = { lb1 = "h:1", blue = "h:3", green = "h:4" }
            lb = { agents = ["lb1"] }
            maintenance = { backend = "be_maint" }
            watch = { after = "1h", verdict = "act" }
            [slots]
            blue = { backend = "be_blue", hosts = ["blue"] }
            green = { backend = "be_green", hosts = ["green"] }
        "#;
        let environment = Environment::parse(Path::new("production.toml"), text).unwrap();
        let facts = v1::BalancerFacts { route: "be_blue:be_blue:0:7".to_owned(), ..Default::default() };
        let seen = Seen {
            balancers: [("lb1".parse().unwrap(), facts)].into(),
            visitors: [("be_blue".parse().unwrap(), Before { usual, ..Before::default() })].into(),
            ..Seen::default()
        };
        let artifact = ArtifactDigest::from_bytes([1; 32]);
        let wish = Wish {
            wanted: Wanted::Deploy { artifact, at_once: false, fix_forward, migrations: None },
            release: ReleaseId::parse("r1").unwrap(),
            request_id: None,
            reason: None,
            by: "test".to_owned(),
            without: Vec::new(),
            now: Timestamp(1_000),
        };
        let plan = planner::plan(&environment, &Standing::default(), wish, &seen).unwrap();
        assert_eq!(plan.verdict.mode, VerdictMode::Act);
        let mut state = State::begin(plan, Epoch(1), Timestamp(1_000));
        state.phase = Phase::Finished(Outcome::Confirmed);
        state
    }

    #[test]
    fn a_mend_is_watched_on_where_it_is_known_what_it_must_keep_to() {
        let known = Some((Usual::default(), Usual::default()));
        let hour = Some(Timestamp(3_601_000));
        assert_eq!(until(&confirmed(false, None)), hour);
        assert_eq!(until(&confirmed(true, known)), hour);
        assert_eq!(until(&confirmed(true, None)), None);
    }
}
