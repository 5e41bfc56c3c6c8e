//! An agent's durable memory: the highest epoch it has acknowledged, the newest journal entry it has heard of, and
//! a receipt for every order that had an effect. One SQLite file, flushed at every commit.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_core::{Aftermath, Code, Epoch, Evidence, OrderDigest, OrderKey, Problem, ReleaseId};
use pointsman_proto::convert::ReceivedOrder;
use rusqlite::{Connection, OptionalExtension as _, params};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA trusted_schema = OFF;
    PRAGMA mmap_size = 0;
    PRAGMA cache_size = -256;
    CREATE TABLE IF NOT EXISTS fence (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL, head_seq INTEGER NOT NULL, head_hash BLOB NOT NULL) STRICT;
    INSERT OR IGNORE INTO fence VALUES (1, 0, 0, zeroblob(32));
    CREATE TABLE IF NOT EXISTS receipt (
        release TEXT NOT NULL, step TEXT NOT NULL, digest BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('started', 'done')),
        already INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (release, step)) STRICT;
";

/// The ledger of one agent. Calls block on the disk: use them from blocking threads.
#[derive(Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    epoch: Arc<AtomicU64>,
}

/// Where the fence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The highest epoch acknowledged.
    pub epoch: Epoch,
    /// The newest journal entry heard of.
    pub head_seq: u64,
    /// That entry's hash.
    pub head_hash: [u8; 32],
}

/// What is to be done with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new, or an earlier try of it did not end: act.
    Act,
    /// It was done: this is its answer.
    Done(Evidence),
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrived, or left the world unchanged.
    NeverSeen,
    /// It was begun, and its end is not recorded.
    Started,
    /// It was done.
    Done(Evidence),
}

fn unusable(error: &rusqlite::Error) -> Problem {
    Problem::new(Code::ReceiptsUnavailable, "the agent cannot read or write its receipts")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .because(error)
        .hint("look at the agent's state directory: `df -h`, `df -i`, owner and mode")
}

fn fenced(have: Epoch, got: Epoch) -> Problem {
    Problem::new(Code::Fenced, format!("order of epoch {got} refused: epoch {have} rules here"))
        .hint("another coordinator has taken over; stop this one")
}

