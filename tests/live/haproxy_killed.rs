//! HAProxy is killed, without warning, at every step of a switch, alone or together with the agent beside it. Visitors
//! notice that; what counts is that the switch ends in the old route or the new one, the same on disk and in every worker,
//! and that everybody who is asked says which.

use std::time::Duration;

use kit::{Books, Daemon, ENVIRONMENT, Fact, KillAt, Site, Wire};
use pointsman_proto::v1::{AskRequest, Release};
use rustix::process::Signal;
use serde_json::Value;

/// Longest time for what a test waits for.
const LONGEST: Duration = Duration::from_secs(60);

/// Every place that the agent of the load balancer passes in a switch, with how often it has passed it by then in a
/// deploy: four orders come before, and one route, that of `expose`.
const PLACES: [(&str, u32); 7] = [
    ("order-before-receipt", 5),
    ("order-begun", 5),
    ("route-on-disk", 2),
    ("route-in-worker", 2),
    ("route-confirmed", 2),
    ("order-acted", 5),
    ("order-settled", 5),
];

/// The process that is killed. Workers end with their master, and a master ends with the worker that takes new
/// connections.
#[derive(Clone, Copy, Debug)]
enum Killed {
    Worker,
    Master,
}

/// What becomes of the agent, which has stopped at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    /// It goes on when HAProxy is back, which its unit starts again at once.
    GoesOnAfter,
    /// It goes on while HAProxy is dead, which is back when the order has an outcome.
    GoesOnBefore,
    /// It goes on, and HAProxy stays dead until a person is called or the release is over.
    GoesOnAlone,
    /// It is killed as well, as when the machine fails, and started again.
    DiesToo,
}

/// Deploys `release`, and returns when the agent has stopped at the place, in the switch and in nothing before it.
async fn stopped_at(site: &mut Site, release: &str, place: &'static str, nth: u32) {
    site.kill(Daemon::LbAgent).unwrap();
    site.start_to_stop(Daemon::LbAgent, KillAt { place, nth }).unwrap();
    site.ready().await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact(release).unwrap()).await.unwrap();
    client.deploy(&digest, release).await.unwrap();
    let give_up = std::time::Instant::now() + LONGEST;
    while !site.is_stopped(Daemon::LbAgent).unwrap() {
        assert!(std::time::Instant::now() < give_up, "the agent does not come to {place}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Read, not asked for: whoever is asked waits for the agent.
    let books = Books::read(site).unwrap();
    let of_switch: Vec<&str> =
        books.of(release).filter(|fact| fact.text("step") == "switch").map(Fact::event).collect();
    assert_eq!(of_switch, ["order-intended"], "{place}");
}

/// Waits until what became of the switch is recorded.
async fn answered(site: &Site, release: &str) {
    kit::until("the order to switch has an outcome", LONGEST, || async {
        let books = Books::read(site).ok()?;
        let over =
            |event: &str, step: &str| ["order-done", "order-failed"].contains(&event) && step == "switch";
        books.of(release).any(|fact| over(fact.event(), fact.text("step"))).then_some(())
    })
    .await
    .unwrap();
}

/// Waits until the release is over, or waits for a person and tells them of HAProxy.
async fn stands_still(site: &Site, release: &str) {
    let still = kit::until("the release is over or held", LONGEST, || async {
        let told = site.client().ok()?.status().await.ok()?.release?;
        (told.held.is_some() || !told.outcome.is_empty()).then_some(told)
    });
    let Some(held) = still.await.unwrap().held else { return };
    assert!(held.host == "lb1" && held.hint.contains("haproxy"), "`{release}` is held: {held:?}");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("lb1") && told.says("pointsman resume production"), "{told:?}");
}

