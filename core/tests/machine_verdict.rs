//! What the visitors' signals do to a release, each told as a short story: what they met, and what must follow from it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that goes another way is a failed test")]

mod judgements;
#[expect(dead_code, reason = "rollbacks and maintenance have no visitors to watch")]
mod plans;
#[expect(dead_code, reason = "no order fails in these stories")]
mod story;
#[expect(dead_code, reason = "no agent is out of reach in these stories")]
mod waited;

use judgements::judged;
use plans::{Site, deploy, plan};
use pointsman_core::judging::{AfterEnd, both_after_end, gates_and_visitors, heard};
use pointsman_core::machine::{Next, apply, gates_read};
use pointsman_core::signal::{self, Cell, CellKey};
use pointsman_core::verdict::{Counts, Judge, Judgement, Latency, Metric, Tick, Verdict};
use pointsman_core::{
    Before, Code, Event, HeldAt, OnFail, Outcome, Part, Phase, Problem, Reading, Request, RequestKind,
    RouteClass, RouteEpoch, Ruling, Slower, Split, Stamped, Step, Usual, VerdictMode, VerdictPlan,
};
use story::{Story, lost, refused};
use waited::next;

/// A release whose visitors are watched after the switch.
fn watched(verdict: VerdictPlan) -> Story {
    let mut plan = plan(deploy(), Site::of(1, 1));
    plan.verdict = verdict;
    let mut story = Story::begun(plan);
    story.reach(Step::Watch);
    story
}

fn acts() -> VerdictPlan {
    VerdictPlan { mode: VerdictMode::Act, ..VerdictPlan::default() }
}

/// A watch that ends only by a verdict.
fn decides() -> VerdictPlan {
    VerdictPlan { min_watch_ms: Some(20_000), max_watch_ms: Some(60_000), ..acts() }
}

fn counts(requests: u32, errors: u32) -> Counts {
    Counts { requests, errors, timed: requests, ..Counts::default() }
}

/// What is known after so many seconds of the same.
fn after(story: &Story, seconds: u64, new: Counts, old: Counts) -> Judgement {
    let plan = &story.state.plan;
    let mut judge = Judge::new(plan.verdict.params(plan.watched_ms()).unwrap());
    let ticks = (1..=seconds).map(|number| Tick { number, new, old, latency: Latency::Known });
    ticks.map(|tick| judge.step(&tick)).last().unwrap()
}

fn failing(story: &Story) -> Judgement {
    after(story, 20, counts(100, 20), counts(100, 0))
}

fn good(story: &Story) -> Judgement {
    after(story, 20, counts(3_000, 0), counts(100, 0))
}

fn tell(story: &mut Story, judgement: &Judgement) -> Vec<&'static str> {
    let events = heard(&story.state, story.now, judgement);
    let kinds = events.iter().map(Event::kind).collect();
    events.into_iter().for_each(|event| story.tell(event));
    kinds
}

/// Reads gates that are green, so many milliseconds after the last fact.
fn green(story: &mut Story, later_ms: u64, judgement: &Judgement) -> Vec<&'static str> {
    let last = story.now.plus_ms(later_ms.saturating_sub(1_000));
    story.now = story.now.plus_ms(later_ms);
    let events = gates_read(&story.state, Some(last), story.now, Reading::Pass);
    let events = gates_and_visitors(&story.state, story.now, events, Some(judgement), true);
    let kinds = events.iter().map(Event::kind).collect();
    events.into_iter().for_each(|event| story.tell(event));
    kinds
}

fn ask(story: &mut Story, kind: RequestKind) {
    story.tell(Event::Requested(Request { kind, by: "ada".to_owned(), reason: None, without: Vec::new() }));
}

fn why(story: &Story) -> Code {
    match &story.state.phase {
        Phase::Held { why, at: HeldAt::Watch(_), .. } => why.code,
        phase => panic!("{phase:?}"),
    }
}

