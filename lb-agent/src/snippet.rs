//! `config-snippet`: the fragment of HAProxy's configuration for this agent's own lb-agent.toml, in the parts in which a
//! person pastes it. As a whole it is a valid configuration, which `haproxy -c` and `doctor` accept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use pointsman_core::{BackendName, Code, HttpPath, Problem};

use crate::config::{Config, Driver, TableName};
use crate::doctor::log;
use crate::doctor::page::{HoldLines, PLAIN_PAGE, hold_lines, page_line};
use crate::socket::Endpoint;

/// Where access lines go if lb-agent.toml does not say: its example does.
const USUAL_LOG: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5515);

/// Tables that HAProxy counts a request in, at most.
const COUNTERS: usize = 3;

/// How a server is checked.
const CHECK: &str = "check inter 1s fall 3 rise 2";

/// A server of a slot, as `be_blue=10.0.0.11:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    backend: BackendName,
    address: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected `BACKEND=HOST:PORT`, as `be_blue=10.0.0.11:8080`");
        let (backend, address) = text.split_once('=').ok_or_else(expected)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) || port.parse::<u16>().is_err() {
            return Err(expected());
        }
        Ok(Self { backend: backend.parse().map_err(|_| expected())?, address: address.to_owned() })
    }
}

/// What the fragment is to be made of beside lb-agent.toml.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Where visitors come in; the port of `[frontend]` if empty.
    pub bind: Vec<String>,
    /// The slots' servers.
    pub servers: Vec<Server>,
    /// What a server is asked for to see whether it is well.
    pub check_path: HttpPath,
    /// The site's host name; that of `[frontend]` without it.
    pub site_host: Option<String>,
    /// Certificate chain and key in one file.
    pub tls_cert: Option<PathBuf>,
    /// The page in maintenance; a plain text without it.
    pub page: Option<PathBuf>,
    /// Where HAProxy reaches the agent with access lines; what `[signals]` says without it.
    pub log: Option<SocketAddr>,
    /// Group of the command socket; without it, that is where there is no such group, the socket is its owner's alone.
    pub group: Option<String>,
}

/// Words of ours that stand in the configuration without quotes, some within `map(...)`.
fn plain(what: &str, text: &str) -> Result<String, Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-:@*[]%+=~&?".contains(c);
    if !text.is_empty() && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    let message = format!("{what} `{text}` cannot stand in HAProxy's configuration");
    Err(Problem::new(Code::UsageWrong, message).hint("letters, digits and `/._-:@*[]%+=~&?` can"))
}

/// The whole fragment.
pub fn snippet(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let haproxy = &config.haproxy;
    let granted = |server: &Server| {
        haproxy.backends.iter().any(|known| known.0 == server.backend)
            || haproxy.servers.keys().any(|known| known.0 == server.backend)
    };
    if let Some(server) = wishes.servers.iter().find(|server| !granted(server)) {
        let message = format!("`{}` is not among the backends that this agent may route to", server.backend);
        return Err(Problem::new(Code::UsageWrong, message)
            .hint("correct `--server`, or `backends` in lb-agent.toml"));
    }
    let mut parts = vec![head(), global(config, wishes)?, ring(config, wishes)?, defaults().to_owned()];
    match haproxy.driver {
        Driver::Map => {
            parts.extend([frontend(config, wishes)?, slots(config, wishes)?, page(config, wishes)?]);
        }
        Driver::ServerState => {
            parts.extend([frontend_by_states(config, wishes)?, pools(config, wishes)?]);
        }
    }
    parts.extend(tables(config)?);
    Ok(parts.join("\n"))
}

fn head() -> String {
    "# What pointsman needs of HAProxy, for this load balancer. Each part says where it goes in your haproxy.cfg. Then:
#   haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy && pointsman doctor lb ENV
# The master socket is no line of this file but an option of haproxy's unit: systemd/haproxy.service.d/pointsman.conf.
"
    .to_owned()
}

