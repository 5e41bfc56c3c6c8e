//! Backups of a real database: taken, found again, checked, kept.

mod kit;

use kit::{Place, rule, until};
use pointsman_core::Code;
use pointsman_database::backup::{self, Format};
use pointsman_database::{BackupFormat, Progress, VerifyLevel, preflight, scratch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_once_for_a_release_and_restores_to_the_same() {
    let place = Place::new();
    let findings = preflight::look(&place.settings).await;
    preflight::judge(&findings).unwrap();
    let taken = place.take("r1").await.unwrap();
    assert!(!taken.already);
    assert_eq!((taken.fault.as_deref(), taken.verified), (None, Some(VerifyLevel::Digest)));
    assert_eq!(taken.schema_version.as_deref(), Some("1.10.0"));
    assert_eq!(taken.rows, 3000 + 500 + 2 + 1 + 1);
    let again = place.take("r1").await.unwrap();
    assert!(again.already);
    assert_eq!(again.id, taken.id);
    let other = place.take("r2").await.unwrap();
    assert_ne!(other.id, taken.id);
    assert_eq!(backup::list(&place.settings).await.unwrap().len(), 2);

    let verified = place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    assert_eq!(verified.backup.verified, Some(VerifyLevel::RestoreTest));
    assert!(!place.databases().contains("pointsman_verify_"));
    // A shallower check later does not take the deeper mark away.
    let read = place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    assert_eq!(read.backup.verified, Some(VerifyLevel::RestoreTest));
    let sum = std::process::Command::new("sha256sum")
        .current_dir(&place.settings.backup.dir)
        .args(["--check", &format!("{}.sha256", taken.id)])
        .output()
        .unwrap();
    assert!(sum.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_for_a_rehearsal_is_kept_and_found_when_it_is_left_over() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    assert_eq!(place.sql_in(&copy.database, "SELECT count(*) FROM features"), "3000");
    assert_eq!(place.sql_in(&copy.database, "SELECT count(*) FROM spatial_ref_sys WHERE srid = 990001"), "1");
    // What only looks like ours stays.
    place.sql_in("postgres", "CREATE DATABASE pointsman_verify_0123456789abcdef");
    let dropped = scratch::drop_left_over(&place.settings).await.unwrap();
    assert_eq!(dropped, [copy.database.clone()]);
    assert!(place.databases().contains("pointsman_verify_0123456789abcdef"));
    place.sql_in("postgres", "DROP DATABASE pointsman_verify_0123456789abcdef");
    assert!(scratch::drop_left_over(&place.settings).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_format_is_what_the_old_commands_read() {
    let mut place = Place::new();
    place.settings.backup.format = BackupFormat::SqlGz;
    let taken = place.take("r1").await.unwrap();
    let second = place.take("r2").await.unwrap();
    assert_eq!(second.id, format!("{}-2", taken.id));
    assert!(taken.file.starts_with("pre-migration-") && taken.file.ends_with(".sql.gz"));
    assert_eq!(taken.file.len(), "pre-migration-20240115.sql.gz".len());
    place.sql_in("postgres", "CREATE DATABASE seed_target");
    let command =
        format!("gunzip < {} | psql -X -q -v ON_ERROR_STOP=1 -d seed_target", place.dump(&taken).display());
    let mut shell = place.cluster.client("psql", "postgres", "seed_target");
    let environment: Vec<_> = shell.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
    shell = std::process::Command::new("/bin/sh");
    let ran = shell.env_clear().envs(environment).args(["-c", &command]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(place.sql_in("seed_target", "SELECT count(*) FROM features"), "3000");
    place.sql_in("postgres", "DROP DATABASE seed_target");
    let verified = place.verify(&taken.id, VerifyLevel::Read).await.unwrap();
    assert_eq!(verified.backup.verified, Some(VerifyLevel::Read));
    let manifest =
        std::fs::read(place.settings.backup.dir.join(format!("{}.manifest.json", taken.id))).unwrap();
    let manifest: backup::Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.format, Format::SqlGz);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_leaves_nothing_behind() {
    let place = Place::new();
    // A lock that pg_dump waits for keeps it in the middle.
    let mut blocker = place.cluster.client("psql", "postgres", &place.settings.name);
    let mut blocker =
        blocker.args(["-X", "-q", "-c", "BEGIN; LOCK TABLE features; SELECT pg_sleep(60)"]).spawn().unwrap();
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'features'::regclass AND NOT granted";
    {
        until("the lock", || {
            let held = "SELECT count(*) FROM pg_locks WHERE relation = 'features'::regclass AND granted";
            (place.sql(held) != "0").then_some(())
        })
        .await;
        let order = place.order("r1");
        let (authority, progress) = (rule(), Progress::default());
        let taking = backup::take(&place.settings, &order, &authority, &progress);
        tokio::select! {
            _ = taking => panic!("it did not wait"),
            () = until("a waiting dump", || (place.sql(waiting) != "0").then_some(())) => {}
        }
    }
    until("the end of pg_dump", || (place.sql(waiting) == "0").then_some(())).await;
    assert_eq!(place.files(), Vec::<String>::new());
    blocker.kill().unwrap();
    blocker.wait().unwrap();
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()");
    place.take("r1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overtaken_coordinator_takes_nothing() {
    let place = Place::new();
    let authority = rule();
    authority.over.store(true, std::sync::atomic::Ordering::SeqCst);
    let taken = backup::take(&place.settings, &place.order("r1"), &authority, &Progress::default()).await;
    assert_eq!(taken.unwrap_err().code, Code::Fenced);
    assert_eq!(place.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_waits_for_other_work_and_names_it() {
    let place = Place::new();
    let held =
        pointsman_database::guard::Guard::take(&place.settings, std::time::Duration::ZERO).await.unwrap();
    let refused = pointsman_database::guard::Guard::take(&place.settings, std::time::Duration::ZERO).await;
    let problem = refused.err().unwrap();
    assert_eq!(problem.code, Code::DatabaseBusy);
    assert!(problem.causes[0].contains("pointsman-guard"), "{problem:?}");
    drop(held);
    let within = std::time::Duration::from_secs(20);
    pointsman_database::guard::Guard::take(&place.settings, within).await.unwrap();
}
