//! Making one check once: the requests of its kind, one after the other.

use bytes::Bytes;
use http::{HeaderValue, header};
use pointsman_core::several;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::client::{self, Ask};
use crate::extract::Extract;
use crate::miss::Miss;
use crate::ows::Ows;
use crate::place::Place;
use crate::session::Session;
use crate::spec::{Body, Exchange, Kind, Spec};
use crate::template::percent_encoded;
use crate::{alerts, certificate, hurl, metric, page};

/// Makes a check once, until then. Says what was seen, or what is wrong. What clears away after a failure gets as much time
/// again.
pub async fn make(
    spec: &Spec,
    place: &Place,
    session: &mut Session,
    timeout: std::time::Duration,
) -> Result<String, Miss> {
    let until = Instant::now() + timeout;
    match &spec.kind {
        Kind::Http { exchange, assets } => http(exchange, *assets, place, session, until).await,
        Kind::Steps(steps) => sequence(steps, place, session, timeout).await,
        Kind::Ows(ows) => map_service(ows, place, session, until).await,
        Kind::Alerts(wanted) => alerts::make(wanted, &place.grants, until).await,
        Kind::Metric(wanted) => metric::make(wanted, &place.grants, until).await,
        Kind::TlsExpiry(min_left_ms) => certificate::make(*min_left_ms, place, until).await,
        Kind::Hurl(file) => hurl::make(file, place, session, until).await,
    }
}

/// Why one request did not pass.
struct Missed {
    miss: Miss,
    /// It was sent and not refused: what it asks for may be done all the same.
    may_be_done: bool,
}

/// One request with its expectations and captures.
async fn exchange(
    exchange: &Exchange,
    place: &Place,
    session: &mut Session,
    until: Instant,
) -> Result<Answer, Missed> {
    session.sent = false;
    let mut refused = false;
    let asked = asked(exchange, place, session, until, &mut refused).await;
    asked.map_err(|miss| Missed { miss, may_be_done: session.sent && !refused })
}

/// The same. `refused` is told where a server has answered that it does not do it.
async fn asked(
    exchange: &Exchange,
    place: &Place,
    session: &mut Session,
    until: Instant,
    refused: &mut bool,
) -> Result<Answer, Miss> {
    let ask = rendered(exchange, session)?;
    let (method, path) = (ask.method.clone(), ask.path.clone());
    // Each message says what was asked, as somebody would ask it by hand.
    let said = |error: String| match method {
        http::Method::GET => format!("{path} {error}"),
        _ => format!("{method} {path} {error}"),
    };
    let answer = client::send(place, session, ask, until).await.map_err(&said)?;
    // Behind a redirect that was followed it is not the request itself that was refused.
    *refused = exchange.follow == 0 && (400..500).contains(&answer.status);
    let (expect, capture, values) =
        (exchange.expect.clone(), exchange.capture.clone(), session.values.clone());
    let judged = aside(move || {
        expect.judge(&answer, &values)?;
        let take = |(name, part): &(String, Extract)| match part.take(&answer) {
            Ok(value) => Ok((name.clone(), value)),
            Err(error) => Err(format!("gives no `{name}`: {error}")),
        };
        let taken = capture.iter().map(take).collect::<Result<Vec<_>, String>>()?;
        Ok((answer, taken))
    });
    let (answer, taken) = judged.await.map_err(|miss| miss.said(said))?;
    for (name, value) in taken {
        session.capture(&name, value);
    }
    Ok(answer)
}

/// Looks at what a server sent on a thread of its own: a large page or document takes its time, and what else the agent
/// does must not wait for it.
async fn aside<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Miss> {
    let looked = tokio::task::spawn_blocking(look).await;
    let abrupt = |error| Miss::Blind(format!("looking at it ended abruptly: {error}"));
    Ok(looked.map_err(abrupt)??)
}

