//! A person holds a release where it stands: nothing is ordered until they resume it, what watches it goes on
//! watching, and whoever asks for what is so already is told so.

use std::time::Duration;

use kit::{Client, Site, Told, refused, tree};
use pointsman_core::Code;
use pointsman_proto::v1;

/// Longest time for a release of a small artifact to come to a step.
const COMES: Duration = Duration::from_secs(30);

/// Waits until the last release stands in a step, by the coordinator's word.
async fn comes_to(site: &Site, release: &str, step: &str) {
    let (client, what) = (site.client().unwrap(), format!("{release} comes to {step}"));
    let came = kit::until(&what, COMES, || {
        let mut client = client.clone();
        async move {
            let now = client.status().await.ok()?.release?;
            let same = now.plan.is_some_and(|plan| plan.release == release);
            (same && now.step == step && now.held.is_none()).then_some(())
        }
    });
    came.await.unwrap();
}

/// A site with v1 live, and v2 in the store with this digest.
async fn with_v2(watch: &str) -> (Site, Client, String) {
    let site = Site::builder().watch(watch).start().await.unwrap();
    site.released("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let v2 = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    (site, client, v2)
}

async fn pause(site: &Site) -> Told {
    let told = site.cli(&["pause", "production", "--reason", "lunch"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("waits for a person"), "{told:?}");
    assert!(told.stdout.contains("to go on: `pointsman resume production`"), "{told:?}");
    told
}

async fn resume(site: &Site) -> Told {
    site.cli(&["resume", "production", "--yes"]).await.unwrap()
}

fn ask() -> v1::AskRequest {
    v1::AskRequest { environment: kit::ENVIRONMENT.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_paused_before_the_switch_waits_and_goes_on() {
    let (site, mut client, v2) = with_v2("300ms").await;
    // The check goes on trying for seconds: the pause comes in the middle of it.
    site.green.fail_health(true).unwrap();
    client.deploy(&v2, "v2").await.unwrap();
    comes_to(&site, "v2", "check").await;
    let told = pause(&site).await;
    assert!(told.stdout.contains("in step check"), "{told:?}");
    assert!(told.stdout.contains("visitors of production are on blue"), "{told:?}");
    assert!(told.stdout.contains("to stop:  `pointsman abort production`"), "{told:?}");

    let told = site.cli(&["status", "production"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    for part in
        ["held in check since 2", "PM0711", "operator admin asked for pause: lunch", "pointsman resume"]
    {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let told = site.cli(&["pause", "production"]).await.unwrap();
    assert_eq!(told.code, 4, "held already: {told:?}");
    assert!(told.says("PM0707") && told.says("pointsman resume production"), "{told:?}");
    assert!(site.visit().await.unwrap().contains("v1"));

    site.green.fail_health(false).unwrap();
    let told = resume(&site).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("v2"));
}

/// A transfer is not waited for. It goes on where it was when the release does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_paused_at_once() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let v2 = site.artifact("v2").unwrap();
    tree::grow(&v2, 160, 1 << 20).unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    let begun = kit::until("the transfer begins", COMES, || async {
        (site.green.staged(&digest, "big") > 2).then_some(())
    });
    begun.await.unwrap();
    let told = pause(&site).await;
    assert!(told.stdout.contains("in step stage"), "{told:?}");
    let told = resume(&site).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(tree::compare(&v2, &site.green.live()).unwrap() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_paused_in_the_watch_is_confirmed_when_it_goes_on() {
    let (site, _, _) = with_v2("6s").await;
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"];
    let (deployed, paused) = tokio::join!(site.cli(&words), async {
        comes_to(&site, "v2", "watch").await;
        pause(&site).await
    });
    let deployed = deployed.unwrap();
    assert_eq!(deployed.code, 6, "a person is needed: {deployed:?}");
    assert!(deployed.says("PM0711") && deployed.says("pointsman resume production"), "{deployed:?}");
    assert!(paused.stdout.contains("are on green, and the watch goes on"), "{paused:?}");
    assert!(paused.stdout.contains("to stop:  `pointsman rollback production`"), "{paused:?}");
    assert!(site.visit().await.unwrap().contains("v2"));
    let told = site.cli(&["abort", "production"]).await.unwrap();
    assert_eq!(told.code, 4, "visitors were moved: {told:?}");

    // Paused a second time: what is told is where it stands now, not where it stood first.
    let (resumed, paused) = tokio::join!(resume(&site), async {
        comes_to(&site, "v2", "watch").await;
        site.cli(&["pause", "production", "--reason", "coffee"]).await.unwrap()
    });
    assert_eq!(paused.code, 0, "{paused:?}");
    let told = site.cli(&["status", "production", "--release", "v2", "--follow"]).await.unwrap();
    for told in [resumed, told] {
        assert_eq!(told.code, 6, "{told:?}");
        assert!(told.says("error[PM0711]: operator admin asked for pause: coffee"), "{told:?}");
    }

    let told = resume(&site).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.says("way back: `pointsman rollback production`"), "{told:?}");
    assert_eq!(site.client().unwrap().status().await.unwrap().live.unwrap().release, "v2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_watch_still_moves_visitors_back() {
    let (site, mut client, v2) = with_v2("30s").await;
    client.deploy(&v2, "v2").await.unwrap();
    comes_to(&site, "v2", "watch").await;
    pause(&site).await;
    site.green.fail_deep(true).unwrap();
    assert_eq!(client.outcome("v2").await.unwrap(), "rolled-back");
    assert!(site.visit().await.unwrap().contains("v1"));
    let told = site.cli(&["status", "production", "--release", "v2"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.says("PM0401"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_paused_on_its_way_back_and_goes_on_there() {
    let (mut site, mut client, v2) = with_v2("30s").await;
    client.deploy(&v2, "v2").await.unwrap();
    comes_to(&site, "v2", "watch").await;
    // Nobody is there to move them back, so the way back takes until it is held.
    site.kill_lb_agent().unwrap();
    client.api.rollback(ask()).await.unwrap();
    comes_to(&site, "v2", "route-back").await;
    let told = pause(&site).await;
    assert!(told.stdout.contains("in step route-back") && !told.stdout.contains("to stop:"), "{told:?}");
    assert!(told.stdout.contains("pointsman traffic show production"), "{told:?}");
    site.start_lb_agent().unwrap();
    let told = resume(&site).await;
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.says("rolled back") && site.visit().await.unwrap().contains("v1"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_runs_there_is_nothing_to_abort_or_pause() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    let abort = ["abort", "production"];
    for released in [false, true] {
        if released {
            site.released("v1").await.unwrap();
        }
        let told = site.cli(&abort).await.unwrap();
        assert_eq!(
            (told.code, told.stdout.trim()),
            (0, "no release of `production` is running: nothing to abort"),
            "{told:?}"
        );
        let answer = site.client().unwrap().api.abort(ask()).await.unwrap().into_inner();
        assert_eq!((answer.release.as_str(), answer.already), ("", true));
        let told = site.cli(&["pause", "production"]).await.unwrap();
        assert_eq!(told.code, 4, "{told:?}");
        assert!(told.says("there is nothing to pause"), "{told:?}");
    }
    let told = site.cli(&["abort", "production", "--release", "v1", "-o", "json"]).await.unwrap();
    assert!(told.code == 0 && told.stdout.contains("\"nothing-to-abort\""), "{told:?}");
    // A name that never was is a mistake, not a release that is over.
    let told = site.cli(&["abort", "production", "--release", "v9"]).await.unwrap();
    assert!(told.code == 2 && told.says("PM0705"), "{told:?}");

    let mut viewer = site.client_as(&site.person("screen")).unwrap();
    assert_eq!(refused(viewer.api.pause(ask()).await).unwrap().code, Code::NotAllowed);
}

/// However often it is asked, it is asked once; also right after the release has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_that_was_asked_for_is_a_success_too() {
    let (site, mut client, v2) = with_v2("300ms").await;
    site.green.fail_health(true).unwrap();
    client.deploy(&v2, "v2").await.unwrap();
    let abort = ["abort", "production", "--release", "v2"];
    let told = tokio::join!(site.cli(&abort), site.cli(&abort), site.cli(&abort));
    for told in [told.0.unwrap(), told.1.unwrap(), told.2.unwrap()] {
        assert_eq!(told.code, 0, "{told:?}");
    }
    let heard = client.follow("v2", |_| false).await.unwrap();
    assert_eq!(heard.iter().filter(|seen| seen.update.kind == "requested").count(), 1);
    let ended = heard.last().unwrap().outcome().unwrap().to_owned();
    assert!(ended == "aborted" || ended == "refused", "{ended}");
    assert!(site.visit().await.unwrap().contains("v1"));
}
