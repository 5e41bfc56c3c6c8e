//! Hears the visitors of one release, second by second, and has them judged. What it knows is put away with every second,
//! so that a coordinator that starts anew goes on where the last one was. It decides nothing about the release.

use pointsman_core::machine::is_remembered;
use pointsman_core::ports::{Clock, Ear, Heard, Position, Signals};
use pointsman_core::signal::Probed;
use pointsman_core::verdict::{Judge, Judgement, NotRestored, Params, Verdict};
use pointsman_core::{Code, Plan, Problem, Reading, State, Timestamp, VerdictMode};
use tracing::{info, warn};

use crate::visitors::kept::{Kept, Whose};

/// Without a second that tells everything for so long the visitors are out of sight: one that is late, or lost, is no
/// news. A load balancer that is late is waited for 1.5 s.
const STALE_MS: u64 = 5_000;

/// Numbers that are left out between two seconds without a word: a clock that was set a little, or shown by a tick that came
/// late.
const NO_GAP_S: u64 = 2;

/// Who watches the visitors of one release.
pub struct Watcher<E> {
    judge: Judge,
    /// Which judge of the release this is.
    number: u32,
    ear: E,
    /// How far visitors were heard: it is put away together with what the judge made of it.
    position: Option<Position>,
    /// What was asked meanwhile by no visitor.
    probed: Probed,
    /// What another coordinator put away may not have been acted on.
    taken_up: bool,
    /// When a second came last that tells everything.
    seen_at: Timestamp,
    /// Why none has come since, as far as that is known.
    problem: Option<Problem>,
    /// What was heard, and not yet put away.
    fresh: Option<Heard>,
    judgement: Judgement,
}

/// What came of looking for a judge that was put away.
#[derive(Debug, PartialEq)]
enum Found {
    /// It goes on, from where visitors were heard to, with what was asked by others.
    Judge(Box<Judge>, Option<Position>, Probed),
    /// It was of another release, or a person has let the watch begin anew since.
    Other,
    /// It cannot be read.
    Damaged(NotRestored),
}

