//! Checks of what stands in HAProxy's configuration: the fragment has everything, and lacks one thing in each case.

use pointsman_chassis::http_check::Answer;
use pointsman_core::{Code, Problem};
use pointsman_lb_agent::doctor::Verdict::{self, Fail, Ok as Well, Unknown, Warn};
use pointsman_lb_agent::doctor::examine;
use pointsman_lb_agent::doctor::seen::Seen;

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
    // Lookup.
    case(
        "route-lookup",
        ("map(/lb/route.map,", "map(/other.map,"),
        Fail,
        "/other.map",
        "map(/lb/route.map,be_maint:be_maint:0:0)",
    ),
    case(
        "route-lookup",
        ("var(txn.route),field(2,:)", "str(route),map(/lb/route.map),field(2,:)"),
        Fail,
        "and again at",
        "use_backend %[var(txn.route)",
    ),
    case(
        "route-lookup",
        ("http-request set-var(txn.route)  ", "use_backend %[str(route),map_str(/lb/route.map)] #"),
        Fail,
        "not kept in a variable",
        "http-request set-var(txn.route)",
    ),
    case("route-lookup", ("map(/lb/", "map_str(/lb/"), Well, "once", ""),
    // Another site of pointsman in the same frontend: its host decides which map is looked up.
    case(
        "route-lookup",
        (
            "  http-request set-var(txn.stable)",
            "  http-request set-var(txn.route) str(route),map(/other/route.map,be_maint:be_maint:0:0) if { req.hdr(host) -i other.example.org }\n  http-request set-var(txn.stable)",
        ),
        Well,
        "once",
        "",
    ),
    case(
        "lookup-default",
        (",be_maint:be_maint:0:0)", ",be_blue:be_maint:0:0)"),
        Fail,
        "be_blue:be_maint:0:0",
        "map(/lb/route.map,be_maint",
    ),
    case(
        "lookup-default",
        (",be_maint:be_maint:0:0)", ",be_maint:be_blue:50:0)"),
        Fail,
        "be_maint:be_blue:50:0",
        "map(/lb/route.map,be_maint",
    ),
    case("lookup-default", (",be_maint:be_maint:0:0)", ")"), Warn, "no default", "be_maint:be_maint:0:0"),
    case(
        "default-backend",
        ("default_backend be_maint", "default_backend be_blue"),
        Fail,
        "`default_backend be_blue`",
        "  default_backend be_maint",
    ),
    // Where the route's own backend is missing, HAProxy looks at no further rule.
    case(
        "default-backend",
        ("default_backend be_maint", "use_backend be_maint\n  default_backend be_other"),
        Fail,
        "`default_backend be_other`",
        "  default_backend be_maint",
    ),
    case(
        "one-backend",
        (
            "  use_backend %[var(txn.stable)]",
            "  use_backend api_%[var(txn.stable)] if { path_beg /api/ }\n  use_backend %[var(txn.stable)]",
        ),
        Fail,
        "`use_backend api_%[var(txn.stable)]`",
        "use-server",
    ),
    case(
        "one-backend",
        (
            "  use_backend %[var(txn.stable)]",
            "  http-request set-var(txn.app) req.hdr(host),map(/etc/haproxy/apps.map,x)\n  use_backend app_%[var(txn.app)] if { path /x }\n  use_backend %[var(txn.stable)]",
        ),
        Well,
        "names",
        "",
    ),
    case("one-backend", ("", "frontend other\n  use_backend be_%[req.hdr(host)]\n"), Well, "names", ""),
    case(
        "default-backend",
        ("default_backend be_maint", ""),
        Fail,
        "no `default_backend`",
        "  default_backend be_maint",
    ),
    // Who gets to what the route names.
    case("route-reached", ("", ""), Well, "no rule", ""),
    case(
        "route-reached",
        (STABLE, "  use_backend be_legacy\n  use_backend %[var(txn.stable)]"),
        Fail,
        "takes every request",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (CANARY, "  use_backend be_legacy\n  use_backend %[var(txn.canary)] if { var(txn.side)"),
        Fail,
        "takes every request",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if { nbsrv(be_legacy) gt 0 }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  acl ours hdr(host) -i www.example.org\n  use_backend be_legacy if ours\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if { path_beg / }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if !{ path_beg /new }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  acl acme path_beg /.well-known/acme-challenge/\n  acl shop hdr(host) -i shop.example.org\n  use_backend be_acme if acme\n  use_backend be_shop if shop { path_beg / }\n  use_backend be_office if { src 10.0.0.0/24 }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Well,
        "no rule",
        "",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_office if LOCALHOST\n  use_backend be_none if METH_TRACE or FALSE\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Well,
        "no rule",
        "",
    ),
    case(
        "route-reached",
        (CANARY, "  use_backend be_legacy if METH_GET\n  use_backend %[var(txn.canary)] if { var(txn.side)"),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if { method -i get }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if HTTP TRUE !FALSE\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    // A name of one's own is what its lines say.
    case(
        "route-reached",
        (
            CANARY,
            "  acl LOCALHOST always_true\n  use_backend be_legacy if LOCALHOST\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    // A page for a slot without servers: while blue is down for a release, whoever is on green must not get it.
    case(
        "route-reached",
        (
            CANARY,
            "  acl dead nbsrv(be_blue) lt 1\n  use_backend be_sorry if dead\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "while `be_blue` has no server",
        "{ var(txn.stable) -m str be_blue } { nbsrv(be_blue) lt 1 }",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  acl dead nbsrv(be_blue) lt 1\n  use_backend be_sorry if { var(txn.stable) -m str be_blue } dead or { nbsrv(be_green) eq 0 } dead\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Well,
        "no rule",
        "",
    ),
    case(
        "route-reached",
        (
            CANARY,
            "  use_backend be_legacy if { nbsrv(be_legacy) gt 0 }\n  use_backend %[var(txn.canary)] if { var(txn.side)",
        ),
        Warn,
        "use_backend be_legacy",
        "path_beg /other/",
    ),
    case("slot-entrances", ("", ""), Well, "only the route", ""),
    // Who is answered before any backend is picked comes to none.
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  http-request redirect scheme https code 301\n  default_backend be_blue\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  redirect scheme https code 301 if !{ ssl_fc }\n  default_backend be_blue\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  acl acme path_beg /.well-known/acme-challenge/\n  http-request redirect scheme https unless { ssl_fc } or acme\n  use_backend be_acme if acme\n  default_backend be_blue\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  http-request return status 503 if !LOCALHOST\n  default_backend be_blue\n",
        ),
        Well,
        "only the route",
        "",
    ),
    // With TLS on one of its ports a redirect of the others leaves visitors.
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  bind :8443 ssl crt /x\n  redirect scheme https if !{ ssl_fc }\n  default_backend be_blue\n",
        ),
        Fail,
        "`default_backend be_blue` leads",
        "`frontend fe`",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  http-request redirect location /login if { path / }\n  default_backend be_blue\n",
        ),
        Fail,
        "`default_backend be_blue` leads",
        "`frontend fe`",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_http\n  bind :8080\n  http-request allow if { path_beg / }\n  http-request deny\n  default_backend be_blue\n",
        ),
        Fail,
        "`default_backend be_blue` leads",
        "`frontend fe`",
    ),
    // The backend of before, with the servers that are a slot's now.
    case(
        "slot-entrances",
        (
            "",
            "frontend old\n  bind :8080\n  default_backend be_www\nbackend be_www\n  server a 10.0.0.11:8080 check\n",
        ),
        Warn,
        "`backend be_www` has the server 10.0.0.11:8080 of `be_blue` too, and haproxy.cfg:",
        "have the route lead these visitors",
    ),
    case(
        "slot-entrances",
        ("", "listen tcp\n  mode tcp\n  bind :8080\n  server a 10.0.0.12:8080\n"),
        Warn,
        "`listen tcp` has the server 10.0.0.12:8080 of `be_green` too",
        "have the route lead these visitors",
    ),
    // For testers, or for nobody, or another server.
    case(
        "slot-entrances",
        (
            "",
            "frontend old\n  bind :8080\n  use_backend be_www if { src 10.0.0.0/24 }\n  default_backend be_maint\nbackend be_www\n  server a 10.0.0.11:8080 check\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend old\n  bind :8080\n  default_backend be_www\nbackend be_www\n  server a 10.0.0.11:9090 check\n",
        ),
        Well,
        "only the route",
        "",
    ),
    // Figures about HAProxy; what such a section inherits nobody meant for it.
    case(
        "slot-entrances",
        (
            "",
            "defaults\n  mode http\n  default_backend be_blue\nlisten stats\n  bind :8404\n  stats enable\n  stats uri /stats\n",
        ),
        Warn,
        "whatever else `listen stats` is asked for",
        "http-request deny unless",
    ),
    case(
        "slot-entrances",
        (
            "",
            "defaults\n  mode http\n  default_backend be_blue\nfrontend metrics\n  bind :8405\n  http-request use-service prometheus-exporter\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        ("", "frontend stats\n  bind :8404\n  stats uri /stats\n  default_backend be_blue\n"),
        Fail,
        "`default_backend be_blue` leads",
        "`frontend fe`",
    ),
    case(
        "slot-entrances",
        ("", "frontend fe_http\n  bind :8080\n  default_backend be_blue\n"),
        Fail,
        "`default_backend be_blue` leads from `frontend fe_http`",
        "`frontend fe`",
    ),
    case(
        "slot-entrances",
        ("", "frontend fe_http\n  bind :8080\n  use_backend be_green if { path_beg /api }\n"),
        Fail,
        "`use_backend be_green` leads",
        "`frontend fe`",
    ),
    case(
        "slot-entrances",
        (
            "",
            "frontend fe_test\n  bind :8080\n  acl office src 10.0.0.0/24\n  use_backend be_green if office\n  default_backend be_maint\n",
        ),
        Well,
        "only the route",
        "",
    ),
    case(
        "slot-entrances",
        ("backend be_blue\n", "listen be_blue\n  bind :8080\n"),
        Fail,
        "takes visitors in",
        "without `bind`",
    ),
    case(
        "slot-entrances",
        (STABLE, "  use_backend be_green if { path_beg /api }\n  use_backend %[var(txn.stable)]"),
        Fail,
        "`use_backend be_green` leads from `frontend fe`",
        "src <tester>",
    ),
    case("cache", ("", ""), Well, "keeps no answers", ""),
    case(
        "cache",
        (
            "  acl pm_known ",
            "  http-request cache-use small\n  http-response cache-store small\n  acl pm_known ",
        ),
        Fail,
        "the cache `small` answers before the route",
        "remove `http-request cache-use small`",
    ),
    case(
        "cache",
        ("  acl pm_known ", "  http-request cache-use small if { path_beg /tiles/ }\n  acl pm_known "),
        Warn,
        "for some requests",
        "remove",
    ),
    case(
        "cache",
        (BLUE, "backend be_blue\n  mode http\n  http-request cache-use small\n"),
        Warn,
        "`be_blue` held before",
        "remove",
    ),
    // Canary.
    case("canary", ("concat(-,txn.salt),", ""), Warn, "the same visitors", "var(txn.epoch),div(16)"),
    case(
        "canary",
        ("if { var(txn.bkt),sub(txn.pct) lt 0 }", "if FALSE"),
        Warn,
        "does not use the percent",
        "sub(txn.pct) lt 0",
    ),
    case(
        "canary",
        ("var(txn.key),concat(-,txn.salt),xxh32,mod(100)", "rand(100)"),
        Warn,
        "by chance",
        "xxh32",
    ),
    // Lines of one name are alternatives for HAProxy, whoever wrote them for what.
    case(
        "canary",
        ("frontend fe\n", "frontend fe\n  acl pm_known hdr(host) -i www.example.org\n"),
        Warn,
        "stands for two things",
        "acl pm_known_by_cookie req.cook(pm_id) -m found",
    ),
    case(
        "canary",
        ("  acl pm_page ", "  acl pm_page path_end .html\n  acl pm_page "),
        Warn,
        "stands for two things",
        "acl pm_page_by_header req.hdr(Accept)",
    ),
    case(
        "canary",
        ("set-var(txn.pct)    var(txn.route),field(3,:)", "set-var(txn.pct) int(0)"),
        Warn,
        "does not use the percent",
        "field(3",
    ),
    // The header.
    case("route-shown", (" be=%[be_name]", ""), Warn, "does not carry `be=`", "be=%[be_name]"),
    case(
        "route-shown",
        (SHOW, "http-response set-header X-Pointsman"),
        Fail,
        "`http-response` does not reach",
        "http-after-response set-header X-Pointsman",
    ),
    case(
        "route-shown",
        (SHOW, "http-after-response set-header X-Other"),
        Fail,
        "does not set `X-Pointsman`",
        "http-after-response set-header X-Pointsman",
    ),
    case(
        "route-shown",
        ("side=%[var(txn.side)] be=%[be_name]\" if {", "\" if {"),
        Fail,
        "`side=`",
        "side=%[var(txn.side)]",
    ),
    case("route-shown", (SHOW, "http-after-response set-header x-pointsman"), Well, "", ""),
    case(
        "visitors-header",
        ("http-request del-header X-Pointsman", ""),
        Warn,
        "passes `X-Pointsman` of visitors on",
        "http-request del-header X-Pointsman",
    ),
    case(
        "side-trusted",
        ("str(canary) if trusted {", "str(canary) if {"),
        Fail,
        "everybody who sends `X-Pointsman`",
        "acl trusted src",
    ),
    case(
        "side-trusted",
        ("str(canary) if trusted {", "str(canary) if trusted or {"),
        Fail,
        "everybody who sends `X-Pointsman`",
        "acl trusted src",
    ),
    case(
        "side-trusted",
        ("str(canary) if trusted {", "str(canary) if !trusted {"),
        Fail,
        "everybody who sends `X-Pointsman`",
        "acl trusted src",
    ),
    case("side-trusted", ("str(canary) if trusted {", "str(canary) if { src 127.0.0.1 } {"), Well, "", ""),
    case(
        "side-trusted",
        ("acl trusted src 127.0.0.0/8 ::1", "acl trusted src 127.0.0.0/8\n  acl trusted path /x"),
        Fail,
        "everybody who sends `X-Pointsman`",
        "acl trusted src",
    ),
    case(
        "side-trusted",
        ("acl trusted src", "http-request del-header x-pointsman unless trusted\n  acl trusted src"),
        Well,
        "",
        "",
    ),
    case(
        "side-trusted",
        (
            "http-request set-var(txn.side)   str(stable)\n",
            "http-request set-var(txn.side) req.hdr(x-pointsman)\n",
        ),
        Fail,
        "everybody who sends `X-Pointsman`",
        "acl trusted src",
    ),
    case(
        "trusted-addresses",
        ("127.0.0.0/8 ::1", "10.0.0.5 ::1"),
        Fail,
        "asks from 127.0.0.1",
        "acl trusted src 127.0.0.1",
    ),
    case(
        "trusted-addresses",
        ("127.0.0.0/8 ::1", "-f /etc/trusted.lst"),
        Unknown,
        "asks from 127.0.0.1",
        "acl trusted src 127.0.0.1",
    ),
    case(
        "trusted-addresses",
        ("127.0.0.0/8 ::1", "0.0.0.0/0"),
        Fail,
        "is everybody",
        "acl trusted src 127.0.0.1",
    ),
    case("trusted-addresses", ("127.0.0.0/8 ::1", "127.0.0.1 10.0.0.0/8"), Warn, "10.0.0.0/8", "name hosts"),
    case("trusted-addresses", ("127.0.0.0/8 ::1", "127.0.0.1 192.168.7.0/24"), Well, "192.168.7.0/24", ""),
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
        "balance leastconn",
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
    // Access lines.
    case(
        "log-ring",
        ("server agent 127.0.0.1:5515", "server agent 127.0.0.1:5516"),
        Fail,
        "no ring leads to the agent",
        "server agent 127.0.0.1:5515 log-proto legacy",
    ),
    case(
        "log-ring",
        ("log-proto legacy", "log-proto octet-count"),
        Fail,
        "`log-proto octet-count`",
        "log-proto legacy",
    ),
    case(
        "log-ring",
        ("log ring@pointsman format raw local0", "log 127.0.0.1:514 local0"),
        Fail,
        "does not log to `ring@pointsman`",
        "log ring@pointsman",
    ),
    case(
        "log-ring",
        ("log ring@pointsman format raw local0", "log global"),
        Fail,
        "does not log to `ring@pointsman`",
        "log ring@pointsman",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman format raw local0\n  no log"),
        Fail,
        "`frontend fe` (haproxy.cfg:",
        "log ring@pointsman format raw local0",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman len 128 format raw local0"),
        Fail,
        "`len 128` cuts lines off",
        "  log ring@pointsman format raw local0",
    ),
    case("log-ring", (LOG, "log ring@pointsman len 1024 format raw local0"), Well, "leads to the agent", ""),
    case("log-ring", ("maxlen 1024", "maxlen 200"), Fail, "`maxlen 200` cuts lines off", "  maxlen 1024"),
    case("log-ring", (LOG, "no log\n  log ring@pointsman format raw local0"), Well, "leads to the agent", ""),
    case("log-format", ("\"pm1 be=", "\"pm0 be="), Fail, "do not begin with `pm1`", "log-format \"pm1 be=%b"),
    case("log-format", (" tr=%Tr", ""), Fail, "lack `tr=%Tr`", "log-format \"pm1 be=%b"),
    case("log-format", (" rc=%rc", ""), Warn, "lack `rc=%rc`", "log-format \"pm1 be=%b"),
    case(
        "log-format",
        (" vid=%[var(txn.key),xxh32]", ""),
        Warn,
        "lack `vid=%[var(txn.key),xxh32]`",
        "log-format \"pm1 be=%b",
    ),
    case(
        "log-format",
        (" rc=%rc vid=%[var(txn.key),xxh32]", ""),
        Warn,
        "lack `rc=%rc`",
        "log-format \"pm1 be=%b",
    ),
    case("log-format", ("log-format", "#"), Fail, "has no `log-format`", "log-format \"pm1 be=%b"),
    case(
        "log-format",
        ("  use_backend", "  option httplog\n  use_backend"),
        Fail,
        "`option httplog` replaces the `log-format`",
        "remove `option httplog`",
    ),
    case(
        "log-asap",
        ("  use_backend", "  option logasap\n  use_backend"),
        Fail,
        "`option logasap` writes lines before",
        "remove `option logasap` at haproxy.cfg:",
    ),
    case("log-asap", ("frontend fe\n", "frontend fe\n  no option logasap\n"), Well, "", ""),
    // Where a request says that it comes from.
    case(
        "source-address",
        ("  acl trusted", "  http-request set-src hdr(X-Forwarded-For)\n  acl trusted"),
        Fail,
        "any visitor sets the address",
        "  http-request set-src hdr(X-Forwarded-For) if { src <proxy> }",
    ),
    case(
        "source-address",
        ("  acl trusted", "  http-request set-src hdr(X-Forwarded-For) if { src 10.0.0.1 }\n  acl trusted"),
        Well,
        "",
        "",
    ),
    case(
        "source-address",
        ("  default_backend", "  http-request set-src hdr(X-Forwarded-For)\n  default_backend"),
        Well,
        "",
        "",
    ),
    case(
        "source-address",
        ("  bind :80\n", "  bind :80 accept-proxy\n"),
        Fail,
        "the agent asks at 127.0.0.1:80, where HAProxy awaits the PROXY protocol",
        "bind 127.0.0.1:8088",
    ),
    case(
        "source-address",
        ("  bind :80\n", "  bind :80 accept-proxy\n  bind 127.0.0.1:80\n"),
        Warn,
        "whoever connects here says",
        "expect-proxy layer4",
    ),
    case(
        "rate-limit",
        (
            BLUE,
            "backend be_blue\n  mode http\n  http-request track-sc1 src table st_rl\n  http-request deny if { sc_http_req_rate(1,st_rl) gt 10 }\n",
        ),
        Warn,
        "also refuses the agent's own checks",
        "unless trusted",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman format raw local0 notice"),
        Fail,
        "`notice` is above `info`",
        "log ring@pointsman format raw local0",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman format raw local0 info notice"),
        Well,
        "leads to the agent",
        "",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman len 2048 format raw local0 debug"),
        Well,
        "leads to the agent",
        "",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman sample 1:2 format raw local0"),
        Fail,
        "`sample 1:2` lets a part",
        "log ring@pointsman format raw local0",
    ),
    case(
        "log-ring",
        (LOG, "log ring@pointsman format raw local0\n  option dontlog-normal"),
        Fail,
        "dontlog-normal",
        "remove",
    ),
    case(
        "source-address",
        ("frontend fe\n", "frontend fe\n  bind :8443 accept-proxy\n"),
        Warn,
        "whoever connects here says",
        "expect-proxy layer4 if { src <proxy> }",
    ),
    case(
        "source-address",
        ("frontend fe\n", "frontend fe\n  tcp-request connection expect-proxy layer4 if { src 10.0.0.1 }\n"),
        Well,
        "",
        "",
    ),
    // Nobody but another frontend of this host comes in there, and no address of its own could be named.
    case(
        "source-address",
        (
            "frontend fe\n",
            "frontend fe\n  bind abns@https accept-proxy ssl crt /x\n  bind /run/fe.sock accept-proxy\n",
        ),
        Well,
        "the connection's own",
        "",
    ),
    // Done to connections before any request is looked at.
    case(
        "source-address",
        ("  default_backend", "  tcp-request content set-src hdr(X-Forwarded-For)\n  default_backend"),
        Fail,
        "any visitor sets the address",
        "if { src <proxy> }",
    ),
    // Limits.
    case(
        "rate-limit",
        (
            "frontend fe\n",
            "frontend fe\n  http-request track-sc0 src table st_rl\n  http-request sc-inc-gpc0(0) if { sc_http_req_rate(0) gt 100 }\n  http-request tarpit if { sc_get_gpc0(0) gt 0 }\n",
        ),
        Warn,
        "also refuses the agent's own checks",
        "unless trusted",
    ),
    case(
        "rate-limit",
        (
            "frontend fe\n",
            "frontend fe\n  http-request track-sc0 src table st_rl\n  http-request deny deny_status 429 if { sc_http_req_rate(0,st_rl) gt 9 }\n",
        ),
        Warn,
        "also refuses the agent's own checks",
        "http-request track-sc0 src table <table> unless trusted",
    ),
    case(
        "rate-limit",
        (
            "frontend fe\n",
            "frontend fe\n  http-request track-sc0 src table st_rl unless trusted\n  http-request deny deny_status 429 if { sc_http_req_rate(0,st_rl) gt 9 }\n",
        ),
        Well,
        "",
        "",
    ),
    case(
        "rate-limit",
        (
            "frontend fe\n",
            "frontend fe\n  acl many sc_http_req_rate(0,st_rl) gt 9\n  http-request track-sc0 src table st_rl\n  http-request deny deny_status 429 if many !trusted\n",
        ),
        Well,
        "",
        "",
    ),
    case(
        "rate-limit",
        (
            "frontend fe\n",
            "frontend fe\n  acl many src_http_req_rate(st_rl) gt 9\n  tcp-request content reject if many\n",
        ),
        Warn,
        "also refuses",
        "unless trusted",
    ),
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
    case("maxconn", ("stats timeout 30s", "maxconn 50000"), Warn, "needs 100040 files", "LimitNOFILE=100040"),
    case("maxconn", ("stats timeout 30s", "maxconn 5000"), Well, "", ""),
];

