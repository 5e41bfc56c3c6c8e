//! Many rows, batch by batch.

use pointsman_core::{Aftermath, Code};
use pointsman_database::migrate;
use pointsman_migration::Phase;

use crate::kit::{Crew, Ground, set, soon_async};

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

/// Fails at a row of the sixth batch.
const FAILS: &str = "UPDATE t SET n = n + 1 + 0 / (id - 555)";

/// A file with the header and these statements.
fn cut(header: &str, statements: &str) -> String {
    format!("-- pointsman: {header}\n{statements}")
}

#[tokio::test]
async fn one_that_was_cut_short_is_ended_by_its_own_statement_and_by_no_other() {
    let ground = Ground::new(&format!("{T}; ALTER TABLE t ADD COLUMN k int; UPDATE t SET k = 2000 - id;
        ALTER TABLE t ALTER k SET NOT NULL, ADD UNIQUE (k); CREATE TABLE u AS SELECT id, 0 AS f FROM t; ALTER TABLE u ADD PRIMARY KEY (id)"));
    let begun = cut("batch=id:100", FAILS);
    let problem = ground.expand(&[("v1.0.0.sql", &begun)]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Changed));
    let told = "statement 1 of 1 failed with 22012: division by zero; the 500 rows that statement 1 has changed so far stand \
                and are recorded; the next try goes on after them";
    assert!(
        problem.message.ends_with(told) && problem.hint.contains("leave the statement as it is"),
        "{problem:?}"
    );
    let left = ground.status().await.leftovers;
    assert_eq!((left[0].done, left[0].batched, left[0].stands()), (0, Some(500), true));
    let counts = "SELECT n, count(*) FROM t GROUP BY n ORDER BY n";
    let standing = "0|500\n1|500";
    assert_eq!(ground.sql(counts), standing);
    let other = "UPDATE t SET n = n + 1000";
    for (header, statements) in [
        ("batch=id:100", other.to_owned()),
        ("batch=id:50", other.to_owned()),
        // The same change along another column: the saved key is none of it.
        ("batch=k:100", FAILS.to_owned()),
        // At another place: the saved key would be taken for the other table's.
        ("batch=id:100", format!("UPDATE u SET f = 42; {FAILS}")),
        ("batch=id:100", format!("UPDATE u SET f = 42; {other}")),
        // In one go.
        ("allow-rewrite", "UPDATE t SET n = n + 1".to_owned()),
    ] {
        let file = cut(header, &statements);
        let problem = ground.expand(&[("v1.0.0.sql", &file)]).await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::MigrationsUnfit, Aftermath::Changed), "{file}");
        let told = "v1.0.0.sql:2:1: batches of statement 1 have changed 500 rows in an earlier try";
        assert!(problem.message.starts_with(told), "{file}: {problem}");
        assert_eq!(ground.sql(counts), standing, "{file}");
        assert_eq!(ground.sql("SELECT sum(f) FROM u"), "0", "{file}");
        assert!(ground.status().await.records.is_empty(), "{file}");
    }
    // The row that it failed at is corrected, and its batches may be smaller.
    ground.sql("DELETE FROM t WHERE id = 555");
    ground.expand(&[("v1.0.0.sql", &cut("batch=id:7", &format!("-- why\n{FAILS}")))]).await.unwrap();
    assert_eq!(ground.sql(counts), "1|999");
    assert_eq!(ground.status().await.leftovers, []);
}

#[tokio::test]
async fn what_a_copy_did_binds_no_file() {
    let ground = Ground::new(T);
    let (copy, begun) = (ground.copy().await, cut("batch=id:100", FAILS));
    let (files, order) = (set(&[("v1.0.0.sql", &begun)]), ground.order(Phase::Expand));
    let rehearsed =
        migrate::rehearse(&ground.settings, &copy, &files, &order, &Crew(1), &ground.progress).await;
    let problem = rehearsed.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Unchanged));
    assert!(problem.message.ends_with("nothing of the file was applied"), "{problem}");
    assert!(problem.hint.starts_with("correct the file"), "{problem:?}");
}

