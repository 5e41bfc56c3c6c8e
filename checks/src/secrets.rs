//! Secrets of checks: read from files where the check is made, never sent, and taken out of everything that is said.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, openat};
use zeroize::Zeroizing;

use crate::template::percent_encoded;

/// Longest secret, in bytes.
const MAX_BYTES: u64 = 4096;

/// Anybody but the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// Strangers may read.
const STRANGERS: u32 = 0o007;

/// Opens a file below a folder, through no link and no `..`: name by name, so that it is the same on every system.
fn beneath(mut folder: File, inside: &Path) -> io::Result<File> {
    let mut names = inside.components().peekable();
    while let Some(name) = names.next() {
        let Component::Normal(name) = name else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it leads out of its folder"));
        };
        let kind = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | kind;
        folder = File::from(openat(&folder, name, flags, Mode::empty())?);
    }
    Ok(folder)
}

/// Reads a secret below a granted folder. What others could have written, or strangers can read, is no secret.
pub fn read(folder: Option<&Path>, file: &str) -> Result<Zeroizing<String>, String> {
    let folder = folder.ok_or_else(|| {
        format!("this agent may read no secrets: add to its file `[checks] secrets = \"…\"`, a folder that holds `{file}`")
    })?;
    let inside = Path::new(file).strip_prefix(folder).map_err(|_| {
        format!(
            "secret file `{file}` is not below `{}`, the folder that this agent may read",
            folder.display()
        )
    })?;
    let failed = |error: &dyn std::fmt::Display| format!("cannot read secret file `{file}`: {error}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, folder, flags, Mode::empty()).map_err(|error| failed(&error))?;
    let directory = File::from(directory);
    let owned = directory.metadata().map_err(|error| failed(&error))?;
    let us = rustix::process::geteuid().as_raw();
    if (owned.uid() != 0 && owned.uid() != us) || owned.mode() & OTHERS_WRITE != 0 {
        return Err(format!(
            "folder `{}` is not root's alone to write: its secrets are not read",
            folder.display()
        ));
    }
    let opened = beneath(directory, inside).map_err(|error| failed(&error))?;
    let found = opened.metadata().map_err(|error| failed(&error))?;
    if !found.is_file() {
        return Err(failed(&"it is no regular file"));
    }
    if found.mode() & (STRANGERS | OTHERS_WRITE) != 0 {
        return Err(format!(
            "secret file `{file}` has mode {:04o}: expected 0600 or 0640",
            found.mode() & 0o7777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    opened.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(&format!("it is longer than {MAX_BYTES} bytes")));
    }
    let value = text.trim_end_matches(['\n', '\r']);
    if value.is_empty() || value.contains(char::is_control) {
        return Err(failed(&"expected one line of text"));
    }
    Ok(Zeroizing::new(value.to_owned()))
}

/// Most entries of a granted folder that are looked at for what is to be hidden: a check has a few files.
const MOST_ENTRIES: usize = 256;

/// What is hidden whoever asks: every secret below the granted folder. A check that knows none may be answered with what
/// another one has sent.
pub fn hidden(folder: Option<&Path>) -> Redactor {
    let mut redactor = Redactor::default();
    let Some(granted) = folder else { return redactor };
    let (mut folders, mut looked_at) = (vec![granted.to_owned()], 0_usize);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries.take(MOST_ENTRIES.saturating_sub(looked_at)) {
            looked_at = looked_at.saturating_add(1);
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                // What cannot be read as a secret no check has sent.
                _ => {
                    let read = path.to_str().and_then(|file| read(Some(granted), file).ok());
                    read.into_iter().for_each(|secret| redactor.hide(&secret));
                }
            }
        }
    }
    redactor
}

/// Shortest captured value that is hidden: a token is longer, a number of a feature is shorter.
const CAPTURED_CHARS: usize = 12;

/// Takes secrets out of texts.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Every form in which a secret may come back, the longest first.
    hidden: Vec<Zeroizing<String>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hidden texts", self.hidden.len())
    }
}

