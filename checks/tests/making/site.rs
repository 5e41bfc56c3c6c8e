//! A small web application on loopback, as a release would be one: it logs people in, keeps features, serves maps, and can
//! be as broken and as hostile as a test asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::PASSWORD;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Came {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// The application, until it is dropped.
pub struct Site {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    came: Vec<Came>,
    features: BTreeMap<u32, String>,
    next: u32,
    /// Paths that answer 500 so many times before they work.
    failing: BTreeMap<String, u32>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, task }
    }

    /// What came so far, as `METHOD path`.
    pub fn came(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.came.iter().map(|came| format!("{} {}", came.method, came.path)).collect()
    }

    /// The last request for a path.
    pub fn last(&self, path: &str) -> Came {
        let state = self.state.lock().unwrap();
        state.came.iter().rev().find(|came| came.path == path).cloned().unwrap()
    }

    /// Features that are there.
    pub fn features(&self) -> usize {
        self.state.lock().unwrap().features.len()
    }

    /// Has a path fail so many times.
    pub fn fail(&self, path: &str, times: u32) {
        self.state.lock().unwrap().failing.insert(path.to_owned(), times);
    }
}

impl State {
    /// Makes a feature, and says which.
    fn create(&mut self, came: &Came) -> u32 {
        self.next += 1;
        self.features.insert(self.next, came.body.clone());
        self.next
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut TcpStream) -> Option<Came> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[end..].to_vec()).unwrap();
    Some(Came { method: first.next()?.to_owned(), path: first.next()?.to_owned(), headers, body })
}

/// Status, header lines, body.
type Reply = (u16, String, Vec<u8>);

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(came) = read(&mut stream).await else { return };
    state.lock().unwrap().came.push(came.clone());
    let _ = match came.path.as_str() {
        // Never ends, never stops.
        "/endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n").await;
            while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
            return;
        }
        // One header byte now and then.
        "/slow" => {
            while stream.write_all(b"H").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            return;
        }
        "/many-headers" => {
            let lines: String = (0..2000).map(|n| format!("x-{n}: y\r\n")).collect();
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes()).await
        }
        "/long-header" => {
            let long = "y".repeat(1 << 20);
            stream.write_all(format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n").as_bytes()).await
        }
        // Does what it is asked for, and falls silent.
        "/api/mute" => {
            state.lock().unwrap().create(&came);
            return;
        }
        "/cut" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await,
        "/garbage" => stream.write_all(b"\x00\x01\x02 hello\r\n\r\n").await,
        _ => {
            let (status, headers, body) = answer(&came, &mut state.lock().unwrap());
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nX-Pointsman: epoch=7 side=stable\r\n{headers}Content-Length: {length}\r\n\r\n"
            );
            stream.write_all(&[head.into_bytes(), body].concat()).await
        }
    };
    let _ = stream.shutdown().await;
}

fn json(status: u16, body: &str) -> Reply {
    (status, "Content-Type: application/json\r\n".to_owned(), body.as_bytes().to_vec())
}

fn html(body: &str) -> Reply {
    (200, "Content-Type: text/html; charset=utf-8\r\n".to_owned(), body.as_bytes().to_vec())
}

fn xml(body: &str) -> Reply {
    (200, "Content-Type: application/xml\r\n".to_owned(), body.as_bytes().to_vec())
}

