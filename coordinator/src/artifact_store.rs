//! The coordinator's store of artifacts: every content once, by its hash, and a manifest for each artifact.
//!
//! The modification time of a content's file is the moment it was first published, in whole seconds, and no two
//! publications share one: web servers make validators from time and size, and content that changes must never keep
//! its validator.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_chassis::artifact::{
    Offer, PieceCheck, Place, digest_of, file_problem, hash_reader, receive_pieces,
};
use pointsman_chassis::durable;
use pointsman_core::manifest::Manifest;
use pointsman_core::{ArtifactDigest, Code, ContentHash, Problem};
use pointsman_proto::v1;
use tokio::sync::{Notify, mpsc};
use tonic::Streaming;
use tracing::error;

use crate::retention::{Lacks, Room};

/// An upload that brings nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(30);
/// Pieces between network and disk.
const PIECES_UNDER_WAY: usize = 16;
/// What was offered or published so lately is kept, whoever needs it: its release may just be about to begin.
const YOUNG: Duration = Duration::from_secs(24 * 3600);

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct ArtifactStore {
    root: PathBuf,
    /// The second of the last publication; the next gets a later one.
    last_second: Arc<Mutex<u64>>,
    /// How many uploads are under way. Held while something is offered, and while something is dropped: what an offer was told
    /// to be here is not dropped behind its back.
    uploads: Arc<Mutex<usize>>,
    /// A release has ended since it was looked for what nobody needs.
    ended: Arc<Notify>,
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The artifacts.
    pub artifacts: Vec<ArtifactDigest>,
    /// How many contents that no other artifact has.
    pub contents: u64,
    /// The bytes of these.
    pub bytes: u64,
}

/// An upload, while it is under way.
struct Upload(Arc<Mutex<usize>>);

