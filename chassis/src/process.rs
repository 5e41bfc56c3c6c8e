//! Running programs that an agent's own file grants: no shell, a bare environment, bounded in time and output.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

/// Most of each output of a process that is kept, in bytes: the last lines say what went wrong. Both together stay
/// below what a cause may hold, or its end would be cut off again.
const KEPT_OUTPUT: usize = 900;

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It never ran.
    #[error("cannot start `{0}`: {1}")]
    NotStarted(String, #[source] std::io::Error),
    /// It ended, and says that it failed.
    #[error("`{program}` ended with {status}: {output}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// How it ended is not known.
    #[error("cannot wait for `{0}`: {1}")]
    Lost(String, #[source] std::io::Error),
    /// It took too long.
    #[error("`{0}` did not end within {1} s and was killed")]
    Late(String, u64),
}

/// Runs a program with a bare environment, bounded in time. Returns the end of its output.
pub async fn run(program: &str, arguments: &[String], timeout: Duration) -> Result<String, RunError> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| RunError::NotStarted(program.to_owned(), error))?;
    let group = child.id();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let waited = tokio::time::timeout(timeout, async {
        let (out, err, status) = tokio::join!(tail(stdout), tail(stderr), child.wait());
        (status, [out, err].concat())
    })
    .await;
    match waited {
        Ok((Ok(status), output)) if status.success() => Ok(output),
        Ok((Ok(status), output)) => {
            let (program, output) = (program.to_owned(), output.trim().to_owned());
            Err(RunError::Ended { program, status, output })
        }
        Ok((Err(error), _)) => Err(RunError::Lost(program.to_owned(), error)),
        Err(_) => {
            // The whole group, or grandchildren would go on.
            if let Some(group) =
                group.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(RunError::Late(program.to_owned(), timeout.as_secs()))
        }
    }
}

async fn tail(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(KEPT_OUTPUT);
        kept.drain(..surplus);
    }
    pointsman_core::clean(&String::from_utf8_lossy(&kept))
}
