//! What a server answered, as expectations look at it.

use serde_json::Value;

use crate::secrets::Redactor;

/// An answer, whole.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields in the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the request to the end of the answer, in milliseconds.
    pub took_ms: u64,
    /// The path, with its query, that gave it: the last one where redirects were followed.
    pub path: String,
    /// The exchange knows secrets: nothing that came back is repeated, because a server may say more than it was told.
    pub private: bool,
    /// What is taken out of the body before it is cut to what is repeated.
    pub redactor: Redactor,
}

/// The header field that sets a cookie.
pub(crate) const SET_COOKIE: &str = "set-cookie";

/// What messages say of what is not repeated.
pub(crate) const HIDDEN: &str = "something else, not shown";

/// Longest part of a body that evidence repeats, in characters.
const EXCERPT_CHARS: usize = 60;

impl Answer {
    /// Whether the status is one of success.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// Every header field of this name: a login may set several cookies.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The cookie of this name that the answer sets.
    pub fn set_cookie(&self, name: &str) -> Option<&str> {
        let set = self.headers.iter().filter(|(field, _)| field == SET_COOKIE);
        set.rev().find_map(|(_, value)| {
            let (found, rest) = value.split_once('=')?;
            (found.trim() == name).then(|| rest.split(';').next().unwrap_or_default().trim())
        })
    }

    /// The kind of content, without its parameters.
    pub fn media_type(&self) -> &str {
        self.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }

    /// The encoding that the header says the body has.
    pub fn charset(&self) -> Option<&str> {
        let parameters = self.header("content-type")?.split(';').skip(1);
        let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
        let (_, value) = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
        Some(value.trim().trim_matches('"'))
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON. A byte order mark before it is passed over, as browsers do.
    pub fn json(&self) -> Result<Value, String> {
        let body = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body);
        serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON ({error}): {}", self.excerpt()))
    }

    /// A part of the answer as messages repeat it.
    pub fn shown(&self, part: &str) -> String {
        if self.private { HIDDEN.to_owned() } else { format!("`{part}`") }
    }

    /// The same of a header field. A cookie that is set opens somebody's session, whoever knows of it.
    pub fn shown_header(&self, name: &str, value: &str) -> String {
        if name == SET_COOKIE { HIDDEN.to_owned() } else { self.shown(value) }
    }

    /// How the body begins.
    pub fn excerpt(&self) -> String {
        if self.private {
            return format!("{} bytes, not shown", self.body.len());
        }
        let text = self.redactor.begin(&self.text(), EXCERPT_CHARS);
        let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let excerpt: String = chars.by_ref().take(EXCERPT_CHARS).collect();
        match (excerpt.is_empty(), chars.next()) {
            (true, _) => "an empty body".to_owned(),
            (false, None) => format!("`{excerpt}`"),
            (false, Some(_)) => format!("`{excerpt}…`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_may_begin_with_a_mark() {
        let read = |body: &[u8]| Answer { body: body.to_vec(), ..Answer::default() }.json();
        assert_eq!(read(b"\xef\xbb\xbf[1]").unwrap(), serde_json::json!([1]));
        assert!(read(b"\xef\xbb\xbf").is_err());
    }
}
