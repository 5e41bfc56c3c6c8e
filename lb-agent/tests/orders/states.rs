//! The driver `server-state` with a real HAProxy whose frontend looks nothing up: one backend, the servers of both slots
//! in it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use pointsman_core::{
    Action, Aftermath, Check, CheckFrom, CheckSpec, Code, DrainEnd, Evidence, Problem, RouteEpoch,
};
use pointsman_lb_agent::{Config, Driver};
use pointsman_proto::convert;

use crate::real::Haproxy;
use crate::rig::{Agent, P, V, route};

/// A server that names itself, and can be told to be dead.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    dead: Arc<AtomicBool>,
}

fn server(name: &'static str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, dead) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let state = Arc::clone(&dead);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let dead = Arc::clone(&state);
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while stream.read(&mut chunk).is_ok_and(|count| count > 0) {
                    let status = if dead.load(Ordering::SeqCst) { "500 X" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server { address, dead }
}

/// One request on a connection of its own: the status and who answered.
fn visit(frontend: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(frontend).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.to_owned();
    Some((status, answer.rsplit("\r\n").next()?.to_owned()))
}

struct Site {
    haproxy: Haproxy,
    green: Server,
}

/// The lines that send access lines to the agent, as docs/signals.md has them.
const LOG: &str = "  log ring@pointsman format raw local0\n  log-format \"pm1 be=%b sv=%s st=%ST tsc=%tsc ta=%Ta tw=%Tw tc=%Tc tr=%Tr by=%B epoch=%[var(txn.epoch)] side=%[var(txn.side)] class=%[var(txn.class)] rc=%rc vid=%[var(txn.key),xxh32]\"\n";

impl Site {
    /// A site at `P`: HAProxy has just been started, so it is the guard that drains green.
    async fn start(balance: &str, more: &str) -> Option<Self> {
        Self::start_with(balance, more, "").await
    }

    /// With one server more in the same backend, and lines of its own.
    async fn start_with(balance: &str, more: &str, server_too: &str) -> Option<Self> {
        let lines = crate::net::free();
        let (blue, green, page) = (server("blue"), server("green"), server("page"));
        let servers = format!(
            "  server blue1 {} check inter 100ms fall 2 rise 2\n  server green1 {} check inter 100ms fall 2 rise 2\n  server page {} check inter 100ms\n",
            blue.address, green.address, page.address
        );
        let with_page = more.contains("be_maint");
        let servers = if with_page {
            servers
        } else {
            servers.lines().take(2).map(|line| format!("{line}\n")).collect()
        } + server_too;
        let haproxy = Haproxy::begin(
            |folder, frontend| {
                format!(
                    "global\n  stats socket {}/admin.sock mode 600 level admin expose-fd listeners\n  hard-stop-after 20s\ndefaults\n  mode http\n  option idle-close-on-response\n  timeout connect 2s\n  timeout client 20s\n  timeout server 10s\n  timeout http-keep-alive 20s\n{LOG}ring pointsman\n  format raw\n  maxlen 1024\n  size 4000000\n  timeout connect 2s\n  timeout server 5s\n  server agent {lines} log-proto legacy\nfrontend fe\n  bind {frontend}\n  http-request set-var(txn.class) str(check) if {{ req.hdr(X-Pointsman) -m found }}\n  default_backend be_app\nbackend be_app\n  balance {balance}\n  option httpchk\n{servers}",
                    folder.display()
                )
            },
            |folder, frontend| agent(folder, frontend, more, lines),
        )?;
        let site = Self { haproxy, green };
        site.guarded(P).await;
        Some(site)
    }

    /// Has the guard look until this route stands.
    async fn guarded(&self, wanted: &str) {
        let hands = self.haproxy.agent.hands.clone();
        let guard = tokio::spawn(async move { hands.guard_route().await });
        self.haproxy
            .until(&format!("`{wanted}` stands and every server is seen"), async |haproxy| {
                let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
                let settled =
                    std::fs::read_to_string(haproxy.agent.state.join("settled-worker")).unwrap_or_default();
                let up = found.backends.iter().all(|backend| backend.servers_up > 0);
                found.route == wanted
                    && up
                    && settled.split_whitespace().next() == Some(haproxy.pid().await.as_str())
            })
            .await;
        guard.abort();
    }

    async fn switch(&self, from: &str, to: &str) -> Result<Evidence, Problem> {
        self.haproxy.agent.set_route(from, to).await
    }

    /// Admin state and weight of each server, as HAProxy has them.
    async fn states(&self) -> Vec<(String, u32, String)> {
        let reply = self.haproxy.admin("show servers state").await;
        let rows = reply.lines().filter(|line| line.contains(" be_app "));
        let fields = rows.map(|row| row.split(' ').map(str::to_owned).collect::<Vec<_>>());
        fields.map(|row| (row[3].clone(), row[6].parse().unwrap(), row[7].clone())).collect()
    }

    fn who(&self) -> String {
        visit(self.haproxy.frontend).unwrap().1
    }

    async fn observe(&self, action: Action) -> Result<Evidence, Problem> {
        self.haproxy.agent.observe(convert::action_to_wire(&action)).await
    }
}

fn agent(folder: &Path, frontend: SocketAddr, more: &str, lines: SocketAddr) -> Agent {
    let text = format!(
        r#"listen = "127.0.0.1:1"
state = "{0}/state"
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
driver = "server-state"
socket = "{0}/admin.sock"
master = "{0}/master.sock"
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
[haproxy.servers]
be_blue = ["be_app/blue1"]
be_green = ["be_app/green1"]
{more}
[frontend]
address = "{frontend}"
host = "www.example.org"
[signals]
listen = "{lines}"
"#,
        folder.display()
    );
    let config: Config = pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap();
    std::fs::create_dir(&config.state).unwrap();
    let map = config.state.join("route.map");
    std::fs::write(&map, format!("route {P}\n")).unwrap();
    Agent::of(config, map)
}

fn inspect(expected: &str) -> Action {
    inspect_as(expected, false)
}

fn inspect_as(expected: &str, leaving: bool) -> Action {
    let backends = ["be_blue", "be_green"].map(|name| name.parse().unwrap()).to_vec();
    Action::InspectBalancer { expected: route(expected), backends, leaving }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_switches_there_and_back_lose_no_request() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let over = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let frontend = site.haproxy.frontend;
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (over, asked, failed) = (Arc::clone(&over), Arc::clone(&asked), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let answered = visit(frontend).is_some_and(|(status, _)| status == "200");
                    asked.fetch_add(1, Ordering::SeqCst);
                    failed.fetch_add(u64::from(!answered), Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        })
        .collect();
    let mut standing = P.to_owned();
    for turn in 0..200u64 {
        let (to, from) = if turn % 2 == 0 { ("green", "blue") } else { ("blue", "green") };
        let wanted = format!("be_{to}:be_{from}:0:{}", 6 + turn);
        site.switch(&standing, &wanted).await.unwrap();
        // Who asks after the answer is served by the new slot, and by it alone.
        assert_eq!(site.who(), to, "{wanted}");
        standing = wanted;
    }
    over.store(true, Ordering::SeqCst);
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    let (asked, failed) = (asked.load(Ordering::SeqCst), failed.load(Ordering::SeqCst));
    println!("{asked} requests in 200 switches, {failed} failed");
    assert!(asked > 200, "too few to say anything: {asked}");
    assert_eq!(failed, 0, "of {asked}");
    site.observe(inspect(&standing)).await.unwrap();
}

#[tokio::test]
async fn a_slot_that_is_dead_or_unproved_gets_nobody() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    site.green.dead.store(true, Ordering::SeqCst);
    site.haproxy
        .until("green is seen to be dead", async |haproxy| {
            let found = haproxy.agent.describe().await.balancer.unwrap_or_default();
            found.backends.iter().any(|backend| backend.name == "be_green" && backend.servers_up == 0)
        })
        .await;
    let before = site.states().await;
    let refused = site.switch(P, V).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.aftermath),
        (Code::BackendUnhealthy, Aftermath::Unchanged),
        "{refused:?}"
    );
    assert_eq!((site.states().await, site.who()), (before, "blue".to_owned()));
    assert_eq!(site.haproxy.agent.on_disk(), Some(route(P)));
    // In maintenance it would count as up at once when made ready: the agent leaves it alone.
    site.green.dead.store(false, Ordering::SeqCst);
    site.haproxy.admin("set server be_app/green1 state maint").await;
    let refused = site.switch(P, V).await.unwrap_err();
    assert_eq!(refused.code, Code::BackendUnhealthy, "{refused:?}");
    assert_eq!(site.who(), "blue");
}

