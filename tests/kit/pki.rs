//! Certificates as a site has them, and such as no site should have. The authority lives in memory; what it issues
//! is written where configuration files point to.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use pointsman_chassis::config::Pki;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// An authority that signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// URI names; a proper certificate has exactly one.
    pub uris: Vec<String>,
    /// The host name that clients expect of a server.
    pub dns: Option<String>,
    /// It ended long ago.
    pub expired: bool,
    /// It ends so soon; else it lasts for ever.
    pub lasts: Option<Duration>,
}

/// A certificate with its key and the authority that its holder trusts, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The trusted authority.
    pub ca: PathBuf,
}

/// The one name of a peer of the test sites: `uri("production", "operator", "user", "admin")`.
pub fn uri(environment: &str, role: &str, kind: &str, name: &str) -> String {
    format!("spiffe://{}/env/{environment}/role/{role}/{kind}/{name}", crate::TRUST_DOMAIN)
}

impl Subject {
    /// A subject with these URI names.
    pub fn named(uris: &[String]) -> Self {
        Self { uris: uris.to_vec(), ..Self::default() }
    }

    /// A subject that is a server, too.
    pub fn host(uri: String, dns: &str) -> Self {
        Self { uris: vec![uri], dns: Some(dns.to_owned()), ..Self::default() }
    }

    fn parameters(&self) -> Result<CertificateParams> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "pointsman test");
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for uri in &self.uris {
            parameters.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        if let Some(dns) = &self.dns {
            parameters.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
        }
        if let Some(lasts) = self.lasts {
            parameters.not_after = (SystemTime::now() + lasts).into();
        }
        if self.expired {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2021, 1, 1);
        }
        Ok(parameters)
    }
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)? })
    }

    /// Issues a certificate into `folder`. Its holder trusts the authority whose certificate is in `ca`.
    pub fn issue(&self, subject: &Subject, folder: &Path, ca: &Path) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = subject.parameters()?.signed_by(&key, &self.issuer)?;
        std::fs::create_dir_all(folder)?;
        let identity =
            Identity { cert: folder.join("cert.pem"), key: folder.join("key.pem"), ca: ca.to_owned() };
        std::fs::write(&identity.cert, certificate.pem())?;
        write_private(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }

    /// Writes the authority's own certificate.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.issuer.pem()).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

impl Identity {
    /// The `[pki]` table of a daemon's configuration.
    pub fn table(&self) -> String {
        let Self { cert, key, ca } = self;
        format!("[pki]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}\n")
    }

    /// The files as the chassis takes them.
    pub fn files(&self) -> Pki {
        Pki { cert: self.cert.clone(), key: self.key.clone(), ca: self.ca.clone() }
    }
}
