//! A release that is held on its way back for what is gone for good, and the way out of that: told as short stories.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that goes another way is a failed test")]

mod plans;
mod story;
mod waited;

use std::collections::BTreeMap;

use plans::{NEW, OLD, Site, deploy, host, maintenance, plan, rollback};
use pointsman_core::left_out::{self, Heard, candidates, gone};
use pointsman_core::machine::{Next, apply, may_ask};
use pointsman_core::{
    Code, DatabasePlan, DatabaseWork, Event, HostName, LiveRelease, OrderKey, Outcome, Phase, Plan, Problem,
    Purpose, Request, RequestKind, Stamped, Standing, State, Step, VerifyLevel, invariants,
};
use story::{Story, refused};
use waited::{fence_failed, next};

fn unreachable() -> Problem {
    Problem::new(Code::AgentUnreachable, "no answer").retry_useful()
}

/// Drives a release to where it ends or waits for a person, with agents that never answer, and others that do all. No order
/// is sent to anybody whom it names twice.
fn drive(story: &mut Story, silent: &[&str]) {
    loop {
        match next(&story.state, story.now) {
            Next::Fence(hosts) => {
                let answers: Vec<HostName> =
                    hosts.iter().filter(|host| !silent.contains(&host.as_str())).cloned().collect();
                let asked = answers.is_empty().then(|| hosts.first().cloned()).flatten();
                answers.into_iter().for_each(|host| story.tell(Event::Fenced(host)));
                let Some(host) = asked else { continue };
                story.now = story.now.plus_ms(1_000);
                let failed = fence_failed(&story.state, story.now, unreachable().on(&host));
                failed.into_iter().for_each(|event| story.tell(event));
            }
            Next::Send(keys) => {
                keys.iter().for_each(|key| story.send(key));
                for key in keys {
                    match silent.contains(&key.host.as_str()) {
                        true => story.failed(&key, unreachable().on(&key.host)),
                        false => story.done(&key),
                    }
                }
            }
            Next::Record(event) => story.tell(event),
            Next::Await(Some(until)) => story.now = until,
            _ => return,
        }
        invariants::all(&story.state, story.now).unwrap();
    }
}

fn without(kind: RequestKind, names: &[&str]) -> Request {
    let without = names.iter().map(|name| host(name)).collect();
    Request { kind, by: "ada".to_owned(), reason: Some("burnt".to_owned()), without }
}

/// What a person types; the record must allow it.
fn leave_out(story: &mut Story, names: &[&str]) {
    story.tell(Event::Requested(without(RequestKind::Resume, names)));
}

/// Why the record refuses it. What is refused can be no fact either.
fn refusal(story: &Story, names: &[&str]) -> Problem {
    let request = without(RequestKind::Resume, names);
    let problem = may_ask(&story.state, &request).unwrap_err();
    let fact = Stamped { at: story.now, event: Event::Requested(request) };
    assert!(apply(&story.state, &fact).is_err(), "{names:?}");
    problem
}

/// A release that turned back in a step and is held there for agents that are silent from then on.
fn held(plan: Plan, in_step: Step, silent: &[&str]) -> Story {
    let mut story = Story::begun(plan);
    story.reach(in_step);
    story.tell(Event::TurnedBack(refused()));
    drive(&mut story, silent);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
    story
}

fn outcome(story: &Story) -> Option<Outcome> {
    story.state.outcome()
}

fn names(hosts: Vec<HostName>) -> Vec<String> {
    hosts.into_iter().map(|host| host.to_string()).collect()
}

/// How each of these hosts was heard just now; the others were not asked.
fn heard(said: &[(&str, Heard)]) -> BTreeMap<HostName, Heard> {
    said.iter().map(|(name, heard)| (host(name), *heard)).collect()
}

