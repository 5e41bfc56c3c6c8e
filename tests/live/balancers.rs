//! Two load balancers in front of the same slots: they move together or not at all, and what came of it is told.

use std::path::PathBuf;
use std::time::Duration;

use kit::{Client, Daemon, ENVIRONMENT, KillAt, Load, LoadPlan, Site};
use pointsman_proto::v1::{AskRequest, OrderView};
use rustix::process::Signal;
use serde_json::Value;

/// Longest time for what a test waits for.
const LONGEST: Duration = Duration::from_secs(30);

async fn two() -> Site {
    let site = Site::builder().balancers(2).watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site
}

async fn digest_of(site: &Site, version: &str) -> String {
    let folder = site.artifact(version).unwrap();
    kit::publish(&mut site.client().unwrap(), &folder).await.unwrap()
}

/// The one route that stands on both, on disk as in the workers.
async fn one_route(site: &Site) -> String {
    let routes = site.routes().await.unwrap();
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[0], routes[1]);
    for haproxy in site.haproxies() {
        let on_disk = std::fs::read_to_string(&haproxy.layout().map).unwrap();
        assert_eq!(on_disk.trim(), format!("route {}", routes[0]));
    }
    routes[0].clone()
}

/// Every frontend serves this version.
async fn everywhere(site: &Site, version: &str) {
    for frontend in site.frontends() {
        let page = kit::ask(frontend, "/page.txt").await.unwrap();
        assert!(page.contains(&format!("\n{version}\n")), "{frontend}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_move_and_the_ending_says_how_far_apart() {
    let site = two().await;
    let before = one_route(&site).await;
    let loads: Vec<Load> = site
        .frontends()
        .into_iter()
        .map(|frontend| Load::start(frontend, LoadPlan::default()).unwrap())
        .collect();
    let digest = digest_of(&site, "v2").await;
    let words = ["deploy", "production", "--artifact", &digest, "--release", "v2", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.says("2 load balancers moved to epoch "), "{told:?}");
    let after = one_route(&site).await;
    assert!(before.starts_with("be_blue:") && after.starts_with("be_green:"), "{before}, {after}");
    everywhere(&site, "v2").await;

    let told = site.cli(&["rollback", "production", "--reason", "test", "-o", "json"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    let orders = document.pointer("/detail/orders").unwrap().as_array().unwrap();
    let effects =
        orders.iter().filter(|order| order["step"] == "switch" && order["effect_at_us"].as_u64() > Some(0));
    assert_eq!(effects.count(), 2, "{document}");
    assert!(one_route(&site).await.starts_with("be_blue:"));
    everywhere(&site, "v1").await;
    for load in loads {
        load.more(50).await.unwrap();
        assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
    }
}

/// Begins a rollback that must not get anywhere, and returns what was said.
async fn refused(site: &Site) -> String {
    let before = site.routes().await.unwrap();
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert_ne!(told.code, 0, "{told:?}");
    assert_eq!(site.routes().await.unwrap(), before, "{told:?}");
    assert!(told.says("lb2"), "{told:?}");
    format!("{}{}", told.stdout, told.stderr)
}

/// The file that a new route is laid ready in, beside the map.
fn laid_ready(site: &mut Site) -> PathBuf {
    site.second_haproxy().unwrap().layout().map.with_extension("map.tmp")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_of_them_none_moves() {
    let mut site = two().await;
    site.released("v2").await.unwrap();
    let before = one_route(&site).await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();

    // Dead before it begins.
    site.kill(Daemon::SecondLbAgent).unwrap();
    refused(&site).await;
    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();

    // There, and silent.
    site.signal(Daemon::SecondLbAgent, Signal::STOP).unwrap();
    refused(&site).await;
    site.signal(Daemon::SecondLbAgent, Signal::CONT).unwrap();
    site.ready().await.unwrap();

    // Its HAProxy is dead.
    site.second_haproxy().unwrap().kill_master().await.unwrap();
    let first = site.haproxy.route().await.unwrap();
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert!(told.code != 0 && told.says("lb2"), "{told:?}");
    assert_eq!(site.haproxy.route().await.unwrap(), first);
    site.restart_second_haproxy().unwrap();
    site.ready().await.unwrap();

    // Fit for all that only looks, and unable to write when both are to make ready.
    let blocked = laid_ready(&mut site);
    std::fs::create_dir(&blocked).unwrap();
    let said = refused(&site).await;
    assert!(said.contains("switch"), "{said}");
    std::fs::remove_dir(&blocked).unwrap();

    assert_eq!(one_route(&site).await, before);
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(one_route(&site).await.starts_with("be_blue:"));
    everywhere(&site, "v1").await;
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

/// One that is gone for good keeps nobody else from going back, once a person says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_out_of_service_is_left_out_where_a_person_says_so() {
    let mut site = two().await;
    site.released("v2").await.unwrap();
    let rollback = async |site: &Site, without: &str| {
        site.cli(&["rollback", "production", "--reason", "test", "--without", without]).await.unwrap()
    };
    let told = rollback(&site, "lb2").await;
    assert!(told.code != 0 && told.says("`lb2` answers"), "{told:?}");
    site.kill(Daemon::SecondLbAgent).unwrap();
    let said = refused(&site).await;
    assert!(said.contains("--without lb2"), "{said}");
    let told = rollback(&site, "lb2").await;
    assert_eq!(told.code, 0, "{told:?}");
    let [first, second] = [0, 1].map(|index| site.frontends()[index]);
    assert!(kit::ask(first, "/page.txt").await.unwrap().contains("\nv1\n"));
    assert!(kit::ask(second, "/page.txt").await.unwrap().contains("\nv2\n"), "it was asked nothing");
    // It is back, and shown as what it is.
    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["doctor", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("out of service when visitors were moved"), "{told:?}");
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0109"), "{told:?}");
}

/// Writes the environment's file anew and has it taken up.
async fn environment_is(site: &mut Site, text: &str) {
    let file = site.folder().join(format!("coordinator/environments/{ENVIRONMENT}.toml"));
    std::fs::write(file, text).unwrap();
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
}

/// Deploys `version` as a person does, and returns what was told.
async fn deployed(site: &Site, version: &str) -> kit::Told {
    let digest = digest_of(site, version).await;
    site.cli(&["deploy", "production", "--artifact", &digest, "--release", version, "--yes"]).await.unwrap()
}

/// A deploy leaves none out. One that is gone is taken out of the environment, as the refusal says, and comes back by the
/// words of PM0109.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_gone_is_taken_out_of_the_environment_and_comes_back() {
    let mut site = two().await;
    site.kill(Daemon::SecondLbAgent).unwrap();
    site.second_haproxy().unwrap().kill_master().await.unwrap();
    let told = deployed(&site, "v2").await;
    assert!(told.code != 0 && told.says("lb2") && told.says("take it out of `[lb]`"), "{told:?}");

    let file = site.folder().join(format!("coordinator/environments/{ENVIRONMENT}.toml"));
    let whole = std::fs::read_to_string(file).unwrap();
    let lines = whole.lines().filter(|line| !line.starts_with("lb2 = "));
    let without = lines.collect::<Vec<_>>().join("\n").replace(r#"["lb1", "lb2"]"#, r#"["lb1"]"#);
    assert!(!without.contains("lb2"), "{without}");
    environment_is(&mut site, &without).await;
    // Two, so that both slots are overwritten meanwhile.
    for version in ["v2", "v3"] {
        let told = deployed(&site, version).await;
        assert_eq!(told.code, 0, "{told:?}");
    }
    let first = site.frontend();
    assert!(kit::ask(first, "/page.txt").await.unwrap().contains("\nv3\n"));
    assert_eq!(site.cli(&["doctor", "production"]).await.unwrap().code, 0);

    site.restart_second_haproxy().unwrap();
    site.start(Daemon::SecondLbAgent, None).unwrap();
    environment_is(&mut site, &whole).await;
    site.ready().await.unwrap();
    let told = deployed(&site, "v4").await;
    assert!(told.code != 0 && told.says("PM0109"), "{told:?}");

    let route = site.haproxy.route().await.unwrap();
    site.kill(Daemon::SecondLbAgent).unwrap();
    let haproxy = site.second_haproxy().unwrap();
    let map = haproxy.layout().map.clone();
    std::fs::write(&map, format!("route {route}\n")).unwrap();
    haproxy.ask(&format!("set map {} route {route}", map.display())).await.unwrap();
    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();
    let told = deployed(&site, "v4").await;
    assert_eq!(told.code, 0, "{told:?}");
    one_route(&site).await;
    everywhere(&site, "v4").await;
}

/// Waits until a daemon has killed itself.
async fn falls(site: &mut Site, daemon: Daemon) {
    let give_up = std::time::Instant::now() + LONGEST;
    while !site.fell(daemon).unwrap() {
        assert!(std::time::Instant::now() < give_up, "{daemon:?} does not come to where it is to be killed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the check of this host is recorded as done.
async fn checked(client: &mut Client, release: &str, host: &str) {
    let done = |order: &OrderView| order.step == "check" && order.host == host && order.state == "done";
    let there = |seen: &kit::Seen| {
        seen.update.release.as_ref().is_some_and(|release| release.orders.iter().any(done))
    };
    let heard = client.follow(release, there).await.unwrap();
    assert!(there(heard.last().unwrap()));
}

/// One stops to answer when everything was checked and both are asked to make ready: neither moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_silent_when_both_make_ready() {
    let mut site = two().await;
    let before = one_route(&site).await;
    // The check of the web host is its fourth order: while it is dead, no visitor can be moved.
    site.kill(Daemon::Green).unwrap();
    site.start(Daemon::Green, Some(KillAt { place: "order-begun", nth: 4 })).unwrap();
    site.ready().await.unwrap();
    let mut client = site.client().unwrap();
    let digest = digest_of(&site, "v2").await;
    client.deploy(&digest, "v2").await.unwrap();
    falls(&mut site, Daemon::Green).await;
    for balancer in ["lb1", "lb2"] {
        checked(&mut client, "v2", balancer).await;
    }
    site.signal(Daemon::SecondLbAgent, Signal::STOP).unwrap();
    let exposed = one_route(&site).await;
    assert!(exposed.starts_with("be_blue:be_green:0:"), "{before}, {exposed}");
    site.start(Daemon::Green, None).unwrap();

    let failed =
        |seen: &kit::Seen| seen.update.release.as_ref().is_some_and(|release| release.turned_back.is_some());
    let heard = client.follow("v2", failed).await.unwrap();
    let release = heard.last().unwrap().update.release.clone().unwrap();
    let why = release.turned_back.unwrap();
    assert_eq!(why.host, "lb2", "{why:?}");
    // It had come as far as the move, and not one of them made it.
    let moves: Vec<&OrderView> = release.orders.iter().filter(|order| order.step == "switch").collect();
    assert_eq!(moves.len(), 2, "{:?}", release.orders);
    assert!(moves.iter().all(|order| order.state == "failed" && order.effect_at_us == 0), "{moves:?}");
    for route in site.routes().await.unwrap() {
        assert!(route.starts_with("be_blue:"), "{route}");
    }

    site.signal(Daemon::SecondLbAgent, Signal::CONT).unwrap();
    let ended = kit::until("the release ends", LONGEST, || async {
        let release = site.client().ok()?.status().await.ok()?.release?;
        if release.held.is_some() {
            // On the way back it waited in vain for the one that was silent.
            let ask = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
            let _ = site.client().ok()?.api.resume(ask).await;
        }
        (!release.outcome.is_empty()).then_some(release.outcome)
    });
    assert_eq!(ended.await.unwrap(), "aborted");
    assert!(one_route(&site).await.starts_with("be_blue:"));
    everywhere(&site, "v1").await;
}

/// The places that the second agent passes when it is told to take what it has made ready, with how often it passes each
/// in a release up to then.
const ON_THE_WAY: [(&str, u32); 4] =
    [("order-before-receipt", 5), ("order-begun", 5), ("route-on-disk", 2), ("route-in-worker", 2)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_while_both_take_the_route_follows_when_it_is_back() {
    let mut site = two().await;
    let loads: Vec<Load> = site
        .frontends()
        .into_iter()
        .map(|frontend| Load::start(frontend, LoadPlan::default()).unwrap())
        .collect();
    for (place, nth) in ON_THE_WAY {
        site.kill(Daemon::SecondLbAgent).unwrap();
        site.start(Daemon::SecondLbAgent, Some(KillAt { place, nth })).unwrap();
        site.ready().await.unwrap();
        let digest = digest_of(&site, place).await;
        let mut client = site.client().unwrap();
        client.deploy(&digest, place).await.unwrap();
        falls(&mut site, Daemon::SecondLbAgent).await;
        // It died in the switch, not before: the first one is asked to move as well.
        client.follow(place, |seen| seen.update.step == "switch").await.unwrap();
        site.start(Daemon::SecondLbAgent, None).unwrap();

        let heard = client.follow(place, |_| false).await.unwrap();
        let release = heard.last().unwrap().update.release.clone().unwrap();
        assert_eq!(release.outcome, "confirmed", "{place}: {:?}", release.turned_back);
        let route = one_route(&site).await;
        assert_eq!(release.plan.unwrap().route_after, route, "{place}");
        everywhere(&site, place).await;
        site.ready().await.unwrap();
    }
    for load in loads {
        load.more(50).await.unwrap();
        assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
    }
}

/// One stays away on the way back: the other moves its visitors back at once, a person is told whose are left, and what
/// they are told to type ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stays_away_on_the_way_back_keeps_nobody_else() {
    let mut site = Site::builder().balancers(2).watch("8s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let digest = digest_of(&site, "v2").await;
    client.deploy(&digest, "v2").await.unwrap();
    kit::until("v2 is watched", LONGEST, || async {
        site.client().ok()?.status().await.ok()?.release.filter(|release| release.step == "watch")
    })
    .await
    .unwrap();
    let ask = || AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    site.kill(Daemon::SecondLbAgent).unwrap();
    client.api.rollback(ask()).await.unwrap();
    let [first, second] = [0, 1].map(|index| site.frontends()[index]);
    kit::until("the first has moved back", LONGEST, || async {
        kit::ask(first, "/page.txt").await.ok().filter(|page| page.contains("\nv1\n"))
    })
    .await
    .unwrap();
    assert!(kit::ask(second, "/page.txt").await.unwrap().contains("\nv2\n"), "it was told nothing");

    let held = |seen: &kit::Seen| seen.update.release.as_ref().is_some_and(|release| release.held.is_some());
    let heard = client.follow("v2", held).await.unwrap();
    let why = heard.last().unwrap().update.release.clone().unwrap().held.unwrap();
    assert_eq!((why.host.as_str(), why.code.as_str()), ("lb2", "PM0501"), "{why:?}");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("lb2") && told.says("pointsman resume production"), "{told:?}");

    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["resume", "production", "--yes"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(one_route(&site).await.starts_with("be_blue:"));
    everywhere(&site, "v1").await;
}
