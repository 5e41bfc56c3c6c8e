//! The certificate files of a process, and the TLS configurations made from them. Renewed files are taken over
//! while running, whole or not at all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pointsman_core::ports::Clock as _;
use pointsman_core::{Code, PeerName, Problem, lasting};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::{info, warn};

use super::peer_of_certificate;
use crate::SystemClock;
use crate::config::Pki;
use crate::hints::Hints;

/// How often the files are looked at without a hint from the file system: inotify loses events when its queue
/// overflows, and some mounts send none.
const POLL: Duration = Duration::from_secs(60);

/// Certificate, key and trusted authorities of this process, reloadable.
pub struct Credentials {
    files: Pki,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    name: PeerName,
    not_before: i64,
    not_after: i64,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    fingerprint: Vec<u8>,
}

fn unusable(path: &Path, what: &str) -> Problem {
    Problem::new(Code::CertificateUnusable, format!("cannot use `{}`: {what}", path.display()))
        .hint("make new certificates with `pointsman init`, or put the right files in place")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, "it cannot be read").because(&error))?;
    if found.is_empty() { Err(unusable(path, "it holds no certificate")) } else { Ok(found) }
}

fn load(files: &Pki) -> Result<Loaded, Problem> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        unusable(&files.key, "it cannot be read")
            .because(&error)
            .hint("its daemon's group must be able to read it: `systemd-tmpfiles --create` gives it the right; then look again")
    })?;
    let authorities = certificates(&files.ca)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots
            .add(authority.clone())
            .map_err(|error| unusable(&files.ca, "an authority in it is invalid").because(&error))?;
    }
    let roots = Arc::new(roots);
    let own = chain.first().ok_or_else(|| unusable(&files.cert, "it holds no certificate"))?;
    let peer = peer_of_certificate(own).map_err(|problem| unusable(&files.cert, &problem.message))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(&files.ca, "no client could be verified with it").because(&error))?;
    let mismatch = |error: &rustls::Error| unusable(&files.cert, "it does not fit its key").because(error);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| mismatch(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| mismatch(&error))?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: every connection shows its certificate anew.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| mismatch(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key)
        .map_err(|error| mismatch(&error))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = rustls::client::Resumption::disabled();

    let fingerprint = chain.iter().chain(&authorities).flat_map(|certificate| certificate.to_vec()).collect();
    Ok(Loaded {
        name: peer.name,
        not_before: peer.not_before,
        not_after: peer.not_after,
        server: Arc::new(server),
        client: Arc::new(client),
        fingerprint,
    })
}

impl Credentials {
    /// Loads the files once.
    pub fn load(files: Pki) -> Result<Arc<Self>, Problem> {
        let loaded = ArcSwap::from_pointee(load(&files)?);
        Ok(Arc::new(Self { files, loaded }))
    }

    /// The name in the own certificate.
    pub fn name(&self) -> PeerName {
        self.loaded.load().name.clone()
    }

    /// When the own certificate ends, in seconds since 1970. Of others in the same file nobody may need all.
    pub fn not_after(&self) -> i64 {
        self.loaded.load().not_after
    }

    /// The same as far as somebody is to hear of it, or 0: see [`lasting::end_to_tell`].
    pub fn end_to_tell(&self) -> i64 {
        let now_s = i64::try_from(SystemClock.now().0 / 1_000).unwrap_or(i64::MAX);
        let loaded = self.loaded.load();
        lasting::end_to_tell(loaded.not_before, loaded.not_after, now_s)
    }

    /// The configuration for accepting connections.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.load().server)
    }

    /// The configuration for making connections.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.loaded.load().client)
    }

    /// Takes over renewed files if they are whole, fit each other and carry the same name; else keeps the old.
    pub fn reload(&self) {
        match load(&self.files) {
            Ok(new) if new.name != self.name() => {
                warn!(new = %new.name, "renewed certificate has another name: kept the old one");
            }
            Ok(new) if new.fingerprint != self.loaded.load().fingerprint => {
                info!(name = %new.name, not_after = new.not_after, "took over renewed certificate files");
                self.loaded.store(Arc::new(new));
            }
            Ok(_) => {}
            Err(problem) => {
                warn!(problem = %problem.in_full(), "renewed certificate files cannot be used: kept the old")
            }
        }
    }

    /// Reloads whenever the files' folders change, and every minute besides. Runs until its task is dropped.
    pub async fn follow_files(self: Arc<Self>) {
        let files = [&self.files.cert, &self.files.key, &self.files.ca];
        let mut hints = Hints::of(files.into_iter().filter_map(|path| path.parent()));
        loop {
            if hints.within(POLL).await {
                // The pause lets the writer of several files finish.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            self.reload();
        }
    }
}
