//! The journal's file: entries that are never changed, a lease per environment, and everything flushed before a call
//! returns.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::failpoint;
use pointsman_core::ports::{Journal, JournalError};
use pointsman_core::{
    Aftermath, Code, Entry, EnvironmentName, Epoch, Event, Problem, ReleaseId, Stamped, Timestamp,
};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use tokio::sync::watch;

use super::record;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA trusted_schema = OFF;
    PRAGMA mmap_size = 0;
    CREATE TABLE IF NOT EXISTS entry (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, environment TEXT NOT NULL, epoch INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('lease','plan','intent','outcome','observed','call','note')),
        release TEXT NOT NULL, principal TEXT NOT NULL, body BLOB NOT NULL,
        prev_hash BLOB NOT NULL CHECK (length(prev_hash) = 32), hash BLOB NOT NULL CHECK (length(hash) = 32)) STRICT;
    CREATE INDEX IF NOT EXISTS entry_by_release ON entry (environment, release, seq);
    CREATE TRIGGER IF NOT EXISTS entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
    CREATE TRIGGER IF NOT EXISTS entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END;
    CREATE TABLE IF NOT EXISTS lease (environment TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT;
";

/// Number and hash of the newest entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// The journal. Cheap to clone; calls block on the disk only in threads that may.
#[derive(Clone)]
pub struct JournalStore {
    connection: Arc<Mutex<Connection>>,
    head: Arc<watch::Sender<Head>>,
    principal: Arc<str>,
}

fn unwritable(error: &rusqlite::Error) -> Problem {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            Code::JournalCorrupt
        }
        _ => Code::JournalUnwritable,
    };
    Problem::new(code, "the journal cannot be read or written")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint("on the coordinator: `df -h /var/lib/pointsman-coordinator`, owner and mode of the files there")
}

fn corrupt(seq: u64, what: impl AsRef<str>) -> Problem {
    Problem::new(Code::JournalCorrupt, format!("journal entry {seq} {}", what.as_ref()))
        .hint("do not release; compare with a backup of the journal: `pointsman explain PM0703`")
}

