//! The coordinator's store of artifacts: every content once, by its hash, and a manifest for each artifact.
//!
//! The modification time of a content's file is the moment it was first published, in whole seconds, and no two
//! publications share one: web servers make validators from time and size, and content that changes must never keep
//! its validator.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_chassis::artifact::{Offer, PieceCheck, Place, digest_of, file_problem, receive_pieces};
use pointsman_chassis::durable;
use pointsman_core::manifest::Manifest;
use pointsman_core::{ArtifactDigest, Code, ContentHash, Problem};
use pointsman_proto::v1;
use tokio::sync::mpsc;
use tonic::Streaming;

/// An upload that brings nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(30);
/// Pieces between network and disk.
const PIECES_UNDER_WAY: usize = 16;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct ArtifactStore {
    root: PathBuf,
    /// The second of the last publication; the next gets a later one.
    last_second: Arc<Mutex<u64>>,
}

fn failed(what: &str, error: &io::Error) -> Problem {
    let mut problem = file_problem(what, error);
    if problem.code == Code::FileSystem {
        problem.code = Code::StoreUnwritable;
    }
    problem
        .hint("on the coordinator: `df -h /var/lib/pointsman-coordinator`, owner and mode of the files there")
}

impl ArtifactStore {
    /// Opens or creates the store in a folder.
    pub fn open(root: PathBuf) -> Result<Self, Problem> {
        for folder in ["objects", "manifests", "offered", "incoming"] {
            fs::create_dir_all(root.join(folder))
                .map_err(|error| failed("cannot make the artifact store", &error))?;
        }
        let last =
            fs::read_to_string(root.join("last-second")).ok().and_then(|text| text.trim().parse().ok());
        Ok(Self { root, last_second: Arc::new(Mutex::new(last.unwrap_or(0))) })
    }

    fn object(&self, content: &ContentHash) -> PathBuf {
        let name = content.to_string();
        let (fan, rest) = name.split_at(2);
        self.root.join("objects").join(fan).join(rest)
    }

    fn manifest_path(&self, folder: &str, artifact: &ArtifactDigest) -> PathBuf {
        self.root.join(folder).join(artifact.to_string())
    }

