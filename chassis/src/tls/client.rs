//! Making connections: to a peer whose name is known beforehand, with a bound on every wait.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pointsman_core::lasting::{ends, renewal};
use pointsman_core::ports::Clock as _;
use pointsman_core::{Aftermath, Code, PeerName, Problem};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::io::AsyncBufReadExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Credentials, Dial, Tcp, peer_of_certificate};
use crate::SystemClock;

/// Bounds of a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// TCP connection and TLS handshake together.
    pub connect: Duration,
    /// Silence after which the peer is asked for a sign of life, and how long it may take to give it.
    pub keepalive: (Duration, Duration),
    /// HTTP/2 window of one stream, in bytes: window / round trip bounds its speed.
    pub window_bytes: u32,
}

impl Default for ChannelLimits {
    /// A stopped peer is noticed within five seconds; 8 MiB in flight carry 160 MB/s over 50 ms.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            keepalive: (Duration::from_secs(2), Duration::from_secs(2)),
            window_bytes: 8 << 20,
        }
    }
}

/// The peer is not who it should be, or would not have us. Found by type in error chains, never by text.
#[derive(Debug)]
struct Refused(Problem);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refused {}

/// A standing channel to `address` (`host:port`). It connects when it is first used, and again whenever the
/// connection is lost; each time the peer must show the name `expected`.
pub fn channel(
    credentials: Arc<Credentials>,
    address: &str,
    expected: &PeerName,
    limits: ChannelLimits,
) -> Result<Channel, Problem> {
    channel_over(Tcp, credentials, address, expected, limits)
}

/// [`channel`] over another network than the machine's own.
pub fn channel_over(
    network: impl Dial,
    credentials: Arc<Credentials>,
    address: &str,
    expected: &PeerName,
    limits: ChannelLimits,
) -> Result<Channel, Problem> {
    let wrong =
        || Problem::new(Code::ConfigInvalid, format!("`{address}` is no address: expected `host:port`"));
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| wrong())?
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes.saturating_mul(2))
        .http2_keep_alive_interval(limits.keepalive.0)
        .keep_alive_timeout(limits.keepalive.1)
        .keep_alive_while_idle(true);
    let (address, expected) = (address.to_owned(), expected.clone());
    let connector = tower::service_fn(move |_: Uri| {
        let (network, credentials) = (network.clone(), Arc::clone(&credentials));
        let (address, expected) = (address.clone(), expected.clone());
        async move {
            let connecting = connect(&network, &credentials, &address, &expected);
            let stream = tokio::time::timeout(limits.connect, connecting).await.map_err(|_| {
                let ms = limits.connect.as_millis();
                std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no connection within {ms} ms"))
            })??;
            Ok::<_, Box<dyn Error + Send + Sync>>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect<D: Dial>(
    network: &D,
    credentials: &Credentials,
    address: &str,
    expected: &PeerName,
) -> Result<TlsStream<D::Stream>, Box<dyn Error + Send + Sync>> {
    let stream = network.dial(address).await?;
    let refused = |error| refusal(error, credentials, expected);
    let server = ServerName::try_from(expected.name.clone())?;
    let mut stream =
        TlsConnector::from(credentials.client()).connect(server, stream).await.map_err(refused)?;
    // TLS 1.3 is done here before the other side has looked at our certificate. Its first word, an HTTP/2 frame or an
    // alert, tells whether it takes it: waiting for it makes a refusal an error of this connection, with a type.
    if stream.fill_buf().await.map_err(refused)?.is_empty() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let found = certificate.map(peer_of_certificate).transpose().map_err(Refused)?.map(|peer| peer.name);
    if found.as_ref() == Some(expected) {
        return Ok(stream);
    }
    let found = found.map_or_else(|| "nobody".to_owned(), |name| name.to_string());
    let message = format!("certificate refused: `{address}` is `{found}`, expected `{expected}`");
    Err(Box::new(Refused(
        Problem::new(Code::CertificateRefused, message)
            .hint("compare names and addresses in the configuration with the certificates"),
    )))
}

/// An error of TLS, told apart from one of the network.
fn refusal(
    error: std::io::Error,
    credentials: &Credentials,
    expected: &PeerName,
) -> Box<dyn Error + Send + Sync> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => Box::new(Refused(ended(tls, credentials, expected).unwrap_or_else(|| refused_by(tls)))),
        None => Box::new(error),
    }
}

/// The problem behind a failed call. Refused certificates are told apart from silence: the one is nobody's
/// passing fault, the other may be.
pub fn explain(status: &tonic::Status, unreachable: Code, peer: &str) -> Problem {
    if !status.details().is_empty() {
        return pointsman_proto::problem_of_status(status, unreachable, peer);
    }
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(Refused(problem)) = error.downcast_ref() {
            return problem.clone();
        }
        next = error.source();
    }
    pointsman_proto::problem_of_status(status, unreachable, peer)
}

/// A certificate that has ended, named: which one, since when, and what to type. A renewed one is taken over by itself, so
/// nothing else is to be done.
fn ended(error: &rustls::Error, credentials: &Credentials, expected: &PeerName) -> Option<Problem> {
    let (whose, name, end_s) = match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            let end_s = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            ("the other side's", expected, end_s)
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            ("this side's own", &credentials.name(), credentials.not_after())
        }
        _ => return None,
    };
    let left_s = end_s.saturating_sub(i64::try_from(SystemClock.now().0 / 1000).unwrap_or(i64::MAX));
    let message = match left_s > 0 {
        false => format!("certificate refused: {whose}, of {} `{}`, {}", name.role, name.name, ends(left_s)),
        // It is judged by the clock of whoever looks at it.
        true => format!(
            "certificate refused: {whose}, of {} `{}`, has ended by the other side's clock, and {} by this one's",
            name.role,
            name.name,
            ends(left_s)
        ),
    };
    let hint = match left_s > 0 {
        false => renewal(&name.name),
        true => "compare both clocks: `timedatectl` on both machines".to_owned(),
    };
    Some(
        Problem::new(Code::CertificateRefused, message)
            .aftermath(Aftermath::Unchanged)
            .because(error)
            .hint(hint),
    )
}

fn refused_by(error: &rustls::Error) -> Problem {
    let message = match error {
        rustls::Error::AlertReceived(_) => {
            "certificate refused: none presented, or not trusted by the other side"
        }
        _ => "certificate refused: what the other side presents is not trusted here",
    };
    Problem::new(Code::CertificateRefused, message).aftermath(Aftermath::Unchanged).because(error).hint(
        "compare the certificates and authorities on both sides, and both clocks: `pointsman doctor ENV`",
    )
}
