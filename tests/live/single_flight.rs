//! One release at a time: a second is told who holds the environment, a repeated one attaches, and nobody needs to
//! stay for a release to go on.

use std::time::Duration;

use kit::{Site, Told};
use pointsman_core::Code;

async fn last(site: &Site) -> (String, String) {
    let release = site.client().unwrap().releases().await.unwrap().into_iter().next().unwrap_or_default();
    (release.plan.unwrap_or_default().release, release.outcome)
}

async fn begun(site: &Site, release: &str) {
    kit::until("the release begins", Duration::from_secs(10), || async {
        (last(site).await.0 == release).then_some(())
    })
    .await
    .unwrap();
}

async fn deploy(site: &Site, artifact: &str, release: &str, more: &[&str]) -> Told {
    let words = ["deploy", "production", "--artifact", artifact, "--release", release, "--yes"];
    site.cli(&[words.as_slice(), more].concat()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_release_waits_for_its_turn() {
    let site = Site::builder().watch("3s").start().await.unwrap();
    let (v1, v2) = (site.artifact("v1").unwrap(), site.artifact("v2").unwrap());
    let (v1, v2) = (v1.display().to_string(), v2.display().to_string());
    let told = deploy(&site, &v1, "v1", &["--detach", "--request-id", "job-1"]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(last(&site).await, ("v1".to_owned(), String::new()), "it returned, and the release goes on");

    let told = deploy(&site, &v2, "v2", &[]).await;
    assert_eq!(told.code, 5, "{told:?}");
    assert!(told.says("PM0701") && told.says("`v1`") && told.says("operator admin"), "{told:?}");

    let told = deploy(&site, &v1, "v1", &["--request-id", "job-1"]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.says("attached"), "{told:?}");
    assert_eq!(last(&site).await, ("v1".to_owned(), "confirmed".to_owned()));
    // Also when it is over: a repeated job finds its own success.
    let told = deploy(&site, &v1, "v1", &["--request-id", "job-1"]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(site.client().unwrap().releases().await.unwrap().len(), 1);
}

/// Whoever repeats a job is told that all is well only if it is: the same request, and what it brought about still stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_stands_for_one_request_and_for_what_it_brought_about() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    let (v1, v2) = (site.artifact("v1").unwrap(), site.artifact("v2").unwrap());
    let (v1, v2) = (v1.display().to_string(), v2.display().to_string());
    assert_eq!(deploy(&site, &v1, "v1", &["--request-id", "job-1"]).await.code, 0);
    for (artifact, release) in [(&v2, "v1"), (&v1, "other")] {
        let told = deploy(&site, artifact, release, &["--request-id", "job-1"]).await;
        assert!(told.code == 4 && told.says("PM0714") && told.says("was another one"), "{told:?}");
    }
    assert_eq!(deploy(&site, &v2, "v2", &["--request-id", "job-2"]).await.code, 0);
    let back = ["rollback", "production", "--request-id"];
    let told = site.cli(&[back.as_slice(), &["job-2"]].concat()).await.unwrap();
    assert!(told.code == 4 && told.says("PM0714"), "{told:?}");
    assert_eq!(site.cli(&[back.as_slice(), &["job-3"]].concat()).await.unwrap().code, 0);
    let told = site.cli(&[back.as_slice(), &["job-3"]].concat()).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    let told = deploy(&site, &v2, "v2", &["--request-id", "job-2"]).await;
    assert!(told.code == 4 && told.says("no longer what stands"), "{told:?}");
    let releases = site.client().unwrap().releases().await.unwrap();
    assert_eq!(releases.len(), 3, "nothing else was begun");
}

/// Whatever the release is doing just then: it is never mistaken for somebody else who moves traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_release_hears_of_the_first_at_every_moment() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    let (v1, v2) = (site.artifact("v1").unwrap(), site.artifact("v2").unwrap());
    let (v1, v2) = (v1.display().to_string(), v2.display().to_string());
    let mut refused = 0;
    for round in 0..4 {
        let first = format!("first-{round}");
        assert_eq!(deploy(&site, &v1, &first, &["--detach"]).await.code, 0);
        while last(&site).await == (first.clone(), String::new()) {
            let told = deploy(&site, &v2, &format!("second-{round}"), &["--detach"]).await;
            // The first may have ended in between; then the second is accepted, and ends the round.
            assert!(told.code == 0 || (told.code == 5 && told.says("PM0701")), "{told:?}");
            refused += usize::from(told.code == 5);
        }
        let (id, _) = last(&site).await;
        assert_eq!(site.client().unwrap().outcome(&id).await.unwrap(), "confirmed");
    }
    assert!(refused > 0, "no second release came while a first was running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_needs_nobody_to_wait_for_it() {
    let site = Site::builder().watch("1s").start().await.unwrap();
    let v1 = site.artifact("v1").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v1, "--release", "v1", "--yes"];
    let mut command = site.cli_start(&words).unwrap();
    begun(&site, "v1").await;
    command.kill().await.unwrap();
    assert_eq!(site.client().unwrap().outcome("v1").await.unwrap(), "confirmed");

    let told = deploy(&site, &v1, "v2", &["--timeout", "1ms"]).await;
    assert_eq!(told.code, 124, "{told:?}");
    assert_eq!(site.client().unwrap().outcome("v2").await.unwrap(), "confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_exactly_one_begins() {
    let site = Site::builder().watch("1s").start().await.unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v1").unwrap()).await.unwrap();
    let tries: Vec<_> = (0..8)
        .map(|number| {
            let (mut client, digest) = (site.client().unwrap(), digest.clone());
            tokio::spawn(async move { client.deploy(&digest, &format!("r{number}")).await })
        })
        .collect();
    let mut begun = Vec::new();
    for tried in tries {
        match tried.await.unwrap() {
            Ok(release) => begun.push(release),
            Err(status) => assert_eq!(kit::problem_of(&status).code, Code::EnvironmentBusy),
        }
    }
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(client.outcome(&begun[0]).await.unwrap(), "confirmed");
    assert_eq!(client.releases().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_leaves_everything_as_it_was() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let before = site.world().await.unwrap();
    let told = site.cli(&["abort", "production"]).await.unwrap();
    assert_eq!(told.code, 0, "nothing runs, and that is what was wanted: {told:?}");

    let v2 = site.artifact("v2").unwrap();
    kit::tree::grow(&v2, 120, 1 << 20).unwrap();
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &v2).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    let begins = kit::until("the transfer begins", Duration::from_secs(20), || async {
        (site.green.staged(&digest, "big") > 2).then_some(())
    });
    begins.await.unwrap();
    let told = site.cli(&["abort", "production", "--reason", "test"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(client.outcome("v2").await.unwrap(), "aborted");
    let after = site.world().await.unwrap();
    assert_eq!(after.hosts, before.hosts);
    assert_eq!(after.page, before.page);
}
