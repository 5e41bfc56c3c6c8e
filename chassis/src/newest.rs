//! The newest of something small that is written often, each second and for many files: as durable as
//! [`crate::durable::replace`], for a fraction of its work. A file has two places, written in turn and in place: no file is
//! made, renamed or removed, and no directory flushed. Whatever is cut short leaves the other place as it was.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::durable;

/// The first bytes of each place. A change of the form changes them.
const MARK: [u8; 8] = *b"newest 1";
/// Bytes from one place to the other.
const PLACE: usize = 64 * 1024;
/// Bytes before a content: mark, number, length and checksum.
const HEAD: usize = 8 + 8 + 4 + 32;

/// Largest content, in bytes.
pub const MOST: usize = PLACE - HEAD;
/// Largest file, in bytes.
pub const MOST_FILE: u64 = 2 * PLACE as u64;

/// A file that is written often, by this alone.
#[derive(Debug)]
pub struct Newest {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// The number of the newest content.
    number: u64,
}

impl Newest {
    /// Nothing is written yet, and what stands in the file stays.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Puts a content in place of the one before. It survives a power cut when this returns; one that is cut short, or fails,
    /// leaves the one before.
    ///
    /// # Errors
    /// The file cannot be written, or the content is larger than [`MOST`].
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        if content.len() > MOST {
            return Err(io::Error::other(format!("{} bytes are too many", content.len())));
        }
        // After a failure nobody knows what stands in the file.
        let open = match self.open.take() {
            // Somebody has removed it, or put another one there.
            Some(open) if open.file.metadata()?.nlink() == 0 => self.begin(content)?,
            Some(Open { file, number }) => {
                let number = number.wrapping_add(1);
                file.write_all_at(&placed(number, content), offset(number))?;
                file.sync_data()?;
                Open { file, number }
            }
            None => self.begin(content)?,
        };
        self.open = Some(open);
        Ok(())
    }

    /// The first write replaces the file, whatever it was.
    fn begin(&self, content: &[u8]) -> io::Result<Open> {
        durable::replace(&self.path, &placed(0, content), 0o600)?;
        Ok(Open { file: OpenOptions::new().write(true).open(&self.path)?, number: 0 })
    }
}

fn offset(number: u64) -> u64 {
    if number.is_multiple_of(2) { 0 } else { PLACE as u64 }
}

fn checksum(number: u64, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(content);
    *hasher.finalize().as_bytes()
}

fn placed(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD.saturating_add(content.len()));
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&checksum(number, content));
    bytes.extend_from_slice(content);
    bytes
}

/// The whole content of one place, with its number.
fn content_of(place: &[u8]) -> Option<(u64, &[u8])> {
    let rest = place.strip_prefix(&MARK)?;
    let (number, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (known, rest) = rest.split_first_chunk::<32>()?;
    let number = u64::from_le_bytes(*number);
    let content = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (checksum(number, content) == *known).then_some((number, content))
}

/// The newest whole content of a file.
///
/// # Errors
/// There is no such file, it cannot be read or is larger than [`MOST_FILE`], or nothing whole is in it.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > MOST_FILE {
        return Err(io::Error::other(format!("{length} bytes are too many")));
    }
    let bytes = std::fs::read(path)?;
    let (first, second) = bytes.split_at_checked(PLACE).unwrap_or((&bytes, &[]));
    let whole = [first, second].into_iter().filter_map(content_of).max_by_key(|(number, _)| *number);
    whole.map(|(_, content)| content.to_vec()).ok_or_else(|| io::Error::other("its checksum is wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        (folder, path)
    }

    #[test]
    fn the_newest_is_read_whoever_wrote_what_was_there() {
        let (_folder, path) = file();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, b"something else").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("checksum"));
        for life in 0..3u8 {
            let mut newest = Newest::new(path.clone());
            for number in 0..5u8 {
                let content = vec![number; 2_000 + usize::from(life * number) * 100];
                newest.write(&content).unwrap();
                assert_eq!(read(&path).unwrap(), content);
            }
            // Shorter than what stood in its place.
            newest.write(&[life]).unwrap();
            assert_eq!(read(&path).unwrap(), [life]);
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= MOST_FILE);
    }

    #[test]
    fn what_is_cut_short_anywhere_leaves_the_one_before() {
        let (_folder, path) = file();
        let mut newest = Newest::new(path.clone());
        for number in 1..=3u8 {
            newest.write(&[number; 300]).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        let next = placed(3, &[4; 300]);
        let at = usize::try_from(offset(3)).unwrap();
        for cut in 0..next.len() {
            let mut torn = before.clone();
            torn[at..at + cut].copy_from_slice(&next[..cut]);
            std::fs::write(&path, &torn).unwrap();
            // Until the last byte that differs is there it is the one before, never a part.
            assert!([[3; 300], [4; 300]].iter().any(|whole| read(&path).unwrap() == whole), "{cut}");
        }
        let mut torn = before.clone();
        torn[at..at + 100].copy_from_slice(&next[..100]);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(read(&path).unwrap(), [3; 300]);
    }

    #[test]
    fn bounds_hold_and_a_file_that_was_removed_comes_back() {
        let (_folder, path) = file();
        let mut newest = Newest::new(path.clone());
        newest.write(&vec![7; MOST]).unwrap();
        newest.write(&vec![8; MOST]).unwrap();
        assert_eq!(read(&path).unwrap(), vec![8; MOST]);
        assert!(newest.write(&vec![9; MOST + 1]).is_err());
        newest.write(b"again").unwrap();
        std::fs::remove_file(&path).unwrap();
        newest.write(b"and again").unwrap();
        assert_eq!(read(&path).unwrap(), b"and again");
        std::fs::write(&path, vec![0; 2 * PLACE + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("too many"));
    }
}
