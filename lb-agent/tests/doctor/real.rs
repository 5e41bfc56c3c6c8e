//! The real HAProxy: it accepts what `config-snippet` prints, and started from it nothing is found wrong.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pointsman_chassis::agent_service::Hands as _;
use pointsman_core::Activation;
use pointsman_lb_agent::LbHands;
use pointsman_proto::v1;
use tempfile::TempDir;

use crate::haproxy::{Process, is_installed, server};
use crate::world::{ROUTE, config, wishes};

/// Longest time for servers to be found well.
const PATIENCE: Duration = Duration::from_secs(20);

/// A load balancer's folder, with lb-agent.toml and the map.
struct Balancer {
    folder: TempDir,
    frontend: SocketAddr,
}

impl Balancer {
    fn new() -> Self {
        Self::with("map = \"FOLDER/route.map\"\n", "")
    }

    /// With these lines in `[haproxy]`, and more tables.
    fn with(haproxy: &str, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let frontend = crate::net::free();
        let text = format!(
            "listen = \"127.0.0.1:1\"\nstate = \"{0}\"\n[pki]\ncert = \"none\"\nkey = \"none\"\nca = \"none\"\n[haproxy]\n\
             socket = \"{0}/pointsman.sock\"\nmaster = \"{0}/master.sock\"\n\
             backends = [\"be_blue\", \"be_green\"]\nmaintenance_backend = \"be_maint\"\n{haproxy}\
             [frontend]\naddress = \"{frontend}\"\nhost = \"www.example.org\"\n{tables}",
            folder.path().display()
        );
        let text = text.replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(folder.path().join("lb-agent.toml"), text).unwrap();
        std::fs::write(folder.path().join("route.map"), format!("route {ROUTE}\n")).unwrap();
        Self { folder, frontend }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config_snippet(&self, words: &[String]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman-lb-agent"));
        command.arg("config-snippet").arg("--config").arg(self.at("lb-agent.toml")).args(words);
        command.output().unwrap()
    }

    /// Writes what `config-snippet` prints as HAProxy's whole configuration.
    fn write_snippet(&self, words: &[String]) -> String {
        let printed = self.config_snippet(words);
        let said = String::from_utf8_lossy(&printed.stderr).into_owned();
        assert!(printed.status.success(), "{said}");
        let text = String::from_utf8(printed.stdout).unwrap();
        std::fs::write(self.at("haproxy.cfg"), &text).unwrap();
        text
    }

    fn must_be_accepted(&self) {
        let checked =
            Command::new("haproxy").args(["-c", "-f"]).arg(self.at("haproxy.cfg")).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
        assert!(checked.status.success() && !said.contains("WARNING"), "{said}");
    }

    fn start(&self) -> Process {
        self.start_with(&self.at("haproxy.cfg"))
    }

    /// Named so, from its folder.
    fn start_with(&self, config: &Path) -> Process {
        Process::start(self.folder.path(), &[config])
    }

    /// The answer to a request with one more header, in small letters.
    fn answer(&self, header: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.frontend).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // In one write: a request in pieces waits for acknowledgements.
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.to_lowercase()
    }

    /// What HAProxy says to a command.
    fn told(&self, command: &str) -> String {
        let mut socket = std::os::unix::net::UnixStream::connect(self.at("pointsman.sock")).unwrap();
        socket.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        said
    }

    async fn diagnose(&self) -> Vec<v1::Finding> {
        let mut wanted = config(&self.folder.path().display().to_string(), &self.frontend.to_string());
        // HAProxy itself says which files it has loaded.
        wanted.haproxy.config.clear();
        LbHands::new(wanted).unwrap().diagnose(&Activation::default()).await
    }

