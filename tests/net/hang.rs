//! A peer that hangs is noticed by both sides within five seconds: an order that waits for it waits no longer, and
//! what it held at the other side is free again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman_core::ports::{Clock as _, Fleet as _, Journal as _};
use pointsman_core::{Action, Aftermath, Code, Event, Order, OrderKey, Problem, Step};
use turmoil::Sim;

use crate::coordinator::Place;
use crate::hands::{Pace, WorldHands};
use crate::network::SimulatedClock;
use crate::release::{self, CENTRE};
use crate::run::folder;
use crate::world::World;
use crate::{agent, identities, plans};

/// What both sides promise: see `ChannelLimits` and the server's keepalive.
const NOTICED: Duration = Duration::from_secs(5);
const HOST: &str = "blue1";

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// How the order failed.
    failed: Mutex<Option<Problem>>,
    /// Connections that the agent has.
    connections: AtomicUsize,
}

/// An agent whose orders take half a minute.
async fn slow_agent(place: Place, seen: Arc<Seen>) -> turmoil::Result {
    let plan = plans::plan(plans::maintenance(true), plans::Site::of(1, 1));
    let pace = Pace { seed: 1, before_ms: 30_000, after_ms: 0 };
    let hands = WorldHands::new(plans::host(HOST), World::before(&plan, None), pace);
    let counting = async {
        loop {
            seen.connections.store(turmoil::established_tcp_stream_count(), Ordering::Relaxed);
            SimulatedClock.pause(10).await;
        }
    };
    tokio::select! {
        ended = agent::run(HOST.to_owned(), place.0, hands) => ended,
        () = counting => Ok(()),
    }
}

/// A coordinator that sends one order, and keeps its channel as it always does.
async fn one_order(place: Place, seen: Arc<Seen>) -> turmoil::Result {
    let (journal, plan) = (place.journal(), plans::plan(plans::maintenance(true), plans::Site::of(1, 1)));
    let fleet = place.fleet(journal.clone());
    let key = OrderKey { step: Step::Maintain, host: plans::host(HOST) };
    let epoch = journal.take_lease(&plan.environment, "test").await.map_err(|error| error.0)?;
    let intent = vec![Event::OrderIntended { key: key.clone(), attempt: 1 }];
    let at = SimulatedClock.now();
    journal.append(&plan.environment, epoch, &plan.release, at, intent).await.map_err(|error| error.0)?;
    let order = Order {
        release: plan.release.clone(),
        key,
        attempt: 1,
        epoch,
        deadline: SimulatedClock.now().plus_ms(120_000),
        leads_back: false,
        action: Action::SetFlag { on: true },
    };
    *seen.failed.lock().unwrap() = fleet.perform(&order).await.err();
    std::future::pending::<()>().await;
    drop(fleet);
    Ok(())
}

fn run_for(sim: &mut Sim<'_>, time: Duration) {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.step().unwrap();
    }
}

#[test]
fn a_peer_that_hangs_is_noticed_by_both_sides_within_five_seconds() {
    identities::ready();
    let folder = folder();
    let (place, seen) = (Place(folder.path().to_owned()), Arc::<Seen>::default());
    drop(release::stored_artifact(&place.artifacts()));
    let mut sim = turmoil::Builder::new()
        .tick_duration(Duration::from_millis(10))
        .simulation_duration(Duration::MAX)
        .build();
    let of_agent = (place.clone(), Arc::clone(&seen));
    sim.host(HOST, move || slow_agent(of_agent.0.clone(), Arc::clone(&of_agent.1)));
    let of_centre = (place.clone(), Arc::clone(&seen));
    sim.host(CENTRE, move || one_order(of_centre.0.clone(), Arc::clone(&of_centre.1)));

    run_for(&mut sim, Duration::from_secs(2));
    assert_eq!(*seen.failed.lock().unwrap(), None, "the order should be under way");
    assert_eq!(seen.connections.load(Ordering::Relaxed), 1);
    sim.hold(CENTRE, HOST);
    run_for(&mut sim, NOTICED);
    let problem = seen.failed.lock().unwrap().clone().expect("the coordinator noticed nothing");
    assert_eq!((problem.code, problem.aftermath), (Code::AgentUnreachable, Aftermath::Unknown));
    assert_eq!(seen.connections.load(Ordering::Relaxed), 0, "the agent noticed nothing");
}
