//! The lb-agent's own configuration, root's: what the coordinator may have it touch, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pointsman_chassis::config::{Parsed, Pki};
use pointsman_chassis::http_check::{self, Target};
use pointsman_core::{BackendName, HttpPath, Problem};
use serde::Deserialize;

use crate::opnsense;
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
}

/// The HAProxy that the agent steers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// Worker socket, level admin: a path, or `tcp://host:port`.
    pub socket: Parsed<Endpoint>,
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
}

fn default_path() -> Parsed<HttpPath> {
    #[expect(clippy::expect_used, reason = "`/` is a path")]
    Parsed(HttpPath::parse("/").expect("`/` is a path"))
}

impl Frontend {
    /// The frontend as a target of checks.
    pub fn target(&self) -> Result<Target, Problem> {
        let tls = self.tls_ca.as_ref().map(http_check::tls_for).transpose()?;
        Ok(Target { address: self.address, host: self.host.clone(), tls })
    }
}

impl Haproxy {
    /// Whether a route may name this backend.
    pub fn grants(&self, backend: &BackendName) -> bool {
        *backend == self.maintenance_backend.0 || self.backends.iter().any(|granted| granted.0 == *backend)
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
}
