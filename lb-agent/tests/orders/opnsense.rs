//! A map that OPNsense keeps: it is kept before HAProxy is told, read back, and what cannot be known is said to be so.
//! OPNsense is a fake of exactly the three calls that the agent makes, as its sources have them; HAProxy is a fake.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pointsman_core::{Action, Aftermath, Code, Evidence, Problem};
use pointsman_lb_agent::{Config, LbHands};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fake::{Answer, Fake};
use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, P, V, route};

const UUID: &str = "3d1f8a4e-0c0e-4a4b-9f0e-2f1d9a7b6c5d";
const KEY: &str = "w86XNZob/8Oq8aC5r0kbNarNtdpoQU781fyoeaOB";
const SECRET: &str = "XeD26XVrJ5ilAc+EmglCRC+0j2e57tRsjHwFepOs";
/// `KEY:SECRET` in base64, made by another program.
const BASIC: &str = "Basic dzg2WE5ab2IvOE9xOGFDNXIwa2JOYXJOdGRwb1FVNzgxZnlvZWFPQjpYZUQyNlhWcko1aWxBYytFbWdsQ1JDKzBqMmU1N3RSc2pId0ZlcE9z";

/// What goes wrong at one call.
#[derive(Clone, Debug)]
enum Fault {
    /// This status, and nothing done.
    Status(u16),
    /// Done, and then this status.
    DoneThen(u16),
    /// Not valid: nothing done.
    Invalid,
    /// No answer.
    Silence,
    /// Done, and no answer.
    DoneThenSilence,
    /// Done, and half the answer.
    Cut,
    /// Not done, and half an answer.
    CutUndone,
    /// More than anybody wants to read.
    Flood,
    /// A page of the web GUI.
    Page,
}

#[derive(Clone, Debug)]
struct MapFile {
    id: String,
    name: String,
    url: String,
    content: String,
}

#[derive(Debug, Default)]
struct Kept {
    files: BTreeMap<String, MapFile>,
    faults: VecDeque<(String, Fault)>,
    calls: Vec<String>,
}

#[derive(Clone, Default)]
struct Opnsense(Arc<Mutex<Kept>>);

impl Opnsense {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn keeps(&self) -> String {
        let content = self.with(|found| found.files[UUID].content.clone());
        content.trim().trim_start_matches("route ").to_owned()
    }

    fn fault(&self, starts: &str, fault: Fault) {
        self.with(|found| found.faults.push_back((starts.to_owned(), fault)));
    }

    /// It is down as far as it can be: each call is answered so, for ever.
    fn down(&self, fault: &Fault) {
        self.with(|found| found.faults = (0..1000).map(|_| (String::new(), fault.clone())).collect());
    }

    fn up(&self) {
        self.with(|found| found.faults.clear());
    }

    fn calls(&self, starts: &str) -> usize {
        self.with(|found| found.calls.iter().filter(|call| call.starts_with(starts)).count())
    }

    /// `Apply`: map files are written from `config.xml`, and HAProxy is reloaded.
    fn apply(&self, haproxy: &Fake) {
        let kept = self.keeps();
        haproxy.with(|world| world.reload_with(&kept));
    }

