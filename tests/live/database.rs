//! Releases that bring migrations, and the way back of a database: with a real PostgreSQL and real tools.

use std::path::{Path, PathBuf};

use kit::{ENVIRONMENT, Load, LoadPlan, Site, Told};

/// A site with v1 live and a table that it uses, as the seed of many sites has it.
async fn with_v1() -> Site {
    let site = Site::builder().database().watch("300ms").start().await.unwrap();
    let database = site.database.as_ref().unwrap();
    database
        .sql(
            "CREATE TABLE schema_version (version text PRIMARY KEY); INSERT INTO schema_version VALUES ('v1.0.0');
             CREATE TABLE features (id int PRIMARY KEY, name text NOT NULL);
             INSERT INTO features SELECT n, 'feature ' || n FROM generate_series(1, 500) n",
        )
        .unwrap();
    site.released("v1").await.unwrap();
    site
}

/// A folder with migrations.
fn migrations(site: &Site, files: &[(&str, &str)]) -> PathBuf {
    let folder = site.folder().join(format!("migrations-{}", files.len()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    folder
}

async fn deploy(site: &Site, release: &str, migrations: &Path) -> Told {
    let artifact = site.artifact(release).unwrap().display().to_string();
    let migrations = migrations.display().to_string();
    let words = [
        "deploy",
        ENVIRONMENT,
        "--artifact",
        &artifact,
        "--migrations",
        &migrations,
        "--release",
        release,
        "--yes",
    ];
    site.cli(&words).await.unwrap()
}

async fn listed(site: &Site) -> serde_json::Value {
    let told = site.cli(&["db", "list", ENVIRONMENT, "-o", "json"]).await.unwrap();
    serde_json::from_str(&told.stdout).unwrap()
}

/// Files that are there already when the first migration comes, and the one that comes.
const FIRST: (&str, &str) =
    ("v1.0.0.sql", "CREATE TABLE features (id int PRIMARY KEY, name text NOT NULL);\n");
const SECOND: (&str, &str) = (
    "v1.10.0.sql",
    "ALTER TABLE features ADD COLUMN colour text;\nCREATE TABLE layers (id int PRIMARY KEY, title text);\n",
);

#[tokio::test]
async fn a_release_with_a_migration_is_backed_up_rehearsed_and_applied_before_anybody_meets_it() {
    let site = with_v1().await;
    let told = deploy(&site, "v2", &migrations(&site, &[FIRST, SECOND])).await;
    assert_eq!(told.code, 0, "{told:?}");
    let database = site.database.as_ref().unwrap();
    assert_eq!(database.sql("SELECT count(colour) FROM features").unwrap(), "0");
    let versions =
        "SELECT string_agg(version || ' ' || state, ', ' ORDER BY version) FROM pointsman.migration";
    assert_eq!(database.sql(versions).unwrap(), "1.0.0 adopted, 1.10.0 applied");
    let known = "SELECT string_agg(version, ' ' ORDER BY version) FROM schema_version";
    assert!(database.sql(known).unwrap().contains("1.10.0"), "the site's own table is kept up");
    let backups = listed(&site).await;
    let backup = &backups["backups"][0];
    assert_eq!((backup["release"].as_str(), backup["verified"].as_str()), (Some("v2"), Some("restore-test")));
    let left = database
        .cluster
        .psql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'pointsman_verify%'");
    assert_eq!(left.unwrap(), "0", "copies are dropped");
    let again = deploy(&site, "v3", &migrations(&site, &[FIRST, SECOND])).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(
        listed(&site).await["backups"].as_array().unwrap().len(),
        1,
        "nothing pending, nothing backed up"
    );
    let id = backup["id"].as_str().unwrap();
    let beside = site.cli(&["db", "restore", ENVIRONMENT, "--backup", id]).await.unwrap();
    assert_eq!(beside.code, 0, "{beside:?}");
    assert!(beside.says("reach v1.0.0 in the backup and v1.10.0 in the live database"), "{beside:?}");
}

#[tokio::test]
async fn a_migration_that_fails_in_rehearsal_touches_neither_the_database_nor_visitors() {
    let site = with_v1().await;
    let bad = ("v1.10.0.sql", "CREATE UNIQUE INDEX CONCURRENTLY twice ON features ((1));\n");
    let told = deploy(&site, "v2", &migrations(&site, &[FIRST, bad])).await;
    assert_eq!(told.code, 1, "{told:?}");
    let database = site.database.as_ref().unwrap();
    assert_eq!(database.sql("SELECT to_regclass('twice') IS NULL").unwrap(), "t");
    assert!(site.visit().await.unwrap().contains("v1"));
}

#[tokio::test]
async fn a_migration_that_the_live_version_would_not_survive_is_refused_with_its_place() {
    let site = with_v1().await;
    let breaks = ("v1.10.0.sql", "ALTER TABLE features\n  RENAME COLUMN name TO title;\n");
    let told = deploy(&site, "v2", &migrations(&site, &[FIRST, breaks])).await;
    assert_eq!(told.code, 4, "{told:?}");
    assert!(told.says("PM0362") && told.says("v1.10.0.sql:"), "{told:?}");
    assert!(listed(&site).await["backups"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_beside_and_swapped_in_only_with_its_loss_accepted_and_back_again() {
    let site = with_v1().await;
    let taken = site.cli(&["db", "backup", ENVIRONMENT]).await.unwrap();
    assert_eq!(taken.code, 0, "{taken:?}");
    let database = site.database.as_ref().unwrap();
    database
        .sql("UPDATE features SET name = 'damaged' WHERE id <= 7; DELETE FROM features WHERE id > 497")
        .unwrap();
    let backups = listed(&site).await;
    let id = backups["backups"][0]["id"].as_str().unwrap().to_owned();
    let beside = site.cli(&["db", "restore", ENVIRONMENT, "--backup", &id]).await.unwrap();
    assert_eq!(beside.code, 0, "{beside:?}");
    assert!(beside.says("10 rows"), "7 changed and 3 deleted: {beside:?}");
    let damaged = "SELECT count(*) FROM features WHERE name = 'damaged'";
    assert_eq!(database.sql(damaged).unwrap(), "7", "the live database is untouched");
    let swap = |rows: &'static str| {
        let (site, id) = (&site, id.clone());
        async move {
            let words = [
                "db",
                "restore",
                ENVIRONMENT,
                "--backup",
                &id,
                "--accept-loss",
                rows,
                "--confirm",
                ENVIRONMENT,
            ];
            site.cli(&words).await.unwrap()
        }
    };
    // Whoever comes meanwhile waits for it, and is served then.
    let plan = LoadPlan { keep_alive: 4, fresh: 2, ..LoadPlan::default() };
    let load = Load::start(site.frontend(), plan).unwrap();
    load.more(20).await.unwrap();
    let before = site.routes().await.unwrap();
    let refused = swap("9").await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.says("PM0314") && refused.says("10 rows"), "{refused:?}");
    assert!(refused.says("features 10 (0 new, 7 changed, 3 deleted); compared"), "{refused:?}");
    assert_eq!(site.routes().await.unwrap(), before, "nobody was led away for it");
    assert_eq!(database.sql(damaged).unwrap(), "7");
    let swapped = swap("10").await;
    assert_eq!(swapped.code, 0, "{swapped:?}");
    assert!(swapped.says("lift") && swapped.says("be_hold"), "{swapped:?}");
    load.more(20).await.unwrap();
    assert_eq!(load.stop().unwrap().failures(), Vec::<String>::new());
    let doctor = site.cli(&["doctor", ENVIRONMENT]).await.unwrap();
    assert!(doctor.says("checks of the database pass") && !doctor.says("superuser"), "{doctor:?}");
    assert_eq!(database.sql("SELECT count(*) FROM features WHERE name <> 'damaged'").unwrap(), "500");
    database.sql("UPDATE features SET name = 'since' WHERE id = 1").unwrap();
    let undo = ["db", "restore", ENVIRONMENT, "--backup", &id, "--undo", "--confirm", ENVIRONMENT];
    let before = site.routes().await.unwrap();
    let refused = site.cli(&undo).await.unwrap();
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.says("PM0314") && refused.says("--accept-loss 1"), "{refused:?}");
    assert_eq!(site.routes().await.unwrap(), before, "nobody was led away for it");
    let undone = site.cli(&[&undo[..], &["--accept-loss", "1"]].concat()).await.unwrap();
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(database.sql(damaged).unwrap(), "7");
    let before = site.routes().await.unwrap();
    let again = site.cli(&undo).await.unwrap();
    assert!(again.code == 4 && again.says("PM0312"), "{again:?}");
    assert_eq!(site.routes().await.unwrap(), before, "nobody was led away for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_version_is_taken_back_by_its_down_file_once_visitors_are_led_back() {
    let site = with_v1().await;
    let down = ("v1.10.0.down.sql", "ALTER TABLE features DROP COLUMN colour;\nDROP TABLE layers;\n");
    let folder = migrations(&site, &[FIRST, SECOND, down]);
    let told = deploy(&site, "v2", &folder).await;
    assert_eq!(told.code, 0, "{told:?}");
    let back = site.cli(&["rollback", ENVIRONMENT]).await.unwrap();
    assert_eq!(back.code, 0, "{back:?}");
    let folder = folder.display().to_string();
    let take_back = |version: &'static str| {
        let words = ["db", "down", ENVIRONMENT, version, "--migrations", &folder, "--confirm", ENVIRONMENT];
        let words: Vec<String> = words.map(str::to_owned).to_vec();
        let site = &site;
        async move { site.cli(&words.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap() }
    };
    let older = take_back("1.0.0").await;
    assert!(older.code != 0 && older.says("PM0343") && older.says("v1.10.0"), "{older:?}");
    let told = take_back("v1.10.0").await;
    assert_eq!(told.code, 0, "{told:?}");
    let database = site.database.as_ref().unwrap();
    assert_eq!(database.sql("SELECT to_regclass('layers') IS NULL").unwrap(), "t");
    let known = "SELECT string_agg(version, ' ' ORDER BY version) FROM schema_version";
    assert_eq!(database.sql(known).unwrap(), "v1.0.0");
    assert_eq!(
        listed(&site).await["backups"].as_array().unwrap().len(),
        2,
        "it is backed up before that too"
    );
    let again = deploy(&site, "v3", Path::new(&folder)).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(database.sql("SELECT count(colour) FROM features").unwrap(), "0", "and forward again");
}
