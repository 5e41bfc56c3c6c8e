//! Configuration files: TOML, read whole or not at all, with errors that name file, line and what was expected.

use std::fmt;
use std::path::{Path, PathBuf};

use pointsman_core::{Code, Problem};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

/// Largest configuration file, in bytes: far above any real one.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and parses a file. Unknown keys, wrong types and missing keys are errors.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Problem> {
    let unreadable = |error: &std::io::Error| {
        Problem::new(Code::ConfigInvalid, format!("cannot read `{}`", path.display())).because(error)
    };
    let length = std::fs::metadata(path).map_err(|error| unreadable(&error))?.len();
    if length > MAX_BYTES {
        return Err(Problem::new(
            Code::ConfigInvalid,
            format!("`{}` is {length} bytes long, more than {MAX_BYTES}", path.display()),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    parse(path, &text)
}

/// Parses the text of a file.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| {
        let (line, column, source) = place(text, error.span().map_or(0, |span| span.start));
        Problem::new(Code::ConfigInvalid, format!("{}:{line}:{column}: {}", path.display(), error.message()))
            .cause(format!("the line reads: {source}"))
            .hint(format!("edit `{}`, then start again", path.display()))
    })
}

/// Line and column, from 1, of a byte offset, and that line.
fn place(text: &str, offset: usize) -> (usize, usize, &str) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()).saturating_add(1);
    (line, column, text.lines().nth(line.saturating_sub(1)).unwrap_or("").trim())
}

/// A length of time, written `500ms`, `30s`, `10m`, `2h` or `3d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

impl Span {
    /// The length in milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// A length of so many milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Parses the written form.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(digits)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 3_600_000 == 0 && ms > 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 && ms > 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> de::Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"500ms\", \"30s\", \"10m\", \"2h\" or \"3d\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Written)
    }
}

/// A domain name or other parsed value in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<'de, T> de::Deserialize<'de> for Parsed<T>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Paths of a daemon's own certificate, its key and the authorities it trusts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pki {
    /// The daemon's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub key: PathBuf,
    /// The authorities whose certificates it accepts, PEM.
    pub ca: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        wait: Span,
    }

    #[test]
    fn lengths_of_time() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("3d", 259_200_000),
        ] {
            assert_eq!(Span::parse(text), Some(Span(ms)), "{text}");
        }
        for bad in
            ["", "30", "s", "-1s", "1.5s", "30 s", "30S", "1w", "99999999999999999999s", "9999999999999999d"]
        {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_error_names_file_line_and_what_was_expected() {
        let error = parse::<Sample>(Path::new("x.toml"), "\nwait = 30\n").unwrap_err();
        assert!(error.message.starts_with("x.toml:2:8: "), "{}", error.message);
        assert!(error.message.contains("length of time"), "{}", error.message);
        let unknown = parse::<Sample>(Path::new("x.toml"), "wait = \"1s\"\nwiat = \"1s\"\n").unwrap_err();
        assert!(unknown.message.contains("unknown field `wiat`"), "{}", unknown.message);
        assert_eq!(parse::<Sample>(Path::new("x.toml"), "wait = \"1s\"").unwrap().wait.ms(), 1000);
    }
}
