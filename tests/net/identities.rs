//! The certificates of a simulated site, made once for all runs.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use kit::{Authority, Subject, uri};
use pointsman_chassis::tls::{self, Credentials};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::release::{self, ENVIRONMENT};

struct Identities {
    by_name: BTreeMap<String, Arc<Credentials>>,
    trusted: CertificateDer<'static>,
    _files: TempDir,
}

/// Who takes part in releases, and a coordinator of an authority that nobody trusts.
const STRANGER: &str = "stranger";

static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    tls::install_crypto();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    let trusted = Authority::new("trusted").unwrap();
    trusted.write(&ca).unwrap();
    let issue = |authority: &Authority, name: &str, role: &str| {
        let subject = Subject::host(uri(ENVIRONMENT, role, "host", name), name);
        let identity = authority.issue(&subject, &files.path().join(name), &ca).unwrap();
        (name.to_owned(), Credentials::load(identity.files()).unwrap())
    };
    let agents = release::HOSTS.iter().map(|name| issue(&trusted, name, release::role_of(name)));
    let mut by_name: BTreeMap<_, _> = agents.collect();
    by_name.extend([issue(&trusted, release::CENTRE, "coordinator")]);
    by_name.extend([issue(&Authority::new("unknown").unwrap(), STRANGER, "coordinator")]);
    let trusted = CertificateDer::from_pem_file(&ca).unwrap();
    Identities { by_name, trusted, _files: files }
});

/// Makes the certificates, if they are not made yet: outside of a simulation, whose time this would take.
pub fn ready() {
    LazyLock::force(&IDENTITIES);
}

/// The certificates of a host.
pub fn of(name: &str) -> Arc<Credentials> {
    Arc::clone(IDENTITIES.by_name.get(name).unwrap())
}

/// Certificates of a coordinator whose authority nobody trusts.
pub fn stranger() -> Arc<Credentials> {
    of(STRANGER)
}

/// A client that trusts the site and shows no certificate.
pub fn nobody() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITIES.trusted.clone()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
