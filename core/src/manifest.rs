//! What an artifact is made of: paths, kinds, modes and contents, in one canonical form.
//!
//! A manifest comes from outside and decides where an agent writes, so nothing unusual passes [`Manifest::new`]:
//! every path is relative, plain and below a directory of the manifest; every link stays inside.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::shown;
use crate::{Code, ContentHash, Problem};

/// Most entries of one artifact. A large web application with its assets has some ten thousand.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Longest path, in bytes: Linux's own limit of 4096 counts the NUL at its end.
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest component of a path, in bytes: Linux's own limit.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Deepest path: far above what builds make, low enough to bound recursion.
pub const MAX_DEPTH: usize = 64;
/// Largest manifest in its canonical form, in bytes.
pub const MAX_ENCODED_BYTES: usize = 256 << 20;
/// First bytes of the canonical form: a name and a version.
const MAGIC: &[u8] = b"pointsman-manifest\x01\n";

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// What is in it.
        content: ContentHash,
        /// Whether it may be executed: mode 0755 instead of 0644.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points, relative to itself.
        target: String,
    },
}

/// One path of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, with `/` between components.
    pub path: String,
    /// What stands there.
    pub kind: Kind,
}

/// A whole, valid artifact description, sorted by path bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

fn refuse(code: Code, path: &str, rule: &str) -> Problem {
    Problem::new(code, format!("path `{}` {rule}", shown(path)))
        .hint("change or remove this path in the build's output")
}

