//! A folder of its own for each test, and the command run in it with nothing from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The folder: working directory and home of every command that is run in it.
pub struct Sandbox(TempDir);

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with what `init` writes for an environment `production`, and its operator's configuration in place. Nothing
    /// listens where its coordinator should: port 1 is nobody's.
    pub fn initialised() -> Self {
        let sandbox = Self::new();
        let made = sandbox.run(&INIT);
        assert_eq!(made.code, 0, "{}", made.stderr);
        fs::copy(
            sandbox.path().join("site/people/operator-anna/config.toml"),
            sandbox.path().join("site/people/operator-anna/pointsman.toml"),
        )
        .unwrap();
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(arguments).current_dir(self.path()).env_clear().env("HOME", self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments))
    }

    /// With the operator's configuration.
    pub fn run_as_anna(&self, arguments: &[&str]) -> Ran {
        let config = ["--config", "site/people/operator-anna/config.toml"];
        self.run(&[&config, arguments].concat())
    }

    pub fn finish(&self, mut command: Command) -> Ran {
        let output = command.output().unwrap();
        // The folder has another name each time.
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(&self.path().display().to_string(), "FOLDER")
        };
        Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A small site.
pub const INIT: [&str; 17] = [
    "init",
    "--environment",
    "production",
    "--trust-domain",
    "example.org",
    "--dir",
    "site",
    "--coordinator",
    "control=127.0.0.1:1",
    "--balancer",
    "lb1=10.0.0.1:7444",
    "--web",
    "web1=10.0.0.2:7444",
    "--web",
    "web2=10.0.0.3:7444",
    "--operator",
    "anna",
];

impl Ran {
    /// Both streams and the exit code, for a golden file.
    pub fn shown(&self) -> String {
        let mut text = format!("exit {}\n", self.code);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text.push_str(&format!("{name}:\n{}", indented(stream)));
            }
        }
        text
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub fn document(&self) -> serde_json::Value {
        let document: serde_json::Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(document.get("format_version"), Some(&"1.0".into()));
        document
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect()
}
