//! One HTTP request with a bound on everything, on a connection of its own: what a check sees is what a new
//! visitor would see.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use pointsman_core::{Check, Code, HttpPath, Problem};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most of a body that a check reads, in bytes: pages are smaller, and a check is no download.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Pause between two tries of a check that did not pass.
const PAUSE: Duration = Duration::from_millis(200);

/// A server to ask.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The `Host` header, and with TLS the name its certificate must have.
    pub host: String,
    /// With TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The value of the `X-Pointsman` header, if it is there.
    pub pointsman: Option<String>,
    /// The body: at most 1 MiB is read.
    pub body: Vec<u8>,
}

impl Answer {
    /// The field `name=` of the `X-Pointsman` header.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.pointsman.as_deref()?.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The TLS configuration for asking servers whose certificates these authorities have signed.
pub fn tls_for(authorities: &PathBuf) -> Result<Arc<ClientConfig>, Problem> {
    let unusable = |error: &dyn std::error::Error| {
        Problem::new(
            Code::CertificateUnusable,
            format!("cannot use the authorities in `{}`", authorities.display()),
        )
        .cause(error.to_string())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Asks once. `side` is the `X-Pointsman` request header, by which a trusted client picks a side of the route.
pub async fn ask(
    target: &Target,
    path: &HttpPath,
    side: Option<&str>,
    timeout: Duration,
) -> Result<Answer, String> {
    let asking = async {
        let stream =
            TcpStream::connect(target.address).await.map_err(|error| format!("cannot connect: {error}"))?;
        let Some(tls) = &target.tls else { return exchange(stream, target, path, side).await };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| format!("no TLS: {error}"))?;
        exchange(stream, target, path, side).await
    };
    let late = |_| format!("no answer within {} ms", timeout.as_millis());
    tokio::time::timeout(timeout, asking).await.map_err(late)?
}

async fn exchange<S>(
    stream: S,
    target: &Target,
    path: &HttpPath,
    side: Option<&str>,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends when the answer is read and the sender dropped, or the peer closes.
    let connection = tokio::spawn(connection);
    let mut request = http::Request::get(path.as_str())
        .header("host", &target.host)
        .header("user-agent", "pointsman-check")
        .header("connection", "close");
    if let Some(side) = side {
        request = request.header("x-pointsman", side);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let status = answer.status().as_u16();
    let pointsman =
        answer.headers().get("x-pointsman").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await;
    connection.abort();
    let body =
        body.map_err(|error| format!("the body ended early or is over {MAX_BODY_BYTES} bytes: {error}"))?;
    Ok(Answer { status, pointsman, body: body.to_bytes().to_vec() })
}

/// Says what is wrong with an answer, if anything is.
pub fn judge(check: &Check, answer: &Answer) -> Result<(), String> {
    if answer.status != check.status {
        return Err(format!("expected status {}, got {}", check.status, answer.status));
    }
    let Some(text) = &check.body_contains else { return Ok(()) };
    let found = answer.body.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    if found {
        Ok(())
    } else {
        Err(format!("expected a body with `{text}`, got {} bytes without it", answer.body.len()))
    }
}

/// Makes a check until it passes or its patience ends. `verify` looks at the answer after the check itself has.
///
/// Silence and wrong answers are both repeated: a server that has just been restarted gives either.
pub async fn make(
    check: &Check,
    target: &Target,
    side: Option<&str>,
    verify: impl Fn(&Answer) -> Result<(), String>,
) -> Result<(), Problem> {
    let give_up = tokio::time::Instant::now() + Duration::from_millis(check.patience_ms);
    let timeout = Duration::from_millis(check.timeout_ms);
    loop {
        let seen = ask(target, &check.path, side, timeout).await;
        let seen = seen.and_then(|answer| judge(check, &answer).and_then(|()| verify(&answer)));
        let Err(reason) = seen else { return Ok(()) };
        if tokio::time::Instant::now() + PAUSE >= give_up {
            let message = format!("check `{}` failed: {} {reason}", check.name, check.path);
            return Err(Problem::new(Code::CheckFailed, message)
                .cause(format!("asked {} for host `{}`", target.address, target.host))
                .hint(format!(
                    "ask it yourself: `curl -i -H 'Host: {}' http://{}{}`",
                    target.host, target.address, check.path
                )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
