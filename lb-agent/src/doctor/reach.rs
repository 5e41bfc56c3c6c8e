//! Whether visitors get to what the route names: no rule takes them before it does, no other way leads to a slot, and
//! nothing that HAProxy has kept is answered in its place.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_chassis::http_check::Answer;
use pointsman_core::{Problem, Route};

use super::frontend::{by_route, is_file, map_calls, nobody_looks, routing, routing_or_all, sets};
use super::part::At;
use super::seen::{Seen, Written};
use super::trusted::{Condition, Term, is_for_some, named};
use super::{Said, add_to, listed, part};
use crate::config::Driver;
use crate::haproxy_cfg::{HaproxyConfig, Line, Place, Section};
use crate::loaded::USUAL_CONFIG;

/// The backend that a term finds without servers; it may stand in an `acl`.
fn finds_dead<'a>(term: &Term<'a>, section: &'a Section) -> Option<&'a str> {
    if term.negated {
        return None;
    }
    let mut lines = named(section, term.name());
    let words = match (lines.next(), lines.next()) {
        (None, _) => term.words,
        (Some(line), None) => line.words().get(2..)?,
        _ => return None,
    };
    let dead = matches!(
        words.get(1..)?.iter().map(String::as_str).collect::<Vec<_>>().as_slice(),
        ["lt", "1"] | ["le" | "eq", "0"] | ["0"]
    );
    words.first()?.strip_prefix("nbsrv(")?.strip_suffix(')').filter(|_| dead)
}

