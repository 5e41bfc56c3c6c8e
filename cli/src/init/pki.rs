//! The authority and the certificates it signs.

use std::path::Path;

use pointsman_core::{Code, PeerName, Problem};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use super::files::write_new;

/// How long certificates of a small set-up last, in days: renewed by hand, once a year.
const LEAF_DAYS: i64 = 397;
/// How long the authority lasts, in days.
const AUTHORITY_DAYS: i64 = 3650;

/// An authority with its key.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn failed(what: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(Code::CertificateUnusable, what).cause(error.to_string())
}

/// Valid from yesterday, so that a clock that is behind does not refuse it, for so many days.
fn validity(params: &mut CertificateParams, days: i64) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |offset: i64| {
        let date = today.saturating_add(jiff::Span::new().days(offset));
        // jiff's months and days are small and positive.
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

impl Authority {
    /// The authority in a folder, made anew if there is none.
    pub fn open_or_make(folder: &Path, trust_domain: &str) -> Result<Self, Problem> {
        let (certificate_path, key_path) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        if !certificate_path.exists() {
            let (certificate, key) =
                make(trust_domain).map_err(|error| failed("cannot make an authority", &error))?;
            write_new(&key_path, &key, 0o600)?;
            write_new(&certificate_path, &certificate, 0o644)?;
        }
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| failed(&format!("cannot read `{}`", path.display()), &error))
        };
        let certificate = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)
            .map_err(|error| failed(&format!("`{}` is no key", key_path.display()), &error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(|error| failed(&format!("`{}` is no authority", certificate_path.display()), &error))?;
        Ok(Self { certificate, issuer })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate with this one name, and its key, PEM.
    pub fn issue(&self, name: &PeerName) -> Result<(String, String), Problem> {
        self.sign(name).map_err(|error| failed(&format!("cannot make a certificate for `{name}`"), &error))
    }

    fn sign(&self, name: &PeerName) -> Result<(String, String), rcgen::Error> {
        // The DNS name is for the standard check of a server's name; the URI is who it is.
        let mut params = CertificateParams::new(vec![name.name.clone()])?;
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(name.to_string())?));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{} {}", name.role, name.name));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn make(trust_domain: &str) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("pointsman authority of {trust_domain}"));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_DAYS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
