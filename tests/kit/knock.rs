//! A stranger at the door of a daemon: TLS with any certificate or none, then the first bytes of HTTP/2. Needed where
//! pointsman's own client would refuse to present what it is given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::Identity;

/// How HTTP/2 begins: the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Longest time for an answer.
const LONGEST: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knocked {
    /// The daemon spoke HTTP/2.
    LetIn,
    /// It did not, and said why as far as TLS can.
    Refused(String),
}

/// Knocks at a daemon. `identity` is presented unless `anonymous`; its authority is trusted.
pub async fn knock(address: SocketAddr, identity: &Identity, anonymous: bool) -> Result<Knocked> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(&identity.ca)? {
        roots.add(authority?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = if anonymous {
        config.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_file_iter(&identity.cert)?.collect::<Result<_, _>>()?;
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&identity.key)?)?
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let knocking = async {
        let stream = TcpStream::connect(address).await?;
        let server = ServerName::try_from("coordinator").map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
        stream.write_all(HELLO).await?;
        let mut answer = [0u8; 9];
        stream.read_exact(&mut answer).await
    };
    Ok(match tokio::time::timeout(LONGEST, knocking).await.context("neither let in nor refused")? {
        Ok(_) => Knocked::LetIn,
        Err(error) => Knocked::Refused(error.to_string()),
    })
}
