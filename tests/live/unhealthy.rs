//! The new slot is not well: the release is aborted before any visitor is moved, and the slot is as it was.

use kit::{Load, LoadPlan, Site};

/// Makes v1, v2 and v3 live in turn, so that the green slot holds v2 while blue serves v3.
async fn with_history() -> Site {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    for version in ["v1", "v2", "v3"] {
        site.released(version).await.unwrap();
    }
    site
}

async fn is_aborted(site: &Site, release: &str, code: &str) {
    let v4 = site.artifact(release).unwrap();
    let before = site.green.current();
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    load.more(50).await.unwrap();
    let v4 = v4.display().to_string();
    let words = ["deploy", "production", "--artifact", &v4, "--release", release, "--yes"];
    let told = site.cli(&words).await.unwrap();
    load.more(50).await.unwrap();
    let report = load.stop().unwrap();

    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.says(code), "{told:?}");
    assert_eq!(report.failures(), Vec::<String>::new());
    assert_eq!(report.by("v3"), report.visits.len());
    assert_eq!(site.green.current(), before);
    let releases = site.client().unwrap().releases().await.unwrap();
    assert_eq!(releases[0].outcome, "aborted");
    assert!(!releases[0].visitors_moved);
    assert!(site.haproxy.route().await.unwrap().starts_with("be_blue:be_blue:0:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_health_check_aborts() {
    let site = with_history().await;
    site.green.fail_health(true).unwrap();
    is_aborted(&site, "v4", "PM0401").await;
    // When it is well again, the same release goes through under the same id.
    site.green.fail_health(false).unwrap();
    site.released("v4").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_that_is_down_aborts() {
    let mut site = with_history().await;
    site.green.stop_nginx().unwrap();
    is_aborted(&site, "v4", "PM0").await;
    site.green.start_nginx().unwrap();
    site.ready().await.unwrap();
    site.released("v5").await.unwrap();
}
