//! What a release does with a database, told as short stories: the order of its steps, and every way back.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that goes another way is a failed test")]

#[expect(dead_code, reason = "shared with tests of other purposes")]
mod plans;
mod story;
#[expect(dead_code, reason = "no agent is out of reach in these stories")]
mod waited;

use plans::{NEW, Site, deploy, host, plan};
use pointsman_core::machine::{Next, possible};
use pointsman_core::{
    Action, BackupId, Code, DatabasePlan, DatabaseWork, Event, LiveRelease, MigrationPhase, Migrations,
    Outcome, Phase, Plan, Problem, Purpose, RequestKind, SlotName, Standing, Step, SwapTo, VerifyLevel,
    invariants,
};
use story::{Story, lost, refused};
use waited::next;

const DB: &str = "db1";

fn migrations(phase: MigrationPhase) -> Migrations {
    Migrations {
        artifact: NEW,
        phase,
        versions: vec!["1.2.0".to_owned()],
        out_of_order: Vec::new(),
        max_stall_ms: 200,
        lock_budget_ms: 1_000,
    }
}

fn with_database(purpose: Purpose, migrations: Option<Migrations>) -> Plan {
    let database = DatabasePlan {
        host: host(DB),
        migrations,
        verify: VerifyLevel::RestoreTest,
        keeps_away: false,
        backup_ms: 60_000,
        migrate_ms: 60_000,
    };
    Plan { database: Some(database), ..plan(purpose, Site::of(1, 1)) }
}

fn migrating() -> Plan {
    with_database(deploy(), Some(migrations(MigrationPhase::Expand)))
}

fn alone(work: DatabaseWork) -> Plan {
    let phase = match work {
        DatabaseWork::Contract => Some(MigrationPhase::Contract),
        DatabaseWork::Down { .. } => Some(MigrationPhase::Down),
        _ => None,
    };
    with_database(Purpose::Database(work), phase.map(migrations))
}

fn backup() -> BackupId {
    BackupId::parse("pre-migration-20240115T101500Z-v1.2.0").unwrap()
}

/// What follows now is recorded, and the story goes on with it.
fn follow(story: &mut Story) {
    match next(&story.state, story.now) {
        Next::Record(event) => story.tell(event),
        other => panic!("expected a fact, got {other:?}"),
    }
}

#[test]
fn a_deploy_migrates_before_the_new_version_runs_anywhere() {
    let steps = migrating().steps();
    let place = |step| steps.iter().position(|known| *known == step).unwrap();
    let order =
        [Step::Stage, Step::Backup, Step::Rehearse, Step::Expand, Step::Drain, Step::Activate, Step::Switch];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{steps:?}");
    let mut story = Story::begun(migrating());
    story.reach(Step::Watch);
    assert!(invariants::all(&story.state, story.now).is_ok());
}

/// The coordinator starts again in a watch, and the database's host is down.
#[test]
fn visitors_are_watched_while_the_database_s_agent_is_away() {
    let mut story = Story::begun(migrating());
    story.reach(Step::Watch);
    story.restart();
    let Next::Fence(asked) = next(&story.state, story.now) else { panic!("nobody is fenced") };
    assert!(!asked.is_empty() && !asked.contains(&host(DB)), "{asked:?}");
    asked.into_iter().for_each(|agent| story.tell(Event::Fenced(agent)));
    assert_eq!(next(&story.state, story.now), Next::ReadGates);
    let Phase::Watching { until, .. } = story.state.phase else { panic!("{:?}", story.state.phase) };
    story.tell(Event::Fenced(host(DB)));
    assert!(matches!(story.state.phase, Phase::Watching { until: now, .. } if now == until), "it goes on");
}

#[test]
fn a_release_that_migrates_restores_its_backup_once() {
    let plan = migrating();
    let asked = |step| plan.action(step, &host(DB)).unwrap();
    assert_eq!(asked(Step::Backup), Action::BackUp { verify: VerifyLevel::Read });
    assert!(matches!(asked(Step::Rehearse), Action::Rehearse { .. }), "which restores it");
    let alone = alone(DatabaseWork::Backup);
    assert_eq!(
        alone.action(Step::Backup, &host(DB)),
        Some(Action::BackUp { verify: VerifyLevel::RestoreTest })
    );
}

#[test]
fn a_failed_rehearsal_ends_it_before_the_database_and_visitors_were_touched() {
    let mut story = Story::begun(migrating());
    story.reach(Step::Rehearse);
    story.fail(Step::Rehearse, &refused());
    follow(&mut story);
    story.confirm(Step::Discard);
    assert_eq!(story.state.outcome(), Some(Outcome::Aborted));
    assert!(!story.state.touched(Step::Expand) && !story.state.visitors_moved());
}

