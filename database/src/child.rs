//! One of PostgreSQL's programs as a child process: its own group, a cleared environment, no shell, nothing secret in
//! its arguments or environment, killed with all that it started when nobody waits for it any more.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_core::{Code, Problem};
use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Settings;
use crate::statement::{MORE_LOCKS, MORE_SESSIONS, TOO_MANY_LOCKS, TOO_MANY_SESSIONS};

/// How far children stand back behind the server and the sites on the same host. Their disk is not ranked: what they
/// read and write goes through pipes.
const NICE: i32 = 10;
/// What is kept of a child's complaints, in bytes: the end tells why.
const MAX_COMPLAINTS: usize = 16 << 10;
/// Lines of them that are told.
const MAX_CAUSES: usize = 6;

/// A command that is not started yet.
pub(crate) struct Program {
    name: String,
    command: Command,
    password: Option<PasswordFile>,
}

impl Program {
    /// A program that will speak with the server as the agent's role.
    pub(crate) fn new(settings: &Settings, path: &Path, purpose: &str) -> Result<Self, Problem> {
        let mut program = Self::local(path);
        program
            .command
            .env("PGHOST", &settings.host)
            .env("PGPORT", settings.port.to_string())
            .env("PGUSER", &settings.user)
            .env("PGAPPNAME", format!("pointsman-{purpose}"))
            .env("PGCONNECT_TIMEOUT", "5")
            .env("PGSSLMODE", if settings.tls.is_some() { "verify-full" } else { "disable" });
        if let Some(tls) = &settings.tls {
            program.command.env("PGSSLROOTCERT", &tls.ca);
        }
        if let Some(file) = &settings.password_file {
            let password = PasswordFile::write(file)?;
            program.command.env("PGPASSFILE", &password.0);
            program.password = Some(password);
        } else {
            // Not the one in the home of whoever runs the agent.
            program.command.env("PGPASSFILE", "/nonexistent/pgpass");
        }
        Ok(program)
    }

    /// A program that speaks with no server.
    pub(crate) fn local(path: &Path) -> Self {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, command, password: None }
    }

    /// The command, for its arguments, its input and output.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Result<Running, Problem> {
        let mut child = self.command.spawn().map_err(|error| {
            Problem::new(Code::DatabaseToolUnfit, format!("cannot start `{}`", self.name)).because(&error)
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        // Being polite is no condition.
        _ = setpriority_process(group, NICE);
        let complaints = child.stderr.take().map(|stderr| tokio::spawn(last_of(stderr)));
        Ok(Running { name: self.name, child, group, complaints, _password: self.password })
    }
}

/// A running child. Dropped, it and all that it started is killed.
pub(crate) struct Running {
    name: String,
    child: Child,
    group: Option<Pid>,
    complaints: Option<JoinHandle<String>>,
    _password: Option<PasswordFile>,
}

/// How a child ended, and what it complained about.
#[derive(Debug)]
pub(crate) struct Ended {
    pub name: String,
    pub status: ExitStatus,
    pub complaints: String,
}

