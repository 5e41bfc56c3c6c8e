//! A fake HAProxy: two real unix sockets, a command socket over TCP and a real frontend, with a map in memory, old workers, and scripted
//! failures. It records every command it was given, split as HAProxy splits lines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pointsman_chassis::site_certificate::SiteCertificate;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

pub const KEY: &str = "route";

/// How a command is answered when not as HAProxy would.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, and the connection stays open.
    HeldOpen(Vec<u8>),
    /// The usual answer, one byte in each packet.
    OneByOne,
    /// So many bytes.
    Flood(usize),
}

impl Answer {
    pub fn silence() -> Self {
        Self::HeldOpen(Vec::new())
    }

    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

type Effect = Arc<dyn Fn(&mut World) -> Option<Answer> + Send + Sync>;

/// What happens instead of, or right after, the usual answer to a command.
struct Rule {
    starts: String,
    times: usize,
    /// The command has its usual effect first.
    obey: bool,
    effect: Effect,
}

/// A worker: what it routes by, and which backends it knows.
#[derive(Clone, Debug)]
pub struct Worker {
    pub map: Vec<(String, String)>,
    pub backends: Vec<String>,
}

/// What the fake HAProxy is made of.
pub struct World {
    /// Every command that came, in order, on either socket.
    pub commands: Vec<String>,
    pub pid: u32,
    /// When the worker started, where HAProxy says so.
    pub started_s: Option<u64>,
    /// A worker that reads its configuration and cannot be asked anything yet.
    pub starting: Option<u32>,
    pub current: Worker,
    pub old: BTreeMap<u32, Worker>,
    /// Server, status, last check and sessions, by backend.
    pub servers: BTreeMap<String, Vec<(String, String, String, u64)>>,
    /// Servers that are marked `backup`, as `be_green/s2`.
    pub backups: BTreeSet<String>,
    /// The names that addresses of servers are found by.
    pub names: BTreeMap<String, String>,
    /// Requests of a backend that have no server yet, and how many ever began on it.
    pub waiting: BTreeMap<String, u64>,
    pub begun: BTreeMap<String, u64>,
    /// The frontend shows this epoch whatever the map says.
    pub shown_epoch: Option<u64>,
    /// What serves hangs: requests get no answer.
    pub silent: bool,
    pub map_file: PathBuf,
    /// What visitors are shown, and the open transaction.
    pub certificate: String,
    pub pending: Option<String>,
    /// Handshakes show this certificate whatever was committed.
    pub shown_certificate: Option<String>,
    /// Requests counted, by address.
    pub table: BTreeMap<String, u64>,
    /// The lines after the last command that had some.
    payload: String,
    rules: Vec<Rule>,
}

impl World {
    /// The route of the current worker.
    pub fn route(&self) -> String {
        value(&self.current.map)
    }

    /// A new worker takes over with this value in its map; the one before becomes an old worker.
    pub fn reload_with(&mut self, value: &str) {
        let fresh = Worker { map: vec![(KEY.to_owned(), value.to_owned())], ..self.current.clone() };
        let before = std::mem::replace(&mut self.current, fresh);
        self.old.insert(self.pid, before);
        self.pid += 1;
    }

    /// A new worker takes over with what is on disk.
    pub fn reload(&mut self) {
        let text = std::fs::read_to_string(&self.map_file).unwrap();
        self.reload_with(text.split_whitespace().nth(1).unwrap());
    }

    /// At the next `times` commands that start so, `effect` happens, instead of the command. Without an answer
    /// from it the usual one is given.
    pub fn instead(
        &mut self,
        starts: &str,
        times: usize,
        effect: impl Fn(&mut World) -> Option<Answer> + Send + Sync + 'static,
    ) {
        self.rules.push(Rule { starts: starts.to_owned(), times, obey: false, effect: Arc::new(effect) });
    }

    /// The same, right after the command has had its effect.
    pub fn after(
        &mut self,
        starts: &str,
        times: usize,
        effect: impl Fn(&mut World) -> Option<Answer> + Send + Sync + 'static,
    ) {
        self.rules.push(Rule { starts: starts.to_owned(), times, obey: true, effect: Arc::new(effect) });
    }

    /// From here on everything is answered as usual.
    pub fn forget_rules(&mut self) {
        self.rules.clear();
    }

