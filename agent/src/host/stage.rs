//! Bringing an artifact beside what runs: offered, received piece by piece into a place that nothing serves, hashed
//! again as a whole, made durable, and only then named complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use pointsman_chassis::agent_service::Rule;
use pointsman_chassis::artifact::{Offer, PieceCheck, Place, file_problem, hash_reader, receive_pieces};
use pointsman_chassis::failpoint;
use pointsman_core::manifest::{Kind, Manifest};
use pointsman_core::{ArtifactDigest, Code, Evidence, Problem};
use pointsman_proto::{convert, v1};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::Site;
use crate::sys::{Folder, Found, set_mtime};

/// A transfer that brings nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(30);

/// Pieces between network and disk: a slow disk slows the sender, it fills no memory.
const PIECES_UNDER_WAY: usize = 16;

fn staging(artifact: &ArtifactDigest) -> String {
    format!(".pointsman/staging/{artifact}")
}

/// The first path of every content: where its bytes are written. Other paths are copies of it.
fn first_paths(manifest: &Manifest) -> BTreeMap<u32, (&str, bool, u64)> {
    let numbers: BTreeMap<_, u32> =
        manifest.contents().iter().zip(0..).map(|((hash, _), number)| (*hash, number)).collect();
    let mut paths = BTreeMap::new();
    for entry in manifest.entries() {
        if let Kind::File { content, executable, size } = &entry.kind
            && let Some(number) = numbers.get(content)
        {
            paths.entry(*number).or_insert((entry.path.as_str(), *executable, *size));
        }
    }
    paths
}

/// Whether a staged file holds exactly this content.
fn holds(folder: &Folder, path: &str, content: &pointsman_core::ContentHash, size: u64) -> bool {
    let found = folder.open(path).and_then(hash_reader);
    matches!(found, Ok((hash, length)) if hash == *content && length == size)
}

/// Takes an offer: keeps its manifest, and says which contents are not here yet. What an earlier try left is hashed
/// again, never trusted.
pub fn accept_offer(site: &Site, offer: &Offer, floor_bytes: u64) -> Result<v1::ArtifactNeed, Problem> {
    let artifact = offer.artifact;
    if site.is_complete(&artifact)? {
        return Ok(v1::ArtifactNeed { artifact: artifact.to_string(), missing: Vec::new(), complete: true });
    }
    // A crash between the move and the mark left the tree in place: nothing of it is sent again.
    let sealed = site.root().folder(&format!("artifacts/{artifact}"));
    let missing = if sealed.is_ok_and(|tree| verify(&tree, &offer.manifest).is_ok()) {
        Vec::new()
    } else {
        missing_contents(site, &artifact, &offer.manifest)?
    };
    let sizes = offer.manifest.contents();
    let size_of =
        |number: &u32| usize::try_from(*number).ok().and_then(|i| sizes.get(i)).map_or(0, |(_, size)| *size);
    room_for(
        site,
        missing.iter().map(size_of).fold(0, u64::saturating_add),
        offer.manifest.entries().len() as u64,
        floor_bytes,
    )?;
    site.keep_manifest(&artifact, &offer.manifest_bytes, &offer.mtimes)?;
    Ok(v1::ArtifactNeed { artifact: artifact.to_string(), missing, complete: false })
}

