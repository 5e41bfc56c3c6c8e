//! Journals that this version cannot read: later ones, and files that are none.

use pointsman_coordinator::journal::verify_file;
use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Problem, Timestamp};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, params};

use crate::history::{self, environment};
use crate::place::Place;

async fn small(place: &Place) {
    let store = place.open().unwrap();
    let epoch = store.take_lease(&environment(), "anna").await.unwrap();
    for events in history::commits("anna").into_iter().take(3) {
        history::append(&store, epoch, Timestamp(7), events).await;
    }
}

fn set_version(place: &Place, version: i64) {
    Connection::open(place.journal()).unwrap().pragma_update(None, "user_version", version).unwrap();
}

fn version(place: &Place) -> i64 {
    let connection = Connection::open(place.journal()).unwrap();
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

fn refused(place: &Place) -> Problem {
    let before = place.files();
    let problem = place.open().map(drop).unwrap_err();
    assert_eq!(place.files(), before, "it was written to");
    assert!(problem.hint.contains('`'), "{problem:?}");
    let named = problem.causes.iter().any(|cause| cause.contains(&place.journal().display().to_string()));
    assert!(named, "{problem:?}");
    problem
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_untouched() {
    let place = Place::new();
    small(&place).await;
    assert_eq!(version(&place), 1);
    set_version(&place, 2);
    let problem = refused(&place);
    assert_eq!(
        (problem.code, problem.message.contains("version 2")),
        (Code::StateTooNew, true),
        "{problem:?}"
    );
    assert_eq!(verify_file(&place.journal()).unwrap_err().code, Code::StateTooNew);
    set_version(&place, -1);
    assert_eq!(refused(&place).code, Code::JournalCorrupt);
}

#[tokio::test]
async fn a_journal_from_before_there_were_versions_goes_on() {
    let place = Place::new();
    small(&place).await;
    let head = *place.open().unwrap().head().borrow();
    set_version(&place, 0);
    assert_eq!(verify_file(&place.journal()).unwrap().head, head);
    assert_eq!(*place.open().unwrap().head().borrow(), head);
    assert_eq!(version(&place), 1);
}

/// The chain as it is documented, written down a second time.
fn hash(prev: &[u8], numbers: [u64; 3], texts: [&str; 4], body: &[u8]) -> Vec<u8> {
    let [seq, at_ms, epoch] = numbers.map(u64::to_be_bytes);
    let [environment, kind, release, principal] = texts.map(str::as_bytes);
    let mut context = Context::new(&SHA256);
    for field in [prev, &seq, &at_ms, environment, &epoch, kind, release, principal, body] {
        context.update(&u32::try_from(field.len()).unwrap().to_be_bytes());
        context.update(field);
    }
    context.finish().as_ref().to_vec()
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_named() {
    let place = Place::new();
    small(&place).await;
    let head = *place.open().unwrap().head().borrow();
    let (seq, body) = (head.seq + 1, b"{\"v\":6,\"event\":\"teleported\"}");
    let (prev, texts) = (head.hash.to_vec(), ["production", "note", "r1", "later"]);
    let hash = hash(&prev, [seq, 7, 1], texts, body);
    let number = i64::try_from(seq).unwrap();
    let [environment_, kind, release, principal] = texts;
    let row = params![number, 7, environment_, 1, kind, release, principal, body, prev, hash];
    let connection = Connection::open(place.journal()).unwrap();
    connection.execute("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", row).unwrap();
    drop(connection);
    let named = |problem: &Problem| {
        let names = problem.message.contains(&format!("journal entry {seq} is of version 6"));
        assert!(
            problem.code == Code::StateTooNew && names && problem.hint.contains("install"),
            "{problem:?}"
        );
    };
    // Its chain is whole, so it is not taken for damaged.
    let store = place.open().unwrap();
    named(&store.entries_after(&environment(), None, 0).await.unwrap_err());
    named(&store.verify().await.unwrap().first_problem.unwrap());
}

#[test]
fn what_is_no_journal_is_not_taken_for_a_new_one() {
    let place = Place::new();
    let mut garbage = b"SQLite format 3\0".to_vec();
    garbage.resize(8192, 0xA5);
    for content in [&b""[..], b"not a journal", &[0; 4096], &garbage] {
        place.put(content, None);
        assert_eq!(refused(&place).code, Code::JournalCorrupt);
        assert_eq!(verify_file(&place.journal()).unwrap_err().code, Code::JournalCorrupt);
    }
    // A database of somebody else.
    place.put(b"", None);
    Connection::open(place.journal()).unwrap().execute_batch("CREATE TABLE other (text TEXT)").unwrap();
    assert_eq!(refused(&place).code, Code::JournalCorrupt);
}

#[tokio::test]
async fn a_log_whose_journal_is_gone_is_not_taken_for_a_new_one() {
    let place = Place::new();
    small(&place).await;
    let store = place.open().unwrap();
    store.take_lease(&environment(), "bert").await.unwrap();
    let files = place.files();
    drop(store);
    // `SQLite` would throw the log of an empty database away.
    place.put(b"", Some(&files["journal.db-wal"]));
    assert_eq!(refused(&place).code, Code::JournalCorrupt);
    std::fs::remove_file(place.journal()).unwrap();
    assert_eq!(refused(&place).code, Code::JournalCorrupt);
}

#[test]
fn a_journal_is_begun_whole_or_not_at_all() {
    let place = Place::new();
    // What a start that was cut off may have left.
    std::fs::write(place.journal().with_extension("db.new"), b"half").unwrap();
    drop(place.open().unwrap());
    let mut files: Vec<String> = place.files().into_keys().collect();
    // Beside it room is set aside for the next start.
    files.retain(|name| !name.contains(".ballast"));
    assert_eq!(files, ["journal.db"]);
    assert_eq!(verify_file(&place.journal()).unwrap().entries, 0);
}
