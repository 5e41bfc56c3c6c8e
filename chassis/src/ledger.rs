//! An agent's durable memory: the highest epoch it has acknowledged, the newest journal entry it has heard of, and
//! a receipt for every order that had an effect. One SQLite file, flushed at every commit.

mod damaged;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pointsman_core::receipt::{self, Admission, Fate, Fence, Incoming};
use pointsman_core::{
    Aftermath, Code, Epoch, Evidence, Order, OrderDigest, OrderKey, Problem, ReleaseId, Step,
};
use pointsman_proto::convert::ReceivedOrder;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, ffi, params};
use tracing::{error, warn};

use crate::ballast::{Ballast, WhenClosed};

/// The version of the tables that is written, as `PRAGMA user_version`. 0 is a ledger from before there were versions.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA trusted_schema = OFF;
    PRAGMA mmap_size = 0;
    PRAGMA cache_size = -256;
    CREATE TABLE IF NOT EXISTS fence (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL, head_seq INTEGER NOT NULL, head_hash BLOB NOT NULL,
        first_seq INTEGER NOT NULL) STRICT;
    INSERT OR IGNORE INTO fence VALUES (1, 0, 0, zeroblob(32), 0);
    CREATE TABLE IF NOT EXISTS holder (
        one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, holder BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS receipt (
        release TEXT NOT NULL, step TEXT NOT NULL, digest BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('started', 'done')),
        already INTEGER NOT NULL, detail TEXT NOT NULL, journal_seq INTEGER NOT NULL, PRIMARY KEY (release, step)) STRICT;
";

/// How many other releases an agent keeps receipts of, for people to look at. None of them may be asked for again: an
/// order of a new release tells that the ones before are over, and whatever of theirs is still on its way is older
/// than the head and refused as overtaken.
const RELEASES_KEPT: i64 = 20;

/// Drops the receipts of releases beyond those, never one of the release whose order has just come.
const PRUNE: &str = "
    DELETE FROM receipt WHERE release <> ?1 AND release NOT IN (
        SELECT release FROM receipt WHERE release <> ?1
        GROUP BY release ORDER BY max(journal_seq) DESC LIMIT ?2)";

/// The ledger of one agent. Calls block on the disk: use them from blocking threads.
#[derive(Clone)]
pub struct Ledger {
    open: Arc<Mutex<Open>>,
    path: Arc<Path>,
    epoch: Arc<AtomicU64>,
    /// What is left for the way back when the disk is full.
    ballast: Arc<Ballast>,
    /// Damage that was met since it was opened.
    damage: Arc<OnceLock<Problem>>,
}

/// The open file, and after it what takes the room that closing it gives back: whoever starts next needs that.
struct Open {
    connection: Connection,
    _frees: WhenClosed,
}

/// Whether the disk has no room; also where the file that readers share could not grow, or a quota is used up, which SQLite
/// tells as a write that failed.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| {
        let growing = [ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC];
        failure.code == ErrorCode::DiskFull || growing.contains(&failure.extended_code)
    })
}

fn unusable(error: &rusqlite::Error, path: &Path) -> Problem {
    if damaged::is_damage(error) {
        return damaged::problem(error, path);
    }
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    Problem::new(Code::ReceiptsUnavailable, "the agent cannot read or write its receipts")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .cause(format!("file `{}`", path.display()))
        .hint(format!(
            "on the agent's host: `findmnt -T {folder}` (read-only?), `df -h {folder}`, `df -i {folder}`, \
             `ls -la {folder}` (owner and mode)"
        ))
}

fn too_new(path: &Path, version: i64) -> Problem {
    let message = format!("the agent's receipts are of version {version}; this agent reads up to {VERSION}");
    Problem::new(Code::StateTooNew, message)
        .cause(format!("file `{}`", path.display()))
        .hint("install the version that wrote them, or a newer one: `pointsman explain PM0712`")
}

