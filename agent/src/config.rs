//! The agent's own configuration, root's: what the coordinator may have it touch, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use pointsman_chassis::config::{Parsed, Pki, Span};
use pointsman_checks::Grants;
use pointsman_core::{HookName, UnitName};
use pointsman_database::Settings;
use serde::Deserialize;

/// `agent.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent listens for its coordinator.
    pub listen: SocketAddr,
    /// Its state directory: receipts.
    pub state: PathBuf,
    /// Its certificate.
    pub pki: Pki,
    /// The site on this host, where it is a web host.
    pub web: Option<Web>,
    /// The database on this host, where it is a database's.
    pub database: Option<Settings>,
    /// Where files of migrations are brought to.
    #[serde(default = "default_migrations")]
    pub migrations: PathBuf,
    /// Units that an activation may restart.
    #[serde(default)]
    pub units: Vec<Parsed<UnitName>>,
    /// What checks may use on this host.
    #[serde(default)]
    pub checks: Grants,
    /// Commands that an activation may run, by name.
    #[serde(default)]
    pub hooks: BTreeMap<String, Hook>,
}

/// The site on this host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// The site root: `artifacts/`, `current` and `.maintenance` are in it.
    pub root: PathBuf,
    /// The local server that checks ask.
    pub server: SocketAddr,
    /// The site's host name.
    pub host: String,
    /// Complete artifacts kept beside the current and the previous one.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Room that must stay free on the file system, in bytes.
    #[serde(default = "default_floor")]
    pub floor_bytes: u64,
}

fn default_migrations() -> PathBuf {
    PathBuf::from("/var/lib/pointsman-agent/migrations")
}

fn default_keep() -> usize {
    5
}

fn default_floor() -> u64 {
    256 << 20
}

/// A command that an activation may run. No shell: the first word is an absolute path, the rest its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Span,
}

impl Config {
    /// The hook of this name.
    pub fn hook(&self, name: &HookName) -> Option<&Hook> {
        self.hooks.get(name.as_str())
    }

    /// Whether an activation may restart this unit.
    pub fn grants(&self, unit: &UnitName) -> bool {
        self.units.iter().any(|granted| granted.0 == *unit)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_shipped_example_is_complete() {
        let text = include_str!("../../systemd/examples/agent.toml");
        pointsman_chassis::config::parse::<super::Config>(std::path::Path::new("agent.toml"), text).unwrap();
    }
}