    /// Looks until these are the findings that are not well.
    async fn must_find(&self, expected: &[(&str, &str)]) -> Vec<v1::Finding> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let findings = self.diagnose().await;
            // These listen on loopback alone, and are told so.
            let of_tests = |finding: &&v1::Finding| finding.what.contains("only programs of this host reach");
            let bad: Vec<_> =
                findings.iter().filter(|finding| finding.verdict != "ok" && !of_tests(finding)).collect();
            let found: Vec<_> =
                bad.iter().map(|finding| (finding.check.as_str(), finding.verdict.as_str())).collect();
            if found == expected {
                return findings;
            }
            assert!(Instant::now() < give_up, "expected {expected:?}, found {bad:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Servers for both slots, with whatever else.
fn with_servers(more: &[&str]) -> Vec<String> {
    let servers = [format!("be_blue={}", server()), format!("be_green={}", server())];
    let servers = servers.into_iter().flat_map(|server| ["--server".to_owned(), server]);
    servers.chain(words(more)).collect()
}

fn certificate(path: &Path) -> bool {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=www.example.org", "-keyout", "-", "-out", "-"])
        .stderr(Stdio::null())
        .output();
    made.is_ok_and(|made| made.status.success() && std::fs::write(path, made.stdout).is_ok())
}

#[test]
fn haproxy_accepts_the_fragment_in_every_form() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let page = balancer.at("page.html").display().to_string();
    std::fs::write(&page, "<h1>soon</h1>").unwrap();
    for more in [
        &[][..],
        &["--bind", "127.0.0.1:8081", "--bind", "127.0.0.1:8082"],
        &["--check-path", "/api/health?deep=1", "--site-host", "www.example.net", "--log", "127.0.0.1:6000"],
        &["--page", &page],
    ] {
        let text = balancer.write_snippet(&words(more));
        balancer.must_be_accepted();
        assert!(text.contains("  # server s1 <address>:<port> check"), "{text}");
        for word in more.iter().filter(|word| !word.starts_with("--")) {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
        let text = balancer.write_snippet(&with_servers(more));
        balancer.must_be_accepted();
        assert!(!text.contains("# server"), "{text}");
    }
    let pem = balancer.at("site.pem");
    if certificate(&pem) {
        let pem = pem.display().to_string();
        let text = balancer.write_snippet(&with_servers(&["--bind", "127.0.0.1:8443", "--tls-cert", &pem]));
        balancer.must_be_accepted();
        assert!(text.contains("bind 127.0.0.1:8443 ssl crt") && text.contains("HttpOnly; Secure;"), "{text}");
    }
}

/// Where lb-agent.toml says that the frontend awaits the PROXY protocol, each `bind` does, with TLS and without.
#[test]
fn the_fragment_awaits_the_proxy_protocol_where_the_agent_speaks_it() {
    let balancer = Balancer::with("map = \"FOLDER/route.map\"\n", "proxy_protocol = true\n");
    let pem = balancer.at("site.pem");
    let is_checked = is_installed() && certificate(&pem);
    let pem = pem.display().to_string();
    for (more, expected) in [
        (&[][..], vec![format!("bind :{} accept-proxy", balancer.frontend.port())]),
        (
            &["--bind", ":80", "--bind", ":443", "--tls-cert", &pem],
            vec![
                "bind :80 accept-proxy".to_owned(),
                format!("bind :443 accept-proxy ssl crt {pem} alpn h2,http/1.1"),
            ],
        ),
    ] {
        let text = balancer.write_snippet(&with_servers(more));
        let binds: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("bind ")).collect();
        assert_eq!(binds, expected, "{text}");
        if is_checked {
            balancer.must_be_accepted();
        }
    }
}

/// Whoever types the name without `https` comes to port 80: there is no TLS there, but a way to it.
#[test]
fn port_80_is_left_plain_beside_one_with_tls() {
    let balancer = Balancer::new();
    let pem = balancer.at("site.pem");
    let is_checked = is_installed() && certificate(&pem);
    let pem = pem.display().to_string();
    let printed = |binds: &[&str]| {
        let binds = binds.iter().flat_map(|bind| ["--bind", *bind]).chain(["--tls-cert", &pem]);
        let text = balancer.write_snippet(&with_servers(&binds.collect::<Vec<_>>()));
        if is_checked {
            balancer.must_be_accepted();
        }
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("bind ") || line.starts_with("http-request redirect"));
        lines.map(|line| line.replace(&pem, "PEM").replace(" alpn h2,http/1.1", "")).collect::<Vec<_>>()
    };
    let redirect = "http-request redirect scheme https code 301 if !{ ssl_fc }";
    for (binds, expected) in [
        (&[":80", ":443"][..], &["bind :80", "bind :443 ssl crt PEM", redirect][..]),
        (
            &["[::]:443", "[::]:80", ":8443"],
            &["bind [::]:443 ssl crt PEM", "bind [::]:80", "bind :8443 ssl crt PEM", redirect],
        ),
        (&[":8080", ":8443"], &["bind :8080 ssl crt PEM", "bind :8443 ssl crt PEM"]),
        // Asked for alone, it is what was asked for.
        (&["127.0.0.1:80"], &["bind 127.0.0.1:80 ssl crt PEM"]),
    ] {
        assert_eq!(printed(binds), expected, "{binds:?}");
    }
}

