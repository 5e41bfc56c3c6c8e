//! The rules of a release, each told as a short story: what happened, and what must follow from it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that goes another way is a failed test")]

mod plans;
mod story;
mod waited;

use plans::{CREATED_AT, NEW, Site, deploy, host, maintenance, plan, rollback};
use pointsman_core::judging::{AfterEnd, gates_after_end};
use pointsman_core::machine::{
    self, Next, apply, checks_alone_fail, gates_read, join_readings, possible, timely,
};
use pointsman_core::{
    Aftermath, Code, Event, HeldAt, LiveRelease, OrderKey, Outcome, Phase, Plan, Problem, Purpose, Reading,
    Request, RequestKind, Stamped, Standing, State, Step, Timestamp, TurnedBack, WatchProgress, invariants,
};
use story::{Story, lost, refused};
use waited::{fence_failed, next};

// ------------------------------------------------------------------------------- what the driver would do

/// Does what follows, with agents that confirm everything and gates that pass, and says which phases the
/// release went through until it was over or waited for a person.
fn drive(story: &mut Story) -> Vec<String> {
    let mut phases = vec![word(&story.state)];
    loop {
        match next(&story.state, story.now) {
            Next::Fence(_) => story.fence(),
            Next::Send(keys) => {
                keys.iter().for_each(|key| story.send(key));
                keys.iter().for_each(|key| story.done(key));
            }
            Next::Record(event) => story.tell(event),
            Next::Await(Some(until)) => story.now = until,
            Next::ReadGates if matches!(story.state.phase, Phase::Watching { .. }) => {
                read(story, Reading::Pass)
            }
            Next::GiveUp(keys) => keys.iter().for_each(|key| story.failed(key, lost())),
            Next::ReadGates | Next::HearVisitors | Next::Await(None) | Next::Stop => return phases,
        }
        invariants::all(&story.state, story.now).unwrap();
        if phases.last() != Some(&word(&story.state)) {
            phases.push(word(&story.state));
        }
    }
}

fn word(state: &State) -> String {
    match &state.phase {
        Phase::Doing(step) => step.to_string(),
        Phase::Watching { .. } => "watching".to_owned(),
        Phase::Held { .. } => "held".to_owned(),
        Phase::Finished(outcome) => outcome.as_str().to_owned(),
    }
}

/// Reads the gates once, one interval later, and records what follows.
fn read(story: &mut Story, reading: Reading) {
    let last = story.now;
    story.now = story.now.plus_ms(story.state.plan.watch.interval_ms);
    for event in gates_read(&story.state, Some(last), story.now, reading) {
        story.tell(event);
    }
}

fn ask(story: &mut Story, kind: RequestKind) {
    let request = Request { kind, by: "ada".to_owned(), reason: None, without: Vec::new() };
    assert_eq!(possible(&story.state, kind), Ok(()));
    story.tell(Event::Requested(request));
}

fn began(purpose: Purpose) -> Story {
    Story::begun(plan(purpose, Site::of(2, 1)))
}

/// A deploy that stands in a step, or is watched.
fn deploy_at(step: Step) -> Story {
    let mut story = began(deploy());
    story.reach(step);
    story
}

fn key(step: Step, name: &str) -> OrderKey {
    OrderKey { step, host: host(name) }
}

fn failing() -> Reading {
    Reading::Fail(Problem::new(Code::CheckFailed, "500 instead of 200"))
}

fn blind() -> Reading {
    Reading::Unknown(unreachable())
}

fn unreachable() -> Problem {
    Problem::new(Code::AgentUnreachable, "no route to host").retry_useful()
}

/// Records the decision that must come next, and fails when it is another kind of work.
fn record_next(story: &mut Story) -> Event {
    let Next::Record(event) = next(&story.state, story.now) else {
        panic!("nothing to record, but {:?}", next(&story.state, story.now))
    };
    story.tell(event.clone());
    event
}

fn outcome(story: &Story) -> Option<Outcome> {
    story.state.outcome()
}

// ------------------------------------------------------------------------------------------- the way there

#[test]
fn a_deploy_without_trouble_visits_exactly_these_phases() {
    let mut story = Story::planned(plan(deploy(), Site::of(2, 2)));
    assert_eq!(
        drive(&mut story),
        ["preflight", "stage", "drain", "activate", "expose", "check", "switch", "watching", "confirmed"]
    );
}

#[test]
fn a_rollback_without_trouble_only_looks_and_switches() {
    assert_eq!(drive(&mut began(rollback())), ["preflight", "switch", "confirmed"]);
}

#[test]
fn the_maintenance_page_goes_up_and_comes_down_in_one_step() {
    assert_eq!(drive(&mut began(maintenance(true))), ["maintain", "confirmed"]);
    assert_eq!(drive(&mut began(maintenance(false))), ["maintain", "confirmed"]);
}

#[test]
fn a_step_is_left_only_when_every_host_has_confirmed_it() {
    let mut story = deploy_at(Step::Switch);
    story.send(&key(Step::Switch, "lb1"));
    story.done(&key(Step::Switch, "lb1"));
    assert_eq!(story.state.phase, Phase::Doing(Step::Switch));
    assert_eq!(next(&story.state, story.now), Next::Send(vec![key(Step::Switch, "lb2")]));
}

#[test]
fn no_order_leaves_before_every_agent_acknowledged_the_epoch() {
    let mut story = deploy_at(Step::Stage);
    story.restart();
    let early = Event::OrderIntended { key: key(Step::Stage, "green1"), attempt: 1 };
    assert!(apply(&story.state, &Stamped { at: story.now, event: early }).is_err());
    assert!(matches!(next(&story.state, story.now), Next::Fence(hosts) if hosts.len() == 3));
}

// -------------------------------------------------------------------------------------------- lost answers

#[test]
fn a_lost_answer_to_the_switch_is_asked_for_again_under_the_same_key() {
    let mut story = deploy_at(Step::Switch);
    let lb1 = key(Step::Switch, "lb1");
    story.send(&lb1);
    story.failed(&lb1, lost());
    story.confirm_on(&key(Step::Switch, "lb2"));
    story.now = story.now.plus_ms(10_000);
    assert_eq!(next(&story.state, story.now), Next::Send(vec![lb1.clone()]));
    story.send(&lb1);
    assert_eq!(story.state.progress(Step::Switch, &lb1.host).map(|progress| progress.attempts), Some(2));
    story.done(&lb1);
    assert_eq!(word(&story.state), "watching");
}

#[test]
fn an_answer_that_a_crash_swallowed_is_asked_for_again_after_the_fence() {
    let mut story = deploy_at(Step::Switch);
    let keys = [key(Step::Switch, "lb1"), key(Step::Switch, "lb2")];
    keys.iter().for_each(|key| story.send(key));
    story.restart();
    assert!(story.state.visitors_moved(), "a switch without an answer may have moved visitors");
    story.fence();
    assert_eq!(next(&story.state, story.now), Next::Send(keys.to_vec()));
}

#[test]
fn an_attempt_that_changed_nothing_does_not_wash_off_one_that_may_have() {
    let mut story = deploy_at(Step::Switch);
    story.fail(Step::Switch, &lost());
    story.fail(Step::Switch, &refused());
    record_next(&mut story);
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
}

