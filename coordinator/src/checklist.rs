//! The checklist of a release: what was seen of it, as the journal holds it, against what there was to see. Never passed for
//! want of data.

use std::collections::BTreeMap;

use pointsman_chassis::SystemClock;
use pointsman_checks::Kind;
use pointsman_core::ports::Clock as _;
use pointsman_core::{
    Check, CheckFrom, CheckName, CheckSeen, CheckVerdict, Code, Counted, Entry, Event, HostName, Judged,
    Note, Outcome, Plan, Problem, ReleaseId, Stamped, State, Step, Timestamp, TrafficSeen, several,
};
use pointsman_proto::v1;

use crate::environment::ManualPoint;
use crate::office::Office;
use crate::old_side::clock_time;

/// The points that every release is judged by: name and text.
pub const SEED: [(&str, &str); 8] = [
    ("health", "Health checks successful"),
    (ERROR_RATE, "Error rate < 1%"),
    (P99, "Response time < 2s (p99)"),
    ("services", "WFS/WMS services accessible"),
    ("frontend", "Frontend loads"),
    ("login", "Login works"),
    ("feature-creation", "Feature creation works"),
    ("alerts", "Monitoring alerts silent"),
];

const ERROR_RATE: &str = "error-rate";
const P99: &str = "p99";

/// The error rate that must not be reached: one request in so many.
const ONE_IN: u64 = 100;
/// The 99th percentile that must not be reached, in milliseconds.
pub(crate) const P99_LIMIT_MS: u64 = 2_000;
/// Of so many seconds one may be incomplete: a reload leaves one.
const INCOMPLETE_ONE_IN: u64 = 10;
/// Requests that there must be: with fewer, one failure more or less decides, and a 99th percentile is the slowest.
const MIN_REQUESTS: u64 = 100;

/// What is known of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// Nothing, or not enough, was seen.
    NoData,
    /// A person has not ticked it yet.
    Open,
}

impl Verdict {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NoData => "no-data",
            Self::Open => "open",
        }
    }
}

/// One point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// What it says.
    pub text: String,
    /// A person ticks it.
    pub manual: bool,
    /// What is known.
    pub verdict: Verdict,
    /// What that rests on.
    pub evidence: Vec<String>,
    /// When the newest evidence was recorded.
    pub at: Option<Timestamp>,
}

/// The checklist of a release, or of the last.
pub async fn of(office: &Office, id: Option<&ReleaseId>) -> Result<v1::ChecklistReply, Problem> {
    // Whoever names none means what was deployed last: a rollback has nothing to tick off, and what it undid has.
    let deployed = match id {
        Some(id) => office.release(Some(id)).await?,
        None => match office.newest_deploy().await? {
            Some(deployed) => Some(deployed),
            None => office.release(None).await?,
        },
    };
    let kept = deployed.ok_or_else(|| {
        let name = &office.environment().name;
        Problem::new(Code::ReleaseUnknown, format!("nothing was ever released to `{name}`"))
            .hint("`pointsman deploy ENV --artifact DIR --release ID`")
    })?;
    let plan = &kept.state.plan;
    let facts = office.facts(&plan.release, 0).await?;
    let mut entries: Vec<Entry> = facts.into_iter().map(|(entry, _)| entry).collect();
    // What visitors meet is noted once a minute: whoever asks meanwhile is told of the rest as well.
    entries.extend(office.met_since(&plan.release).map(|met| not_noted_yet(&entries, &plan.release, met)));
    let mut points = points(plan, &office.environment().manual, &entries);
    points.extend(office.rolled_back_by(&kept).await?.map(|back| undone(&back.state)));
    Ok(v1::ChecklistReply {
        environment: office.environment().name.to_string(),
        release: plan.release.to_string(),
        outcome: kept.state.outcome().map(Outcome::as_str).unwrap_or_default().to_owned(),
        points: points.into_iter().map(to_wire).collect(),
    })
}

/// What visitors have met since the last note, as the entry that it will be.
fn not_noted_yet(entries: &[Entry], release: &ReleaseId, met: TrafficSeen) -> Entry {
    let event = Event::Noted(Note::Traffic(met));
    let seq = entries.last().map_or(1, |last| last.seq.saturating_add(1));
    Entry { seq, release: release.clone(), fact: Stamped { at: SystemClock.now(), event } }
}

