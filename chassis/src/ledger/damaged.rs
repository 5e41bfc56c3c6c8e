//! A ledger whose file is damaged. At a start it is put aside, and a new one begins with what was acknowledged in it: an agent
//! that forgot that would act for a coordinator that was taken over. Receipts may be lost, as they are with a disk: then
//! nobody claims to know, and what runs is looked at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_core::receipt::Fence;
use pointsman_core::{Aftermath, Code, Epoch, Problem};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, ffi, params};

use super::{SCHEMA, VERSION, read_fence, signed, unsigned};
use crate::durable;

/// How many damaged files are kept before a person has to look.
const MOST_KEPT: u32 = 99;

/// What an agent has acknowledged: this outlives every receipt.
struct Acknowledged {
    fence: Fence,
    holder: Option<(Epoch, Vec<u8>)>,
}

/// Whether the file itself is wrong, and not the way to it.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    let Some(failure) = error.sqlite_error() else {
        // A value that is not as an agent writes it: somebody or something changed the file.
        return true;
    };
    matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        || failure.extended_code == ffi::SQLITE_IOERR_CORRUPTFS
}

/// Reads the whole file: damage of what is not asked for is met only then.
pub fn must_be_whole(connection: &Connection) -> Result<(), rusqlite::Error> {
    let told: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if told == "ok" { Ok(()) } else { Err(corrupt(told)) }
}

fn corrupt(told: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(told))
}

/// How damage is told while the agent runs: a start puts it aside.
pub fn problem(error: &rusqlite::Error, path: &Path) -> Problem {
    Problem::new(Code::ReceiptsUnavailable, "the agent's receipts are damaged")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .cause(format!("file `{}`", path.display()))
        .hint(
            "on the agent's host: `systemctl restart 'pointsman-*agent'` puts the damaged file aside and goes on without: \
             `pointsman explain PM0511`",
        )
}

/// Damage that reaches what the agent has acknowledged: whether an older coordinator could still act here, only a person can
/// tell.
fn beyond(error: &rusqlite::Error, path: &Path) -> Problem {
    let what = "the agent's receipts are damaged, and with them what it has acknowledged";
    Problem::new(Code::ReceiptsUnavailable, what)
        .aftermath(Aftermath::Unknown)
        .because(error)
        .cause(format!("file `{}`", path.display()))
        .hint(format!(
            "see that one coordinator runs, then on the agent's host: `mv {}* /root/`, and start the agent: \
             `pointsman explain PM0511`",
            path.display()
        ))
}

/// Puts a damaged ledger aside and a new one in its place, which knows what was acknowledged and no receipt. Says where the
/// damaged file is kept. Refused where what was acknowledged cannot be read any more; then nothing is changed.
///
/// Whenever this ends, the name leads to the damaged file or to the new one, and never to the one with the log of the other.
pub fn put_aside(path: &Path, damage: &rusqlite::Error) -> Result<PathBuf, Problem> {
    let known = acknowledged(path).map_err(|_| beyond(damage, path))?;
    let new = beside(path, ".new");
    let placed = remove_all(&new)
        .map_err(|error| unplaced(path, &error))
        .and_then(|()| begin(&new, &known).map_err(|error| super::unusable(&error, path)))
        .and_then(|()| place(&new, path).map_err(|error| unplaced(path, &error)));
    placed.inspect_err(|_| drop(remove_all(&new)))
}

fn unplaced(path: &Path, error: &io::Error) -> Problem {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    Problem::new(Code::ReceiptsUnavailable, "the agent's receipts are damaged and cannot be put aside")
        .aftermath(Aftermath::Unknown)
        .because(error)
        .cause(format!("file `{}`", path.display()))
        .hint(format!(
            "on the agent's host: `findmnt -T {folder}` (read-only?), `df -h {folder}`, `ls -la {folder}`"
        ))
}

/// What was acknowledged, from tables that are whole.
fn acknowledged(path: &Path) -> Result<Acknowledged, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    for table in ["fence", "holder"] {
        let told: String =
            connection.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))?;
        if told != "ok" {
            return Err(corrupt(told));
        }
    }
    let fence = read_fence(&connection)?;
    let holder = connection.query_row("SELECT epoch, holder FROM holder", [], |row| {
        Ok((Epoch(unsigned(row.get(0)?)), row.get(1)?))
    });
    let holder = holder.optional()?;
    // As far as that can be done: what is only in the log goes aside with it.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(Acknowledged { fence, holder })
}

