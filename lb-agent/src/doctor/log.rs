//! Access lines: on their way to the agent, and in the form that it counts.

use std::net::SocketAddr;

use super::part::{self, At, Part};
use super::seen::{Seen, Written};
use super::trusted::is_for_some;
use super::{Said, add_to, frontend, listed};
use crate::haproxy_cfg::{HaproxyConfig, Line, Section, Setting};

/// The format of access lines. Fixed words and numbers only: nothing a visitor sends gets into a line.
pub const FORMAT: &str = "pm1 be=%b sv=%s st=%ST tsc=%tsc ta=%Ta tw=%Tw tc=%Tc tr=%Tr by=%B epoch=%[var(txn.epoch)] side=%[var(txn.side)] class=%[var(txn.class)] rc=%rc vid=%[var(txn.key),xxh32]";

/// Room that a line of this format needs, in bytes: names of backend and server of 64, every number at its longest, is 380.
const LINE_BYTES: u64 = 400;

/// Without these fields lines are counted all the same: retries are then not known, nor who failed before a release.
const DISPENSABLE: [&str; 2] = ["rc=", "vid="];

/// The ring that carries access lines to the agent.
pub fn ring_lines(agent: SocketAddr) -> String {
    format!(
        "ring pointsman\n  format raw\n  maxlen 1024\n  size 4000000\n  timeout connect 2s\n  timeout server 5s\n  server agent {agent} log-proto legacy"
    )
}

/// Every `log` line that counts in a section, those of `global` behind `log global` too.
fn logs_of<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Vec<&'a Line> {
    let mut lines = config.not_taken_back(section, "log");
    if lines.iter().any(|line| line.word(1) == "global") {
        lines.extend(config.global_not_taken_back("log"));
    }
    lines
}

/// Whether HAProxy reaches `listen` by this address.
fn leads_to(address: &str, listen: SocketAddr) -> bool {
    let bare = address.split_once('@').map_or(address, |(_, bare)| bare);
    bare.parse::<SocketAddr>().is_ok_and(|address| {
        address == listen || (listen.ip().is_unspecified() && address.port() == listen.port())
    })
}

fn not_asked_for() -> Said {
    Said::ok("access lines are not asked for: no `[signals]` in lb-agent.toml")
}

/// The ring that leads to the agent, and its line that does.
fn our_ring(config: &HaproxyConfig, agent: SocketAddr) -> Option<(&Section, &Line)> {
    let is_ours = |line: &&Line| line.word(0) == "server" && leads_to(line.word(2), agent);
    config.sections(&["ring"]).find_map(|section| Some((section, section.lines.iter().find(is_ours)?)))
}

pub(super) fn ring(seen: &Seen, written: &Written) -> Said {
    let Some(agent) = seen.log_to else { return not_asked_for() };
    let config = &written.config;
    let Some((ring, server)) = our_ring(config, agent) else {
        let what = format!("no ring leads to the agent at {agent}");
        return Said::fail(what, format!("add, before `defaults`:\n{}", ring_lines(agent)));
    };
    if server.after("log-proto").is_some_and(|protocol| protocol != "legacy") {
        return Said::fail(
            format!(
                "{}: the agent reads lines, not `log-proto {}`",
                server.place,
                server.after("log-proto").unwrap_or_default()
            ),
            format!("at {}:\n  server {} {} log-proto legacy", server.place, server.word(1), server.word(2)),
        );
    }
    let maxlen = ring.own(&["maxlen"]).last();
    if let Some(line) = maxlen.filter(|line| cuts(line.word(1))) {
        let what =
            format!("{}: `maxlen {}` cuts lines off before their last field", line.place, line.word(1));
        return Said::fail(what, format!("at {}:\n  maxlen 1024", line.place));
    }
    let wanted = format!("ring@{}", ring.name);
    let whole = format!("log {wanted} format raw local0");
    for section in frontend::routing_or_all(seen, config) {
        let logs = logs_of(config, section);
        let mut ours = logs.iter().filter(|line| line.word(1) == wanted).peekable();
        let Some(first) = ours.peek().copied() else {
            return Said::fail(
                format!("`{}` ({}) does not log to `{wanted}`", section.title(), section.place),
                add_to(section, &whole),
            );
        };
        if let (Some(why), true) = (keeps_back(first), ours.all(|line| keeps_back(line).is_some())) {
            return Said::fail(format!("{}: {why}", first.place), format!("at {}:\n  {whole}", first.place));
        }
        if let Setting::On(place) = config.option(section, "dontlog-normal") {
            let what =
                format!("{place}: `option dontlog-normal` writes no line for a request that went well");
            return Said::fail(what, format!("remove `option dontlog-normal` at {place}"));
        }
    }
    let well = || Said::ok(format!("`{}` leads to the agent at {agent}", ring.title()));
    silenced(seen, config).unwrap_or_else(well)
}

