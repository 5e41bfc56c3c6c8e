//! The history of a release of 200 orders, recorded as the driver records it, with what lay on the disk meanwhile.

use pointsman_coordinator::journal::{Head, JournalStore};
use pointsman_core::ports::Journal as _;
use pointsman_core::{
    Code, Entry, EnvironmentName, Epoch, Event, Evidence, HostName, OrderKey, Problem, Reading, ReleaseId,
    Request, RequestKind, Stamped, Step, Timestamp,
};

use crate::place::Place;

/// Web hosts, each with an order of every step.
const HOSTS: usize = 25;
const STEPS: [Step; 8] = [
    Step::Preflight,
    Step::Stage,
    Step::Drain,
    Step::Activate,
    Step::Expose,
    Step::Check,
    Step::Switch,
    Step::RouteBack,
];
/// Commits after which the coordinator is started anew.
const COMMITS: usize = 27;

/// What was acknowledged at one moment: the log's length on the disk, and how many entries there were.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub wal_bytes: usize,
    pub entries: usize,
}

/// The files of one run of a coordinator at its end, and what was acknowledged meanwhile.
pub struct Run {
    pub database: Vec<u8>,
    pub wal: Vec<u8>,
    /// Entries of the runs before.
    pub before: usize,
    pub acknowledged: Vec<Acknowledged>,
}

impl Run {
    /// How many entries were acknowledged when so much of the log was on the disk.
    pub fn entries_at(&self, wal_bytes: usize) -> usize {
        let reached = self.acknowledged.iter().rev().find(|moment| moment.wal_bytes <= wal_bytes);
        reached.map_or(self.before, |moment| moment.entries)
    }

    pub fn last(&self) -> usize {
        self.acknowledged.last().map_or(self.before, |moment| moment.entries)
    }
}

/// Everything that was recorded, and the files of each run.
pub struct History {
    pub entries: Vec<Entry>,
    /// The head after so many entries.
    pub heads: Vec<Head>,
    pub runs: Vec<Run>,
}

pub fn environment() -> EnvironmentName {
    EnvironmentName::parse("production").unwrap()
}

pub fn release() -> ReleaseId {
    ReleaseId::parse("r1").unwrap()
}

/// What the driver records of the release, commit by commit. `who` tells one history from another.
pub fn commits(who: &str) -> Vec<Vec<Event>> {
    let hosts: Vec<HostName> =
        (0..HOSTS).map(|number| HostName::parse(&format!("web{number}")).unwrap()).collect();
    // Longer than a page, as plans are.
    let reason = "because ".repeat(1200);
    let asked =
        Request { kind: RequestKind::Resume, by: who.to_owned(), reason: Some(reason), without: Vec::new() };
    let mut commits = vec![vec![Event::Requested(asked)]];
    commits.push(hosts.iter().cloned().map(Event::Fenced).collect());
    for step in STEPS {
        let keys: Vec<OrderKey> = hosts.iter().map(|host| OrderKey { step, host: host.clone() }).collect();
        commits.push(keys.iter().map(|key| Event::OrderIntended { key: key.clone(), attempt: 1 }).collect());
        for (number, key) in keys.into_iter().enumerate() {
            let detail = format!("{who} has seen that it is so");
            let evidence =
                Evidence { already: number % 3 == 0, detail, took_us: 4711, ..Evidence::default() };
            commits.push(vec![Event::OrderDone { key, evidence }]);
        }
    }
    let problem = Problem::new(Code::CheckFailed, "check `deep` failed").cause("status 500").retry_useful();
    commits.push(vec![Event::GatesRead(Reading::Fail(problem.clone())), Event::TurnedBack(problem)]);
    commits
}

/// Records one commit as the coordinator does.
pub async fn append(store: &JournalStore, epoch: Epoch, at: Timestamp, events: Vec<Event>) {
    store.append(&environment(), epoch, &release(), at, events).await.unwrap();
}

/// Records the history. A coordinator is started anew after some commits, so that its log begins anew.
pub async fn record(who: &str) -> History {
    record_with(who, COMMITS).await
}

/// Records the history with another number of commits between two starts.
pub async fn record_with(who: &str, commits_each: usize) -> History {
    let place = Place::new();
    let mut history = History { entries: Vec::new(), heads: vec![Head::default()], runs: Vec::new() };
    for (number, commits) in (1u64..).zip(commits(who).chunks(commits_each)) {
        let store = place.open().unwrap();
        let mut run = Run {
            database: std::fs::read(place.journal()).unwrap(),
            wal: Vec::new(),
            before: history.entries.len(),
            acknowledged: Vec::new(),
        };
        let epoch = store.take_lease(&environment(), who).await.unwrap();
        assert_eq!(epoch, Epoch(number));
        let taken = vec![Event::EpochTaken(epoch)];
        for events in std::iter::once(&taken).chain(commits) {
            let at = Timestamp(1_000 + u64::try_from(history.entries.len()).unwrap());
            append(&store, epoch, at, events.clone()).await;
            for event in events {
                let seq = u64::try_from(history.heads.len()).unwrap();
                let fact = Stamped { at, event: event.clone() };
                history.entries.push(Entry { seq, release: release(), fact });
                history.heads.push(Head { seq, hash: store.hash_of(seq).await.unwrap().unwrap() });
            }
            let wal_bytes = usize::try_from(std::fs::metadata(place.wal()).unwrap().len()).unwrap();
            run.acknowledged.push(Acknowledged { wal_bytes, entries: history.entries.len() });
        }
        run.database = std::fs::read(place.journal()).unwrap();
        run.wal = std::fs::read(place.wal()).unwrap();
        history.runs.push(run);
    }
    history
}

impl History {
    /// Fails unless the journal holds exactly the first so many entries, and lacks the one that was acknowledged last
    /// whenever it is not among them: by that the coordinator notices, comparing with what agents remember.
    pub async fn must_be_prefix(
        &self,
        store: &JournalStore,
        entries: usize,
        acknowledged: usize,
        what: &str,
    ) {
        assert_eq!(*store.head().borrow(), self.heads[entries], "{what}");
        let known = store.hash_of(self.heads[acknowledged].seq).await.unwrap();
        let expected = (acknowledged <= entries).then_some(self.heads[acknowledged].hash);
        assert_eq!(known, expected, "{what}: entry {acknowledged}");
    }

    /// Fails unless the entries can be read from this one on, and are what was recorded.
    pub async fn must_read(&self, store: &JournalStore, from: usize, entries: usize, what: &str) {
        let after = self.heads[from].seq;
        let found = store.entries_after(&environment(), None, after).await;
        assert!(found.as_ref() == Ok(&self.entries[from..entries].to_vec()), "{what}: {found:?}");
    }
}
