//! The coordinator's own configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use pointsman_chassis::config::Pki;
use serde::Deserialize;

/// `coordinator.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens for the command line and CI.
    pub listen: SocketAddr,
    /// Its state directory: the journal and the artifacts.
    pub state: PathBuf,
    /// The folder of environment files, one `NAME.toml` each.
    pub environments: PathBuf,
    /// Its certificate, also towards the agents.
    pub pki: Pki,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_shipped_example_is_complete() {
        let text = include_str!("../../systemd/examples/coordinator.toml");
        pointsman_chassis::config::parse::<super::Config>(std::path::Path::new("coordinator.toml"), text)
            .unwrap();
    }
}
