//! A certificate of the site with its chain and private key: read whole or not at all, and put into the one form that
//! HAProxy takes everywhere. Here and not with the agent, because the command line looks at one before it sends it. Whether it may follow another one is not said here.
//!
//! The private key is a secret. It is wiped when the value is dropped, and nothing shows it: not `Debug`, no error.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use pointsman_core::{Code, Problem};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm};
use x509_parser::asn1_rs::{Oid, ToDer as _};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::prelude::{AlgorithmIdentifier, FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

/// Largest input, in bytes: ten times a long chain with an RSA key. What HAProxy takes is less, and its agent's business.
pub const MAX_PEM_BYTES: usize = 64 << 10;

/// Longest name: what DNS allows, with the dots.
const MAX_NAME_BYTES: usize = 253;

/// Shortest RSA key that signatures are verified with.
const SHORTEST_RSA_BITS: usize = 2048;

/// Most certificates in a chain: real ones have two to four.
const MAX_CHAIN: usize = 10;

/// A leaf, its chain and the key that fits the leaf.
pub struct SiteCertificate {
    pem: Zeroizing<String>,
    chain: Vec<CertificateDer<'static>>,
    chain_dates: Vec<(i64, i64)>,
    facts: LeafFacts,
    algorithm: SignatureAlgorithm,
    brings_parameters: bool,
}

/// A certificate as it stands in its place, whoever put it there. HAProxy takes more than is deployed here: other kinds
/// of keys, the key in a file of its own, a chain that visitors complete or refuse. None of it may keep a good
/// certificate from following, so nothing is asked of this one but that its leaf can be read.
pub struct InPlace {
    pem: Zeroizing<String>,
    chain_length: usize,
    facts: LeafFacts,
    parameters: Zeroizing<String>,
    has_key: bool,
}

/// What a leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// The names it is for: DNS names in lower case, and addresses; its common name if it has neither.
    pub names: BTreeSet<String>,
    /// Its serial number in hexadecimal, capitals, as HAProxy writes it.
    pub serial: String,
    /// The SHA-1 of it in hexadecimal, capitals, as HAProxy writes it. A name for it, not a proof of anything.
    pub sha1: String,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// Whoever signed it is not itself.
    pub needs_chain: bool,
    /// The kind of its key.
    pub key: KeyKind,
}

/// By what kind of signature a certificate proves itself: a visitor takes those kinds that they know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Known to everybody.
    Rsa,
    /// On any curve.
    Ecdsa,
    /// Of before.
    Dsa,
    /// Ed25519, as a rule.
    Other,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
            Self::Dsa => "DSA",
            Self::Other => "Ed25519 or another",
        })
    }
}

impl fmt::Debug for SiteCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteCertificate")
            .field("facts", &self.facts)
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InPlace")
            .field("facts", &self.facts)
            .field("has_key", &self.has_key)
            .finish_non_exhaustive()
    }
}

/// A name that a certificate may be for, as [`LeafFacts::names`] has it: a DNS name, an address or a common name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertifiedName(String);

impl CertifiedName {
    /// As certificates are compared by it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a name of a certificate, as `www.example.org`, `*.example.org` or an address, of at most {MAX_NAME_BYTES} bytes"
)]
pub struct InvalidCertifiedName;

impl FromStr for CertifiedName {
    type Err = InvalidCertifiedName;
    fn from_str(text: &str) -> Result<Self, InvalidCertifiedName> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
            return Err(InvalidCertifiedName);
        }
        let address = text.parse::<IpAddr>().map(|address| address.to_string());
        Ok(Self(address.unwrap_or_else(|_| text.to_ascii_lowercase())))
    }
}

/// Why a certificate cannot be used. Takes fixed words and facts of certificates only: never a part of the input.
pub fn unfit(what: impl AsRef<str>) -> Problem {
    Problem::new(Code::SiteCertificateUnfit, format!("the certificate cannot be used: {}", what.as_ref()))
        .hint("see what is in it: `openssl x509 -in FILE -noout -subject -dates -ext subjectAltName`")
}