/// Refuses what would not fit, with the figures.
fn room_for(site: &Site, bytes: u64, entries: u64, floor_bytes: u64) -> Result<(), Problem> {
    let room = rustix::fs::statvfs(site.path())
        .map_err(|error| file_problem("cannot ask for free space", &error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    // Each file takes whole blocks.
    let needed = bytes.saturating_add(entries.saturating_mul(room.f_frsize)).saturating_add(floor_bytes);
    let hint = "make room on this host: `df -h` and `df -i`";
    if free < needed {
        let message = format!(
            "{free} bytes are free on `{}`, {needed} needed ({floor_bytes} of them to stay free)",
            site.path().display()
        );
        return Err(Problem::new(Code::NoRoom, message).hint(hint));
    }
    // Some file systems have no fixed number of inodes and report none.
    if room.f_files > 0 && room.f_favail < entries {
        let message =
            format!("{} inodes are free on `{}`, {entries} needed", room.f_favail, site.path().display());
        return Err(Problem::new(Code::NoRoom, message).hint(hint));
    }
    Ok(())
}

fn missing_contents(
    site: &Site,
    artifact: &ArtifactDigest,
    manifest: &Manifest,
) -> Result<Vec<u32>, Problem> {
    let contents = manifest.contents();
    let all = || (0..).zip(&contents).map(|(number, _)| number).collect();
    let folder = match site.root().folder(&staging(artifact)) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all()),
        Err(error) => return Err(file_problem("cannot open the staging folder", &error)),
    };
    let paths = first_paths(manifest);
    let lacking = (0..).zip(&contents).filter(|(number, (content, size))| {
        !paths.get(number).is_some_and(|(path, _, _)| holds(&folder, path, content, *size))
    });
    Ok(lacking.map(|(number, _)| number).collect())
}

/// Receives what was missing into the staging place.
pub async fn receive(
    site: Site,
    first: v1::ContentPiece,
    messages: Streaming<v1::ContentPiece>,
    rule: &Rule,
) -> Result<v1::ContentReceipt, Problem> {
    let artifact: ArtifactDigest = convert::field("artifact", &first.artifact)?;
    let (manifest, mtimes) = site.manifest(&artifact)?;
    rule.check()?;
    let check = PieceCheck::new(&manifest);
    let (sink, pieces) = mpsc::channel(PIECES_UNDER_WAY);
    let writer =
        tokio::task::spawn_blocking(move || write_contents(&site, &artifact, &manifest, &mtimes, pieces));
    let received = receive_pieces(messages, check, sink, IDLE).await;
    let written = writer.await.map_err(|error| {
        Problem::new(Code::FileSystem, "writing the artifact ended abruptly").retry_useful().because(&error)
    })?;
    // A full disk explains a broken transfer better than the other way round.
    written?;
    let (received_bytes, received_contents) = received?;
    Ok(v1::ContentReceipt { artifact: artifact.to_string(), received_bytes, received_contents })
}

