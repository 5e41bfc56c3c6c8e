//! Making all checks of a place, in their order: each until it passes, its tries are used up or its patience ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pointsman_core::{Check, CheckName, CheckSeen, CheckVerdict, Code, Evidence, OnFail, Problem, several};
use tokio::time::Instant;

use crate::make::make;
use crate::memory::Memory;
use crate::miss::Miss;
use crate::parse::{captured, parse, parsed_alone};
use crate::place::Place;
use crate::secrets::{self, Redactor};
use crate::session::{self, Session};
use crate::spec::{Alerts, Kind, Metric, Spec};

/// Pause between two tries of a check that is repeated out of patience.
const PAUSE: Duration = Duration::from_millis(200);

/// Parses the descriptions of checks that are made together: each may use what an earlier one that it names captures.
pub fn parse_all(checks: &[Check]) -> Result<Vec<(&Check, Spec)>, String> {
    let mut names: BTreeMap<&CheckName, BTreeSet<String>> = BTreeMap::new();
    let mut parsed = Vec::new();
    for check in checks {
        let in_check = |error: String| format!("check `{}`: {error}", check.name);
        let outer = after_of(check).map_err(in_check)?;
        let known = match &outer {
            Some(after) => names.get(after).cloned().ok_or_else(|| {
                in_check(format!("`after` names `{after}`, which is no check before it in the same place"))
            })?,
            None => BTreeSet::new(),
        };
        let spec = parse(&check.spec, &known).map_err(in_check)?;
        objects_no_more_than(&parsed, &spec).map_err(in_check)?;
        let mut all = known;
        all.extend(captured(&spec));
        if names.insert(&check.name, all).is_some() {
            return Err(format!("two checks are called `{}`", check.name));
        }
        parsed.push((check, spec));
    }
    Ok(parsed)
}

/// Refuses a check that objects although the one it builds on only warns: where that one fails this one cannot be made,
/// and a release would be held by what was meant to warn.
fn objects_no_more_than(before: &[(&Check, Spec)], spec: &Spec) -> Result<(), String> {
    let base = before.iter().find(|(check, _)| Some(&check.name) == spec.after.as_ref());
    match base {
        Some((base, warns)) if warns.on_fail == OnFail::Warn && spec.on_fail != OnFail::Warn => Err(format!(
            "comes after `{0}`, which only warns: give it `on_fail = \"warn\"` too, or let `{0}` do more",
            base.name
        )),
        _ => Ok(()),
    }
}

/// The check that a description says it comes after.
pub fn after_of(check: &Check) -> Result<Option<CheckName>, String> {
    let value: serde_json::Value =
        serde_json::from_str(check.spec.as_str()).map_err(|error| error.to_string())?;
    let after = value.get("after").and_then(serde_json::Value::as_str);
    after.map(|after| CheckName::parse(after).map_err(|error| format!("`after`: {error}"))).transpose()
}

/// What came of checks in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Each check, in order.
    pub seen: Vec<CheckSeen>,
    /// Those that were not made now, because what was seen of them before is still good.
    pub remembered: BTreeSet<CheckName>,
}