#[test]
fn work_on_the_database_alone_asks_its_host_and_nobody_else() {
    for work in [
        DatabaseWork::Backup,
        DatabaseWork::Contract,
        DatabaseWork::Down { version: "1.2.0".to_owned() },
        DatabaseWork::Restore { backup: backup() },
        DatabaseWork::Swap { backup: backup(), accept_loss: 3 },
        DatabaseWork::SwapBack { backup: backup(), accept_loss: 0 },
        DatabaseWork::Settle { backup: backup() },
        DatabaseWork::Verify { backup: backup() },
    ] {
        let plan = alone(work);
        assert_eq!(plan.hosts().cloned().collect::<Vec<_>>(), [host(DB)], "{:?}", plan.purpose);
        for step in plan.steps() {
            assert_eq!(plan.targets(*step), [host(DB)], "{step}");
            assert!(plan.action(*step, &host(DB)).is_some(), "{step}");
        }
        let mut story = Story::begun(plan.clone());
        plan.steps().iter().for_each(|step| story.confirm(*step));
        assert_eq!(story.state.outcome(), Some(Outcome::Confirmed), "{:?}", plan.purpose);
        assert_eq!(story.state.route(), plan.route_before, "visitors stay where they are");
    }
}

#[test]
fn a_swap_that_is_in_doubt_is_undone_only_where_nothing_is_lost_by_it() {
    let mut story = Story::begun(alone(DatabaseWork::Swap { backup: backup(), accept_loss: 3 }));
    for _ in 0..story.state.plan.limits.attempts {
        story.fail(Step::Swap, &lost());
        story.now = story.now.plus_ms(60_000);
    }
    follow(&mut story);
    assert_eq!(story.state.phase, Phase::Doing(Step::Unswap));
    let undo = story.state.plan.action(Step::Unswap, &host(DB)).unwrap();
    assert_eq!(undo, Action::SwapDatabase { backup: backup(), to: SwapTo::Before { accept_loss: 0 } });
    story.fail(Step::Unswap, &refused());
    follow(&mut story);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
}

#[test]
fn a_swap_back_that_is_in_doubt_is_held_for_a_person() {
    let mut story = Story::begun(alone(DatabaseWork::SwapBack { backup: backup(), accept_loss: 0 }));
    for _ in 0..story.state.plan.limits.attempts {
        story.fail(Step::Swap, &lost());
        story.now = story.now.plus_ms(60_000);
    }
    follow(&mut story);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
}

/// Rows were written since the swap: nobody has accepted to lose them, and the swap is what was asked for.
#[test]
fn a_swap_that_cannot_be_undone_any_more_stands_when_a_person_says_so() {
    let mut story = Story::begun(alone(DatabaseWork::Swap { backup: backup(), accept_loss: 3 }));
    for _ in 0..story.state.plan.limits.attempts {
        story.fail(Step::Swap, &lost());
        story.now = story.now.plus_ms(60_000);
    }
    follow(&mut story);
    story.fail(Step::Unswap, &Problem::new(Code::LossGrown, "2 rows would be lost"));
    follow(&mut story);
    let Phase::Held { why, .. } = &story.state.phase else { panic!("{:?}", story.state.phase) };
    assert!(why.hint.contains("pointsman resume"), "{}", why.hint);
    ask(&mut story, RequestKind::Resume);
    assert_eq!(story.state.phase, Phase::Doing(Step::Swap));
    story.confirm(Step::Swap);
    assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));
}

#[test]
fn a_swap_back_is_not_given_up_while_nobody_knows_which_database_is_live() {
    let aborts = |story: &Story| possible(&story.state, RequestKind::Abort).is_ok();
    let mut story = Story::begun(alone(DatabaseWork::SwapBack { backup: backup(), accept_loss: 0 }));
    assert!(aborts(&story), "nothing was ordered yet");
    let key = story.left(Step::Swap).remove(0);
    story.send(&key);
    assert!(!aborts(&story), "the order is out");
    story.failed(&key, lost());
    assert!(!aborts(&story), "its answer is lost");
    story.fail(Step::Swap, &Problem::new(Code::FileSystem, "no room"));
    assert!(!aborts(&story), "another attempt came to nothing, which says nothing of the one before");
    story.fail(Step::Swap, &Problem::new(Code::SwapRefused, "a session does not end"));
    assert!(aborts(&story), "the agent has looked: all is as before");
    story.restart();
    assert!(aborts(&story), "and a restart does not change that");
}

