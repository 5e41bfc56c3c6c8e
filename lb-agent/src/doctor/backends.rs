//! The slots' backends: there, with servers that are checked, and without anything that keeps visitors where they were.

use std::collections::BTreeSet;

use pointsman_core::Problem;

use super::page::{PLAIN_PAGE, page_line};
use super::seen::{Seen, Written};
use super::{Said, add_to, frontend, listed};
use crate::balancer::{health, rows_of, servers as counted};
use crate::config::Driver;
use crate::haproxy_cfg::{HaproxyConfig, Line, Section, Setting};
use crate::reply::StatRow;

/// The lines that check a server as a visitor would ask it.
const HTTPCHK: &str = "option httpchk\nhttp-check send meth GET uri /api/health ver HTTP/1.1 hdr Host www.example.org\nhttp-check expect status 200";

/// What retries may be about: a connection that was never made has done nothing.
const HARMLESS_RETRIES: &[&str] = &["none", "conn-failure", "0rtt-rejected"];

/// Algorithms that pick a server by the request or in a fixed order.
const STATIC: &[&str] = &["static-rr", "source", "uri", "url_param", "rdp-cookie", "hash"];

/// The backends that a route may name but for the maintenance page's, as they stand in the files: under their own names or,
/// where servers' states are the switch, those in which the servers are.
pub(super) fn slots<'a>(seen: &Seen, config: &'a HaproxyConfig) -> Vec<&'a Section> {
    if seen.wanted.driver == Driver::ServerState {
        let servers = seen.wanted.servers.values().flatten();
        let names: BTreeSet<&str> = servers.map(|server| server.0.backend()).collect();
        return names.into_iter().filter_map(|name| config.backend(name)).collect();
    }
    let names = seen.wanted.backends.iter().filter(|name| !seen.wanted.needs_no_servers(&name.0));
    names.filter_map(|name| config.backend(name.0.as_str())).collect()
}

/// Everything that a check says of each slot alike: the first section that is wrong, or all are well.
fn each<'a>(
    seen: &Seen,
    written: &'a Written,
    well: &str,
    wrong: impl Fn(&'a HaproxyConfig, &'a Section) -> Option<Said>,
) -> Said {
    let slots = slots(seen, &written.config);
    if slots.is_empty() {
        return Said::unknown(
            "none of the backends stands in HAProxy's configuration: see `backends-present`",
            "",
        );
    }
    let mut said: Vec<Said> = slots.iter().filter_map(|section| wrong(&written.config, section)).collect();
    if said.is_empty() {
        return Said::ok(well);
    }
    // The first is told whole; of the others the places are enough.
    let others = said.split_off(1);
    let mut first = said.pop().unwrap_or_else(|| Said::ok(well));
    for other in others {
        first.verdict = first.verdict.max(other.verdict);
        first.what = format!("{}; {}", first.what, other.what);
        first.fix = format!("{}\n{}", first.fix, other.fix);
    }
    first
}

pub(super) fn present(seen: &Seen) -> Result<Said, &Problem> {
    let known = seen.backends.as_ref()?;
    let maintenance = seen.wanted.maintenance_backend.0.as_str();
    let hold = seen.wanted.hold_backend.as_ref().map(|hold| hold.0.as_str());
    let granted = seen.wanted.backends.iter().map(|name| name.0.as_str()).chain([maintenance]).chain(hold);
    let missing: Vec<&str> = granted.filter(|name| !known.iter().any(|known| known == name)).collect();
    let Some(first) = missing.first() else {
        return Ok(Said::ok(listed(known)));
    };
    let fix = if *first == maintenance || Some(*first) == hold {
        format!(
            "add:\nbackend {first}\n  mode http\n  {}",
            page_line(PLAIN_PAGE, if Some(*first) == hold { 5 } else { 120 })
        )
    } else {
        format!(
            "add, or take it out of `backends` in lb-agent.toml:\nbackend {first}\n  mode http\n{}\n  server s1 <address>:<port> check",
            super::indented(HTTPCHK)
        )
    };
    Ok(Said::fail(format!("HAProxy has no {}: it has {}", listed(&missing), listed(known)), fix))
}

