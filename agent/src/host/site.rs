//! The site root and its layout:
//!
//! ```text
//! current   -> artifacts/<digest>      what the web server serves
//! previous  -> artifacts/<digest>      what it served before
//! .maintenance                         the flag, outside of everything that is replaced
//! artifacts/<digest>/                  complete, never written again
//! .pointsman/staging/<digest>/         a tree under construction
//! .pointsman/manifests/<digest>        what the tree is made of
//! .pointsman/dropped/<digest>/         an old tree that is being removed
//! .pointsman/complete/<digest>         written last: without it a tree is staged data and nothing more
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_chassis::artifact::{digest_of, file_problem};
use pointsman_core::manifest::Manifest;
use pointsman_core::{ArtifactDigest, Code, Problem};

use crate::sys::{Folder, Found};

const FOLDERS: [&str; 5] =
    ["artifacts", ".pointsman/staging", ".pointsman/manifests", ".pointsman/complete", ".pointsman/dropped"];

/// Ends what a kill cut short while an old artifact was dropped.
fn clear_dropped(root: &Folder) -> io::Result<()> {
    let dropped = root.folder(".pointsman/dropped")?;
    dropped.names()?.iter().try_for_each(|name| dropped.remove_tree(name))?;
    let (trees, marks) = (root.folder("artifacts")?, root.folder(".pointsman/complete")?);
    for name in marks.names()? {
        if trees.look(&name)? == Found::Nothing {
            marks.remove(&name)?;
        }
    }
    Ok(())
}

/// The site root, opened once.
#[derive(Clone)]
pub struct Site {
    root: Arc<Folder>,
    path: PathBuf,
    /// How often each artifact was begun or finished: who began earlier than the last may write no more.
    turns: Arc<Mutex<BTreeMap<ArtifactDigest, u64>>>,
}

