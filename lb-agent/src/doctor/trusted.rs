//! Who may pick a side with `X-Pointsman`: some addresses, and the agent's among them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::frontend::{HEADER, nobody_looks, routing, sets};
use super::seen::{Seen, Written};
use super::{Said, add_to, listed};
use crate::haproxy_cfg::{HaproxyConfig, Line, Section};

/// Networks wider than this hold visitors behind NAT sooner or later: 256 addresses, or one IPv6 network.
const WIDE_V4: u8 = 24;
const WIDE_V6: u8 = 64;

/// Actions that may read the header without choosing anything by it.
const HARMLESS: &[&str] =
    &["del-header", "set-header", "add-header", "capture", "deny", "reject", "tarpit", "silent-drop"];

/// A condition: alternatives of terms that must all hold. A term is the name of an `acl` or `{ ... }` in braces.
pub(super) struct Condition<'a> {
    pub(super) negated: bool,
    pub(super) alternatives: Vec<Vec<Term<'a>>>,
}

#[derive(Clone, Copy)]
pub(super) struct Term<'a> {
    pub(super) negated: bool,
    pub(super) words: &'a [String],
}

impl<'a> Condition<'a> {
    pub(super) fn of(line: &'a Line) -> Option<Self> {
        let at = line.words().iter().rposition(|word| word == "if" || word == "unless")?;
        let negated = line.word(at) == "unless";
        let mut rest = line.words().get(at.saturating_add(1)..)?;
        let mut alternatives = vec![Vec::new()];
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if first == "or" || first == "||" {
                alternatives.push(Vec::new());
                continue;
            }
            let name = first.trim_start_matches('!');
            let negated = first.starts_with('!');
            let words = match name {
                // A lone `!` belongs to what follows; nobody writes it so, and as a term of its own it trusts nobody.
                "" => continue,
                "{" => {
                    let end = rest.iter().position(|word| word == "}").unwrap_or(rest.len());
                    let within = rest.get(..end).unwrap_or_default();
                    rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
                    within
                }
                _ => std::slice::from_ref(first),
            };
            if let Some(last) = alternatives.last_mut() {
                last.push(Term { negated, words });
            }
        }
        Some(Self { negated, alternatives })
    }
}

/// The `acl` lines of this name.
pub(super) fn named<'a>(section: &'a Section, name: &str) -> impl Iterator<Item = &'a Line> {
    section.lines.iter().filter(move |line| line.word(0) == "acl" && line.word(1) == name)
}

fn reads_header(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("hdr") && text.contains(&format!("({HEADER})"))
}

impl Term<'_> {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", |word| word.trim_start_matches('!'))
    }

    /// Whether it reads the header, itself or by an `acl`.
    fn of_header(&self, section: &Section) -> bool {
        self.words.iter().any(|word| reads_header(word))
            || named(section, self.name()).any(|line| line.words().iter().any(|word| reads_header(word)))
    }

    /// The addresses that it lets through, each with its `acl` line, if it is about where a request comes from.
    fn sources<'s>(&self, section: &'s Section) -> Option<Vec<(String, Option<&'s Line>)>> {
        if self.negated {
            return None;
        }
        if self.name() == "src" {
            return Some(self.words.iter().skip(1).map(|address| (address.clone(), None)).collect());
        }
        let lines: Vec<&Line> = named(section, self.name()).collect();
        // Lines of one name are alternatives: one that is not about the source lets everybody through.
        let all_sources = !lines.is_empty() && lines.iter().all(|line| line.word(2) == "src");
        let of_line = |line: &&'s Line| {
            line.words().iter().skip(3).map(|word| (word.clone(), Some(*line))).collect::<Vec<_>>()
        };
        all_sources.then(|| lines.iter().flat_map(of_line).collect())
    }

    /// The line that lets others than some addresses through, beside lines of its name that are about addresses.
    fn opened_by<'s>(&self, section: &'s Section) -> Option<&'s Line> {
        let of_source = |line: &&Line| line.word(2) == "src";
        let is_about_sources = !self.negated && named(section, self.name()).any(|line| of_source(&line));
        named(section, self.name()).find(|line| is_about_sources && !of_source(line))
    }
}