#[test]
fn nothing_is_wrong_with_the_fragment() {
    assert_eq!(not_well(&seen(&fragment())), []);
}

#[test]
fn every_check_of_the_files_notices_what_it_is_for() {
    for (index, case) in CASES.iter().enumerate() {
        let text = fragment();
        assert!(text.contains(case.from), "case {index}: `{}` is not in the fragment", case.from);
        let changed = text.replacen(case.from, case.to, 1);
        println!("case {index}: {} {:?}", case.check, case.to);
        must_say(&seen(&changed), case.check, case.verdict, case.what, case.fix);
    }
}

#[test]
fn the_backend_of_before_that_is_kept_for_a_path_is_a_way_past_the_route() {
    let kept = "backend be_www\n  server green 10.0.0.12:8080 check\n";
    let rule = format!("  use_backend be_www if {{ path_beg /api/ }}\n{CANARY}");
    let text = format!("{}{kept}", fragment().replacen(CANARY, &rule, 1));
    must_say(
        &seen(&text),
        "slot-entrances",
        Warn,
        "10.0.0.12:8080 of `be_green` too",
        "without the line at haproxy.cfg:",
    );
    must_say(&seen(&text), "route-reached", Well, "no rule", "");
}

/// What is pasted takes the `defaults` that stand last above it, if it names none.
#[test]
fn whatever_the_defaults_say_every_part_of_the_fragment_speaks_http() {
    for defaults in ["", "  mode tcp\n", "  mode http\ndefaults last\n  mode tcp\n"] {
        let text = fragment().replacen("defaults\n  mode http\n", &format!("defaults\n{defaults}"), 1);
        assert!(!text.contains("defaults\n  mode http\n  #"));
        must_say(&seen(&text), "mode", Well, "HTTP", "");
        let without = text.replace(BLUE, "backend be_blue\n  balance leastconn\n");
        let what = if defaults.is_empty() { "has no `mode`" } else { "`backend be_blue` is in `mode tcp`" };
        must_say(&seen(&without), "mode", Fail, what, "add to `backend be_blue`");
        let page = text.replace("backend be_maint\n  mode http\n", "backend be_maint\n");
        must_say(&seen(&page), "mode", Fail, "backend be_maint", "  mode http");
        let front = text.replace("frontend fe\n  mode http\n", "frontend fe\n");
        must_say(&seen(&front), "mode", Fail, "frontend fe", "  mode http");
    }
}