#[tokio::test]
async fn a_reload_opens_every_server_and_the_guard_closes_them() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    site.switch(P, V).await.unwrap();
    let mut idle = TcpStream::connect(site.haproxy.frontend).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    let before = site.haproxy.pid().await;
    site.haproxy.signal("-USR2");
    site.haproxy
        .until("a new worker", async |haproxy| {
            let there =
                tokio::net::UnixStream::connect(haproxy.folder.path().join("admin.sock")).await.is_ok();
            there && haproxy.pid().await != before
        })
        .await;
    assert!(site.states().await.iter().all(|(_, admin, _)| *admin == 0), "a reload forgets states");
    assert_eq!(site.switch(V, "be_blue:be_green:0:7").await.unwrap_err().code, Code::RouteDrift);
    site.guarded(V).await;
    assert_eq!(site.who(), "green");
    // An old worker refuses such commands: it is named.
    let done = site.switch(V, "be_blue:be_green:0:7").await.unwrap();
    assert!(done.detail.contains("keep the old route until they end"), "{done:?}");
}

#[tokio::test]
async fn what_a_person_drained_is_left_and_reported() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let hands = site.haproxy.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    site.haproxy.admin("set server be_app/green1 state ready").await;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(site.states().await[1].1, 0, "the guard fights nobody");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.observe(inspect(P)).await.unwrap_err().code, Code::RouteDrift);
    assert_eq!(site.switch(P, V).await.unwrap_err().code, Code::RouteDrift);
    guard.abort();
}