fn rendered(exchange: &Exchange, session: &Session) -> Result<Ask, String> {
    let values = &session.values;
    let plain = str::to_owned;
    let mut headers = Vec::new();
    for (name, value) in &exchange.headers {
        headers.push((name.clone(), value.render(values, plain)?));
    }
    let (body, kind) = match &exchange.body {
        Body::Empty => (Bytes::new(), None),
        Body::Json(json) => (Bytes::from(json.render(values)?.to_string()), Some("application/json")),
        Body::Form(fields) => {
            let mut pairs = Vec::new();
            for (name, value) in fields {
                let value = percent_encoded(&value.render(values, plain)?);
                pairs.push(format!("{}={value}", percent_encoded(name)));
            }
            (Bytes::from(pairs.join("&")), Some("application/x-www-form-urlencoded"))
        }
        Body::Text(text) => (Bytes::from(text.render(values, plain)?), None),
    };
    if let Some(kind) = kind.filter(|_| !headers.iter().any(|(name, _)| *name == header::CONTENT_TYPE)) {
        headers.push((header::CONTENT_TYPE, kind.to_owned()));
    }
    if let Some((name, _)) = headers.iter().find(|(_, value)| HeaderValue::from_str(value).is_err()) {
        return Err(format!("header `{name}` cannot hold its value"));
    }
    Ok(Ask {
        method: exchange.method.clone(),
        path: exchange.path.render(values, percent_encoded)?,
        headers,
        body,
        follow: exchange.follow,
    })
}

async fn http(
    wanted: &Exchange,
    assets: bool,
    place: &Place,
    session: &mut Session,
    until: Instant,
) -> Result<String, Miss> {
    let answer = exchange(wanted, place, session, until).await.map_err(|missed| missed.miss)?;
    let seen = format!("{} in {} ms", answer.status, answer.took_ms);
    if !assets {
        return Ok(seen);
    }
    let asked = wanted.path.render(&session.values, percent_encoded)?;
    let host = place.server.host.clone();
    let paths = aside(move || {
        // What a page links to is relative to where it came from, not to where it was looked for.
        let paths = page::assets(&answer.text(), &answer.path, &host)?;
        if paths.is_empty() {
            return Err(format!("{asked} brings no script and no style sheet: {}", answer.excerpt()));
        }
        Ok(paths)
    })
    .await?;
    let mut empty = 0_u32;
    for path in &paths {
        let ask = Ask::get(path);
        let asset =
            client::send(place, session, ask, until).await.map_err(|error| format!("{path} {error}"))?;
        judge_asset(path, &asset)?;
        empty = empty.saturating_add(u32::from(asset.body.is_empty()));
    }
    let empty = match empty {
        0 => String::new(),
        some => format!(", {} empty", several(some, "style sheet", "style sheets")),
    };
    Ok(format!("{seen}, {}{empty}", several(paths.len(), "asset", "assets")))
}

/// A server that answers every path with its start page answers for a lost asset too. A style sheet may be empty: builds
/// write an empty file where nobody wrote a style. A script that does nothing is one that was lost.
fn judge_asset(path: &str, asset: &Answer) -> Result<(), String> {
    if asset.status != 200 {
        return Err(format!("asset {path} expected status 200, got {}", asset.status));
    }
    let is = |kind: &str| asset.media_type().eq_ignore_ascii_case(kind);
    let what = match asset.body.is_empty() {
        _ if is("text/html") => "a page",
        true if !is("text/css") => "nothing",
        _ => return Ok(()),
    };
    Err(format!("asset {path} is {what}, expected a script or a style sheet"))
}