/// Whoever a rule names by host, path or condition, the site's visitors are among them or they are not: `www.example.org` is
/// the site.
#[test]
fn a_rule_before_the_routes_is_for_the_site_or_for_others() {
    let before_route = |condition: &str| {
        let rules = format!("  use_backend be_shop {condition}\n{CANARY}");
        seen(&fragment().replacen(CANARY, &rules, 1))
    };
    for takes in [
        "if { hdr_end(host) -i example.org }",
        "if { hdr_beg(host) -i www. }",
        "if { hdr(host) -m beg www. }",
        "if { hdr_dom(host) -i example }",
        "if { hdr_sub(host) -i example }",
        "if { hdr_dir(host) www.example.org }",
        "if { hdr_reg(host) ^www }",
        "if { hdr(host) -i -f /etc/haproxy/hosts.lst }",
        "if { hdr(host),lower,map(/etc/haproxy/hosts.map) -m found }",
        "if { hdr(host) -i www.example.org:80 }",
        "if { hdr(host) -m found }",
        "if { ssl_fc_sni_end -i .example.org }",
        "if !{ hdr(host) -i shop.example.org }",
        "unless { hdr(host) -i shop.example.org }",
        "unless { hdr(host) -i www.example.org } { path_beg /api/ }",
        "if { path_reg ^/ }",
        "if { path_sub / }",
        "if { path_reg ^/(?!new) }",
        "if { base_beg -i www.example.org/ }",
        "if { base_dom -i example.org }",
    ] {
        must_say(&before_route(takes), "route-reached", Warn, "use_backend be_shop", "path_beg /other/");
    }
    for apart in [
        "if { hdr_end(host) -i .example.com }",
        "if { hdr_beg(host) -i shop. }",
        "if { hdr(host) -m beg shop. }",
        "if { hdr_dom(host) -i exam }",
        "if { hdr_reg(host) -i ^(shop|blog)\\.example\\.org$ }",
        "if { hdr(host) -i shop.example.org:8443 }",
        "if { hdr_end(host) -i example.org } { path_beg /shop/ }",
        "if !{ hdr_end(host) -i example.org }",
        "unless { hdr_dom(host) -i example.org }",
        "unless { hdr(host) -i shop.example.org } or { hdr(host) -i www.example.org }",
        "if { path_reg ^/shop/ }",
        "if { path_beg -i -f /etc/haproxy/paths.lst }",
        "if { base_beg -i www.example.org/shop/ }",
    ] {
        must_say(&before_route(apart), "route-reached", Well, "no rule", "");
    }
}

