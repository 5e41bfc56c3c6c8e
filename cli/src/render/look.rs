//! How an environment stands.

use std::collections::BTreeMap;

use pointsman_core::{Code, EnvironmentName, bytes};
use pointsman_proto::v1;

use super::headline::headline;
use super::lines::took;
use super::{or, problem_line, short, span, time};

/// A release on its slot, in words.
pub fn live(live: Option<&v1::Live>) -> String {
    live.map_or_else(
        || "nothing known".to_owned(),
        |live| format!("{} on {}", or(&live.release, "an unnamed release"), live.slot),
    )
}

/// The whole screen.
pub fn status(status: &v1::StatusReply) -> String {
    let mut text = format!("{}  {}  {}\n", status.environment, headline(status), status.url);
    if let Some(trouble) = &status.trouble {
        text.push_str(&format!(
            "trouble     {}\n            {}{}\n            hint: {}\n",
            problem_line(trouble),
            since_when(status),
            standstill(trouble),
            trouble.hint
        ));
    }
    if let Some(page) = status.maintenance.as_ref().filter(|page| page.on) {
        text.push_str(&format!("maintenance {}\n", page_line(page, status.now_ms)));
    }
    if let Some(release) = &status.release {
        text.push_str(&release_block(release, status.now_ms));
    }
    if let Some(release) = &status.watched_on {
        text.push_str(&release_block(release, status.now_ms));
    }
    text.push_str(&traffic_lines(status));
    for agent in status.agents.iter().filter(|agent| agent.role == "web-agent") {
        text.push_str(&host_line(agent));
    }
    for agent in status.agents.iter().filter(|agent| agent.role == "database-agent") {
        text.push_str(&super::database::line(agent, status.now_ms));
    }
    text.push_str(&super::lasting::certificates(status));
    let way_back = match (&status.previous, &status.release) {
        _ if status.trouble.is_some() => next_in_trouble(status),
        (_, Some(release)) if release.outcome.is_empty() => next_of(release, &status.environment),
        _ if status.maintenance.as_ref().is_some_and(|page| page.on) => {
            format!("end the maintenance: `pointsman maintenance off {}`", status.environment)
        }
        _ if drifted(status) => {
            format!("find out more: `pointsman doctor {}`", status.environment)
        }
        _ if status.unaccounted.is_some() => {
            format!("lead every visitor to the slot that serves: `pointsman rollback {}`", status.environment)
        }
        (Some(previous), _) => way_back(previous, status),
        (None, _) if status.turned_back.is_some() => format!(
            "release: `pointsman deploy {0} --artifact DIR --release ID`, also to try what was turned back again, watched",
            status.environment
        ),
        (None, _) if status.live.is_none() => {
            format!("release: `pointsman deploy {} --artifact DIR --release ID`", status.environment)
        }
        (None, _) => format!(
            "release: `pointsman deploy {} --artifact DIR --release ID`; no earlier release to go back to",
            status.environment
        ),
    };
    if let (Some(release), Some(found)) = (&status.release, &status.way_back)
        && release.outcome.is_empty()
        && release.visitors_moved
    {
        text.push_str(&format!("way back    {}\n", stands(found)));
    }
    if let (Some(_), Some(found)) = (&status.turned_back, &status.way_back) {
        text.push_str(&format!("no way back {}\n", found.found));
    }
    text.push_str(&format!("next        {way_back}\n"));
    text
}

/// Whether the slot that visitors came from would take them back.
fn stands(found: &v1::WayBack) -> String {
    let to = if found.release.is_empty() {
        format!("slot {}", found.slot)
    } else {
        format!("{} on {}", found.release, found.slot)
    };
    match found.ready {
        true => format!("{to} is ready: {}", found.found),
        false => format!("✖ {to} is not ready: {}", found.found),
    }
}