#[test]
fn a_contract_waits_for_a_version_that_knows_what_was_expanded() {
    let over = |plan: Plan, outcome| {
        let mut story = Story::begun(plan);
        story.reach(Step::Switch);
        story.state.phase = Phase::Finished(outcome);
        story.state
    };
    let ahead = |standing: &Standing| standing.ahead_of_live.iter().cloned().collect::<Vec<_>>();
    let mut standing = Standing::default();
    standing.fold(&over(migrating(), Outcome::RolledBack));
    assert_eq!(ahead(&standing), ["1.2.0"], "the version that serves was there before");
    standing.fold(&over(migrating(), Outcome::Confirmed));
    assert!(ahead(&standing).is_empty(), "it brought them itself");
    let back = Purpose::Rollback { artifact: None, to: None };
    standing.fold(&over(plan(back.clone(), Site::of(1, 1)), Outcome::Confirmed));
    assert_eq!(ahead(&standing), ["1.2.0"], "back on the one before");
    standing.fold(&over(plan(back, Site::of(1, 1)), Outcome::Confirmed));
    assert!(ahead(&standing).is_empty(), "and forward again");
}

/// A copy of the order came first, and applied one file of two; the order itself found the second one impossible.
#[test]
fn what_was_ordered_of_the_schema_counts_as_done_whatever_the_answer_says() {
    let mut story = Story::begun(migrating());
    story.reach(Step::Expand);
    story.fail(Step::Expand, &refused());
    story.state.phase = Phase::Finished(Outcome::Aborted);
    let mut standing = Standing::default();
    standing.fold(&story.state);
    assert!(standing.ahead_of_live.contains("1.2.0"));
    let mut story = Story::begun(alone(DatabaseWork::Contract));
    story.reach(Step::Contract);
    story.fail(Step::Contract, &refused());
    follow(&mut story);
    let previous = LiveRelease { slot: SlotName::parse("blue").unwrap(), release: None, artifact: None };
    let mut standing = Standing { previous: Some(previous), ..Standing::default() };
    standing.fold(&story.state);
    assert_eq!((story.state.outcome(), standing.previous), (Some(Outcome::Aborted), None));
}

fn ask(story: &mut Story, kind: RequestKind) {
    story.tell(Event::Requested(pointsman_core::Request {
        kind,
        by: "ada".to_owned(),
        reason: None,
        without: Vec::new(),
    }));
}

#[test]
fn migrating_without_a_checked_and_rehearsed_backup_breaks_an_invariant() {
    let mut story = Story::begun(migrating());
    story.reach(Step::Expand);
    story.confirm(Step::Expand);
    let mut state = story.state;
    assert!(invariants::backup_before_migration(&state).is_ok());
    for step in [Step::Backup, Step::Rehearse] {
        let mut without = state.clone();
        without.orders.retain(|key, _| key.step != step);
        assert_eq!(invariants::backup_before_migration(&without).unwrap_err().id, "I7", "{step}");
    }
    state.orders.retain(|key, _| key.step != Step::Expand);
    assert!(invariants::backup_before_migration(&state).is_ok());
}

#[test]
fn after_a_contract_nothing_leads_back() {
    let live =
        |slot: &str| LiveRelease { slot: SlotName::parse(slot).unwrap(), release: None, artifact: None };
    let before = Standing { live: Some(live("green")), previous: Some(live("blue")), ..Standing::default() };
    for (work, previous) in [(DatabaseWork::Contract, None), (DatabaseWork::Backup, Some(live("blue")))] {
        let plan = alone(work);
        let mut story = Story::begun(plan.clone());
        plan.steps().iter().for_each(|step| story.confirm(*step));
        let mut standing = before.clone();
        standing.fold(&story.state);
        assert_eq!((standing.live, standing.previous, standing.route), (before.live.clone(), previous, None));
    }
}

#[test]
fn after_a_way_down_nothing_leads_back_to_a_version_that_needs_what_is_gone() {
    let live =
        |slot: &str| LiveRelease { slot: SlotName::parse(slot).unwrap(), release: None, artifact: None };
    let known = || std::collections::BTreeSet::from(["1.2.0".to_owned()]);
    let before = Standing {
        live: Some(live("green")),
        previous: Some(live("blue")),
        ahead_of_live: known(),
        ..Standing::default()
    };
    for (ahead_of_previous, previous) in [(known(), Some(live("blue"))), (Default::default(), None)] {
        let plan = alone(DatabaseWork::Down { version: "1.2.0".to_owned() });
        let mut story = Story::begun(plan.clone());
        plan.steps().iter().for_each(|step| story.confirm(*step));
        let mut standing = Standing { ahead_of_previous, ..before.clone() };
        standing.fold(&story.state);
        assert_eq!(standing.previous, previous);
        assert!(standing.ahead_of_live.is_empty() && standing.ahead_of_previous.is_empty());
    }
}