fn taken_over(lease: Epoch, rules: Epoch) -> Problem {
    Problem::new(Code::Fenced, format!("epoch {lease} may record nothing: epoch {rules} rules here"))
        .hint("another coordinator has taken over; stop this one")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

struct Raw {
    seq: u64,
    at_ms: u64,
    environment: String,
    epoch: u64,
    kind: String,
    release: String,
    principal: String,
    body: Vec<u8>,
    prev_hash: [u8; 32],
    hash: [u8; 32],
}

impl Raw {
    const COLUMNS: &'static str =
        "seq, at_ms, environment, epoch, kind, release, principal, body, prev_hash, hash";

    fn of(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            seq: unsigned(row.get(0)?),
            at_ms: unsigned(row.get(1)?),
            environment: row.get(2)?,
            epoch: unsigned(row.get(3)?),
            kind: row.get(4)?,
            release: row.get(5)?,
            principal: row.get(6)?,
            body: row.get(7)?,
            prev_hash: row.get(8)?,
            hash: row.get(9)?,
        })
    }

    /// SHA-256 over the hash before and every field in column order, each with its length before it.
    fn computed_hash(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let numbers = [self.seq.to_be_bytes(), self.at_ms.to_be_bytes(), self.epoch.to_be_bytes()];
        let [seq, at_ms, epoch] = &numbers;
        let fields: [&[u8]; 9] = [
            &self.prev_hash,
            seq,
            at_ms,
            self.environment.as_bytes(),
            epoch,
            self.kind.as_bytes(),
            self.release.as_bytes(),
            self.principal.as_bytes(),
            &self.body,
        ];
        for field in fields {
            context.update(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(field);
        }
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl JournalStore {
    /// Opens or creates the journal, and verifies its whole chain.
    pub fn open(path: &Path, principal: &str) -> Result<Self, Problem> {
        let place = |problem: Problem| problem.cause(format!("file `{}`", path.display()));
        let open = || -> Result<Connection, rusqlite::Error> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| place(unwritable(&error)))?;
        let head = verify(&connection).map_err(place)?;
        let (head, _) = watch::channel(head);
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            head: Arc::new(head),
            principal: principal.into(),
        })
    }

    /// The newest entry, now and whenever it changes.
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let connection = Arc::clone(&self.connection);
        let work = move || act(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(Problem::new(Code::JournalUnwritable, "work on the journal ended abruptly")
                .aftermath(Aftermath::Unknown)
                .because(&error))
        })
    }

    /// Takes the lease of an environment: the epoch grows by one in the same transaction.
    async fn take(&self, environment: &EnvironmentName, holder: &str) -> Result<Epoch, Problem> {
        let (environment, holder) = (environment.to_string(), holder.to_owned());
        self.with(move |connection| {
            let sql = "INSERT INTO lease VALUES (?1, ?2, 1)
                       ON CONFLICT (environment) DO UPDATE SET holder = ?2, epoch = epoch + 1 RETURNING epoch";
            let epoch = connection.query_row(sql, params![environment, holder], |row| row.get(0));
            epoch.map(|epoch| Epoch(unsigned(epoch))).map_err(|error| unwritable(&error))
        })
        .await
    }

    /// The entries of an environment after a number, of one release or of all, in order.
    pub async fn entries_after(
        &self,
        environment: &EnvironmentName,
        release: Option<&ReleaseId>,
        after: u64,
    ) -> Result<Vec<Entry>, Problem> {
        let (environment, release) = (environment.to_string(), release.map(ToString::to_string));
        self.with(move |connection| {
            let sql = format!(
                "SELECT {} FROM entry WHERE environment = ?1 AND seq > ?2 AND (?3 IS NULL OR release = ?3) ORDER BY seq",
                Raw::COLUMNS
            );
            let mut statement = connection.prepare_cached(&sql).map_err(|error| unwritable(&error))?;
            let rows = statement.query_map(params![environment, signed(after), release], Raw::of).map_err(|error| unwritable(&error))?;
            rows.map(|row| parse(row.map_err(|error| unwritable(&error))?)).collect()
        })
        .await
    }

    /// The hash of an entry, if the journal has it.
    pub async fn hash_of(&self, seq: u64) -> Result<Option<[u8; 32]>, Problem> {
        self.with(move |connection| {
            let sql = "SELECT hash FROM entry WHERE seq = ?1";
            connection
                .query_row(sql, params![signed(seq)], |row| row.get(0))
                .optional()
                .map_err(|error| unwritable(&error))
        })
        .await
    }

    async fn append_all(
        &self,
        environment: &EnvironmentName,
        lease: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> Result<Vec<Stamped>, Problem> {
        let (environment, release) = (environment.to_string(), release.to_string());
        let (sender, principal) = (Arc::clone(&self.head), Arc::clone(&self.principal));
        self.with(move |connection| {
            let head = *sender.borrow();
            let head = append(connection, head, (&environment, lease), &release, &principal, at, &events)?;
            sender.send_replace(head);
            Ok(events.into_iter().map(|event| Stamped { at, event }).collect())
        })
        .await
    }
}