    fn take(&mut self, command: &str) -> (String, Option<Answer>) {
        self.commands.push(command.to_owned());
        let rule = self.rules.iter_mut().find(|rule| rule.times > 0 && command.starts_with(&rule.starts));
        let Some(rule) = rule else { return (self.usual(command), None) };
        rule.times -= 1;
        let (obey, effect) = (rule.obey, Arc::clone(&rule.effect));
        if obey {
            let usual = self.usual(command);
            return (usual, effect(self));
        }
        match effect(self) {
            Some(answer) => (String::new(), Some(answer)),
            None => (self.usual(command), None),
        }
    }

    fn usual(&mut self, command: &str) -> String {
        if let Some((pid, inner)) = command.strip_prefix("@!").and_then(|rest| rest.split_once(' ')) {
            let Some(mut worker) = pid.parse().ok().and_then(|pid: u32| self.old.get(&pid).cloned()) else {
                return format!("Can't find the target PID matching the prefix '@!{pid}'\n");
            };
            let answer = self.worker_answers(&mut worker, inner);
            self.old.insert(pid.parse().unwrap(), worker);
            return answer;
        }
        if command == "show proc" {
            let mut text =
                "#<PID>          <type>          <reloads>       <uptime>        <version>\n".to_owned();
            text += "1               master          0 [failed: 0]   0d00h00m17s     9.9\n# workers\n";
            let replaced = self.starting.map(|_| self.pid);
            text += &format!(
                "{}               worker          0               0d00h00m17s     9.9\n",
                self.starting.unwrap_or(self.pid)
            );
            if !self.old.is_empty() || replaced.is_some() {
                text += "# old workers\n";
            }
            for pid in self.old.keys().chain(&replaced) {
                text += &format!("{pid}               worker          1               0d00h00m17s     9.9\n");
            }
            return text + "\n";
        }
        let mut worker = self.current.clone();
        let answer = self.worker_answers(&mut worker, command);
        self.current = worker;
        answer
    }

    fn worker_answers(&mut self, worker: &mut Worker, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["show", "info"] => {
                let started = self.started_s.map_or(String::new(), |at| format!("Start_time_sec: {at}\n"));
                format!(
                    "Name: HAProxy\nVersion: 9.9\nPid: {}\nUptime_sec: 5\n{started}Stopping: 0\n\n",
                    self.pid
                )
            }
            ["show", "backend"] => format!("# name\n{}\n\n", worker.backends.join("\n")),
            ["show", "stat"] => self.stat(),
            ["show", "servers", "state"] => self.servers_state(),
            ["show", "map", _] => {
                worker.map.iter().map(|(key, value)| format!("0x1 {key} {value}\n")).collect::<String>()
                    + "\n"
            }
            ["get", "map", _, key] => match worker.map.iter().find(|(known, _)| known == key) {
                Some((_, value)) => format!(
                    "type=str, case=sensitive, found=yes, idx=tree, key=\"{key}\", value=\"{value}\", type=\"str\"\n\n"
                ),
                None => "type=str, case=sensitive, found=no\n\n".to_owned(),
            },
            ["set", "map", _, key, value, ..] => {
                let mut found = false;
                for entry in worker.map.iter_mut().filter(|(known, _)| known == key) {
                    (entry.1, found) = ((*value).to_owned(), true);
                }
                if found { "\n".to_owned() } else { "entry not found.\n\n".to_owned() }
            }
            ["add", "map", _, key, value] => {
                worker.map.push(((*key).to_owned(), (*value).to_owned()));
                "\n".to_owned()
            }
            [verb, "ssl", "cert", path, ..] => self.certificate_answers(verb, path),
            ["show", "table", "st_rl", "data.http_req_rate", "gt", above] => {
                let above: u64 = above.parse().unwrap();
                let rows = self.table.iter().filter(|(_, rate)| **rate > above);
                let rows = rows.map(|(key, rate)| {
                    format!("0x1: key={key} use=0 exp=59999 shard=0 http_req_rate(10000)={rate}\n")
                });
                format!("# table: st_rl, type: ip, size:10240, used:1\n{}\n", rows.collect::<String>())
            }
            ["show" | "clear", "table", ..] if words[2] != "st_rl" => "No such table\n\n".to_owned(),
            ["clear", "table", "st_rl", "key", key] => {
                self.table.remove(*key);
                "\n".to_owned()
            }
            ["shutdown", "sessions", "server", name] => {
                let (backend, server) = name.split_once('/').unwrap();
                for row in self.servers.get_mut(backend).into_iter().flatten().filter(|row| row.0 == server) {
                    row.3 = 0;
                }
                "\n".to_owned()
            }
            _ => format!("Unknown command: '{command}'\n\n"),
        }
    }

