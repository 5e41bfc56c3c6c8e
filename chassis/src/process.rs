//! Running programs that an agent's own file grants: no shell, a bare environment, bounded in time and output.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

/// Most of each output of a process that is kept, in bytes: the last lines say what went wrong. Both together stay
/// below what a cause may hold, or its end would be cut off again.
const KEPT_OUTPUT: usize = 900;

/// Runs a program with a bare environment, bounded in time. Returns the end of its output; an error says how it
/// ended.
pub async fn run(program: &str, arguments: &[String], timeout: Duration) -> Result<String, String> {
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
    let mut child = command.spawn().map_err(|error| format!("cannot start `{program}`: {error}"))?;
    let group = child.id();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let waited = tokio::time::timeout(timeout, async {
        let (out, err, status) = tokio::join!(tail(stdout), tail(stderr), child.wait());
        (status, [out, err].concat())
    })
    .await;
    match waited {
        Ok((Ok(status), output)) if status.success() => Ok(output),
        Ok((Ok(status), output)) => Err(format!("`{program}` ended with {status}: {}", output.trim())),
        Ok((Err(error), _)) => Err(format!("cannot wait for `{program}`: {error}")),
        Err(_) => {
            // The whole group, or grandchildren would go on.
            if let Some(group) =
                group.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(format!("`{program}` did not end within {} s and was killed", timeout.as_secs()))
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
