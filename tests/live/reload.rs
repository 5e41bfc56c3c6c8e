//! `HAProxy` is reloaded in the middle of a watch: the new worker starts with the new route, and nobody notices.

use std::time::Duration;

use kit::{Load, LoadPlan, Site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_during_the_watch_keeps_the_route() {
    let mut site = Site::builder().watch("2s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();

    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("switch")).await.unwrap();
    let route = site.haproxy.route().await.unwrap();
    let worker = site.haproxy.worker().await;
    site.haproxy.reload().unwrap();
    let reloaded = kit::until("a new worker", Duration::from_secs(10), || async {
        let new = site.haproxy.worker().await;
        (new.is_some() && new != worker).then_some(())
    });
    reloaded.await.unwrap();
    assert_eq!(site.haproxy.route().await.unwrap(), route);

    assert_eq!(client.outcome("v2").await.unwrap(), "confirmed");
    load.more(200).await.unwrap();
    let report = load.stop().unwrap();
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.by("v2") > 200);
    assert_eq!(site.haproxy.route().await.unwrap(), route);
    assert!(route.starts_with("be_green:be_blue:0:"), "{route}");
}