/// The line that keeps access lines of visitors back for good, or else of some of them. Probes from some addresses are few.
fn silenced(seen: &Seen, config: &HaproxyConfig) -> Option<Said> {
    let mut some = None;
    let fronts = frontend::routing_or_all(seen, config);
    let front = fronts.first().copied()?;
    let sections = fronts.iter().copied().chain(super::backends::slots(seen, config));
    for (home, line) in sections.flat_map(|section| config.rules(section)) {
        if line.word(1) != "set-log-level" || line.word(2) != "silent" || is_for_some(line, home) {
            continue;
        }
        let part = part::of_line(line, At { home, front, host: &seen.host });
        let what = format!("{}: `set-log-level silent` writes no line", line.place);
        let fix = format!("remove `set-log-level silent` at {}", line.place);
        if part >= Part::Most {
            return Some(Said::fail(what, fix));
        }
        if part > Part::Nobody {
            some =
                some.or(Some(Said::warn(format!("{what} for some requests: they look like lost ones"), fix)));
        }
    }
    some
}

/// Whether a line that may be so long lacks its end.
fn cuts(bytes: &str) -> bool {
    bytes.parse::<u64>().is_ok_and(|bytes| bytes < LINE_BYTES)
}

/// Levels above the one that access lines have, `info`, as HAProxy names them.
const ABOVE_INFO: [&str; 6] = ["emerg", "alert", "crit", "err", "warning", "notice"];

/// Why a `log` line lets not every access line through, or not all of it. After the target stand pairs of a keyword and its value, then the
/// facility, the lowest level that passes, and what lower ones are written as.
fn keeps_back(line: &Line) -> Option<String> {
    let mut words = line.words().iter().skip(2).map(String::as_str);
    let mut facility = None;
    while let Some(word) = words.next() {
        match word {
            "sample" => {
                return Some(format!(
                    "`sample {}` lets a part of the lines through",
                    words.next().unwrap_or_default()
                ));
            }
            "len" => {
                if let Some(bytes) = words.next().filter(|bytes| cuts(bytes)) {
                    return Some(format!("`len {bytes}` cuts lines off before their last field"));
                }
            }
            "format" | "profile" => {
                words.next();
            }
            _ if facility.is_none() => facility = Some(word),
            level if ABOVE_INFO.contains(&level) => {
                return Some(format!(
                    "`{level}` is above `info`, the level of access lines: none comes through"
                ));
            }
            _ => return None,
        }
    }
    None
}

pub(super) fn asap(seen: &Seen, written: &Written) -> Said {
    if seen.log_to.is_none() {
        return not_asked_for();
    }
    let config = &written.config;
    for section in frontend::routing_or_all(seen, config) {
        if let Setting::On(place) = config.option(section, "logasap") {
            let what = format!("{place}: `option logasap` writes lines before answers have ended");
            return Said::fail(what, format!("remove `option logasap` at {place}"));
        }
    }
    Said::ok("lines are written when answers have ended")
}

/// What sets how lines look; of several that stand in one section the last counts.
const SETS_FORMAT: [&[&str]; 4] =
    [&["log-format"], &["option", "httplog"], &["option", "httpslog"], &["option", "tcplog"]];

/// Fields of a `log-format` that hold what a visitor writes: the request's line, its headers, its cookie.
const OF_VISITORS: [&str; 8] = ["r", "HP", "HPO", "HQ", "HU", "hr", "hrl", "CC"];

