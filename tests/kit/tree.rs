//! Artifact folders: making them, and comparing two of them byte by byte.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Times that the marker stands in the page that visitors ask for: a torn or cut page shows.
const MARKER_LINES: usize = 400;
/// Differences named when two trees differ.
const SHOWN: usize = 5;

/// Makes a small site whose page says `marker` in every line, with folders, an empty file, an executable, a copy and
/// links in it. Assets are the same in every version but one.
pub fn make(folder: &Path, marker: &str) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let write = |path: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {path:?}"))
    };
    write("page.txt", format!("{marker}\n").repeat(MARKER_LINES).as_bytes())?;
    write("index.html", format!("<title>{marker}</title>\n").as_bytes())?;
    write("api/health", b"well\n")?;
    write("assets/app.js", format!("export const version = '{marker}';\n").as_bytes())?;
    write("assets/copy.js", format!("export const version = '{marker}';\n").as_bytes())?;
    write("assets/empty.css", b"")?;
    write("assets/deep/er/and deeper/ü.txt", "außen".as_bytes())?;
    for number in 0..20u8 {
        write(&format!("assets/tile-{number}.bin"), &noise(u64::from(number), 5_000))?;
    }
    write("bin/tool.sh", b"#!/bin/sh\nexit 0\n")?;
    std::fs::set_permissions(folder.join("bin/tool.sh"), Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink("assets/app.js", folder.join("latest.js"))?;
    std::os::unix::fs::symlink("../../index.html", folder.join("assets/deep/home"))?;
    std::fs::create_dir_all(folder.join("empty"))?;
    Ok(folder.to_owned())
}

/// Adds incompressible files to a tree.
pub fn grow(folder: &Path, files: u64, bytes_each: usize) -> Result<()> {
    std::fs::create_dir_all(folder.join("big"))?;
    for number in 0..files {
        std::fs::write(folder.join(format!("big/{number}.bin")), noise(1000 + number, bytes_each))?;
    }
    Ok(())
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Directory,
    File { bytes: Vec<u8>, executable: bool },
    Link(PathBuf),
    Other,
}

fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, PathBuf>) -> Result<()> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder:?}"))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        }
        found.insert(path, entry.path());
    }
    Ok(())
}

/// Every path below a root, with the place where it stands.
pub fn paths(root: &Path) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    walk(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn stands(path: &Path) -> Result<Stands> {
    let metadata = std::fs::symlink_metadata(path).with_context(|| format!("cannot look at {path:?}"))?;
    Ok(match metadata.file_type() {
        kind if kind.is_dir() => Stands::Directory,
        kind if kind.is_symlink() => Stands::Link(std::fs::read_link(path)?),
        kind if kind.is_file() => {
            Stands::File { bytes: std::fs::read(path)?, executable: metadata.mode() & 0o100 != 0 }
        }
        _ => Stands::Other,
    })
}

/// Compares two trees: every path, kind, byte, link target and executable bit. Returns how many files were compared.
pub fn compare(source: &Path, copy: &Path) -> Result<usize> {
    let (wanted, found) = (paths(source)?, paths(copy)?);
    let mut differences: Vec<String> = Vec::new();
    let mut files = 0usize;
    for (path, place) in &wanted {
        match found.get(path) {
            None => differences.push(format!("{path:?} is missing")),
            Some(other) => {
                let (wanted, found) = (stands(place)?, stands(other)?);
                files = files.saturating_add(usize::from(matches!(wanted, Stands::File { .. })));
                if wanted != found {
                    differences.push(format!("{path:?} differs"));
                }
            }
        }
    }
    let surplus = found.keys().filter(|path| !wanted.contains_key(*path));
    differences.extend(surplus.map(|path| format!("{path:?} is too much")));
    if differences.is_empty() {
        return Ok(files);
    }
    differences.truncate(SHOWN);
    bail!("{source:?} and {copy:?} differ: {}", differences.join(", "))
}

/// Size and modification time of every file, as web servers make validators of.
pub fn validators(root: &Path) -> Result<BTreeMap<PathBuf, (u64, i64)>> {
    let mut found = BTreeMap::new();
    for (path, place) in paths(root)? {
        let metadata = std::fs::symlink_metadata(place)?;
        if metadata.is_file() {
            found.insert(path, (metadata.len(), metadata.mtime()));
        }
    }
    Ok(found)
}