/// Where the agent asks by an address of version 6, HAProxy listens there too; one line may name several addresses.
#[test]
fn the_fragment_listens_where_the_agent_asks() {
    let printed = |frontend: &str, bind: &[&str]| {
        let mut wishes = wishes("10.0.0.11:8080", "10.0.0.12:8080");
        wishes.bind = bind.iter().map(|bind| (*bind).to_owned()).collect();
        let text = pointsman_lb_agent::snippet(&config("/lb", frontend), &wishes);
        text.map(|text| text.lines().find(|line| line.trim().starts_with("bind ")).unwrap().trim().to_owned())
    };
    for (frontend, bind, expected) in [
        ("127.0.0.1:8080", &[][..], "bind :8080"),
        ("[::1]:8080", &[], "bind [::]:8080 v4v6"),
        ("[::1]:8080", &["127.0.0.1:81,[::1]:81"], "bind 127.0.0.1:81,[::1]:81"),
    ] {
        assert_eq!(printed(frontend, bind).unwrap(), expected);
    }
    assert!(printed("127.0.0.1:80", &["127.0.0.1:80, 10.0.0.1:80"]).is_err());
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    for bind in ["127.0.0.1:8081,[::1]:8081", ":8081"] {
        balancer.write_snippet(&words(&["--bind", bind]));
        balancer.must_be_accepted();
    }
    let text = std::fs::read_to_string(balancer.at("haproxy.cfg")).unwrap();
    std::fs::write(balancer.at("haproxy.cfg"), text.replace("bind :8081", "bind [::]:8081 v4v6")).unwrap();
    balancer.must_be_accepted();
}

/// Rules for another site stay where the fragment says: HAProxy warns of rules below a `use_backend`.
#[test]
fn another_site_in_the_frontend_goes_where_the_fragment_says() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let text = balancer.write_snippet(&words(&[]));
    let marked = "  # Instead of your `use_backend` lines for the site.";
    assert_eq!(text.matches(marked).count(), 1);
    let shop = "  use_backend be_shop if { hdr(host) -i shop.example.org }\n";
    let text = format!("{text}backend be_shop\n  mode http\n  http-request return status 200\n");
    std::fs::write(balancer.at("haproxy.cfg"), text.replacen(marked, &format!("{shop}{marked}"), 1)).unwrap();
    balancer.must_be_accepted();
}