#[tokio::test]
async fn a_split_needs_weights() {
    let Some(site) = Site::start("source", "").await else { return };
    let tenth = "be_blue:be_green:10:6";
    let refused = site.switch(P, tenth).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::DriverCannot, Aftermath::Unchanged), "{refused:?}");
    assert!(refused.causes[0].contains("balance is source"), "{refused:?}");
    assert_eq!((site.haproxy.agent.on_disk(), site.who()), (Some(route(P)), "blue".to_owned()));
    let inspected = site.observe(inspect(P)).await.unwrap();
    assert!(inspected.detail.contains("no split of visitors: `be_app` has balance source"), "{inspected:?}");
    assert_eq!(site.haproxy.agent.hands.driver_fit().await.unwrap().driver, Some(Driver::ServerState));
    // All at once works.
    site.switch(P, V).await.unwrap();
    assert_eq!(site.who(), "green");
}

#[tokio::test]
async fn a_tenth_and_back() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let tenth = "be_blue:be_green:10:6";
    site.switch(P, tenth).await.unwrap();
    let states = site.states().await;
    assert_eq!(states, [("blue1".to_owned(), 0, "90".to_owned()), ("green1".to_owned(), 0, "10".to_owned())]);
    let green = (0..200).filter(|_| site.who() == "green").count();
    assert!((15..=25).contains(&green), "{green} of 200");
    site.observe(inspect(tenth)).await.unwrap();
    site.switch(tenth, "be_green:be_blue:0:7").await.unwrap();
    let states = site.states().await;
    assert_eq!(states, [("blue1".to_owned(), 8, "1".to_owned()), ("green1".to_owned(), 0, "1".to_owned())]);
    assert_eq!(site.who(), "green");
}