/// Where a rollback leads, and whether it would get there by what was just seen.
fn way_back(previous: &v1::Live, status: &v1::StatusReply) -> String {
    let (to, environment) = (live(Some(previous)), &status.environment);
    match &status.way_back {
        Some(found) if !found.ready => {
            format!("✖ no rollback to {to}: {}; see `pointsman doctor {environment}`", found.found)
        }
        Some(found) => {
            format!("rollback to {to}, which is ready ({}): `pointsman rollback {environment}`", found.found)
        }
        // An older coordinator does not say.
        None => format!("rollback to {to}: `pointsman rollback {environment}`"),
    }
}

/// Since when there is trouble; an older coordinator does not say.
fn since_when(status: &v1::StatusReply) -> String {
    match status.trouble_since_ms {
        0 => String::new(),
        since => format!("since {}, for {}: ", time(since), span(status.now_ms.saturating_sub(since))),
    }
}

/// What the coordinator's own trouble means for everybody.
fn standstill(trouble: &v1::Problem) -> &'static str {
    match Code::parse(&trouble.code) {
        Some(Code::JournalCorrupt | Code::JournalBehind) => {
            "nothing is ordered until the journal is whole; visitors keep what they have"
        }
        Some(Code::Fenced) => "nothing is ordered by this coordinator any more; visitors keep what they have",
        Some(Code::JournalUnwritable | Code::JournalFull) => {
            "nothing is ordered until the journal can be written; then it goes on by itself"
        }
        Some(Code::JournalSilent) => "nothing is ordered until it does",
        Some(Code::InvariantBroken) => {
            "nothing is ordered until a person decides; visitors keep what they have"
        }
        _ => "nothing is ordered until this is mended; visitors keep what they have",
    }
}

fn next_in_trouble(status: &v1::StatusReply) -> String {
    let code = status.trouble.as_ref().map_or("", |trouble| trouble.code.as_str());
    match Code::parse(code) {
        Some(Code::JournalCorrupt | Code::JournalBehind) => format!(
            "see who knows more: `pointsman audit verify {}`; mend it: `pointsman explain {code}`",
            status.environment
        ),
        Some(Code::InvariantBroken) => format!(
            "see whether the record is whole: `pointsman audit verify {}`; what to keep, and how to go on: `pointsman explain {code}`",
            status.environment
        ),
        Some(Code::JournalUnwritable | Code::JournalFull) => {
            format!("find out more: `pointsman doctor {}`", status.environment)
        }
        _ => format!("mend it: `pointsman explain {code}`"),
    }
}

/// The share of the visitors that a split gives the new slot, in percent.
pub fn split_of(plan: &v1::Plan, step: &str) -> u32 {
    let number: usize = step.trim_start_matches("canary-").parse().unwrap_or(0);
    plan.splits.get(number.saturating_sub(1)).map_or(0, |split| split.percent)
}

fn next_of(release: &v1::Release, environment: &str) -> String {
    if release.turned_back.is_some() {
        return match &release.held {
            Some(held) => super::held::way_on(release, held, environment),
            None => format!("follow: `pointsman status {environment} -f`"),
        };
    }
    let undo = if release.visitors_moved { "rollback" } else { "abort" };
    if release.held.is_some() && leads_from_ill(release) {
        return format!("go on: `pointsman resume {environment}`");
    }
    if release.held.is_some() {
        return format!("go on: `pointsman resume {environment}`; stop: `pointsman {undo} {environment}`");
    }
    if leads_from_ill(release) {
        return format!("follow: `pointsman status {environment} -f`");
    }
    let sooner = if release.watch_until_ms > 0 {
        format!("; do not wait: `pointsman promote {environment}`")
    } else {
        String::new()
    };
    format!("follow: `pointsman status {environment} -f`; stop: `pointsman {undo} {environment}`{sooner}")
}

/// It leads visitors away from what something was found against: nobody is told how to lead them there again.
fn leads_from_ill(release: &v1::Release) -> bool {
    release.plan.as_ref().is_some_and(|plan| !plan.ill.is_empty())
}

/// Traffic is not where the journal says, or the load balancers disagree.
pub fn drifted(status: &v1::StatusReply) -> bool {
    let mut routes = status.agents.iter().filter_map(|agent| agent.balancer.as_ref());
    routes.any(|found| {
        let moved = !status.wanted_route.is_empty() && found.route != status.wanted_route;
        moved || !found.drift.is_empty()
    })
}

