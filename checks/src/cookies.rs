//! The cookies of one sequence of requests: kept by name and path, forgotten with it.

use std::collections::BTreeMap;

/// Most cookies that are kept.
const MAX_COOKIES: usize = 64;
/// Longest cookie, name and value together, in bytes.
const MAX_BYTES: usize = 4096;

/// A jar for one host. A check stands for a browser that came by TLS, so `Secure` cookies are sent wherever it asks.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    cookies: BTreeMap<(String, String), String>,
}

impl Jar {
    /// Takes what an answer to a request for `path` sets, by one `Set-Cookie` field. What cannot be read is left out.
    pub fn take(&mut self, set: &str, path: &str) {
        let mut parts = set.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (name, value) = (name.trim(), value.trim());
        // Browsers take a comma in a value, and send it back.
        let sound = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b';' || b == b' ');
        if name.is_empty()
            || name.len().saturating_add(value.len()) > MAX_BYTES
            || !sound(name)
            || !sound(value)
        {
            return;
        }
        let mut scope = directory(path);
        let mut gone = false;
        for (attribute, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
            match attribute.to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => value.clone_into(&mut scope),
                "max-age" => gone |= value.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                // The only date that servers use to take a cookie away lies at the beginning of 1970.
                "expires" => gone |= value.contains("1970"),
                _ => {}
            }
        }
        let key = (name.to_owned(), scope);
        if gone {
            self.cookies.remove(&key);
        } else if self.cookies.len() < MAX_COOKIES || self.cookies.contains_key(&key) {
            self.cookies.insert(key, value.to_owned());
        }
    }

    /// The `Cookie` field of a request for `path`, if there is anything to send. Of cookies with one name the nearest stands
    /// first (RFC 6265, 5.4): a server takes it for the one that is meant.
    pub fn header(&self, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let covers = |scope: &str| {
            path.strip_prefix(scope)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || scope.ends_with('/'))
        };
        let mut sent: Vec<_> = self.cookies.iter().filter(|((_, scope), _)| covers(scope)).collect();
        sent.sort_by_key(|((_, scope), _)| std::cmp::Reverse(scope.len()));
        let header =
            sent.iter().map(|((name, _), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        Some(header).filter(|header| !header.is_empty())
    }
}

/// The path that a cookie without one belongs to (RFC 6265, 5.1.4).
fn directory(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_where_they_belong() {
        let mut jar = Jar::default();
        jar.take("sid=abc; Path=/; HttpOnly; Secure", "/login");
        jar.take("here=1", "/app/login?x=1");
        jar.take("deep=2; path=/app/a", "/");
        assert_eq!(jar.header("/").as_deref(), Some("sid=abc"));
        assert_eq!(jar.header("/app/a/b?q=/").as_deref(), Some("deep=2; here=1; sid=abc"));
        assert_eq!(jar.header("/application").as_deref(), Some("sid=abc"));
        jar.take("sid=; Max-Age=0; Path=/", "/logout");
        assert_eq!(jar.header("/"), None);
        jar.take("here=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "/app/logout");
        assert_eq!(jar.header("/app/x"), None);
    }

    #[test]
    fn of_one_name_the_nearest_stands_first() {
        let mut jar = Jar::default();
        jar.take("JSESSIONID=app; Path=/", "/");
        jar.take("a=1; Path=/", "/");
        jar.take("JSESSIONID=geo; Path=/geoserver", "/geoserver/web/");
        assert_eq!(jar.header("/geoserver/ows").as_deref(), Some("JSESSIONID=geo; JSESSIONID=app; a=1"));
        assert_eq!(jar.header("/").as_deref(), Some("JSESSIONID=app; a=1"));
        jar.take("list=1,2; Path=/", "/");
        assert_eq!(jar.header("/").as_deref(), Some("JSESSIONID=app; a=1; list=1,2"));
    }

    #[test]
    fn a_server_cannot_fill_the_jar_or_break_a_request() {
        let mut jar = Jar::default();
        (0..1000).for_each(|n| jar.take(&format!("c{n}=1"), "/"));
        assert_eq!(jar.cookies.len(), MAX_COOKIES);
        let mut jar = Jar::default();
        for set in ["", "=x", "novalue", "a=b\r\nx: y", &format!("a={}", "x".repeat(5000)), "a=ü"] {
            jar.take(set, "/");
        }
        assert_eq!(jar.header("/"), None);
    }
}
