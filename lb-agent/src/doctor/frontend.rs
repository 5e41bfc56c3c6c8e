//! The frontend: it looks the route up once, takes it apart, and shows it.

use super::seen::{Seen, Written};
use super::trusted::{binds, named};
use super::{Said, add_to, listed};
use crate::config::{Driver, Haproxy};
use crate::haproxy_cfg::{HaproxyConfig, Line, Section};

/// The header that shows the route, and by which trusted clients pick a side.
pub(super) const HEADER: &str = "x-pointsman";

/// The header's line, as it should stand.
const SHOW: &str = "http-after-response del-header X-Pointsman\nhttp-after-response set-header X-Pointsman \"epoch=%[var(txn.epoch)] side=%[var(txn.side)] be=%[be_name]\" if { var(txn.epoch) -m found }";

/// One lookup in a map file.
#[derive(Debug, PartialEq, Eq)]
struct Lookup<'a> {
    section: &'a Section,
    line: &'a Line,
    map: &'a str,
    default: Option<&'a str>,
    /// The variable that its result goes to whole.
    variable: Option<&'a str>,
}

/// The line that looks the route up.
pub(super) fn lookup_line(wanted: &Haproxy) -> String {
    let (key, map, maintenance) = (&wanted.key, wanted.map_name(), &wanted.maintenance_backend.0);
    format!("http-request set-var(txn.route) str({key}),map({map},{maintenance}:{maintenance}:0:0)")
}

/// The arguments of every `map(...)`, `map_str(...)` and so on in a word.
pub(super) fn map_calls(word: &str) -> Vec<(&str, Option<&str>)> {
    let mut calls = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("map") {
        let begins = before.chars().next_back().is_none_or(|c| c == ',' || c.is_whitespace());
        let name_end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        let call = after.get(name_end..).and_then(|call| call.strip_prefix('('));
        let call = call.filter(|_| begins).and_then(|call| call.split_once(')'));
        if let Some((arguments, _)) = call {
            let (map, default) =
                arguments.split_once(',').map_or((arguments, None), |(map, default)| (map, Some(default)));
            calls.push((map, default));
        }
        rest = after;
    }
    calls
}

/// The variable that a line sets, by either way of writing it.
pub(super) fn sets(line: &Line) -> Option<&str> {
    let begins = |word: &'static str| line.word(1).strip_prefix(word);
    let inside = begins("set-var(").or_else(|| begins("set-var-fmt("))?.strip_suffix(')')?;
    // Behind a comma stands when it is set.
    inside.split(',').next()
}

/// Whether a file that the configuration names is this one. What a variable of HAProxy's environment holds is known to HAProxy
/// alone: with one in its path it may be.
pub(super) fn is_file(written: &str, file: &str) -> bool {
    let (mut known, mut rest) = (Vec::new(), written);
    while let Some((before, after)) = rest.split_once('$') {
        known.push(before);
        let in_braces = after.strip_prefix('{').and_then(|name| name.split_once('}'));
        rest = in_braces.map_or_else(
            || after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            |(_, behind)| behind,
        );
    }
    let Some((first, between)) = known.split_first() else { return rest == file };
    let within = file.strip_prefix(first).and_then(|file| file.strip_suffix(rest));
    let left =
        between.iter().try_fold(within, |left, part| Some(left?.split_once(part).map(|(_, left)| left)));
    left.flatten().is_some()
}

fn lookups<'a>(config: &'a HaproxyConfig) -> Vec<Lookup<'a>> {
    let mut found = Vec::new();
    for section in config.sections(&["frontend", "listen"]) {
        for (_, line) in config.rules(section) {
            for (map, default) in line.words().iter().flat_map(|word| map_calls(word)) {
                found.push(Lookup { section, line, map, default, variable: sets(line) });
            }
        }
    }
    found
}

fn of_route<'a>(seen: &Seen, config: &'a HaproxyConfig) -> Vec<Lookup<'a>> {
    let map = seen.wanted.map_name();
    lookups(config).into_iter().filter(|lookup| is_file(lookup.map, &map)).collect()
}

/// The frontends that look the route up.
pub(super) fn routing<'a>(seen: &Seen, config: &'a HaproxyConfig) -> Vec<&'a Section> {
    let mut sections: Vec<&Section> = of_route(seen, config).iter().map(|lookup| lookup.section).collect();
    sections.dedup_by_key(|section| &section.place);
    sections
}