impl Running {
    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Result<Ended, Problem> {
        let status = self.child.wait().await.map_err(|error| {
            Problem::new(Code::DatabaseToolUnfit, format!("cannot wait for `{}`", self.name)).because(&error)
        })?;
        // What it started has no business without it.
        self.kill();
        let complaints = match self.complaints.take() {
            Some(reading) => reading.await.unwrap_or_default(),
            None => String::new(),
        };
        Ok(Ended { name: std::mem::take(&mut self.name), status, complaints })
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // Fails when all of them have ended, which is well.
            _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Ended {
    /// Passes if it ended well; otherwise says why not, with its last words: under this code, unless they tell of the moment
    /// and of nothing that it worked on.
    pub(crate) fn well(self, code: Code, doing: &str) -> Result<Self, Problem> {
        if self.status.success() {
            return Ok(self);
        }
        let message = format!("cannot {doing}: `{}` ended with {}", self.name, self.status);
        let problem = match self.of_the_moment() {
            Some(Moment::NoRoom) => Problem::new(Code::NoRoom, message)
                .hint("make room, for the database or for its backups as the cause says: `df -h`"),
            Some(Moment::Killed) => Problem::new(code_of_killed(code), message)
                .retry_useful()
                .hint("somebody killed it, or the system for want of memory: `journalctl -k -g oom`"),
            Some(Moment::TooManyLocks) => Problem::new(Code::DatabaseUnfit, message).hint(MORE_LOCKS),
            Some(Moment::Held) => Problem::new(code_of_killed(code), message)
                .retry_useful()
                .hint("somebody holds a table: `SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle'`; type the same again when that has ended"),
            Some(Moment::TooManySessions) => Problem::new(Code::DatabaseUnreachable, message)
                .retry_useful()
                .hint(MORE_SESSIONS),
            Some(Moment::ServerGone) => Problem::new(Code::DatabaseUnreachable, message)
                .retry_useful()
                .hint("look at the server, `systemctl status postgresql`, and type the same again"),
            None if code == Code::BackupUnrestorable && self.looked_in_vain() => Problem::new(code, message)
                .hint(
                    "what indexes, checks and generated columns call must find its own names: \
                     `ALTER FUNCTION … SET search_path = pg_catalog, public`",
                ),
            None if code == Code::BackupUnrestorable => Problem::new(code, message).hint(
                "`pointsman doctor ENV` names what the agent's role could not restore, and what to type",
            ),
            None => Problem::new(code, message),
        };
        let whole = self.complaints.len() < MAX_COMPLAINTS;
        Err(causes(&self.complaints, whole).into_iter().take(MAX_CAUSES).fold(problem, Problem::cause))
    }
}

/// Why a program failed through no fault of what it worked on.
enum Moment {
    NoRoom,
    Killed,
    TooManyLocks,
    TooManySessions,
    Held,
    ServerGone,
}

/// A backup that was not taken stays just that; one that exists is not to blame.
fn code_of_killed(code: Code) -> Code {
    if code == Code::BackupFailed { code } else { Code::DatabaseToolUnfit }
}

impl Ended {
    /// Whether a function did not find what it names: a restore has nothing on its search path.
    fn looked_in_vain(&self) -> bool {
        let within = ["CONTEXT:  SQL function \"", "CONTEXT:  PL/pgSQL function "];
        self.complaints.contains(" does not exist")
            && within.iter().any(|words| self.complaints.contains(words))
    }

    fn of_the_moment(&self) -> Option<Moment> {
        let says = |words: &[&str]| words.iter().any(|words| self.complaints.contains(words));
        let killed = [Signal::KILL, Signal::TERM].map(|signal| Some(signal.as_raw()));
        if says(&NO_ROOM) {
            Some(Moment::NoRoom)
        } else if killed.contains(&self.status.signal()) {
            Some(Moment::Killed)
        } else if says(&[TOO_MANY_LOCKS]) {
            Some(Moment::TooManyLocks)
        } else if says(&TOO_MANY_SESSIONS) {
            Some(Moment::TooManySessions)
        } else if says(&["canceling statement due to"]) && says(&["LOCK TABLE "]) {
            Some(Moment::Held)
        } else {
            says(&SERVER_GONE).then_some(Moment::ServerGone)
        }
    }
}

/// What libpq and a server say whose disk is full.
const NO_ROOM: [&str; 2] = ["No space left on device", "could not extend file"];

/// What they say when a session cannot begin or go on.
const SERVER_GONE: [&str; 6] = [
    "server closed the connection unexpectedly",
    "no connection to the server",
    "could not connect to server",
    "connection to server ",
    "terminating connection",
    "canceling statement due to",
];

/// The lines that say why, and not only where: `pg_restore` before version 14 begins with where. What quotes rows or a statement,
/// to the last line of it, is left out: whatever values are in it are not for the journal. Unless these are all the words
/// there were, the first ones may be of a statement whose beginning is cut off.
fn causes(complaints: &str, whole: bool) -> Vec<&str> {
    let begins = |line: &str| {
        let by_program =
            |program: &str| line.strip_prefix(program).is_some_and(|rest| rest.starts_with(": "));
        ["pg_restore", "pg_dump", "pg_dumpall", "psql"].into_iter().any(by_program)
            || ["ERROR:", "FATAL:", "PANIC:", "HINT:", "DETAIL:", "CONTEXT:"]
                .iter()
                .any(|word| line.starts_with(word))
    };
    let beside = ["pg_restore: while ", "pg_restore: from TOC entry "];
    let quotes = [
        "Command was: ",
        "LINE ",
        "QUERY:",
        "STATEMENT:",
        "DETAIL:  Key (",
        "DETAIL:  Failing row ",
        "CONTEXT:  COPY ",
        "CONTEXT:  SQL statement ",
    ];
    let mut quoting = !whole;
    let mut told = Vec::new();
    for line in complaints.lines() {
        if quotes.iter().any(|words| line.starts_with(words)) {
            quoting = true;
        } else if begins(line) {
            quoting = false;
        }
        let is_beside = line.contains("warning:") || beside.iter().any(|words| line.starts_with(words));
        if !quoting && !is_beside && !line.trim().is_empty() {
            told.push(line);
        }
    }
    told
}

/// The end of what a child says.
async fn last_of(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(MAX_COMPLAINTS);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The password in the form that PostgreSQL's programs read, in a file of its own that is gone with them.
struct PasswordFile(PathBuf);

static WRITTEN: AtomicU64 = AtomicU64::new(0);

impl PasswordFile {
    fn write(source: &Path) -> Result<Self, Problem> {
        let failed = |error: &std::io::Error| {
            Problem::new(
                Code::ConfigInvalid,
                format!("cannot hand on the password in `{}`", source.display()),
            )
            .because(error)
        };
        let password = Zeroizing::new(std::fs::read_to_string(source).map_err(|error| failed(&error))?);
        let escaped =
            Zeroizing::new(password.trim_end_matches(['\r', '\n']).replace('\\', "\\\\").replace(':', "\\:"));
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let name = format!("pointsman-{}-{number}.pgpass", std::process::id());
        let path = std::env::temp_dir().join(name);
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(|error| failed(&error))?;
        let written = Self(path);
        file.write_all(Zeroizing::new(format!("*:*:*:*:{}\n", *escaped)).as_bytes())
            .map_err(|error| failed(&error))?;
        Ok(written)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_is_what_the_server_refused() {
        let complaints = [
            "",
            "pg_restore: warning: errors ignored on restore: 1",
            "pg_restore: while PROCESSING TOC:",
            "pg_restore: from TOC entry 3; 3079 16390 EXTENSION postgis ",
            "pg_restore: error: could not execute query: ERROR:  permission denied to create extension",
            "HINT:  Must be superuser to create this extension.",
            "Command was: CREATE USER MAPPING FOR a SERVER far OPTIONS (",
            "    password 'secret'",
            ");",
            "",
            "DETAIL:  Key (mail)=(ada@example.org) is duplicated.",
            "CONTEXT:  COPY people, line 1: \"1 ada@example.org\"",
            "CONTEXT:  SQL statement \"SELECT 'secret',",
            "  'secret'\"",
            "pg_restore: error: could not execute query: ERROR:  syntax error at or near \"OPTION\"",
            "LINE 1: ... SERVER far OPTION (password 'secret')",
            "                       ^",
            "DETAIL:  So it is.",
        ];
        let all = complaints.join("\n");
        assert_eq!(causes(&all, true), [complaints[4], complaints[5], complaints[14], complaints[17]]);
        // What was cut off may have begun a statement.
        let cut = ["  'secret');", complaints[4], complaints[5]].join("\n");
        assert_eq!(causes(&cut, false), complaints[4..6]);
    }

    #[test]
    fn what_failed_for_want_of_room_or_of_a_server_says_nothing_about_the_backup() {
        let code = |status: i32, complaints: &str| {
            let (name, status) = ("pg_restore".to_owned(), ExitStatus::from_raw(status));
            let ended = Ended { name, status, complaints: complaints.to_owned() };
            ended.well(Code::BackupUnrestorable, "load it").unwrap_err().code
        };
        let failed = 1 << 8;
        let full = "pg_restore: error: COPY failed: ERROR:  could not extend file \"base/1/2\": No space left on device";
        assert_eq!(code(failed, full), Code::NoRoom);
        let gone = "pg_restore: error: could not execute query: server closed the connection unexpectedly";
        assert_eq!(code(failed, gone), Code::DatabaseUnreachable);
        assert_eq!(
            code(failed, "pg_dump: error: query failed: ERROR:  out of shared memory"),
            Code::DatabaseUnfit
        );
        let held = "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\npg_dump: detail: Query was: LOCK TABLE public.t";
        assert_eq!(code(failed, held), Code::DatabaseToolUnfit);
        assert_eq!(code(Signal::KILL.as_raw(), ""), Code::DatabaseToolUnfit);
        let broken = "pg_restore: error: could not execute query: ERROR:  function f() does not exist";
        assert_eq!(code(failed, broken), Code::BackupUnrestorable);
    }
}
