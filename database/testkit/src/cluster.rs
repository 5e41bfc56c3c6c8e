//! A cluster in a temporary folder. Everybody on the machine who reaches its socket may connect as any role that needs
//! no password; roles in the group `guarded` need one.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::postmaster::Postmaster;
use crate::programs::{Server, server_user};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How often a starting server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The port of every cluster: it only names the socket in a folder of its own.
const PORT: u16 = 5432;
/// The role that owns the cluster.
const SUPERUSER: &str = "postgres";

const HBA: &str = "local all +guarded scram-sha-256\nlocal all all trust\n";

const SETTINGS: &str = "listen_addresses = ''
max_connections = 80
max_prepared_transactions = 8
wal_level = logical
password_encryption = 'scram-sha-256'
log_min_messages = warning
log_line_prefix = '%m [%p] %q%u@%d %a '
";

/// A running server with its own databases; it ends, and all of it is removed, when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    postmaster: Option<Postmaster>,
    // Removed last.
    folder: TempDir,
}

impl Cluster {
    /// Creates a cluster and starts its server.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// The same with further lines of `postgresql.conf`.
    pub fn start_with(settings: &str) -> Result<Self> {
        Self::made_with(&[], settings)
    }

    /// The same with further arguments of `initdb`.
    pub fn made_with(arguments: &[&str], settings: &str) -> Result<Self> {
        let server = Server::newest()?;
        let folder = tempfile::Builder::new().prefix("pointsman-pg-").tempdir()?;
        // The server's user must be able to pass through.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let mut cluster = Self { server, postmaster: None, folder };
        for name in ["data", "socket"] {
            cluster.create_folder(name)?;
        }
        cluster.initialise(arguments, settings)?;
        cluster.start_again()?;
        cluster.psql("postgres", "CREATE ROLE guarded NOLOGIN")?;
        Ok(cluster)
    }

    fn create_folder(&self, name: &str) -> Result<()> {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path)?;
        if let Some((uid, gid)) = server_user()? {
            chown(&path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    fn initialise(&self, arguments: &[&str], settings: &str) -> Result<()> {
        let data = self.data();
        let made = self
            .server
            .run("initdb", "KILL")?
            .args([
                "--username",
                SUPERUSER,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .args(arguments)
            .arg("--pgdata")
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(data.join("pg_hba.conf"), HBA)?;
        let socket = self.socket();
        let own = format!("{SETTINGS}port = {PORT}\nunix_socket_directories = '{}'\n", socket.display());
        let mut text = std::fs::read_to_string(data.join("postgresql.conf"))?;
        text.push_str(&own);
        text.push_str(settings);
        std::fs::write(data.join("postgresql.conf"), text)?;
        Ok(())
    }

    /// Starts the server after it was stopped or crashed, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop();
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = self.server.run("postgres", "QUIT")?;
        command.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.postmaster = Some(Postmaster::start(command)?);
        let give_up = Instant::now() + START;
        loop {
            match self.psql("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > give_up => {
                    bail!("the server does not answer: {error:#}\n{}", self.log_text());
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Shuts the server down in order. The data stay.
    pub fn stop(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.end(Signal::INT);
        }
    }

    /// Ends the server at once, as a crash would: it recovers from its log at the next start.
    pub fn crash(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            postmaster.end(Signal::QUIT);
        }
    }

    /// The process id of the server's first process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Postmaster::pid)
    }

    /// The folder with the socket: what a client gives as its host.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The port that names the socket.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The folder with the server's data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder that is removed with the cluster, for whatever a test keeps beside it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The programs of the server's version.
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What the server has logged so far.
    pub fn log_text(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// One of the client's programs, aimed at this cluster and a database as a role.
    pub fn client(&self, program: &str, role: &str, database: &str) -> Command {
        let mut command = Command::new(self.server.programs.join(program));
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            .env("PGHOST", self.socket())
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", role)
            .env("PGDATABASE", database)
            .stdin(Stdio::null());
        command
    }

    /// Runs SQL as the superuser and returns what it printed: fields with `|` between them, a row a line. Fails at the
    /// first error.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql_as(SUPERUSER, database, sql)
    }

    /// The same as another role.
    pub fn psql_as(&self, role: &str, database: &str, sql: &str) -> Result<String> {
        let mut command = self.client("psql", role, database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        Self::told(command)
    }

    /// Runs a file of SQL through psql, with psql's variables.
    pub fn psql_file(&self, database: &str, file: &Path, variables: &[(&str, &str)]) -> Result<String> {
        let mut command = self.client("psql", SUPERUSER, database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        for (name, value) in variables {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        command.arg("-f").arg(file);
        Self::told(command)
    }

    fn told(mut command: Command) -> Result<String> {
        let output = command.output().context("cannot run psql")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_crashes_recovers_and_goes() {
        let mut cluster = Cluster::start().unwrap();
        cluster.psql("postgres", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();
        cluster.crash();
        assert!(cluster.psql("postgres", "SELECT 1").is_err());
        cluster.start_again().unwrap();
        assert_eq!(cluster.psql("postgres", "SELECT n FROM kept").unwrap(), "7");
        assert!(cluster.psql("postgres", "SELECT 1; SELECT 1/0").is_err());
        let (folder, pid) = (cluster.folder().to_owned(), cluster.pid().unwrap());
        drop(cluster);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
