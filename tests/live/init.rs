//! The certificates that `pointsman init` makes carry a whole release.

use pointsman_chassis::config;

use kit::{Site, tree};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_init_makes_works() {
    let site = Site::builder().watch("300ms").certificates_by_init().start().await.unwrap();
    let v1 = site.artifact("v1").unwrap();
    let folder = v1.display().to_string();
    let words = ["deploy", "production", "--artifact", &folder, "--release", "v1", "--yes"];
    let told = site.cli_as("pipeline", &words).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(tree::compare(&v1, &site.blue.live()).unwrap() > 20);
    for words in [["status", "production"], ["doctor", "production"], ["history", "production"]] {
        let told = site.cli_as("screen", &words).await.unwrap();
        assert_eq!(told.code, 0, "{words:?}: {told:?}");
    }
}

/// Every file that `init` writes is one that its daemon starts with, as it is.
#[test]
fn what_init_writes_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki").display().to_string();
    let words = ["init", "--environment", "production", "--trust-domain", "example.org", "--dir", &pki];
    let hosts = [
        ("--coordinator", "ops=10.0.0.2:7443"),
        ("--balancer", "lb1=10.0.0.5:7444"),
        ("--web", "blue=10.0.0.11:7444"),
        ("--web", "green=10.0.0.12:7444"),
        ("--database", "db=10.0.0.21:7444"),
    ];
    let hosts = hosts.iter().flat_map(|(flag, host)| [*flag, *host]);
    let made = std::process::Command::new(kit::binary("pointsman").unwrap())
        .args(words)
        .args(hosts)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |host: &str, name: &str| folder.path().join(format!("pki/hosts/{host}/etc/pointsman/{name}"));
    for host in ["blue", "green", "db"] {
        let config: pointsman_agent::Config = config::read(&file(host, "agent.toml")).unwrap();
        assert_eq!(config.database.is_some(), host == "db");
    }
    config::read::<pointsman_lb_agent::Config>(&file("lb1", "lb-agent.toml")).unwrap();
    config::read::<pointsman_coordinator::Config>(&file("ops", "coordinator.toml")).unwrap();
    pointsman_coordinator::Environment::read(&file("ops", "environments/production.toml")).unwrap();
}

/// One certificate is renewed by the command that made them all; the others stay, and so does the old one.
#[test]
fn one_certificate_is_made_anew_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    let init = |renew: &[&str]| {
        let words = ["init", "--environment", "production", "--trust-domain", "example.org", "--dir"];
        let hosts = ["--coordinator", "ops=10.0.0.2:7443", "--balancer", "lb1=10.0.0.5:7444"];
        let mut command = std::process::Command::new(kit::binary("pointsman").unwrap());
        command.args(words).arg(&pki).args(hosts).args(renew).output().unwrap().status.code().unwrap()
    };
    let of = |host: &str, daemon: &str, name: &str| {
        let place = format!("hosts/{host}/etc/pointsman/pki/{daemon}/{name}");
        std::fs::read_to_string(pki.join(place)).unwrap()
    };
    let pair = |host: &str, daemon: &str| [of(host, daemon, "cert.pem"), of(host, daemon, "key.pem")];
    assert_eq!(init(&[]), 0);
    let (coordinator, balancer) = (pair("ops", "coordinator"), pair("lb1", "lb-agent"));

    assert_eq!(init(&["--renew", "lb2"]), 2, "there is none of this name");
    assert_eq!(init(&["--renew", "lb1"]), 0);
    let renewed = pair("lb1", "lb-agent");
    assert!(renewed[0] != balancer[0] && renewed[1] != balancer[1]);
    assert_eq!([of("lb1", "lb-agent", "cert.pem.before"), of("lb1", "lb-agent", "key.pem.before")], balancer);
    assert_eq!(pair("ops", "coordinator"), coordinator);
}