/// SQLite stores signed 64-bit integers; epochs and sequence numbers never come near their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Ledger {
    /// Opens or creates the ledger at this path. One that is damaged is put aside, and a new one begins with what was
    /// acknowledged; where that cannot be read either, this is refused.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let ballast = Arc::new(Ballast::beside(path));
        // Opening it takes some, too, and an agent that does not start leads nobody back.
        ballast.make_room();
        let found = match opened(path) {
            Err(damage) if damaged::is_damage(&damage) => {
                let kept = damaged::put_aside(path, &damage)?;
                error!(
                    error = %damage, kept = %kept.display(),
                    "the receipts are damaged and put aside: what was acknowledged is kept, and what was done is looked at"
                );
                opened(path)
            }
            found => found,
        };
        let (connection, fence) = found.map_err(|error| unusable(&error, path))??;
        if let Err(error) = ballast.set_aside() {
            // An agent that starts on a full disk can still lead back what it can; a release does not begin on it.
            warn!(%error, "no room can be set aside for the way back");
        }
        Ok(Self {
            open: Arc::new(Mutex::new(Open { connection, _frees: WhenClosed::set_aside(&ballast) })),
            path: path.into(),
            epoch: Arc::new(AtomicU64::new(fence.epoch.0)),
            ballast,
            damage: Arc::default(),
        })
    }

    /// What went wrong with the file, told to an operator, and remembered if it is damage.
    fn told(&self, error: &rusqlite::Error) -> Problem {
        let problem = unusable(error, &self.path);
        if damaged::is_damage(error) {
            self.damage.get_or_init(|| problem.clone());
        }
        problem
    }

    /// Whether the agent can go on with it: it can be read, and no damage was met. Damage is only put aside at a start, so that
    /// whoever watches the agent should start it anew.
    pub fn works(&self) -> Result<(), Problem> {
        match self.damage.get() {
            Some(problem) => Err(problem.clone()),
            None => self.fence_state().map(drop),
        }
    }

    /// Reads all of it, and tells of damage before an order meets that.
    pub fn must_be_whole(&self) -> Result<(), Problem> {
        self.with(|connection| damaged::must_be_whole(connection))
    }

    /// The damaged files that were put aside, for people to look at.
    pub fn put_aside(&self) -> Vec<PathBuf> {
        damaged::kept(&self.path)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>) -> Result<T, Problem> {
        // A panic while the lock was held cannot leave a half-made change: SQLite rolls it back.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut open.connection).map_err(|error| self.told(&error))
    }

    /// The same for a change that must not fail for want of room: what was set aside for it is given up then.
    fn must<T>(&self, act: impl Fn(&mut Connection) -> Result<T, rusqlite::Error>) -> Result<T, Problem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = act(&mut open.connection);
        if done.as_ref().is_err_and(is_full) && self.ballast.give_up() {
            done = act(&mut open.connection);
        }
        done.map_err(|error| self.told(&error))
    }

    /// Has room for the way back before a release begins, and for what is written beside this file on it: an order that leads
    /// back finds some, and one that begins a release is refused where there is none.
    fn room_for(&self, order: &Order) -> Result<(), Problem> {
        match (order.leads_back, order.key.step) {
            (true, _) => {
                self.ballast.make_room();
                Ok(())
            }
            (false, Step::Preflight) => self.ballast.set_aside().map_err(|error| self.no_room(&error)),
            (false, _) => {
                // Somebody may have made room in the middle of a release: the way back from there finds it again.
                _ = self.ballast.set_aside();
                Ok(())
            }
        }
    }

    /// Sets room aside for the way back anew, where it was given up and there is some again; refused where there is not.
    pub fn keep_room(&self) -> Result<(), Problem> {
        if self.ballast.keep() {
            return Ok(());
        }
        Err(self.no_room(&std::io::ErrorKind::StorageFull.into()))
    }

    fn no_room(&self, error: &std::io::Error) -> Problem {
        let folder = self.path.parent().unwrap_or(Path::new(".")).display();
        Problem::new(Code::ReceiptsUnavailable, "the agent has no room to set aside for the way back")
            .because(error)
            .cause(format!("beside file `{}`", self.path.display()))
            .hint(format!("make room on the agent's host: `df -h {folder}`, `df -i {folder}`"))
    }

    /// The highest epoch acknowledged, without a look at the disk.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Refuses when a newer epoch has been acknowledged since. To be asked right before every visible change.
    pub fn still_rules(&self, epoch: Epoch) -> Result<(), Problem> {
        receipt::still_rules(self.epoch(), epoch)
    }

    /// Where the fence stands.
    pub fn fence_state(&self) -> Result<Fence, Problem> {
        self.with(|connection| read_fence(connection))
    }

    /// Acknowledges an epoch, durably before this returns. An older one is refused, and so is one that was acknowledged to
    /// another holder; an empty holder is whoever does not say.
    pub fn fence(&self, epoch: Epoch, holder: &[u8]) -> Result<Fence, Problem> {
        self.still_rules(epoch)?;
        let fence = self.must(|connection| {
            let transaction = connection.transaction()?;
            let known = read_fence(&transaction)?;
            let held = read_holder(&transaction, epoch)?;
            if epoch >= known.epoch
                && let Err(problem) = receipt::same_holder(epoch, &held, holder)
            {
                return Ok(Err(problem));
            }
            if epoch > known.epoch {
                transaction.execute("UPDATE fence SET epoch = ?1", params![signed(epoch.0)])?;
            }
            if epoch >= known.epoch && held.is_empty() && !holder.is_empty() {
                let sql = "INSERT OR REPLACE INTO holder VALUES (1, ?1, ?2)";
                transaction.execute(sql, params![signed(epoch.0), holder])?;
            }
            let fence = read_fence(&transaction)?;
            transaction.commit()?;
            Ok(Ok(fence))
        })??;
        self.epoch.fetch_max(fence.epoch.0, Ordering::SeqCst);
        self.still_rules(epoch)?;
        Ok(fence)
    }

    /// Acknowledges a new epoch and forgets everything else: the journal that receipts and head belong to is gone, and a
    /// person has accepted that. An epoch that was acknowledged before is refused, for its orders may be on their way.
    ///
    /// The head is the accepted journal's from then on: an older copy of it lacks that entry, and is refused by it for good.
    /// An older coordinator names none, which is 0.
    pub fn forget_all(&self, accepted: &Fence) -> Result<Fence, Problem> {
        let epoch = accepted.epoch;
        receipt::still_rules(Epoch(self.epoch().0.saturating_add(1)), epoch)?;
        let fence = self.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "UPDATE fence SET epoch = ?1, head_seq = ?2, head_hash = ?3, first_seq = 0",
                params![signed(epoch.0), signed(accepted.head_seq), accepted.head_hash.as_slice()],
            )?;
            transaction.execute("DELETE FROM receipt", [])?;
            let fence = read_fence(&transaction)?;
            transaction.commit()?;
            Ok(fence)
        })?;
        self.epoch.fetch_max(fence.epoch.0, Ordering::SeqCst);
        Ok(fence)
    }

    /// Takes in an order: fences, refuses what is stale or contradicts a receipt, and notes that it has begun. The
    /// note is durable before this returns. One that was taken in when it was prepared is noted already: then nothing is
    /// written, so that several load balancers do not wait for their disks one by one between two moves of one moment.
    pub fn admit(&self, received: &ReceivedOrder, digest: OrderDigest) -> Result<Admission, Problem> {
        let order = &received.order;
        self.still_rules(order.epoch)?;
        self.room_for(order)?;
        let admit = |connection: &mut Connection| -> Result<Result<Admission, Problem>, rusqlite::Error> {
            let transaction = connection.transaction()?;
            let fence = read_fence(&transaction)?;
            let known = read_receipt(&transaction, &order.release, &order.key)?;
            let begun = matches!(known, Some((_, Fate::Started)));
            let heard = Fence {
                epoch: order.epoch,
                head_seq: received.journal_seq,
                head_hash: received.journal_hash,
            };
            let incoming = Incoming { epoch: order.epoch, journal_seq: received.journal_seq, digest };
            let admission = match receipt::admit(&fence, known, &incoming) {
                Ok(admission) => admission,
                Err(problem) => return Ok(Err(problem)),
            };
            if begun && fence == heard {
                return Ok(Ok(admission));
            }
            if received.journal_seq >= fence.head_seq {
                transaction.execute(
                    "UPDATE fence SET epoch = ?1, head_seq = ?2, head_hash = ?3,
                        first_seq = CASE first_seq WHEN 0 THEN ?2 ELSE first_seq END",
                    params![
                        signed(order.epoch.0),
                        signed(received.journal_seq),
                        received.journal_hash.as_slice()
                    ],
                )?;
            }
            if admission == Admission::Act {
                transaction.execute(
                    "INSERT OR REPLACE INTO receipt VALUES (?1, ?2, ?3, 'started', 0, '', ?4)",
                    params![
                        order.release.as_str(),
                        order.key.step.as_str(),
                        digest.as_bytes().as_slice(),
                        signed(received.journal_seq)
                    ],
                )?;
                if transaction.execute(PRUNE, params![order.release.as_str(), RELEASES_KEPT])? > 0 {
                    transaction
                        .execute("UPDATE fence SET first_seq = (SELECT min(journal_seq) FROM receipt)", [])?;
                }
            }
            transaction.commit()?;
            Ok(Ok(admission))
        };
        let verdict = if order.leads_back { self.must(admit) } else { self.with(admit) }??;
        self.epoch.fetch_max(order.epoch.0, Ordering::SeqCst);
        Ok(verdict)
    }

    /// Takes note of an order that is refused for its deadline, durably: it was heard of, and a copy of it, which may arrive after
    /// this host's clock was set back, is too late all the same. It has no receipt, for it was not begun.
    pub fn hear(&self, received: &ReceivedOrder) -> Result<(), Problem> {
        let (epoch, seq) = (received.order.epoch, received.journal_seq);
        let heard = self.with(|connection| {
            connection.execute(
                "UPDATE fence SET epoch = ?1, head_seq = ?2, head_hash = ?3,
                    first_seq = CASE first_seq WHEN 0 THEN ?2 ELSE first_seq END
                  WHERE epoch <= ?1 AND head_seq < ?2",
                params![signed(epoch.0), signed(seq), received.journal_hash.as_slice()],
            )
        })?;
        if heard > 0 {
            self.epoch.fetch_max(epoch.0, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Records what came of an order, durably.
    pub fn settle(&self, release: &ReleaseId, key: &OrderKey, evidence: &Evidence) -> Result<(), Problem> {
        self.with(|connection| {
            connection.execute(
                "UPDATE receipt SET state = 'done', already = ?3, detail = ?4 WHERE release = ?1 AND step = ?2",
                params![release.as_str(), key.step.as_str(), evidence.already, evidence.detail],
            )
        })
        .map(drop)
    }

    /// Forgets an order that left the world unchanged, so that it may be tried again.
    pub fn forget(&self, release: &ReleaseId, key: &OrderKey) -> Result<(), Problem> {
        self.with(|connection| {
            connection.execute(
                "DELETE FROM receipt WHERE release = ?1 AND step = ?2",
                params![release.as_str(), key.step.as_str()],
            )
        })
        .map(drop)
    }

    /// What became of an order whose intent is this entry of the journal. `NeverSeen` only where the records reach
    /// back that far: an agent that lost its disk cannot know.
    pub fn fate(&self, release: &ReleaseId, key: &OrderKey, journal_seq: u64) -> Result<Fate, Problem> {
        self.with(|connection| {
            if let Some((_, fate)) = read_receipt(connection, release, key)? {
                return Ok(fate);
            }
            let first = connection.query_row("SELECT first_seq FROM fence", [], |row| row.get(0))?;
            let reaches = (1..=journal_seq).contains(&unsigned(first));
            Ok(if reaches { Fate::NeverSeen } else { Fate::Unknown })
        })
    }
}

/// Opens or creates the file: refused where its version is a later one, or it is not whole. That is looked at before anything is
/// written to it, which would hide it.
fn opened(path: &Path) -> Result<Result<(Connection, Fence), Problem>, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Ok(Err(too_new(path, version)));
    }
    damaged::must_be_whole(&connection)?;
    add_columns(&connection)?;
    connection.execute_batch(SCHEMA)?;
    if version < VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    let fence = read_fence(&connection)?;
    Ok(Ok((connection, fence)))
}

