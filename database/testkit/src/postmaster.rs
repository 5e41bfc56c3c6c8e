//! The server's first process, started and ended by a thread that lives as long as it: the kernel ends the server when
//! that thread is gone, so a test that is killed leaves no server behind.

use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

/// How long the server may take to end in order; then it is made to.
const ORDERLY_END: Duration = Duration::from_secs(10);
/// How often an ending server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running server.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pid: u32,
    end: mpsc::Sender<Signal>,
    keeper: Option<JoinHandle<()>>,
}

impl Postmaster {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let (started, starting) = mpsc::channel();
        let (end, ending) = mpsc::channel();
        let keeper = std::thread::spawn(move || match command.spawn() {
            Err(error) => _ = started.send(Err(error)),
            Ok(mut child) => {
                _ = started.send(Ok(child.id()));
                // An error means that the guard is gone: then the server is to end too.
                let signal = ending.recv().unwrap_or(Signal::INT);
                finish(&mut child, signal);
            }
        });
        let pid =
            starting.recv().map_err(|_| anyhow!("the keeper ended"))?.context("cannot start the server")?;
        Ok(Self { pid, end, keeper: Some(keeper) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it: `INT` shuts the server down in order, `QUIT` as a crash would, without a last checkpoint.
    pub(crate) fn end(mut self, signal: Signal) {
        _ = self.end.send(signal);
        self.join();
    }

    fn join(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            _ = keeper.join();
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        _ = self.end.send(Signal::INT);
        self.join();
    }
}

fn finish(child: &mut Child, signal: Signal) {
    for signal in [signal, Signal::QUIT] {
        _ = kill_process(Pid::from_child(child), signal);
        let give_up = Instant::now() + ORDERLY_END;
        while Instant::now() < give_up {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    _ = child.kill();
    _ = child.wait();
}
