//! A load balancer on which all is well, as it is seen, and what the checks say when something is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_chassis::http_check::Answer;
use pointsman_core::Route;
use pointsman_lb_agent::doctor::seen::{Owner, Seen, Written};
use pointsman_lb_agent::doctor::{Finding, Verdict, examine};
use pointsman_lb_agent::driver_fit;
use pointsman_lb_agent::haproxy_cfg::HaproxyConfig;
use pointsman_lb_agent::reply::{CliSocket, Info, Limits, Processes, StatRow};
use pointsman_lb_agent::{Config, Wishes, snippet};

pub const ROUTE: &str = "be_blue:be_green:5:40";

/// lb-agent.toml of a load balancer whose parts stand in `folder`.
pub fn config(folder: &str, frontend: &str) -> Config {
    let text = format!(
        r#"listen = "127.0.0.1:1"
state = "{folder}"
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
config = "{folder}/haproxy.cfg"
socket = "{folder}/pointsman.sock"
master = "{folder}/master.sock"
map = "{folder}/route.map"
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
[frontend]
address = "{frontend}"
host = "www.example.org"
"#
    );
    pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap()
}

/// What the fragment is made of, with a server for each slot.
pub fn wishes(blue: &str, green: &str) -> Wishes {
    let server = |backend: &str, address: &str| format!("{backend}={address}").parse().unwrap();
    Wishes {
        bind: Vec::new(),
        servers: vec![server("be_blue", blue), server("be_green", green)],
        check_path: "/api/health".parse().unwrap(),
        site_host: None,
        tls_cert: None,
        page: None,
        log: None,
        group: None,
    }
}

/// The fragment for a usual load balancer: most tests begin with it.
pub fn fragment() -> String {
    snippet(&config("/lb", "127.0.0.1:80"), &wishes("10.0.0.11:8080", "10.0.0.12:8080")).unwrap()
}

fn row(backend: &str, server: &str) -> StatRow {
    StatRow {
        backup: false,
        backend: backend.to_owned(),
        server: server.to_owned(),
        status: "UP".to_owned(),
        check_status: "L7OK".to_owned(),
        ..StatRow::default()
    }
}

pub fn written(text: &str) -> Written {
    Written {
        config: HaproxyConfig::parse([("haproxy.cfg", text)]),
        files: vec![PathBuf::from("haproxy.cfg")],
        gone: Vec::new(),
        new: Vec::new(),
        changed: Some(Duration::from_secs(300)),
        pages: BTreeMap::from([
            ("/etc/haproxy/pages/maintenance.html".to_owned(), Ok(700)),
            ("/big.html".to_owned(), Ok(15_361)),
            ("/just.html".to_owned(), Ok(15_360)),
            ("/hidden.html".to_owned(), Err("permission denied".to_owned())),
        ]),
    }
}

/// All is well, with this configuration.
pub fn seen(text: &str) -> Seen {
    let socket = CliSocket { address: "unix@/lb/pointsman.sock".to_owned(), level: "admin".to_owned() };
    let pair = CliSocket { address: "sockpair@4".to_owned(), level: "admin".to_owned() };
    Seen {
        wanted: config("/lb", "127.0.0.1:80").haproxy,
        host: "www.example.org".to_owned(),
        asked: "127.0.0.1:80".parse().unwrap(),
        proxy_protocol: false,
        path: "/".to_owned(),
        answer: Ok(Answer { status: 200, pointsman: Some("epoch=40 side=stable be=be_blue".to_owned()) }),
        source: Some("127.0.0.1".parse().unwrap()),
        elsewhere: None,
        log_to: Some("127.0.0.1:5515".parse().unwrap()),
        info: Ok(Info {
            pid: 1,
            version: "2.6.12-1+deb12u3".to_owned(),
            stopping: false,
            uptime_s: 200,
            started_s: None,
        }),
        loaded: Some(vec![PathBuf::from("haproxy.cfg")]),
        limits: Ok(Limits { files: 20_000, connections: 4_000 }),
        level: Ok("admin".to_owned()),
        sockets: Ok(vec![socket, pair]),
        socket_file: Ok(Owner { mode: 0o660, uid: 0, gid: 77 }),
        master_file: Some(Ok(Owner { mode: 0o660, uid: 0, gid: 77 })),
        own: (7, 77),
        processes: Some(Ok(Processes { workers: vec![1], old_workers: vec![], failed_reloads: 0 })),
        maps: Ok(vec!["/lb/route.map".to_owned()]),
        entries: Ok(vec![("route".to_owned(), ROUTE.to_owned())]),
        values: BTreeMap::new(),
        unkept: None,
        on_disk: Route::parse(ROUTE).ok(),
        confirmed: Route::parse(ROUTE).ok(),
        begun: None,
        backends: Ok(["be_blue", "be_green", "be_maint"].map(str::to_owned).to_vec()),
        rows: Ok(vec![
            row("be_blue", "s1"),
            row("be_blue", "BACKEND"),
            row("be_green", "s1"),
            row("be_green", "BACKEND"),
        ]),
        fit: Ok(driver_fit(&pointsman_lb_agent::Seen {
            map_entries: Some(1),
            shows_epoch: true,
            ..Default::default()
        })),
        certificates: Vec::new(),
        foreign_responses: Vec::new(),
        written: Ok(written(text)),
    }
}

/// What one check says.
pub fn said(seen: &Seen, check: &str) -> Finding {
    let found: Vec<Finding> = examine(seen).into_iter().filter(|finding| finding.check == check).collect();
    match found.as_slice() {
        [one] => one.clone(),
        _ => panic!("{} findings of {check}", found.len()),
    }
}

/// A check must say this, with these words in what it found and in what is to be done.
#[track_caller]
pub fn must_say(seen: &Seen, check: &str, verdict: Verdict, what: &str, fix: &str) {
    let finding = said(seen, check);
    assert_eq!(finding.verdict, verdict, "{finding:#?}");
    assert!(finding.what.contains(what), "no `{what}` in {finding:#?}");
    assert!(finding.fix.contains(fix), "no `{fix}` in {finding:#?}");
    assert_eq!(finding.why.is_empty(), verdict == Verdict::Ok, "{finding:#?}");
    let to_do = matches!(verdict, Verdict::Warn | Verdict::Fail);
    assert!(!to_do || !finding.fix.is_empty(), "{finding:#?}");
    assert!(finding.what.chars().next().is_some_and(|c| !c.is_whitespace()) && !finding.what.ends_with('.'));
}

/// The checks that do not say `ok`.
pub fn not_well(seen: &Seen) -> Vec<(&'static str, &'static str)> {
    let bad = examine(seen).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    bad.map(|finding| (finding.check, finding.verdict.word())).collect()
}