#[test]
fn a_verdict_turns_back_at_once_and_says_its_numbers() {
    let mut story = watched(acts());
    let judgement = failing(&story);
    assert_eq!(tell(&mut story, &judgement), ["judged", "turned-back"]);
    let state = &story.state;
    assert_eq!(state.phase, Phase::Doing(Step::RouteBack));
    let problem = state.turned_back.as_ref().unwrap();
    assert_eq!(problem.code, Code::VerdictAgainst);
    assert!(problem.message.contains("on `green`: 400 of 2 000 (20.0 %"), "{}", problem.message);
    let last = state.verdict.last.as_ref().unwrap();
    assert_eq!((last.verdict, last.errors.new.bad), (Verdict::Rollback, 400));
}

#[test]
fn a_release_that_waits_for_a_person_turns_back_all_the_same() {
    let mut story = watched(acts());
    story.tell(Event::Held(refused()));
    let judgement = failing(&story);
    assert_eq!(tell(&mut story, &judgement), ["judged", "turned-back"]);

    let mut story = watched(acts());
    let mut plan = (*story.state.plan).clone();
    plan.automatic_rollback = false;
    story.state.plan = plan.into();
    assert_eq!(tell(&mut story, &judgement), ["judged", "held"]);
    assert_eq!(why(&story), Code::VerdictAgainst);
    assert!(tell(&mut story, &judgement).is_empty(), "one record is enough");
}

#[test]
fn what_strikes_both_slots_waits_for_a_person() {
    let mut story = watched(acts());
    let judgement = after(&story, 20, counts(100, 20), counts(100, 20));
    assert_eq!(tell(&mut story, &judgement), ["judged", "held"]);
    assert_eq!(why(&story), Code::SharedFault);
    // Whoever lets it go on has looked: another judge begins, and what was found counts no more.
    let judge = story.state.verdict.judge;
    ask(&mut story, RequestKind::Resume);
    assert_eq!((story.state.verdict.judge, story.state.verdict.known), (judge + 1, None));
}

#[test]
fn each_limit_has_its_own_action() {
    for (on_errors, expected) in [
        (OnFail::Hold, vec!["judged", "held"]),
        (OnFail::Warn, vec!["judged"]),
        (OnFail::Rollback, vec!["judged", "turned-back"]),
    ] {
        let mut story = watched(VerdictPlan { on_errors, ..acts() });
        let judgement = failing(&story);
        assert_eq!(tell(&mut story, &judgement), expected);
        if on_errors == OnFail::Warn {
            assert!(tell(&mut story, &judgement).is_empty(), "it is said once");
            // A limit that only warns hides nothing that the other one finds.
            let slow = Counts { over_limit: 40, over_baseline: 40, ..counts(100, 20) };
            let judgement = after(&story, 20, slow, counts(100, 0));
            assert_eq!(tell(&mut story, &judgement), ["judged", "turned-back"]);
        }
    }
}

#[test]
fn in_the_shadow_it_is_said_and_nothing_follows() {
    let mut story = watched(VerdictPlan { mode: VerdictMode::Shadow, ..decides() });
    assert!(!story.state.plan.verdict.must_decide());
    let judgement = failing(&story);
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    assert!(tell(&mut story, &judgement).is_empty());
    assert_eq!(green(&mut story, 60_000, &judgement), ["judged", "watch-passed"]);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));

    let mut story = watched(VerdictPlan::default());
    assert!(tell(&mut story, &judgement).is_empty());
    assert_eq!(green(&mut story, 60_000, &judgement), ["watch-passed"]);
}

#[test]
fn without_a_longest_watch_an_undecided_one_ends_after_its_time() {
    let mut story = watched(acts());
    let undecided = after(&story, 5, counts(3, 0), counts(0, 0));
    assert!(tell(&mut story, &undecided).is_empty());
    assert!(green(&mut story, 50_000, &undecided).is_empty());
    assert_eq!(green(&mut story, 10_000, &undecided), ["judged", "watch-passed"]);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));
    assert_eq!(story.state.verdict.last.as_ref().unwrap().errors.new.requests, 15);
}

