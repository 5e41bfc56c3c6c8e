//! What an agent's own file lets checks use: a folder of secrets, monitoring services, the `hurl` command. Nothing of it is
//! granted by saying nothing.

use std::path::{Path, PathBuf};

use pointsman_core::Problem;
use rustls::ClientConfig;
use serde::Deserialize;
use std::sync::Arc;

/// The section `[checks]` of an agent's file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// The folder below which secret files may be read. Root's, or the agent's own, and nobody else's to write.
    pub secrets: Option<PathBuf>,
    /// Alertmanagers that may be asked.
    pub alertmanagers: Vec<Monitor>,
    /// Prometheus servers that may be asked.
    pub prometheus: Vec<Monitor>,
    /// The `hurl` command.
    pub hurl: Option<Hurl>,
}

/// A monitoring service that may be asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "MonitorFile")]
pub struct Monitor {
    /// Where it is, as the check names it.
    pub url: String,
    /// The authorities that have signed its certificate, PEM; none where it is asked in plain text.
    pub ca: Option<PathBuf>,
}

/// A [`Monitor`] as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MonitorFile {
    url: String,
    ca: Option<PathBuf>,
}

impl TryFrom<MonitorFile> for Monitor {
    type Error = String;

    /// Refuses an address that would be asked otherwise than it says.
    fn try_from(MonitorFile { url, ca }: MonitorFile) -> Result<Self, String> {
        if names_a_user(&url) {
            return Err(format!(
                "a service is asked without a user and a password, and `url` names one: {WITHOUT_A_USER}"
            ));
        }
        let secret = url.starts_with("https://");
        match &ca {
            None if secret => Err(format!(
                "`{url}` needs `ca`, a file with the authorities that sign its certificate: \
                 \"/etc/ssl/certs/ca-certificates.crt\" for a public one"
            )),
            Some(_) if !secret => Err(format!("`{url}` is asked in plain text: `ca` is for `https://`")),
            _ => Ok(Self { url, ca }),
        }
    }
}

/// What helps where a service wants to know who asks.
pub const WITHOUT_A_USER: &str =
    "let it answer this host without, or ask a proxy on this host that adds them";

/// Whether an address has a user, and perhaps a password, before its host.
pub fn names_a_user(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    rest.split('/').next().is_some_and(|authority| authority.contains('@'))
}

/// The `hurl` command.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hurl {
    /// The program, by its absolute path.
    pub command: PathBuf,
    /// The folder below which its files are.
    pub files: PathBuf,
}

impl Grants {
    /// The Alertmanager at this address.
    pub fn alertmanager(&self, url: &str) -> Result<&Monitor, String> {
        granted("alertmanagers", &self.alertmanagers, url)
    }

    /// The Prometheus at this address.
    pub fn prometheus(&self, url: &str) -> Result<&Monitor, String> {
        granted("prometheus", &self.prometheus, url)
    }

    /// The `hurl` command with the path of one of its files.
    pub fn hurl(&self, file: &str) -> Result<(&Path, PathBuf), String> {
        let granted = self.hurl.as_ref().filter(|hurl| hurl.command.is_absolute());
        let hurl = granted.ok_or_else(|| {
            "this agent may not run hurl: add to its file `[checks] hurl = { command = \"/usr/bin/hurl\", files = \
             \"/etc/pointsman/checks\" }`"
                .to_owned()
        })?;
        Ok((&hurl.command, hurl.files.join(file)))
    }
}

impl Monitor {
    /// How its certificate is verified.
    pub fn tls(&self) -> Result<Option<Arc<ClientConfig>>, Problem> {
        self.ca.as_ref().map(pointsman_chassis::http_check::tls_for).transpose()
    }
}

fn granted<'g>(key: &str, granted: &'g [Monitor], url: &str) -> Result<&'g Monitor, String> {
    let found = granted.iter().find(|granted| granted.url.trim_end_matches('/') == url);
    found.ok_or_else(|| {
        let ca =
            if url.starts_with("https://") { ", ca = \"/etc/ssl/certs/ca-certificates.crt\"" } else { "" };
        format!(
            "this agent may not ask `{url}`: add to its file `[checks] {key} = [{{ url = \"{url}\"{ca} }}]`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_granted_as_it_is_asked() {
        let granted = |monitor: &str| {
            let text = format!("prometheus = [{{ {monitor} }}]");
            toml::from_str::<Grants>(&text).map_err(|error| error.message().to_owned())
        };
        assert!(granted("url = 'http://monitor:9090/a@b'").is_ok());
        for (monitor, expected) in [
            ("url = 'https://monitor'", "needs `ca`"),
            ("url = 'http://monitor', ca = '/x.pem'", "is asked in plain text"),
            ("url = 'http://ada:secret@monitor:9090/'", "without a user and a password"),
            ("url = 'https://token@monitor', ca = '/x.pem'", "without a user and a password"),
        ] {
            let said = granted(monitor).unwrap_err();
            // A password is repeated nowhere.
            assert!(said.contains(expected) && !said.contains("secret"), "{said}");
        }
    }
}