fn release_block(release: &v1::Release, now_ms: u64) -> String {
    let plan = release.plan.clone().unwrap_or_default();
    let over = !release.outcome.is_empty();
    let counter = if release.step_number > 0 {
        format!("[{}/{}] ", release.step_number, release.step_count)
    } else {
        String::new()
    };
    let since = if over {
        format!("at {}", time(release.entered_at_ms))
    } else if release.held.is_some() {
        let held_ms = now_ms.saturating_sub(release.entered_at_ms);
        format!(
            "in {} since {}, for {}",
            or(&release.step, "watch"),
            time(release.entered_at_ms),
            span(held_ms)
        )
    } else {
        format!("for {}", span(now_ms.saturating_sub(release.entered_at_ms)))
    };
    // Who began it is not who holds it.
    let begun = if release.held.is_some() { "; begun" } else { "," };
    let mut text = format!(
        "release     {} ({})  {counter}{} {since}{} by {}\n",
        plan.release, plan.purpose, release.phase, begun, plan.created_by
    );
    if !plan.without.is_empty() {
        text.push_str(&format!("            without {}, out of service\n", plan.without.join(", ")));
    }
    text.push_str(&super::left_out::block(release));
    text.push_str(&reasons(release));
    if over {
        if release.watched_on_until_ms > 0 {
            text.push_str(&format!(
                "            visitors are watched on until {}: back by itself where they fare too badly\n",
                time(release.watched_on_until_ms)
            ));
        }
        text.push_str(&warnings(release));
        text.push_str(&super::verdict::block(release));
        return text;
    }
    for order in &release.orders {
        let (sign, detail) = match order.state.as_str() {
            "done" => ("✔ done   ", format!("{}  ({})", order.detail, took(order.took_us))),
            "running" => ("◌ running", format!("attempt {}", order.attempts)),
            "failed" => ("✖ failed ", order.problem.as_ref().map(problem_line).unwrap_or_default()),
            "left-out" => ("- without", order.problem.as_ref().map(problem_line).unwrap_or_default()),
            _ => ("॥ waiting", String::new()),
        };
        text.push_str(&format!("  {sign} {:<10} {:<12} {detail}\n", order.step, order.host));
    }
    if release.watch_until_ms > 0 {
        let (step, until) = (or(&release.step, "watch"), time(release.watch_until_ms));
        match &release.blind {
            // As long as it fails the watch does not end.
            Some(blind) if super::lines::holds(blind) => {
                text.push_str(&format!("  ✖ failed  {step:<10} {}\n", super::lines::blind(blind)));
            }
            // Until somebody sees, the watch does not end.
            Some(blind) => {
                text.push_str(&format!("  ✖ blind   {step:<10} {}\n", super::lines::blind(blind)));
            }
            None => text.push_str(&format!("  ◌ running {step:<10} watched until {until}\n")),
        }
    }
    text.push_str(&warnings(release));
    text.push_str(&super::verdict::block(release));
    text
}

/// Checks that only warn, and that did not pass when they were made last.
fn warnings(release: &v1::Release) -> String {
    let line = |made: &v1::CheckMade| {
        let seen = made.seen.clone().unwrap_or_default();
        format!("  ॥ warning {:<10} {:<12} only warns: {}\n", seen.name, made.host, seen.what)
    };
    release.warnings.iter().map(line).collect()
}

