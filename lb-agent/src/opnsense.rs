//! The map as OPNsense keeps it: in its `config.xml`, reached by three calls of its REST API. Nothing is applied here:
//! the running HAProxy is told by its socket, and this is what its next start or reload will read.
//!
//! What the API does, from the sources of `os-haproxy` (`Api/SettingsController.php`, `exportMapFiles.php`) and of the
//! core (`ApiMutableModelControllerBase.php`); none of it was run against a real OPNsense:
//! - Map files are written from `config.xml` to `/tmp/haproxy/mapfiles/<id>.txt` at start, reload and configtest, so
//!   the file is never ours. `<id>` is a field of the record and not its UUID.
//! - `GET settings/getMapfile/<uuid>` answers `{"mapfile": {"id", "name", "content", ...}}`, and `[]` for a UUID that
//!   is not there.
//! - `POST settings/setMapfile/<uuid>` with `{"mapfile": {...}}` changes the fields that are named and answers
//!   `{"result": "saved"}`, or `{"result": "failed", "validations": {...}}` and changes nothing. For a UUID that is not
//!   there it **makes a new record**, so the record is always looked at first.
//! - `GET settings/searchMapfiles` answers `{"rows": [{"uuid", "name", ...}], ...}`.
//! - Key and secret are the name and password of basic authentication; a refused one is answered with 401 or 403.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use pointsman_chassis::config::Parsed;
use pointsman_chassis::http_check;
use pointsman_core::{Aftermath, Code, Problem, Route};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::sys;

/// Bound on reaching OPNsense, TLS included.
const CONNECT: Duration = Duration::from_secs(3);

/// Bound on one call: `setMapfile` waits for the lock on `config.xml` and writes all of it, some tenths of a second.
const ANSWER: Duration = Duration::from_secs(5);

/// Most that is read of an answer: a map file with one key is some hundred bytes, a list of map files some thousand.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Longest key or secret: OPNsense makes them 80 characters long.
const MAX_SECRET_BYTES: u64 = 1 << 10;

/// Where map files of OPNsense's HAProxy lie.
const EXPORTED_TO: &str = "/tmp/haproxy/mapfiles";

/// `[haproxy.opnsense]` of the agent's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `https://host` or `https://host:port`.
    pub url: Parsed<BaseUrl>,
    /// File with the API key, readable by the agent alone.
    pub key_file: PathBuf,
    /// File with its secret, readable by the agent alone.
    pub secret_file: PathBuf,
    /// The UUID of the map file's record.
    #[serde(default)]
    pub map_file_id: Option<Parsed<RecordId>>,
    /// Instead of it: the name of the map file in the GUI.
    #[serde(default)]
    pub map_file: Option<String>,
    /// The authorities that signed the web GUI's certificate. Without it those that the system trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    tls: bool,
    /// As in the `Host` header, with brackets and port.
    authority: String,
    host: String,
    port: u16,
}

impl FromStr for BaseUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let unfit = |why: &str| format!("`{}` is no url of OPNsense: {why}", text.escape_default());
        let (tls, authority) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(unfit("expected `https://host` or `https://host:port`")),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| unfit("expected `https://host` or `https://host:port`"))?;
        // Credentials belong into their files, and a path would be one of another API.
        if authority.contains(['@', '/', '?', '#']) || parsed.host().is_empty() {
            return Err(unfit("expected `https://host` or `https://host:port`"));
        }
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !loopback {
            return Err(unfit("without TLS the secret would travel in clear text"));
        }
        let port = parsed.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, authority: authority.to_owned(), host, port })
    }
}

/// The UUID of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordId(String);

impl FromStr for RecordId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if hex && groups == [8, 4, 4, 4, 12] {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!("`{}` is no UUID: see `searchMapfiles`, or name `map_file`", text.escape_default()))
    }
}

/// A secret. It is never shown.
#[derive(Clone)]
struct Credentials {
    /// The value of the `Authorization` header.
    header: http::HeaderValue,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(not shown)")
    }
}