/// Fetches that read what a visitor writes. The key by which a split knows visitors may be a cookie.
const READS_VISITORS: [&str; 12] = [
    "hdr",
    "req.",
    "req_",
    "capture.req.",
    "path",
    "url",
    "base",
    "query",
    "cook",
    "ssl_c_",
    "ssl_fc_sni",
    "var(txn.key)",
];

/// Converters that leave nothing but a number of it.
const TO_NUMBERS: [&str; 9] = ["xxh32", "xxh64", "xxh3", "crc32", "crc32c", "djb2", "sdbm", "wt6", "length"];

/// How the lines of a section look.
enum Form<'a> {
    /// As an option says: all but that of TCP hold the request, and count where HTTP is spoken.
    Option(&'a str),
    /// By a `log-format`.
    Format(String),
}

impl Form<'_> {
    fn of(line: &Line) -> Form<'_> {
        match line.word(0) {
            "option" => Form::Option(line.word(1)),
            _ => Form::Format(line.words().iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(" ")),
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self, Self::Format(text) if text.split_whitespace().next() == Some("pm1"))
    }

    /// The first field that a visitor writes.
    fn of_visitors(&self) -> Option<String> {
        match self {
            Self::Option("tcplog") => None,
            Self::Option(name) => Some(format!("option {name}")),
            Self::Format(text) => visitors_field(text).map(|(_, field)| field.to_owned()),
        }
    }

    /// Whether nothing stands before it.
    fn begins_with_visitors(&self) -> bool {
        matches!(self, Self::Format(text) if visitors_field(text).is_some_and(|(at, _)| at == 0))
    }

    /// Whether a word of ours comes after it, as what the visitor wrote can say first.
    fn before_a_field_of_ours(&self) -> bool {
        let Self::Format(text) = self else { return false };
        let Some((at, _)) = visitors_field(text) else { return false };
        let names = FORMAT.split(' ').filter_map(|field| field.split_inclusive('=').next());
        names
            .filter(|name| name.ends_with('='))
            .any(|name| text.find(&format!(" {name}")).is_none_or(|own| own > at))
    }
}

/// The first field of a `log-format` that a visitor writes, and where it stands.
fn visitors_field(text: &str) -> Option<(usize, &str)> {
    fields(text).into_iter().find(|(_, field)| {
        // What stands between `%` and the name: a name of its own, flags.
        let field = field.trim_start_matches('%');
        let field =
            field.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(field, |(_, rest)| rest);
        let field =
            field.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(field, |(_, rest)| rest);
        match field.strip_prefix('[') {
            None => OF_VISITORS.contains(&field),
            Some(expression) => {
                let expression = expression.trim_end_matches(']');
                let converter = expression.rsplit(',').next().unwrap_or_default();
                let converter = converter.split('(').next().unwrap_or_default();
                READS_VISITORS.iter().any(|fetch| expression.starts_with(fetch))
                    && !TO_NUMBERS.contains(&converter)
            }
        }
    })
}

/// The fields of a `log-format`, each with where it stands: `%ST`, `%{+Q}r`, `%[src]`.
fn fields(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let field = rest.get(at..).unwrap_or_default();
        let end = end_of_field(field);
        let begin = text.len().saturating_sub(field.len());
        found.extend(field.get(..end).map(|field| (begin, field)));
        rest = field.get(end..).unwrap_or_default();
    }
    found
}

/// Where a field that begins with `%` ends.
fn end_of_field(field: &str) -> usize {
    let mut open: Option<char> = None;
    for (at, letter) in field.char_indices().skip(1) {
        match (open, letter) {
            (None, '%') => return at.saturating_add(1),
            (None, '(') => open = Some(')'),
            (None, '{') => open = Some('}'),
            (None, '[') => open = Some(']'),
            (None, letter) if !letter.is_ascii_alphanumeric() => return at,
            (Some(']'), ']') => return at.saturating_add(1),
            (Some(close), letter) if close == letter => open = None,
            _ => {}
        }
    }
    field.len()
}

pub(super) fn format(seen: &Seen, written: &Written) -> Said {
    let Some(agent) = seen.log_to else { return not_asked_for() };
    let config = &written.config;
    let own = own_format(seen, config);
    let doubtful = written_by_visitors(seen, config, agent);
    doubtful.into_iter().fold(own, |worst, said| if said.verdict > worst.verdict { said } else { worst })
}