/// What stands between a visitor and the choice of a side.
#[derive(Default)]
struct Guards<'a> {
    /// Addresses that may choose, each with the line where it stands.
    sources: Vec<(String, &'a Line)>,
    /// Lines by which everybody may choose, each with the `acl` line that has it so, if one does.
    open: Vec<(&'a Line, Option<&'a Line>)>,
}

impl Guards<'_> {
    /// The addresses, in one order whatever lines name them.
    fn addresses(&self) -> BTreeSet<&str> {
        self.sources.iter().map(|(address, _)| address.as_str()).collect()
    }
}

fn guards<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Guards<'a> {
    let mut guards = Guards::default();
    let mut stripped: Option<Vec<(String, Option<&Line>)>> = None;
    for (section, line) in config.rules(section) {
        let condition = Condition::of(line);
        let removes =
            line.begins(&["http-request", "del-header"]) && line.word(2).eq_ignore_ascii_case(HEADER);
        if removes {
            match &condition {
                // From here on nobody has it any more.
                None => break,
                Some(condition) => stripped = spared(condition, section).or(stripped),
            }
            continue;
        }
        if condition.is_none() && sets(line).is_some() && line.words().iter().any(|word| reads_header(word)) {
            guards.open.push((line, None));
        }
        let Some(condition) =
            condition.filter(|_| line.word(0) != "acl" && !HARMLESS.contains(&line.word(1)))
        else {
            continue;
        };
        for alternative in &condition.alternatives {
            if !alternative.iter().any(|term| term.of_header(section)) {
                continue;
            }
            match alternative.iter().find_map(|term| term.sources(section)).or_else(|| stripped.clone()) {
                Some(sources) => {
                    guards
                        .sources
                        .extend(sources.into_iter().map(|(address, acl)| (address, acl.unwrap_or(line))));
                }
                None => {
                    let opened = alternative.iter().find_map(|term| term.opened_by(section));
                    guards.open.push((line, opened));
                }
            }
        }
    }
    guards
}

/// Whom `del-header X-Pointsman unless trusted` spares.
fn spared<'s>(condition: &Condition<'_>, section: &'s Section) -> Option<Vec<(String, Option<&'s Line>)>> {
    let [alternative] = condition.alternatives.as_slice() else { return None };
    let [term] = alternative.as_slice() else { return None };
    let plain = Term { negated: false, ..*term };
    (condition.negated != term.negated).then(|| plain.sources(section)).flatten()
}

pub(super) fn side(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    for section in &fronts {
        let found = guards(&written.config, section);
        if let Some((_, Some(acl))) = found.open.first() {
            let words = acl.words().join(" ");
            return Said::fail(
                format!(
                    "{}: `{words}` asks for something else than the address: everybody who sends `X-Pointsman` may be heard",
                    acl.place
                ),
                format!(
                    "remove at {}:\n  {words}\nor give it a name of its own: of one name any line is enough, and only addresses are to be trusted:\n  acl {} src 127.0.0.0/8",
                    acl.place,
                    acl.word(1)
                ),
            );
        }
        if let Some((line, None)) = found.open.first() {
            return Said::fail(
                format!("{}: everybody who sends `X-Pointsman` is heard", line.place),
                format!(
                    "name who is trusted, and ask for it at {}:\n  acl trusted src 127.0.0.0/8\n  {} ... if trusted {{ req.hdr(X-Pointsman) -m str canary }}",
                    line.place,
                    line.words().get(..2).unwrap_or_default().join(" ")
                ),
            );
        }
        if found.sources.is_empty() {
            return Said::fail(
                format!(
                    "`{}` ({}) has no line by which the agent reaches the idle slot",
                    section.title(),
                    section.place
                ),
                add_to(
                    section,
                    "acl trusted src 127.0.0.0/8\nhttp-request set-var(txn.side) str(canary) if trusted { req.hdr(X-Pointsman) -m str canary }\nhttp-request set-var(txn.side) str(stable) if trusted { req.hdr(X-Pointsman) -m str stable }",
                ),
            );
        }
    }
    if fronts.is_empty() { nobody_looks() } else { Said::ok("only trusted addresses pick a side") }
}

