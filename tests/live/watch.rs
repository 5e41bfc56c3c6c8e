//! The new version starts to fail while it is watched: visitors are moved back, and nobody had to be there.

use std::time::Duration;

use kit::{Load, LoadPlan, Site};

async fn switched(site: &Site, release: &str) {
    let client = site.client().unwrap();
    kit::until("visitors are moved", Duration::from_secs(20), || {
        let mut client = client.clone();
        async move {
            let heard = client.follow(release, |seen| seen.done("switch")).await.ok()?;
            heard.last()?.done("switch").then_some(())
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_watch_moves_visitors_back() {
    let site = Site::builder().watch("3s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(100).await.unwrap();
    let words = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes", "-o", "json"];
    let (told, ()) = tokio::join!(site.cli(&words), async {
        switched(&site, "v2").await;
        site.green.fail_deep(true).unwrap();
    });
    let told = told.unwrap();
    load.more(200).await.unwrap();
    let report = load.stop().unwrap();

    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.stdout.contains("\"format_version\": \"1.0\""), "{told:?}");
    assert!(told.stdout.contains("rolled-back") && told.says("PM0401"), "{told:?}");
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.by("v2") > 0 && report.by("v1") > 200);
    assert!(site.visit().await.unwrap().contains("v1"));
    assert!(site.haproxy.route().await.unwrap().starts_with("be_blue:be_green:0:"));
    assert_eq!(site.client().unwrap().status().await.unwrap().live.unwrap().release, "v1");
}

/// The same while nobody looks: the coordinator alone decides, and a later `status` tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_goes_down_during_the_watch_is_left() {
    let mut site = Site::builder().watch("2s").start().await.unwrap();
    let v1 = site.artifact("v1").unwrap();
    let v2 = site.artifact("v2").unwrap();
    let mut client = site.client().unwrap();
    let (v1, v2) =
        (kit::publish(&mut client, &v1).await.unwrap(), kit::publish(&mut client, &v2).await.unwrap());
    client.deploy(&v1, "v1").await.unwrap();
    assert_eq!(client.outcome("v1").await.unwrap(), "confirmed");
    client.deploy(&v2, "v2").await.unwrap();
    switched(&site, "v2").await;
    site.green.stop_nginx().unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    assert!(site.visit().await.unwrap().contains("v1"));
    let told = site.cli(&["status", "production", "--release", "v2"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_ends_the_watch() {
    let site = Site::builder().watch("30s").start().await.unwrap();
    let v1 = site.artifact("v1").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v1, "--release", "v1", "--yes"];
    let (deployed, ()) = tokio::join!(site.cli(&words), async {
        switched(&site, "v1").await;
        // Too late to abort: visitors are there.
        let told = site.cli(&["abort", "production"]).await.unwrap();
        assert_eq!(told.code, 4, "{told:?}");
        assert!(told.says("PM0707") && told.says("rollback"), "{told:?}");
        let told = site.cli(&["rollback", "production", "--reason", "complaints"]).await.unwrap();
        assert_eq!(told.code, 0, "{told:?}");
    });
    let deployed = deployed.unwrap();
    assert_eq!(deployed.code, 3, "{deployed:?}");
    assert!(deployed.says("complaints") && deployed.says("PM0711"), "{deployed:?}");
    assert!(site.visit().await.unwrap().starts_with("HTTP/1.1 503"), "nothing was live before");
}
