//! Who is at the other end: read from the certificate that the handshake has verified.

use pointsman_core::{Code, PeerName, Problem};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A verified peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its one name.
    pub name: PeerName,
    /// The serial number of its certificate, in hexadecimal.
    pub serial: String,
    /// When its certificate begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

/// When a certificate ends, in seconds since 1970, whatever its name.
pub fn end_of_certificate(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Reads the one URI name of a certificate. A certificate with no such name, or with several, names nobody.
pub fn peer_of_certificate(certificate: &CertificateDer<'_>) -> Result<Peer, Problem> {
    let refuse = |what: &str| Problem::new(Code::CertificateRefused, format!("certificate refused: {what}"));
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| refuse("it cannot be read"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| refuse("its alternative names cannot be read"))?
        .ok_or_else(|| refuse("it has no alternative names"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(refuse("it does not have exactly one URI name"));
    };
    Ok(Peer {
        name: PeerName::parse(uri).map_err(|error| refuse(&error.to_string()))?,
        serial: parsed.raw_serial_as_string(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}
