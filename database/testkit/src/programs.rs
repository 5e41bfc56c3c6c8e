//! The installed server's programs, and the user that they run as: PostgreSQL refuses to run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Where Debian's packages put one folder for each major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user that the server runs as when tests run as root.
const USER: &str = "postgres";

/// The programs of one major version.
#[derive(Clone, Debug)]
pub struct Server {
    /// The major version: 15.
    pub major: u32,
    /// The folder with `postgres`, `pg_dump` and the others.
    pub programs: PathBuf,
}

impl Server {
    /// The newest installed one.
    pub fn newest() -> Result<Self> {
        let majors = std::fs::read_dir(VERSIONS).with_context(|| {
            format!("no PostgreSQL server in `{VERSIONS}`: `apt-get install postgresql-15-postgis-3`")
        })?;
        let found = majors.filter_map(|entry| {
            let major = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let programs = Path::new(VERSIONS).join(format!("{major}/bin"));
            programs.join("postgres").is_file().then_some(Self { major, programs })
        });
        found.max_by_key(|server| server.major).context("no PostgreSQL server is installed")
    }

    /// A command that runs one of the programs as the server's user. It gets `signal` when the thread that started it
    /// ends, so that it never outlives the test.
    pub(crate) fn run(&self, program: &str, signal: &str) -> Result<Command> {
        let mut command = Command::new("/usr/bin/setpriv");
        command.arg(format!("--pdeathsig={signal}"));
        if let Some((uid, gid)) = server_user()? {
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        command.arg("--").arg(self.programs.join(program));
        command.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin").current_dir("/");
        Ok(command)
    }
}

/// Id and group of the user that the server runs as; `None` when that is who runs the test.
pub fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(USER)).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.map(Some).with_context(|| format!("there is no user `{USER}`"))
}
