//! Access lines: where they go, and in which form.

use pointsman_lb_agent::doctor::Verdict::{Fail, Ok as Well, Warn};

use super::{Case, LOG, case};
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