/// Makes checks in one place. `memory` knows what was seen before; without it every check is made.
pub async fn run(checks: &[Check], place: &Place, memory: Option<&Memory>) -> Result<Made, Problem> {
    let parsed = parse_all(checks).map_err(|error| Problem::new(Code::MessageInvalid, error))?;
    // Looked up once: what was good when it was looked up is still what a check was not due for.
    let mut known = remembered(&parsed, place, memory);
    let due = due(&parsed, |check| !known.contains_key(&check.name));
    let (mut sessions, mut made): (BTreeMap<CheckName, Session>, Made) = Default::default();
    // One for all: a server may answer whoever asks with what another check has sent.
    let mut redactor = hidden(place).await?;
    // Once a release turns back anyway nothing is left to be patient for. What holds, warns or cannot see leaves the others
    // their patience: one that is cut short would turn it back.
    let mut hasty = false;
    for (check, spec) in &parsed {
        if !due.contains(&check.name) {
            made.seen.extend(known.remove(&check.name));
            made.remembered.insert(check.name.clone());
            continue;
        }
        let began = Instant::now();
        let session = match &spec.after {
            Some(after) => sessions.get(after).cloned(),
            None => Some(Session::new(redactor.clone())),
        };
        let (verdict, what) = match session {
            Some(session) => {
                let (session, made) = repeated(check, spec, place, session, hasty).await;
                redactor.learn(&session.redactor);
                match made {
                    Ok(what) => {
                        sessions.insert(check.name.clone(), session);
                        (CheckVerdict::Passed, redactor.redact(&what))
                    }
                    Err(Miss::Failed(error)) => (CheckVerdict::Failed, redactor.redact(&error)),
                    Err(Miss::Blind(error)) => (CheckVerdict::NotMade, redactor.redact(&error)),
                }
            }
            None => (CheckVerdict::NotMade, without_base(&parsed, spec)),
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let seen = CheckSeen::new(check.name.clone(), verdict, took_ms, &what);
        hasty |= verdict == CheckVerdict::Failed && spec.on_fail == OnFail::Rollback;
        if let Some(memory) = memory {
            memory.keep(check, spec, place, &seen);
        }
        made.seen.push(seen);
    }
    Ok(made)
}

/// What is hidden in this place from the beginning.
async fn hidden(place: &Place) -> Result<Redactor, Problem> {
    let grants = place.grants.clone();
    let read = tokio::task::spawn_blocking(move || secrets::hidden(grants.secrets.as_deref())).await;
    let unread = "what no message may repeat could not be read: no check is made";
    read.map_err(|error| Problem::new(Code::CheckBlind, unread).because(&error))
}

/// What is known of checks without making them. What comes after a failure that is remembered cannot be made either.
fn remembered(
    parsed: &[(&Check, Spec)],
    place: &Place,
    memory: Option<&Memory>,
) -> BTreeMap<CheckName, CheckSeen> {
    let mut known: BTreeMap<CheckName, CheckSeen> = BTreeMap::new();
    let Some(memory) = memory else { return known };
    for (check, spec) in parsed {
        let base = spec.after.as_ref().and_then(|after| known.get(after));
        let seen = match base {
            Some(base) if base.verdict != CheckVerdict::Passed => {
                let what = without_base(parsed, spec);
                Some(CheckSeen::new(check.name.clone(), CheckVerdict::NotMade, 0, &what))
            }
            _ => memory.recall(check, spec, place),
        };
        known.extend(seen.map(|seen| (check.name.clone(), seen)));
    }
    known
}

/// What is to be said of a check whose base did not pass.
fn without_base(parsed: &[(&Check, Spec)], spec: &Spec) -> String {
    let after = parsed.iter().find(|(other, _)| Some(&other.name) == spec.after.as_ref());
    after.map(|(after, _)| session::not_made(after)).unwrap_or_default()
}

/// The checks that are to be made: those of which nothing good is known, and what they come after.
fn due(parsed: &[(&Check, Spec)], is_due: impl Fn(&Check) -> bool) -> BTreeSet<CheckName> {
    let mut due = BTreeSet::new();
    // From the last to the first: what a check comes after stands before it.
    for (check, spec) in parsed.iter().rev() {
        if due.contains(&check.name) || is_due(check) {
            due.insert(check.name.clone());
            due.extend(spec.after.clone());
        }
    }
    due
}

/// Makes one check as often as it may be; in haste, once.
async fn repeated(
    check: &Check,
    spec: &Spec,
    place: &Place,
    session: Session,
    hasty: bool,
) -> (Session, Result<String, Miss>) {
    let mut session = session;
    if let Err(error) = session.learn(spec, place) {
        return (session, Err(Miss::Blind(error)));
    }
    let give_up = Instant::now() + Duration::from_millis(check.patience_ms);
    let patient = spec.retry.is_none() && spec.only_reads() && !hasty;
    let timeout = Duration::from_millis(check.timeout_ms);
    let mut tries = 1;
    loop {
        let (tried, made) = once(spec, place, session.clone(), timeout).await;
        let Err(reason) = made else { return (tried, made) };
        let pause = match spec.retry {
            Some(retry) => {
                Some(Duration::from_millis(retry.every_ms)).filter(|_| tries < retry.times && !hasty)
            }
            // Silence and wrong answers are both repeated: a server that has just been restarted gives either.
            None => Some(PAUSE).filter(|pause| patient && Instant::now() + *pause < give_up),
        };
        let Some(pause) = pause else {
            let again = tries > 1 && spec.retry.is_some();
            let say = |reason: String| {
                if again { format!("{reason} ({})", several(tries, "try", "tries")) } else { reason }
            };
            return (tried, Err(reason.said(say)));
        };
        tokio::time::sleep(pause).await;
        tries = tries.saturating_add(1);
    }
}

/// Makes a check once, in a task of its own: whoever waits for it may go away, and what it made is cleared away still.
async fn once(
    spec: &Spec,
    place: &Place,
    session: Session,
    timeout: Duration,
) -> (Session, Result<String, Miss>) {
    let (spec, place, before) = (spec.clone(), place.clone(), session.clone());
    let task = tokio::spawn(async move {
        let mut session = session;
        let made = make(&spec, &place, &mut session, timeout).await;
        (session, made)
    });
    task.await
        .unwrap_or_else(|error| (before, Err(Miss::Blind(format!("the check ended abruptly: {error}")))))
}

/// What came of all checks in all places: evidence if none objects, else what is wrong with the gravest that does, wherever it
/// was made. One that only warns objects to nothing; one that holds, or that could not see, never turns a release back, and
/// never lets it go on. A failure that is only remembered was told of when it was seen: trying again will tell more.
pub fn judged(checks: &[Check], made: Vec<(&Place, Made)>) -> Result<Vec<CheckSeen>, Problem> {
    let on_fail = |seen: &CheckSeen| {
        let check = checks.iter().find(|check| check.name == seen.name);
        check.and_then(parsed_alone).map_or(OnFail::Rollback, |spec| spec.on_fail)
    };
    let code = |seen: &CheckSeen| match (seen.verdict, on_fail(seen)) {
        (CheckVerdict::Passed, _) | (_, OnFail::Warn) => None,
        (CheckVerdict::Failed, OnFail::Rollback) => Some(Code::CheckFailed),
        (CheckVerdict::Failed, OnFail::Hold) => Some(Code::CheckHolds),
        (CheckVerdict::NotMade, _) => Some(Code::CheckBlind),
    };
    let everywhere =
        made.iter().flat_map(|(place, made)| made.seen.iter().map(move |seen| (*place, made, seen)));
    // What was seen now stands before what is remembered.
    let (now, before): (Vec<_>, Vec<_>) = everywhere
        .filter_map(|(place, made, seen)| Some((code(seen)?, place, seen, made)))
        .partition(|(.., seen, made)| !made.remembered.contains(&seen.name));
    let is_new = now.iter().any(|(found, ..)| *found == Code::CheckFailed);
    let objecting: Vec<(Code, &Place, &CheckSeen)> =
        now.iter().chain(&before).map(|(code, place, seen, _)| (*code, *place, *seen)).collect();
    let gravest = [Code::CheckFailed, Code::CheckHolds, Code::CheckBlind]
        .into_iter()
        .find_map(|code| objecting.iter().find(|(found, ..)| *found == code));
    let Some((code, place, first)) = gravest else { return Ok(all_of(made)) };
    let says = |code: Code| if code == Code::CheckBlind { "does not know" } else { "failed" };
    let mut problem = Problem::new(*code, format!("check `{}` {}: {}", first.name, says(*code), first.what));
    problem = match measured_by(checks, first) {
        Some(url) => problem.cause(format!("asked `{url}`")),
        None if first.verdict == CheckVerdict::Failed => {
            problem.cause(format!("asked {} for host `{}`", place.server.address, place.server.host))
        }
        // What the agent itself lacks kept it from asking anybody.
        None => problem,
    };
    let others = objecting.iter().filter(|(found, _, other)| found == code && !std::ptr::eq(*other, *first));
    for (code, place, other) in others.take(MOST_CAUSES) {
        let asked = measured_by(checks, other).unwrap_or_else(|| place.server.address.to_string());
        let (name, what) = (&other.name, &other.what);
        problem = problem.cause(format!("check `{name}` {} at {asked} too: {what}", says(*code)));
    }
    let hint = checks.iter().find(|check| check.name == first.name).and_then(|check| by_hand(check, place));
    let hint = hint.unwrap_or_else(|| format!("make it again: `pointsman check ENV --name {}`", first.name));
    if *code == Code::CheckFailed && !is_new {
        problem = problem.retry_useful();
    }
    Err(problem.hint(hint).with_checks(all_of(made)))
}

/// Whom a check asks that is not made of the server under test.
fn measured_by(checks: &[Check], seen: &CheckSeen) -> Option<String> {
    match checks.iter().find(|check| check.name == seen.name).and_then(parsed_alone)?.kind {
        Kind::Alerts(Alerts { url, .. }) | Kind::Metric(Metric { url, .. }) => Some(url),
        Kind::Http { .. } | Kind::Steps(_) | Kind::Ows(_) | Kind::TlsExpiry(_) | Kind::Hurl(_) => None,
    }
}

fn all_of(made: Vec<(&Place, Made)>) -> Vec<CheckSeen> {
    made.into_iter().flat_map(|(_, made)| made.seen).collect()
}

/// Other failing checks that a problem names: its text must fit into an answer's headers.
const MOST_CAUSES: usize = 4;

/// How somebody asks a plain check by hand, with the name of the server, with TLS and from the side of the route that it was
/// asked with. A certificate is not looked at: its authorities are the agent's to know.
fn by_hand(check: &Check, place: &Place) -> Option<String> {
    let spec = parse(&check.spec, &BTreeSet::new()).ok()?;
    let Kind::Http { exchange, .. } = spec.kind else { return None };
    let plain = exchange.headers.is_empty() && spec.secrets.is_empty();
    let path = exchange.path.render(&Default::default(), str::to_owned).ok().filter(|_| plain)?;
    let (address, host) = (place.server.address, &place.server.host);
    let proxied = if place.server.proxy_protocol { " --haproxy-protocol" } else { "" };
    let side = place.pin.as_ref().map(|pin| format!(" -H 'X-Pointsman: {}'", pin.side)).unwrap_or_default();
    let asked = match place.server.tls {
        // The name is asked for in the handshake too: by it HAProxy picks the certificate.
        Some(_) => format!(" -k --connect-to ::{address} {}", quoted(&format!("https://{host}{path}"))),
        None => format!(" -H 'Host: {host}' {}", quoted(&format!("http://{address}{path}"))),
    };
    Some(format!("ask it yourself: `curl -i{proxied}{side}{asked}`"))
}

/// A word for a shell, in quotes where it would take parts of it for something else.
fn quoted(word: &str) -> String {
    match word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/:.-_~%+,@[]".contains(&b)) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "%27")),
    }
}

