//! The preflight of the load balancer: whether HAProxy, its sockets, its map and its configuration are what a switch
//! needs. Every finding says what was found, why it matters and which line to add; what could not be looked at is
//! `unknown`, never well.
//!
//! Looking is in [`seen`]; every check is a pure function over what was seen. Nothing is changed.

mod backends;
mod comparison;
mod driver;
mod frontend;
pub(crate) mod log;
mod map;
pub(crate) mod page;
mod part;
mod process;
mod rate_tables;
mod reach;
mod reload;
pub mod seen;
mod sockets;
mod trusted;

use std::net::SocketAddr;

use pointsman_core::Problem;
use pointsman_proto::v1;

use crate::balancer::Balancer;
use crate::config::Driver;
use crate::haproxy_cfg::{HaproxyConfig, Section};
use seen::{Seen, Written};

/// Longest text of a finding, in characters: a hundred times the usual, so that all of them fit into one message.
const MAX_TEXT_CHARS: usize = 8_000;

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Unknown,
    /// It works, and will do harm one day.
    Warn,
    /// A switch would not work, or visitors would notice it.
    Fail,
}

impl Verdict {
    /// As the wire names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of the check.
    pub check: &'static str,
    /// What it says.
    pub verdict: Verdict,
    /// What was found, and where.
    pub what: String,
    /// Why it matters; empty if all is well.
    pub why: &'static str,
    /// Where to put what: a first line with the place, then the lines to add. Empty if there is nothing to do.
    pub fix: String,
}

/// What a check found.
struct Said {
    verdict: Verdict,
    what: String,
    fix: String,
}

impl Said {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), fix: String::new() }
    }

    fn unknown(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, what: what.into(), fix: fix.into() }
    }

    fn warn(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, what: what.into(), fix: fix.into() }
    }

    fn fail(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, what: what.into(), fix: fix.into() }
    }
}

/// What a check looks at.
enum Look {
    /// What HAProxy and the system say.
    Live(fn(&Seen) -> Result<Said, &Problem>),
    /// What stands in HAProxy's configuration files.
    Written(fn(&Seen, &Written) -> Said),
}

use Look::{Live, Written as InFiles};