#[test]
fn a_failure_that_may_have_acted_is_asked_about_again_even_where_a_retry_is_called_useless() {
    let mut story = deploy_at(Step::Switch);
    story.fail(Step::Switch, &refused().aftermath(Aftermath::Unknown));
    story.now = story.now.plus_ms(10_000);
    assert!(matches!(next(&story.state, story.now), Next::Send(keys) if keys.len() == 2));
}

#[test]
fn a_passing_fault_is_tried_only_so_often_on_the_way_forward() {
    let mut story = deploy_at(Step::Stage);
    let passing = refused().retry_useful();
    for _ in 0..story.state.plan.limits.attempts {
        story.now = story.now.plus_ms(10_000);
        assert!(matches!(next(&story.state, story.now), Next::Send(_)));
        story.fail(Step::Stage, &passing);
    }
    assert_eq!(record_next(&mut story), Event::TurnedBack(passing));
}

// -------------------------------------------------------------------------------------------- the way back

#[test]
fn a_switch_that_everyone_refused_is_aborted_and_undone_in_order() {
    let mut story = deploy_at(Step::Switch);
    story.fail(Step::Switch, &refused());
    assert_eq!(drive(&mut story), ["switch", "conceal", "link-back", "discard", "aborted"]);
}

#[test]
fn when_one_balancer_switched_and_the_other_failed_both_go_back() {
    let mut story = deploy_at(Step::Switch);
    story.confirm_on(&key(Step::Switch, "lb1"));
    story.fail(Step::Switch, &refused());
    record_next(&mut story);
    let both = vec![key(Step::RouteBack, "lb1"), key(Step::RouteBack, "lb2")];
    assert_eq!(next(&story.state, story.now), Next::Send(both));
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

/// Visitors of one load balancer have the new version and those of the other do not: that is not tried for a minute.
#[test]
fn one_that_is_lost_while_all_take_the_route_is_asked_again_briefly() {
    let mut story = deploy_at(Step::Switch);
    let lb2 = key(Step::Switch, "lb2");
    story.confirm_on(&key(Step::Switch, "lb1"));
    story.send(&lb2);
    assert_eq!(story.state.attempt_ms(&lb2), story.state.plan.limits.route_ms);
    // Its answer takes as long as an attempt may: it is asked once more all the same, and not for long.
    story.now = story.now.plus_ms(story.state.plan.limits.route_ms);
    story.failed(&lb2, lost());
    story.now = story.now.plus_ms(250);
    assert_eq!(next(&story.state, story.now), Next::Send(vec![lb2.clone()]));
    story.send(&lb2);
    assert_eq!(story.state.attempt_ms(&lb2), 2_000);
    story.failed(&lb2, lost());
    assert!(matches!(record_next(&mut story), Event::TurnedBack(_)));
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

/// Going back from a rollback would lead everybody to what people want to be rid of.
#[test]
fn a_rollback_is_tried_for_longer() {
    let mut story = Story::begun(plan(rollback(), Site::of(2, 1)));
    story.reach(Step::Switch);
    let lb2 = key(Step::Switch, "lb2");
    story.confirm_on(&key(Step::Switch, "lb1"));
    for _ in 1..story.state.plan.limits.attempts {
        story.send(&lb2);
        story.now = story.now.plus_ms(10_000);
        story.failed(&lb2, lost());
        story.now = story.now.plus_ms(10_000);
        assert_eq!(next(&story.state, story.now), Next::Send(vec![lb2.clone()]));
    }
}

#[test]
fn a_failed_step_waits_for_the_answers_that_are_still_out() {
    let mut story = deploy_at(Step::Switch);
    story.send(&key(Step::Switch, "lb1"));
    story.send(&key(Step::Switch, "lb2"));
    story.failed(&key(Step::Switch, "lb1"), refused());
    assert_eq!(next(&story.state, story.now), Next::Await(None));
    story.done(&key(Step::Switch, "lb2"));
    assert!(matches!(record_next(&mut story), Event::TurnedBack(_)));
}

#[test]
fn the_way_back_is_tried_as_long_as_the_plan_says_and_then_held() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    let (since, persist_ms) = (story.now, story.state.plan.limits.persist_ms);
    story.confirm_on(&key(Step::RouteBack, "lb2"));
    while !matches!(next(&story.state, story.now), Next::Record(_)) {
        assert!(story.now < since.plus_ms(persist_ms + 10_000), "tried for ever");
        match next(&story.state, story.now) {
            Next::Send(_) => story.fail(Step::RouteBack, &unreachable()),
            Next::Await(Some(until)) => story.now = until,
            other => panic!("{other:?}"),
        }
    }
    assert!(story.now >= since.plus_ms(persist_ms), "given up early");
    assert_eq!(record_next(&mut story), Event::Held(unreachable()));
    ask(&mut story, RequestKind::Resume);
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn a_maintenance_page_that_cannot_come_down_everywhere_is_held_and_not_put_up_again() {
    let mut story = began(maintenance(false));
    story.confirm_on(&key(Step::Maintain, "lb1"));
    story.fail(Step::Maintain, &refused());
    assert!(matches!(record_next(&mut story), Event::Held(_)));
}

#[test]
fn a_maintenance_page_that_cannot_go_up_everywhere_comes_down_everywhere() {
    let mut story = began(maintenance(true));
    story.confirm_on(&key(Step::Maintain, "lb1"));
    story.fail(Step::Maintain, &refused());
    assert_eq!(drive(&mut story), ["maintain", "unmaintain", "aborted"]);
}

// ----------------------------------------------------------------------------------------------- the watch

#[test]
fn so_many_failed_readings_in_a_row_turn_the_release_back() {
    let mut story = deploy_at(Step::Watch);
    for _ in 1..story.state.plan.watch.fail_after {
        read(&mut story, failing());
        assert_eq!(word(&story.state), "watching");
    }
    read(&mut story, failing());
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn one_good_reading_breaks_the_row() {
    let mut story = deploy_at(Step::Watch);
    for reading in [failing(), failing(), Reading::Pass, failing(), failing()] {
        read(&mut story, reading);
    }
    assert_eq!(drive(&mut story), ["watching", "confirmed"]);
}

#[test]
fn a_failure_that_is_only_remembered_does_not_count_again_and_lets_nothing_go_on() {
    let remembered = || match failing() {
        Reading::Fail(problem) => Reading::Fail(problem.retry_useful()),
        other => other,
    };
    let mut story = deploy_at(Step::Watch);
    let Phase::Watching { until, .. } = story.state.phase else { panic!("it is not watched") };
    for row in 1..story.state.plan.watch.fail_after {
        read(&mut story, failing());
        // Past the end of the watch, too.
        while story.now < until.plus_ms(60_000 * u64::from(row)) {
            let before = story.state.clone();
            read(&mut story, remembered());
            assert_eq!((story.state.watch.failures, word(&story.state)), (row, "watching".to_owned()));
            assert_eq!(story.state.watch, before.watch);
        }
    }
    read(&mut story, failing());
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
    // Whoever begins to watch anew counts it once: the row that it was counted in is gone.
    let mut story = deploy_at(Step::Watch);
    (0..9).for_each(|_| read(&mut story, remembered()));
    assert_eq!(story.state.watch.failures, 1);
    read(&mut story, Reading::Pass);
    assert_eq!(drive(&mut story), ["watching", "confirmed"]);
}

#[test]
fn gates_that_fail_after_the_end_lead_back_by_the_same_row() {
    let story = deploy_at(Step::Watch);
    let of = |readings: &[Reading]| {
        let mut row = WatchProgress::default();
        let mut at = 0;
        let said = readings.iter().map(|reading| {
            at += 10_000;
            match gates_after_end(&story.state, &mut row, reading, Timestamp(at)) {
                AfterEnd::Well => "well".to_owned(),
                AfterEnd::Back(problem) => format!("back {}", problem.code),
                AfterEnd::Told(problem) => format!("told {}", problem.code),
            }
        });
        said.last().unwrap()
    };
    assert_eq!(story.state.plan.watch.fail_after, 3);
    assert_eq!(of(&[failing(), failing()]), "well");
    assert_eq!(of(&[failing(), failing(), failing()]), "back PM0401");
    assert_eq!(of(&[failing(), failing(), Reading::Pass, failing()]), "well");
    // Not what both slots fail, nor what was told before, nor a route that somebody changed.
    assert_eq!(of(&[shared(), shared(), shared()]), "told PM0412");
    assert_eq!(of(&[failing(), failing(), shared()]), "told PM0412");
    assert_eq!(of(&[shared(), failing(), failing(), failing()]), "back PM0401");
    let told_before = Reading::Fail(Problem::new(Code::CheckFailed, "no").retry_useful());
    assert_eq!(of(&[failing(), told_before.clone(), told_before.clone(), told_before]), "well");
    let drift = Reading::Fail(Problem::new(Code::RouteDrift, "another route"));
    assert_eq!(of(&[drift.clone(), drift.clone(), drift]), "told PM0105");
    // What cannot be seen is told when it lasts.
    assert_eq!(story.state.plan.watch.blind_ms, 25_000);
    assert_eq!(of(&[blind(), blind(), blind()]), "well");
    assert_eq!(of(&[blind(), blind(), blind(), blind()]), "told PM0501");
    assert_eq!(of(&[blind(), blind(), blind(), Reading::Pass, blind()]), "well");
    let told_before = Reading::Fail(Problem::new(Code::CheckFailed, "no").retry_useful());
    assert_eq!(of(&[failing(), blind(), blind(), blind(), told_before, blind()]), "well");
}

fn shared() -> Reading {
    Reading::Shared(Problem::new(Code::CheckFailed, "500 instead of 200").cause("the old slot fails it too"))
}

fn held_for(story: &Story) -> Option<(Code, String)> {
    match &story.state.phase {
        Phase::Held { at: HeldAt::Watch(_), why, .. } => Some((why.code, why.message.clone())),
        _ => None,
    }
}

#[test]
fn what_fails_on_both_slots_holds_and_nobody_is_led_to_the_other_one() {
    let mut story = deploy_at(Step::Watch);
    let row = story.state.plan.watch.fail_after;
    for _ in 1..row {
        read(&mut story, shared());
        assert_eq!(word(&story.state), "watching");
    }
    read(&mut story, shared());
    let (code, message) = held_for(&story).unwrap();
    assert_eq!((code, message.as_str()), (Code::SharedFault, "both slots fail: 500 instead of 200"));
    // However long it lasts, it is held, and nothing more is recorded of it.
    let before = story.state.clone();
    for _ in 0..10 * row {
        read(&mut story, shared());
    }
    assert_eq!(story.state, before);
    // Once the old slot is well again, what still fails is the new one alone: a whole row of it.
    for _ in 1..row {
        read(&mut story, failing());
        assert_eq!(word(&story.state), "held");
    }
    read(&mut story, failing());
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn a_fault_of_both_that_is_over_before_the_row_is_full_is_none() {
    let mut story = deploy_at(Step::Watch);
    for reading in [shared(), shared(), Reading::Pass, shared(), Reading::Pass] {
        read(&mut story, reading);
    }
    assert_eq!(drive(&mut story), ["watching", "confirmed"]);
}

#[test]
fn one_slot_is_blamed_only_for_a_whole_row_in_which_the_other_was_well() {
    for readings in
        [[shared(), shared(), failing()], [failing(), failing(), shared()], [shared(), failing(), failing()]]
    {
        let mut story = deploy_at(Step::Watch);
        assert_eq!(story.state.plan.watch.fail_after, 3);
        readings.into_iter().for_each(|reading| read(&mut story, reading));
        assert_eq!(held_for(&story).unwrap().0, Code::SharedFault);
    }
    // What failed on both a while ago is no excuse for what fails now.
    let mut story = deploy_at(Step::Watch);
    for reading in [shared(), Reading::Pass, failing(), failing(), failing()] {
        read(&mut story, reading);
    }
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn only_what_checks_ask_for_can_be_asked_of_the_old_slot() {
    let of = |codes: &[Code]| -> Vec<Result<(), Problem>> {
        codes.iter().map(|code| Err(Problem::new(*code, "no"))).chain([Ok(())]).collect()
    };
    assert!(checks_alone_fail(&of(&[Code::CheckFailed, Code::AgentUnreachable])));
    assert!(!checks_alone_fail(&of(&[Code::CheckFailed, Code::BackendUnhealthy])));
    assert!(!checks_alone_fail(&of(&[Code::RouteDrift])));
    assert!(!checks_alone_fail(&of(&[Code::AgentUnreachable])));
    let told_before = Problem::new(Code::CheckFailed, "no").retry_useful();
    assert!(!checks_alone_fail(&[Err(told_before)]));
}

#[test]
fn a_failure_that_is_seen_now_stands_before_one_that_is_remembered() {
    let problem = |message: &str| Problem::new(Code::CheckFailed, message);
    let (old, new) = (problem("old").retry_useful(), problem("new"));
    let join = |all: [&Problem; 2]| join_readings(all.map(|problem| Err(problem.clone())));
    assert_eq!(join([&old, &new]), Reading::Fail(new.clone()));
    assert_eq!(join([&new, &old]), Reading::Fail(new));
    // What is new is that somebody cannot be asked.
    assert_eq!(join([&unreachable(), &old]), Reading::Unknown(unreachable()));
    assert_eq!(join([&old, &unreachable()]), Reading::Unknown(unreachable()));
    assert_eq!(join_readings([Ok(()), Err(old.clone())]), Reading::Fail(old));
}

#[test]
fn what_is_told_again_ends_a_blind_stretch_and_counts_nothing() {
    let told_again = || match failing() {
        Reading::Fail(problem) => Reading::Fail(problem.retry_useful()),
        other => other,
    };
    let mut story = deploy_at(Step::Watch);
    let until = |story: &Story| match story.state.phase {
        Phase::Watching { until, .. } => until,
        _ => panic!("it is not watched"),
    };
    read(&mut story, failing());
    read(&mut story, blind());
    let (since, before) = (story.state.watch.blind.clone().unwrap().since, until(&story));
    read(&mut story, blind());
    read(&mut story, told_again());
    // What nobody saw does not count as watched, and a failure counts once.
    assert_eq!((story.state.watch.failures, story.state.watch.blind.as_ref()), (1, None));
    let lost_ms = story.state.entered_at.0.max(story.now.0) - since.0;
    assert!(until(&story) > before && until(&story).ms_since(before) <= lost_ms, "{lost_ms}");
    // Another stretch has its whole patience: it is not one with the first.
    let (blind_ms, interval_ms) = (story.state.plan.watch.blind_ms, story.state.plan.watch.interval_ms);
    read(&mut story, blind());
    let again = story.state.watch.blind.clone().unwrap().since;
    assert!(again > since);
    while story.now.plus_ms(interval_ms) < again.plus_ms(blind_ms) {
        read(&mut story, blind());
        assert_eq!(word(&story.state), "watching");
    }
}

#[test]
fn without_automatic_rollback_a_failing_watch_holds_and_stays_armed_for_a_person() {
    let mut by_hand = plan(deploy(), Site::of(2, 1));
    by_hand.automatic_rollback = false;
    let mut story = Story::begun(by_hand);
    story.reach(Step::Watch);
    for _ in 0..2 * story.state.plan.watch.fail_after {
        read(&mut story, failing());
    }
    assert!(matches!(story.state.phase, Phase::Held { at: HeldAt::Watch(_), .. }));
    assert_eq!(next(&story.state, story.now), Next::ReadGates);
    ask(&mut story, RequestKind::Rollback);
    assert_eq!(drive(&mut story), ["held", "route-back", "rolled-back"]);
}

#[test]
fn a_restart_begins_the_watch_anew() {
    let mut story = deploy_at(Step::Watch);
    let watch = story.state.plan.watch;
    for _ in 1..watch.fail_after {
        read(&mut story, failing());
    }
    story.restart();
    assert_eq!(
        story.state.phase,
        Phase::Watching { after: Step::Switch, until: story.now.plus_ms(watch.duration_ms) }
    );
    story.fence();
    read(&mut story, failing());
    assert_eq!(word(&story.state), "watching", "failures from before the restart no longer count");
}

#[test]
fn a_watch_that_is_blind_too_long_is_held_and_never_confirmed() {
    let mut story = deploy_at(Step::Watch);
    let watch = story.state.plan.watch;
    read(&mut story, blind());
    let since = story.now;
    while matches!(story.state.phase, Phase::Watching { .. }) {
        read(&mut story, blind());
    }
    assert!(matches!(story.state.phase, Phase::Held { at: HeldAt::Watch(_), .. }));
    assert!(story.now.ms_since(since) >= watch.blind_ms);
}

#[test]
fn a_release_held_at_its_watch_still_turns_back_when_the_gates_fail() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::Held(unreachable()));
    for _ in 0..story.state.plan.watch.fail_after {
        assert_eq!(next(&story.state, story.now), Next::ReadGates);
        read(&mut story, failing());
    }
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn a_release_held_at_its_watch_is_never_confirmed_by_itself() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::Held(unreachable()));
    for _ in 0..20 {
        read(&mut story, Reading::Pass);
    }
    assert_eq!(word(&story.state), "held");
    ask(&mut story, RequestKind::Resume);
    assert_eq!(drive(&mut story), ["watching", "confirmed"]);
}

#[test]
fn the_watch_lasts_its_whole_time() {
    let mut story = deploy_at(Step::Watch);
    let since = story.now;
    drive(&mut story);
    assert!(story.state.entered_at.ms_since(since) >= story.state.plan.watch.duration_ms);
}

// ------------------------------------------------------------------------------------ what people ask for

#[test]
fn an_abort_during_the_transfer_gives_the_transfer_up() {
    let mut story = deploy_at(Step::Stage);
    let transfer = key(Step::Stage, "green1");
    story.send(&transfer);
    ask(&mut story, RequestKind::Abort);
    assert_eq!(next(&story.state, story.now), Next::GiveUp(vec![transfer]));
    assert_eq!(drive(&mut story), ["stage", "discard", "aborted"]);
}

#[test]
fn an_abort_waits_for_every_other_answer() {
    let mut story = deploy_at(Step::Activate);
    story.send(&key(Step::Activate, "green1"));
    ask(&mut story, RequestKind::Abort);
    assert_eq!(next(&story.state, story.now), Next::Await(None));
    story.done(&key(Step::Activate, "green1"));
    assert_eq!(drive(&mut story), ["expose", "link-back", "discard", "aborted"]);
}

#[test]
fn an_abort_before_anything_was_touched_refuses_the_release() {
    let mut story = Story::planned(plan(deploy(), Site::of(2, 1)));
    ask(&mut story, RequestKind::Abort);
    assert_eq!(drive(&mut story), ["preflight", "refused"]);
}

#[test]
fn an_abort_after_the_switch_is_refused_and_the_hint_names_rollback() {
    let mut story = deploy_at(Step::Watch);
    let problem = possible(&story.state, RequestKind::Abort).unwrap_err();
    assert_eq!(problem.code, Code::NotPossibleNow);
    assert_eq!(problem.hint, "`pointsman rollback production` moves them back");
    ask(&mut story, RequestKind::Rollback);
    assert_eq!(drive(&mut story), ["watching", "route-back", "rolled-back"]);
}

#[test]
fn a_rollback_asked_for_during_the_switch_waits_for_the_balancers_and_takes_all_back() {
    let mut story = deploy_at(Step::Switch);
    story.send(&key(Step::Switch, "lb1"));
    ask(&mut story, RequestKind::Rollback);
    assert_eq!(next(&story.state, story.now), Next::Await(None));
    story.failed(&key(Step::Switch, "lb1"), lost());
    assert_eq!(drive(&mut story), ["switch", "route-back", "rolled-back"]);
}

#[test]
fn on_the_way_back_nothing_but_resume_is_taken_and_the_hint_says_so() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    story.fail(Step::RouteBack, &refused());
    record_next(&mut story);
    for kind in [RequestKind::Abort, RequestKind::Rollback] {
        let problem = possible(&story.state, kind).unwrap_err();
        assert_eq!(problem.hint, "`pointsman resume production` tries again");
    }
    ask(&mut story, RequestKind::Resume);
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn a_resumed_release_tries_again_what_it_was_held_at() {
    let mut story = began(maintenance(false));
    story.confirm_on(&key(Step::Maintain, "blue1"));
    story.fail(Step::Maintain, &refused());
    record_next(&mut story);
    ask(&mut story, RequestKind::Resume);
    let balancers = vec![key(Step::Maintain, "lb1"), key(Step::Maintain, "lb2")];
    assert_eq!(next(&story.state, story.now), Next::Send(balancers));
    assert_eq!(drive(&mut story), ["maintain", "confirmed"]);
}

#[test]
fn nothing_can_be_asked_of_a_release_that_is_over() {
    let mut story = began(deploy());
    drive(&mut story);
    for kind in RequestKind::ALL {
        assert_eq!(possible(&story.state, kind).unwrap_err().code, Code::NotPossibleNow);
    }
}

// ------------------------------------------------------------------------------------- unreachable agents

#[test]
fn an_agent_that_cannot_be_reached_before_anything_was_touched_refuses_the_release() {
    let mut story = Story::planned(plan(deploy(), Site::of(2, 1)));
    story.tell(Event::Fenced(host("lb1")));
    assert_eq!(fence_failed(&story.state, story.now, unreachable()), None, "patience first");
    story.now = story.now.plus_ms(story.state.plan.limits.inspect_ms);
    story.tell(fence_failed(&story.state, story.now, unreachable()).unwrap());
    assert_eq!(outcome(&story), Some(Outcome::Refused));
}

#[test]
fn an_agent_that_cannot_be_reached_after_a_restart_holds_a_release_that_touched_something() {
    let mut story = deploy_at(Step::Drain);
    story.restart();
    let persist_ms = story.state.plan.limits.persist_ms;
    assert_eq!(fence_failed(&story.state, story.now.plus_ms(persist_ms - 1), unreachable()), None);
    story.now = story.now.plus_ms(persist_ms);
    story.tell(fence_failed(&story.state, story.now, unreachable()).unwrap());
    assert!(matches!(story.state.phase, Phase::Held { at: HeldAt::Step(Step::Drain), .. }));
}

// ---------------------------------------------------------------------------- what is live when it is over

fn live(slot: &str, release: &str) -> LiveRelease {
    LiveRelease { slot: slot.parse().unwrap(), release: Some(release.parse().unwrap()), artifact: Some(NEW) }
}

#[test]
fn a_confirmed_deploy_is_live_and_what_was_live_is_where_a_rollback_leads() {
    let mut standing = Standing { live: Some(live("blue", "r1")), ..Standing::default() };
    let mut story = began(deploy());
    drive(&mut story);
    standing.fold(&story.state);
    assert_eq!(standing.live, Some(live("green", "r2")));
    assert_eq!(standing.previous, Some(live("blue", "r1")));
}

#[test]
fn a_rolled_back_deploy_changes_nothing_that_is_live_and_leads_nowhere() {
    let before = Standing {
        live: Some(live("blue", "r1")),
        previous: Some(live("green", "r0")),
        slots: [(live("green", "r0").slot, live("green", "r0"))].into(),
        ..Standing::default()
    };
    let mut standing = before.clone();
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    drive(&mut story);
    standing.fold(&story.state);
    assert_eq!(standing.live, before.live);
    assert_eq!((standing.previous, standing.slots.len()), (None, 0));
    let turned = standing.turned_back.unwrap();
    assert_eq!((turned.what, turned.at), (live("green", "r2"), story.state.entered_at));
    assert_eq!(turned.why, refused().message);
}

/// Green has r2, which is live, and blue r1, which was before.
fn after_r2() -> Standing {
    Standing {
        live: Some(live("green", "r2")),
        previous: Some(live("blue", "r1")),
        slots: [live("green", "r2"), live("blue", "r1")].map(|live| (live.slot.clone(), live)).into(),
        ahead_of_live: ["9".to_owned()].into(),
        ahead_of_previous: ["8".to_owned(), "9".to_owned()].into(),
        ..Standing::default()
    }
}

/// Everybody is led from green to blue, as it was planned with this.
fn led_back(change: fn(&mut Plan)) -> State {
    let mut plan = plan(rollback(), Site::of(2, 1));
    let green = plan.to.clone();
    plan.to = plan.from.replace(green).unwrap();
    plan.route_before = "be_green:be_blue:0:40".parse().unwrap();
    plan.links_before = [(host("b1"), Some(plans::OLD))].into();
    change(&mut plan);
    let mut story = Story::begun(plan);
    drive(&mut story);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));
    story.state
}