/// What lb-agent.toml says already need not be said again: where lines go, and which tables there are.
#[tokio::test]
async fn the_fragment_follows_the_agents_own_file() {
    let tables =
        "map = \"FOLDER/route.map\"\nrate_limit_tables = [\"st_rl\", \"st_b\", \"st_c\", \"st_d\"]\n";
    let balancer = Balancer::with(tables, "[signals]\nlisten = \"127.0.0.1:5999\"\n");
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    assert!(text.contains("server agent 127.0.0.1:5999 log-proto") && !text.contains("5515"), "{text}");
    assert!(text.contains("http-request track-sc2 src table st_rl unless trusted"), "{text}");
    assert!(text.contains("http-request track-sc0 src table st_c unless trusted"), "{text}");
    assert!(!text.contains("table st_d") && text.contains("`st_d` is not among them"), "{text}");
    let other = balancer.config_snippet(&words(&["--log", "10.0.0.3:6000"]));
    assert!(String::from_utf8_lossy(&other.stdout).contains("server agent 10.0.0.3:6000 log-proto"));
    for (listen, socket, expected) in [
        ("0.0.0.0:5999", "/run/x.sock", Some("server agent 127.0.0.1:5999 ")),
        ("[::]:5999", "/run/x.sock", Some("server agent [::1]:5999 ")),
        ("0.0.0.0:5999", "tcp://127.0.0.1:9999", Some("server agent 127.0.0.1:5999 ")),
        // Which of its addresses HAProxy reaches nobody has said.
        ("0.0.0.0:5999", "tcp://10.0.0.1:9999", None),
        ("10.0.0.3:5999", "tcp://10.0.0.1:9999", Some("server agent 10.0.0.3:5999 ")),
    ] {
        let mut wanted = config("/lb", "127.0.0.1:80");
        wanted.haproxy.socket.0 = socket.parse().unwrap();
        let signals = format!("[signals]\nlisten = \"{listen}\"\n");
        let parsed = std::fs::read_to_string(balancer.at("lb-agent.toml")).unwrap();
        let parsed = parsed.replace("[signals]\nlisten = \"127.0.0.1:5999\"\n", &signals);
        wanted.signals = pointsman_chassis::config::parse::<pointsman_lb_agent::Config>(
            Path::new("lb-agent.toml"),
            &parsed,
        )
        .unwrap()
        .signals;
        let printed = pointsman_lb_agent::snippet(&wanted, &wishes("10.0.0.11:8080", "10.0.0.12:8080"));
        match expected {
            Some(line) => assert!(printed.unwrap().contains(line), "{listen} {socket}"),
            None => assert!(printed.unwrap_err().hint.contains("--log"), "{listen} {socket}"),
        }
    }
    if !is_installed() {
        return;
    }
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    balancer.must_find(&[]).await;
}

/// A frontend that limits visitors already has taken a counter: what the agent is to see is counted beside it, and where two
/// lines want the same, HAProxy itself counts nobody for the second.
#[tokio::test]
async fn visitors_are_counted_below_a_limit_that_stands_already() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::with("map = \"FOLDER/route.map\"\nrate_limit_tables = [\"st_rl\"]\n", "");
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    // Loopback is trusted, and what comes with this header stands for a visitor from elsewhere.
    let text = text.replace(
        "  acl trusted src",
        "  http-request set-src req.hdr(X-From) if { req.hdr(X-From) -m found }\n  acl trusted src",
    );
    let own = "frontend fe\n  mode http\n  stick-table type ip size 1k expire 1m store http_req_rate(10s)\n  http-request track-sc0 src\n";
    let text = text.replacen("frontend fe\n  mode http\n", own, 1);
    for (text, counted, verdict) in [
        (text.clone(), 1, "ok"),
        (
            text.replace(
                "track-sc2 src table st_rl unless trusted",
                "track-sc0 src table st_rl unless trusted",
            ),
            0,
            "warn",
        ),
    ] {
        std::fs::write(balancer.at("haproxy.cfg"), &text).unwrap();
        balancer.must_be_accepted();
        let _haproxy = balancer.start();
        let parsed = std::fs::read_to_string(balancer.at("lb-agent.toml")).unwrap();
        let wanted = pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &parsed).unwrap();
        let hands = LbHands::new(wanted).unwrap();
        let give_up = Instant::now() + PATIENCE;
        loop {
            let findings = hands.diagnose(&Activation::default()).await;
            let of = |check: &str| findings.iter().find(|finding| finding.check == check).unwrap();
            if of("backend-servers").verdict == "ok" {
                assert_eq!(of("rate-tables").verdict, verdict, "{:?}", of("rate-tables"));
                break;
            }
            assert!(Instant::now() < give_up, "{findings:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        balancer.answer("X-From: 192.0.2.4");
        let table = balancer.told("show table st_rl");
        assert!(table.contains(&format!("used:{counted}")), "{table}");
        assert!(balancer.told("show table fe").contains("key="));
    }
}

