//! The files of one certificate: the one that HAProxy reads at its next start or reload, and beside it the one before.
//!
//! The files beside it begin with a dot: a `bind` line may name the whole folder, and HAProxy would load every other
//! file in it, half-written and old ones too.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pointsman_chassis::durable;
use pointsman_chassis::site_certificate::{InPlace, LeafFacts, SiteCertificate, unfit};
use pointsman_core::{Code, Problem};

/// What a certificate file may be readable for besides its owner: the group, if it was so before. Never for all.
const MODES: u32 = 0o640;
/// Its owner reads and writes it.
const OWN_MODE: u32 = 0o600;

/// Largest OCSP response that is read: they are of one or two kilobytes.
const MAX_RESPONSE_BYTES: u64 = 64 << 10;

/// A serial number in hexadecimal, as DER has it: an integer, its length, and no sign.
fn serial_in_der(hexadecimal: &str) -> Option<Vec<u8>> {
    let even = format!("{}{hexadecimal}", if hexadecimal.len().is_multiple_of(2) { "" } else { "0" });
    let pairs = even.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let digits = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>()?;
    let sign = digits.first().filter(|first| **first > 0x7f).map(|_| 0);
    let length = u8::try_from(digits.len().saturating_add(usize::from(sign.is_some()))).ok()?;
    Some([2, length].into_iter().chain(sign).chain(digits).collect())
}

/// The place of one certificate.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{ending}"))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::FileSystem, format!("cannot write `{}`", path.display()))
        .because(error)
        .retry_useful()
        .hint(format!(
            "on the load balancer: `df -h`; the file and its folder must belong to the agent's user, and be in `ReadWritePaths=` of its unit: `chown pointsman: {}`",
            path.display()
        ))
}

impl Place {
    /// The place at this path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The file itself, where the path is a link: a rename over a link would leave a file in its place, and whoever looks
    /// after what it led to would go on with one that nobody reads. Looked up each time, because links are led elsewhere.
    fn file(&self) -> PathBuf {
        std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// Where the one before is kept.
    fn previous(&self) -> PathBuf {
        beside(&self.file(), "previous")
    }

    /// The certificate that the next start brings, as it is.
    pub fn read(&self) -> Result<InPlace, Problem> {
        InPlace::read(&self.path)
    }

    /// The same, where it is to be deployed itself.
    pub fn read_whole(&self) -> Result<SiteCertificate, Problem> {
        SiteCertificate::read(&self.path)
    }

    /// The same as it is, where nothing may be begun without it: it is the way back.
    pub fn read_in_place(&self) -> Result<InPlace, Problem> {
        let no_way_back = |why: &str| {
            unfit(format!(
                "the one in place, `{}`, {why}, so there would be no way back",
                self.path.display()
            ))
            .hint("put a whole one there by hand, then `systemctl reload haproxy`")
        };
        let found =
            self.read().map_err(|problem| no_way_back("cannot be read").cause(problem.to_string()))?;
        if found.has_key() {
            return Ok(found);
        }
        let beside = format!("no key stands in it, nor can one be read from `{}.key`", self.path.display());
        Err(no_way_back("has no key that can be read").cause(beside))
    }

    /// The one that was in place before, if it can be read.
    pub fn read_previous(&self) -> Option<InPlace> {
        InPlace::read(&self.previous()).ok()
    }

    /// The OCSP response beside it, which HAProxy shows with it, if it is of another certificate.
    pub fn foreign_response(&self, leaf: &LeafFacts) -> Option<PathBuf> {
        let mut path = self.path.clone().into_os_string();
        path.push(".ocsp");
        let path = PathBuf::from(path);
        let mut response = Vec::new();
        let file = std::fs::File::open(&path).ok()?;
        file.take(MAX_RESPONSE_BYTES).read_to_end(&mut response).ok()?;
        // A response names its certificate by the serial number.
        let serial = serial_in_der(&leaf.serial)?;
        let is_own = response.windows(serial.len()).any(|window| window == serial);
        (!is_own).then_some(path)
    }

    /// Puts a certificate in place, whole and durable, with the owner of the one before, which is kept beside it.
    pub fn replace(&self, old: &InPlace, new: &SiteCertificate) -> Result<(), Problem> {
        let previous = self.previous();
        durable::replace(&previous, old.pem().as_bytes(), OWN_MODE)
            .map_err(|error| unwritable(&previous, &error))?;
        self.put(new.pem())
    }

    /// Puts the PEM of a certificate in place, and leaves the one before it alone.
    pub fn put(&self, pem: &str) -> Result<(), Problem> {
        let file = self.file();
        let next = beside(&file, "next");
        let put = || -> std::io::Result<()> {
            let before = std::fs::metadata(&file)?;
            durable::replace(&next, pem.as_bytes(), OWN_MODE)?;
            let written = std::fs::metadata(&next)?;
            if (written.uid(), written.gid()) != (before.uid(), before.gid()) {
                std::os::unix::fs::chown(&next, Some(before.uid()), Some(before.gid()))?;
            }
            let mode = before.mode() & MODES | OWN_MODE;
            std::fs::set_permissions(&next, std::fs::Permissions::from_mode(mode))?;
            std::fs::rename(&next, &file)?;
            durable::sync_directory(file.parent().unwrap_or(Path::new("/")))
        };
        put().map_err(|error| {
            // Left behind it would only be one copy of a key more; the error that counts is the first.
            let _ = std::fs::remove_file(&next);
            unwritable(&file, &error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_as_der_has_them() {
        for (hexadecimal, der) in [
            ("1000", &[2, 2, 0x10, 0][..]),
            ("7F", &[2, 1, 0x7f]),
            ("80", &[2, 2, 0, 0x80]),
            ("ABC", &[2, 2, 0x0a, 0xbc]),
        ] {
            assert_eq!(serial_in_der(hexadecimal).as_deref(), Some(der), "{hexadecimal}");
        }
        assert_eq!(serial_in_der("x"), None);
    }

    #[test]
    fn files_beside_a_certificate_are_hidden_from_haproxy() {
        let path = Path::new("/etc/haproxy/certs/www.pem");
        assert_eq!(Place::new(path).previous(), Path::new("/etc/haproxy/certs/.www.pem.previous"));
        assert_eq!(beside(path, "next"), Path::new("/etc/haproxy/certs/.www.pem.next"));
    }
}
