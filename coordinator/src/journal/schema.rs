//! The journal's file: how it is begun, and which versions of it this program reads.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_chassis::durable;
use pointsman_core::{Aftermath, Code, Problem};
use rusqlite::{Connection, OpenFlags};
use tracing::warn;

use super::fault::{Fault, corrupt, too_new};

/// The version of the tables that is written, as `PRAGMA user_version`. 0 is a journal from before there were versions.
pub const VERSION: i64 = 1;

/// How long to wait for another process that holds the file, for example a backup: less long than a disk is waited for, so that
/// it is told apart.
pub const HELD: Duration = Duration::from_secs(3);

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA trusted_schema = OFF;
    PRAGMA mmap_size = 0;
";

const TABLES: &str = "
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, environment TEXT NOT NULL, epoch INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('lease','plan','intent','outcome','observed','call','note')),
        release TEXT NOT NULL, principal TEXT NOT NULL, body BLOB NOT NULL,
        prev_hash BLOB NOT NULL CHECK (length(prev_hash) = 32), hash BLOB NOT NULL CHECK (length(hash) = 32)) STRICT;
    CREATE INDEX entry_by_release ON entry (environment, release, seq);
    CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
    CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END;
    CREATE TABLE lease (environment TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT;
";

/// What makes reading faster and is not needed: journals of before have none of it, and versions of before know nothing of it.
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS entry_of_plan ON entry (environment, seq) WHERE kind = 'plan';
    CREATE INDEX IF NOT EXISTS entry_of_request ON entry (environment, CAST(body AS TEXT) ->> '$.plan.request_id', seq)
        WHERE kind = 'plan';
";

/// Everything that the tables of this version are made of.
const PARTS: [&str; 5] = ["entry", "entry_by_release", "entry_stays", "entry_kept", "lease"];

/// Opens the journal for reading and writing, or begins one where there is none.
pub fn open(path: &Path) -> Result<Connection, Fault> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() == 0 => return Err(corrupt("the journal is an empty file").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(path)?,
        // Whatever else is wrong with the file, opening it says so.
        _ => {}
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = version(&connection)?;
    connection.execute_batch(SETTINGS)?;
    if version < VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(connection)
}

/// Has releases be found fast, where that is not so: in a journal of before that takes a while. Where it cannot be had, whatever is
/// in the way, they are found more slowly.
pub fn index(connection: &Connection) {
    if let Err(error) = connection.execute_batch(INDEXES) {
        warn!(%error, "releases in the journal are not indexed: older ones are found more slowly");
    }
}

/// Opens the journal for reading alone, and checks that it is one.
///
/// While a coordinator uses the file, or after one was killed, its `-wal` is there and is read too. Without one the
/// file is all there is: then nothing is written beside it either.
pub fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    let connection = if beside(path, "-wal").exists() {
        connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
    } else {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        connect(Path::new(&format!("file:{}?immutable=1", escaped(path))), flags)?
    };
    version(&connection)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(HELD)?;
    Ok(connection)
}

/// The version of the tables, if this program can read them and they are all there.
fn version(connection: &Connection) -> Result<i64, Fault> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(too_new("the journal", version, VERSION).into());
    }
    if version < 0 {
        return Err(corrupt(format!("the journal is of version {version}, which never was")).into());
    }
    let mut names = connection.prepare("SELECT name FROM sqlite_schema")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let missing = PARTS.into_iter().find(|part| !names.iter().any(|name| name == part));
    missing.map_or(Ok(version), |part| {
        Err(corrupt(format!("the journal lacks `{part}`: it is damaged, changed, or no journal")).into())
    })
}

/// Begins a journal under another name and puts it in place whole, so that one without its tables is never taken
/// for a new one.
fn begin(path: &Path) -> Result<(), Fault> {
    if beside(path, "-wal").exists() {
        let what = "the journal is gone, but what was written to it last is there: its `-wal`";
        return Err(corrupt(what).into());
    }
    let new = beside(path, ".new");
    for leftover in ["", "-wal", "-shm", "-journal"].map(|end| beside(&new, end)) {
        match std::fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unplaced(path, &error).into());
            }
            _ => {}
        }
    }
    create(&new)?.close().map_err(|(_, error)| error)?;
    let placed = || -> io::Result<()> {
        std::fs::rename(&new, path)?;
        durable::sync_directory(path.parent().unwrap_or(Path::new(".")))
    };
    placed().map_err(|error| unplaced(path, &error).into())
}

/// Makes an empty journal where no file is.
pub fn create(path: &Path) -> Result<Connection, Fault> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.execute_batch(SETTINGS)?;
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

/// A journal that cannot be put in its place.
pub fn unplaced(path: &Path, error: &io::Error) -> Problem {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    Problem::new(Code::JournalUnwritable, "the journal cannot be begun")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint(format!("on the coordinator: `findmnt -T {folder}`, `ls -la {folder}`"))
}

/// The path of a file that stands beside another and bears its name with an ending.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A path as part of a URI.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
