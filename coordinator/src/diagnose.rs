//! `doctor`: looks at everything a release needs, and says what is not as it should be.

use std::path::Path;

use pointsman_chassis::SystemClock;
use pointsman_chassis::tls::Credentials;
use pointsman_core::ports::Clock as _;
use pointsman_core::{Code, Phase, Problem, Route, State, several};
use pointsman_proto::{convert, v1};

use crate::check_config::check_config;
use crate::lasts;
use crate::office::Office;
use crate::retention::Room;
use crate::unaccounted;

/// Clocks further apart than this are named, in milliseconds: orders are refused beyond 30 s.
const CLOCK_WARNING_MS: u64 = 5_000;
/// Less free space than this share is named, in percent.
const LOW_SPACE_PERCENT: u64 = 10;
/// A certificate of the site that ends sooner is named, in seconds: renewals come 30 days before the end, and one that
/// has not come by then is stuck.
const SITE_ENDS_SOON_S: i64 = 14 * 86_400;

fn days(seconds: i64) -> String {
    several(seconds / 86_400, "day", "days")
}

/// One finding.
pub fn finding(subject: &str, verdict: &str, what: String, problem: Option<&Problem>) -> v1::Finding {
    v1::Finding {
        subject: subject.to_owned(),
        verdict: verdict.to_owned(),
        what,
        problem: problem.map(convert::problem_to_wire),
        ..Default::default()
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// The load balancers alone.
    Balancers,
    /// The environment's file, and what its checks ask monitoring services.
    Config,
}

impl Part {
    /// Parses the wire's word for it.
    pub fn parse(word: &str) -> Result<Self, Problem> {
        match word {
            "" => Ok(Self::Whole),
            "lb" => Ok(Self::Balancers),
            "config" => Ok(Self::Config),
            _ => {
                let message =
                    format!("field `part` of the message is `{word}`, expected `lb`, `config` or nothing");
                Err(Problem::new(Code::MessageInvalid, message))
            }
        }
    }
}

/// Every finding, the good ones too.
pub async fn diagnose(office: &Office, own: &Credentials, part: Part) -> Vec<v1::Finding> {
    let now = SystemClock.now();
    let mut findings = match part {
        Part::Config => return check_config(office).await,
        Part::Whole => {
            let mut findings = of_coordinator(office, own, now.0).await;
            findings.extend(office.running().and_then(|kept| of_held(&kept.state)));
            findings
        }
        Part::Balancers => Vec::new(),
    };
    let (mut agents, looked_into) = tokio::join!(office.look(), office.look_into());
    if part == Part::Balancers {
        let balancers = &office.environment().balancers;
        agents.retain(|agent| balancers.iter().any(|host| host.as_str() == agent.host));
    }
    for agent in &agents {
        let found = looked_into.iter().find(|(host, _)| host.as_str() == agent.host).map(|(_, found)| found);
        findings.extend(of_agent(agent, now.0));
        if let Some(balancer) = &agent.balancer {
            let looked_into = matches!(found, Some(Ok(Some(_))));
            findings.extend(of_balancer(&agent.host, balancer, looked_into));
            let now_s = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
            let certificates = balancer.certificates.iter();
            findings.extend(certificates.flat_map(|found| of_certificate(&agent.host, found, now_s)));
        }
        if let Some(found) = found {
            findings.extend(of_preflight(agent, found));
        }
    }
    findings.extend(of_deaf(&agents));
    findings.extend(of_routes(office, &agents).await);
    findings.extend(of_share(office, &agents));
    if part == Part::Whole {
        findings.extend(of_flags(office, &agents));
    }
    findings
}

/// What an agent finds of its own host. One that could not even be described is named already.
fn of_preflight(
    agent: &v1::AgentStatus,
    found: &Result<Option<Vec<v1::Finding>>, Problem>,
) -> Vec<v1::Finding> {
    let unknown = |what: String, problem: Option<&Problem>, fix: String| v1::Finding {
        check: "preflight".to_owned(),
        why: "what was not looked at may stand in the way".to_owned(),
        fix,
        ..finding(&agent.host, "unknown", what, problem)
    };
    let (agent_word, object) = match (&agent.database, &agent.web) {
        (Some(_), _) => ("database-agent", "the database server"),
        (_, Some(_)) => ("agent", "units and hooks"),
        _ => ("lb-agent", "HAProxy's configuration"),
    };
    match found {
        Ok(Some(findings)) => findings.clone(),
        Ok(None) => {
            let what = format!("{agent_word} {} is too old to look at {object}", agent.version);
            vec![unknown(what, None, format!("install the coordinator's version on `{}`", agent.host))]
        }
        Err(_) if agent.problem.is_some() => Vec::new(),
        Err(problem) => vec![unknown(format!("{object} was not looked at"), Some(problem), String::new())],
    }
}

async fn of_coordinator(office: &Office, own: &Credentials, now_ms: u64) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    // Nobody may have written for hours: only who tries it knows.
    match office.must_record().await {
        Err(trouble) => findings.push(finding(
            "coordinator",
            "fail",
            "the journal does not work".to_owned(),
            Some(&trouble),
        )),
        Ok(()) => findings.push(finding("coordinator", "ok", "journal whole and writable".to_owned(), None)),
    }
    // Whoever looks at a disk that does not answer does not come back either.
    if office.trouble().is_none_or(|trouble| trouble.code != Code::JournalSilent) {
        findings.extend(of_own_disk(office.journal_room()));
    }
    let end_s = own.end_to_tell();
    if end_s > 0 {
        findings.push(lasts::finding("coordinator", &own.name().name, left_s(end_s, now_ms)));
    }
    findings
}

