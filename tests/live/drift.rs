//! Somebody else moves the traffic: pointsman says so and does not fight.

use kit::Site;
use pointsman_proto::v1;

/// Moves the traffic behind pointsman's back.
async fn meddle(site: &Site, route: &str) {
    let map = site.haproxy.layout().map.display().to_string();
    site.haproxy.ask(&format!("set map {map} route {route}")).await.unwrap();
    assert_eq!(site.haproxy.route().await.unwrap(), route);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_of_somebody_else_is_no_base_for_a_release() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"];
    let route = site.haproxy.route().await.unwrap();
    meddle(&site, "be_maint:be_maint:0:77").await;
    let meddled = site.world().await.unwrap();
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 4, "{told:?}");
    assert!(told.says("PM0105") && told.says("hint"), "{told:?}");
    let told = site.cli(&["doctor", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("77"), "{told:?}");
    let after = site.world().await.unwrap();
    assert_eq!((after.route, after.hosts, after.releases), (meddled.route, meddled.hosts, meddled.releases));
    meddle(&site, &route).await;
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
}

/// A release whose way back is blocked: somebody moved the traffic while it was watched.
async fn held() -> (Site, String) {
    let site = Site::builder().watch("20s").start().await.unwrap();
    let mut client = site.client().unwrap();
    let artifact = kit::publish(&mut client, &site.artifact("v1").unwrap()).await.unwrap();
    client.deploy(&artifact, "v1").await.unwrap();
    client.follow("v1", |seen| seen.done("switch")).await.unwrap();
    let route = site.haproxy.route().await.unwrap();
    meddle(&site, "be_green:be_green:0:99").await;
    let told = site.cli(&["status", "production", "--release", "v1", "-f"]).await.unwrap();
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.says("PM0105") && told.says("hint"), "{told:?}");
    (site, route)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_that_is_blocked_waits_for_a_person() {
    let (site, route) = held().await;
    assert_eq!(site.haproxy.route().await.unwrap(), "be_green:be_green:0:99", "it must not fight");
    // Still held, and still the one that holds the environment.
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 5, "{told:?}");
    meddle(&site, &route).await;
    let mut client = site.client().unwrap();
    let resume = v1::AskRequest { environment: kit::ENVIRONMENT.to_owned(), ..Default::default() };
    client.api.resume(resume).await.unwrap();
    assert_eq!(client.outcome("v1").await.unwrap(), "rolled-back");
    assert!(site.haproxy.route().await.unwrap().starts_with("be_maint:"));
    // And the environment is free again.
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
}

/// The updates of a release begin with its past: that it was held once does not end the wait of who resumed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_resumes_waits_for_the_end() {
    let (site, route) = held().await;
    meddle(&site, &route).await;
    let told = site.cli(&["resume", "production", "--yes"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    let told = site.cli(&["status", "production", "--release", "v1", "-f"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
}
