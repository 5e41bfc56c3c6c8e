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

/// Longest time for the second load balancer to follow the first.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether every load balancer leads a tenth of the visitors to green.
fn led_away(routes: &[String]) -> bool {
    routes.iter().all(|route| route.starts_with("be_blue:be_green:10:"))
}

/// The coordinator's entries of the canary's release are lost while a tenth of the visitors is on its slot, and a person accepts
/// what is left.
async fn accepted_in_the_middle_of_a_canary(site: &mut Site) {
    site.released("v1").await.unwrap();
    let known = entries(site);
    let mut client = site.client().unwrap();
    let digest = kit::publish(&mut client, &site.artifact("v2").unwrap()).await.unwrap();
    client.deploy(&digest, "v2").await.unwrap();
    client.follow("v2", |seen| seen.done("canary-1")).await.unwrap();
    let moved = kit::until("both load balancers lead them there", SOON, || async {
        led_away(&site.routes().await.ok()?).then_some(())
    });
    moved.await.unwrap();
    site.kill_coordinator().unwrap();
    // What is left knows that v2 began, and not that it moved anybody.
    let entry = known + 5;
    tamper(&site.journal(), &format!("UPDATE entry SET principal = 'somebody else' WHERE seq = {entry}"));
    let told = run(site, "salvage-journal");
    assert_eq!(told.code, 0, "{told:?}");
    site.start_coordinator().unwrap();
    site.coordinator_answers().await.unwrap();
    let told = site.cli(&["audit", "accept", "production", "--confirm", "production"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_canary_had_led_away_when_its_journal_was_accepted_a_rollback_leads_back() {
    let mut site =
        Site::builder().balancers(2).canary(&[10, 50], "60s").watch("300ms").start().await.unwrap();
    accepted_in_the_middle_of_a_canary(&mut site).await;
    assert!(led_away(&site.routes().await.unwrap()), "{:?}", site.routes().await);

    let named = "10 % of the visitors are on green, which no release accounts for; type `pointsman rollback production`";
    let v3 = site.artifact("v3").unwrap().display().to_string();
    let deploy = ["deploy", "production", "--artifact", &v3, "--release", "v3", "--yes", "--at-once"];
    // The journal says it too, also to the next coordinator, and where no load balancer can be asked.
    for balancers_answer in [true, false] {
        if !balancers_answer {
            site.kill_lb_agent().unwrap();
            site.kill(kit::Daemon::SecondLbAgent).unwrap();
            site.kill_coordinator().unwrap();
            site.start_coordinator().unwrap();
            site.coordinator_answers().await.unwrap();
        }
        let told = site.cli(&["status", "production"]).await.unwrap();
        assert!(told.stdout.lines().next().unwrap().contains(named), "{told:?}");
        let told = site.cli(&["status", "production", "-o", "json"]).await.unwrap();
        let document: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(document["unaccounted"], serde_json::json!({ "slot": "green", "percent": 10 }));
    }
    site.start_lb_agent().unwrap();
    site.start(kit::Daemon::SecondLbAgent, None).unwrap();
    site.ready().await.unwrap();
    let told = site.cli(&["doctor", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("10 % of the visitors are on `green`"), "{told:?}");
    let known = entries(&site);
    let told = site.cli(&deploy).await.unwrap();
    assert!(told.code != 0 && told.says("PM0707") && told.says("pointsman rollback production"), "{told:?}");
    assert_eq!(entries(&site), known, "nothing has begun");

    let before = site.world().await.unwrap();
    let load = kit::Load::start(site.frontend(), kit::LoadPlan::default()).unwrap();
    load.more(50).await.unwrap();
    let told = site.cli(&["rollback", "production", "--reason", "test"]).await.unwrap();
    assert!(told.code == 0 && told.says("every visitor of production is on blue"), "{told:?}");
    load.more(50).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
    let everybody = |route: &String| route.starts_with("be_blue:be_blue:0:");
    assert!(site.routes().await.unwrap().iter().all(everybody), "{:?}", site.routes().await);
    for frontend in site.frontends() {
        let met = kit::sides(frontend, "/index.html", &kit::ids(200)).await.unwrap();
        assert!(met.iter().all(|met| met.page == "<title>v1</title>"), "{met:?}");
    }
    let after = site.world().await.unwrap();
    assert_eq!(after.hosts, before.hosts, "it changes nothing on a web host");
    let (id, outcome) = after.releases[0].clone();
    assert_eq!(outcome, "confirmed");
    let books = kit::Books::read(&site).unwrap();
    let ordered = books.of(&id).filter(|fact| fact.event() == "order-intended");
    let ordered: Vec<String> =
        ordered.map(|fact| format!("{} {}", fact.text("step"), fact.text("host"))).collect();
    assert_eq!(ordered, ["preflight lb1", "preflight lb2", "switch lb1", "switch lb2"]);

    // It is done, and leads nowhere else.
    let told = site.cli(&["status", "production"]).await.unwrap();
    assert!(!told.says("no release accounts for"), "{told:?}");
    let told = site.cli(&["rollback", "production"]).await.unwrap();
    assert!(told.code != 0 && told.says("PM0706"), "{told:?}");
    let told = site.cli(&deploy).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(site.visit().await.unwrap().contains("\nv3\n"));
}
