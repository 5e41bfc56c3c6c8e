//! Real input: two successive versions of published packages, released one after the other, compared byte by byte.
//! Only a missing npm, or one without its registry, skips them; scripts/test.sh says so beforehand.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use kit::{Site, tree};

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Fetches a version of a package and unpacks it.
fn unpacked(package: &str, version: &str, into: &Path) -> Result<PathBuf> {
    let folder = into.join(format!("{package}-{version}"));
    std::fs::create_dir_all(&folder)?;
    let name = format!("{package}@{version}");
    run(Command::new("npm").args(["pack", "--silent", &name, "--pack-destination"]).arg(&folder))?;
    let archive = folder.join(format!("{package}-{version}.tgz"));
    run(Command::new("tar")
        .args(["--extract", "--no-same-owner", "--file"])
        .arg(&archive)
        .arg("-C")
        .arg(&folder))?;
    Ok(folder.join("package"))
}

/// Whether packages can be had here.
fn npm_answers() -> bool {
    run(Command::new("npm").args(["view", "--silent", "katex@0.16.21", "version"])).is_ok()
}

async fn two_versions(package: &str, old: &str, new: &str) {
    if !npm_answers() {
        return;
    }
    let site = Site::builder().watch("300ms").start().await.unwrap();
    let old_folder = unpacked(package, old, site.folder()).unwrap();
    let new_folder = unpacked(package, new, site.folder()).unwrap();
    assert_eq!(site.release(&old_folder, old).await.unwrap(), "confirmed");
    assert_eq!(site.release(&new_folder, new).await.unwrap(), "confirmed");
    let files = tree::compare(&old_folder, &site.blue.live()).unwrap();
    assert!(files > 100, "{files} files");
    tree::compare(&new_folder, &site.green.live()).unwrap();
    validators_follow_contents(&site, &old_folder, &new_folder);
}

/// What did not change keeps its size and time, and with it the `ETag`; what changed has another.
fn validators_follow_contents(site: &Site, old: &Path, new: &Path) {
    let before = tree::validators(&site.blue.live()).unwrap();
    let after = tree::validators(&site.green.live()).unwrap();
    let (mut same, mut changed) = (0, 0);
    for (path, validator) in &after {
        let Some(earlier) = before.get(path) else { continue };
        let equal = std::fs::read(old.join(path)).unwrap() == std::fs::read(new.join(path)).unwrap();
        assert_eq!(validator == earlier, equal, "{}", path.display());
        if equal { same += 1 } else { changed += 1 }
    }
    assert!(same > 0 && changed > 0, "{same} files the same, {changed} changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn katex() {
    two_versions("katex", "0.16.21", "0.16.22").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openlayers() {
    two_versions("ol", "10.4.0", "10.5.0").await;
}