#[test]
fn a_frontend_that_answers_another_site_leaves_this_one_to_what_it_names() {
    let beside = |rule: &str| {
        seen(&format!("{}frontend fe_http\n  bind :8080\n  {rule}\n  default_backend be_blue\n", fragment()))
    };
    for leaves in [
        "http-request redirect location /gone if { hdr(host) -i shop.example.org }",
        "http-request deny unless { hdr_end(host) -i example.org }",
    ] {
        must_say(&beside(leaves), "slot-entrances", Fail, "`default_backend be_blue` leads", "`frontend fe`");
    }
    for answers in [
        "http-request redirect scheme https if { hdr_end(host) -i example.org }",
        "http-request deny unless { hdr_beg(host) -i shop. }",
    ] {
        must_say(&beside(answers), "slot-entrances", Well, "only the route", "");
    }
}

#[test]
fn several_servers_need_redispatch() {
    let text = fragment().replace("  option redispatch\n", "");
    let text = text
        .replace("server s1 10.0.0.12:8080", "server s2 10.0.0.13:8080 check\n  server s1 10.0.0.12:8080");
    must_say(&seen(&text), "redispatch", Warn, "`backend be_green`", "option redispatch");
    let back = text.replace("mode http\n", "mode http\n  option redispatch\n");
    must_say(&seen(&back), "redispatch", Well, "", "");
}