#[test]
fn no_rollback_leads_to_what_a_rollback_led_away_from_because_it_was_ill() {
    let found: fn(&mut Plan) = |plan| plan.found_ill = Some("errors on `green`".to_owned());
    // A version of before kept nothing but who began it, and its reason.
    let of_before: fn(&mut Plan) = |plan| {
        plan.created_by = "pointsman".to_owned();
        plan.reason = Some("after its end: errors on `green`".to_owned());
    };
    for ill in [found, of_before] {
        let (mut standing, state) = (after_r2(), led_back(ill));
        standing.fold(&state);
        assert_eq!(standing.live.as_ref().map(|live| live.slot.as_str()), Some("blue"));
        assert_eq!((&standing.previous, standing.slots.len()), (&None, 1));
        let turned = TurnedBack {
            what: live("green", "r2"),
            at: state.entered_at,
            why: "errors on `green`".to_owned(),
        };
        assert_eq!(standing.turned_back, Some(turned.clone()));
        assert_eq!((standing.ahead_of_live.len(), standing.ahead_of_previous.len()), (2, 0));

        // What moves nobody there leaves it so, and what becomes live there ends it.
        let mut aborted = deploy_at(Step::Drain);
        aborted.tell(Event::TurnedBack(refused()));
        drive(&mut aborted);
        standing.fold(&aborted.state);
        assert_eq!((&standing.turned_back, &standing.previous), (&Some(turned), &None));
        let mut anew = began(deploy());
        drive(&mut anew);
        standing.fold(&anew.state);
        assert_eq!((standing.turned_back, standing.previous.unwrap().slot.as_str()), (None, "blue"));
    }
}

