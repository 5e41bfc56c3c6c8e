//! The tables of rate limits that the agent may look into: whether HAProxy has them, and counts visitors in them.

use super::frontend::routing_or_all;
use super::seen::{Seen, Written};
use super::{Said, add_to, listed};
use crate::config::TableName;
use crate::haproxy_cfg::{HaproxyConfig, Line, Section};

/// Counters of a request, unless `tune.stick-counters` says otherwise.
const COUNTERS: u8 = 3;

/// When HAProxy looks at a line: all of one kind before any of the next, wherever they stand.
const KINDS: [&[&str]; 4] = [
    &["tcp-request", "connection"],
    &["tcp-request", "session"],
    &["tcp-request", "content"],
    &["http-request"],
];

/// A line that counts.
#[derive(Clone, Copy, Debug)]
struct Track<'a> {
    line: &'a Line,
    section: &'a Section,
    counter: u8,
    /// Its condition, the first word `if` or `unless`; empty for everybody.
    condition: &'a [String],
}

impl<'a> Track<'a> {
    fn of(line: &'a Line, section: &'a Section) -> Option<Self> {
        let counter = line.words().iter().find_map(|word| word.strip_prefix("track-sc")?.parse().ok())?;
        let at = line.words().iter().rposition(|word| word == "if" || word == "unless");
        let condition = at.and_then(|at| line.words().get(at..)).unwrap_or_default();
        Some(Self { line, section, counter, condition })
    }

    /// The table that it counts in: its section's own where it names none.
    fn table(&self) -> &'a str {
        self.line.after("table").unwrap_or(&self.section.name)
    }

    /// Whether it leaves nobody for a later line of the same counter: the first that holds counts alone.
    fn leaves_nobody(&self, later: &Self) -> bool {
        self.counter == later.counter && (self.condition.is_empty() || self.condition == later.condition)
    }
}

/// The lines that count for a request in a section, in HAProxy's order: what is inherited before its own.
fn tracks<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Vec<Track<'a>> {
    let chain = config.chain(section);
    let of_kind = |kind: &'static &[&str]| {
        let own = |part: &&'a Section| {
            let part: &'a Section = part;
            part.lines.iter().filter(|line| line.begins(kind)).filter_map(|line| Track::of(line, section))
        };
        chain.iter().rev().flat_map(own).collect::<Vec<_>>()
    };
    KINDS.iter().flat_map(of_kind).collect()
}

/// The last line that begins so in the first section of these kinds and this name that has one.
fn last_of<'a>(
    config: &'a HaproxyConfig,
    (kinds, name): (&'a [&'a str], &str),
    begin: &[&str],
) -> Option<&'a Line> {
    let mut sections = config.sections(kinds).filter(|section| section.name == name);
    sections.find_map(|section| section.lines.iter().rfind(|line| line.begins(begin)))
}

/// What keeps visitors from being counted in a table.
fn wrong(seen: &Seen, config: &HaproxyConfig, name: &TableName) -> Option<Said> {
    const KINDS_WITH_TABLES: &[&str] = &["frontend", "backend", "listen"];
    let table = name.as_str();
    let stick = match name.in_peers() {
        Some((peers, name)) => last_of(config, (&["peers"], peers), &["table", name]),
        None => last_of(config, (KINDS_WITH_TABLES, table), &["stick-table"]),
    };
    let Some(stick) = stick else {
        let section = match name.in_peers() {
            Some((peers, name)) => format!("peers {peers}\n  table {name}"),
            None => format!("backend {table}\n  stick-table"),
        };
        return Some(Said::warn(
            format!("HAProxy's configuration has no table `{table}`"),
            format!(
                "add, or take it out of `rate_limit_tables` in lb-agent.toml:\n{section} type ipv6 size 100k expire 10m store http_req_rate(10s)"
            ),
        ));
    };
    if !stick.holds("http_req_rate(") {
        return Some(Said::warn(
            format!("{}: the table `{table}` does not store `http_req_rate`", stick.place),
            format!(
                "at {}:\n  {} store http_req_rate(10s)\nwithout it an address is let in again all the same:\n  pointsman traffic unblock ENV <address>",
                stick.place,
                stick.words().join(" ")
            ),
        ));
    }
    let fronts = routing_or_all(seen, config);
    let mut taken: Option<(Track<'_>, Track<'_>)> = None;
    for section in config.sections(KINDS_WITH_TABLES) {
        // What a frontend has counted a backend does not count anew.
        let before = fronts.iter().filter(|_| section.kind == "backend");
        let mut earlier: Vec<Track<'_>> = before.flat_map(|front| tracks(config, front)).collect();
        for track in tracks(config, section) {
            if track.table() == table {
                let taker = earlier.iter().find(|before| before.leaves_nobody(&track));
                taken = taken.or(Some((track, *taker?)));
            }
            earlier.push(track);
        }
    }
    let limit = |free: u8| format!("http-request track-sc{free} src table {table} unless trusted");
    let Some((track, taker)) = taken else {
        let front = fronts.first()?;
        let free = free_counter(config, front)?;
        return Some(Said::warn(
            format!("no line counts visitors in `{table}`"),
            format!("below the line `acl trusted`; {}", add_to(front, &limit(free))),
        ));
    };
    let what = format!(
        "{}: nobody is counted in `{table}`: {} has taken counter {} before",
        track.line.place, taker.line.place, track.counter
    );
    let fix = match free_counter(config, track.section) {
        Some(free) => format!(
            "with a number that is free there, also in `sc_http_req_rate({free},{table})`, at {}:\n  {}",
            track.line.place,
            limit(free)
        ),
        None => format!(
            "a request is counted in {} tables at most: name that of {} in `rate_limit_tables` of lb-agent.toml\n  rate_limit_tables = [\"{}\"]",
            counters(config),
            taker.line.place,
            taker.table()
        ),
    };
    Some(Said::warn(what, fix))
}

fn counters(config: &HaproxyConfig) -> u8 {
    let tuned = config.global(&["tune.stick-counters"]).last();
    tuned.and_then(|line| line.word(1).parse().ok()).unwrap_or(COUNTERS)
}

/// A counter that no line of a section uses.
fn free_counter(config: &HaproxyConfig, section: &Section) -> Option<u8> {
    let used = tracks(config, section);
    (0..counters(config)).rev().find(|counter| used.iter().all(|track| track.counter != *counter))
}

pub(super) fn counted(seen: &Seen, written: &Written) -> Said {
    let tables: Vec<&TableName> = seen.wanted.rate_limit_tables.iter().map(|table| &table.0).collect();
    if tables.is_empty() {
        return Said::ok("none is granted: no `rate_limit_tables` in lb-agent.toml");
    }
    let found: Vec<Said> = tables.iter().filter_map(|table| wrong(seen, &written.config, table)).collect();
    if found.is_empty() {
        return Said::ok(format!(
            "visitors are counted in {}",
            listed(tables.iter().map(|table| table.as_str()))
        ));
    }
    let of = |part: fn(&Said) -> &str| found.iter().map(part).collect::<Vec<_>>();
    Said::warn(of(|said| &said.what).join("; "), of(|said| &said.fix).join("\n"))
}