/// Lets the release end. One that waits for a person is asked to go on.
async fn ended(site: &Site, release: &str) -> Release {
    let give_up = std::time::Instant::now() + LONGEST;
    loop {
        let mut client = site.client().unwrap();
        let told = client.status().await.unwrap().release.unwrap();
        if !told.outcome.is_empty() {
            return told;
        }
        if told.held.is_some() {
            let ask = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
            // Not held any more, perhaps.
            let _ = client.api.resume(ask).await;
        }
        assert!(std::time::Instant::now() < give_up, "`{release}` does not end: {told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the agent of the load balancer says by itself.
async fn described(site: &Site) -> (String, String) {
    let told = site.cli(&["traffic", "show", "production", "-o", "json"]).await.unwrap();
    let document: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    let balancer = document.pointer("/balancers/0/balancer").unwrap_or_else(|| panic!("{document}"));
    let text = |field: &str| balancer[field].as_str().unwrap_or_default().to_owned();
    (text("route"), text("drift"))
}

/// Holds every account of the release against what stands. Returns whether the new version is live.
async fn told_truly(site: &mut Site, before: &str, old: &str, release: &Release, what: &str) -> bool {
    let name = &release.plan.as_ref().unwrap().release;
    let new = match release.outcome.as_str() {
        "confirmed" => true,
        "rolled-back" | "aborted" => false,
        other => panic!("{what}: it ended as `{other}`"),
    };
    site.ready().await.unwrap();
    let told = site.client().unwrap().status().await.unwrap();
    let wanted = told.wanted_route;
    let side = wanted.split(':').next().unwrap();
    assert_eq!(side != before.split(':').next().unwrap(), new, "{what}: {before}, {wanted}");
    if new {
        assert_eq!(wanted, release.plan.as_ref().unwrap().route_after, "{what}");
    }
    assert_eq!(told.live.unwrap().release, if new { name } else { old }, "{what}");

    let disk = std::fs::read_to_string(&site.haproxy.layout().map).unwrap();
    assert_eq!(disk.trim(), format!("route {wanted}"), "{what}");
    let workers = site.haproxy.routes().await.unwrap();
    assert!(!workers.is_empty() && workers.values().all(|found| *found == wanted), "{what}: {workers:?}");
    assert_eq!(described(site).await, (wanted, String::new()), "{what}");
    let page = site.visit().await.unwrap();
    assert!(page.contains(&format!("\n{}\n", if new { name } else { old })), "{what}: {page}");

    let books = Books::read(site).unwrap();
    assert_eq!(books.contradictions(name), Vec::<String>::new(), "{what}");
    let switched = books.of(name).any(|fact| fact.event() == "order-done" && fact.text("step") == "switch");
    assert!(!new || switched, "{what}: confirmed, and no switch is recorded as done\n{}", books.lines(name));
    if !new {
        assert!(release.turned_back.is_some(), "{what}: it went back, and says not why");
    }
    new
}

async fn killed_at(places: &[(&'static str, u32)], killed: Killed, agent: Agent, ends: &[&str]) {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v0").await.unwrap();
    let mut live = "v0".to_owned();
    for (place, nth) in places {
        let what = format!("{killed:?} killed at {place}, and the agent {agent:?}");
        let release = format!("at-{place}");
        let before = site.haproxy.route().await.unwrap();
        stopped_at(&mut site, &release, place, *nth).await;
        match killed {
            Killed::Worker => site.haproxy.kill_worker().await.unwrap(),
            Killed::Master => site.haproxy.kill_master().await.unwrap(),
        }
        match agent {
            Agent::GoesOnAfter => {
                site.restart_haproxy().unwrap();
                site.signal(Daemon::LbAgent, Signal::CONT).unwrap();
            }
            Agent::GoesOnBefore => {
                site.signal(Daemon::LbAgent, Signal::CONT).unwrap();
                answered(&site, &release).await;
                site.restart_haproxy().unwrap();
            }
            Agent::GoesOnAlone => {
                site.signal(Daemon::LbAgent, Signal::CONT).unwrap();
                stands_still(&site, &release).await;
                site.restart_haproxy().unwrap();
            }
            Agent::DiesToo => {
                site.kill(Daemon::LbAgent).unwrap();
                site.restart_haproxy().unwrap();
                site.start(Daemon::LbAgent, None).unwrap();
            }
        }
        let ended = ended(&site, &release).await;
        assert!(ends.contains(&ended.outcome.as_str()), "{what}: {ended:?}");
        if told_truly(&mut site, &before, &live, &ended, &what).await {
            live = release;
        }
    }
}

/// HAProxy is back at once, or after the agent has seen that it is gone: the release comes to its goal.
const CONFIRMED: &[&str] = &["confirmed"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_every_place_of_a_switch() {
    for agent in [Agent::GoesOnAfter, Agent::GoesOnBefore] {
        killed_at(&PLACES, Killed::Worker, agent, CONFIRMED).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_killed_at_every_place_of_a_switch() {
    for agent in [Agent::GoesOnAfter, Agent::GoesOnBefore] {
        killed_at(&PLACES, Killed::Master, agent, CONFIRMED).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_and_the_agent_killed_at_every_place_of_a_switch() {
    for killed in [Killed::Worker, Killed::Master] {
        killed_at(&PLACES, killed, Agent::DiesToo, CONFIRMED).await;
    }
}

/// The places after which what the agent did to disk and worker differs, or is over, when HAProxy is found dead.
const DEAD_AT: [(&str, u32); 3] = [("route-on-disk", 2), ("route-in-worker", 2), ("order-acted", 5)];

/// Nobody brings it back: a person is called, and visitors are where the release says once it is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_that_stays_dead_is_told() {
    killed_at(&DEAD_AT, Killed::Master, Agent::GoesOnAlone, &["rolled-back", "aborted", "confirmed"]).await;
}

/// A reload has left a worker that still serves a visitor, and just that one is killed: the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_worker_killed_at_every_place_of_a_switch() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v0").await.unwrap();
    let mut live = "v0".to_owned();
    for (place, nth) in PLACES {
        let what = format!("an old worker killed at {place}");
        let release = format!("at-{place}");
        let before = site.haproxy.route().await.unwrap();
        stopped_at(&mut site, &release, place, nth).await;
        // The old one lives as long as a visitor has a connection that is not over.
        let mut visitor = Wire::open(site.frontend()).await.unwrap();
        assert_eq!(
            visitor.ask(b"GET /page.txt HTTP/1.1\r\nHost: www.example.org\r\n\r\n").await.unwrap().status,
            200
        );
        let old = site.haproxy.worker().await;
        site.haproxy.reload().await.unwrap();
        kit::until("a new worker", LONGEST, || async {
            site.haproxy.worker().await.filter(|new| Some(new) != old.as_ref())
        })
        .await
        .unwrap();
        site.haproxy.kill_old_worker().await.unwrap();
        site.signal(Daemon::LbAgent, Signal::CONT).unwrap();
        let ended = ended(&site, &release).await;
        assert_eq!(ended.outcome, "confirmed", "{what}: {ended:?}");
        assert!(told_truly(&mut site, &before, &live, &ended, &what).await);
        live = release;
    }
}