/// One block of the input: what it says it is, and its lines.
struct Block {
    kind: Kind,
    lines: Zeroizing<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Key,
    /// Parameters of the key's curve, which stand in the key as well: old tools write them.
    Curve,
    /// Parameters for Diffie-Hellman, no secret: HAProxy takes them from the file of a certificate.
    Parameters,
    /// Something else, which only stands in a file that is in place already.
    Other,
}

fn kind_of(label: &str) -> Result<Kind, Problem> {
    match label {
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Ok(Kind::Certificate),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(Kind::Key),
        "EC PARAMETERS" => Ok(Kind::Curve),
        "DH PARAMETERS" | "X9.42 DH PARAMETERS" => Ok(Kind::Parameters),
        "ENCRYPTED PRIVATE KEY" => {
            Err(unfit("its private key is encrypted, and HAProxy could not ask for the password"))
        }
        // The label is the input's: it is not repeated. Leaving out what somebody put in on purpose would be a surprise.
        _ => Err(unfit("it holds a block that is neither a certificate nor a private key")),
    }
}

/// How much is asked of the blocks of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Only what HAProxy is to get.
    Strict,
    /// Whatever is in place.
    AsItIs,
}

fn blocks(text: &str, reading: Reading) -> Result<Vec<Block>, Problem> {
    let kind = |label: &str| match (kind_of(label), reading) {
        (Err(_), Reading::AsItIs) => Ok(Kind::Other),
        (kind, _) => kind,
    };
    let mut found = Vec::new();
    let mut open: Option<(&str, Block)> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let label = |start: &str| line.strip_prefix(start)?.strip_suffix("-----");
        match (&mut open, label("-----BEGIN "), label("-----END ")) {
            (None, Some(label), _) => {
                let mut lines = Zeroizing::new(String::with_capacity(MAX_PEM_BYTES));
                lines.push_str(line);
                lines.push('\n');
                open = Some((label, Block { kind: kind(label)?, lines }));
            }
            (None, None, Some(_)) => return Err(unfit("a block ends that has not begun")),
            // Tools write what a certificate says in words above it.
            (None, None, None) => {}
            (Some(_), Some(_), _) => return Err(unfit("a block begins inside another one")),
            (Some((label, block)), None, Some(end)) => {
                if *label != end {
                    return Err(unfit("a block begins as one kind and ends as another"));
                }
                block.lines.push_str(line);
                block.lines.push('\n');
                found.extend(open.take().map(|(_, block)| block));
            }
            (Some((_, block)), None, None) => {
                if reading == Reading::AsItIs {
                    block.lines.push_str(line);
                    block.lines.push('\n');
                    continue;
                }
                if line.contains(':') {
                    return Err(unfit(
                        "its private key is encrypted, and HAProxy could not ask for the password",
                    ));
                }
                if !line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
                    return Err(unfit("a block holds something else than base64"));
                }
                block.lines.push_str(line);
                block.lines.push('\n');
            }
        }
    }
    if open.is_some() {
        return Err(unfit("its last block has no end"));
    }
    Ok(found)
}

/// Reads what a leaf says of itself.
fn facts_of(leaf: &CertificateDer<'_>) -> Result<LeafFacts, Problem> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| unfit("its first certificate cannot be read"))?;
    let extension =
        parsed.subject_alternative_name().map_err(|_| unfit("its alternative names cannot be read"))?;
    let mut names = BTreeSet::new();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => drop(names.insert(name.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
            _ => {}
        }
    }
    if names.is_empty() {
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    Ok(LeafFacts {
        names,
        serial: hex(parsed.raw_serial().iter().skip_while(|byte| **byte == 0)),
        sha1: hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, leaf).as_ref().iter()),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        needs_chain: parsed.subject().as_raw() != parsed.issuer().as_raw(),
        key: key_kind(&parsed.public_key().algorithm.algorithm),
    })
}

fn key_kind(algorithm: &Oid<'_>) -> KeyKind {
    match algorithm.to_id_string().as_str() {
        // The second is for signatures by PSS alone.
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => KeyKind::Rsa,
        "1.2.840.10045.2.1" => KeyKind::Ecdsa,
        "1.2.840.10040.4.1" => KeyKind::Dsa,
        _ => KeyKind::Other,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
}

fn hex<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    bytes.map(|byte| format!("{byte:02X}")).collect()
}

