//! The map file cannot be written: the route before stands, on disk and in the worker, and that is what is said.

use std::process::Command;

use pointsman_core::{Aftermath, Code};

use crate::rig::{P, Rig, V};

/// Runs a test again with mounts of its own, which end with it. Says whether this is that run.
pub fn in_own_mounts(test: &str) -> bool {
    if std::env::var_os("POINTSMAN_OWN_MOUNTS").is_some() {
        return true;
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
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

async fn refused(rig: &Rig) {
    let refused = rig.agent.set_route(P, V).await;
    println!("{refused:?}");
    rig.told_the_truth(V, &refused);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, Code::MapFileUnwritable);
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
    assert_eq!(rig.commands("set map"), 0);
    assert_eq!(
        refused.aftermath,
        Aftermath::Unchanged,
        "the old route stands on disk and in the worker: {refused:?}"
    );
}

#[tokio::test]
async fn the_temporary_file_cannot_be_written() {
    let rig = Rig::new().await;
    std::fs::create_dir(rig.agent.map.with_extension("map.tmp")).unwrap();
    refused(&rig).await;
    // And when the trouble is over, the same move succeeds.
    std::fs::remove_dir(rig.agent.map.with_extension("map.tmp")).unwrap();
    rig.agent.set_route(P, V).await.unwrap();
}

async fn mounted(options: &str, break_it: impl FnOnce(&std::path::Path)) {
    let rig = Rig::new().await;
    let folder = rig.agent.map.parent().unwrap().to_owned();
    let mount = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).arg(&folder).status().unwrap().success());
    };
    mount(&["-t", "tmpfs", "-o", options, "tmpfs"]);
    std::fs::write(&rig.agent.map, format!("route {P}\n")).unwrap();
    break_it(&folder);
    refused(&rig).await;
}

#[tokio::test]
async fn the_disk_is_full() {
    if in_own_mounts("full_disk::the_disk_is_full") {
        mounted("size=64k", |folder| drop(std::fs::write(folder.join("filler"), vec![0; 1 << 20]))).await;
    }
}

#[tokio::test]
async fn the_folder_is_read_only() {
    if in_own_mounts("full_disk::the_folder_is_read_only") {
        mounted("size=64k", |folder| {
            assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(folder).status().unwrap().success());
        })
        .await;
    }
}
