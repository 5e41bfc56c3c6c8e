//! A visitor's connection at its leanest: raw HTTP/1.1, one request at a time, one buffer. For whoever needs many
//! answers and looks only at what they are marked with.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Room for one answer: what is asked for is smaller.
const ANSWER_BYTES: usize = 4096;
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A connection with its buffer.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer, as long as nothing else is asked.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Its status.
    pub status: u16,
    /// The route epoch that it is marked with.
    pub epoch: Option<u64>,
    /// It is marked as the canary side's.
    pub canary: bool,
    /// The connection ends with it.
    pub closes: bool,
    /// Its body.
    pub body: &'a [u8],
}

impl Wire {
    /// Opens a connection.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(ANSWER_BYTES) })
    }

    /// Asks, and reads the whole answer. Whether the server has closed meanwhile is not looked at before.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Reply<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await.context("cannot ask")?;
        let mut head = None;
        loop {
            if head.is_none() {
                head = Head::find(&self.buffer)?;
            }
            if let Some(head) = &head
                && self.buffer.len() >= head.whole
            {
                break;
            }
            if self.buffer.len() > MAX_ANSWER_BYTES {
                bail!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
            }
            if self.stream.read_buf(&mut self.buffer).await.context("no answer")? == 0 {
                bail!("closed after {} bytes of the answer", self.buffer.len());
            }
        }
        let head = head.context("no head")?;
        let Head { status, epoch, canary, closes, body, whole } = head;
        Ok(Reply { status, epoch, canary, closes, body: self.buffer.get(body..whole).unwrap_or_default() })
    }
}

struct Head {
    status: u16,
    epoch: Option<u64>,
    canary: bool,
    closes: bool,
    body: usize,
    whole: usize,
}

impl Head {
    fn find(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let (mut length, mut epoch, mut canary, mut closes) = (None, None, false, false);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse::<usize>()?);
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("x-pointsman") {
                for field in value.split(' ') {
                    epoch = field.strip_prefix("epoch=").and_then(|field| field.parse().ok()).or(epoch);
                    canary |= field == "side=canary";
                }
            }
        }
        let body = end.saturating_add(4);
        let whole = body.saturating_add(length.context("no length")?);
        Ok(Some(Self { status, epoch, canary, closes, body, whole }))
    }
}
