//! The slots' servers, what keeps visitors on one, and what a reload does to them.

use pointsman_lb_agent::doctor::Verdict::{Fail, Ok as Well, Unknown, Warn};

use super::{BLUE, BLUE_SERVER, Case, case};
use crate::world::{fragment, must_say, seen};

pub(super) const CASES: &[Case] = &[
    // Servers.
    case(
        "server-check",
        (BLUE_SERVER, "10.0.0.11:8080"),
        Fail,
        "`s1` of `be_blue` without `check`",
        "  server s1 10.0.0.11:8080",
    ),
    case(
        "server-check",
        (BLUE_SERVER, "10.0.0.11:8080 track be_green/s1 weight 10"),
        Fail,
        "without `check`",
        "server s1 10.0.0.11:8080 weight 10 inter",
    ),
    case(
        "server-check",
        (BLUE_SERVER, "10.0.0.11:8080 no-check"),
        Fail,
        "without `check`",
        "server s1 10.0.0.11:8080 inter",
    ),
    case("server-check", (BLUE, "backend be_blue\n  mode http\n  default-server check\n"), Well, "", ""),
    // A `default-server` counts for the servers below it, and the last one above them.
    case(
        "server-check",
        (BLUE_SERVER, "10.0.0.11:8080\n  default-server check"),
        Fail,
        "`s1` of `be_blue` without `check`",
        "  server s1 10.0.0.11:8080 check",
    ),
    case(
        "server-check",
        (
            BLUE,
            "backend be_blue\n  mode http\n  default-server check\n  default-server no-check\n  server s0 10.0.0.11:8080\n",
        ),
        Fail,
        "`s0` of `be_blue` without `check`",
        "  server s0 10.0.0.11:8080 check",
    ),
    case(
        "server-check",
        (
            BLUE,
            "backend be_blue\n  mode http\n  default-server check\n  default-server inter 1s\n  server s0 10.0.0.11:8080\n",
        ),
        Well,
        "",
        "",
    ),
    case("httpchk", (BLUE, "backend be_blue\n  mode http\n  no option httpchk\n"), Well, "", ""),
    case("httpchk", ("  option httpchk\n", ""), Warn, "checked by connecting only", "option httpchk"),
    // What keeps visitors where they were.
    case(
        "cookie-persistence",
        (BLUE, "backend be_blue\n  mode http\n  cookie SRV insert indirect\n"),
        Warn,
        "`cookie SRV insert indirect` pins",
        "remove at haproxy.cfg:",
    ),
    case(
        "cookie-persistence",
        ("defaults\n", "defaults\n  cookie SRV prefix\n"),
        Warn,
        "`cookie SRV prefix` pins",
        "  cookie SRV prefix",
    ),
    case("cookie-persistence", (BLUE, "backend be_blue\n  mode http\n  cookie SRV\n"), Well, "", ""),
    case(
        "stick-persistence",
        (BLUE, "backend be_blue\n  mode http\n  stick on src\n"),
        Warn,
        "`stick on src` pins",
        "remove at haproxy.cfg:",
    ),
    case(
        "stick-persistence",
        (BLUE, "backend be_blue\n  mode http\n  stick-table type ip size 1k\n  stick store-request src\n"),
        Well,
        "",
        "",
    ),
    case(
        "balance",
        ("balance leastconn", "balance source"),
        Warn,
        "`balance source` of `be_blue` is static",
        "at haproxy.cfg:",
    ),
    case("balance", ("balance leastconn", "balance hdr(User-Agent)"), Warn, "is static", "balance leastconn"),
    case(
        "balance",
        ("balance leastconn", "balance static-rr\n  hash-type consistent"),
        Warn,
        "is static",
        "balance leastconn",
    ),
    case(
        "balance",
        ("balance leastconn", "balance uri\n  hash-type consistent"),
        Warn,
        "pins clients",
        "balance leastconn",
    ),
    case("balance", ("balance leastconn", "balance roundrobin"), Well, "", ""),
    case("balance", ("  balance leastconn\n", ""), Well, "", ""),
    case(
        "retry-on",
        ("retries 3", "retries 3\n  retry-on conn-failure 503"),
        Warn,
        "`503`",
        "retry-on conn-failure",
    ),
    case(
        "retry-on",
        (BLUE, "backend be_blue\n  mode http\n  retry-on all-retryable-errors\n"),
        Warn,
        "`all-retryable-errors`",
        "retry-on conn-failure",
    ),
    case("retry-on", ("retries 3", "retry-on conn-failure 0rtt-rejected"), Well, "", ""),
    case("redispatch", ("  option redispatch\n", ""), Well, "", ""),
    // Reload.
    case(
        "idle-close-on-response",
        ("  option idle-close-on-response\n", ""),
        Fail,
        "not in effect for `frontend fe`",
        "add to `defaults` (haproxy.cfg:",
    ),
    case(
        "idle-close-on-response",
        ("frontend fe\n", "frontend fe\n  no option idle-close-on-response\n"),
        Fail,
        "switched off at",
        "add to `frontend fe`",
    ),
    case(
        "idle-close-on-response",
        ("frontend fe\n", "defaults two\n  mode http\nfrontend fe\n"),
        Fail,
        "not in effect",
        "add to `defaults two`",
    ),
    case(
        "close-spread-time",
        ("hard-stop-after 60s", "hard-stop-after 60s\n  close-spread-time 5s"),
        Fail,
        "`close-spread-time 5s`",
        "remove at haproxy.cfg:",
    ),
    case("hard-stop-after", ("  hard-stop-after 60s\n", ""), Warn, "not set", "hard-stop-after 60s"),
    case(
        "hard-stop-after",
        ("hard-stop-after 60s", "hard-stop-after 30s"),
        Fail,
        "not longer than `timeout http-keep-alive 30s`",
        "hard-stop-after 60s",
    ),
    case(
        "hard-stop-after",
        ("timeout http-keep-alive 30s", "timeout http-keep-alive 90000"),
        Fail,
        "`timeout http-keep-alive 90000`",
        "hard-stop-after 180s",
    ),
    case(
        "hard-stop-after",
        ("  timeout http-request 10s\n  timeout http-keep-alive 30s\n", "  timeout client 2m\n"),
        Fail,
        "`timeout client 2m`",
        "hard-stop-after 240s",
    ),
    case(
        "hard-stop-after",
        ("hard-stop-after 60s", "hard-stop-after ${STOP}"),
        Unknown,
        "no length of time",
        "",
    ),
];