fn secret(path: &Path) -> Result<String, Problem> {
    let unusable = |why: String| {
        Problem::new(Code::ConfigInvalid, format!("cannot use `{}` for OPNsense: {why}", path.display()))
            .hint("one line with the key, or its secret, mode 0600, owner is the agent's user")
    };
    let about = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if about.len() > MAX_SECRET_BYTES {
        return Err(unusable("it is too long".to_owned()));
    }
    if about.permissions().mode() & 0o007 != 0 {
        return Err(unusable("everybody on this host may read or write it".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let text = text.trim();
    // A colon in the key would end it, as basic authentication has it.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable("it is not one line of letters, digits and signs".to_owned()));
    }
    Ok(text.to_owned())
}

impl Credentials {
    fn read(config: &Config) -> Result<Self, Problem> {
        let (key, secret) = (secret(&config.key_file)?, secret(&config.secret_file)?);
        let text = format!("Basic {}", base64(format!("{key}:{secret}").as_bytes()));
        let mut header = http::HeaderValue::try_from(text)
            .map_err(|_| Problem::new(Code::ConfigInvalid, "the key of OPNsense cannot stand in a header"))?;
        header.set_sensitive(true);
        Ok(Self { header })
    }
}

/// Base64 of RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for place in 0..4u32 {
            let sextet = (bits >> (18 - 6 * place)) & 0x3f;
            let letter = usize::try_from(sextet).ok().and_then(|index| ALPHABET.get(index));
            let given = usize::try_from(place).is_ok_and(|place| place <= group.len());
            text.push(if given { letter.map_or('=', |letter| char::from(*letter)) } else { '=' });
        }
    }
    text
}

/// A connection to OPNsense, encrypted or not.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// Why a call brought nothing.
#[derive(Debug)]
enum Failed {
    /// OPNsense said no: what was asked for did not happen.
    Refused(String),
    /// No answer, or one that does not say: what was asked for may have happened.
    Unclear(String),
}

/// OPNsense's API.
#[derive(Debug)]
pub struct Opnsense {
    url: BaseUrl,
    credentials: Credentials,
    tls: Option<Arc<ClientConfig>>,
    record: Record,
    /// The map as HAProxy names it.
    map: String,
}

/// Which map file it is.
#[derive(Clone, Debug)]
enum Record {
    Id(RecordId),
    Name(String),
}

/// A map file, as OPNsense keeps it.
#[derive(Debug)]
struct MapFile {
    content: String,
}

impl Opnsense {
    /// The API of this configuration, for the map that HAProxy knows by `map`.
    pub fn new(config: &Config, map: &str) -> Result<Self, Problem> {
        let record = match (&config.map_file_id, &config.map_file) {
            (Some(id), None) => Record::Id(id.0.clone()),
            (None, Some(name)) => Record::Name(name.clone()),
            _ => {
                let message = "`haproxy.opnsense` needs either `map_file_id` or `map_file`";
                return Err(Problem::new(Code::ConfigInvalid, message).hint(
                    "`map_file` is the name in OPNsense: Services, HAProxy, Settings, Advanced, Map Files",
                ));
            }
        };
        let url = config.url.0.clone();
        let system = PathBuf::from(sys::SYSTEM_AUTHORITIES);
        let authorities = config.ca.as_ref().unwrap_or(&system);
        let tls = if url.tls { Some(http_check::tls_for(authorities)?) } else { None };
        Ok(Self { url, credentials: Credentials::read(config)?, tls, record, map: map.to_owned() })
    }

    /// The route that OPNsense keeps under `key`; `None` if it keeps none that is valid.
    pub async fn kept(&self, key: &str) -> Result<Option<Route>, Problem> {
        let id = self.record_id().await.map_err(|failed| self.problem("look for the map file", failed))?;
        let kept = self.map_file(&id).await.map_err(|failed| self.problem("read the map file", failed))?;
        route_in(&kept.content, key).map_err(|why| self.problem("read the map file", Failed::Refused(why)))
    }

    /// Has OPNsense keep this route under `key`, and reads it back. Only what was read back is believed.
    pub async fn keep(&self, key: &str, route: &Route) -> Result<(), Problem> {
        let unchanged = |failed| self.problem("keep the route", failed).aftermath(Aftermath::Unchanged);
        let id = self.record_id().await.map_err(unchanged)?;
        let before = self.map_file(&id).await.map_err(unchanged)?;
        let before = route_in(&before.content, key).map_err(|why| unchanged(Failed::Refused(why)))?;
        if before.as_ref() == Some(route) {
            return Ok(());
        }
        let set = self.set(&id, &format!("{key} {route}\n")).await;
        if let Err(Failed::Refused(why)) = set {
            return Err(unchanged(Failed::Refused(why)));
        }
        // Saved or unclear: what it keeps now is what counts.
        let told = match &set {
            Err(Failed::Unclear(why)) => why.clone(),
            _ => "it said `saved`".to_owned(),
        };
        let found =
            self.map_file(&id).await.and_then(|found| route_in(&found.content, key).map_err(Failed::Refused));
        match found {
            Ok(Some(found)) if found == *route => Ok(()),
            Ok(found) => {
                let shown = found.as_ref().map_or_else(|| "nothing".to_owned(), |route| format!("`{route}`"));
                let why = format!("{told}, but keeps {shown}");
                // A call that was not heard of may still be on its way.
                let as_before = set.is_ok() && found == before;
                let aftermath = if as_before { Aftermath::Unchanged } else { Aftermath::Unknown };
                Err(self.problem("keep the route", Failed::Refused(why)).aftermath(aftermath).retry_useful())
            }
            Err(Failed::Refused(why) | Failed::Unclear(why)) => {
                let problem = self.problem("keep the route", Failed::Unclear(told));
                Err(problem.cause(why).aftermath(Aftermath::Unknown))
            }
        }
    }