/// Lines that visitors write a part of, by the ring that leads to the agent.
fn written_by_visitors(seen: &Seen, config: &HaproxyConfig, agent: SocketAddr) -> Vec<Said> {
    let Some((ring, _)) = our_ring(config, agent) else { return Vec::new() };
    let wanted = format!("ring@{}", ring.name);
    let routing = frontend::routing_or_all(seen, config);
    let fronts = config.sections(&["frontend", "listen"]);
    let doubt = fronts.filter_map(|section| {
        let log = logs_of(config, section).into_iter().find(|line| line.word(1) == wanted)?;
        let set = config.last_of(section, &SETS_FORMAT)?;
        let form = Form::of(set);
        if matches!(form, Form::Option(_)) && !frontend::in_http(config, section) {
            return None;
        }
        let item = form.of_visitors()?;
        let is_ours = routing.iter().any(|known| known.place == section.place);
        let whose = format!("`{}` ({})", section.title(), section.place);
        if form.is_ours() {
            let what = format!("{}: `{item}` puts what visitors write into the access lines", set.place);
            let without = format!("at {}:\n  log-format \"{FORMAT}\"", set.place);
            return Some(match form.before_a_field_of_ours() {
                true => Said::fail(format!("{what}, before words that are counted"), without),
                false => Said::warn(what, without),
            });
        }
        // Its own form has been told of already.
        if is_ours {
            return None;
        }
        let line = log.words().join(" ");
        let elsewhere = routing.first().map_or_else(String::new, |front| {
            format!("\nand, where it has none of its own, {}", add_to(front, &line))
        });
        let fix = format!("remove at {}:\n  {line}{elsewhere}", log.place);
        let what = format!(
            "{whose} sends lines of another form to `{wanted}`, with `{item}`, which its visitors write"
        );
        Some(match form.begins_with_visitors() {
            true => {
                Said::fail(format!("{what}, at their start: whoever asks it can make access lines up"), fix)
            }
            false => Said::warn(what, fix),
        })
    });
    doubt.collect()
}

fn own_format(seen: &Seen, config: &HaproxyConfig) -> Said {
    let line = |section: &Section| add_to(section, &format!("log-format \"{FORMAT}\""));
    for section in frontend::routing_or_all(seen, config) {
        let Some(found) = config.last_of(section, &SETS_FORMAT) else {
            let what = format!("`{}` ({}) has no `log-format`", section.title(), section.place);
            return Said::fail(what, line(section));
        };
        let inherited = section.lines.iter().all(|own| own.place != found.place);
        if found.word(0) == "option" && inherited {
            // What stands in the frontend itself goes before it; other frontends log on as they do.
            return Said::fail(
                format!(
                    "`{}` ({}) has no `log-format` of its own and takes `option {}` of {}",
                    section.title(),
                    section.place,
                    found.word(1),
                    found.place
                ),
                line(section),
            );
        }
        if found.word(0) == "option" {
            let option = format!("option {}", found.word(1));
            return Said::fail(
                format!("{}: `{option}` replaces the `log-format` before it", found.place),
                format!(
                    "remove `{option}` at {}, and have in its section:\n  log-format \"{FORMAT}\"",
                    found.place
                ),
            );
        }
        let text = found.words().iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(" ");
        let fields: Vec<&str> = text.split_whitespace().collect();
        let at = match inherited {
            true => line(section),
            false => format!("at {}:\n  log-format \"{FORMAT}\"", found.place),
        };
        if fields.first() != Some(&"pm1") {
            return Said::fail(format!("{}: the lines do not begin with `pm1`", found.place), at);
        }
        let lacks = |field: &&str| {
            let name = field.split_inclusive('=').next().unwrap_or(field);
            !fields.iter().any(|known| known.starts_with(name))
        };
        let is_dispensable = |field: &&str| DISPENSABLE.iter().any(|name| field.starts_with(name));
        let lacking: Vec<&str> = FORMAT.split(' ').filter(lacks).collect();
        let what = format!("{}: the lines lack {}", found.place, listed(&lacking));
        match lacking.as_slice() {
            [] => {}
            some if some.iter().all(is_dispensable) => return Said::warn(what, at),
            _ => return Said::fail(what, at),
        }
    }
    Said::ok("`pm1` with every field")
}
