//! One HTTP request with a bound on everything, on a connection of its own: what a check sees is what a new
//! visitor would see.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use pointsman_core::{Code, HttpPath, Problem};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server to ask.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The `Host` header, and with TLS the name its certificate must have.
    pub host: String,
    /// With TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// It awaits the PROXY protocol before anything else, as a `bind` of HAProxy with `accept-proxy` does.
    pub proxy_protocol: bool,
}

/// The header of the PROXY protocol, version 2, of a connection that nobody made for another: command `LOCAL`, no addresses.
/// Whoever takes it goes by the connection's own address, so that it can claim no other.
const PROXY_LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Connects, and says who connects where that is awaited. The error is in words.
pub async fn connect(address: SocketAddr, proxy_protocol: bool) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("cannot connect: {error}");
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    if proxy_protocol {
        stream.write_all(&PROXY_LOCAL).await.map_err(failed)?;
    }
    Ok(stream)
}

/// What a server answered, but for the body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The value of the `X-Pointsman` header, if it is there.
    pub pointsman: Option<String>,
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

/// Most of the headers that are read, in bytes and in number: far above what servers send.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// Asks once, and reads no body: a page may be as large as it likes, and take its time. `side` is the `X-Pointsman` request
/// header, by which a trusted client picks a side of the route.
pub async fn ask(
    target: &Target,
    path: &HttpPath,
    side: Option<&str>,
    timeout: Duration,
) -> Result<Answer, String> {
    let mut request = http::Request::get(path.as_str());
    if let Some(side) = side {
        request = request.header("x-pointsman", side);
    }
    let request = request.body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
    let answer = send(target, request, None, timeout).await?;
    let pointsman =
        answer.headers().get("x-pointsman").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: answer.status().as_u16(), pointsman })
}

/// Why a request has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// In words.
    pub reason: String,
    /// The request was on its way: the server may have done what it asks for.
    pub sent: bool,
}

impl From<Unanswered> for String {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.reason
    }
}

/// Sends one request on a connection of its own and reads the answer, at most `most` bytes of its body, which fails if it has
/// more, or none of it. The request's URI is a path; `Host` and `Connection` are added, and `User-Agent` if it has none.
pub async fn send(
    target: &Target,
    request: http::Request<Full<Bytes>>,
    most: Option<usize>,
    timeout: Duration,
) -> Result<http::Response<Bytes>, Unanswered> {
    let sent = AtomicBool::new(false);
    let asking = async {
        let stream = connect(target.address, target.proxy_protocol).await?;
        let Some(tls) = &target.tls else { return exchange(stream, target, request, most, &sent).await };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| format!("no TLS: {error}"))?;
        exchange(stream, target, request, most, &sent).await
    };
    let late = |_| format!("no answer within {} ms", timeout.as_millis());
    let answered = tokio::time::timeout(timeout, asking).await.map_err(late).flatten();
    answered.map_err(|reason| Unanswered { reason, sent: sent.load(Ordering::Relaxed) })
}

async fn exchange<S>(
    stream: S,
    target: &Target,
    mut request: http::Request<Full<Bytes>>,
    most: Option<usize>,
    sent: &AtomicBool,
) -> Result<http::Response<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends when the answer is read and the sender dropped, or the peer closes.
    let connection = Running(tokio::spawn(connection));
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(&target.host).map_err(|error| error.to_string())?;
    headers.insert(header::HOST, host);
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static("pointsman-check"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    sent.store(true, Ordering::Relaxed);
    let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = answer.into_parts();
    let Some(most) = most else { return Ok(http::Response::from_parts(head, Bytes::new())) };
    let body = Limited::new(body, most).collect().await;
    drop(connection);
    let body = body.map_err(|error| format!("the body ended early or is over {most} bytes: {error}"))?;
    Ok(http::Response::from_parts(head, body.to_bytes()))
}

/// A connection's task: ends with whoever waits for the answer, also when they stop waiting.
struct Running<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