fn begin(new: &Path, known: &Acknowledged) -> Result<(), rusqlite::Error> {
    let mut connection = Connection::open(new)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    let transaction = connection.transaction()?;
    let fence = &known.fence;
    // Its records begin with the next order: of the ones before it cannot know.
    transaction.execute(
        "UPDATE fence SET epoch = ?1, head_seq = ?2, head_hash = ?3, first_seq = 0",
        params![signed(fence.epoch.0), signed(fence.head_seq), fence.head_hash.as_slice()],
    )?;
    if let Some((epoch, holder)) = &known.holder {
        transaction.execute("INSERT INTO holder VALUES (1, ?1, ?2)", params![signed(epoch.0), holder])?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}

fn place(new: &Path, path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kept = kept_beside(path)
        .find(|kept| fs::symlink_metadata(kept).is_err())
        .ok_or_else(|| io::Error::other(format!("{MOST_KEPT} damaged files are kept there already")))?;
    fs::File::open(new)?.sync_all()?;
    fs::hard_link(path, &kept)?;
    // The log of the damaged file must never be taken for one of the new.
    match fs::rename(beside(path, "-wal"), beside(&kept, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_file(beside(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    durable::sync_directory(folder)?;
    fs::rename(new, path)?;
    durable::sync_directory(folder)?;
    Ok(kept)
}

/// The damaged files that are kept beside a ledger.
pub fn kept(path: &Path) -> Vec<PathBuf> {
    kept_beside(path).take_while(|kept| fs::symlink_metadata(kept).is_ok()).collect()
}

fn kept_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MOST_KEPT).map(|number| beside(path, &format!(".damaged-{number}")))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_all(path: &Path) -> io::Result<()> {
    for file in ["", "-wal", "-shm", "-journal"].map(|end| beside(path, end)) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use pointsman_core::receipt::{Admission, Fate};
    use pointsman_core::{Evidence, ReleaseId, Step};

    use super::super::Ledger;
    use super::super::tests::{admit, order};
    use super::*;

    /// A ledger of many receipts; the newest entry that it has heard of is 99, in epoch 7, which is `one`'s.
    fn filled(path: &Path) -> Ledger {
        let ledger = Ledger::open(path).unwrap();
        ledger.fence(Epoch(7), b"one").unwrap();
        for seq in 1..100 {
            let (mut received, digest) = order(Step::Stage, 7, seq, true);
            received.order.release = ReleaseId::parse(&format!("r{}", seq / 10)).unwrap();
            received.order.key.step =
                Step::parse(["stage", "drain", "activate"][(seq % 3) as usize]).unwrap();
            if ledger.admit(&received, digest) == Ok(Admission::Act) {
                let evidence = Evidence { detail: "x".repeat(400), ..Evidence::default() };
                ledger.settle(&received.order.release, &received.order.key, &evidence).unwrap();
            }
        }
        ledger
    }

    /// Overwrites the first page of a table.
    fn damage(path: &Path, table: &str) {
        let connection = Connection::open(path).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: i64 = connection.query_row(sql, params![table], |row| row.get(0)).unwrap();
        let size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        drop(connection);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xA5; 64], unsigned((page - 1) * size)).unwrap();
    }

    #[test]
    fn damaged_receipts_are_put_aside_and_what_was_acknowledged_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts.db");
        drop(filled(&path));
        damage(&path, "receipt");
        let damaged = fs::read(&path).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.put_aside(), [folder.path().join("receipts.db.damaged-1")]);
        assert_eq!(fs::read(&ledger.put_aside()[0]).unwrap(), damaged);
        let fence = ledger.fence_state().unwrap();
        assert_eq!(
            (ledger.epoch(), fence.epoch, fence.head_seq, fence.head_hash),
            (Epoch(7), Epoch(7), 99, [1; 32])
        );
        // It acts for nobody who was taken over, nor for another of the same epoch (I4), nor on a copy of what it has done (I5).
        assert_eq!(ledger.fence(Epoch(7), b"other").map_err(|problem| problem.code), Err(Code::Fenced));
        assert_eq!(admit(&ledger, &order(Step::Switch, 6, 100, true)), Err(Code::Fenced));
        assert_eq!(admit(&ledger, &order(Step::Stage, 7, 99, true)), Err(Code::Superseded));
        // And of what it did before it does not claim to know.
        let (received, digest) = order(Step::Switch, 7, 100, true);
        let (release, key) = (&received.order.release, &received.order.key);
        assert_eq!(ledger.fate(release, key, 99), Ok(Fate::Unknown));
        assert_eq!(ledger.admit(&received, digest), Ok(Admission::Act));
        drop(ledger);
        // Once: what stands there now is whole.
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!((ledger.put_aside().len(), ledger.works()), (1, Ok(())));
        assert_eq!(ledger.fate(release, key, 100), Ok(Fate::Started));
    }

    #[test]
    fn where_what_was_acknowledged_is_damaged_a_person_has_to_look() {
        for table in ["fence", "holder", "sqlite_schema"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("receipts.db");
            drop(filled(&path));
            match table {
                "sqlite_schema" => fs::write(&path, [0xA5; 20_000]).unwrap(),
                table => damage(&path, table),
            }
            let before = fs::read(&path).unwrap();
            let problem = Ledger::open(&path).map(drop).unwrap_err();
            assert_eq!(problem.code, Code::ReceiptsUnavailable, "{table}");
            assert!(problem.message.contains("acknowledged"), "{table}: {problem:?}");
            assert!(
                problem.hint.contains(&format!("`mv {}* /root/`", path.display())),
                "{table}: {problem:?}"
            );
            assert_eq!((fs::read(&path).unwrap(), kept(&path)), (before, Vec::new()), "{table}");
            // As the hint says.
            for file in fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
                fs::remove_file(file).unwrap();
            }
            assert_eq!(Ledger::open(&path).unwrap().epoch(), Epoch(0));
        }
    }

    #[test]
    fn damage_that_is_met_while_the_agent_runs_is_told_until_it_is_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts.db");
        let ledger = filled(&path);
        assert_eq!((ledger.must_be_whole(), ledger.works()), (Ok(()), Ok(())));
        ledger.open.lock().unwrap().connection.execute_batch("PRAGMA shrink_memory").unwrap();
        damage(&path, "receipt");
        let problem = ledger.must_be_whole().unwrap_err();
        assert!(
            problem.message.contains("damaged") && problem.hint.contains("`systemctl restart "),
            "{problem:?}"
        );
        // What touches the fence alone would not meet it: nobody would start this agent anew.
        assert!(ledger.fence_state().is_ok());
        assert_eq!(ledger.works(), Err(problem));
        drop(ledger);
        assert_eq!(Ledger::open(&path).unwrap().works(), Ok(()));
    }
}
