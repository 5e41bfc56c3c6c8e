//! The only place of the agent that turns paths of a manifest into files: always
//! relative to a directory handle, never through a symbolic link, never above the root.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps};

/// Follow no link, leave no root, enter no other file system.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A directory that all work is relative to.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// What stands at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file of this size.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Link(String),
    /// A pipe, device or socket.
    Other,
}

impl Folder {
    /// Opens the root itself. The path comes from the agent's own configuration.
    pub fn root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a directory below this one.
    pub fn folder(&self, path: &str) -> io::Result<Self> {
        Ok(Self(fs::openat2(&self.0, path, DIRECTORY, Mode::empty(), BENEATH)?))
    }

    /// Another handle of this same directory.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Opens a directory below this one, making what is missing of its path. Every part is opened on its own, so a
    /// link in the way is refused and not followed.
    pub fn make_folder(&self, path: &str) -> io::Result<Self> {
        let mut here = self.again()?;
        for part in path.split('/') {
            here.make_directory(part)?;
            here = here.folder(part)?;
        }
        Ok(here)
    }

    /// Makes a directory with mode 0755; one that is there is fine.
    pub fn make_directory(&self, name: &str) -> io::Result<()> {
        match fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            // Also for one that is there: a kill between making and mode leaves what the umask made of it.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {
                let made = self.folder(name)?;
                // The umask of the daemon hides files from the web server: the mode is set in so many words.
                Ok(fs::fchmod(&made.0, Mode::from_raw_mode(0o755))?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading.
    pub fn open(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(fs::openat2(&self.0, path, flags, Mode::empty(), BENEATH)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
    }

    /// Makes a new file. Nothing may stand at its name: a link there would lead the bytes elsewhere.
    pub fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat2(&self.0, path, flags, Mode::from_raw_mode(0o600), BENEATH)?;
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(File::from(file))
    }

    /// Replaces a file's content in one visible instant, durably, whatever stands at its temporary name.
    pub fn replace(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let temporary = format!("{name}.tmp");
        self.remove(&temporary)?;
        let mut file = self.create(&temporary, mode)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.and_then(|()| self.rename(&temporary, name)).inspect_err(|_| {
            // Left behind it would only take space; the error that counts is the first.
            let _ = self.remove(&temporary);
        })?;
        self.sync()
    }

    /// What stands at a path. No link is followed, neither at its end nor on the way.
    pub fn look(&self, path: &str) -> io::Result<Found> {
        let (folder, name) = match path.rsplit_once('/') {
            Some((parent, name)) => match self.folder(parent) {
                Ok(folder) => (folder, name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(error) => return Err(error),
            },
            None => (self.again()?, path),
        };
        let stat = match fs::statat(&folder.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        Ok(match fs::FileType::from_raw_mode(stat.st_mode) {
            fs::FileType::RegularFile => Found::File(u64::try_from(stat.st_size).unwrap_or(0)),
            fs::FileType::Directory => Found::Directory,
            fs::FileType::Symlink => {
                let target = fs::readlinkat(&folder.0, name, Vec::new())?;
                Found::Link(target.to_string_lossy().into_owned())
            }
            _ => Found::Other,
        })
    }

    /// The permission bits of a file or directory, no link followed.
    pub fn mode(&self, name: &str) -> io::Result<u32> {
        Ok(fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o7777)
    }

    /// Makes a symbolic link where nothing stands.
    pub fn link(&self, name: &str, target: &str) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.0, name)?)
    }

    /// Renames within this directory, over what is there, in one visible instant.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Renames to a place where nothing stands.
    pub fn rename_new(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        Ok(fs::renameat_with(&self.0, from, &to.0, name, RenameFlags::NOREPLACE)?)
    }

    /// Removes a file or link; that it is gone already is fine.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in this directory.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes a directory with all that is in it, no link followed.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        match self.look(name)? {
            Found::Nothing => return Ok(()),
            Found::Directory => {}
            _ => return self.remove(name),
        }
        self.folder(name)?.clear()?;
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes all that is in this directory, by the bytes of its names: they need not be text.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_directory = fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory;
            if is_directory {
                Self(fs::openat2(&self.0, name, DIRECTORY, Mode::empty(), BENEATH)?).clear()?;
            }
            fs::unlinkat(&self.0, name, if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        }
        Ok(())
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    /// Makes everything on this file system durable: one flush for a whole tree.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(self.0.as_fd())?)
    }
}

/// Sets the modification time of an open file, in seconds since 1970.
pub fn set_mtime(file: &File, seconds: u64) -> io::Result<()> {
    let moment = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    Ok(fs::futimens(file, &Timestamps { last_access: moment, last_modification: moment })?)
}
