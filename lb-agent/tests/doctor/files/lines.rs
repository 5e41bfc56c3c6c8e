//! Access lines: where they go, and in which form.

use pointsman_lb_agent::doctor::Verdict::{Fail, Ok as Well, Warn};

use super::{BLUE, Case, LOG, case};
use crate::world::{fragment, must_say, seen};

pub(super) const CASES: &[Case] = &[
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
    // Requests that write no line.
    case(
        "log-ring",
        ("  acl pm_known ", "  http-request set-log-level silent\n  acl pm_known "),
        Fail,
        "`set-log-level silent` writes no line",
        "remove `set-log-level silent` at haproxy.cfg:",
    ),
    case(
        "log-ring",
        ("  acl pm_known ", "  http-request set-log-level silent if { path_beg /tiles/ }\n  acl pm_known "),
        Warn,
        "for some requests",
        "remove `set-log-level silent` at haproxy.cfg:",
    ),
    case(
        "log-ring",
        ("  acl pm_known ", "  http-response set-log-level silent if { status 404 }\n  acl pm_known "),
        Warn,
        "for some requests",
        "remove",
    ),
    case(
        "log-ring",
        (BLUE, "backend be_blue\n  mode http\n  http-request set-log-level silent if { path_beg /tiles/ }\n"),
        Warn,
        "for some requests",
        "remove",
    ),
    // Probes of a monitor are few, and errors are written at another level that passes as well.
    case(
        "log-ring",
        (
            "  acl pm_known ",
            "  http-request set-log-level silent if { src 10.0.0.9 }\n  http-response set-log-level err if { status 500 }\n  acl pm_known ",
        ),
        Well,
        "leads to the agent",
        "",
    ),
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
    // What visitors write in them.
    case(
        "log-format",
        (",xxh32]\"", ",xxh32] ua=%{+Q}[capture.req.hdr(0)]\""),
        Warn,
        "`%{+Q}[capture.req.hdr(0)]` puts what visitors write into the access lines",
        "log-format \"pm1 be=%b",
    ),
    case("log-format", (",xxh32]\"", ",xxh32] uri=%HU\""), Warn, "`%HU` puts what", "log-format \"pm1 be=%b"),
    case(
        "log-format",
        ("pm1 be=%b", "pm1 ua=%[req.hdr(User-Agent)] be=%b"),
        Fail,
        "before words that are counted",
        "log-format \"pm1 be=%b",
    ),
    // A word that is lacking is one that they can write.
    case("log-format", (" rc=%rc", " r=%r"), Fail, "before words that are counted", "log-format \"pm1 be=%b"),
    case("log-format", (",xxh32]\"", "]\""), Warn, "`%[var(txn.key)]` puts what", "log-format \"pm1 be=%b"),
    case(
        "log-format",
        (
            ",xxh32]\"",
            ",xxh32] ci=%ci:%cp m=%HM load=100%% path=%[path,xxh32] size=%[req.hdr(Cookie),length]\"",
        ),
        Well,
        "`pm1` with every field",
        "",
    ),
    case(
        "log-asap",
        ("  use_backend", "  option logasap\n  use_backend"),
        Fail,
        "`option logasap` writes lines before",
        "remove `option logasap` at haproxy.cfg:",
    ),
    case("log-asap", ("frontend fe\n", "frontend fe\n  no option logasap\n"), Well, "", ""),
];

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

/// Lines of another form may come by the same ring, as where it stands in `global`; those that visitors write a part of had better not.
#[test]
fn what_visitors_of_other_frontends_write_is_kept_from_the_ring() {
    let by_global = fragment().replace(LOG, "log global").replace("stats timeout 30s", LOG);
    let with = |lines: &str| {
        seen(&format!(
            "{by_global}frontend intranet\n  mode http\n  log global\n{lines}  http-request return status 200\n"
        ))
    };
    for lines in [
        "",
        "  option tcplog\n",
        "  log-format \"%ci:%cp %ST %B\"\n",
        "  no log\n  option httplog\n",
        "  mode tcp\n  option httplog\n",
    ] {
        must_say(&with(lines), "log-format", Well, "`pm1` with every field", "");
    }
    for (lines, item) in [
        ("  option httplog\n", "option httplog"),
        ("  log-format \"%ci %ST %{+Q}r\"\n", "%{+Q}r"),
        ("  log-format \"%ci %(agent)[capture.req.hdr(0)] %B\"\n", "%(agent)[capture.req.hdr(0)]"),
    ] {
        let found = with(lines);
        let what = format!("sends lines of another form to `ring@pointsman`, with `{item}`");
        must_say(&found, "log-format", Warn, &what, &format!(":\n  {LOG}"));
        must_say(&found, "log-format", Warn, "`frontend intranet` (haproxy.cfg:", "add to `frontend fe`");
    }
    let at_start = with("  log-format \"%[req.hdr(User-Agent)] %B\"\n");
    must_say(&at_start, "log-format", Fail, "at their start", "remove at haproxy.cfg:");
    // In our form it is ours, and may hold no more than ours.
    let ours = "  log-format \"pm1 be=%b st=%ST tsc=%tsc ta=%Ta epoch=%[var(txn.epoch)] ua=%hr\"\n";
    must_say(&with(ours), "log-format", Fail, "`%hr` puts what visitors write", "log-format \"pm1 be=%b");
}