/// The disk of the journal: what fills it keeps releases from going on and, once the room that is set aside is used up, from going
/// back.
fn of_own_disk((set_aside, journal): (bool, &Path)) -> Vec<v1::Finding> {
    let folder = journal.parent().unwrap_or(Path::new("."));
    let mut findings = Vec::new();
    if let Some(room) = Room::of(folder) {
        let low = room.free < room.total / 100 * LOW_SPACE_PERCENT;
        let (inodes_free, inodes) = room.inodes;
        let few = inodes > 0 && inodes_free < inodes / 100 * LOW_SPACE_PERCENT;
        let what = format!(
            "disk of the journal, {}: {} MiB free{}",
            folder.display(),
            room.free >> 20,
            if few { ", hardly any inodes" } else { "" }
        );
        findings.push(v1::Finding {
            fix: if low || few {
                format!("make room: `df -h {0}`, `df -i {0}`", folder.display())
            } else {
                String::new()
            },
            ..finding("coordinator", if low || few { "warn" } else { "ok" }, what, None)
        });
    }
    if !set_aside {
        findings.push(v1::Finding {
            why: "on a full disk no release could be led back, and none begins".to_owned(),
            fix: format!("make room, then it is set aside within a minute: `df -h {}`", folder.display()),
            ..finding("coordinator", "fail", "no room is set aside for the way back".to_owned(), None)
        });
    }
    findings
}

fn left_s(end_s: i64, now_ms: u64) -> i64 {
    end_s.saturating_sub(i64::try_from(now_ms / 1000).unwrap_or(i64::MAX))
}

/// The part of a version within which all understand each other: its first two numbers.
fn minor(version: &str) -> Option<(&str, &str)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?, numbers.next()?))
}

/// An agent of another minor version: for as long as agents are replaced that is as it should be, and no longer.
fn of_version(agent: &v1::AgentStatus) -> Option<v1::Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let what = format!("it is of version {}, the coordinator of {own}", agent.version);
    let apart = minor(&agent.version) != minor(own);
    apart.then(|| v1::Finding {
        why: "what one of them knows the other may not: they are apart only while they are replaced"
            .to_owned(),
        fix: format!("install version {own} on `{}`", agent.host),
        ..finding(&agent.host, "warn", what, None)
    })
}

fn of_agent(agent: &v1::AgentStatus, now_ms: u64) -> Vec<v1::Finding> {
    if let Some(problem) = agent.problem.clone().and_then(convert::problem_from_wire) {
        return vec![finding(&agent.host, "fail", problem.message.clone(), Some(&problem))];
    }
    let mut findings =
        vec![finding(&agent.host, "ok", format!("{} {} answers", agent.role, agent.version), None)];
    findings.extend(of_version(agent));
    // An older agent does not tell, nor one whose certificate a program renews in time.
    if agent.certificate_ends_s > 0 {
        let left_s = left_s(agent.certificate_ends_s, now_ms);
        findings.push(lasts::finding(&agent.host, &agent.host, left_s));
    }
    let facts = agent.facts.unwrap_or_default();
    let apart_ms = facts.clock_ms.abs_diff(now_ms);
    if apart_ms > CLOCK_WARNING_MS {
        findings.push(finding(
            &agent.host,
            "warn",
            format!("clock is {} s off the coordinator's", apart_ms / 1000),
            None,
        ));
    }
    for (what, free, total) in [
        ("disk", facts.disk_free_bytes, facts.disk_total_bytes),
        ("inodes", facts.inodes_free, facts.inodes_total),
    ] {
        if total > 0 && free < total / 100 * LOW_SPACE_PERCENT {
            findings.push(finding(
                &agent.host,
                "warn",
                format!("{what}: {} % free", free.saturating_mul(100) / total),
                None,
            ));
        }
    }
    findings
}

