//! Where coordinators are, and with which certificates they are called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman_chassis::config::{self, Parsed, Pki};
use pointsman_core::{Code, EnvironmentName, HostName, Problem};
use serde::Deserialize;

/// The command's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    environments: BTreeMap<String, Environment>,
}

/// One environment's coordinator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Where it listens, as `host:port`.
    pub coordinator: String,
    /// Its name in its certificate.
    pub name: Parsed<HostName>,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Environment {
    /// The certificate files to call it with. Relative paths are relative to the configuration file.
    fn pki(&self, base: &Path) -> Pki {
        Pki { cert: base.join(&self.cert), key: base.join(&self.key), ca: base.join(&self.ca) }
    }
}

/// The files that are looked for, in order.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mine = home.map(|home| home.join(".config/pointsman/config.toml"));
    [Some(PathBuf::from("pointsman.toml")), mine, Some(PathBuf::from("/etc/pointsman/config.toml"))]
        .into_iter()
        .flatten()
        .collect()
}

/// Finds an environment's coordinator.
pub fn find(file: Option<&Path>, environment: &EnvironmentName) -> Result<(Environment, Pki), Problem> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => places().into_iter().find(|path| path.exists()).ok_or_else(|| {
            Problem::new(Code::ConfigInvalid, "no configuration found: where is the coordinator?")
                .cause("looked for ./pointsman.toml, ~/.config/pointsman/config.toml and /etc/pointsman/config.toml")
                .hint("name one with `--config FILE`; `pointsman init` writes one for every person")
        })?,
    };
    let config: Config = config::read(&path)?;
    let known: Vec<String> = config.environments.keys().cloned().collect();
    let found = config.environments.get(environment.as_str()).cloned().ok_or_else(|| {
        Problem::new(
            Code::EnvironmentUnknown,
            format!("`{}` has no environment `{environment}`; it has: {}", path.display(), known.join(", ")),
        )
        .hint(format!("add `[environments.{environment}]` to `{}`", path.display()))
    })?;
    let pki = found.pki(path.parent().unwrap_or(Path::new(".")));
    Ok((found, pki))
}