fn global(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let socket = plain("the socket", &config.haproxy.socket.0.in_haproxy())?;
    let (access, note) = match &wishes.group {
        Some(group) => (format!("user root group {} mode 660", plain("the group", group)?), ""),
        None => (
            "mode 600".to_owned(),
            "\n  # This host has no group `pointsman` yet. With it: `user root group pointsman mode 660` instead of `mode 600`.",
        ),
    };
    let hold = hold(config)?.map_or_else(String::new, |(lines, _)| {
        format!("  # Has requests wait while databases are swapped: `pointsman-hold.lua` comes with pointsman.\n  {}\n", lines.global.replace('\n', "\n  "))
    });
    Ok(format!(
        "# ---- 1. Into your `global` section. Remove every other `stats socket`: up to HAProxy 3.3 each can move visitors.
global{note}
  stats socket {socket} {access} level admin expose-fd listeners
  stats timeout 30s
  # Ten by default, and whoever else asks HAProxy for figures shares them with the agent.
  stats maxconn 100
  # Bounds the life of old workers after a reload, and with it of their WebSockets. Longer than `timeout http-keep-alive`.
  hard-stop-after 60s
{hold}"
    ))
}

/// The lines that hold requests, and the backend that the route names meanwhile, where that is wanted.
fn hold(config: &Config) -> Result<Option<(HoldLines, String)>, Problem> {
    let haproxy = &config.haproxy;
    // It is told by the map that they are to wait.
    let wanted = haproxy.hold_backend.as_ref().filter(|_| haproxy.driver == Driver::Map);
    let Some(backend) = wanted.map(|hold| hold.0.to_string()) else { return Ok(None) };
    let (map, key) = (plain("the map", &haproxy.map_name())?, plain("the key", &haproxy.key)?);
    Ok(Some((hold_lines(&map, &key, &backend), backend)))
}

/// Where HAProxy reaches the agent with access lines.
fn log_to(config: &Config, wishes: &Wishes) -> Result<SocketAddr, Problem> {
    let listens = config.signals.as_ref().map_or(USUAL_LOG, |signals| signals.listen);
    if let Some(wanted) = wishes.log {
        return Ok(wanted);
    }
    if !listens.ip().is_unspecified() {
        return Ok(listens);
    }
    // On every address: which of them HAProxy can reach is known only where it is on this host.
    let here = match &config.haproxy.socket.0 {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    };
    if !here {
        let message = format!("`[signals]` listens on {listens}, and HAProxy is on another host");
        return Err(Problem::new(Code::UsageWrong, message)
            .hint("name the address at which HAProxy reaches this host: `--log 10.0.0.3:5515`"));
    }
    let loopback = match listens {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    Ok(SocketAddr::new(loopback, listens.port()))
}

fn ring(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    Ok(format!(
        "# ---- 2. A section of its own. Access lines for the gates go to the lb-agent over TCP: a ring buffers, UDP loses lines.
{}
",
        log::ring_lines(log_to(config, wishes)?)
    ))
}

fn defaults() -> &'static str {
    "# ---- 3. Into the `defaults` section that your frontend and the backends below use. Keep your own time-outs and `log` lines.
# With several: a section uses the last one that stands above it, or the one that it names, as in `backend be_blue from NAME`.
defaults
  mode http
  # Without it a reload loses requests of clients that reuse a connection. `close-spread-time` would undo it.
  option idle-close-on-response
  option redispatch
  option forwardfor
  retries 3
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  timeout http-request 10s
  timeout http-keep-alive 30s
  timeout queue 10s
  timeout tunnel 1h
"
}

/// The port that browsers try first, without TLS. One `bind` may name several addresses.
fn is_plain_http(addresses: &str) -> bool {
    addresses.split(',').all(|address| address.rsplit_once(':').is_some_and(|(_, port)| port == "80"))
}