fn take_up(whose: Whose, params: Params, bytes: &[u8]) -> Found {
    match Kept::parse(bytes) {
        None => Found::Damaged(NotRestored::Damaged),
        Some(kept) if kept.whose != whose => Found::Other,
        Some(kept) => match Judge::from_bytes(params, kept.judge) {
            Ok(judge) => Found::Judge(Box::new(judge), kept.position, kept.probed),
            Err(error) => Found::Damaged(error),
        },
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
        let number = state.verdict.judge;
        let whose = Whose::of(plan, number);
        let found = signals.kept(plan).await.map(|bytes| take_up(whose, params, &bytes));
        let (judge, position, probed) = match found {
            Some(Found::Judge(judge, position, probed)) => {
                info!(release = %plan.release, tick = judge.last_tick(), "the visitors' judge goes on");
                (Some(*judge), position, probed)
            }
            Some(Found::Damaged(error)) => {
                warn!(release = %plan.release, %error, "what was known of the visitors is lost: their judge begins anew");
                (None, None, Probed::default())
            }
            Some(Found::Other) | None => (None, None, Probed::default()),
        };
        let heard_to = position.as_ref().map(|position| position.number);
        let after = heard_to.or_else(|| judge.as_ref().and_then(Judge::last_tick));
        let ear = signals.listen(plan, after);
        let taken_up = judge.is_some();
        let judge = judge.unwrap_or_else(|| Judge::new(params));
        let judgement = judge.look();
        let (seen_at, problem, fresh) = (clock.now(), None, None);
        Some(Self { judge, number, ear, position, probed, taken_up, seen_at, problem, fresh, judgement })
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
        if std::mem::take(&mut self.taken_up)
            && matches!(self.judgement.verdict(), Verdict::Rollback | Verdict::Hold)
        {
            // Whoever found that may have ended before they could say so, and the next second may hide it.
            return;
        }
        if self.fresh.is_none() {
            let heard = self.ear.next().await;
            self.judgement = self.take(&heard, clock.now(), state);
            self.fresh = Some(heard);
        }
        if let Err(problem) = signals.keep(plan, self.put_away(plan)).await {
            warn!(release = %plan.release, problem = %problem.in_full(), "what is known of the visitors is not put away");
        }
        if let Some(heard) = self.fresh.take() {
            signals.show(plan, &self.judgement, &self.probed, &heard);
        }
    }

    fn put_away(&self, plan: &Plan) -> Vec<u8> {
        let judge = self.judge.to_bytes();
        let (whose, position, probed) = (Whose::of(plan, self.number), self.position.clone(), self.probed);
        Kept { whose, position, probed, judge: &judge }.to_bytes()
    }

    /// Goes on to where a second ends, and says what is missing before it: nobody will ever count that.
    fn go_on(&mut self, plan: &Plan, to: &Position) {
        let missing = |before: Position| to.number.saturating_sub(before.number).saturating_sub(1);
        let missing = self.position.replace(to.clone()).map_or(0, missing);
        if missing > NO_GAP_S {
            warn!(
                release = %plan.release,
                seconds = missing,
                "seconds of visitors are missing: nobody counted them, or no load balancer's agent keeps them any more"
            );
        }
    }

    fn take(&mut self, heard: &Heard, now: Timestamp, state: &State) -> Judgement {
        if let Heard::Second(second) = heard {
            self.go_on(&state.plan, &second.position);
            let Probed { new, old } = state.plan.probed(&second.seen);
            self.probed.new.add(new);
            self.probed.old.add(old);
        }
        match heard {
            Heard::Second(second) if second.blind.is_none() => {
                let tick = state.judged_tick(second.position.number, &second.seen);
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

    /// Joins what the gates said with whether the visitors are in sight. A gate that fails now outweighs everything; visitors out
    /// of sight outweigh gates that are green, or tell again what was counted before.
    pub fn join(&self, gates: Reading, now: Timestamp, plan: &Plan) -> Reading {
        let says_nothing_new = match &gates {
            Reading::Pass => true,
            Reading::Fail(problem) => is_remembered(problem),
            Reading::Shared(_) | Reading::Unknown(_) => false,
        };
        let wanted = says_nothing_new && plan.verdict.acts();
        let Some(problem) = wanted.then(|| self.unseen(now, STALE_MS)).flatten() else { return gates };
        let environment = &plan.environment;
        Reading::Unknown(problem.hint(format!(
            "`pointsman doctor {environment}`; without signals: `pointsman resume {environment}`, then `pointsman promote {environment}`"
        )))
    }

    /// Whether they are in sight.
    pub fn sees(&self, now: Timestamp) -> bool {
        self.unseen(now, STALE_MS).is_none()
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
    use std::sync::{Arc, Mutex};

    use pointsman_core::ports::{Mark, Second};
    use pointsman_core::signal::{Cell, CellKey, Coverage, FAILED_BEFORE, OWN_CHECKS, Probes, Tick};
    use pointsman_core::{Epoch, RouteClass, RouteEpoch, judging, machine};
    use tokio::sync::mpsc;

    use crate::fixture::{self, Hand};

    /// Seconds that are told by hand, and a disk.
    #[derive(Default)]
    struct Fake {
        kept: Mutex<Option<Vec<u8>>>,
        told: Mutex<Option<mpsc::UnboundedReceiver<Heard>>>,
        /// After what the last ear wanted to hear.
        after: Mutex<Option<u64>>,
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

        fn listen(&self, _: &Plan, after: Option<u64>) -> FakeEar {
            *self.after.lock().unwrap() = after;
            FakeEar(self.told.lock().unwrap().take().unwrap())
        }

        async fn kept(&self, _: &Plan) -> Option<Vec<u8>> {
            self.kept.lock().unwrap().clone()
        }

        async fn keep(&self, _: &Plan, bytes: Vec<u8>) -> Result<(), Problem> {
            *self.kept.lock().unwrap() = Some(bytes);
            Ok(())
        }

        fn show(&self, _: &Arc<Plan>, _: &Judgement, _: &Probed, _: &Heard) {}
    }

    fn state(release: &str) -> State {
        let plan = fixture::plan(&fixture::environment(&["lb1"], ""), release);
        assert_eq!(plan.verdict.mode, VerdictMode::Act);
        State::begin(plan, Epoch(1), fixture::PLANNED_AT)
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
                (key("be_green", 9, FAILED_BEFORE), cell(50, 50)),
                (key("be_green", 5, "other"), cell(50, 50)),
                (key("be_blue", 9, "other"), cell(100, 0)),
            ]
            .into(),
            coverage: Some(Coverage { seen: 1, expected: 1 }),
            probes: [
                ("be_green".parse().unwrap(), Probes { requests: 5, failures: 1 }),
                ("be_blue".parse().unwrap(), Probes { requests: 2, failures: 0 }),
                ("be_maint".parse().unwrap(), Probes { requests: 9, failures: 9 }),
            ]
            .into(),
            ..Tick::default()
        };
        let mark = Mark { life: "a".to_owned(), number, ahead_s: 0 };
        let position = Position { number, read: [("lb1".parse().unwrap(), mark)].into() };
        Heard::Second(Second { position, seen: Arc::new(seen), blind: None })
    }

    struct Rig {
        fake: Fake,
        clock: Hand,
        tell: mpsc::UnboundedSender<Heard>,
    }

    impl Rig {
        fn new(kept: Option<Vec<u8>>) -> Self {
            let (tell, told) = mpsc::unbounded_channel();
            let fake = Fake { kept: Mutex::new(kept), told: Mutex::new(Some(told)), ..Fake::default() };
            Self { fake, clock: Hand::at(1_000_000), tell }
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
            self.clock.later(ms)
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
        assert_eq!(*rig.fake.after.lock().unwrap(), Some(3));
        // A second that was judged before is not judged again.
        assert!(rig.hear(&mut watcher, &same, second(3, 20)).await.refused.is_some());
        assert_eq!(rig.hear(&mut watcher, &same, second(4, 20)).await.watched, 4);

        let mut resumed = same.clone();
        resumed.verdict.judge = 1;
        let mut torn = kept.clone();
        torn.truncate(1_000);
        for (state, kept) in [(state("r2"), kept.clone()), (resumed, kept), (same, torn)] {
            let rig = Rig::new(Some(kept));
            let watcher = rig.watcher(&state).await;
            assert_eq!((watcher.judgement().watched, *rig.fake.after.lock().unwrap()), (0, None));
        }
    }

    #[tokio::test]
    async fn what_is_put_away_says_how_far_it_goes() {
        let (rig, state) = (Rig::new(None), state("r1"));
        let mut watcher = rig.watcher(&state).await;
        let position = || {
            let kept = rig.fake.kept.lock().unwrap().clone().unwrap();
            Kept::parse(&kept).unwrap().position
        };
        rig.hear(&mut watcher, &state, Heard::Silence(Problem::new(Code::AgentUnreachable, "nothing"))).await;
        assert_eq!(position(), None);
        rig.hear(&mut watcher, &state, second(7, 0)).await;
        // A second of which nothing is made was heard all the same.
        let Heard::Second(whole) = second(8, 0) else { panic!("a second") };
        let blind = Second { blind: Some(Problem::new(Code::SignalsMissing, "lines are missing")), ..whole };
        rig.hear(&mut watcher, &state, Heard::Second(blind.clone())).await;
        assert_eq!(position(), Some(blind.position));
        assert_eq!(watcher.judgement().watched, 1);

        // And what was asked by others, which the next coordinator goes on with.
        let next = Rig::new(rig.fake.kept.lock().unwrap().clone());
        let mut watcher = next.watcher(&state).await;
        next.hear(&mut watcher, &state, second(9, 0)).await;
        let kept = next.fake.kept.lock().unwrap().clone().unwrap();
        let (new, old) = (Probes { requests: 15, failures: 3 }, Probes { requests: 6, failures: 0 });
        assert_eq!(Kept::parse(&kept).unwrap().probed, Probed { new, old });
    }

    #[tokio::test]
    async fn what_was_found_and_not_said_is_said_before_anything_else_is_heard() {
        let (rig, mut state) = (Rig::new(None), state("r1"));
        state.phase = pointsman_core::Phase::Watching {
            after: pointsman_core::Step::Switch,
            until: Timestamp(u64::MAX),
        };
        let mut watcher = rig.watcher(&state).await;
        let mut number = 0;
        while watcher.judgement().verdict() != Verdict::Rollback {
            number += 1;
            rig.hear(&mut watcher, &state, second(number, 20)).await;
        }
        // Whoever put that away ends here, and a second that would hide it comes first.
        let next = Rig::new(rig.fake.kept.lock().unwrap().clone());
        let mut watcher = next.watcher(&state).await;
        next.tell.send(second(number + 1, 0)).unwrap();
        watcher.hear(&next.fake, &next.clock, &state).await;
        let said = judging::heard(&state, next.clock.now(), watcher.judgement());
        assert_eq!(
            said.iter().map(pointsman_core::Event::kind).collect::<Vec<_>>(),
            ["judged", "turned-back"]
        );
        assert_eq!(watcher.judgement().tick, Some(number));
        watcher.hear(&next.fake, &next.clock, &state).await;
        assert_eq!(watcher.judgement().tick, Some(number + 1));
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
        // Told again a failure is no news, and hides nothing.
        let told_again = Reading::Fail(Problem::new(Code::CheckFailed, "no").retry_useful());
        let now = rig.clock.now();
        assert!(matches!(watcher.join(told_again.clone(), now, &state.plan), Reading::Unknown(_)));
        rig.hear(&mut watcher, &state, second(4, 0)).await;
        assert_eq!(watcher.join(told_again.clone(), now, &state.plan), told_again);
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
