//! Who is at the other end of a connection: the one URI name in its certificate.

use std::fmt;

use crate::EnvironmentName;
use crate::name::shown;

/// What a certificate lets its holder be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Decides and records; the only one agents obey.
    Coordinator,
    /// Acts on a web host.
    WebAgent,
    /// Acts on a load balancer.
    LbAgent,
    /// Acts on a database's host.
    DatabaseAgent,
    /// A person who may change things.
    Operator,
    /// A build job that may release to its environment.
    Ci,
    /// A person or program that may only look.
    Viewer,
}

impl Role {
    /// Every role, for tables.
    pub const ALL: [Self; 7] = [
        Self::Coordinator,
        Self::WebAgent,
        Self::LbAgent,
        Self::DatabaseAgent,
        Self::Operator,
        Self::Ci,
        Self::Viewer,
    ];

    /// The role as it stands in a certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::WebAgent => "web-agent",
            Self::LbAgent => "lb-agent",
            Self::DatabaseAgent => "database-agent",
            Self::Operator => "operator",
            Self::Ci => "ci",
            Self::Viewer => "viewer",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The word before the name in the URI: machines are hosts, people are users, CI is a project.
    fn kind(self) -> &'static str {
        match self {
            Self::Coordinator | Self::WebAgent | Self::LbAgent | Self::DatabaseAgent => "host",
            Self::Operator | Self::Viewer => "user",
            Self::Ci => "project",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `spiffe://<trust-domain>/env/<environment>/role/<role>/<host|user|project>/<name>`: the one name of a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    /// The trust domain, as a host name: `data-dna.eu`.
    pub trust_domain: String,
    /// The only environment in which the peer may do anything.
    pub environment: EnvironmentName,
    /// What the peer may be.
    pub role: Role,
    /// The host, user or project.
    pub name: String,
}

/// A URI that names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no peer: expected `spiffe://DOMAIN/env/ENV/role/ROLE/host|user|project/NAME`")]
pub struct InvalidPeerName(String);

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl PeerName {
    /// Puts a name together from valid parts.
    pub fn new(
        trust_domain: &str,
        environment: EnvironmentName,
        role: Role,
        name: &str,
    ) -> Result<Self, InvalidPeerName> {
        let made = Self { trust_domain: trust_domain.to_owned(), environment, role, name: name.to_owned() };
        Self::parse(&made.to_string())
    }

    /// Parses the URI of a certificate. Anything unusual (empty or extra segments, upper case, percent
    /// signs, queries) is refused: there is one way to write a name.
    pub fn parse(uri: &str) -> Result<Self, InvalidPeerName> {
        let invalid = || InvalidPeerName(shown(uri));
        let path = uri.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let segments: Vec<&str> = path.split('/').collect();
        let [domain, "env", environment, "role", role, kind, name] = segments.as_slice() else {
            return Err(invalid());
        };
        let role = Role::parse(role).ok_or_else(invalid)?;
        if *kind != role.kind() || !domain.split('.').all(is_label) || domain.len() > 253 || !is_label(name) {
            return Err(invalid());
        }
        Ok(Self {
            trust_domain: (*domain).to_owned(),
            environment: EnvironmentName::parse(environment).map_err(|_| invalid())?,
            role,
            name: (*name).to_owned(),
        })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, environment, role, name } = self;
        write!(f, "spiffe://{trust_domain}/env/{environment}/role/{role}/{}/{name}", role.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_way_to_write_a_name() {
        for good in [
            "spiffe://data-dna.eu/env/production/role/web-agent/host/green",
            "spiffe://x/env/production/role/operator/user/anna",
            "spiffe://x/env/production/role/ci/project/42",
        ] {
            assert_eq!(PeerName::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "spiffe://",
            "http://x/env/production/role/operator/user/anna",
            "spiffe://x/env/production/role/operator/host/anna",
            "spiffe://x/env/production/role/root/user/anna",
            "spiffe://x/env/production/role/operator/user/anna/",
            "spiffe://x//env/production/role/operator/user/anna",
            "spiffe://x/env/production/role/operator/user/",
            "spiffe://x/env/production/role/operator/user/an%6ea",
            "spiffe://x/env/Production/role/operator/user/anna",
            "spiffe://x/env/production/role/operator/user/anna?x",
            "spiffe://x/env/production/role/operator/user/anna#x",
            "spiffe://.x/env/production/role/operator/user/anna",
            "SPIFFE://x/env/production/role/operator/user/anna",
            "spiffe://x/env/../role/operator/user/anna",
        ] {
            assert!(PeerName::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hostile_uris_never_panic(text in "(spiffe://)?[ -~]{0,80}") {
            if let Ok(name) = PeerName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
