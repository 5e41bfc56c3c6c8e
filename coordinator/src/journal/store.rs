//! The journal's file: entries that are never changed, a lease per environment, and everything flushed before a call
//! returns. Room is set aside beside it, so that a full disk keeps nobody from going back; and every call has a bound, so that
//! a disk that hangs is told of.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::ballast::{Ballast, WhenClosed};
use pointsman_chassis::failpoint;
use pointsman_core::ports::{Journal, JournalError};
use pointsman_core::receipt::{self, Fence};
use pointsman_core::{
    Aftermath, Code, Entry, EnvironmentName, Epoch, Event, Note, Plan, Problem, ReleaseId, Stamped,
    Timestamp, TrafficSeen,
};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::watch;
use tracing::{error, warn};

use super::audit::{self, Depth, Verification};
use super::fault::{self, Fault};
use super::line::{Line, Lost, Patience, Silence};
use super::row::{Raw, signed, unsigned};
use super::{record, schema};

/// A change of the journal, or a look at some of it. Disks that work answer within milliseconds, and those that are busy within
/// a second or two.
const ANSWERS: Patience = Patience { soon: Duration::from_secs(5), gives_up: true };
const _: () =
    assert!(schema::HELD.as_secs() < ANSWERS.soon.as_secs(), "whoever holds the file is named first");

/// The same for what must not be recorded twice: its caller waits to learn what came of it, and nothing else does.
const HOWEVER_LATE: Patience = Patience { gives_up: false, ..ANSWERS };

/// Reading all of it: a journal of millions of entries takes less.
const READS: Patience = Patience { soon: Duration::from_secs(120), gives_up: true };

/// How often it is tried whether anything can be recorded, while somebody may have to be led back and nobody writes: a release
/// that is watched, or held, may record nothing for minutes.
const TRIES: Duration = Duration::from_secs(5);

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
    file: Arc<Line<File>>,
    /// Who verifies it, beside everybody else.
    verifying: Arc<Line<()>>,
    head: Arc<watch::Sender<Head>>,
    /// What is left for the way back when the disk is full.
    ballast: Arc<Ballast>,
    path: Arc<Path>,
    principal: Arc<str>,
}

/// The journal's file, and after it what takes the room that closing it gives back: whoever starts next needs that.
struct File {
    /// None while there was no room to open it.
    connection: Option<Connection>,
    _frees: WhenClosed,
}

fn taken_over(lease: Epoch, rules: Epoch) -> Problem {
    Problem::new(Code::Fenced, format!("epoch {lease} may record nothing: epoch {rules} rules here"))
        .hint("another coordinator has taken over; stop this one")
}

impl JournalStore {
    /// Opens or begins the journal, and verifies its whole chain. One that lacks the room to be opened is opened when
    /// something is asked of it and there is room; until then whatever is asked of it says so.
    pub fn open(path: &Path, principal: &str) -> Result<Self, Problem> {
        let ballast = Arc::new(Ballast::beside(path));
        // Opening it takes some, too, and a coordinator that does not start leads nobody back.
        ballast.make_room();
        let (connection, head) = match opened(path, &ballast) {
            Ok((connection, head)) => (Some(connection), head),
            Err(fault) => {
                let problem = fault.at(path);
                if problem.code != Code::JournalFull {
                    return Err(problem);
                }
                warn!(problem = %problem.in_full(), "the journal is opened when there is room");
                (None, Head::default())
            }
        };
        let (head, _) = watch::channel(head);
        Ok(Self {
            file: Arc::new(Line::before(File { connection, _frees: WhenClosed::set_aside(&ballast) })),
            verifying: Arc::new(Line::before(())),
            head: Arc::new(head),
            ballast,
            path: path.into(),
            principal: principal.into(),
        })
    }

    /// Sets room aside for the way back, where it is not and can be. Says whether it is there.
    pub async fn keep_room(&self) -> bool {
        let ballast = Arc::clone(&self.ballast);
        self.file.call(ANSWERS, move |_| ballast.keep()).await.unwrap_or(false)
    }

    /// Whether room for the way back is set aside, and where it is.
    pub fn room(&self) -> (bool, &Path) {
        (self.ballast.is_there(), &self.path)
    }