/// The point that a release fails which was confirmed, and then led back from.
fn undone(back: &State) -> Point {
    let (plan, at) = (&back.plan, back.entered_at);
    let reason = plan.reason.as_deref().unwrap_or("no reason given");
    Point {
        name: "stays".to_owned(),
        text: "Not rolled back after its end".to_owned(),
        manual: false,
        verdict: Verdict::Failed,
        evidence: vec![format!(
            "rolled back at {} by {}, with `{}`: {reason}",
            clock_time(at),
            plan.created_by,
            plan.release
        )],
        at: Some(at),
    }
}

fn to_wire(point: Point) -> v1::ChecklistPoint {
    v1::ChecklistPoint {
        name: point.name,
        text: point.text,
        manual: point.manual,
        verdict: point.verdict.as_str().to_owned(),
        evidence: point.evidence,
        at_ms: point.at.map_or(0, |at| at.0),
    }
}

/// Records that a person vouches for a point. What checks and signals judge cannot be ticked.
pub async fn tick(
    office: &Office,
    id: &ReleaseId,
    point: CheckName,
    by: String,
    text: Option<String>,
) -> Result<v1::ChecklistReply, Problem> {
    let manual = &office.environment().manual;
    if !manual.iter().any(|known| known.name == point) {
        let known: Vec<&str> = manual.iter().map(|point| point.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!("`{point}` is no point that a person ticks; these are: {known}");
        return Err(Problem::new(Code::UsageWrong, message)
            .hint("points of people stand in the environment file, under `[[checklist.manual]]`"));
    }
    office.note(id, Note::Tick { point, by, text }).await?;
    of(office, Some(id)).await
}

/// The worst that was seen of each check at once: one load balancer may have made it at several servers, and one of them that
/// fails is not made good by another.
fn worst(made: &[CheckSeen]) -> impl Iterator<Item = &CheckSeen> {
    let mut worst: BTreeMap<&CheckName, &CheckSeen> = BTreeMap::new();
    for seen in made {
        let known = worst.entry(&seen.name).or_insert(seen);
        if known.verdict.worse(seen.verdict) != known.verdict {
            *known = seen;
        }
    }
    worst.into_values()
}

/// What was seen of one check in one place, the newest of before and after the switch.
type Seen<'e> = BTreeMap<(&'e CheckName, &'e HostName, bool), (Timestamp, &'e CheckSeen)>;

/// What visitors met in all stretches of the watch together.
struct Met {
    /// When the last of them was noted.
    at: Timestamp,
    all: TrafficSeen,
    /// When the stretch with the highest 99th percentile was noted; none where there was one stretch.
    slowest_at: Option<Timestamp>,
}

impl Met {
    fn add(known: Option<Self>, at: Timestamp, met: &TrafficSeen) -> Self {
        let Some(before) = known else { return Self { at, all: met.clone(), slowest_at: None } };
        let slowest_at = match met.p99_ms > before.all.p99_ms {
            true => at,
            false => before.slowest_at.unwrap_or(before.at),
        };
        Self { at, all: before.all.and(met), slowest_at: Some(slowest_at) }
    }
}

/// Stretches of a release that perhaps nobody added up: a coordinator that ends forgets what it had not noted, and the next one begins
/// anew. One that only reads its journal anew counts on.
#[derive(Default)]
struct Gaps {
    /// From when on visitors are added up: they were moved there, or it was noted.
    from: Option<Timestamp>,
    found: Vec<(Timestamp, u64)>,
}

impl Gaps {
    /// Takes in what was recorded of a release, in order.
    fn take(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::OrderIntended { key, .. } if key.step.moves_visitors() && self.from.is_none() => {
                self.from = Some(at);
            }
            Event::Noted(Note::Traffic(_)) => self.from = Some(at),
            Event::EpochTaken(_) => {
                let Some(from) = self.from.replace(at) else { return };
                self.found.push((at, at.ms_since(from)));
            }
            _ => {}
        }
    }

    /// What that leaves out of the counts of visitors.
    fn told(&self) -> impl Iterator<Item = String> {
        self.found.iter().map(|(at, ms)| {
            format!(
                "perhaps not in this: up to {} s before {}, when a coordinator took the journal up",
                ms.div_ceil(1_000),
                clock_time(*at)
            )
        })
    }
}