#[test]
fn lines_may_go_to_the_ring_by_way_of_global() {
    let text = fragment().replace("log ring@pointsman format raw local0", "log global");
    let text = text.replace("stats timeout 30s", "log ring@pointsman format raw local0");
    must_say(&seen(&text), "log-ring", Well, "leads to the agent", "");
}

/// `no log` takes back what stands before it, what is inherited too.
#[test]
fn lines_that_are_taken_back_go_nowhere() {
    let inherited = fragment().replace("  log ring@pointsman format raw local0\n", "");
    let inherited = inherited.replace(
        "defaults\n  mode http\n",
        "defaults\n  mode http\n  log ring@pointsman format raw local0\n",
    );
    must_say(&seen(&inherited), "log-ring", Well, "leads to the agent", "");
    let silent = inherited.replace("frontend fe\n", "frontend fe\n  no log\n");
    must_say(&seen(&silent), "log-ring", Fail, "does not log to `ring@pointsman`", "add to `frontend fe`");
    let of_global = fragment().replace(LOG, "log global");
    let of_global = of_global.replace("stats timeout 30s", "log ring@pointsman format raw local0\n  no log");
    must_say(&seen(&of_global), "log-ring", Fail, "does not log to `ring@pointsman`", "add to `frontend fe`");
}