#[test]
fn a_proof_ends_the_watch_early_and_not_too_early() {
    let mut story = watched(decides());
    let judgement = good(&story);
    assert_eq!(judgement.verdict(), Verdict::Promote);
    assert!(tell(&mut story, &judgement).is_empty(), "too early");
    assert!(green(&mut story, 10_000, &judgement).is_empty());
    story.now = story.now.plus_ms(10_000);
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    // The gates have the last word, and a proof that is none any more is taken back.
    let doubtful = after(&story, 20, counts(10, 0), counts(10, 0));
    assert_eq!(tell(&mut story, &doubtful), ["judged"]);
    assert!(green(&mut story, 1_000, &doubtful).is_empty());
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    assert_eq!(green(&mut story, 1_000, &judgement), ["judged", "watch-passed"]);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));
}

#[test]
fn gates_that_fail_outweigh_a_proof() {
    let mut story = watched(decides());
    let judgement = good(&story);
    story.now = story.now.plus_ms(25_000);
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    for _ in 0..3 {
        let last = story.now;
        story.now = story.now.plus_ms(10_000);
        for event in gates_read(&story.state, Some(last), story.now, Reading::Fail(lost())) {
            story.tell(event);
        }
    }
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
}

#[test]
fn the_longest_watch_ends_undecided_and_only_a_person_goes_on() {
    let mut story = watched(decides());
    let undecided = after(&story, 5, counts(3, 0), counts(0, 0));
    assert_eq!(green(&mut story, 60_000, &undecided), ["judged", "held"]);
    assert_eq!(why(&story), Code::VerdictUndecided);
    match &story.state.phase {
        Phase::Held { why, .. } => assert!(why.causes[0].contains("errors 0 of 15"), "{why:?}"),
        phase => panic!("{phase:?}"),
    }
    ask(&mut story, RequestKind::Resume);
    ask(&mut story, RequestKind::Promote);
    assert_eq!(green(&mut story, 1_000, &undecided), ["judged", "watch-passed"]);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));

    let mut story = watched(VerdictPlan { undecided_turns_back: true, ..decides() });
    assert_eq!(green(&mut story, 60_000, &undecided), ["judged", "turned-back"]);
}

#[test]
fn no_journal_says_that_an_undecided_watch_passed() {
    let story = watched(decides());
    let passed = Stamped { at: story.now.plus_ms(100_000), event: Event::WatchPassed };
    assert!(apply(&story.state, &passed).is_err());
    let mut story = story;
    story.tell(Event::Judged(Box::new(judged(Verdict::Promote))));
    assert!(apply(&story.state, &passed).is_ok());
    // Who starts anew has seen no proof yet.
    story.restart();
    story.fence();
    let passed = Stamped { at: story.now.plus_ms(100_000), event: Event::WatchPassed };
    assert!(apply(&story.state, &passed).is_err());
}

#[test]
fn each_split_is_proven_anew() {
    let mut plan = plan(deploy(), Site { splits: &[10, 50], ..Site::of(1, 1) });
    plan.verdict = decides();
    let mut story = Story::begun(plan);
    while story.state.watched_after().is_none() {
        let Phase::Doing(step) = story.state.phase else { panic!("{:?}", story.state.phase) };
        story.confirm(step);
    }
    story.tell(Event::Judged(Box::new(judged(Verdict::Promote))));
    story.tell(Event::WatchPassed);
    assert_eq!((story.state.phase.clone(), story.state.verdict.known), (Phase::Doing(Step::Canary(2)), None));
}

