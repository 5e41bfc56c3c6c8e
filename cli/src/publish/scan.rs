//! Reading a folder: what is in it, and what each file's content is. Anything that cannot stand in an artifact is
//! refused by name.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pointsman_chassis::artifact::{file_problem, hash_reader};
use pointsman_core::manifest::{Entry, Kind, MAX_ENTRIES, Manifest, check_path};
use pointsman_core::{Code, ContentHash, Problem};

/// A folder, read.
pub struct Scanned {
    /// What the artifact is made of.
    pub manifest: Manifest,
    /// A file with each content.
    pub files: BTreeMap<ContentHash, PathBuf>,
}

/// Reads a folder.
pub fn scan(root: &Path) -> Result<Scanned, Problem> {
    let metadata = fs::metadata(root).map_err(|error| {
        Problem::new(Code::ArtifactMissing, format!("cannot read `{}`", root.display()))
            .because(&error)
            .hint("`--artifact` takes the folder that the build wrote, or a digest of 64 hexadecimal digits")
    })?;
    if !metadata.is_dir() {
        return Err(Problem::new(Code::ArtifactMissing, format!("`{}` is no folder", root.display())).hint(
            "`--artifact` takes the folder that the build wrote, or a digest of 64 hexadecimal digits",
        ));
    }
    let (mut entries, mut files) = (Vec::new(), BTreeMap::new());
    walk(root, "", &mut entries, &mut files)?;
    Ok(Scanned { manifest: Manifest::new(entries)?, files })
}

fn walk(
    folder: &Path,
    prefix: &str,
    entries: &mut Vec<Entry>,
    files: &mut BTreeMap<ContentHash, PathBuf>,
) -> Result<(), Problem> {
    let failed = |error: io::Error| file_problem(format!("cannot read `{}`", folder.display()), &error);
    for found in fs::read_dir(folder).map_err(failed)? {
        let found = found.map_err(failed)?;
        let name = found.file_name();
        let unreadable = || {
            Problem::new(
                Code::PathRefused,
                format!(
                    "a name in `{}` is not UTF-8: `{}`",
                    folder.display(),
                    name.to_string_lossy().escape_debug()
                ),
            )
            .hint("rename it in the build's output")
        };
        let path = format!("{prefix}{}", name.to_str().ok_or_else(unreadable)?);
        check_path(&path)?;
        if entries.len() >= MAX_ENTRIES {
            return Err(Problem::new(
                Code::ArtifactTooLarge,
                format!("the folder has more than {MAX_ENTRIES} entries"),
            ));
        }
        let here = found.path();
        let metadata = fs::symlink_metadata(&here).map_err(failed)?;
        let kind = if metadata.is_dir() {
            entries.push(Entry { path: path.clone(), kind: Kind::Directory });
            walk(&here, &format!("{path}/"), entries, files)?;
            continue;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&here).map_err(failed)?;
            Kind::Link { target: target.to_str().ok_or_else(unreadable)?.to_owned() }
        } else if metadata.is_file() {
            let (kind, content) = read_file(&here, &path, &metadata)?;
            files.entry(content).or_insert(here);
            kind
        } else {
            return Err(Problem::new(
                Code::FileKindRefused,
                format!("`{path}` is neither file, folder nor link"),
            )
            .hint("remove pipes, sockets and devices from the build's output"));
        };
        entries.push(Entry { path, kind });
    }
    Ok(())
}

/// Hashes a file. One that changes meanwhile would publish a mix that never existed.
fn read_file(here: &Path, path: &str, before: &Metadata) -> Result<(Kind, ContentHash), Problem> {
    let failed = |error: io::Error| file_problem(format!("cannot read `{path}`"), &error);
    let file = File::open(here).map_err(failed)?;
    let (content, size) = hash_reader(&file).map_err(failed)?;
    let after = file.metadata().map_err(failed)?;
    let stamp =
        |metadata: &Metadata| (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    if stamp(before) != stamp(&after) || size != after.len() {
        return Err(Problem::new(Code::SourceChanged, format!("`{path}` changed while it was read"))
            .hint("wait until the build is done, then publish again"));
    }
    let executable = after.permissions().mode() & 0o111 != 0;
    Ok((Kind::File { size, content, executable }, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(root: &Path) -> Code {
        scan(root).map(drop).unwrap_err().code
    }

    #[test]
    fn what_cannot_stand_in_an_artifact_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(code(&root.join("missing")), Code::ArtifactMissing);
        assert_eq!(code(root), Code::ArtifactEmpty);
        fs::write(root.join("index.html"), "x").unwrap();
        assert!(scan(root).is_ok());
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        assert_eq!(code(root), Code::LinkRefused);
        fs::remove_file(root.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        assert_eq!(code(root), Code::FileKindRefused);
        drop(socket);
    }

    #[test]
    fn equal_contents_are_one_content() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("a"), "same").unwrap();
        fs::write(root.join("d/b"), "same").unwrap();
        let scanned = scan(root).unwrap();
        assert_eq!((scanned.manifest.file_count(), scanned.manifest.contents().len()), (2, 1));
        assert_eq!(scanned.files.len(), 1);
    }
}
