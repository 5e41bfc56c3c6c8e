//! A real HAProxy in master-worker mode, in the foreground, with the routing that `config-snippet` prints: one map
//! lookup per request decides, a visitor keeps a side, and access lines go to the lb-agent. Plain HTTP, no rate limit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, Process};
use crate::runtime_socket;

/// Longest time for a reload.
const LONGEST_RELOAD: Duration = Duration::from_secs(10);
/// Longest time for the rest of it to end when a part was killed.
const LONGEST_END: Duration = Duration::from_secs(10);

/// What an HAProxy is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its folder: configuration, page and sockets.
    pub folder: PathBuf,
    /// The map file, in the lb-agent's state directory.
    pub map: PathBuf,
    /// Where visitors come in.
    pub frontend: SocketAddr,
    /// Where it listens, too.
    pub also: Option<SocketAddr>,
    /// The words before its command, where it runs in a network of its own.
    pub inside: Vec<String>,
    /// The web servers behind it.
    pub blue: SocketAddr,
    /// See `blue`.
    pub green: SocketAddr,
    /// Where access lines go: the lb-agent, if it listens there.
    pub lines: SocketAddr,
    /// Requests can be held.
    pub holds: bool,
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    layout: Layout,
    log: PathBuf,
    process: Process,
}

impl Layout {
    /// The worker socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// The master socket.
    pub fn master(&self) -> PathBuf {
        self.folder.join("master.sock")
    }

    fn slot(name: &str, server: SocketAddr) -> String {
        format!(
            "backend be_{name}
  option httpchk
  http-check send meth GET uri /api/health ver HTTP/1.1 hdr Host www.example.org
  http-check expect status 200
  server s1 {server} check inter 200ms fall 2 rise 2
"
        )
    }

    /// The configuration. `trusted` are the addresses that may choose a side; visitors share them here, and are told
    /// apart by never sending `X-Pointsman`.
    fn config(&self) -> String {
        let (map, socket) = (self.map.display(), self.socket());
        let page = self.folder.join("maintenance.html");
        let (socket, page, frontend, lines) = (socket.display(), page.display(), self.frontend, self.lines);
        let (blue, green) = (Self::slot("blue", self.blue), Self::slot("green", self.green));
        let also = self.also.map_or_else(String::new, |address| format!("  bind {address}\n"));
        let (load, hold, held) = if self.holds { self.hold() } else { Default::default() };
        format!(
            r#"global
  maxconn 1000
  stats socket {socket} mode 600 level admin expose-fd listeners
  stats timeout 30s
  stats maxconn 100
  hard-stop-after 20s
{load}ring pointsman
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
  option redispatch
  option forwardfor
  retries 3
  timeout connect 2s
  timeout check 2s
  timeout client 10s
  timeout server 10s
  timeout http-request 10s
  timeout http-keep-alive 10s
  timeout queue 5s
  timeout tunnel 1m
frontend fe
  bind {frontend}
{also}  acl trusted src 127.0.0.0/8
{hold}  http-request set-var(txn.route)  str(route),map({map},be_maint:be_maint:0:0)
  http-request set-var(txn.stable) var(txn.route),field(1,:)
  http-request set-var(txn.canary) var(txn.route),field(2,:)
  http-request set-var(txn.pct)    var(txn.route),field(3,:)
  http-request set-var(txn.epoch)  var(txn.route),field(4,:)
  acl pm_known req.cook(pm_id) -m found
  acl pm_page  req.hdr(Accept) -m sub text/html
  http-request set-var(txn.key)    src
  http-request set-var(txn.newid)  uuid() if pm_page !pm_known
  http-request set-var(txn.key)    var(txn.newid) if {{ var(txn.newid) -m found }}
  http-request set-var(txn.key)    req.cook(pm_id) if pm_known
  http-request set-var(txn.salt)   var(txn.epoch),div(16)
  http-request set-var(txn.bkt)    var(txn.key),concat(-,txn.salt),xxh32,mod(100)
  http-request set-var(txn.side)   str(stable)
  http-request set-var(txn.side)   str(canary) if {{ var(txn.bkt),sub(txn.pct) lt 0 }}
  http-request set-var(txn.side)   str(canary) if trusted {{ req.hdr(X-Pointsman) -m str canary }}
  http-request set-var(txn.side)   str(stable) if trusted {{ req.hdr(X-Pointsman) -m str stable }}
  http-request set-var(txn.class)  str(other)
  http-request set-var(txn.class)  str(api) if {{ path_beg /api/ }}
  http-request set-var(txn.class)  str(ows) if {{ path_beg -i /wfs /wms }}
  http-request set-var(txn.class)  str(check) if trusted {{ req.hdr(X-Pointsman) -m found }}
  http-request del-header X-Pointsman
  http-after-response add-header Set-Cookie "pm_id=%[var(txn.newid)]; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax" if {{ var(txn.newid) -m found }}
  http-after-response del-header X-Pointsman
  http-after-response set-header X-Pointsman "epoch=%[var(txn.epoch)] side=%[var(txn.side)] be=%[be_name]" if {{ var(txn.epoch) -m found }}
  use_backend %[var(txn.canary)] if {{ var(txn.side) -m str canary }}
  use_backend %[var(txn.stable)]
  default_backend be_maint
{blue}{green}backend be_maint
  http-request return status 503 content-type "text/html; charset=utf-8" file {page} hdr Retry-After 120 hdr Cache-Control no-store
{held}"#
        )
    }

