//! The operator's command as a child process: what it was told to say, and how it ended.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};

use crate::process::binary;

/// What the command said.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// All else.
    pub stderr: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Told {
    /// Whether either stream says this.
    pub fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }
}

/// Starts the command with these words. It ends with its handle.
pub fn spawn(config: &Path, words: &[&str]) -> Result<Child> {
    Command::new(binary("pointsman")?)
        .env_remove("POINTSMAN_CONFIG")
        .env("NO_COLOR", "1")
        .arg("--config")
        .arg(config)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start `pointsman`")
}

/// Runs the command to its end.
pub async fn run(config: &Path, words: &[&str]) -> Result<Told> {
    Ok(spawn(config, words)?.wait_with_output().await?.into())
}