fn binds(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let certificate =
        wishes.tls_cert.as_ref().map(|path| plain("the certificate", &path.display().to_string()));
    let tls =
        certificate.transpose()?.map_or_else(String::new, |path| format!(" ssl crt {path} alpn h2,http/1.1"));
    // Whoever speaks the PROXY protocol to one of them does so to all.
    let proxy = if config.frontend.proxy_protocol { " accept-proxy" } else { "" };
    let mut lines = String::new();
    if !proxy.is_empty() {
        lines.push_str("  # By the PROXY protocol whoever connects here says which address they come from: let only your proxy and this host in.\n");
    }
    let mut addresses = wishes.bind.clone();
    // An address without a host is one of version 4 alone, and the agent may ask by version 6.
    let (any, both) = match config.frontend.address.is_ipv6() && addresses.is_empty() {
        true => ("[::]", " v4v6"),
        false => ("", ""),
    };
    if addresses.is_empty() {
        let port = config.frontend.address.port();
        if config.frontend.tls_ca.is_some() && tls.is_empty() {
            let _ = writeln!(
                lines,
                "  # With TLS: bind {any}:443{both}{proxy} ssl crt /etc/haproxy/certs/site.pem alpn h2,http/1.1"
            );
        }
        addresses.push(format!("{any}:{port}"));
        if !tls.is_empty() && port == 443 {
            addresses.push(format!("{any}:80"));
        }
    }
    // Beside an address with TLS, port 80 is where visitors come who typed the name: they are sent on.
    let sends_on = !tls.is_empty() && !addresses.iter().all(|address| is_plain_http(address));
    for address in &addresses {
        let tls = if sends_on && is_plain_http(address) { "" } else { tls.as_str() };
        let listed =
            address.split(',').map(|one| plain("the address", one)).collect::<Result<Vec<_>, _>>()?;
        let _ = writeln!(lines, "  bind {}{both}{proxy}{tls}", listed.join(","));
    }
    if sends_on && addresses.iter().any(|address| is_plain_http(address)) {
        if config.frontend.tls_ca.is_none() {
            lines.push_str(
                "  # The agent must ask over TLS then: `address` with the port above and `tls_ca` in [frontend] of lb-agent.toml.\n",
            );
        }
        lines.push_str("  http-request redirect scheme https code 301 if !{ ssl_fc }\n");
    }
    Ok(lines)
}

/// The form of access lines, and who may pick a side: the beginning of every frontend.
fn logged(config: &Config) -> Result<String, Problem> {
    // The agent asks the frontend from loopback, or from the very address it asks.
    let asked = config.frontend.address.ip();
    let own = if asked.is_loopback() || asked.is_unspecified() { String::new() } else { format!(" {asked}") };
    Ok(format!(
        "  # Access lines for the gates. Whatever else this frontend logs to gets them in this form too.
  log ring@pointsman format raw local0
  log-format \"{}\"

  # Who may pick a side: this host and testers. Never an address that NAT or a CDN puts on visitors.
  # A program of this host that brings visitors here, as one that ends TLS before this frontend (nginx, stunnel, a `mode tcp` frontend), speaks the
  # PROXY protocol (`accept-proxy`): else all of them come from loopback, and are testers.
  acl trusted src 127.0.0.0/8 ::1{own}
{}",
        log::FORMAT,
        limits(config)?
    ))
}

/// The tables that are to have a backend each. One in a `peers` section is whoever's who wrote that, with the lines that count in it.
fn own_tables(config: &Config) -> impl Iterator<Item = &TableName> {
    config.haproxy.rate_limit_tables.iter().map(|table| &table.0).filter(|table| table.in_peers().is_none())
}

/// What counts visitors in the tables that the agent may look into. Limiting them is left to whoever knows the site.
fn limits(config: &Config) -> Result<String, Problem> {
    let mut lines = String::new();
    for (number, table) in own_tables(config).enumerate() {
        let table = plain("the table", table.as_str())?;
        if number == 0 {
            lines.push_str("\n  # Counts visitors, never the agent's own checks and testers. The lines with `deny` limit them: the number is yours, one look\n  # at a map asks for hundreds of tiles. Of lines with one number behind `track-sc` only the first counts: where a line of yours\n  # has the same, take another one here. `pointsman doctor lb ENV` names one that is free.\n");
        }
        // From the last: a limit that stands already has most often taken the first.
        let _ = match COUNTERS.checked_sub(number.saturating_add(1)) {
            Some(counter) => writeln!(
                lines,
                "  http-request track-sc{counter} src table {table} unless trusted\n  # http-request deny deny_status 429 if {{ sc_http_req_rate({counter},{table}) gt 1000 }}"
            ),
            None => writeln!(
                lines,
                "  # A request is counted in {COUNTERS} tables at most: `{table}` is not among them."
            ),
        };
    }
    Ok(lines)
}

/// The classes of requests; the header that tells of the agent's own goes no further.
fn classes() -> &'static str {
    "  # What kind of request, for the latency of each kind. The agent's own checks are kept out of the gates.
  http-request set-var(txn.class)  str(other)
  http-request set-var(txn.class)  str(api) if { path_beg /api/ }
  http-request set-var(txn.class)  str(ows) if { path_beg -i /wfs /wms }
  http-request set-var(txn.class)  str(check) if trusted { req.hdr(X-Pointsman) -m found }
  http-request del-header X-Pointsman
"
}