/// What a load balancer shows from outside. Where its agent has looked into it, that says more of files and servers.
fn of_balancer(host: &str, balancer: &v1::BalancerFacts, looked_into: bool) -> Vec<v1::Finding> {
    let mut findings = vec![finding(
        host,
        "ok",
        format!("HAProxy {} routes by `{}`", balancer.haproxy_version, balancer.route),
        None,
    )];
    for stale in &balancer.stale_workers {
        findings.push(finding(host, "warn", format!("old worker still routes by {stale}"), None));
    }
    if !balancer.drift.is_empty() {
        let problem = Problem::new(Code::RouteDrift, balancer.drift.clone())
            .hint("put it back, or release anew when it is as it should be: `pointsman explain PM0105`");
        findings.push(finding(host, "fail", "somebody else changed the route".to_owned(), Some(&problem)));
    }
    findings.extend(of_signals(host, balancer));
    if looked_into {
        return findings;
    }
    if !balancer.unkept.is_empty() {
        let problem = Problem::new(Code::RouteNotKept, balancer.unkept.clone())
            .hint("it is asked for again and again: see `pointsman explain PM0129`");
        findings.push(finding(
            host,
            "fail",
            "a reload may bring the route before".to_owned(),
            Some(&problem),
        ));
    } else if balancer.route != balancer.route_on_disk {
        let problem =
            Problem::new(Code::RouteDrift, format!("the map file holds `{}`", balancer.route_on_disk))
                .hint("a reload would move visitors: see `pointsman explain PM0105`");
        findings.push(finding(host, "fail", "map file and HAProxy differ".to_owned(), Some(&problem)));
    }
    for backend in balancer.backends.iter().filter(|backend| backend.servers_up < backend.servers_total) {
        let what = format!(
            "`{}` has {} of {} servers healthy",
            backend.name, backend.servers_up, backend.servers_total
        );
        findings.push(finding(host, "warn", what, None));
    }
    findings
}

/// Whether access lines come, where they are listened for at all.
fn of_signals(host: &str, balancer: &v1::BalancerFacts) -> Option<v1::Finding> {
    let listen = Some(&balancer.signals_listen).filter(|listen| !listen.is_empty())?;
    if let Some(problem) = balancer.signals_problem.clone().and_then(convert::problem_from_wire) {
        return Some(finding(host, "warn", problem.message.clone(), Some(&problem)));
    }
    let connections = balancer.signals_connections;
    if connections > 0 {
        let what = format!(
            "access lines come to `{listen}` over {}",
            several(connections, "connection", "connections")
        );
        return Some(finding(host, "ok", what, None));
    }
    let problem = Problem::new(
        Code::SignalsMissing,
        format!("HAProxy has no connection to `{listen}` for access lines"),
    )
    .hint("compare `ring` and `log` in haproxy.cfg with docs/signals.md");
    Some(finding(host, "warn", "no access lines come".to_owned(), Some(&problem)))
}

/// Load balancers that hear no visitors while others do: releases would wait for them.
fn of_deaf(agents: &[v1::AgentStatus]) -> Vec<v1::Finding> {
    let deaf = |facts: &&v1::BalancerFacts| facts.signals_listen.is_empty();
    let all = || agents.iter().filter_map(|agent| Some((&agent.host, agent.balancer.as_ref()?)));
    if all().all(|(_, facts)| deaf(&facts)) {
        return Vec::new();
    }
    all()
        .filter(|(_, facts)| deaf(facts))
        .map(|(host, _)| {
            let problem =
                Problem::new(Code::SignalsMissing, "its agent listens for no access lines, others do").hint(
                    "`[signals]` in its lb-agent.toml, `ring` and `log` in its haproxy.cfg: docs/signals.md",
                );
            finding(host, "fail", "nobody sees the visitors behind it".to_owned(), Some(&problem))
        })
        .collect()
}