fn append(
    connection: &mut Connection,
    mut head: Head,
    (environment, lease): (&str, Epoch),
    release: &str,
    principal: &str,
    at: Timestamp,
    events: &[Event],
) -> Result<Head, Problem> {
    let failed = |error: rusqlite::Error| unwritable(&error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let rules = "SELECT epoch FROM lease WHERE environment = ?1";
    let rules: Option<i64> =
        transaction.query_row(rules, params![environment], |row| row.get(0)).optional().map_err(failed)?;
    let rules = Epoch(rules.map_or(0, unsigned));
    if rules != lease {
        return Err(taken_over(lease, rules));
    }
    {
        let sql = "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let mut insert = transaction.prepare_cached(sql).map_err(failed)?;
        for event in events {
            let mut raw = Raw {
                seq: head.seq.saturating_add(1),
                at_ms: at.0,
                environment: environment.to_owned(),
                epoch: lease.0,
                kind: record::kind(event).to_owned(),
                release: release.to_owned(),
                principal: principal.to_owned(),
                body: record::encode(event),
                prev_hash: head.hash,
                hash: [0; 32],
            };
            raw.hash = raw.computed_hash();
            let inserted = insert.execute(params![
                signed(raw.seq),
                signed(raw.at_ms),
                raw.environment,
                signed(raw.epoch),
                raw.kind,
                raw.release,
                raw.principal,
                raw.body,
                raw.prev_hash.as_slice(),
                raw.hash.as_slice()
            ]);
            inserted.map_err(failed)?;
            head = Head { seq: raw.seq, hash: raw.hash };
        }
    }
    failpoint::pass("journal-before-commit");
    transaction.commit().map_err(failed)?;
    failpoint::pass("journal-after-commit");
    Ok(head)
}

fn parse(raw: Raw) -> Result<Entry, Problem> {
    let event = record::decode(&raw.body).map_err(|why| corrupt(raw.seq, why))?;
    let release = ReleaseId::parse(&raw.release)
        .map_err(|error| corrupt(raw.seq, "names no release").because(&error))?;
    Ok(Entry { seq: raw.seq, release, fact: Stamped { at: Timestamp(raw.at_ms), event } })
}

/// Walks the chain from its first entry: every edit, removal and reordering breaks it.
fn verify(connection: &Connection) -> Result<Head, Problem> {
    let sql = format!("SELECT {} FROM entry ORDER BY seq", Raw::COLUMNS);
    let mut statement = connection.prepare(&sql).map_err(|error| unwritable(&error))?;
    let rows = statement.query_map([], Raw::of).map_err(|error| unwritable(&error))?;
    let mut head = Head::default();
    for row in rows {
        let raw = row.map_err(|error| unwritable(&error))?;
        let expected = head.seq.saturating_add(1);
        if raw.seq != expected {
            return Err(corrupt(expected, "is missing"));
        }
        if raw.prev_hash != head.hash || raw.computed_hash() != raw.hash {
            return Err(corrupt(raw.seq, "was changed after it was written, or one before it was"));
        }
        head = Head { seq: raw.seq, hash: raw.hash };
    }
    Ok(head)
}

impl Journal for JournalStore {
    async fn take_lease(&self, environment: &EnvironmentName, holder: &str) -> Result<Epoch, JournalError> {
        self.take(environment, holder).await.map_err(JournalError)
    }

    async fn entries(&self, environment: &EnvironmentName) -> Result<Vec<Entry>, JournalError> {
        self.entries_after(environment, None, 0).await.map_err(JournalError)
    }

    async fn append(
        &self,
        environment: &EnvironmentName,
        epoch: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> Result<Vec<Stamped>, JournalError> {
        self.append_all(environment, epoch, release, at, events).await.map_err(JournalError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::HostName;

    fn names() -> (EnvironmentName, ReleaseId) {
        (EnvironmentName::parse("production").unwrap(), ReleaseId::parse("r1").unwrap())
    }

    async fn filled(path: &Path) -> JournalStore {
        let store = JournalStore::open(path, "test").unwrap();
        let (environment, release) = names();
        let events = (0..20).map(|n| Event::Fenced(HostName::parse(&format!("h{n}")).unwrap())).collect();
        let epoch = store.take_lease(&environment, "test").await.unwrap();
        store.append(&environment, epoch, &release, Timestamp(5), events).await.unwrap();
        store
    }

    #[tokio::test]
    async fn what_was_accepted_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let head = *filled(&path).await.head().borrow();
        let store = JournalStore::open(&path, "test").unwrap();
        assert_eq!(*store.head().borrow(), head);
        let (environment, release) = names();
        let entries = store.entries_after(&environment, Some(&release), 18).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [19, 20]);
        assert_eq!(store.hash_of(20).await.unwrap(), Some(head.hash));
    }

    #[tokio::test]
    async fn every_lease_has_a_higher_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let store = JournalStore::open(&folder.path().join("journal.db"), "test").unwrap();
        let (environment, _) = names();
        assert_eq!(store.take_lease(&environment, "a").await, Ok(Epoch(1)));
        assert_eq!(store.take_lease(&environment, "b").await, Ok(Epoch(2)));
    }

    #[tokio::test]
    async fn every_change_behind_its_back_is_found() {
        let tamper = [
            "UPDATE entry SET at_ms = at_ms + 1 WHERE seq = 7",
            "UPDATE entry SET body = x'7b7d' WHERE seq = 1",
            "UPDATE entry SET principal = 'x' WHERE seq = 20",
            "DELETE FROM entry WHERE seq = 3",
            "UPDATE entry SET seq = 99 WHERE seq = 4; UPDATE entry SET seq = 4 WHERE seq = 5; UPDATE entry SET seq = 5 WHERE seq = 99",
        ];
        for sql in tamper {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal.db");
            drop(filled(&path).await);
            let raw = Connection::open(&path).unwrap();
            assert!(raw.execute_batch(sql).is_err(), "the triggers let `{sql}` pass");
            raw.execute_batch(&format!("DROP TRIGGER entry_stays; DROP TRIGGER entry_kept; {sql}")).unwrap();
            drop(raw);
            let problem = JournalStore::open(&path, "test").map(drop).unwrap_err();
            assert_eq!(problem.code, Code::JournalCorrupt, "{sql}");
        }
    }
}