#[test]
fn a_load_balancer_that_is_gone_for_good_holds_no_rollback_for_ever() {
    let mut story = held(plan(deploy(), Site::of(2, 1)), Step::Watch, &["lb2"]);
    assert_eq!(names(candidates(&story.state)), ["lb2"]);
    let attempts =
        |story: &Story| story.state.progress(Step::RouteBack, &host("lb2")).map(|progress| progress.attempts);
    let before = attempts(&story);
    leave_out(&mut story, &["lb2"]);
    drive(&mut story, &["lb2"]);
    assert_eq!(outcome(&story), Some(Outcome::RolledBack));
    // Nothing more was asked of it, and where it went without is on record.
    assert_eq!(attempts(&story), before);
    let out = story.state.left_out.get(&host("lb2")).unwrap();
    assert_eq!((out.by.as_str(), out.reason.as_deref()), ("ada", Some("burnt")));
    assert!(story.state.went_without("lb2") && !story.state.went_without("lb1"));
    // What stands is what the others were led back to.
    let mut standing = Standing::default();
    standing.fold(&story.state);
    assert_eq!(standing.route, story.state.plan.route(Step::RouteBack));
}

/// Taken out of the environment's file it cannot be asked at all: the release that began with it is not stuck for that.
#[test]
fn one_that_was_taken_out_of_the_environment_may_be_left_out() {
    let mut story = Story::begun(plan(deploy(), Site::of(2, 1)));
    story.reach(Step::Watch);
    story.tell(Event::TurnedBack(refused()));
    let [lb1, lb2] = ["lb1", "lb2"].map(|name| OrderKey { step: Step::RouteBack, host: host(name) });
    story.confirm_on(&lb1);
    story.send(&lb2);
    story.failed(&lb2, Problem::new(Code::ConfigInvalid, "no address in the environment file"));
    drive(&mut story, &[]);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
    assert_eq!(names(candidates(&story.state)), ["lb2"]);
}

#[test]
fn one_load_balancer_must_be_left_to_lead_visitors_back() {
    let one = held(plan(deploy(), Site::of(1, 1)), Step::Watch, &["lb1"]);
    assert_eq!(refusal(&one, &["lb1"]).code, Code::NotLeftOut);
    assert!(candidates(&one.state).is_empty());

    let mut two = held(plan(deploy(), Site::of(2, 1)), Step::Watch, &["lb1", "lb2"]);
    assert_eq!(refusal(&two, &["lb1", "lb2"]).code, Code::NotLeftOut);
    // Both are silent: which one is gone is not to be seen yet.
    assert!(candidates(&two.state).is_empty());
    leave_out(&mut two, &["lb1"]);
    assert_eq!(refusal_after(&mut two, &["lb1", "lb2"], "lb2").code, Code::NotLeftOut);
}

/// Held again for the same agents, somebody else is to be left out as well.
fn refusal_after(story: &mut Story, silent: &[&str], name: &str) -> Problem {
    drive(story, silent);
    refusal(story, &[name])
}

#[test]
fn a_host_that_is_gone_for_good_holds_no_abort_for_ever() {
    let mut story = held(plan(deploy(), Site::of(2, 2)), Step::Check, &["green2"]);
    assert_eq!(names(candidates(&story.state)), ["green2"]);
    assert_eq!(story.state.step(), Some(Step::LinkBack));
    leave_out(&mut story, &["green2"]);
    drive(&mut story, &["green2"]);
    // Left out once, it holds the steps that follow no more than this one.
    assert_eq!(outcome(&story), Some(Outcome::Aborted));
    assert!(story.state.progress(Step::Discard, &host("green1")).is_some());
    assert!(story.state.progress(Step::Discard, &host("green2")).is_none());
}

/// What stood on the slot before may be there, or not: nobody is led to it.
#[test]
fn the_slot_of_a_host_that_was_left_out_is_no_way_back() {
    let on_green = LiveRelease { slot: "green".parse().unwrap(), release: None, artifact: Some(OLD) };
    let before = Standing {
        previous: Some(on_green.clone()),
        slots: [(on_green.slot.clone(), on_green.clone())].into(),
        ahead_of_previous: ["7".to_owned()].into(),
        ..Standing::default()
    };
    let ended = |left_in: Step, names: &[&str]| {
        let mut story = held(plan(deploy(), Site::of(1, 2)), left_in, &["green2"]);
        leave_out(&mut story, names);
        drive(&mut story, names);
        assert_eq!(outcome(&story), Some(Outcome::Aborted));
        let mut standing = before.clone();
        standing.fold(&story.state);
        standing
    };
    let after = ended(Step::Check, &["green2"]);
    assert_eq!((after.previous, after.slots.len(), after.ahead_of_previous.len()), (None, 0, 0));
    // Nothing but files that nobody serves was left there: what stood on the slot stands on it.
    let after = ended(Step::Drain, &["green2"]);
    assert_eq!((after.previous, after.slots.len()), (Some(on_green.clone()), 1));
}

