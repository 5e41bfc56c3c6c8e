//! Who is led by the route: the lookup, the rules before and beside it, the canary.

use std::collections::BTreeMap;

use pointsman_chassis::http_check::Answer;
use pointsman_lb_agent::doctor::Verdict::{Fail, Ok as Well, Unknown, Warn};
use pointsman_lb_agent::doctor::seen::Seen;

use super::{BLUE, CANARY, Case, STABLE, case};
use crate::world::{fragment, must_say, not_well, said, seen};

pub(super) const CASES: &[Case] = &[
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
];

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
fn a_route_that_is_looked_up_and_not_used_is_found() {
    let text = fragment().replace("use_backend %[var(txn.", "use_backend %[var(other.");
    must_say(&seen(&text), "route-reached", Fail, "has no `use_backend`", "%[var(txn.stable)]");
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

#[test]
fn a_cache_of_two_slots_is_found() {
    let text = fragment().replace("  option httpchk\n", "  http-request cache-use small\n  option httpchk\n");
    must_say(&seen(&text), "cache", Fail, "`be_blue` and `be_green` answer from one cache", "remove");
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

/// Which backends a map names is known to HAProxy, and told there.
#[test]
fn a_frontend_that_picks_a_backend_by_a_map_may_lead_to_a_slot() {
    let beside = |rule: &str, values: &[&str]| {
        let text =
            format!("{}frontend two\n  bind :8080\n  {rule}\n  default_backend be_maint\n", fragment());
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Seen { values: BTreeMap::from([("/hosts.map".to_owned(), Ok(values))]), ..seen(&text) }
    };
    let by_host = "use_backend %[req.hdr(host),lower,map(/hosts.map,be_maint)]";
    let by_variable =
        "http-request set-var(txn.b) req.hdr(host),map(/hosts.map)\n  use_backend %[var(txn.b)]";
    let by_part = "use_backend be_%[req.hdr(host),map(/hosts.map,maint)]";
    // As a route of another agent's has it.
    let by_field = "http-request set-var(txn.r) str(route),map(/hosts.map)\n  http-request set-var(txn.s) var(txn.r),field(1,:)\n  use_backend %[var(txn.s)]";
    for (rule, leads, leaves) in [
        (by_host, "be_blue", "be_shop"),
        (by_variable, "be_green", "be_shop"),
        (by_part, "blue", "be_blue"),
        (by_field, "be_green:be_shop:0:7", "be_shop:be_shop:0:7"),
    ] {
        let found = beside(rule, &["be_maint", leads]);
        must_say(&found, "slot-entrances", Fail, "`use_backend", "`frontend fe`");
        must_say(&found, "slot-entrances", Fail, "`/hosts.map` names `be_", "");
        must_say(&beside(rule, &["be_maint", leaves]), "slot-entrances", Well, "only the route", "");
    }
    let default = by_host.replace("be_maint)", "be_blue)");
    must_say(&beside(&default, &["be_shop"]), "slot-entrances", Fail, "names `be_blue`", "`frontend fe`");
    let testers = format!("{by_host} if {{ src 10.0.0.0/24 }}");
    must_say(&beside(&testers, &["be_blue"]), "slot-entrances", Well, "only the route", "");
    // What cannot be known is not well.
    let mut unread = beside(by_host, &[]);
    let silent = pointsman_core::Problem::new(pointsman_core::Code::HaproxyReplyUnexpected, "no map");
    unread.values.insert("/hosts.map".to_owned(), Err(silent));
    must_say(
        &unread,
        "slot-entrances",
        Unknown,
        "may lead from `frontend two` to a slot",
        "show map /hosts.map",
    );
    for (rule, verdict) in [
        ("use_backend %[req.hdr(host),lower]", Unknown),
        ("use_backend be_%[path,field(2,/)]", Unknown),
        ("use_backend %[var(txn.elsewhere)]", Unknown),
        ("use_backend %[str(be_),concat(,txn.color)]", Unknown),
        ("use_backend %[path,map(/hosts.map),concat(,txn.color)]", Unknown),
        ("use_backend api_%[path,field(2,/)]", Well),
    ] {
        must_say(&beside(rule, &[]), "slot-entrances", verdict, "", "");
    }
    // Beside the route's lines, where those are for one site.
    let mut text = fragment().replacen(
        STABLE,
        &format!("  use_backend %[var(txn.stable)] if {{ req.hdr(host) www.example.org }}\n  {by_host}"),
        1,
    );
    text.push('\n');
    let with = |value: &str| {
        let values = Ok(vec![value.to_owned()]);
        Seen { values: BTreeMap::from([("/hosts.map".to_owned(), values)]), ..seen(&text) }
    };
    must_say(&with("be_shop"), "slot-entrances", Well, "only the route", "");
    must_say(&with("be_blue"), "slot-entrances", Fail, "`/hosts.map` names `be_blue`", "src <tester>");
}

/// The same lines for several frontends: HAProxy goes by those of the `defaults` that a frontend names.
#[test]
fn the_routes_lines_may_stand_in_defaults_that_the_frontend_names() {
    let text = in_defaults();
    assert_eq!(not_well(&seen(&text)), []);
    let again = text.replacen(
        "  use_backend",
        "  http-request set-var(txn.route) str(route),map(/lb/route.map)\n  use_backend",
        1,
    );
    must_say(
        &seen(&again),
        "route-lookup",
        Fail,
        "`frontend fe` looks the route up at haproxy.cfg:",
        "look it up once",
    );
    let lacks = |line: &str, check: &str, what: &str| {
        assert!(text.contains(line), "{line}");
        let found = said(&seen(&text.replacen(line, "#", 1)), check);
        assert!(found.what.contains(what), "{found:#?}");
    };
    lacks("http-after-response set-header X-Pointsman", "route-shown", "does not set `X-Pointsman`");
    lacks("http-request del-header X-Pointsman", "visitors-header", "passes `X-Pointsman`");
    lacks("http-request set-var(txn.pct)", "canary", "does not use the percent");
    let namesake = text.replacen("  acl pm_page ", "  acl pm_page path_end .html\n  acl pm_page ", 1);
    must_say(&seen(&namesake), "canary", Warn, "`acl pm_page` stands for two things", "pm_page_by_header");
    let built = text.replacen(
        STABLE,
        &format!("  use_backend api_%[var(txn.stable)] if {{ path_beg /api/ }}\n{STABLE}"),
        1,
    );
    must_say(&seen(&built), "one-backend", Fail, "makes another backend's name", "use-server");
}

/// The fragment, whose frontend has its rules from `defaults` that it names.
fn in_defaults() -> String {
    let text = fragment();
    let (before, rest) = text.split_once("frontend fe\n").unwrap();
    let end = rest.find("\n\n# ----").unwrap();
    let (front, after) = rest.split_at(end);
    let is_rule = |line: &&str| {
        ["http-request ", "http-after-response ", "acl "].iter().any(|word| line.trim().starts_with(word))
    };
    let (rules, own): (Vec<&str>, Vec<&str>) = front.lines().partition(is_rule);
    assert!(rules.len() > 10, "{rules:?}");
    let before = before.replacen("defaults\n", "defaults http\n", 1);
    assert!(before.contains("defaults http\n"));
    format!(
        "{before}\ndefaults common from http\n{}\ndefaults last from http\nfrontend fe from common\n{}{after}",
        rules.join("\n"),
        own.join("\n")
    )
}

/// Other ways of writing the lookup that HAProxy takes for the same.
#[test]
fn the_lookup_is_known_however_it_is_written() {
    let text = fragment();
    let line = text.lines().find(|line| line.contains("set-var(txn.route)")).unwrap();
    let whole = "str(route),map(/lb/route.map,be_maint:be_maint:0:0)";
    for other in [
        format!("  http-request set-var-fmt(txn.route) %[{whole}]"),
        format!("  http-request set-var(txn.route,ifnotexists) {whole}"),
        format!("  http-request set-var(txn.route) \"{}\"", whole.replace("/lb", "${LB}")),
        format!("  http-request set-var(txn.route) \"{}\"", whole.replace("/lb/route", "/${LB}/${NAME}")),
    ] {
        assert_eq!(not_well(&seen(&text.replacen(line, &other, 1))), [], "{other}");
    }
    for other in ["${LB}/other.map", "/other/${NAME}", "/lb/route.map${X}.bak", "/lb/${X}/route.map"] {
        let other =
            format!("  http-request set-var(txn.route) \"{}\"", whole.replace("/lb/route.map", other));
        must_say(&seen(&text.replacen(line, &other, 1)), "route-lookup", Fail, "no frontend looks up", "");
    }
}
