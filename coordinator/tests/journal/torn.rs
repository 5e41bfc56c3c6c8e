//! A power cut leaves a log that ends anywhere: what was acknowledged below the cut is there, all of it and no more.

use pointsman_core::ports::Journal as _;

use crate::history::{self, Run};
use crate::place::Place;

/// A log's own header, and what stands before each page in it.
const HEADER: usize = 32;
const FRAME: usize = 24 + 4096;
const SECTOR: usize = 512;

/// Where a log may end: at each frame, at each sector, and at its end.
fn cuts(run: &Run) -> Vec<usize> {
    let end = run.wal.len();
    let mut cuts: Vec<usize> = (HEADER..end).step_by(FRAME).chain((0..end).step_by(SECTOR)).collect();
    cuts.push(end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[tokio::test]
async fn a_log_cut_anywhere_is_a_whole_beginning() {
    let history = history::record("anna").await;
    assert!(history.entries.len() > 400 && history.runs.len() > 5);
    let place = Place::new();
    let mut opened = 0;
    for (number, run) in history.runs.iter().enumerate() {
        assert_eq!((run.wal.len() - HEADER) % FRAME, 0, "a log is a header and frames");
        for cut in cuts(run) {
            opened += 1;
            let what = format!("run {number} cut at {cut}");
            let kept = run.entries_at(cut);
            place.put(&run.database, Some(&run.wal[..cut]));
            let store = place.open().unwrap();
            history.must_be_prefix(&store, kept, run.last(), &what).await;
            let commit = run.acknowledged.iter().any(|moment| moment.wal_bytes == cut);
            history.must_read(&store, if commit { 0 } else { kept.saturating_sub(2) }, kept, &what).await;
        }
    }
    println!("{opened} cuts");
}

#[tokio::test]
async fn what_a_cut_left_goes_on() {
    let history = history::record("anna").await;
    let place = Place::new();
    for run in &history.runs {
        let half = run.wal.len() / 2;
        place.put(&run.database, Some(&run.wal[..half]));
        let kept = run.entries_at(half);
        let store = place.open().unwrap();
        let epoch = store.take_lease(&history::environment(), "bert").await.unwrap();
        let again = history.entries[kept].fact.clone();
        history::append(&store, epoch, again.at, vec![again.event]).await;
        drop(store);
        let store = place.open().unwrap();
        assert_eq!(store.head().borrow().seq, history.heads[kept + 1].seq);
        assert_eq!(store.verify().await.unwrap().first_problem, None);
    }
}