#[test]
fn a_rollback_against_whose_release_nothing_was_found_is_itself_the_way_forward_again() {
    for by in ["operator ada", "ci pointsman"] {
        let mut standing = after_r2();
        let mut state = led_back(|plan| plan.reason = Some("after its end: a look".to_owned()));
        std::sync::Arc::make_mut(&mut state.plan).created_by = by.to_owned();
        standing.fold(&state);
        assert_eq!((standing.previous, standing.turned_back), (Some(live("green", "r2")), None));
    }
}

/// A version of before folded the rollback, left the way open, and wrote that down.
#[test]
fn a_way_that_was_left_open_to_what_was_ill_is_closed() {
    let ill = led_back(|plan| plan.found_ill = Some("errors".to_owned()));
    let of_before = Standing {
        live: Some(live("blue", "r1")),
        previous: Some(live("green", "r2")),
        ..Standing::default()
    };
    let minded = |state: &State| {
        let mut standing = of_before.clone();
        standing.mind_what_was_ill(state);
        (standing.previous, standing.turned_back.map(|turned| turned.what))
    };
    assert_eq!(minded(&ill), (None, Some(live("green", "r2"))));
    assert_eq!(minded(&led_back(|_| ())), (of_before.previous.clone(), None));
}

#[test]
fn a_deploy_that_ended_before_the_switch_leaves_everything_standing() {
    let before = Standing {
        live: Some(live("blue", "r1")),
        previous: Some(live("green", "r0")),
        ..Standing::default()
    };
    for reached in [Step::Preflight, Step::Drain, Step::Expose, Step::Switch] {
        let mut standing = before.clone();
        let mut story = deploy_at(reached);
        story.tell(Event::TurnedBack(refused()));
        drive(&mut story);
        standing.fold(&story.state);
        assert_eq!((standing.live, standing.previous), (before.live.clone(), before.previous.clone()));
    }
}

