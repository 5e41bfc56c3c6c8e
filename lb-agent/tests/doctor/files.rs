//! Checks of what stands in HAProxy's configuration: the fragment has everything, and lacks one thing in each case.

mod lines;
mod routing;
mod slots;
mod visitors;

use pointsman_core::{Code, Problem};
use pointsman_lb_agent::doctor::Verdict::{self, Fail, Ok as Well, Unknown, Warn};
use pointsman_lb_agent::doctor::examine;

use crate::world::{config, fragment, must_say, not_well, said, seen, wishes};

/// One change of the fragment, and what a check says of it.
struct Case {
    check: &'static str,
    /// What is replaced in the fragment; empty to add at its end.
    from: &'static str,
    to: &'static str,
    verdict: Verdict,
    what: &'static str,
    fix: &'static str,
}

const fn case(
    check: &'static str,
    (from, to): (&'static str, &'static str),
    verdict: Verdict,
    what: &'static str,
    fix: &'static str,
) -> Case {
    Case { check, from, to, verdict, what, fix }
}

const SHOW: &str = "http-after-response set-header X-Pointsman";
const BLUE: &str = "backend be_blue\n  mode http\n  balance leastconn\n";
const BLUE_SERVER: &str = "10.0.0.11:8080 check";
const LOG: &str = "log ring@pointsman format raw local0";
const STABLE: &str = "  use_backend %[var(txn.stable)]";
const CANARY: &str = "  use_backend %[var(txn.canary)] if { var(txn.side)";
const PAGE: &str =
    "string \"<!doctype html><title>Maintenance</title><h1>We are back in a few minutes</h1>\"";

const CASES: &[Case] = &[
    // The page.
    case(
        "maintenance-page",
        (PAGE, "file /big.html"),
        Fail,
        "15361 bytes long, more than 15360",
        "make it smaller",
    ),
    case("maintenance-page", (PAGE, "file /just.html"), Well, "", ""),
    case("maintenance-page", (PAGE, "file /hidden.html"), Unknown, "permission denied", "chmod a+r"),
    case("maintenance-page", ("status 503", "status 200"), Warn, "status 200", "status 503"),
    case(
        "maintenance-page",
        ("http-request return", "#"),
        Warn,
        "bare 503",
        "http-request return status 503",
    ),
    case(
        "maintenance-page",
        ("\nbackend be_maint\n", "\nbackend be_other\n"),
        Fail,
        "no `backend be_maint`",
        "backend be_maint",
    ),
    case("maintenance-page", ("stats timeout 30s", "tune.bufsize 32768"), Well, "", ""),
    // Who gets to the socket.
    case(
        "socket-clients",
        ("  stats maxconn 100\n", ""),
        Warn,
        "10 clients at a time",
        "add to `global` (haproxy.cfg:",
    ),
    case(
        "socket-clients",
        ("stats maxconn 100", "stats maxconn 20"),
        Warn,
        "20 clients at a time",
        "  stats maxconn 100",
    ),
    case("socket-clients", ("stats maxconn 100", "stats maxconn 60"), Well, "60 clients", ""),
    case("maxconn", ("stats timeout 30s", "maxconn 50000"), Warn, "needs 100040 files", "LimitNOFILE=100040"),
    case("maxconn", ("stats timeout 30s", "maxconn 5000"), Well, "", ""),
];

#[test]
fn nothing_is_wrong_with_the_fragment() {
    assert_eq!(not_well(&seen(&fragment())), []);
}

#[test]
fn every_check_of_the_files_notices_what_it_is_for() {
    let all = [CASES, lines::CASES, routing::CASES, slots::CASES, visitors::CASES];
    for (index, case) in all.into_iter().flatten().enumerate() {
        let text = fragment();
        assert!(text.contains(case.from), "case {index}: `{}` is not in the fragment", case.from);
        let changed = text.replacen(case.from, case.to, 1);
        println!("case {index}: {} {:?}", case.check, case.to);
        must_say(&seen(&changed), case.check, case.verdict, case.what, case.fix);
    }
}

#[test]
fn a_part_that_counts_on_a_condition_is_marked() {
    let text = fragment()
        .replace("close-spread", "")
        .replace("  stats timeout 30s\n", ".if version_atleast(2.6)\n  close-spread-time 3s\n.endif\n");
    must_say(&seen(&text), "close-spread-time", Fail, "(within `.if`)", "remove at");
}

#[test]
fn the_example_has_nothing_that_fails() {
    let mut seen = seen(include_str!("example.cfg"));
    seen.wanted.map = "/var/lib/pointsman/route.map".into();
    seen.wanted.socket = pointsman_chassis::config::Parsed("/run/haproxy/pointsman.sock".parse().unwrap());
    seen.maps = Ok(vec!["/var/lib/pointsman/route.map".to_owned()]);
    let socket = pointsman_lb_agent::reply::CliSocket {
        address: "unix@/run/haproxy/pointsman.sock".to_owned(),
        level: "admin".to_owned(),
    };
    seen.sockets = Ok(vec![socket]);
    // It is of before the count of retries, before the backend was shown, and before visitors took turns.
    assert_eq!(
        not_well(&seen),
        [("socket-clients", "warn"), ("canary", "warn"), ("route-shown", "warn"), ("log-format", "warn")]
    );
}

