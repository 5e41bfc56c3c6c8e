//! What somebody else does to the route between orders, and what a look during the watch says of it. HAProxy is a fake
//! here; `drift_real.rs` has a real one.

use std::time::Duration;

use pointsman_core::{Action, Code, Evidence, Problem, RouteEpoch};
use pointsman_proto::convert;

use crate::fake::KEY;
use crate::rig::{P, Rig, V, switch};

/// One reading of the watch after the switch to `V`.
async fn reading(rig: &Rig) -> Result<Evidence, Problem> {
    let action = Action::ProbeBalancer {
        checks: Vec::new(),
        backend: "be_green".parse().unwrap(),
        epoch: RouteEpoch(6),
        min_up: 1,
        patience_ms: 0,
    };
    rig.agent.observe(convert::action_to_wire(&action)).await
}

fn in_worker(rig: &Rig, value: &str) {
    rig.fake.with(|world| world.current.map[0].1 = value.to_owned());
}

fn in_file(rig: &Rig, value: &str) {
    std::fs::write(&rig.agent.map, format!("{KEY} {value}\n")).unwrap();
}

/// Checks are pinned to a side of the route, so they pass wherever visitors are.
#[tokio::test]
async fn a_watch_sees_every_change_by_hand_whatever_its_epoch() {
    for (what, by_hand, worker, file) in [
        ("everybody is led back", "be_blue:be_green:0:6", true, false),
        ("half are led back", "be_green:be_blue:50:6", true, false),
        ("the next reload leads back", "be_blue:be_green:0:6", false, true),
        ("map and file", "be_blue:be_green:0:6", true, true),
        ("map and file, half", "be_green:be_blue:50:6", true, true),
    ] {
        let rig = Rig::new().await;
        rig.agent.set_route(P, V).await.unwrap();
        reading(&rig).await.unwrap();
        if worker {
            in_worker(&rig, by_hand);
        }
        if file {
            in_file(&rig, by_hand);
        }
        let failed = reading(&rig).await.expect_err(what);
        assert_eq!(failed.code, Code::RouteDrift, "{what}: {failed:?}");
        let found = rig.agent.describe().await.balancer.unwrap();
        assert!(found.drift.contains(by_hand), "{what}: {:?}", found.drift);
        in_worker(&rig, V);
        in_file(&rig, V);
        reading(&rig).await.unwrap();
    }
}

async fn guarded(rig: &Rig, what: &str, done: impl Fn(&Rig) -> bool) {
    let hands = rig.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let until = async {
        while !done(rig) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), until).await;
    assert!(came.is_ok(), "waited in vain: {what}");
    guard.abort();
    let _ = guard.await;
}

fn settled(rig: &Rig, pid: &str) -> bool {
    std::fs::read_to_string(rig.agent.state.join("settled-worker"))
        .is_ok_and(|known| known.split_whitespace().next() == Some(pid))
}

/// Before the first order the route is whoever's who sets the load balancer up.
#[tokio::test]
async fn before_the_first_order_nothing_is_a_change_of_what_was_confirmed() {
    let rig = Rig::new().await;
    guarded(&rig, "the worker is known", |rig| settled(rig, "100")).await;
    in_worker(&rig, "be_blue:be_blue:0:1");
    in_file(&rig, "be_blue:be_blue:0:1");
    assert_eq!(rig.agent.describe().await.balancer.unwrap().drift, "");
}

/// An agent that is killed between the switch and its note of it finds its own work, and blames nobody.
#[tokio::test]
async fn what_an_order_has_set_is_no_change_by_hand() {
    let rig = Rig::new().await;
    rig.agent.set_route(P, P).await.unwrap();
    // HAProxy falls silent after the command: what stands is not known, and not confirmed.
    let socket = rig.fake.socket.clone();
    let aside = socket.with_extension("aside");
    rig.fake.with(|world| {
        let (socket, aside) = (socket.clone(), aside.clone());
        world.after("set map", 1, move |_| {
            std::fs::rename(&socket, &aside).unwrap();
            None
        });
    });
    rig.agent.set_route(P, V).await.unwrap_err();
    std::fs::rename(&aside, &socket).unwrap();
    assert_eq!(rig.stands(), (V.to_owned(), V.to_owned(), vec![]));
    let drift = async || rig.agent.describe().await.balancer.unwrap().drift;
    assert_eq!(drift().await, "");
    // The next agent, in its place.
    let state = rig.agent.state.clone();
    let noted = |name: &str| std::fs::read_to_string(state.join(name)).unwrap_or_default();
    assert_eq!((noted("route.copy").trim(), noted("route.begun").trim()), (P, V));
}

