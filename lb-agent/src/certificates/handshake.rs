//! A TLS handshake with the frontend, to see which certificate a new visitor gets. Whether visitors trust it is not asked:
//! it must be the very one that was deployed, and the frontend must have its key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_chassis::http_check::connect;
use pointsman_chassis::site_certificate::SiteCertificate;
use pointsman_core::{Code, Problem};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureAlgorithm, SignatureScheme};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Bound on one handshake.
const ONE: Duration = Duration::from_secs(2);
/// How long the new certificate may take to show. HAProxy's answer to `commit` is a barrier, but a reload that is under
/// way may serve a handshake from either worker.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a certificate is shown.
#[derive(Clone, Debug)]
pub struct Shows {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    /// HAProxy awaits the PROXY protocol there.
    pub(crate) proxy_protocol: bool,
}

/// Keeps the leaf and the chain that were shown.
#[derive(Debug)]
struct Look {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(leaf).chain(chain);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            all.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// What a visitor says who takes certificates of one kind only: where a site has one of RSA and one of ECDSA, HAProxy
/// picks by that.
fn schemes(algorithm: SignatureAlgorithm, all: &[SignatureScheme]) -> Vec<SignatureScheme> {
    use SignatureScheme as S;
    let of_kind = |scheme: &S| match algorithm {
        SignatureAlgorithm::ECDSA => {
            matches!(*scheme, S::ECDSA_NISTP256_SHA256 | S::ECDSA_NISTP384_SHA384 | S::ECDSA_NISTP521_SHA512)
        }
        SignatureAlgorithm::ED25519 => *scheme == S::ED25519,
        SignatureAlgorithm::RSA => matches!(
            *scheme,
            S::RSA_PSS_SHA256
                | S::RSA_PSS_SHA384
                | S::RSA_PSS_SHA512
                | S::RSA_PKCS1_SHA256
                | S::RSA_PKCS1_SHA384
                | S::RSA_PKCS1_SHA512
        ),
        _ => true,
    };
    all.iter().copied().filter(of_kind).collect()
}

async fn shown(shows: &Shows, algorithm: SignatureAlgorithm) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(ring::default_provider());
    let schemes = schemes(algorithm, &provider.signature_verification_algorithms.supported_schemes());
    let look = Arc::new(Look { provider: Arc::clone(&provider), schemes, seen: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&look) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(shows.host.clone()).map_err(|error| error.to_string())?;
    let handshake = async {
        let stream = connect(shows.address, shows.proxy_protocol).await?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        connecting.await.map(drop).map_err(|error| format!("no TLS: {error}"))
    };
    tokio::time::timeout(ONE, handshake)
        .await
        .map_err(|_| format!("no handshake within {} s", ONE.as_secs()))??;
    let seen = std::mem::take(&mut *look.seen.lock().unwrap_or_else(PoisonError::into_inner));
    if seen.is_empty() { Err("no certificate was shown".to_owned()) } else { Ok(seen) }
}

/// Whether a new handshake shows this certificate with its chain just now; `None` where no handshake says.
pub async fn shows_now(shows: &Shows, certificate: &SiteCertificate) -> Option<bool> {
    shown(shows, certificate.algorithm()).await.ok().map(|seen| certificate.is_shown_by(&seen))
}

/// Waits for a moment until a new handshake shows this certificate.
pub async fn see(shows: &Shows, certificate: &SiteCertificate) -> Result<(), Problem> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let seen = shown(shows, certificate.algorithm()).await;
        let (reason, silent) = match seen {
            Ok(seen) if certificate.is_shown_by(&seen) => return Ok(()),
            Ok(seen) if seen.first() == certificate.leaf() => {
                ("it is shown with another chain".to_owned(), false)
            }
            Ok(_) => ("another certificate is shown".to_owned(), false),
            Err(reason) => (reason, true),
        };
        if Instant::now() + PAUSE >= give_up {
            let (address, host) = (shows.address, &shows.host);
            let message = format!("a new handshake for `{host}` does not show the certificate: {reason}");
            let problem = Problem::new(Code::CertificateNotSeen, message);
            // A handshake that did not come about says nothing of what another one would show.
            let problem = if silent { problem.retry_useful() } else { problem };
            return Err(problem.cause(format!("asked {address}")).hint(
                format!("see what is shown: `openssl s_client -connect {address} -servername {host} </dev/null`; compare `[[haproxy.certificates]]` in lb-agent.toml"),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