    async fn listen(&self, tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, tls) = (own.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => own.serve(stream).await,
                        Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => own.serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        address
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> Option<()> {
        let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
        let (head, body) = loop {
            let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8(request.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let line = head.lines().next()?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let action = path.strip_prefix("/api/haproxy/settings/").unwrap_or("elsewhere").to_owned();
        let allowed = head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {BASIC}")));
        let fault = self.with(|found| {
            found.calls.push(format!("{method} {action}"));
            let at = found.faults.iter().position(|(starts, _)| action.starts_with(starts));
            at.and_then(|at| found.faults.remove(at)).map(|(_, fault)| fault)
        });
        let undone =
            matches!(fault, Some(Fault::Status(_) | Fault::Invalid | Fault::Silence | Fault::CutUndone));
        let (status, answer) = match allowed {
            false => (401, json!({"status": 401, "message": "Authentication Failed"})),
            true if undone => (200, json!({})),
            true => (200, self.with(|found| found.answer(method, &action, &body))),
        };
        let whole = |status: u16, body: &str| {
            format!(
                "HTTP/1.1 {status} X\r\nLocation: https://127.0.0.1/\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let text = match fault {
            None => whole(status, &answer.to_string()),
            Some(Fault::Status(status) | Fault::DoneThen(status)) => {
                whole(status, "{\"errorMessage\":\"x\"}")
            }
            Some(Fault::Invalid) => {
                whole(200, r#"{"result":"failed","validations":{"mapfile.content":"Should be good."}}"#)
            }
            Some(Fault::Page) => whole(200, "<html>Login</html>"),
            Some(Fault::Flood) => whole(200, &"x".repeat(8 << 20)),
            Some(Fault::Cut | Fault::CutUndone) => {
                let text = whole(200, r#"{"result":"saved"}"#);
                text[..text.len() - 5].to_owned()
            }
            Some(Fault::Silence | Fault::DoneThenSilence) => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return None;
            }
        };
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.shutdown().await.ok()
    }
}

impl Kept {
    /// As `SettingsController` and `ApiMutableModelControllerBase` do it.
    fn answer(&mut self, method: &str, action: &str, body: &str) -> Value {
        let (action, uuid) = action.split_once('/').unwrap_or((action, ""));
        match (method, action) {
            ("GET", "searchMapfiles") => {
                let rows = self
                    .files
                    .iter()
                    .map(|(uuid, file)| json!({"uuid": uuid, "name": file.name, "description": ""}));
                let rows: Vec<Value> = rows.collect();
                json!({"total": rows.len(), "rowCount": rows.len(), "current": 1, "rows": rows})
            }
            ("GET", "getMapfile") => match self.files.get(uuid) {
                None => json!([]),
                Some(file) => json!({"mapfile": {
                    "id": file.id, "name": file.name, "description": "", "url": file.url, "content": file.content,
                    "type": {"dom": {"value": "Domains (dom)", "selected": 1}},
                }}),
            },
            ("POST", "setMapfile") => {
                let body: Value = serde_json::from_str(body).unwrap();
                let Some(content) = body["mapfile"]["content"].as_str() else {
                    return json!({"result": "failed"});
                };
                let new = MapFile {
                    id: "new".into(),
                    name: String::new(),
                    url: String::new(),
                    content: String::new(),
                };
                // "set is an upsert operation": what is not there is made.
                self.files.entry(uuid.to_owned()).or_insert(new).content = content.to_owned();
                json!({"result": "saved"})
            }
            _ => json!({"errorMessage": "Endpoint not found"}),
        }
    }
}

struct Site {
    agent: Agent,
    haproxy: Fake,
    opnsense: Opnsense,
    address: SocketAddr,
    folder: TempDir,
}

fn secret(path: &Path, text: &str) {
    std::fs::write(path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn config(folder: &Path, state: &Path, haproxy: &Fake, url: &str, which: &str) -> Config {
    let map = Path::new("/tmp/haproxy/mapfiles/5f3a.txt");
    config_of(folder, state, (&haproxy.socket, map, haproxy.frontend), url, which)
}

fn config_of(
    folder: &Path,
    state: &Path,
    (socket, map, frontend): (&Path, &Path, SocketAddr),
    url: &str,
    which: &str,
) -> Config {
    let text = format!(
        r#"listen = "127.0.0.1:1"
state = "{3}"
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
socket = "{1}"
map = "{4}"
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
[haproxy.opnsense]
url = "{url}"
key_file = "{0}/key"
secret_file = "{0}/secret"
{which}
[frontend]
address = "{2}"
host = "www.example.org"
"#,
        folder.display(),
        socket.display(),
        frontend,
        state.display(),
        map.display(),
    );
    pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap()
}

/// A state folder of its own for an agent, with its route file at `P`.
fn state_at_p(folder: &TempDir) -> (PathBuf, PathBuf) {
    let state = tempfile::Builder::new().prefix("state").tempdir_in(folder.path()).unwrap().keep();
    let map = state.join("route.map");
    std::fs::write(&map, format!("route {P}\n")).unwrap();
    (state, map)
}

fn by_id() -> String {
    format!("map_file_id = \"{UUID}\"")
}

/// OPNsense with a map file at `P`.
async fn opnsense_at_p(folder: &Path) -> (Opnsense, SocketAddr) {
    secret(&folder.join("key"), KEY);
    secret(&folder.join("secret"), SECRET);
    let opnsense = Opnsense::default();
    let file = MapFile {
        id: "5f3a".into(),
        name: "pointsman".into(),
        url: String::new(),
        content: format!("route {P}\n"),
    };
    opnsense.with(|found| found.files.insert(UUID.to_owned(), file));
    let address = opnsense.listen(None).await;
    (opnsense, address)
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, map) = state_at_p(&folder);
        let haproxy = Fake::start(folder.path(), &map, P).await;
        let (opnsense, address) = opnsense_at_p(folder.path()).await;
        let config = config(folder.path(), &state, &haproxy, &format!("http://{address}"), &by_id());
        Self { agent: Agent::of(config, map), haproxy, opnsense, address, folder }
    }

    fn with(self, url: &str, which: &str) -> Self {
        let (state, map) = state_at_p(&self.folder);
        let config = config(self.folder.path(), &state, &self.haproxy, url, which);
        Self { agent: Agent::of(config, map), ..self }
    }

    fn named(self, which: &str) -> Self {
        let url = format!("http://{}", self.address);
        self.with(&url, which)
    }

    /// From a route to another on the way back.
    async fn back(&self, expected: &str, wanted: &str) -> Result<Evidence, Problem> {
        let expected = vec![route(expected)];
        let action = Action::SetRoute { expected, wanted: route(wanted), min_up: 1, back: true };
        self.agent.perform(action).await
    }

    fn down(&self, fault: &Fault) {
        self.opnsense.down(fault);
    }

    fn up(&self) {
        self.opnsense.up();
    }

    /// An agent of the same state folder, started anew.
    async fn restarted(self) -> Self {
        let url = format!("http://{}", self.address);
        let config = config(self.folder.path(), &self.agent.state, &self.haproxy, &url, &by_id());
        let map = self.agent.map.clone();
        let Self { agent, .. } = self;
        drop(agent);
        let agent = Agent::of(config, map);
        agent.hands.settle_at_start().await;
        Self { agent, ..self }
    }

    async fn facts(&self) -> pointsman_proto::v1::BalancerFacts {
        self.agent.describe().await.balancer.unwrap()
    }

    async fn switch(&self) -> Result<Evidence, Problem> {
        self.agent.set_route(P, V).await
    }

    /// What is kept, what HAProxy routes by, and what the agent says is kept.
    async fn stands(&self) -> (String, String, String) {
        let facts = self.agent.describe().await.balancer.unwrap_or_default();
        (self.opnsense.keeps(), self.haproxy.with(|world| world.route()), facts.route_on_disk)
    }

    async fn until(&self, wanted: (&str, &str, &str)) {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let (kept, runtime, known) = self.stands().await;
            if (kept.as_str(), runtime.as_str(), known.as_str()) == wanted {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "waited in vain: {:?}, wanted {wanted:?}",
                (kept, runtime, known)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn sets(&self) -> usize {
        self.haproxy
            .with(|world| world.commands.iter().filter(|command| command.starts_with("set map")).count())
    }
}

fn three(text: &str) -> (String, String, String) {
    (text.to_owned(), text.to_owned(), text.to_owned())
}

#[tokio::test]
async fn opnsense_keeps_the_route_before_haproxy_is_told() {
    let site = Site::new().await;
    let kept_then = Arc::new(Mutex::new(String::new()));
    let (seen, opnsense) = (Arc::clone(&kept_then), site.opnsense.clone());
    site.haproxy.with(|world| {
        world.instead("set map", 1, move |_| {
            *seen.lock().unwrap() = opnsense.keeps();
            None
        });
    });
    site.agent.inspect(P).await.unwrap();
    let done = site.switch().await.unwrap();
    assert!(!done.already, "{done:?}");
    assert_eq!(*kept_then.lock().unwrap(), V);
    assert_eq!(site.stands().await, three(V));
    site.agent.inspect(V).await.unwrap();
    // It was read back, and the same again changes nothing.
    assert_eq!((site.opnsense.calls("POST setMapfile"), site.sets()), (1, 1));
    assert!(site.switch().await.unwrap().already);
    assert_eq!(site.opnsense.calls("POST setMapfile"), 1);
    // There is no master socket: an old process is said to be possible, not to be told.
    assert!(done.detail.contains("an old process may keep the old route"), "{done:?}");
}

#[tokio::test]
async fn a_route_that_opnsense_refuses_is_not_set() {
    let faults =
        [Fault::Status(401), Fault::Status(403), Fault::Status(302), Fault::Status(404), Fault::Invalid];
    for fault in faults {
        let site = Site::new().await;
        site.opnsense.fault("setMapfile", fault.clone());
        let problem = site.switch().await.unwrap_err();
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::OpnsenseRefused, Aftermath::Unchanged),
            "{fault:?}: {problem:?}"
        );
        assert_eq!((site.stands().await, site.sets()), (three(P), 0), "{fault:?}");
        site.switch().await.unwrap();
        assert_eq!(site.stands().await, three(V), "{fault:?}: and when the trouble is over");
    }
}

#[tokio::test]
async fn an_unclear_answer_is_looked_at() {
    // Whether it was done, and what is true then.
    let cases = [
        (Fault::Status(500), false),
        (Fault::CutUndone, false),
        (Fault::DoneThen(500), true),
        (Fault::Cut, true),
        (Fault::Flood, true),
        (Fault::Page, true),
    ];
    for (fault, done) in cases {
        let site = Site::new().await;
        site.opnsense.fault("setMapfile", fault.clone());
        let result = site.switch().await;
        let stands = site.stands().await;
        match done {
            true => assert!(result.is_ok() && stands == three(V), "{fault:?}: {result:?}, {stands:?}"),
            false => {
                let problem = result.unwrap_err();
                assert_eq!(
                    (problem.code, problem.aftermath),
                    (Code::OpnsenseRefused, Aftermath::Unchanged),
                    "{fault:?}: {problem:?}"
                );
                assert_eq!((stands, site.sets()), (three(P), 0), "{fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn silence_ends_and_is_looked_at() {
    let site = Site::new().await;
    site.opnsense.fault("setMapfile", Fault::Silence);
    let problem = tokio::time::timeout(Duration::from_secs(30), site.switch()).await.unwrap().unwrap_err();
    assert_eq!(problem.aftermath, Aftermath::Unchanged, "{problem:?}");
    assert_eq!((site.stands().await, site.sets()), (three(P), 0));
}

#[tokio::test]
async fn what_opnsense_keeps_is_not_guessed_and_is_found_out_later() {
    for (fault, settles_at) in [(Fault::DoneThen(500), V), (Fault::Status(500), P)] {
        let site = Site::new().await;
        site.opnsense.fault("setMapfile", fault.clone());
        // The look before goes well; then nothing does.
        site.opnsense.with(|found| {
            found.faults.push_back(("getMapfile".to_owned(), Fault::Page));
            found.faults.rotate_right(1);
        });
        let early = site.switch().await.unwrap_err();
        assert_eq!((early.code, early.aftermath), (Code::OpnsenseSilent, Aftermath::Unchanged), "{early:?}");
        site.opnsense.with(|found| found.faults.clear());

        let opnsense = site.opnsense.clone();
        opnsense.fault("setMapfile", fault.clone());
        site.opnsense.with(|found| found.calls.clear());
        let blinded = tokio::spawn(async move {
            // Once the call was made, nobody can look any more.
            while opnsense.calls("POST setMapfile") == 0 {
                tokio::task::yield_now().await;
            }
            opnsense.with(|found| {
                found.faults.extend((0..9).map(|_| ("getMapfile".to_owned(), Fault::Status(500))))
            });
        });
        let problem = site.switch().await.unwrap_err();
        blinded.await.unwrap();
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::OpnsenseSilent, Aftermath::Unknown),
            "{fault:?}: {problem:?}"
        );
        let (kept, runtime, known) = site.stands().await;
        assert_eq!(
            (kept.as_str(), runtime.as_str(), known.as_str(), site.sets()),
            (settles_at, P, "", 0),
            "{fault:?}"
        );
        assert_eq!(site.agent.inspect(P).await.unwrap_err().code, Code::RouteDrift);

        site.opnsense.with(|found| found.faults.clear());
        let guarding = site.agent.hands.clone();
        let guard = tokio::spawn(async move { guarding.guard_route().await });
        site.until((settles_at, P, settles_at)).await;
        guard.abort();
        site.switch().await.unwrap();
        assert_eq!(site.stands().await, three(V), "{fault:?}");
    }
}

#[tokio::test]
async fn an_apply_of_an_older_config_is_put_right() {
    let site = Site::new().await;
    let guarding = site.agent.hands.clone();
    let guard = tokio::spawn(async move { guarding.guard_route().await });
    site.switch().await.unwrap();
    // An Apply after the switch brings what is kept: the same route.
    site.opnsense.apply(&site.haproxy);
    site.until((V, V, V)).await;
    // Somebody restores a backup of `config.xml` and applies it.
    site.opnsense.with(|found| found.files.get_mut(UUID).unwrap().content = format!("route {P}\r\n"));
    site.opnsense.apply(&site.haproxy);
    assert_eq!(site.haproxy.with(|world| world.route()), P);
    site.until((V, V, V)).await;
    guard.abort();
}

#[tokio::test]
async fn what_a_person_wrote_into_the_map_file_is_drift() {
    let site = Site::new().await;
    site.opnsense.with(|found| {
        found.files.get_mut(UUID).unwrap().content = "route be_green:be_green:0:9\n".to_owned()
    });
    let drift = site.agent.inspect(P).await.unwrap_err();
    assert_eq!(drift.code, Code::RouteDrift);
    assert!(drift.message.contains("OPNsense keeps `be_green:be_green:0:9`"), "{drift:?}");
}

#[tokio::test]
async fn a_map_file_that_is_not_the_agents_is_never_written() {
    type Change = fn(&mut Kept);
    let cases: [(&str, Change, &str); 6] = [
        ("gone", |found| found.files.clear(), "no map file"),
        ("downloaded", |found| found.files.get_mut(UUID).unwrap().url = "https://x/".into(), "downloaded"),
        (
            "another",
            |found| found.files.get_mut(UUID).unwrap().id = "77".into(),
            "/tmp/haproxy/mapfiles/77.txt",
        ),
        (
            "others'",
            |found| found.files.get_mut(UUID).unwrap().content = "www.a.org be_a\nroute x".into(),
            "more than the one key",
        ),
        (
            "one other's",
            |found| found.files.get_mut(UUID).unwrap().content = "www.a.org be_a".into(),
            "more than the one key",
        ),
        ("a page", |found| found.faults.push_back(("getMapfile".into(), Fault::Page)), "no JSON"),
    ];
    for (name, change, why) in cases {
        let site = Site::new().await;
        site.opnsense.with(change);
        let problem = site.switch().await.unwrap_err();
        assert_eq!(problem.aftermath, Aftermath::Unchanged, "{name}: {problem:?}");
        assert!(problem.causes.iter().any(|cause| cause.contains(why)), "{name}: {problem:?}");
        assert_eq!((site.opnsense.calls("POST"), site.sets()), (0, 0), "{name}");
    }
}

#[tokio::test]
async fn a_map_file_found_by_its_name() {
    let site = Site::new().await.named("map_file = \"pointsman\"");
    site.switch().await.unwrap();
    assert_eq!(site.stands().await, three(V));
    let site = Site::new().await.named("map_file = \"other\"");
    assert!(site.switch().await.unwrap_err().causes[0].contains("no map file named `other`"));
    let site = Site::new().await;
    site.opnsense.with(|found| {
        let twin = found.files[UUID].clone();
        found.files.insert("0d1f8a4e-0c0e-4a4b-9f0e-2f1d9a7b6c5d".to_owned(), twin);
    });
    let site = site.named("map_file = \"pointsman\"");
    assert!(site.switch().await.unwrap_err().causes[0].contains("2 map files"));
    assert_eq!(site.opnsense.calls("POST"), 0);
}

#[tokio::test]
async fn the_first_start_takes_what_opnsense_keeps() {
    let site = Site::new().await;
    std::fs::remove_file(&site.agent.map).unwrap();
    site.agent.hands.settle_at_start().await;
    assert_eq!(site.stands().await, three(P));
    site.agent.inspect(P).await.unwrap();
}

#[tokio::test]
async fn a_refused_key_is_said_and_never_shown() {
    let site = Site::new().await;
    secret(&site.folder.path().join("secret"), "another-secret");
    let site = site.named(&by_id());
    let problem = site.switch().await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::OpnsenseRefused, Aftermath::Unchanged));
    let shown = format!("{problem:?}");
    assert!(shown.contains("refused the key (401)"), "{shown}");
    for hidden in ["another-secret", KEY, SECRET, "Basic"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    // A secret that others may read is none.
    let path = site.folder.path().join("secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let url = format!("http://{}", site.address);
    let refused = LbHands::new(config(site.folder.path(), &site.agent.state, &site.haproxy, &url, &by_id()))
        .err()
        .unwrap();
    assert!(refused.code == Code::ConfigInvalid && refused.message.contains("everybody"), "{refused:?}");
}

#[tokio::test]
async fn over_tls_only_whom_the_authority_vouches_for() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut about = rcgen::CertificateParams::new(Vec::new()).unwrap();
    about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = about.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&about, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let site = Site::new().await;
    let address = site.opnsense.listen(Some(Arc::new(server))).await;
    let path = site.folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let other_key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&other_key).unwrap();
    let other_path = site.folder.path().join("other.pem");
    std::fs::write(&other_path, other.pem()).unwrap();
    let url = format!("https://{address}");

    let site = site.with(&url, &format!("{}\nca = \"{}\"", by_id(), other_path.display()));
    let problem = site.switch().await.unwrap_err();
    assert_eq!(
        (problem.code, problem.aftermath),
        (Code::OpnsenseSilent, Aftermath::Unchanged),
        "{problem:?}"
    );
    assert_eq!((site.stands().await, site.opnsense.calls("")), (three(P), 0), "nothing was sent to it");

    let site = site.with(&url, &format!("{}\nca = \"{}\"", by_id(), path.display()));
    site.switch().await.unwrap();
    assert_eq!(site.stands().await, three(V));
}

const PAGE: &str = "be_maint:be_green:0:7";
const BACK: &str = "be_blue:be_green:0:8";

/// With OPNsense down, or its key revoked, visitors are led back and to the page all the same; it is said, nothing goes
/// forward, and OPNsense keeps it when it is well again.
#[tokio::test]
async fn without_opnsense_visitors_are_led_back_and_it_keeps_that_later() {
    for fault in [Fault::Status(401), Fault::Status(500), Fault::Page, Fault::Silence] {
        let site = Site::new().await;
        site.switch().await.unwrap();
        let hands = site.agent.hands.clone();
        let guard = tokio::spawn(async move { hands.guard_route().await });
        site.down(&fault);
        for (from, to) in [(V, PAGE), (PAGE, BACK)] {
            let done = site.back(from, to).await.unwrap();
            let unkept = done.unkept.clone().unwrap_or_default();
            assert!(unkept.contains(&format!("does not keep route `{to}` yet")), "{fault:?}: {done:?}");
            assert!(!done.already && done.detail.contains("read back"), "{done:?}");
            assert_eq!(site.stands().await, (V.to_owned(), to.to_owned(), String::new()), "{fault:?}");
        }
        let facts = site.facts().await;
        assert!(facts.unkept.contains("yet") && facts.drift.is_empty(), "{facts:?}");
        assert!(facts.events.iter().any(|event| event.kind == "not-kept"), "{:?}", facts.events);
        let refused = site.agent.inspect(BACK).await.unwrap_err();
        assert_eq!(refused.code, Code::RouteNotKept, "{refused:?}");
        let leaving = site.agent.inspect_as(BACK, true).await.unwrap();
        assert!(leaving.detail.contains("does not keep"), "{leaving:?}");

        site.up();
        site.until((BACK, BACK, BACK)).await;
        let facts = site.facts().await;
        assert_eq!(facts.unkept, "");
        assert!(facts.events.iter().any(|event| event.kind == "kept"), "{:?}", facts.events);
        site.agent.inspect(BACK).await.unwrap();
        guard.abort();
    }
}

/// Where OPNsense is well, whoever comes back is answered when it keeps the route.
#[tokio::test]
async fn on_the_way_back_opnsense_keeps_the_route_before_it_is_answered() {
    let site = Site::new().await;
    site.switch().await.unwrap();
    let done = site.back(V, PAGE).await.unwrap();
    assert_eq!(done.unkept, None, "{done:?}");
    assert_eq!(site.stands().await, three(PAGE));
    site.agent.inspect(PAGE).await.unwrap();
}

/// Forward it is kept first, or nothing is moved, also while something is owed.
#[tokio::test]
async fn what_is_owed_lets_nothing_go_forward_that_opnsense_does_not_keep() {
    let site = Site::new().await;
    site.switch().await.unwrap();
    site.down(&Fault::Status(401));
    site.back(V, PAGE).await.unwrap();
    let forward = "be_green:be_green:0:8";
    let refused = site.agent.set_route(PAGE, forward).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.aftermath),
        (Code::OpnsenseRefused, Aftermath::Unchanged),
        "{refused:?}"
    );
    assert_eq!(site.stands().await, (V.to_owned(), PAGE.to_owned(), String::new()));
    site.up();
    // What is kept for it settles what was owed before.
    site.agent.set_route(PAGE, forward).await.unwrap();
    assert_eq!(site.stands().await, three(forward));
    assert_eq!(site.facts().await.unkept, "");
}

/// An Apply brings what OPNsense keeps, and a crash of the agent in between forgets nothing: the route that visitors were
/// led back by is set again.
#[tokio::test]
async fn a_reload_and_a_crash_bring_nobody_forward_again() {
    let site = Site::new().await;
    site.switch().await.unwrap();
    site.down(&Fault::Status(500));
    let guarding = site.agent.hands.clone();
    let guard = tokio::spawn(async move { guarding.guard_route().await });
    site.back(V, PAGE).await.unwrap();
    site.until((V, PAGE, "")).await;
    site.opnsense.apply(&site.haproxy);
    assert_eq!(site.haproxy.with(|world| world.route()), V);
    site.until((V, PAGE, "")).await;
    assert_eq!(site.facts().await.drift, "");
    guard.abort();
    let _ = guard.await;

    // The agent is away while HAProxy is started anew.
    site.opnsense.apply(&site.haproxy);
    let site = site.restarted().await;
    assert_eq!(site.stands().await, (V.to_owned(), PAGE.to_owned(), String::new()));
    assert!(site.facts().await.unkept.contains(PAGE));
    site.up();
    let guarding = site.agent.hands.clone();
    let guard = tokio::spawn(async move { guarding.guard_route().await });
    site.until((PAGE, PAGE, PAGE)).await;
    guard.abort();
}

/// A move back that moves nobody is taken back without OPNsense too.
#[tokio::test]
async fn without_opnsense_a_move_back_that_fails_is_undone() {
    let site = Site::new().await;
    site.switch().await.unwrap();
    site.down(&Fault::Status(401));
    site.haproxy.with(|world| world.instead("set map", 1, |_| Some(Answer::text("refused\n"))));
    let problem = site.back(V, PAGE).await.unwrap_err();
    assert_eq!(problem.aftermath, Aftermath::Unchanged, "{problem:?}");
    assert_eq!(site.haproxy.with(|world| world.route()), V);
    assert!(site.facts().await.unkept.contains(V));
    let hands = site.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    site.up();
    site.until((V, V, V)).await;
    guard.abort();
    // The same order again is no older one.
    assert_eq!(site.back(V, PAGE).await.unwrap().unkept, None);
}

/// While a call to OPNsense hangs, neither a look nor an order waits for it.
#[tokio::test]
async fn a_call_that_hangs_holds_up_nobody() {
    let site = Site::new().await;
    site.switch().await.unwrap();
    site.down(&Fault::Silence);
    site.back(V, PAGE).await.unwrap();
    let hands = site.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let calls = site.opnsense.calls("");
    let asked = async {
        while site.opnsense.calls("") == calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap();
    // The guard's call is under way, for seconds: a look does not wait for it, and neither does an order.
    let under_way = site.opnsense.calls("");
    assert_eq!(site.facts().await.route, PAGE);
    tokio::select! {
        done = site.back(PAGE, BACK) => assert!(done.unwrap().unkept.is_some(), "kept by an OPNsense that is silent"),
        () = async {
            while site.haproxy.with(|world| world.route()) != BACK {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    assert_eq!(site.opnsense.calls(""), under_way, "it was moved while the call still hung");
    assert_eq!(site.haproxy.with(|world| world.route()), BACK);
    guard.abort();
}

/// An order that leads back gets its turn at once from one that leads forward and waits for OPNsense: at its first call, at the
/// one that OPNsense does or does not do, and at the one that is to take it back. Nobody is moved forward, and OPNsense ends with
/// the route that visitors were led back by.
#[tokio::test]
async fn the_way_back_waits_for_no_call_of_an_order_that_leads_forward() {
    let hangs_at: [(&str, Option<Fault>); 4] = [
        ("GET getMapfile", Some(Fault::Silence)),
        ("POST setMapfile", Some(Fault::Silence)),
        ("POST setMapfile", Some(Fault::DoneThenSilence)),
        ("the route before", None),
    ];
    for (case, fault) in hangs_at {
        let site = Site::new().await;
        let hanging = Arc::new(Mutex::new(None));
        match &fault {
            Some(fault) => site.opnsense.fault(case.split_once(' ').unwrap().1, fault.clone()),
            // HAProxy refuses the route once OPNsense keeps it, and then OPNsense is gone.
            None => site.haproxy.with(|world| {
                let (opnsense, hanging) = (site.opnsense.clone(), Arc::clone(&hanging));
                world.instead("set map", 1, move |_| {
                    opnsense.down(&Fault::Silence);
                    *hanging.lock().unwrap() = Some(opnsense.calls("") + 1);
                    Some(Answer::text("refused\n"))
                });
            }),
        }
        let back = async {
            let give_up = Instant::now() + Duration::from_secs(20);
            let hangs = || match fault {
                Some(_) => site.opnsense.calls(case) > 0,
                None => hanging.lock().unwrap().is_some_and(|call| site.opnsense.calls("") >= call),
            };
            while !hangs() {
                assert!(Instant::now() < give_up, "{case}: no call came");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            site.down(&Fault::Silence);
            let calls = site.opnsense.calls("");
            let moved = async {
                while site.haproxy.with(|world| world.route()) != PAGE {
                    assert!(Instant::now() < give_up, "{case}: nobody was led back");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                site.opnsense.calls("")
            };
            let (done, calls_then) = tokio::join!(site.back(P, PAGE), moved);
            assert_eq!(calls_then, calls, "{case}: visitors were led back while that call still hung");
            done.unwrap()
        };
        let (forward, back) = tokio::join!(site.switch(), back);
        let forward = forward.unwrap_err();
        assert_eq!(forward.aftermath, Aftermath::Unchanged, "{case}: {forward:?}");
        assert!(back.unkept.is_some(), "{case}: kept by an OPNsense that is silent");
        assert_eq!(site.haproxy.with(|world| world.route()), PAGE, "{case}");

        site.up();
        let hands = site.agent.hands.clone();
        let guard = tokio::spawn(async move { hands.guard_route().await });
        site.until((PAGE, PAGE, PAGE)).await;
        guard.abort();
    }
}

/// With a real HAProxy: an Apply while OPNsense cannot be had writes the route of before, and its new worker is led back again.
#[tokio::test]
async fn a_real_haproxy_is_led_back_without_opnsense() {
    let secrets = tempfile::tempdir().unwrap();
    let (opnsense, address) = opnsense_at_p(secrets.path()).await;
    let (state, own) = state_at_p(&secrets);
    let begun = Haproxy::begin(configuration, |folder, frontend| {
        let socket = folder.join("admin.sock");
        let map = folder.join("route.map");
        let url = format!("http://{address}");
        Agent::of(config_of(secrets.path(), &state, (&socket, &map, frontend), &url, &by_id()), own)
    });
    let Some(haproxy) = begun else { return };
    haproxy.healthy().await;
    let hands = haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let apply = || {
        std::fs::write(haproxy.folder.path().join("route.map"), format!("route {}\n", opnsense.keeps()))
            .unwrap();
    };
    haproxy.agent.set_route(P, V).await.unwrap();
    assert_eq!(opnsense.keeps(), V);
    opnsense.down(&Fault::Status(401));
    let expected = vec![route(V)];
    let page = Action::SetRoute { expected, wanted: route(PAGE), min_up: 1, back: true };
    let done = haproxy.agent.perform(page).await.unwrap();
    assert!(done.unkept.is_some() && done.detail.contains("seen by 3 new connections"), "{done:?}");
    let stands = async |haproxy: &Haproxy| {
        let facts = haproxy.agent.describe().await.balancer.unwrap_or_default();
        facts.route == PAGE && facts.drift.is_empty()
    };
    assert!(stands(&haproxy).await);
    apply();
    haproxy.replaced().await;
    haproxy.until("the new worker has the page", stands).await;
    opnsense.up();
    haproxy.until("OPNsense keeps it", async |_| opnsense.keeps() == PAGE).await;
    apply();
    haproxy.replaced().await;
    haproxy.healthy().await;
    haproxy.until("it is fit again", async |haproxy| haproxy.agent.inspect(PAGE).await.is_ok()).await;
    guard.abort();
}
