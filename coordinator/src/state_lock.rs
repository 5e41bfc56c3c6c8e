//! The lock on a coordinator's state directory: two coordinators on one journal would both be right, so the second does
//! not start. It ends with the process, however that ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use pointsman_core::{Code, Problem};

/// Takes the lock, for as long as the file is kept.
pub fn lock(state: &Path) -> Result<File, Problem> {
    let (path, folder) = (state.join("lock"), state.display());
    let file = File::create(&path).map_err(|error| {
        Problem::new(Code::JournalUnwritable, format!("the state directory `{folder}` cannot be written"))
            .because(&error)
            .cause(format!("file `{}`", path.display()))
            .hint(format!(
                "on the coordinator: `findmnt -T {folder}` (read-only?), `df -h {folder}`, `df -i {folder}`, \
                 `ls -la {folder}` (owner and mode)"
            ))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Problem::new(
            Code::StateInUse,
            format!("another coordinator uses the state directory `{folder}`"),
        )
        .hint(format!("see which: `fuser -v {}`; end the one that is not to run", path.display()))),
        Err(TryLockError::Error(error)) => Err(Problem::new(
            Code::JournalUnwritable,
            format!("the file `{}` cannot be locked", path.display()),
        )
        .because(&error)
        .hint(format!("put the state on a disk that has locks, not on a share: `findmnt -T {folder}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_it_and_the_other_hears_why() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let problem = lock(folder.path()).map(drop).unwrap_err();
        assert_eq!(problem.code, Code::StateInUse);
        assert!(problem.hint.contains("`fuser -v "), "{problem:?}");
        drop(held);
        assert!(lock(folder.path()).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named_with_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("gone");
        let problem = lock(&state).map(drop).unwrap_err();
        assert_eq!(problem.code, Code::JournalUnwritable);
        assert!(problem.message.contains(&state.display().to_string()), "{problem:?}");
        assert!(problem.causes.iter().any(|cause| cause.contains("No such file")), "{problem:?}");
        for typed in ["findmnt -T", "df -h"] {
            assert!(problem.hint.contains(&format!("`{typed} {}`", state.display())), "{problem:?}");
        }
    }
}
