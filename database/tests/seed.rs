//! What shell commands of a usual deployment document do with the same damages: they end well. And what is done here
//! instead. The commands are run as they are written in such documents.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use kit::{Place, rule};
use pointsman_database::{Progress, VerifyLevel, restore};

/// Runs a line of shell as an operator would. Returns whether it ended well, and what it said.
fn shell(place: &Place, line: &str) -> (bool, String) {
    let client = place.cluster.client("psql", "postgres", &place.settings.name);
    let environment: Vec<_> =
        client.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
    let output = std::process::Command::new("/bin/sh")
        .env_clear()
        .envs(environment)
        .current_dir(place.folder.path())
        .args(["-c", line])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_no_database_and_a_cut_one_end_well_by_hand() {
    let place = Place::new();
    assert!(shell(&place, "pg_dump no_such_database | gzip > none.sql.gz").0);
    assert!(shell(&place, "gzip -t none.sql.gz").0);
    assert_eq!(std::fs::metadata(place.folder.path().join("none.sql.gz")).unwrap().len(), 20);
    let cut = format!("pg_dump {} | head -c 100000 | gzip > cut.sql.gz", place.settings.name);
    assert!(shell(&place, &cut).0);
    assert!(shell(&place, "gzip -t cut.sql.gz").0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_backup_of_a_day_replaces_the_first_by_hand() {
    let place = Place::new();
    let line = format!("pg_dump {} | gzip > pre-migration-$(date +%Y%m%d).sql.gz", place.settings.name);
    assert!(shell(&place, &line).0);
    place.sql("TRUNCATE visits");
    assert!(shell(&place, &line).0);
    assert_eq!(place.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_by_hand_into_the_live_database_ends_well_and_mends_nothing() {
    let place = Place::new();
    let name = &place.settings.name;
    assert!(shell(&place, &format!("pg_dump {name} | gzip > /tmp/{name}.sql.gz")).0);
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    place.sql(&format!(
        "SET ROLE {name}_owner; UPDATE features SET name = 'broken' WHERE id <= 990;
         DELETE FROM features WHERE id > 2990; INSERT INTO features (name) VALUES ('new');
         CREATE TABLE half_done (n int);"
    ));
    let (well, said) = shell(&place, &format!("gunzip < /tmp/{name}.sql.gz | psql -q {name}"));
    std::fs::remove_file(format!("/tmp/{name}.sql.gz")).unwrap();
    assert!(well && said.contains("ERROR"));
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'broken'"), "990");
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE id BETWEEN 2991 AND 3000"), "0");
    assert_eq!(place.sql("SELECT count(*) FROM visits"), "1000");
    assert_eq!(place.sql("SELECT to_regclass('half_done') IS NOT NULL"), "t");
    let insert = place.cluster.psql(name, "INSERT INTO features (name) VALUES ('next')");
    assert!(insert.unwrap_err().to_string().contains("duplicate key"));

    restore::beside(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap();
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    restore::swap(&place.settings, &taken.id, loss.total(), &rule(), &Progress::default()).await.unwrap();
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'broken'"), "0");
    assert_eq!(place.sql("SELECT count(*) FROM features"), "3000");
    assert_eq!(place.sql("SELECT count(*) FROM visits"), "500");
    assert_eq!(place.sql("SELECT to_regclass('half_done') IS NULL"), "t");
    place.sql("INSERT INTO features (name) VALUES ('next')");
}
