//! A server on another host: reached over TLS and with a password, by the agent itself and by PostgreSQL's programs.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use kit::{Place, rule};
use pointsman_core::Code;
use pointsman_database::preflight::{self, Verdict};
use pointsman_database::{Progress, Session, Settings, TlsSettings, VerifyLevel, restore};
use pointsman_database_testkit::{Cluster, server_user};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const PASSWORD: &str = "a secret, with 'quotes' and \\";

/// An authority, and what it signed for these names.
fn signed(names: &[&str]) -> (String, String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "the authority of a test");
    let key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    (ca, certificate.pem(), own.serialize_pem())
}

fn keep(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster that listens on this address, with a certificate for these names, for roles with a password alone.
fn cluster(address: &str, names: &[&str]) -> (Cluster, String) {
    let mut cluster = Cluster::start().unwrap();
    let (ca, certificate, key) = signed(names);
    for (name, text) in [("server.crt", &certificate), ("server.key", &key)] {
        let path = cluster.data().join(name);
        keep(&path, text);
        if let Some((uid, gid)) = server_user().unwrap() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }
    let hba = cluster.data().join("pg_hba.conf");
    let lines = std::fs::read_to_string(&hba).unwrap() + "hostssl all all 127.0.0.0/8 scram-sha-256\n";
    std::fs::write(&hba, lines).unwrap();
    for (name, value) in [("listen_addresses", address), ("ssl", "on")] {
        cluster.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    }
    cluster.start_again().unwrap();
    (cluster, ca)
}

/// A place whose agent goes over the network.
fn over_tls(cluster: Cluster, address: &str, ca: &str) -> Place {
    let mut place = Place::of(Arc::new(cluster), "far");
    let secret = PASSWORD.replace('\'', "''");
    place.sql(&format!("ALTER ROLE {} PASSWORD '{secret}'", place.settings.user));
    let (password, authority) = (place.folder.path().join("password"), place.folder.path().join("ca.pem"));
    keep(&password, &format!("{PASSWORD}\n"));
    keep(&authority, ca);
    place.settings.host = address.to_owned();
    place.settings.password_file = Some(password);
    place.settings.tls = Some(TlsSettings { ca: authority });
    place
}

/// An address of this test alone: the port of all clusters is the same.
fn address(number: u8) -> String {
    let pid = std::process::id();
    format!("127.83.{}.{}", (pid / 120) % 250, (pid % 120) * 2 + u32::from(number) + 1)
}

async fn refusal(settings: &Settings) -> String {
    let refused = Session::open(settings, &settings.name, "test").await.err().unwrap();
    assert_eq!(refused.code, Code::DatabaseUnreachable, "{refused}");
    format!("{refused} {:?}", refused.causes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_done_over_tls_with_a_password() {
    let address = address(0);
    let (cluster, ca) = cluster(&address, &[&address]);
    let place = over_tls(cluster, &address, &ca);
    preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap();
    let taken = place.take("r1").await.unwrap();
    let verified = place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    assert_eq!(verified.backup.verified, Some(VerifyLevel::RestoreTest));
    place.sql("DELETE FROM features WHERE id <= 3");
    let (settings, progress) = (&place.settings, Progress::default());
    restore::beside(settings, &taken.id, &rule(), &progress).await.unwrap();
    let loss = restore::loss(settings, &taken.id, &progress).await.unwrap();
    let swapped = restore::swap(settings, &taken.id, loss.total(), &rule(), &progress).await.unwrap();
    assert!(!swapped.already);
    assert_eq!(place.sql("SELECT count(*) FROM features"), "3000");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename LIKE 'far_agent'";
    let session = Session::open(settings, &settings.name, "test").await.unwrap();
    let row = session.client().query_one(encrypted, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_prove_its_name_gets_no_password() {
    let address = address(1);
    let (cluster, ca) = cluster(&address, &["db.example.org"]);
    let mut place = over_tls(cluster, &address, &ca);
    let told = refusal(&place.settings).await;
    assert!(told.contains("ertificate"), "another name: {told}");
    let (other, ..) = signed(&[&address]);
    keep(&place.folder.path().join("ca.pem"), &other);
    let told = refusal(&place.settings).await;
    assert!(told.contains("ertificate"), "another authority: {told}");
    assert!(!place.cluster.log_text().contains("password authentication failed"));
    place.settings.tls = None;
    let told = refusal(&place.settings).await;
    assert!(told.contains("28000") || told.contains("no encryption"), "without TLS: {told}");
}