    /// What holds requests: a line of `global`, one of the frontend, and a backend.
    fn hold(&self) -> (String, String, String) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/pointsman-hold.lua");
        (
            format!(
                "  setenv POINTSMAN_HOLD \"{} route be_hold 5000\"\n  lua-load {script}\n",
                self.map.display()
            ),
            "  http-request lua.pointsman_hold unless trusted { req.hdr(X-Pointsman) -m found }\n".to_owned(),
            "backend be_hold\n  http-request return status 503 content-type text/plain string held hdr Retry-After 5\n"
                .to_owned(),
        )
    }
}

fn spawn(layout: &Layout, log: &Path) -> Result<Process> {
    let mut command = process::command(&layout.inside, "haproxy");
    command.args(["-W", "-f"]).arg(layout.folder.join("haproxy.cfg")).arg("-S").arg(layout.master());
    Process::start("haproxy", &mut command, log).context("is haproxy installed?")
}

impl Haproxy {
    /// Writes the configuration and starts. The map file must be there.
    pub fn start(layout: Layout, log: &Path) -> Result<Self> {
        std::fs::create_dir_all(&layout.folder)?;
        std::fs::write(layout.folder.join("maintenance.html"), "<h1>maintenance of the site</h1>\n")?;
        std::fs::write(layout.folder.join("haproxy.cfg"), layout.config())?;
        let process = spawn(&layout, log)?;
        Ok(Self { layout, log: log.to_owned(), process })
    }

    /// Starts it again after it was killed.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.layout, &self.log)?;
        Ok(())
    }

    /// Kills its master, and waits until the workers have gone with it.
    pub async fn kill_master(&mut self) -> Result<()> {
        let workers = self.workers().await?;
        self.process.kill()?;
        for worker in workers {
            self.gone(worker).await?;
        }
        Ok(())
    }

    /// Kills the worker that takes new connections, and waits until the master has ended because of it.
    pub async fn kill_worker(&mut self) -> Result<()> {
        let worker: i32 = self.worker().await.context("no worker answers")?.parse()?;
        let pid = Pid::from_raw(worker).context("a worker without a process id")?;
        kill_process(pid, Signal::KILL).context("cannot kill the worker")?;
        let ends = crate::until("HAProxy ends with its worker", LONGEST_END, || {
            let ended = self.process.ended().map(drop);
            async move { ended }
        });
        ends.await
    }

    /// Kills the one worker that a reload has left with its connections, and waits until it has gone. The master goes on.
    pub async fn kill_old_worker(&self) -> Result<()> {
        let old = crate::until("a worker of before the reload", LONGEST_RELOAD, || async {
            let current: u32 = self.worker().await?.parse().ok()?;
            // Refused while the master starts anew.
            let listed = self.workers().await.ok()?;
            let mut others = listed.iter().filter(|worker| **worker != current);
            listed.contains(&current).then(|| others.next().copied()).flatten()
        });
        let old = old.await?;
        let pid = Pid::from_raw(i32::try_from(old)?).context("a worker without a process id")?;
        kill_process(pid, Signal::KILL).context("cannot kill the old worker")?;
        self.gone(old).await
    }

    async fn gone(&self, worker: u32) -> Result<()> {
        crate::until("a worker ends with its master", LONGEST_END, || async move {
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat"));
            // Nobody may be there to take leave of an orphan: then it stays as a zombie.
            stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
        })
        .await
    }

    /// The process ids of all workers, old ones included.
    pub async fn workers(&self) -> Result<Vec<u32>> {
        let listed = runtime_socket::ask(&self.layout.master(), "show proc;quit").await?;
        let columns = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let pids = columns.filter(|columns| columns.get(1) == Some(&"worker"));
        pids.map(|columns| Ok(columns.first().context("no process id")?.parse()?)).collect()
    }

    /// The route in every worker, old ones included. One that has gone meanwhile has none.
    pub async fn routes(&self) -> Result<BTreeMap<u32, String>> {
        let mut routes = BTreeMap::new();
        for worker in self.workers().await? {
            let command = format!("@!{worker} show map {};quit", self.layout.map.display());
            let map = runtime_socket::ask(&self.layout.master(), &command).await?;
            if let Some(route) = map.lines().find_map(|line| line.split_once(" route ")) {
                routes.insert(worker, route.1.trim().to_owned());
            }
        }
        Ok(routes)
    }

    /// Where it stands.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Fails if it does not run.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }

    /// Asks the worker that takes new connections.
    pub async fn ask(&self, command: &str) -> Result<String> {
        runtime_socket::ask(&self.layout.socket(), command).await
    }

    /// The process id of the worker that takes new connections.
    pub async fn worker(&self) -> Option<String> {
        let info = self.ask("show info").await.ok()?;
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).map(str::to_owned)
    }

    /// The status of the one server of a backend, as `UP`; `None` when it cannot be asked.
    pub async fn server(&self, backend: &str) -> Option<String> {
        let rows = self.ask("show stat").await.ok()?;
        let row = rows.lines().find(|row| row.starts_with(&format!("{backend},s1,")))?;
        row.split(',').nth(17).map(str::to_owned)
    }

    /// The route in the worker that takes new connections.
    pub async fn route(&self) -> Result<String> {
        let map = self.ask(&format!("show map {}", self.layout.map.display())).await?;
        Ok(map.split_whitespace().nth(2).unwrap_or("").to_owned())
    }

    /// Has the master start a new worker with the configuration on disk. While it is still busy with an earlier
    /// reload it does not hear signals: it is asked something first.
    pub async fn reload(&mut self) -> Result<()> {
        let master = self.layout.master();
        crate::until("HAProxy's master answers", LONGEST_RELOAD, || async {
            runtime_socket::ask(&master, "show proc;quit").await.ok()
        })
        .await?;
        self.process.signal(Signal::USR2)
    }
}