/// What was made ready and never asked for is no move of the agent's: whoever leads there by hand is seen.
#[tokio::test]
async fn what_was_only_prepared_is_a_change_by_hand_where_it_comes_to_stand() {
    let rig = Rig::new().await;
    rig.agent.set_route(P, P).await.unwrap();
    rig.agent.prepare(&rig.agent.order(switch(P, V))).await.unwrap();
    let begun = std::fs::read_to_string(rig.agent.state.join("route.begun")).unwrap_or_default();
    assert_ne!(begun.trim(), V, "noted as begun, and nothing was");
    in_worker(&rig, V);
    in_file(&rig, V);
    let drift = rig.agent.describe().await.balancer.unwrap().drift;
    assert!(drift.contains(V) && drift.contains(P), "{drift:?}");
}

/// A reload that began while the new route was on disk, and ends after that was taken back.
#[tokio::test]
async fn a_route_that_was_taken_back_does_not_come_by_a_reload() {
    let rig = Rig::new().await;
    guarded(&rig, "the worker is known", |rig| settled(rig, "100")).await;
    rig.fake.with(|world| world.shown_epoch = Some(3));
    let refused = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &refused);
    refused.unwrap_err();
    rig.fake.with(|world| {
        world.shown_epoch = None;
        world.reload_with(V);
    });
    guarded(&rig, "visitors are led back", |rig| {
        rig.stands() == (P.to_owned(), P.to_owned(), vec![P.to_owned()])
    })
    .await;
    let found = rig.agent.describe().await.balancer.unwrap();
    assert!(!found.events.iter().any(|event| event.kind == "changed"), "nobody is blamed: {found:?}");
}

/// What is set back by itself: HAProxy and the file, and the highest epoch that was ever there never falls.
#[tokio::test]
async fn what_is_enforced_keeps_the_highest_epoch() {
    let by_hand = "be_blue:be_green:0:99";
    for worker in [false, true] {
        let rig = Rig::with(KEY, |_, _| "enforce = true\n".to_owned()).await;
        rig.agent.set_route(P, V).await.unwrap();
        in_file(&rig, by_hand);
        if worker {
            in_worker(&rig, by_hand);
        }
        guarded(&rig, "it is set back", |rig| rig.stands() == (V.to_owned(), V.to_owned(), vec![])).await;
        assert_eq!(rig.agent.describe().await.balancer.unwrap().highest_epoch, 99);
        let taken = rig.agent.set_route(V, "be_blue:be_green:0:7").await.unwrap_err();
        assert_eq!(taken.code, Code::RouteEpochOld);
    }
}

/// A load balancer that was away is brought to the route of the others by hand, and its agent started anew.
#[tokio::test]
async fn a_start_takes_what_stands_unless_its_epoch_is_a_copy() {
    let rig = Rig::new().await;
    rig.agent.set_route(P, V).await.unwrap();
    let drift = async || rig.agent.describe().await.balancer.unwrap().drift;
    for (by_hand, taken) in [("be_blue:be_green:0:6", false), ("be_blue:be_green:0:9", true)] {
        in_worker(&rig, by_hand);
        in_file(&rig, by_hand);
        assert!(drift().await.contains(by_hand));
        rig.agent.hands.settle_at_start().await;
        assert_eq!(drift().await.is_empty(), taken, "{by_hand}");
    }
    rig.agent.set_route("be_blue:be_green:0:9", "be_green:be_blue:0:10").await.unwrap();
}

/// After a start of the machine the first worker may have the number of the last one before it.
#[tokio::test]
async fn a_worker_of_another_start_is_new_though_its_number_is_the_same() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.started_s = Some(1_000));
    rig.agent.set_route(P, V).await.unwrap();
    guarded(&rig, "the worker is known", |rig| settled(rig, "100")).await;
    rig.fake.with(|world| {
        (world.started_s, world.current.map[0].1) = (Some(2_000), P.to_owned());
    });
    guarded(&rig, "its route is set again", |rig| rig.stands().1 == V).await;
    let found = rig.agent.describe().await.balancer.unwrap();
    assert!(!found.events.iter().any(|event| event.kind == "changed"), "nobody is blamed: {found:?}");
}