fn signed_itself(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

/// Each certificate must be signed by the next: a chain in another order is not understood by every visitor, and one with
/// an authority of the right name and another key by none. Returns from when until when each is valid, in seconds since 1970.
fn in_order(chain: &[CertificateDer<'_>]) -> Result<Vec<(i64, i64)>, Problem> {
    let mut dates = Vec::new();
    let mut signed: Option<X509Certificate<'_>> = None;
    for (place, certificate) in (1..).zip(chain) {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| unfit(format!("certificate {place} of its chain cannot be read")))?;
        if let Some(signed) = &signed {
            if signed.issuer().as_raw() != parsed.subject().as_raw() {
                return Err(unfit(format!(
                    "its chain is not in order: certificate {place} did not sign the one before it"
                )));
            }
            signed_by(signed, &parsed, place)?;
        }
        dates.push((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()));
        signed = Some(parsed);
    }
    Ok(dates)
}

/// Refuses a certificate that the key of the next one, in `place`, did not sign.
fn signed_by(
    signed: &X509Certificate<'_>,
    signer: &X509Certificate<'_>,
    place: usize,
) -> Result<(), Problem> {
    let before = place.saturating_sub(1);
    let all = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let algorithm = identifier(&signed.signature_algorithm);
    let mut known =
        all.iter().filter(|known| algorithm.as_deref() == Some(&known.signature_alg_id())).peekable();
    if known.peek().is_none() {
        let name = named(signed.signature_algorithm.oid());
        return Err(unfit(format!(
            "certificate {before} of its chain is signed by `{name}`, which cannot be verified here"
        )));
    }
    let (key, kind) =
        (&signer.public_key().subject_public_key.data, identifier(&signer.public_key().algorithm));
    let (message, signature) = (signed.tbs_certificate.as_ref(), &signed.signature_value.data);
    let mut of_kind = known.filter(|known| kind.as_deref() == Some(&known.public_key_alg_id()));
    if !all.iter().any(|known| kind.as_deref() == Some(&known.public_key_alg_id())) {
        // The key may well be the right one: nobody here can tell.
        let algorithm = &signer.public_key().algorithm;
        let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let name = named(curve.as_ref().unwrap_or(&algorithm.algorithm));
        return Err(unfit(format!(
            "certificate {place} of its chain has a `{name}` key, by which certificate {before} cannot be verified here"
        ))
        .hint("ask the authority for a chain of RSA, P-256, P-384 or Ed25519 keys"));
    }
    if of_kind.any(|known| known.verify_signature(key, message, signature).is_ok()) {
        return Ok(());
    }
    if let Ok(PublicKey::RSA(rsa)) = signer.public_key().parsed()
        && rsa.key_size() < SHORTEST_RSA_BITS
    {
        let bits = rsa.key_size();
        return Err(unfit(format!(
            "certificate {place} of its chain has an RSA key of {bits} bits, which is too short"
        )));
    }
    Err(unfit(format!(
        "certificate {place} of its chain has the name of whoever signed certificate {before}, but not the key"
    ))
    .hint("take the chain that came with this very certificate: `fullchain.pem`"))
}

/// An algorithm or a curve as people know it, else by its number.
fn named(oid: &Oid<'_>) -> String {
    oid2sn(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned)
}

/// An algorithm with its parameters, as the libraries that verify name it: the contents of the sequence in DER.
fn identifier(algorithm: &AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let mut bytes = algorithm.algorithm.to_der_vec().ok()?;
    if let Some(parameters) = &algorithm.parameters {
        bytes.extend(parameters.to_der_vec().ok()?);
    }
    Some(bytes)
}

/// The kind of the key, which must be the leaf's.
fn fitting(chain: &[CertificateDer<'static>], key: &str) -> Result<SignatureAlgorithm, Problem> {
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unfit("its private key cannot be read"))?;
    let provider = rustls::crypto::ring::default_provider();
    // The causes of these errors are named by kind only: some libraries quote what they could not read.
    let signing = provider.key_provider.load_private_key(key).map_err(|_| {
        unfit("its private key cannot be read, or is of a kind that is not supported: RSA from 2048 bits, P-256, P-384 and Ed25519 are")
    })?;
    let algorithm = signing.algorithm();
    let certified = |leaf: &CertificateDer<'static>| CertifiedKey::new(vec![leaf.clone()], signing.clone());
    let leaf = chain.first().ok_or_else(|| unfit("it holds no certificate"))?;
    match certified(leaf).keys_match() {
        Ok(()) => Ok(algorithm),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let elsewhere = chain.iter().skip(1).any(|other| certified(other).keys_match().is_ok());
            Err(unfit(if elsewhere {
                "the certificate that its private key fits must be the first"
            } else {
                "its private key belongs to another certificate"
            }))
        }
        Err(_) => Err(unfit("its first certificate cannot be used for TLS")),
    }
}

