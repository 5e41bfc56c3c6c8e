//! Whatever is killed in the middle of work on the database, it ends as it says: nothing is applied twice or half, the
//! database is never left shut, and visitors are never left with the page.

use std::path::Path;
use std::time::Duration;

use kit::{Client, Daemon, ENVIRONMENT, KillAt, Site};
use pointsman_proto::v1;
use v1::database_purpose::Work;
use v1::plan_request::Purpose;

const SOON: Duration = Duration::from_secs(60);

/// A site with v1 live and a table that it uses.
async fn with_v1() -> Site {
    let site = Site::builder().database().watch("300ms").start().await.unwrap();
    let seed = "CREATE TABLE schema_version (version text);
                CREATE TABLE features (id int PRIMARY KEY, name text NOT NULL);
                INSERT INTO features SELECT n, 'feature ' || n FROM generate_series(1, 500) n";
    site.database.as_ref().unwrap().sql(seed).unwrap();
    site.released("v1").await.unwrap();
    site
}

/// Starts a daemon anew that kills itself at a place, and has something begun; `None` if that is over and the daemon never
/// passed there, else the release and how it ended.
async fn struck(
    site: &mut Site,
    daemon: Daemon,
    kill_at: KillAt,
    plan: v1::PlanRequest,
) -> Option<(String, String)> {
    site.kill(daemon).unwrap();
    site.start(daemon, Some(kill_at)).unwrap();
    site.ready().await.unwrap();
    let release = site.client().unwrap().create(plan).await.unwrap();
    let mut over = None;
    let give_up = tokio::time::Instant::now() + SOON;
    while over.is_none() && !site.fell(daemon).unwrap() {
        assert!(
            tokio::time::Instant::now() < give_up,
            "{daemon:?} neither falls at {kill_at} nor is it over"
        );
        over = ended(site, &release).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !site.fell(daemon).unwrap() {
        assert_eq!(over.as_deref(), Some("confirmed"), "undisturbed");
        return None;
    }
    site.start(daemon, None).unwrap();
    site.ready().await.unwrap();
    let outcome = kit::until("the release ends", SOON, || {
        let site = &*site;
        let release = &release;
        async move { ended(site, release).await }
    });
    Some((release.clone(), outcome.await.unwrap()))
}

/// How a release ended, if it has.
async fn ended(site: &Site, release: &str) -> Option<String> {
    let mut client: Client = site.client().ok()?;
    let releases = client.releases().await.ok()?;
    let found =
        releases.into_iter().find(|found| found.plan.as_ref().is_some_and(|p| p.release == release))?;
    Some(found.outcome).filter(|outcome| !outcome.is_empty())
}

/// A deploy with the migrations of a folder.
async fn deploy(site: &Site, release: &str, folder: &Path) -> v1::PlanRequest {
    let mut client = site.client().unwrap();
    let artifact = kit::publish(&mut client, &site.artifact(release).unwrap()).await.unwrap();
    let migrations = kit::publish(&mut client, folder).await.unwrap();
    let purpose = v1::DeployPurpose { artifact, migrations, ..Default::default() };
    v1::PlanRequest { release: release.to_owned(), ..plan(Purpose::Deploy(purpose)) }
}

fn work(work: Work) -> v1::PlanRequest {
    plan(Purpose::Database(v1::DatabasePurpose { work: Some(work) }))
}

fn plan(purpose: Purpose) -> v1::PlanRequest {
    v1::PlanRequest { environment: ENVIRONMENT.to_owned(), purpose: Some(purpose), ..Default::default() }
}

/// Has something done, undisturbed.
async fn done(site: &Site, wanted: Work) {
    let mut client = site.client().unwrap();
    let release = client.create(work(wanted)).await.unwrap();
    client.confirmed(&release).await.unwrap();
}

/// Nothing lies about: no copies, no shut database, no page.
async fn tidy(site: &Site, when: &str) {
    let cluster = &site.database.as_ref().unwrap().cluster;
    let copies = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pointsman_verify%'";
    assert_eq!(cluster.psql("postgres", copies).unwrap(), "0", "{when}");
    assert!(site.visit().await.unwrap().starts_with("HTTP/1.1 200"), "{when}");
    let part = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
    let folder = std::fs::read_dir(site.database.as_ref().unwrap().backups()).unwrap();
    assert!(!folder.map(Result::unwrap).any(part), "{when}");
    let verified = site.cli(&["audit", "verify", ENVIRONMENT]).await.unwrap();
    assert_eq!(verified.code, 0, "{when}: {verified:?}");
}

/// The file of one version: what it does shows, and fails if it is done twice.
fn write_version(folder: &Path, number: usize) {
    let text = format!(
        "ALTER TABLE features ADD COLUMN c{number} int;\nCREATE INDEX CONCURRENTLY i{number} ON features (c{number});\n\
         UPDATE features SET name = name || '+' WHERE id = 1;\n"
    );
    std::fs::write(folder.join(format!("v1.{number}.0.sql")), text).unwrap();
}

/// Deploys a version whose daemon is killed, and checks what stands. Whether the daemon fell.
async fn migrates(site: &mut Site, number: usize, daemon: Daemon, kill_at: KillAt) -> bool {
    let folder = site.folder().join("migrations");
    std::fs::create_dir_all(&folder).unwrap();
    write_version(&folder, number);
    let wanted = deploy(site, &format!("r{number}"), &folder).await;
    let struck = struck(site, daemon, kill_at, wanted).await;
    let when = format!("{daemon:?} at {kill_at}");
    if let Some((release, outcome)) = &struck {
        assert_eq!(
            (release.as_str(), outcome.as_str()),
            (format!("r{number}").as_str(), "confirmed"),
            "{when}"
        );
    }
    let database = site.database.as_ref().unwrap();
    let stands =
        "SELECT (SELECT count(*) FROM pg_attribute WHERE attrelid = 'features'::regclass AND attname LIKE 'c%' AND attnum > 2),
                (SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text ~ '^i[0-9]+$'),
                (SELECT length(name) - length('feature 1') FROM features WHERE id = 1),
                (SELECT count(*) FROM pointsman.migration WHERE state = 'applied')";
    assert_eq!(database.sql(stands).unwrap(), format!("{number}|{number}|{number}|{number}"), "{when}");
    let backups = site.cli(&["db", "list", ENVIRONMENT, "-o", "json"]).await.unwrap();
    let backups: serde_json::Value = serde_json::from_str(&backups.stdout).unwrap();
    let of_release = |backup: &&serde_json::Value| backup["release"] == format!("r{number}");
    let of_release: Vec<_> = backups["backups"].as_array().unwrap().iter().filter(of_release).collect();
    assert_eq!(of_release.len(), 1, "{when}: {backups}");
    assert_eq!(of_release[0]["verified"], "restore-test", "{when}");
    tidy(site, &when).await;
    struck.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_at_every_order_of_a_release_with_migrations() {
    let mut site = with_v1().await;
    let mut number = 0;
    // Inspect, stage, backup, rehearse and expand; before and after each did what it does.
    for place in ["order-begun", "order-acted"] {
        for nth in 1.. {
            number += 1;
            if !migrates(&mut site, number, Daemon::Database, KillAt { place, nth }).await {
                assert!(nth > 4, "{place} is passed {nth} times");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_within_a_migration_of_the_live_database() {
    let mut site = with_v1().await;
    // The first time each is passed is in the rehearsal. Of the transactions there are two.
    let places = [
        ("migrate-intended", 4),
        ("migrate-commit", 3),
        ("migrate-committed", 3),
        ("migrate-outside-done", 2),
    ];
    for (number, (place, nth)) in (1..).zip(places) {
        assert!(migrates(&mut site, number, Daemon::Database, KillAt { place, nth }).await, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_around_the_orders_of_a_release_with_migrations() {
    let mut site = with_v1().await;
    // Three orders of the preflight and two of the stage go before those of the backup, the rehearsal and the migration.
    for (number, nth) in (1..).zip([6, 7, 8]) {
        assert!(
            migrates(&mut site, number, Daemon::Coordinator, KillAt { place: "order-before-send", nth })
                .await
        );
    }
    for (number, nth) in (4..).zip([6, 7, 8]) {
        assert!(
            migrates(&mut site, number, Daemon::Coordinator, KillAt { place: "order-after-answer", nth })
                .await
        );
    }
}

/// Swaps a restored backup in while a daemon is killed. Whoever is live then, it is whole, open and visited.
async fn swaps(site: &mut Site, daemon: Daemon, kill_at: KillAt) {
    let when = format!("{daemon:?} at {kill_at}");
    done(site, Work::Backup(v1::BackupWork {})).await;
    let listed = site.cli(&["db", "list", ENVIRONMENT, "-o", "json"]).await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let backup = listed["backups"][0]["id"].as_str().unwrap().to_owned();
    let sql = |text: &str| site.database.as_ref().unwrap().sql(text).unwrap();
    sql("UPDATE features SET name = 'damaged' WHERE id <= 7");
    done(site, Work::Restore(v1::RestoreWork { backup: backup.clone() })).await;
    let swap = work(Work::Swap(v1::SwapWork { backup: backup.clone(), accept_loss: 7 }));
    let struck = struck(site, daemon, kill_at, swap).await;
    assert!(struck.is_some(), "{when}: it never passed there");
    let (release, outcome) = struck.unwrap();
    let sql = |text: &str| site.database.as_ref().unwrap().sql(text).unwrap();
    let damaged = sql("SELECT count(*) FROM features WHERE name = 'damaged'");
    let expected = if outcome == "confirmed" { "0" } else { "7" };
    assert_eq!(damaged, expected, "{when}: release `{release}` ended {outcome}");
    assert_eq!(sql("SELECT count(*) FROM features"), "500", "{when}");
    tidy(site, &when).await;
    done(site, Work::Settle(v1::SettleWork { backup })).await;
    sql("UPDATE features SET name = 'feature ' || id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_killed_within_a_swap() {
    let mut site = with_v1().await;
    for place in
        ["swap-intended", "swap-shut", "swap-cleared", "swap-renamed", "swap-committed", "swap-opened"]
    {
        swaps(&mut site, Daemon::Database, KillAt { place, nth: 1 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_killed_within_a_swap() {
    let mut site = with_v1().await;
    // Counting again, leading visitors away, waiting for the last of them, the swap, leading them back.
    for nth in 1..=5 {
        swaps(&mut site, Daemon::Coordinator, KillAt { place: "order-before-send", nth }).await;
        swaps(&mut site, Daemon::Coordinator, KillAt { place: "order-after-answer", nth }).await;
    }
}
