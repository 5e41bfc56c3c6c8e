//! Work on the database holds the environment, and gives way to a rollback: whether a person types it, or visitors fare badly
//! after the end of a release.

use kit::{Client, ENVIRONMENT, Load, LoadPlan, Site};
use std::time::Duration;

/// Longest that anything takes here.
const LONGEST: Duration = Duration::from_secs(60);

/// A site with v1 and v2 released, v2 watched on, and a backup under way: wherever it is restored for its verification an
/// index takes minutes.
async fn busy_site() -> (Site, tokio::process::Child) {
    let site = Site::builder().database().watching("after = \"10m\"").start().await.unwrap();
    let database = site.database.as_ref().unwrap();
    database
        .sql(
            "CREATE FUNCTION slow(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
               IF current_database() <> 'site' THEN PERFORM pg_sleep(60); END IF; RETURN id; END $$;
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
    let backup = site.cli_start(&["db", "backup", ENVIRONMENT]).unwrap();
    kit::until("the backup is being verified", LONGEST, || async {
        let restoring =
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX slowly%' AND state = 'active'";
        (database.sql(restoring).ok()? == "1").then_some(())
    })
    .await
    .unwrap();
    (site, backup)
}

/// v1 serves again, and the backup was stopped for it.
async fn gave_way(site: &Site, client: &mut Client, backup: &mut tokio::process::Child) {
    assert!(site.visit().await.unwrap().contains("v1"));
    let releases = client.releases().await.unwrap();
    let of = |purpose: &str| {
        let plans = releases
            .iter()
            .filter(|release| release.plan.as_ref().is_some_and(|plan| plan.purpose == purpose));
        plans.map(|release| release.outcome.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("db-backup"), ["aborted"]);
    assert_eq!(of("rollback"), ["confirmed"]);
    assert!(!backup.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_not_kept_waiting_by_a_backup() {
    let (site, mut backup) = busy_site().await;
    let other = site.cli(&["rollback", ENVIRONMENT, "--release", "v1"]).await.unwrap();
    assert!(other.code != 0 && other.says("`v2` is"), "{other:?}");
    let told = site.cli(&["rollback", ENVIRONMENT, "--release", "v2"]).await.unwrap();
    assert_eq!(told.code, 0, "{told:?}");
    gave_way(&site, &mut site.client().unwrap(), &mut backup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_watched_on_during_a_backup() {
    let (site, mut backup) = busy_site().await;
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
    gave_way(&site, &mut client, &mut backup).await;
}
