//! Small files that survive a power cut: written beside, flushed, renamed, and the directory flushed too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file's content in one visible instant. A reader sees the old content or the new, never a part; after
/// this returns, so does whoever starts after a power cut.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let staged = Staged::write(path, content, mode)?;
    staged.publish()?;
    staged.settle()
}

/// A new content that lies flushed beside the file it is to replace. Dropped before it is published it is gone.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes and flushes the new content beside the file. Nothing that anybody reads changes.
    pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let staged = Self { temporary: temporary_name(path), path: path.to_owned() };
        // What stands at the temporary name is never written through: it may be a link that leads elsewhere.
        match std::fs::remove_file(&staged.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged.temporary)?;
        // The mode of `open` is cut by the umask.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Puts the new content in place: from now on readers see it, also after a crash of this process.
    pub fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.path)
    }

    /// Flushes the directory: afterwards the new content stands after a power cut too.
    pub fn settle(&self) -> io::Result<()> {
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        sync_directory(directory.unwrap_or(Path::new(".")))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not there after it was published; left behind it would only take space.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Makes renames and removals in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        replace(&path, b"old", 0o644).unwrap();
        // A directory at the temporary name makes the write fail half-way, as a full disk would.
        std::fs::create_dir(folder.path().join("x.tmp")).unwrap();
        assert!(replace(&path, b"new", 0o644).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
