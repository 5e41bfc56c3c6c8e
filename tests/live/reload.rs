//! `HAProxy` is reloaded in the middle of a watch: the new worker starts with the new route, and nobody notices.

use std::time::{Duration, Instant};

use kit::{ENVIRONMENT, Load, LoadPlan, Seen, Site};
use pointsman_proto::v1::AskRequest;

/// Waits until another worker than `before` takes new connections.
async fn another_worker(site: &Site, before: Option<String>) {
    let reloaded = kit::until("a new worker", Duration::from_secs(10), || async {
        let new = site.haproxy.worker().await;
        (new.is_some() && new != before).then_some(())
    });
    reloaded.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_during_the_watch_keeps_the_route() {
    let mut site = Site::builder().watch("40s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();

    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    let route = site.haproxy.route().await.unwrap();
    let worker = site.haproxy.worker().await;
    site.haproxy.reload().await.unwrap();
    another_worker(&site, worker).await;
    assert_eq!(site.haproxy.route().await.unwrap(), route);
    // What they meet is told while they are watched, and after it.
    what_came_is_told_all_the_same(&site, "v2", "").await;

    let asked = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.clone().promote(asked).await.unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "confirmed");
    load.more(200).await.unwrap();
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.by("v2") > 200);
    assert_eq!(site.haproxy.route().await.unwrap(), route);
    assert!(route.starts_with("be_green:be_blue:0:"), "{route}");
    what_came_is_told_all_the_same(&site, "v2", "confirmed").await;
}

/// After a reload the old process writes no access lines: what HAProxy's counters know of it takes their place.
async fn what_came_is_told_all_the_same(site: &Site, release: &str, outcome: &str) {
    let point = kit::until("what visitors met has passed", Duration::from_secs(20), || async {
        let list = site.cli(&["checklist", "production", "--release", release, "-o", "json"]).await.ok()?;
        let list: serde_json::Value = serde_json::from_str(&list.stdout).ok()?;
        let is_of_then = list["outcome"].as_str().unwrap_or_default() == outcome;
        let points = list["points"].as_array().filter(|_| is_of_then)?;
        let point = points.iter().find(|point| point["name"] == "error-rate")?.clone();
        (point["verdict"] == "passed").then_some(point)
    });
    let point = point.await.unwrap();
    let told = point["evidence"][0].as_str().unwrap();
    assert!(told.starts_with("0.00 %: 0 of "), "{point}");
}

/// Checks that nobody who came after a switch was reported was served by the slot before.
fn nobody_came_late(load: Load, switches: &[(Instant, String)]) {
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    for (switch, old) in switches {
        assert_eq!(report.after(*switch, old), 0, "answered by {old} after its successor was reported");
    }
}

fn switch_of(heard: &[Seen]) -> Instant {
    assert_eq!(heard.last().unwrap().outcome(), Some("confirmed"));
    heard.iter().find(|seen| seen.done("switch")).unwrap().arrived
}

/// A reload every half second, whatever step the releases are in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_all_the_way_through() {
    let mut site = Site::builder().watch("500ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut switches = Vec::new();
    for (old, new) in [("v1", "v2"), ("v2", "v3"), ("v3", "v4")] {
        let digest = kit::publish(&mut client, &site.artifact(new).unwrap()).await.unwrap();
        client.deploy(&digest, new).await.unwrap();
        let mut follower = client.clone();
        let followed = tokio::spawn(async move { follower.follow(new, |_| false).await.unwrap() });
        while !followed.is_finished() {
            let worker = site.haproxy.worker().await;
            site.haproxy.reload().await.unwrap();
            another_worker(&site, worker).await;
            load.more(300).await.unwrap();
        }
        switches.push((switch_of(&followed.await.unwrap()), old.to_owned()));
    }
    nobody_came_late(load, &switches);
    assert!(site.visit().await.unwrap().contains("v4"));
}

/// Reloads that begin shortly before a switch and are under way while it is made: the worker that just became old
/// still serves the connections it has, and must follow the switch before it is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_during_the_switch() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v0").await.unwrap();
    let mut client = site.client().unwrap();
    // Few requests on each connection: most wait idle for the switch, on the worker that becomes old.
    let plan = LoadPlan { keep_alive: 40, fresh: 4, every: Duration::from_millis(70), with_ids: false };
    let load = Load::start(site.frontend(), plan).unwrap();
    load.more(200).await.unwrap();
    let mut switches = Vec::new();
    let mut old = "v0".to_owned();
    let moments = ["activate", "expose", "expose", "check", "check", "switch"];
    for (number, moment) in (1..).zip(moments) {
        let new = format!("v{number}");
        let digest = kit::publish(&mut client, &site.artifact(&new).unwrap()).await.unwrap();
        let worker = site.haproxy.worker().await;
        client.deploy(&digest, &new).await.unwrap();
        let (mut follower, release) = (client.clone(), new.clone());
        let followed = tokio::spawn(async move { follower.follow(&release, |_| false).await.unwrap() });
        client.follow(&new, |seen| seen.update.step == moment).await.unwrap();
        site.haproxy.reload().await.unwrap();
        another_worker(&site, worker).await;
        switches.push((switch_of(&followed.await.unwrap()), old));
        load.more(100).await.unwrap();
        old = new;
    }
    nobody_came_late(load, &switches);
}
