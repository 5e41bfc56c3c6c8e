//! Places in JSON: `$.user.tokens[0]`, the plain part of JSONPath, or a pointer as `/user/tokens/0` (RFC 6901).

use serde_json::Value;

/// Deepest place.
const MAX_DEPTH: usize = 32;

/// A place in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    written: String,
    parts: Vec<String>,
}

impl JsonPath {
    /// Parses either form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no place in JSON: expected `$.name[0]` or a pointer as `/name/0`");
        let parts = if let Some(path) = text.strip_prefix('$') {
            dotted(path).ok_or_else(wrong)?
        } else if let Some(pointer) = text.strip_prefix('/') {
            pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
        } else if text.is_empty() {
            Vec::new()
        } else {
            return Err(wrong());
        };
        if parts.len() > MAX_DEPTH {
            return Err(format!("`{text}` is {} levels deep: at most {MAX_DEPTH}", parts.len()));
        }
        Ok(Self { written: text.to_owned(), parts })
    }

    /// The value there.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.parts.iter().try_fold(value, |value, part| match value {
            Value::Object(fields) => fields.get(part),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

/// The parts of `.name[0]['other']`.
fn dotted(mut rest: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, behind) = after.split_at_checked(end)?;
            if name.is_empty() || name == "*" {
                return None;
            }
            parts.push(name.to_owned());
            rest = behind;
        } else {
            let (inside, behind) = rest.strip_prefix('[')?.split_once(']')?;
            let quoted = inside.strip_prefix('\'').and_then(|inside| inside.strip_suffix('\''));
            let index = || Some(inside).filter(|inside| inside.parse::<usize>().is_ok());
            parts.push(quoted.or_else(index)?.to_owned());
            rest = behind;
        }
    }
    Some(parts)
}

/// A value as text: a string without its quotes, everything else as JSON.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_find_the_same() {
        let value = serde_json::json!({ "a": [{ "b.c": 7, "d/e": "x" }], "f": null });
        let found = |path: &str| JsonPath::parse(path).unwrap().find(&value).map(as_text);
        assert_eq!(found("$.a[0]['b.c']").as_deref(), Some("7"));
        assert_eq!(found("/a/0/b.c").as_deref(), Some("7"));
        assert_eq!(found("/a/0/d~1e").as_deref(), Some("x"));
        assert_eq!(found("$.f").as_deref(), Some("null"));
        assert_eq!(found("$.a[1]"), None);
        assert_eq!(found("$.a.b"), None);
        for wrong in ["a", "$a", "$.", "$..a", "$.*", "$[x]", "$[", "$['a'"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }
}