/// Why the release does not go on, why it turned back, and what came after its end, each with its causes. What stopped it
/// on its way back may be what turned it back: then it is told once.
fn reasons(release: &v1::Release) -> String {
    let mut text = String::new();
    let (held, turned) = (release.held.as_ref(), release.turned_back.as_ref());
    let turned = turned.filter(|turned| held.is_none_or(|held| problem_line(held) != problem_line(turned)));
    for (label, problem) in
        [("held by", held), ("turned back", turned), ("afterwards", release.after_end.as_ref())]
    {
        let Some(problem) = problem else { continue };
        text.push_str(&format!("{label:<12}{}\n", problem_line(problem)));
        for cause in problem.causes.iter().take(SHOWN_CAUSES) {
            let shown: String = cause.chars().take(SHOWN_CHARS).collect();
            let rest = if shown.len() < cause.len() { " …" } else { "" };
            text.push_str(&format!("            cause: {shown}{rest}\n"));
        }
        if !problem.hint.is_empty() {
            text.push_str(&format!("            hint: {}\n", problem.hint));
        }
    }
    text
}

fn traffic_lines(status: &v1::StatusReply) -> String {
    let mut text = String::new();
    for agent in status.agents.iter().filter(|agent| agent.role == "lb-agent") {
        text.push_str(&match (&agent.problem, &agent.balancer) {
            (Some(problem), _) => format!(
                "traffic     {:<12} unknown: {}\n            hint: {}\n",
                agent.host,
                problem_line(problem),
                problem.hint
            ),
            (None, Some(found)) => balancer_lines(&agent.host, found, status),
            (None, None) => format!("traffic     {:<12} unknown\n", agent.host),
        });
    }
    text
}

fn balancer_lines(host: &str, found: &v1::BalancerFacts, status: &v1::StatusReply) -> String {
    let settled = status.release.as_ref().is_none_or(|release| !release.outcome.is_empty());
    let drift = settled && !status.wanted_route.is_empty() && found.route != status.wanted_route;
    let note = if drift { format!("  ✖ expected {}", status.wanted_route) } else { String::new() };
    let mut text = format!("traffic     {host:<12} route {}{note}\n", or(&found.route, "none"));
    if !found.unkept.is_empty() {
        text.push_str(&format!(
            "            {host:<12} ✖ {}; no release goes forward meanwhile\n",
            found.unkept
        ));
    } else if found.route != found.route_on_disk {
        text.push_str(&format!(
            "            {host:<12} ✖ the map file holds {}: a reload would move visitors\n",
            or(&found.route_on_disk, "no route")
        ));
    }
    for stale in &found.stale_workers {
        text.push_str(&format!("            {host:<12} ✖ old worker {stale}\n"));
    }
    if !found.drift.is_empty() {
        text.push_str(&format!(
            "            {host:<12} ✖ changed by somebody else since {}: {}\n",
            time(found.drift_since_ms),
            found.drift
        ));
    }
    for backend in &found.backends {
        let (share, sessions) = (share_of(&found.route, &backend.name), backend.sessions);
        text.push_str(&format!(
            "            {:<12} {share:>3} %  {} of {} up, {sessions} requests running{}\n",
            backend.name,
            backend.servers_up,
            backend.servers_total,
            oldest(backend)
        ));
    }
    text
}

/// For how long requests have been running on a backend, where that is long enough to matter to whoever waits for them.
fn oldest(backend: &v1::BackendFacts) -> String {
    let oldest_s = backend.running.iter().map(|server| server.oldest_s).max().unwrap_or(0);
    if oldest_s < LONG_RUNNING_S {
        return String::new();
    }
    let servers = backend.running.iter().map(|server| format!("{} on {}", server.sessions, server.server));
    let servers: Vec<String> = servers.collect();
    format!(", the oldest for {}: {}", span(oldest_s.saturating_mul(1000)), servers.join(", "))
}

/// Requests that run longer than this are named, in seconds.
const LONG_RUNNING_S: u64 = 5;

/// Causes of one failure that the screen shows, and how much of each, in characters: the rest stands in the agent's log.
const SHOWN_CAUSES: usize = 3;
const SHOWN_CHARS: usize = 240;

/// What happened to the routes lately that nobody ordered, the newest last.
fn event_lines(status: &v1::StatusReply) -> String {
    let balancers = status.agents.iter().filter_map(|agent| Some((&agent.host, agent.balancer.as_ref()?)));
    let mut events: Vec<(&String, &v1::BalancerEvent)> =
        balancers.flat_map(|(host, found)| found.events.iter().map(move |event| (host, event))).collect();
    events.sort_by_key(|(_, event)| event.at_ms);
    let newest = events.iter().skip(events.len().saturating_sub(EVENTS_SHOWN));
    newest
        .map(|(host, event)| {
            format!("{}  {host:<12} {:<16} {}\n", time(event.at_ms), event.kind, event.detail)
        })
        .collect()
}

