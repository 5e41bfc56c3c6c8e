//! Room set aside on a disk, for what must be recorded although the disk is full: a file that is given up when it is needed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

/// How much is set aside, in bytes: a way back writes a few hundred entries of a few kilobytes, and small files beside.
const BYTES: u64 = 2 << 20;

/// Less free room than this is none, in bytes: one change of a database with its log, and a small file that is replaced.
const SCARCE_BYTES: u64 = 512 << 10;

/// The room that is set aside beside a file. Calls block on the disk.
#[derive(Clone, Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// The room on the disk that this file is on.
    pub fn beside(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".ballast");
        Self { path: name.into() }
    }

    /// Sets the room aside, where it is not. An error says that there is none, or why it cannot be had; then nothing is kept of
    /// it.
    pub fn set_aside(&self) -> io::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        self.fill().inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    /// Sets the room aside where as much again is left free: whoever is led back just now may write beside this file, too. Says
    /// whether it is there.
    pub fn keep(&self) -> bool {
        self.is_there() || (self.free().is_some_and(|free| free >= 2 * BYTES) && self.set_aside().is_ok())
    }

    /// What is free on its disk, in bytes; none where that cannot be told, or there is no inode for it.
    fn free(&self) -> Option<u64> {
        let room = rustix::fs::statvfs(self.folder()).ok()?;
        let no_inode = room.f_files > 0 && room.f_favail == 0;
        (!no_inode).then_some(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    /// Whether the room is set aside.
    pub fn is_there(&self) -> bool {
        // Blocks, not length: a file with holes keeps no room.
        fs::symlink_metadata(&self.path).is_ok_and(|file| file.is_file() && file.blocks() * 512 >= BYTES)
    }

    fn fill(&self) -> io::Result<()> {
        // What stands at the name is not written through: it may be a link that leads elsewhere.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        reserve(&mut file)?;
        file.sync_all()
    }

    /// Gives the room up. Says whether there was some.
    pub fn give_up(&self) -> bool {
        let given = fs::remove_file(&self.path).is_ok();
        if given {
            warn!(file = %self.path.display(), "the disk is full: the room that was set aside is given up for the way back");
        }
        given
    }

    /// Gives the room up where the disk has hardly any left, so that whatever is written next finds some.
    pub fn make_room(&self) {
        let Ok(room) = rustix::fs::statvfs(self.folder()) else { return };
        let no_inode = room.f_files > 0 && room.f_favail == 0;
        if no_inode || room.f_bavail.saturating_mul(room.f_frsize) < SCARCE_BYTES {
            self.give_up();
        }
    }
}

/// Has the file system set the blocks aside; where it cannot, they are written.
fn reserve(file: &mut File) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, BYTES) {
        Err(error) if ![rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].contains(&error) => {
            let block = [0x5a; 4096];
            for _ in 0..BYTES.div_ceil(4096) {
                file.write_all(&block)?;
            }
            Ok(())
        }
        reserved => Ok(reserved?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_set_aside_once_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&folder.path().join("ledger.db"));
        assert!(!ballast.give_up(), "nothing was set aside");
        ballast.set_aside().unwrap();
        let file = folder.path().join("ledger.db.ballast");
        let made = fs::metadata(&file).unwrap().ino();
        ballast.set_aside().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), made, "it was made anew");
        assert!(ballast.give_up() && !ballast.give_up());
        assert!(!ballast.is_there() && ballast.keep() && ballast.is_there() && ballast.give_up());
        // A file that only claims to be that long keeps no room, and a link is not written through.
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        ballast.set_aside().unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
    }
}