impl Drop for Upload {
    fn drop(&mut self) {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *uploads = uploads.saturating_sub(1);
    }
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
        let last_second = Arc::new(Mutex::new(last.unwrap_or(0)));
        Ok(Self { root, last_second, uploads: Arc::default(), ended: Arc::default() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn uploads(&self) -> MutexGuard<'_, usize> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_upload(&self) -> Upload {
        *self.uploads() += 1;
        Upload(Arc::clone(&self.uploads))
    }

    /// Tells that a release has ended: what it led to may not be needed any more.
    pub fn tell_of_end(&self) {
        self.ended.notify_one();
    }

    /// Waits until a release has ended.
    pub async fn release_ended(&self) {
        self.ended.notified().await;
    }

    /// Refuses what would take from the disk what is left free on it: the journal lies there, too.
    fn must_fit(&self, bytes: u64, files: u64) -> Result<(), Problem> {
        let Some(room) = Room::of(&self.root) else { return Ok(()) };
        let Some(lacks) = room.lacks(bytes, files) else { return Ok(()) };
        let root = self.root.display();
        let (told, command) = match lacks {
            Lacks::Bytes(needed) => (
                format!("{} MiB are free, {} are needed", room.free >> 20, needed.div_ceil(1 << 20)),
                "df -h",
            ),
            Lacks::Inodes(needed) => {
                (format!("{} inodes are free, {needed} are needed", room.inodes.0), "df -i")
            }
        };
        let message = format!("the disk of the artifact store `{root}` has too little room: {told}");
        Err(Problem::new(Code::StoreUnwritable, message)
            .hint(format!("make room on the coordinator, then publish again: `{command} {root}`")))
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
        let _nothing_is_dropped = self.uploads();
        let contents = offer.manifest.contents();
        let lacking =
            (0u32..).zip(&contents).filter(|(_, (content, size))| !self.has_content(content, *size));
        let (missing, sizes): (Vec<u32>, Vec<u64>) =
            lacking.map(|(number, (_, size))| (number, *size)).unzip();
        if !missing.is_empty() {
            let bytes = sizes.into_iter().fold(0, u64::saturating_add);
            self.must_fit(bytes, u64::try_from(missing.len()).unwrap_or(u64::MAX))?;
        }
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
        let ended = |error| {
            Problem::new(Code::StoreUnwritable, "writing the artifact ended abruptly")
                .retry_useful()
                .because(&error)
        };
        let store = self.clone();
        // It may have to wait until something is dropped.
        let _under_way = tokio::task::spawn_blocking(move || store.begin_upload()).await.map_err(ended)?;
        let (manifest, _) = self.read_manifest("offered", &artifact)?;
        let check = PieceCheck::new(&manifest);
        let (sink, pieces) = mpsc::channel(PIECES_UNDER_WAY);
        let store = self.clone();
        let writer = tokio::task::spawn_blocking(move || store.write_contents(&artifact, &manifest, pieces));
        let received = receive_pieces(messages, check, sink, IDLE).await;
        writer.await.map_err(ended)??;
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
            let Some((content, size)) =
                usize::try_from(piece.content).ok().and_then(|number| contents.get(number))
            else {
                continue;
            };
            if place.first {
                // Somebody else may have filled the disk since it was offered.
                self.must_fit(*size, 1).inspect_err(|_| drop(fs::remove_file(&incoming)))?;
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

    /// Drops every artifact but these, those that are young, and what they are made of. Nothing is dropped while something is
    /// uploaded, nor where a manifest that is kept cannot be read: what that needs is not known.
    ///
    /// Manifests are gone for good before the first content is, so that none that is here ever lacks one, whenever this ends.
    pub fn drop_all_but(&self, needed: &BTreeSet<ArtifactDigest>) -> Result<Dropped, Problem> {
        let uploads = self.uploads();
        let mut dropped = Dropped::default();
        if *uploads > 0 {
            return Ok(dropped);
        }
        let mut contents = BTreeSet::new();
        let mut gone = Vec::new();
        for folder in ["manifests", "offered"] {
            for (artifact, path) in self.listed(folder)? {
                // An offer that has become an artifact is kept as one.
                if (folder == "manifests" && needed.contains(&artifact)) || is_young(&path) {
                    let (manifest, _) = self.read_manifest(folder, &artifact)?;
                    contents.extend(manifest.contents().into_iter().map(|(content, _)| content.to_string()));
                } else {
                    gone.push(path);
                    dropped.artifacts.extend((folder == "manifests").then_some(artifact));
                }
            }
        }
        let failed = |error: io::Error| failed("cannot drop what nobody needs from the store", &error);
        for path in gone {
            fs::remove_file(&path).map_err(failed)?;
        }
        for folder in ["manifests", "offered"] {
            durable::sync_directory(&self.root.join(folder)).map_err(failed)?;
        }
        for fan in fs::read_dir(self.root.join("objects")).map_err(failed)? {
            let fan = fan.map_err(failed)?;
            for object in fs::read_dir(fan.path()).map_err(failed)? {
                let object = object.map_err(failed)?;
                let mut name = fan.file_name();
                name.push(object.file_name());
                if name.to_str().is_some_and(|name| contents.contains(name)) {
                    continue;
                }
                let size = object.metadata().map_err(failed)?.len();
                fs::remove_file(object.path()).map_err(failed)?;
                dropped.contents = dropped.contents.saturating_add(1);
                dropped.bytes = dropped.bytes.saturating_add(size);
            }
        }
        // Uploads that broke off: none is under way.
        for left in fs::read_dir(self.root.join("incoming")).map_err(failed)? {
            fs::remove_file(left.map_err(failed)?.path()).map_err(failed)?;
        }
        drop(uploads);
        Ok(dropped)
    }

    /// Looks whether these contents are here and what they are named by. The first that is not is told, and all of those are dropped,
    /// with every artifact that is made of one: it is not complete any more, and what is published again is sent again. An error
    /// of another code says that they could not be dropped.
    pub fn must_be_whole(&self, contents: &[ContentHash]) -> Result<(), Problem> {
        let of_disk = Some(rustix::io::Errno::IO.raw_os_error());
        let is_damaged = |content: &&ContentHash| match self.content(content).and_then(hash_reader) {
            Ok((found, _)) => found != **content,
            // Whoever else met the damage may have dropped it.
            Err(error) => error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == of_disk,
        };
        let suspects: Vec<&ContentHash> = contents.iter().filter(is_damaged).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        // What an offer was told to be here is not dropped behind its back; what was published anew meanwhile stays.
        let _no_offer = self.uploads();
        let damaged: BTreeSet<&ContentHash> = suspects.into_iter().filter(is_damaged).collect();
        let Some(first) = damaged.first() else { return Ok(()) };
        let failed = |error: io::Error| failed("a damaged content cannot be dropped from the store", &error);
        for (artifact, path) in self.listed("manifests")? {
            let made_of = self.read_manifest("manifests", &artifact).map(|(manifest, _)| manifest.contents());
            if made_of.is_ok_and(|made_of| made_of.iter().any(|(content, _)| damaged.contains(content))) {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        durable::sync_directory(&self.root.join("manifests")).map_err(failed)?;
        for content in &damaged {
            let object = self.object(content);
            match fs::remove_file(&object) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed.map_err(failed)?,
            }
            error!(object = %object.display(), "a content of the artifact store was damaged: it is dropped, publish the artifact again");
        }
        let root = self.root.display();
        let message = format!(
            "the coordinator's artifact store is damaged: content `{first}` is no longer what it was, and is dropped"
        );
        Err(Problem::new(Code::ContentMismatch, message).hint(format!(
            "publish it again: `pointsman deploy ENV --artifact DIR --release ID` with the folder itself; look after the \
             coordinator's disk: `dmesg | tail`, `findmnt -T {root}`"
        )))
    }

    /// The artifacts of which a folder has the manifest. Files of another name are nobody's, and stay.
    fn listed(&self, folder: &str) -> Result<Vec<(ArtifactDigest, PathBuf)>, Problem> {
        let unread = |error: io::Error| failed("cannot read the artifact store", &error);
        let mut listed = Vec::new();
        for entry in fs::read_dir(self.root.join(folder)).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let artifact = entry.file_name().to_str().and_then(|name| ArtifactDigest::parse(name).ok());
            listed.extend(artifact.map(|artifact| (artifact, entry.path())));
        }
        Ok(listed)
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

/// Whether a file was written lately; also where that cannot be told, or lies ahead because a clock was set.
fn is_young(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok());
    age.is_none_or(|age| age < YOUNG)
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
    use pointsman_chassis::artifact::hash_of;
    use pointsman_core::manifest::{Entry, Kind};
    use pointsman_core::{EnvironmentName, Epoch};

    use crate::fixture;

    #[test]
    fn no_two_publications_share_a_second_not_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let first = store.next_second().unwrap();
        let second = store.next_second().unwrap();
        let third = ArtifactStore::open(folder.path().to_owned()).unwrap().next_second().unwrap();
        assert!(first < second && second < third, "{first} {second} {third}");
    }

    const DAYS: Duration = Duration::from_secs(7 * 24 * 3600);

    fn offer_of(files: &[&str]) -> Offer {
        let entry = |text: &&str| Entry {
            path: format!("{text}.html"),
            kind: Kind::File {
                size: u64::try_from(text.len()).unwrap(),
                content: hash_of(text.as_bytes()),
                executable: false,
            },
        };
        let manifest = Manifest::new(files.iter().map(entry).collect()).unwrap();
        let manifest_bytes = manifest.encode();
        Offer {
            environment: EnvironmentName::parse("production").unwrap(),
            epoch: Epoch(0),
            artifact: digest_of(&manifest_bytes),
            manifest,
            manifest_bytes,
            mtimes: Vec::new(),
        }
    }

    /// Publishes files whose text is their name, so long ago.
    fn published(store: &ArtifactStore, files: &[&str], age: Duration) -> ArtifactDigest {
        let offer = offer_of(files);
        let need = store.offer(&offer).unwrap();
        if !need.complete {
            let contents = offer.manifest.contents();
            let (sink, pieces) = mpsc::channel(16);
            for number in need.missing {
                let (content, _) = contents[usize::try_from(number).unwrap()];
                let text = files.iter().find(|text| hash_of(text.as_bytes()) == content).unwrap();
                let piece = v1::ContentPiece {
                    content: number,
                    data: text.as_bytes().to_vec(),
                    ..Default::default()
                };
                sink.try_send((piece, Place { first: true, last: true })).unwrap();
            }
            drop(sink);
            store.write_contents(&offer.artifact, &offer.manifest, pieces).unwrap();
            store.complete(&offer.artifact).unwrap();
        }
        for folder in ["manifests", "offered"] {
            let file = File::open(store.manifest_path(folder, &offer.artifact)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        offer.artifact
    }

    fn is_whole(store: &ArtifactStore, artifact: &ArtifactDigest) -> bool {
        let Ok((manifest, _)) = store.manifest(artifact) else { return false };
        manifest.contents().iter().all(|(content, size)| store.has_content(content, *size))
    }

    #[test]
    fn what_nobody_needs_goes_with_what_it_alone_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let old = published(&store, &["page", "old"], DAYS);
        let live = published(&store, &["page", "live"], DAYS);
        let young = published(&store, &["page", "young"], Duration::ZERO);
        let half = offer_of(&["page", "half"]);
        assert!(!store.offer(&half).unwrap().complete);

        let upload = store.begin_upload();
        assert_eq!(store.drop_all_but(&BTreeSet::from([live])).unwrap(), Dropped::default());
        drop(upload);
        let dropped = store.drop_all_but(&BTreeSet::from([live])).unwrap();
        assert_eq!(dropped, Dropped { artifacts: vec![old], contents: 1, bytes: 3 });
        assert_eq!([&old, &live, &young].map(|artifact| is_whole(&store, artifact)), [false, true, true]);
        assert_eq!(store.offer(&half).unwrap().missing.len(), 1, "what it was told to be here is gone");
        // What was dropped is published as if it had never been.
        let again = published(&store, &["page", "old"], DAYS);
        assert!(again == old && is_whole(&store, &old));
    }

    #[test]
    fn a_crash_while_something_is_dropped_leaves_no_artifact_that_lacks_a_content() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let old = published(&store, &["page", "old"], DAYS);
        // What stands where a content should be cannot be removed as one: it ends in the middle.
        let in_the_way = store.object(&hash_of(b"old"));
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
        store.drop_all_but(&BTreeSet::new()).unwrap_err();
        assert!(store.manifest(&old).is_err(), "it is still named complete");
        fs::remove_dir(&in_the_way).unwrap();
        store.drop_all_but(&BTreeSet::new()).unwrap();
        assert!(!store.has_content(&hash_of(b"page"), 4), "what was left is never dropped");
    }

    #[test]
    fn what_is_damaged_is_dropped_with_what_is_made_of_it_and_can_be_published_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let [one, two, other] = [["page", "one"], ["page", "two"], ["leaf", "one"]]
            .map(|files| published(&store, &files, Duration::ZERO));
        let contents = ["page", "one", "two", "leaf"].map(|text| hash_of(text.as_bytes()));
        assert_eq!(store.must_be_whole(&contents), Ok(()));
        fs::write(store.object(&hash_of(b"page")), "pace").unwrap();
        let problem = store.must_be_whole(&contents).unwrap_err();
        assert_eq!(problem.code, Code::ContentMismatch);
        assert!(problem.message.contains("coordinator's artifact store"), "{problem:?}");
        assert!(problem.message.contains(&hash_of(b"page").to_string()), "{problem:?}");
        assert!([one, two].iter().all(|artifact| store.manifest(artifact).is_err()));
        assert!(is_whole(&store, &other), "what is not made of it went, too");
        // Whoever looks next, for another host, is told the same.
        assert_eq!(store.must_be_whole(&contents), Err(problem));

        let need = store.offer(&offer_of(&["page", "one"])).unwrap();
        assert_eq!((need.complete, need.missing.len()), (false, 1));
        assert_eq!(published(&store, &["page", "one"], Duration::ZERO), one);
        assert!(is_whole(&store, &one));
        assert_eq!(store.must_be_whole(&contents), Ok(()));
    }

    #[test]
    fn a_manifest_that_cannot_be_read_keeps_everything() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let old = published(&store, &["old"], DAYS);
        let live = published(&store, &["live"], DAYS);
        fs::write(store.manifest_path("manifests", &live), "garbled").unwrap();
        assert_eq!(store.drop_all_but(&BTreeSet::from([live])).unwrap_err().code, Code::ContentMismatch);
        assert!(is_whole(&store, &old));
    }

    #[test]
    fn what_would_fill_the_disk_is_refused_before_a_byte_of_it_comes() {
        let place = "artifact_store::tests::what_would_fill_the_disk_is_refused_before_a_byte_of_it_comes";
        let Some(folder) = fixture::small_disk(place, "4m") else { return };
        let store = ArtifactStore::open(folder.path().to_owned()).unwrap();
        let small = published(&store, &["page"], DAYS);
        fs::write(folder.path().join("filler"), vec![1; 3 << 20]).unwrap();
        let mut large = offer_of(&["large"]);
        let content = hash_of(b"large");
        let entry = Entry {
            path: "large".to_owned(),
            kind: Kind::File { size: 1 << 20, content, executable: false },
        };
        large.manifest = Manifest::new(vec![entry]).unwrap();
        large.manifest_bytes = large.manifest.encode();
        large.artifact = digest_of(&large.manifest_bytes);
        let refused = store.offer(&large).unwrap_err();
        assert_eq!(refused.code, Code::StoreUnwritable);
        let root = folder.path().display().to_string();
        assert!(refused.message.contains(&root) && refused.message.contains("2 are needed"), "{refused:?}");
        assert!(refused.hint.contains(&format!("`df -h {root}`")), "{refused:?}");
        assert!(!store.manifest_path("offered", &large.artifact).exists());
        // What is here already needs no room.
        assert!(store.offer(&offer_of(&["page"])).unwrap().complete && is_whole(&store, &small));
        fs::remove_file(folder.path().join("filler")).unwrap();
        assert_eq!(store.offer(&large).unwrap().missing, [0]);
    }
}
