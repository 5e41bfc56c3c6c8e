//! Whatever is killed in the middle of a release, nobody is served a torn tree, and the release goes on by itself
//! when what was killed is back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kit::{Client, Load, LoadPlan, Site, tree};

/// Files of a transfer long enough to be interrupted, and their size.
const BIG: (u64, usize) = (160, 1 << 20);

/// A site with v1 live, and a large v2 in the store.
async fn with_large_v2(watch: &str) -> (Site, PathBuf, String) {
    let site = Site::builder().watch(watch).start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    tree::grow(&v2, BIG.0, BIG.1).unwrap();
    let digest = kit::publish(&mut site.client().unwrap(), &v2).await.unwrap();
    (site, v2, digest)
}

/// Waits until part of the artifact has arrived at the green slot.
async fn partly_arrived(site: &Site, digest: &str) {
    let begins = kit::until("the transfer begins", Duration::from_secs(20), || async {
        (site.green.staged(digest, "big") > 2).then_some(())
    });
    begins.await.unwrap();
}

async fn ends_confirmed(mut client: Client, site: &Site, v2: &Path, load: Load) {
    let outcome = kit::until("the release ends", Duration::from_secs(60), || {
        let mut client = client.clone();
        async move { client.outcome("v2").await.ok() }
    });
    assert_eq!(outcome.await.unwrap(), "confirmed");
    load.more(100).await.unwrap();
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.by("v1") > 0 && report.by("v2") > 50);
    assert!(tree::compare(v2, &site.green.live()).unwrap() > 20);
    assert_eq!(client.status().await.unwrap().live.unwrap().release, "v2");
    let inventory = site.green.inventory().unwrap();
    assert!(!inventory.keys().any(|name| name.starts_with(".pointsman/staging/")), "{inventory:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_in_a_transfer() {
    let (mut site, v2, digest) = with_large_v2("300ms").await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    let mut client = site.client().unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    partly_arrived(&site, &digest).await;
    site.green.kill_agent().unwrap();
    assert_eq!(site.green.current(), None, "a torn tree must not be current");
    site.green.start_agent().unwrap();
    ends_confirmed(client, &site, &v2, load).await;
    assert_ne!(site.green.current(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_in_a_transfer() {
    let (mut site, v2, digest) = with_large_v2("300ms").await;
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    site.client().unwrap().deploy(&digest, "v2").await.unwrap();
    partly_arrived(&site, &digest).await;
    site.kill_coordinator().unwrap();
    assert_eq!(site.green.current(), None, "a torn tree must not be current");
    load.more(100).await.unwrap();
    site.start_coordinator().unwrap();
    let client = site.coordinator_answers().await.unwrap();
    ends_confirmed(client, &site, &v2, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_in_the_watch() {
    let mut site = Site::builder().watch("1s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(50).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    site.kill_coordinator().unwrap();
    let route = site.haproxy.route().await.unwrap();
    load.more(100).await.unwrap();
    site.start_coordinator().unwrap();
    let client = site.coordinator_answers().await.unwrap();
    ends_confirmed(client, &site, &v2, load).await;
    assert_eq!(site.haproxy.route().await.unwrap(), route);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lb_agent_killed() {
    let mut site = Site::builder().watch("1s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(50).await.unwrap();

    // Between releases: what needs it is refused, visitors notice nothing, and when it is back all is well.
    let before = site.world().await.unwrap();
    site.kill_lb_agent().unwrap();
    let words = ["deploy", "production", "--artifact", &digest, "--release", "v2", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 7, "{told:?}");
    assert!(told.says("PM0501"), "{told:?}");
    assert_eq!(site.world().await.unwrap(), before);
    site.start_lb_agent().unwrap();
    site.ready().await.unwrap();

    // And in the middle of a watch: it is blind for a moment, which is not a failure.
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    site.kill_lb_agent().unwrap();
    site.start_lb_agent().unwrap();
    ends_confirmed(client, &site, &v2, load).await;
}

/// The steps after which something is killed, and with them every kind of work a release has.
const STEPS: [&str; 7] = ["preflight", "stage", "drain", "activate", "expose", "check", "switch"];

/// What is recorded of an order before it is sent, and after its answer came.
const MOMENTS: [&str; 2] = ["order-intended", "order-done"];

/// Begins a release and returns when this is recorded of a step of it.
async fn reached(site: &Site, release: &str, kind: &str, step: &str) -> Client {
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact(release).unwrap()).await.unwrap();
    client.deploy(&digest, release).await.unwrap();
    let there = |seen: &kit::Seen| seen.update.kind == kind && seen.update.step == step;
    let heard = client.follow(release, there).await.unwrap();
    assert!(there(heard.last().unwrap()));
    client
}

/// Every step with every moment, and a name for the release that is disturbed there.
fn moments() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let all = STEPS.into_iter().flat_map(|step| MOMENTS.map(|kind| (kind, step)));
    all.map(|(kind, step)| (kind, step, format!("{step}-{kind}")))
}

async fn is_live(site: &Site, mut client: Client, release: &str) {
    client.confirmed(release).await.unwrap();
    assert!(site.visit().await.unwrap().contains(&format!("\n{release}\n")));
}

async fn nobody_noticed(load: Load) {
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_in_and_after_every_step() {
    let mut site = Site::builder().watch("100ms").start().await.unwrap();
    site.released("v0").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    for (kind, step, release) in moments() {
        reached(&site, &release, kind, step).await;
        site.kill_coordinator().unwrap();
        site.start_coordinator().unwrap();
        let client = site.coordinator_answers().await.unwrap();
        is_live(&site, client, &release).await;
    }
    nobody_noticed(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_killed_in_and_after_every_step() {
    let mut site = Site::builder().watch("100ms").start().await.unwrap();
    site.released("v0").await.unwrap();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    for (kind, step, release) in moments() {
        let client = reached(&site, &release, kind, step).await;
        site.kill_lb_agent().unwrap();
        site.blue.kill_agent().unwrap();
        site.green.kill_agent().unwrap();
        site.start_lb_agent().unwrap();
        site.blue.start_agent().unwrap();
        site.green.start_agent().unwrap();
        is_live(&site, client, &release).await;
        site.ready().await.unwrap();
    }
    nobody_noticed(load).await;
}