/// Whether an alternative holds for visitors only whom the route leads to a backend without servers: it asks for both, or
/// for the servers of all slots.
fn for_dead_route(alternative: &[Term<'_>], section: &Section, seen: &Seen) -> bool {
    let dead: Vec<&str> = alternative.iter().filter_map(|term| finds_dead(term, section)).collect();
    let led = |backend: &&str| {
        let asks = |words: &[String]| {
            words.first().is_some_and(|word| word.starts_with("var("))
                && words.iter().any(|word| word == backend)
        };
        alternative.iter().any(|term| {
            !term.negated
                && (asks(term.words)
                    || named(section, term.name())
                        .any(|line| asks(line.words().get(2..).unwrap_or_default())))
        })
    };
    !dead.is_empty() && (dead.iter().any(led) || slots(seen).all(|slot| dead.contains(&slot)))
}

/// Whether a rule may take any visitor of the site.
fn takes_visitors(line: &Line, section: &Section, host: &str) -> bool {
    !part::of_line(line, At::of(section, host)).is_apart()
}

/// What answers a request before any backend is picked.
const ANSWERS: [&str; 7] = ["redirect", "return", "deny", "tarpit", "reject", "silent-drop", "use-service"];

/// Whether a rule that answers leaves no visitor of the site to those below it.
fn leaves_none(line: &Line, at: At<'_>) -> bool {
    part::of_line(line, at).others().is_apart()
}

/// Whether a section answers every visitor by itself, so that nobody of them comes to the backends that it names. What is
/// let through before that is not answered.
fn answers_all(config: &HaproxyConfig, section: &Section, host: &str) -> bool {
    let rules = config.rules(section);
    let of = |keyword: &'static str| rules.iter().filter(move |(_, line)| line.word(0) == keyword);
    of("http-request").take_while(|(_, line)| line.word(1) != "allow").any(|(home, line)| {
        ANSWERS.contains(&line.word(1)) && leaves_none(line, At { home, front: section, host })
    }) || of("redirect").any(|(home, line)| leaves_none(line, At { home, front: section, host }))
}

/// Whether a section is for figures about HAProxy, and names no backend of its own: what it inherits for one nobody meant.
fn for_figures(section: &Section) -> bool {
    let own = |word: &str| section.lines.iter().any(|line| line.word(0) == word);
    let figures = own("stats") || section.own(&["http-request", "use-service"]).next().is_some();
    figures && !["use_backend", "default_backend", "server", "server-template"].into_iter().any(own)
}

pub(super) fn rules_before(seen: &Seen, written: &Written) -> Said {
    let (fronts, map) = (routing(seen, &written.config), seen.wanted.map_name());
    let (mut suspects, mut dead) = (Vec::new(), None);
    for section in &fronts {
        let of_route = by_route(&written.config, section, &map);
        let Some(last) = of_route.last() else {
            let what =
                format!("`{}` ({}) has no `use_backend` that uses the route", section.title(), section.place);
            let lines = "use_backend %[var(txn.canary)] if { var(txn.side) -m str canary }\nuse_backend %[var(txn.stable)]";
            return Said::fail(what, add_to(section, lines));
        };
        let others = section.own(&["use_backend"]).take_while(|line| line.place != last.place);
        let others = others.filter(|line| !of_route.iter().any(|of| of.place == line.place));
        for line in others.filter(|line| takes_visitors(line, section, &seen.host)) {
            let condition = Condition::of(line).filter(|condition| !condition.negated);
            let alternatives = condition.map_or_else(Vec::new, |condition| condition.alternatives);
            let open = || {
                alternatives
                    .iter()
                    .filter(|terms| !part::of_terms(terms, At::of(section, &seen.host)).is_apart())
            };
            if open().next().is_some() && open().all(|terms| for_dead_route(terms, section, seen)) {
                continue;
            }
            if let Some(slot) = open().flatten().find_map(|term| finds_dead(term, section)) {
                dead = dead.or(Some(Said::warn(
                    format!(
                        "{}: while `{slot}` has no server, `use_backend {}` takes visitors whom the route leads elsewhere",
                        line.place,
                        line.word(1)
                    ),
                    format!(
                        "only where the route leads there, at {}:\n  use_backend {} if {{ var(txn.stable) -m str {slot} }} {{ nbsrv({slot}) lt 1 }}",
                        line.place,
                        line.word(1)
                    ),
                )));
                continue;
            }
            if Condition::of(line).is_none() {
                return Said::fail(
                    format!(
                        "{}: `use_backend {}` takes every request, the route's lines are never reached",
                        line.place,
                        line.word(1)
                    ),
                    format!(
                        "remove it, or give it the condition of what it is for, at {}:\n  use_backend {} if {{ path_beg /other/ }}",
                        line.place,
                        line.word(1)
                    ),
                );
            }
            suspects.push(line);
        }
    }
    match suspects.first() {
        Some(line) => Said::warn(
            format!(
                "{} stand before the route's lines, and their conditions do not keep them from the site's visitors",
                listed(suspects.iter().map(|line| format!("{}: use_backend {}", line.place, line.word(1))))
            ),
            format!(
                "remove what the slots replace; else name the paths or the other host it is for, at {}:\n  use_backend {} if {{ path_beg /other/ }}",
                line.place,
                line.word(1)
            ),
        ),
        None if fronts.is_empty() => nobody_looks(),
        None => dead.unwrap_or_else(|| Said::ok("no rule before the route's takes its visitors")),
    }
}

/// What a request of the agent's own met at the path by which it sees that a move has moved visitors. A deploy judges it
/// alike, before it begins.
pub(super) fn asked(seen: &Seen) -> Result<Said, &Problem> {
    let (backends, entries) = (seen.backends.as_ref()?, seen.entries.as_ref()?);
    let (path, status) = (&seen.path, |answer: &Answer| answer.status);
    let other_path =
        "in `[frontend]` of lb-agent.toml, with a path that a slot answers:\n  path = \"/healthz\"";
    let answer = match &seen.answer {
        Ok(answer) => answer,
        Err(reason) => {
            let what = format!("a request for `{path}` at {} got no answer: {reason}", seen.asked);
            return Ok(Said::unknown(what, "compare `[frontend]` in lb-agent.toml with haproxy.cfg"));
        }
    };
    let beside = || {
        format!(
            "beside those by which visitors are answered so, in the frontend:\n  ... unless trusted\nor {other_path}"
        )
    };
    let Some(epoch) = answer.mark("epoch") else {
        return Ok(Said::fail(
            format!("a request for `{path}` is answered with status {} and shows no route", status(answer)),
            format!(
                "the lines of the route stand above every rule that answers by itself, such as `http-request auth`; or {}",
                beside()
            ),
        ));
    };
    let route = entries.iter().find(|(key, _)| *key == seen.wanted.key);
    let Some(route) = route.and_then(|(_, value)| Route::parse(value).ok()) else {
        return Ok(Said::unknown("HAProxy's map holds no route to compare with: see `map-one-entry`", ""));
    };
    if epoch != route.epoch.to_string() {
        return Ok(Said::unknown(
            format!("a request for `{path}` shows route epoch {epoch}, HAProxy's map has {}", route.epoch),
            "a switch may have come in between: look again\n  pointsman doctor lb ENV\nif it stays, another process or map answers: see `route-lookup` and `master-socket`",
        ));
    }
    let Some(backend) = answer.mark("be") else {
        return Ok(Said::ok(format!("a request for `{path}` shows the route")));
    };
    let named = if answer.mark("side") == Some("canary") { &route.canary } else { &route.stable };
    if backend == named.as_str() {
        return Ok(Said::ok(format!("a request for `{path}` is answered by `{backend}`, as the route says")));
    }
    if backends.iter().any(|known| known == backend) {
        return Ok(Said::fail(
            format!("a request for `{path}` is answered by `{backend}`, and the route leads to `{named}`"),
            format!(
                "{}\nwhere that is right for `{path}`, {other_path}",
                who_leads_there(seen, backend, named.as_str())
            ),
        ));
    }
    Ok(Said::warn(
        format!(
            "`{backend}` answers a request for `{path}` by a rule of its own, with status {}",
            status(answer)
        ),
        beside(),
    ))
}

/// Where the rule stands that leads to another backend than the route names, or how to look for it.
fn who_leads_there(seen: &Seen, backend: &str, named: &str) -> String {
    if backend == seen.wanted.maintenance_backend.0.as_str() {
        return format!(
            "HAProxy falls to `default_backend` where it has no `{named}`: see `backends-present`"
        );
    }
    let Ok(written) = &seen.written else {
        return format!(
            "find the rule that takes it before the route does:\n  grep -n {backend} {USUAL_CONFIG}"
        );
    };
    let fronts = routing(seen, &written.config);
    let map = seen.wanted.map_name();
    let of_route = |section: &Section, line: &Line| {
        by_route(&written.config, section, &map).iter().any(|of| of.place == line.place)
    };
    let leads = |line: &&Line| line.word(1) == backend || line.word(1).contains("%[");
    let rules = fronts.iter().flat_map(|section| {
        section.own(&["use_backend"]).filter(leads).filter(|line| !of_route(section, line))
    });
    let rules: Vec<String> =
        rules.map(|line| format!("\n  {}: {}", line.place, line.words().join(" "))).collect();
    if rules.is_empty() {
        let files = written.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
        return format!("find the rule that takes it before the route does:\n  grep -n {backend} {files}");
    }
    format!(
        "have the rule that takes it before the route does name the paths or the other host it is for:{}",
        rules.concat()
    )
}

/// The backends of a route that visitors are meant to get to by the route alone.
fn slots(seen: &Seen) -> impl Iterator<Item = &str> {
    let granted = seen.wanted.backends.iter().map(|name| &name.0);
    granted.filter(|name| !seen.wanted.needs_no_servers(name)).map(|name| name.as_str())
}

/// What a backend's name is made of, where that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made<'a> {
    /// Of this text.
    Text(&'a str),
    /// Of what stands in this map.
    Map(&'a str),
}

/// So many variables one after the other that name each other are followed: nobody has more.
const FOLLOWED: usize = 8;

/// Whether nothing is done to a text but that a field of it is taken.
fn keeps_fields(mut behind: &str) -> bool {
    while let Some((_, rest)) = behind.strip_prefix(",field(").and_then(|field| field.split_once(')')) {
        behind = rest;
    }
    behind.is_empty()
}

/// What an expression in a section is made of; `None` if a visitor has a say in it, or it cannot be seen.
fn made_of<'a>(
    config: &'a HaproxyConfig,
    section: &'a Section,
    expression: &'a str,
    left: usize,
) -> Option<Vec<Made<'a>>> {
    // Of several maps the last says the name.
    if let Some((map, default)) = map_calls(expression).pop() {
        let (_, behind) = expression.rsplit_once("map")?.1.split_once(')')?;
        let made = std::iter::once(Made::Map(map)).chain(default.map(Made::Text));
        return keeps_fields(behind).then(|| made.collect());
    }
    let argument = |fetch: &str| {
        let (argument, behind) = expression.strip_prefix(fetch)?.split_once(')')?;
        keeps_fields(behind).then_some(argument)
    };
    if let Some(text) = argument("str(") {
        return Some(vec![Made::Text(text)]);
    }
    let (variable, left) = (argument("var(")?, left.checked_sub(1)?);
    let mut made = Vec::new();
    let rules = config.rules(section).into_iter();
    for (_, line) in rules.filter(|(_, line)| sets(line) == Some(variable)) {
        let word = line.word(2);
        let whole = word.strip_prefix("%[").and_then(|word| word.strip_suffix(']'));
        made.extend(made_of(config, section, whole.unwrap_or(word), left)?);
    }
    Some(made).filter(|made| !made.is_empty())
}