#[tokio::test]
async fn maintenance_needs_a_server_with_the_page() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let page = "be_maint:be_green:0:6";
    let refused = site.switch(P, page).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::DriverCannot, Aftermath::Unchanged), "{refused:?}");
    assert!(refused.hint.contains("be_app/page"), "{refused:?}");
    assert_eq!(site.who(), "blue");
    drop(site);
    let Some(site) = Site::start("roundrobin", "be_maint = [\"be_app/page\"]").await else { return };
    site.switch(P, page).await.unwrap();
    assert_eq!(site.who(), "page");
    site.switch(page, "be_blue:be_green:0:7").await.unwrap();
    assert_eq!(site.who(), "blue");
}

#[tokio::test]
async fn the_idle_slot_is_checked_at_its_servers_and_drained_by_their_sessions() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let probe = |backend: &str, contains: &str| Action::ProbeBalancer {
        checks: vec![Check {
            name: "home".parse().unwrap(),
            from: CheckFrom::Balancers,
            before_switch: true,
            after_switch: false,
            spec: CheckSpec::get(&"/".parse().unwrap(), 200, Some(contains)),
            timeout_ms: 1000,
            patience_ms: 500,
            bound_ms: 1000,
        }],
        backend: backend.parse().unwrap(),
        epoch: RouteEpoch(5),
        min_up: 1,
        patience_ms: 2000,
    };
    site.observe(probe("be_green", "green")).await.unwrap();
    site.observe(probe("be_blue", "blue")).await.unwrap();
    let wrong = site.observe(probe("be_green", "blue")).await.unwrap_err();
    assert_eq!(wrong.code, Code::CheckFailed, "{wrong:?}");
    let drain = |backend: &str| Action::Drain {
        backend: backend.parse().unwrap(),
        timeout_ms: 2000,
        end: DrainEnd::Cut,
    };
    assert!(site.haproxy.agent.perform(drain("be_green")).await.unwrap().detail.contains("serves nobody"));
    assert_eq!(site.haproxy.agent.perform(drain("be_blue")).await.unwrap_err().code, Code::DrainIncomplete);
}

/// No command is ever sent to a server that nobody named, so it keeps its part of the visitors whatever the route: nothing
/// goes forward on such a HAProxy, and nobody is kept from going back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_named_lets_nothing_go_forward() {
    let legacy = server("legacy");
    let lines = format!("  server legacy1 {} check inter 100ms\n", legacy.address);
    let Some(site) = Site::start_with("roundrobin", "", &lines).await else { return };
    site.haproxy
        .until("the server that nobody named serves", async |_| (0..3).any(|_| site.who() == "legacy"))
        .await;
    let fit = site.haproxy.agent.hands.driver_fit().await.unwrap();
    assert!(fit.driver.is_none() && fit.to_string().contains("be_app/legacy1"), "{fit}");
    let refused = site.observe(inspect(P)).await.unwrap_err();
    assert_eq!(refused.code, Code::DriverCannot, "{refused:?}");
    assert!(refused.causes[0].contains("be_app/legacy1"), "{refused:?}");
    let tenth = site.switch(P, "be_blue:be_green:10:6").await.unwrap_err();
    assert_eq!((tenth.code, tenth.aftermath), (Code::DriverCannot, Aftermath::Unchanged), "{tenth:?}");
    let leaving = site.observe(inspect_as(P, true)).await.unwrap();
    assert!(leaving.detail.contains("be_app/legacy1 take visitors"), "{leaving:?}");
    site.switch(P, V).await.unwrap();
    for state in ["drain", "maint"] {
        site.haproxy.admin(&format!("set server be_app/legacy1 state {state}")).await;
        site.observe(inspect(V)).await.unwrap();
    }
    site.haproxy.admin("set server be_app/legacy1 state ready").await;
    site.haproxy.admin("set weight be_app/legacy1 0").await;
    site.observe(inspect(V)).await.unwrap();
    // One that is only down takes its part when it is up again, in the middle of a release perhaps.
    site.haproxy.admin("set weight be_app/legacy1 1").await;
    legacy.dead.store(true, Ordering::SeqCst);
    site.haproxy
        .until("the server that nobody named is down", async |haproxy| {
            haproxy
                .admin("show stat")
                .await
                .lines()
                .any(|row| row.contains("be_app,legacy1,") && row.contains(",DOWN,"))
        })
        .await;
    let refused = site.observe(inspect(V)).await.unwrap_err();
    assert!(refused.causes[0].contains("be_app/legacy1"), "{refused:?}");
}