impl SiteCertificate {
    /// Reads a leaf, its chain and exactly one private key. Blank lines and text between the blocks are left out.
    pub fn parse(input: &[u8]) -> Result<Self, Problem> {
        if input.len() > MAX_PEM_BYTES {
            return Err(unfit(format!("it is {} bytes long, more than {MAX_PEM_BYTES}", input.len())));
        }
        let text = std::str::from_utf8(input).map_err(|_| unfit("it is not PEM"))?;
        let blocks = blocks(text, Reading::Strict)?;
        let of = |kind| blocks.iter().filter(move |block| block.kind == kind);
        if of(Kind::Parameters).count() > 1 {
            return Err(unfit("it holds parameters for Diffie-Hellman more than once"));
        }
        let mut keys = of(Kind::Key);
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(unfit(format!("it holds {} private keys, expected one", of(Kind::Key).count())));
        };
        let chain: Vec<CertificateDer<'static>> = of(Kind::Certificate)
            .map(|block| CertificateDer::from_pem_slice(block.lines.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_| unfit("a certificate in it cannot be read"))?;
        let leaf = chain.first().ok_or_else(|| unfit("it holds no certificate"))?;
        if chain.len() > MAX_CHAIN {
            return Err(unfit(format!("it holds {} certificates, more than {MAX_CHAIN}", chain.len())));
        }
        let facts = facts_of(leaf)?;
        let chain_dates = in_order(&chain)?;
        let algorithm = fitting(&chain, &key.lines)?;
        // The whole capacity at once: a string that grows leaves copies of the key behind.
        let mut pem = Zeroizing::new(String::with_capacity(MAX_PEM_BYTES));
        let parameters = of(Kind::Parameters);
        let brings_parameters = parameters.clone().count() > 0;
        of(Kind::Certificate).chain([key]).chain(parameters).for_each(|block| pem.push_str(&block.lines));
        Ok(Self { pem, chain, chain_dates, facts, algorithm, brings_parameters })
    }

    /// The same with the parameters for Diffie-Hellman of the one in place, unless it brings some of its own: whoever put
    /// them there wants them with the next certificate too, and whoever renews certificates knows nothing of them.
    pub fn with_parameters_of(&self, old: &InPlace) -> Self {
        let carried = if self.brings_parameters { "" } else { old.parameters.as_str() };
        let mut pem = Zeroizing::new(String::with_capacity(self.pem.len().saturating_add(carried.len())));
        pem.push_str(&self.pem);
        pem.push_str(carried);
        Self {
            pem,
            chain: self.chain.clone(),
            chain_dates: self.chain_dates.clone(),
            facts: self.facts.clone(),
            algorithm: self.algorithm,
            brings_parameters: self.brings_parameters || !carried.is_empty(),
        }
    }