    fn has_content(&self, content: &ContentHash, size: u64) -> bool {
        fs::metadata(self.object(content)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// The manifest of a complete artifact, with its canonical bytes.
    pub fn manifest(&self, artifact: &ArtifactDigest) -> Result<(Manifest, Vec<u8>), Problem> {
        self.read_manifest("manifests", artifact)
    }

    fn read_manifest(&self, folder: &str, artifact: &ArtifactDigest) -> Result<(Manifest, Vec<u8>), Problem> {
        let bytes = fs::read(self.manifest_path(folder, artifact)).map_err(|error| {
            Problem::new(Code::ArtifactMissing, format!("artifact {} is not in the store", artifact.short()))
                .because(&error)
                .hint("publish it: `pointsman deploy ENV --artifact DIR --release ID` with the folder itself")
        })?;
        if digest_of(&bytes) != *artifact {
            return Err(Problem::new(
                Code::ContentMismatch,
                format!("the stored manifest of artifact {} is damaged", artifact.short()),
            ));
        }
        Ok((Manifest::decode(&bytes)?, bytes))
    }

    /// The publication second of every content of a manifest.
    pub fn mtimes(&self, manifest: &Manifest) -> Result<Vec<u64>, Problem> {
        let contents = manifest.contents();
        let times = contents.iter().map(|(content, _)| {
            let metadata = fs::metadata(self.object(content))?;
            Ok(u64::try_from(metadata.mtime()).unwrap_or(0))
        });
        times
            .collect::<io::Result<_>>()
            .map_err(|error| failed("a content of the artifact is gone from the store", &error))
    }

    /// Opens a content for reading.
    pub fn content(&self, content: &ContentHash) -> io::Result<File> {
        File::open(self.object(content))
    }

    /// Takes an offer: keeps its manifest, and says which contents are not here yet.
    pub fn offer(&self, offer: &Offer) -> Result<v1::ArtifactNeed, Problem> {
        let contents = offer.manifest.contents();
        let lacking =
            (0u32..).zip(&contents).filter(|(_, (content, size))| !self.has_content(content, *size));
        let missing: Vec<u32> = lacking.map(|(number, _)| number).collect();
        let path = self.manifest_path("offered", &offer.artifact);
        durable::replace(&path, &offer.manifest_bytes, 0o640)
            .map_err(|error| failed("cannot keep the manifest", &error))?;
        if missing.is_empty() {
            self.complete(&offer.artifact)?;
        }
        Ok(v1::ArtifactNeed { artifact: offer.artifact.to_string(), complete: missing.is_empty(), missing })
    }

    /// Receives what was missing; afterwards the artifact is complete.
    pub async fn receive(
        &self,
        artifact: ArtifactDigest,
        messages: Streaming<v1::ContentPiece>,
    ) -> Result<v1::ContentReceipt, Problem> {
        let (manifest, _) = self.read_manifest("offered", &artifact)?;
        let check = PieceCheck::new(&manifest);
        let (sink, pieces) = mpsc::channel(PIECES_UNDER_WAY);
        let store = self.clone();
        let writer = tokio::task::spawn_blocking(move || store.write_contents(&artifact, &manifest, pieces));
        let received = receive_pieces(messages, check, sink, IDLE).await;
        let ended = |error| {
            Problem::new(Code::StoreUnwritable, "writing the artifact ended abruptly")
                .retry_useful()
                .because(&error)
        };
        writer.await.map_err(&ended)??;
        let (received_bytes, received_contents) = received?;
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.complete(&artifact)).await.map_err(ended)??;
        Ok(v1::ContentReceipt { artifact: artifact.to_string(), received_bytes, received_contents })
    }

    fn write_contents(
        &self,
        artifact: &ArtifactDigest,
        manifest: &Manifest,
        mut pieces: mpsc::Receiver<(v1::ContentPiece, Place)>,
    ) -> Result<(), Problem> {
        let failed = |error: io::Error| failed("cannot write to the artifact store", &error);
        let contents = manifest.contents();
        let second = self.next_second().map_err(failed)?;
        // One upload has one name here: two of the same artifact at once write the same bytes to files of their own.
        let incoming = tempfile_in(&self.root.join("incoming"), artifact);
        let mut open: Option<File> = None;
        while let Some((piece, place)) = pieces.blocking_recv() {
            let Some((content, _)) =
                usize::try_from(piece.content).ok().and_then(|number| contents.get(number))
            else {
                continue;
            };
            if place.first {
                open = Some(File::create(&incoming).map_err(failed)?);
            }
            let Some(file) = &mut open else { continue };
            file.write_all(&piece.data).map_err(failed)?;
            if place.last {
                file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).map_err(failed)?;
                let object = self.object(content);
                if let Some(folder) = object.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
                fs::rename(&incoming, &object).map_err(failed)?;
                open = None;
            }
        }
        // Left over from a transfer that broke off; if it is not there, all the better.
        let _ = fs::remove_file(&incoming);
        let root = File::open(&self.root).map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(|error| failed(error.into()))
    }

    /// The second that marks the contents of one publication: now, or one after the last.
    fn next_second(&self) -> io::Result<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut last = self.last_second.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now.max(last.saturating_add(1));
        durable::replace(&self.root.join("last-second"), format!("{second}\n").as_bytes(), 0o640)?;
        *last = second;
        Ok(second)
    }

    /// Names an artifact complete, if every content of it is here.
    fn complete(&self, artifact: &ArtifactDigest) -> Result<(), Problem> {
        let (manifest, bytes) = self.read_manifest("offered", artifact)?;
        let lacking = manifest
            .contents()
            .into_iter()
            .filter(|(content, size)| !self.has_content(content, *size))
            .count();
        if lacking > 0 {
            return Err(Problem::new(
                Code::TransferBroken,
                format!("{lacking} contents of the artifact did not arrive"),
            )
            .retry_useful());
        }
        let path = self.manifest_path("manifests", artifact);
        durable::replace(&path, &bytes, 0o640).map_err(|error| failed("cannot keep the manifest", &error))
    }
}

/// A name for one upload's file, of its own for every call.
fn tempfile_in(folder: &Path, artifact: &ArtifactDigest) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static UPLOADS: AtomicU64 = AtomicU64::new(0);
    folder.join(format!("{}-{}", artifact.short(), UPLOADS.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_publications_share_a_second_not_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let first = store.next_second().unwrap();
        let second = store.next_second().unwrap();
        let third = ArtifactStore::open(folder.path().to_owned()).unwrap().next_second().unwrap();
        assert!(first < second && second < third, "{first} {second} {third}");
    }
}