/// An old worker of before a slot's servers stood in the configuration leads nobody to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_worker_without_the_servers_of_a_slot_does_not_hold_its_drain() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let file = site.haproxy.folder.path().join("haproxy.cfg");
    let whole = std::fs::read_to_string(&file).unwrap();
    let without: String = whole
        .lines()
        .filter(|line| !line.contains("server green1"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, without).unwrap();
    site.haproxy.replaced().await;
    // Held open and idle, so that the worker stays as an old one.
    let mut idle = TcpStream::connect(site.haproxy.frontend).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    std::fs::write(&file, whole).unwrap();
    // A master that starts anew hears no signal yet.
    let pid = site.haproxy.pid().await;
    site.haproxy
        .until("the master is back", async |haproxy| {
            haproxy.ask("master.sock", "show proc;quit").await.contains(&pid)
        })
        .await;
    site.haproxy.replaced().await;
    site.guarded(P).await;
    let stale = site.haproxy.agent.describe().await.balancer.unwrap_or_default().stale_workers;
    assert_eq!(stale.len(), 1, "the old worker lives: {stale:?}");
    let backend = "be_green".parse().unwrap();
    let drain = Action::Drain { backend, timeout_ms: 2_000, end: DrainEnd::Cut };
    let done = site.haproxy.agent.perform(drain).await.unwrap();
    assert!(done.detail.contains("serves nobody"), "{done:?}");
    drop(idle);
}

/// A server that serves only where nobody else can takes nobody's visitors.
#[tokio::test]
async fn a_server_of_the_last_resort_is_no_stranger() {
    let page = server("sorry");
    let lines = format!("  server sorry {} check inter 100ms backup\n", page.address);
    let Some(site) = Site::start_with("roundrobin", "", &lines).await else { return };
    site.observe(inspect(P)).await.unwrap();
    site.switch(P, "be_blue:be_green:10:6").await.unwrap();
}

/// Lines name the backend that holds the servers of both slots: whose visitor it was is told by the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_counted_by_slot() {
    let Some(site) = Site::start("roundrobin", "").await else { return };
    let mut ticks = site.haproxy.agent.signals().await.unwrap();
    let mut tick = async || {
        let next = tokio::time::timeout(Duration::from_secs(5), ticks.next()).await;
        convert::tick_from_wire(&next.unwrap().unwrap().unwrap()).unwrap()
    };
    let give_up = Instant::now() + Duration::from_secs(20);
    // The agent listens, and HAProxy has found it: what is asked from now on is told.
    while tick().await.coverage.is_none_or(|coverage| coverage.expected == 0 || coverage.seen == 0) {
        assert!(Instant::now() < give_up, "no line came");
        assert_eq!(site.who(), "blue");
    }
    site.switch(P, V).await.unwrap();
    (0..20).for_each(|_| assert_eq!(site.who(), "green"));
    let (mut green, mut known) = (0, None);
    while green < 20 || known.is_none_or(|(seen, expected)| seen != expected || expected < 20) {
        assert!(Instant::now() < give_up, "{green} requests, coverage {known:?}");
        let tick = tick().await;
        assert_eq!(tick.broken_lines, 0);
        let of_green = tick.cells.iter().filter(|(key, _)| key.backend.as_str() == "be_green");
        green += of_green.map(|(_, cell)| cell.requests).sum::<u64>();
        let covered = tick.covered.iter().find(|(backend, _)| backend.as_str() == "be_green");
        known = covered.map(|(_, coverage)| (coverage.seen, coverage.expected));
    }
    assert_eq!(green, 20);
}
