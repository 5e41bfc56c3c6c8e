//! HAProxy's command sockets: one command, one connection, read to the end, a deadline on everything. The same on a
//! unix socket and over TCP.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{Aftermath, Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::command::Command;

/// Bounds on connecting, on sending the command and on reading the whole answer: HAProxy answers in less than a
/// millisecond, and under full load in a few.
const CONNECT: Duration = Duration::from_secs(2);
const WRITE: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(2);

/// Commands that are under way at once on one socket, of orders and of whoever only looks. A master serves ten clients at a
/// time, a worker as many by default, whose other half is left to a second agent and to people. Behind those few wait in
/// their backlog, and the next is turned away (measured on 2.6.12: from the 22nd on at a master, the 17th at a worker).
const ORDERS_AT_ONCE: usize = 4;
const LOOKS_AT_ONCE: usize = 2;

/// Clients that a worker's sockets have places for together, unless `stats maxconn` says otherwise.
pub(crate) const CLIENTS: u64 = 10;

/// How long a command waits for its turn: those before it take a millisecond each, or at most six seconds where HAProxy
/// hangs.
const TURN: Duration = Duration::from_secs(10);

/// Pause before it is tried again to get in where too many wait already.
const FULL: Duration = Duration::from_millis(5);

/// Largest answer that is read: `show stat` of a thousand servers is about half a megabyte.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Where a command socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A socket over TCP: no password and clear text, so only on a network that a firewall keeps to the agent.
    Tcp {
        /// Name or address, a version 6 one without its brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEndpoint(String);

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(80).collect();
        let shown = shown.escape_default();
        write!(f, "`{shown}` is no command socket: expected `/path/of/socket` or `tcp://host:port`")
    }
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') && !text.contains('\0') {
            return Some(Self::Unix(PathBuf::from(text)));
        }
        let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let fit = match in_brackets {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
            }
        };
        let host = in_brackets.unwrap_or(host).to_owned();
        (fit && !host.is_empty()).then_some(Self::Tcp { host, port })
    }

    /// How a person talks to it, for hints.
    pub fn by_hand(&self, command: &str) -> String {
        format!("`echo '{command}' | {}`", self.socat())
    }

    /// The program that a person pipes a command into.
    pub fn socat(&self) -> String {
        match self {
            Self::Unix(path) => format!("socat - {}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => format!("socat - TCP6:[{host}]:{port}"),
            Self::Tcp { host, port } => format!("socat - TCP:{host}:{port}"),
        }
    }

    /// The address as a `stats socket` line of HAProxy's configuration has it.
    pub fn in_haproxy(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp { host, port } if host.contains(':') => format!("ipv6@[{host}]:{port}"),
            Self::Tcp { host, port } => format!("ipv4@{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        Self::parse(text).ok_or_else(|| InvalidEndpoint(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// The path of a master socket. A master is never reached over TCP: it can do far more than move visitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterPath(pub PathBuf);

impl FromStr for MasterPath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match Endpoint::parse(text) {
            Some(Endpoint::Unix(path)) => Ok(Self(path)),
            _ => Err("the master socket is a unix socket: expected `/path/of/socket`".to_owned()),
        }
    }
}

/// A command socket. All copies of it take turns.
#[derive(Clone, Debug)]
pub struct CommandSocket {
    endpoint: Endpoint,
    turns: Arc<Turns>,
    only_looks: bool,
}

/// Whose turn it is. Orders have turns of their own: whoever only looks, however many they are, keeps none of them waiting.
#[derive(Debug)]
struct Turns {
    orders: Semaphore,
    looks: Semaphore,
}

/// How long a master that is starting anew is waited for: it takes some tenths of a second.
const MASTER_BACK: Duration = Duration::from_secs(3);

/// Pause between two tries to reach it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no answer.
enum Unanswered {
    /// The socket is there and nobody accepts: HAProxy is down, or starting anew, or too many wait.
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
/// What it answers between the end of a worker and the moment in which it knows of it, some milliseconds.
const WORKER_ENDS: &[u8] = b"Can't connect to the target CLI";

/// A master that starts itself anew drops whom it was asked for, though the worker lives (measured on 2.6.12: 11 of 15
/// reloads with two askers); one that goes on knows a moment later whether the worker has ended.
fn passing(reply: &str) -> bool {
    reply.is_empty() || reply.as_bytes().starts_with(WORKER_ENDS)
}

impl CommandSocket {
    /// The socket there.
    pub fn new(endpoint: &Endpoint) -> Self {
        let turns = Turns { orders: Semaphore::new(ORDERS_AT_ONCE), looks: Semaphore::new(LOOKS_AT_ONCE) };
        Self { endpoint: endpoint.clone(), turns: Arc::new(turns), only_looks: false }
    }

    /// The same socket for somebody who only looks.
    pub fn for_looks(&self) -> Self {
        Self { only_looks: true, ..self.clone() }
    }

    async fn turn(&self) -> std::io::Result<SemaphorePermit<'_>> {
        let turns = if self.only_looks { &self.turns.looks } else { &self.turns.orders };
        within(TURN, "no turn to ask", async { turns.acquire().await.map_err(Error::other) }).await
    }

    /// Sends one command and reads the whole answer.
    pub async fn ask(&self, command: &Command) -> Result<String, Problem> {
        self.exchange(command, &command.bytes()).await.map_err(Unanswered::into_problem)
    }

    /// Sends one command through a master socket and has it close the connection after the answer.
    ///
    /// While HAProxy is reloaded its master starts itself anew and refuses connections, or closes one without an answer,
    /// and it takes a moment to see that a worker has ended: all of it is waited out, because what is true is only known
    /// afterwards. No command that is sent through a master answers nothing, and all of them may be sent twice.
    pub async fn ask_master(&self, command: &Command) -> Result<String, Problem> {
        let give_up = Instant::now() + MASTER_BACK;
        let line = command.master_bytes()?;
        loop {
            match self.exchange(command, &line).await {
                Err(Unanswered::Refused(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_AGAIN).await
                }
                Ok(reply) if passing(&reply) && Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_AGAIN).await
                }
                Ok(reply) if reply.is_empty() => {
                    let nothing = Error::new(ErrorKind::UnexpectedEof, "it closes without an answer");
                    return Err(self.silent(command, &nothing));
                }
                answer => return answer.map_err(Unanswered::into_problem),
            }
        }
    }

    async fn exchange(&self, command: &Command, line: &[u8]) -> Result<String, Unanswered> {
        let talked = async {
            let _turn = self.turn().await?;
            match &self.endpoint {
                Endpoint::Unix(path) => talk(|| UnixStream::connect(path), line).await,
                Endpoint::Tcp { host, port } => {
                    talk(|| TcpStream::connect((host.as_str(), *port)), line).await
                }
            }
        };
        let reply = talked.await.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::WouldBlock => {
                Unanswered::Refused(self.silent(command, &error))
            }
            _ => Unanswered::Other(self.silent(command, &error)),
        })?;
        if reply.len() > MAX_REPLY_BYTES {
            return Err(Unanswered::Other(unreadable(command, "it is too long")));
        }
        let reply =
            String::from_utf8(reply).map_err(|_| Unanswered::Other(unreadable(command, "it is not text")))?;
        Ok(without_severity(&reply).to_owned())
    }

    fn silent(&self, command: &Command, error: &Error) -> Problem {
        let hint = match self.endpoint {
            Endpoint::Unix(_) => {
                "on the load balancer: `systemctl status haproxy`, and the socket's group and mode; if visitors are served, other clients may hold every place of its stats sockets, ten by default: `stats maxconn 100` in `global` of haproxy.cfg"
            }
            Endpoint::Tcp { .. } => {
                "see whether HAProxy runs, its `stats socket ipv4@...` line, and the firewall rule; if visitors are served, other clients may hold every place of its stats sockets, ten by default: `stats maxconn 100`"
            }
        };
        Problem::new(
            Code::RuntimeSocketUnreachable,
            format!("no answer to `{}` from `{}`", command.verb(), self.endpoint),
        )
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint(hint)
    }
}