#[test]
fn nobody_is_left_out_on_the_way_forward() {
    let mut story = Story::begun(plan(deploy(), Site::of(2, 1)));
    for step in [Step::Stage, Step::Check, Step::Switch, Step::Watch] {
        story.reach(step);
        let mut held = story.clone();
        held.tell(Event::Held(refused()));
        assert_eq!(refusal(&held, &["lb2"]).code, Code::NotLeftOut, "{step}");
        assert!(candidates(&held.state).is_empty(), "{step}");
    }
    // One that runs is not held, on its way back neither.
    story.tell(Event::TurnedBack(refused()));
    assert_eq!(refusal(&story, &["lb2"]).code, Code::NotPossibleNow);
    // And nothing else that can be asked for leaves anybody out.
    let abort = Story::begun(plan(deploy(), Site::of(2, 1)));
    for kind in [RequestKind::Abort, RequestKind::Pause] {
        let problem = may_ask(&abort.state, &without(kind, &["lb2"])).unwrap_err();
        assert_eq!(problem.code, Code::UsageWrong, "{kind:?}");
    }
}

#[test]
fn only_who_the_way_back_waits_for_is_left_out() {
    let story = held(plan(deploy(), Site::of(2, 1)), Step::Watch, &["lb2"]);
    // It has gone back; it is of the old slot, or has nothing to do; it is nobody.
    for name in ["lb1", "blue1", "green1", "stranger"] {
        assert_eq!(refusal(&story, &[name]).code, Code::NotLeftOut, "{name}");
        assert_eq!(refusal(&story, &["lb2", name]).code, Code::NotLeftOut, "{name}");
    }
    assert_eq!(may_ask(&story.state, &without(RequestKind::Resume, &["lb2"])), Ok(()));
}

/// Before links are led back the load balancers must acknowledge the epoch, also where they are asked nothing.
#[test]
fn one_that_nobody_asks_anything_of_holds_the_way_back_no_longer_either() {
    let mut story = Story::begun(plan(deploy(), Site::of(2, 1)));
    story.reach(Step::Activate);
    story.confirm_on(&story.left(Step::Activate)[0].clone());
    story.restart();
    story.tell(Event::TurnedBack(refused()));
    drive(&mut story, &["lb2"]);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
    assert_eq!(names(candidates(&story.state)), ["lb2"]);
    leave_out(&mut story, &["lb2"]);
    drive(&mut story, &["lb2"]);
    assert_eq!(outcome(&story), Some(Outcome::Aborted));
}

#[test]
fn a_restart_leaves_out_whom_a_person_left_out() {
    let mut story = held(plan(deploy(), Site::of(2, 2)), Step::Check, &["green2"]);
    story.restart();
    leave_out(&mut story, &["green2"]);
    story.restart();
    drive(&mut story, &["green2"]);
    assert_eq!(outcome(&story), Some(Outcome::Aborted));
    assert!(story.state.progress(Step::Discard, &host("green2")).is_none());
}

#[test]
fn a_rollback_and_a_page_that_go_back_are_let_go_as_well() {
    for (purpose, step, ended) in [
        (rollback(), Step::Switch, Outcome::RolledBack),
        (maintenance(true), Step::Maintain, Outcome::Aborted),
    ] {
        let mut story = Story::begun(plan(purpose.clone(), Site::of(2, 1)));
        story.reach(step);
        story.confirm_on(&story.left(step)[0].clone());
        story.tell(Event::TurnedBack(refused()));
        drive(&mut story, &["lb2"]);
        assert!(matches!(story.state.phase, Phase::Held { .. }), "{purpose:?}: {:?}", story.state.phase);
        leave_out(&mut story, &["lb2"]);
        drive(&mut story, &["lb2"]);
        assert_eq!(outcome(&story), Some(ended), "{purpose:?}");
    }
}