/// Every check: its stable name, why it matters, and how it looks. In the order of a person who sets HAProxy up.
const CHECKS: &[(&str, &str, Look)] = &[
    (
        "version",
        "pointsman is tried with HAProxy 2.4 to 3.2: others may answer otherwise",
        Live(process::version),
    ),
    ("config-readable", "what cannot be read cannot be checked", Live(process::config_readable)),
    (
        "config-loaded",
        "the findings below are about the files, visitors are served by what was loaded",
        InFiles(process::config_loaded),
    ),
    (
        "failed-reloads",
        "HAProxy goes on with the configuration before, and would not start with this one",
        Live(process::failed_reloads),
    ),
    (
        "maxconn",
        "`haproxy -c` does not notice connections that the file limit cannot hold: the start then fails",
        InFiles(process::maxconn),
    ),
    (
        "bufsize",
        "a certificate goes through one of HAProxy's buffers, whole: HAProxy 2.6 hangs on one that is too long, so it is refused before",
        InFiles(process::bufsize),
    ),
    (
        "ocsp",
        "visitors are not told that the certificate was not revoked, and HAProxy warns at its next start",
        Live(process::responses),
    ),
    ("socket-level", "below `admin` HAProxy refuses the commands of a switch", Live(sockets::level)),
    ("socket-mode", "whoever can open the socket can move visitors and stop servers", Live(sockets::mode)),
    (
        "other-sockets",
        "up to HAProxy 3.3 every stats socket can change maps, whatever its level, and so move visitors unseen",
        Live(sockets::others),
    ),
    (
        "socket-clients",
        "a client that finds no place waits for up to `stats timeout`: other programs' could keep a rollback out",
        InFiles(sockets::clients),
    ),
    (
        "master-socket",
        "after a reload old workers serve their open connections; only through the master do they hear of a switch",
        Live(sockets::master),
    ),
    (
        "driver",
        "one key of a map moves everybody with one write; states of servers take several, and can do less",
        Live(driver::fits),
    ),
    ("map-loaded", "the switch sets a key of this map", Live(map::loaded)),
    (
        "map-one-entry",
        "of two entries the first wins, and which is first changes with a reload",
        Live(map::one_entry),
    ),
    ("map-on-disk", "the next reload takes the route from the file", Live(map::on_disk)),
    (
        "mode",
        "a backend that the route names in `mode tcp` answers nobody: HAProxy closes every visitor's connection, and `haproxy -c` does not notice",
        InFiles(frontend::mode),
    ),
    (
        "route-lookup",
        "a request that looks twice may see half of a switch: one answer from the old slot, the next from the new",
        InFiles(frontend::lookup),
    ),
    (
        "lookup-default",
        "without the key this is the route of all visitors: a slot here is one that nobody chose",
        InFiles(frontend::lookup_default),
    ),
    (
        "default-backend",
        "a route to a backend that does not exist falls through to here in silence",
        InFiles(frontend::default_backend),
    ),
    (
        "one-backend",
        "a slot is one backend: errors and health of others are in no verdict, and nobody waits for their requests to end",
        InFiles(frontend::one_backend),
    ),
    (
        "route-reached",
        "a rule that takes visitors before the route does keeps them where they are: a switch moves none of them",
        InFiles(reach::rules_before),
    ),
    (
        "path-answered",
        "a deploy is refused (PM0110) while another backend than the route's answers; what a frontend answers itself shows that the route was looked up, not where it leads",
        Live(reach::asked),
    ),
    (
        "slot-entrances",
        "visitors who reach a slot without the route stay on it, and a release overwrites it under them",
        InFiles(reach::entrances),
    ),
    (
        "cache",
        "what HAProxy keeps of the slot before is answered after a switch, as if it were of the new one",
        InFiles(reach::cache),
    ),
    ("canary", "without the percent no share of visitors can go to a canary", InFiles(frontend::canary)),
    (
        "route-shown",
        "a switch is called done when answers show it, those that HAProxy makes itself too",
        InFiles(frontend::route_shown),
    ),
    (
        "visitors-header",
        "an application that is asked with `X-Pointsman` may answer as if to a tester",
        InFiles(frontend::header_removed),
    ),
    (
        "own-frontend",
        "an address that moves between load balancers leads to another one's frontend: a switch is refused, as it would be seen there",
        Live(trusted::own_frontend),
    ),
    (
        "side-trusted",
        "whoever may send `X-Pointsman` picks the slot: a release could be seen before it is checked",
        InFiles(trusted::side),
    ),
    (
        "trusted-addresses",
        "the agent checks the idle slot from its own address; with an address that visitors share, each is a tester",
        InFiles(trusted::addresses),
    ),
    (
        "source-address",
        "whoever comes, or can say that they come, from a trusted address picks the slot",
        InFiles(trusted::source),
    ),
    (
        "rate-limit",
        "a check that is refused as one too many fails, and turns a good release back",
        InFiles(trusted::limits),
    ),
    (
        "rate-tables",
        "`traffic limits` shows nobody, and a limit by this table never refuses anybody",
        InFiles(rate_tables::counted),
    ),
    (
        "backends-present",
        "a route may name these, and falls to the page for one that is missing",
        Live(backends::present),
    ),
    ("backend-servers", "a switch to a slot without healthy servers is refused", Live(backends::servers)),
    (
        "server-check",
        "HAProxy counts a server without checks as up, dead or not",
        InFiles(backends::server_check),
    ),
    ("httpchk", "an open port is no application that answers", InFiles(backends::httpchk)),
    (
        "cookie-persistence",
        "the cookie holds visitors on the server they were on, through `drain` and weight 0: they stay on the old slot",
        InFiles(backends::cookies),
    ),
    (
        "stick-persistence",
        "the table holds visitors on the server they were on, through `drain` and weight 0",
        InFiles(backends::sticks),
    ),
    (
        "balance",
        "a static algorithm refuses weights between 0 and 100 % at run time, and pins clients to one server",
        InFiles(backends::balance),
    ),
    (
        "retry-on",
        "a failed answer that is asked for again hides errors of the release from checks and gates",
        InFiles(backends::retry_on),
    ),
    (
        "redispatch",
        "a connection that fails is tried again on the same dead server until its check has failed",
        InFiles(backends::redispatch),
    ),
    (
        "idle-close-on-response",
        "a reload loses requests of clients that reuse a connection",
        InFiles(reload::idle_close),
    ),
    (
        "close-spread-time",
        "it undoes `option idle-close-on-response`: a reload loses requests again",
        InFiles(reload::close_spread),
    ),
    (
        "hard-stop-after",
        "without it an old worker lives as long as its longest WebSocket; too short, it cuts idle clients",
        InFiles(reload::hard_stop),
    ),
    (
        "log-ring",
        "gates count the access lines; UDP and unix datagrams lose some under load",
        InFiles(log::ring),
    ),
    (
        "log-format",
        "a line of another form cannot be counted, and what visitors write into lines may be taken for what others met",
        InFiles(log::format),
    ),
    (
        "log-asap",
        "a line is then written before its times are known, and no latency can be judged",
        InFiles(log::asap),
    ),
    (
        "maintenance-page",
        "visitors get this page in maintenance; one over HAProxy's buffer stops its next start",
        InFiles(page::page),
    ),
    (
        "hold",
        "while databases are swapped requests would meet errors, or the page, instead of waiting",
        InFiles(page::hold),
    ),
];