pub(super) fn servers(seen: &Seen) -> Result<Said, &Problem> {
    let (rows, known) = (seen.rows.as_ref()?, seen.backends.as_ref()?);
    let route = seen.on_disk.as_ref();
    let mut notes: Vec<Said> = Vec::new();
    for name in &seen.wanted.backends {
        let name = &name.0;
        if seen.wanted.needs_no_servers(name) || !known.iter().any(|known| known == name.as_str()) {
            continue;
        }
        let health = health(rows, name);
        let backups: Vec<_> = rows_of(rows, name).filter(|row| row.backup).collect();
        let states = counted(rows, name).into_iter().filter(|row| !row.backup);
        if !backups.is_empty() {
            notes.push(backup_servers(seen, name.as_str(), &backups));
        }
        let (away, ill): (Vec<_>, Vec<_>) =
            states.filter(|row| !row.healthy()).partition(|row| row.put_away());
        let states = ill.iter().map(|row| {
            format!("`{}`", format!("{} {} {}", row.server, row.status, row.check_status).trim_end())
        });
        let states: Vec<String> = states.chain(away.iter().map(|row| put_away(seen, row))).collect();
        let states = states.join(", ");
        let share = route.map_or(0, |route| route.share_of(name));
        let checks =
            format!("see its checks:\n  echo 'show stat {name} 6 -1' | {}", seen.wanted.socket.0.socat());
        let checks = Some(checks).filter(|_| !ill.is_empty());
        let see: Vec<String> =
            checks.into_iter().chain(away.iter().map(|row| bring_back(seen, row))).collect();
        let see = see.join("\n");
        match (health.up, health.total) {
            (_, 0) => notes.push(Said::fail(
                format!("`{name}` has no server"),
                format!("add to `backend {name}`:\n  server s1 <address>:<port> check inter 1s fall 3 rise 2"),
            )),
            (up, total) if up == total => {}
            (0, total) if share > 0 => notes.push(Said::fail(
                format!("`{name}`, which gets {share} % of the visitors, has 0 of {total} servers healthy: {states}"), see,
            )),
            (up, total) => notes.push(Said::warn(format!("`{name}` has {up} of {total} servers healthy: {states}"), see)),
        }
    }
    let worst = notes.iter().map(|note| note.verdict).max();
    Ok(match worst {
        None => Said::ok("every server of every slot is up by a passed check"),
        Some(verdict) => Said {
            verdict,
            what: notes.iter().map(|note| note.what.as_str()).collect::<Vec<_>>().join("; "),
            fix: notes.iter().map(|note| note.fix.as_str()).collect::<Vec<_>>().join("\n"),
        },
    })
}

/// The line that keeps a server in maintenance from the start.
fn disabled<'a>(seen: &'a Seen, row: &StatRow) -> Option<&'a Line> {
    let config = &seen.written.as_ref().ok()?.config;
    let (backend, server) = row.named();
    let section = config.backend(backend)?;
    let own = lines_of_servers(section).find(|line| line.word(1) == server)?;
    let word = |line: &&Line| line.has("disabled") || line.has("enabled");
    // The nearest that says so: its own line, then a `default-server` before it.
    let line = std::iter::once(own).chain(config.all_in_effect(section, &["default-server"])).find(word)?;
    line.has("disabled").then_some(line)
}

/// How a server came to be in maintenance: HAProxy does not check it there.
fn put_away(seen: &Seen, row: &StatRow) -> String {
    match disabled(seen, row) {
        Some(line) => format!("`{}` is put away by `disabled` at {}", row.server, line.place),
        None => format!("`{}` is put away by hand ({})", row.server, row.status),
    }
}

/// How it is brought back, now and for good.
fn bring_back(seen: &Seen, row: &StatRow) -> String {
    let (backend, server) = row.named();
    let for_good = disabled(seen, row).map_or_else(String::new, |line| {
        format!("without `disabled` at {}; until it is loaded, ", line.place)
    });
    let socat = seen.wanted.socket.0.socat();
    format!(
        "{for_good}to bring `{server}` back:\n  echo 'set server {backend}/{server} state ready' | {socat}"
    )
}

/// A backup server answers in place of a slot that has nobody left, and its answers count as the slot's.
fn backup_servers(seen: &Seen, slot: &str, backups: &[&StatRow]) -> Said {
    let line_of = |server: &str| {
        let section = seen.written.as_ref().ok()?.config.backend(slot)?;
        lines_of_servers(section).find(|line| line.word(1) == server).map(|line| &line.place)
    };
    let remove = |row: &&StatRow| match line_of(&row.server) {
        Some(place) => format!("remove at {place}:\n  server {} ...", row.server),
        None => format!("remove from `backend {slot}`:\n  server {} ... backup", row.server),
    };
    Said::warn(
        format!(
            "`{slot}` has the backup server {}: what it answers while the slot's own servers are down is taken for the release's",
            listed(backups.iter().map(|row| &row.server))
        ),
        format!(
            "{}\na page for a slot without servers, above the route's lines in the frontend:\n  use_backend be_sorry if {{ var(txn.stable) -m str {slot} }} {{ nbsrv({slot}) lt 1 }}",
            backups.iter().map(remove).collect::<Vec<_>>().join("\n")
        ),
    )
}

fn lines_of_servers(section: &Section) -> impl Iterator<Item = &Line> {
    section.lines.iter().filter(|line| line.word(0) == "server" || line.word(0) == "server-template")
}