/// A certificate of the site: how long it lasts, whether it is what visitors get, and why no newer one is taken.
fn of_certificate(host: &str, found: &v1::CertificateFacts, now_s: i64) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    let left_s = found.not_after.saturating_sub(now_s);
    if found.not_after > 0 {
        let (verdict, what) = match left_s {
            ..=0 => ("fail", format!("certificate `{}` ended {} ago", found.path, days(left_s.abs()))),
            _ if left_s < SITE_ENDS_SOON_S => {
                ("warn", format!("certificate `{}` ends in {}", found.path, days(left_s)))
            }
            _ => ("ok", format!("certificate `{}` ends in {}", found.path, days(left_s))),
        };
        findings.push(finding(host, verdict, what, None));
    }
    let problem = found.problem.clone().and_then(convert::problem_from_wire);
    if let Some(problem) = &problem {
        let what = match found.not_after {
            0 => format!("nothing is known of certificate `{}`", found.path),
            _ => format!("certificate `{}` is not renewed from `{}`", found.path, found.watched),
        };
        findings.push(finding(host, "warn", what, Some(problem)));
    } else if !found.served {
        let what =
            format!("HAProxy serves another certificate than `{}`: a reload would change it", found.path);
        findings.push(finding(host, "warn", what, None));
    }
    findings
}

/// A release that is held: no other begins beside it.
fn of_held(state: &State) -> Option<v1::Finding> {
    let Phase::Held { why, .. } = &state.phase else { return None };
    let (release, environment) = (&state.plan.release, &state.plan.environment);
    Some(v1::Finding {
        why: "no other release begins until it goes on or back".to_owned(),
        fix: format!("`pointsman status {environment}` says what to type"),
        ..finding("coordinator", "fail", format!("release `{release}` is held"), Some(why))
    })
}

/// A share of the visitors that a load balancer leads to another slot where no release does: a journal was accepted while one did.
fn of_share(office: &Office, agents: &[v1::AgentStatus]) -> Vec<v1::Finding> {
    if office.open_release().is_some() {
        return Vec::new();
    }
    let (name, known) = (&office.environment().name, office.standing().route);
    let shares = agents.iter().filter_map(|agent| {
        let route = Route::parse(&agent.balancer.as_ref()?.route).ok()?;
        // One that differs from the journal's is told of as somebody's change by hand.
        let settled = known.as_ref().is_none_or(|known| *known == route);
        let share = office.environment().unaccounted(&route).filter(|_| settled)?;
        Some((&agent.host, unaccounted::told(&share)))
    });
    let finding = |(host, what): (&String, String)| v1::Finding {
        why: "nobody watches or judges what they meet, and no deploy begins".to_owned(),
        fix: format!("`pointsman rollback {name}` leads them back to the slot that serves the others"),
        ..finding(host, "fail", what, None)
    };
    shares.map(finding).collect()
}

/// Maintenance files that are there without maintenance: their hosts answer visitors with an error.
fn of_flags(office: &Office, agents: &[v1::AgentStatus]) -> Vec<v1::Finding> {
    if office.standing().maintenance.is_some() || office.open_release().is_some() {
        return Vec::new();
    }
    let flagged = agents.iter().filter(|agent| agent.web.as_ref().is_some_and(|web| web.maintenance_file));
    let what = || "the maintenance file is there, but no maintenance is on".to_owned();
    let fix = || format!("`pointsman maintenance off {}` removes it", office.environment().name);
    flagged.map(|agent| v1::Finding { fix: fix(), ..finding(&agent.host, "fail", what(), None) }).collect()
}

/// How many of the last releases are asked which load balancers they left out: more than happen while one is repaired.
const LEFT_OUT_LATELY: usize = 100;

