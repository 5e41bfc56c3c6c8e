//! A real HAProxy in master-worker mode, with the routing of the example configuration.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use pointsman_core::Code;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::haproxy::{Process, is_installed, server};
use crate::rig::{Agent, P, Setup, V, route};

pub struct Haproxy {
    process: Process,
    pub agent: Agent,
    pub frontend: SocketAddr,
    pub folder: TempDir,
}

/// A configuration whose access lines nobody takes in.
pub fn configuration(folder: &Path, frontend: SocketAddr) -> String {
    logged(folder, frontend, SocketAddr::from(([127, 0, 0, 1], 9)))
}

/// The same, taken in at `lines`.
pub fn logged(folder: &Path, frontend: SocketAddr, lines: SocketAddr) -> String {
    let slot = |name: &str| {
        format!(
            "backend be_{name}\n  option httpchk\n  server s1 {} check inter 100ms fall 2 rise 1\n",
            server()
        )
    };
    format!(
        r#"global
  stats socket {0}/admin.sock mode 600 level admin expose-fd listeners
  hard-stop-after 20s
ring pointsman
  format raw
  maxlen 1024
  size 4000000
  timeout connect 2s
  timeout server 5s
  server agent {lines} log-proto legacy
defaults
  mode http
  log ring@pointsman format raw local0
  log-format "pm1 be=%b sv=%s st=%ST tsc=%tsc ta=%Ta tw=%Tw tc=%Tc tr=%Tr by=%B epoch=%[var(txn.epoch)] side=%[var(txn.side)] class=%[var(txn.class)] rc=%rc vid=%[var(txn.key),xxh32]"
  option idle-close-on-response
  option abortonclose
  timeout connect 2s
  timeout client 20s
  timeout server 10s
  timeout http-keep-alive 20s
frontend fe
  bind {frontend}
  http-request set-var(txn.route)  str(route),map({0}/route.map,be_maint:be_maint:0:0)
  http-request set-var(txn.stable) var(txn.route),field(1,:)
  http-request set-var(txn.canary) var(txn.route),field(2,:)
  http-request set-var(txn.epoch)  var(txn.route),field(4,:)
  http-request set-var(txn.side)   str(stable)
  http-request set-var(txn.side)   str(canary) if {{ req.hdr(X-Pointsman) -m str canary }}
  http-request set-var(txn.class)  str(other)
  http-request set-var(txn.class)  str(api) if {{ path_beg /api/ }}
  http-request set-var(txn.class)  str(check) if {{ req.hdr(X-Pointsman) -m found }}
  http-request deny if {{ path /denied }}
  http-after-response set-header X-Pointsman "epoch=%[var(txn.epoch)] side=%[var(txn.side)] be=%[be_name]" if {{ var(txn.epoch) -m found }}
  use_backend %[var(txn.canary)] if {{ var(txn.side) -m str canary }}
  use_backend %[var(txn.stable)]
  default_backend be_maint
{1}{2}backend be_maint
  http-request return status 503 content-type text/plain string maintenance
"#,
        folder.display(),
        slot("blue"),
        slot("green"),
    )
}

impl Haproxy {
    /// Starts it at `P`, with healthy servers; without an installed HAProxy says so.
    pub async fn start() -> Option<Self> {
        Self::start_with(|_| (String::new(), String::new())).await
    }

    /// With more sections in its configuration, and more lines in the agent's. Both may depend on its folder.
    pub async fn start_with(more: impl FnOnce(&Path) -> (String, String)) -> Option<Self> {
        Self::start_as("", more).await
    }

    /// The same, with more words in the line of the command socket.
    pub async fn start_as(words: &str, more: impl FnOnce(&Path) -> (String, String)) -> Option<Self> {
        let lines = crate::net::free();
        let for_agent = std::cell::OnceCell::new();
        let started = Self::begin(
            |folder, frontend| {
                let (sections, more) = more(folder);
                for_agent.set(more).unwrap();
                logged(folder, frontend, lines).replace("level admin", &format!("level admin {words}"))
                    + &sections
            },
            |folder, frontend| {
                Agent::start(&Setup {
                    signals: Some(lines),
                    more: for_agent.get().cloned().unwrap(),
                    ..Setup::beside(folder, frontend)
                })
            },
        )?;
        started.healthy().await;
        Some(started)
    }