#[test]
fn a_firewalls_configuration_is_told_what_it_lacks() {
    let mut seen = seen(include_str!("opnsense.cfg"));
    seen.maps = Ok(Vec::new());
    seen.entries = Ok(Vec::new());
    let found = not_well(&seen);
    let expected = [
        ("socket-clients", "warn"),
        ("map-loaded", "fail"),
        ("map-one-entry", "fail"),
        ("map-on-disk", "fail"),
        ("route-lookup", "fail"),
        ("lookup-default", "unknown"),
        ("default-backend", "unknown"),
        ("one-backend", "unknown"),
        ("route-reached", "unknown"),
        ("path-answered", "unknown"),
        ("slot-entrances", "unknown"),
        ("canary", "unknown"),
        ("route-shown", "unknown"),
        ("visitors-header", "unknown"),
        ("side-trusted", "unknown"),
        ("trusted-addresses", "unknown"),
        ("source-address", "unknown"),
        ("rate-limit", "unknown"),
        ("server-check", "fail"),
        ("httpchk", "warn"),
        // No map decides: here cookies do.
        ("cookie-persistence", "fail"),
        ("stick-persistence", "fail"),
        ("balance", "warn"),
        ("retry-on", "warn"),
        ("idle-close-on-response", "fail"),
        ("hard-stop-after", "fail"),
        ("log-ring", "fail"),
        ("log-format", "fail"),
        ("maintenance-page", "fail"),
    ];
    assert_eq!(found, expected);
    must_say(
        &seen,
        "cookie-persistence",
        Fail,
        "haproxy.cfg:37",
        "remove at haproxy.cfg:37:\n  cookie SRVCOOKIE insert indirect nocache",
    );
    must_say(&seen, "cookie-persistence", Fail, "haproxy.cfg:46", "remove at haproxy.cfg:46:");
    must_say(
        &seen,
        "route-lookup",
        Fail,
        "no map at all",
        "add to `frontend site` (haproxy.cfg:26):\n  http-request set-var(txn.route)",
    );
    must_say(&seen, "retry-on", Warn, "haproxy.cfg:22", "retry-on conn-failure");
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_well() {
    let mut seen = seen("");
    let problem =
        Problem::new(Code::ConfigInvalid, "cannot read `/etc/haproxy/haproxy.cfg`: permission denied");
    seen.written = Err(problem.hint("on the load balancer: `chgrp pointsman /etc/haproxy/haproxy.cfg`"));
    must_say(&seen, "config-readable", Unknown, "permission denied", "chgrp pointsman");
    let of_files = CASES.iter().map(|case| case.check);
    for check in of_files {
        assert_eq!(said(&seen, check).verdict, Unknown, "{check}");
    }
}

#[test]
fn files_that_are_not_haproxys_are_not_taken_for_them() {
    must_say(&seen("# nothing\n"), "config-readable", Unknown, "no frontend stands in", "config = [");
    let bad: Vec<_> =
        examine(&seen("")).into_iter().filter(|finding| finding.check == "server-check").collect();
    assert_eq!(bad[0].verdict, Unknown);
}

#[test]
fn checks_have_names_of_their_own() {
    let mut names: Vec<&str> = examine(&seen("")).iter().map(|finding| finding.check).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn what_holds_requests_is_looked_for_where_they_are_to_be_held() {
    must_say(&seen(&fragment()), "hold", Well, "not held", "");
    let held = |text: &str| {
        let mut seen = seen(text);
        seen.wanted.hold_backend = Some(pointsman_chassis::config::Parsed("be_hold".parse().unwrap()));
        seen.backends = Ok(["be_blue", "be_green", "be_maint", "be_hold"].map(str::to_owned).to_vec());
        seen
    };
    let mut config = config("/lb", "127.0.0.1:80");
    config.haproxy.hold_backend = held("").wanted.hold_backend;
    let text = pointsman_lb_agent::snippet(&config, &wishes("10.0.0.11:8080", "10.0.0.12:8080")).unwrap();
    assert_eq!(not_well(&held(&text)), []);
    let (load, ask) = ("  lua-load /etc/haproxy/pointsman-hold.lua", "  http-request lua.pointsman_hold");
    must_say(&held(&text.replace(load, "#")), "hold", Fail, "nothing is loaded", "lua-load");
    must_say(
        &held(&text.replace(ask, "#")),
        "hold",
        Fail,
        "holds no requests",
        "http-request lua.pointsman_hold",
    );
    let mut without = held(&text);
    without.backends = seen(&text).backends;
    must_say(&without, "backends-present", Fail, "has no `be_hold`", "backend be_hold");
}
