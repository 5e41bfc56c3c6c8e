//! Hands in the journal: whatever is changed in it, the walk along the chain finds it and names the entry.

use pointsman_coordinator::journal::{Verification, verify_file};
use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Timestamp};
use rusqlite::Connection;

use crate::history::{self, environment};
use crate::place::Place;

/// A small journal that ends with this entry. The first entry is of the year 1970.
pub const LAST: u64 = 28;

pub async fn small() -> Place {
    let place = Place::new();
    let store = place.open().unwrap();
    let epoch = store.take_lease(&environment(), "anna").await.unwrap();
    for (number, events) in (0..).zip(history::commits("anna").into_iter().take(2)) {
        history::append(&store, epoch, Timestamp(number), events).await;
    }
    let epoch = store.take_lease(&environment(), "anna").await.unwrap();
    let events = history::commits("anna").swap_remove(3);
    history::append(&store, epoch, Timestamp(9), [events.clone(), events].concat()).await;
    assert_eq!(store.head().borrow().seq, LAST);
    place
}

/// Changes the journal as somebody does who knows of its guards.
pub fn change(place: &Place, sql: &str) {
    let connection = Connection::open(place.journal()).unwrap();
    let guards: Vec<String> = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(guards.len(), 2);
    connection.execute_batch("DROP TRIGGER entry_stays; DROP TRIGGER entry_kept").unwrap();
    connection.execute_batch(sql).unwrap();
    connection.execute_batch(&guards.join(";")).unwrap();
}

fn found(verification: &Verification, sql: &str) -> String {
    assert!(verification.first_problem.is_some(), "`{sql}` was not found");
    let problem = verification.first_problem.clone().unwrap();
    assert_eq!(problem.code, Code::JournalCorrupt, "{sql}");
    assert_eq!(verification.entries, verification.head.seq, "{sql}");
    problem.message
}

/// Fails unless the change is found by every way to look, and this entry is named.
async fn check(sql: &str, entry: u64) {
    let place = small().await;
    let store = place.open().unwrap();
    assert_eq!(store.verify().await.unwrap().first_problem, None);
    change(&place, sql);
    let name = format!("journal entry {entry} ");
    let running = store.verify().await.unwrap();
    assert!(found(&running, sql).starts_with(&name), "{sql}: {running:?}");
    drop(store);
    let stopped = verify_file(&place.journal()).unwrap();
    assert!(found(&stopped, sql).starts_with(&name), "{sql}: {stopped:?}");
    assert!(stopped.entries < entry.max(1) || stopped.entries == LAST, "{sql}: {stopped:?}");
    let problem = place.open().map(drop).unwrap_err();
    assert!(problem.code == Code::JournalCorrupt && problem.message.starts_with(&name), "{sql}: {problem:?}");
    assert!(problem.hint.contains("`pointsman explain PM0703`"), "{problem:?}");
}

#[tokio::test]
async fn a_change_of_any_column_of_any_entry_is_found() {
    let columns = [
        ("at_ms", "at_ms + 1"),
        ("at_ms", "-1"),
        ("at_ms", "9223372036854775807"),
        ("environment", "'staging'"),
        ("environment", "''"),
        ("epoch", "epoch + 1"),
        ("epoch", "0"),
        ("epoch", "-1"),
        ("kind", "'lease'"),
        ("release", "'r2'"),
        ("release", "release || char(0)"),
        ("principal", "principal || ' '"),
        ("principal", "cast(x'ff' AS TEXT)"),
        ("body", "cast(replace(cast(body AS TEXT), 'v', 'w') AS BLOB)"),
        ("body", "x''"),
        ("body", "cast(cast(body AS TEXT) || ' ' AS BLOB)"),
        ("prev_hash", "cast(zeroblob(31) || x'01' AS BLOB)"),
        ("hash", "zeroblob(32)"),
        ("hash", "prev_hash"),
    ];
    for entry in [1, 2, 14, LAST] {
        for (column, value) in columns {
            check(&format!("UPDATE entry SET {column} = {value} WHERE seq = {entry}"), entry).await;
        }
    }
}

