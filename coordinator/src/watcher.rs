//! Hears the visitors of one release, second by second, and has them judged. What it knows is put away with every second,
//! so that a coordinator that starts anew goes on where the last one was. It decides nothing about the release.

use pointsman_core::ports::{Clock, Ear, Heard, Signals};
use pointsman_core::verdict::{Judge, Judgement, NotRestored, Params};
use pointsman_core::{Code, Plan, Problem, Reading, State, Timestamp, VerdictMode};
use tracing::{info, warn};

/// Without a second that tells everything for so long the visitors are out of sight: one that is late, or lost, is no
/// news. A load balancer that is late is waited for 1.5 s.
const STALE_MS: u64 = 5_000;

/// The form in which a judge is put away.
const FORM: u8 = 1;
/// Bytes before those of the judge: form, number of the judge, and the release's fingerprint.
const HEAD: usize = 1 + 4 + 32;

/// Who watches the visitors of one release.
pub struct Watcher<E> {
    judge: Judge,
    /// Which judge of the release this is.
    number: u32,
    ear: E,
    /// When a second came last that tells everything.
    seen_at: Timestamp,
    /// Why none has come since, as far as that is known.
    problem: Option<Problem>,
    /// What was heard, and not yet put away.
    fresh: Option<Heard>,
    judgement: Judgement,
}

/// The fingerprint of a release, so that nobody takes up the judge of another one.
fn fingerprint(plan: &Plan) -> [u8; 32] {
    let text = format!("{}\n{}\n{}", plan.environment, plan.release, plan.created_at.0);
    *blake3::hash(text.as_bytes()).as_bytes()
}

fn put_away(plan: &Plan, number: u32, judge: &Judge) -> Vec<u8> {
    let mut bytes = vec![FORM];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&fingerprint(plan));
    bytes.extend_from_slice(&judge.to_bytes());
    bytes
}

/// What came of looking for a judge that was put away.
#[derive(Debug, PartialEq)]
enum Found {
    /// It goes on.
    Judge(Box<Judge>),
    /// It was of another release, or a person has let the watch begin anew since.
    Other,
    /// It cannot be read.
    Damaged(NotRestored),
}

fn take_up(plan: &Plan, number: u32, params: Params, bytes: &[u8]) -> Found {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Found::Damaged(NotRestored::Damaged);
    };
    let mut expected = vec![FORM];
    expected.extend_from_slice(&number.to_le_bytes());
    expected.extend_from_slice(&fingerprint(plan));
    if head != expected.as_slice() {
        return Found::Other;
    }
    match Judge::from_bytes(params, rest) {
        Ok(judge) => Found::Judge(Box::new(judge)),
        Err(error) => Found::Damaged(error),
    }
}

impl<E: Ear> Watcher<E> {
    /// Begins to watch the visitors of a release, or goes on where another coordinator was. None where nobody is to.
    pub async fn begin<S: Signals<Ear = E>>(signals: &S, clock: &impl Clock, state: &State) -> Option<Self> {
        let plan = &*state.plan;
        if plan.verdict.mode == VerdictMode::Off {
            return None;
        }
        let params = match plan.verdict.params(plan.watched_ms()) {
            Ok(params) => params,
            Err(error) => {
                warn!(release = %plan.release, %error, "visitors cannot be judged by this plan");
                return None;
            }
        };
        let ear = signals.listen(plan);
        let number = state.verdict.judge;
        let found = signals.kept(plan).await.map(|bytes| take_up(plan, number, params, &bytes));
        let judge = match found {
            Some(Found::Judge(judge)) => {
                info!(release = %plan.release, tick = judge.last_tick(), "the visitors' judge goes on");
                *judge
            }
            Some(Found::Damaged(error)) => {
                warn!(release = %plan.release, %error, "what was known of the visitors is lost: their judge begins anew");
                Judge::new(params)
            }
            Some(Found::Other) | None => Judge::new(params),
        };
        let judgement = judge.look();
        Some(Self { judge, number, ear, seen_at: clock.now(), problem: None, fresh: None, judgement })
    }

    /// Whether this is still the judge of the release.
    pub fn serves(&self, state: &State) -> bool {
        self.number == state.verdict.judge
    }