    fn certificate_answers(&mut self, verb: &str, path: &str) -> String {
        match (verb, self.pending.take()) {
            ("show", pending) => {
                self.pending = pending;
                let shown = SiteCertificate::parse(self.certificate.as_bytes()).unwrap();
                let (serial, sha1) = (&shown.facts().serial, &shown.facts().sha1);
                format!(
                    "Filename: {path}\nStatus: Used\nSerial: {serial}\nSHA1 FingerPrint: {sha1}\nIssuer: /CN=x\n\n"
                )
            }
            ("set", pending) => match SiteCertificate::parse(self.payload.as_bytes()) {
                Ok(_) => {
                    self.pending = Some(std::mem::take(&mut self.payload));
                    let verb = if pending.is_some() { "updated" } else { "created" };
                    format!("Transaction {verb} for certificate {path}!\n\n")
                }
                Err(_) => {
                    format!("unable to load certificate from file '{path}'.\nCan't load the payload\n\n")
                }
            },
            ("commit", Some(pending)) => {
                self.certificate = pending;
                format!("Committing {path}.\nSuccess!\n\n")
            }
            ("commit", None) => format!("No ongoing transaction! !\nCan't commit {path}!\n\n"),
            (_, Some(_)) => format!("Transaction aborted for certificate '{path}'!\n\n"),
            (_, None) => "No ongoing transaction!\n\n".to_owned(),
        }
    }

    fn servers_state(&self) -> String {
        let mut text = "1\n# be_id be_name srv_id srv_name srv_addr srv_admin_state srv_uweight srv_iweight srv_fqdn srv_port srvrecord\n".to_owned();
        for (backend, servers) in &self.servers {
            for (server, status, _, _) in servers {
                let name = self.names.get(&format!("{backend}/{server}")).map_or("-", String::as_str);
                let (address, admin) =
                    if status == "MAINT (resolution)" { ("-", 32) } else { ("127.0.0.1", 0) };
                text += &format!("1 {backend} 1 {server} {address} {admin} 1 1 {name} 80 -\n");
            }
        }
        text + "\n"
    }

    fn stat(&self) -> String {
        let mut text = "# pxname,svname,scur,stot,status,check_status,hrsp_5xx,req_tot,bck,\n".to_owned();
        for (backend, servers) in &self.servers {
            for (server, status, check, sessions) in servers {
                let backup = u32::from(self.backups.contains(&format!("{backend}/{server}")));
                text += &format!("{backend},{server},{sessions},0,{status},{check},0,10,{backup},\n");
            }
            let of = |counts: &BTreeMap<String, u64>| counts.get(backend).copied().unwrap_or(0);
            let sessions = servers.iter().map(|server| server.3).sum::<u64>() + of(&self.waiting);
            text += &format!("{backend},BACKEND,{sessions},{},UP,,0,10,0,\n", of(&self.begun));
        }
        text + "\n"
    }
}

fn value(map: &[(String, String)]) -> String {
    map.iter().find(|(key, _)| key == KEY).map(|(_, value)| value.clone()).unwrap_or_default()
}

/// The running fake.
#[derive(Clone)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    pub socket: PathBuf,
    pub master: PathBuf,
    /// The worker socket over TCP.
    pub tcp: SocketAddr,
    pub frontend: SocketAddr,
    pub tls: SocketAddr,
}

