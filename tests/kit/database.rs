//! The database's host of a site: a PostgreSQL server of its own, its agent, and the folder with backups.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use pointsman_database_testkit::Cluster;

use crate::daemon::{self, KillAt};
use crate::process::{Process, binary};

/// The database of every test site, and the role that owns it.
pub const DATABASE: &str = "site";
/// The role of its agent, made by the script that is shipped.
const ROLE: &str = "pointsman";

/// The database's host.
#[derive(Debug)]
pub struct DatabaseHost {
    // Whoever works with the server ends before it.
    pub(crate) agent_process: Option<Process>,
    /// The server.
    pub cluster: Cluster,
    folder: PathBuf,
    logs: PathBuf,
}

impl DatabaseHost {
    /// Starts a server with an empty database and writes the configuration of an agent beside it.
    pub(crate) fn new(agent: SocketAddr, folder: &Path, logs: &Path, pki: &str) -> Result<Self> {
        let cluster = Cluster::start()?;
        cluster.psql("postgres", &format!("CREATE ROLE {DATABASE} LOGIN"))?;
        cluster.psql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {DATABASE}"))?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/examples/database-role.sql");
        let variables = [("database", DATABASE), ("owner", DATABASE), ("role", ROLE)];
        cluster.psql_file("postgres", &script, &variables)?;
        for name in ["state", "migrations", "backups"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let at = |name: &str| folder.join(name);
        let config = format!(
            "listen = \"{agent}\"\nstate = {:?}\nmigrations = {:?}\n{pki}[database]\nname = \"{DATABASE}\"\nhost = {:?}\n\
             port = {}\nuser = \"{ROLE}\"\nversion_table = \"schema_version\"\n\
             [database.backup]\ndir = {:?}\nkeep = 3\nfloor_bytes = 0\n",
            at("state"),
            at("migrations"),
            cluster.socket(),
            cluster.port(),
            at("backups")
        );
        std::fs::write(at("agent.toml"), config)?;
        Ok(Self { agent_process: None, cluster, folder: folder.to_owned(), logs: logs.to_owned() })
    }

    /// Starts its agent.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent_process = Some(self.agent_with(None)?);
        Ok(())
    }

    /// Starts an agent, which kills itself at `kill_at`.
    pub(crate) fn agent_with(&self, kill_at: Option<KillAt>) -> Result<Process> {
        let mut command = Command::new(binary("pointsman-agent")?);
        command.arg("--config").arg(self.folder.join("agent.toml"));
        daemon::spawn("agent of db", command, kill_at, &self.logs.join("agent-db.log"))
    }

    /// The folder with backups.
    pub fn backups(&self) -> PathBuf {
        self.folder.join("backups")
    }

    /// What SQL tells its owner, on the site's database.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.cluster.psql_as(DATABASE, DATABASE, sql).with_context(|| format!("`{sql}`"))
    }
}
