//! What can go wrong with the journal's file, told to an operator: what it is, which file, and what to type.

use std::path::Path;

use pointsman_chassis::ballast::Ballast;
use pointsman_core::{Aftermath, Code, Problem};
use rusqlite::{ErrorCode, ffi};

use super::line::Silence;
use crate::old_side::clock_time;

/// Why work on the journal did not succeed, before it is known on which file.
#[derive(Debug)]
pub enum Fault {
    /// `SQLite` refused.
    Sqlite(rusqlite::Error),
    /// The problem is known.
    Known(Problem),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Known(problem)
    }
}

/// What an error of `SQLite` means to whoever must mend it.
enum Meaning {
    Full,
    Closed,
    Held,
    Failing,
    Damaged,
    Other,
}

fn meaning(error: &rusqlite::Error) -> Meaning {
    use ErrorCode as Sqlite;
    let Some(failure) = error.sqlite_error() else {
        // A statement or value that is not as this version writes it: somebody or something changed the file.
        return Meaning::Damaged;
    };
    match failure.code {
        Sqlite::DiskFull => Meaning::Full,
        // The file that is shared between readers could not grow.
        Sqlite::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Meaning::Full,
        Sqlite::SystemIoFailure => Meaning::Failing,
        Sqlite::ReadOnly | Sqlite::CannotOpen | Sqlite::PermissionDenied => Meaning::Closed,
        Sqlite::DatabaseBusy | Sqlite::DatabaseLocked => Meaning::Held,
        Sqlite::DatabaseCorrupt
        | Sqlite::NotADatabase
        | Sqlite::ConstraintViolation
        | Sqlite::TypeMismatch
        | Sqlite::SchemaChanged
        | Sqlite::Unknown => Meaning::Damaged,
        _ => Meaning::Other,
    }
}

impl Fault {
    /// Whether the file itself is wrong, and not the way to it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(meaning(error), Meaning::Damaged),
            Self::Known(problem) => problem.code == Code::JournalCorrupt,
        }
    }

    /// Whether more room may be what it lacks: a quota that is used up is told as a write that failed.
    pub fn lacks_room(&self) -> bool {
        let failed = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC];
        match self {
            Self::Sqlite(error) => {
                let code = error.sqlite_error().map(|failure| failure.extended_code);
                matches!(meaning(error), Meaning::Full) || code.is_some_and(|code| failed.contains(&code))
            }
            Self::Known(problem) => problem.code == Code::JournalFull,
        }
    }

    /// The same, told as a want of room where a file could not be made on a disk that has none, bytes or inodes: `SQLite` says
    /// only that it could not open it.
    pub fn on_disk_of(self, ballast: &Ballast, path: &Path) -> Self {
        match self {
            Self::Sqlite(error)
                if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && ballast.is_scarce() =>
            {
                full("the journal cannot be opened: its disk is full", &error, path).into()
            }
            fault => fault,
        }
    }

    /// The problem, with the file it is about.
    pub fn at(self, path: &Path) -> Problem {
        let problem = match self {
            Self::Sqlite(error) => explain(&error, path),
            Self::Known(problem) => problem,
        };
        problem.cause(format!("file `{}`", path.display()))
    }
}

fn explain(error: &rusqlite::Error, path: &Path) -> Problem {
    let (file, folder) = (path.display(), path.parent().unwrap_or(Path::new(".")).display());
    let (what, hint) = match meaning(error) {
        Meaning::Damaged => return corrupt("the journal is damaged").because(error),
        Meaning::Full => return full("the journal cannot be written: its disk is full", error, path),
        Meaning::Closed => (
            "the journal cannot be opened or written",
            format!(
                "on the coordinator: `findmnt -T {folder}` (read-only?), `ls -la {folder}` (owner and mode)"
            ),
        ),
        Meaning::Held => (
            "the journal is held by another process",
            format!("end the backup or shell that holds it: `fuser -v {file}`"),
        ),
        Meaning::Failing => (
            "the journal cannot be read or written: its disk fails",
            format!("on the coordinator: `dmesg | tail`, `df -h {folder}`, `df -i {folder}`"),
        ),
        Meaning::Other => (
            "the journal cannot be read or written",
            format!("on the coordinator: `df -h {folder}`, `ls -la {folder}`"),
        ),
    };
    Problem::new(Code::JournalUnwritable, what)
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint(hint)
}

