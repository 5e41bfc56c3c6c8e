//! Two load balancers that share the address which visitors ask, as keepalived moves it: a release goes on whichever of them
//! has it, and whenever it moves. Each is in a network of its own, and the address really moves.

use std::collections::BTreeMap;
use std::time::Instant;

use kit::{Daemon, ENVIRONMENT, Load, LoadPlan, Met, Report, Site, ids, in_own_network, sides};
use pointsman_proto::v1::AskRequest;

/// What says the version in one line.
const PAGE: &str = "/index.html";

/// Runs `test` in a network of its own, by its name, in which it is called again.
fn alone(name: &str, test: impl Future<Output = ()>) {
    if !in_own_network(&format!("failover::{name}")).unwrap() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(test);
}

/// Visitors fail only by the moves of the address: who was waiting for an answer then, and once who had a connection.
fn nobody_else_failed(report: &Report, moves: &[(Instant, Instant)]) {
    let mut broken = BTreeMap::new();
    let mut visits = report.visits.clone();
    visits.sort_by_key(|visit| visit.began);
    for visit in visits.iter().filter(|visit| visit.failure.is_some()) {
        let waited = moves.iter().any(|(began, ended)| visit.began <= *ended && visit.ended >= *began);
        let moved = moves.iter().filter(|(began, _)| *began < visit.began).count();
        let first = visit.reused && moved > 0 && broken.insert((visit.client, moved), ()).is_none();
        assert!(waited || first, "{:?} of client {}", visit.failure, visit.client);
    }
}

/// The one route that stands on both.
async fn one_route(site: &Site) -> String {
    let routes = site.routes().await.unwrap();
    assert_eq!(routes[0], routes[1]);
    routes[0].clone()
}

async fn move_while_releasing() {
    let mut site = Site::builder().shared_address().watch("1s").start().await.unwrap();
    site.released("v0").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut client = site.client().unwrap();
    let (mut moves, mut switches, mut old) = (Vec::new(), Vec::new(), "v0".to_owned());
    for (number, moment) in (1..).zip(["stage", "activate", "expose", "check", "switch", "watch"]) {
        let new = format!("v{number}");
        let digest = kit::publish(&mut client, &site.artifact(&new).unwrap()).await.unwrap();
        client.deploy(&digest, &new).await.unwrap();
        let (mut follower, release) = (client.clone(), new.clone());
        let followed = tokio::spawn(async move { follower.follow(&release, |_| false).await.unwrap() });
        client.follow(&new, |seen| seen.update.step == moment).await.unwrap();
        moves.push(site.fail_over().unwrap());
        let heard = followed.await.unwrap();
        let release = heard.last().unwrap().update.release.clone().unwrap();
        assert_eq!(release.outcome, "confirmed", "{moment}: {:?}", release.turned_back);
        switches.push((heard.iter().find(|seen| seen.done("switch")).unwrap().arrived, old));
        one_route(&site).await;
        load.more(100).await.unwrap();
        old = new;
    }
    // Back, and the address moves with it.
    let asked = site.cli_start(&["rollback", "production", "--reason", "test"]).unwrap();
    moves.push(site.fail_over().unwrap());
    let told = asked.wait_with_output().await.unwrap();
    assert!(told.status.success(), "{told:?}");
    one_route(&site).await;
    assert!(site.visit().await.unwrap().contains("\nv5\n"));

    load.more(200).await.unwrap();
    let report = load.stop().unwrap();
    nobody_else_failed(&report, &moves);
    for (switch, old) in switches.iter().filter(|(_, old)| *old != "v5") {
        assert_eq!(report.after(*switch, old), 0, "answered by {old} after its successor was reported");
    }
}

#[test]
fn a_release_goes_on_whenever_the_address_moves() {
    alone("a_release_goes_on_whenever_the_address_moves", move_while_releasing());
}

/// Who is on the canary side, each with the page of that side.
fn on_canary(met: &[Met]) -> Vec<bool> {
    for met in met {
        assert_eq!(met.page, format!("<title>{}</title>", if met.canary { "v2" } else { "v1" }), "{met:?}");
    }
    met.iter().map(|met| met.canary).collect()
}

async fn move_while_shared_out() {
    let site = Site::builder().shared_address().canary(&[30], "60s").watch("500ms").start().await;
    let mut site = site.unwrap();
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("canary-1")).await.unwrap();
    let ids = ids(500);
    let before = on_canary(&sides(site.frontend(), PAGE, &ids).await.unwrap());
    assert!(before.contains(&true) && before.contains(&false));
    site.fail_over().unwrap();
    let after = on_canary(&sides(site.frontend(), PAGE, &ids).await.unwrap());
    assert_eq!(before, after, "visitors changed side with the load balancer");
    let ask = AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.promote(ask).await.unwrap();
    client.confirmed("v2").await.unwrap();
}

#[test]
fn every_visitor_keeps_a_side_when_the_address_moves() {
    alone("every_visitor_keeps_a_side_when_the_address_moves", move_while_shared_out());
}

/// Has the agents ask the shared address itself, as nobody should: the one that does not have it asks the other's frontend.
async fn agents_ask_the_shared_address(site: &mut Site) {
    for (name, daemon) in [("lb1", Daemon::LbAgent), ("lb2", Daemon::SecondLbAgent)] {
        let file = site.folder().join(name).join("lb-agent.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let shared =
            text.replace("address = \"127.0.0.1:80\"", &format!("address = \"{}\"", site.frontend()));
        assert_ne!(text, shared);
        std::fs::write(file, shared).unwrap();
        site.kill(daemon).unwrap();
        site.start(daemon, None).unwrap();
    }
    site.ready().await.unwrap();
}

async fn move_while_going_back() {
    let mut site = Site::builder().shared_address().watch("200ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.released("v2").await.unwrap();
    agents_ask_the_shared_address(&mut site).await;
    let before = one_route(&site).await;
    let told = site.cli(&["doctor", "lb", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("own-frontend") && told.says("`bind 127.0.0.1:80 ...`"), "{told:?}");
    let digest = kit::publish(&mut site.client().unwrap(), &site.artifact("v3").unwrap()).await.unwrap();
    let words = ["deploy", "production", "--artifact", &digest, "--release", "v3", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert!(told.code != 0 && told.says("PM0110"), "{told:?}");
    assert!(told.says("is no address of this host now") && told.says("`bind 127.0.0.1:80 ...`"), "{told:?}");
    assert_eq!(one_route(&site).await, before, "nothing was moved");
    // Nobody is kept from going back, and no answer of the other one's is taken for one's own.
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut moves = Vec::new();
    for _ in 0..4 {
        let mut asked = site.cli_start(&["rollback", "production", "--reason", "test"]).unwrap();
        while asked.try_wait().unwrap().is_none() {
            moves.push(site.fail_over().unwrap());
            load.more(20).await.unwrap();
        }
        let told = asked.wait_with_output().await.unwrap();
        assert!(told.status.success(), "{told:?}");
        one_route(&site).await;
    }
    nobody_else_failed(&load.stop().unwrap(), &moves);
}

#[test]
fn whoever_asks_the_address_that_moves_is_told_and_led_back_all_the_same() {
    alone("whoever_asks_the_address_that_moves_is_told_and_led_back_all_the_same", move_while_going_back());
}
