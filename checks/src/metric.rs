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

/// Words of PromQL that make one series of many. `histogram_quantile` keeps all labels but `le`, and does not count.
const AGGREGATIONS: [&str; 9] =
    ["sum", "avg", "min", "max", "count", "quantile", "stddev", "stdvar", "scalar"];

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
            return Err(
                "no data: nothing matches the query. Where nothing means 0, end it with `or vector(0)`"
                    .to_owned(),
            );
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
        false => Err(format!("no data: the value is {text}, as where there were no requests to divide by")),
    }
}

fn short(text: &str) -> String {
    match text.chars().count() > SHOWN {
        true => text.chars().take(SHOWN).chain("…".chars()).collect(),
        false => text.to_owned(),
    }
}

/// Says why a query cannot mean what it is meant to, as far as that is seen without asking.
pub fn lint(query: &str) -> Result<(), String> {
    if query.trim().is_empty() || query.len() > 4_096 {
        return Err("`query` is empty, or longer than 4096 bytes".to_owned());
    }
    let bare = bare(query)?;
    let words: Vec<&str> = bare.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let says = |word: &str| words.contains(&word);
    let always_answers = words.windows(2).any(|pair| matches!(pair, ["or", "vector"]))
        || words.windows(3).any(|words| matches!(words, ["or", "on", "vector"]));
    if let Some(comparison) = comparison(&bare).filter(|_| !always_answers) {
        return Err(format!(
            "`query` compares with `{comparison}`: where the comparison is false Prometheus answers nothing, which is \
             also what it answers without data. Leave it out, and say `max` or `min`; or count with `count(…) or vector(0)`"
        ));
    }
    let told = AGGREGATIONS.iter().chain(&MATCHINGS).any(|word| says(word));
    if let Some(metric) = divided_by_itself(&bare).filter(|_| !told) {
        return Err(format!(
            "`query` divides `{metric}` by itself without `sum(…)`: each series is divided by the one with the same labels, \
             so errors by errors, which is 1. Write `sum(rate(…)) / sum(rate(…))`"
        ));
    }
    Ok(())
}

/// Words that say which series belong together, or that one side is of another time.
const MATCHINGS: [&str; 3] = ["on", "ignoring", "offset"];

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// A comparison that leaves series out. One with `bool` gives 0 or 1.
fn comparison(bare: &str) -> Option<&'static str> {
    let signs = ["==", "!=", ">=", "<=", ">", "<"];
    let mut rest = bare;
    while let Some(at) = rest.find(['=', '!', '<', '>']) {
        let found = rest.get(at..)?;
        let sign = signs.into_iter().find(|sign| found.starts_with(sign));
        rest = found.get(sign.map_or(1, str::len)..)?;
        if sign.is_some() && !rest.trim_start().starts_with("bool") {
            return sign;
        }
    }
    None
}

/// A metric that stands on both sides of a division.
fn divided_by_itself(bare: &str) -> Option<&str> {
    let (above, below) = bare.split_once('/')?;
    let metrics = |text| names(text).into_iter().collect::<std::collections::BTreeSet<&str>>();
    metrics(above).intersection(&metrics(below)).next().copied()
}

/// Words of PromQL that stand where metrics do.
const NO_METRICS: [&str; 9] = ["or", "and", "unless", "by", "without", "bool", "inf", "nan", "atan2"];

/// The names of metrics: words that are neither numbers nor called.
fn names(bare: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = bare;
    while let Some(start) = rest.find(is_word) {
        let word = rest.get(start..).unwrap_or_default();
        let (name, after) = word.split_at(word.find(|c| !is_word(c)).unwrap_or(word.len()));
        let number = name.starts_with(|c: char| c.is_ascii_digit());
        if !number && !NO_METRICS.contains(&name) && !after.trim_start().starts_with('(') {
            names.push(name);
        }
        rest = after;
    }
    names
}

/// The query without what stands in quotes, braces, brackets and comments.
fn bare(query: &str) -> Result<String, String> {
    let (mut bare, mut quote, mut inside) = (String::new(), None, 0_i32);
    let mut chars = query.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', Some('"' | '\'')) => {
                chars.next();
            }
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('#', None) => {
                chars.by_ref().find(|c| *c == '\n');
            }
            ('{' | '[', None) => inside = inside.saturating_add(1),
            ('}' | ']', None) => inside = inside.saturating_sub(1),
            (c, None) if inside == 0 => bare.push(c),
            _ => {}
        }
    }
    match (quote, inside) {
        (None, 0) => Ok(bare),
        _ => Err("`query` has a quote, brace or bracket that is not closed".to_owned()),
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

    #[test]
    fn queries_that_cannot_mean_what_they_say_are_explained() {
        let usual = r#"rate(http_requests_total{status=~"5.."}[5m]) / rate(http_requests_total[5m])"#;
        assert!(lint(usual).unwrap_err().contains("`http_requests_total` by itself without `sum(…)`"));
        assert!(lint(&format!("{usual} > 0.01")).unwrap_err().contains("compares with `>`"));
        let quantile = "histogram_quantile(0.99, rate(http_request_duration_seconds_bucket[5m])) > 2";
        assert!(lint(quantile).unwrap_err().contains("compares"));
        let sound = r#"sum(rate(r_total{code=~"5..",path!="/a>b"}[1m])) / sum(rate(r_total[1m])) # > 1"#;
        assert_eq!(lint(sound), Ok(()));
        for sound in [
            "up{job='a\\'b'} offset 5m",
            "node_filesystem_avail_bytes{mountpoint='/'} / node_filesystem_size_bytes{mountpoint='/'}",
            "increase(errors_total[1m]) / 60",
            "queue_length > bool 10",
            "count(up == 0) or vector(0)",
            "rate(r_total[5m]) / rate(r_total[5m] offset 1d)",
            "(rate(a_total[1m]) or vector(0)) / (rate(b_total[1m]) or vector(0))",
            "count(up == 0) or on() vector(0)",
            "rate(e_total{code='5'}[5m]) / ignoring(code) rate(e_total[5m])",
        ] {
            assert_eq!(lint(sound), Ok(()), "{sound}");
        }
        assert!(lint("vector(7) > 5").is_err());
        assert!(lint("count(up == 0)").unwrap_err().contains("or vector(0)"));
        assert!(lint("a >= bool 1 and b <2").unwrap_err().contains("`<`"));
        for open in ["sum(a{b=\"c\"", "rate(a[5m)", "a{b=\"c}", ""] {
            assert!(lint(open).is_err(), "{open}");
        }
    }
}
