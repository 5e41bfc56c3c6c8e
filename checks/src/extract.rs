//! What is taken out of an answer: `json:$.token`, `header:location`, `cookie:session`, `regex:id=(\d+)`,
//! `html:input[name=csrf]@value`, `body`.

use regex::Regex;

use crate::answer::{Answer, HIDDEN};
use crate::json_path::{JsonPath, as_text};
use crate::page;

/// Longest value that is taken, in bytes.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// Largest compiled regular expression, in bytes. Matching takes time linear in the text.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Which part of an answer.
#[derive(Clone, Debug)]
pub enum Extract {
    /// A value in a JSON body.
    Json(JsonPath),
    /// A header field.
    Header(String),
    /// A cookie that the answer sets.
    Cookie(String),
    /// What the first group of a regular expression matches, or the whole of it.
    Regex(Regex),
    /// The text, or an attribute, of the first element that a CSS selector finds.
    Html(String, Option<String>),
    /// The whole body, without white space around it.
    Body,
}

/// Compiles a regular expression.
pub fn regex(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(text)
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| format!("`{text}` is no regular expression: {error}"))
}

impl Extract {
    /// Parses the written form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "json" => JsonPath::parse(rest).map(Self::Json),
            "header" if crate::parse::is_header(rest) => Ok(Self::Header(rest.to_ascii_lowercase())),
            "cookie" if !rest.is_empty() => Ok(Self::Cookie(rest.to_owned())),
            "regex" => regex(rest).map(Self::Regex),
            "html" => {
                let (selector, attribute) = match rest.rsplit_once('@') {
                    Some((selector, attribute)) => (selector, Some(attribute.to_owned())),
                    None => (rest, None),
                };
                page::selector(selector)?;
                Ok(Self::Html(selector.to_owned(), attribute))
            }
            "body" if rest.is_empty() => Ok(Self::Body),
            _ => Err(format!(
                "`{text}` takes nothing out of an answer: expected `json:$.name`, `header:name`, `cookie:name`, \
                 `regex:…`, `html:selector@attribute` or `body`"
            )),
        }
    }

    /// Whether one of several parts of this name is this: only header fields may come more than once.
    pub fn any_is(&self, answer: &Answer, wanted: &str) -> bool {
        matches!(self, Self::Header(name) if answer.header_values(name).any(|found| found == wanted))
    }

    /// What was taken, as messages repeat it.
    pub fn shown(&self, answer: &Answer, value: &str) -> String {
        match self {
            Self::Cookie(_) => HIDDEN.to_owned(),
            Self::Header(name) => answer.shown_header(name, value),
            Self::Json(_) | Self::Regex(_) | Self::Html(..) | Self::Body => answer.shown(value),
        }
    }

    /// Takes the value.
    pub fn take(&self, answer: &Answer) -> Result<String, String> {
        let value = match self {
            Self::Json(path) => {
                let value = answer.json()?;
                let found = path.find(&value);
                as_text(found.ok_or_else(|| format!("the JSON has nothing at `{}`", path.as_str()))?)
            }
            Self::Header(name) => {
                answer.header(name).ok_or_else(|| format!("there is no header `{name}`"))?.to_owned()
            }
            Self::Cookie(name) => {
                answer.set_cookie(name).ok_or_else(|| format!("no cookie `{name}` is set"))?.to_owned()
            }
            Self::Regex(regex) => {
                let text = answer.text();
                let found = regex.captures(&text).and_then(|found| found.get(1).or_else(|| found.get(0)));
                let found = found.map(|found| found.as_str().to_owned());
                found.ok_or_else(|| format!("`{regex}` matches nothing in {}", answer.excerpt()))?
            }
            Self::Html(selector, attribute) => page::take(&answer.text(), selector, attribute.as_deref())?,
            Self::Body => answer.text().trim().to_owned(),
        };
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!("the value is {} bytes long: at most {MAX_VALUE_BYTES}", value.len()));
        }
        Ok(value)
    }
}

impl std::fmt::Display for Extract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(path) => write!(f, "json:{}", path.as_str()),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Regex(regex) => write!(f, "regex:{regex}"),
            Self::Html(selector, None) => write!(f, "html:{selector}"),
            Self::Html(selector, Some(attribute)) => write!(f, "html:{selector}@{attribute}"),
            Self::Body => f.write_str("body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_takes_its_value() {
        let answer = Answer {
            status: 200,
            headers: vec![
                ("location".to_owned(), "/x/9".to_owned()),
                ("set-cookie".to_owned(), "sid=abc; Path=/; HttpOnly".to_owned()),
            ],
            body: br#"{"token":"t1","n":3,"page":"<input name=csrf value='c&amp;1'>"}"#.to_vec(),
            took_ms: 1,
            ..Answer::default()
        };
        let take = |text: &str| Extract::parse(text).unwrap().take(&answer);
        assert_eq!(take("json:$.token").unwrap(), "t1");
        assert_eq!(take("json:/n").unwrap(), "3");
        assert_eq!(take("header:Location").unwrap(), "/x/9");
        assert_eq!(take("cookie:sid").unwrap(), "abc");
        assert_eq!(take(r#"regex:"token":"(\w+)""#).unwrap(), "t1");
        assert_eq!(take("html:input[name=csrf]@value").unwrap(), "c&1");
        assert!(take("json:$.gone").unwrap_err().contains("nothing at `$.gone`"));
        assert!(take("cookie:gone").unwrap_err().contains("no cookie"));
        let html = Answer { body: b"<p>no form</p>".to_vec(), ..Answer::default() };
        assert!(Extract::parse("html:input@value").unwrap().take(&html).unwrap_err().contains("no element"));
        assert!(Extract::parse("json:$.a").unwrap().take(&html).unwrap_err().contains("no JSON"));
    }

    #[test]
    fn what_takes_nothing_is_refused() {
        for wrong in
            ["", "token", "json:token", "header:", "header:a b", "regex:(", "html:>>", "body:x", "cookie:"]
        {
            assert!(Extract::parse(wrong).is_err(), "{wrong}");
        }
        // A pattern that would need much memory.
        assert!(Extract::parse("regex:(a{1000}){1000}").is_err());
    }
}