    /// Reads one file, with a bound.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        Self::parse(&secret_file(path)?)
    }

    /// Reads a certificate with its chain from one file and its key from another, as `certbot` leaves them.
    pub fn read_pair(chain: &Path, key: &Path) -> Result<Self, Problem> {
        let mut input = Zeroizing::new(Vec::with_capacity(2 * MAX_PEM_BYTES + 2));
        input.extend_from_slice(&secret_file(chain)?);
        input.push(b'\n');
        input.extend_from_slice(&secret_file(key)?);
        Self::parse(&input)
    }

    /// Certificate, chain and key, without blank lines. A secret.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate itself.
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// Whether this is what a handshake shows: leaf and chain. A server may complete a leaf that has no chain, and may leave
    /// out an authority that signed itself: visitors have it.
    pub fn is_shown_by(&self, shown: &[CertificateDer<'_>]) -> bool {
        match self.chain.as_slice() {
            [leaf] => shown.first() == Some(leaf),
            [rest @ .., last] => shown == self.chain || (signed_itself(last) && shown == rest),
            [] => false,
        }
    }

    /// How many certificates follow the leaf.
    pub fn chain_length(&self) -> usize {
        self.chain.len().saturating_sub(1)
    }

    /// From when until when each certificate is valid, the leaf first, in seconds since 1970.
    pub fn chain_dates(&self) -> &[(i64, i64)] {
        &self.chain_dates
    }

    /// What the leaf says of itself.
    pub fn facts(&self) -> &LeafFacts {
        &self.facts
    }

    /// The kind of its key.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

impl InPlace {
    /// Reads the file that HAProxy reads, and where no key is in it `FILE.key`, as HAProxy does.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let content = secret_file(path)?;
        let found = Self::parse(&content, &[])?;
        if found.has_key {
            return Ok(found);
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".key");
        match secret_file(Path::new(&beside)) {
            Ok(key) => Self::parse(&content, &key),
            Err(_) => Ok(found),
        }
    }

    fn parse(input: &[u8], beside: &[u8]) -> Result<Self, Problem> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| unfit("it is not PEM"));
        let mut found = blocks(text(input)?, Reading::AsItIs)?;
        found.extend(
            blocks(text(beside)?, Reading::AsItIs)?.into_iter().filter(|block| block.kind == Kind::Key),
        );
        let of = |kind| found.iter().filter(move |block| block.kind == kind);
        let leaf = of(Kind::Certificate).next().ok_or_else(|| unfit("it holds no certificate"))?;
        let leaf = CertificateDer::from_pem_slice(leaf.lines.as_bytes())
            .map_err(|_| unfit("its first certificate cannot be read"))?;
        // The whole capacity at once: a string that grows leaves copies of the key behind.
        let mut pem =
            Zeroizing::new(String::with_capacity(input.len().saturating_add(beside.len()).saturating_add(2)));
        let kinds = [Kind::Certificate, Kind::Key, Kind::Parameters, Kind::Other];
        kinds.into_iter().flat_map(of).for_each(|block| pem.push_str(&block.lines));
        let mut parameters = Zeroizing::new(String::new());
        of(Kind::Parameters).take(1).for_each(|block| parameters.push_str(&block.lines));
        Ok(Self {
            pem,
            chain_length: of(Kind::Certificate).count().saturating_sub(1),
            facts: facts_of(&leaf)?,
            parameters,
            has_key: of(Kind::Key).next().is_some(),
        })
    }

    /// All that is in it, without blank lines. A secret.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// How many certificates follow the leaf.
    pub fn chain_length(&self) -> usize {
        self.chain_length
    }

    /// What the leaf says of itself.
    pub fn facts(&self) -> &LeafFacts {
        &self.facts
    }

    /// Whether its key was found, in whatever form: without it it could not be served again.
    pub fn has_key(&self) -> bool {
        self.has_key
    }
}

