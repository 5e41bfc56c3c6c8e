//! A host or a load balancer is gone for good in the middle of a release: held on its way back for it, the release is let go
//! without it, and the next one is possible.

use std::time::Duration;

use kit::{Client, Daemon, ENVIRONMENT, Seen, Site, refused};
use pointsman_core::Code;
use pointsman_proto::v1::{AskRequest, Release};

/// Longest time for what a test waits for.
const LONGEST: Duration = Duration::from_secs(60);

async fn comes_to(site: &Site, step: &str) -> Release {
    kit::until(&format!("it comes to {step}"), LONGEST, || async {
        let release = site.client().ok()?.status().await.ok()?.release?;
        (release.step == step && release.held.is_none()).then_some(release)
    })
    .await
    .unwrap()
}

/// Follows a release until it waits for a person.
async fn held(client: &mut Client, release: &str) -> Release {
    let held = |seen: &Seen| seen.update.release.as_ref().is_some_and(|release| release.held.is_some());
    let heard = client.follow(release, held).await.unwrap();
    heard.last().unwrap().update.release.clone().unwrap()
}

async fn digest_of(site: &Site, version: &str) -> String {
    let folder = site.artifact(version).unwrap();
    kit::publish(&mut site.client().unwrap(), &folder).await.unwrap()
}

fn ask() -> AskRequest {
    AskRequest { environment: ENVIRONMENT.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_gone_for_good_ends_with_a_word() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    for version in ["v1", "v2", "v3"] {
        site.released(version).await.unwrap();
    }
    // Green holds v2, and is where a rollback leads, until v4 is brought there.
    site.green.fail_health(true).unwrap();
    let mut client = site.client().unwrap();
    let digest = digest_of(&site, "v4").await;
    client.deploy(&digest, "v4").await.unwrap();
    comes_to(&site, "check").await;
    site.green.kill_agent().unwrap();
    client.api.abort(ask()).await.unwrap();
    let release = held(&mut client, "v4").await;
    assert_eq!(
        (release.step.as_str(), release.may_leave_out.as_slice()),
        ("link-back", &["green".to_owned()][..])
    );
    let told = site.cli(&["status", "production"]).await.unwrap();
    let offer = "pointsman resume production --without green --reason TEXT";
    assert!(told.says(offer), "{told:?}");

    // Nobody else is left out, and nobody without a reason.
    for (host, reason) in [("blue", "burnt"), ("lb1", "burnt"), ("green", "")] {
        let without = vec![host.to_owned()];
        let asked = AskRequest { without, reason: reason.to_owned(), ..ask() };
        let problem = refused(client.api.resume(asked).await).unwrap();
        let expected = if reason.is_empty() { Code::UsageWrong } else { Code::NotLeftOut };
        assert_eq!(problem.code, expected, "{host}: {problem:?}");
    }
    let words = ["resume", "production", "--without", "green", "--reason", "burnt down", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 1, "{told:?}");
    for part in
        ["aborted", "but on green", "left out by operator admin: burnt down", "no rollback leads to green"]
    {
        assert!(told.says(part), "{part}: {told:?}");
    }
    assert!(site.visit().await.unwrap().contains("v3"));
    // What green holds is not known: the way back is closed, and a release needs all of its hosts.
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert!(told.says("PM0706"), "{told:?}");

    site.green.start_agent().unwrap();
    site.green.fail_health(false).unwrap();
    site.ready().await.unwrap();
    site.released("v5").await.unwrap();
    assert!(site.visit().await.unwrap().contains("v5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_that_is_gone_for_good_is_left_out_and_marked_until_it_is_back() {
    let mut site = Site::builder().balancers(2).watch("30s").start().await.unwrap();
    site.released_unwatched("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let digest = digest_of(&site, "v2").await;
    client.deploy(&digest, "v2").await.unwrap();
    comes_to(&site, "watch").await;
    site.kill(Daemon::SecondLbAgent).unwrap();
    client.api.rollback(ask()).await.unwrap();
    assert_eq!(held(&mut client, "v2").await.may_leave_out, ["lb2"]);

    // It answers again: then it can go back, and is not gone.
    let without = || AskRequest { without: vec!["lb2".to_owned()], reason: "no power".to_owned(), ..ask() };
    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();
    let problem = refused(client.api.resume(without()).await).unwrap();
    assert!(problem.code == Code::NotLeftOut && problem.message.contains("answers"), "{problem:?}");

    site.kill(Daemon::SecondLbAgent).unwrap();
    let words = ["resume", "production", "--without", "lb2", "--reason", "no power", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    for part in ["rolled back", "left out by operator admin: no power", "PM0109"] {
        assert!(told.says(part), "{part}: {told:?}");
    }
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.says("left out    lb2 by operator admin"), "{told:?}");
    let [first, second] = [0, 1].map(|index| site.frontends()[index]);
    assert!(kit::ask(first, "/page.txt").await.unwrap().contains("\nv1\n"));
    assert!(kit::ask(second, "/page.txt").await.unwrap().contains("\nv2\n"), "it was told nothing");

    // It survives a restart, and it is marked when it is back.
    site.kill_coordinator().unwrap();
    site.start_coordinator().unwrap();
    site.start(Daemon::SecondLbAgent, None).unwrap();
    site.coordinator_answers().await.unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["doctor", "production"]).await.unwrap();
    assert!(told.says("it was out of service when visitors were moved"), "{told:?}");
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0"), "{told:?}");
}
