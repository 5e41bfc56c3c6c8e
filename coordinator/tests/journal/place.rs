//! A folder for one journal, in memory where the machine has that: these tests open thousands of journals, and what a
//! disk makes of a flush is not what they are about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman_coordinator::journal::JournalStore;
use pointsman_core::Problem;
use tempfile::TempDir;

pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let made = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self(made.unwrap())
    }

    pub fn journal(&self) -> PathBuf {
        self.0.path().join("journal.db")
    }

    pub fn wal(&self) -> PathBuf {
        self.0.path().join("journal.db-wal")
    }

    /// Puts a journal there in place of what is there.
    pub fn put(&self, database: &[u8], wal: Option<&[u8]>) {
        for file in std::fs::read_dir(self.0.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        std::fs::write(self.journal(), database).unwrap();
        if let Some(wal) = wal {
            std::fs::write(self.wal(), wal).unwrap();
        }
    }

    pub fn open(&self) -> Result<JournalStore, Problem> {
        JournalStore::open(&self.journal(), "test")
    }

    /// Every file there with its content.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(self.0.path()).unwrap().map(|file| file.unwrap().path());
        files
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
            })
            .collect()
    }
}