fn frontend(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let haproxy = &config.haproxy;
    let (map, key) = (plain("the map", &haproxy.map_name())?, plain("the key", &haproxy.key)?);
    let maintenance = &haproxy.maintenance_backend.0;
    let binds = binds(config, wishes)?;
    let hold = hold(config)?.map_or_else(String::new, |(lines, _)| format!("  {}\n", lines.frontend));
    let (logged, classes) = (logged(config)?, classes());
    Ok(format!(
        "# ---- 4. Into your frontend, in this order: all but the last three lines before its first `use_backend`, of which HAProxy warns
# otherwise. Its `bind` lines are yours, and redirects and rules for certificates of yours stay above.
frontend fe
  mode http
{binds}
{logged}
  # The whole decision with ONE lookup, then taken apart: stable, canary, percent, epoch. No key means the page.
{hold}  http-request set-var(txn.route)  str({key}),map({map},{maintenance}:{maintenance}:0:0)
  http-request set-var(txn.stable) var(txn.route),field(1,:)
  http-request set-var(txn.canary) var(txn.route),field(2,:)
  http-request set-var(txn.pct)    var(txn.route),field(3,:)
  http-request set-var(txn.epoch)  var(txn.route),field(4,:)

  # Who is it? The id from the cookie; a new id for a browser that asks for a page; else the address, so that programs
  # which keep no cookie stay on one side as well. Lines of one `acl` are alternatives: names that nothing of yours has.
  acl pm_known req.cook(pm_id) -m found
  acl pm_page  req.hdr(Accept) -m sub text/html
  http-request set-var(txn.key)    src
  http-request set-var(txn.newid)  uuid() if pm_page !pm_known
  http-request set-var(txn.key)    var(txn.newid) if {{ var(txn.newid) -m found }}
  http-request set-var(txn.key)    req.cook(pm_id) if pm_known

  # Which side? A bucket 0..99 per id and release against the percent of the moment: raising it moves nobody back. All splits
  # of a release have epochs of one block of 16; the next release begins with other visitors.
  http-request set-var(txn.salt)   var(txn.epoch),div(16)
  http-request set-var(txn.bkt)    var(txn.key),concat(-,txn.salt),xxh32,mod(100)
  http-request set-var(txn.side)   str(stable)
  http-request set-var(txn.side)   str(canary) if {{ var(txn.bkt),sub(txn.pct) lt 0 }}
  http-request set-var(txn.side)   str(canary) if trusted {{ req.hdr(X-Pointsman) -m str canary }}
  http-request set-var(txn.side)   str(stable) if trusted {{ req.hdr(X-Pointsman) -m str stable }}

{classes}
  # `after-response`, so that answers which HAProxy makes itself carry them too. `be=` is the backend that really answered.
  # A browser drops a cookie marked `Secure` that comes without TLS.
  http-after-response add-header Set-Cookie \"pm_id=%[var(txn.newid)]; Path=/; Max-Age=2592000; HttpOnly; Secure; SameSite=Lax\" if {{ var(txn.newid) -m found }} {{ ssl_fc }}
  http-after-response add-header Set-Cookie \"pm_id=%[var(txn.newid)]; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax\" if {{ var(txn.newid) -m found }} !{{ ssl_fc }}
  http-after-response del-header X-Pointsman
  http-after-response set-header X-Pointsman \"epoch=%[var(txn.epoch)] side=%[var(txn.side)] be=%[be_name]\" if {{ var(txn.epoch) -m found }}

  # Instead of your `use_backend` lines for the site. Those for other sites, by their hosts, stay above these.
  use_backend %[var(txn.canary)] if {{ var(txn.side) -m str canary }}
  use_backend %[var(txn.stable)]
  # A name that does not exist falls through to here in silence: a page beats a slot that nobody chose.
  default_backend {maintenance}
"
    ))
}

/// What a frontend needs where states of servers are the route: to tell of its requests, and nothing else.
fn frontend_by_states(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let (binds, logged, classes) = (binds(config, wishes)?, logged(config)?, classes());
    let servers = config.haproxy.servers.values().flatten();
    let pool = servers.map(|server| server.0.backend()).next().ok_or_else(|| {
        Problem::new(
            Code::ConfigInvalid,
            "`driver = \"server-state\"` needs servers, and lb-agent.toml names none",
        )
        .hint("`[haproxy.servers]`: `be_blue = [\"be_app/blue1\"]`, a line for each backend of a route")
    })?;
    Ok(format!(
        "# ---- 4. Into your frontend, before its `use_backend` rules, which stay as they are, as do its `bind` lines. Nothing is looked up:
# by `driver = \"server-state\"` the states of servers are the route.
frontend fe
  mode http
{binds}
{logged}
{classes}
  default_backend {}
",
        plain("the backend", pool)?
    ))
}