#[test]
fn an_abort_does_not_wait_for_a_dump() {
    let mut story = Story::begun(migrating());
    story.reach(Step::Backup);
    let key = story.left(Step::Backup).remove(0);
    story.send(&key);
    story.tell(Event::Requested(pointsman_core::Request {
        kind: pointsman_core::RequestKind::Abort,
        by: "ada".to_owned(),
        reason: None,
        without: Vec::new(),
    }));
    assert_eq!(next(&story.state, story.now), Next::GiveUp(vec![key]));
}

/// A swap with visitors kept away from the database meanwhile.
fn keeping_away(work: DatabaseWork) -> Plan {
    let mut plan = alone(work);
    plan.database.as_mut().unwrap().keeps_away = true;
    plan
}

fn swap() -> DatabaseWork {
    DatabaseWork::Swap { backup: backup(), accept_loss: 3 }
}

#[test]
fn visitors_are_led_away_before_a_swap_and_back_after_it() {
    for work in [swap(), DatabaseWork::SwapBack { backup: backup(), accept_loss: 0 }] {
        let plan = keeping_away(work);
        let place = |step| plan.steps().iter().position(|known| *known == step).unwrap();
        assert!(place(Step::Maintain) < place(Step::Swap) && place(Step::Swap) < place(Step::Lift));
        assert!(plan.hosts().any(|host| *host == plan.balancers[0]), "they acknowledge the epoch too");
        let (away, back) = (plan.route(Step::Maintain).unwrap(), plan.route(Step::Lift).unwrap());
        assert_eq!((away.stable, away.percent), (plan.maintenance_backend.clone(), 0));
        assert_eq!((&back.stable, &back.canary), (&plan.route_before.stable, &plan.route_before.canary));
        // Nobody may come to the old database meanwhile, not even for a second: the page is kept first.
        let on_trust = |step| match plan.action(step, &plan.balancers[0]) {
            Some(pointsman_core::Action::SetRoute { back, .. }) => back,
            other => panic!("no route is set: {other:?}"),
        };
        assert!(!on_trust(Step::Maintain) && on_trust(Step::Lift) && on_trust(Step::Unmaintain));
        let mut story = Story::begun(plan.clone());
        for step in plan.steps() {
            assert!(invariants::all(&story.state, story.now).is_ok());
            story.confirm(*step);
        }
        assert_eq!(story.state.outcome(), Some(Outcome::Confirmed));
        let mut standing = Standing::default();
        standing.fold(&story.state);
        assert_eq!(standing.route, plan.route(Step::Lift), "the next release builds on it");
    }
}

#[test]
fn a_swap_that_is_refused_leads_visitors_back_and_touches_nothing_else() {
    let mut story = Story::begun(keeping_away(swap()));
    story.reach(Step::Swap);
    story.fail(Step::Swap, &refused());
    follow(&mut story);
    assert_eq!(story.state.phase, Phase::Doing(Step::Unmaintain), "nothing is swapped, nothing swapped back");
    story.confirm(Step::Unmaintain);
    assert_eq!(story.state.outcome(), Some(Outcome::Aborted));
    assert_eq!(story.state.route().stable, story.state.plan.route_before.stable);
}

#[test]
fn a_swap_in_doubt_is_undone_before_visitors_come_back() {
    let mut story = Story::begun(keeping_away(swap()));
    story.reach(Step::Swap);
    for _ in 0..story.state.plan.limits.attempts {
        story.fail(Step::Swap, &lost());
        story.now = story.now.plus_ms(60_000);
    }
    follow(&mut story);
    assert_eq!(story.state.phase, Phase::Doing(Step::Unswap));
    story.confirm(Step::Unswap);
    assert_eq!(story.state.phase, Phase::Doing(Step::Unmaintain));
    story.confirm(Step::Unmaintain);
    assert_eq!(story.state.outcome(), Some(Outcome::Aborted));
}

#[test]
fn visitors_who_cannot_be_led_back_are_no_reason_to_swap_back() {
    let mut story = Story::begun(keeping_away(swap()));
    story.reach(Step::Lift);
    for _ in 0..story.state.plan.limits.attempts {
        story.fail(Step::Lift, &lost());
    }
    assert!(!matches!(next(&story.state, story.now), Next::Record(_)), "it is tried on");
    story.now = story.now.plus_ms(story.state.plan.limits.persist_ms);
    follow(&mut story);
    assert!(matches!(story.state.phase, Phase::Held { .. }), "{:?}", story.state.phase);
}