impl Fake {
    /// Starts it in this folder, routing by `route`.
    pub async fn start(folder: &Path, map_file: &Path, route: &str) -> Self {
        let up = |name: &str| (name.to_owned(), "UP".to_owned(), "L7OK".to_owned(), 0);
        let backends = ["be_blue", "be_green", "be_canary", "be_maint"].map(str::to_owned).to_vec();
        let servers =
            ["be_blue", "be_green", "be_canary"].map(|name| (name.to_owned(), vec![up("s1"), up("s2")]));
        let world = World {
            commands: Vec::new(),
            pid: 100,
            started_s: None,
            starting: None,
            current: Worker { map: vec![(KEY.to_owned(), route.to_owned())], backends },
            old: BTreeMap::new(),
            servers: servers.into(),
            backups: BTreeSet::new(),
            names: BTreeMap::new(),
            waiting: BTreeMap::new(),
            begun: BTreeMap::new(),
            shown_epoch: None,
            silent: false,
            map_file: map_file.to_owned(),
            certificate: String::new(),
            pending: None,
            shown_certificate: None,
            table: BTreeMap::new(),
            payload: String::new(),
            rules: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
        pointsman_chassis::tls::install_crypto();
        let commands = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            tcp: commands.local_addr().unwrap(),
            world: Arc::new(Mutex::new(world)),
            socket: folder.join("admin.sock"),
            master: folder.join("master.sock"),
            frontend: listener.local_addr().unwrap(),
            tls: secure.local_addr().unwrap(),
        };
        tokio::spawn(fake.clone().shake_hands(secure));
        for path in [&fake.socket, &fake.master] {
            tokio::spawn(fake.clone().serve(UnixListener::bind(path).unwrap()));
        }
        let over_tcp = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = commands.accept().await {
                tokio::spawn(over_tcp.clone().answer(stream));
            }
        });
        tokio::spawn(fake.clone().visit(listener));
        fake
    }

    /// Looks at it, or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap())
    }

    async fn serve(self, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().answer(stream));
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match stream.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => return,
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.ends_with(" <<\n") {
            let mut payload = Vec::new();
            while !payload.ends_with(b"\n\n") {
                match stream.read_u8().await {
                    Ok(byte) => payload.push(byte),
                    Err(_) => return,
                }
            }
            payload.pop();
            self.with(|world| world.payload = String::from_utf8(payload).unwrap());
        }
        for command in line.trim_end_matches('\n').split([';', '\n']).map(str::trim).filter(|c| *c != "quit")
        {
            let (usual, scripted) = self.with(|world| world.take(command));
            let gone = usual.starts_with("Can't find");
            match scripted {
                None => drop(stream.write_all(usual.as_bytes()).await),
                Some(Answer::Bytes(bytes)) => drop(stream.write_all(&bytes).await),
                Some(Answer::HeldOpen(bytes)) => {
                    let _ = stream.write_all(&bytes).await;
                    hold(stream).await;
                    return;
                }
                Some(Answer::OneByOne) => {
                    for byte in usual.as_bytes() {
                        let _ = stream.write_all(&[*byte]).await;
                        let _ = stream.flush().await;
                        tokio::task::yield_now().await;
                    }
                }
                Some(Answer::Flood(bytes)) => {
                    let chunk = vec![b'x'; 1 << 16];
                    for _ in 0..bytes >> 16 {
                        if stream.write_all(&chunk).await.is_err() {
                            return;
                        }
                    }
                }
            }
            // As HAProxy from 2.8 on does for a worker that has gone.
            if gone {
                hold(stream).await;
                return;
            }
        }
    }

    /// Shakes hands with whoever comes, with the certificate that is shown just then.
    async fn shake_hands(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let pem = self.with(|world| world.shown_certificate.clone().unwrap_or(world.certificate.clone()));
            let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
            tokio::spawn(async move {
                let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
            });
        }
    }

    async fn visit(self, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let fake = self.clone();
            tokio::spawn(async move {
                let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match stream.read(&mut chunk).await {
                        Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                }
                if fake.with(|world| world.silent) {
                    return hold(stream).await;
                }
                let epoch = fake.with(|world| {
                    let routed = world.route().rsplit(':').next().unwrap_or_default().to_owned();
                    world.shown_epoch.map_or(routed, |epoch| epoch.to_string())
                });
                // A large page, of which only the beginning comes: nobody who looks at the route waits for it.
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nX-Pointsman: epoch={epoch} side=stable\r\nContent-Length: 4000000\r\nConnection: close\r\n\r\n<html>"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    }
}

/// Until the other side closes.
async fn hold<S: AsyncRead + Unpin>(mut stream: S) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}