    /// What is known of the visitors.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Hears one more second, has it judged, and puts away what is known: then it may be acted on. Whoever gives up the
    /// wait for it loses nothing.
    pub async fn hear<S: Signals<Ear = E>>(&mut self, signals: &S, clock: &impl Clock, state: &State) {
        let plan = &state.plan;
        if self.fresh.is_none() {
            let heard = self.ear.next().await;
            self.judgement = self.take(&heard, clock.now(), state);
            self.fresh = Some(heard);
        }
        if let Err(problem) = signals.keep(plan, put_away(plan, self.number, &self.judge)).await {
            warn!(release = %plan.release, problem = %problem.in_full(), "what is known of the visitors is not put away");
        }
        if let Some(heard) = self.fresh.take() {
            signals.show(plan, &self.judgement, &heard);
        }
    }

    fn take(&mut self, heard: &Heard, now: Timestamp, state: &State) -> Judgement {
        match heard {
            Heard::Second(second) if second.blind.is_none() => {
                let tick = state.plan.judged_tick(second.number, &second.seen, state.visitors_since());
                let judgement = self.judge.step(&tick);
                match judgement.refused {
                    None => (self.seen_at, self.problem) = (now, None),
                    // It is no data, whatever it says.
                    Some(refused) => {
                        self.problem = Some(Problem::new(Code::SignalsMissing, refused.to_string()));
                    }
                }
                judgement
            }
            // What some visitors met is not known: nothing is made of what the others did.
            Heard::Second(second) => {
                self.problem.clone_from(&second.blind);
                self.judge.look()
            }
            Heard::Silence(problem) => {
                self.problem = Some(problem.clone());
                self.judge.look()
            }
        }
    }

    /// Joins what the gates said with whether the visitors are in sight. A failing gate outweighs everything; visitors out
    /// of sight outweigh gates that are green.
    pub fn join(&self, gates: Reading, now: Timestamp, plan: &Plan) -> Reading {
        let unseen = || self.unseen(now, STALE_MS).filter(|_| plan.verdict.acts());
        match gates {
            Reading::Pass => unseen().map_or(Reading::Pass, |problem| {
                let environment = &plan.environment;
                Reading::Unknown(problem.hint(format!(
                    "`pointsman doctor {environment}`; without signals: `pointsman resume {environment}`, then `pointsman promote {environment}`"
                )))
            }),
            gates => gates,
        }
    }

