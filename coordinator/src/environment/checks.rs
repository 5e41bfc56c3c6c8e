//! The checks of an environment file: when, from where and how long, and what each does.

use std::collections::BTreeMap;

use pointsman_chassis::config::{Parsed, Span};
use pointsman_checks::{self as checks, Kind, Spec, written};
use pointsman_core::{Check, CheckFrom, CheckName, CheckSpec};
use serde::Deserialize;

/// One entry of `[[checks]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    name: Parsed<CheckName>,
    phase: Vec<Moment>,
    #[serde(default)]
    from: From,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default = "twenty_seconds")]
    patience: Span,
    // What it does: the fields of `pointsman_checks::Written`, each once more, because serde cannot refuse unknown fields
    // beside a flattened part.
    http: Option<written::Http>,
    steps: Option<Vec<written::Step>>,
    ows: Option<written::Ows>,
    alerts: Option<written::Alerts>,
    metric: Option<written::Metric>,
    tls: Option<written::Tls>,
    hurl: Option<String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    after: Option<String>,
    retry: Option<written::Retry>,
    every: Option<Span>,
    point: Option<String>,
    on_fail: Option<written::OnFail>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Moment {
    BeforeSwitch,
    AfterSwitch,
    EndOfWatch,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Hosts,
    #[default]
    Balancer,
}

fn twenty_seconds() -> Span {
    Span::from_ms(20_000)
}

/// Most checks of an environment.
const MOST: usize = 64;

/// Completes all checks, and sees to it that each can be made when and where it is to be.
pub fn complete(written: Vec<Written>) -> Result<Vec<Check>, String> {
    if written.len() > MOST {
        return Err(format!("`[[checks]]` has {} entries: at most {MOST}", written.len()));
    }
    let all = written.into_iter().map(one).collect::<Result<Vec<Check>, String>>()?;
    let mut made: BTreeMap<&CheckName, &Check> = BTreeMap::new();
    for check in &all {
        if made.insert(&check.name, check).is_some() {
            return Err(format!("two checks are called `{}`", check.name));
        }
    }
    for from in [CheckFrom::Hosts, CheckFrom::Balancers] {
        let there: Vec<Check> = all.iter().filter(|check| check.from == from).cloned().collect();
        for (check, spec) in checks::parse_all(&there)? {
            let Some(after) = spec.after.as_ref().and_then(|after| made.get(after)) else { continue };
            let covered =
                (after.before_switch || !check.before_switch) && (after.after_switch || !check.after_switch);
            if !covered {
                let (name, after) = (&check.name, &after.name);
                return Err(format!(
                    "check `{name}` comes after `{after}`, which is not made in each of its phases"
                ));
            }
        }
    }
    Ok(all)
}

fn one(written: Written) -> Result<Check, String> {
    let name = written.name.0.clone();
    completed(written).map_err(|error| format!("check `{name}` {error}"))
}

fn completed(written: Written) -> Result<Check, String> {
    let has = |moment| written.phase.contains(&moment);
    if written.phase.is_empty() {
        return Err("has an empty `phase`: it would never be made".to_owned());
    }
    if has(Moment::EndOfWatch) && !has(Moment::AfterSwitch) {
        return Err(
            "has `end-of-watch` without `after-switch`: the watch reads a check to its end, or not at all"
                .to_owned(),
        );
    }
    let from = match written.from {
        From::Hosts => CheckFrom::Hosts,
        From::Balancer => CheckFrom::Balancers,
    };
    let (before_switch, after_switch) = (has(Moment::BeforeSwitch), has(Moment::AfterSwitch));
    let (name, timeout, patience_ms) = (written.name.0.clone(), written.timeout, written.patience.ms());
    let does = does(written);
    // Completed once more together with what it comes after, whose names are not known here.
    let spec = checks::complete(&does, None).map_err(|error| format!("is wrong: {error}"))?;
    if from == CheckFrom::Hosts && matches!(spec.kind, Kind::TlsExpiry(_) | Kind::Alerts(_) | Kind::Metric(_))
    {
        return Err("asks what only a load balancer's agent may: leave `from` out".to_owned());
    }
    let timeout_ms = timeout.map_or_else(|| spec.default_timeout_ms(), |timeout| timeout.ms());
    let text = serde_json::to_string(&does).map_err(|error| error.to_string())?;
    Ok(Check {
        name,
        from,
        before_switch,
        after_switch,
        bound_ms: bound_ms(&spec, timeout_ms)?,
        spec: CheckSpec::parse(&text).map_err(|error| error.to_string())?,
        timeout_ms,
        patience_ms,
    })
}

