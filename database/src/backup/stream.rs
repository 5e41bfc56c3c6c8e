//! What flows between PostgreSQL's programs and files: compressed, hashed and counted on the way, on threads that may
//! block.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// How much is moved at once: what a pipe holds.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// zstd's level: on tables of rows an eighth of the time of `gzip`, and smaller. Level 3 takes twice as long, and is not
/// smaller there (measured).
const LEVEL: i32 = 1;
/// How long a pipe is left to fill. `pg_dump` writes 4 KiB at a time: a reader that is woken by each of them costs both
/// sides more than all the reading and writing (measured).
const FILL: Duration = Duration::from_millis(3);
/// How often it is looked whether enough stays free, in bytes that were written.
const LOOK_EVERY: u64 = 8 << 20;
/// How often the progress is told, in bytes that were read.
const TELL_EVERY: u64 = 8 << 20;
/// Where the end of a plain dump is looked for: a line `\unrestrict` may follow the marker.
const TAIL_BYTES: usize = 512;
const END_MARKER: &[u8] = b"-- PostgreSQL database dump complete";

/// What was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Bytes that came in.
    pub raw_bytes: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// A file that grows only as long as so much of its filesystem stays free: beside it a server may keep its data.
#[derive(Debug)]
pub(crate) struct AboveFloor {
    file: File,
    floor_bytes: u64,
    /// Bytes that were written since the last look.
    unlooked: u64,
}

impl AboveFloor {
    pub(crate) fn new(file: File, floor_bytes: u64) -> Self {
        Self { file, floor_bytes, unlooked: LOOK_EVERY }
    }

    fn look(&mut self) -> io::Result<()> {
        let found = rustix::fs::fstatvfs(&self.file)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < self.floor_bytes {
            let message =
                format!("{} MiB are free, and {} MiB must stay so", free >> 20, self.floor_bytes >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        self.unlooked = 0;
        Ok(())
    }
}

impl Write for AboveFloor {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.unlooked >= LOOK_EVERY {
            self.look()?;
        }
        let count = self.file.write(buffer)?;
        self.unlooked = self.unlooked.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Compresses what comes in with zstd and flushes the file.
pub(crate) fn compress(from: impl Read, file: AboveFloor, tell: impl FnMut(u64)) -> io::Result<Written> {
    let mut encoder = zstd::Encoder::new(Hashing::new(file), LEVEL)?;
    encoder.include_checksum(true)?;
    let raw_bytes = copy(from, &mut encoder, tell)?;
    Ok(Written { raw_bytes, ..encoder.finish()?.flushed()? })
}

/// Writes what comes in as it is and flushes the file.
pub(crate) fn store(from: impl Read, file: AboveFloor, tell: impl FnMut(u64)) -> io::Result<Written> {
    let mut hashing = Hashing::new(file);
    let raw_bytes = copy(from, &mut hashing, tell)?;
    Ok(Written { raw_bytes, ..hashing.flushed()? })
}

/// What is in a compressed file.
pub(crate) fn decompressing(path: &Path) -> io::Result<impl Read + use<>> {
    zstd::Decoder::new(File::open(path)?)
}

/// SHA-256 of a file and its length.
pub(crate) fn digest(path: &Path, tell: impl FnMut(u64)) -> io::Result<Written> {
    let mut hashing = Hashing { into: io::sink(), hash: Sha256::new(), bytes: 0 };
    copy(File::open(path)?, &mut hashing, tell)?;
    Ok(hashing.counted().1)
}

/// Moves everything. Says from time to time how much it was.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write, mut tell: impl FnMut(u64)) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut total, mut told) = (0_u64, 0_u64);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        total = total.saturating_add(count as u64);
        if total.saturating_sub(told) >= TELL_EVERY {
            told = total;
            tell(total);
        }
    }
}

/// Hashes and counts what goes into a file.
struct Hashing<W> {
    into: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(into: W) -> Self {
        Self { into, hash: Sha256::new(), bytes: 0 }
    }

    fn counted(self) -> (W, Written) {
        let sha256 = hexadecimal(&self.hash.finalize());
        (self.into, Written { raw_bytes: 0, bytes: self.bytes, sha256 })
    }
}

impl Hashing<AboveFloor> {
    fn flushed(self) -> io::Result<Written> {
        let (file, written) = self.counted();
        file.file.sync_all()?;
        Ok(written)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.into.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Looks for the end marker of a plain dump in what flows through.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    /// Whether the end that went by says that the dump is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.windows(END_MARKER.len()).any(|window| window == END_MARKER)
    }
}

impl Write for Tail {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let from = buffer.len().saturating_sub(TAIL_BYTES);
        self.0.extend_from_slice(buffer.get(from..).unwrap_or_default());
        let surplus = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a pipe seldom: what one read finds little in is left to fill for a moment. It keeps nothing back.
pub(crate) struct Gathering<R>(pub R);

impl<R: Read> Read for Gathering<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        if (1..CHUNK_BYTES / 4).contains(&count) {
            std::thread::sleep(FILL);
        }
        Ok(count)
    }
}

/// A reader with a buffer of one chunk.
pub(crate) fn buffered<R: Read>(from: R) -> BufReader<R> {
    BufReader::with_capacity(CHUNK_BYTES, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_and_its_digest_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let content = b"pointsman ".repeat(100_000);
        let file = AboveFloor::new(File::create(&path).unwrap(), 0);
        let written = compress(&content[..], file, |_| {}).unwrap();
        assert_eq!(written.raw_bytes, content.len() as u64);
        assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
        let found = digest(&path, |_| {}).unwrap();
        assert_eq!((found.bytes, found.sha256), (written.bytes, written.sha256));
        let mut back = Vec::new();
        copy(decompressing(&path).unwrap(), &mut back, |_| {}).unwrap();
        assert_eq!(back, content);
    }

    #[test]
    fn a_file_does_not_grow_below_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, floor_bytes| {
            AboveFloor::new(File::create(folder.path().join(name)).unwrap(), floor_bytes)
        };
        let refused = store(&b"x"[..], file("a", u64::MAX), |_| {}).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        // Enough at first, and not any more: it is looked at again while the file grows.
        let mut growing = file("b", 0);
        let chunk = vec![0; CHUNK_BYTES];
        growing.write_all(&chunk).unwrap();
        growing.floor_bytes = u64::MAX;
        let grown = (0..LOOK_EVERY >> 20).find(|_| growing.write_all(&chunk).is_err());
        assert_eq!(grown, Some((LOOK_EVERY >> 20) - 1));
    }

    #[test]
    fn the_marker_is_found_at_the_end_only() {
        let complete = |text: &str| {
            let mut tail = Tail::default();
            text.as_bytes().chunks(100).for_each(|chunk| tail.write_all(chunk).unwrap());
            tail.is_complete()
        };
        let marker = "--\n-- PostgreSQL database dump complete\n--\n\n";
        assert!(complete(marker));
        assert!(complete(&format!("{}{marker}\\unrestrict abc\n", "x".repeat(3000))));
        assert!(!complete(&format!("{marker}{}", "x".repeat(600))));
        assert!(!complete("--\n-- PostgreSQL database dump comp"));
    }
}