/// Where states of servers are the route there is no map to look up, and every server keeps the name that it has in
/// lb-agent.toml.
#[tokio::test]
async fn by_states_the_fragment_has_no_map_and_the_servers_names() {
    let by_states = "driver = \"server-state\"\n[haproxy.servers]\nbe_blue = [\"be_app/blue1\"]\nbe_green = [\"be_app/green1\", \"be_app/green2\"]\n";
    let balancer = Balancer::with(by_states, "[signals]\nlisten = \"127.0.0.1:5999\"\n");
    let bind = balancer.frontend.to_string();
    let over = balancer.config_snippet(&words(&[
        "--server",
        "be_blue=10.0.0.1:80",
        "--server",
        "be_blue=10.0.0.2:80",
    ]));
    assert!(!over.status.success() && over.stdout.is_empty(), "{over:?}");
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    assert!(!text.contains("route.map") && !text.contains("set-var(txn.route)"), "{text}");
    assert!(text.contains("  # server green2 <address>:<port> check"), "{text}");
    assert!(text.contains("server agent 127.0.0.1:5999 log-proto"), "{text}");
    if !is_installed() {
        return;
    }
    std::fs::write(
        balancer.at("haproxy.cfg"),
        text.replace("  # server green2", "  server green2")
            .replace("<address>:<port>", &server().to_string()),
    )
    .unwrap();
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    let text = std::fs::read_to_string(balancer.at("lb-agent.toml")).unwrap();
    let wanted = pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap();
    let hands = LbHands::new(wanted).unwrap();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let findings = hands.diagnose(&Activation::default()).await;
        let bad: Vec<_> = findings.iter().filter(|finding| finding.verdict != "ok").collect();
        if bad.is_empty() {
            assert!(
                findings
                    .iter()
                    .any(|finding| finding.check == "driver" && finding.what.contains("`server-state` fits"))
            );
            break;
        }
        assert!(Instant::now() < give_up, "{bad:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn what_cannot_stand_in_a_configuration_is_refused() {
    let balancer = Balancer::new();
    for wrong in [
        &["--server", "be_blue"][..],
        &["--server", "be_blue=10.0.0.1"],
        &["--server", "be_blue=10.0.0.1:80 backup"],
        &["--server", "be_other=10.0.0.1:80"],
        &["--site-host", "x\n  stats socket /tmp/x"],
        &["--bind", ":80 # x"],
        &["--tls-cert", "/a b"],
        &["--check-path", "nothing"],
    ] {
        let printed = balancer.config_snippet(&words(wrong));
        assert!(!printed.status.success() && printed.stdout.is_empty(), "{wrong:?}: {printed:?}");
    }
}

#[tokio::test]
async fn nothing_is_found_wrong_with_an_haproxy_of_the_fragment() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let _haproxy = balancer.start();
    let findings = balancer.must_find(&[]).await;
    assert!(findings.len() > 30, "{findings:#?}");
    // The route decides, and trusted clients pick a side: HAProxy itself is asked.
    for side in ["canary", "stable"] {
        let answer = balancer.answer(&format!("X-Pointsman: {side}"));
        assert!(answer.contains(&format!("x-pointsman: epoch=40 side={side}")), "{answer}");
    }
    // A browser gets an id, without TLS one that it keeps; with its id it is on the same side each time.
    let answer = balancer.answer("Accept: text/html");
    assert!(answer.contains("set-cookie: pm_id=") && !answer.contains("secure"), "{answer}");
    let mut on_canary = 0;
    for visitor in 0..400 {
        let mut sides = (0..2)
            .map(|_| balancer.answer(&format!("Cookie: pm_id=visitor{visitor}")).contains("side=canary"));
        let (first, again) = (sides.next().unwrap(), sides.next().unwrap());
        assert_eq!(first, again, "visitor {visitor}");
        on_canary += u32::from(first);
    }
    // 5 % of 400 ids, whose buckets are the same on every machine.
    assert!((8..=36).contains(&on_canary), "{on_canary}");
}