/// Longest time for one check, in milliseconds: a reading of the watch waits for it.
const LONGEST_MS: u64 = 300_000;

fn bound_ms(spec: &Spec, timeout_ms: u64) -> Result<u64, String> {
    let bound_ms = spec.bound_ms(timeout_ms);
    if timeout_ms == 0 || bound_ms > LONGEST_MS {
        return Err(format!(
            "may take {} s with its `timeout` and `retry`: expected more than nothing and at most {} s",
            bound_ms / 1000,
            LONGEST_MS / 1000
        ));
    }
    Ok(bound_ms)
}

fn does(written: Written) -> checks::Written {
    let Written { http, steps, ows, alerts, metric, tls, hurl, .. } = written;
    let Written { secrets, after, retry, every, point, on_fail, .. } = written;
    checks::Written {
        http,
        steps,
        ows,
        alerts,
        metric,
        tls,
        hurl,
        secrets,
        after,
        retry,
        every,
        point,
        on_fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        checks: Vec<Written>,
    }

    fn parse(text: &str) -> Result<Vec<Check>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        complete(file.checks)
    }

    /// Two checks, of which the second builds on the first.
    const TWO: &str = r#"
        [[checks]]
        name = "login"
        phase = ["before-switch", "after-switch"]
        [[checks.steps]]
        post = "/login"
        capture = { token = "json:$.token" }
        [[checks]]
        name = "feature"
        phase = ["after-switch"]
        after = "login"
        retry = { times = 2, every = "1s" }
        [[checks.steps]]
        post = "/features"
        headers = { authorization = "Bearer {{token}}" }
    "#;

    #[test]
    fn what_builds_on_another_is_complete() {
        let checks = parse(TWO).unwrap();
        assert_eq!((checks[0].timeout_ms, checks[0].bound_ms), (15_000, 15_000));
        assert_eq!(checks[1].bound_ms, 32_000);
        assert!(!checks[1].before_switch && checks[1].after_switch);
    }

    #[test]
    fn the_plain_form_means_what_it_meant() {
        let text = r#"
            [[checks]]
            name = "health"
            phase = ["before-switch"]
            from = "hosts"
            http = { path = "/api/health", expect = { status = 200, body = "ok" } }
        "#;
        let check = parse(text).unwrap().remove(0);
        let plain = CheckSpec::get(&"/api/health".parse().unwrap(), 200, Some("ok"));
        let value = |spec: &CheckSpec| serde_json::from_str::<serde_json::Value>(spec.as_str()).unwrap();
        assert_eq!(value(&check.spec), value(&plain));
        assert_eq!((check.timeout_ms, check.patience_ms, check.bound_ms), (5_000, 20_000, 5_000));
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, expected) in [
            (
                "after = \"login\"",
                "",
                "check `feature` is wrong: step 1: `headers.authorization`: `{{token}}` is not known",
            ),
            (
                "after = \"login\"",
                "after = \"logout\"",
                "`after` names `logout`, which is no check before it",
            ),
            (
                "{{token}}",
                "{{tokn}}",
                "check `feature`: step 1: `headers.authorization`: `{{tokn}}` is not known here; known are: release, slot, token",
            ),
            (
                "phase = [\"after-switch\"]",
                "phase = [\"before-switch\"]\nfrom = \"hosts\"",
                "which is no check before it in the same place",
            ),
            (
                "[\"before-switch\", \"after-switch\"]",
                "[\"before-switch\"]",
                "comes after `login`, which is not made in each of its phases",
            ),
            (
                "[\"before-switch\", \"after-switch\"]",
                "[\"end-of-watch\"]",
                "has `end-of-watch` without `after-switch`",
            ),
            ("[\"before-switch\", \"after-switch\"]", "[]", "empty `phase`"),
            ("\"feature\"", "\"login\"", "two checks are called `login`"),
            ("\"after-switch\"]", "\"later\"]", "unknown variant `later`"),
            ("after = \"login\"", "befor = \"login\"", "unknown field `befor`"),
            ("after = \"login\"", "after = \"login\"\ntimeout = \"200s\"", "may take 402 s"),
            ("after = \"login\"", "after = \"login\"\ntimeout = \"0s\"", "may take 2 s"),
        ] {
            let said = parse(&TWO.replacen(from, to, 1)).expect_err(to);
            assert!(said.contains(expected), "{to}\n{said}\n{expected}");
        }
        let alerts = "[[checks]]\nname = \"a\"\nphase = [\"after-switch\"]\nfrom = \"hosts\"\nalerts = { url = \"http://m\" }";
        assert!(parse(alerts).unwrap_err().contains("what only a load balancer's agent may"));
    }
}