#[test]
fn several_servers_need_redispatch() {
    let text = fragment().replace("  option redispatch\n", "");
    let text = text
        .replace("server s1 10.0.0.12:8080", "server s2 10.0.0.13:8080 check\n  server s1 10.0.0.12:8080");
    must_say(&seen(&text), "redispatch", Warn, "`backend be_green`", "option redispatch");
    let back = text.replace("mode http\n", "mode http\n  option redispatch\n");
    must_say(&seen(&back), "redispatch", Well, "", "");
}

/// Other frontends are none of its business: what they log, or do not, says nothing of these servers.
#[test]
fn by_states_only_frontends_that_lead_to_the_servers_are_looked_at() {
    let text = "ring pointsman\n  server agent 127.0.0.1:5515 log-proto legacy\ndefaults\n  mode http\nfrontend fe\n  bind :80\n  log ring@pointsman format raw local0\n  default_backend be_app\nfrontend intranet\n  bind :81\n  default_backend be_other\nbackend be_app\n  server blue1 10.0.0.1:80 check\nbackend be_other\n  server o 10.0.0.9:80\n";
    let by_states = |text: &str| {
        let mut seen = seen(text);
        seen.wanted.driver = pointsman_lb_agent::Driver::ServerState;
        let (slot, server) = ("be_blue".parse().unwrap(), "be_app/blue1".parse().unwrap());
        seen.wanted.servers =
            [(pointsman_chassis::config::Parsed(slot), vec![pointsman_chassis::config::Parsed(server)])]
                .into();
        seen
    };
    must_say(&by_states(text), "log-ring", Well, "leads to the agent", "");
    let silent = text.replace("  log ring@pointsman format raw local0\n", "");
    must_say(&by_states(&silent), "log-ring", Fail, "`frontend fe`", "add to `frontend fe`");
    let cached = text.replace("  server blue1", "  http-request cache-use small\n  server blue1");
    must_say(&by_states(&cached), "cache", Fail, "the slots in `be_app` answer from one cache", "remove");
}
