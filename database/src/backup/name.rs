//! How the files of a backup are called. An id comes from outside too, so it is judged before it becomes a path.

use std::path::{Path, PathBuf};

use pointsman_core::{Code, Problem};

use crate::{BackupFormat, moment};

/// What every name begins with.
const PREFIX: &str = "pre-migration-";
/// Longest label in a name, in characters: versions are short, and names of files end at 255.
const MAX_LABEL_CHARS: usize = 64;
/// Longest id.
const MAX_ID_CHARS: usize = 128;

/// What tells a backup from all others in its folder: the names of its files without their endings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackupId(String);

impl BackupId {
    /// The `attempt`-th name for a backup taken at this moment, counted from 1.
    pub(crate) fn new(format: BackupFormat, taken_at_ms: u64, label: &str, attempt: u32) -> Self {
        let stem = match format {
            BackupFormat::SqlGz => format!("{PREFIX}{}", moment::day(taken_at_ms)),
            BackupFormat::Custom => {
                format!("{PREFIX}{}-{}", moment::stamp(taken_at_ms), cleaned(label))
            }
        };
        if attempt < 2 { Self(stem) } else { Self(format!("{stem}-{attempt}")) }
    }

    /// Reads an id from outside.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        let begins =
            text.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if begins && text.len() <= MAX_ID_CHARS && text.chars().all(known) {
            return Ok(Self(text.to_owned()));
        }
        Err(Problem::new(Code::BackupUnknown, format!("`{text}` is no name of a backup"))
            .hint("`pointsman db list ENV` shows the backups that are there"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The file of this id with an ending: `.manifest.json`.
    pub(crate) fn file(&self, folder: &Path, ending: &str) -> PathBuf {
        folder.join(format!("{}{ending}", self.0))
    }
}

/// What the dump itself is called at the end.
pub(crate) fn ending(format: BackupFormat) -> &'static str {
    match format {
        BackupFormat::Custom => ".dump.zst",
        BackupFormat::SqlGz => ".sql.gz",
    }
}

/// A release's version as it may stand in a name: `v1.2.0`.
fn cleaned(label: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._+".contains(c) { c } else { '-' };
    let text: String = label.chars().take(MAX_LABEL_CHARS).map(plain).collect();
    if text.starts_with(|c: char| c.is_ascii_digit()) { format!("v{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented_and_read_back() {
        let at = 1_705_313_700_000;
        for (format, label, attempt, expected) in [
            (BackupFormat::Custom, "1.2.0", 1, "pre-migration-20240115T101500Z-v1.2.0"),
            (BackupFormat::Custom, "v1.2.0", 2, "pre-migration-20240115T101500Z-v1.2.0-2"),
            (BackupFormat::Custom, "../x y", 1, "pre-migration-20240115T101500Z-..-x-y"),
            (BackupFormat::SqlGz, "1.2.0", 1, "pre-migration-20240115"),
            (BackupFormat::SqlGz, "1.2.0", 3, "pre-migration-20240115-3"),
        ] {
            let id = BackupId::new(format, at, label, attempt);
            assert_eq!(id.as_str(), expected);
            assert_eq!(BackupId::parse(expected).unwrap(), id);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "pre-migration-", "pre-migration-x", "../pre-migration-1", "pre-migration-1/../x", "x"]
        {
            assert!(BackupId::parse(text).is_err(), "{text}");
        }
        assert!(BackupId::parse(&format!("pre-migration-1{}", "1".repeat(200))).is_err());
    }
}
