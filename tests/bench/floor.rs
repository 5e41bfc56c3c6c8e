//! What a switch cannot be faster than: HAProxy told by hand, and the durable writes that one switch needs, each
//! with nothing else around it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, params};

/// Bytes of one row of the journal.
const ROW_BYTES: usize = 600;

/// As the journal and the receipts are kept.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;";
const JOURNAL: &str = "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;";
const RECEIPTS: &str = "
    CREATE TABLE fence (one INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, head_seq INTEGER NOT NULL, head_hash BLOB NOT NULL) STRICT;
    INSERT INTO fence VALUES (1, 0, 0, zeroblob(32));
    CREATE TABLE receipt (release TEXT NOT NULL, step TEXT NOT NULL, digest BLOB NOT NULL, state TEXT NOT NULL,
        detail TEXT NOT NULL, PRIMARY KEY (release, step)) STRICT;
";
/// About what a switch leaves in its receipt.
const DETAIL: &str = "route `be_blue:be_green:0:1234` read back, seen by 3 new connections";

/// Has `socat` set a route, as a person at a prompt would.
pub fn socat(socket: &Path, map: &Path, route: &str) -> Result<Duration> {
    let command = format!("set map {} route {route}\n", map.display());
    let began = Instant::now();
    let mut child = Command::new("socat")
        .arg("-")
        .arg(format!("UNIX-CONNECT:{}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("is socat installed?")?;
    // Taken, so that it is closed and socat ends.
    child.stdin.take().context("socat has no input")?.write_all(command.as_bytes())?;
    let output = child.wait_with_output()?;
    let took = began.elapsed();
    if !output.status.success() || !output.stdout.trim_ascii().is_empty() {
        bail!("HAProxy did not take the route from socat: {output:?}");
    }
    Ok(took)
}

/// The durable writes of one switch, in the folders of the running site, in files of their own.
pub struct Durable {
    journal: Connection,
    receipts: Connection,
    map: PathBuf,
    count: i64,
}

impl Durable {
    /// Makes the files: the journal's beside the coordinator's, the others beside the lb-agent's.
    pub fn new(coordinator: &Path, lb_agent: &Path) -> Result<Self> {
        let open = |path: PathBuf, tables: &str| -> Result<Connection> {
            let connection = Connection::open(path)?;
            connection.execute_batch(PRAGMAS)?;
            connection.execute_batch(tables)?;
            Ok(connection)
        };
        Ok(Self {
            journal: open(coordinator.join("floor-journal.db"), JOURNAL)?,
            receipts: open(lb_agent.join("floor-receipts.db"), RECEIPTS)?,
            map: lb_agent.join("floor.map"),
            count: 0,
        })
    }

    fn journal_row(&self) -> Result<()> {
        let mut insert = self.journal.prepare_cached("INSERT INTO entry VALUES (NULL, ?1)")?;
        insert.execute(params![vec![b'x'; ROW_BYTES]])?;
        Ok(())
    }

    /// A receipt begun, with the fence: the first of what an agent writes for an order.
    pub fn begun(&mut self) -> Result<()> {
        self.count = self.count.saturating_add(1);
        let transaction = self.receipts.transaction()?;
        transaction
            .prepare_cached("UPDATE fence SET epoch = 1, head_seq = ?1, head_hash = ?2")?
            .execute(params![self.count, [7u8; 32].as_slice()])?;
        transaction
            .prepare_cached("INSERT INTO receipt VALUES (?1, 'switch', ?2, 'started', '')")?
            .execute(params![format!("rollback-{}", self.count), [7u8; 32].as_slice()])?;
        Ok(transaction.commit()?)
    }

    /// The receipt done: the last of it.
    pub fn done(&self) -> Result<()> {
        let sql = "UPDATE receipt SET state = 'done', detail = ?2 WHERE release = ?1 AND step = 'switch'";
        let mut update = self.receipts.prepare_cached(sql)?;
        update.execute(params![format!("rollback-{}", self.count), DETAIL])?;
        Ok(())
    }

    /// The new map, flushed beside the one in place.
    pub fn lay_map_ready(&self) -> Result<()> {
        let mut file = File::create(self.map.with_extension("tmp"))?;
        file.write_all(format!("route be_blue:be_green:0:{}\n", self.count).as_bytes())?;
        Ok(file.sync_all()?)
    }

    /// The new map in its place.
    pub fn rename_map(&self) -> Result<()> {
        Ok(std::fs::rename(self.map.with_extension("tmp"), &self.map)?)
    }

    /// The flush of the map's folder, to be done on another thread.
    pub fn folder_flush(&self) -> Result<impl FnOnce() -> Result<()> + Send + use<>> {
        let folder = self.map.parent().context("a map without a folder")?.to_owned();
        Ok(move || Ok(File::open(folder)?.sync_all()?))
    }

    /// Writes what one switch writes, in its order: intent, receipt begun, map, receipt done, outcome.
    pub fn once(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.journal_row()?;
        self.begun()?;
        self.lay_map_ready()?;
        self.rename_map()?;
        self.folder_flush()?()?;
        self.done()?;
        self.journal_row()?;
        Ok(began.elapsed())
    }
}
