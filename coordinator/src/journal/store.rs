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
    Aftermath, Code, Entry, EnvironmentName, Epoch, Event, Note, Plan, Problem, ReleaseId, RequestId,
    Stamped, Timestamp, TrafficSeen,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::watch;
use tracing::{error, info, warn};

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

/// How many of the newest entries are verified before anything is done with a journal, at least: as fast on an old one as on a
/// young one. One that has no more is verified whole, and the pages of its file with it.
const AT_START: u64 = 20_000;

/// Pause before it is tried again to verify the rest.
const VERIFY_AGAIN: Duration = Duration::from_secs(60);

/// Verifying the rest, however long that takes: nobody waits for it.
const AT_LEISURE: Patience = Patience { gives_up: false, ..READS };

/// How many releases of one request are read: who repeats a job, and fails, does so some times.
const OF_A_REQUEST: usize = 100;

/// Reading some of it for people, from wherever it lies on the disk: whoever asked waits a little longer than this.
const LOOKS_BACK: Patience = Patience { soon: Duration::from_secs(20), gives_up: true };

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
    /// Who reads what is over, beside everybody else.
    reading: Arc<Line<()>>,
    /// What was found wrong with it while it was used: nothing is recorded any more.
    damage: Arc<watch::Sender<Option<Problem>>>,
    head: Arc<watch::Sender<Head>>,
    /// What is left for the way back when the disk is full.
    ballast: Arc<Ballast>,
    path: Arc<Path>,
    principal: Arc<str>,
}

/// The journal's file, and after it what takes the room that closing it gives back: whoever starts next needs that.
struct File {
    /// None while there was no room to open it.
    open: Option<Open>,
    _frees: WhenClosed,
}

/// The journal's file as it was opened.
struct Open {
    connection: Connection,
    /// From which entry on it was verified then; 0 where all of it was. What is newer was written by this process.
    verified_from: u64,
}

/// Which releases are read.
#[derive(Clone, Debug)]
pub enum Which {
    /// This one.
    Named(ReleaseId),
    /// So many that were planned before an entry, newest first.
    Before(u64, usize),
    /// So many that were planned after an entry, oldest first.
    After(u64, usize),
    /// Those of a request, newest first.
    Requested(RequestId),
}

fn taken_over(lease: Epoch, rules: Epoch) -> Problem {
    Problem::new(Code::Fenced, format!("epoch {lease} may record nothing: epoch {rules} rules here"))
        .hint("another coordinator has taken over; stop this one")
}