/// Whether a line leaves requests from some addresses alone, whatever else it asks for.
fn spares(line: &Line, section: &Section) -> bool {
    let Some(condition) = Condition::of(line) else { return false };
    let plain = |term: &Term<'_>| Term { negated: false, ..*term }.sources(section).is_some();
    match condition.negated {
        true => condition
            .alternatives
            .iter()
            .any(|alternative| matches!(alternative.as_slice(), [term] if !term.negated && plain(term))),
        false => condition
            .alternatives
            .iter()
            .all(|alternative| alternative.iter().any(|term| term.negated && plain(term))),
    }
}

/// Whether a line is for requests from some addresses only.
pub(super) fn is_for_some(line: &Line, section: &Section) -> bool {
    let within = |alternative: &Vec<Term<'_>>| alternative.iter().any(|term| term.sources(section).is_some());
    Condition::of(line)
        .is_some_and(|condition| !condition.negated && condition.alternatives.iter().all(within))
}

/// Whether a line has a side chosen by the header.
fn chooses(line: &Line, section: &Section) -> bool {
    line.word(0) == "http-request"
        && sets(line).is_some()
        && Condition::of(line).is_some_and(|condition| {
            condition.alternatives.iter().flatten().any(|term| term.of_header(section))
        })
}

/// The line by which a visitor can say where the request comes from before a side is chosen by that.
fn sets_source<'a>(config: &'a HaproxyConfig, section: &'a Section) -> Option<&'a Line> {
    let rules = config.rules(section);
    let chosen = rules.iter().position(|(home, line)| chooses(line, home)).unwrap_or(rules.len());
    let sets = |(at, (home, line)): &(usize, (&Section, &Line))| {
        // What is done to connections comes first, wherever it stands.
        let of_request = line.word(0) == "http-request" && line.word(1) == "set-src" && *at < chosen;
        let of_connection = line.word(0) == "tcp-request" && line.has("set-src");
        (of_request || of_connection) && !is_for_some(line, home)
    };
    rules.iter().copied().enumerate().find(sets).map(|(_, (_, line))| line)
}

/// Whoever can say where a request comes from can say that it comes from a trusted address.
pub(super) fn source(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    for section in &fronts {
        if let Some(line) = sets_source(&written.config, section) {
            return Said::fail(
                format!("{}: any visitor sets the address that `trusted` is asked about", line.place),
                format!(
                    "after the lines that read `X-Pointsman`, or for a proxy of yours only, at {}:\n  {} if {{ src <proxy> }}",
                    line.place,
                    line.words()
                        .iter()
                        .take_while(|word| *word != "if" && *word != "unless")
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(" ")
                ),
            );
        }
        let at_asked = |line: &&Line| line.word(1).split(',').any(|bind| binds(bind, seen.asked));
        let asked: Vec<&Line> = section.own(&["bind"]).filter(at_asked).collect();
        // One without it takes the header for a request that makes no sense, one with it a request for such a header.
        if let Some(line) =
            asked.first().filter(|_| asked.iter().all(|line| line.has("accept-proxy") != seen.proxy_protocol))
        {
            let (place, at) = (&line.place, seen.asked);
            return if seen.proxy_protocol {
                Said::fail(
                    format!(
                        "{place}: the agent speaks the PROXY protocol at {at}, where HAProxy does not await it"
                    ),
                    "remove from `[frontend]` of lb-agent.toml:\n  proxy_protocol = true",
                )
            } else {
                Said::fail(
                    format!("{place}: the agent asks at {at}, where HAProxy awaits the PROXY protocol"),
                    format!(
                        "in `[frontend]` of lb-agent.toml:\n  proxy_protocol = true\nor {}\nand there:\n  address = \"127.0.0.1:8088\"",
                        add_to(section, "bind 127.0.0.1:8088")
                    ),
                )
            };
        }
        if let Some(said) = brought_by_this_host(&written.config, section) {
            return said;
        }
        let told = written.config.rules(section).into_iter().find_map(|(home, line)| {
            let by_bind = line.word(0) == "bind"
                && (line.has("accept-proxy") || line.has("accept-netscaler-cip"))
                && !line.word(1).split(',').all(is_local);
            let by_rule =
                line.word(0) == "tcp-request" && line.has("expect-proxy") && !is_for_some(line, home);
            (by_bind || by_rule).then_some(line)
        });
        if let Some(line) = told {
            return Said::warn(
                format!("{}: whoever connects here says which address they come from", line.place),
                format!(
                    "let nobody but the proxy connect there, by a firewall; or instead of it, in `{}`:\n  tcp-request connection expect-proxy layer4 if {{ src <proxy> }}",
                    section.title()
                ),
            );
        }
    }
    if fronts.is_empty() { nobody_looks() } else { Said::ok("it is the connection's own") }
}

