//! Room set aside on a disk, for what must be recorded although the disk is full: files that are given up when they are needed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

/// How much is set aside, in bytes: a way back writes a few hundred entries of a few kilobytes, and small files beside.
const BYTES: u64 = 2 << 20;

/// Less free room than this is none, in bytes: one change of a database with its log, and a small file that is replaced.
const SCARCE_BYTES: u64 = 512 << 10;

/// How many empty files are set aside beside that, each an inode: a database that is opened makes two files (its log, and the
/// index of it that readers share), and a small file that is replaced needs one meanwhile. Fewer free ones than these are none.
const INODES: u64 = 3;

/// The room that is set aside beside a file. Calls block on the disk.
#[derive(Clone, Debug)]
pub struct Ballast {
    path: PathBuf,
    /// The inode of the file that was written here with what cannot be made smaller; 0 where none was.
    written: Arc<AtomicU64>,
    /// How much room a file takes by its file system's own word, in bytes.
    taken: fn(&Metadata) -> u64,
}

/// Blocks, not length: a file with holes keeps no room.
fn blocks(file: &Metadata) -> u64 {
    file.blocks().saturating_mul(512)
}

/// Sets the room aside when it is dropped, as far as there is some: kept after an open file, it takes what closing that gives
/// back. A database that is closed removes two files, and on a disk without inodes it cannot be opened again without them.
#[derive(Debug)]
pub struct WhenClosed(Arc<Ballast>);

impl WhenClosed {
    /// Sets this room aside.
    pub fn set_aside(ballast: &Arc<Ballast>) -> Self {
        Self(Arc::clone(ballast))
    }
}

impl Drop for WhenClosed {
    fn drop(&mut self) {
        // What lacks was told while somebody could still do something about it.
        let _ = self.0.set_aside();
    }
}

impl Ballast {
    /// The room on the disk that this file is on.
    pub fn beside(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".ballast");
        Self { path: name.into(), written: Arc::default(), taken: blocks }
    }

    /// Sets the room aside, where it is not. An error says that there is none, or not all of it, or why it cannot be had.
    pub fn set_aside(&self) -> io::Result<()> {
        // Inodes first: where those lack, this is all that can be had.
        for spare in self.spares().filter(|spare| !is_file(spare)) {
            make(&spare)?;
        }
        if self.has_blocks() {
            return Ok(());
        }
        self.fill().inspect_err(|_| drop(fs::remove_file(&self.path)))
    }

    /// Sets the room aside where as much again is left free: whoever is led back just now may write beside this file, too. Says
    /// whether it is there.
    pub fn keep(&self) -> bool {
        let enough = |(bytes, inodes)| bytes >= 2 * BYTES && inodes >= 2 * (INODES + 1);
        self.is_there() || (self.free().is_some_and(enough) && self.set_aside().is_ok())
    }

    /// Whether its disk has hardly any room left, in bytes or in inodes. Not where that cannot be told.
    pub fn is_scarce(&self) -> bool {
        self.free().is_some_and(|(bytes, inodes)| bytes < SCARCE_BYTES || inodes < INODES)
    }

    /// What is free on its disk, in bytes and in inodes; none where that cannot be told. A file system that counts no inodes has
    /// enough of them.
    fn free(&self) -> Option<(u64, u64)> {
        let room = rustix::fs::statvfs(self.folder()).ok()?;
        let inodes = if room.f_files > 0 { room.f_favail } else { u64::MAX };
        Some((room.f_bavail.saturating_mul(room.f_frsize), inodes))
    }

    fn spares(&self) -> impl Iterator<Item = PathBuf> {
        (1..=INODES).map(|number| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!("-{number}"));
            name.into()
        })
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    /// Whether the room is set aside, all of it.
    pub fn is_there(&self) -> bool {
        self.has_blocks() && self.spares().all(|spare| is_file(&spare))
    }

    fn has_blocks(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.is_file() && (self.is_taken(&file) || self.was_written(&file)))
    }

    fn is_taken(&self, file: &Metadata) -> bool {
        (self.taken)(file) >= BYTES
    }

    /// Whether this is the file that was written and flushed here. Its room is taken also where the file system counts blocks
    /// seconds later, as ZFS does, or never: asking it again would have the file made anew each time.
    fn was_written(&self, file: &Metadata) -> bool {
        file.ino() == self.written.load(Ordering::Relaxed) && file.len() >= BYTES
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = make(&self.path)?;
        if !reserve(&file)? || !self.is_taken(&file.metadata()?) {
            write_noise(&mut file)?;
            self.written.store(file.metadata()?.ino(), Ordering::Relaxed);
        }
        file.sync_all()
    }

    /// Gives the room up. Says whether there was some.
    pub fn give_up(&self) -> bool {
        let files = self.spares().chain([self.path.clone()]);
        let given = files.filter(|file| fs::remove_file(file).is_ok()).count() > 0;
        self.written.store(0, Ordering::Relaxed);
        if given {
            warn!(file = %self.path.display(), "the disk is full: the room that was set aside is given up for the way back");
        }
        given
    }

    /// Gives the room up where the disk has hardly any left, so that whatever is written next finds some.
    pub fn make_room(&self) {
        if self.is_scarce() {
            self.give_up();
        }
    }
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file())
}