/// The backends of HAProxy's that hold the servers of all slots.
fn pools(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let host = plain("the host", wishes.site_host.as_deref().unwrap_or(&config.frontend.host))?;
    let path = plain("the path", wishes.check_path.as_str())?;
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for (slot, names) in &config.haproxy.servers {
        let mut addresses = wishes.servers.iter().filter(|server| server.backend == slot.0);
        for name in names.iter().map(|name| &name.0) {
            let server = name.server();
            let line = match addresses.next() {
                Some(found) => format!("  server {server} {} {CHECK}\n", found.address),
                None => format!("  # server {server} <address>:<port> {CHECK}\n"),
            };
            lines.entry(name.backend()).or_default().push_str(&line);
        }
        if let Some(over) = addresses.next() {
            let message = format!("`--server {}={}` has no name in lb-agent.toml", slot.0, over.address);
            return Err(Problem::new(Code::UsageWrong, message)
                .hint("one for each server that `[haproxy.servers]` names for the slot, in that order"));
        }
    }
    let mut text = "# ---- 5. The backends that hold the servers of all slots, all checked all the time. No `cookie`, no `stick`. Any other server in them
# would get its part of the visitors whatever the route.\n"
        .to_owned();
    for (backend, servers) in lines {
        let _ = writeln!(
            text,
            "backend {}
  mode http
  balance leastconn
  option httpchk
  http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {host}
  http-check expect status 200
{servers}",
            plain("the backend", backend)?
        );
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// The tables of rate limits.
fn tables(config: &Config) -> Result<Option<String>, Problem> {
    let mut text = "# ---- 7. Tables of rate limits, each in a backend of its own, so that it has a name. Type `ipv6` holds both kinds of addresses. With
# `peers` they outlive a reload: docs/haproxy.md.\n"
        .to_owned();
    for table in own_tables(config) {
        let _ = writeln!(
            text,
            "backend {}\n  stick-table type ipv6 size 100k expire 10m store http_req_rate(10s)\n",
            plain("the table", table.as_str())?
        );
    }
    let wanted = own_tables(config).next().is_some();
    Ok(wanted.then(|| text.trim_end().to_owned() + "\n"))
}

fn slots(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let host = plain("the host", wishes.site_host.as_deref().unwrap_or(&config.frontend.host))?;
    let path = plain("the path", wishes.check_path.as_str())?;
    let mut text = "# ---- 5. One backend for each slot, all checked all the time, the idle ones too. No `cookie`, no `stick`, no weights. They take your\n# backend's place: copy its time-outs and headers into each, and `ssl`, `verify`, `send-proxy` of its servers.\n".to_owned();
    for backend in config.haproxy.backends.iter().map(|name| &name.0) {
        if *backend == config.haproxy.maintenance_backend.0 {
            continue;
        }
        let _ = write!(
            text,
            "backend {backend}
  mode http
  balance leastconn
  option httpchk
  http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {host}
  http-check expect status 200
"
        );
        let servers = wishes.servers.iter().filter(|server| server.backend == *backend);
        let mut number = 0u32;
        for server in servers {
            number = number.saturating_add(1);
            let _ = writeln!(text, "  server s{number} {} {CHECK}", server.address);
        }
        if number == 0 {
            let _ = writeln!(text, "  # server s1 <address>:<port> {CHECK}");
        }
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

fn page(config: &Config, wishes: &Wishes) -> Result<String, Problem> {
    let page = match &wishes.page {
        Some(path) => format!("file {}", plain("the page", &path.display().to_string())?),
        None => PLAIN_PAGE.to_owned(),
    };
    let held = hold(config)?.map_or_else(String::new, |(_, backend)| {
        format!(
            "\n# Who has waited for long while databases are swapped gets this.\nbackend {backend}\n  mode http\n  {}\n",
            page_line(&page, 5)
        )
    });
    Ok(format!(
        "# ---- 6. The page while the map says so. Needs no server. A page of your own: `file PATH` instead of `string ...`, under
# 15 KiB; HAProxy reads it at start and reload.
backend {}
  mode http
  {}
{held}",
        config.haproxy.maintenance_backend.0,
        page_line(&page, 120)
    ))
}