// ------------------------------------------------------------------- rules that are easily broken unnoticed

/// Nobody watches while agents are being fenced, so that time must not count as watched.
#[test]
fn the_watch_does_not_run_out_while_nobody_can_watch() {
    let mut patient = plan(deploy(), Site::of(2, 1));
    patient.limits.persist_ms = 2 * patient.watch.duration_ms;
    let mut story = Story::begun(patient);
    story.reach(Step::Watch);
    story.restart();
    // One agent is slow to acknowledge: as long as the watch lasts, and shorter than anybody gives up.
    story.now = story.now.plus_ms(story.state.plan.watch.duration_ms);
    story.fence();
    read(&mut story, Reading::Pass);
    assert_eq!(word(&story.state), "watching", "one single reading confirmed the release");
}

/// A reading that failed was a reading: the gates were not blind then.
#[test]
fn a_failed_reading_ends_the_blindness() {
    let mut story = deploy_at(Step::Watch);
    read(&mut story, blind());
    read(&mut story, failing());
    read(&mut story, failing());
    read(&mut story, blind());
    assert_eq!(word(&story.state), "watching", "blind only since the last reading");
}

fn watch_ends(story: &Story) -> Timestamp {
    match story.state.phase {
        Phase::Watching { until, .. } => until,
        ref other => panic!("not watching: {other:?}"),
    }
}