/// The disk has no room for what is to be recorded.
pub fn full(what: &str, error: &(dyn std::error::Error + 'static), path: &Path) -> Problem {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    Problem::new(Code::JournalFull, what).aftermath(Aftermath::Unknown).retry_useful().because(error).hint(
        format!(
            "make room on the coordinator, then it goes on by itself: `df -h {folder}`, `df -i {folder}`"
        ),
    )
}

/// The disk does not come back from what it was asked, and says nothing.
pub fn silent(Silence { since, sent }: Silence, path: &Path) -> Problem {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    let message = format!("the journal's disk has not answered since {}", clock_time(since));
    let problem = Problem::new(Code::JournalSilent, message).retry_useful().hint(format!(
        "on the coordinator: `findmnt -T {folder}`, `dmesg | tail`; when the disk answers it goes on by itself"
    ));
    let problem = match sent {
        true => problem.aftermath(Aftermath::Unknown).cause(
            "what was to be recorded was sent to it: it counts, if it is found there when the disk answers",
        ),
        false => problem.cause("nothing was sent to it: nothing is recorded"),
    };
    problem.cause(format!("file `{}`", path.display()))
}

/// The record cannot be trusted.
pub fn corrupt(what: impl AsRef<str>) -> Problem {
    Problem::new(Code::JournalCorrupt, what).hint(
        "release nothing, keep a copy of it, and bring the newest good one back: `pointsman explain PM0703`",
    )
}

/// An entry cannot be trusted.
pub fn corrupt_entry(seq: u64, what: impl AsRef<str>) -> Problem {
    corrupt(format!("journal entry {seq} {}", what.as_ref()))
}

/// Something in the journal was written by a later version of pointsman.
pub fn too_new(what: &str, version: impl std::fmt::Display, known: impl std::fmt::Display) -> Problem {
    let message = format!("{what} is of version {version}; this coordinator reads up to {known}");
    Problem::new(Code::StateTooNew, message).hint(
        "install the version that wrote it, or a newer one; this one is `pointsman-coordinator --version`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_it_is_and_what_to_type() {
        let path = Path::new("/state/journal.db");
        for (error, code, what, hint) in [
            (ffi::SQLITE_FULL, Code::JournalFull, "disk is full", "`df -h /state`"),
            (ffi::SQLITE_IOERR_SHMSIZE, Code::JournalFull, "disk is full", "`df -i /state`"),
            (ffi::SQLITE_IOERR_FSYNC, Code::JournalUnwritable, "disk fails", "`dmesg | tail`"),
            (ffi::SQLITE_READONLY, Code::JournalUnwritable, "opened or written", "`findmnt -T /state`"),
            (ffi::SQLITE_CANTOPEN, Code::JournalUnwritable, "opened or written", "`ls -la /state`"),
            (ffi::SQLITE_BUSY, Code::JournalUnwritable, "another process", "`fuser -v /state/journal.db`"),
            (ffi::SQLITE_NOMEM, Code::JournalUnwritable, "read or written", "`df -h /state`"),
            (ffi::SQLITE_CORRUPT, Code::JournalCorrupt, "damaged", "`pointsman explain PM0703`"),
            (ffi::SQLITE_NOTADB, Code::JournalCorrupt, "damaged", "`pointsman explain PM0703`"),
            (
                ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
                Code::JournalCorrupt,
                "damaged",
                "`pointsman explain PM0703`",
            ),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(error), None);
            let problem = Fault::from(error).at(path);
            assert_eq!(problem.code, code, "{problem:?}");
            assert!(problem.message.contains(what) && problem.hint.contains(hint), "{problem:?}");
            assert_eq!(problem.causes.last().map(String::as_str), Some("file `/state/journal.db`"));
        }
    }
}
