//! Asking an Alertmanager whether anything fires.

use std::sync::Arc;

use pointsman_chassis::http_check::Target;
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::client::{self, Ask};
use crate::grants::Grants;
use crate::place::Place;
use crate::session::Session;
use crate::spec::Alerts;
use crate::template::percent_encoded;

/// Names of alerts that evidence repeats.
const NAMED: usize = 5;

/// Asks for the alerts that fire, and are neither silenced nor inhibited.
pub async fn make(alerts: &Alerts, grants: &Arc<Grants>, until: Instant) -> Result<String, String> {
    let granted = grants.alertmanager(&alerts.url)?;
    let tls = granted.tls().map_err(|problem| problem.to_string())?;
    let (host, prefix) = split(&alerts.url)?;
    let port = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{}", if tls.is_some() { 443 } else { 80 })
    };
    let looked_up = tokio::time::timeout_at(until, tokio::net::lookup_host(port)).await;
    let mut addresses = looked_up
        .map_err(|_| format!("`{host}` was not found in time"))?
        .map_err(|error| format!("`{host}` is not found: {error}"))?;
    let address = addresses.next().ok_or_else(|| format!("`{host}` has no address"))?;
    let name = host.split(':').next().unwrap_or_default().to_owned();
    let server = Target { address, host: if tls.is_some() { name } else { host.to_owned() }, tls };
    let place = Place { server, pin: None, grants: Arc::clone(grants), key: String::new() };
    let mut path = format!("{prefix}/api/v2/alerts?active=true&silenced=false&inhibited=false");
    for matcher in &alerts.matchers {
        path.push_str(&format!("&filter={}", percent_encoded(matcher)));
    }
    let answer = client::send(&place, &mut Session::default(), Ask::get(&path), until).await?;
    judge(alerts, &answer)
}

fn split(url: &str) -> Result<(&str, &str), String> {
    let rest = url.split_once("://").map(|(_, rest)| rest).ok_or_else(|| format!("`{url}` is no address"))?;
    let end = rest.find('/').unwrap_or(rest.len());
    rest.split_at_checked(end).ok_or_else(|| format!("`{url}` is no address"))
}

/// Says which alerts fire. An answer that is no list is no silence.
fn judge(alerts: &Alerts, answer: &Answer) -> Result<String, String> {
    if answer.status != 200 {
        return Err(format!("expected status 200, got {}: {}", answer.status, answer.excerpt()));
    }
    let json = answer.json()?;
    let list =
        json.as_array().ok_or_else(|| format!("expected a list of alerts, got {}", answer.excerpt()))?;
    let name = |alert: &Value| {
        alert.pointer("/labels/alertname").and_then(Value::as_str).unwrap_or("without a name").to_owned()
    };
    let (ignored, firing): (Vec<String>, Vec<String>) =
        list.iter().map(name).partition(|name| alerts.ignore.contains(name));
    if firing.is_empty() {
        return Ok(format!("no alert fires, {} ignored", ignored.len()));
    }
    let named = firing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("`, `");
    Err(format!("{} alerts fire: `{named}`", firing.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<String, String> {
        let alerts = Alerts {
            url: "http://monitor:9093".to_owned(),
            matchers: vec!["service=p2d2".to_owned()],
            ignore: vec!["Watchdog".to_owned()],
        };
        judge(&alerts, &Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() })
    }

    #[test]
    fn silence_is_an_empty_list_and_nothing_else() {
        let watchdog = r#"{"labels":{"alertname":"Watchdog"},"status":{"state":"active"}}"#;
        assert_eq!(judged(200, "[]").unwrap(), "no alert fires, 0 ignored");
        assert_eq!(judged(200, &format!("[{watchdog}]")).unwrap(), "no alert fires, 1 ignored");
        let two = format!(r#"[{watchdog},{{"labels":{{"alertname":"HighErrors"}}}},{{"labels":{{}}}}]"#);
        assert_eq!(judged(200, &two).unwrap_err(), "2 alerts fire: `HighErrors`, `without a name`");
        assert!(judged(200, "{}").unwrap_err().contains("expected a list"));
        assert!(judged(200, "").unwrap_err().contains("no JSON"));
        assert!(judged(503, "[]").unwrap_err().contains("got 503"));
    }

    #[test]
    fn addresses_have_a_host_and_perhaps_a_path() {
        assert_eq!(split("http://m:9093/am").unwrap(), ("m:9093", "/am"));
        assert_eq!(split("https://m").unwrap(), ("m", ""));
    }
}
