//! Texts with names in them: `Bearer {{token}}`. What stands for a name is known only when the check is made.

use std::collections::BTreeMap;

use serde_json::Value;

/// Longest template, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// A text with names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// Whether a text can be the name of a value: what captures and secrets are called.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

impl Template {
    /// Parses a text. `{{` begins a name and `}}` ends it; single braces are text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("is {} bytes long: at most {MAX_BYTES}", text.len()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) =
                after.split_once("}}").ok_or_else(|| format!("`{text}` opens `{{{{` and never closes it"))?;
            let name = name.trim();
            if !is_name(name) {
                return Err(format!("`{{{{{name}}}}}` is no name: expected `a-z`, `0-9`, `_`, `-`"));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with some names replaced; the others stay as they are.
    pub fn with(&self, known: &[(&str, &str)]) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name(name) => match known.iter().find(|(known, _)| known == name) {
                Some((_, value)) => (*value).to_owned(),
                None => format!("{{{{{name}}}}}"),
            },
        };
        self.0.iter().map(part).collect()
    }

    /// The text with every name replaced; `encode` makes a value fit for where it stands.
    pub fn render(&self, values: &Values, encode: impl Fn(&str) -> String) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Name(name) => {
                    let value = values.get(name).ok_or_else(|| format!("nothing is known as `{name}`"))?;
                    text.push_str(&encode(value));
                }
            }
        }
        Ok(text)
    }
}

/// What the names stand for.
pub type Values = BTreeMap<String, String>;

/// JSON with templates in its texts.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTemplate(Value);

impl JsonTemplate {
    /// Parses every text of a value.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut names = Vec::new();
        collect(value, &mut names)?;
        Ok(Self(value.clone()))
    }

    /// The names in it.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        // Parsed before: it cannot fail now.
        let _ = collect(&self.0, &mut names);
        names
    }

    /// The value with every name replaced. A value never leaves the text that it stands in.
    pub fn render(&self, values: &Values) -> Result<Value, String> {
        filled(&self.0, values)
    }
}

fn collect(value: &Value, names: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::String(text) => names.extend(Template::parse(text)?.names().map(str::to_owned)),
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, names))?,
        Value::Object(fields) => fields.values().try_for_each(|value| collect(value, names))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn filled(value: &Value, values: &Values) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(Template::parse(text)?.render(values, str::to_owned)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| filled(item, values)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), filled(value, values)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

/// A value as it may stand in a path or a form: everything but unreserved characters is escaped (RFC 3986, 2.3).
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_replaced_and_unknown_ones_said() {
        let template = Template::parse("a {{ id }}/{{x}} {b}").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["id", "x"]);
        let known = values(&[("id", "7"), ("x", "{{id}}")]);
        // A value is never read as a template: a server could have made it.
        assert_eq!(template.render(&known, str::to_owned).unwrap(), "a 7/{{id}} {b}");
        assert_eq!(template.render(&values(&[]), str::to_owned).unwrap_err(), "nothing is known as `id`");
        for wrong in ["{{", "{{a", "{{}}", "{{A}}", "{{a b}}", "{{../x}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let json = serde_json::json!({ "user": "{{user}}", "deep": [{ "n": 1, "t": "x{{user}}" }] });
        let json = JsonTemplate::parse(&json).unwrap();
        let filled = json.render(&values(&[("user", "\",\"admin\":true")])).unwrap();
        assert_eq!(filled["user"], "\",\"admin\":true");
        assert_eq!(filled.as_object().unwrap().len(), 2);
        assert_eq!(percent_encoded("../a b?&é"), "..%2Fa%20b%3F%26%C3%A9");
    }
}
