//! One reading of the gates: what the plan's checks say of the slot that visitors were brought to, and where they fail, what the
//! slot says that visitors came from. It decides nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use pointsman_core::machine;
use pointsman_core::ports::{Clock, Fleet};
use pointsman_core::{
    Action, CheckName, CheckSeen, Code, HostName, Plan, Problem, Reading, State, Step, Timestamp,
};

use crate::noted;
use crate::old_side::{self, OldSide};

/// Whether a host that cannot be asked says nothing: it makes no checks, and is asked only whether it holds the release still.
/// One of many that is restarted is no reason to wait; whether its server answers, load balancers say.
fn may_be_silent(action: &Action, problem: &Problem) -> bool {
    matches!(action, Action::ProbeHost { checks, .. } if checks.is_empty()) && problem.code != Code::NotHeld
}

/// What was seen of each check, and where.
pub type Seen = Vec<(HostName, Vec<CheckSeen>)>;

/// By whose word a failure of what others measure was counted last, and when. Each load balancer asks for it by itself and
/// remembers what it was told: without this the same number would count once for each of them.
#[derive(Debug, Default)]
pub struct Counted(Mutex<BTreeMap<CheckName, (HostName, Timestamp)>>);

impl Counted {
    /// Those of the failures that count: not those that were counted already by another's word, and cannot have been measured anew
    /// since.
    fn anew<'f>(
        &self,
        plan: &Plan,
        fails_now: &[(&'f HostName, &'f CheckName)],
        now: Timestamp,
    ) -> Vec<(&'f HostName, &'f CheckName)> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |(host, name): &&(&HostName, &CheckName)| {
            let check = plan.checks.iter().find(|check| check.name == **name);
            let same_ms =
                check.and_then(pointsman_checks::parsed_alone).map_or(0, |spec| spec.same_failure_ms());
            let by_another = counted
                .get(*name)
                .is_some_and(|(by, at)| by != *host && *at <= now && now.ms_since(*at) < same_ms);
            !by_another
        };
        fails_now.iter().filter(counts).copied().collect()
    }

    /// Notes that these were counted then.
    fn count(&self, failures: &[(&HostName, &CheckName)], at: Timestamp) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of several who see it in one reading the first has counted it.
        let each = failures.iter().rev();
        counted.extend(each.map(|(host, name)| ((*name).clone(), ((*host).clone(), at))));
    }
}

/// What fails now by the word of those who see it now, not only remember it.
fn fails_now<'s>(
    plan: &Plan,
    readings: &[Result<(), Problem>],
    seen: &'s Seen,
) -> Vec<(&'s HostName, &'s CheckName)> {
    let now = readings
        .iter()
        .zip(seen)
        .filter(|(reading, _)| reading.as_ref().is_err_and(|problem| !machine::is_remembered(problem)));
    now.flat_map(|(_, (host, seen))| old_side::failed_of(plan, seen).map(move |name| (host, name))).collect()
}

