//! From what is written to what is meant. Errors name the field, the value and what was expected.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, Method};
use pointsman_core::{Check, CheckName, CheckSpec, OnFail};
use serde_json::Value;

use crate::expect::Expect;
use crate::extract::{self, Extract};
use crate::grants::{WITHOUT_A_USER, names_a_user};
use crate::json_path::JsonPath;
use crate::ows::{Ows, Service};
use crate::page;
use crate::query;
use crate::spec::{Alerts, Body, Exchange, Kind, Metric, Retry, Spec};
use crate::template::{JsonTemplate, Template, is_name};
use crate::written::{self, Statuses, Written};

/// Most requests of one check.
const MAX_STEPS: usize = 32;
/// Most redirects of one request.
const MAX_FOLLOW: u8 = 5;
/// Most tries of one check.
const MAX_TIMES: u32 = 10;
/// Longest pause between two tries, in milliseconds.
const MAX_PAUSE_MS: u64 = 60_000;
/// Most entries of any list in a check.
const MAX_ENTRIES: usize = 32;
/// How long a pass of a check that does more than read one answer is good for in the watch, in milliseconds, where nothing is
/// said: a feature is not created anew each second.
const DEFAULT_EVERY_MS: u64 = 30_000;
/// The same of what a Prometheus measures, and what its alerts say: it has something new every 15 seconds, as most are set up.
const MEASURED_EVERY_MS: u64 = 15_000;

/// Names that are known without a capture: they are chosen with the plan.
const PLANNED: [&str; 2] = ["release", "slot"];

/// Header fields that the connection, or the balancer's pin, decides.
const NOT_OURS: [&str; 7] =
    ["host", "connection", "content-length", "transfer-encoding", "cookie", "x-pointsman", "accept-encoding"];