fn swap() -> Plan {
    let backup = "r1-1".parse().unwrap();
    let work = DatabaseWork::Swap { backup, accept_loss: 0 };
    let mut plan = plan(Purpose::Database(work), Site::of(2, 1));
    plan.database = Some(DatabasePlan {
        host: host("db1"),
        migrations: None,
        verify: VerifyLevel::Read,
        keeps_away: true,
        backup_ms: 60_000,
        migrate_ms: 60_000,
    });
    plan
}

#[test]
fn nobodys_word_says_which_database_is_live() {
    let mut story = Story::begun(swap());
    story.reach(Step::Swap);
    story.fail(Step::Swap, &story::lost());
    story.tell(Event::TurnedBack(refused()));
    drive(&mut story, &["db1", "lb2"]);
    assert_eq!(story.state.step(), Some(Step::Unswap));
    assert_eq!(refusal(&story, &["db1"]).code, Code::NotLeftOut);
    assert!(!names(candidates(&story.state)).contains(&"db1".to_owned()));
}

/// What the record allows, a look may refuse still.
#[test]
fn who_answers_is_not_gone() {
    use Heard::{Answer, Silence};
    let story = held(plan(deploy(), Site::of(2, 1)), Step::Watch, &["lb2"]);
    let lb2 = [host("lb2")];
    assert_eq!(names(left_out::to_ask(&story.state, &lb2)), ["lb2", "lb1"]);
    let look =
        |said: &[(&str, Heard)]| gone(&story.state, &lb2, &heard(said)).map_err(|problem| problem.code);
    assert_eq!(look(&[("lb2", Silence), ("lb1", Answer)]), Ok(()));
    assert_eq!(look(&[("lb2", Answer), ("lb1", Answer)]), Err(Code::NotLeftOut));
    // Whether the other one leads anybody anywhere is not known.
    assert_eq!(look(&[("lb2", Silence), ("lb1", Silence)]), Err(Code::NotLeftOut));

    let story = held(plan(deploy(), Site::of(2, 1)), Step::Check, &["green1"]);
    let green = [host("green1")];
    assert_eq!(names(left_out::to_ask(&story.state, &green)), ["green1"]);
    let look = |state: &State, heard_: Heard| gone(state, &green, &heard(&[("green1", heard_)])).is_ok();
    assert!(look(&story.state, Silence));
    assert!(!look(&story.state, Answer));
}

/// It is there and says that what it held is not: it never will be.
#[test]
fn a_host_that_has_lost_what_it_held_may_answer() {
    let mut story = Story::begun(plan(deploy(), Site::of(1, 1)));
    story.reach(Step::Check);
    story.tell(Event::TurnedBack(refused()));
    drive_to(&mut story, Step::LinkBack);
    let key = story.left(Step::LinkBack)[0].clone();
    story.send(&key);
    story.failed(&key, Problem::new(Code::ArtifactMissing, "not complete on this host").on(&key.host));
    drive(&mut story, &[]);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
    assert_eq!(names(candidates(&story.state)), ["green1"]);
    assert_eq!(gone(&story.state, &[host("green1")], &heard(&[("green1", Heard::Answer)])), Ok(()));
    leave_out(&mut story, &["green1"]);
    drive(&mut story, &[]);
    assert_eq!(outcome(&story), Some(Outcome::Aborted));
    assert_eq!(story.state.plan.artifact(), Some(NEW));
}

/// Confirms what comes before a step of the way back.
fn drive_to(story: &mut Story, step: Step) {
    while story.state.step() != Some(step) {
        match story.state.phase {
            Phase::Doing(now) => story.confirm(now),
            _ => panic!("never reached {step}"),
        }
    }
}

/// I8: without any load balancer nobody was led back, whatever the record says.
#[test]
fn a_rollback_without_any_load_balancer_breaks_an_invariant() {
    let mut story = held(plan(deploy(), Site::of(2, 1)), Step::Watch, &["lb2"]);
    leave_out(&mut story, &["lb2"]);
    drive(&mut story, &["lb2"]);
    let mut state = story.state.clone();
    assert_eq!(invariants::way_back(&state), Ok(()));
    state.left_out.insert(host("lb1"), state.left_out[&host("lb2")].clone());
    assert_eq!(invariants::way_back(&state).unwrap_err().id, "I8");
}