/// Whether nobody but programs of this host can connect by this word of a `bind`: another frontend, most often.
fn is_local(word: &str) -> bool {
    ["/", "unix@", "abns@", "abnsz@", "sockpair@"].iter().any(|begin| word.starts_with(begin))
        || is_loopback(word)
}

fn is_loopback(word: &str) -> bool {
    address_of(word).is_some_and(|address| address.ip().is_loopback())
}

/// The address and port that a word names, of a `bind` or a server.
fn address_of(word: &str) -> Option<SocketAddr> {
    let bare = word.split_once('@').map_or(word, |(_, bare)| bare);
    bare.parse().ok().or_else(|| bare.replacen("localhost:", "127.0.0.1:", 1).parse().ok())
}

/// Whether a program in front of a frontend on this host, as one that ends TLS, brings visitors with its own address: each of them is
/// then taken for a tester.
fn brought_by_this_host(config: &HaproxyConfig, section: &Section) -> Option<Said> {
    let tells = |line: &Line| {
        matches!(line.word(0), "http-request" | "tcp-request")
            && (line.has("set-src") || line.has("expect-proxy"))
    };
    if config.rules(section).iter().any(|(_, line)| tells(line)) {
        return None;
    }
    let nets: Vec<Net> =
        guards(config, section).sources.iter().filter_map(|(text, _)| Net::parse(text)).collect();
    let is_trusted = |address: IpAddr| nets.iter().any(|net| net.holds(address));
    let awaits = |line: &Line| line.has("accept-proxy") || line.has("accept-netscaler-cip");
    let binds: Vec<&Line> = section.own(&["bind"]).filter(|line| !awaits(line)).collect();
    let words = |line: &&Line| line.word(1).split(',').map(str::to_owned).collect::<Vec<_>>();
    let with_proxy = |bind: &Line| {
        format!(
            "at {}:\n  {} accept-proxy\nand in `[frontend]` of lb-agent.toml:\n  proxy_protocol = true",
            bind.place,
            bind.words().join(" ")
        )
    };
    for home in config.sections(&["backend", "listen"]) {
        let told = |line: &Line| {
            let by = |line: &Line| {
                line.words().iter().any(|word| word.starts_with("send-proxy") || word == "usesrc")
            };
            by(line)
                || config.all_in_effect(home, &["default-server"]).into_iter().any(by)
                || config.in_effect(home, &["source"]).is_some_and(by)
        };
        for line in home.own(&["server"]).filter(|line| !told(line)) {
            let Some(to) = address_of(line.word(2)) else { continue };
            // One that listens everywhere on its port is not meant by the address of another host.
            let leads = |word: &String| {
                address_of(word) == Some(to) || (to.ip().is_loopback() && self::binds(word, to))
            };
            let Some(bind) = binds.iter().find(|bind| words(bind).iter().any(leads)) else { continue };
            if !is_trusted(to.ip()) {
                continue;
            }
            return Some(Said::fail(
                format!(
                    "{}: `server {}` of `{}` brings visitors to {to} from an address of this host, which is trusted: each is a tester, and no limit counts them",
                    line.place,
                    line.word(1),
                    home.title()
                ),
                format!(
                    "at {}:\n  {} send-proxy-v2\n{}",
                    line.place,
                    line.words().join(" "),
                    with_proxy(bind)
                ),
            ));
        }
    }
    let all: Vec<String> = section.own(&["bind"]).flat_map(|line| words(&line)).collect();
    let bind = binds.iter().find(|bind| words(bind).iter().any(|word| is_loopback(word)))?;
    let trusts =
        words(bind).iter().filter_map(|word| address_of(word)).any(|address| is_trusted(address.ip()));
    (trusts && all.iter().all(|word| is_local(word))).then(|| {
        Said::warn(
            format!(
                "{}: only programs of this host reach `{}`, and they are trusted: if one of them brings visitors, each is a tester",
                bind.place,
                section.title()
            ),
            format!("have it speak the PROXY protocol (nginx, stunnel, hitch, Varnish, HAProxy can), {}", with_proxy(bind)),
        )
    })
}