/// Events that `traffic show` shows; JSON has all of them.
const EVENTS_SHOWN: usize = 8;

/// The share of visitors that a backend gets by a route.
pub fn share_of(route: &str, backend: &str) -> u8 {
    match (pointsman_core::Route::parse(route), pointsman_core::BackendName::parse(backend)) {
        (Ok(route), Ok(backend)) => route.share_of(&backend),
        _ => 0,
    }
}

fn host_line(agent: &v1::AgentStatus) -> String {
    if let Some(problem) = &agent.problem {
        return format!(
            "host        {:<12} unknown: {}\n            hint: {}\n",
            agent.host,
            problem_line(problem),
            problem.hint
        );
    }
    let (web, facts) = (agent.web.clone().unwrap_or_default(), agent.facts.unwrap_or_default());
    let flag = if web.maintenance_file { ", maintenance file there" } else { "" };
    format!(
        "host        {:<12} {} current {}, {} free, load {}.{:02}{flag}\n",
        agent.host,
        or(&agent.slot, "no slot"),
        or(short(&web.current), "nothing"),
        bytes(facts.disk_free_bytes),
        facts.load1_milli / 1000,
        facts.load1_milli % 1000 / 10
    )
}

/// Where visitors go.
pub fn traffic(status: &v1::StatusReply) -> String {
    let open = status.release.as_ref().filter(|release| release.outcome.is_empty());
    // What it has moved since is no settled state yet.
    let under_way = |plan: &v1::Plan| format!("  (before release {}, which is under way)", plan.release);
    let note = open.and_then(|release| release.plan.as_ref()).map(under_way).unwrap_or_default();
    let wanted = or(&status.wanted_route, "none yet");
    format!("wanted      {:<12} route {wanted}{note}\n{}{}", "", traffic_lines(status), event_lines(status))
}

fn page_line(page: &v1::Maintenance, now_ms: u64) -> String {
    let reason = if page.reason.is_empty() { String::new() } else { format!(": {}", page.reason) };
    let until = match page.until_ms {
        0 => String::new(),
        until if until < now_ms => format!(", meant to end {} ago", span(now_ms.saturating_sub(until))),
        until => format!(", meant to end at {}", time(until)),
    };
    format!("page up since {} by {}{reason}{until}", time(page.since_ms), page.by)
}

/// Whether the maintenance page is up.
pub fn maintenance(status: &v1::StatusReply) -> String {
    match status.maintenance.as_ref().filter(|page| page.on) {
        Some(page) => format!(
            "{}; to end it: `pointsman maintenance off {}`",
            page_line(page, status.now_ms),
            status.environment
        ),
        None => format!("the maintenance page of {} is down", status.environment),
    }
}

