//! The lb-agent's own configuration, root's: what the coordinator may have it touch, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_chassis::config::{Parsed, Pki};
use pointsman_chassis::http_check::{self, Target};
use pointsman_chassis::site_certificate::CertifiedName;
use pointsman_checks::Grants;
use pointsman_core::{BackendName, HttpPath, Problem};
use serde::Deserialize;

use crate::opnsense;
use crate::reply::StatRow;
use crate::socket::{Endpoint, MasterPath};
use crate::states::ServerName;

/// `lb-agent.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent listens for its coordinator.
    pub listen: SocketAddr,
    /// Its state directory: receipts, and the highest route epoch.
    pub state: PathBuf,
    /// Its certificate.
    pub pki: Pki,
    /// The HAProxy it steers.
    pub haproxy: Haproxy,
    /// How it reaches the site as a visitor would.
    pub frontend: Frontend,
    /// What checks may use on this host.
    #[serde(default)]
    pub checks: Grants,
    /// Where it listens for access lines; without it there are no signals.
    #[serde(default)]
    pub signals: Option<Signals>,
}

/// Access lines of HAProxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Where HAProxy's ring sends them: loopback, because whoever reaches the port can make lines up.
    pub listen: SocketAddr,
    /// Connections at once: one for each worker of HAProxy that has not ended.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
}

/// A reload each few seconds leaves as many old workers as `hard-stop-after` allows; more than this are strangers.
fn default_connections() -> usize {
    16
}

/// The HAProxy that the agent steers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// Worker socket, level admin: a path, or `tcp://host:port`.
    pub socket: Parsed<Endpoint>,
    /// Its configuration files, or folders of `*.cfg`, as its `-f` takes them: for `doctor` alone. Without it HAProxy is
    /// asked which files it has loaded.
    #[serde(default, deserialize_with = "one_or_several")]
    pub config: Vec<PathBuf>,
    /// Master socket: the way to old workers after a reload. Without it they cannot be reached.
    #[serde(default)]
    pub master: Option<Parsed<MasterPath>>,
    /// The map file, by the path that stands in HAProxy's configuration. Not used by the driver `server-state`.
    #[serde(default)]
    pub map: PathBuf,
    /// By what visitors are moved.
    #[serde(default)]
    pub driver: Driver,
    /// Driver `server-state`: the servers of each backend that a route may name, as `haproxybackend/server`.
    #[serde(default)]
    pub servers: BTreeMap<Parsed<BackendName>, Vec<Parsed<ServerName>>>,
    /// Driver `server-state`: whether the backends' `balance` takes no weights. Without it HAProxy is asked, and an
    /// algorithm that may be static counts as static.
    #[serde(default)]
    pub balance_static: Option<bool>,
    /// Without a master socket: how long an old process may go on after a reload, in seconds; HAProxy's
    /// `hard-stop-after`.
    #[serde(default = "default_old_process_s")]
    pub old_process_s: u64,
    /// Where OPNsense keeps the map, if it is OPNsense's HAProxy.
    #[serde(default)]
    pub opnsense: Option<opnsense::Config>,
    /// The one key in it.
    #[serde(default = "default_key")]
    pub key: String,
    /// Backends that a route may name.
    pub backends: Vec<Parsed<BackendName>>,
    /// The backend that needs no servers: it answers with the maintenance page.
    pub maintenance_backend: Parsed<BackendName>,
    /// The backend that a route names while requests are held; it needs no servers either.
    #[serde(default)]
    pub hold_backend: Option<Parsed<BackendName>>,
    /// Whether a route that somebody changed by hand is set back by itself. Else it is reported and left, and releases are
    /// refused until it is as it was.
    #[serde(default)]
    pub enforce: bool,
    /// Certificates that may be renewed: an order can only name one of them.
    #[serde(default)]
    pub certificates: Vec<GrantedCertificate>,
    /// Servers that may be down while visitors are led to their slot, as `backend/server`. All others must be up.
    #[serde(default)]
    pub optional_servers: Vec<Parsed<ServerName>>,
    /// Stick tables of `http_req_rate` that may be looked into, and single addresses taken out of.
    #[serde(default)]
    pub rate_limit_tables: Vec<Parsed<TableName>>,
}

/// A certificate of the site that the agent may renew.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedCertificate {
    /// The file, as HAProxy's configuration names it.
    pub path: Parsed<CertificatePath>,
    /// Where a handshake shows it; else the frontend's address.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// The name that the handshake asks for; else the frontend's host.
    #[serde(default)]
    pub host: Option<String>,
    /// A folder with `fullchain.pem` and `privkey.pem`, from which renewed ones are taken.
    #[serde(default)]
    pub watch: Option<PathBuf>,
    /// Names of the one in place that a renewed one may lack: without them a name that is missing is a mistake.
    #[serde(default)]
    pub drop_names: Vec<Parsed<CertifiedName>>,
}

/// The path of a certificate: absolute, and one word in a command of HAProxy's, where arguments end at a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePath(String);

