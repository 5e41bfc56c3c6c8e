//! The version of a migration. Ordered as semver orders, never as text: 1.9.0 comes before 1.10.0.

use std::fmt;
use std::str::FromStr;

/// A migration's version: semver, read with or without a leading `v`, shown without it. `1.2` and `3` stand for
/// `1.2.0` and `3.0.0`, because tables of older tools hold such values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {reason}")]
pub struct VersionError {
    text: String,
    reason: String,
}

/// Longest version read, in bytes. Names of files and rows of tables come from outside.
const MAX_VERSION_BYTES: usize = 100;

impl Version {
    /// Reads `1.2.0`, `v1.2.0`, `1.2`, `3`, `1.2.0-rc.1`. Build metadata is refused: it has no place in the order.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let refuse = |reason: &str| VersionError {
            text: text.chars().take(MAX_VERSION_BYTES).collect(),
            reason: reason.to_owned(),
        };
        if text.len() > MAX_VERSION_BYTES {
            return Err(refuse("it is too long"));
        }
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (numbers, rest) = match bare.find(['-', '+']) {
            Some(at) => bare.split_at(at),
            None => (bare, ""),
        };
        if rest.contains('+') {
            return Err(refuse("build metadata after `+` has no place in the order of versions"));
        }
        let missing = match numbers.split('.').count() {
            1 => ".0.0",
            2 => ".0",
            _ => "",
        };
        semver::Version::parse(&format!("{numbers}{missing}{rest}"))
            .map(Version)
            .map_err(|error| refuse(&error.to_string()))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Version::parse(text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let sorted = ["v0.9.0", "1", "1.2.0-rc.1", "1.2", "v1.9.0", "v1.10.0", "2.0.0"];
        let read: Vec<Version> = sorted.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert!(read.is_sorted_by(|a, b| a < b), "{read:?}");
    }

    #[test]
    fn short_forms_are_the_same_version() {
        for (text, shown) in
            [("v1.2.0", "1.2.0"), ("1.2", "1.2.0"), ("3", "3.0.0"), ("v2-rc.1", "2.0.0-rc.1")]
        {
            assert_eq!(Version::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "v",
            "V1.2.0",
            "1.2.x",
            "01.2.0",
            "1.2.3.4",
            "1..2",
            "-1.0.0",
            "1.0.0+build",
            " 1.0.0",
            "latest",
        ] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::parse(&"1".repeat(1000)).is_err());
    }
}