/// The frontends that look the route up; as long as none does, the one that the agent asks, else all that may one day.
pub(super) fn routing_or_all<'a>(seen: &Seen, config: &'a HaproxyConfig) -> Vec<&'a Section> {
    let routing = routing(seen, config);
    if !routing.is_empty() {
        return routing;
    }
    if seen.wanted.driver == Driver::ServerState {
        return config
            .sections(&["frontend", "listen"])
            .filter(|section| leads_to_servers(seen, config, section))
            .collect();
    }
    let may_route = |section: &&Section| in_http(config, section) && !section.own(&["stats"]).any(|_| true);
    let mut may: Vec<&Section> = config.sections(&["frontend", "listen"]).filter(may_route).collect();
    let is_asked = |section: &Section| {
        section.own(&["bind"]).any(|line| line.word(1).split(',').any(|bind| binds(bind, seen.asked)))
    };
    if may.iter().any(|section| is_asked(section)) {
        may.retain(|section| is_asked(section));
    }
    may
}

/// Whether a section may send requests to the backends that hold the servers of the driver `server-state`: by their names, or by
/// a name that is made for each request.
fn leads_to_servers(seen: &Seen, config: &HaproxyConfig, section: &Section) -> bool {
    let is_one = |name: &str| seen.wanted.servers.values().flatten().any(|server| server.0.backend() == name);
    let named = section.own(&["use_backend"]).chain(config.in_effect(section, &["default_backend"]));
    section.kind == "listen" && is_one(&section.name)
        || named.into_iter().any(|line| is_one(line.word(1)) || line.word(1).contains("%["))
}

/// Where the lines of routing belong.
fn add_routing(seen: &Seen, config: &HaproxyConfig, lines: &str) -> String {
    match routing_or_all(seen, config).first() {
        Some(section) => add_to(section, lines),
        None => format!("add a frontend:\n  {}", lines.replace('\n', "\n  ")),
    }
}

/// Whether the route decides: then servers' weights and cookies do not move visitors.
pub(super) fn routes_by_map(seen: &Seen, config: &HaproxyConfig) -> bool {
    !routing(seen, config).is_empty()
}

/// Whether a section speaks HTTP. Where nothing says so HAProxy takes TCP.
pub(super) fn in_http(config: &HaproxyConfig, section: &Section) -> bool {
    config.in_effect(section, &["mode"]).is_some_and(|line| line.word(1) == "http")
}

/// Whether every part of the way to an answer speaks HTTP. A backend that is named for each request is not looked at by `haproxy -c`.
pub(super) fn mode(seen: &Seen, written: &Written) -> Said {
    let (config, wanted) = (&written.config, &seen.wanted);
    let by_states = wanted.driver == Driver::ServerState;
    let pages = [Some(&wanted.maintenance_backend), wanted.hold_backend.as_ref()];
    let pages = pages.into_iter().flatten().filter_map(|name| config.backend(name.0.as_str()));
    let fronts = if by_states { routing_or_all(seen, config) } else { routing(seen, config) };
    let mut sections: Vec<&Section> = fronts;
    sections.extend(super::backends::slots(seen, config));
    sections.extend(pages.filter(|_| !by_states));
    let others: Vec<&Section> =
        sections.iter().copied().filter(|section| !in_http(config, section)).collect();
    if sections.is_empty() {
        return Said::unknown("no frontend and no backend of a slot stands in HAProxy's configuration", "");
    }
    if others.is_empty() {
        return Said::ok("HTTP from the frontend to the slots");
    }
    let whats = others.iter().map(|section| match config.in_effect(section, &["mode"]) {
        Some(line) => format!("`{}` is in `mode {}` ({})", section.title(), line.word(1), line.place),
        None => format!("`{}` ({}) has no `mode`, which is TCP", section.title(), section.place),
    });
    let what = whats.collect::<Vec<_>>().join("; ");
    let fixes = others.iter().map(|section| add_to(section, "mode http"));
    Said::fail(what, fixes.collect::<Vec<_>>().join("\n"))
}

