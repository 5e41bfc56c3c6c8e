//! Certificates of a site, made for a test.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

const DAY_S: i64 = 86_400;

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate to be made: names, and its life in days from now.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub names: &'a [&'a str],
    pub from: i64,
    pub until: i64,
}

pub const OLD: Wish<'_> = Wish { names: &["www.example.org", "example.org"], from: -60, until: 30 };
pub const NEW: Wish<'_> = Wish { from: -1, until: 89, ..OLD };

/// What was made.
#[derive(Clone)]
pub struct Made {
    pub leaf: String,
    pub chain: String,
    pub key: String,
}

impl Made {
    pub fn pem(&self) -> String {
        format!("{}{}{}", self.leaf, self.chain, self.key)
    }
}

/// How long after the beginning of 1970 it is so many days from now.
fn in_days(days: i64) -> Duration {
    let now_s = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    Duration::from_secs(u64::try_from(now_s + days * DAY_S).unwrap())
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// One that this one has signed, as most certificates come from.
    pub fn below(&self) -> Self {
        self.below_until(3650)
    }

    /// The same, with a life of so many days from now.
    pub fn below_until(&self, until: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority in between");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(1970, 1, 1) + in_days(until);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn make(&self, wish: Wish<'_>) -> Made {
        let names: Vec<String> = wish.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(1970, 1, 1) + in_days(wish.from);
        params.not_after = date_time_ymd(1970, 1, 1) + in_days(wish.until);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        Made { leaf, chain: self.pem.clone(), key: key.serialize_pem() }
    }
}