/// Whether a server is checked by its own line, or by the last `default-server` above it that says so: one below counts for others.
fn is_checked(config: &HaproxyConfig, section: &Section, server: &Line) -> bool {
    let above = config.rules(section).into_iter().map(|(_, line)| line);
    let above = above.take_while(|line| line.place != server.place);
    let mut lines: Vec<&Line> = above.filter(|line| line.word(0) == "default-server").collect();
    lines.push(server);
    let says = |line: &&&Line| line.has("check") || line.has("no-check");
    lines.iter().rfind(says).is_some_and(|line| !line.has("no-check"))
}

pub(super) fn server_check(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "every server of every slot has `check`", |config, section| {
        let unchecked: Vec<&Line> =
            lines_of_servers(section).filter(|server| !is_checked(config, section, server)).collect();
        let first = unchecked.first()?;
        let what = format!(
            "{}: {} of `{}` without `check`",
            first.place,
            listed(unchecked.iter().map(|line| line.word(1))),
            section.name
        );
        let fixed: Vec<String> = unchecked
            .iter()
            .map(|line| {
                let words = without_track(line.words());
                format!("at {}:\n  {} check inter 1s fall 3 rise 2", line.place, words.join(" "))
            })
            .collect();
        Some(Said::fail(what, fixed.join("\n")))
    })
}

/// The words of a server's line but for what HAProxy does not take beside `check`: whoever tracks another is not checked itself.
fn without_track(words: &[String]) -> Vec<&str> {
    let mut tracked = false;
    let mut kept = Vec::with_capacity(words.len());
    for word in words.iter().map(String::as_str) {
        if std::mem::take(&mut tracked) || word == "no-check" {
            continue;
        }
        tracked = word == "track";
        if !tracked {
            kept.push(word);
        }
    }
    kept
}

pub(super) fn httpchk(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "every slot is checked by HTTP", |config, section| {
        match config.option(section, "httpchk") {
            Setting::On(_) => None,
            _ => Some(Said::warn(
                format!("`{}` ({}) is checked by connecting only", section.title(), section.place),
                add_to(section, HTTPCHK),
            )),
        }
    })
}

/// What keeps visitors on a server moves nobody by itself where the route picks the backend; where servers' weights and
/// states are the switch, it defeats it.
fn pins(seen: &Seen, config: &HaproxyConfig, line: &Line) -> Said {
    let what = format!("{}: `{}` pins visitors to a server", line.place, line.words().join(" "));
    let fix = format!("remove at {}:\n  {}", line.place, line.words().join(" "));
    if frontend::routes_by_map(seen, config) { Said::warn(what, fix) } else { Said::fail(what, fix) }
}

pub(super) fn cookies(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "no cookie pins visitors to a server", |config, section| {
        let line = config.in_effect(section, &["cookie"])?;
        ["insert", "rewrite", "prefix"].iter().any(|how| line.has(how)).then(|| pins(seen, config, line))
    })
}

pub(super) fn sticks(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "no table pins visitors to a server", |config, section| {
        let mut lines = section.own(&["stick"]);
        let line = lines.find(|line| ["on", "match"].contains(&line.word(1)))?;
        Some(pins(seen, config, line))
    })
}

pub(super) fn balance(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "servers are picked dynamically", |config, section| {
        let line = config.in_effect(section, &["balance"])?;
        let how = line.word(1);
        let is_static = STATIC.contains(&how) || how.starts_with("hdr(");
        let hash = config.in_effect(section, &["hash-type"]);
        let consistent = how != "static-rr" && hash.is_some_and(|line| line.word(1) == "consistent");
        let pinned = if consistent { "pins clients to a server" } else { "is static" };
        is_static.then(|| {
            Said::warn(
                format!("{}: `balance {how}` of `{}` {pinned}", line.place, section.name),
                // The last line of a section counts.
                match section.own(&["balance"]).last() {
                    Some(own) => format!("at {}:\n  balance leastconn", own.place),
                    None => add_to(section, "balance leastconn"),
                },
            )
        })
    })
}

pub(super) fn retry_on(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "only connections that failed are tried again", |config, section| {
        let line = config.in_effect(section, &["retry-on"])?;
        let hiding: Vec<&String> =
            line.words().iter().skip(1).filter(|word| !HARMLESS_RETRIES.contains(&word.as_str())).collect();
        let (place, listed) = (&line.place, listed(&hiding));
        (!hiding.is_empty()).then(|| {
            Said::warn(
                format!("{place}: `retry-on` {listed} of `{}`", section.name),
                format!("at {place}:\n  retry-on conn-failure"),
            )
        })
    })
}

pub(super) fn redispatch(seen: &Seen, written: &Written) -> Said {
    each(seen, written, "in effect, or of no use with one server", |config, section| {
        let several = lines_of_servers(section).count() > 1
            || lines_of_servers(section).any(|line| line.word(0) == "server-template");
        let on = matches!(config.option(section, "redispatch"), Setting::On(_));
        (several && !on).then(|| {
            Said::warn(
                format!(
                    "`{}` ({}) has several servers and no `option redispatch`",
                    section.title(),
                    section.place
                ),
                add_to(config.home_of(section), "option redispatch"),
            )
        })
    })
}