    /// Refuses where nothing can be recorded just now. It takes none of the room that is set aside.
    pub async fn must_be_writable(&self) -> Result<(), Problem> {
        self.with(ANSWERS, |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.pragma_update(None, "user_version", schema::VERSION)?;
            Ok(transaction.commit()?)
        })
        .await
    }

    /// The newest entry, now and whenever it changes.
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Why nothing can be recorded just now: a call is out that does not come back. None where that is not so, as far as is known.
    pub fn silence(&self) -> Option<(Timestamp, Problem)> {
        let since = self.file.silent_since()?;
        Some((since, fault::silent(Silence { since, sent: false }, &self.path)))
    }

    /// Tries again and again, while it is `wanted`, whether anything can be recorded: so that a disk that hangs is known before
    /// it keeps somebody from being led back. For ever.
    pub async fn keep_trying(&self, wanted: impl Fn() -> bool) {
        loop {
            tokio::time::sleep(TRIES).await;
            if wanted() {
                // What is wrong otherwise whoever writes finds out, and has room for.
                let _ = self.must_be_writable().await;
            }
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        patience: Patience,
        act: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        let (path, head) = (Arc::clone(&self.path), Arc::clone(&self.head));
        let ballast = Arc::clone(&self.ballast);
        let work = move |file: &mut File| {
            let connection = match &mut file.connection {
                Some(connection) => connection,
                none => {
                    let (connection, newest) = opened(&path, &ballast)?;
                    head.send_replace(newest);
                    none.insert(connection)
                }
            };
            act(connection)
        };
        self.told(self.file.call(patience, work).await)
    }

    /// What came of a call, for people.
    fn told<T>(&self, called: Result<Result<T, Fault>, Lost>) -> Result<T, Problem> {
        match called {
            Ok(worked) => worked.map_err(|fault| fault.at(&self.path)),
            Err(Lost::Silent(silence)) => {
                let problem = fault::silent(silence, &self.path);
                // Once for each call that is out, whoever it was sent for.
                if silence.sent {
                    error!(problem = %problem.in_full(), "nothing can be recorded");
                }
                Err(problem)
            }
            Err(Lost::Abrupt(error)) => {
                Err(Problem::new(Code::JournalUnwritable, "work on the journal ended abruptly")
                    .aftermath(Aftermath::Unknown)
                    .because(&error))
            }
        }
    }

    /// Takes the lease of an environment: the epoch grows by one in the same transaction.
    async fn take(&self, environment: &EnvironmentName, holder: &str) -> Result<Epoch, Problem> {
        let (environment, holder) = (environment.to_string(), holder.to_owned());
        let ballast = Arc::clone(&self.ballast);
        let take = move |connection: &mut Connection| {
            let sql = "INSERT INTO lease VALUES (?1, ?2, 1)
                       ON CONFLICT (environment) DO UPDATE SET holder = ?2, epoch = epoch + 1 RETURNING epoch";
            let epoch = connection.query_row(sql, params![environment, holder], |row| unsigned(row, 0));
            Ok(Epoch(epoch?))
        };
        self.with(ANSWERS, move |connection| must(&ballast, connection, take)).await
    }

    /// The row may be missing: a journal that was begun anew knows of no lease.
    async fn raise(&self, environment: &EnvironmentName, epoch: Epoch) -> Result<(), Problem> {
        let environment = environment.to_string();
        self.with(ANSWERS, move |connection| {
            let sql = "INSERT INTO lease VALUES (?1, '', ?2)
                       ON CONFLICT (environment) DO UPDATE SET epoch = max(epoch, ?2)";
            connection.execute(sql, params![environment, signed(epoch.0)])?;
            Ok(())
        })
        .await
    }

    /// Every environment that anything was ever recorded of.
    pub async fn environments(&self) -> Result<Vec<EnvironmentName>, Problem> {
        self.with(ANSWERS, |connection: &mut Connection| {
            // Whatever is recorded is recorded under a lease, and there are far fewer of these.
            let mut statement =
                connection.prepare_cached("SELECT environment FROM lease ORDER BY environment")?;
            let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let parsed = names.iter().map(|name| {
                EnvironmentName::parse(name).map_err(|_| {
                    fault::corrupt(format!("the journal has a lease of `{name}`, which names no environment"))
                })
            });
            Ok(parsed.collect::<Result<_, Problem>>()?)
        })
        .await
    }

    /// The lease as it is now, after the agent was asked: an epoch that was taken in this journal's name in between, and
    /// acknowledged, is in it.
    async fn must_lead(&self, environment: &EnvironmentName, fence: &Fence) -> Result<(), Problem> {
        let (environment, fence) = (environment.to_string(), *fence);
        self.with(ANSWERS, move |connection| {
            let lease = lease_of(connection, &environment)?;
            Ok(receipt::journal_leads(&fence, lease, hash_of(connection, fence.head_seq)?)?)
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
        let patience = if release.is_some() { ANSWERS } else { READS };
        self.with(patience, move |connection| {
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
        self.with(ANSWERS, move |connection| hash_of(connection, seq)).await
    }

    /// Verifies the whole journal as it lies on the disk, beside the work of the coordinator: nothing waits for it.
    /// What was recorded before it began must be found. An error means that it could not be looked at.
    pub async fn verify(&self) -> Result<Verification, Problem> {
        let (recorded, path) = (*self.head.borrow(), Arc::clone(&self.path));
        let look = move |(): &mut ()| {
            let connection = schema::open_to_read(&path)?;
            let mut found = audit::verify(&connection, Depth::Records, &path)?;
            audit::must_hold(&connection, recorded, &mut found)?;
            Ok(found)
        };
        self.told(self.verifying.call(READS, look).await)
    }

    /// Records what visitors met. It is added up, so whoever does not know whether it is recorded could neither record it once
    /// more nor leave it: this waits however late its disk answers. No release waits for it.
    pub async fn append_met(
        &self,
        environment: &EnvironmentName,
        lease: Epoch,
        release: &ReleaseId,
        at: Timestamp,
        met: TrafficSeen,
    ) -> Result<(), Problem> {
        let events = vec![Event::Noted(Note::Traffic(met))];
        self.append_all(HOWEVER_LATE, (environment, lease), release, at, events).await.map(drop)
    }

    async fn append_all(
        &self,
        patience: Patience,
        (environment, lease): (&EnvironmentName, Epoch),
        release: &ReleaseId,
        at: Timestamp,
        events: Vec<Event>,
    ) -> Result<Vec<Stamped>, Problem> {
        let (environment, release) = (environment.to_string(), release.to_string());
        let (sender, principal) = (Arc::clone(&self.head), Arc::clone(&self.principal));
        let (ballast, path) = (Arc::clone(&self.ballast), Arc::clone(&self.path));
        self.with(patience, move |connection| {
            let head = *sender.borrow();
            let add = |connection: &mut Connection| {
                append(connection, head, (&environment, lease), &release, &principal, at, &events)
            };
            let head = if lead_on(connection, &environment, &release, &events)? {
                set_aside(&ballast, &path)?;
                add(connection)?
            } else {
                must(&ballast, connection, add)?
            };
            sender.send_replace(head);
            Ok(events.into_iter().map(|event| Stamped { at, event }).collect())
        })
        .await
    }
}

/// Opens the journal, and verifies its whole chain.
fn opened(path: &Path, ballast: &Ballast) -> Result<(Connection, Head), Fault> {
    let connection = schema::open(path).map_err(|fault| fault.on_disk_of(ballast, path))?;
    let found = audit::verify(&connection, Depth::Chain, path)?;
    found.first_problem.map_or(Ok((connection, found.head)), |problem| Err(problem.into()))
}

/// A change that must not fail for want of room: what was set aside for it is given up then.
fn must<T>(
    ballast: &Ballast,
    connection: &mut Connection,
    act: impl Fn(&mut Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match act(connection) {
        Err(fault) if fault.lacks_room() && ballast.give_up() => act(connection),
        done => done,
    }
}

/// Has room for the way back before anything is recorded that leads on from it: so much of a disk that fills up is never
/// taken by what leads there. What else is wrong with the disk, the change itself tells.
fn set_aside(ballast: &Ballast, path: &Path) -> Result<(), Fault> {
    match ballast.set_aside() {
        Err(error) if [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind()) => {
            let what = "the journal's disk has no room to set aside for the way back";
            Err(fault::full(what, &error, path).into())
        }
        _ => Ok(()),
    }
}

/// Whether facts may fail for want of room: see [`Event::leads_on`].
fn lead_on(
    connection: &Connection,
    environment: &str,
    release: &str,
    events: &[Event],
) -> Result<bool, Fault> {
    let orders = events.iter().any(|event| matches!(event, Event::OrderIntended { .. }));
    let plan = if orders { plan_of(connection, environment, release)? } else { None };
    Ok(events.iter().all(|event| event.leads_on(plan.as_deref())))
}

/// The plan of a release, if the journal has it.
fn plan_of(connection: &Connection, environment: &str, release: &str) -> Result<Option<Arc<Plan>>, Fault> {
    let sql = format!(
        "SELECT {} FROM entry WHERE environment = ?1 AND release = ?2 AND kind = 'plan' ORDER BY seq LIMIT 1",
        Raw::COLUMNS
    );
    let raw =
        connection.prepare_cached(&sql)?.query_row(params![environment, release], Raw::of).optional()?;
    Ok(match raw.map(Raw::entry).transpose()?.map(|entry| entry.fact.event) {
        Some(Event::Planned(plan)) => Some(plan),
        _ => None,
    })
}

/// The hash of an entry, if it is there.
fn hash_of(connection: &Connection, seq: u64) -> Result<Option<[u8; 32]>, Fault> {
    let sql = "SELECT hash FROM entry WHERE seq = ?1";
    Ok(connection.query_row(sql, params![signed(seq)], |row| row.get(0)).optional()?)
}

/// The newest epoch that was taken of an environment; 0 where none was.
fn lease_of(connection: &Connection, environment: &str) -> Result<Epoch, Fault> {
    let sql = "SELECT epoch FROM lease WHERE environment = ?1";
    let epoch = connection.query_row(sql, params![environment], |row| unsigned(row, 0)).optional()?;
    Ok(Epoch(epoch.unwrap_or_default()))
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
    let rules = lease_of(&transaction, environment)?;
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

    async fn leads(&self, environment: &EnvironmentName, fence: &Fence) -> Result<(), JournalError> {
        self.must_lead(environment, fence).await.map_err(JournalError)
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
        self.append_all(ANSWERS, (environment, epoch), release, at, events).await.map_err(JournalError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{HostName, OrderKey, Step};

    use crate::fixture;

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
    async fn while_a_disk_hangs_nothing_more_is_sent_to_it_and_what_was_sent_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(&folder.path().join("journal.db")).await;
        let (environment, release) = names();
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let hangs = {
            let (environment, release) = (environment.clone(), release.clone());
            let head = *store.head().borrow();
            let sender = Arc::clone(&store.head);
            move |connection: &mut Connection| {
                let _ = answered.recv();
                let event = Event::Fenced(HostName::parse("late").unwrap());
                let under = (environment.as_str(), Epoch(1));
                let head = append(connection, head, under, release.as_str(), "test", Timestamp(6), &[event])?;
                sender.send_replace(head);
                Ok(())
            }
        };
        let at_once = Patience { soon: Duration::from_millis(10), gives_up: true };
        let sent = store.with(at_once, hangs).await.unwrap_err();
        assert_eq!((sent.code, sent.aftermath), (Code::JournalSilent, Aftermath::Unknown));
        let (since, told) = store.silence().unwrap();
        assert!(since.0 > 0 && told.hint.contains("findmnt -T") && told.message.contains(" UTC"), "{told:?}");

        let more = || vec![Event::Fenced(HostName::parse("more").unwrap())];
        let refused =
            store.append(&environment, Epoch(1), &release, Timestamp(7), more()).await.unwrap_err().0;
        assert_eq!((refused.code, refused.aftermath), (Code::JournalSilent, Aftermath::Unchanged));
        assert_eq!(store.take_lease(&environment, "b").await.unwrap_err().0.code, Code::JournalSilent);
        assert_eq!(store.must_be_writable().await.unwrap_err().code, Code::JournalSilent);
        assert!(!store.keep_room().await);

        drop(answer);
        while store.silence().is_some() {
            tokio::task::yield_now().await;
        }
        store.append(&environment, Epoch(1), &release, Timestamp(8), more()).await.unwrap();
        let told = store.entries_after(&environment, None, 20).await.unwrap();
        let told: Vec<String> = told
            .into_iter()
            .map(|entry| match entry.fact.event {
                Event::Fenced(host) => host.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["late", "more"]);
        assert_eq!(store.verify().await.unwrap().first_problem, None);
    }

    #[tokio::test]
    async fn a_journal_leads_whoever_remembers_its_entries_or_at_most_its_epochs() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(&folder.path().join("journal.db")).await;
        let (environment, _) = names();
        let other = EnvironmentName::parse("staging").unwrap();
        let head = *store.head().borrow();
        let check = async |environment: &EnvironmentName, epoch, head_seq, head_hash| {
            let fence = Fence { epoch: Epoch(epoch), head_seq, head_hash };
            store.leads(environment, &fence).await.map_err(|error| error.0.code)
        };
        assert_eq!(check(&environment, 1, 0, [0; 32]).await, Ok(()));
        assert_eq!(check(&environment, 2, 0, [0; 32]).await, Err(Code::Fenced));
        assert_eq!(check(&other, 0, 0, [0; 32]).await, Ok(()));
        assert_eq!(check(&other, 1, 0, [0; 32]).await, Err(Code::Fenced));
        // Whoever knows its newest entry has acted on none beyond, whatever epoch was taken on a copy meanwhile.
        assert_eq!(check(&environment, 9, head.seq, head.hash).await, Ok(()));
        assert_eq!(check(&environment, 1, head.seq, [0; 32]).await, Err(Code::JournalBehind));
        assert_eq!(check(&environment, 1, head.seq + 1, head.hash).await, Err(Code::JournalBehind));
    }

    /// Writes until there is no room for a byte more.
    fn fill(file: &Path) {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        for piece in [1 << 16, 4096, 1] {
            while io::Write::write_all(&mut file, &vec![7; piece]).is_ok() {}
        }
    }

    fn intended(step: Step) -> Event {
        let host = HostName::parse("lb1").unwrap();
        Event::OrderIntended { key: OrderKey { step, host }, attempt: 1 }
    }

    /// Fills the disk of a journal in which a release was planned.
    async fn full(folder: &Path) -> (JournalStore, Epoch) {
        let store = JournalStore::open(&folder.join("journal.db"), "test").unwrap();
        assert!(store.keep_room().await && store.room().0);
        let (environment, release) = names();
        let epoch = store.take_lease(&environment, "test").await.unwrap();
        let plan = fixture::plan(&fixture::environment(&["lb1"], ""), release.as_str());
        let planned = vec![Event::Planned(Arc::new(plan))];
        store.append(&environment, epoch, &release, Timestamp(5), planned).await.unwrap();
        fill(&folder.join("filler"));
        (store, epoch)
    }

    #[tokio::test]
    async fn a_full_disk_keeps_nobody_from_going_back() {
        let place = "journal::store::tests::a_full_disk_keeps_nobody_from_going_back";
        let Some(folder) = fixture::small_disk(place, "6m") else { return };
        let (store, epoch) = full(folder.path()).await;
        let (environment, release) = names();
        let tell = |event: Event| {
            let store = store.clone();
            let (environment, release) = (environment.clone(), release.clone());
            async move {
                let told = store.append(&environment, epoch, &release, Timestamp(6), vec![event]).await;
                told.map(drop).map_err(|error| error.0.code)
            }
        };
        assert_eq!(tell(intended(Step::Switch)).await, Err(Code::JournalFull));
        assert!(store.room().0, "the room was given up for what leads on");
        let problem = Problem::new(Code::CheckFailed, "the new version answers 500");
        assert_eq!(tell(Event::TurnedBack(problem)).await, Ok(()));
        assert!(!store.room().0);
        // From now on the room is the way back's, also where the other would find some.
        assert_eq!(tell(intended(Step::Switch)).await, Err(Code::JournalFull));
        assert_eq!(tell(intended(Step::RouteBack)).await, Ok(()));
        let route = OrderKey { step: Step::RouteBack, host: HostName::parse("lb1").unwrap() };
        assert_eq!(tell(Event::OrderDone { key: route, evidence: Default::default() }).await, Ok(()));

        assert!(store.must_be_writable().await.is_ok());
        fill(&folder.path().join("filler"));
        assert_eq!(store.must_be_writable().await.unwrap_err().code, Code::JournalFull);
        assert!(!store.keep_room().await);
        std::fs::remove_file(folder.path().join("filler")).unwrap();
        assert!(store.keep_room().await);
        assert_eq!(tell(intended(Step::Switch)).await, Ok(()));
        let found = store.verify().await.unwrap();
        assert_eq!((found.first_problem, found.entries), (None, 5));
    }

    #[tokio::test]
    async fn a_journal_on_a_full_disk_is_opened_with_what_was_set_aside_or_when_there_is_room() {
        let place = "journal::store::tests::a_journal_on_a_full_disk_is_opened_with_what_was_set_aside_or_when_there_is_room";
        let Some(folder) = fixture::small_disk(place, "6m") else { return };
        let (store, epoch) = full(folder.path()).await;
        let head = *store.head().borrow();
        let (environment, _) = names();
        drop(store);
        let path = folder.path().join("journal.db");
        let store = JournalStore::open(&path, "test").unwrap();
        assert!(!store.room().0, "it was opened without");
        assert_eq!(store.take_lease(&environment, "test").await, Ok(Epoch(epoch.0 + 1)));
        drop(store);

        // What closing it gave back was set aside; somebody removes that.
        assert!(Ballast::beside(&path).give_up());
        fill(&folder.path().join("filler"));
        let store = JournalStore::open(&path, "test").unwrap();
        assert_eq!(store.take_lease(&environment, "test").await.unwrap_err().0.code, Code::JournalFull);
        std::fs::remove_file(folder.path().join("filler")).unwrap();
        assert_eq!(store.take_lease(&environment, "test").await, Ok(Epoch(epoch.0 + 2)));
        assert_eq!(*store.head().borrow(), head);
    }

    /// Makes empty files until there is no inode left.
    fn take_inodes(folder: &Path) {
        let number = std::fs::read_dir(folder).unwrap().count();
        let _ = (number..1000)
            .try_for_each(|number| std::fs::File::create(folder.join(format!("filler-{number}"))).map(drop));
    }

    #[tokio::test]
    async fn a_disk_without_inodes_keeps_no_journal_from_being_opened_however_often_it_was_closed() {
        let place = "journal::store::tests::a_disk_without_inodes_keeps_no_journal_from_being_opened_however_often_it_was_closed";
        let Some(folder) = fixture::small_disk(place, "16m,nr_inodes=40") else { return };
        let path = folder.path().join("journal.db");
        let store = JournalStore::open(&path, "test").unwrap();
        assert!(store.keep_room().await && store.room().0);
        let (environment, _) = names();
        let mut epoch = store.take_lease(&environment, "test").await.unwrap();
        let mut open = Some(store);
        for _ in 0..3 {
            take_inodes(folder.path());
            // It ends in order: what it made beside the journal is removed, and somebody takes that, too.
            drop(open.take());
            take_inodes(folder.path());
            let store = JournalStore::open(&path, "test").unwrap();
            epoch = Epoch(epoch.0 + 1);
            assert_eq!(store.take_lease(&environment, "test").await, Ok(epoch));
            open = Some(store);
        }
        drop(open);

        // Somebody removes what was set aside: then it is told what lacks, and it is opened as soon as that is there.
        Ballast::beside(&path).give_up();
        take_inodes(folder.path());
        let store = JournalStore::open(&path, "test").unwrap();
        let problem = store.take_lease(&environment, "test").await.unwrap_err().0;
        assert_eq!(problem.code, Code::JournalFull, "{problem:?}");
        assert!(problem.hint.contains("`df -i "), "{problem:?}");
        for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
            if file.file_name().unwrap().to_str().unwrap().starts_with("filler") {
                std::fs::remove_file(file).unwrap();
            }
        }
        assert_eq!(store.take_lease(&environment, "test").await, Ok(Epoch(epoch.0 + 1)));
        assert!(store.keep_room().await);
    }
}
