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

/// Waits until part of the artifact has arrived on a host, and makes sure that it is only a part.
async fn partly_arrived(root: &Path, digest: &str) {
    let staged = root.join(format!(".pointsman/staging/{digest}/big"));
    let files = || std::fs::read_dir(&staged).map_or(0, Iterator::count);
    kit::until("the transfer begins", Duration::from_secs(20), || async { (files() > 2).then_some(()) })
        .await
        .unwrap();
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
    partly_arrived(site.green.site(), &digest).await;
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
    partly_arrived(site.green.site(), &digest).await;
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
