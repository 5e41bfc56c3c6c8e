//! Asking an Alertmanager whether anything fires.

use std::sync::Arc;

use pointsman_core::several;
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

/// Asks for the alerts that fire, and are neither silenced nor inhibited. Where nothing feeds an Alertmanager nothing fires
/// there either, so it is asked first for what must.
pub async fn make(alerts: &Alerts, grants: &Arc<Grants>, until: Instant) -> Result<String, Miss> {
    let granted = grants.alertmanager(&alerts.url).map_err(Miss::Blind)?;
    for name in &alerts.require {
        let answer = monitor::ask(&alerts.url, granted, &required_path(name), grants, until).await;
        judge_required(name, &answer.map_err(Miss::Blind)?)?;
    }
    let mut path = "/api/v2/alerts?active=true&silenced=false&inhibited=false".to_owned();
    for matcher in &alerts.matchers {
        path.push_str(&format!("&filter={}", percent_encoded(matcher)));
    }
    let answer = monitor::ask(&alerts.url, granted, &path, grants, until).await.map_err(Miss::Blind)?;
    judge(alerts, &answer)
}

/// Asks for one alert, silenced or not: somebody feeds it all the same. It is of the whole site, so no matcher applies.
fn required_path(name: &str) -> String {
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    let matcher = percent_encoded(&format!("alertname=\"{quoted}\""));
    format!("/api/v2/alerts?active=true&silenced=true&inhibited=true&filter={matcher}")
}

fn judge_required(name: &str, answer: &Answer) -> Result<(), Miss> {
    match firing(answer)?.iter().any(|found| found == name) {
        true => Ok(()),
        false => Err(Miss::Blind(format!(
            "alert `{name}` does not fire, and it must: nobody feeds the Alertmanager"
        ))),
    }
}

/// The names of alerts in an answer. One that is no list is no silence, and no alert either.
fn firing(answer: &Answer) -> Result<Vec<String>, Miss> {
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
    Ok(list.iter().map(name).collect())
}

/// Says which alerts fire.
fn judge(alerts: &Alerts, answer: &Answer) -> Result<String, Miss> {
    let may = |name: &String| alerts.ignore.contains(name) || alerts.require.contains(name);
    let (ignored, firing): (Vec<String>, Vec<String>) = firing(answer)?.into_iter().partition(may);
    if firing.is_empty() {
        return Ok(format!("no alert fires, {} ignored", ignored.len()));
    }
    let named = firing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("`, `");
    let fire = several(firing.len(), "alert fires", "alerts fire");
    Err(Miss::Failed(format!("{fire}: `{named}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<String, Miss> {
        let alerts = Alerts {
            url: "http://monitor:9093".to_owned(),
            matchers: vec!["service=p2d2".to_owned()],
            ignore: vec!["Watchdog".to_owned()],
            require: Vec::new(),
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

    #[test]
    fn where_what_must_fire_does_not_nobody_is_there_to_see() {
        let answer = |body: &str| Answer { status: 200, body: body.as_bytes().to_vec(), ..Answer::default() };
        let watchdog = answer(r#"[{"labels":{"alertname":"Watchdog"}}]"#);
        assert_eq!(judge_required("Watchdog", &watchdog), Ok(()));
        for (name, answer) in [("Watchdog", answer("[]")), ("DeadMansSwitch", watchdog)] {
            let miss = judge_required(name, &answer).unwrap_err();
            assert!(matches!(&miss, Miss::Blind(text) if text.contains("nobody feeds")), "{miss:?}");
        }
        assert!(
            required_path("a\"b").ends_with("filter=alertname%3D%22a%5C%22b%22"),
            "{}",
            required_path("a\"b")
        );
    }
}
