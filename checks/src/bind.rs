//! Putting in what the plan has chosen: the release that is to answer, and its slot.

use pointsman_core::{Check, CheckSpec, ReleaseId, SlotName};
use serde_json::{Map, Value};

use crate::template::Template;

/// What stands for `{{release}}` where nobody knows which release is on a slot.
const UNKNOWN: &str = "unknown";

/// The check with `{{release}}` and `{{slot}}` replaced. Where the release is not known, nothing is expected of it.
pub fn bind(check: &Check, release: Option<&ReleaseId>, slot: &SlotName) -> Check {
    // Most checks name neither.
    if !["{{", "release"].into_iter().any(|word| check.spec.as_str().contains(word)) {
        return check.clone();
    }
    let Ok(Value::Object(mut spec)) = serde_json::from_str(check.spec.as_str()) else {
        return check.clone();
    };
    let known = [("release", release.map_or(UNKNOWN, ReleaseId::as_str)), ("slot", slot.as_str())];
    for value in spec.values_mut() {
        fill(value, &known, release);
    }
    let bound = CheckSpec::parse(&Value::Object(spec).to_string());
    // Names of releases and slots are short: what was within its bound by far may be over it, and is then left as it was.
    Check { spec: bound.unwrap_or_else(|_| check.spec.clone()), ..check.clone() }
}

/// The check as a person makes it now: an earlier pass does not count.
pub fn anew(check: &Check) -> Check {
    let Ok(Value::Object(mut spec)) = serde_json::from_str(check.spec.as_str()) else {
        return check.clone();
    };
    spec.insert("every".to_owned(), Value::String("0s".to_owned()));
    let spec = CheckSpec::parse(&Value::Object(spec).to_string()).unwrap_or_else(|_| check.spec.clone());
    Check { spec, patience_ms: 0, ..check.clone() }
}

fn fill(value: &mut Value, known: &[(&str, &str)], release: Option<&ReleaseId>) {
    match value {
        Value::String(text) => {
            if let Ok(template) = Template::parse(text) {
                *text = template.with(known);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, known, release)),
        Value::Object(fields) => {
            if let Some(Value::Object(expect)) = fields.get_mut("expect") {
                expect_release(expect, release);
            }
            fields.values_mut().for_each(|field| fill(field, known, release));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `release = "json:$.release"` becomes an expectation of that part of the answer, or none.
fn expect_release(expect: &mut Map<String, Value>, release: Option<&ReleaseId>) {
    let Some(Value::String(part)) = expect.remove("release") else { return };
    let Some(release) = release else { return };
    let equals = expect.entry("equals").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(equals) = equals {
        equals.insert(part, Value::String(release.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::CheckFrom;

    fn check(spec: &str) -> Check {
        Check {
            name: "c".parse().unwrap(),
            from: CheckFrom::Hosts,
            before_switch: true,
            after_switch: true,
            spec: CheckSpec::parse(spec).unwrap(),
            timeout_ms: 1,
            patience_ms: 9,
            bound_ms: 1,
        }
    }

    #[test]
    fn what_the_plan_chose_is_put_in() {
        let written = check(
            r#"{"steps":[{"post":"/{{slot}}","json":{"n":["t-{{ release }}-{{token}}"]},"expect":{"release":"json:$.r"}}]}"#,
        );
        let (release, slot) = (ReleaseId::parse("r7").unwrap(), SlotName::parse("green").unwrap());
        let bound: Value = serde_json::from_str(bind(&written, Some(&release), &slot).spec.as_str()).unwrap();
        let step = &bound["steps"][0];
        assert_eq!(step["post"], "/green");
        assert_eq!(step["json"]["n"][0], "t-r7-{{token}}");
        assert_eq!(step["expect"], serde_json::json!({ "equals": { "json:$.r": "r7" } }));
        let unknown: Value = serde_json::from_str(bind(&written, None, &slot).spec.as_str()).unwrap();
        assert_eq!(unknown["steps"][0]["expect"], serde_json::json!({}));
        assert_eq!(unknown["steps"][0]["json"]["n"][0], "t-unknown-{{token}}");
    }

    #[test]
    fn a_person_is_not_told_of_an_earlier_pass() {
        let now = anew(&check(r#"{"every":"30s","http":{"path":"/"}}"#));
        assert!(now.spec.as_str().contains(r#""every":"0s""#));
        assert_eq!(now.patience_ms, 0);
    }
}