/// Reads a file that holds a key, with a bound, into memory that is wiped.
fn secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    use std::io::Read as _;
    let unreadable = |error: &std::io::Error| {
        Problem::new(Code::SiteCertificateUnfit, format!("cannot read `{}`", path.display()))
            .because(error)
            .hint(format!("see who may read it: `ls -lL {}`", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    // The whole room at once: a buffer that grows leaves copies of the key behind.
    let mut content = Zeroizing::new(vec![0; MAX_PEM_BYTES + 1]);
    let mut length = 0;
    let mut bounded = file.take((MAX_PEM_BYTES + 1) as u64);
    loop {
        let room = content.get_mut(length..).unwrap_or_default();
        match bounded.read(room) {
            Ok(0) => break,
            Ok(count) => length = length.saturating_add(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    if length > MAX_PEM_BYTES {
        return Err(unfit(format!("`{}` is longer than {MAX_PEM_BYTES} bytes", path.display())));
    }
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    struct Made {
        leaf: String,
        authority: String,
        key: String,
    }

    fn made(names: &[&str]) -> Made {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "an authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let leaf = params.unwrap().signed_by(&key, &issuer).unwrap();
        Made { leaf: leaf.pem(), authority: signed.pem(), key: key.serialize_pem() }
    }

    const DH: &str = "-----BEGIN DH PARAMETERS-----\nMAYCAQsCAQI=\n-----END DH PARAMETERS-----\n";

    fn refused(text: &str) -> String {
        let problem = SiteCertificate::parse(text.as_bytes()).unwrap_err();
        assert_eq!(problem.code, Code::SiteCertificateUnfit);
        assert_eq!(problem.aftermath, pointsman_core::Aftermath::Unchanged);
        problem.message
    }

    #[test]
    fn one_form_comes_out_whatever_goes_in() {
        let Made { leaf, authority, key } = made(&["www.Example.org", "127.0.0.1"]);
        let plain = SiteCertificate::parse(format!("{leaf}{authority}{key}").as_bytes()).unwrap();
        assert_eq!(plain.facts().names, ["127.0.0.1", "www.example.org"].map(str::to_owned).into());
        assert!(plain.facts().needs_chain && plain.chain_length() == 1);
        for text in [
            format!("{key}{leaf}{authority}"),
            format!("\n\nsubject=CN = www\n{leaf}\n\n  \nissuer=x\n{authority}\r\n\r\n{key}\n\n\n"),
            format!("{leaf}{authority}{key}").replace('\n', "\r\n"),
            format!("{leaf}{authority}{key}").replace('\n', "\n\n"),
            format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{leaf}{authority}{key}"
            ),
        ] {
            let parsed = SiteCertificate::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.pem(), plain.pem());
            assert!(!parsed.pem().contains("\n\n") && !parsed.pem().contains('\r'));
        }
    }

    #[test]
    fn what_is_no_usable_certificate_is_refused_with_the_reason() {
        let (one, other) = (made(&["www.example.org"]), made(&["www.example.org"]));
        let Made { leaf, authority, key } = &one;
        let cut = &key[..key.len() - 30];
        for (text, reason) in [
            (String::new(), "holds 0 private keys"),
            ("garbage".to_owned(), "holds 0 private keys"),
            (leaf.clone(), "holds 0 private keys"),
            (key.clone(), "holds no certificate"),
            (format!("{leaf}{key}{key}"), "holds 2 private keys"),
            (format!("{leaf}{}", other.key), "belongs to another certificate"),
            (format!("{authority}{leaf}{key}"), "not in order"),
            (format!("{leaf}{}{key}", other.leaf), "not in order"),
            (format!("{leaf}{cut}"), "last block has no end"),
            (format!("{leaf}{cut}\n{leaf}"), "begins inside another"),
            (format!("-----END CERTIFICATE-----\n{leaf}{key}"), "has not begun"),
            (leaf.replace("END CERTIFICATE", "END PRIVATE KEY"), "ends as another"),
            (format!("{leaf}{}", key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")), "encrypted"),
            (
                format!("{leaf}{}", key.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1)),
                "encrypted",
            ),
            (format!("{leaf}{}", key.replace("PRIVATE KEY", "X509 CRL")), "neither a certificate nor"),
            (format!("{leaf}{key}{DH}{DH}"), "more than once"),
            (format!("{leaf}{}", key.replacen("KEY-----\n", "KEY-----\nset;map\n", 1)), "else than base64"),
            (
                format!("{leaf}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "private key cannot be read",
            ),
            (
                format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{key}"),
                "first certificate cannot be read",
            ),
            (format!("{leaf}{key}{}", " ".repeat(MAX_PEM_BYTES)), "more than 65536"),
            (format!("{}{key}", leaf.repeat(MAX_CHAIN + 1)), "holds 11 certificates"),
        ] {
            let message = refused(&text);
            assert!(message.contains(reason), "expected {reason:?}: {message}");
        }
        assert!(SiteCertificate::parse(b"\xff\xfe").unwrap_err().message.contains("not PEM"));
    }

    /// Two authorities of one name: only the key tells which of them signed.
    #[test]
    fn a_chain_is_believed_by_its_signatures() {
        let (one, other) = (made(&["www.example.org"]), made(&["www.example.org"]));
        let whole = format!("{}{}{}", one.leaf, one.authority, one.key);
        SiteCertificate::parse(whole.as_bytes()).unwrap();
        let message = refused(&format!("{}{}{}", one.leaf, other.authority, one.key));
        assert!(
            message.contains("certificate 2 of its chain has the name") && message.contains("not the key")
        );
        // A key of another kind cannot have signed it either.
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "an authority");
        let message =
            refused(&format!("{}{}{}", one.leaf, authority.self_signed(&key).unwrap().pem(), one.key));
        assert!(message.contains("not the key"), "{message}");
    }

    /// Chains as `openssl` makes them. What the libraries in use cannot verify is named, and not believed.
    #[test]
    fn signatures_of_every_kind_are_verified_or_named() {
        let of = |chain: &str| {
            let chain: Vec<_> =
                CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(chain.len(), 2);
            in_order(&chain).map_err(|problem| problem.message)
        };
        for chain in [
            include_str!("../tests/chains/rsa-sha256.pem"),
            include_str!("../tests/chains/rsa-pss-sha256.pem"),
            include_str!("../tests/chains/p384-sha384.pem"),
            include_str!("../tests/chains/ed25519.pem"),
        ] {
            assert_eq!(of(chain).map(|dates| dates.len()), Ok(2));
        }
        for (chain, reason) in [
            (include_str!("../tests/chains/rsa-sha1.pem"), "signed by `sha1WithRSAEncryption`"),
            (include_str!("../tests/chains/p521-sha512.pem"), "signed by `ecdsa-with-SHA512`"),
            // Known algorithms by a key that is not: whether it signed is not known, and not denied.
            (
                include_str!("../tests/chains/p521-sha256.pem"),
                "certificate 2 of its chain has a `secp521r1` key, by which certificate 1 cannot be verified",
            ),
            (
                include_str!("../tests/chains/rsa1024-sha256.pem"),
                "certificate 2 of its chain has an RSA key of 1024 bits",
            ),
        ] {
            let message = of(chain).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn parameters_are_carried_over_unless_the_new_one_brings_its_own() {
        let (old, new) = (made(&["www.example.org"]), made(&["www.example.org"]));
        let whole = |made: &Made, more: &str| format!("{}{}{}{more}", made.leaf, made.authority, made.key);
        let in_place = InPlace::parse(whole(&old, DH).as_bytes(), &[]).unwrap();
        let plain = SiteCertificate::parse(whole(&new, "").as_bytes()).unwrap();
        let carried = plain.with_parameters_of(&in_place);
        assert_eq!(carried.pem(), format!("{}{DH}", plain.pem()));
        let stands = InPlace::parse(carried.pem().as_bytes(), &[]).unwrap();
        assert_eq!((stands.pem(), stands.facts()), (carried.pem(), plain.facts()));
        assert_eq!(carried.with_parameters_of(&in_place).pem(), carried.pem(), "once");
        let own = DH.replace("MAYCAQsCAQI=", "MAYCAQ0CAQI=");
        let brings = SiteCertificate::parse(whole(&new, &own).as_bytes()).unwrap();
        assert_eq!(brings.with_parameters_of(&in_place).pem(), format!("{}{own}", plain.pem()));
    }

    /// What is in place is read as it is: whatever HAProxy serves, another may follow it.
    #[test]
    fn what_is_in_place_is_read_whatever_its_key_and_chain_are() {
        let (one, other) = (made(&["www.example.org"]), made(&["www.example.org"]));
        let Made { leaf, authority, key } = &one;
        let old_kind = key.replace("PRIVATE KEY", "DSA PRIVATE KEY");
        for (text, beside, has_key) in [
            (format!("{leaf}{authority}{key}"), "", true),
            (format!("{key}{leaf}{}", other.authority), "", true),
            (format!("{leaf}{authority}"), key.as_str(), true),
            (format!("{leaf}{authority}"), "", false),
            (format!("{leaf}{old_kind}"), "", false),
            (format!("{leaf}{}", other.key), "", true),
        ] {
            let found = InPlace::parse(text.as_bytes(), beside.as_bytes()).unwrap();
            assert_eq!((found.has_key(), found.facts().names.len()), (has_key, 1), "{text}");
            let lines = |text: &str| text.lines().filter(|line| !line.is_empty()).count();
            assert_eq!(lines(found.pem()), lines(&text) + lines(beside), "nothing is lost: {text}");
            assert!(!format!("{found:?}").contains("PRIVATE"), "{found:?}");
        }
        for text in ["", "garbage", key] {
            assert_eq!(InPlace::parse(text.as_bytes(), &[]).unwrap_err().code, Code::SiteCertificateUnfit);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("www.pem");
        std::fs::write(&path, format!("{leaf}{authority}")).unwrap();
        assert!(!InPlace::read(&path).unwrap().has_key());
        std::fs::write(folder.path().join("www.pem.key"), key).unwrap();
        let found = InPlace::read(&path).unwrap();
        let whole = SiteCertificate::parse(format!("{leaf}{authority}{key}").as_bytes()).unwrap();
        assert_eq!((found.has_key(), found.pem()), (true, whole.pem()));
    }

    /// No line of a key stands in anything that is shown, whatever is wrong with it.
    #[test]
    fn nothing_shows_the_key() {
        let (one, other) = (made(&["www.example.org"]), made(&["www.example.org"]));
        let secret: Vec<&str> = one.key.lines().filter(|line| !line.starts_with('-')).collect();
        let whole = format!("{}{}{}", one.leaf, one.authority, one.key);
        let mut shown = vec![format!("{:?}", SiteCertificate::parse(whole.as_bytes()).unwrap())];
        for text in [
            format!("{}{}", other.leaf, one.key),
            format!("{}{}{}", one.leaf, one.key, one.key),
            format!("{}{}", one.leaf, one.key.replace("PRIVATE KEY", secret[0])),
            one.key.replace("-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----"),
            format!("{}{}", one.leaf, one.key.replace('M', "!")),
            format!("{}{}", one.leaf, &one.key[..one.key.len() - 40]),
            format!("{}{}", one.leaf, one.key.replace("PRIVATE KEY", "RSA PRIVATE KEY")),
        ] {
            shown.push(format!("{:?}", SiteCertificate::parse(text.as_bytes()).unwrap_err()));
        }
        for text in shown {
            assert!(secret.iter().all(|line| !text.contains(&line[..line.len().min(12)])), "{text}");
        }
    }

    #[test]
    fn names_are_compared_as_certificates_have_them() {
        for (text, name) in [
            ("WWW.Example.org", "www.example.org"),
            ("*.example.org", "*.example.org"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("My Site", "my site"),
        ] {
            assert_eq!(text.parse::<CertifiedName>().unwrap().as_str(), name);
        }
        for bad in ["", "a\nb", "a\0", &"a".repeat(254)] {
            assert!(bad.parse::<CertifiedName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_is_read_with_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("www.pem");
        std::fs::write(&path, vec![b' '; MAX_PEM_BYTES + 1]).unwrap();
        assert!(SiteCertificate::read(&path).unwrap_err().message.contains("longer than 65536"));
        let missing = SiteCertificate::read(&folder.path().join("none")).unwrap_err();
        assert!(missing.message.starts_with("cannot read"), "{missing:?}");
        let Made { leaf, authority, key } = made(&["www.example.org"]);
        std::fs::write(&path, format!("{leaf}{authority}")).unwrap();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        SiteCertificate::read_pair(&path, &folder.path().join("key.pem")).unwrap();
    }
}