#[tokio::test]
async fn a_way_down_that_was_cut_short_lets_nothing_go_forward() {
    let ground = Ground::new(T);
    let down = cut("batch=id:100", FAILS);
    let files = [
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.0.0.down.sql", down.as_str()),
        ("v1.1.0.sql", "CREATE TABLE u ()"),
    ];
    ground.expand(&files[..2]).await.unwrap();
    let problem = ground.down(&files[..2], "1.0.0").await.unwrap_err();
    assert_eq!(problem.aftermath, Aftermath::Changed, "{problem:?}");
    let problem = ground.expand(&files).await.unwrap_err();
    assert!(problem.message.contains("the down file of version 1.0.0 was begun"), "{problem}");
}

#[tokio::test]
async fn a_key_is_walked_by_its_value_however_the_database_shows_it() {
    let ground = Ground::new(
        "CREATE TABLE t (f float8 PRIMARY KEY, n int NOT NULL DEFAULT 0);
         INSERT INTO t SELECT 1 + i * 2.3e-16 FROM generate_series(1, 100) i",
    );
    ground.sql(&format!("ALTER DATABASE {} SET extra_float_digits = 0", ground.settings.name));
    ground.expand(&[("v1.0.0.sql", &cut("batch=f:7", "UPDATE t SET n = n + 1"))]).await.unwrap();
    assert_eq!(ground.sql("SELECT n, count(*) FROM t GROUP BY n"), "1|100");
}

#[tokio::test]
async fn a_file_that_was_begun_runs_under_no_other_version() {
    let ground = Ground::new(T);
    let begun = cut("batch=id:100", &format!("DELETE FROM t WHERE id > 990;\n{FAILS}"));
    ground.expand(&[("v1.0.0.sql", &begun)]).await.unwrap_err();
    let counts = "SELECT n, count(*) FROM t GROUP BY n ORDER BY n";
    assert_eq!(ground.sql(counts), "0|490\n1|500");
    ground.sql("DELETE FROM t WHERE id = 555");
    // Renamed, left away, and left away for a contract of the same version.
    let other = [("v1.1.0.sql", begun.as_str())];
    for files in [&other[..], &[("v1.1.0.sql", "CREATE TABLE u ()")], &[("v1.0.0.contract.sql", "SELECT 1")]]
    {
        let problem = ground.expand(files).await.unwrap_err();
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::MigrationsUnfit, Aftermath::Unchanged),
            "{files:?}"
        );
        let told = "v1.0.0.expand.sql:1:1: the expand file of version 1.0.0 was begun, is not finished, and is gone; \
                    1 statement stands, 500 rows that batches of statement 2 changed stand [begun-gone]";
        assert_eq!(problem.message, told, "{files:?}");
        assert_eq!(ground.sql(counts), "0|489\n1|500", "{files:?}");
    }
    ground.expand(&[("v1.0.0.sql", &begun), ("v1.1.0.sql", "CREATE TABLE u ()")]).await.unwrap();
    assert_eq!(ground.sql(counts), "1|989");
}

#[tokio::test]
async fn one_that_must_not_go_on_is_given_up_by_hand_and_another_begins_at_the_first_row() {
    let ground = Ground::new(T);
    ground.expand(&[("v1.0.0.sql", &cut("batch=id:100", FAILS))]).await.unwrap_err();
    // As `explain PM0330` says.
    ground.sql("DELETE FROM pointsman.backfill WHERE (version, phase, ordinal) = ('1.0.0', 'expand', 1)");
    ground.expand(&[("v1.0.0.sql", &cut("batch=id:100", "UPDATE t SET n = 7"))]).await.unwrap();
    assert_eq!(ground.sql("SELECT DISTINCT n FROM t"), "7");
}

#[tokio::test]
async fn a_statement_that_went_with_its_file_is_not_passed_over() {
    let ground = Ground::new(T);
    let two = format!("DELETE FROM t WHERE id > 990; {FAILS}");
    ground.expand(&[("v1.0.0.sql", &cut("batch=id:100", &two))]).await.unwrap_err();
    let one = cut("batch=id:100", "DELETE FROM t WHERE id > 990");
    let problem = ground.expand(&[("v1.0.0.sql", &one)]).await.unwrap_err();
    assert!(problem.message.starts_with("v1.0.0.sql: batches of statement 2 have"), "{problem}");
    assert!(ground.status().await.records.is_empty());
}

