//! The journal's file: entries that are never changed, a lease per environment, and everything flushed before a call
//! returns.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::failpoint;
use pointsman_core::ports::{Journal, JournalError};
use pointsman_core::{
    Aftermath, Code, Entry, EnvironmentName, Epoch, Event, Problem, ReleaseId, Stamped, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::watch;

use super::audit::{self, Depth, Verification};
use super::fault::Fault;
use super::row::{Raw, signed, unsigned};
use super::{record, schema};

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
    path: Arc<Path>,
    principal: Arc<str>,
}

fn taken_over(lease: Epoch, rules: Epoch) -> Problem {
    Problem::new(Code::Fenced, format!("epoch {lease} may record nothing: epoch {rules} rules here"))
        .hint("another coordinator has taken over; stop this one")
}

impl JournalStore {
    /// Opens or begins the journal, and verifies its whole chain.
    pub fn open(path: &Path, principal: &str) -> Result<Self, Problem> {
        let opened = || -> Result<(Connection, Verification), Fault> {
            let connection = schema::open(path)?;
            let found = audit::verify(&connection, Depth::Chain, path)?;
            Ok((connection, found))
        };
        let (connection, found) = opened().map_err(|fault| fault.at(path))?;
        if let Some(problem) = found.first_problem {
            return Err(Fault::from(problem).at(path));
        }
        let (head, _) = watch::channel(found.head);
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            head: Arc::new(head),
            path: path.into(),
            principal: principal.into(),
        })
    }

    /// The newest entry, now and whenever it changes.
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        let connection = Arc::clone(&self.connection);
        self.apart(move || act(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Works in a thread that may block on the disk.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        let path = Arc::clone(&self.path);
        let worked = tokio::task::spawn_blocking(move || work().map_err(|fault| fault.at(&path)));
        worked.await.unwrap_or_else(|error| {
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
            let epoch = connection.query_row(sql, params![environment, holder], |row| unsigned(row, 0));
            Ok(Epoch(epoch?))
        })
        .await
    }

    /// The row may be missing: a journal that was begun anew knows of no lease.
    async fn raise(&self, environment: &EnvironmentName, epoch: Epoch) -> Result<(), Problem> {
        let environment = environment.to_string();
        self.with(move |connection| {
            let sql = "INSERT INTO lease VALUES (?1, '', ?2)
                       ON CONFLICT (environment) DO UPDATE SET epoch = max(epoch, ?2)";
            connection.execute(sql, params![environment, signed(epoch.0)])?;
            Ok(())
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
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![environment, signed(after), release], Raw::of)?;
            rows.map(|row| row?.entry()).collect()
        })
        .await
    }

    /// The hash of an entry, if the journal has it.
    pub async fn hash_of(&self, seq: u64) -> Result<Option<[u8; 32]>, Problem> {
        self.with(move |connection| {
            let sql = "SELECT hash FROM entry WHERE seq = ?1";
            Ok(connection.query_row(sql, params![signed(seq)], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Verifies the whole journal as it lies on the disk, beside the work of the coordinator: nothing waits for it.
    /// What was recorded before it began must be found. An error means that it could not be looked at.
    pub async fn verify(&self) -> Result<Verification, Problem> {
        let (recorded, path) = (*self.head.borrow(), Arc::clone(&self.path));
        self.apart(move || {
            let connection = schema::open_to_read(&path)?;
            let mut found = audit::verify(&connection, Depth::Records, &path)?;
            audit::must_hold(&connection, recorded, &mut found)?;
            Ok(found)
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
) -> Result<Head, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rules = "SELECT epoch FROM lease WHERE environment = ?1";
    let rules = transaction.query_row(rules, params![environment], |row| unsigned(row, 0)).optional()?;
    let rules = Epoch(rules.unwrap_or_default());
    if rules != lease {
        return Err(taken_over(lease, rules).into());
    }
    {
        let mut insert = transaction
            .prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
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
            raw.insert(&mut insert)?;
            head = Head { seq: raw.seq, hash: raw.hash };
        }
    }
    failpoint::pass("journal-before-commit");
    transaction.commit()?;
    failpoint::pass("journal-after-commit");
    Ok(head)
}

impl Journal for JournalStore {
    async fn take_lease(&self, environment: &EnvironmentName, holder: &str) -> Result<Epoch, JournalError> {
        self.take(environment, holder).await.map_err(JournalError)
    }

    async fn raise_lease(&self, environment: &EnvironmentName, epoch: Epoch) -> Result<(), JournalError> {
        self.raise(environment, epoch).await.map_err(JournalError)
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
}