/// How HAProxy writes severities; by `severity-output` a number, which is the place here, or the word.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// An answer without the severity that `severity-output` of a `stats socket` line has HAProxy put before messages, as
/// `[3]: ` or `[err]: `. Lists have none, and begin with no such word.
fn without_severity(reply: &str) -> &str {
    let rest = reply.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    match rest {
        Some((word, message))
            if SEVERITIES.contains(&word)
                || word.parse().is_ok_and(|place: usize| place < SEVERITIES.len()) =>
        {
            message
        }
        _ => reply,
    }
}

async fn within<T>(
    bound: Duration,
    what: &str,
    work: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    let late = |_| Error::new(ErrorKind::TimedOut, format!("{what} within {} s", bound.as_secs()));
    tokio::time::timeout(bound, work).await.map_err(late)?
}

/// Connects. A socket whose backlog is full turns whoever comes away at once, on Linux with EAGAIN, and has room again a
/// moment later.
async fn connected<S, C>(connect: impl Fn() -> C) -> std::io::Result<S>
where
    C: Future<Output = std::io::Result<S>>,
{
    let give_up = Instant::now() + CONNECT;
    loop {
        match within(give_up.saturating_duration_since(Instant::now()), "no connection", connect()).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() + FULL < give_up => {
                tokio::time::sleep(FULL).await;
            }
            done => return done,
        }
    }
}

