//! A file system that fills up: said by its own code, what visitors see is untouched, and what arrived is kept.

use std::path::Path;
use std::process::Command;

use pointsman_core::Code;

use crate::rig::{Options, Rig, site, tree};

/// Runs a test again with mounts of its own, which end with it. Says whether this is that run.
fn in_own_mounts(test: &str) -> bool {
    if std::env::var_os("POINTSMAN_OWN_MOUNTS").is_some() {
        return true;
    }
    let root = rustix::process::geteuid().is_root();
    let allowed = root
        && Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !allowed {
        println!("skipped {test}: only root with a mount namespace can fill a small file system");
        return false;
    }
    let again = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("POINTSMAN_OWN_MOUNTS", "1")
        .status()
        .unwrap();
    assert!(again.success(), "{test} failed in its own mounts");
    false
}

async fn on_small_disk(folder: &Path, options: &str) -> Rig {
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).status().unwrap();
    assert!(mounted.success());
    Rig::with(Options { root: Some(folder.to_owned()), ..Options::default() }).await
}

fn big(kilobytes: usize) -> crate::rig::Tree {
    let text = "0123456789abcdef".repeat(64 * kilobytes);
    tree(&[("big.bin", &text), ("index.html", "big")])
}

#[tokio::test]
async fn full_in_the_middle_of_a_transfer() {
    if !in_own_mounts("full_disk::full_in_the_middle_of_a_transfer") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rig = on_small_disk(folder.path(), "size=2m").await;
    let live = site("live");
    rig.bring(&live).await.unwrap();
    rig.activate(Some(&live)).await.unwrap();
    let made = big(1024);
    let missing = rig.offer(&made).await.unwrap();
    // Somebody else takes the room that was there.
    std::fs::write(rig.at("filler"), vec![0; 1600 << 10]).unwrap();
    let pieces: Vec<_> = missing
        .iter()
        .flat_map(|number| {
            let content = &made.contents[*number as usize];
            (0..)
                .step_by(256 << 10)
                .zip(content.chunks(256 << 10))
                .map(|(offset, data)| crate::rig::piece(*number, offset, data))
        })
        .collect();
    let full = rig.contents(&made, pieces.clone()).await.unwrap_err();
    assert_eq!(full.code, Code::NoRoom, "{full:?}");
    rig.stage(&made).await.unwrap_err();
    rig.must_not_be_complete(&made);
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", live.digest)));
    rig.must_be_whole(&live);
    assert_eq!(
        rig.offer(&made).await.unwrap_err().code,
        Code::NoRoom,
        "the next offer says so before a byte is sent"
    );
    // Room again: it goes through.
    std::fs::remove_file(rig.at("filler")).unwrap();
    rig.offer(&made).await.unwrap();
    rig.contents(&made, pieces).await.unwrap();
    rig.stage(&made).await.unwrap();
    rig.must_be_whole(&made);
}

#[tokio::test]
async fn no_inodes_left() {
    if !in_own_mounts("full_disk::no_inodes_left") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rig = on_small_disk(folder.path(), "size=4m,nr_inodes=60").await;
    let live = site("live");
    rig.bring(&live).await.unwrap();
    rig.activate(Some(&live)).await.unwrap();
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let many = tree(&names.iter().map(|name| (name.as_str(), name.as_str())).collect::<Vec<_>>());
    assert_eq!(rig.offer(&many).await.unwrap_err().code, Code::NoRoom);
    // And where they run out between link and link.
    let next = site("next");
    rig.bring(&next).await.unwrap();
    let mut number = 0;
    while std::fs::write(rig.at(format!("filler-{number}")), "").is_ok() {
        number += 1;
    }
    let full = rig.activate(Some(&next)).await.unwrap_err();
    assert_eq!(full.code, Code::NoRoom, "{full:?}");
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", live.digest)));
    rig.must_be_whole(&live);
    for number in 0..4 {
        std::fs::remove_file(rig.at(format!("filler-{number}"))).unwrap();
    }
    rig.activate(Some(&next)).await.unwrap();
    assert_eq!(rig.link("current"), Some(format!("artifacts/{}", next.digest)));
}
