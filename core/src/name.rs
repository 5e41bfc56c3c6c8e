//! Names of things, valid because they exist: each type is parsed once, at the border.

use std::fmt;
use std::sync::Arc;

/// A text that cannot be the name of this kind of thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a valid {kind}: expected {expected}")]
pub struct InvalidName {
    kind: &'static str,
    expected: &'static str,
    shown: String,
}

/// Longest part of a refused text that an error repeats: enough to recognise it, too short to flood a log.
const SHOWN_CHARS: usize = 80;

/// A text from outside, short and without control characters, fit to stand in an error.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            #[doc = concat!("Parses a ", $kind, ": ", $expected, ".")]
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    return Ok(Self(text.into()));
                }
                Err(InvalidName { kind: $kind, expected: $expected, shown: shown(text) })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }
    };
}

/// One label as in certificate names: `[a-z0-9-]{1,63}`, and no hyphen first, so that no name is an option.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_release_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_backup_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_backend(text: &str) -> bool {
    text.strip_prefix("be_").is_some_and(|rest| {
        (1..=32).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

fn is_unit(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
}

name!(
    /// An environment of the site: `production`, `staging`.
    EnvironmentName, "environment name", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// A machine with an agent on it, as its certificate names it.
    HostName, "host name", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// A place an artifact can live in an environment: `blue`, `green`, `canary`.
    SlotName, "slot name", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// A kind of request, as `haproxy.cfg` tells them apart: `api`, `other`.
    RouteClass, "class of requests", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// A named check of the environment file.
    CheckName, "check name", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// A hook that an agent's own configuration allows.
    HookName, "hook name", "1 to 63 of `a-z`, `0-9`, `-`, not starting with `-`", is_label
);
name!(
    /// One attempt to make one artifact live. Chosen by the operator or CI, unique in its environment.
    ReleaseId, "release id", "1 to 64 of letters, digits, `.`, `_`, `-`, starting with a letter or digit", is_release_id
);
name!(
    /// What CI calls one request, so that a repeated job attaches to its release instead of starting another.
    RequestId, "request id", "1 to 64 of letters, digits, `.`, `_`, `-`, starting with a letter or digit", is_release_id
);
name!(
    /// A backup of a database, as its files are named: `pre-migration-20240115T101500Z-v1.2.0`.
    BackupId, "backup id", "1 to 128 of letters, digits, `.`, `_`, `-`, starting with a letter or digit", is_backup_id
);
name!(
    /// A backend of the load balancer.
    BackendName, "backend name", "`be_` and 1 to 32 of `a-z`, `0-9`, `_`", is_backend
);
name!(
    /// A systemd unit that an agent's own configuration allows to be restarted.
    UnitName, "unit name", "1 to 128 of letters, digits, `.`, `_`, `@`, `-`, starting with a letter or digit", is_unit
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_because_they_exist() {
        for good in ["a", "blue", "www-1", &"x".repeat(63)] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Blue", "a_b", "a.b", "a/b", "ä", &"x".repeat(64), "a\n"] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
        for good in ["be_blue", "be_a1_2"] {
            assert!(BackendName::parse(good).is_ok(), "{good}");
        }
        for bad in ["be_", "blue", "be_Blue", "be_a;b", "be_a b", "be_a:b", &format!("be_{}", "x".repeat(33))]
        {
            assert!(BackendName::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "--x", "a b", ".x", "a/b", &"r".repeat(65)] {
            assert!(ReleaseId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_text_is_shown_short_and_clean() {
        let refused = HostName::parse(&format!("\u{1b}[31m{}", "x".repeat(5000))).unwrap_err().to_string();
        assert!(refused.len() < 250 && !refused.contains('\u{1b}'), "{refused}");
    }
}