/// What grown configurations have besides is not taken for what it is not: only what keeps visitors on a server of a slot, and who
/// else could move them, is told.
#[tokio::test]
async fn what_grown_configurations_have_besides_is_judged_as_what_it_is() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let (own, slot) = text.split_once("backend be_green\n").unwrap();
    let (line, rest) =
        slot.split_once("  server s1 ").map(|(head, tail)| (head, tail.split_once('\n').unwrap())).unwrap();
    let port = rest.0.split_once(':').unwrap().1.split_once(' ').unwrap().0;
    let global = format!(
        "global\n  nbthread 4\n  stats socket {} mode 600 level user\n",
        balancer.at("user.sock").display()
    );
    let own = own.replacen("global\n", &global, 1).replacen(
        "defaults\n",
        "defaults\n  http-reuse always\n  compression algo gzip\n  default-server inter 200ms fall 2 rise 1 maxconn 50\n",
        1,
    );
    let text = format!(
        "{own}backend be_green\n{}  http-request set-path /app%[path]\n  server-template web 1-3 localhost:{port} check \
         resolvers dns init-addr last,libc,none\n{}\nresolvers dns\n  nameserver none 127.0.0.1:9\n  hold timeout 60s\n",
        line.replace("balance leastconn", "balance uri\n  hash-type consistent"),
        rest.1
    );
    std::fs::write(balancer.at("haproxy.cfg"), text).unwrap();
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    let findings = balancer.must_find(&[("other-sockets", "warn"), ("balance", "warn")]).await;
    assert!(
        findings.iter().any(|finding| finding.what.contains("pins clients to a server")),
        "{findings:#?}"
    );
}

/// Raising the share of a release adds visitors and moves nobody back; the next release begins with others.
#[tokio::test]
async fn visitors_take_turns_from_release_to_release() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let _haproxy = balancer.start();
    balancer.must_find(&[]).await;
    let map = balancer.at("route.map").display().to_string();
    let on_canary = |route: &str| {
        let mut socket = std::os::unix::net::UnixStream::connect(balancer.at("pointsman.sock")).unwrap();
        socket.write_all(format!("set map {map} route {route}\n").as_bytes()).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert_eq!(said.trim(), "");
        let on_it = |visitor: &u32| {
            balancer.answer(&format!("Cookie: pm_id=visitor{visitor}")).contains("side=canary")
        };
        (0..200).filter(on_it).collect::<std::collections::BTreeSet<u32>>()
    };
    let (few, more) = (on_canary("be_blue:be_green:10:34"), on_canary("be_blue:be_green:30:35"));
    assert!(!few.is_empty() && few.is_subset(&more) && more.len() < 120, "{few:?} {more:?}");
    let next = on_canary("be_green:be_blue:10:50");
    assert!(!next.is_empty() && few.intersection(&next).count() < few.len() / 2, "{few:?} {next:?}");
}