    /// Starts it with this configuration, and this agent beside it. A map `route.map` at `P` lies in its folder. Where it finds a
    /// folder `conf.d` there it reads that, too.
    pub fn begin(
        configuration: impl FnOnce(&Path, SocketAddr) -> String,
        agent: impl FnOnce(&Path, SocketAddr) -> Agent,
    ) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let frontend = crate::net::free();
        let text = configuration(folder.path(), frontend);
        std::fs::write(folder.path().join("haproxy.cfg"), text).unwrap();
        std::fs::write(folder.path().join("route.map"), format!("route {P}\n")).unwrap();
        let (config, conf_d) = (folder.path().join("haproxy.cfg"), folder.path().join("conf.d"));
        let files = [config.as_path(), conf_d.as_path()];
        let process = Process::start(folder.path(), &files[..1 + usize::from(conf_d.is_dir())]);
        let agent = agent(folder.path(), frontend);
        Some(Self { process, agent, frontend, folder })
    }

    pub async fn healthy(&self) {
        self.until("both slots are healthy", async |haproxy| {
            let described = haproxy.agent.describe().await.balancer.unwrap_or_default();
            described.backends.iter().filter(|backend| backend.servers_up > 0).count() == 2
        })
        .await;
    }

    pub async fn until(&self, what: &str, look: impl AsyncFn(&Self) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(15);
        while !look(self).await {
            let log = std::fs::read_to_string(self.folder.path().join("haproxy.log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "waited in vain: {what}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn ask(&self, socket: &str, command: &str) -> String {
        let path = self.folder.path().join(socket);
        let give_up = Instant::now() + Duration::from_secs(15);
        // While the master begins anew it lets nobody in.
        let mut stream = loop {
            match tokio::net::UnixStream::connect(&path).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < give_up, "{}: {error}", path.display()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Asks the master anything: while it begins anew it lets nobody in, or drops whom it has let in.
    async fn master_answers(&self) -> std::io::Result<()> {
        let mut stream = tokio::net::UnixStream::connect(self.folder.path().join("master.sock")).await?;
        stream.write_all(b"show proc;quit\n").await?;
        match stream.read_to_string(&mut String::new()).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub async fn admin(&self, command: &str) -> String {
        self.ask(
            "admin.sock",
            &command.replace("MAP", &self.folder.path().join("route.map").display().to_string()),
        )
        .await
    }

    pub async fn pid(&self) -> String {
        let info = self.admin("show info").await;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).unwrap_or_default().to_owned()
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub async fn reload(&self) {
        self.replaced().await;
        self.healthy().await;
    }

    /// The same, and the agent has not looked yet.
    pub async fn replaced(&self) {
        let before = self.pid().await;
        self.signal("-USR2");
        self.until("a new worker", async |haproxy| {
            let socket =
                tokio::net::UnixStream::connect(haproxy.folder.path().join("admin.sock")).await.is_ok();
            socket && haproxy.pid().await != before
        })
        .await;
    }
}

/// Asks on a connection that stays open; returns the epoch that the answer carries.
fn epoch(connection: &mut TcpStream) -> String {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n").unwrap();
    let (mut answer, mut chunk) = (String::new(), [0; 4096]);
    while !answer.ends_with("ok") {
        let count = connection.read(&mut chunk).unwrap();
        assert!(count > 0, "closed after {answer:?}");
        answer += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    let epoch = answer.split("epoch=").nth(1).and_then(|rest| rest.split(' ').next());
    epoch.unwrap_or_else(|| panic!("no epoch in {answer:?}")).to_owned()
}

#[tokio::test]
async fn there_and_back_with_a_reload_and_an_idle_client() {
    let Some(haproxy) = Haproxy::start().await else { return };
    haproxy.agent.inspect(P).await.unwrap();
    let mut idle = TcpStream::connect(haproxy.frontend).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(epoch(&mut idle), "5");
    haproxy.reload().await;
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(!done.already && done.detail.contains("1 old worker follows"), "{done:?}");
    assert_eq!(epoch(&mut idle), "6", "the idle client of the old worker");
    assert_eq!(haproxy.agent.on_disk(), Some(route(V)));
    assert!(haproxy.agent.set_route(P, V).await.unwrap().already);
    // The old route comes back as a new one, and a reload keeps it.
    let back = "be_blue:be_blue:0:7";
    haproxy.agent.set_route(V, back).await.unwrap();
    haproxy.reload().await;
    haproxy.agent.inspect(back).await.unwrap();
    assert_eq!(haproxy.agent.describe().await.balancer.unwrap().route, back);
}

/// A site that is reloaded every hour and has visitors with WebSockets has dozens of old workers, and one master through which
/// all of them are reached.
#[tokio::test]
async fn dozens_of_old_workers_follow_at_once() {
    const RELOADS: usize = 30;
    let Some(haproxy) = Haproxy::start().await else { return };
    let mut idle = Vec::new();
    for _ in 0..RELOADS {
        let mut client = TcpStream::connect(haproxy.frontend).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(epoch(&mut client), "5");
        idle.push(client);
        // A master that has not come back from the last reload hears no signal.
        haproxy.until("the master is back", async |haproxy| haproxy.master_answers().await.is_ok()).await;
        haproxy.replaced().await;
    }
    haproxy.healthy().await;
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains(&format!("{RELOADS} old workers follow")), "{done:?}");
    assert_eq!(done.unreached, None);
    let described = haproxy.agent.describe().await.balancer.unwrap();
    assert_eq!(described.stale_workers, [""; 0]);
    for client in &mut idle {
        assert_eq!(epoch(client), "6", "a client of an old worker");
    }
}

#[tokio::test]
async fn a_map_that_a_person_changed() {
    let Some(haproxy) = Haproxy::start().await else { return };
    haproxy.admin("add map MAP route be_green:be_green:0:9").await;
    let twice = haproxy.agent.inspect(P).await.unwrap_err();
    assert!(twice.code == Code::RouteDrift && twice.message.contains("2 times"), "{twice:?}");
    haproxy.admin("del map MAP route").await;
    haproxy.admin("del map MAP route").await;
    assert_eq!(haproxy.agent.inspect(P).await.unwrap_err().code, Code::RouteDrift);
    // Everybody gets the maintenance page: whoever is led somewhere now is led there by an entry that is new.
    haproxy.agent.set_route(P, V).await.unwrap();
    haproxy.agent.inspect(V).await.unwrap();
    haproxy.admin("set map MAP route be_green:be_green:0:9").await;
    let back = "be_blue:be_blue:0:7";
    let drift = haproxy.agent.set_route(V, back).await.unwrap_err();
    assert_eq!(drift.code, Code::RouteDrift, "{drift:?}");
}

/// A backup server answers for a slot that has nobody left: the release on it serves nobody, whatever it says.
#[tokio::test]
async fn a_backup_server_is_no_server_of_the_slot() {
    let (sorry, lines) = (server(), crate::net::free());
    let line = format!("backend be_green\n  server sorry {sorry} check inter 100ms fall 2 rise 1 backup\n");
    let started = Haproxy::begin(
        |folder, frontend| logged(folder, frontend, lines).replace("backend be_green\n", &line),
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    );
    let Some(haproxy) = started else { return };
    haproxy.healthy().await;
    let of_green = async || {
        let described = haproxy.agent.describe().await.balancer.unwrap();
        let green = described.backends.into_iter().find(|backend| backend.name == "be_green").unwrap();
        (green.servers_up, green.servers_total)
    };
    assert_eq!(of_green().await, (1, 1));
    haproxy.admin("set server be_green/s1 state maint").await;
    haproxy
        .until("the backup server takes its place", async |haproxy| {
            haproxy
                .admin("show stat")
                .await
                .lines()
                .any(|row| row.starts_with("be_green,sorry,") && row.contains(",UP,") && row.contains("L7OK"))
        })
        .await;
    assert_eq!(of_green().await, (0, 1));
    let refused = haproxy.agent.set_route(P, V).await.unwrap_err();
    assert_eq!(refused.code, Code::BackendUnhealthy, "{refused:?}");
    assert!(
        refused.causes.iter().any(|cause| cause.contains("a `backup`, which counts for none")),
        "{refused:?}"
    );
    haproxy.admin("set server be_green/s1 state ready").await;
    haproxy.until("green is well again", async |_| of_green().await == (1, 1)).await;
    haproxy.agent.set_route(P, V).await.unwrap();
}

#[tokio::test]
async fn servers_that_cannot_take_visitors() {
    let Some(haproxy) = Haproxy::start().await else { return };
    for state in ["drain", "maint"] {
        haproxy.admin(&format!("set server be_green/s1 state {state}")).await;
        let refused = haproxy.agent.set_route(P, V).await.unwrap_err();
        assert_eq!(refused.code, Code::BackendUnhealthy, "{state}: {refused:?}");
        assert_eq!(haproxy.agent.on_disk(), Some(route(P)));
        haproxy.admin("set server be_green/s1 state ready").await;
    }
    haproxy
        .until("green is healthy again", async |haproxy| haproxy.agent.set_route(P, V).await.is_ok())
        .await;
    assert_eq!(haproxy.agent.on_disk(), Some(route(V)));
}

/// Old workers come and go while they are asked: one that goes in between is no fault of the load balancer.
#[tokio::test]
async fn status_can_be_read_while_workers_come_and_go() {
    let Some(haproxy) = Haproxy::start().await else { return };
    let mut wrong = Vec::new();
    for _ in 0..4 {
        let idle = TcpStream::connect(haproxy.frontend).unwrap();
        let before = haproxy.pid().await;
        haproxy.signal("-USR2");
        let until = Instant::now() + Duration::from_millis(400);
        let mut idle = Some(idle);
        while Instant::now() < until {
            let described = haproxy.agent.describe().await;
            // A socket that refuses while HAProxy starts anew is said to be so, and passes by itself.
            let problem = described.problem.filter(|problem| problem.code != "PM0101");
            wrong.extend(problem.map(|problem| format!("{}: {}", problem.code, problem.message)));
            // The old worker ends with its last client.
            drop(idle.take());
        }
        haproxy.until("a new worker", async |haproxy| haproxy.pid().await != before).await;
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A master has room for some tens of clients: that there are more old workers than this leaves none of them out, whether
/// visitors are led somewhere or somebody only looks.
#[tokio::test]
async fn every_old_worker_is_told_however_many_there_are() {
    const OLD: usize = 30;
    let started = Haproxy::begin(
        |folder, frontend| {
            configuration(folder, frontend)
                .replace("hard-stop-after 20s", "hard-stop-after 300s")
                .replace("timeout client 20s", "timeout client 300s")
                .replace("timeout http-keep-alive 20s", "timeout http-keep-alive 300s")
        },
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    );
    let Some(haproxy) = started else { return };
    haproxy.healthy().await;
    let mut idle = Vec::new();
    for _ in 0..OLD {
        let mut client = TcpStream::connect(haproxy.frontend).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(epoch(&mut client), "5");
        idle.push(client);
        // A master that has just begun anew hears no signal before it answers.
        haproxy.ask("master.sock", "show proc;quit").await;
        haproxy.replaced().await;
    }
    haproxy.healthy().await;
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains(&format!("{OLD} old workers follow")), "{done:?}");
    for client in &mut idle {
        assert_eq!(epoch(client), "6", "an idle client of an old worker");
    }
    // Back, while many look.
    let looking = futures_util::future::join_all((0..50).map(|_| haproxy.agent.describe()));
    let back = "be_blue:be_blue:0:7";
    let (described, done) = tokio::join!(looking, haproxy.agent.set_route(V, back));
    assert_eq!(done.unwrap().unreached, None);
    let unread: Vec<_> = described.iter().filter_map(|status| status.problem.as_ref()).collect();
    assert!(unread.is_empty(), "{unread:?}");
    let facts = haproxy.agent.describe().await.balancer.unwrap();
    assert!(facts.route == back && facts.stale_workers.is_empty(), "{:?}", facts.stale_workers);
}