/// The judge goes on from one split to the next, and knows already that the version is good: with a tenth of the visitors.
#[test]
fn a_watch_without_visitors_of_its_own_proves_nothing() {
    let mut plan = plan(deploy(), Site { splits: &[10, 50], ..Site::of(1, 1) });
    plan.verdict = decides();
    let mut story = Story::begun(plan);
    let confirm_to_watch = |story: &mut Story| {
        while story.state.watched_after().is_none() {
            let Phase::Doing(step) = story.state.phase else { panic!("{:?}", story.state.phase) };
            story.confirm(step);
        }
    };
    confirm_to_watch(&mut story);
    let params = story.state.plan.verdict.params(story.state.plan.watched_ms()).unwrap();
    let (mut judge, mut number) = (Judge::new(params), 0);
    let mut seen = |seconds: u64, new: Counts| {
        let mut tick = || {
            number += 1;
            judge.step(&Tick { number, new, old: counts(100, 0), latency: Latency::Known })
        };
        (1..seconds).for_each(|_| _ = tick());
        tick()
    };
    let good = seen(20, counts(3_000, 0));
    assert_eq!(green(&mut story, 21_000, &good), Vec::<&str>::new(), "not told yet");
    assert_eq!(tell(&mut story, &good), ["judged"]);
    assert_eq!(green(&mut story, 1_000, &good), ["judged", "watch-passed"]);
    confirm_to_watch(&mut story);
    assert_eq!(story.state.verdict.before, 60_000);

    let silent = seen(25, counts(0, 0));
    assert_eq!(silent.verdict(), Verdict::Promote, "the judge itself only knows the version");
    story.now = story.now.plus_ms(25_000);
    assert_eq!(tell(&mut story, &silent), Vec::<&str>::new());
    assert_eq!(green(&mut story, 1_000, &silent), Vec::<&str>::new());
    let few = seen(1, counts(99, 0));
    assert_eq!(tell(&mut story, &few), Vec::<&str>::new());
    let enough = seen(1, counts(1, 0));
    assert_eq!(tell(&mut story, &enough), ["judged"]);
    assert_eq!(green(&mut story, 1_000, &enough), ["judged", "watch-passed"]);
}

#[test]
fn who_was_brought_to_the_old_slot_before_the_switch_says_nothing_of_now() {
    let mut plan = plan(deploy(), Site::of(1, 1));
    plan.splits = vec![Split { percent: 10, hold_ms: 60_000 }];
    let old = plan.from.clone().unwrap().backend;
    let epoch = |step| plan.route(step).unwrap().epoch;
    let (split, switch) = (epoch(Step::Canary(1)), epoch(Step::Switch));
    let counted = |epoch, after| {
        let key = CellKey { backend: old.clone(), epoch, class: RouteClass::parse("other").unwrap() };
        let cell = Cell { requests: 3, failures: 1, ..Cell::default() };
        let second = signal::Tick { cells: [(key, cell)].into(), ..signal::Tick::default() };
        plan.judged_tick(1, &second, after).old.requests
    };
    let unsaid = RouteEpoch(0);
    let before = plan.route_before.epoch;
    assert_eq!([before, split, unsaid].map(|epoch| counted(epoch, Step::Canary(1))), [0, 3, 3]);
    assert_eq!([split, switch, unsaid].map(|epoch| counted(epoch, Step::Switch)), [0, 3, 0]);
}

/// Times, not errors, and only for so long since visitors were moved to it, as the journal has it.
#[test]
fn a_slot_that_warms_up_is_not_judged_by_its_times() {
    let story = watched(VerdictPlan { warm_up_ms: 10_000, ..acts() });
    let state = &story.state;
    let (new, old) = (state.plan.to.backend.clone(), state.plan.from.clone().unwrap().backend);
    let epoch = state.plan.route(Step::Switch).unwrap().epoch;
    let cell = |backend| {
        let mut cell = Cell { requests: 5, failures: 2, ..Cell::default() };
        (0..5).for_each(|_| cell.latency.record(60_000));
        (CellKey { backend, epoch, class: RouteClass::parse("other").unwrap() }, cell)
    };
    let second = signal::Tick { cells: [cell(new), cell(old)].into(), ..signal::Tick::default() };
    let moves = state.orders.iter().filter(|(key, _)| key.step == Step::Switch);
    let moved_at = moves.map(|(_, progress)| progress.at).max().unwrap();
    let timed = |later_ms| {
        let tick = state.judged_tick(moved_at.plus_ms(later_ms).0 / 1_000, &second);
        assert_eq!((tick.new.requests, tick.new.errors, tick.old.over_limit), (5, 2, 5));
        (tick.new.timed, tick.new.over_limit, tick.new.over_baseline)
    };
    assert_eq!(moved_at.0 % 1_000, 0, "seconds are whole here");
    assert_eq!([0, 9_000].map(timed), [(0, 0, 0); 2]);
    assert_eq!([10_000, 11_000].map(timed), [(5, 5, 5); 2]);
}