#[tokio::test]
async fn an_haproxy_that_went_wrong_is_told_what() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let second = balancer.at("second.sock").display().to_string();
    let text = text
        .replace("  stats timeout 30s\n", &format!("  stats socket {second} mode 600 level user\n"))
        .replace("  option idle-close-on-response\n", "")
        .replace("hard-stop-after 60s", "hard-stop-after 20s")
        .replace("mode 600 level admin", "mode 666 level operator");
    std::fs::write(balancer.at("haproxy.cfg"), text).unwrap();
    let _haproxy = balancer.start();
    // Below admin HAProxy does not say which files it has loaded: lb-agent.toml must.
    let give_up = Instant::now() + PATIENCE;
    let wanted = config(&balancer.folder.path().display().to_string(), &bind);
    let hands = LbHands::new(wanted).unwrap();
    loop {
        let findings = hands.diagnose(&Activation::default()).await;
        let verdict =
            |check: &str| findings.iter().find(|finding| finding.check == check).unwrap().verdict.clone();
        let found =
            ["socket-level", "socket-mode", "other-sockets", "idle-close-on-response", "hard-stop-after"]
                .map(verdict);
        if found == ["fail", "fail", "warn", "fail", "fail"] {
            break;
        }
        assert!(Instant::now() < give_up, "{findings:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where the last `defaults` are those of a TCP service, what was pasted answers visitors all the same; a slot in TCP mode
/// answers nobody, though HAProxy accepts it.
#[tokio::test]
async fn the_fragment_serves_visitors_below_defaults_of_tcp() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    // HAProxy would warn of this option in a mode that has no headers.
    let text = text.replace("  option forwardfor\n", "");
    let text = text.replacen("defaults\n  mode http\n", "defaults\n  mode tcp\n", 1);
    std::fs::write(balancer.at("haproxy.cfg"), &text).unwrap();
    balancer.must_be_accepted();
    {
        let _haproxy = balancer.start();
        balancer.must_find(&[]).await;
        assert!(balancer.answer("Accept: */*").starts_with("http/1.1 200"));
    }
    let in_tcp = text.replace("backend be_blue\n  mode http\n", "backend be_blue\n");
    std::fs::write(balancer.at("haproxy.cfg"), in_tcp).unwrap();
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let findings = balancer.diagnose().await;
        let of = |check: &str| findings.iter().find(|finding| finding.check == check).unwrap();
        let (mode, answered) = (of("mode"), of("path-answered"));
        if mode.verdict == "fail" && of("backends-present").verdict == "ok" {
            assert!(mode.what.contains("`backend be_blue` is in `mode tcp`"), "{mode:?}");
            assert!(answered.what.contains("got no answer"), "{answered:?}");
            break;
        }
        assert!(Instant::now() < give_up, "{findings:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Names that files have already, for whatever, do not meet those of the fragment: browsers get their ids.
#[tokio::test]
async fn lists_of_ones_own_take_no_id_from_visitors() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let own = "frontend fe\n  acl known hdr_len(host) gt 0\n  acl page path /never\n";
    let text = text.replacen("frontend fe\n", own, 1);
    for (text, found) in [
        (text.clone(), &[][..]),
        // As fragments were printed before.
        (text.replace("pm_known", "known").replace("pm_page", "page"), &[("canary", "warn")]),
    ] {
        std::fs::write(balancer.at("haproxy.cfg"), text).unwrap();
        balancer.must_be_accepted();
        let _haproxy = balancer.start();
        balancer.must_find(found).await;
        let answer = balancer.answer("Accept: text/html");
        assert_eq!(answer.contains("set-cookie: pm_id="), found.is_empty(), "{answer}");
    }
}

/// A rule in the `defaults` that the frontend names has visitors say where they come from: HAProxy obeys, and doctor sees it.
#[tokio::test]
async fn a_visitor_who_may_say_where_they_come_from_is_found_in_named_defaults() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let text = text.replacen("defaults\n", "defaults http\n", 1).replacen(
        "acl trusted src 127.0.0.0/8 ::1",
        "acl trusted src 127.0.0.1 192.0.2.9",
        1,
    );
    let web = "defaults web from http\n  http-request set-src req.hdr(X-Forwarded-For) if { req.hdr(X-Forwarded-For) -m found }\nfrontend fe from web\n";
    let text = text
        .replacen("frontend fe\n", web, 1)
        .replace("\nbackend be_blue\n", "\nbackend be_blue from http\n");
    let text = text
        .replace("\nbackend be_green\n", "\nbackend be_green from http\n")
        .replace("\nbackend be_maint\n", "\nbackend be_maint from http\n");
    std::fs::write(balancer.at("haproxy.cfg"), text).unwrap();
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    balancer.must_find(&[("source-address", "fail")]).await;
    let picks = |from: &str| balancer.answer(&format!("X-Forwarded-For: {from}\r\nX-Pointsman: canary"));
    assert!(picks("192.0.2.9").contains("side=canary"), "whoever says so is trusted");
    assert!(picks("192.0.2.10").contains("side=stable"), "whoever does not is not");
}

/// What a person did to the map is undone by the very line that doctor prints.
#[tokio::test]
async fn the_line_that_puts_the_route_back_does() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let _haproxy = balancer.start();
    balancer.must_find(&[]).await;
    std::fs::write(balancer.at("route.copy"), format!("{ROUTE}\n")).unwrap();
    let map = balancer.at("route.map").display().to_string();
    for by_hand in [format!("set map {map} route be_green:be_green:0:9"), format!("del map {map} route")] {
        balancer.told(&by_hand);
        let give_up = Instant::now() + PATIENCE;
        let line = loop {
            let findings = balancer.diagnose().await;
            let found = findings.iter().find(|finding| finding.check == "map-on-disk").unwrap();
            let line = found.fix.lines().find_map(|line| line.trim().strip_prefix("echo '"));
            if let Some((line, _)) = line.and_then(|line| line.split_once("' | socat - ")) {
                break line.to_owned();
            }
            assert!(Instant::now() < give_up, "{found:?}");
        };
        assert_eq!(balancer.told(&line).trim(), "");
        balancer.must_find(&[]).await;
    }
}