    /// Why the visitors have been out of sight for longer than this, if they have.
    pub fn unseen(&self, now: Timestamp, for_ms: u64) -> Option<Problem> {
        if now >= self.seen_at && now.ms_since(self.seen_at) <= for_ms {
            return None;
        }
        let problem = Problem::new(Code::WatchBlind, "what visitors meet cannot be seen").retry_useful();
        Some(match &self.problem {
            Some(why) => problem.cause(why.to_string()),
            None => problem.cause(format!("no signals for {} s", for_ms / 1_000)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use pointsman_core::ports::Second;
    use pointsman_core::signal::{Cell, CellKey, Coverage, OWN_CHECKS, Tick};
    use pointsman_core::verdict::Verdict;
    use pointsman_core::{
        ArtifactDigest, Epoch, ReleaseId, RouteClass, RouteEpoch, Standing, judging, machine,
    };
    use pointsman_proto::v1;
    use tokio::sync::mpsc;

    use crate::environment::Environment;
    use crate::planner::{self, Seen, Wanted, Wish};

    /// A clock that is set by hand.
    struct Hand(Mutex<u64>);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(*self.0.lock().unwrap())
        }

        async fn pause(&self, _: u64) {}
    }

    /// Seconds that are told by hand, and a disk.
    #[derive(Default)]
    struct Fake {
        kept: Mutex<Option<Vec<u8>>>,
        told: Mutex<Option<mpsc::UnboundedReceiver<Heard>>>,
    }

    struct FakeEar(mpsc::UnboundedReceiver<Heard>);

    impl Ear for FakeEar {
        async fn next(&mut self) -> Heard {
            match self.0.recv().await {
                Some(heard) => heard,
                None => std::future::pending().await,
            }
        }
    }

    impl Signals for Fake {
        type Ear = FakeEar;

        fn listen(&self, _: &Plan) -> FakeEar {
            FakeEar(self.told.lock().unwrap().take().unwrap())
        }

        async fn kept(&self, _: &Plan) -> Option<Vec<u8>> {
            self.kept.lock().unwrap().clone()
        }

        async fn keep(&self, _: &Plan, bytes: Vec<u8>) -> Result<(), Problem> {
            *self.kept.lock().unwrap() = Some(bytes);
            Ok(())
        }

        fn show(&self, _: &Arc<Plan>, _: &Judgement, _: &Heard) {}
    }

    fn state(release: &str) -> State {
        let text = r#"
            schema = 1
            environment = "production"
            url = "https://www.example.org"
            agents = { lb1 = "h:1", blue = "h:3", green = "h:4" }
            lb = { agents = ["lb1"] }
            maintenance = { backend = "be_maint" }
            [slots]
            blue = { backend = "be_blue", hosts = ["blue"] }
            green = { backend = "be_green", hosts = ["green"] }
        "#;
        let environment = Environment::parse(Path::new("production.toml"), text).unwrap();
        let facts = v1::BalancerFacts {
            route: "be_blue:be_blue:0:7".to_owned(),
            highest_epoch: 7,
            ..Default::default()
        };
        let seen = Seen { balancers: [("lb1".parse().unwrap(), facts)].into(), ..Seen::default() };
        let wish = Wish {
            wanted: Wanted::Deploy {
                artifact: ArtifactDigest::from_bytes([1; 32]),
                at_once: false,
                fix_forward: false,
                migrations: None,
            },
            release: ReleaseId::parse(release).unwrap(),
            request_id: None,
            reason: None,
            by: "test".to_owned(),
            without: Vec::new(),
            now: Timestamp(1_000),
        };
        let plan = planner::plan(&environment, &Standing::default(), wish, &seen).unwrap();
        assert_eq!(plan.verdict.mode, VerdictMode::Act);
        State::begin(plan, Epoch(1), Timestamp(1_000))
    }

    /// Visitors on both slots; beside them the release's own checks and what the slot answered before, which fail.
    fn second(number: u64, failures: u64) -> Heard {
        let key = |backend: &str, epoch, class: &str| CellKey {
            backend: backend.parse().unwrap(),
            epoch: RouteEpoch(epoch),
            class: RouteClass::parse(class).unwrap(),
        };
        let cell = |requests, failures| Cell { requests, failures, ..Cell::default() };
        let seen = Tick {
            cells: [
                (key("be_green", 9, "other"), cell(100, failures)),
                (key("be_green", 9, OWN_CHECKS), cell(50, 50)),
                (key("be_green", 5, "other"), cell(50, 50)),
                (key("be_blue", 9, "other"), cell(100, 0)),
            ]
            .into(),
            coverage: Some(Coverage { seen: 1, expected: 1 }),
            ..Tick::default()
        };
        Heard::Second(Second { number, seen: Arc::new(seen), blind: None })
    }

    struct Rig {
        fake: Fake,
        clock: Hand,
        tell: mpsc::UnboundedSender<Heard>,
    }

    impl Rig {
        fn new(kept: Option<Vec<u8>>) -> Self {
            let (tell, told) = mpsc::unbounded_channel();
            let fake = Fake { kept: Mutex::new(kept), told: Mutex::new(Some(told)) };
            Self { fake, clock: Hand(Mutex::new(1_000_000)), tell }
        }

        async fn watcher(&self, state: &State) -> Watcher<FakeEar> {
            Watcher::begin(&self.fake, &self.clock, state).await.unwrap()
        }

        async fn hear(&self, watcher: &mut Watcher<FakeEar>, state: &State, heard: Heard) -> Judgement {
            self.tell.send(heard).unwrap();
            watcher.hear(&self.fake, &self.clock, state).await;
            *watcher.judgement()
        }

        fn later(&self, ms: u64) -> Timestamp {
            *self.clock.0.lock().unwrap() += ms;
            self.clock.now()
        }
    }

    #[tokio::test]
    async fn what_is_not_of_this_release_does_not_count() {
        let (rig, state) = (Rig::new(None), state("r1"));
        let mut watcher = rig.watcher(&state).await;
        let judgement = rig.hear(&mut watcher, &state, second(1, 20)).await;
        let (new, old) = judgement.errors.limit;
        assert_eq!(((new.bad, new.requests), (old.bad, old.requests)), ((20, 100), (0, 100)));
    }

    #[tokio::test]
    async fn another_coordinator_goes_on_and_another_release_does_not() {
        let (rig, same) = (Rig::new(None), state("r1"));
        let mut watcher = rig.watcher(&same).await;
        let mut seconds = 0;
        for number in 1..=3 {
            seconds = rig.hear(&mut watcher, &same, second(number, 20)).await.watched;
        }
        assert_eq!(seconds, 3);
        let kept = rig.fake.kept.lock().unwrap().clone().unwrap();

        let rig = Rig::new(Some(kept.clone()));
        let mut watcher = rig.watcher(&same).await;
        // A second that was judged before is not judged again.
        assert!(rig.hear(&mut watcher, &same, second(3, 20)).await.refused.is_some());
        assert_eq!(rig.hear(&mut watcher, &same, second(4, 20)).await.watched, 4);

        let mut resumed = same.clone();
        resumed.verdict.judge = 1;
        let mut torn = kept.clone();
        torn.truncate(1_000);
        for (state, kept) in [(state("r2"), kept.clone()), (resumed, kept), (same, torn)] {
            let watcher = Rig::new(Some(kept)).watcher(&state).await;
            assert_eq!(watcher.judgement().watched, 0);
        }
    }

    #[tokio::test]
    async fn out_of_sight_is_not_well() {
        let (rig, state) = (Rig::new(None), state("r1"));
        let mut watcher = rig.watcher(&state).await;
        rig.hear(&mut watcher, &state, second(1, 0)).await;
        let well = |watcher: &Watcher<FakeEar>, now| watcher.join(Reading::Pass, now, &state.plan);
        assert_eq!(well(&watcher, rig.later(STALE_MS)), Reading::Pass);
        assert!(matches!(well(&watcher, rig.later(1)), Reading::Unknown(_)));
        // A second that lacks something brings nobody back in sight, and neither does one that was told before.
        let Heard::Second(whole) = second(2, 0) else { panic!("a second") };
        let blind = Second { blind: Some(Problem::new(Code::SignalsMissing, "lines are missing")), ..whole };
        let judgement = rig.hear(&mut watcher, &state, Heard::Second(blind)).await;
        assert_eq!(judgement.watched, 1);
        match well(&watcher, rig.clock.now()) {
            Reading::Unknown(problem) => assert_eq!(problem.causes, ["lines are missing"]),
            reading => panic!("{reading:?}"),
        }
        rig.hear(&mut watcher, &state, second(1, 0)).await;
        assert!(matches!(well(&watcher, rig.clock.now()), Reading::Unknown(_)));
        rig.hear(&mut watcher, &state, second(3, 0)).await;
        assert_eq!(well(&watcher, rig.clock.now()), Reading::Pass);
        // Whoever waits longer before they say so is told later.
        let now = rig.later(15_000);
        assert!(watcher.unseen(now, 15_000).is_none());
        assert_eq!(watcher.unseen(now, 14_999).unwrap().code, Code::WatchBlind);
        let failed = Reading::Fail(Problem::new(Code::CheckFailed, "no"));
        assert_eq!(watcher.join(failed.clone(), rig.later(60_000), &state.plan), failed);
    }

    #[tokio::test]
    async fn a_bad_version_falls_within_seconds() {
        let (rig, mut state) = (Rig::new(None), state("r1"));
        let mut watcher = rig.watcher(&state).await;
        state.phase = pointsman_core::Phase::Watching {
            after: pointsman_core::Step::Switch,
            until: Timestamp(u64::MAX),
        };
        let mut number = 0;
        let events = loop {
            number += 1;
            let judgement = rig.hear(&mut watcher, &state, second(number, 20)).await;
            let events = judging::heard(&state, rig.clock.now(), &judgement);
            if !events.is_empty() {
                break events;
            }
        };
        assert!(number <= 6, "{number} seconds");
        let kinds: Vec<&str> = events.iter().map(pointsman_core::Event::kind).collect();
        assert_eq!(kinds, ["judged", "turned-back"]);
        assert_eq!(pointsman_core::Ruling::of(&state.plan, watcher.judgement()).verdict, Verdict::Rollback);
        assert!(machine::possible(&state, pointsman_core::RequestKind::Rollback).is_ok());
    }
}