/// The maps by which frontends name backends, but for the route's.
pub(super) fn maps(config: &HaproxyConfig, route: &str) -> BTreeSet<String> {
    let mut maps = BTreeSet::new();
    for section in config.sections(&["frontend", "listen"]) {
        let built = section
            .own(&["use_backend"])
            .filter_map(|line| line.word(1).split_once("%[").and_then(|(_, rest)| rest.rsplit_once(']')));
        let made = built.filter_map(|(expression, _)| made_of(config, section, expression, FOLLOWED));
        maps.extend(made.flatten().filter_map(|made| match made {
            Made::Map(map) if !is_file(map, route) => Some(map.to_owned()),
            Made::Map(_) | Made::Text(_) => None,
        }));
    }
    maps
}

/// A way from a frontend to a slot.
struct Way<'a> {
    line: &'a Line,
    how: How,
}

/// How a line names a slot.
enum How {
    ByName,
    /// By what is made for each request: what names it, and which slot.
    Made(String),
    /// Perhaps by what is made: what is to be looked at.
    Perhaps(String),
}

/// Where a rule leads whose backend's name is made for each request, if that may be a slot.
fn built<'a>(
    seen: &Seen,
    config: &'a HaproxyConfig,
    section: &'a Section,
    line: &'a Line,
) -> Option<Way<'a>> {
    let (before, rest) = line.word(1).split_once("%[")?;
    let (expression, behind) = rest.rsplit_once(']')?;
    // What has to be made for a slot's name to come of it.
    let part = |slot: &str| Some(slot.strip_prefix(before)?.strip_suffix(behind)?.to_owned());
    let parts: Vec<(&str, String)> = slots(seen).filter_map(|slot| Some((slot, part(slot)?))).collect();
    if parts.is_empty() {
        return None;
    }
    let Some(made) = made_of(config, section, expression, FOLLOWED) else {
        return Some(Way { line, how: How::Perhaps(String::new()) });
    };
    // A field of a value may be the name, as of a route.
    let slot_in = |value: &str| {
        let is_part = |part: &str| value == part || value.split(':').any(|field| field == part);
        parts.iter().find(|(_, part)| is_part(part)).map(|(slot, _)| *slot)
    };
    let mut perhaps = None;
    for made in made {
        let (found, what) = match made {
            Made::Text(text) => (slot_in(text), "its line".to_owned()),
            Made::Map(map) if is_file(map, &seen.wanted.map_name()) => continue,
            Made::Map(map) => match seen.values.get(map) {
                Some(Ok(values)) => (values.iter().find_map(|value| slot_in(value)), format!("`{map}`")),
                _ => {
                    let look =
                        format!("see where:\n  echo 'show map {map}' | {}", seen.wanted.socket.0.socat());
                    perhaps = perhaps.or(Some(look));
                    continue;
                }
            },
        };
        if let Some(slot) = found {
            return Some(Way { line, how: How::Made(format!(": {what} names `{slot}`")) });
        }
    }
    perhaps.map(|look| Way { line, how: How::Perhaps(look) })
}