/// What the journal says stands against what the load balancers show.
async fn of_routes(office: &Office, agents: &[v1::AgentStatus]) -> Vec<v1::Finding> {
    let Some(wanted) = office.standing().route.filter(|_| office.open_release().is_none()) else {
        return Vec::new();
    };
    let differs = agents.iter().filter_map(|agent| Some((&agent.host, agent.balancer.as_ref()?)));
    // Where they cannot be read that is told as what it is, by everything that reads the journal.
    let lately = office.releases(LEFT_OUT_LATELY).await.unwrap_or_default();
    let left_out = |host: &str| lately.iter().any(|kept| kept.state.went_without(host));
    differs
        .filter(|(_, balancer)| balancer.route != wanted.to_string())
        .map(|(host, balancer)| {
            let problem = Problem::new(
                Code::RouteDrift,
                format!("the route is `{}`, the journal says `{wanted}`", balancer.route),
            )
            .hint("see `pointsman explain PM0105`");
            if left_out(host) {
                let problem = problem.hint("bring it to the route of the others: `pointsman explain PM0109`");
                let what = "it was out of service when visitors were moved, and leads its own elsewhere";
                return finding(host, "fail", what.to_owned(), Some(&problem));
            }
            finding(host, "fail", "somebody else moved traffic".to_owned(), Some(&problem))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_minor_version_is_named() {
        let of = |version: &str| {
            let agent = v1::AgentStatus { version: version.to_owned(), ..Default::default() };
            of_agent(&agent, 0).into_iter().filter(|found| found.verdict == "warn").count()
        };
        let own = env!("CARGO_PKG_VERSION");
        let (major, number) = minor(own).unwrap();
        let patched = format!("{major}.{number}.999-rc.1");
        let other = format!("{major}.{number}9.0");
        assert_eq!([of(own), of(&patched), of(&other), of("garbled"), of("")], [0, 0, 1, 1, 1]);
    }

    #[test]
    fn the_own_disk_is_shown_and_that_no_room_is_set_aside() {
        let verdicts = |set_aside| -> Vec<String> {
            let found = of_own_disk((set_aside, Path::new("/proc/journal.db")));
            found.into_iter().map(|finding| finding.verdict).collect()
        };
        // A file system that counts neither bytes nor inodes lacks none.
        assert_eq!(verdicts(true), ["ok"]);
        assert_eq!(verdicts(false), ["ok", "fail"]);
    }

    #[test]
    fn a_certificate_is_named_before_it_ends_and_after() {
        let now_s = 1_000_000_000;
        let good = v1::CertificateFacts { path: "/www.pem".to_owned(), served: true, ..Default::default() };
        let ends_in = |days: i64| v1::CertificateFacts { not_after: now_s + days * 86_400, ..good.clone() };
        for (found, expected) in [
            (ends_in(60), &["ok"][..]),
            (ends_in(14), &["ok"]),
            (ends_in(13), &["warn"]),
            (ends_in(0), &["fail"]),
            (ends_in(-3), &["fail"]),
            (v1::CertificateFacts { served: false, ..ends_in(60) }, &["ok", "warn"]),
            (
                v1::CertificateFacts {
                    problem: Some(convert::problem_to_wire(&Problem::new(Code::SiteCertificateUnfit, "old"))),
                    ..ends_in(60)
                },
                &["ok", "warn"],
            ),
        ] {
            let verdicts: Vec<String> =
                of_certificate("lb1", &found, now_s).into_iter().map(|finding| finding.verdict).collect();
            assert_eq!(verdicts, expected, "{found:?}");
        }
    }

    #[test]
    fn what_was_not_looked_at_is_unknown_and_never_well() {
        let agent =
            v1::AgentStatus { host: "lb1".to_owned(), version: "0.1.0".to_owned(), ..Default::default() };
        let problem = Problem::new(Code::AgentUnreachable, "no answer from agent `lb1`");
        for (found, says) in
            [(Ok(None), "lb-agent 0.1.0 is too old"), (Err(problem.clone()), "was not looked at")]
        {
            let findings = of_preflight(&agent, &found);
            assert_eq!(findings.len(), 1, "{findings:?}");
            let finding = &findings[0];
            assert_eq!((finding.subject.as_str(), finding.verdict.as_str()), ("lb1", "unknown"));
            assert!(finding.what.contains(says), "{finding:?}");
        }
        // One that could not even be described is a failure already, and is not told twice.
        let silent = v1::AgentStatus { problem: Some(convert::problem_to_wire(&problem)), ..agent.clone() };
        assert_eq!(of_preflight(&silent, &Err(problem)), []);
        let own = v1::Finding { verdict: "fail".to_owned(), ..Default::default() };
        assert_eq!(of_preflight(&agent, &Ok(Some(vec![own.clone()]))), [own]);
    }

    #[test]
    fn where_the_agent_looked_nothing_is_told_twice() {
        let balancer = v1::BalancerFacts {
            route: "be_blue:be_blue:0:2".to_owned(),
            route_on_disk: "be_blue:be_blue:0:1".to_owned(),
            backends: vec![v1::BackendFacts { servers_total: 1, ..Default::default() }],
            ..Default::default()
        };
        let verdicts = |looked_into| -> Vec<String> {
            of_balancer("lb1", &balancer, looked_into).into_iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(false), ["ok", "fail", "warn"]);
        assert_eq!(verdicts(true), ["ok"]);
        // What OPNsense does not keep yet is not also told as a file that differs.
        let owing = v1::BalancerFacts { unkept: "not yet".to_owned(), ..balancer.clone() };
        let found = of_balancer("lb1", &owing, false);
        let codes =
            found.iter().filter_map(|finding| finding.problem.as_ref().map(|problem| problem.code.as_str()));
        assert_eq!(codes.collect::<Vec<_>>(), ["PM0129"]);
    }

    #[test]
    fn parts() {
        assert_eq!(Part::parse("").ok(), Some(Part::Whole));
        assert_eq!(Part::parse("lb").ok(), Some(Part::Balancers));
        assert_eq!(Part::parse("web").unwrap_err().code, Code::MessageInvalid);
    }
}