/// Whether a text can name a header field.
pub fn is_header(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// Parses a description. What another check captures is not known here: `outer` names it.
pub fn parse(spec: &CheckSpec, outer: &BTreeSet<String>) -> Result<Spec, String> {
    let written: Written = serde_json::from_str(spec.as_str()).map_err(|error| error.to_string())?;
    complete(&written, Some(outer))
}

/// Any name: of a check whose surroundings are not known yet. No name can be called so.
const ANY: &str = "*";

/// A check's description by itself: names of what it comes after are taken for known.
pub fn parsed_alone(check: &Check) -> Option<Spec> {
    let written: Written = serde_json::from_str(check.spec.as_str()).ok()?;
    complete(&written, None).ok()
}

/// Completes what is written. Without `outer` every name will do for a check that comes after another.
pub fn complete(written: &Written, outer: Option<&BTreeSet<String>>) -> Result<Spec, String> {
    let mut names: BTreeSet<String> = outer.cloned().unwrap_or_default();
    if outer.is_none() && written.after.is_some() {
        names.insert(ANY.to_owned());
    }
    names.extend(PLANNED.map(str::to_owned));
    let secrets = secrets(&written.secrets)?;
    names.extend(secrets.keys().cloned());
    let kind = kind(written, &mut names, &secrets)?;
    let retry = written.retry.map(|retry| {
        let (times, every_ms) = (retry.times, retry.every.ms());
        match (1..=MAX_TIMES).contains(&times) && every_ms <= MAX_PAUSE_MS {
            true => Ok(Retry { times, every_ms }),
            false => Err(format!(
                "`retry` is {times} times every {every_ms} ms: expected 1 to {MAX_TIMES}, at most 60s"
            )),
        }
    });
    let name = |field: &str, text: &Option<String>| {
        let parse = |text: &String| CheckName::parse(text).map_err(|error| format!("`{field}`: {error}"));
        text.as_ref().map(parse).transpose()
    };
    let default_every_ms = match &kind {
        Kind::Http { assets: false, .. } => 0,
        Kind::Alerts(_) | Kind::Metric(_) => MEASURED_EVERY_MS,
        _ => DEFAULT_EVERY_MS,
    };
    Ok(Spec {
        kind,
        secrets,
        after: name("after", &written.after)?,
        retry: retry.transpose()?,
        every_ms: written.every.map_or(default_every_ms, |every| every.ms()),
        point: name("point", &written.point)?,
        on_fail: match written.on_fail {
            Some(written::OnFail::Warn) => OnFail::Warn,
            Some(written::OnFail::Hold) => OnFail::Hold,
            Some(written::OnFail::Rollback) | None => OnFail::Rollback,
        },
    })
}

/// The names that a check makes known to those after it.
pub fn captured(spec: &Spec) -> BTreeSet<String> {
    match &spec.kind {
        Kind::Steps(steps) => {
            steps.iter().flat_map(|step| step.capture.iter().map(|(name, _)| name.clone())).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn secrets(written: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    few("secrets", written.len())?;
    for (name, file) in written {
        if !is_name(name) || PLANNED.contains(&name.as_str()) {
            return Err(format!("`secrets.{name}` is no name: expected `a-z`, `0-9`, `_`, `-`"));
        }
        let parts = file.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>());
        let plain = |part: &&str| !part.is_empty() && *part != "." && *part != "..";
        if !parts.is_some_and(|parts| parts.iter().all(plain)) || file.len() > 255 {
            return Err(format!(
                "`secrets.{name}` is `{file}`: expected the absolute path of a file that holds it"
            ));
        }
    }
    Ok(written.clone())
}

fn few(field: &str, count: usize) -> Result<(), String> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    Err(format!("`{field}` has {count} entries: at most {MAX_ENTRIES}"))
}

fn kind(
    written: &Written,
    names: &mut BTreeSet<String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Kind, String> {
    let Written { http, steps, ows, alerts, metric, tls, hurl, .. } = written;
    match (http, steps, ows, alerts, metric, tls, hurl) {
        (Some(http), None, None, None, None, None, None) => {
            let exchange = one_request(http, names, secrets).map_err(|error| format!("`http`: {error}"))?;
            Ok(Kind::Http { exchange: Box::new(exchange), assets: http.assets })
        }
        (None, Some(steps), None, None, None, None, None) => {
            if steps.is_empty() || steps.len() > MAX_STEPS {
                return Err(format!("`steps` has {} requests: expected 1 to {MAX_STEPS}", steps.len()));
            }
            let each = steps.iter().enumerate().map(|(index, written)| {
                let number = index.saturating_add(1);
                step(written, names, secrets).map_err(|error| format!("step {number}: {error}"))
            });
            Ok(Kind::Steps(each.collect::<Result<_, _>>()?))
        }
        (None, None, Some(written), None, None, None, None) => {
            ows_of(written).map(Kind::Ows).map_err(|error| format!("`ows`: {error}"))
        }
        (None, None, None, Some(alerts), None, None, None) => {
            few("alerts.matchers", alerts.matchers.len())?;
            few("alerts.ignore", alerts.ignore.len())?;
            few("alerts.require", alerts.require.len())?;
            let url = service("alerts.url", &alerts.url)?;
            let written::Alerts { matchers, ignore, require, .. } = alerts.clone();
            Ok(Kind::Alerts(Alerts { url, matchers, ignore, require }))
        }
        (None, None, None, None, Some(written), None, None) => {
            metric_of(written).map_err(|error| format!("`metric`: {error}"))
        }
        (None, None, None, None, None, Some(tls), None) => Ok(Kind::TlsExpiry(tls.min_left.ms())),
        (None, None, None, None, None, None, Some(file)) => {
            let plain = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']);
            if !file.ends_with(".hurl") || !file.split('/').all(plain) {
                return Err(format!(
                    "`hurl` is `{file}`: expected a file below the folder that the agent's `[checks.hurl]` names, as \
                     `login.hurl`"
                ));
            }
            Ok(Kind::Hurl(file.clone()))
        }
        _ => {
            Err("expected exactly one of `http`, `steps`, `ows`, `alerts`, `metric`, `tls` and `hurl`"
                .to_owned())
        }
    }
}

fn service(field: &str, url: &str) -> Result<String, String> {
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(format!("`{field}` is `{url}`: expected `http://host:port` or `https://host:port`"));
    }
    // The environment file, the wire and the journal would hold it.
    if names_a_user(url) {
        return Err(format!("`{field}` names a user and perhaps a password: {WITHOUT_A_USER}"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn metric_of(written: &written::Metric) -> Result<Kind, String> {
    let written::Metric { url, query, max, min } = written.clone();
    template("query", &query, &PLANNED.map(str::to_owned).into())?;
    query::lint(&query, max.is_some())?;
    if max.is_none() && min.is_none() || [max, min].into_iter().flatten().any(|limit| !limit.is_finite()) {
        return Err("expected `max`, `min` or both, as numbers".to_owned());
    }
    Ok(Kind::Metric(Metric { url: service("url", &url)?, query, max, min }))
}

fn one_request(
    http: &written::Http,
    names: &BTreeSet<String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Exchange, String> {
    let mut expect = expectations(http.expect.as_ref(), names)?;
    if expect.status.is_empty() {
        expect.status.push(200);
    }
    Ok(Exchange {
        method: Method::GET,
        path: path(&http.path, names, secrets)?,
        headers: headers(&http.headers, names)?,
        body: Body::Empty,
        expect,
        capture: Vec::new(),
        follow: follow(http.follow)?,
        cleanup: false,
    })
}

fn step(
    written: &written::Step,
    names: &mut BTreeSet<String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Exchange, String> {
    let methods = [
        (Method::GET, &written.get),
        (Method::POST, &written.post),
        (Method::PUT, &written.put),
        (Method::PATCH, &written.patch),
        (Method::DELETE, &written.delete),
    ];
    let mut asked = methods.into_iter().filter_map(|(method, path)| Some((method, path.as_ref()?)));
    let (Some((method, asked_for)), None) = (asked.next(), asked.next()) else {
        return Err("expected exactly one of `get`, `post`, `put`, `patch` and `delete`".to_owned());
    };
    let body = body(written, names)?;
    if method == Method::GET && !matches!(body, Body::Empty) {
        return Err("a `get` has no body".to_owned());
    }
    let exchange = Exchange {
        path: path(asked_for, names, secrets)?,
        method,
        headers: headers(&written.headers, names)?,
        body,
        expect: expectations(written.expect.as_ref(), names)?,
        capture: captures(&written.capture, secrets)?,
        follow: follow(written.follow)?,
        cleanup: written.cleanup,
    };
    names.extend(written.capture.keys().cloned());
    Ok(exchange)
}

fn captures(
    written: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Vec<(String, Extract)>, String> {
    few("capture", written.len())?;
    let capture = |(name, from): (&String, &String)| {
        if !is_name(name) || PLANNED.contains(&name.as_str()) || secrets.contains_key(name) {
            return Err(format!("`capture.{name}` is taken, or no name: expected `a-z`, `0-9`, `_`, `-`"));
        }
        let from = Extract::parse(from).map_err(|error| format!("`capture.{name}`: {error}"))?;
        Ok((name.clone(), from))
    };
    written.iter().map(capture).collect()
}

fn body(written: &written::Step, names: &BTreeSet<String>) -> Result<Body, String> {
    match (&written.json, &written.form, &written.body) {
        (None, None, None) => Ok(Body::Empty),
        (Some(json), None, None) => {
            let json = JsonTemplate::parse(json).map_err(|error| format!("`json`: {error}"))?;
            json.names().iter().try_for_each(|name| known(name, names))?;
            Ok(Body::Json(json))
        }
        (None, Some(form), None) => {
            few("form", form.len())?;
            let field =
                |(name, value): (&String, &String)| Ok((name.clone(), template("form", value, names)?));
            Ok(Body::Form(form.iter().map(field).collect::<Result<_, String>>()?))
        }
        (None, None, Some(text)) => Ok(Body::Text(template("body", text, names)?)),
        _ => Err("expected at most one of `json`, `form` and `body`".to_owned()),
    }
}

fn known(name: &str, names: &BTreeSet<String>) -> Result<(), String> {
    if names.contains(name) || names.contains(ANY) {
        return Ok(());
    }
    let there: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(format!("`{{{{{name}}}}}` is not known here; known are: {}", there.join(", ")))
}

fn template(field: &str, text: &str, names: &BTreeSet<String>) -> Result<Template, String> {
    let template = Template::parse(text).map_err(|error| format!("`{field}`: {error}"))?;
    let all = template.names().try_for_each(|name| known(name, names));
    all.map_err(|error| format!("`{field}`: {error}"))?;
    Ok(template)
}

fn path(
    text: &str,
    names: &BTreeSet<String>,
    secrets: &BTreeMap<String, String>,
) -> Result<Template, String> {
    let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic() && b != b'#');
    let spaces = text.split("{{").any(|part| part.split("}}").last().unwrap_or_default().contains(' '));
    if !text.starts_with('/') || text.starts_with("//") || !printable || spaces {
        return Err(format!(
            "`{text}` is not a path: expected `/` and printable ASCII without spaces or `#`"
        ));
    }
    let path = template("path", text, names)?;
    if let Some(name) = path.names().find(|name| secrets.contains_key(*name)) {
        return Err(format!("secret `{name}` stands in a path, which every log keeps: send it in the body"));
    }
    Ok(path)
}

fn headers(
    written: &BTreeMap<String, String>,
    names: &BTreeSet<String>,
) -> Result<Vec<(HeaderName, Template)>, String> {
    few("headers", written.len())?;
    let field = |(name, value): (&String, &String)| {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{name}` is not the name of a header field"))?;
        if NOT_OURS.contains(&parsed.as_str()) {
            return Err(format!("header `{name}` is not a check's to set"));
        }
        Ok((parsed, template(&format!("headers.{name}"), value, names)?))
    };
    written.iter().map(field).collect()
}

fn follow(redirects: u8) -> Result<u8, String> {
    if redirects <= MAX_FOLLOW {
        return Ok(redirects);
    }
    Err(format!("`follow` is {redirects}: at most {MAX_FOLLOW} redirects"))
}

fn expectations(written: Option<&written::Expect>, names: &BTreeSet<String>) -> Result<Expect, String> {
    let Some(written) = written else { return Ok(Expect::default()) };
    let in_expect = |error: String| format!("`expect`: {error}");
    let status = match &written.status {
        None => Vec::new(),
        Some(Statuses::One(status)) => vec![*status],
        Some(Statuses::Any(statuses)) => statuses.clone(),
    };
    if let Some(none) = status.iter().find(|status| !(100..600).contains(*status)) {
        return Err(format!("expects status {none}, which is none"));
    }
    for (field, count) in [
        ("expect.status", status.len()),
        ("expect.headers", written.headers.len()),
        ("expect.json", written.json.len()),
        ("expect.equals", written.equals.len()),
    ] {
        few(field, count)?;
    }
    let header = |(name, value): (&String, &String)| match is_header(name) {
        true => Ok((name.to_ascii_lowercase(), template(&format!("headers.{name}"), value, names)?)),
        false => Err(format!("`{name}` is not the name of a header field")),
    };
    let json = |(place, value): (&String, &Value)| {
        let value = JsonTemplate::parse(value).map_err(|error| format!("`json`: {error}"))?;
        value.names().iter().try_for_each(|name| known(name, names))?;
        Ok((JsonPath::parse(place)?, value))
    };
    let equals =
        |(part, text): (&String, &String)| Ok((Extract::parse(part)?, template("equals", text, names)?));
    // Which release is to answer is chosen with the plan.
    let release =
        written.release.as_ref().map(|part| Ok((Extract::parse(part)?, Template::parse("{{release}}")?)));
    let mut equal: Vec<(Extract, Template)> =
        written.equals.iter().map(equals).collect::<Result<_, String>>().map_err(in_expect)?;
    equal.extend(release.transpose().map_err(in_expect)?);
    if let Some(selector) = &written.html {
        page::selector(selector).map_err(in_expect)?;
    }
    let body = written.body.as_ref().filter(|text| !text.is_empty());
    Ok(Expect {
        status,
        headers: written.headers.iter().map(header).collect::<Result<_, String>>().map_err(in_expect)?,
        body: body.map(|text| template("body", text, names)).transpose().map_err(in_expect)?,
        regex: written.regex.as_deref().map(extract::regex).transpose().map_err(in_expect)?,
        json: written.json.iter().map(json).collect::<Result<_, String>>().map_err(in_expect)?,
        equals: equal,
        html: written.html.clone(),
        within_ms: written.within.map(|within| within.ms()),
    })
}

fn ows_of(written: &written::Ows) -> Result<Ows, String> {
    let service = match written.service.as_str() {
        "WFS" => Service::Wfs,
        "WMS" => Service::Wms,
        other => return Err(format!("`service` is `{other}`: expected `WFS` or `WMS`")),
    };
    let versions: &[&str] = match service {
        Service::Wfs => &["1.1.0", "2.0.0"],
        Service::Wms => &["1.1.1", "1.3.0"],
    };
    if !versions.contains(&written.version.as_str()) {
        let (version, versions) = (&written.version, versions.join("` or `"));
        return Err(format!("`version` is `{version}`: expected `{versions}`"));
    }
    few("layers", written.layers.len())?;
    let (feature, map) = (written.get_feature, written.get_map);
    if (feature && service == Service::Wms) || (map && service == Service::Wfs) {
        return Err("`get_feature` is for WFS, `get_map` for WMS".to_owned());
    }
    if written.may_be_empty && !feature {
        return Err("`may_be_empty` is for `get_feature`".to_owned());
    }
    if (feature || map) && written.layers.is_empty() {
        return Err("`get_feature` and `get_map` ask for the first of `layers`: there is none".to_owned());
    }
    path(&written.path, &BTreeSet::new(), &BTreeMap::new())?;
    Ok(Ows {
        service,
        version: written.version.clone(),
        path: written.path.clone(),
        layers: written.layers.clone(),
        get_feature: feature,
        may_be_empty: written.may_be_empty,
        get_map: map,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Spec, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        // What travels is JSON: it must mean the same.
        let json = serde_json::to_string(&written).unwrap();
        parse(&CheckSpec::parse(&json).unwrap(), &BTreeSet::new())
    }

    const LOGIN: &str = r#"
        secrets = { user = "/etc/pointsman/secrets/user", password = "/etc/pointsman/secrets/password" }
        retry = { times = 3, every = "5s" }
        [[steps]]
        get = "/login"
        capture = { csrf = "html:input[name=csrf]@value" }
        [[steps]]
        post = "/login"
        form = { user = "{{user}}", password = "{{password}}", csrf = "{{csrf}}" }
        expect = { status = [200, 303] }
        [[steps]]
        delete = "/session/{{release}}"
        cleanup = true
    "#;

    #[test]
    fn a_login_is_what_it_says() {
        let spec = toml(LOGIN).unwrap();
        let Kind::Steps(steps) = &spec.kind else { panic!("{spec:?}") };
        assert_eq!(steps.len(), 3);
        assert!(steps[2].cleanup);
        assert_eq!(spec.retry, Some(Retry { times: 3, every_ms: 5_000 }));
        assert_eq!(spec.bound_ms(1_000), 21_000);
        assert!(!spec.only_reads());
        assert_eq!(captured(&spec).into_iter().collect::<Vec<_>>(), ["csrf"]);
    }

    #[test]
    fn the_plain_form_is_what_it_was() {
        let spec = toml(r#"http = { path = "/api/health" }"#).unwrap();
        let Kind::Http { exchange, assets: false } = &spec.kind else { panic!("{spec:?}") };
        assert_eq!(exchange.expect.status, [200]);
        assert_eq!((spec.every_ms, spec.bound_ms(5_000)), (0, 5_000));
        let old = CheckSpec::get(&"/x".parse().unwrap(), 204, Some("ok"));
        let Kind::Http { exchange, .. } = parse(&old, &BTreeSet::new()).unwrap().kind else { panic!() };
        assert_eq!(exchange.expect.status, [204]);
        assert!(exchange.expect.body.is_some());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "exactly one of `http`"),
            ("http = { path = '/' }\nhurl = 'a.hurl'", "exactly one of `http`"),
            ("http = { path = 'x' }", "`http`: `x` is not a path"),
            ("http = { path = '//evil' }", "is not a path"),
            ("http = { path = '/a b' }", "is not a path"),
            ("http = { path = '/', expect = { status = 42 } }", "expects status 42, which is none"),
            ("http = { path = '/', expect = { status = 'ok' } }", "a status such as 200"),
            ("http = { path = '/', expect = { stauts = 200 } }", "unknown field `stauts`"),
            ("http = { path = '/', expect = { html = '>>' } }", "`expect`: `>>` is no CSS selector"),
            ("http = { path = '/', expect = { regex = '(' } }", "`(` is no regular expression"),
            ("http = { path = '/', expect = { release = 'release' } }", "takes nothing out of an answer"),
            ("http = { path = '/', expect = { json = { a = 1 } } }", "`a` is no place in JSON"),
            ("http = { path = '/{{x}}' }", "`{{x}}` is not known here; known are: release, slot"),
            ("http = { path = '/', headers = { Host = 'x' } }", "header `Host` is not a check's to set"),
            ("http = { path = '/', headers = { 'a b' = 'x' } }", "`a b` is not the name of a header field"),
            ("http = { path = '/', follow = 9 }", "at most 5 redirects"),
            ("steps = []", "`steps` has 0 requests"),
            ("[[steps]]\nget = '/'\npost = '/'", "step 1: expected exactly one of `get`"),
            ("[[steps]]\nget = '/'\njson = {}", "step 1: a `get` has no body"),
            ("[[steps]]\npost = '/'\njson = {}\nbody = ''", "at most one of `json`"),
            ("[[steps]]\npost = '/'\njson = { a = ['{{later}}'] }", "`{{later}}` is not known here"),
            ("[[steps]]\nget = '/'\ncapture = { token = 'x' }", "step 1: `capture.token`: `x` takes nothing"),
            ("[[steps]]\nget = '/'\ncapture = { release = 'body' }", "`capture.release` is taken"),
            ("hurl = '../x.hurl'", "expected a file below the folder"),
            ("hurl = '-x.hurl'", "expected a file below the folder"),
            ("tls = {}", "missing field `min_left`"),
            ("tls = { min_left = '14' }", "a length of time such as"),
            ("alerts = { url = 'monitor' }", "`alerts.url` is `monitor`"),
            ("alerts = { url = 'http://ada:secret@monitor:9093' }", "`alerts.url` names a user"),
            ("ows = { service = 'WCS', version = '1', path = '/' }", "`service` is `WCS`"),
            (
                "ows = { service = 'WFS', version = '3', path = '/' }",
                "`version` is `3`: expected `1.1.0` or `2.0.0`",
            ),
            ("ows = { service = 'WMS', version = '1.3.0', path = '/', get_map = true }", "there is none"),
            (
                "ows = { service = 'WFS', version = '2.0.0', path = '/', may_be_empty = true }",
                "is for `get_feature`",
            ),
            ("http = { path = '/' }\nretry = { times = 0, every = '1s' }", "`retry` is 0 times"),
            ("http = { path = '/' }\nafter = 'Not A Name'", "`after`: "),
            (
                "http = { path = '/' }\nsecrets = { a = 'b' }",
                "`secrets.a` is `b`: expected the absolute path",
            ),
            ("http = { path = '/' }\nsecrets = { a = '/etc/../b' }", "expected the absolute path"),
            ("http = { path = '/?t={{a}}' }\nsecrets = { a = '/b' }", "secret `a` stands in a path"),
        ];
        for (text, expected) in cases {
            let said = toml(text).expect_err(text);
            assert!(said.contains(expected), "{text}\n{said}\n{expected}");
        }
    }
}