/// A rule of an older time takes the whole site: HAProxy's own answer shows it, and where it stands is told.
#[tokio::test]
async fn a_rule_that_takes_the_site_is_found_in_the_answer() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let (route, rule) =
        ("  use_backend %[var(txn.canary)]", "use_backend be_shop if { hdr_end(host) -i example.org }");
    let text = text.replacen(route, &format!("  {rule}\n{route}"), 1);
    let text = format!("{text}backend be_shop\n  http-request return status 200\n");
    std::fs::write(balancer.at("haproxy.cfg"), text).unwrap();
    balancer.must_be_accepted();
    let _haproxy = balancer.start();
    let findings = balancer.must_find(&[("route-reached", "warn"), ("path-answered", "fail")]).await;
    let found = findings.iter().find(|finding| finding.check == "path-answered").unwrap();
    assert!(found.what.contains("answered by `be_shop`, and the route leads to `be_blue`"), "{found:?}");
    assert!(found.fix.contains(rule), "{found:?}");
}

#[tokio::test]
async fn a_reload_that_failed_is_found() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    let text = balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let haproxy = balancer.start();
    balancer.must_find(&[]).await;
    std::fs::write(balancer.at("haproxy.cfg"), text.replace("mode http", "mode nonsense")).unwrap();
    haproxy.signal("-USR2");
    let give_up = Instant::now() + PATIENCE;
    loop {
        let findings = balancer.diagnose().await;
        let failed = findings.iter().find(|finding| finding.check == "failed-reloads").unwrap();
        if failed.verdict == "fail" {
            assert!(failed.what.contains("the last reload failed") && !failed.fix.is_empty(), "{failed:?}");
            break;
        }
        assert!(Instant::now() < give_up, "{findings:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where HAProxy names its file by a path that only it can follow, no other file is taken for it.
#[tokio::test]
async fn a_file_that_haproxy_has_not_loaded_is_not_judged() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let bind = balancer.frontend.to_string();
    balancer.write_snippet(&with_servers(&["--bind", &bind]));
    let _haproxy = balancer.start_with(Path::new("haproxy.cfg"));
    let give_up = Instant::now() + PATIENCE;
    loop {
        let findings = balancer.diagnose().await;
        let of = |check: &str| findings.iter().find(|finding| finding.check == check).unwrap();
        let readable = of("config-readable");
        if readable.what.contains("HAProxy was started with `-f haproxy.cfg`") {
            assert!(readable.verdict == "unknown" && readable.fix.contains("config ="), "{readable:?}");
            assert_eq!((&*of("config-loaded").verdict, &*of("route-lookup").verdict), ("unknown", "unknown"));
            break;
        }
        assert!(Instant::now() < give_up, "{findings:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_haproxy_nothing_is_called_well_that_only_it_can_say() {
    let balancer = Balancer::new();
    let findings = balancer.diagnose().await;
    for check in ["version", "socket-level", "map-loaded", "backends-present", "backend-servers"] {
        let finding = findings.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.verdict, "unknown", "{finding:?}");
        assert!(!finding.why.is_empty());
    }
}

/// What stands in a map by which another frontend names backends is asked of HAProxy.
#[tokio::test]
async fn a_map_of_hosts_that_names_a_slot_is_found() {
    if !is_installed() {
        return;
    }
    let balancer = Balancer::new();
    let text = balancer.write_snippet(&with_servers(&[]));
    let (map, other) = (balancer.at("hosts.map"), crate::net::free());
    std::fs::write(&map, "shop.example.org be_maint\nold.example.org be_blue\n").unwrap();
    let two = format!(
        "frontend two\n  mode http\n  bind {other}\n  use_backend %[req.hdr(host),lower,map({},be_maint)]\n",
        map.display()
    );
    std::fs::write(balancer.at("haproxy.cfg"), format!("{text}{two}")).unwrap();
    let _haproxy = balancer.start();
    let findings = balancer.must_find(&[("slot-entrances", "fail")]).await;
    let found = findings.iter().find(|finding| finding.check == "slot-entrances").unwrap();
    assert!(found.what.contains("hosts.map` names `be_blue`"), "{found:?}");
    balancer.told(&format!("set map {} old.example.org be_maint", map.display()));
    balancer.must_find(&[]).await;
}
