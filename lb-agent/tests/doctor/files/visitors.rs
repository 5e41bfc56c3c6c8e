//! Who is trusted, where they say that they come from, and how many of them are let in.

use pointsman_lb_agent::doctor::Verdict::{Fail, Ok as Well, Unknown, Warn};
use pointsman_lb_agent::doctor::seen::Seen;

use super::{BLUE, Case, LOG, SHOW, case};
use crate::world::{config, fragment, must_say, seen, wishes};

pub(super) const CASES: &[Case] = &[
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
];

/// Lines of one name are alternatives: the one is named that has to be changed.
#[test]
fn of_several_lines_the_one_that_trusts_too_many_is_named() {
    const TRUSTED: &str = "  acl trusted src 127.0.0.0/8 ::1\n";
    let with = |line: &str| fragment().replacen(TRUSTED, &format!("{TRUSTED}  {line}\n"), 1);
    let place = |text: &str, line: &str| {
        let at = text.lines().position(|known| known.trim() == line).unwrap();
        format!("haproxy.cfg:{}", at + 1)
    };
    for (line, verdict, fix) in [
        ("acl trusted src 10.0.0.0/8", Warn, "name hosts"),
        ("acl trusted src 0.0.0.0/0", Fail, "acl trusted src 127.0.0.1"),
    ] {
        let text = with(line);
        let at = place(&text, line);
        must_say(&seen(&text), "trusted-addresses", verdict, &format!("{at}: "), fix);
        must_say(&seen(&text), "trusted-addresses", verdict, "", &format!("at {at}:"));
    }
    let line = "acl trusted hdr_ip(X-Forwarded-For) 10.0.0.0/8";
    let text = with(line);
    let at = place(&text, line);
    must_say(
        &seen(&text),
        "side-trusted",
        Fail,
        &format!("{at}: `acl trusted hdr_ip(X-Forwarded-For)"),
        &format!("remove at {at}:\n  {line}"),
    );
    // A variable that is filled from the header is the header.
    let filled = fragment().replacen(
        "http-request set-var(txn.side)   str(stable)\n",
        "http-request set-var-fmt(txn.side) %[req.hdr(x-pointsman)]\n",
        1,
    );
    must_say(&seen(&filled), "side-trusted", Fail, "everybody who sends `X-Pointsman`", "acl trusted src");
}

