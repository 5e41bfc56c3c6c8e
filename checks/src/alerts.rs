//! Asking an Alertmanager whether anything fires.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::grants::Grants;
use crate::miss::Miss;
use crate::monitor;
use crate::spec::Alerts;
use crate::template::percent_encoded;

/// Names of alerts that evidence repeats.
const NAMED: usize = 5;

/// Asks for the alerts that fire, and are neither silenced nor inhibited.
pub async fn make(alerts: &Alerts, grants: &Arc<Grants>, until: Instant) -> Result<String, Miss> {
    let granted = grants.alertmanager(&alerts.url).map_err(Miss::Blind)?;
    let mut path = "/api/v2/alerts?active=true&silenced=false&inhibited=false".to_owned();
    for matcher in &alerts.matchers {
        path.push_str(&format!("&filter={}", percent_encoded(matcher)));
    }
    let answer = monitor::ask(&alerts.url, granted, &path, grants, until).await.map_err(Miss::Blind)?;
    judge(alerts, &answer)
}

/// Says which alerts fire. An answer that is no list is no silence, and no alert either.
fn judge(alerts: &Alerts, answer: &Answer) -> Result<String, Miss> {
    if answer.status != 200 {
        return Err(Miss::Blind(format!("expected status 200, got {}: {}", answer.status, answer.excerpt())));
    }
    let json = answer.json().map_err(Miss::Blind)?;
    let list = json
        .as_array()
        .ok_or_else(|| Miss::Blind(format!("expected a list of alerts, got {}", answer.excerpt())))?;
    let name = |alert: &Value| {
        alert.pointer("/labels/alertname").and_then(Value::as_str).unwrap_or("without a name").to_owned()
    };
    let (ignored, firing): (Vec<String>, Vec<String>) =
        list.iter().map(name).partition(|name| alerts.ignore.contains(name));
    if firing.is_empty() {
        return Ok(format!("no alert fires, {} ignored", ignored.len()));
    }
    let named = firing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("`, `");
    Err(Miss::Failed(format!("{} alerts fire: `{named}`", firing.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<String, Miss> {
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
        assert_eq!(
            judged(200, &two).unwrap_err(),
            Miss::Failed("2 alerts fire: `HighErrors`, `without a name`".to_owned())
        );
        for (status, body, said) in
            [(200, "{}", "expected a list"), (200, "", "no JSON"), (503, "[]", "got 503")]
        {
            let miss = judged(status, body).unwrap_err();
            assert!(matches!(&miss, Miss::Blind(text) if text.contains(said)), "{miss:?}");
        }
    }
}