/// What only a map needs: where servers' states move visitors there is none, and no line that looks it up.
const OF_THE_MAP: [&str; 19] = [
    "map-loaded",
    "map-one-entry",
    "map-on-disk",
    "route-lookup",
    "lookup-default",
    "default-backend",
    "one-backend",
    "route-reached",
    "path-answered",
    "slot-entrances",
    "canary",
    "route-shown",
    "visitors-header",
    "side-trusted",
    "trusted-addresses",
    "source-address",
    "rate-limit",
    "maintenance-page",
    "hold",
];

/// Every finding, the good ones too.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let by_states = seen.wanted.driver == Driver::ServerState;
    CHECKS
        .iter()
        .filter(|(check, _, _)| !by_states || !OF_THE_MAP.contains(check))
        .map(|(check, why, look)| {
            let said = match look {
                Live(look) => look(seen)
                    .unwrap_or_else(|problem| Said::unknown(problem.message.clone(), problem.hint.clone())),
                InFiles(look) => match &seen.written {
                    Ok(written) => look(seen, written),
                    Err(_) => Said::unknown("not looked at: HAProxy's configuration cannot be read", ""),
                },
            };
            let why = if said.verdict == Verdict::Ok { "" } else { why };
            Finding { check, verdict: said.verdict, what: said.what, why, fix: said.fix }
        })
        .collect()
}

/// Looks, and says what was found as the wire has it. `log_to` is where the agent takes access lines in.
pub async fn diagnose(balancer: &Balancer, log_to: Option<SocketAddr>) -> Vec<v1::Finding> {
    let seen = seen::look(balancer, log_to).await;
    let wire = |finding: Finding| v1::Finding {
        verdict: finding.verdict.word().to_owned(),
        what: shown(&finding.what),
        why: finding.why.to_owned(),
        fix: shown(&finding.fix),
        check: finding.check.to_owned(),
        ..Default::default()
    };
    examine(&seen).into_iter().map(wire).collect()
}

/// Text of files and sockets, fit for a message and a terminal.
fn shown(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    text.chars().take(MAX_TEXT_CHARS).map(harmless).collect()
}

/// A line to add, with the section it belongs to.
fn add_to(section: &Section, lines: &str) -> String {
    format!("add to `{}` ({}):\n{}", section.title(), section.place, indented(lines))
}

/// A line to add to `global`, where there is one.
fn add_to_global(config: &HaproxyConfig, lines: &str) -> String {
    match config.sections(&["global"]).next() {
        Some(section) => add_to(section, lines),
        None => format!("add at the top of HAProxy's configuration:\nglobal\n{}", indented(lines)),
    }
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// A list for people: `a`, `b`.
fn listed<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}