/// One connection: sends the line and reads until the other side closes, or one byte more than is read.
async fn talk<S, C>(connect: impl Fn() -> C, line: &[u8]) -> std::io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Future<Output = std::io::Result<S>>,
{
    let mut stream = connected(connect).await?;
    within(WRITE, "the command was not taken", async {
        stream.write_all(line).await?;
        stream.flush().await
    })
    .await?;
    within(READ, "no whole answer", async {
        let mut reply = Vec::new();
        let mut chunk = vec![0; 16 << 10];
        loop {
            let count = stream.read(&mut chunk).await?;
            reply.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let said = |words: &[u8]| reply.starts_with(words) && reply.ends_with(b"\n");
            if count == 0 || said(WORKER_GONE) || said(WORKER_ENDS) || reply.len() > MAX_REPLY_BYTES {
                return Ok(reply);
            }
        }
    })
    .await
}

/// An answer that means nothing to us. It is never parsed in part.
pub fn unreadable(command: &Command, why: &str) -> Problem {
    Problem::new(
        Code::HaproxyReplyUnexpected,
        format!("cannot read HAProxy's answer to `{}`: {why}", command.verb()),
    )
    .hint(format!(
        "give it by hand to the socket that lb-agent.toml names and see the answer: `{}`",
        command.verb()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_no_part_of_an_answer() {
        for (reply, expected) in [
            ("[3]: entry not found.\n\n", "entry not found.\n\n"),
            ("[err]: No such table\n\n", "No such table\n\n"),
            ("[6]: admin\n\n", "admin\n\n"),
            ("[7]: [3]: x\n", "[3]: x\n"),
            ("entry not found.\n\n", "entry not found.\n\n"),
            ("\n", "\n"),
            ("", ""),
            ("[8]: x\n", "[8]: x\n"),
            ("[what]: x\n", "[what]: x\n"),
            ("[3] x\n", "[3] x\n"),
            ("x\n[3]: y\n", "x\n[3]: y\n"),
        ] {
            assert_eq!(without_severity(reply), expected, "{reply:?}");
        }
    }

    fn socket_in(folder: &tempfile::TempDir) -> (CommandSocket, PathBuf) {
        let path = folder.path().join("socket");
        (CommandSocket::new(&Endpoint::Unix(path.clone())), path)
    }

    /// Answers one connection after the other.
    async fn answer_all(listener: tokio::net::UnixListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut line = [0; 64];
            let _ = stream.read(&mut line).await;
            let _ = stream.write_all(b"ok\n\n").await;
        }
    }

    #[tokio::test]
    async fn where_too_many_wait_already_one_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, path) = socket_in(&folder);
        let listening = tokio::net::UnixSocket::new_stream().unwrap();
        listening.bind(&path).unwrap();
        let listener = listening.listen(1).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let command = Command::of(&["show", "info"]).unwrap();
        let asked = futures_util::future::join_all((0..40).map(|_| socket.ask(&command)));
        // Those that ask are turned away before anybody is let in.
        let heard = async {
            drop(waiting);
            answer_all(listener).await;
        };
        tokio::select! {
            biased;
            answers = asked => assert!(answers.iter().all(|answer| answer.as_deref() == Ok("ok\n\n")), "{answers:?}"),
            () = heard => unreachable!(),
        }
        // One that has no room for as long as anybody waits says so.
        let listening = tokio::net::UnixSocket::new_stream().unwrap();
        let (socket, path) =
            (CommandSocket::new(&Endpoint::Unix(folder.path().join("full"))), folder.path().join("full"));
        listening.bind(&path).unwrap();
        let _listener = listening.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let problem = socket.ask(&command).await.unwrap_err();
        assert!(problem.causes[0].contains("temporarily unavailable"), "{problem:?}");
        assert!(problem.hint.contains("other clients") && problem.hint.contains("`stats maxconn 100`"));
    }

    /// Of those that ask at once only so many are let on the socket, and nobody of one kind waits for one of the other.
    #[tokio::test]
    async fn orders_and_looks_take_turns_of_their_own() {
        let (info, stat) = (Command::of(&["show", "info"]).unwrap(), Command::of(&["show", "stat"]).unwrap());
        for (looks, at_once) in [(false, ORDERS_AT_ONCE), (true, LOOKS_AT_ONCE)] {
            let folder = tempfile::tempdir().unwrap();
            let (orders, path) = socket_in(&folder);
            let (many, one) =
                if looks { (orders.for_looks(), orders) } else { (orders.clone(), orders.for_looks()) };
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let asked = async {
                let many = futures_util::future::join_all((0..10).map(|_| many.ask(&info)));
                let (many, one) = tokio::join!(many, one.ask(&stat));
                assert!(many.iter().chain([&one]).all(Result::is_ok), "{many:?} {one:?}");
            };
            // Nobody is answered before the one has come.
            let heard = async {
                let (mut held, mut one_came) = (Vec::new(), false);
                while !one_came || held.len() <= at_once {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut line = vec![0; "show stat\n".len()];
                    stream.read_exact(&mut line).await.unwrap();
                    one_came |= line == b"show stat\n";
                    held.push(stream);
                    assert!(held.len() <= at_once + usize::from(one_came), "{} came at once", held.len());
                }
                for mut stream in held {
                    stream.write_all(b"ok\n\n").await.unwrap();
                }
                answer_all(listener).await;
            };
            tokio::select! {
                () = asked => {}
                () = heard => unreachable!(),
            }
        }
    }

    #[test]
    fn endpoints() {
        for text in [
            "/run/haproxy/pointsman.sock",
            "tcp://10.0.0.1:9999",
            "tcp://fw.example.org:1",
            "tcp://[fd00::1]:9999",
        ] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "haproxy.sock",
            "unix:/x",
            "tcp://",
            "tcp://:9999",
            "tcp://10.0.0.1",
            "tcp://10.0.0.1:0",
            "tcp://a:70000",
            "tcp://a b:1",
            "tcp://[::g]:1",
            "tcp://fd00::1:9999",
            "tcp://a/b:1",
            "http://a:1",
            "/a\0b",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
        assert!("tcp://10.0.0.1:9999".parse::<MasterPath>().unwrap_err().contains("unix socket"));
        assert_eq!("/run/m".parse::<MasterPath>(), Ok(MasterPath(PathBuf::from("/run/m"))));
        let by_hand = "tcp://10.0.0.1:9999".parse::<Endpoint>().unwrap().by_hand("show info");
        assert_eq!(by_hand, "`echo 'show info' | socat - TCP:10.0.0.1:9999`");
    }
}
