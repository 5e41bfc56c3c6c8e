//! HAProxy's command sockets: one command, one connection, read to the end, a deadline on everything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_core::{Aftermath, Code, Problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Bound on one command, connection and answer together: HAProxy answers in less than a millisecond, and under
/// full load in a few.
const DEADLINE: Duration = Duration::from_secs(2);

/// Largest answer that is read: `show stat` of a thousand servers is about half a megabyte.
const MAX_REPLY_BYTES: u64 = 4 << 20;

/// Largest input with a payload, in bytes. HAProxy must hold it whole in one buffer of `tune.bufsize`, 16384 by default.
/// One of 16383 bytes is taken; from 16384 on no answer comes, and 2.6 then spins until its own watchdog kills the process
/// (measured). The rest is a margin.
pub const MAX_INPUT_BYTES: usize = 16_000;

/// A command socket.
#[derive(Clone, Debug)]
pub struct CommandSocket {
    path: PathBuf,
}

/// How long a master that is starting anew is waited for: it takes some tenths of a second.
const MASTER_BACK: Duration = Duration::from_secs(3);

/// Pause between two tries to reach it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no answer.
enum Unanswered {
    /// The socket is there and nobody accepts: HAProxy is down, or starting anew.
    Refused(Problem),
    /// Anything else.
    Other(Problem),
}

impl Unanswered {
    fn into_problem(self) -> Problem {
        let (Self::Refused(problem) | Self::Other(problem)) = self;
        problem
    }
}

/// What HAProxy answers for the worker of a process id that has gone. From 2.8 on the connection then stays open.
const WORKER_GONE: &[u8] = b"Can't find the target PID";

impl CommandSocket {
    /// The socket at this path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Sends one command and reads the whole answer.
    ///
    /// The command is put together from parsed values only. A line feed or `;` in it would be a second command, so
    /// such a command is a bug here and is refused.
    pub async fn ask(&self, command: &str) -> Result<String, Problem> {
        self.exchange(command, command).await.map_err(Unanswered::into_problem)
    }

    /// Sends one command with lines of text after it, which HAProxy reads up to the first empty one.
    ///
    /// After an empty line inside of it the rest would be commands, of which some versions repeat the words in their
    /// answer; such a payload, or one that HAProxy cannot hold, is refused. No error repeats any of it: it may be secret.
    pub async fn ask_with_payload(&self, command: &str, payload: &str) -> Result<String, Problem> {
        let first = format!("{command} <<");
        let lines = payload.trim_end_matches('\n');
        let input_bytes = first.len().saturating_add(lines.len()).saturating_add("\n\n\n".len());
        let empty_line = lines.lines().any(|line| line.trim().is_empty());
        if lines.is_empty() || empty_line || lines.contains('\r') || input_bytes > MAX_INPUT_BYTES {
            let message =
                format!("refused to send `{}` with {} bytes", command.escape_default(), lines.len());
            return Err(Problem::new(Code::HaproxyReplyUnexpected, message));
        }
        // The whole room at once: a string that grows leaves copies behind.
        let mut input = Zeroizing::new(String::with_capacity(MAX_INPUT_BYTES));
        for part in [first.as_str(), "\n", lines, "\n"] {
            input.push_str(part);
        }
        self.exchange(command, &input).await.map_err(Unanswered::into_problem)
    }

    /// Sends one command through a master socket and has it close the connection after the answer.
    ///
    /// While HAProxy is reloaded its master starts itself anew and refuses connections: that is waited out, because
    /// what is true is only known afterwards.
    pub async fn ask_master(&self, command: &str) -> Result<String, Problem> {
        let give_up = Instant::now() + MASTER_BACK;
        loop {
            match self.exchange(command, &format!("{command};quit")).await {
                Err(Unanswered::Refused(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_AGAIN).await
                }
                answer => return answer.map_err(Unanswered::into_problem),
            }
        }
    }

    async fn exchange(&self, command: &str, line: &str) -> Result<String, Unanswered> {
        if command.contains(['\n', '\r', ';', '\\']) || !command.is_ascii() {
            let message = format!("refused to send `{}`", command.escape_default());
            return Err(Unanswered::Other(Problem::new(Code::HaproxyReplyUnexpected, message)));
        }
        let talk = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream.write_all(line.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            let mut reply = Vec::new();
            let mut chunk = vec![0; 16 << 10];
            loop {
                let count = stream.read(&mut chunk).await?;
                reply.extend_from_slice(chunk.get(..count).unwrap_or_default());
                let gone = reply.starts_with(WORKER_GONE) && reply.ends_with(b"\n");
                if count == 0 || gone || reply.len() as u64 > MAX_REPLY_BYTES {
                    return Ok::<_, std::io::Error>(reply);
                }
            }
        };
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no whole answer within 2 s");
        let reply = tokio::time::timeout(DEADLINE, talk).await.map_err(late).and_then(|reply| reply);
        let reply = reply.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => {
                Unanswered::Refused(self.silent(command, &error))
            }
            _ => Unanswered::Other(self.silent(command, &error)),
        })?;
        if reply.len() as u64 > MAX_REPLY_BYTES {
            return Err(Unanswered::Other(unreadable(command, "it is too long")));
        }
        String::from_utf8(reply).map_err(|_| Unanswered::Other(unreadable(command, "it is not text")))
    }

    fn silent(&self, command: &str, error: &std::io::Error) -> Problem {
        let verb = command.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Problem::new(
            Code::RuntimeSocketUnreachable,
            format!("no answer to `{verb}` from `{}`", self.path.display()),
        )
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint("on the load balancer: `systemctl status haproxy`, and the socket's group and mode")
    }
}

/// An answer that means nothing to us. It is never parsed in part.
pub fn unreadable(command: &str, why: &str) -> Problem {
    let verb = command.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Problem::new(Code::HaproxyReplyUnexpected, format!("cannot read HAProxy's answer to `{verb}`: {why}"))
        .hint("see the answer: `echo 'show info' | socat - /run/haproxy/pointsman.sock`")
}