/// Judges every point by what is recorded.
pub fn points(plan: &Plan, manual: &[ManualPoint], entries: &[Entry]) -> Vec<Point> {
    let (mut seen, mut traffic): (Seen<'_>, Option<Met>) = (BTreeMap::new(), None);
    // What the judge had counted when something followed from it. Another judge counts anew, and both count here.
    let mut judged: Vec<(Timestamp, &Judged)> = Vec::new();
    let mut ticks: BTreeMap<&str, (Timestamp, &str, Option<&str>)> = BTreeMap::new();
    let mut gaps = Gaps::default();
    for entry in entries {
        let at = entry.fact.at;
        gaps.take(at, &entry.fact.event);
        match &entry.fact.event {
            Event::Noted(Note::Checks { step, host, seen: made }) => {
                let before = *step == Step::Check;
                seen.extend(worst(made).map(|seen| ((&seen.name, host, before), (at, seen))));
            }
            Event::Noted(Note::Traffic(met)) => {
                traffic = Some(Met::add(traffic.take(), at, met));
            }
            Event::Judged(now) => {
                let goes_on =
                    |last: &&mut (Timestamp, &Judged)| now.errors.new.requests >= last.1.errors.new.requests;
                match judged.last_mut().filter(goes_on) {
                    Some(last) => *last = (at, now),
                    None => judged.push((at, now)),
                }
            }
            Event::Noted(Note::Tick { point, by, text }) => {
                ticks.insert(point.as_str(), (at, by, text.as_deref()));
            }
            _ => {}
        }
    }
    let mut by_point: BTreeMap<String, Vec<&Check>> = BTreeMap::new();
    for check in &plan.checks {
        by_point.entry(point_of(check)).or_default().push(check);
    }
    let mut points = Vec::new();
    for (name, text) in SEED {
        points.push(match name {
            ERROR_RATE => {
                let by_judge = judged.iter().filter_map(|(at, judged)| Some((*at, judged_errors(judged)?)));
                against(judged_traffic(name, text, traffic.as_ref(), error_rate), by_judge)
            }
            P99 => {
                let slow = |(at, judged): &(Timestamp, &Judged)| Some((*at, judged_slowness(plan, judged)?));
                let mut point = against(
                    judged_traffic(name, text, traffic.as_ref(), p99),
                    judged.iter().filter_map(slow),
                );
                point.evidence.extend(judged.last().and_then(|(_, judged)| slowed(plan, judged)));
                point
            }
            _ => judged_checks(name, text, plan, &by_point.remove(name).unwrap_or_default(), &seen),
        });
    }
    for point in points.iter_mut().filter(|point| point.name == ERROR_RATE || point.name == P99) {
        point.evidence.extend(gaps.told());
    }
    for (name, checks) in &by_point {
        points.push(judged_checks(name, &format!("Check {name} passes"), plan, checks, &seen));
    }
    let wanted = manual.iter().map(|point| (point.name.as_str(), point.text.as_str()));
    // What was ticked stays told, also where the environment file names it no more.
    let former = ticks.keys().filter(|name| !manual.iter().any(|point| point.name.as_str() == **name));
    for (name, text) in wanted.chain(former.map(|name| (*name, "no point of the checklist any more"))) {
        points.push(ticked(name, text, ticks.get(name)));
    }
    points
}

/// The point that a check belongs to: what it says itself, else by what it asks, else by its name.
fn point_of(check: &Check) -> String {
    match pointsman_checks::parsed_alone(check) {
        Some(spec) if spec.point.is_some() => spec.point.map(|point| point.to_string()).unwrap_or_default(),
        Some(spec) if matches!(spec.kind, Kind::Ows(_)) => "services".to_owned(),
        Some(spec) if matches!(spec.kind, Kind::Alerts(_)) => "alerts".to_owned(),
        _ => check.name.to_string(),
    }
}

fn judged_checks(name: &str, text: &str, plan: &Plan, checks: &[&Check], seen: &Seen<'_>) -> Point {
    let mut point = Point {
        name: name.to_owned(),
        text: text.to_owned(),
        manual: false,
        verdict: Verdict::Passed,
        evidence: Vec::new(),
        at: None,
    };
    if checks.is_empty() {
        point.verdict = Verdict::NoData;
        point.evidence.push("no check is configured for it".to_owned());
    }
    for check in checks {
        let hosts = match check.from {
            CheckFrom::Hosts => &plan.to.hosts,
            CheckFrom::Balancers => &plan.balancers,
        };
        let moments = [(true, "before", check.before_switch), (false, "after", check.after_switch)];
        for (before, word, _) in moments.into_iter().filter(|(_, _, wanted)| *wanted) {
            for host in hosts {
                let found = seen.get(&(&check.name, host, before));
                let (verdict, line) = match found {
                    Some((_, seen)) => (verdict_of(seen), format!("{} ({} ms)", seen.what, seen.took_ms)),
                    None => (Verdict::NoData, "not made".to_owned()),
                };
                point.verdict = worse(point.verdict, verdict);
                point.at = point.at.max(found.map(|(at, _)| *at));
                let word_of = verdict.as_str();
                point.evidence.push(format!("{} {word} the switch on {host}: {word_of}, {line}", check.name));
            }
        }
    }
    point
}

fn verdict_of(seen: &CheckSeen) -> Verdict {
    match seen.verdict {
        CheckVerdict::Passed => Verdict::Passed,
        CheckVerdict::Failed => Verdict::Failed,
        CheckVerdict::NotMade => Verdict::NoData,
    }
}

/// A failure is worse than silence, and silence worse than a pass.
fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
        (Verdict::Passed, Verdict::Passed) => Verdict::Passed,
        _ => Verdict::NoData,
    }
}