impl JournalStore {
    /// Opens or begins the journal, and verifies its newest entries; [`JournalStore::verify_the_rest`] is for the others. One that
    /// lacks the room to be opened is opened when something is asked of it and there is room; until then whatever is asked of it
    /// says so.
    pub fn open(path: &Path, principal: &str) -> Result<Self, Problem> {
        let ballast = Arc::new(Ballast::beside(path));
        // Opening it takes some, too, and a coordinator that does not start leads nobody back.
        ballast.make_room();
        let (open, head) = match opened(path, &ballast) {
            Ok((open, head)) => (Some(open), head),
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
            file: Arc::new(Line::before(File { open, _frees: WhenClosed::set_aside(&ballast) })),
            verifying: Arc::new(Line::before(())),
            reading: Arc::new(Line::before(())),
            damage: Arc::default(),
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
        self.must_be_sound()?;
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

    /// What was found wrong with the journal while it was used, and when that changes.
    pub fn damage(&self) -> watch::Receiver<Option<Problem>> {
        self.damage.subscribe()
    }

    fn must_be_sound(&self) -> Result<(), Problem> {
        self.damage.borrow().clone().map_or(Ok(()), Err)
    }

    async fn with<T: Send + 'static>(
        &self,
        patience: Patience,
        act: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        self.with_open(patience, |open| act(&mut open.connection)).await
    }

    async fn with_open<T: Send + 'static>(
        &self,
        patience: Patience,
        act: impl FnOnce(&mut Open) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        let (path, head) = (Arc::clone(&self.path), Arc::clone(&self.head));
        let ballast = Arc::clone(&self.ballast);
        let work = move |file: &mut File| {
            let open = match &mut file.open {
                Some(open) => open,
                none => {
                    let (open, newest) = opened(&path, &ballast)?;
                    head.send_replace(newest);
                    none.insert(open)
                }
            };
            act(open)
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
        self.must_be_sound()?;
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
        let (environment, release) = (environment.clone(), release.cloned());
        self.read(move |connection| match release {
            Some(release) => entries_of(connection, &environment, &release, after),
            None => {
                let mut entries = Vec::new();
                each_after(connection, &environment, after, |entry| {
                    entries.push(entry);
                    Ok(())
                })?;
                Ok(entries)
            }
        })
        .await
    }

    /// What is recorded of releases, each in order. Whatever is written meanwhile does not wait for it.
    pub async fn releases(
        &self,
        environment: &EnvironmentName,
        which: Which,
    ) -> Result<Vec<Vec<Entry>>, Problem> {
        let environment = environment.clone();
        self.read(move |connection| {
            let ids = planned(connection, &environment, which)?;
            ids.iter().map(|id| entries_of(connection, &environment, id, 0)).collect()
        })
        .await
    }

    /// When the first and the last entry of an environment were recorded; none where nothing ever was.
    pub async fn span(
        &self,
        environment: &EnvironmentName,
    ) -> Result<Option<(Timestamp, Timestamp)>, Problem> {
        let environment = environment.to_string();
        self.read(move |connection| {
            let at = |order: &str| {
                // Along the entries: they are found at once but for those of an environment that is hardly used.
                let sql =
                    format!("SELECT at_ms FROM entry WHERE +environment = ?1 ORDER BY seq {order} LIMIT 1");
                let at =
                    connection.query_row(&sql, params![environment], |row| unsigned(row, 0)).optional()?;
                Ok::<_, Fault>(at.map(Timestamp))
            };
            Ok(at("ASC")?.zip(at("DESC")?))
        })
        .await
    }

    /// Reads beside everybody else, at one moment of the journal.
    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Problem> {
        let path = Arc::clone(&self.path);
        let look = move |(): &mut ()| {
            let connection = schema::open_to_read(&path)?;
            let moment = connection.unchecked_transaction()?;
            act(&moment)
        };
        let called = self.reading.call(LOOKS_BACK, look).await;
        // Nothing of it is to be recorded, whenever the disk answers.
        self.told(called.map_err(|lost| match lost {
            Lost::Silent(silence) => Lost::Silent(Silence { sent: false, ..silence }),
            abrupt @ Lost::Abrupt(_) => abrupt,
        }))
    }

    async fn fold_into<T: Send + 'static>(
        &self,
        environment: &EnvironmentName,
        mut folded: T,
        take: fn(&mut T, Entry) -> Result<(), Problem>,
    ) -> Result<(T, bool), Problem> {
        self.must_be_sound()?;
        let (environment, path, head) = (environment.clone(), Arc::clone(&self.path), Arc::clone(&self.head));
        self.with_open(READS, move |open| {
            let newest = head.borrow().seq;
            let from = beginning(&open.connection, &environment, newest)?;
            open.verify_from(from, &path)?;
            let after = from.saturating_sub(1);
            each_after(&open.connection, &environment, after, |entry| Ok(take(&mut folded, entry)?))?;
            Ok((folded, from == 0))
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
        self.verify_within(READS).await
    }

    /// Verifies all of a journal of which only the newest entries were verified when it was opened. Where something is wrong with
    /// it nothing is recorded any more, and [`JournalStore::damage`] says what. Returns when that is known.
    pub async fn verify_the_rest(&self) {
        loop {
            match self.with_open(ANSWERS, |open| Ok(open.verified_from)).await {
                Ok(0) => return,
                Ok(_) => match self.verify_within(AT_LEISURE).await {
                    Ok(Verification { first_problem: None, entries, .. }) => {
                        return info!(entries, "the whole journal is what was written");
                    }
                    Ok(Verification { first_problem: Some(problem), .. }) => {
                        error!(problem = %problem.in_full(), "nothing is recorded any more: the journal is not what was written");
                        self.damage.send_replace(Some(problem));
                        return;
                    }
                    Err(problem) => {
                        warn!(problem = %problem.in_full(), "the journal cannot be verified just now")
                    }
                },
                // Whoever needs the journal tells of that.
                Err(_) => {}
            }
            tokio::time::sleep(VERIFY_AGAIN).await;
        }
    }

    async fn verify_within(&self, patience: Patience) -> Result<Verification, Problem> {
        let (recorded, path) = (*self.head.borrow(), Arc::clone(&self.path));
        let look = move |(): &mut ()| {
            let connection = schema::open_to_read(&path)?;
            let mut found = audit::verify(&connection, Depth::Records, &path)?;
            audit::must_hold(&connection, recorded, &mut found)?;
            Ok(found)
        };
        self.told(self.verifying.call(patience, look).await)
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
        self.must_be_sound()?;
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

/// Opens the journal, and verifies it: whole if it is young, and otherwise its newest entries.
fn opened(path: &Path, ballast: &Ballast) -> Result<(Open, Head), Fault> {
    let connection = schema::open(path).map_err(|fault| fault.on_disk_of(ballast, path))?;
    // Where not even this can be read, the whole walk says what is wrong.
    let newest: Option<i64> =
        connection.query_row("SELECT max(seq) FROM entry", [], |row| row.get(0)).unwrap_or_default();
    let older =
        newest.and_then(|newest| u64::try_from(newest).ok()).unwrap_or_default().saturating_sub(AT_START);
    let (verified_from, head) = if older == 0 {
        let found = audit::verify(&connection, Depth::Chain, path)?;
        (0, found.first_problem.map_or(Ok(found.head), Err)?)
    } else {
        let from = older.saturating_add(1);
        (from, audit::verify_part(&connection, (from, None), path)?)
    };
    // What is set aside for the way back is not for this.
    if !ballast.is_scarce() {
        schema::index(&connection);
    }
    Ok((Open { connection, verified_from }, head))
}

impl Open {
    /// Has everything from this entry on be verified that was there when the journal was opened.
    fn verify_from(&mut self, from: u64, path: &Path) -> Result<(), Fault> {
        if from < self.verified_from {
            // The first that was verified once more: that it follows the one before it was not looked at.
            audit::verify_part(&self.connection, (from, Some(self.verified_from)), path)?;
            self.verified_from = from.max(1);
        }
        Ok(())
    }
}

/// From which entry on an environment is read: the oldest plan among the newest entries that says how the environment stood, or the
/// last one before them; and 0 where neither says so, because versions of before wrote them. `newest` is the newest entry.
fn beginning(connection: &Connection, environment: &EnvironmentName, newest: u64) -> Result<u64, Fault> {
    let older = newest.saturating_sub(AT_START);
    if older == 0 {
        return Ok(0);
    }
    let select =
        format!("SELECT {} FROM entry WHERE environment = ?1 AND kind = 'plan' AND seq", Raw::COLUMNS);
    let environment = environment.as_str();
    let mut among = connection.prepare_cached(&format!("{select} > ?2 ORDER BY seq"))?;
    let mut planned = false;
    for raw in among.query_map(params![environment, signed(older)], Raw::of)? {
        let raw = raw?;
        planned = true;
        if says_how_it_stood(&raw) {
            return Ok(raw.seq);
        }
    }
    let mut before = connection.prepare_cached(&format!("{select} <= ?2 ORDER BY seq DESC LIMIT 1"))?;
    match before.query_row(params![environment, signed(older)], Raw::of).optional()? {
        Some(raw) if says_how_it_stood(&raw) => Ok(raw.seq),
        Some(_) => Ok(0),
        None if planned => Ok(0),
        // Hardly anything was ever recorded of it.
        None => {
            let sql = "SELECT min(seq) FROM entry WHERE environment = ?1";
            let first: Option<i64> = connection.query_row(sql, params![environment], |row| row.get(0))?;
            Ok(first.and_then(|first| u64::try_from(first).ok()).unwrap_or(newest))
        }
    }
}

/// Whether it is the plan of a release that begins with how its environment stood. What is wrong with it whoever folds it finds out.
fn says_how_it_stood(raw: &Raw) -> bool {
    matches!(record::decode(&raw.body), Ok(Event::Planned(plan)) if plan.stood.is_some())
}

/// Takes each entry of an environment after a number, in order. They are looked for along the journal: nearly all of the newest are
/// of the environments that are in use.
fn each_after(
    connection: &Connection,
    environment: &EnvironmentName,
    after: u64,
    mut take: impl FnMut(Entry) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let sql = format!("SELECT {} FROM entry WHERE +environment = ?1 AND seq > ?2 ORDER BY seq", Raw::COLUMNS);
    let mut statement = connection.prepare_cached(&sql)?;
    for raw in statement.query_map(params![environment.as_str(), signed(after)], Raw::of)? {
        take(raw?.entry()?)?;
    }
    Ok(())
}

/// The entries of a release after a number, in order.
fn entries_of(
    connection: &Connection,
    environment: &EnvironmentName,
    release: &ReleaseId,
    after: u64,
) -> Result<Vec<Entry>, Fault> {
    let sql = format!(
        "SELECT {} FROM entry WHERE environment = ?1 AND release = ?2 AND seq > ?3 ORDER BY seq",
        Raw::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows =
        statement.query_map(params![environment.as_str(), release.as_str(), signed(after)], Raw::of)?;
    rows.map(|row| row?.entry()).collect()
}

/// The names of releases, by their plans.
fn planned(
    connection: &Connection,
    environment: &EnvironmentName,
    which: Which,
) -> Result<Vec<ReleaseId>, Fault> {
    let (and, value, limit) = match which {
        Which::Named(id) => return Ok(vec![id]),
        Which::Before(seq, limit) => ("seq < ?2 ORDER BY seq DESC", Value::Integer(signed(seq)), limit),
        Which::After(seq, limit) => ("seq > ?2 ORDER BY seq", Value::Integer(signed(seq)), limit),
        Which::Requested(id) => (
            "CAST(body AS TEXT) ->> '$.plan.request_id' = ?2 ORDER BY seq DESC",
            Value::Text(id.to_string()),
            OF_A_REQUEST,
        ),
    };
    let sql =
        format!("SELECT seq, release FROM entry WHERE environment = ?1 AND kind = 'plan' AND {and} LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![environment.as_str(), value, limit], |row| {
        Ok((unsigned(row, 0)?, row.get::<_, String>(1)?))
    })?;
    let id = |row: Result<(u64, String), rusqlite::Error>| -> Result<ReleaseId, Fault> {
        let (seq, release) = row?;
        let wrong = |error| fault::corrupt_entry(seq, "names no release").because(&error);
        Ok(ReleaseId::parse(&release).map_err(wrong)?)
    };
    rows.map(id).collect()
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

    async fn fold<T: Send + 'static>(
        &self,
        environment: &EnvironmentName,
        folded: T,
        take: fn(&mut T, Entry) -> Result<(), Problem>,
    ) -> Result<(T, bool), JournalError> {
        self.fold_into(environment, folded, take).await.map_err(JournalError)
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