#[test]
fn a_watch_does_not_pass_in_the_moment_its_visitors_are_found_to_fare_badly() {
    // The last reading of the gates comes before anybody has recorded what was made of the last second.
    let mut story = watched(acts());
    let judgement = failing(&story);
    assert_eq!(green(&mut story, 60_000, &judgement), ["judged", "turned-back"]);
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));

    let mut story = watched(acts());
    let judgement = after(&story, 20, counts(100, 20), counts(100, 20));
    assert_eq!(green(&mut story, 60_000, &judgement), ["judged", "held"]);
    assert_eq!(why(&story), Code::SharedFault);
}

#[test]
fn gates_that_fail_while_visitors_of_both_slots_do_hold_too() {
    let mut story = watched(acts());
    let judgement = after(&story, 20, counts(100, 20), counts(100, 20));
    let failing = |story: &mut Story, judgement| {
        story.now = story.now.plus_ms(1_000);
        let gates = gates_read(
            &story.state,
            None,
            story.now,
            Reading::Fail(Problem::new(Code::CheckFailed, "it fails")),
        );
        let events = gates_and_visitors(&story.state, story.now, gates, Some(judgement), true);
        events.iter().for_each(|event| story.tell(event.clone()));
        events.len()
    };
    let row = story.state.plan.watch.fail_after;
    (0..row).for_each(|_| _ = failing(&mut story, &judgement));
    assert_eq!(why(&story), Code::SharedFault);
    // For as long as that is so; and the journal does not fill with it.
    (0..row).for_each(|_| _ = failing(&mut story, &judgement));
    assert_eq!(failing(&mut story, &judgement), 0);
    assert_eq!(why(&story), Code::SharedFault);
    // Where the visitors of the old slot fare well, gates that fail turn back.
    let well = after(&story, 200, counts(100, 0), counts(100, 0));
    failing(&mut story, &well);
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
    // So they do where visitors are only looked at.
    let mut story = watched(VerdictPlan { mode: VerdictMode::Shadow, ..acts() });
    (0..row).for_each(|_| _ = failing(&mut story, &judgement));
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
}

#[test]
fn what_was_no_better_before_and_what_is_the_new_slots_own_excuse_no_gates() {
    let fails = |story: &mut Story, judgement: &Judgement, code: Code, seen_now: bool| {
        for _ in 0..story.state.plan.watch.fail_after {
            story.now = story.now.plus_ms(1_000);
            let reading = Reading::Fail(Problem::new(code, "it fails"));
            let gates = gates_read(&story.state, None, story.now, reading);
            let events = gates_and_visitors(&story.state, story.now, gates, Some(judgement), seen_now);
            events.into_iter().for_each(|event| story.tell(event));
        }
    };
    let part = |bad, requests| Part { bad, requests };
    let usual = |bad| Usual { whole: part(10 * bad, 10_000), lately: part(bad, 1_000) };
    let before =
        Before { seconds: 900, requests: 10_000, usual: Some((usual(30), usual(0))), ..Before::default() };
    let mut story = watched(VerdictPlan { before, ..acts() });
    let judgement = after(&story, 120, counts(100, 3), Counts::default());
    assert!(judgement.finding(Metric::Errors).as_before);
    fails(&mut story, &judgement, Code::CheckFailed, true);
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));

    let both = |story: &Story| after(story, 20, counts(100, 20), counts(100, 20));
    let mut story = watched(acts());
    let judgement = both(&story);
    fails(&mut story, &judgement, Code::CheckFailed, true);
    assert_eq!(why(&story), Code::SharedFault);
    for (code, seen_now) in
        [(Code::NotHeld, true), (Code::BackendUnhealthy, true), (Code::CheckFailed, false)]
    {
        let mut story = watched(acts());
        let judgement = both(&story);
        fails(&mut story, &judgement, code, seen_now);
        assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack), "{code}");
    }
}

