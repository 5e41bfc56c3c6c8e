//! Requests of checks: bounded in time, size and redirects, each on a connection of its own, so that a check meets what a
//! new visitor would.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pointsman_chassis::http_check;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::page;
use crate::place::Place;
use crate::session::Session;

/// Most of a body that is read, in bytes: bundles of scripts fit, and the document of a GeoServer with thousands of layers.
const MAX_BODY_BYTES: usize = 16 << 20;

/// A request, rendered.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: Vec<(HeaderName, String)>,
    /// The body.
    pub body: Bytes,
    /// Redirects that are followed, on the same host.
    pub follow: u8,
}

impl Ask {
    /// A plain look at a path.
    pub fn get(path: &str) -> Self {
        let (path, headers) = (path.to_owned(), Vec::new());
        Self { method: Method::GET, path, headers, body: Bytes::new(), follow: 0 }
    }
}

/// Sends a request, follows as many redirects as it allows, and keeps the cookies. Every answer must come from the side of
/// the route that is asked for.
pub async fn send(place: &Place, session: &mut Session, ask: Ask, until: Instant) -> Result<Answer, String> {
    let mut ask = ask;
    let began = Instant::now();
    loop {
        let mut answer = once(place, session, &ask, until).await?;
        answer.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let redirected = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.header("location").filter(|_| redirected && ask.follow > 0) else {
            return Ok(answer);
        };
        let next = page::resolve(&ask.path, location, &place.server.host);
        let next = next.ok_or_else(|| "the redirect leads to another host: it is not followed".to_owned())?;
        if matches!(answer.status, 301..=303) && ask.method != Method::GET {
            (ask.method, ask.body) = (Method::GET, Bytes::new());
            ask.headers.retain(|(name, _)| *name != header::CONTENT_TYPE);
        }
        ask.path = next;
        ask.follow -= 1;
    }
}

async fn once(place: &Place, session: &mut Session, ask: &Ask, until: Instant) -> Result<Answer, String> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err("there was no time left for it".to_owned());
    }
    let mut request = http::Request::builder().method(&ask.method).uri(&ask.path);
    // What could be packed small is not read: a small answer stays small.
    request = request.header(header::ACCEPT_ENCODING, "identity");
    for (name, value) in &ask.headers {
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("header `{name}` cannot hold its value"))?;
        request = request.header(name, value);
    }
    if let Some(pin) = &place.pin {
        request = request.header("x-pointsman", pin.side);
    }
    if let Some(cookies) = session.jar.header(&ask.path) {
        request = request.header(header::COOKIE, cookies);
    }
    let body = http_body_util::Full::new(ask.body.clone());
    let request =
        request.body(body).map_err(|error| format!("`{}` cannot be asked for: {error}", ask.path))?;
    let answered = http_check::send(&place.server, request, Some(MAX_BODY_BYTES), left.min(LONGEST)).await;
    session.sent |= answered.as_ref().map_or_else(|unanswered| unanswered.sent, |_| true);
    let (head, body) = answered?.into_parts();
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers.iter().map(field).collect(),
        body: body.to_vec(),
        took_ms: 0,
        path: ask.path.clone(),
        private: session.private,
        redactor: session.redactor.clone(),
    };
    if let Some(pin) = &place.pin {
        pin.judge(answer.header("x-pointsman"))?;
    }
    match answer.header("content-encoding") {
        None | Some("identity" | "") => {}
        Some(other) => return Err(format!("the body is packed as `{other}`, which was not asked for")),
    }
    for (_, set) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
        session.jar.take(set, &ask.path);
    }
    Ok(answer)
}

/// Longest time that any single request gets, whatever the check's own bound is.
const LONGEST: Duration = Duration::from_secs(120);
