//! The part of the agent's own configuration, root's, that says which database it may touch, and how.

use std::path::PathBuf;

use serde::Deserialize;

/// The `[database]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database.
    pub name: String,
    /// A folder with the server's socket (it begins with `/`), or the name of its host.
    #[serde(default = "default_host")]
    pub host: String,
    /// The server's own port; never that of a pooler.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The role that the agent connects as.
    pub user: String,
    /// The file with its password; none with peer authentication.
    pub password_file: Option<PathBuf>,
    /// Required for a host other than this one.
    pub tls: Option<TlsSettings>,
    /// The database to connect to for what cannot be done inside of the other one.
    #[serde(default = "default_maintenance")]
    pub maintenance: String,
    /// The folder of `pg_dump` and its like; by default the one of the server's major version.
    pub tools: Option<PathBuf>,
    /// Applications (by `application_name`) whose queries may be cancelled when they keep a migration from its lock.
    #[serde(default)]
    pub may_cancel: Vec<String>,
    /// The table with the versions that was there before pointsman, if one is to be kept up: `schema_version`. Empty: none is,
    /// whatever is called so.
    pub version_table: Option<String>,
    /// Whether the agent may work as a superuser.
    #[serde(default)]
    pub allow_superuser: bool,
    /// Backups.
    pub backup: BackupSettings,
}

impl Settings {
    /// Whether the server is on this machine: what goes to it leaves it nowhere.
    pub(crate) fn is_here(&self) -> bool {
        stays_here(&self.host)
    }

    /// The table with the versions from before, where one is named.
    pub(crate) fn named_version_table(&self) -> Option<&str> {
        self.version_table.as_deref().filter(|name| !name.is_empty())
    }
}

fn stays_here(host: &str) -> bool {
    let loopback = || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    host.starts_with('/') || host == "localhost" || loopback()
}

/// How the server proves who it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate authority that its certificate must come from, PEM.
    pub ca: PathBuf,
}

/// Where backups are, and which.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSettings {
    /// The folder.
    pub dir: PathBuf,
    /// Verified backups that are kept.
    #[serde(default = "default_keep")]
    pub keep: usize,
    /// Room that must stay free there, in bytes.
    #[serde(default = "default_floor")]
    pub floor_bytes: u64,
    /// How a backup is written.
    #[serde(default)]
    pub format: BackupFormat,
    /// Whether the newest backup that was restored for its check is kept restored, for a restore in a hurry. It takes as
    /// much room as the database.
    #[serde(default)]
    pub keep_copy: bool,
}

/// How a backup is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum BackupFormat {
    /// An archive of `pg_dump`, compressed with zstd.
    #[default]
    #[serde(rename = "custom")]
    Custom,
    /// Plain SQL, compressed with gzip, named by the day: `gunzip < file | psql` restores it.
    #[serde(rename = "sql.gz")]
    SqlGz,
}

fn default_host() -> String {
    "/run/postgresql".to_owned()
}

fn default_port() -> u16 {
    5432
}

fn default_maintenance() -> String {
    "postgres".to_owned()
}

fn default_keep() -> usize {
    14
}

fn default_floor() -> u64 {
    1 << 30
}

#[cfg(test)]
mod tests {
    use super::stays_here;

    #[test]
    fn only_what_stays_on_the_machine_needs_no_tls() {
        for host in ["/run/postgresql", "localhost", "127.0.0.1", "127.0.0.5", "::1"] {
            assert!(stays_here(host), "{host}");
        }
        for host in ["db", "10.0.0.5", "localhost.example.org", "::2", ""] {
            assert!(!stays_here(host), "{host}");
        }
    }
}
