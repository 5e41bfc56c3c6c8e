//! The programs of a site as one kind of thing: to be started, with or without a place at which they kill themselves,
//! to be killed, stopped and looked at.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use pointsman_chassis::failpoint;
use rustix::process::Signal;

use crate::Site;
use crate::database::DatabaseHost;
use crate::process::{self, Process, binary};

/// A pointsman daemon of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// The coordinator.
    Coordinator,
    /// The agent on the load balancer; on the first, where there are two.
    LbAgent,
    /// The agent on the second load balancer.
    SecondLbAgent,
    /// The agent on the web host `blue`.
    Blue,
    /// The agent on the web host `green`.
    Green,
    /// The agent on the database's host, where the site has one.
    Database,
}

/// A place of `failpoint`, and the how many-th time it is passed, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillAt {
    /// The place.
    pub place: &'static str,
    /// The how many-th passing kills.
    pub nth: u32,
}

impl Daemon {
    /// Every daemon of a site with one load balancer.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::LbAgent, Self::Blue, Self::Green];

    /// The name of its host, as the journal has it.
    pub fn host(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::LbAgent => "lb1",
            Self::SecondLbAgent => "lb2",
            Self::Blue => "blue",
            Self::Green => "green",
            Self::Database => "db",
        }
    }

    /// The agent of the only host of a slot.
    pub fn of_slot(slot: &str) -> Result<Self> {
        match slot {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            other => bail!("there is no slot `{other}`"),
        }
    }
}

impl fmt::Display for KillAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.place, self.nth)
    }
}

/// Starts a daemon's process, which kills itself at `kill_at`.
pub(crate) fn spawn(name: &str, command: Command, kill_at: Option<KillAt>, log: &Path) -> Result<Process> {
    spawn_armed(name, command, kill_at.map(|at| at.to_string()), log)
}

fn spawn_armed(name: &str, mut command: Command, armed: Option<String>, log: &Path) -> Result<Process> {
    match armed {
        Some(armed) => command.env(failpoint::VARIABLE, armed),
        None => command.env_remove(failpoint::VARIABLE),
    };
    Process::start(name, &mut command, log)
}

impl Site {
    /// Starts a daemon, which kills itself at `kill_at`.
    pub fn start(&mut self, daemon: Daemon, kill_at: Option<KillAt>) -> Result<()> {
        let armed = || kill_at.map(|at| at.to_string());
        let process = match daemon {
            Daemon::Blue => self.blue.agent_with(kill_at)?,
            Daemon::Green => self.green.agent_with(kill_at)?,
            Daemon::Coordinator => self.on_its_own("coordinator", daemon, armed())?,
            Daemon::Database => self.database()?.agent_with(kill_at)?,
            Daemon::LbAgent | Daemon::SecondLbAgent => self.on_its_own("lb-agent", daemon, armed())?,
        };
        *self.slot_of(daemon)? = Some(process);
        Ok(())
    }

    /// Starts the agent of a load balancer, which stops itself at `at` as by `kill -STOP`: a test then does something to
    /// HAProxy, and lets it go on.
    pub fn start_to_stop(&mut self, daemon: Daemon, at: KillAt) -> Result<()> {
        let process = self.on_its_own("lb-agent", daemon, Some(format!("{at}{}", failpoint::STOP)))?;
        *self.slot_of(daemon)? = Some(process);
        Ok(())
    }

    /// Whether a daemon is stopped.
    pub fn is_stopped(&mut self, daemon: Daemon) -> Result<bool> {
        let process = self.slot_of(daemon)?.as_mut().with_context(|| format!("{daemon:?} does not run"))?;
        process.must_run()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        Ok(stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
    }

    /// The most memory that a daemon had since it was started, in KiB.
    pub fn most_memory(&mut self, daemon: Daemon) -> Result<u64> {
        let process = self.slot_of(daemon)?.as_mut().with_context(|| format!("{daemon:?} does not run"))?;
        process.must_run()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("it has no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn on_its_own(&self, program: &str, daemon: Daemon, armed: Option<String>) -> Result<Process> {
        let host = daemon.host();
        let binary = binary(&format!("pointsman-{program}"))?;
        let mut command = process::command(&self.inside(host)?, binary);
        command.arg("--config").arg(self.folder().join(host).join(format!("{program}.toml")));
        let log = self.folder().join(format!("logs/{program}-{host}.log"));
        spawn_armed(&format!("{program} of {host}"), command, armed, &log)
    }

    /// Kills a daemon, as a power cut would.
    pub fn kill(&mut self, daemon: Daemon) -> Result<()> {
        self.slot_of(daemon)?.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Sends a daemon a signal: to stop it and to let it go on.
    pub fn signal(&mut self, daemon: Daemon, signal: Signal) -> Result<()> {
        let process = self.slot_of(daemon)?.as_mut();
        process.with_context(|| format!("{daemon:?} does not run"))?.signal(signal)
    }

    /// The process of a daemon.
    pub fn pid(&mut self, daemon: Daemon) -> Result<u32> {
        let process = self.slot_of(daemon)?.as_ref();
        Ok(process.with_context(|| format!("{daemon:?} does not run"))?.pid())
    }

    /// Whether a daemon was killed. That it ended in any other way is a failure.
    pub fn fell(&mut self, daemon: Daemon) -> Result<bool> {
        let Some(process) = self.slot_of(daemon)?.as_mut() else { return Ok(true) };
        match process.ended() {
            None => Ok(false),
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => Ok(true),
            Some(status) => bail!("{daemon:?} ended with {status}:\n{}", process.last_lines()),
        }
    }

    fn slot_of(&mut self, daemon: Daemon) -> Result<&mut Option<Process>> {
        Ok(match daemon {
            Daemon::Coordinator => &mut self.coordinator,
            Daemon::LbAgent => &mut self.lb_agent,
            Daemon::SecondLbAgent => {
                &mut self.second.as_mut().context("the site has one load balancer")?.lb_agent
            }
            Daemon::Blue => &mut self.blue.agent_process,
            Daemon::Green => &mut self.green.agent_process,
            Daemon::Database => &mut self.database()?.agent_process,
        })
    }

    fn database(&mut self) -> Result<&mut DatabaseHost> {
        self.database.as_mut().context("the site has no database")
    }
}