impl Site {
    /// Opens the root and makes the folders that pointsman needs in it.
    pub fn open(path: PathBuf) -> Result<Self, Problem> {
        let open = || -> io::Result<Folder> {
            let root = Folder::root(&path)?;
            for folder in FOLDERS {
                root.make_folder(folder)?;
            }
            clear_dropped(&root)?;
            Ok(root)
        };
        let root = open().map_err(|error| {
            let hint = match error.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()) {
                true => "the kernel, or what systemd lets this unit call, has no `openat2`: no `RestrictSUIDSGID=yes` for it",
                false => "the root must be a directory that the agent's user owns; in its unit `ReadWritePaths=` names it",
            };
            Problem::new(Code::SiteRootUnfit, format!("cannot use the site root `{}`", path.display()))
                .because(&error)
                .hint(hint)
        })?;
        Ok(Self { root: Arc::new(root), path, turns: Arc::default() })
    }

    /// The root's handle.
    pub fn root(&self) -> &Folder {
        &self.root
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<ArtifactDigest, u64>> {
        // A number is whole whatever panicked.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the staged tree of an artifact over: whoever wrote to it before writes no more once this returns.
    pub fn take_turn(&self, artifact: &ArtifactDigest) -> u64 {
        let mut turns = self.turns();
        let turn = turns.entry(*artifact).or_default();
        *turn = turn.saturating_add(1);
        *turn
    }

    /// Writes to a staged tree, unless it was taken over since `turn`.
    pub fn in_turn<T>(
        &self,
        artifact: &ArtifactDigest,
        turn: u64,
        write: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let turns = self.turns();
        if turns.get(artifact) != Some(&turn) {
            return Err(Problem::new(
                Code::TransferBroken,
                format!("another transfer of artifact {} took over", artifact.short()),
            ));
        }
        write()
    }

    /// The root's path, for what needs one.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Where `current` or `previous` points to. A link to anywhere but a complete artifact's place is refused.
    pub fn link(&self, name: &str) -> Result<Option<ArtifactDigest>, Problem> {
        let unfit = |found: String| {
            Problem::new(
                Code::SiteRootUnfit,
                format!(
                    "`{}/{name}` is {found}, expected a link to `artifacts/<digest>`",
                    self.path.display()
                ),
            )
            .hint("move it away by hand, or make the root of a site that pointsman filled")
        };
        match self
            .root
            .look(name)
            .map_err(|error| file_problem(format!("cannot look at `{name}` in the site root"), &error))?
        {
            Found::Nothing => Ok(None),
            Found::Link(target) => {
                let digest =
                    target.strip_prefix("artifacts/").and_then(|digest| ArtifactDigest::parse(digest).ok());
                digest.map(Some).ok_or_else(|| unfit(format!("a link to `{target}`")))
            }
            Found::Directory => Err(unfit("a directory".to_owned())),
            Found::File(_) | Found::Other => Err(unfit("a file".to_owned())),
        }
    }

    /// Whether an artifact is here, whole and verified.
    pub fn is_complete(&self, artifact: &ArtifactDigest) -> Result<bool, Problem> {
        let marked = self.root.look(&format!(".pointsman/complete/{artifact}"));
        let there = self.root.look(&format!("artifacts/{artifact}"));
        match (marked, there) {
            (Ok(Found::File(_)), Ok(Found::Directory)) => Ok(true),
            (Ok(_), Ok(_)) => Ok(false),
            (Err(error), _) | (_, Err(error)) => {
                Err(file_problem(format!("cannot look at artifact {}", artifact.short()), &error))
            }
        }
    }

    /// The complete artifacts on this host.
    pub fn artifacts(&self) -> Vec<ArtifactDigest> {
        let names = self.root.folder("artifacts").and_then(|folder| folder.names()).unwrap_or_default();
        let parsed = names.iter().filter_map(|name| ArtifactDigest::parse(name).ok());
        parsed.filter(|artifact| self.is_complete(artifact).unwrap_or(false)).collect()
    }

    /// The manifest of an artifact that was offered to this host.
    pub fn manifest(&self, artifact: &ArtifactDigest) -> Result<(Manifest, Vec<u64>), Problem> {
        let missing = |error: &io::Error| {
            Problem::new(
                Code::ArtifactMissing,
                format!("artifact {} was never offered to this host", artifact.short()),
            )
            .because(error)
        };
        let mut bytes = Vec::new();
        self.root
            .open(&format!(".pointsman/manifests/{artifact}"))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| missing(&error))?;
        let (times, manifest) =
            split(&bytes).ok_or_else(|| missing(&io::Error::other("its record is cut short")))?;
        if digest_of(manifest) != *artifact {
            return Err(Problem::new(
                Code::ManifestInvalid,
                format!("the record of artifact {} is damaged", artifact.short()),
            )
            .retry_useful());
        }
        Ok((Manifest::decode(manifest)?, times))
    }

    /// Keeps a manifest with the modification times of its contents.
    pub fn keep_manifest(
        &self,
        artifact: &ArtifactDigest,
        manifest: &[u8],
        mtimes: &[u64],
    ) -> Result<(), Problem> {
        let count = mtimes.len() as u64;
        let bytes: Vec<u8> = count
            .to_le_bytes()
            .into_iter()
            .chain(mtimes.iter().flat_map(|t| t.to_le_bytes()))
            .chain(manifest.iter().copied())
            .collect();
        self.keep("manifests", artifact, &bytes)
            .map_err(|error| file_problem("cannot keep the manifest", &error))
    }

    /// Marks an artifact as whole and verified. The last thing written of it.
    pub fn mark_complete(&self, artifact: &ArtifactDigest) -> Result<(), Problem> {
        self.keep("complete", artifact, b"")
            .map_err(|error| file_problem("cannot mark the artifact as complete", &error))
    }

    fn keep(&self, kind: &str, artifact: &ArtifactDigest, bytes: &[u8]) -> io::Result<()> {
        self.root.folder(&format!(".pointsman/{kind}"))?.replace(&artifact.to_string(), bytes, 0o600)
    }
}

/// Takes the record of an artifact apart: modification times, then the manifest.
fn split(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(8)?;
    let (times, manifest) = rest.split_at_checked(length)?;
    let (times, _) = times.as_chunks::<8>();
    Some((times.iter().map(|time| u64::from_le_bytes(*time)).collect(), manifest))
}