/// Evidence of checks that passed.
pub fn evidence(seen: Vec<CheckSeen>, detail: String) -> Evidence {
    Evidence { detail, checks: seen, ..Evidence::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pointsman_chassis::http_check::Target;
    use pointsman_core::{CheckFrom, CheckSpec};

    use super::*;
    use crate::place::Pin;

    #[test]
    fn what_is_asked_by_hand_is_what_was_asked() {
        let check = |path: &str| Check {
            name: "page".parse().unwrap(),
            from: CheckFrom::Balancers,
            before_switch: true,
            after_switch: true,
            spec: CheckSpec::parse(&format!(r#"{{"http": {{"path": "{path}"}}}}"#)).unwrap(),
            timeout_ms: 1,
            patience_ms: 0,
            bound_ms: 1,
        };
        let server = Target {
            address: "127.0.6.2:26443".parse().unwrap(),
            host: "www.example.org".to_owned(),
            tls: None,
            proxy_protocol: false,
        };
        let pin = Some(Pin { side: "canary", epoch: "7".to_owned() });
        let plain = Place {
            server,
            pin,
            grants: Arc::default(),
            key: String::new(),
            authorities: Default::default(),
        };
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut secure = plain.clone();
        secure.server.tls = Some(Arc::new(tls));
        secure.server.proxy_protocol = true;
        let said = |path: &str, place: &Place| by_hand(&check(path), place).unwrap();
        assert_eq!(
            said("/nope?a=1&b=it's", &plain),
            "ask it yourself: `curl -i -H 'X-Pointsman: canary' -H 'Host: www.example.org' \
             'http://127.0.6.2:26443/nope?a=1&b=it%27s'`"
        );
        assert_eq!(
            said("/nope", &secure),
            "ask it yourself: `curl -i --haproxy-protocol -H 'X-Pointsman: canary' -k --connect-to ::127.0.6.2:26443 \
             https://www.example.org/nope`"
        );
    }
}