    fn problem(&self, what: &str, failed: Failed) -> Problem {
        match failed {
            Failed::Refused(why) => {
                Problem::new(Code::OpnsenseRefused, format!("OPNsense at {} did not {what}", self.url.authority))
                    .cause(why)
                    .hint("in OPNsense: Services, HAProxy, Settings, Advanced, Map Files; and the API user's privileges")
            }
            Failed::Unclear(why) => {
                let message = format!("no clear answer from OPNsense at {} when asked to {what}", self.url.authority);
                Problem::new(Code::OpnsenseSilent, message)
                    .aftermath(Aftermath::Unknown)
                    .retry_useful()
                    .cause(why)
                    .hint(format!("from the agent's host: `curl -sI https://{}/`", self.url.authority))
            }
        }
    }

    async fn record_id(&self) -> Result<RecordId, Failed> {
        let name = match &self.record {
            Record::Id(id) => return Ok(id.clone()),
            Record::Name(name) => name,
        };
        let answer = self.call(Method::GET, "searchMapfiles", None).await?;
        let rows = answer.get("rows").and_then(Value::as_array);
        let rows = rows.ok_or_else(|| Failed::Unclear("its list of map files has no `rows`".to_owned()))?;
        let named = rows.iter().filter(|row| row.get("name").and_then(Value::as_str) == Some(name));
        let found: Vec<&Value> = named.collect();
        match found.as_slice() {
            [row] => {
                let id = row.get("uuid").and_then(Value::as_str).and_then(|text| text.parse().ok());
                id.ok_or_else(|| Failed::Unclear("a map file has no `uuid`".to_owned()))
            }
            [] => Err(Failed::Refused(format!("it has no map file named `{name}`"))),
            several => Err(Failed::Refused(format!("{} map files are named `{name}`", several.len()))),
        }
    }

    /// The record, which must be there: to set one that is not would make another.
    async fn map_file(&self, id: &RecordId) -> Result<MapFile, Failed> {
        let answer = self.call(Method::GET, &format!("getMapfile/{}", id.0), None).await?;
        if answer.as_array().is_some_and(Vec::is_empty) {
            return Err(Failed::Refused(format!("it has no map file {}", id.0)));
        }
        let record = answer.get("mapfile").and_then(Value::as_object);
        let record = record.ok_or_else(|| Failed::Unclear("its answer holds no `mapfile`".to_owned()))?;
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let content =
            text("content").ok_or_else(|| Failed::Unclear("the map file has no `content`".to_owned()))?;
        if let Some(url) = text("url").filter(|url| !url.is_empty()) {
            return Err(Failed::Refused(format!("the map file is downloaded from `{url}` at every start")));
        }
        if let Some(id) = text("id").filter(|id| !id.is_empty()) {
            let exported = format!("{EXPORTED_TO}/{id}.txt");
            if self.map.starts_with(EXPORTED_TO) && self.map != exported {
                return Err(Failed::Refused(format!(
                    "it is HAProxy's `{exported}`, the agent steers `{}`",
                    self.map
                )));
            }
        }
        Ok(MapFile { content: content.to_owned() })
    }

    async fn set(&self, id: &RecordId, content: &str) -> Result<(), Failed> {
        let body = serde_json::json!({ "mapfile": { "content": content } });
        let answer = self.call(Method::POST, &format!("setMapfile/{}", id.0), Some(&body)).await?;
        match answer.get("result").and_then(Value::as_str) {
            Some("saved") => Ok(()),
            Some("failed") => {
                let why = answer.get("validations").map_or_else(String::new, |why| format!(": {why}"));
                Err(Failed::Refused(format!("it said `failed`{why}")))
            }
            _ => Err(Failed::Unclear("its answer has no `result`".to_owned())),
        }
    }

