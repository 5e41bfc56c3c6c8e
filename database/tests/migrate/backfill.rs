//! Many rows, batch by batch.

use pointsman_core::Code;
use pointsman_migration::Phase;

use crate::kit::{Ground, soon_async};

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT generate_series(1, 1000)";
const FILE: (&str, &str) = ("v1.0.0.sql", "-- pointsman: batch=id:100\nUPDATE t SET n = n + 1 WHERE id > 5");

#[tokio::test]
async fn every_row_is_changed_once_in_transactions_of_a_batch() {
    let ground = Ground::new(T);
    ground.expand(&[FILE]).await.unwrap();
    assert_eq!(
        ground.sql("SELECT n, count(*), count(DISTINCT xmin::text) > 5 FROM t GROUP BY n ORDER BY n"),
        "0|5|f\n1|995|t"
    );
    assert!(ground.expand(&[FILE]).await.unwrap().already);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_one_goes_on_after_the_last_batch() {
    let ground = Ground::new(T);
    let visitor = ground.client("visitor", "app").await;
    visitor.batch_execute("BEGIN; UPDATE t SET n = n WHERE id = 555").await.unwrap();
    let stopping = async {
        soon_async(async || {
            ground.sql("SELECT CASE WHEN to_regclass('pointsman.backfill') IS NULL THEN '' ELSE 'there' END")
                == "there"
                && ground.sql("SELECT coalesce(max(last_key), '') FROM pointsman.backfill") == "500"
        })
        .await;
    };
    // Dropped in the middle, as when the agent's task ends.
    tokio::select! {
        ran = ground.expand(&[FILE]) => panic!("{ran:?}"),
        () = stopping => {}
    }
    visitor.batch_execute("COMMIT").await.unwrap();
    let order = ground.order(Phase::Expand);
    ground.run(&[FILE], &order).await.unwrap();
    assert_eq!(ground.sql("SELECT n, count(*) FROM t GROUP BY n ORDER BY n"), "0|5\n1|995");
}

#[tokio::test]
async fn a_key_that_cannot_lead_is_refused() {
    let ground = Ground::new(T);
    for (file, found) in [
        ("-- pointsman: batch=n:100\nDELETE FROM t", "not both unique"),
        ("-- pointsman: batch=nope:100\nUPDATE t SET n = 1", "no column"),
    ] {
        let problem = ground.expand(&[("v1.0.0.sql", file)]).await.unwrap_err();
        assert!(problem.code == Code::MigrationsUnfit && problem.message.contains(found), "{problem}");
    }
}
