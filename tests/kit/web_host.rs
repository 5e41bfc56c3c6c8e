//! A web host of the site: its nginx, its agent, and what lies in its site root.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::daemon::{self, KillAt};
use crate::nginx;
use crate::process::{Process, binary};

/// A web host.
#[derive(Debug)]
pub struct WebHost {
    pub(crate) name: String,
    /// Where its nginx listens.
    pub web: SocketAddr,
    /// Where its agent listens.
    pub agent: SocketAddr,
    /// Its nginx; `None` while it is stopped.
    pub nginx: Option<Process>,
    /// Its agent; `None` while it is stopped.
    pub agent_process: Option<Process>,
    layout: nginx::Layout,
    config: PathBuf,
    logs: PathBuf,
}

impl WebHost {
    /// Writes the configuration of a host that is made of these folders. Starts nothing.
    pub(crate) fn new(
        name: &str,
        (web, agent): (SocketAddr, SocketAddr),
        folder: &Path,
        logs: &Path,
        pki: &str,
    ) -> Result<Self> {
        let (site, state) = (folder.join("site"), folder.join("agent-state"));
        std::fs::create_dir_all(&site)?;
        std::fs::create_dir_all(&state)?;
        let config = folder.join("agent.toml");
        // The floor is low: a test machine's disk may be small.
        let text = format!(
            "listen = \"{agent}\"\nstate = {state:?}\n{pki}[web]\nroot = {site:?}\nserver = \"{web}\"\n\
             host = \"www.example.org\"\nfloor_bytes = 1000000\n"
        );
        std::fs::write(&config, text)?;
        Ok(Self {
            name: name.to_owned(),
            web,
            agent,
            nginx: None,
            agent_process: None,
            layout: nginx::Layout { folder: folder.join("nginx"), site, listen: web },
            config,
            logs: logs.to_owned(),
        })
    }

    /// Starts its nginx.
    pub fn start_nginx(&mut self) -> Result<()> {
        let log = self.logs.join(format!("nginx-{}.log", self.name));
        self.nginx = Some(nginx::start(&self.name, &self.layout, &log)?);
        Ok(())
    }

    /// Stops its nginx.
    pub fn stop_nginx(&mut self) -> Result<()> {
        self.nginx.take().map_or(Ok(()), |mut nginx| nginx.stop())
    }

    /// Starts its agent.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent_process = Some(self.agent_with(None)?);
        Ok(())
    }

    /// A running agent, which kills itself at `kill_at`.
    pub(crate) fn agent_with(&self, kill_at: Option<KillAt>) -> Result<Process> {
        let mut command = Command::new(binary("pointsman-agent")?);
        command.arg("--config").arg(&self.config);
        let log = self.logs.join(format!("agent-{}.log", self.name));
        daemon::spawn(&format!("agent of {}", self.name), command, kill_at, &log)
    }

    /// Kills its agent, as a power cut would.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent_process.take().map_or(Ok(()), |mut agent| agent.kill())
    }

    /// The site root.
    pub fn site(&self) -> &Path {
        &self.layout.site
    }

    /// The tree that nginx serves.
    pub fn live(&self) -> PathBuf {
        self.site().join("current")
    }

    /// Where `current` points to.
    pub fn current(&self) -> Option<String> {
        std::fs::read_link(self.live()).ok().map(|target| target.display().to_string())
    }

    /// Whether the maintenance file is there.
    pub fn maintenance(&self) -> bool {
        self.site().join(".maintenance").exists()
    }

    /// Has `/api/health` fail, or not.
    pub fn fail_health(&self, fails: bool) -> Result<()> {
        set_file(&self.layout.health_breaker(), fails)
    }

    /// Has `/api/deep` fail, or not, while `/api/health` goes on passing.
    pub fn fail_deep(&self, fails: bool) -> Result<()> {
        set_file(&self.layout.deep_breaker(), fails)
    }

    /// Where an application takes WebSockets, if a test brings one.
    pub fn application(&self) -> PathBuf {
        self.layout.application()
    }

    /// Has one visitor in five get a 500, or not, while every check goes on passing.
    pub fn fail_visitors(&self, fails: bool) -> Result<()> {
        set_file(&self.layout.visitors_breaker(), fails)
    }

    /// How many files in a folder of an artifact have arrived and wait for the rest.
    pub fn staged(&self, artifact: &str, folder: &str) -> usize {
        let folder = self.site().join(".pointsman/staging").join(artifact).join(folder);
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// What lies in the site root, two levels deep; links with their targets.
    pub fn inventory(&self) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for folder in ["", "artifacts", ".pointsman/staging", ".pointsman/complete"] {
            let path = self.site().join(folder);
            for entry in std::fs::read_dir(&path).with_context(|| format!("cannot read {path:?}"))? {
                let path = entry?.path();
                let name = path.strip_prefix(self.site())?.display().to_string();
                let target = std::fs::read_link(&path).map(|target| target.display().to_string());
                found.insert(name, target.unwrap_or_default());
            }
        }
        Ok(found)
    }
}

fn set_file(path: &Path, there: bool) -> Result<()> {
    match there {
        true => Ok(std::fs::write(path, "")?),
        false if path.exists() => Ok(std::fs::remove_file(path)?),
        false => Ok(()),
    }
}
