//! The path of an HTTP request that a check makes.

use std::fmt;

/// A path with an optional query, in printable ASCII without spaces: what can stand in a request line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpPath(String);

/// A text that cannot be the path of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a path: expected `/` and at most 2048 printable ASCII characters without spaces or `#`"
)]
pub struct InvalidHttpPath(String);

/// Longest path a check may ask for: far above what sites use, below every server's limit.
const MAX_BYTES: usize = 2048;

impl HttpPath {
    /// Parses `/path?query`.
    pub fn parse(text: &str) -> Result<Self, InvalidHttpPath> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if text.starts_with('/') && text.len() <= MAX_BYTES && printable {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidHttpPath(crate::name::shown(text)))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HttpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for HttpPath {
    type Err = InvalidHttpPath;
    fn from_str(text: &str) -> Result<Self, InvalidHttpPath> {
        Self::parse(text)
    }
}
