//! Files that do not belong together, as copies made one after the other and half-restored backups leave them.

use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Problem, Timestamp};
use rusqlite::Connection;

use crate::history::{self, History};
use crate::place::Place;

/// Fails unless the journal is a beginning of the history that lacks what was acknowledged last, or is refused.
async fn never_mixed(history: &History, place: &Place, acknowledged: usize, what: &str) -> Option<Problem> {
    let store = match place.open() {
        Ok(store) => store,
        Err(problem) => {
            assert_eq!(problem.code, Code::JournalCorrupt, "{what}: {problem:?}");
            return Some(problem);
        }
    };
    let kept = usize::try_from(store.head().borrow().seq).unwrap();
    history.must_be_prefix(&store, kept, acknowledged, what).await;
    history.must_read(&store, 0, kept, what).await;
    None
}

#[tokio::test]
async fn a_log_that_is_gone_leaves_what_was_before_it() {
    let history = history::record("anna").await;
    let place = Place::new();
    for run in &history.runs {
        place.put(&run.database, None);
        let store = place.open().unwrap();
        history.must_be_prefix(&store, run.before, run.last(), "no log").await;
        history.must_read(&store, 0, run.before, "no log").await;
    }
}

#[tokio::test]
async fn a_log_of_another_moment_is_never_mixed_in() {
    let history = history::record("anna").await;
    let place = Place::new();
    let mut refused = 0;
    for (left, database) in history.runs.iter().enumerate() {
        for (right, log) in history.runs.iter().enumerate().filter(|(right, _)| *right != left) {
            place.put(&database.database, Some(&log.wal));
            let acknowledged = database.last().max(log.last());
            let what = format!("database of run {left}, log of run {right}");
            refused += usize::from(never_mixed(&history, &place, acknowledged, &what).await.is_some());
        }
    }
    assert!(refused > 0);
}

/// A database from before its log was begun anew, which `SQLite` does by itself after a thousand pages.
#[tokio::test]
async fn a_database_older_than_its_log_is_never_mixed_in() {
    let place = Place::new();
    let store = place.open().unwrap();
    let environment = history::environment();
    let epoch = store.take_lease(&environment, "anna").await.unwrap();
    let (mut older, mut first_log) = (Vec::new(), Vec::new());
    let mut begun_anew = false;
    for (number, events) in history::commits("anna").iter().cycle().take(1000).enumerate() {
        history::append(&store, epoch, Timestamp(7), events.clone()).await;
        let log = std::fs::read(place.wal()).unwrap()[..32].to_vec();
        if number == 0 {
            (older, first_log) = (std::fs::read(place.journal()).unwrap(), log);
        } else if log != first_log {
            begun_anew = true;
            break;
        }
    }
    assert!(begun_anew, "the log was never begun anew");
    let newest = *store.head().borrow();
    let log = std::fs::read(place.wal()).unwrap();
    drop(store);
    place.put(&older, Some(&log));
    match place.open() {
        Ok(store) => assert_eq!(store.hash_of(newest.seq).await.unwrap(), None),
        Err(problem) => assert_eq!(problem.code, Code::JournalCorrupt),
    }
}

#[tokio::test]
async fn a_log_of_another_journal_is_never_mixed_in() {
    let (anna, bert) = (history::record("anna").await, history::record("bert").await);
    let place = Place::new();
    let mut refused = 0;
    for (left, database) in anna.runs.iter().enumerate() {
        for (right, log) in bert.runs.iter().enumerate() {
            let what = format!("database of run {left}, log of run {right} of another");
            place.put(&database.database, Some(&log.wal));
            let Ok(store) = place.open() else {
                refused += 1;
                continue;
            };
            // A log that holds every page is the other journal, whole. An agent that remembers this one tells.
            let head = *store.head().borrow();
            let kept = usize::try_from(head.seq).unwrap();
            let of = if head == anna.heads[kept] { &anna } else { &bert };
            assert_eq!(head, of.heads[kept], "{what}");
            of.must_read(&store, 0, kept, &what).await;
            let acknowledged = anna.heads[database.last()];
            assert_ne!(store.hash_of(acknowledged.seq).await.unwrap(), Some(acknowledged.hash), "{what}");
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_log_of_another_database_is_never_mixed_in() {
    let history = history::record("anna").await;
    let place = Place::new();
    let other = Connection::open(place.journal()).unwrap();
    other
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE other (text TEXT); INSERT INTO other VALUES ('x')",
        )
        .unwrap();
    let log = std::fs::read(place.wal()).unwrap();
    drop(other);
    for run in &history.runs {
        place.put(&run.database, Some(&log));
        let told = never_mixed(&history, &place, run.last(), "log of another database").await;
        assert!(told.is_some());
    }
}
