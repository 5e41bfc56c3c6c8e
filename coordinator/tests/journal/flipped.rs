//! One bit that is not as it was written, anywhere in the files: the journal opens as a beginning of what was recorded
//! or says that it is damaged. A changed record is never taken for a fact, and no epoch is given out twice.

use pointsman_core::ports::Journal as _;
use pointsman_core::{Code, Epoch, Event};

use crate::chance::Chance;
use crate::history::{self, History, Run};
use crate::place::Place;

const SEED: u64 = 1;
const FLIPS: usize = 1500;

#[derive(Debug, Default)]
struct Seen {
    whole: usize,
    shorter: usize,
    refused: usize,
}

async fn flip(history: &History, run: &Run, chance: &mut Chance, place: &Place, seen: &mut Seen) {
    let (mut database, mut wal) = (run.database.clone(), run.wal.clone());
    let (name, file) = match chance.below(2) {
        0 => ("journal.db", &mut database),
        _ => ("journal.db-wal", &mut wal),
    };
    let (byte, bit) = (chance.below(file.len()), chance.below(8));
    file[byte] ^= 1 << bit;
    let what = format!("seed {SEED}, {} entries before, bit {bit} of byte {byte} of {name}", run.before);
    place.put(&database, Some(&wal));
    let store = match place.open() {
        Ok(store) => store,
        Err(problem) => {
            seen.refused += 1;
            let codes = [Code::JournalCorrupt, Code::JournalUnwritable, Code::StateTooNew];
            assert!(codes.contains(&problem.code) && problem.hint.contains('`'), "{what}: {problem:?}");
            return;
        }
    };
    let kept = usize::try_from(store.head().borrow().seq).unwrap();
    assert!(kept <= run.last(), "{what}: {kept} entries");
    history.must_be_prefix(&store, kept, run.last(), &what).await;
    history.must_read(&store, 0, kept, &what).await;
    match kept == run.last() {
        true => seen.whole += 1,
        false => seen.shorter += 1,
    }
    let used = history.entries[..kept].iter().filter_map(|entry| match entry.fact.event {
        Event::EpochTaken(epoch) => Some(epoch),
        _ => None,
    });
    let used = used.max().unwrap_or_default();
    match store.take_lease(&history::environment(), "test").await {
        Ok(epoch) => assert!(epoch > used && epoch > Epoch(0), "{what}: epoch {epoch} after {used}"),
        Err(error) => assert_eq!(error.0.code, Code::JournalCorrupt, "{what}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_never_makes_another_history() {
    let history = history::record("anna").await;
    let (mut chance, mut seen, place) = (Chance(SEED), Seen::default(), Place::new());
    // One journal that is nearly all in its log, and one that is nearly all in its database.
    for run in [&history.runs[0], &history.runs[3]] {
        for _ in 0..FLIPS {
            flip(&history, run, &mut chance, &place, &mut seen).await;
        }
    }
    println!("{seen:?}");
    assert!(seen.whole > 0 && seen.shorter > 0 && seen.refused > 0, "{seen:?}");
}