#[tokio::test]
async fn entries_that_are_gone_moved_or_added_are_found() {
    let swap = |a: u64, b: u64| {
        format!(
            "UPDATE entry SET seq = 999 WHERE seq = {a}; UPDATE entry SET seq = {a} WHERE seq = {b};
             UPDATE entry SET seq = {b} WHERE seq = 999"
        )
    };
    let copy = |from: u64, to: &str| {
        format!(
            "INSERT INTO entry SELECT {to}, at_ms, environment, epoch, kind, release, principal, body, prev_hash, hash
             FROM entry WHERE seq = {from}"
        )
    };
    check("DELETE FROM entry WHERE seq = 1", 1).await;
    check("DELETE FROM entry WHERE seq = 3", 3).await;
    check("DELETE FROM entry WHERE seq IN (3, 4, 5)", 3).await;
    check("DELETE FROM entry WHERE seq < 28", 1).await;
    check("DELETE FROM entry WHERE seq = 3; UPDATE entry SET seq = seq - 1 WHERE seq > 3", 3).await;
    check(&swap(4, 5), 4).await;
    check(&swap(1, LAST), 1).await;
    check(&copy(7, "29"), 29).await;
    check(&copy(LAST, "29"), 29).await;
    check(&copy(7, "31"), 29).await;
    check(&copy(7, "0"), 0).await;
    let insert = "UPDATE entry SET seq = -seq WHERE seq > 6; UPDATE entry SET seq = 1 - seq WHERE seq < 0;";
    check(&format!("{insert} {}", copy(6, "7")), 7).await;
}

#[tokio::test]
async fn an_entry_before_the_first_is_found() {
    let sql = "INSERT INTO entry SELECT -7, at_ms, environment, epoch, kind, release, principal, body, prev_hash, hash
               FROM entry WHERE seq = 1";
    check(sql, 1).await;
}

/// A lease stands outside of the chain, but must not fall behind it: an epoch would be given out twice.
#[tokio::test]
async fn a_lease_that_went_back_is_found() {
    check("UPDATE lease SET epoch = 1", LAST).await;
    check("DELETE FROM lease", LAST).await;
    check("UPDATE lease SET environment = 'staging'", LAST).await;
}

#[tokio::test]
async fn a_guard_that_was_taken_away_is_found() {
    for (part, sql) in
        [("entry_stays", "DROP TRIGGER entry_stays"), ("entry_by_release", "DROP INDEX entry_by_release")]
    {
        let place = small().await;
        Connection::open(place.journal()).unwrap().execute_batch(sql).unwrap();
        for problem in
            [place.open().map(drop).unwrap_err(), verify_file(&place.journal()).map(drop).unwrap_err()]
        {
            assert!(problem.code == Code::JournalCorrupt && problem.message.contains(part), "{problem:?}");
        }
    }
}

/// Nothing in the file shows that its end is gone. Whoever remembers it does: the running coordinator, and agents.
#[tokio::test]
async fn an_end_that_is_gone_is_found_by_whoever_remembers_it() {
    let place = small().await;
    let store = place.open().unwrap();
    let head = *store.head().borrow();
    change(&place, "DELETE FROM entry WHERE seq = 28");
    let running = store.verify().await.unwrap();
    assert!(found(&running, "end").starts_with("journal entry 28 was recorded and is not there"));
    drop(store);
    let stopped = verify_file(&place.journal()).unwrap();
    assert_eq!((stopped.entries, stopped.first_problem), (LAST - 1, None));
    assert_eq!(place.open().unwrap().hash_of(head.seq).await.unwrap(), None);
}

#[tokio::test]
async fn looking_at_a_file_changes_nothing() {
    let place = small().await;
    let before = place.files();
    let verified = verify_file(&place.journal()).unwrap();
    assert_eq!((verified.entries, verified.first_problem), (LAST, None));
    assert_eq!(place.files(), before);
    // After a coordinator was killed, its log is there, and is read.
    let store = place.open().unwrap();
    let epoch = store.take_lease(&environment(), "bert").await.unwrap();
    history::append(&store, epoch, Timestamp(11), history::commits("bert").swap_remove(0)).await;
    let files = place.files();
    drop(store);
    place.put(&files["journal.db"], Some(&files["journal.db-wal"]));
    assert_eq!(verify_file(&place.journal()).unwrap().entries, LAST + 1);
    let after = place.files();
    for file in ["journal.db", "journal.db-wal"] {
        assert_eq!(after[file], files[file], "{file}");
    }
}

#[tokio::test]
async fn a_path_with_any_character_is_looked_at() {
    let place = small().await;
    let odd = place.journal().with_file_name("100% of ?#ü.db");
    std::fs::rename(place.journal(), &odd).unwrap();
    assert_eq!(verify_file(&odd).unwrap().entries, LAST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_and_recording_do_not_disturb_each_other() {
    let place = Place::new();
    let store = place.open().unwrap();
    let epoch = store.take_lease(&environment(), "anna").await.unwrap();
    let looking = tokio::spawn({
        let store = store.clone();
        async move {
            let mut seen = Vec::new();
            for _ in 0..20 {
                let verified = store.verify().await.unwrap();
                assert_eq!(verified.first_problem, None);
                seen.push(verified.entries);
            }
            seen
        }
    });
    for events in history::commits("anna") {
        history::append(&store, epoch, Timestamp(7), events).await;
    }
    let seen = looking.await.unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(store.verify().await.unwrap().entries, store.head().borrow().seq);
}