fn answer(came: &Came, state: &mut State) -> Reply {
    if let Some(times) = state.failing.get_mut(&came.path).filter(|times| **times > 0) {
        *times -= 1;
        return json(500, r#"{"error":"down"}"#);
    }
    let cookies = came.headers.get("cookie").map_or("", String::as_str);
    let bearer = came.headers.get("authorization").is_some_and(|value| value == "Bearer tok-123456789012");
    let (path, query) = came.path.split_once('?').unwrap_or((&came.path, ""));
    match (came.method.as_str(), path) {
        ("GET", "/api/health") => json(200, r#"{"status":"ok","release":"r1"}"#),
        ("GET", "/") => html(
            r#"<html><head><script src="/app.js"></script><link rel=stylesheet href="app.css"></head>
               <body><div id="app"></div></body></html>"#,
        ),
        ("GET", "/to-the-map") => (302, "Location: /map/\r\n".to_owned(), Vec::new()),
        ("GET", "/map/") => html(r#"<script src="assets/map.js"></script>"#),
        ("GET", "/map/assets/map.js") => {
            (200, "Content-Type: text/javascript\r\n".to_owned(), b"map()".to_vec())
        }
        ("GET", "/unstyled") => {
            html(r#"<link rel=stylesheet href="/empty.css"><script src="/app.js"></script>"#)
        }
        ("GET", "/undone") => html(r#"<script src="/empty.js"></script>"#),
        ("GET", "/empty.css") => (200, "Content-Type: text/css\r\n".to_owned(), Vec::new()),
        ("GET", "/empty.js") => (200, "Content-Type: text/javascript\r\n".to_owned(), Vec::new()),
        ("GET", "/lost") => html(r#"<script src="/app.js"></script><script src="/fallback.js"></script>"#),
        // As single-page applications are served: every path that is not there is the start page.
        ("GET", "/fallback.js") => html("<html>start page</html>"),
        ("GET", "/app.js") => (200, "Content-Type: text/javascript\r\n".to_owned(), b"run()".to_vec()),
        ("GET", "/app.css") => (200, "Content-Type: text/css\r\n".to_owned(), b"a{}".to_vec()),
        ("GET", "/login") => {
            let (status, headers, body) = html(r#"<form><input name="csrf" value="c&amp;s/rf=1"></form>"#);
            (status, format!("{headers}Set-Cookie: pre=1; Path=/; Secure\r\n"), body)
        }
        ("POST", "/login") => {
            let good = came.body.contains("csrf=c%26s%2Frf%3D1")
                && came.body.contains("user=ada")
                && came.body.contains("password=p%26ss+word%22")
                || came.body.contains("password=p%26ss%20word%22");
            if good && cookies.contains("pre=1") {
                return (
                    303,
                    "Location: /home\r\nSet-Cookie: sid=s1; Path=/; HttpOnly\r\n".to_owned(),
                    Vec::new(),
                );
            }
            json(403, &format!("{{\"error\":\"refused\",\"you sent\":\"{}\"}}", came.body))
        }
        ("GET", "/home") if cookies.contains("sid=s1") => html("<h1>welcome ada</h1>"),
        ("GET", "/home") => json(401, "{}"),
        ("POST", "/api/login") => {
            let sent: serde_json::Value = serde_json::from_str(&came.body).unwrap_or_default();
            match sent["password"] == "p&ss word\"" {
                true => json(200, r#"{"token":"tok-123456789012"}"#),
                false => json(401, &came.body),
            }
        }
        ("GET", "/api/me") if bearer => json(200, r#"{"name":"ada"}"#),
        ("POST", "/api/features") if bearer => {
            let id = state.create(came);
            json(201, &format!("{{\"id\":{id}}}"))
        }
        // What it makes is there whatever it answers.
        ("POST", "/api/breaks") => {
            state.create(came);
            json(500, "{}")
        }
        ("POST", "/api/nameless") => {
            state.create(came);
            json(201, "{}")
        }
        // Repeats what somebody else has sent: once as it is, once where an excerpt ends, once by way of a document.
        ("GET", "/gate") => json(500, &format!("user ada pass {PASSWORD}{}{PASSWORD}", "x".repeat(33))),
        ("GET", "/token") => json(500, "tok-123456789012"),
        ("GET", "/geoserver/leak") => xml(&format!(
            "<ExceptionReport><Exception exceptionCode=\"NoApplicableCode\"><ExceptionText>cannot log in with\n {}</ExceptionText>\
             </Exception></ExceptionReport>",
            PASSWORD.replace('&', "&amp;")
        )),
        (method, path) if path.starts_with("/api/features/") && (bearer || method == "GET") => {
            let id: u32 = path.trim_start_matches("/api/features/").parse().unwrap_or(0);
            match (method, state.features.get(&id).cloned()) {
                ("GET", Some(feature)) => json(200, &feature),
                ("DELETE", Some(_)) => {
                    state.features.remove(&id);
                    json(204, "")
                }
                _ => json(404, "{}"),
            }
        }
        ("GET", "/geoserver/ows") if query.contains("request=GetMap") => {
            (200, "Content-Type: image/png\r\n".to_owned(), b"\x89PNG\r\n\x1a\n".to_vec())
        }
        ("GET", "/geoserver/ows") if query.contains("request=GetFeature") => {
            xml(r#"<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs/2.0" numberReturned="1"/>"#)
        }
        ("GET", "/geoserver/ows") if query.contains("service=WFS") => xml(
            r#"<w:WFS_Capabilities xmlns:w="http://www.opengis.net/wfs/2.0" version="2.0.0"><w:FeatureType>
               <w:Name>p2d2:features</w:Name></w:FeatureType></w:WFS_Capabilities>"#,
        ),
        ("GET", "/geoserver/ows") => xml(
            r#"<WMS_Capabilities xmlns="http://www.opengis.net/wms" version="1.3.0"><Layer><Name>p2d2:basemap</Name>
               </Layer></WMS_Capabilities>"#,
        ),
        ("GET", "/bomb") => xml("<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><l>&b;&b;&b;</l>"),
        ("GET", "/packed") => (200, "Content-Encoding: gzip\r\n".to_owned(), b"\x1f\x8b\x08\x00".to_vec()),
        ("GET", "/around") => (302, "Location: /around\r\n".to_owned(), Vec::new()),
        ("GET", "/away") => (302, "Location: http://elsewhere.example.org/\r\n".to_owned(), Vec::new()),
        ("GET", "/moved") => (301, "Location: /api/health\r\n".to_owned(), Vec::new()),
        ("GET", "/am/api/v2/alerts") => json(200, r#"[{"labels":{"alertname":"Watchdog"}}]"#),
        _ => json(404, r#"{"error":"not found"}"#),
    }
}
