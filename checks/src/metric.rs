//! Asking a Prometheus for one number, and judging it. A number that is not there is not a number that is well: an empty
//! answer, `NaN`, many series or a service that cannot be asked leave the check undecided.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::grants::Grants;
use crate::miss::Miss;
use crate::monitor;
use crate::spec::Metric;
use crate::template::percent_encoded;

/// Longest part of a query, or of what was said of it, that evidence repeats.
const SHOWN: usize = 80;

/// How it is said that Prometheus understood the query, and has nothing to answer.
const NO_DATA: &str = "no data: ";

/// Whether evidence of a check that does not know says that its query was understood, and only has no data.
pub fn lacks_data(what: &str) -> bool {
    what.starts_with(NO_DATA)
}

/// Asks, and compares with what the number must be.
pub async fn make(metric: &Metric, grants: &Arc<Grants>, until: Instant) -> Result<String, Miss> {
    let granted = grants.prometheus(&metric.url).map_err(Miss::Blind)?;
    let path = format!("/api/v1/query?query={}", percent_encoded(&metric.query));
    let answer = monitor::ask(&metric.url, granted, &path, grants, until).await.map_err(Miss::Blind)?;
    let value = value(&answer).map_err(Miss::Blind)?;
    judge(metric, value).map_err(Miss::Failed)
}

fn judge(metric: &Metric, value: f64) -> Result<String, String> {
    match (metric.max, metric.min) {
        (Some(max), _) if value > max => Err(format!("is {value}, more than {max}")),
        (_, Some(min)) if value < min => Err(format!("is {value}, less than {min}")),
        (Some(max), None) => Ok(format!("{value}, at most {max}")),
        (None, Some(min)) => Ok(format!("{value}, at least {min}")),
        (Some(max), Some(min)) => Ok(format!("{value}, from {min} to {max}")),
        (None, None) => Ok(value.to_string()),
    }
}

/// The one number of an answer to an instant query, or why there is none
/// (<https://prometheus.io/docs/prometheus/latest/querying/api/>).
fn value(answer: &Answer) -> Result<f64, String> {
    let json = answer.json().map_err(|error| format!("Prometheus answered {}: {error}", answer.status))?;
    if json.get("status").and_then(Value::as_str) != Some("success") {
        let error = json.get("error").and_then(Value::as_str).unwrap_or("it does not say why");
        return Err(format!("Prometheus refuses the query: {}", short(error)));
    }
    // Since version 2.48 some of them are mere remarks on the query.
    let warnings =
        json.get("warnings").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    if let Some(warning) = warnings.into_iter().find(|warning| !warning.starts_with("PromQL info")) {
        return Err(format!("Prometheus warns that the number may be wrong: {}", short(warning)));
    }
    let kind = json.pointer("/data/resultType").and_then(Value::as_str).unwrap_or("nothing");
    let result = json.pointer("/data/result").and_then(Value::as_array);
    let sample = match (kind, result.map(Vec::as_slice)) {
        ("scalar", Some([_, sample])) => sample,
        ("vector", Some([])) => {
            return Err(format!(
                "{NO_DATA}nothing matches the query. Where a count may be missing and means 0, say so of it alone: \
                 `(sum(…) or vector(0)) / sum(…)`, on the numerator only"
            ));
        }
        ("vector", Some([series])) => series.pointer("/value/1").unwrap_or(&Value::Null),
        ("vector", Some(many)) => {
            let labels = |series: &Value| series.get("metric").map(Value::to_string).unwrap_or_default();
            let example = many.first().map(labels).unwrap_or_default();
            return Err(format!(
                "{} series instead of one, such as {}: put `sum(…)` around each part",
                many.len(),
                short(&example)
            ));
        }
        ("matrix", _) => {
            return Err("a range of values instead of one: use `rate(…)` or `…_over_time(…)`".to_owned());
        }
        _ => return Err(format!("Prometheus answered a {}, no number", short(kind))),
    };
    let text = sample.as_str().ok_or_else(|| "Prometheus answered no number".to_owned())?;
    let value: f64 = text.parse().map_err(|_| format!("Prometheus answered `{}`, no number", short(text)))?;
    match value.is_finite() {
        true => Ok(value),
        false => Err(format!("{NO_DATA}the value is {text}, as where there were no requests to divide by")),
    }
}

fn short(text: &str) -> String {
    match text.chars().count() > SHOWN {
        true => text.chars().take(SHOWN).chain("…".chars()).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> Result<f64, String> {
        value(&Answer { status: 200, body: body.as_bytes().to_vec(), ..Answer::default() })
    }

    fn vector(series: &str) -> Result<f64, String> {
        said(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#))
    }

    #[test]
    fn a_number_is_one_finite_value_and_nothing_else() {
        assert_eq!(vector(r#"{"metric":{},"value":[1.5,"0.02"]}"#), Ok(0.02));
        assert_eq!(said(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}"#), Ok(3.0));
        let two = r#"{"metric":{"code":"500"},"value":[1,"1"]},{"metric":{"code":"502"},"value":[1,"1"]}"#;
        assert!(vector(two).unwrap_err().contains("2 series instead of one, such as {\"code\":\"500\"}"));
        assert!(vector("").unwrap_err().starts_with("no data: nothing matches"));
        assert!(lacks_data(&vector("").unwrap_err()) && !lacks_data(&vector(two).unwrap_err()));
        for value in ["NaN", "+Inf", "-Inf"] {
            let series = format!(r#"{{"metric":{{}},"value":[1,"{value}"]}}"#);
            assert!(vector(&series).unwrap_err().starts_with("no data: the value is"), "{value}");
        }
        assert!(vector(r#"{"metric":{},"value":[1]}"#).is_err());
        assert!(vector(r#"{"metric":{},"value":[1,"ten"]}"#).unwrap_err().contains("`ten`"));
        let range = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(said(range).unwrap_err().contains("range"));
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert!(said(refused).unwrap_err().ends_with("parse error"));
        let warned = |text: &str| {
            said(&format!(
                r#"{{"status":"success","warnings":["{text}"],"data":{{"resultType":"scalar","result":[1,"3"]}}}}"#
            ))
        };
        assert!(warned("remote read failed").unwrap_err().ends_with("remote read failed"));
        assert_eq!(warned("PromQL info: metric might not be a counter"), Ok(3.0));
        assert!(said("<html>").unwrap_err().starts_with("Prometheus answered 200"));
        assert!(said("{}").is_err());
    }

    #[test]
    fn a_number_is_compared_with_what_it_must_be() {
        let metric = |max, min| Metric { url: String::new(), query: String::new(), max, min };
        assert_eq!(judge(&metric(Some(0.01), None), 0.01).unwrap(), "0.01, at most 0.01");
        assert_eq!(judge(&metric(Some(0.01), None), 0.02).unwrap_err(), "is 0.02, more than 0.01");
        assert_eq!(judge(&metric(None, Some(2.0)), 1.0).unwrap_err(), "is 1, less than 2");
        assert_eq!(judge(&metric(Some(3.0), Some(1.0)), 2.0).unwrap(), "2, from 1 to 3");
    }
}
