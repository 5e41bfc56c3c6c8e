//! Whether the journal can be trusted is told by the coordinator that uses it, by its agents, and offline.

use std::path::{Path, PathBuf};
use std::process::Command;

use kit::{Site, Told, binary};
use rusqlite::Connection;

const VERIFY: [&str; 3] = ["audit", "verify", "production"];

/// Verifies the journal beside the coordinator, or without it.
fn offline(site: &Site) -> Told {
    run(site, "verify-journal")
}

fn run(site: &Site, verb: &str) -> Told {
    let mut command = Command::new(binary("pointsman-coordinator").unwrap());
    command.arg(verb).arg("--config").arg(site.folder().join("coordinator/coordinator.toml"));
    command.output().unwrap().into()
}

fn entries(site: &Site) -> u64 {
    let journal = Connection::open(site.journal()).unwrap();
    let count: i64 = journal.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
    u64::try_from(count).unwrap()
}

/// Does what the triggers forbid, and leaves no other trace of it.
fn tamper(journal: &Path, sql: &str) {
    let journal = Connection::open(journal).unwrap();
    let triggers: Vec<String> = journal
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(triggers.len(), 2);
    journal.execute_batch("DROP TRIGGER entry_stays; DROP TRIGGER entry_kept").unwrap();
    journal.execute_batch(sql).unwrap();
    journal.execute_batch(&triggers.join(";")).unwrap();
}

/// The journal's files, as a backup of them would be.
fn files_of(journal: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", journal.display())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_whole() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.released("v2").await.unwrap();
    // Whoever may look may verify.
    let told = site.cli_as("screen", &VERIFY).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("the journal can be trusted"), "{told:?}");
    assert_eq!(told.stdout.matches("agrees up to entry").count(), 3, "{told:?}");

    let told = site.cli(&[&VERIFY[..], &["-o", "json"]].concat()).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told.code, &document["kind"]), (0, &"audit".into()));
    assert_eq!(document["entries"], entries(&site));
    assert!(document["first_at_ms"].as_u64().unwrap() < document["last_at_ms"].as_u64().unwrap());

    let told = offline(&site);
    assert_eq!(told.code, 0, "beside a running coordinator: {told:?}");
    assert!(told.stdout.contains(&format!("{} entries", entries(&site))), "{told:?}");

    // Unknown is not well.
    site.green.kill_agent().unwrap();
    let told = site.cli(&VERIFY).await.unwrap();
    assert_eq!(told.code, 4, "{told:?}");
    assert!(told.stdout.contains("? unknown green") && told.stdout.contains("PM0501"), "{told:?}");
    assert!(!told.stdout.contains("can be trusted"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_entry_is_named() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    // While the coordinator runs, and has read the journal long ago.
    tamper(&site.journal(), "UPDATE entry SET principal = 'somebody else' WHERE seq = 7");
    let told = site.cli(&VERIFY).await.unwrap();
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.stdout.contains("[PM0703] journal entry 7 was changed"), "{told:?}");
    assert!(told.stdout.contains("the journal cannot be trusted"), "{told:?}");

    site.kill_coordinator().unwrap();
    let told = offline(&site);
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.stdout.contains("[PM0703] journal entry 7 was changed"), "{told:?}");
    assert!(told.stdout.contains("only its first 6 entries"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_knows_of_a_lost_end() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    site.kill_coordinator().unwrap();
    let old: Vec<_> = files_of(&site.journal()).iter().map(|file| std::fs::read(file).ok()).collect();
    site.start_coordinator().unwrap();
    site.ready().await.unwrap();
    site.released("v2").await.unwrap();
    site.kill_coordinator().unwrap();
    for (file, content) in files_of(&site.journal()).iter().zip(&old) {
        match content {
            Some(content) => std::fs::write(file, content).unwrap(),
            None if file.exists() => std::fs::remove_file(file).unwrap(),
            None => {}
        }
    }
    let told = offline(&site);
    assert_eq!(told.code, 0, "nothing in the file shows it: {told:?}");
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();

    let told = site.cli(&VERIFY).await.unwrap();
    assert_eq!(told.code, 6, "{told:?}");
    assert!(told.stdout.contains("that this journal does not have"), "{told:?}");
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert_eq!(told.code, 3, "{told:?}");
    for part in ["trouble", "nothing is ordered", "pointsman explain PM0"] {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let v3 = site.artifact("v3").unwrap().display().to_string();
    let words = ["deploy", "production", "--artifact", &v3, "--release", "v3", "--yes"];
    let told = site.cli(&words).await.unwrap();
    assert_ne!(told.code, 0, "{told:?}");
    assert!(told.says("PM0718") || told.says("PM0504"), "{told:?}");
    assert!(site.visit().await.unwrap().contains("v2"), "visitors keep what they have");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_salvaged_and_gone_on_with_when_a_person_says_so() {
    let mut site = Site::builder().watch("300ms").start().await.unwrap();
    site.released("v1").await.unwrap();
    let salvaged = entries(&site);
    site.released("v2").await.unwrap();
    let told = run(&site, "salvage-journal");
    assert!(told.code != 0 && told.says("PM0713"), "a coordinator runs on it: {told:?}");
    site.kill_coordinator().unwrap();
    let entry = salvaged + 1;
    tamper(&site.journal(), &format!("UPDATE entry SET principal = 'somebody else' WHERE seq = {entry}"));

    let told = run(&site, "salvage-journal");
    assert!(told.code == 0 && told.says(&format!("{salvaged} entries")), "{told:?}");
    assert!(told.says(&format!("journal entry {entry} ")) && told.says("journal.db.damaged-1"), "{told:?}");
    assert_eq!(offline(&site).code, 0);
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(told.code != 0 && (told.says("PM0718") || told.says("PM0504")), "{told:?}");
    let told = site.cli(&["audit", "accept", "production", "--confirm", "production"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv2\n"));
    site.released("v3").await.unwrap();
    let told = site.cli(&["history", "production"]).await.unwrap();
    assert!(told.says("v1") && told.says("v3"), "what was known before is gone: {told:?}");
}