pub(super) fn lookup(seen: &Seen, written: &Written) -> Said {
    let (config, map) = (&written.config, seen.wanted.map_name());
    let found = of_route(seen, config);
    let line = lookup_line(&seen.wanted);
    if found.is_empty() {
        let others = lookups(config);
        let others = others.iter().map(|lookup| format!("{} ({})", lookup.map, lookup.line.place));
        let has = listed(others);
        let has = if has.is_empty() { "no map at all".to_owned() } else { has };
        return Said::fail(
            format!("no frontend looks up `{map}`: they look up {has}"),
            add_routing(seen, config, &line),
        );
    }
    for section in routing(seen, config) {
        let mut here = found.iter().filter(|lookup| lookup.section.place == section.place);
        let (first, second) = (here.next(), here.next());
        if let (Some(first), Some(second)) = (first, second) {
            return Said::fail(
                format!(
                    "`{}` looks the route up at {} and again at {}",
                    section.title(),
                    first.line.place,
                    second.line.place
                ),
                format!(
                    "look it up once, and use the variable everywhere else:\n  {line}\n  use_backend %[var(txn.route),field(1,:)]"
                ),
            );
        }
    }
    match found.iter().find(|lookup| lookup.variable.is_none()) {
        Some(lookup) => Said::fail(
            format!("{}: the route is looked up, but not kept in a variable", lookup.line.place),
            format!("instead of {}:\n  {line}", lookup.line.place),
        ),
        None => {
            let mut places: Vec<_> = found.iter().map(|lookup| &lookup.line.place).collect();
            // Several frontends may have it from one `defaults`.
            places.dedup();
            Said::ok(format!("once, at {}", listed(places)))
        }
    }
}

pub(super) fn lookup_default(seen: &Seen, written: &Written) -> Said {
    let found = of_route(seen, &written.config);
    let maintenance = seen.wanted.maintenance_backend.0.as_str();
    let instead = |lookup: &Lookup<'_>| format!("at {}:\n  {}", lookup.line.place, lookup_line(&seen.wanted));
    for lookup in &found {
        match lookup.default.map(|route| route.split(':').collect::<Vec<_>>()) {
            None => {
                return Said::warn(
                    format!("{}: the lookup has no default", lookup.line.place),
                    instead(lookup),
                );
            }
            Some(parts)
                if parts.first() != Some(&maintenance)
                    || parts.get(1).is_some_and(|canary| *canary != maintenance) =>
            {
                let what = format!(
                    "{}: the default of the lookup is `{}`, expected `{maintenance}`",
                    lookup.line.place,
                    lookup.default.unwrap_or_default()
                );
                return Said::fail(what, instead(lookup));
            }
            Some(_) => {}
        }
    }
    if found.is_empty() { nobody_looks() } else { Said::ok(format!("`{maintenance}`")) }
}

/// Nothing to check as long as no frontend looks the route up: `route-lookup` says so.
pub(super) fn nobody_looks() -> Said {
    Said::unknown("no frontend looks the route up: see `route-lookup`", "")
}

pub(super) fn default_backend(seen: &Seen, written: &Written) -> Said {
    let config = &written.config;
    let fronts = routing(seen, config);
    let maintenance = seen.wanted.maintenance_backend.0.as_str();
    for section in &fronts {
        let line = config.in_effect(section, &["default_backend"]);
        let right = format!("default_backend {maintenance}");
        match line {
            None => {
                let what = format!("`{}` ({}) has no `default_backend`", section.title(), section.place);
                return Said::fail(what, add_to(section, &right));
            }
            Some(line) if line.word(1) != maintenance => {
                let what =
                    format!("{}: `default_backend {}`, expected `{maintenance}`", line.place, line.word(1));
                return Said::fail(what, format!("at {}:\n  {right}", line.place));
            }
            Some(_) => {}
        }
    }
    if fronts.is_empty() { nobody_looks() } else { Said::ok(format!("`{maintenance}`")) }
}

/// The rules of a frontend that name a backend by a variable made from the route in this map.
pub(super) fn by_route<'a>(config: &'a HaproxyConfig, section: &'a Section, map: &str) -> Vec<&'a Line> {
    let mut variables: Vec<&str> = Vec::new();
    for (_, line) in config.rules(section) {
        let Some(variable) = sets(line).filter(|_| line.word(0) == "http-request") else { continue };
        let made = variables.iter().any(|of| line.holds(&format!("var({of})")));
        let mut calls = line.words().iter().flat_map(|word| map_calls(word));
        if made || calls.any(|(called, _)| is_file(called, map)) {
            variables.push(variable);
        }
    }
    let uses =
        |line: &&Line| variables.iter().any(|variable| line.word(1).contains(&format!("var({variable})")));
    section.own(&["use_backend"]).filter(uses).collect()
}

