//! A child process that never outlives its guard: asked to end, then made to, also when the test panics. What it
//! writes goes to a file, whose end is shown when the test fails.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when it is asked to.
const ORDERLY_END: Duration = Duration::from_secs(3);
/// How often an ending process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of a log that are shown when a test fails.
const LINES_SHOWN: usize = 40;

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The path of one of the workspace's programs, beside the running test in `target/<profile>`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot find the running test")?;
    let found = test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no `{name}` beside `{}`: run `cargo build --workspace`", test.display()))
}

/// The command of a program, with the words before it that have it run elsewhere.
pub(crate) fn command(inside: &[String], program: impl AsRef<OsStr>) -> Command {
    match inside {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

impl Process {
    /// Starts a command. Its output is added to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let output: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log of `{name}`"))?;
        let child = command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start `{name}`: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            bail!("`{}` has ended by itself:\n{}", self.name, self.last_lines());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal `{}`", self.name))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails with the end of its log if it is not running.
    pub fn must_run(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("`{}` ended with {status}:\n{}", self.name, self.last_lines()),
        }
    }

    /// Kills it, without warning, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill `{}`", self.name))?;
        self.child.wait().with_context(|| format!("cannot reap `{}`", self.name))?;
        Ok(())
    }

    /// Asks it to end, and kills it if it does not in time.
    pub fn stop(&mut self) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let give_up = Instant::now() + ORDERLY_END;
        while Instant::now() < give_up {
            if self.ended().is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill()
    }

    /// The last lines that it wrote.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to stop.
        let _ = self.stop();
        if std::thread::panicking() {
            eprintln!("---- {} (pid {})\n{}", self.name, self.pid(), self.last_lines());
        }
    }
}