/// What `defaults` say of lines is for other frontends too, and stays.
#[test]
fn the_form_of_lines_is_set_in_the_frontend_and_not_in_the_defaults_of_all() {
    let line = fragment().lines().find(|line| line.trim().starts_with("log-format")).unwrap().to_owned();
    let without = fragment().replace(&line, "");
    let add = "add to `frontend fe`";
    let with = |words: &str| {
        without.replace("defaults\n  mode http\n", &format!("defaults\n  mode http\n  {words}\n"))
    };
    must_say(
        &seen(&with("option httplog")),
        "log-format",
        Fail,
        "no `log-format` of its own and takes `option httplog`",
        add,
    );
    must_say(&seen(&with("log-format \"%ci\"")), "log-format", Fail, "do not begin with `pm1`", add);
    let both = with("option httplog").replace("frontend fe\n", &format!("frontend fe\n{line}\n"));
    must_say(&seen(&both), "log-format", Well, "`pm1` with every field", "");
}

#[test]
fn a_route_that_is_looked_up_and_not_used_is_found() {
    let text = fragment().replace("use_backend %[var(txn.", "use_backend %[var(other.");
    must_say(&seen(&text), "route-reached", Fail, "has no `use_backend`", "%[var(txn.stable)]");
}

/// HAProxy goes by the rules of the `defaults` that a frontend names before its own, and each set of rules knows its own lists.
#[test]
fn rules_of_named_defaults_count() {
    let with = |rules: &str| {
        let web =
            format!("defaults http\n  mode http\n  timeout client 30s\ndefaults web from http\n{rules}");
        let front = "frontend fe from web\n  option idle-close-on-response\n";
        seen(&fragment().replacen("frontend fe\n", &format!("{web}{front}"), 1))
    };
    must_say(&with(""), "source-address", Well, "connection's own", "");
    let told = "  http-request set-src hdr(X-Forwarded-For)\n";
    must_say(&with(told), "source-address", Fail, "any visitor sets the address", "if { src <proxy> }");
    let by_proxy = "  acl proxy src 10.0.0.9\n  http-request set-src hdr(X-Forwarded-For) if proxy\n";
    must_say(&with(by_proxy), "source-address", Well, "connection's own", "");
    // The name is known where its line stands, and nowhere else.
    let elsewhere = "  http-request set-src hdr(X-Forwarded-For) if trusted\n";
    must_say(&with(elsewhere), "source-address", Fail, "any visitor sets the address", "if { src <proxy> }");
    let limit = "  http-request deny if { src_http_req_rate(st_rl) gt 9 }\n";
    must_say(&with(limit), "rate-limit", Warn, "also refuses the agent's own checks", "unless trusted");
    let chosen = "  http-request set-var(txn.side) str(canary) if { req.hdr(X-Pointsman) -m str canary }\n";
    must_say(&with(chosen), "side-trusted", Fail, "everybody who sends `X-Pointsman`", "acl trusted src");
    let stripped = "  http-request del-header X-Pointsman\n";
    must_say(&with(stripped), "side-trusted", Fail, "no line by which the agent reaches", "acl trusted src");
    // A redirect there answers for all frontends that name them, but not who has come by TLS already.
    let beside = |binds: &str| {
        let front = format!(
            "defaults plain\n  mode http\n  http-request redirect scheme https if !{{ ssl_fc }}\nfrontend two from plain\n{binds}  default_backend be_blue\n"
        );
        seen(&format!("{}{front}", fragment()))
    };
    must_say(&beside("  bind :8080\n"), "slot-entrances", Well, "only the route", "");
    must_say(
        &beside("  bind :8443 ssl crt /x\n"),
        "slot-entrances",
        Fail,
        "`default_backend be_blue` leads",
        "",
    );
}