/// A slot is one backend: what else the route leads to is neither drained nor checked nor counted.
pub(super) fn one_backend(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    let built = |line: &&Line| !(line.word(1).starts_with("%[") && line.word(1).ends_with(']'));
    let map = seen.wanted.map_name();
    let further = fronts.iter().flat_map(|section| by_route(&written.config, section, &map)).find(built);
    match further {
        Some(line) => Said::fail(
            format!(
                "{}: `use_backend {}` makes another backend's name of the route",
                line.place,
                line.word(1)
            ),
            "let one backend for each slot answer it all, choosing among its servers by rules:\n  \
             use-server api if { path_beg /api/ }\nor lead these paths to a backend that no release changes",
        ),
        None if fronts.is_empty() => nobody_looks(),
        None => Said::ok("the route leads to the backends that it names"),
    }
}

/// The lines that HAProxy goes by in a section, those of the `defaults` that it names among them.
fn rules<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Vec<&'a Line> {
    config.rules(section).into_iter().map(|(_, line)| line).collect()
}

/// The lines for a visitor's bucket, other ones in each release.
const BUCKET: &str = "http-request set-var(txn.salt) var(txn.epoch),div(16)\nhttp-request set-var(txn.bkt)  var(txn.key),concat(-,txn.salt),xxh32,mod(100)";

/// An `acl` of the fragment's that shares its name with another: HAProxy takes the lines of one name for alternatives, without a
/// word. Fragments of before had `known` and `page`.
fn namesake(section: &Section) -> Option<Said> {
    let of_visitors = |line: &&Line| line.word(0) == "acl" && line.holds("cook(pm_id)");
    let known = section.lines.iter().find(of_visitors);
    let of_pages = |line: &&Line| {
        line.word(0) == "acl" && ["page", "pm_page"].contains(&line.word(1)) && line.holds("hdr(accept)")
    };
    let page = section.lines.iter().find(of_pages).filter(|_| known.is_some());
    [(known, "pm_known", "pm_known_by_cookie"), (page, "pm_page", "pm_page_by_header")].into_iter().find_map(
        |(ours, name, other_name)| {
            let ours = ours?;
            let is_other = |line: &&Line| line.words().get(2..) != ours.words().get(2..);
            let other = named(section, ours.word(1)).find(is_other)?;
            let free = if ours.word(1) == name { other_name } else { name };
            Some(Said::warn(
                format!(
                    "`acl {}` stands for two things: {} and {}, and holds where either does",
                    ours.word(1),
                    ours.place,
                    other.place
                ),
                format!(
                    "another name, also in the lines below that set `txn.newid` and `txn.key`, at {}:\n  acl {free} {}",
                    ours.place,
                    ours.words().get(2..).unwrap_or_default().join(" ")
                ),
            ))
        },
    )
}

pub(super) fn canary(seen: &Seen, written: &Written) -> Said {
    const LINES: &str = "http-request set-var(txn.pct)  var(txn.route),field(3,:)\nhttp-request set-var(txn.salt) var(txn.epoch),div(16)\nhttp-request set-var(txn.bkt)  var(txn.key),concat(-,txn.salt),xxh32,mod(100)\nhttp-request set-var(txn.side) str(canary) if { var(txn.bkt),sub(txn.pct) lt 0 }";
    let fronts = routing(seen, &written.config);
    let mut always = None;
    if let Some(said) = fronts.iter().flat_map(|section| written.config.chain(section)).find_map(namesake) {
        return said;
    }
    for section in &fronts {
        let lines = rules(&written.config, section);
        // As `config-snippet` printed it before: the hash of the id alone.
        let unsalted =
            |line: &&Line| sets(line).is_some() && line.holds(",xxh32,mod(") && !line.holds("concat(");
        always = always.or(lines.iter().copied().find(unsalted));
        let by_chance = lines.iter().find(|line| {
            sets(line).is_some() && line.words().iter().skip(2).any(|word| word.starts_with("rand"))
        });
        if let Some(line) = by_chance {
            let what = format!(
                "{}: the side is chosen by chance for each request: a page mixes files of both slots",
                line.place
            );
            return Said::warn(
                what,
                format!(
                    "by visitor instead, as `pointsman-lb-agent config-snippet` shows:\n{}",
                    super::indented(LINES)
                ),
            );
        }
        let percent = lines.iter().find_map(|line| line.holds("field(3").then_some((sets(line)?, line)));
        let used = percent.is_some_and(|(variable, read)| {
            lines.iter().any(|line| line.place != read.place && line.holds(variable))
        });
        if !used {
            let what =
                format!("`{}` ({}) does not use the percent of the route", section.title(), section.place);
            let fix = format!(
                "the lines for who is who stand in `pointsman-lb-agent config-snippet`; {}",
                add_to(section, LINES)
            );
            return Said::warn(what, fix);
        }
    }
    match always {
        Some(line) => Said::warn(
            format!(
                "{}: the same visitors are on the canary of every release: one that always fails turns each back",
                line.place
            ),
            format!("instead of {}:\n{}", line.place, super::indented(BUCKET)),
        ),
        None if fronts.is_empty() => nobody_looks(),
        None => Said::ok("visitors are divided by the percent of the route"),
    }
}