/// The way by which a frontend leads to a slot without the route, a certain one first. Testers have ways of their own.
fn past_the_route<'a>(seen: &Seen, config: &'a HaproxyConfig, section: &'a Section) -> Option<Way<'a>> {
    let is_slot = |line: &&Line| slots(seen).any(|slot| slot == line.word(1));
    let of_route = by_route(config, section, &seen.wanted.map_name());
    let rules = || section.own(&["use_backend"]).filter(|line| !is_for_some(line, section));
    // What a `listen` has no backend of its own for: it is one itself.
    let by_name = rules()
        .find(is_slot)
        .or_else(|| config.in_effect(section, &["default_backend"]).filter(is_slot))
        .map(|line| Way { line, how: How::ByName });
    let others = rules().filter(|line| of_route.iter().all(|of| of.place != line.place));
    let (certain, perhaps): (Vec<Way<'_>>, Vec<Way<'_>>) = others
        .filter_map(|line| built(seen, config, section, line))
        .partition(|way| matches!(way.how, How::Made(_)));
    let rule = by_name.filter(|way| way.line.word(0) == "use_backend" || certain.is_empty());
    rule.or_else(|| certain.into_iter().next()).or_else(|| perhaps.into_iter().next())
}

pub(super) fn entrances(seen: &Seen, written: &Written) -> Said {
    let config = &written.config;
    let fronts = routing(seen, config);
    if fronts.is_empty() {
        return nobody_looks();
    }
    let (mut by_figures, mut perhaps) = (None, None);
    for section in config.sections(&["frontend", "listen"]) {
        let routes = fronts.iter().any(|front| front.place == section.place);
        let way_out = |place: &str| {
            format!(
                "have it look the route up as `{}` does, or redirect to that one; at {place}",
                fronts.first().map_or_else(String::new, |front| front.title())
            )
        };
        if section.kind == "listen"
            && section.own(&["bind"]).next().is_some()
            && slots(seen).any(|slot| slot == section.name)
        {
            let what = format!(
                "`{}` ({}) takes visitors in for its own servers, whatever the route says",
                section.title(),
                section.place
            );
            return Said::fail(what, format!("make it a `backend`, without `bind`, at {}", section.place));
        }
        let Some(Way { line, how }) = past_the_route(seen, config, section) else { continue };
        if routes && line.word(0) == "default_backend" {
            // Told by `default-backend`.
            continue;
        }
        if answers_all(config, section, &seen.host) {
            continue;
        }
        let named = match how {
            How::ByName => String::new(),
            How::Made(named) => named,
            How::Perhaps(look) => {
                let what = format!(
                    "{}: `{} {}` may lead from `{}` to a slot without the route: what its name is made of is not seen",
                    line.place,
                    line.word(0),
                    line.word(1),
                    section.title()
                );
                perhaps = perhaps.or(Some(Said::unknown(what, look)));
                continue;
            }
        };
        if for_figures(section) {
            let what = format!(
                "{}: whatever else `{}` is asked for than figures, `{} {}` leads to a slot without the route",
                line.place,
                section.title(),
                line.word(0),
                line.word(1)
            );
            by_figures = by_figures
                .or(Some(Said::warn(what, add_to(section, "http-request deny unless { path_beg /stats }"))));
            continue;
        }
        return Said::fail(
            format!(
                "{}: `{} {}` leads from `{}` to a slot without the route{named}",
                line.place,
                line.word(0),
                line.word(1),
                section.title()
            ),
            if routes {
                format!(
                    "remove it, or keep it to testers, at {}:\n  use_backend {} if {{ src <tester> }}",
                    line.place,
                    line.word(1)
                )
            } else {
                way_out(&line.place.to_string())
            },
        );
    }
    let found = by_figures.or_else(|| twin(seen, config)).or(perhaps);
    found.unwrap_or_else(|| Said::ok("only the route leads to a slot"))
}