/// SQLite stores signed 64-bit integers; epochs and sequence numbers never come near their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Ledger {
    /// Opens or creates the ledger at this path.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let open = || -> Result<(Connection, Fence), rusqlite::Error> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.execute_batch(SCHEMA)?;
            let fence = read_fence(&connection)?;
            Ok((connection, fence))
        };
        let (connection, fence) =
            open().map_err(|error| unusable(&error).cause(format!("file `{}`", path.display())))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            epoch: Arc::new(AtomicU64::new(fence.epoch.0)),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>) -> Result<T, Problem> {
        // A panic while the lock was held cannot leave a half-made change: SQLite rolls it back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut connection).map_err(|error| unusable(&error))
    }

    /// The highest epoch acknowledged, without a look at the disk.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Refuses when a newer epoch has been acknowledged since. To be asked right before every visible change.
    pub fn still_rules(&self, epoch: Epoch) -> Result<(), Problem> {
        let have = self.epoch();
        if have > epoch { Err(fenced(have, epoch)) } else { Ok(()) }
    }

    /// Where the fence stands.
    pub fn fence_state(&self) -> Result<Fence, Problem> {
        self.with(|connection| read_fence(connection))
    }

    /// Acknowledges an epoch, durably before this returns. An older one is refused.
    pub fn fence(&self, epoch: Epoch) -> Result<Fence, Problem> {
        self.still_rules(epoch)?;
        let fence = self.with(|connection| {
            let known = read_fence(connection)?;
            if epoch > known.epoch {
                connection.execute("UPDATE fence SET epoch = ?1", params![signed(epoch.0)])?;
            }
            read_fence(connection)
        })?;
        self.epoch.fetch_max(fence.epoch.0, Ordering::SeqCst);
        self.still_rules(epoch)?;
        Ok(fence)
    }

    /// Takes in an order: fences, refuses what is stale or contradicts a receipt, and notes that it has begun. The
    /// note is durable before this returns.
    pub fn admit(&self, received: &ReceivedOrder, digest: OrderDigest) -> Result<Admission, Problem> {
        let order = &received.order;
        self.still_rules(order.epoch)?;
        let verdict = self.with(|connection| {
            let transaction = connection.transaction()?;
            let fence = read_fence(&transaction)?;
            if order.epoch < fence.epoch {
                return Ok(Err(fenced(fence.epoch, order.epoch)));
            }
            let receipt = read_receipt(&transaction, &order.release, &order.key)?;
            let admission = match receipt {
                Some((known, _)) if known != digest => {
                    let message = format!(
                        "step `{}` of release `{}` was ordered before with another content",
                        order.key.step, order.release
                    );
                    return Ok(Err(Problem::new(Code::KeyReused, message)));
                }
                Some((_, Fate::Done(evidence))) => Admission::Done(evidence),
                // Its intent is older than another that this agent has acted on: it was delayed on its way.
                _ if received.journal_seq < fence.head_seq => {
                    let message = format!(
                        "order of journal entry {} refused: entry {} was acted on",
                        received.journal_seq, fence.head_seq
                    );
                    return Ok(Err(Problem::new(Code::Superseded, message)));
                }
                _ => Admission::Act,
            };
            if received.journal_seq >= fence.head_seq {
                transaction.execute(
                    "UPDATE fence SET epoch = ?1, head_seq = ?2, head_hash = ?3",
                    params![
                        signed(order.epoch.0),
                        signed(received.journal_seq),
                        received.journal_hash.as_slice()
                    ],
                )?;
            }
            if admission == Admission::Act {
                transaction.execute(
                    "INSERT OR REPLACE INTO receipt VALUES (?1, ?2, ?3, 'started', 0, '')",
                    params![order.release.as_str(), order.key.step.as_str(), digest.as_bytes().as_slice()],
                )?;
            }
            transaction.commit()?;
            Ok(Ok(admission))
        })??;
        self.epoch.fetch_max(order.epoch.0, Ordering::SeqCst);
        Ok(verdict)
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

    /// What became of an order.
    pub fn fate(&self, release: &ReleaseId, key: &OrderKey) -> Result<Fate, Problem> {
        let receipt = self.with(|connection| read_receipt(connection, release, key))?;
        Ok(receipt.map_or(Fate::NeverSeen, |(_, fate)| fate))
    }
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

fn read_receipt(
    connection: &Connection,
    release: &ReleaseId,
    key: &OrderKey,
) -> Result<Option<(OrderDigest, Fate)>, rusqlite::Error> {
    let query = "SELECT digest, state, already, detail FROM receipt WHERE release = ?1 AND step = ?2";
    connection
        .query_row(query, params![release.as_str(), key.step.as_str()], |row| {
            let evidence = Evidence { already: row.get(2)?, detail: row.get(3)?, took_us: 0 };
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
    use pointsman_core::{Action, EnvironmentName, HostName, Order, Step, Timestamp};

    fn order(step: Step, epoch: u64, seq: u64, on: bool) -> (ReceivedOrder, OrderDigest) {
        let order = Order {
            release: ReleaseId::parse("r1").unwrap(),
            key: OrderKey { step, host: HostName::parse("h").unwrap() },
            attempt: 1,
            epoch: Epoch(epoch),
            deadline: Timestamp(0),
            action: Action::SetFlag { on },
        };
        let digest = crate::order_digest(&order);
        let environment = EnvironmentName::parse("production").unwrap();
        (ReceivedOrder { environment, order, journal_seq: seq, journal_hash: [1; 32] }, digest)
    }

    fn admit(ledger: &Ledger, (received, digest): &(ReceivedOrder, OrderDigest)) -> Result<Admission, Code> {
        ledger.admit(received, *digest).map_err(|problem| problem.code)
    }

    #[test]
    fn an_order_takes_effect_once_and_is_answered_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let first = order(Step::Maintain, 1, 5, true);
        let evidence = Evidence { already: false, detail: "flag there".to_owned(), took_us: 0 };
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
    fn older_epochs_never_act_again_not_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Ledger::open(&path).unwrap().fence(Epoch(7)).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.fence(Epoch(6)).map_err(|problem| problem.code), Err(Code::Fenced));
        assert_eq!(admit(&ledger, &order(Step::Maintain, 6, 1, true)), Err(Code::Fenced));
        assert!(ledger.still_rules(Epoch(6)).is_err() && ledger.still_rules(Epoch(7)).is_ok());
        assert_eq!(admit(&ledger, &order(Step::Maintain, 7, 1, true)), Ok(Admission::Act));
    }

    #[test]
    fn an_order_that_was_overtaken_on_its_way_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        assert_eq!(admit(&ledger, &order(Step::LinkBack, 1, 20, true)), Ok(Admission::Act));
        assert_eq!(admit(&ledger, &order(Step::Activate, 1, 10, true)), Err(Code::Superseded));
    }

    #[test]
    fn a_forgotten_order_may_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
        let order = order(Step::Stage, 1, 1, true);
        admit(&ledger, &order).unwrap();
        ledger.forget(&order.0.order.release, &order.0.order.key).unwrap();
        assert_eq!(ledger.fate(&order.0.order.release, &order.0.order.key), Ok(Fate::NeverSeen));
        assert_eq!(admit(&ledger, &order), Ok(Admission::Act));
    }
}