/// What its frontend has counted, trusted addresses not, has no rate in a slot either.
#[test]
fn a_slot_that_refuses_by_what_its_frontend_counts_spares_whom_that_spares() {
    let refuses = |counts: &str| {
        let text = fragment().replace(
            "  acl pm_known ",
            &format!("  http-request track-sc0 src table st_rl{counts}\n  acl pm_known "),
        );
        text.replace(
            BLUE,
            "backend be_blue\n  mode http\n  http-request deny if { sc_http_req_rate(0,st_rl) gt 10 }\n",
        )
    };
    must_say(&seen(&refuses(" unless trusted")), "rate-limit", Well, "", "");
    must_say(
        &seen(&refuses("")),
        "rate-limit",
        Warn,
        "also refuses the agent's own checks",
        "unless trusted",
    );
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

/// Fragments of before have names that stand in many files already.
#[test]
fn an_acl_of_an_older_fragment_that_has_a_namesake_is_found() {
    let older = fragment().replace("pm_known", "known").replace("pm_page", "page");
    assert_eq!(not_well(&seen(&older)), []);
    let both = older.replacen("frontend fe\n", "frontend fe\n  acl known hdr(host) -i www.example.org\n", 1);
    must_say(
        &seen(&both),
        "canary",
        Warn,
        "`acl known` stands for two things",
        "acl pm_known req.cook(pm_id)",
    );
    let page = older.replacen("frontend fe\n", "frontend fe\n  acl page path_end .html\n", 1);
    must_say(&seen(&page), "canary", Warn, "`acl page` stands for two things", "acl pm_page req.hdr(Accept)");
}

/// A table that the agent may look into is there, holds rates, and a line counts in it that no other one forestalls.
#[test]
fn visitors_are_counted_in_the_tables_that_are_granted() {
    must_say(&seen(&fragment()), "rate-tables", Well, "none is granted", "");
    let mut wanted = config("/lb", "127.0.0.1:80");
    wanted.haproxy.rate_limit_tables = vec![pointsman_chassis::config::Parsed("st_rl".parse().unwrap())];
    let text = pointsman_lb_agent::snippet(&wanted, &wishes("10.0.0.11:8080", "10.0.0.12:8080")).unwrap();
    const TRACK: &str = "  http-request track-sc2 src table st_rl unless trusted\n";
    const TRUSTED: &str = "  acl trusted src";
    assert!(text.contains(TRACK) && text.contains(TRUSTED));
    let granting = |text: &str| {
        let mut seen = seen(text);
        seen.wanted.rate_limit_tables.clone_from(&wanted.haproxy.rate_limit_tables);
        seen
    };
    let after = |from: &str, to: &str| granting(&text.replacen(from, to, 1));
    let above = |line: &str| after(TRUSTED, &format!("  {line}\n{TRUSTED}"));
    let well = |seen: Seen| must_say(&seen, "rate-tables", Well, "counted in `st_rl`", "");
    let warns = |seen: Seen, what, fix| must_say(&seen, "rate-tables", Warn, what, fix);
    well(granting(&text));
    // Another counter, or those whom this line does not count.
    well(above("http-request track-sc0 src"));
    well(above("http-request track-sc2 src table other if { path_beg /api/ }"));
    well(after(TRACK, &format!("{TRACK}  http-request track-sc2 src table other\n")));
    for taken in [
        "http-request track-sc2 src",
        "http-request track-sc2 src table other unless trusted",
        "tcp-request connection track-sc2 src table other",
    ] {
        warns(
            above(taken),
            "has taken counter 2 before",
            "http-request track-sc1 src table st_rl unless trusted",
        );
    }
    // Connections are counted before requests, and what is inherited before what stands here.
    let below = format!("{TRACK}  tcp-request content track-sc2 src table other\n");
    warns(after(TRACK, &below), "has taken counter 2", "track-sc1 src");
    warns(
        granting(&text.replacen("defaults\n", "defaults\n  http-request track-sc2 src table other\n", 1)),
        "has taken counter 2",
        "track-sc1 src",
    );
    let all = "http-request track-sc2 src\n  http-request track-sc1 src\n  http-request track-sc0 src";
    warns(above(all), "has taken counter 2", "rate_limit_tables = [\"fe\"]");
    warns(after(TRACK, ""), "no line counts visitors", "track-sc2 src table st_rl unless trusted");
    // A slot's backend counts too, if its frontend has left it the counter.
    let in_slot = |number: u8, front: &str| {
        let line = format!("{BLUE}  http-request track-sc{number} src table st_rl\n");
        granting(&text.replacen(TRACK, front, 1).replacen(BLUE, &line, 1))
    };
    well(in_slot(0, ""));
    warns(in_slot(0, "  http-request track-sc0 src table other\n"), "has taken counter 0", "track-sc2 src");
    warns(
        after("backend st_rl\n", "backend st_other\n"),
        "has no table `st_rl`",
        "backend st_rl\n  stick-table",
    );
    warns(
        after("http_req_rate(10s)", "conn_cur"),
        "does not store `http_req_rate`",
        "store http_req_rate(10s)",
    );
}

#[test]
fn a_cache_of_two_slots_is_found() {
    let text = fragment().replace("  option httpchk\n", "  http-request cache-use small\n  option httpchk\n");
    must_say(&seen(&text), "cache", Fail, "`be_blue` and `be_green` answer from one cache", "remove");
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
    assert_eq!(not_well(&seen), [("canary", "warn"), ("route-shown", "warn"), ("log-format", "warn")]);
}

#[test]
fn a_firewalls_configuration_is_told_what_it_lacks() {
    let mut seen = seen(include_str!("opnsense.cfg"));
    seen.maps = Ok(Vec::new());
    seen.entries = Ok(Vec::new());
    let found = not_well(&seen);
    let expected = [
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

/// What came for an answer to a request of the agent's own.
#[test]
fn who_answers_the_path_that_the_agent_asks_for() {
    let marks = |status, marks: Option<&str>| Answer { status, pointsman: marks.map(str::to_owned) };
    let cases = [
        (Ok(marks(200, Some("epoch=40 side=stable be=be_blue"))), Well, "answered by `be_blue`", ""),
        (Ok(marks(200, Some("epoch=40 side=stable"))), Well, "shows the route", ""),
        (
            Ok(marks(401, Some("epoch=40 side=stable be=fe"))),
            Warn,
            "`fe` answers a request for `/`",
            "unless trusted",
        ),
        (Ok(marks(302, None)), Fail, "status 302 and shows no route", "http-request auth"),
        (Err("connection refused".to_owned()), Unknown, "got no answer: connection refused", "[frontend]"),
        // A backend that HAProxy has, and another one than the route names for this side.
        (
            Ok(marks(200, Some("epoch=40 side=stable be=be_green"))),
            Fail,
            "answered by `be_green`, and the route leads to `be_blue`",
            "grep -n be_green haproxy.cfg",
        ),
        (
            Ok(marks(503, Some("epoch=40 side=stable be=be_maint"))),
            Fail,
            "answered by `be_maint`, and the route leads to `be_blue`",
            "`backends-present`",
        ),
        (Ok(marks(200, Some("epoch=40 side=canary be=be_green"))), Well, "as the route says", ""),
        // A switch between two looks, or a process that no switch reaches.
        (
            Ok(marks(200, Some("epoch=39 side=stable be=be_green"))),
            Unknown,
            "shows route epoch 39, HAProxy's map has 40",
            "look again",
        ),
    ];
    for (answer, verdict, what, fix) in cases {
        must_say(&Seen { answer, ..seen(&fragment()) }, "path-answered", verdict, what, fix);
    }
    // The rule that did it is named, the route's own are not.
    let rule = "  use_backend be_shop if { hdr_end(host) -i example.org }\n";
    let mut led = seen(&fragment().replacen(CANARY, &format!("{rule}{CANARY}"), 1));
    led.answer = Ok(marks(200, Some("epoch=40 side=stable be=be_shop")));
    led.backends.as_mut().unwrap().push("be_shop".to_owned());
    must_say(&led, "path-answered", Fail, "answered by `be_shop`", &format!(": {}\nwhere", rule.trim()));
    led.entries = Ok(Vec::new());
    must_say(&led, "path-answered", Unknown, "holds no route", "");
}

/// Whether the agent speaks the PROXY protocol is as its `bind` awaits it.
#[test]
fn who_speaks_the_proxy_protocol_is_awaited() {
    let fragment = fragment();
    assert!(fragment.contains("  bind :80\n"));
    let mut config = config("/lb", "127.0.0.1:80");
    config.frontend.proxy_protocol = true;
    let awaits = pointsman_lb_agent::snippet(&config, &wishes("10.0.0.11:8080", "10.0.0.12:8080")).unwrap();
    assert!(awaits.contains("  bind :80 accept-proxy\n"), "{awaits}");
    let speaking = |text: &str| Seen { proxy_protocol: true, ..seen(text) };
    must_say(&speaking(&fragment), "source-address", Fail, "does not await it", "proxy_protocol = true");
    must_say(&seen(&awaits), "source-address", Fail, "awaits the PROXY protocol", "proxy_protocol = true");
    // It is asked, and whoever else connects there can still say anything.
    must_say(&speaking(&awaits), "source-address", Warn, "whoever connects here", "expect-proxy");
}
