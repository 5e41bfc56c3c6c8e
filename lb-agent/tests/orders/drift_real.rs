//! What somebody else does to the route of a real HAProxy, and what the guard makes of it.

use std::time::{Duration, Instant};

use pointsman_core::Code;
use tokio::task::JoinHandle;

use crate::real::Haproxy;
use crate::rig::{P, V, route};

/// Longer than the guard takes for several looks.
const WHILE: Duration = Duration::from_millis(1_500);

async fn started(enforce: bool) -> Option<(Haproxy, JoinHandle<()>)> {
    let haproxy = Haproxy::start_with(|_| (String::new(), format!("enforce = {enforce}\n"))).await?;
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    haproxy.until("the guard knows the worker", async |haproxy| known(haproxy).await).await;
    haproxy.agent.set_route(P, V).await.unwrap();
    Some((haproxy, guard))
}

async fn known(haproxy: &Haproxy) -> bool {
    let settled = std::fs::read_to_string(haproxy.agent.state.join("settled-worker")).unwrap_or_default();
    settled.split_whitespace().next() == Some(haproxy.pid().await.as_str())
}

async fn route_now(haproxy: &Haproxy) -> String {
    haproxy.agent.describe().await.balancer.unwrap_or_default().route
}

async fn kinds(haproxy: &Haproxy) -> Vec<String> {
    let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
    found.events.into_iter().map(|event| event.kind).collect()
}

async fn until_told(haproxy: &Haproxy, kind: &str, times: usize) {
    let told =
        async |haproxy: &Haproxy| kinds(haproxy).await.iter().filter(|known| *known == kind).count() == times;
    haproxy.until(&format!("`{kind}` is told {times} times"), told).await;
}

#[tokio::test]
async fn a_change_by_hand_is_told_and_left() {
    let Some((haproxy, guard)) = started(false).await else { return };
    let by_hand = "be_blue:be_green:0:99";
    haproxy.admin(&format!("set map MAP route {by_hand}")).await;
    until_told(&haproxy, "changed", 1).await;
    let until = Instant::now() + WHILE;
    while Instant::now() < until {
        assert_eq!(route_now(&haproxy).await, by_hand, "the guard fights nobody");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(haproxy.agent.inspect(V).await.unwrap_err().code, Code::RouteDrift, "and releases are held");
    haproxy.admin(&format!("set map MAP route {V}")).await;
    until_told(&haproxy, "well-again", 1).await;
    haproxy.agent.inspect(V).await.unwrap();

    // The file: what a reload would bring.
    std::fs::write(haproxy.folder.path().join("route.map"), format!("route {by_hand}\n")).unwrap();
    until_told(&haproxy, "changed", 2).await;
    assert_eq!(haproxy.agent.on_disk(), Some(route(by_hand)));
    guard.abort();
}

#[tokio::test]
async fn where_it_is_enforced_every_change_by_hand_is_set_back() {
    let Some((haproxy, guard)) = started(true).await else { return };
    let file = haproxy.folder.path().join("route.map");
    let changes: [(&str, &str); 3] = [
        ("another route", "set map MAP route be_blue:be_green:0:99"),
        ("no route", "del map MAP route"),
        ("a file", ""),
    ];
    for (number, (what, command)) in (1..).zip(changes) {
        match command {
            "" => std::fs::write(&file, "route be_blue:be_green:0:99\n").unwrap(),
            command => drop(haproxy.admin(command).await),
        }
        until_told(&haproxy, "enforced", number).await;
        haproxy.until(what, async |haproxy| haproxy.agent.inspect(V).await.is_ok()).await;
        assert_eq!(
            (route_now(&haproxy).await.as_str(), haproxy.agent.on_disk()),
            (V, Some(route(V))),
            "{what}"
        );
    }
    guard.abort();
}

/// A reload that began before a switch and ends after it: its worker has read the map as it was.
#[tokio::test]
async fn a_route_that_a_reload_brings_back_is_set_again() {
    let Some((haproxy, guard)) = started(false).await else { return };
    guard.abort();
    let file = haproxy.folder.path().join("route.map");
    std::fs::write(&file, format!("route {P}\n")).unwrap();
    haproxy.replaced().await;
    std::fs::write(&file, format!("route {V}\n")).unwrap();
    haproxy.healthy().await;
    assert_eq!(route_now(&haproxy).await, P);
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    until_told(&haproxy, "reload-restored", 1).await;
    haproxy.until("the route is set again", async |haproxy| route_now(haproxy).await == V).await;
    haproxy.agent.inspect(V).await.unwrap();
    let told = kinds(&haproxy).await;
    assert!(!told.iter().any(|kind| kind == "changed"), "nobody is blamed: {told:?}");
    guard.abort();
}

/// The worker of before goes on, and nothing else would say that HAProxy's next start fails.
#[tokio::test]
async fn a_reload_that_failed_is_told_and_that_one_works_again() {
    let Some(haproxy) = Haproxy::start_with(|folder| {
        (String::new(), format!("config = {:?}\n", folder.join("haproxy.cfg").display().to_string()))
    })
    .await
    else {
        return;
    };
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let config = haproxy.folder.path().join("haproxy.cfg");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("mode http", "mode nonsense")).unwrap();
    haproxy.signal("-USR2");
    until_told(&haproxy, "reload-failed", 1).await;
    assert_eq!(kinds(&haproxy).await.iter().filter(|kind| *kind == "changed").count(), 0);
    std::fs::write(&config, text).unwrap();
    haproxy.signal("-USR2");
    until_told(&haproxy, "reload-works", 1).await;
    guard.abort();
}

/// Where nobody said where HAProxy's files are it says so itself, those of a folder too: a change of them shows at once.
#[tokio::test]
async fn a_reload_that_fails_by_a_file_of_a_folder_is_told() {
    let Some(haproxy) = Haproxy::start_with(|folder| {
        std::fs::create_dir(folder.join("conf.d")).unwrap();
        std::fs::write(folder.join("conf.d/a.cfg"), "backend be_other\n").unwrap();
        (String::new(), String::new())
    })
    .await
    else {
        return;
    };
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    haproxy.until("the guard knows the worker", async |haproxy| known(haproxy).await).await;
    // It has asked the master and waits for half a minute, but for what changes.
    let broken = haproxy.folder.path().join("conf.d/b.cfg");
    std::fs::write(&broken, "backend be_broken\n  mode nonsense\n").unwrap();
    haproxy.signal("-USR2");
    until_told(&haproxy, "reload-failed", 1).await;
    std::fs::remove_file(&broken).unwrap();
    haproxy.signal("-USR2");
    until_told(&haproxy, "reload-works", 1).await;
    guard.abort();
}

/// A configuration without the map: nobody is led by the route, and releases must not build on it.
#[tokio::test]
async fn an_haproxy_that_has_lost_the_map_is_drift() {
    let Some((haproxy, guard)) = started(false).await else { return };
    let config = haproxy.folder.path().join("haproxy.cfg");
    let text = std::fs::read_to_string(&config).unwrap();
    let lookup = text.lines().find(|line| line.contains("set-var(txn.route)")).unwrap();
    std::fs::write(
        &config,
        text.replace(lookup, "  http-request set-var(txn.route) str(be_blue:be_blue:0:6)"),
    )
    .unwrap();
    haproxy.replaced().await;
    haproxy
        .until("it is drift", async |haproxy| {
            let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
            found.route.is_empty() && found.drift.contains("cannot be set")
        })
        .await;
    assert_eq!(haproxy.agent.inspect(V).await.unwrap_err().code, Code::RouteDrift);
    guard.abort();
}
