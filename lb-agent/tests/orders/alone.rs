//! Tests that need something of the system for themselves: they run again in namespaces of their own, which end with them.

use std::process::Command;

/// Set in a run that has what it needs for itself.
const ALONE: &str = "POINTSMAN_ALONE";

/// Runs a test again with mounts of its own. Says whether this is that run.
pub fn in_own_mounts(test: &str) -> bool {
    again(test, &["--mount", "--propagation", "private"])
}

/// The same with a network of its own, where addresses come and go; there is loopback in it and nothing else.
pub fn in_own_network(test: &str) -> bool {
    let alone = again(test, &["--net"]);
    if alone {
        ip(&["link", "set", "lo", "up"]);
    }
    alone
}

pub fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().unwrap().success(), "ip {words:?}");
}

fn again(test: &str, namespaces: &[&str]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(namespaces).arg("--");
        command
    };
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if !root || !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped {test}: only root has namespaces, here {namespaces:?}");
        return false;
    }
    let run = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .status()
        .unwrap();
    assert!(run.success(), "{test} failed with {namespaces:?} of its own");
    false
}
