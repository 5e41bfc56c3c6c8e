//! The new version starts to fail while it is watched: visitors are moved back, and nobody had to be there.

use std::time::Duration;

use kit::{Load, LoadPlan, Site};
use pointsman_core::Code;
use pointsman_proto::v1;

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

/// Waits until the coordinator says of the slot that visitors came from whether it would take them back.
async fn way_back(site: &Site, what: &str, enough: impl Fn(&v1::WayBack) -> bool + Copy) {
    let client = site.client().unwrap();
    kit::until(what, Duration::from_secs(60), || {
        let mut client = client.clone();
        async move { client.status().await.ok()?.way_back.filter(enough) }
    })
    .await
    .unwrap();
}

/// Waits until the newest release stands as it is to.
async fn stands(site: &Site, what: &str, enough: impl Fn(&v1::Release) -> bool + Copy) -> v1::Release {
    let client = site.client().unwrap();
    kit::until(what, Duration::from_secs(60), || {
        let mut client = client.clone();
        async move { client.status().await.ok()?.release.filter(enough) }
    })
    .await
    .unwrap()
}

/// What both slots use goes away: going back would not help. What only the new one lacks is its own fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_both_slots_is_held_and_what_fails_on_the_new_one_alone_is_left() {
    let site = Site::builder().watch("40s").start().await.unwrap();
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let v2 = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&v2, "v2").await.unwrap();
    switched(&site, "v2").await;
    way_back(&site, "the old slot has passed", |found| found.ready && found.found.contains("passed there"))
        .await;

    site.blue.fail_deep(true).unwrap();
    site.green.fail_deep(true).unwrap();
    let held = stands(&site, "it is held", |release| release.held.is_some()).await;
    let why = held.held.unwrap();
    assert_eq!(why.code, Code::SharedFault.as_str(), "{why:?}");
    assert!(why.message.contains("check `deep` failed"), "{why:?}");
    assert!(why.causes.iter().any(|cause| cause.contains("on the old slot `blue` too")), "{why:?}");
    assert!(site.visit().await.unwrap().contains("v2"));
    way_back(&site, "the old slot is known to fail", |found| {
        !found.ready && found.found.contains("check `deep` fails there since")
    })
    .await;
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.says("PM0412") && told.says("is not ready: check `deep` fails there"), "{told:?}");

    // It comes back, on one slot after the other: held all the same, until a person lets it go on.
    site.green.fail_deep(false).unwrap();
    site.blue.fail_deep(false).unwrap();
    let asked = v1::AskRequest { environment: "production".to_owned(), ..Default::default() };
    client.api.clone().resume(asked).await.unwrap();
    way_back(&site, "the old slot has passed again", |found| found.ready).await;
    stands(&site, "it is watched again", |release| release.held.is_none() && release.outcome.is_empty())
        .await;

    site.green.fail_deep(true).unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    assert!(site.visit().await.unwrap().contains("v1"));
}

/// A check that fails when the release is over, where nobody hears visitors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_fail_after_the_end_lead_back_too() {
    let mut site =
        Site::builder().watching("after = \"10m\"\nverdict = \"off\"").watch("2s").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.released("v2").await.unwrap();
    let over = stands(&site, "it is watched on", |release| release.watched_on_until_ms > 0).await;
    assert_eq!(over.outcome, "confirmed", "{over:?}");
    way_back(&site, "the old slot has passed", |found| found.ready && found.found.contains("passed there"))
        .await;

    // Both fail: a person is told, and nothing else follows.
    site.blue.fail_deep(true).unwrap();
    site.green.fail_deep(true).unwrap();
    let told = stands(&site, "it is told", |release| release.after_end.is_some()).await.after_end.unwrap();
    assert_eq!(told.code, Code::SharedFault.as_str(), "{told:?}");
    site.green.fail_deep(false).unwrap();
    site.blue.fail_deep(false).unwrap();
    stands(&site, "it is well", |release| release.after_end.is_none()).await;
    assert!(site.visit().await.unwrap().contains("v2"));

    site.green.fail_deep(true).unwrap();
    let back = stands(&site, "it goes back by itself", |release| {
        release.plan.as_ref().is_some_and(|plan| plan.purpose == "rollback") && !release.outcome.is_empty()
    })
    .await;
    let plan = back.plan.unwrap();
    assert_eq!((back.outcome.as_str(), plan.created_by.as_str()), ("confirmed", "pointsman"));
    assert!(plan.reason.starts_with("after its end: check `deep` failed"), "{}", plan.reason);
    assert!(site.visit().await.unwrap().contains("v1"));
    // Its checklist is the last deploy's still, and says what became of it.
    let told = site.cli(&["checklist", "production"]).await.unwrap();
    assert!(told.code == 3 && told.stdout.contains("v2"), "{told:?}");
    assert!(
        told.stdout.contains("by pointsman, with `") && told.stdout.contains("check `deep` failed"),
        "{told:?}"
    );
    let told = site.cli(&["checklist", "production", "--release", "v1"]).await.unwrap();
    assert!(!told.stdout.contains("rolled back"), "{told:?}");

    // Whoever types it again does not lead everybody to what has just failed, whatever its slot looks like by now.
    site.green.fail_deep(false).unwrap();
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&["rollback", "production", "--reason", "again"]).await.unwrap();
    assert!(told.code == 4 && told.says("PM0723") && told.says("`v2` was turned back at"), "{told:?}");
    assert!(told.says("because check `deep` failed") && told.says("pointsman deploy production"), "{told:?}");
    assert!(site.visit().await.unwrap().contains("v1"));
    way_back(&site, "it says why there is none", |found| {
        !found.ready && found.release == "v2" && found.found.contains("because check `deep` failed")
    })
    .await;
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.says("no way back nothing well to go back to: `v2` was turned back"), "{told:?}");
    assert!(!told.says("pointsman rollback"), "{told:?}");
    let told = site.cli(&["status", "production", "-o", "json"]).await.unwrap();
    let shown: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&shown["turned_back"]["what"]["release"], &shown["previous"]), (&"v2".into(), &().into()));

    // Anew it goes there, watched, and the way back is what is well.
    site.released("v3").await.unwrap();
    way_back(&site, "v1 is the way back", |found| found.ready && found.release == "v1").await;
}