/// Checks one path: relative, plain components, bounded.
pub fn check_path(path: &str) -> Result<(), Problem> {
    let refuse = |rule: &str| Err(refuse(Code::PathRefused, path, rule));
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.len() > MAX_PATH_BYTES {
        return refuse(&format!("is {} bytes long, more than {MAX_PATH_BYTES}", path.len()));
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.chars().any(char::is_control) {
        return refuse("has a control character in it");
    }
    if path.contains('\\') {
        return refuse("has a backslash in it");
    }
    if path.split('/').count() > MAX_DEPTH {
        return refuse(&format!("is deeper than {MAX_DEPTH} levels"));
    }
    for component in path.split('/') {
        match component {
            "" => return refuse("has an empty component"),
            "." | ".." => return refuse("has a `.` or `..` component"),
            long if long.len() > MAX_COMPONENT_BYTES => {
                return refuse(&format!("has a component longer than {MAX_COMPONENT_BYTES} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a link: its target is relative, goes up only at its beginning, and not above the artifact's root.
///
/// `..` after a name is refused because that name could itself be a link, and then `..` would leave from
/// where that link leads. Leading `..` start from the link's own directory, which is never a link.
fn check_link(path: &str, target: &str) -> Result<(), Problem> {
    let refuse = |rule: &str| Err(refuse(Code::LinkRefused, path, rule));
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.chars().any(char::is_control) {
        return refuse("is a link with an empty, overlong or unprintable target");
    }
    if target.starts_with('/') {
        return refuse("is a link to an absolute path");
    }
    let ups = target.split('/').take_while(|component| *component == "..").count();
    if target.split('/').skip(ups).any(|component| component == "..") {
        return refuse("is a link whose target goes up after going down");
    }
    let depth = path.split('/').count().saturating_sub(1);
    if ups > depth {
        return refuse("is a link that leaves the artifact");
    }
    Ok(())
}

impl Manifest {
    /// Sorts and checks entries. The error names the path and the rule it breaks.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, Problem> {
        if entries.len() > MAX_ENTRIES {
            return Err(Problem::new(
                Code::ArtifactTooLarge,
                format!("the artifact has {} entries, more than {MAX_ENTRIES}", entries.len()),
            ));
        }
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        let mut directories = BTreeSet::new();
        let mut previous: Option<&str> = None;
        let mut sizes: BTreeMap<ContentHash, u64> = BTreeMap::new();
        for entry in &entries {
            check_path(&entry.path)?;
            if previous == Some(entry.path.as_str()) {
                return Err(refuse(Code::PathRefused, &entry.path, "stands there twice"));
            }
            previous = Some(&entry.path);
            if let Some((parent, _)) = entry.path.rsplit_once('/')
                && !directories.contains(parent)
            {
                return Err(refuse(
                    Code::PathRefused,
                    &entry.path,
                    "is not below a directory of the artifact",
                ));
            }
            match &entry.kind {
                Kind::Directory => {
                    directories.insert(entry.path.as_str());
                }
                Kind::Link { target } => check_link(&entry.path, target)?,
                Kind::File { size, content, .. } => {
                    if sizes.insert(*content, *size).is_some_and(|other| other != *size) {
                        return Err(refuse(
                            Code::ManifestInvalid,
                            &entry.path,
                            "has a content that another path has in another size",
                        ));
                    }
                }
            }
        }
        if sizes.is_empty() {
            return Err(Problem::new(
                Code::ArtifactEmpty,
                "the artifact holds 0 files: nothing would be left of the site",
            )
            .hint("check that the build wrote its output where `--artifact` points"));
        }
        Ok(Self { entries })
    }

    /// The entries, sorted by path bytes: a directory comes before what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The distinct contents with their sizes, in the order in which the paths first need them. Both ends of a
    /// transfer number contents by this order.
    pub fn contents(&self) -> Vec<(ContentHash, u64)> {
        let mut seen = BTreeSet::new();
        self.files().filter(|(content, _)| seen.insert(*content)).collect()
    }

    fn files(&self) -> impl Iterator<Item = (ContentHash, u64)> {
        self.entries.iter().filter_map(|entry| match entry.kind {
            Kind::File { size, content, .. } => Some((content, size)),
            Kind::Directory | Kind::Link { .. } => None,
        })
    }

    /// How many regular files there are.
    pub fn file_count(&self) -> u64 {
        self.files().count() as u64
    }

    /// The bytes of all files, each path counted.
    pub fn total_bytes(&self) -> u64 {
        self.files().fold(0, |sum, (_, size)| sum.saturating_add(size))
    }

    /// The canonical form: the same artifact always gives the same bytes, and their BLAKE3 is its digest.
    /// Integers are little-endian; per entry kind, mode, size, content, path and target with their lengths.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for entry in &self.entries {
            let (kind, mode, size, content, target) = match &entry.kind {
                Kind::Directory => (b'd', 0o755u16, 0, [0; 32], ""),
                Kind::File { size, content, executable } => {
                    (b'f', if *executable { 0o755 } else { 0o644 }, *size, *content.as_bytes(), "")
                }
                Kind::Link { target } => (b'l', 0o777, 0, [0; 32], target.as_str()),
            };
            bytes.push(kind);
            bytes.extend(mode.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(content);
            for text in [entry.path.as_str(), target] {
                // Both are at most MAX_PATH_BYTES long, so their lengths fit.
                bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
                bytes.extend(text.as_bytes());
            }
        }
        bytes
    }

    /// Reads the canonical form, and nothing but the canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.len() > MAX_ENCODED_BYTES {
            return Err(Problem::new(
                Code::ArtifactTooLarge,
                format!("the manifest is {} bytes long", bytes.len()),
            ));
        }
        let invalid = |what: &str| Problem::new(Code::ManifestInvalid, format!("the manifest {what}"));
        let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("has an unknown version"))?);
        let mut entries = Vec::new();
        while !reader.0.is_empty() {
            if entries.len() >= MAX_ENTRIES {
                return Err(Problem::new(
                    Code::ArtifactTooLarge,
                    format!("the artifact has more than {MAX_ENTRIES} entries"),
                ));
            }
            entries.push(
                reader.entry().ok_or_else(|| invalid(&format!("is malformed at entry {}", entries.len())))?,
            );
        }
        let manifest = Self::new(entries)?;
        if manifest.encode() == bytes { Ok(manifest) } else { Err(invalid("is not in its canonical form")) }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }

    fn entry(&mut self) -> Option<Entry> {
        let [kind] = self.take()?;
        let mode = u16::from_le_bytes(self.take()?);
        let size = u64::from_le_bytes(self.take()?);
        let content = ContentHash::from_bytes(self.take()?);
        let path = self.text()?;
        let target = self.text()?;
        let kind = match kind {
            b'd' => Kind::Directory,
            b'f' => Kind::File { size, content, executable: mode & 0o100 != 0 },
            b'l' => Kind::Link { target },
            _ => return None,
        };
        Some(Entry { path, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directory(path: &str) -> Entry {
        Entry { path: path.to_owned(), kind: Kind::Directory }
    }
    fn file(path: &str) -> Entry {
        let kind = Kind::File { size: 1, content: ContentHash::from_bytes([7; 32]), executable: false };
        Entry { path: path.to_owned(), kind }
    }
    fn link(path: &str, target: &str) -> Entry {
        Entry { path: path.to_owned(), kind: Kind::Link { target: target.to_owned() } }
    }
    fn code(entries: Vec<Entry>) -> Option<Code> {
        Manifest::new(entries).err().map(|problem| problem.code)
    }

    #[test]
    fn paths_that_cannot_stand_in_an_artifact() {
        let long = format!("{}x", "d/".repeat(2500));
        let wide = "x".repeat(256);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            ".",
            "..",
            "a\\b",
            "a\0b",
            "a\nb",
            &long,
            &wide,
        ] {
            assert_eq!(code(vec![directory("a"), file(bad)]), Some(Code::PathRefused), "{bad:?}");
        }
        for good in ["index.html", "a/b.js", ".well-known", "ü/x", "a b", "...", "a..b", "-rf"] {
            assert_eq!(code(vec![directory("a"), directory("ü"), file(good)]), None, "{good:?}");
        }
    }

    #[test]
    fn entries_that_contradict_each_other() {
        assert_eq!(code(vec![file("a"), file("a")]), Some(Code::PathRefused));
        assert_eq!(code(vec![file("a"), file("a/b")]), Some(Code::PathRefused));
        assert_eq!(code(vec![link("a", "b"), directory("b"), file("a/x")]), Some(Code::PathRefused));
        assert_eq!(code(vec![file("missing/x")]), Some(Code::PathRefused));
        assert_eq!(code(vec![]), Some(Code::ArtifactEmpty));
        assert_eq!(code(vec![directory("a"), link("b", "a")]), Some(Code::ArtifactEmpty));
    }

    #[test]
    fn links_stay_inside() {
        let base = || vec![directory("a"), directory("a/b"), file("x")];
        let with = |path: &str, target: &str| {
            let mut entries = base();
            entries.push(link(path, target));
            code(entries)
        };
        for (path, target) in [("l", "x"), ("a/l", "../x"), ("a/b/l", "../../x"), ("l", "a/b"), ("l", "./x")]
        {
            assert_eq!(with(path, target), None, "{path} -> {target}");
        }
        for (path, target) in [
            ("l", "/etc/passwd"),
            ("l", ".."),
            ("l", "../x"),
            ("a/l", "../../x"),
            ("l", "a/../.."),
            ("l", "a/.."),
            ("l", ""),
            ("l", "a\0b"),
        ] {
            assert_eq!(with(path, target), Some(Code::LinkRefused), "{path} -> {target}");
        }
    }

    #[test]
    fn the_canonical_form_is_the_only_form() {
        let manifest = Manifest::new(vec![file("b"), link("c", "b"), directory("a"), file("a/x")]).unwrap();
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        for cut in 0..bytes.len() {
            // A cut between two entries is a shorter artifact, with another digest; every other is malformed.
            if let Ok(shorter) = Manifest::decode(&bytes[..cut]) {
                assert_eq!(shorter.encode(), &bytes[..cut]);
            }
        }
        let mut other_mode = bytes.clone();
        other_mode[MAGIC.len() + 1] ^= 0o22;
        assert_eq!(Manifest::decode(&other_mode).unwrap_err().code, Code::ManifestInvalid);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