impl CertificatePath {
    /// As commands name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the file system knows it.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl std::str::FromStr for CertificatePath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-@+,:".contains(&byte);
        let file = text.starts_with('/') && !text.ends_with('/') && text.bytes().all(plain);
        // HAProxy keeps what belongs to a file under names with these endings.
        let reserved = [".key", ".issuer", ".ocsp", ".sctl"].iter().any(|ending| text.ends_with(ending));
        if file && !reserved {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` cannot be a certificate: expected an absolute path of letters, digits and `/._-@+,:`"
        ))
    }
}

/// The name of a stick table, one word in a command of HAProxy's: its section's, or `PEERS/TABLE` in a `peers` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(String);

impl TableName {
    /// As commands name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `peers` section in which it stands, and its name there, if it stands in one.
    pub fn in_peers(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl std::str::FromStr for TableName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        let is_name = |name: &str| (1..=64).contains(&name.len()) && name.bytes().all(plain);
        let names = text.split_once('/').map_or((text, None), |(peers, table)| (table, Some(peers)));
        if is_name(names.0) && names.1.is_none_or(is_name) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` cannot be a table: expected 1 to 64 letters, digits and `._-:`, behind the name of its `peers` section and `/` where it stands in one"
        ))
    }
}

/// A list, or a string for a list of one.
fn one_or_several<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a path or a list of paths")]
    enum Written {
        One(PathBuf),
        Several(Vec<PathBuf>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(path) => vec![path],
        Written::Several(paths) => paths,
    })
}

/// By what visitors are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// One key of a map, which the frontend looks up.
    #[default]
    Map,
    /// The states and weights of servers.
    ServerState,
}

fn default_old_process_s() -> u64 {
    30
}

fn default_key() -> String {
    "route".to_owned()
}

/// A frontend, asked to see what route it serves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The site's host name.
    pub host: String,
    /// What is asked for when only the route matters.
    #[serde(default = "default_path")]
    pub path: Parsed<HttpPath>,
    /// With TLS: the authorities that signed its certificate, `/etc/ssl/certs/ca-certificates.crt` as a rule.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// It awaits the PROXY protocol there: its `bind` has `accept-proxy`.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The address is HAProxy's and not this host's, although its command socket is here: it runs in a container.
    #[serde(default)]
    pub elsewhere: bool,
}

fn default_path() -> Parsed<HttpPath> {
    #[expect(clippy::expect_used, reason = "`/` is a path")]
    Parsed(HttpPath::parse("/").expect("`/` is a path"))
}

impl Frontend {
    /// The frontend as a target of checks.
    pub fn target(&self) -> Result<Target, Problem> {
        let tls = self.tls_ca.as_ref().map(http_check::tls_for).transpose()?;
        let (address, host) = (self.address, self.host.clone());
        Ok(Target { address, host, tls, proxy_protocol: self.proxy_protocol })
    }
}

impl Haproxy {
    /// Whether a route may name this backend.
    pub fn grants(&self, backend: &BackendName) -> bool {
        self.needs_no_servers(backend) || self.backends.iter().any(|granted| granted.0 == *backend)
    }

    /// Whether HAProxy itself answers for this backend.
    pub fn needs_no_servers(&self, backend: &BackendName) -> bool {
        let holds = self.hold_backend.as_ref().is_some_and(|hold| hold.0 == *backend);
        *backend == self.maintenance_backend.0 || holds
    }

    /// Whether a server may be down, by its row of HAProxy's or of the driver's.
    pub fn may_be_down(&self, row: &StatRow) -> bool {
        self.optional_servers.iter().any(|Parsed(name)| {
            // The driver by server states names it as HAProxy does, its backend included.
            let whole = name.to_string();
            whole == row.server || (name.backend() == row.backend && name.server() == row.server)
        })
    }

    /// Whether HAProxy reads the map from a file that this agent writes.
    pub fn owns_the_map(&self) -> bool {
        self.driver == Driver::Map && self.opnsense.is_none()
    }

    /// The map as commands name it.
    pub fn map_name(&self) -> String {
        self.map.display().to_string()
    }
}

/// Shared configuration.
pub type SharedConfig = Arc<Config>;

#[cfg(test)]
mod tests {
    #[test]
    fn the_shipped_example_is_complete() {
        let text = include_str!("../../systemd/examples/lb-agent.toml");
        pointsman_chassis::config::parse::<super::Config>(std::path::Path::new("lb-agent.toml"), text)
            .unwrap();
    }

    #[test]
    fn a_path_or_table_is_one_word_of_a_command() {
        for bad in
            ["", "www.pem", "/a b.pem", "/a;b", "/a\\b", "/a\nb", "/ä.pem", "/certs/", "/www.pem.key", "/a<<"]
        {
            assert!(bad.parse::<super::CertificatePath>().is_err(), "{bad:?}");
        }
        assert!("/etc/haproxy/certs/www.example.org.pem".parse::<super::CertificatePath>().is_ok());
        for bad in ["", "st rl", "st;x", "st\nx", "st\\"] {
            assert!(bad.parse::<super::TableName>().is_err(), "{bad:?}");
        }
        for bad in ["/st", "mine/", "mine//st", "mine/st/x", "/"] {
            assert!(bad.parse::<super::TableName>().is_err(), "{bad:?}");
        }
        for table in ["st_rl", "mine/st_src"] {
            assert!(table.parse::<super::TableName>().is_ok(), "{table}");
        }
    }

    #[test]
    fn haproxys_files_are_one_or_several() {
        let text = include_str!("../../systemd/examples/lb-agent.toml");
        for (line, expected) in [
            ("", &[][..]),
            ("config = \"/etc/haproxy/haproxy.cfg\"\n", &["/etc/haproxy/haproxy.cfg"]),
            ("config = [\"/a.cfg\", \"/b\"]\n", &["/a.cfg", "/b"]),
        ] {
            let text = text.replace("[haproxy]\n", &format!("[haproxy]\n{line}"));
            let config = pointsman_chassis::config::parse::<super::Config>(
                std::path::Path::new("lb-agent.toml"),
                &text,
            );
            let paths = config.unwrap().haproxy.config;
            assert_eq!(paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), expected);
        }
    }
}