/// The address of a server's line.
fn address(line: &Line) -> Option<&str> {
    (line.word(0) == "server").then(|| line.word(2)).filter(|address| !address.is_empty())
}

/// Another backend with a server of a slot, to which visitors are led: as a rule the one of before, kept for some paths. Two
/// sites on one port of a web server look alike.
fn twin(seen: &Seen, config: &HaproxyConfig) -> Option<Said> {
    let own: Vec<&Section> = slots(seen).filter_map(|slot| config.backend(slot)).collect();
    let of_slots = || own.iter().flat_map(|slot| slot.lines.iter().map(move |line| (*slot, line)));
    let others = config.sections(&["backend", "listen"]);
    let others = others.filter(|other| own.iter().all(|slot| slot.place != other.place));
    for other in others {
        let twins = other.lines.iter().find_map(|line| {
            let shared =
                |(_, of): &(&Section, &Line)| address(of).is_some_and(|of| address(line) == Some(of));
            Some((line, of_slots().find(shared)?))
        });
        let Some((line, (slot, _))) = twins else { continue };
        let Some(leads) = led_to(config, other) else { continue };
        return Some(Said::warn(
            format!(
                "{}: `{}` has the server {} of `{}` too, and {leads} leads there: nobody waits for these requests to end before a \
                 release overwrites the slot",
                line.place,
                other.title(),
                line.word(2),
                slot.name
            ),
            format!(
                "have the route lead these visitors, without the line at {leads}; leave it where that server answers for another site there"
            ),
        ));
    }
    None
}

