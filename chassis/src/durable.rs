//! Small files that survive a power cut: written beside, flushed, renamed, and the directory flushed too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file's content in one visible instant. A reader sees the old content or the new, never a part; after
/// this returns, so does whoever starts after a power cut.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = temporary_name(path);
    let write = || -> io::Result<()> {
        // What stands at the temporary name is never written through: it may be a link that leads elsewhere.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode of `open` is cut by the umask.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Left behind it would only take space; the error that counts is the first.
        let _ = std::fs::remove_file(&temporary);
    })?;
    sync_directory(directory)
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