/// Whether HAProxy listens at an address by this word of a `bind`.
pub(super) fn binds(word: &str, asked: SocketAddr) -> bool {
    let bare = word.split_once('@').map_or(word, |(_, bare)| bare);
    let Some((host, port)) = bare.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let any =
        host.is_empty() || host == "*" || host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified());
    port.parse() == Ok(asked.port()) && (any || host.parse() == Ok(asked.ip()))
}

/// What refuses a request or a connection.
const REFUSES: [&str; 4] = ["deny", "tarpit", "reject", "silent-drop"];

/// Whether a text asks for what was counted: rates and numbers, or a mark that is set by them.
fn asks_counters(word: &str) -> bool {
    // Without parentheses it is asked of the table in which the request is counted.
    let alone = |fetch: &str| {
        ["sc_", "sc0_", "sc1_", "sc2_", "src_"].iter().any(|begin| fetch.starts_with(begin))
            && ["_rate", "_cnt", "_cur"].iter().any(|end| fetch.ends_with(end))
    };
    ["_rate(", "_cnt(", "_cur(", "gpc", "gpt"].iter().any(|counter| word.contains(counter))
        || word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(alone)
}

/// Whether a rule refuses by what was counted.
fn refuses_by_counters(line: &Line, section: &Section) -> bool {
    let by_acl =
        |word: &str| named(section, word).any(|line| line.words().iter().any(|word| asks_counters(word)));
    line.words().iter().any(|word| REFUSES.contains(&word.as_str()))
        && line.words().iter().any(|word| asks_counters(word) || by_acl(word.trim_start_matches('!')))
}

/// A limit that counts the agent's own checks and testers makes a slot look broken that is not.
pub(super) fn limits(seen: &Seen, written: &Written) -> Said {
    let config = &written.config;
    let fronts = routing(seen, config);
    let of_rules = |(_, line): &(&Section, &Line)| matches!(line.word(0), "http-request" | "tcp-request");
    let counts = |line: &Line| line.words().iter().any(|word| word.starts_with("track-sc"));
    // A slot may refuse by what its frontend has counted.
    let counted = || fronts.iter().flat_map(|front| config.rules(front));
    let slots = seen.wanted.backends.iter().filter_map(|name| config.backend(name.0.as_str()));
    let of_slots = slots.filter(|_| !fronts.is_empty()).map(|slot| (slot, true));
    for (section, is_slot) in fronts.iter().map(|front| (*front, false)).chain(of_slots) {
        let mut rules = config.rules(section).into_iter().filter(of_rules);
        let refuses = rules.find(|(home, line)| refuses_by_counters(line, home) && !spares(line, home));
        let Some((_, refuses)) = refuses else { continue };
        // What is not counted has no rate.
        let own = config.rules(section).into_iter();
        let before = counted().filter(|_| is_slot);
        let mut counting = own.chain(before).filter(|rule| of_rules(rule) && counts(rule.1)).peekable();
        if counting.peek().is_some() && counting.all(|(home, line)| spares(line, home)) {
            continue;
        }
        return Said::warn(
            format!("{}: this limit also refuses the agent's own checks, and testers", refuses.place),
            format!(
                "count others only, below the line `acl trusted` of `{}`:\n  http-request track-sc0 src table <table> unless trusted",
                fronts.first().map_or_else(String::new, |front| front.title())
            ),
        );
    }
    if fronts.is_empty() { nobody_looks() } else { Said::ok("none counts the agent's checks") }
}

