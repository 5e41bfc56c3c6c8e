//! What the name of a migration file says: version and phase.

use crate::{Phase, Version};

/// A file's name, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    pub(crate) version: Version,
    /// As the name says it; a bare `v1.2.0.sql` says none and may have a header do so.
    pub(crate) phase: Option<Phase>,
}

/// Reads the last part of a path. `None`: not a file of SQL, none of ours. `Err`: SQL, but not named as a migration is.
pub(crate) fn read(path: &str) -> Option<Result<FileName, String>> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.get(..name.len().checked_sub(".sql".len())?)?;
    if !name.get(stem.len()..)?.eq_ignore_ascii_case(".sql") {
        return None;
    }
    if !name.ends_with(".sql") {
        return Some(Err(format!("`{name}` must end in lower case `.sql`")));
    }
    let (version, phase) = match stem.rsplit_once('.').map(|(before, word)| (before, Phase::parse(word))) {
        Some((before, Some(phase))) => (before, Some(phase)),
        _ => (stem, None),
    };
    Some(
        Version::parse(version).map(|version| FileName { version, phase }).map_err(|error| error.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_version_and_phase() {
        for (path, version, phase) in [
            ("v1.2.0.sql", "1.2.0", None),
            ("migrations/v1.2.0.expand.sql", "1.2.0", Some(Phase::Expand)),
            ("1.2.contract.sql", "1.2.0", Some(Phase::Contract)),
            ("v1.2.0-rc.1.down.sql", "1.2.0-rc.1", Some(Phase::Down)),
            ("a/b/v3.verify.sql", "3.0.0", Some(Phase::Verify)),
        ] {
            let version = Version::parse(version).unwrap();
            assert_eq!(read(path), Some(Ok(FileName { version, phase })), "{path}");
        }
    }

    #[test]
    fn other_files_are_none_of_ours_or_wrong() {
        for path in ["README.md", "sql", ".gitkeep", "v1.2.0.sql.bak", "migrations/", "ä.txt"] {
            assert_eq!(read(path), None, "{path}");
        }
        for path in ["V1__init.sql", "init.sql", ".sql", "v1.2.0.up.sql", "v1.2.0.SQL", "0001_x.sql"] {
            assert!(matches!(read(path), Some(Err(_))), "{path}");
        }
    }
}