pub(super) fn route_shown(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    let mut older = None;
    for section in &fronts {
        let shows = |action: &str| {
            rules(&written.config, section).into_iter().find(|line| {
                line.word(0) == action
                    && ["set-header", "add-header"].contains(&line.word(1))
                    && line.word(2).eq_ignore_ascii_case(HEADER)
            })
        };
        match (shows("http-after-response"), shows("http-response")) {
            (Some(line), _) if line.holds("epoch=") && line.holds("side=") => {
                let shows_backend = line.words().iter().any(|word| word.contains("be=%[be_name]"));
                older = older.or(Some(line).filter(|_| !shows_backend));
            }
            (Some(line), _) => {
                let what = format!("{}: `X-Pointsman` does not carry `epoch=` and `side=`", line.place);
                return Said::fail(what, format!("at {}:\n{}", line.place, super::indented(SHOW)));
            }
            (None, Some(line)) => {
                let what = format!(
                    "{}: `http-response` does not reach answers that HAProxy makes itself",
                    line.place
                );
                return Said::fail(what, format!("instead of {}:\n{}", line.place, super::indented(SHOW)));
            }
            (None, None) => {
                let what = format!("`{}` ({}) does not set `X-Pointsman`", section.title(), section.place);
                return Said::fail(what, add_to(section, SHOW));
            }
        }
    }
    match older {
        // Printed by an earlier `config-snippet`: it goes on working, and shows less.
        Some(line) => Said::warn(
            format!(
                "{}: `X-Pointsman` does not carry `be=`: a rule that leads elsewhere is not seen",
                line.place
            ),
            format!("at {}:\n{}", line.place, super::indented(SHOW)),
        ),
        None if fronts.is_empty() => nobody_looks(),
        None => Said::ok("answers carry `X-Pointsman`"),
    }
}

pub(super) fn header_removed(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    let removes = |line: &Line| {
        line.begins(&["http-request", "del-header"]) && line.word(2).eq_ignore_ascii_case(HEADER)
    };
    let lacking = fronts.iter().find(|section| !rules(&written.config, section).into_iter().any(removes));
    match lacking {
        Some(section) => Said::warn(
            format!("`{}` ({}) passes `X-Pointsman` of visitors on", section.title(), section.place),
            format!(
                "after the lines that read it; {}",
                add_to(section, "http-request del-header X-Pointsman")
            ),
        ),
        None if fronts.is_empty() => nobody_looks(),
        None => Said::ok("removed before the application sees it"),
    }
}

#[cfg(test)]
mod tests {
    use super::map_calls;

    #[test]
    fn maps_are_found_in_every_way_of_writing_them() {
        for (word, expected) in [
            (
                "str(route),map(/r.map,be_maint:be_maint:0:0)",
                &[("/r.map", Some("be_maint:be_maint:0:0"))][..],
            ),
            ("str(route),map_str_str(/r.map)", &[("/r.map", None)]),
            ("%[str(route),map(/r.map),field(1,:)]", &[("/r.map", None)]),
            ("hdr(host),lower,map_dom(/h.map,x),map(/r.map)", &[("/h.map", Some("x")), ("/r.map", None)]),
            ("bitmap(/r.map)", &[]),
            ("map", &[]),
            ("str(x),map(/never-closed", &[]),
        ] {
            assert_eq!(map_calls(word), expected, "{word}");
        }
    }
}