fn judged_traffic(
    name: &str,
    text: &str,
    traffic: Option<&Met>,
    judge: impl Fn(&Met) -> (Verdict, String),
) -> Point {
    let silent = || (Verdict::NoData, "no data: no visitors were counted during the watch".to_owned());
    let (verdict, line) = traffic.map_or_else(silent, judge);
    Point {
        name: name.to_owned(),
        text: text.to_owned(),
        manual: false,
        verdict,
        evidence: vec![line],
        at: traffic.map(|met| met.at),
    }
}

/// The same point where the visitors' judge knew of something worse: what was counted beside it forgets what it met when its
/// coordinator is killed, and the judge does not.
fn against(mut point: Point, by_judge: impl Iterator<Item = (Timestamp, String)>) -> Point {
    for (at, line) in by_judge {
        point.verdict = Verdict::Failed;
        point.evidence.push(line);
        point.at = point.at.max(Some(at));
    }
    point
}

/// What the judge counted against a release by its errors, if that is too much for the checklist.
fn judged_errors(judged: &Judged) -> Option<String> {
    let Counted { bad, requests, .. } = judged.errors.new;
    (bad > 0 && bad.saturating_mul(ONE_IN) >= requests)
        .then(|| format!("{bad} of {requests} requests failed, as the judge of visitors counted"))
}

/// The same by slowness. What is slow for a judge with a lower limit is not for the checklist.
fn judged_slowness(plan: &Plan, judged: &Judged) -> Option<String> {
    let Counted { bad, requests, .. } = judged.slowness.new;
    let limit_ms = plan.verdict.p99_ms;
    (limit_ms >= P99_LIMIT_MS && bad.saturating_mul(ONE_IN) > requests).then(|| {
        format!(
            "{bad} of {requests} requests took longer than {limit_ms} ms, as the judge of visitors counted"
        )
    })
}

/// That a release is slower than what served before it. That is no reason to fail what keeps to the limit.
fn slowed(plan: &Plan, judged: &Judged) -> Option<String> {
    let (now, (before, _)) = (judged.slowed.as_ref()?, plan.verdict.slower_before()?);
    let (p99_ms, over_ms) = (plan.verdict.before.p99_ms?, plan.verdict.baseline_ms());
    let percent = |share: f64| (share * 10_000.0).round() / 100.0;
    Some(format!(
        "slower than before the release, when the p99 was {p99_ms} ms: {} % of requests took longer than {over_ms} ms then, {} of {} \
         do now ({} %)",
        percent(before),
        now.bad,
        now.requests,
        percent(now.bad as f64 / now.requests.max(1) as f64)
    ))
}