/// HAProxy takes a fetch of a counter without its parentheses too.
#[test]
fn a_limit_is_one_however_it_is_written() {
    for (limit, verdict) in [
        ("http-request deny if { sc0_http_req_rate gt 100 }", Warn),
        ("acl abuse sc0_http_req_rate gt 100\n  http-request tarpit if abuse", Warn),
        ("http-request silent-drop if { sc1_conn_cur gt 100 }", Warn),
        ("tcp-request connection reject if { src_conn_rate gt 10 }", Warn),
        ("http-request deny if { sc2_http_err_cnt gt 100 }", Warn),
        ("http-request deny if { sc0_http_req_rate gt 100 } !trusted", Well),
        ("http-request deny if { scan_rate gt 100 }", Well),
    ] {
        let front = format!("frontend fe\n  http-request track-sc0 src table st_rl\n  {limit}\n");
        let text = fragment().replacen("frontend fe\n", &front, 1);
        must_say(
            &seen(&text),
            "rate-limit",
            verdict,
            "",
            if verdict == Warn { "unless trusted" } else { "" },
        );
    }
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

/// Where TLS ends on this host before the frontend, every visitor comes from loopback.
#[test]
fn who_is_brought_by_this_host_is_no_tester() {
    let fragment = fragment();
    let hop = |server: &str| {
        let hop = "frontend tls_in\n  mode tcp\n  bind :443\n  default_backend local_in\nbackend local_in\n  mode tcp\n";
        format!("{fragment}{hop}{server}")
    };
    let well = |text: &str| must_say(&seen(text), "source-address", Well, "connection's own", "");
    for server in ["server me 127.0.0.1:80", "server me localhost:80", "server me [::1]:80"] {
        let (found, fix) =
            (seen(&hop(&format!("  {server}\n"))), format!(":\n  {server} send-proxy-v2\nat haproxy.cfg:"));
        must_say(&found, "source-address", Fail, "`server me` of `backend local_in` brings visitors", &fix);
        must_say(
            &found,
            "source-address",
            Fail,
            "",
            "\n  bind :80 accept-proxy\nand in `[frontend]` of lb-agent.toml:",
        );
    }
    // By its own address, where that is trusted too.
    let own = |trusted: &str| {
        let text = hop("  server me 10.0.0.2:80\n")
            .replace("  bind :80\n", "  bind 10.0.0.2:80\n  bind 127.0.0.1:80\n");
        seen(&text.replace("src 127.0.0.0/8 ::1", trusted))
    };
    must_say(
        &own("src 127.0.0.0/8 10.0.0.2"),
        "source-address",
        Fail,
        "10.0.0.2:80 from an address of this host",
        "send-proxy-v2",
    );
    must_say(&own("src 127.0.0.0/8"), "source-address", Well, "", "");
    // Told whose they are, or led elsewhere.
    well(&hop("  server me 127.0.0.1:80 send-proxy-v2\n"));
    well(&hop("  default-server send-proxy\n  server me 127.0.0.1:80\n"));
    well(&hop("  source 0.0.0.0 usesrc clientip\n  server me 127.0.0.1:80\n"));
    well(&hop("  server other 127.0.0.1:81\n"));
    well(&hop("  server other 10.0.0.9:80\n"));
    let told = "  http-request set-src hdr(X-Forwarded-For) if { src 127.0.0.1 }\n  acl trusted";
    well(&hop("  server me 127.0.0.1:80\n").replacen("  acl trusted", told, 1));
    // Something else in front, of which haproxy.cfg says nothing.
    let bound = |bind: &str| fragment.replace("  bind :80\n", bind);
    let warns = |bind: &str| {
        must_say(
            &seen(&bound(bind)),
            "source-address",
            Warn,
            "only programs of this host reach `frontend fe`",
            "bind 127.0.0.1:80 accept-proxy",
        );
    };
    warns("  bind 127.0.0.1:80\n");
    warns("  bind 127.0.0.1:80\n  bind unix@/run/web.sock accept-proxy\n");
    well(&bound("  bind 127.0.0.1:80\n  bind 10.0.0.2:80\n"));
    let speaking = Seen { proxy_protocol: true, ..seen(&bound("  bind 127.0.0.1:80 accept-proxy\n")) };
    must_say(&speaking, "source-address", Well, "connection's own", "");
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

/// A table of a `peers` section goes by the names of both.
#[test]
fn a_table_of_peers_is_one_too() {
    let granting = |text: &str| {
        let mut seen = seen(text);
        seen.wanted.rate_limit_tables =
            vec![pointsman_chassis::config::Parsed("mine/st_src".parse().unwrap())];
        seen
    };
    let track = "  http-request track-sc0 src table mine/st_src unless trusted\n";
    let peers = "peers mine\n  table st_src type ip size 100k expire 10m store http_req_rate(10s)\n";
    let text = fragment().replacen("  acl pm_known ", &format!("{track}  acl pm_known "), 1) + peers;
    must_say(&granting(&text), "rate-tables", Well, "counted in `mine/st_src`", "");
    must_say(
        &granting(&text.replace("peers mine\n", "peers other\n")),
        "rate-tables",
        Warn,
        "has no table `mine/st_src`",
        "peers mine\n  table st_src type ipv6",
    );
    must_say(&granting(&text.replace(track, "")), "rate-tables", Warn, "no line counts", "table mine/st_src");
    // One without rates shows nobody, and an address is let in again all the same.
    must_say(
        &granting(&text.replace("store http_req_rate(10s)", "store gpc0")),
        "rate-tables",
        Warn,
        "does not store `http_req_rate`",
        "pointsman traffic unblock",
    );
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