#[tokio::test]
async fn batches_of_records_that_do_not_tell_their_statement_are_nobodys() {
    let ground = Ground::new(T);
    let begun = cut("batch=id:100", FAILS);
    ground.expand(&[("v1.0.0.sql", &begun)]).await.unwrap_err();
    ground.sql(
        "ALTER TABLE pointsman.backfill DROP COLUMN token_hash, DROP COLUMN key; UPDATE pointsman.fence SET format = 2",
    );
    assert_eq!(ground.status().await.leftovers.len(), 1);
    let problem = ground.expand(&[("v1.0.0.sql", &begun)]).await.unwrap_err();
    assert!(problem.message.contains("an older pointsman did not note"), "{problem}");
}

#[tokio::test]
async fn a_key_may_have_any_name_that_sql_can_write() {
    for (column, header) in
        [("\"Id\"", "\"Id\""), ("schlüssel", "Schlüssel"), ("\"a \"\"b, c\"", "\"a \"\"b, c\"")]
    {
        let ground = Ground::new(&format!(
            "CREATE TABLE \"Bt\" ({column} int PRIMARY KEY, n int); INSERT INTO \"Bt\" SELECT generate_series(1, 1000), 0"
        ));
        let file = cut(&format!("batch={header}:300"), "UPDATE \"Bt\" AS b SET n = n + 1");
        ground.expand(&[("v1.0.0.sql", &file)]).await.unwrap();
        assert_eq!(
            ground.sql("SELECT n, count(*), count(DISTINCT xmin::text) FROM \"Bt\" GROUP BY n"),
            "1|1000|4"
        );
    }
}

#[tokio::test]
async fn a_key_whose_quotes_were_forgotten_is_named_with_them() {
    let ground = Ground::new("CREATE TABLE bt (\"Id\" int PRIMARY KEY, n int)");
    let file = cut("batch=Id:700", "UPDATE bt SET n = 1");
    let problem = ground.expand(&[("v1.0.0.sql", &file)]).await.unwrap_err();
    assert_eq!(problem.hint, "write its name as SQL does: `batch=\"Id\":700`");
}

#[tokio::test]
async fn rows_that_share_a_key_go_together_if_they_are_not_too_many() {
    let ground = Ground::new(
        "CREATE TABLE t (tenant int, id int, n int NOT NULL DEFAULT 0, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
         CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE tx PARTITION OF t DEFAULT;
         INSERT INTO t SELECT i % 9, i FROM generate_series(1, 900) i",
    );
    let batch = |rows: u32| cut(&format!("batch=tenant:{rows}"), "UPDATE t SET n = n + 1 WHERE id > 9");
    let problem = ground.expand(&[("v1.0.0.sql", &batch(9))]).await.unwrap_err();
    assert_eq!(
        (problem.code, problem.aftermath),
        (Code::MigrationsUnfit, Aftermath::Unchanged),
        "{problem:?}"
    );
    let told = "more than 90 rows of t share `tenant` = 0: a batch of 9 would hold them all";
    assert!(problem.message.contains(told), "{problem}");
    ground.expand(&[("v1.0.0.sql", &batch(30))]).await.unwrap();
    let (counts, batches) = (
        "SELECT n, count(*) FROM t GROUP BY n ORDER BY n",
        "SELECT count(DISTINCT xmin::text) FROM t WHERE n = 1",
    );
    assert_eq!((ground.sql(counts).as_str(), ground.sql(batches).as_str()), ("0|9\n1|891", "9"));
}

#[tokio::test]
async fn a_key_that_cannot_lead_is_refused() {
    let ground = Ground::new(T);
    for (file, found) in [
        ("-- pointsman: batch=n:100\nDELETE FROM t", "is not `NOT NULL` and the first column of an index"),
        ("-- pointsman: batch=nope:100\nUPDATE t SET n = 1", "no column"),
    ] {
        let problem = ground.expand(&[("v1.0.0.sql", file)]).await.unwrap_err();
        assert!(problem.code == Code::MigrationsUnfit && problem.message.contains(found), "{problem}");
    }
}
