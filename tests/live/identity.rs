//! Who may do what: every wrong certificate is refused with its code, and nothing changes.

use std::net::SocketAddr;
use std::time::Duration;

use kit::{Authority, Identity, Knocked, Site, Subject, knock, refused, uri};
use pointsman_chassis::artifact::hash_of;
use pointsman_core::Code;
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_proto::{agent_v1, v1};
use tokio_stream::StreamExt as _;

fn issue(site: &Site, name: &str, subject: &Subject) -> Identity {
    site.authority().issue(subject, &site.folder().join("strangers").join(name), &site.ca()).unwrap()
}

fn operator(environment: &str) -> String {
    uri(environment, "operator", "user", "admin")
}

async fn deploys(site: &Site, identity: &Identity) -> Code {
    let mut client = site.client_as(identity).unwrap();
    let digest = "0".repeat(64);
    let problem = refused(client.deploy(&digest, "stranger").await).unwrap();
    assert!(!problem.hint.is_empty(), "{problem:?}");
    problem.code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_refuses_strangers() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let before = site.world().await.unwrap();

    let foreign = Authority::new("another authority").unwrap();
    let place = site.folder().join("strangers/foreign");
    let foreign = foreign.issue(&Subject::named(&[operator("production")]), &place, &site.ca()).unwrap();
    assert_eq!(deploys(&site, &foreign).await, Code::CertificateRefused);

    let expired = Subject { expired: true, ..Subject::named(&[operator("production")]) };
    let expired = issue(&site, "expired", &expired);
    assert_eq!(deploys(&site, &expired).await, Code::CertificateRefused);

    let staging = issue(&site, "staging", &Subject::named(&[operator("staging")]));
    assert_eq!(deploys(&site, &staging).await, Code::NotAllowed);

    let elsewhere = operator("production").replace(kit::TRUST_DOMAIN, "example.net");
    let elsewhere = issue(&site, "elsewhere", &Subject::named(&[elsewhere]));
    assert_eq!(deploys(&site, &elsewhere).await, Code::NotAllowed);

    let machine = Subject::named(&[uri("production", "web-agent", "host", "blue")]);
    assert_eq!(deploys(&site, &issue(&site, "machine", &machine)).await, Code::NotAllowed);
    assert_eq!(deploys(&site, &site.person("screen")).await, Code::NotAllowed);

    let mut pipeline = site.client_as(&site.person("pipeline")).unwrap();
    let resume = v1::AskRequest { environment: "production".to_owned(), ..Default::default() };
    assert_eq!(refused(pipeline.api.resume(resume).await).unwrap().code, Code::NotAllowed);
    assert_eq!(refused(pipeline.maintenance(true).await).unwrap().code, Code::NotAllowed);

    assert_eq!(site.world().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_are_told_apart() {
    let site = Site::builder().start().await.unwrap();
    let before = site.world().await.unwrap();
    let ask =
        |environment: &str| v1::StatusRequest { environment: environment.to_owned(), release: String::new() };
    // Whoever belongs to an environment that the coordinator does not know is told so; others are not.
    let staging = issue(&site, "staging", &Subject::named(&[operator("staging")]));
    let mut staging = site.client_as(&staging).unwrap();
    let problem = refused(staging.api.get_status(ask("staging")).await).unwrap();
    assert_eq!(problem.code, Code::EnvironmentUnknown);
    for (environment, code) in [("staging", Code::NotAllowed), ("../production", Code::MessageInvalid)] {
        let problem = refused(site.client().unwrap().api.get_status(ask(environment)).await).unwrap();
        assert_eq!(problem.code, code, "{environment}");
    }
    let told = site.cli(&["status", "nowhere"]).await.unwrap();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.says("nowhere") && told.says("hint"), "{told:?}");
    assert_eq!(site.world().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_why_it_was_refused() {
    let site = Site::builder().start().await.unwrap();
    let v1 = site.artifact("v1").unwrap().display().to_string();
    let before = site.world().await.unwrap();
    let words = ["deploy", "production", "--artifact", &v1, "--release", "v1", "--yes"];
    let told = site.cli_as("screen", &words).await.unwrap();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.says("PM0503") && told.says("hint"), "{told:?}");

    let expired = Subject { expired: true, ..Subject::named(&[operator("production")]) };
    let told = site.cli_with(&issue(&site, "expired", &expired), &words).await.unwrap();
    assert_eq!(told.code, 7, "{told:?}");
    assert!(told.says("PM0502") && told.says("hint"), "{told:?}");

    let told = site.cli_as("pipeline", &["resume", "production", "--yes"]).await.unwrap();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.says("PM0503"), "{told:?}");
    assert_eq!(site.world().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_name_nobody_are_not_let_in() {
    let site = Site::builder().start().await.unwrap();
    let before = site.world().await.unwrap();
    let two = [operator("production"), uri("production", "viewer", "user", "screen")];
    let two = issue(&site, "two", &Subject::named(&two));
    let none = issue(&site, "none", &Subject { dns: Some("admin".to_owned()), ..Subject::default() });
    let odd = issue(&site, "odd", &Subject::named(&[operator("production") + "/"]));
    let coordinator = site.coordinator();
    assert_eq!(knock(coordinator, &site.person("admin"), false).await.unwrap(), Knocked::LetIn);
    for (what, identity, anonymous) in [
        ("no certificate", &site.person("admin"), true),
        ("two names", &two, false),
        ("no name", &none, false),
        ("an odd name", &odd, false),
    ] {
        let knocked = knock(coordinator, identity, anonymous).await.unwrap();
        assert!(matches!(knocked, Knocked::Refused(_)), "{what}: {knocked:?}");
    }
    assert_eq!(site.world().await.unwrap(), before);
}

/// A proper offer of an artifact with one file.
fn offer_of(environment: &str) -> [v1::ArtifactOffer; 2] {
    let kind = Kind::File { size: 1, content: hash_of(b"x"), executable: false };
    let manifest = Manifest::new(vec![Entry { path: "a".to_owned(), kind }]).unwrap().encode();
    let first = v1::ArtifactOffer {
        environment: environment.to_owned(),
        epoch: u64::MAX,
        manifest,
        ..Default::default()
    };
    [first, v1::ArtifactOffer { mtimes: vec![0; 8], ..Default::default() }]
}

/// Calls an agent in every way that changes something, and returns the codes.
async fn orders(identity: &Identity, address: SocketAddr, server: &str, environment: &str) -> Vec<Code> {
    let mut agent = kit::agent(identity, address, server).unwrap();
    let action =
        agent_v1::Action { kind: Some(agent_v1::action::Kind::SetFlag(agent_v1::SetFlag { on: true })) };
    let order = agent_v1::Order {
        environment: environment.to_owned(),
        host: "blue".to_owned(),
        release: "stranger".to_owned(),
        step: "maintain".to_owned(),
        attempt: 1,
        epoch: u64::MAX,
        deadline_ms: u64::MAX,
        leads_back: false,
        journal_seq: u64::MAX,
        journal_hash: vec![0; 32],
        only_prepared: false,
        action: Some(action.clone()),
    };
    let fence =
        agent_v1::FenceRequest { environment: environment.to_owned(), epoch: u64::MAX, ..Default::default() };
    let offer = offer_of(environment);
    let observe = agent_v1::ObserveRequest {
        environment: environment.to_owned(),
        host: "blue".to_owned(),
        action: Some(action),
    };
    vec![
        refused(agent.perform(order).await).unwrap().code,
        refused(agent.fence(fence).await).unwrap().code,
        refused(agent.observe(observe).await).unwrap().code,
        refused(agent.offer_artifact(tokio_stream::iter(offer)).await).unwrap().code,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_obey_their_coordinator_only() {
    let site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let before = site.world().await.unwrap();
    let blue = uri("production", "web-agent", "host", "blue");
    let admin = site.person("admin");
    let codes = orders(&admin, site.blue.agent, &blue, "production").await;
    assert_eq!(codes, vec![Code::NotAllowed; 4]);

    // A coordinator, but of another environment: refused whichever environment it claims to act for.
    let other = Subject::host(uri("staging", "coordinator", "host", "coordinator"), "coordinator");
    let other = issue(&site, "other-coordinator", &other);
    for environment in ["production", "staging"] {
        let codes = orders(&other, site.blue.agent, &blue, environment).await;
        let known = [Code::NotAllowed, Code::WrongAddressee];
        assert!(codes.iter().all(|code| known.contains(code)), "{environment}: {codes:?}");
    }
    // Who answers under another name than expected is no coordinator.
    let agent_as_coordinator = uri("production", "coordinator", "host", "blue");
    let codes = orders(&admin, site.blue.agent, &agent_as_coordinator, "production").await;
    assert_eq!(codes, vec![Code::CertificateRefused; 4]);

    assert_eq!(site.world().await.unwrap(), before);
    site.released("v2").await.unwrap();
}

/// Who may not offer is told so before anything of the offer is read: a stranger must not fill memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_of_a_stranger_is_not_read() {
    let site = Site::builder().start().await.unwrap();
    let endless = || {
        let first = v1::ArtifactOffer { environment: "production".to_owned(), ..Default::default() };
        tokio_stream::iter([first]).chain(tokio_stream::pending())
    };
    let soon = Duration::from_secs(5);
    let staging = issue(&site, "staging", &Subject::named(&[operator("staging")]));
    let mut client = site.client_as(&staging).unwrap();
    let answer = tokio::time::timeout(soon, client.api.offer_artifact(endless())).await;
    assert_eq!(refused(answer.expect("the coordinator reads on")).unwrap().code, Code::NotAllowed);

    let other = Subject::host(uri("staging", "coordinator", "host", "coordinator"), "coordinator");
    let other = issue(&site, "other-coordinator", &other);
    let blue = uri("production", "web-agent", "host", "blue");
    let mut agent = kit::agent(&other, site.blue.agent, &blue).unwrap();
    let answer = tokio::time::timeout(soon, agent.offer_artifact(endless())).await;
    assert_eq!(refused(answer.expect("the agent reads on")).unwrap().code, Code::NotAllowed);
}
