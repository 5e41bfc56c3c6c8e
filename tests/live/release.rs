//! v1, v2 and back to v1 while visitors come at more than 500 requests per second: nobody loses a request, and once
//! a switch is reported nobody who comes is served by the old slot.

use std::time::Instant;

use kit::{Load, LoadPlan, Site, Visit, tree};

/// Hears of a release until its switch is reported, and when that was.
async fn switched(site: &Site, release: &str) -> Instant {
    let mut client = site.client().unwrap();
    let heard = client.follow(release, |seen| seen.done("switch")).await.unwrap();
    heard.last().filter(|seen| seen.done("switch")).unwrap().arrived
}

/// The release that runs or was last, once it is not `before`.
async fn begun(site: &Site, before: &str) -> String {
    let client = site.client().unwrap();
    kit::until("a release begins", std::time::Duration::from_secs(10), || {
        let mut client = client.clone();
        async move {
            let last = client.releases().await.ok()?.into_iter().next()?.plan?.release;
            (last != before).then_some(last)
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_loses_a_request_and_nobody_new_sees_the_old_slot() {
    let site = Site::builder().start().await.unwrap();
    let (v1, v2) = (site.artifact("v1").unwrap(), site.artifact("v2").unwrap());
    let (v1_text, v2_text) = (v1.display().to_string(), v2.display().to_string());

    let first = ["deploy", "production", "--artifact", &v1_text, "--release", "v1", "--yes"];
    let told = site.cli(&first).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(tree::compare(&v1, &site.blue.live()).unwrap() > 20);

    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(200).await.unwrap();
    let second = ["deploy", "production", "--artifact", &v2_text, "--release", "v2", "--yes"];
    let (told, to_v2) = tokio::join!(site.cli(&second), async {
        begun(&site, "v1").await;
        switched(&site, "v2").await
    });
    assert_eq!(told.as_ref().unwrap().code, 0, "{told:?}");
    load.more(200).await.unwrap();
    assert!(tree::compare(&v2, &site.green.live()).unwrap() > 20);

    let back = ["rollback", "production", "--reason", "test"];
    let (told, to_v1) = tokio::join!(site.cli(&back), async {
        let release = begun(&site, "v2").await;
        switched(&site, &release).await
    });
    assert_eq!(told.as_ref().unwrap().code, 0, "{told:?}");
    load.more(200).await.unwrap();
    let report = load.stop().unwrap();

    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.rate() >= 500.0, "only {} requests per second", report.rate());
    assert!(report.by("v2") > 200 && report.by("v1") > 400);
    assert_eq!(report.by("v1") + report.by("v2"), report.visits.len());
    // The rollback moves visitors before it is reported: its own route epoch tells its answers apart.
    let of_v2 =
        report.visits.iter().filter(|visit| visit.marker == "v2").filter_map(|visit| visit.epoch).max();
    let late = |visit: &&Visit| visit.began > to_v2 && visit.marker == "v1" && visit.epoch <= of_v2;
    let late = report.visits.iter().filter(late).count();
    assert_eq!(late, 0, "answered by the old slot after the switch to v2 was reported");
    assert_eq!(report.after(to_v1, "v2"), 0, "answered by the old slot after the rollback was reported");

    let told = site.cli(&["history", "production", "-o", "json"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("\"v1\"") && told.stdout.contains("\"v2\""), "{told:?}");
    assert!(told.stdout.contains("rollback"), "{told:?}");
}