/// A network in an address list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, mask) =
            text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match mask {
            None => most,
            Some(mask) => match mask.parse::<u8>() {
                Ok(prefix) if prefix <= most => prefix,
                _ => u8::try_from(u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?).leading_ones()).ok()?,
            },
        };
        Some(Self { address, prefix })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let shift = |most: u32| most.saturating_sub(u32::from(self.prefix));
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u32::from(own) ^ u32::from(other)).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (u128::from(own) ^ u128::from(other)).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn is_wide(&self) -> bool {
        let least = if self.address.is_ipv4() { WIDE_V4 } else { WIDE_V6 };
        !self.address.is_loopback() && self.prefix < least
    }
}

/// Where the agent asks, this host's HAProxy answers.
pub(super) fn own_frontend(seen: &Seen) -> Result<Said, &pointsman_core::Problem> {
    Ok(match &seen.elsewhere {
        None => Said::ok(format!("{} is this host's, or HAProxy's own", seen.asked)),
        Some((why, line)) => Said::fail(why.clone(), line.clone()),
    })
}

pub(super) fn addresses(seen: &Seen, written: &Written) -> Said {
    let fronts = routing(seen, &written.config);
    let Some(source) = seen.source else {
        return Said::unknown("the agent's own address cannot be seen", "");
    };
    for section in &fronts {
        let found = guards(&written.config, section);
        let Some((_, home)) = found.sources.first() else { continue };
        let nets = found.sources.iter().filter_map(|(text, line)| Some((Net::parse(text)?, *line)));
        let nets: Vec<(Net, &Line)> = nets.collect();
        let everybody = nets.iter().find(|(net, _)| net.prefix == 0);
        if let Some((net, line)) = everybody {
            let what = format!("{}: `{}/0` is everybody", line.place, net.address);
            return Said::fail(what, format!("at {}:\n  acl trusted src {source}", line.place));
        }
        if !nets.iter().any(|(net, _)| net.holds(source)) {
            let from_file = found.sources.iter().any(|(word, _)| word == "-f");
            let what = format!(
                "{}: the agent asks from {source}, which is not among {}",
                home.place,
                listed(found.addresses())
            );
            let fix = format!(
                "beside {}:\n  acl {} src {source}",
                home.place,
                if home.word(0) == "acl" { home.word(1) } else { "trusted" }
            );
            return if from_file { Said::unknown(what, fix) } else { Said::fail(what, fix) };
        }
        if let Some((_, line)) = nets.iter().find(|(net, _)| net.is_wide()) {
            let of_line = nets.iter().filter(|(net, of)| net.is_wide() && of.place == line.place);
            let wide = listed(of_line.map(|(net, _)| format!("{}/{}", net.address, net.prefix)));
            return Said::warn(
                format!("{}: {wide} may hold visitors behind NAT or a proxy", line.place),
                format!("name hosts, at {}:\n  acl trusted src {source} <coordinator> <testers>", line.place),
            );
        }
    }
    match guards_of_all(&written.config, &fronts) {
        sources if sources.is_empty() => Said::unknown("nobody is trusted: see `side-trusted`", ""),
        sources => Said::ok(listed(sources)),
    }
}

fn guards_of_all(config: &HaproxyConfig, fronts: &[&Section]) -> BTreeSet<String> {
    let sources = fronts.iter().flat_map(|section| guards(config, section).sources);
    sources.map(|(address, _)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (net, address, holds) in [
            ("127.0.0.0/8", "127.3.2.1", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.6", false),
            ("10.0.0.0/255.255.255.0", "10.0.0.77", true),
            ("10.0.0.0/255.255.255.0", "10.0.1.77", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(Net::parse(net).unwrap().holds(address.parse().unwrap()), holds, "{net} {address}");
        }
        assert_eq!(Net::parse("localhost"), None);
        assert_eq!(Net::parse("10.0.0.0/x"), None);
        let wide = |net: &str| Net::parse(net).unwrap().is_wide();
        assert!(wide("10.0.0.0/8") && wide("192.168.0.0/16") && wide("2001:db8::/48"));
        assert!(!wide("127.0.0.0/8") && !wide("10.0.0.0/24") && !wide("10.0.0.5") && !wide("::1"));
    }
}