    async fn call(&self, method: Method, action: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let late = |_| Err(format!("no connection within {} s", CONNECT.as_secs()));
        let stream = tokio::time::timeout(CONNECT, self.connect()).await.unwrap_or_else(late);
        let stream = stream.map_err(Failed::Unclear)?;
        let late = |_| Err(Failed::Unclear(format!("no whole answer within {} s", ANSWER.as_secs())));
        tokio::time::timeout(ANSWER, self.exchange(stream, method, action, body)).await.unwrap_or_else(late)
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, String> {
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.url.host.clone()).map_err(|error| error.to_string())?;
        let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        Ok(Box::new(connecting.await.map_err(|error| format!("no TLS: {error}"))?))
    }

    async fn exchange(
        &self,
        stream: Box<dyn Connection>,
        method: Method,
        action: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failed> {
        let unclear = |error: &dyn fmt::Display| Failed::Unclear(format!("no answer: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unclear(&error))?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("/api/haproxy/settings/{action}"))
            .header("host", &self.url.authority)
            .header("authorization", self.credentials.header.clone())
            .header("accept", "application/json")
            .header("user-agent", "pointsman-lb-agent")
            .header("connection", "close");
        let sent = body.map(Value::to_string);
        if sent.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(sent.unwrap_or_default())));
        let request = request.map_err(|error| unclear(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| unclear(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| {
            Failed::Unclear(format!("its answer was cut, or is over {MAX_BODY_BYTES} bytes: {error}"))
        })?;
        let body = body.to_bytes();
        match status {
            200 => serde_json::from_slice(&body).map_err(|_| {
                Failed::Unclear("its answer is no JSON: is this the web GUI's address?".to_owned())
            }),
            401 | 403 => Err(Failed::Refused(format!("it refused the key ({status})"))),
            // Nothing is followed: the secret would go where the answer says.
            300..400 => Err(Failed::Refused(format!("it sends elsewhere ({status})"))),
            400..500 => {
                Err(Failed::Refused(format!("it answered {status}: is the plugin `os-haproxy` there?")))
            }
            _ => Err(Failed::Unclear(format!("it answered {status}"))),
        }
    }
}

/// The route under `key` in a map file of this content. Other keys are somebody else's: the file is then not ours to
/// write.
fn route_in(content: &str, key: &str) -> Result<Option<Route>, String> {
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<(&str, &str)> =
        lines.map(|line| line.split_once(char::is_whitespace).unwrap_or((line, ""))).collect();
    match entries.as_slice() {
        [] => Ok(None),
        [(found, value)] if *found == key => Ok(Route::parse(value.trim()).ok()),
        _ => Err(format!("the map file holds more than the one key `{key}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn where_the_api_may_be() {
        let url = "https://10.0.0.1".parse::<BaseUrl>().unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (true, "10.0.0.1", 443));
        let url = "https://[fd00::1]:8443/".parse::<BaseUrl>().unwrap();
        assert_eq!(
            (url.authority.as_str(), url.host.as_str(), url.port),
            ("[fd00::1]:8443", "fd00::1", 8443)
        );
        assert!("http://127.0.0.1:8080".parse::<BaseUrl>().is_ok());
        for text in [
            "",
            "10.0.0.1",
            "http://10.0.0.1",
            "http://localhost",
            "https://",
            "https://a/b",
            "https://k:s@a",
            "https://a b",
            "ftp://a",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn which_record() {
        assert!("3d1f8a4e-0c0e-4a4b-9f0e-2f1d9a7b6c5d".parse::<RecordId>().is_ok());
        for text in
            ["", "5f3", "3d1f8a4e-0c0e-4a4b-9f0e-2f1d9a7b6c5/", "../../x", "3d1f8a4e0c0e4a4b9f0e2f1d9a7b6c5d"]
        {
            assert!(text.parse::<RecordId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_map_file_with_one_key_is_ours() {
        let route = Route::parse("be_a:be_b:0:1").unwrap();
        assert_eq!(route_in("# x\r\n\r\nroute be_a:be_b:0:1\r\n", "route"), Ok(Some(route)));
        assert_eq!(route_in("", "route"), Ok(None));
        assert_eq!(route_in("route x", "route"), Ok(None));
        assert!(route_in("route be_a:be_b:0:1\nother be_c", "route").is_err());
        assert!(route_in("www.example.org be_a", "route").is_err());
    }
}