/// Columns that ledgers written by 0.1.0 do not have yet.
fn add_columns(connection: &Connection) -> Result<(), rusqlite::Error> {
    for (table, column) in [("fence", "first_seq"), ("receipt", "journal_seq")] {
        let columns: Vec<String> = connection
            .prepare("SELECT name FROM pragma_table_info(?1)")?
            .query_map(params![table], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if !columns.is_empty() && !columns.iter().any(|name| name == column) {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0");
            connection.execute_batch(&add)?;
        }
    }
    Ok(())
}

fn read_fence(connection: &Connection) -> Result<Fence, rusqlite::Error> {
    connection.query_row("SELECT epoch, head_seq, head_hash FROM fence", [], |row| {
        Ok(Fence {
            epoch: Epoch(unsigned(row.get(0)?)),
            head_seq: unsigned(row.get(1)?),
            head_hash: row.get(2)?,
        })
    })
}

/// To whom an epoch was acknowledged; empty where nobody said.
fn read_holder(connection: &Connection, epoch: Epoch) -> Result<Vec<u8>, rusqlite::Error> {
    let query = "SELECT holder FROM holder WHERE epoch = ?1";
    let held = connection.query_row(query, params![signed(epoch.0)], |row| row.get(0)).optional()?;
    Ok(held.unwrap_or_default())
}

fn read_receipt(
    connection: &Connection,
    release: &ReleaseId,
    key: &OrderKey,
) -> Result<Option<(OrderDigest, Fate)>, rusqlite::Error> {
    let query = "SELECT digest, state, already, detail FROM receipt WHERE release = ?1 AND step = ?2";
    connection
        .query_row(query, params![release.as_str(), key.step.as_str()], |row| {
            let evidence = Evidence { already: row.get(2)?, detail: row.get(3)?, ..Evidence::default() };
            let done = row.get::<_, String>(1)? == "done";
            Ok((
                OrderDigest::from_bytes(row.get(0)?),
                if done { Fate::Done(evidence) } else { Fate::Started },
            ))
        })
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{Action, EnvironmentName, HostName, Timestamp};

    pub fn order(step: Step, epoch: u64, seq: u64, on: bool) -> (ReceivedOrder, OrderDigest) {
        let order = Order {
            release: ReleaseId::parse("r1").unwrap(),
            key: OrderKey { step, host: HostName::parse("h").unwrap() },
            attempt: 1,
            epoch: Epoch(epoch),
            deadline: Timestamp(0),
            leads_back: false,
            action: Action::SetFlag { on },
        };
        let digest = crate::order_digest(&order);
        let environment = EnvironmentName::parse("production").unwrap();
        (
            ReceivedOrder {
                environment,
                order,
                journal_seq: seq,
                journal_hash: [1; 32],
                only_prepared: false,
            },
            digest,
        )
    }

    pub fn admit(
        ledger: &Ledger,
        (received, digest): &(ReceivedOrder, OrderDigest),
    ) -> Result<Admission, Code> {
        ledger.admit(received, *digest).map_err(|problem| problem.code)
    }

    #[test]
    fn an_order_takes_effect_once_and_is_answered_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let first = order(Step::Maintain, 1, 5, true);
        let evidence = Evidence { already: false, detail: "flag there".to_owned(), ..Evidence::default() };
        {
            let ledger = Ledger::open(&path).unwrap();
            assert_eq!(admit(&ledger, &first), Ok(Admission::Act));
            // Not settled yet: whoever asks again may act again, as after a crash.
            assert_eq!(admit(&ledger, &first), Ok(Admission::Act));
            ledger.settle(&first.0.order.release, &first.0.order.key, &evidence).unwrap();
        }
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(admit(&ledger, &first), Ok(Admission::Done(evidence.clone())));
        // A later coordinator asks under a new epoch: the same order, the same answer.
        assert_eq!(admit(&ledger, &order(Step::Maintain, 2, 9, true)), Ok(Admission::Done(evidence)));
        assert_eq!(admit(&ledger, &order(Step::Maintain, 2, 9, false)), Err(Code::KeyReused));
    }

    #[test]
    fn what_was_prepared_is_taken_in_again_without_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = Ledger::open(&path).unwrap();
        let written = || std::fs::metadata(folder.path().join("ledger.db-wal")).unwrap().len();
        let asked = order(Step::Switch, 1, 5, true);
        assert_eq!(admit(&ledger, &asked), Ok(Admission::Act));
        let prepared = written();
        assert_eq!(admit(&ledger, &asked), Ok(Admission::Act));
        assert_eq!(written(), prepared);
        // By a later entry, or a later coordinator, it is noted anew.
        assert_eq!(admit(&ledger, &order(Step::Switch, 1, 6, true)), Ok(Admission::Act));
        assert_eq!(ledger.fence_state().unwrap().head_seq, 6);
        assert_eq!(admit(&ledger, &order(Step::Switch, 2, 6, true)), Ok(Admission::Act));
        assert_eq!(ledger.fence_state().unwrap().epoch, Epoch(2));
        assert!(written() > prepared);
        // Done, it is answered; nothing of that was taken for begun.
        ledger.settle(&asked.0.order.release, &asked.0.order.key, &Evidence::default()).unwrap();
        assert_eq!(
            admit(&ledger, &order(Step::Switch, 2, 6, true)),
            Ok(Admission::Done(Evidence::default()))
        );
    }

    #[test]
    fn older_epochs_never_act_again_not_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Ledger::open(&path).unwrap().fence(Epoch(7), b"").unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.fence(Epoch(6), b"").map_err(|problem| problem.code), Err(Code::Fenced));
        assert_eq!(admit(&ledger, &order(Step::Maintain, 6, 1, true)), Err(Code::Fenced));
        assert!(ledger.still_rules(Epoch(6)).is_err() && ledger.still_rules(Epoch(7)).is_ok());
        assert_eq!(admit(&ledger, &order(Step::Maintain, 7, 1, true)), Ok(Admission::Act));
    }

    /// Two copies of one journal take the same number.
    #[test]
    fn an_epoch_belongs_to_whoever_had_it_acknowledged_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Ledger::open(&path).unwrap().fence(Epoch(7), b"one").unwrap();
        let ledger = Ledger::open(&path).unwrap();
        let fence = |epoch, holder: &[u8]| ledger.fence(Epoch(epoch), holder).map_err(|problem| problem.code);
        assert_eq!(fence(7, b"other"), Err(Code::Fenced));
        assert!(fence(7, b"one").is_ok() && fence(7, b"").is_ok(), "whoever does not say is not told apart");
        assert_eq!(fence(7, b"other"), Err(Code::Fenced));
        assert!(fence(8, b"other").is_ok());
        assert_eq!(fence(8, b"one"), Err(Code::Fenced));
        // An older coordinator had this one acknowledged; who comes first and says so holds it from then on.
        assert!(fence(9, b"").is_ok() && fence(9, b"one").is_ok());
        assert_eq!(fence(9, b"other"), Err(Code::Fenced));
    }

    #[test]
    fn an_order_that_was_overtaken_on_its_way_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        assert_eq!(admit(&ledger, &order(Step::LinkBack, 1, 20, true)), Ok(Admission::Act));
        assert_eq!(admit(&ledger, &order(Step::Activate, 1, 10, true)), Err(Code::Superseded));
    }

    #[test]
    fn only_a_new_epoch_makes_an_agent_forget_its_journal() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        let known = order(Step::Stage, 3, 40, true);
        ledger.admit(&known.0, known.1).unwrap();
        let accepted = |epoch| Fence { epoch: Epoch(epoch), head_seq: 7, head_hash: [9; 32] };
        assert_eq!(ledger.forget_all(&accepted(3)).map_err(|problem| problem.code), Err(Code::Fenced));
        assert_eq!(ledger.forget_all(&accepted(4)), Ok(accepted(4)));
        assert_eq!(admit(&ledger, &known), Err(Code::Fenced));
        // Only what follows from the accepted journal is acted on, and of what was ordered before nothing is known.
        assert_eq!(admit(&ledger, &order(Step::Stage, 4, 7, false)), Err(Code::Superseded));
        let (release, key) = (&known.0.order.release, &known.0.order.key);
        assert_eq!(ledger.fate(release, key, 40), Ok(Fate::Unknown));
        assert_eq!(admit(&ledger, &order(Step::Stage, 4, 8, false)), Ok(Admission::Act));
        // An older coordinator names no entry.
        let unnamed = Fence { epoch: Epoch(5), ..Fence::default() };
        assert_eq!(ledger.forget_all(&unnamed), Ok(unnamed));
        assert_eq!(admit(&ledger, &order(Step::Stage, 5, 1, false)), Ok(Admission::Act));
    }

    #[test]
    fn an_agent_that_lost_its_disk_does_not_claim_to_know() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        let (received, digest) = order(Step::Stage, 1, 10, true);
        let (release, other) =
            (&received.order.release, OrderKey { step: Step::Activate, ..received.order.key.clone() });
        assert_eq!(ledger.fate(release, &other, 5), Ok(Fate::Unknown));
        ledger.admit(&received, digest).unwrap();
        assert_eq!(ledger.fate(release, &other, 5), Ok(Fate::Unknown), "older than its records");
        assert_eq!(ledger.fate(release, &other, 11), Ok(Fate::NeverSeen));
        assert_eq!(ledger.fate(release, &received.order.key, 10), Ok(Fate::Started));
    }

    #[test]
    fn receipts_of_old_releases_go_and_what_is_open_stays() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        let of = |number: u64| {
            let (mut received, digest) = order(Step::Stage, 1, number, true);
            received.order.release = ReleaseId::parse(&format!("r{number}")).unwrap();
            (received, digest)
        };
        for number in 1..=30 {
            let (received, digest) = of(number);
            ledger.admit(&received, digest).unwrap();
            ledger.settle(&received.order.release, &received.order.key, &Evidence::default()).unwrap();
        }
        let kept = |number: u64| {
            let (received, _) = of(number);
            matches!(ledger.fate(&received.order.release, &received.order.key, number), Ok(Fate::Done(_)))
        };
        assert_eq!(
            (1..=30).filter(|number| kept(*number)).collect::<Vec<_>>(),
            (10..=30).collect::<Vec<_>>()
        );
        let (third, _) = of(3);
        assert_eq!(ledger.fate(&third.order.release, &third.order.key, 3), Ok(Fate::Unknown));
        // What is gone cannot be done again by an order that was on its way all the time.
        assert_eq!(admit(&ledger, &of(3)), Err(Code::Superseded));
    }

    #[test]
    fn a_forgotten_order_may_come_again_but_not_a_copy_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        let first = order(Step::Stage, 1, 1, true);
        admit(&ledger, &first).unwrap();
        ledger.forget(&first.0.order.release, &first.0.order.key).unwrap();
        assert_eq!(ledger.fate(&first.0.order.release, &first.0.order.key, 1), Ok(Fate::NeverSeen));
        // The network made a copy of it, and nobody waits for that any more.
        assert_eq!(admit(&ledger, &first), Err(Code::Superseded));
        assert_eq!(admit(&ledger, &order(Step::Stage, 1, 2, true)), Ok(Admission::Act));
    }

    /// It is over for whoever sent it, and this host's clock may say something else by the time that a copy comes.
    #[test]
    fn an_order_that_came_too_late_is_not_begun_by_a_copy_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let late = order(Step::Expose, 2, 7, true);
        let (release, key) = (&late.0.order.release, &late.0.order.key);
        Ledger::open(&path).unwrap().hear(&late.0).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.fate(release, key, 7), Ok(Fate::NeverSeen));
        assert_eq!(admit(&ledger, &late), Err(Code::Superseded));
        // What is older than what was heard of changes nothing.
        ledger.hear(&order(Step::Expose, 2, 5, true).0).unwrap();
        ledger.hear(&order(Step::Expose, 1, 9, true).0).unwrap();
        let fence = ledger.fence_state().unwrap();
        assert_eq!((fence.epoch, fence.head_seq), (Epoch(2), 7));
        assert_eq!(admit(&ledger, &order(Step::Expose, 2, 8, true)), Ok(Admission::Act));
    }

    #[test]
    fn receipts_of_a_later_version_are_refused_and_those_without_one_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Ledger::open(&path).unwrap().fence(Epoch(7), b"").unwrap();
        let version = |version: i64| {
            Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        };
        version(0);
        assert_eq!(Ledger::open(&path).unwrap().epoch(), Epoch(7));
        version(2);
        let before = std::fs::read(&path).unwrap();
        let problem = Ledger::open(&path).map(drop).unwrap_err();
        assert_eq!(problem.code, Code::StateTooNew);
        assert!(problem.message.contains("version 2"), "{}", problem.message);
        assert_eq!(std::fs::read(&path).unwrap(), before, "it was written to");
        version(1);
        assert_eq!(Ledger::open(&path).unwrap().epoch(), Epoch(7));
    }
}
