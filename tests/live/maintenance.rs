//! The maintenance page: up for everybody at once, kept up by a release that runs meanwhile, and gone afterwards.

use kit::Site;

async fn page_is_up(site: &Site) {
    let page = site.visit().await.unwrap();
    assert!(page.starts_with("HTTP/1.1 503"), "{page}");
    assert!(page.contains("maintenance of the site"), "{page}");
    assert!(page.to_ascii_lowercase().contains("retry-after: 120"), "{page}");
    assert!(site.blue.maintenance() && site.green.maintenance());
    assert!(site.haproxy.route().await.unwrap().starts_with("be_maint:"));
    for host in [&site.blue, &site.green] {
        let direct = kit::ask(host.web, "/page.txt").await.unwrap();
        assert!(direct.starts_with("HTTP/1.1 503"), "{direct}");
    }
}

async fn runs(site: &Site, words: &[&str], code: i32) {
    let told = site.cli(words).await.unwrap();
    assert_eq!(told.code, code, "{words:?}: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_under_maintenance_keeps_the_page() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap().display().to_string();
    runs(&site, &["maintenance", "status", "production"], 0).await;

    let on = ["maintenance", "on", "production", "--for", "30m", "--reason", "test", "--yes"];
    runs(&site, &on, 0).await;
    page_is_up(&site).await;
    runs(&site, &["maintenance", "status", "production"], 3).await;
    let once = site.world().await.unwrap();
    runs(&site, &on, 0).await;
    assert_eq!(site.world().await.unwrap(), once, "the second time must change nothing");

    runs(&site, &["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"], 0).await;
    page_is_up(&site).await;

    runs(&site, &["maintenance", "off", "production", "--yes"], 0).await;
    let page = site.visit().await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("\nv2\n"), "{page}");
    assert!(!site.blue.maintenance() && !site.green.maintenance());
    runs(&site, &["maintenance", "status", "production"], 0).await;
    let once = site.world().await.unwrap();
    runs(&site, &["maintenance", "off", "production", "--yes"], 0).await;
    assert_eq!(site.world().await.unwrap(), once);

    // Life goes on: back to v1, whose slot was kept.
    runs(&site, &["rollback", "production"], 0).await;
    assert!(site.visit().await.unwrap().contains("\nv1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_under_maintenance_keeps_the_page_and_the_old_version() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap().display().to_string();
    runs(&site, &["maintenance", "on", "production", "--yes"], 0).await;
    site.green.fail_deep(true).unwrap();
    runs(&site, &["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"], 1).await;
    page_is_up(&site).await;
    assert_eq!(site.green.current(), None);
    runs(&site, &["maintenance", "off", "production"], 0).await;
    assert!(site.visit().await.unwrap().contains("\nv1\n"));
}
