//! Pointsman's own certificates end: it is said beforehand, no release begins that one would cut off from its way back, and
//! what is refused for it says which one it is.

use std::time::Duration;

use kit::{Site, Subject, Told, until, uri};

/// Longest time for a renewed certificate to be seen everywhere: files are taken over by themselves.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// Gives the load balancer's agent a certificate that is valid as this one is, in place of the one that it has.
fn give(site: &Site, subject: Subject) {
    let name = uri("production", "lb-agent", "host", "lb1");
    let subject = Subject { uris: vec![name], dns: Some("lb1".to_owned()), ..subject };
    site.authority().issue(&subject, &site.folder().join("pki/lb1"), &site.ca()).unwrap();
}

/// The same with one that lasts for so long.
fn renew(site: &Site, lasts: Option<Duration>) {
    give(site, Subject { lasts, ..Subject::default() });
}

async fn told(site: &Site, what: &str, words: &[&str], wanted: impl Fn(&Told) -> bool) -> Told {
    until(what, SEEN_WITHIN, || async {
        let told = site.cli(words).await.ok()?;
        wanted(&told).then_some(told)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_is_named_before_and_after() {
    const DAY: Duration = Duration::from_secs(86_400);
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let doctor = ["doctor", "production"];
    let status = ["status", "production"];
    let v2 = site.artifact("v2").unwrap().display().to_string();
    let deploy = ["deploy", "production", "--artifact", &v2, "--release", "v2", "--yes"];

    renew(&site, Some(DAY * 20 + DAY / 2));
    told(&site, "a warning", &doctor, |told| {
        told.says("॥ warn    lb1          its own certificate ends in 20 days")
    })
    .await;
    let seen = site.cli(&status).await.unwrap();
    assert!(seen.code == 0 && seen.says("॥ ends in 20 days") && seen.says("`--renew lb1`"), "{seen:?}");

    // It would last for a release that goes well, and for no other.
    renew(&site, Some(Duration::from_secs(60)));
    told(&site, "an alarm", &doctor, |told| told.says("✖ fail    lb1          its own certificate ends in"))
        .await;
    let stands = async || {
        (site.haproxy.route().await.unwrap(), site.client().unwrap().releases().await.unwrap().len())
    };
    let before = stands().await;
    let refused = site.cli(&deploy).await.unwrap();
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(
        refused.says("PM0722") && refused.says("`lb1` ends in") && refused.says("`--renew lb1`"),
        "{refused:?}"
    );
    assert_eq!(stands().await, before);
    assert_eq!(site.cli(&status).await.unwrap().code, 3);

    // While nobody is connected: what was let in stays.
    site.kill_lb_agent().unwrap();
    give(&site, Subject { expired: true, ..Subject::default() });
    site.start_lb_agent().unwrap();
    let ended =
        |told: &Told| told.says("PM0502") && told.says("lb-agent `lb1`, ended") && told.says("`--renew lb1`");
    told(&site, "an agent that is refused", &status, ended).await;

    // Nothing is to be done but to put a new one there.
    renew(&site, None);
    site.ready().await.unwrap();
    let done = site.cli(&deploy).await.unwrap();
    assert_eq!(done.code, 0, "{done:?}");
}

/// The other end refuses, and only this one knows which certificate that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_calls_with_a_certificate_that_has_ended_is_told_so() {
    let site = Site::builder().start().await.unwrap();
    let name = uri("production", "operator", "user", "admin");
    let expired = Subject { expired: true, ..Subject::named(&[name]) };
    let identity = site.authority().issue(&expired, &site.folder().join("expired"), &site.ca()).unwrap();
    let told = site.cli_with(&identity, &["status", "production"]).await.unwrap();
    assert_eq!(told.code, 7, "{told:?}");
    assert!(
        told.says("PM0502") && told.says("operator `admin`, ended") && told.says("`--renew admin`"),
        "{told:?}"
    );
}
