//! A file that becomes visible complete or never: written as `.part`, flushed, renamed without replacing anything.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use pointsman_chassis::durable;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The ending while it is written.
pub(crate) const ENDING: &str = ".part";

/// A file that is being written. Dropped before it is published it is gone.
#[derive(Debug)]
pub(crate) struct Part {
    temporary: PathBuf,
    path: PathBuf,
}

impl Part {
    fn temporary_of(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(ENDING);
        PathBuf::from(name)
    }

    /// Takes away what a crash left of it, if nobody else can be writing it.
    pub(crate) fn clear(path: &Path) {
        _ = std::fs::remove_file(Self::temporary_of(path));
    }

    /// Begins the file; only its owner may read it. Fails if one of that name is being written already.
    pub(crate) fn begin(path: &Path) -> io::Result<(Self, File)> {
        let temporary = Self::temporary_of(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok((Self { temporary, path: path.to_owned() }, file))
    }

    /// The file under the name that it has meanwhile.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name, durably. Its content must have been flushed. A file of that name is never replaced.
    pub(crate) fn publish(self) -> io::Result<()> {
        renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::NOREPLACE)?;
        durable::sync_directory(self.path.parent().unwrap_or(Path::new("/")))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Not there after it was published.
        _ = std::fs::remove_file(&self.temporary);
    }
}

/// Writes a small file the same way.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    written(path, content)?.publish()
}

/// A small file that is written, durably, and has not got its name yet.
pub(crate) fn written(path: &Path, content: &[u8]) -> io::Result<Part> {
    use std::io::Write as _;
    let (part, mut file) = Part::begin(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    durable::sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    Ok(part)
}

/// Takes a file its name again, durably: it is as it was before it was published.
pub(crate) fn withhold(path: &Path) -> io::Result<()> {
    std::fs::rename(path, Part::temporary_of(path))?;
    durable::sync_directory(path.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_replaced_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write(&path, b"first").unwrap();
        assert_eq!(write(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