/// Steps until one fails; then, whatever failed, those that clear away, each once.
async fn sequence(
    steps: &[Exchange],
    place: &Place,
    session: &mut Session,
    timeout: std::time::Duration,
) -> Result<String, Miss> {
    let began = Instant::now();
    let (mut failed, mut left_behind): (Option<Miss>, Option<Miss>) = (None, None);
    let (mut made, mut cleared) = (0_u32, 0_u32);
    // Steps that were done, or may have been.
    let mut done: Vec<&Exchange> = Vec::new();
    let mut perhaps_left = false;
    let until = began + timeout;
    let mut clear_until = None;
    for (index, step) in steps.iter().enumerate() {
        let number = index.saturating_add(1);
        if !step.cleanup && failed.is_some() {
            continue;
        }
        let bound =
            if step.cleanup { *clear_until.get_or_insert_with(|| Instant::now() + timeout) } else { until };
        match exchange(step, place, session, bound).await {
            Ok(_) if step.cleanup => cleared = cleared.saturating_add(1),
            Ok(_) => {
                made = made.saturating_add(1);
                done.push(step);
            }
            // What was never made needs no clearing away. What may have been made, by an answer that was lost, cannot be.
            Err(_) if step.cleanup && failed.is_some() && !knows(step, session) => {
                perhaps_left |= may_have_made(steps, &done, step, session);
            }
            Err(missed) => {
                if missed.may_be_done {
                    done.push(step);
                }
                let miss = missed.miss.said(|text| format!("step {number}: {text}"));
                let which = if step.cleanup { &mut left_behind } else { &mut failed };
                which.get_or_insert(miss);
            }
        }
    }
    let took = began.elapsed().as_millis();
    match (failed, left_behind) {
        (None, None) => {
            let away = if cleared > 0 { ", cleared away" } else { "" };
            Ok(format!("{} in {took} ms{away}", several(made, "step", "steps")))
        }
        (Some(failed), None) if perhaps_left => Err(failed.said(|failed| {
            format!("{failed}; and something may be left behind: what would clear it away is not known")
        })),
        (Some(failed), None) => Err(failed),
        (None, Some(left)) => Err(left.said(|left| format!("something is left behind: {left}"))),
        (Some(failed), Some(left)) => {
            Err(failed.said(|failed| format!("{failed}; and something is left behind: {}", left.text())))
        }
    }
}

/// Whether what a step would clear away, were its names known, may have been made: who captures a name that is missing makes it, or
/// looks up what the step before it that writes has made.
fn may_have_made(steps: &[Exchange], done: &[&Exchange], clearing: &Exchange, session: &Session) -> bool {
    let missing = |name: &String| !session.values.contains_key(name) && clearing.names().contains(name);
    let captures = |step: &Exchange| step.capture.iter().any(|(name, _)| missing(name));
    let Some(at) = steps.iter().position(captures) else { return false };
    let maker = steps.iter().take(at.saturating_add(1)).rfind(|step| step.writes() && !step.cleanup);
    maker.is_some_and(|maker| done.iter().any(|done| std::ptr::eq(*done, maker)))
}

/// Whether every name that a step needs is known.
fn knows(step: &Exchange, session: &Session) -> bool {
    rendered(step, session).is_ok()
}

async fn map_service(
    ows: &Ows,
    place: &Place,
    session: &mut Session,
    until: Instant,
) -> Result<String, Miss> {
    let mut look = async |path: &str| {
        let ask = Ask::get(path);
        client::send(place, session, ask, until).await.map_err(|error| format!("{path} {error}"))
    };
    let answer = look(&ows.capabilities_path()).await?;
    let said = |what: &'static str| {
        let path = &ows.path;
        move |miss: Miss| miss.said(|text| format!("{what} of {path} {text}"))
    };
    let capabilities = {
        let ows = ows.clone();
        aside(move || ows.capabilities(&answer)).await.map_err(said("GetCapabilities"))?
    };
    let mut seen = several(capabilities.layers.len(), "layer", "layers");
    if let Some(path) = ows.feature_path(&capabilities) {
        let (ows, answer) = (ows.clone(), look(&path).await?);
        let feature = aside(move || ows.feature(&answer)).await.map_err(said("GetFeature"))?;
        seen.push_str(&format!(", {feature}"));
    }
    if let Some(path) = ows.map_path(&capabilities) {
        let (ows, answer) = (ows.clone(), look(&path).await?);
        let map = aside(move || ows.map(&answer)).await.map_err(said("GetMap"))?;
        seen.push_str(&format!(", {map}"));
    }
    Ok(seen)
}
