//! A certificate of the site with its chain and private key: read whole or not at all, and put into the one form that
//! HAProxy takes everywhere. Here and not with the agent, because the command line looks at one before it sends it. Whether it may follow another one is not said here.
//!
//! The private key is a secret. It is wiped when the value is dropped, and nothing shows it: not `Debug`, no error.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use pointsman_core::{Code, Problem};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// Largest input, in bytes: ten times a long chain with an RSA key. What HAProxy takes is less, and its agent's business.
pub const MAX_PEM_BYTES: usize = 64 << 10;

/// Most certificates in a chain: real ones have two to four.
const MAX_CHAIN: usize = 10;

/// A leaf, its chain and the key that fits the leaf.
pub struct SiteCertificate {
    pem: Zeroizing<String>,
    chain: Vec<CertificateDer<'static>>,
    facts: LeafFacts,
    algorithm: SignatureAlgorithm,
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
}

impl fmt::Debug for SiteCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteCertificate")
            .field("facts", &self.facts)
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
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
}

fn kind_of(label: &str) -> Result<Kind, Problem> {
    match label {
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Ok(Kind::Certificate),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(Kind::Key),
        "EC PARAMETERS" => Ok(Kind::Curve),
        "ENCRYPTED PRIVATE KEY" => {
            Err(unfit("its private key is encrypted, and HAProxy could not ask for the password"))
        }
        // The label is the input's: it is not repeated. Leaving out what somebody put in on purpose would be a surprise.
        _ => Err(unfit("it holds a block that is neither a certificate nor a private key")),
    }
}

fn blocks(text: &str) -> Result<Vec<Block>, Problem> {
    let mut found = Vec::new();
    let mut open: Option<(&str, Block)> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let label = |start: &str| line.strip_prefix(start)?.strip_suffix("-----");
        match (&mut open, label("-----BEGIN "), label("-----END ")) {
            (None, Some(label), _) => {
                let mut lines = Zeroizing::new(String::with_capacity(MAX_PEM_BYTES));
                lines.push_str(line);
                lines.push('\n');
                open = Some((label, Block { kind: kind_of(label)?, lines }));
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
    })
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

/// Each certificate must be signed by the next: a chain in another order is not understood by every visitor.
fn in_order(chain: &[CertificateDer<'_>]) -> Result<(), Problem> {
    let mut issuer: Option<Vec<u8>> = None;
    for (place, certificate) in (1..).zip(chain) {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| unfit(format!("certificate {place} of its chain cannot be read")))?;
        if issuer.is_some_and(|issuer| issuer != parsed.subject().as_raw()) {
            return Err(unfit(format!(
                "its chain is not in order: certificate {place} did not sign the one before it"
            )));
        }
        issuer = Some(parsed.issuer().as_raw().to_vec());
    }
    Ok(())
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
        let blocks = blocks(text)?;
        let of = |kind| blocks.iter().filter(move |block| block.kind == kind);
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
        in_order(&chain)?;
        let algorithm = fitting(&chain, &key.lines)?;
        // The whole capacity at once: a string that grows leaves copies of the key behind.
        let mut pem = Zeroizing::new(String::with_capacity(MAX_PEM_BYTES));
        of(Kind::Certificate).chain([key]).for_each(|block| pem.push_str(&block.lines));
        Ok(Self { pem, chain, facts, algorithm })
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

    /// What the leaf says of itself.
    pub fn facts(&self) -> &LeafFacts {
        &self.facts
    }

    /// The kind of its key.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
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
            (format!("{leaf}{}", key.replace("PRIVATE KEY", "DH PARAMETERS")), "neither a certificate nor"),
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