/// What nobody saw does not count as watched, whatever was seen after it.
#[test]
fn a_blind_stretch_puts_the_end_of_the_watch_off() {
    for after in [Reading::Pass, failing()] {
        let mut story = deploy_at(Step::Watch);
        let planned = watch_ends(&story);
        read(&mut story, blind());
        let since = story.now;
        story.now = story.now.plus_ms(700);
        read(&mut story, after);
        assert_eq!(watch_ends(&story), planned.plus_ms(story.now.ms_since(since)));
    }
}

/// A release is not confirmed by the first good reading after a failure.
#[test]
fn a_failure_is_followed_by_a_clear_stretch() {
    let mut story = deploy_at(Step::Watch);
    story.now = watch_ends(&story);
    read(&mut story, failing());
    read(&mut story, Reading::Pass);
    assert_eq!(word(&story.state), "watching");
    assert!(watch_ends(&story) > story.now);
    story.now = watch_ends(&story);
    read(&mut story, Reading::Pass);
    assert_eq!(word(&story.state), "confirmed");
}

/// Preflight changes nothing, so it is not what turns "refused" into "held".
#[test]
fn an_unreachable_agent_refuses_a_release_that_has_only_looked() {
    let mut story = began(deploy());
    story.confirm_on(&key(Step::Preflight, "lb1"));
    story.restart();
    story.now = story.now.plus_ms(story.state.plan.limits.inspect_ms);
    let decided = fence_failed(&story.state, story.now, unreachable());
    assert_eq!(decided, Some(Event::TurnedBack(unreachable())));
}

/// What was accepted happens, or is answered: it is not forgotten because an answer came first.
#[test]
fn an_accepted_request_is_not_forgotten_when_the_last_step_ends_well() {
    for (purpose, step, kind) in [
        (rollback(), Step::Switch, RequestKind::Rollback),
        (maintenance(true), Step::Maintain, RequestKind::Abort),
    ] {
        let mut story = began(purpose);
        story.reach(step);
        let keys = story.left(step);
        keys.iter().for_each(|key| story.send(key));
        ask(&mut story, kind);
        keys.iter().for_each(|key| story.done(key));
        assert_ne!(outcome(&story), Some(Outcome::Confirmed), "{} was accepted and forgotten", kind.as_str());
    }
}

/// Gates are read while requests come in: a pass that was under way must not overtake an accepted request.
#[test]
fn a_good_reading_does_not_overtake_a_rollback_that_was_asked_for() {
    let mut story = deploy_at(Step::Watch);
    ask(&mut story, RequestKind::Rollback);
    story.now = story.now.plus_ms(story.state.plan.watch.duration_ms);
    let decided = gates_read(&story.state, None, story.now, Reading::Pass);
    assert!(!decided.contains(&Event::WatchPassed), "{decided:?}");
    let passed = Stamped { at: story.now, event: Event::WatchPassed };
    assert!(apply(&story.state, &passed).is_err(), "the journal would take it");
}

/// A journal that lost its end says that nobody was moved. Only the load balancers know better, and are heard before what
/// a host serves is changed.
#[test]
fn the_links_go_back_only_when_the_balancers_have_acknowledged_this_journal() {
    let mut story = deploy_at(Step::Activate);
    story.confirm(Step::Activate);
    story.restart();
    story.tell(Event::Fenced(host("green1")));
    story.tell(Event::TurnedBack(unreachable()));
    assert_eq!(story.state.phase, Phase::Doing(Step::LinkBack));
    assert_eq!(next(&story.state, story.now), Next::Fence(vec![host("lb1"), host("lb2")]));
    let knows_more = Problem::new(Code::JournalBehind, "the agent has acted on a newer entry");
    let decided = fence_failed(&story.state, story.now, knows_more.clone());
    assert_eq!(decided, Some(Event::Held(knows_more)));
    story.tell(Event::Fenced(host("lb1")));
    story.tell(Event::Fenced(host("lb2")));
    assert_eq!(next(&story.state, story.now), Next::Send(vec![key(Step::LinkBack, "green1")]));
}

/// The way back asks only the load balancers: a dead host of the new slot, the very reason to go back, must not
/// keep visitors on it because the coordinator was restarted.
#[test]
fn a_dead_host_of_the_new_slot_does_not_keep_visitors_there_after_a_restart() {
    let mut story = deploy_at(Step::Watch);
    story.restart();
    story.tell(Event::Fenced(host("lb1")));
    story.tell(Event::Fenced(host("lb2")));
    story.tell(Event::TurnedBack(unreachable()));
    let both = vec![key(Step::RouteBack, "lb1"), key(Step::RouteBack, "lb2")];
    assert_eq!(next(&story.state, story.now), Next::Send(both));
}

/// On the way back only time ends the attempts, and time in which nobody tried is not such time.
#[test]
fn the_way_back_is_not_given_up_because_the_coordinator_was_away() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    story.now = story.now.plus_ms(2 * story.state.plan.limits.persist_ms);
    story.restart();
    story.fence();
    story.fail(Step::RouteBack, &unreachable());
    assert!(
        !matches!(next(&story.state, story.now), Next::Record(Event::Held(_))),
        "held after one try that failed in passing"
    );
}

