//! PostgreSQL's own programs: the ones that fit the server's version, by absolute path.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_core::{Code, Problem};
use tokio::process::Command;

use crate::Settings;

/// Where Debian's packages put one folder for each major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The programs that the work needs.
const PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];
/// From this version on what they write and send begins with `SET transaction_timeout = 0`. Servers before it refuse
/// that, so that a backup which was taken could not be loaded.
const TRANSACTION_TIMEOUT: u32 = 17;

/// A folder of programs that fit a server.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
    /// What `pg_dump --version` says.
    pub version: String,
}

impl Tools {
    /// The folder that the settings name; otherwise the one of the server's major version, or the nearest above that
    /// fits.
    pub(crate) async fn find(settings: &Settings, server_major: u32) -> Result<Self, Problem> {
        let folder = match &settings.tools {
            Some(folder) => folder.clone(),
            None => nearest(Path::new(VERSIONS), server_major).ok_or_else(|| missing(server_major))?,
        };
        if let Some(absent) = PROGRAMS.iter().find(|program| !folder.join(program).is_file()) {
            let message = format!("there is no `{absent}` in `{}`", folder.display());
            return Err(missing(server_major).cause(message));
        }
        let version = version_of(&folder.join("pg_dump")).await?;
        let major = major_in(&version).unwrap_or(0);
        if !fit(major, server_major) {
            return Err(unfit(major, server_major));
        }
        Ok(Self { folder, version })
    }

    /// The path of a program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Whether programs of this version dump that server, and load what they dumped into it again.
fn fit(major: u32, server_major: u32) -> bool {
    major >= server_major && (server_major >= TRANSACTION_TIMEOUT || major < TRANSACTION_TIMEOUT)
}

fn unfit(major: u32, server_major: u32) -> Problem {
    let message = if major < server_major {
        format!("pg_dump {major} cannot dump server {server_major}")
    } else {
        format!("server {server_major} refuses what pg_restore {major} sends")
    };
    Problem::new(Code::DatabaseToolUnfit, message)
        .hint(format!("`apt-get install postgresql-client-{server_major}`"))
}

fn missing(major: u32) -> Problem {
    Problem::new(
        Code::DatabaseToolUnfit,
        format!("PostgreSQL's client programs that fit server {major} are missing"),
    )
    .hint(format!("`apt-get install postgresql-client-{major}`"))
}

/// The folder of the lowest version that fits the server.
fn nearest(versions: &Path, server_major: u32) -> Option<PathBuf> {
    let found = std::fs::read_dir(versions).ok()?.filter_map(|entry| {
        let major: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let folder = versions.join(format!("{major}/bin"));
        (fit(major, server_major) && folder.join("pg_dump").is_file()).then_some((major, folder))
    });
    found.min().map(|(_, folder)| folder)
}

async fn version_of(program: &Path) -> Result<String, Problem> {
    let unusable =
        || Problem::new(Code::DatabaseToolUnfit, format!("`{}` does not say its version", program.display()));
    let asking = Command::new(program).arg("--version").env_clear().kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_TIMEOUT, asking)
        .await
        .map_err(|_| unusable())?
        .map_err(|error| unusable().because(&error))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && major_in(&text).is_some() { Ok(text) } else { Err(unusable()) }
}

/// 15 in `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_in(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_read_from_what_programs_say() {
        assert_eq!(major_in("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_in("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_in("something else 15"), None);
    }

    #[test]
    fn the_servers_own_version_is_taken_or_the_nearest_above_that_it_understands() {
        let folder = tempfile::tempdir().unwrap();
        for major in ["13", "15", "17"] {
            let programs = folder.path().join(major).join("bin");
            std::fs::create_dir_all(&programs).unwrap();
            std::fs::write(programs.join("pg_dump"), "").unwrap();
        }
        let found = |major| nearest(folder.path(), major).map(|path| path.display().to_string());
        assert!(found(15).unwrap().ends_with("/15/bin"));
        assert!(found(14).unwrap().ends_with("/15/bin"));
        assert_eq!(found(18), None);
        // 17 is there, but speaks of settings that 16 does not know.
        assert_eq!(found(16), None);
        assert!(found(17).unwrap().ends_with("/17/bin"));
    }

    #[test]
    fn programs_must_dump_the_server_and_be_understood_by_it() {
        let cases = [
            (15, 15, true),
            (16, 15, true),
            (14, 15, false),
            (17, 16, false),
            (18, 17, true),
            (17, 18, false),
        ];
        for (programs, server, expected) in cases {
            assert_eq!(fit(programs, server), expected, "{programs} with {server}");
        }
        let refused = unfit(17, 16);
        assert_eq!(refused.code, Code::DatabaseToolUnfit);
        assert_eq!(refused.hint, "`apt-get install postgresql-client-16`");
    }
}