impl Redactor {
    /// Hides a secret from now on, as it is, with the spaces that a document leaves of it, and as it is escaped in URLs, forms,
    /// JSON and HTML.
    pub fn hide(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let json = serde_json::Value::String(secret.to_owned()).to_string();
        let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
        let html =
            secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        let percent = percent_encoded(secret);
        let form = percent.replace("%20", "+");
        let spaced = secret.split_whitespace().collect::<Vec<_>>().join(" ");
        for shape in [secret.to_owned(), spaced, json, html, form, percent] {
            let shape = Zeroizing::new(shape);
            if !shape.is_empty() && !self.hidden.contains(&shape) {
                self.hidden.push(shape);
            }
        }
        self.hidden.sort_by_key(|shape| std::cmp::Reverse(shape.len()));
    }

    /// Hides a value that an answer gave, if it is long enough to be a token.
    pub fn hide_captured(&mut self, value: &str) {
        if value.chars().count() >= CAPTURED_CHARS {
            self.hide(value);
        }
    }

    /// Hides what another hides, too.
    pub fn learn(&mut self, other: &Self) {
        let new = other.hidden.iter().filter(|shape| !self.hidden.contains(shape));
        let new: Vec<Zeroizing<String>> = new.cloned().collect();
        self.hidden.extend(new);
        self.hidden.sort_by_key(|shape| std::cmp::Reverse(shape.len()));
    }

    /// So many characters of a text, and what stands before them, as it is after its secrets were taken out: one that was cut
    /// first would not be known any more.
    pub fn begin(&self, text: &str, chars: usize) -> String {
        let longest = self.hidden.first().map_or(1, |longest| longest.len());
        // Each character that is left stands for one secret at most, and the last one may be cut.
        let enough = chars.saturating_add(1).saturating_mul(longest);
        self.redact(&text.chars().take(enough).collect::<String>())
    }

    /// The text with `***` for every secret.
    pub fn redact(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden.as_str(), "***"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_is_secret_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        write(&folder.path().join("good"), "hunter2\n", 0o600);
        write(&folder.path().join("open"), "hunter2\n", 0o644);
        write(&folder.path().join("lines"), "a\nb\n", 0o600);
        write(&folder.path().join("empty"), "\n", 0o600);
        write(&folder.path().join("long"), &"x".repeat(5000), 0o600);
        symlink(folder.path().join("good"), folder.path().join("link")).unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let read = |name: &str| read(Some(folder.path()), &path(name));
        assert_eq!(read("good").unwrap().as_str(), "hunter2");
        for (name, expected) in [
            ("open", "mode 0644: expected 0600"),
            ("lines", "one line of text"),
            ("empty", "one line of text"),
            ("long", "longer than 4096"),
            ("link", "cannot read secret file"),
            ("folder", "no regular file"),
            ("gone", "No such file"),
        ] {
            let said = read(name).unwrap_err();
            assert!(said.contains(expected), "{name}: {said}");
        }
        let outside = super::read(Some(folder.path()), "/etc/shadow").unwrap_err();
        assert!(outside.contains("is not below"), "{outside}");
        let up = super::read(Some(&folder.path().join("folder")), &path("folder/../good")).unwrap_err();
        assert!(up.contains("cannot read"), "{up}");
        assert!(super::read(None, "/x").unwrap_err().contains("may read no secrets"));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read("good").unwrap_err().contains("not root's alone to write"));
    }

    #[test]
    fn a_secret_is_hidden_in_every_shape() {
        let mut redactor = Redactor::default();
        redactor.hide("p\"ä &<w");
        redactor.hide_captured("17");
        redactor.hide_captured("0123456789ab");
        let text = "raw p\"ä &<w json p\\\"ä &<w url p%22%C3%A4%20%26%3Cw form p%22%C3%A4+%26%3Cw html p&quot;ä &amp;&lt;w 17 0123456789ab";
        assert_eq!(redactor.redact(text), "raw *** json *** url *** form *** html *** 17 ***");
        redactor.hide("two  spaces ");
        assert_eq!(redactor.redact("[two  spaces ] [two spaces]"), "[***] [***]");
        assert!(!format!("{redactor:?}").contains('w'.to_string().repeat(2).as_str()));
    }
}