/// Makes an empty file. What stands at the name is not written through: it may be a link that leads elsewhere.
fn make(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Has the file system set the blocks aside. Says whether it knows how; some say that they do and set none aside.
fn reserve(file: &File) -> io::Result<bool> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => Ok(true),
        Err(error) if [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].contains(&error) => {
            Err(error.into())
        }
        Err(_) => Ok(false),
    }
}

/// Writes what no file system can make smaller, nor share with another file: bytes by chance (`SplitMix64`), begun with the
/// standard library's keys.
fn write_noise(file: &mut File) -> io::Result<()> {
    let mut state = RandomState::new().build_hasher().finish();
    let mut block = [0; 4096];
    for _ in 0..BYTES.div_ceil(4096) {
        for piece in block.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            piece.copy_from_slice(&(mixed ^ (mixed >> 31)).to_ne_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
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
        let spare = folder.path().join("ledger.db.ballast-3");
        assert!(is_file(&spare) && ballast.is_there());
        assert!(ballast.give_up() && !ballast.give_up());
        assert!(!is_file(&spare), "an inode is kept back");
        assert!(!ballast.is_there() && ballast.keep() && ballast.is_there() && ballast.give_up());
        // A file that only claims to be that long keeps no room, and a link is not written through.
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        ballast.set_aside().unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert!(is_file(&file));
        // One inode that somebody took is set aside anew, and the rest stays as it is.
        let made = fs::metadata(&file).unwrap().ino();
        fs::remove_file(&spare).unwrap();
        assert!(!ballast.is_there());
        drop(WhenClosed::set_aside(&Arc::new(ballast.clone())));
        assert!(ballast.is_there() && fs::metadata(&file).unwrap().ino() == made);
    }
    /// ZFS says that it sets blocks aside, sets none aside, makes smaller what it can, and counts what it wrote seconds later.
    #[test]
    fn room_is_set_aside_once_also_where_the_file_system_does_not_count_it() {
        let folder = tempfile::tempdir().unwrap();
        let uncounted = || Ballast { taken: |_| 0, ..Ballast::beside(&folder.path().join("ledger.db")) };
        let file = folder.path().join("ledger.db.ballast");
        let ballast = uncounted();
        ballast.set_aside().unwrap();
        assert!(ballast.is_there());
        let made = fs::metadata(&file).unwrap();
        ballast.set_aside().unwrap();
        let still = fs::metadata(&file).unwrap();
        assert_eq!((still.ino(), still.modified().unwrap()), (made.ino(), made.modified().unwrap()));
        let held = fs::read(&file).unwrap();
        assert_eq!(held.len() as u64, BYTES);
        // Every value of a byte about as often as every other: nothing that compression lives on.
        let mut times = [0_u64; 256];
        held.iter().for_each(|byte| times[usize::from(*byte)] += 1);
        let usual = BYTES / 256;
        assert!(times.iter().all(|times| (usual * 9 / 10..usual * 11 / 10).contains(times)), "{times:?}");
        let blocks: std::collections::BTreeSet<&[u8]> = held.chunks(4096).collect();
        assert_eq!(blocks.len() as u64, BYTES / 4096, "a block comes twice");

        // Another one does not know of it, and makes it anew, once. What somebody else put there is none.
        let next = uncounted();
        assert!(!next.is_there());
        next.set_aside().unwrap();
        assert!(next.is_there() && next.keep());
        assert!(next.give_up() && !next.is_there());
        fs::write(&file, vec![0; 64]).unwrap();
        assert!(!next.is_there());
    }
}