fn write_contents(
    site: &Site,
    artifact: &ArtifactDigest,
    manifest: &Manifest,
    mtimes: &[u64],
    mut pieces: mpsc::Receiver<(v1::ContentPiece, Place)>,
) -> Result<(), Problem> {
    let failed = |error: io::Error| file_problem("cannot write the artifact", &error);
    let turn = site.take_turn(artifact);
    let tree = site.root().make_folder(&staging(artifact)).map_err(failed)?;
    let paths = first_paths(manifest);
    make_directories(&tree, manifest).map_err(failed)?;
    let mut open: Option<File> = None;
    while let Some((piece, place)) = pieces.blocking_recv() {
        let Some((path, executable, _)) = paths.get(&piece.content) else { continue };
        // The handle of the tree goes with it when it is sealed: only who has the turn may write.
        site.in_turn(artifact, turn, || {
            if place.first {
                tree_remove(&tree, path).map_err(failed)?;
                open = Some(tree.create(path, mode_of(*executable)).map_err(failed)?);
            }
            let Some(file) = &mut open else { return Ok(()) };
            file.write_all(&piece.data).map_err(failed)?;
            if place.last {
                stamp(file, mtimes, piece.content).map_err(failed)?;
                open = None;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn mode_of(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

fn stamp(file: &File, mtimes: &[u64], content: u32) -> io::Result<()> {
    let mtime = usize::try_from(content).ok().and_then(|number| mtimes.get(number));
    mtime.map_or(Ok(()), |mtime| set_mtime(file, *mtime))
}

/// Removes what an earlier try left at a path of the staging tree.
fn tree_remove(tree: &Folder, path: &str) -> io::Result<()> {
    match path.rsplit_once('/') {
        Some((parent, name)) => tree.folder(parent)?.remove(name),
        None => tree.remove(path),
    }
}

fn make_directories(tree: &Folder, manifest: &Manifest) -> io::Result<()> {
    for entry in manifest.entries().iter().filter(|entry| entry.kind == Kind::Directory) {
        match entry.path.rsplit_once('/') {
            Some((parent, name)) => tree.folder(parent)?.make_directory(name)?,
            None => tree.make_directory(&entry.path)?,
        }
    }
    Ok(())
}

/// Finishes a staged artifact: places copies and links, hashes every file again, makes all of it durable, and moves
/// it to its final place.
pub fn seal(site: &Site, artifact: &ArtifactDigest, rule: &Rule) -> Result<Evidence, Problem> {
    if site.is_complete(artifact)? {
        return Ok(Evidence {
            already: true,
            detail: format!("artifact {} is complete", artifact.short()),
            ..Evidence::default()
        });
    }
    let (manifest, mtimes) = site.manifest(artifact)?;
    let failed = |error: io::Error| file_problem("cannot finish the artifact", &error);
    // A crash between the move and the mark left the tree in place: it is verified like any other.
    site.take_turn(artifact);
    let in_place = keep_sealed(site, artifact, &manifest, rule)?;
    let place = if in_place { format!("artifacts/{artifact}") } else { staging(artifact) };
    let tree = if in_place { site.root().folder(&place) } else { site.root().make_folder(&place) }
        .map_err(failed)?;
    if !in_place {
        complete_tree(&tree, &manifest, &mtimes)?;
    }
    verify(&tree, &manifest)?;
    tree.sync_all().map_err(failed)?;
    rule.check()?;
    if !in_place {
        let from = site.root().folder(".pointsman/staging").map_err(failed)?;
        let to = site.root().folder("artifacts").map_err(failed)?;
        from.rename_new(&artifact.to_string(), &to, &artifact.to_string()).map_err(failed)?;
        from.sync().map_err(failed)?;
        to.sync().map_err(failed)?;
    }
    failpoint::pass("stage-before-mark");
    site.mark_complete(artifact)?;
    if in_place {
        let staged = site.root().folder(".pointsman/staging").map_err(failed)?;
        staged.remove_tree(&artifact.to_string()).map_err(failed)?;
    }
    let detail = format!("{} files, {} bytes, verified", manifest.file_count(), manifest.total_bytes());
    Ok(Evidence { already: false, detail, ..Evidence::default() })
}

/// Whether a tree without a mark stands at its final place, whole. What a crash left of a tree that was being
/// dropped is cleared away; a broken tree that visitors see is left for a person.
fn keep_sealed(
    site: &Site,
    artifact: &ArtifactDigest,
    manifest: &Manifest,
    rule: &Rule,
) -> Result<bool, Problem> {
    let failed = |error: io::Error| file_problem("cannot look at the artifact's place", &error);
    let place = format!("artifacts/{artifact}");
    if site.root().look(&place).map_err(failed)? != Found::Directory {
        return Ok(false);
    }
    let Err(broken) = verify(&site.root().folder(&place).map_err(failed)?, manifest) else { return Ok(true) };
    if site.link("current")? == Some(*artifact) || site.link("previous")? == Some(*artifact) {
        return Err(broken);
    }
    rule.check()?;
    site.root().folder("artifacts").and_then(|all| all.remove_tree(&artifact.to_string())).map_err(failed)?;
    Ok(false)
}

/// Places what needs no transfer: directories, links, and the further paths of contents that are here.
fn complete_tree(tree: &Folder, manifest: &Manifest, mtimes: &[u64]) -> Result<(), Problem> {
    let failed = |error: io::Error| file_problem("cannot finish the artifact", &error);
    make_directories(tree, manifest).map_err(failed)?;
    let firsts = first_paths(manifest);
    let sources: BTreeMap<_, (u32, &str)> = manifest
        .contents()
        .iter()
        .zip(0..)
        .filter_map(|((content, _), number)| {
            firsts.get(&number).map(|(path, _, _)| (*content, (number, *path)))
        })
        .collect();
    for entry in manifest.entries() {
        match &entry.kind {
            Kind::Directory => {}
            Kind::Link { target } => {
                let (folder, name) = parent(tree, &entry.path).map_err(failed)?;
                if folder.look(name).map_err(failed)? != Found::Link(target.clone()) {
                    folder.remove(name).map_err(failed)?;
                    folder.link(name, target).map_err(failed)?;
                }
            }
            Kind::File { content, executable, .. } => {
                let Some((number, source)) = sources.get(content) else { continue };
                let mut from = match tree.open(source) {
                    Ok(from) => from,
                    Err(error) => return Err(lacking(&entry.path).because(&error)),
                };
                if *source == entry.path {
                    // A kill after its last byte left it without its time.
                    stamp(&from, mtimes, *number).map_err(failed)?;
                    continue;
                }
                tree_remove(tree, &entry.path).map_err(failed)?;
                let mut to = tree.create(&entry.path, mode_of(*executable)).map_err(failed)?;
                io::copy(&mut from, &mut to).map_err(failed)?;
                stamp(&to, mtimes, *number).map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn parent<'a>(tree: &Folder, path: &'a str) -> io::Result<(Folder, &'a str)> {
    match path.rsplit_once('/') {
        Some((parent, name)) => Ok((tree.folder(parent)?, name)),
        None => Ok((tree.again()?, path)),
    }
}

fn lacking(path: &str) -> Problem {
    Problem::new(Code::TransferBroken, format!("`{path}` did not arrive")).retry_useful()
}

/// Compares the tree with the manifest: every path and byte that should be there, and none that should not.
fn verify(tree: &Folder, manifest: &Manifest) -> Result<(), Problem> {
    let failed = |error: io::Error| file_problem("cannot verify the artifact", &error);
    let mut expected: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in manifest.entries() {
        let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        expected.entry(folder).or_default().insert(name);
        match &entry.kind {
            Kind::Directory => {
                expected.entry(&entry.path).or_default();
            }
            Kind::Link { target } => {
                if tree.look(&entry.path).map_err(failed)? != Found::Link(target.clone()) {
                    return Err(lacking(&entry.path));
                }
            }
            Kind::File { content, size, executable } => {
                let file = tree.open(&entry.path).map_err(|error| lacking(&entry.path).because(&error))?;
                let (hash, length) = hash_reader(&file).map_err(failed)?;
                if hash != *content || length != *size {
                    let message = format!("`{}` is not what the manifest says", entry.path);
                    return Err(Problem::new(Code::ContentMismatch, message).retry_useful());
                }
                let (folder, name) = parent(tree, &entry.path).map_err(failed)?;
                if folder.mode(name).map_err(failed)? != mode_of(*executable) {
                    return Err(Problem::new(
                        Code::ContentMismatch,
                        format!("`{}` has another mode than the manifest says", entry.path),
                    )
                    .retry_useful());
                }
            }
        }
    }
    for (folder, names) in expected {
        let here = if folder.is_empty() {
            tree.names()
        } else {
            tree.folder(folder).and_then(|folder| folder.names())
        };
        let surplus = here.map_err(failed)?.into_iter().find(|name| !names.contains(name.as_str()));
        if let Some(name) = surplus {
            let message = format!("`{name}` in `/{folder}` of the staged tree is not in the manifest");
            return Err(Problem::new(Code::ContentMismatch, message)
                .hint("abort the release: what is staged is then dropped, and the next one stages anew"));
        }
    }
    Ok(())
}

/// Drops what an unfinished stage left. A complete artifact stays: it may be wanted again.
pub fn discard(site: &Site, artifact: &ArtifactDigest, rule: &Rule) -> Result<Evidence, Problem> {
    rule.check()?;
    site.take_turn(artifact);
    let staging = site
        .root()
        .folder(".pointsman/staging")
        .map_err(|error| file_problem("cannot open the staging folder", &error))?;
    let there = staging
        .look(&artifact.to_string())
        .map_err(|error| file_problem("cannot look at what is staged", &error))?;
    if there == Found::Nothing {
        return Ok(Evidence { already: true, detail: "nothing is staged".to_owned(), ..Evidence::default() });
    }
    staging
        .remove_tree(&artifact.to_string())
        .map_err(|error| file_problem("cannot drop what is staged", &error))?;
    Ok(Evidence {
        already: false,
        detail: format!("staged files of {} dropped", artifact.short()),
        ..Evidence::default()
    })
}