#[test]
fn what_only_warns_stands_in_no_proof_s_way() {
    let slow = Counts { over_limit: 300, over_baseline: 300, ..counts(3_000, 0) };
    let some_slow = Counts { over_limit: 25, over_baseline: 25, ..counts(3_000, 0) };
    for new in [slow, some_slow] {
        let mut story = watched(VerdictPlan { on_slowness: OnFail::Warn, ..decides() });
        let judgement = after(&story, 20, new, counts(100, 0));
        story.now = story.now.plus_ms(20_000);
        tell(&mut story, &judgement);
        let last = story.state.verdict.last.as_ref().unwrap();
        assert_eq!((last.verdict, last.needed), (Verdict::Promote, Some(0)), "{}", last.told);
        assert_eq!(green(&mut story, 1_000, &judgement).last(), Some(&"watch-passed"));
    }
    // Too many errors still turn back, and where both only warn both must be proven.
    let bad = Counts { errors: 600, ..slow };
    let mut story = watched(VerdictPlan { on_slowness: OnFail::Warn, ..decides() });
    let judgement = after(&story, 20, bad, counts(100, 0));
    assert_eq!(tell(&mut story, &judgement), ["judged", "turned-back"]);
    let warns = VerdictPlan { on_errors: OnFail::Warn, on_slowness: OnFail::Warn, ..decides() };
    let mut story = watched(warns);
    let judgement = after(&story, 20, slow, counts(100, 0));
    story.now = story.now.plus_ms(20_000);
    tell(&mut story, &judgement);
    assert_eq!(story.state.verdict.last.as_ref().unwrap().verdict, Verdict::Undecided);
}

#[test]
fn who_is_on_a_split_is_judged_also_while_the_release_is_held_on_its_way_to_the_next() {
    let held = |automatic_rollback, mode| {
        let mut plan = plan(deploy(), Site { splits: &[10, 50], ..Site::of(1, 1) });
        plan.automatic_rollback = automatic_rollback;
        plan.verdict = VerdictPlan { mode, ..acts() };
        let mut story = Story::begun(plan);
        let hold = |story: &mut Story, step| {
            while story.state.phase != Phase::Doing(step) {
                match story.state.phase {
                    Phase::Doing(before) => story.confirm(before),
                    _ => story.tell(Event::WatchPassed),
                }
            }
            story.tell(Event::Held(refused()));
        };
        hold(&mut story, Step::Canary(1));
        assert_eq!(next(&story.state, story.now), Next::Await(None), "nobody was moved");
        ask(&mut story, RequestKind::Resume);
        hold(&mut story, Step::Canary(2));
        story
    };
    let mut story = held(true, VerdictMode::Act);
    assert_eq!((story.state.judged_after(), story.state.watched_after()), (Some(Step::Canary(1)), None));
    assert_eq!(next(&story.state, story.now), Next::HearVisitors);
    // What is well, or shared, moves nothing.
    let judgement = good(&story);
    assert!(tell(&mut story, &judgement).is_empty());
    let judgement = after(&story, 20, counts(100, 20), counts(100, 20));
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    let judgement = failing(&story);
    assert_eq!(tell(&mut story, &judgement), ["judged", "turned-back"]);
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
    // A person who wants to decide decides.
    let mut story = held(false, VerdictMode::Act);
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    assert!(tell(&mut story, &judgement).is_empty(), "one record is enough");
    assert_eq!(next(&held(true, VerdictMode::Shadow).state, story.now), Next::Await(None));
}

#[test]
fn after_the_end_going_back_stands_before_telling_whoever_says_so() {
    let story = watched(acts());
    let of = |message: &str| Problem::new(Code::CheckFailed, message);
    let (back, told) = (|text| AfterEnd::Back(of(text)), |text| AfterEnd::Told(of(text)));
    let both = |by_visitors, by_gates| both_after_end(&story.state, &by_visitors, by_gates, None);
    assert_eq!(both(told("v"), back("g")), back("g"));
    assert_eq!(both(back("v"), back("g")), back("v"));
    assert_eq!(both(told("v"), told("g")), told("v"));
    assert_eq!(both(AfterEnd::Well, told("g")), told("g"));
    assert_eq!(both(back("v"), AfterEnd::Well), back("v"));
    assert_eq!(both(AfterEnd::Well, AfterEnd::Well), AfterEnd::Well);
}

