//! A damaged journal that nobody has a good copy of: what can be believed of it goes into a new one.

use std::collections::BTreeMap;

use pointsman_coordinator::journal::{salvage, verify_file};
use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Epoch};
use rusqlite::Connection;

use crate::changed::{LAST, change, small};
use crate::history::environment;
use crate::place::Place;

fn entries(journal: &std::path::Path) -> Vec<(i64, Vec<u8>)> {
    let connection = Connection::open(journal).unwrap();
    let mut rows = connection.prepare("SELECT seq, hash FROM entry ORDER BY seq").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn what_was_written_before_the_damage_is_kept_and_the_lease_is_raised() {
    let place = small().await;
    let before = entries(&place.journal());
    change(&place, "UPDATE entry SET at_ms = at_ms + 1 WHERE seq = 20");
    let damaged = std::fs::read(place.journal()).unwrap();
    let salvaged = salvage(&place.journal()).unwrap();
    assert_eq!(salvaged.entries, 19);
    assert!(salvaged.lost.message.starts_with("journal entry 20 "), "{:?}", salvaged.lost);
    assert_eq!(std::fs::read(&salvaged.kept).unwrap(), damaged);
    let found = verify_file(&place.journal()).unwrap();
    assert_eq!((found.first_problem, found.entries), (None, 19));
    assert_eq!(entries(&place.journal()), before[..19]);
    let store = place.open().unwrap();
    assert_eq!(store.take_lease(&environment(), "anna").await, Ok(Epoch(4)), "two were given out");
    drop(store);

    // It may be damaged again, and what was kept before stays.
    change(&place, "UPDATE entry SET at_ms = at_ms + 1 WHERE seq = 3");
    let again = salvage(&place.journal()).unwrap();
    assert!(again.entries == 2 && again.kept != salvaged.kept, "{again:?}");
    assert_eq!(std::fs::read(&salvaged.kept).unwrap(), damaged);
}

#[tokio::test]
async fn what_was_only_in_the_log_is_salvaged_and_the_log_is_kept_with_its_file() {
    let origin = small().await;
    // As a coordinator leaves it that is killed.
    let open = Connection::open(origin.journal()).unwrap();
    open.query_row("SELECT count(*) FROM entry", [], |_| Ok(())).unwrap();
    change(&origin, "UPDATE entry SET at_ms = at_ms + 1 WHERE seq = 20");
    let place = Place::new();
    let wal = std::fs::read(origin.wal()).unwrap();
    place.put(&std::fs::read(origin.journal()).unwrap(), Some(&wal));
    let salvaged = salvage(&place.journal()).unwrap();
    assert_eq!(salvaged.entries, 19);
    let mut log = salvaged.kept.clone().into_os_string();
    log.push("-wal");
    assert_eq!(std::fs::read(log).unwrap(), wal);
    assert_eq!(verify_file(&place.journal()).unwrap().first_problem, None);
    assert!(place.open().is_ok());
}

#[tokio::test]
async fn a_journal_that_is_whole_or_no_journal_is_left_alone() {
    let place = small().await;
    let before = place.files();
    let refused = salvage(&place.journal()).unwrap_err();
    assert_eq!(refused.code, Code::NotPossibleNow);
    assert!(refused.message.contains(&format!("all {LAST} entries")), "{refused:?}");
    assert_eq!(place.files(), before);
    let garbled = Place::new();
    garbled.put(&[0xA5; 8192], None);
    assert_eq!(salvage(&garbled.journal()).unwrap_err().code, Code::JournalCorrupt);
    let left = BTreeMap::from([("journal.db".to_owned(), vec![0xA5; 8192])]);
    assert_eq!(garbled.files(), left);
}
