//! The watch cancels our own statement when somebody waits for it too long.

use pointsman_core::{Aftermath, Code};
use pointsman_migration::Phase;

use crate::kit::{Ground, soon_async};

const T: &str = "CREATE TABLE t (id int); INSERT INTO t VALUES (1)";
/// Holds its lock until it is cancelled: nothing here takes ten minutes.
const HOLDS: &str = "ALTER TABLE t ADD COLUMN c int; SELECT pg_sleep(600)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_stalls_a_visitor_is_cancelled_and_nothing_stands() {
    let ground = Ground::new(T);
    let before = ground.contents();
    let visitor = ground.client("visitor", "app").await;
    let mut order = ground.order(Phase::Expand);
    order.max_stall_ms = 200;
    let visit = async {
        soon_async(async || {
            ground.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pointsman-migrate' AND query LIKE '%pg_sleep%' AND datname = current_database()") != "0"
        })
        .await;
        visitor.query_one("SELECT id FROM t", &[]).await.unwrap().get::<_, i32>(0)
    };
    let files = [("v1.0.0.sql", HOLDS)];
    let (ran, seen) = tokio::join!(ground.run(&files, &order), visit);
    assert_eq!(seen, 1);
    let problem = ran.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StallStopped, Aftermath::Unchanged));
    assert!(
        problem.message.contains("1 sessions waited") && problem.message.contains("200 ms are allowed"),
        "{problem}"
    );
    assert_eq!(ground.contents(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_that_waits_stalls_nobody_and_cancels_nothing() {
    let ground = Ground::new("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 1000)");
    let owner = ground.client("admin", "pointsman").await;
    // An index build waits for this transaction, and a vacuum waits for the build.
    let old = ground.client("old", "app").await;
    old.batch_execute("BEGIN; INSERT INTO t VALUES (0)").await.unwrap();
    let mut order = ground.order(Phase::Expand);
    order.max_stall_ms = 200;
    let files = [("v1.0.0.sql", "CREATE INDEX CONCURRENTLY t_id ON t (id)")];
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let other = async {
        soon_async(async || ground.sql(waits) == "1").await;
        let vacuum = tokio::spawn(async move { owner.batch_execute("VACUUM t").await });
        soon_async(async || ground.sql(waits) == "2").await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        old.batch_execute("COMMIT").await.unwrap();
        vacuum.await.unwrap().unwrap();
    };
    let (ran, ()) = tokio::join!(ground.run(&files, &order), other);
    assert_eq!(ran.unwrap().applied.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_outside_does_not_wait_for_ever_and_names_whom_it_waits_for() {
    let ground = Ground::new(T);
    let old = ground.client("old-report", "app").await;
    old.batch_execute("BEGIN; INSERT INTO t VALUES (0)").await.unwrap();
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 500;
    let files = [("v1.0.0.sql", "CREATE INDEX CONCURRENTLY t_id ON t (id)")];
    let problem = ground.run(&files, &order).await.unwrap_err();
    assert_eq!(problem.code, Code::LockNotHad);
    assert!(problem.message.contains("old-report"), "{problem}");
    old.batch_execute("COMMIT").await.unwrap();
    order.lock_budget_ms = 30_000;
    ground.run(&files, &order).await.unwrap();
    assert_eq!(ground.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_id'::regclass"), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_nobody_can_watch_does_not_go_on() {
    let ground = Ground::new(T);
    let before = ground.contents();
    let blind = async {
        soon_async(async || {
            ground.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND application_name = 'pointsman-migrate' AND datname = current_database()") != "0"
        })
        .await;
        ground.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pointsman-watch' AND datname = current_database()");
    };
    let files = [("v1.0.0.sql", HOLDS)];
    let (ran, ()) = tokio::join!(ground.expand(&files), blind);
    let problem = ran.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::SessionLost, Aftermath::Unknown));
    // The next try ends what was left.
    let ran = ground.expand(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    assert_eq!(ran.applied.len(), 1);
    assert_ne!(ground.contents(), before);
}
