//! Work on the database holds the environment, and gives way to a rollback: whether a person types it, or visitors fare badly
//! after the end of a release.

use kit::{Client, ENVIRONMENT, Load, LoadPlan, Site};
use std::time::Duration;

/// Longest that anything takes here.
const LONGEST: Duration = Duration::from_secs(60);

/// A site with v1 and v2 released, v2 watched on, and work on the database under way, a backup or a restore beside the live
/// one: outside of the live database an index takes minutes.
async fn busy_site(restores: bool) -> (Site, tokio::process::Child) {
    let site = Site::builder().database().watching("after = \"10m\"").start().await.unwrap();
    let database = site.database.as_ref().unwrap();
    database
        .sql(
            "CREATE FUNCTION slow(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
               IF current_database() <> 'site' AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'slow')
               THEN PERFORM pg_sleep(60); END IF; RETURN id; END $$;
             CREATE TABLE features (id int);
             INSERT INTO features SELECT generate_series(1, 10);
             CREATE INDEX slowly ON features (slow(id))",
        )
        .unwrap();
    site.released_unwatched("v1").await.unwrap();
    let mut client = site.client().unwrap();
    let artifact = site.artifact("v2").unwrap();
    let mut deploy = site
        .cli_start(&[
            "deploy",
            ENVIRONMENT,
            "--artifact",
            &artifact.display().to_string(),
            "--release",
            "v2",
            "--yes",
        ])
        .unwrap();
    kit::until("v2 is watched", LONGEST, || {
        let mut client = client.clone();
        async move { client.status().await.ok()?.release.filter(|release| release.watch_until_ms > 0) }
    })
    .await
    .unwrap();
    assert_eq!(site.cli(&["promote", ENVIRONMENT]).await.unwrap().code, 0);
    client.confirmed("v2").await.unwrap();
    assert!(deploy.wait().await.unwrap().success());
    let backup = if restores {
        assert_eq!(site.cli(&["db", "backup", ENVIRONMENT]).await.unwrap().code, 0);
        let list = site.cli(&["db", "list", ENVIRONMENT, "-o", "json"]).await.unwrap();
        let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
        let id = list["backups"][0]["id"].as_str().unwrap();
        database.cluster.psql("postgres", "CREATE ROLE slow").unwrap();
        site.cli_start(&["db", "restore", ENVIRONMENT, "--backup", id])
    } else {
        database.cluster.psql("postgres", "CREATE ROLE slow").unwrap();
        site.cli_start(&["db", "backup", ENVIRONMENT])
    };
    let backup = backup.unwrap();
    kit::until("the backup is being restored", LONGEST, || async {
        let restoring =
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX slowly%' AND state = 'active'";
        (database.cluster.psql("postgres", restoring).ok()? == "1").then_some(())
    })
    .await
    .unwrap();
    (site, backup)
}

/// v1 serves again, and the work was stopped for it.
async fn gave_way(site: &Site, client: &mut Client, work: &str, backup: &mut tokio::process::Child) {
    assert!(site.visit().await.unwrap().contains("v1"));
    let releases = client.releases().await.unwrap();
    let of = |purpose: &str| {
        let plans = releases
            .iter()
            .filter(|release| release.plan.as_ref().is_some_and(|plan| plan.purpose == purpose));
        plans.map(|release| release.outcome.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(work).first().map(String::as_str), Some("aborted"));
    assert_eq!(of("rollback"), ["confirmed"]);
    assert!(!backup.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_not_kept_waiting_by_a_restore() {
    let (site, mut restore) = busy_site(true).await;
    let other = site.cli(&["rollback", ENVIRONMENT, "--release", "v1"]).await.unwrap();
    assert!(other.code != 0 && other.says("`v2` is"), "{other:?}");
    let still = site.client().unwrap().status().await.unwrap().release.unwrap();
    assert_eq!(
        (still.plan.unwrap().purpose.as_str(), still.outcome.as_str()),
        ("db-restore", ""),
        "it goes on"
    );
    for asked in ["once", "and once more"] {
        let words = ["rollback", ENVIRONMENT, "--release", "v2", "--request-id", "job-7"];
        let told = site.cli(&words).await.unwrap();
        assert_eq!(told.code, 0, "{asked}: {told:?}");
    }
    gave_way(&site, &mut site.client().unwrap(), "db-restore", &mut restore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_watched_on_during_a_backup() {
    let (site, mut backup) = busy_site(false).await;
    let beside = site.client().unwrap().status().await.unwrap().watched_on.unwrap();
    assert_eq!(beside.plan.unwrap().release, "v2");
    let load = Load::start(site.frontend(), LoadPlan::default()).unwrap();
    site.green.fail_visitors(true).unwrap();
    let mut client = site.client().unwrap();
    kit::until("it goes back by itself", LONGEST, || {
        let mut client = client.clone();
        async move {
            let release = client.status().await.ok()?.release?;
            let rollback = release.plan.as_ref().is_some_and(|plan| plan.purpose == "rollback");
            (rollback && !release.outcome.is_empty()).then_some(())
        }
    })
    .await
    .unwrap();
    load.stop().unwrap();
    gave_way(&site, &mut client, "db-backup", &mut backup).await;
}