/// Where visitors are led to a backend by its name; testers have ways of their own.
fn led_to<'a>(config: &'a HaproxyConfig, backend: &'a Section) -> Option<&'a Place> {
    if backend.kind == "listen" && backend.own(&["bind"]).next().is_some() {
        return Some(&backend.place);
    }
    let fronts = config.sections(&["frontend", "listen"]);
    fronts.into_iter().find_map(|front| {
        let names = |line: &&Line| line.word(1) == backend.name;
        let rule = front.own(&["use_backend"]).filter(names).find(|line| !is_for_some(line, front));
        let rule = rule.or_else(|| config.in_effect(front, &["default_backend"]).filter(names));
        rule.map(|line| &line.place)
    })
}

/// The lines by which a section answers from a cache. What is only stored is answered by nobody.
fn cached<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Vec<&'a Line> {
    config.all_in_effect(section, &["http-request", "cache-use"])
}

pub(super) fn cache(seen: &Seen, written: &Written) -> Said {
    let config = &written.config;
    let remove = |line: &Line| format!("remove `http-request cache-use {}` at {}", line.word(2), line.place);
    let mut in_part = None;
    let by_states = seen.wanted.driver == Driver::ServerState;
    let fronts = if by_states { routing_or_all(seen, config) } else { routing(seen, config) };
    for section in fronts {
        for line in cached(config, section) {
            let what =
                format!("{}: the cache `{}` answers before the route is asked", line.place, line.word(2));
            if takes_visitors(line, section, &seen.host) {
                return Said::fail(what, remove(line));
            }
            in_part = in_part.or(Some(Said::warn(format!("{what}, for some requests"), remove(line))));
        }
    }
    // Where states of servers are the switch, all slots are in one backend.
    let pools = seen.wanted.servers.values().flatten().map(|server| server.0.backend());
    for section in pools.filter(|_| by_states).filter_map(|pool| config.backend(pool)) {
        if let Some(line) = cached(config, section).first() {
            let what = format!(
                "{}: the slots in `{}` answer from one cache, `{}`",
                line.place,
                section.name,
                line.word(2)
            );
            return Said::fail(what, remove(line));
        }
    }
    let mut of_slots: BTreeMap<&str, (&str, &Line)> = BTreeMap::new();
    for section in slots(seen).filter_map(|slot| config.backend(slot)) {
        for line in cached(config, section) {
            let (slot, first) = *of_slots.entry(line.word(2)).or_insert((&section.name, line));
            if slot != section.name {
                let what = format!(
                    "{} and {}: `{slot}` and `{}` answer from one cache, `{}`",
                    first.place,
                    line.place,
                    section.name,
                    line.word(2)
                );
                return Said::fail(what, remove(line));
            }
        }
    }
    let own = of_slots.first_key_value().map(|(cache, (slot, line))| {
        let what = format!("{}: the cache `{cache}` answers for what `{slot}` held before", line.place);
        Said::warn(what, remove(line))
    });
    in_part.or(own).unwrap_or_else(|| Said::ok("HAProxy keeps no answers of a slot"))
}