/// The releases that were, one a line.
pub fn history(releases: &[v1::Release]) -> String {
    if releases.is_empty() {
        return "nothing was released yet".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["release", "purpose", "outcome", "slot", "artifact", "started", "took", "by"]);
    for release in releases {
        let plan = release.plan.clone().unwrap_or_default();
        table.add_row([
            plan.release,
            plan.purpose,
            or(&release.outcome, &release.phase).to_owned(),
            plan.to_slot,
            short(&plan.artifact).to_owned(),
            time(release.started_at_ms),
            span(release.entered_at_ms.saturating_sub(release.started_at_ms)),
            plan.created_by,
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What `doctor` found, the bad last: it is read from the bottom. With `folded`, the environment's name, a load
/// balancer's checks that pass are one line.
pub fn findings(findings: &[v1::Finding], folded: Option<&EnvironmentName>) -> String {
    let mut text = String::new();
    for verdict in ["ok", "unknown", "warn", "fail"] {
        let of_it: Vec<_> = findings.iter().filter(|finding| finding.verdict == verdict).collect();
        let told = of_it.iter().filter(|finding| folded.is_none() || !is_passed_check(finding));
        for finding in told {
            match of_one_cause(&of_it, finding).as_slice() {
                [first, _, others @ ..] if verdict == "unknown" => {
                    // What cannot be asked leaves all of its checks unknown, and is told once.
                    if std::ptr::eq(*first, *finding) {
                        let more = others.len().saturating_add(1);
                        let check = format!("{} and {more} more", finding.check);
                        text.push_str(&one_finding(&v1::Finding { check, ..(*finding).clone() }));
                    }
                }
                _ => text.push_str(&one_finding(finding)),
            }
        }
        if let Some(environment) = folded.filter(|_| verdict == "ok") {
            text.push_str(&passed(findings, environment));
        }
    }
    let count = |verdict: &str| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let end = match (count("fail"), count("unknown")) {
        (0, 0) => "nothing stands in the way of a release".to_owned(),
        (0, 1) => "nothing is known to stand in the way of a release; 1 finding is unknown".to_owned(),
        (0, unknown) => {
            format!("nothing is known to stand in the way of a release; {unknown} findings are unknown")
        }
        (1, _) => "1 finding stands in the way of a release".to_owned(),
        (bad, _) => format!("{bad} findings stand in the way of a release"),
    };
    format!("{text}{end}")
}

/// The findings of a host that say the same.
fn of_one_cause<'a>(findings: &[&'a v1::Finding], one: &v1::Finding) -> Vec<&'a v1::Finding> {
    let same = |other: &&&v1::Finding| {
        (&other.subject, &other.what, &other.fix) == (&one.subject, &one.what, &one.fix)
            && !other.check.is_empty()
    };
    findings.iter().filter(same).copied().collect()
}

fn is_passed_check(finding: &v1::Finding) -> bool {
    finding.verdict == "ok" && !finding.check.is_empty()
}

/// How many checks pass, for each host.
fn passed(findings: &[v1::Finding], environment: &EnvironmentName) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| is_passed_check(finding)) {
        let count = counts.entry(finding.subject.as_str()).or_default();
        *count = count.saturating_add(1);
    }
    let lines = counts.iter().map(|(host, count)| {
        let has = |kind: &str| {
            findings.iter().any(|finding| finding.subject == **host && finding.check.starts_with(kind))
        };
        let (of_what, listed) = match (has("database-"), has("activate-")) {
            (true, _) => ("the database", format!("doctor {environment} -o json")),
            (_, true) => ("units and hooks", format!("doctor {environment} -o json")),
            _ => ("HAProxy", format!("doctor lb {environment}")),
        };
        let passes = match count {
            1 => format!("1 check of {of_what} passes"),
            _ => format!("{count} checks of {of_what} pass"),
        };
        format!("{} {host:<12} {passes}: `pointsman {listed}` lists them\n", sign("ok"))
    });
    lines.collect()
}

fn sign(verdict: &str) -> &'static str {
    match verdict {
        "ok" => "✔ ok     ",
        "warn" => "॥ warn   ",
        "fail" => "✖ fail   ",
        _ => "? unknown",
    }
}

/// A finding: what, why it matters, and what to do, whose lines can be pasted as they stand but for the margin.
fn one_finding(finding: &v1::Finding) -> String {
    let margin = format!("{:<9} {:<12}", "", "");
    let named = if finding.check.is_empty() { String::new() } else { format!("{}: ", finding.check) };
    let mut text = format!("{} {:<12} {named}{}\n", sign(&finding.verdict), finding.subject, finding.what);
    if !finding.why.is_empty() {
        text.push_str(&format!("{margin} why: {}\n", finding.why));
    }
    for line in finding.fix.lines() {
        text.push_str(&format!("{margin} {line}\n"));
    }
    if let Some(problem) = &finding.problem {
        text.push_str(&format!("{margin} {}\n{margin} hint: {}\n", problem_line(problem), problem.hint));
    }
    text
}
