//! One question to HAProxy's command socket: one connection, one line, read to the end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Longest time for question and answer.
const LONGEST: Duration = Duration::from_secs(3);

/// Asks, and returns the whole answer.
pub async fn ask(socket: &Path, command: &str) -> Result<String> {
    let asking = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(LONGEST, asking).await.context("HAProxy did not answer")?;
    answer.with_context(|| format!("cannot ask HAProxy `{command}`"))
}
