//! What was made ready for an order is held for it: for so long, against everybody else, and for the route that stood then.

use std::path::PathBuf;
use std::time::Duration;

use pointsman_core::route_change::LEASE_MS;
use pointsman_core::{Aftermath, Code, Epoch, Evidence, Problem, Retry};
use pointsman_proto::convert::ReceivedOrder;

use crate::fake::KEY;
use crate::rig::{Agent, P, Rig, Setup, V, switch};

fn stands_at(rig: &Rig, route: &str) {
    assert_eq!(rig.stands(), (route.to_owned(), route.to_owned(), vec![]));
}

fn lapsed(refused: Result<Evidence, Problem>, what: &str) {
    let Err(refused) = refused else { panic!("taken: {what}") };
    let told = (refused.code, refused.aftermath, refused.retry);
    assert_eq!(told, (Code::LeaseLapsed, Aftermath::Unchanged, Retry::Useful), "{what}: {refused:?}");
}

/// The next try of an order, after an intent of its own.
fn next_try(order: &ReceivedOrder) -> ReceivedOrder {
    let mut next = ReceivedOrder { journal_seq: order.journal_seq + 1, ..order.clone() };
    next.order.attempt += 1;
    next
}

fn laid_ready(rig: &Rig) -> PathBuf {
    rig.agent.map.with_extension("map.tmp")
}

/// Lets the time pass that a lease holds, for everything that waits in this process.
async fn lease_is_over() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(LEASE_MS)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_is_held_is_taken_once() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    stands_at(&rig, P);
    let done = rig.agent.commit(&order).await.unwrap();
    assert!(!done.already);
    stands_at(&rig, V);
    // A repeated one is answered from its receipt, held or not.
    assert_eq!(rig.agent.commit(&order).await.unwrap(), done);
}

#[tokio::test]
async fn nothing_is_taken_that_is_not_held_for_it() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    lapsed(rig.agent.commit(&order).await, "never prepared");

    let order = next_try(&order);
    rig.agent.prepare(&order).await.unwrap();
    lapsed(rig.agent.commit(&next_try(&order)).await, "prepared for the try before");

    let order = next_try(&next_try(&order));
    rig.agent.prepare(&order).await.unwrap();
    let another = ReceivedOrder { journal_seq: order.journal_seq + 1, ..rig.agent.order(switch(P, V)) };
    lapsed(rig.agent.commit(&another).await, "prepared for another release");
    stands_at(&rig, P);
    // Whoever holds it has it still, and the one that was refused can be prepared after that.
    let again = ReceivedOrder { journal_seq: another.journal_seq + 1, ..order };
    rig.agent.commit(&again).await.unwrap();
    stands_at(&rig, V);
}

/// A coordinator that has taken over sends its own orders: it was not told that anybody is ready.
#[tokio::test]
async fn what_was_held_for_one_coordinator_is_not_taken_by_the_next() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    rig.agent.ledger.fence(Epoch(2), b"").unwrap();
    assert_eq!(rig.agent.commit(&order).await.unwrap_err().code, Code::Fenced);
    let mut next = ReceivedOrder { journal_seq: order.journal_seq + 1, ..order };
    next.order.epoch = Epoch(2);
    lapsed(rig.agent.commit(&next).await, "prepared for the coordinator before");
    stands_at(&rig, P);
}

#[tokio::test]
async fn what_was_held_too_long_is_not_taken() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    lease_is_over().await;
    lapsed(rig.agent.commit(&order).await, "too old");
    stands_at(&rig, P);
    assert!(!laid_ready(&rig).exists(), "what was laid ready is cleared away");
    let order = next_try(&order);
    rig.agent.prepare(&order).await.unwrap();
    rig.agent.commit(&order).await.unwrap();
    stands_at(&rig, V);
}

#[tokio::test]
async fn what_was_held_by_an_agent_that_was_started_anew_is_not_taken() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    let next = Agent::start(&Setup {
        map: rig.agent.map.clone(),
        key: KEY.to_owned(),
        socket: rig.fake.socket.clone(),
        master: Some(rig.fake.master.clone()),
        frontend: rig.fake.frontend,
        state: rig.agent.state.clone(),
        signals: None,
        more: String::new(),
    });
    lapsed(next.commit(&order).await, "of an earlier life");
    stands_at(&rig, P);
}

/// What was seen when it was made ready does not stand any more.
#[tokio::test]
async fn what_is_held_is_not_taken_over_a_change_by_hand() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    let by_hand = "be_blue:be_blue:0:77";
    rig.fake.with(|world| world.current.map[0].1 = by_hand.to_owned());
    lapsed(rig.agent.commit(&order).await, "changed by hand");
    assert_eq!(rig.stands(), (P.to_owned(), by_hand.to_owned(), vec![]));
}

/// An order that is not newer, of whichever release, finds the entry of the prepared one heard of, and is refused. A newer
/// one is the same coordinator's decision not to take what it had made ready: it goes ahead at once.
#[tokio::test]
async fn only_a_later_decision_of_its_coordinator_comes_between() {
    let rig = Rig::new().await;
    let [older, order, newer] = std::array::from_fn(|_| rig.agent.order(switch(P, V)));
    rig.agent.prepare(&order).await.unwrap();
    for late in [older.clone(), ReceivedOrder { journal_seq: order.journal_seq, ..older }] {
        assert_eq!(rig.agent.send(&late).await.unwrap_err().code, Code::Superseded, "{late:?}");
        assert_eq!(rig.agent.prepare(&late).await.unwrap_err().code, Code::Superseded, "{late:?}");
    }
    stands_at(&rig, P);
    let back = "be_blue:be_blue:0:7";
    let mut newer = newer;
    newer.order.action = switch(P, back);
    rig.agent.send(&newer).await.unwrap();
    stands_at(&rig, back);
    let order = ReceivedOrder { journal_seq: newer.journal_seq + 1, ..order };
    lapsed(rig.agent.commit(&order).await, "given up");
}

/// The agent's own guard waits, tells what it sees, and goes on when nothing is held any more.
#[tokio::test]
async fn nothing_is_set_back_or_again_while_something_is_held() {
    let by_hand = "be_blue:be_green:30:5";
    let rig = Rig::with(KEY, |_, _| "enforce = true".to_owned()).await;
    rig.agent.set_route(P, P).await.unwrap();
    rig.agent.prepare(&rig.agent.order(switch(P, V))).await.unwrap();
    rig.fake.with(|world| {
        world.current.map[0].1 = by_hand.to_owned();
        world.commands.clear();
    });
    let hands = rig.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let waiting = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "in vain: {what}");
    };
    until("three looks", &|| rig.commands("show map") >= 3).await;
    assert_eq!(rig.commands("set map"), 0);
    assert!(rig.agent.describe().await.balancer.unwrap().drift.contains(by_hand));

    lease_is_over().await;
    until("it is set back", &|| rig.stands().1 == P).await;
    assert!(!laid_ready(&rig).exists(), "what was laid ready is cleared away");
    guard.abort();
}