/// Reads the gates of the watch after a step. `in_row` says that the old slot failed, too, in the row of failures so far.
pub async fn read(
    (fleet, clock, old_side, counted): (&impl Fleet, &impl Clock, &OldSide, &Counted),
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
    let fails_now = fails_now(plan, &readings, &seen);
    let problem = match machine::timely(state, began, clock.now(), machine::join_readings(readings)) {
        Reading::Fail(problem) if by_checks => problem,
        reading => return (reading, seen),
    };
    let anew = counted.anew(plan, &fails_now, clock.now());
    if anew.is_empty() && !fails_now.is_empty() {
        return (Reading::Fail(problem.retry_useful()), seen);
    }
    // What fails on the old slot, too, is no fault of the new one.
    let (compared_at, failed) = (clock.now(), old_side::failed_in(plan, &seen));
    let said = old_side.fails_too(fleet, clock, (plan, after, in_row), &failed).await;
    // Not before: a reading that was cut short has told nobody.
    counted.count(&anew, compared_at);
    let reading = match said.is_empty() {
        true => Reading::Fail(problem),
        false => Reading::Shared(said.iter().fold(problem, Problem::cause)),
    };
    (machine::timely_compared(state, compared_at, clock.now(), reading), seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    use pointsman_core::{Epoch, Phase};

    use crate::fixture::{self, Agents, Hand};

    const CHECKS: &str = r#"
        [[checks]]
        name = "errors"
        phase = ["after-switch"]
        metric = { url = "http://m:9090", query = "sum(up)", min = 1 }
        [[checks]]
        name = "page"
        phase = ["after-switch"]
        http = { path = "/" }
    "#;

    struct Rig {
        agents: Agents,
        clock: Hand,
        old_side: OldSide,
        counted: Counted,
        state: State,
    }

    impl Rig {
        fn new() -> Self {
            let plan = fixture::plan(&fixture::environment(&["lb1", "lb2"], CHECKS), "r1");
            let mut state = State::begin(plan, Epoch(1), fixture::PLANNED_AT);
            state.phase = Phase::Watching { after: Step::Switch, until: Timestamp(u64::MAX) };
            let (agents, clock) = (Agents::default(), Hand::at(1_000_000));
            Self { agents, clock, old_side: OldSide::default(), counted: Counted::default(), state }
        }

        /// One reading, in which these load balancers have asked anew, a number that fails, and the others remember that. Whether
        /// it counts.
        async fn counts(&self, after_ms: u64, anew: &[&'static str]) -> bool {
            self.clock.later(after_ms);
            self.agents.fail(&["errors"]);
            let old = ["lb1", "lb2"].into_iter().filter(|host| !anew.contains(host));
            *self.agents.remembers.lock().unwrap() = old.collect();
            self.reading().await
        }

        async fn reading(&self) -> bool {
            let ports = (&self.agents, &self.clock, &self.old_side, &self.counted);
            match read(ports, &self.state, Step::Switch, false).await.0 {
                Reading::Fail(problem) => !machine::is_remembered(&problem),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn one_number_counts_once_however_many_load_balancers_ask_for_it() {
        let rig = Rig::new();
        assert!(rig.counts(0, &["lb1", "lb2"]).await);
        assert!(!rig.counts(1_000, &[]).await);
        // It is 15 s until it is measured anew; one load balancer asks a moment later than the other.
        assert!(rig.counts(14_000, &["lb1"]).await);
        assert!(!rig.counts(1_000, &["lb2"]).await);
        assert!(rig.counts(14_000, &["lb1"]).await);
        assert!(!rig.counts(1_000, &["lb2"]).await);
        // Whoever counted it last may be gone: then the other one's word counts.
        assert!(rig.counts(15_000, &["lb2"]).await);
        assert!(!rig.counts(2_000, &["lb1"]).await);
        // What the slot answers counts each time, whoever asks, also beside a number that does not.
        assert!(rig.counts(13_000, &["lb2"]).await);
        rig.agents.fail(&["errors", "page"]);
        *rig.agents.remembers.lock().unwrap() = ["lb2"].into();
        assert!(rig.reading().await);
        assert!(rig.reading().await);
    }

    /// A verdict, or a person, may end a reading while the old slot is asked: it has told nobody, and whoever sees the same next
    /// counts it.
    #[tokio::test]
    async fn a_reading_that_is_cut_short_has_counted_nothing() {
        let rig = Rig::new();
        // What the slot answers is asked of the old one, too; the number is not.
        rig.agents.fail(&["errors", "page"]);
        {
            let ports = (&rig.agents, &rig.clock, &rig.old_side, &rig.counted);
            let mut cut = std::pin::pin!(read(ports, &rig.state, Step::Switch, true));
            // Each agent lets others go first once: then both have answered, and the old slot is asked.
            for _ in 0..2 {
                let is_done =
                    std::future::poll_fn(|context| Poll::Ready(cut.as_mut().poll(context).is_ready())).await;
                assert!(!is_done);
            }
        }
        assert!(rig.agents.asked.lock().unwrap().len() > 2, "the old slot was not asked");
        assert!(rig.counts(1_000, &["lb2"]).await);
    }
}