/// The clock may jump back; a retry then comes at once or after its pause, not after the jump.
#[test]
fn a_clock_that_was_set_back_does_not_delay_the_way_back() {
    let mut story = deploy_at(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    story.fail(Step::RouteBack, &unreachable());
    let now = Timestamp(story.now.0 - 3_600_000);
    let soon = match next(&story.state, now) {
        Next::Send(_) => true,
        Next::Await(Some(until)) => until.ms_since(now) <= 10_000,
        _ => false,
    };
    assert!(soon, "{:?} at {now:?}", next(&story.state, now));
}

/// How long it was tried is what really passed, whatever day the clock says it is.
#[test]
fn a_clock_that_was_set_ends_no_patience_and_lengthens_none() {
    const DAY_MS: u64 = 86_400_000;
    let mut back = deploy_at(Step::Watch);
    back.tell(Event::TurnedBack(refused()));
    back.fail(Step::RouteBack, &unreachable());
    let mut fencing = deploy_at(Step::Drain);
    fencing.restart();
    for story in [&mut back, &mut fencing] {
        let persist_ms = story.state.plan.limits.persist_ms;
        for now in [Timestamp(story.now.0 - DAY_MS), story.now, story.now.plus_ms(DAY_MS)] {
            let held = |waited_ms| match machine::next(&story.state, now, waited_ms) {
                Next::Fence(_) => machine::fence_failed(&story.state, waited_ms, unreachable()),
                Next::Record(event) => Some(event),
                _ => None,
            };
            assert_eq!(held(persist_ms - 1), None, "given up early at {now:?}");
            assert_eq!(held(persist_ms), Some(Event::Held(unreachable())), "tried on at {now:?}");
        }
    }
}

/// The clock is set back in the middle of a reading: what is left of the watch stays left, to the second, and the blind
/// stretch is no hour long.
#[test]
fn a_clock_that_is_set_during_a_reading_makes_no_watch_longer() {
    for by_ms in [3_600_000_i64, -3_600_000, 86_400_000, -86_400_000] {
        let mut story = deploy_at(Step::Watch);
        read(&mut story, Reading::Pass);
        let (last, left_ms) = (story.now, watch_ends(&story).ms_since(story.now));
        let began = story.now.plus_ms(story.state.plan.watch.interval_ms);
        story.now = Timestamp(began.0.saturating_add_signed(by_ms));
        let reading = timely(&story.state, began, story.now, Reading::Pass);
        let began = machine::read_at(began, story.now, &reading);
        for event in gates_read(&story.state, Some(last), began, reading) {
            story.tell(event);
        }
        let seen_again = story.now.plus_ms(1_000);
        for event in gates_read(&story.state, Some(began), seen_again, Reading::Pass) {
            story.tell(event);
        }
        let longer_ms = watch_ends(&story).ms_since(began).abs_diff(left_ms);
        assert!(longer_ms < 10_000, "set by {by_ms} ms: {longer_ms} ms more or less are left");
    }
}

/// One reading in which nobody saw is no day of blindness.
#[test]
fn a_clock_that_was_set_makes_no_watch_blind_for_long() {
    let mut story = deploy_at(Step::Watch);
    read(&mut story, blind());
    let last = story.now;
    story.now = story.now.plus_ms(86_400_000);
    for event in gates_read(&story.state, Some(last), story.now, blind()) {
        story.tell(event);
    }
    assert_eq!(word(&story.state), "watching");
    story.now = story.now.plus_ms(story.state.plan.watch.blind_ms - 1_000);
    let decided = gates_read(&story.state, Some(Timestamp(story.now.0 - 1_000)), story.now, blind());
    assert_eq!(decided, [Event::Held(unreachable())], "and what is blind for long is held");
}

/// Taking the page down failed and was undone: the page is up as before, since when and by whom as before.
#[test]
fn a_maintenance_page_that_stayed_up_keeps_who_put_it_up_and_until_when() {
    let mut standing = Standing::default();
    let bound = Some(CREATED_AT.plus_ms(3_600_000));
    let mut up = began(Purpose::Maintenance { on: true, until: bound });
    drive(&mut up);
    standing.fold(&up.state);
    let before = standing.maintenance.clone();
    assert_eq!(before.as_ref().and_then(|page| page.until), bound);

    let mut down_plan = plan(maintenance(false), Site::of(2, 1));
    down_plan.created_by = "bob".to_owned();
    let mut down = Story::begun(down_plan);
    down.fail(Step::Maintain, &lost());
    ask(&mut down, RequestKind::Abort);
    drive(&mut down);
    assert_eq!(outcome(&down), Some(Outcome::Aborted));
    standing.fold(&down.state);
    assert_eq!(standing.maintenance, before);
}

/// A second `maintenance on` that is called off leaves the page as it stood: up.
#[test]
fn a_page_that_was_up_before_is_not_taken_down_by_the_way_back() {
    let mut story = Story::begun(plan(maintenance(true), Site { page_up: true, ..Site::of(2, 1) }));
    story.fail(Step::Maintain, &lost());
    ask(&mut story, RequestKind::Abort);
    drive(&mut story);
    assert_eq!(outcome(&story), Some(Outcome::Aborted));
    let (now, before) = (story.state.route(), &story.state.plan.route_before);
    assert!(now.same_decision(before), "`{now}` instead of `{before}`");
}

/// What an agent could not say is not what it did: `Changed` counts as touched like `Unknown` does.
#[test]
fn a_failure_with_a_lasting_effect_is_undone() {
    let mut story = deploy_at(Step::Activate);
    story.fail(Step::Activate, &refused().aftermath(Aftermath::Changed));
    assert_eq!(drive(&mut story), ["activate", "link-back", "discard", "aborted"]);
}

// ---------------------------------------------------------------------------------------------------- canary

/// A deploy with two splits that stands in a step.
fn canary_at(step: Step) -> Story {
    let mut story = Story::begun(plan(deploy(), Site { splits: &[10, 50], ..Site::of(2, 1) }));
    story.reach(step);
    story
}

#[test]
fn a_canary_moves_share_after_share_and_watches_each() {
    let mut story = Story::planned(plan(deploy(), Site { splits: &[10, 50], ..Site::of(2, 1) }));
    assert_eq!(
        drive(&mut story)[5..],
        ["check", "canary-1", "watching", "canary-2", "watching", "switch", "watching", "confirmed"]
    );
    let routes: Vec<String> = story
        .state
        .plan
        .steps()
        .iter()
        .filter_map(|step| story.state.plan.route(*step))
        .map(|route| route.to_string())
        .collect();
    assert_eq!(
        routes,
        [
            "be_blue:be_green:0:13",
            "be_blue:be_green:10:14",
            "be_blue:be_green:50:15",
            "be_green:be_blue:0:16"
        ]
    );
}

/// Every move accepts only the route of the one before it; the way back accepts all that may stand.
#[test]
fn each_split_follows_on_the_one_before_it() {
    let story = canary_at(Step::Canary(1));
    let expected = |step| match story.state.plan.action(step, &host("lb1")) {
        Some(pointsman_core::Action::SetRoute { expected, .. }) => {
            expected.into_iter().map(|route| (route.percent, route.epoch.0)).collect::<Vec<_>>()
        }
        other => panic!("no route is set: {other:?}"),
    };
    assert_eq!(expected(Step::Canary(1)), [(0, 13)]);
    assert_eq!(expected(Step::Canary(2)), [(10, 14)]);
    assert_eq!(expected(Step::Switch), [(50, 15)]);
    assert_eq!(expected(Step::RouteBack), [(0, 10), (0, 13), (10, 14), (50, 15), (0, 16)]);
    let back = story.state.plan.route(Step::RouteBack).map(|route| route.epoch.0);
    assert_eq!(back, Some(18), "the way back is newer than everything that was set");
}

/// Who is led back, or to the page by a person, is led there though nobody can keep it yet; forward nothing is done on trust.
#[test]
fn only_what_leads_back_says_so() {
    let back = |plan: &pointsman_core::Plan, step| match plan.action(step, &host("lb1")) {
        Some(pointsman_core::Action::SetRoute { back, .. }) => back,
        other => panic!("no route is set: {other:?}"),
    };
    let canary = canary_at(Step::Canary(1));
    for step in [Step::Expose, Step::Canary(1), Step::Switch] {
        assert!(!back(&canary.state.plan, step), "{step}");
    }
    for step in [Step::RouteBack, Step::Conceal] {
        assert!(back(&canary.state.plan, step), "{step}");
    }
    assert!(back(&plan(rollback(), Site::of(2, 1)), Step::Switch));
    for on in [true, false] {
        let page = plan(maintenance(on), Site::of(2, 1));
        assert!(back(&page, Step::Maintain) && back(&page, Step::Unmaintain), "{on}");
    }
}

#[test]
fn a_canary_that_fails_its_visitors_is_rolled_back_before_the_others_follow() {
    let mut story = canary_at(Step::Canary(1));
    story.confirm(Step::Canary(1));
    for _ in 0..story.state.plan.watch.fail_after {
        read(&mut story, failing());
    }
    assert_eq!(story.state.phase, Phase::Doing(Step::RouteBack));
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
    assert!(!story.state.touched(Step::Switch));
}

/// A release that was held behind a split moves nobody on what was seen before.
#[test]
fn a_split_that_was_watched_long_ago_is_watched_again() {
    let mut story = canary_at(Step::Canary(2));
    story.now = story.now.plus_ms(story.state.plan.limits.gate_ttl_ms + 1);
    assert_eq!(record_next(&mut story), Event::GatesExpired);
    let until = story.now.plus_ms(20_000);
    assert_eq!(story.state.phase, Phase::Watching { after: Step::Canary(1), until });
    assert_eq!(drive(&mut story)[1..3], ["canary-2", "watching"]);
}

/// Who promotes says that it is enough, not that it is well: the gates still have to be green.
#[test]
fn a_promotion_waits_for_green_gates_and_for_nothing_else() {
    let mut story = canary_at(Step::Canary(1));
    assert!(possible(&story.state, RequestKind::Promote).is_err(), "nobody is watched yet");
    story.confirm(Step::Canary(1));
    ask(&mut story, RequestKind::Promote);
    assert_eq!(next(&story.state, story.now), Next::ReadGates);
    read(&mut story, failing());
    assert_eq!(word(&story.state), "watching");
    read(&mut story, Reading::Pass);
    assert_eq!(word(&story.state), "watching", "the first good reading after a failure");
    read(&mut story, Reading::Pass);
    assert_eq!(story.state.phase, Phase::Doing(Step::Canary(2)));
    assert_eq!(story.state.asked, None);
    story.confirm(Step::Canary(2));
    assert_eq!(next(&story.state, story.now), Next::ReadGates);
    read(&mut story, Reading::Pass);
    assert_eq!(word(&story.state), "watching", "one promotion is of one watch");
}

/// The coordinator stood still while it waited for the gates, or its clock was set: what they said then promotes nobody,
/// and turns nobody back.
#[test]
fn gates_that_were_asked_before_a_standstill_say_nothing_of_now() {
    let mut story = canary_at(Step::Canary(1));
    story.confirm(Step::Canary(1));
    ask(&mut story, RequestKind::Promote);
    let (began, longest_ms) = (story.now, story.state.plan.reading_ms() + 1_000);
    for now in [began.plus_ms(longest_ms + 1), began.plus_ms(400_000), Timestamp(began.0 - 1)] {
        for reading in [Reading::Pass, failing()] {
            let read = timely(&story.state, began, now, reading);
            assert!(matches!(read, Reading::Unknown(_)), "{read:?}");
            let decided = gates_read(&story.state, None, began, read.clone());
            assert_eq!(decided, [Event::GatesRead(read)]);
        }
    }
    for reading in [Reading::Pass, failing(), blind()] {
        assert_eq!(timely(&story.state, began, began.plus_ms(longest_ms), reading.clone()), reading);
    }
}

#[test]
fn whoever_wants_back_is_heard_before_a_promotion() {
    let mut story = canary_at(Step::Canary(1));
    story.confirm(Step::Canary(1));
    ask(&mut story, RequestKind::Promote);
    ask(&mut story, RequestKind::Rollback);
    assert!(matches!(record_next(&mut story), Event::TurnedBack(_)));
    assert_eq!(drive(&mut story), ["route-back", "rolled-back"]);
}

#[test]
fn a_restart_begins_the_watch_of_a_split_anew() {
    let mut story = canary_at(Step::Canary(1));
    story.confirm(Step::Canary(1));
    let planned = watch_ends(&story);
    story.now = story.now.plus_ms(10_000);
    story.restart();
    story.fence();
    assert_eq!(watch_ends(&story), story.now.plus_ms(20_000));
    assert!(watch_ends(&story) > planned);
}

#[test]
fn who_was_moved_is_led_back_where_there_is_no_room_to_go_on_and_nobody_else() {
    let follows = |story: &Story| machine::no_room(&story.state, Problem::new(Code::JournalFull, "no room"));
    for step in [Step::Preflight, Step::Stage, Step::Activate, Step::Expose, Step::Check, Step::Switch] {
        assert_eq!(follows(&deploy_at(step)), None, "{step}: nobody is moved yet");
    }
    let mut story = deploy_at(Step::Switch);
    story.send(&key(Step::Switch, "lb1"));
    assert_eq!(follows(&story), None, "what is out may be the switch itself");
    story.done(&key(Step::Switch, "lb1"));
    let event = follows(&story).unwrap();
    assert!(matches!(event, Event::TurnedBack(_)), "{event:?}");
    story.tell(event);
    assert_eq!(follows(&story), None, "it is on its way back already");
    assert_eq!(drive(&mut story).last().map(String::as_str), Some("rolled-back"));

    let mut split = Story::begun(plan(deploy(), Site { splits: &[10], ..Site::of(2, 1) }));
    split.reach(Step::Switch);
    assert!(matches!(follows(&split), Some(Event::TurnedBack(_))), "some are on the new slot");
    // Nobody is led before the page, or from it, by a disk.
    assert_eq!(follows(&began(maintenance(true))), None);
}

#[test]
fn what_decides_about_visitors_or_leads_back_does_not_wait_for_room() {
    let rollback = plan(rollback(), Site::of(2, 1));
    let deploy = plan(deploy(), Site::of(2, 1));
    let intended = |step| Event::OrderIntended { key: key(step, "lb1"), attempt: 1 };
    for (event, leads_on) in [
        (intended(Step::Switch), true),
        (intended(Step::RouteBack), false),
        (Event::Planned(std::sync::Arc::new(deploy.clone())), true),
        (Event::Planned(std::sync::Arc::new(rollback.clone())), false),
        (Event::GatesExpired, true),
        (Event::GatesRead(failing()), false),
        (Event::WatchPassed, false),
        (Event::TurnedBack(unreachable()), false),
        (Event::OrderFailed { key: key(Step::Switch, "lb1"), problem: unreachable() }, false),
    ] {
        assert_eq!(event.leads_on(Some(&deploy)), leads_on, "{event:?}");
    }
    assert!(!intended(Step::Switch).leads_on(Some(&rollback)));
}