/// The database of both slots is gone an hour after a release: going back would help nobody, as it would not have during the watch.
#[test]
fn after_the_end_a_fault_of_both_slots_leads_nobody_back_either() {
    let story = watched(acts());
    let struck = after(&story, 20, counts(100, 20), counts(100, 20));
    let well = after(&story, 20, counts(100, 0), counts(100, 0));
    let fails = |code| AfterEnd::Back(Problem::new(code, "it fails"));
    let both = |by_visitors, code, seen: Option<&Judgement>| {
        both_after_end(&story.state, &by_visitors, fails(code), seen)
    };
    let told = AfterEnd::Told(Problem::new(Code::VerdictAgainst, "both"));
    assert_eq!(both(told.clone(), Code::CheckFailed, Some(&struck)), told);
    match both(AfterEnd::Well, Code::CheckFailed, Some(&struck)) {
        AfterEnd::Told(problem) => assert_eq!(problem.code, Code::SharedFault),
        other => panic!("{other:?}"),
    }
    // Where they fare well, are out of sight, or it is the new slot's own, it goes back.
    for (code, seen) in
        [(Code::CheckFailed, Some(&well)), (Code::CheckFailed, None), (Code::BackendUnhealthy, Some(&struck))]
    {
        assert_eq!(both(AfterEnd::Well, code, seen), fails(code), "{code}");
    }
}

/// Far below the limit, and a third of the requests take longer than what 99 of 100 took before: after a switch of everybody nobody
/// on the old slot says whether that is the hour or the version.
#[test]
fn a_version_that_is_slower_than_before_is_warned_of_where_nobody_is_left_to_compare_with() {
    let slower = Some(Slower { ppm: 8_000, bunches_milli: 1_000 });
    let before = Before {
        seconds: 900,
        requests: 9_000,
        p99_ms: Some(84),
        bunches_milli: Some((1_000, 1_000)),
        slower,
        ..Before::default()
    };
    let slow = |share| Counts { over_baseline: share, ..counts(100, 0) };
    let mut story = watched(VerdictPlan { before, ..acts() });
    let judgement = after(&story, 30, slow(33), Counts::default());
    assert_eq!(tell(&mut story, &judgement), ["judged"]);
    let last = story.state.verdict.last.clone().unwrap();
    let slowed = last.slowed.unwrap();
    assert_eq!((last.verdict, slowed.bad, slowed.requests), (Verdict::Undecided, 990, 3_000));
    // Said once in a watch; and it ends as it would have.
    assert!(tell(&mut story, &judgement).is_empty());
    assert!(matches!(story.state.phase, Phase::Watching { .. }));
    let slowed = |verdict: VerdictPlan, new, old| {
        let story = watched(verdict);
        Ruling::of(&story.state.plan, &after(&story, 30, new, old)).slowed
    };
    assert!(slowed(VerdictPlan { before, ..acts() }, slow(3), Counts::default()));
    // As slow as before, or not clearly slower; and beside the old slot the comparison with that decides.
    for (new, old) in [(slow(1), Counts::default()), (slow(0), Counts::default()), (slow(33), counts(100, 0))]
    {
        assert!(!slowed(VerdictPlan { before, ..acts() }, new, old), "{new:?} {old:?}");
    }
    let few = after(&story, 1, Counts { over_baseline: 1, ..counts(20, 0) }, Counts::default());
    assert!(!Ruling::of(&story.state.plan, &few).slowed);
    // Nothing was known of before.
    for before in [Before { p99_ms: None, ..before }, Before { slower: None, ..before }] {
        assert!(!slowed(VerdictPlan { before, ..acts() }, slow(33), Counts::default()));
    }
}
