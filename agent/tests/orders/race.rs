//! A program on the host that swaps folders of what is being staged with links that lead out, as fast as it can.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::rig::{Rig, tree, walk};

const STAGINGS: u32 = 200;

/// Swaps `assets` of every staged tree once; returns how often it could.
fn swap(staging: &Path, outside: &Path) -> u64 {
    let mut swapped = 0;
    for tree in fs::read_dir(staging).into_iter().flatten().flatten() {
        let (folder, aside) = (tree.path().join("assets"), tree.path().join("aside"));
        if fs::rename(&folder, &aside).is_ok() {
            swapped += u64::from(symlink(outside, &folder).is_ok());
            std::thread::yield_now();
            let _ = fs::remove_file(&folder);
            let _ = fs::rename(&aside, &folder);
        }
    }
    swapped
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_lands_outside() {
    let rig = Rig::new().await;
    let (ending, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let attacker = {
        let (ending, swaps) = (Arc::clone(&ending), Arc::clone(&swaps));
        let (staging, outside) = (rig.at(".pointsman/staging"), rig.outside());
        std::thread::spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                swaps.fetch_add(swap(&staging, &outside), Ordering::SeqCst);
            }
        })
    };
    let (mut sealed, mut refused) = (0u32, 0u32);
    for number in 0..STAGINGS {
        let names: Vec<String> = (0..8).map(|file| format!("assets/{file}.js")).collect();
        let texts: Vec<String> = (0..8).map(|file| format!("{number} {file}")).collect();
        let mut paths = vec![("assets/", ""), ("assets/copy.js", texts[0].as_str()), ("index.html", "x")];
        paths.extend(names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())));
        let made = tree(&paths);
        match rig.bring(&made).await {
            Ok(_) => sealed += 1,
            Err(_) => refused += 1,
        }
    }
    ending.store(true, Ordering::SeqCst);
    attacker.join().unwrap();
    let escaped = walk(&rig.outside());
    println!(
        "{STAGINGS} stagings, {} swaps, {sealed} sealed, {refused} refused, {} files outside",
        swaps.load(Ordering::SeqCst),
        escaped.len()
    );
    assert!(swaps.load(Ordering::SeqCst) > 0, "nobody attacked");
    assert!(escaped.is_empty(), "{escaped:?}");
}