fn error_rate(met: &Met) -> (Verdict, String) {
    let TrafficSeen { seconds, requests, failures, .. } = met.all;
    if requests == 0 {
        return (Verdict::NoData, format!("no data: no requests in {seconds} s"));
    }
    // In hundredths of a percent, rounded up: what is shown is never better than what was.
    let shown = failures.saturating_mul(10_000).div_ceil(requests);
    let line = format!(
        "{}.{:02} %: {failures} of {requests} requests failed in {seconds} s",
        shown / 100,
        shown % 100
    );
    let within = |failures: u64, requests: u64| failures.saturating_mul(ONE_IN) < requests;
    let verdict = if within(failures, requests) { Verdict::Passed } else { Verdict::Failed };
    let against = Against { bad: failures, requests, lost: met.all.lost_failures };
    enough(verdict, &met.all, &against, line, within)
}

fn p99(met: &Met) -> (Verdict, String) {
    let TrafficSeen { seconds, requests, timed, slow, p99_ms, .. } = met.all;
    // What became a `WebSocket`, or was logged without times, is no fast request.
    let requests = timed.unwrap_or(requests);
    let Some(p99_ms) = p99_ms else {
        return (Verdict::NoData, format!("no data: nothing can be said of latencies in {seconds} s"));
    };
    // Of several stretches the highest is shown; what counts is how many were slow in all.
    let line = match met.slowest_at {
        Some(at) => format!(
            "{p99_ms} ms in the slowest stretch, noted at {}; {requests} requests in {seconds} s in all",
            clock_time(at)
        ),
        None => format!("{p99_ms} ms over {requests} requests in {seconds} s"),
    };
    let few = |slow: u64, requests: u64| slow.saturating_mul(ONE_IN) <= requests;
    let within = slow.map_or(p99_ms < P99_LIMIT_MS, |slow| few(slow, requests));
    let verdict = if within { Verdict::Passed } else { Verdict::Failed };
    // Where it was not counted how many were slow, one in a hundred may have been.
    let slow = slow.unwrap_or(requests.div_ceil(ONE_IN));
    let against = Against { bad: slow, requests, lost: met.all.lost };
    enough(verdict, &met.all, &against, line, few)
}

/// What speaks against a point.
struct Against {
    /// Requests that were bad, of those that are known.
    bad: u64,
    requests: u64,
    /// So many of those of which no access line came may have been bad, too.
    lost: Option<u64>,
}

/// A pass rests on enough requests, and on load balancers that told of theirs. Where HAProxy's counters know how many access lines did
/// not come, as after a reload, it stands if it would with all of those that may have been bad. `holds` says it of bad ones, and all.
fn enough(
    verdict: Verdict,
    met: &TrafficSeen,
    against: &Against,
    line: String,
    holds: impl Fn(u64, u64) -> bool,
) -> (Verdict, String) {
    let TrafficSeen { seconds, incomplete, .. } = *met;
    if verdict == Verdict::Passed && against.requests < MIN_REQUESTS {
        return (Verdict::NoData, format!("{line}: too few, {MIN_REQUESTS} are needed"));
    }
    let few = |incomplete: u64| incomplete.saturating_mul(INCOMPLETE_ONE_IN) <= seconds;
    if verdict != Verdict::Passed || few(incomplete) {
        return (verdict, line);
    }
    let Some((all, bad)) = met.lost.zip(against.lost).filter(|_| met.blind.is_some_and(few)) else {
        return (Verdict::NoData, format!("{line}: in {incomplete} s not every load balancer told of all"));
    };
    let missing = several(all, "access line", "access lines");
    let line = format!(
        "{line}; {missing} beside these did not come in {incomplete} s, as after a reload of HAProxy: by its counters {bad} of them may \
         say otherwise"
    );
    let worst = against.bad.saturating_add(bad);
    if holds(worst, against.requests.saturating_add(all)) {
        return (Verdict::Passed, format!("{line}, and the point holds all the same"));
    }
    let enough = worst.saturating_mul(ONE_IN).saturating_add(1);
    (Verdict::NoData, format!("{line}; among {enough} requests they could not"))
}

fn ticked(name: &str, text: &str, tick: Option<&(Timestamp, &str, Option<&str>)>) -> Point {
    Point {
        name: name.to_owned(),
        text: text.to_owned(),
        manual: true,
        verdict: if tick.is_some() { Verdict::Passed } else { Verdict::Open },
        evidence: tick
            .map(|(_, by, text)| match text {
                Some(text) => format!("ticked by {by}: {text}"),
                None => format!("ticked by {by}"),
            })
            .into_iter()
            .collect(),
        at: tick.map(|(at, _, _)| *at),
    }
}

#[cfg(test)]
mod tests;
