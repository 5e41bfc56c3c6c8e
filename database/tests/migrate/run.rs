//! What a run applies, and what stands when something in it fails.

use pointsman_core::{Aftermath, Code};
use pointsman_database::migrate::{self, RunOrder};
use pointsman_migration::Phase;

use crate::kit::{Crew, Ground, set};

const T: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT n, n FROM generate_series(1, 100) n";

#[tokio::test]
async fn files_run_in_the_order_of_versions_and_once() {
    let ground = Ground::new(T);
    let files = [
        (
            "v1.10.0.sql",
            "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN d int; UPDATE t SET d = c + 1",
        ),
        ("v1.9.0.sql", "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int; UPDATE t SET c = a"),
    ];
    let ran = ground.expand(&files).await.unwrap();
    let versions: Vec<_> = ran.applied.iter().map(|file| file.version.to_string()).collect();
    assert_eq!(versions, ["1.9.0", "1.10.0"]);
    assert!(!ran.already);
    assert_eq!(ground.sql("SELECT count(*) FROM t WHERE d = a + 1"), "100");
    let again = ground.expand(&files).await.unwrap();
    assert!(again.already && again.applied.is_empty());
    let status = ground.status().await;
    assert_eq!(status.schema_version.as_deref(), Some("1.10.0"));
    assert_eq!((status.records.len(), status.leftovers), (2, vec![]));
    // Every attempt has its end.
    assert_eq!(
        ground.sql("SELECT string_agg(DISTINCT outcome, ',') FROM pointsman.attempt WHERE state = 'done'"),
        "confirmed"
    );
}

#[tokio::test]
async fn what_a_policy_hides_from_the_owner_too_is_not_passed_over_in_silence() {
    let ground = Ground::new("");
    let (name, owner) = (&ground.settings.name, format!("{}_owner", ground.settings.name));
    let as_superuser = |sql: &str| ground.cluster.psql(name, sql).unwrap();
    as_superuser(&format!(
        "CREATE ROLE {owner}; GRANT {owner} TO pointsman; ALTER DATABASE {name} OWNER TO {owner};
         CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner}; CREATE TABLE shop.tenant (id int);
         INSERT INTO shop.tenant VALUES (1);
         ALTER TABLE shop.tenant ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.tenant FORCE ROW LEVEL SECURITY;"
    ));
    let hidden = [("v1.1.0.sql", "-- pointsman: allow-rewrite\nUPDATE shop.tenant SET id = 2")];
    let problem = ground.expand(&hidden).await.unwrap_err();
    assert!(problem.message.contains("row-level security"), "{problem}");
    assert_eq!(as_superuser("SELECT id FROM shop.tenant"), "1");
}

#[tokio::test]
async fn a_file_with_a_bad_statement_leaves_nothing_and_says_where() {
    let ground = Ground::new(T);
    let before = ground.contents();
    let file = "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int;\nUPDATE t\n   SET nope = 1;\nALTER TABLE t ADD COLUMN d int;";
    let problem = ground.expand(&[("migrations/v1.2.0.sql", file)]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Unchanged));
    assert_eq!(
        problem.message,
        "migrations/v1.2.0.sql:4:8: statement 2 of 3 failed with 42703: column \"nope\" of relation \"t\" does not exist; \
         nothing of the file was applied"
    );
    assert_eq!(ground.contents(), before);
    assert_eq!(ground.status().await.leftovers, vec![]);
    ground.expand(&[("migrations/v1.2.0.sql", &file.replace("nope", "c"))]).await.unwrap();
    assert_eq!(ground.sql("SELECT count(*) FROM t WHERE c = 1"), "100");
}

#[tokio::test]
async fn a_procedure_that_commits_is_told_what_to_write_instead() {
    let procedure = "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$BEGIN UPDATE t SET a = 0; COMMIT; END$$";
    let ground = Ground::new(&format!("{T}; {procedure}"));
    for header in ["", "-- pointsman: no-transaction\n"] {
        let problem = ground.expand(&[("v1.0.0.sql", &format!("{header}CALL p()"))]).await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Unchanged));
        assert!(
            problem.message.contains("2D000") && problem.hint.contains("batch=COLUMN:ROWS"),
            "{problem:?}"
        );
        assert_eq!(ground.sql("SELECT count(*) FROM t WHERE a = 0"), "0");
    }
}

#[tokio::test]
async fn deferred_constraints_are_checked_before_the_end() {
    let ground = Ground::new(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    let problem = ground.expand(&[("v1.0.0.sql", "INSERT INTO c VALUES (7)")]).await.unwrap_err();
    assert_eq!(problem.code, Code::StatementFailed);
    assert!(problem.message.contains("23503"), "{}", problem.message);
    assert_eq!(ground.sql("SELECT count(*) FROM c"), "0");
}

const MIXED: &str = "-- pointsman: allow-rewrite
ALTER TABLE t ADD COLUMN c int;
CREATE INDEX CONCURRENTLY t_a ON t (a);
UPDATE t SET c = 1;
UPDATE t SET nope = 1;";

#[tokio::test]
async fn what_stands_of_a_split_file_is_told_and_gone_on_from() {
    let ground = Ground::new(T);
    let problem = ground.expand(&[("v1.0.0.sql", MIXED)]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Changed));
    assert!(
        problem.message.ends_with("its statements 1 to 2 stand and are recorded, the rest was not applied"),
        "{problem}"
    );
    let leftovers = ground.status().await.leftovers;
    assert_eq!((leftovers[0].done, leftovers[0].trying), (2, None));
    // What stands may not be rewritten.
    let other = MIXED.replace("ADD COLUMN c int", "ADD COLUMN c bigint");
    let problem = ground.expand(&[("v1.0.0.sql", &other)]).await.unwrap_err();
    assert_eq!(problem.code, Code::MigrationsUnfit);
    // What was not applied may.
    let ran = ground.expand(&[("v1.0.0.sql", &MIXED.replace("nope", "c"))]).await.unwrap();
    assert_eq!(ran.applied[0].segments.len(), 1);
    assert_eq!(ground.sql("SELECT count(*) FROM t WHERE c = 1"), "100");
    assert_eq!(ground.status().await.leftovers, vec![]);
}

#[tokio::test]
async fn an_applied_file_that_changes_is_refused_and_its_comments_may() {
    let ground = Ground::new(T);
    ground.expand(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    let ran =
        ground.expand(&[("v1.0.0.sql", "-- licence\r\nalter table t\r\n  ADD COLUMN c int;")]).await.unwrap();
    assert!(ran.already && ran.notes[0].contains("comments"), "{ran:?}");
    let problem = ground.expand(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c bigint")]).await.unwrap_err();
    assert!(problem.code == Code::MigrationsUnfit && problem.message.contains("[drift]"), "{problem}");
}

#[tokio::test]
async fn a_version_below_the_current_one_runs_only_if_the_release_names_it() {
    let ground = Ground::new(T);
    let (new, late) =
        (("v2.0.0.sql", "ALTER TABLE t ADD COLUMN c int"), ("v1.5.0.sql", "ALTER TABLE t ADD COLUMN d int"));
    ground.expand(&[new]).await.unwrap();
    let problem = ground.expand(&[new, late]).await.unwrap_err();
    assert!(problem.code == Code::MigrationsUnfit && problem.message.contains("[out-of-order]"), "{problem}");
    let mut order = ground.order(Phase::Expand);
    order.out_of_order.push("1.5.0".parse().unwrap());
    ground.run(&[new, late], &order).await.unwrap();
    assert_eq!(ground.status().await.schema_version.as_deref(), Some("2.0.0"));
}

#[tokio::test]
async fn an_invalid_index_of_an_earlier_try_is_built_again() {
    let ground = Ground::new("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)");
    let by_hand = ground.cluster.psql_as(
        "pointsman",
        &ground.settings.name,
        "CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)",
    );
    assert!(by_hand.is_err());
    assert_eq!(ground.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass"), "f");
    ground.sql("DELETE FROM t; INSERT INTO t VALUES (1)");
    let ran = ground
        .expand(&[("v1.0.0.sql", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a)")])
        .await
        .unwrap();
    assert!(ran.notes[0].contains("was invalid: dropped"), "{:?}", ran.notes);
    assert_eq!(ground.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass"), "t");
}

#[tokio::test]
async fn an_index_that_cannot_be_built_leaves_no_invalid_one() {
    let ground = Ground::new("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)");
    let file = ("v1.0.0.sql", "CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)");
    let problem = ground.expand(&[file]).await.unwrap_err();
    assert!(problem.message.contains("23505"), "{problem}");
    assert!(problem.causes.iter().any(|cause| cause.contains("was dropped")), "{problem:?}");
    assert_eq!(ground.sql("SELECT to_regclass('t_a') IS NULL"), "t");
    ground.sql("DELETE FROM t");
    ground.expand(&[file]).await.unwrap();
}

#[tokio::test]
async fn an_index_that_a_file_made_before_it_was_corrected_is_not_taken_for_its_own() {
    let ground = Ground::new(T);
    ground.expand(&[("v1.0.0.sql", "CREATE TABLE u (id int)")]).await.unwrap();
    ground.sql("CREATE INDEX t_a ON t (id)");
    // As a crash leaves it between the end of the statement and its record.
    ground.sql("INSERT INTO pointsman.attempt (version, phase, ordinal, attempt, state, epoch, release, backend, token_hash)
                VALUES ('1.1.0', 'expand', 1, 1, 'intended', 1, 'r0', 0, '\\x00')");
    let files =
        [("v1.0.0.sql", "CREATE TABLE u (id int)"), ("v1.1.0.sql", "CREATE INDEX CONCURRENTLY t_a ON t (a)")];
    let problem = ground.expand(&files).await.unwrap_err();
    assert!(problem.message.contains("42P07"), "{problem}");
    ground.sql("DROP INDEX t_a");
    ground.expand(&files).await.unwrap();
    assert!(ground.sql("SELECT pg_get_indexdef('t_a'::regclass)").ends_with("(a)"));
}

#[tokio::test]
async fn a_way_down_that_was_begun_is_finished_before_anything_goes_forward() {
    let ground = Ground::new(T);
    let broken = ("v1.0.0.down.sql", "DROP INDEX CONCURRENTLY t_a;\nALTER TABLE t DROP COLUMN none");
    let files = [
        ("v1.0.0.sql", "CREATE INDEX CONCURRENTLY t_a ON t (a)"),
        broken,
        ("v1.1.0.sql", "CREATE TABLE u (id int)"),
    ];
    ground.expand(&files[..1]).await.unwrap();
    ground.down(&files[..2], "1.0.0").await.unwrap_err();
    let problem = ground.expand(&files).await.unwrap_err();
    assert!(
        problem.code == Code::MigrationsUnfit && problem.hint.contains("pointsman db down"),
        "{problem:?}"
    );
    let whole = ("v1.0.0.down.sql", "DROP INDEX CONCURRENTLY t_a;\nSELECT 1");
    ground.down(&[files[0], whole], "1.0.0").await.unwrap();
    assert_eq!(ground.expand(&[files[0], whole, files[2]]).await.unwrap().applied.len(), 2);
}

#[tokio::test]
async fn values_of_rows_are_not_told() {
    let ground = Ground::new(
        "CREATE TABLE people (id int PRIMARY KEY, mail text); INSERT INTO people VALUES (1, 'ada@example.org')",
    );
    let twice = [("v1.0.0.sql", "INSERT INTO people SELECT id, mail FROM people")];
    let problem = ground.expand(&twice).await.unwrap_err();
    assert_eq!(problem.causes, ["table `people`, constraint `people_pkey`"]);
    assert!(problem.message.contains("23505"), "{problem}");
}

#[tokio::test]
async fn what_a_failed_reindex_leaves_is_dropped() {
    let ground = Ground::new(
        "CREATE TABLE t (a int); INSERT INTO t VALUES (0), (1);
         CREATE FUNCTION over(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
         CREATE INDEX t_over ON t (over(a)); CREATE INDEX t_a ON t (a);
         CREATE OR REPLACE FUNCTION over(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / $1'",
    );
    let indexes = || {
        ground.sql("SELECT string_agg(indexrelid::regclass::text || indisvalid, ',' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 't'::regclass")
    };
    let before = indexes();
    let file = [("v1.0.0.sql", "REINDEX TABLE CONCURRENTLY t")];
    let problem = ground.expand(&file).await.unwrap_err();
    assert!(problem.message.contains("22012"), "{problem}");
    assert_eq!(indexes(), before);
    // One that was left by a process that is no more.
    let by_hand =
        ground.cluster.psql_as("pointsman", &ground.settings.name, "REINDEX INDEX CONCURRENTLY t_over");
    assert!(by_hand.is_err());
    assert_ne!(indexes(), before);
    ground.sql("DELETE FROM t WHERE a = 0");
    let ran = ground.expand(&[("v1.0.0.sql", "REINDEX INDEX CONCURRENTLY public.t_over")]).await.unwrap();
    assert!(ran.notes[0].contains("t_over_ccnew, invalid: dropped"), "{:?}", ran.notes);
    assert_eq!(indexes(), before);
}

#[tokio::test]
async fn a_contract_follows_its_expand_only() {
    let ground = Ground::new(T);
    let files = [
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.0.0.contract.sql", "ALTER TABLE t DROP COLUMN a"),
    ];
    let order = ground.order(Phase::Contract);
    let problem = ground.run(&files, &order).await.unwrap_err();
    assert_eq!(problem.code, Code::MigrationsUnfit);
    ground.expand(&files).await.unwrap();
    assert_eq!(ground.run(&files, &order).await.unwrap().applied.len(), 1);
    assert_eq!(ground.sql("SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped"), "id,c");
}

#[tokio::test]
async fn verify_files_look_after_the_run_and_change_nothing() {
    let ground = Ground::new(T);
    let expand = ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int");
    let problem = ground
        .expand(&[expand, ("v1.0.0.verify.sql", "SELECT true;\nSELECT c IS NOT NULL FROM t")])
        .await
        .unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::VerifyFailed, Aftermath::Changed));
    assert!(problem.message.starts_with("v1.0.0.verify.sql:2:1: statement 2: 100 of 100 rows"), "{problem}");
    // It is looked at again, because the release is the same.
    ground.sql("UPDATE t SET c = 1");
    assert!(
        ground.expand(&[expand, ("v1.0.0.verify.sql", "SELECT c IS NOT NULL FROM t")]).await.unwrap().already
    );
    let writes = ("v1.0.0.verify.sql", "DO $$ BEGIN DELETE FROM t; END $$");
    let problem = ground.expand(&[expand, writes]).await.unwrap_err();
    assert!(problem.message.contains("25006"), "{problem}");
    assert_eq!(ground.sql("SELECT count(*) FROM t"), "100");
}

/// The most memory that this process has had, in kB.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_verify_file_may_look_at_more_than_fits_into_memory() {
    const MB: u64 = 400;
    let ground = Ground::new("CREATE TABLE t (a int)");
    let looks = format!(
        "SELECT repeat('x', 1000000) FROM generate_series(1, {MB}); SELECT n < {MB} FROM generate_series(1, {MB}) n"
    );
    let before = peak_kb();
    let files = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"), ("v1.0.0.verify.sql", &looks)];
    let problem = ground.expand(&files).await.unwrap_err();
    // All of the first was read, and of the second.
    assert!(problem.message.contains("statement 2: 1 of 400 rows are not true"), "{problem}");
    let more = peak_kb().saturating_sub(before);
    assert!(more < MB * 1000 * 3 / 4, "{more} kB");
}

#[tokio::test]
async fn what_a_verify_file_has_not_passed_is_looked_at_again_by_every_release_until_it_does() {
    let ground = Ground::new(T);
    let files = [
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.0.0.down.sql", "ALTER TABLE t DROP COLUMN c"),
        ("v1.0.0.verify.sql", "SELECT c IS NOT NULL FROM t"),
    ];
    let unverified = async || ground.status().await.records.iter().any(|record| record.unverified);
    ground.expand(&files).await.unwrap_err();
    let next = || RunOrder { release: "r2".to_owned(), ..ground.order(Phase::Expand) };
    assert_eq!(ground.run(&files, &next()).await.unwrap_err().code, Code::VerifyFailed);
    assert!(unverified().await);
    ground.sql("UPDATE t SET c = 1");
    ground.run(&files, &next()).await.unwrap();
    assert!(!unverified().await);
    // Once it has passed only the release itself would look again.
    ground.sql("UPDATE t SET c = NULL");
    ground.run(&files, &RunOrder { release: "r3".to_owned(), ..next() }).await.unwrap();
    // What is taken back is owed no look, and what comes again is owed one.
    ground.down(&files, "1.0.0").await.unwrap();
    assert_eq!(ground.status().await.leftovers, Vec::new());
    ground.run(&files, &next()).await.unwrap_err();
    assert!(unverified().await);
    ground.down(&files, "1.0.0").await.unwrap();
    assert_eq!((unverified().await, ground.status().await.leftovers), (false, Vec::new()));
}

#[tokio::test]
async fn a_verify_file_that_comes_too_late_is_said_not_to_be_looked_at() {
    let ground = Ground::new(T);
    let mut files = vec![
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.1.0.sql", "ALTER TABLE t ADD COLUMN d int"),
        ("v1.1.0.verify.sql", "SELECT true"),
    ];
    assert_eq!(ground.expand(&files).await.unwrap().notes, Vec::<String>::new());
    files.push(("v1.0.0.verify.sql", "SELECT false"));
    files.push(("v1.2.0.sql", "ALTER TABLE t ADD COLUMN e int"));
    let next = RunOrder { release: "r2".to_owned(), ..ground.order(Phase::Expand) };
    let ran = ground.run(&files, &next).await.unwrap();
    let [note] = &ran.notes[..] else { panic!("{:?}", ran.notes) };
    assert!(note.contains("v1.0.0.verify.sql: was added after v1.0.0 had been applied"), "{note}");
    // What is taken back and comes again is looked at.
    ground
        .down(&[("v1.2.0.sql", files[4].1), ("v1.2.0.down.sql", "ALTER TABLE t DROP COLUMN e")], "1.2.0")
        .await
        .unwrap();
    files.push(("v1.2.0.verify.sql", "SELECT false"));
    let again = RunOrder { release: "r3".to_owned(), ..ground.order(Phase::Expand) };
    let problem = ground.run(&files, &again).await.unwrap_err();
    assert!(problem.message.contains("v1.2.0.verify.sql"), "{problem}");
}

#[tokio::test]
async fn a_way_down_asks_for_its_locks_as_every_run_does_and_names_who_holds_them() {
    let ground = Ground::new(T);
    let files = [
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.0.0.down.sql", "ALTER TABLE t DROP COLUMN c"),
    ];
    ground.expand(&files).await.unwrap();
    let reader = ground.client("report", "app").await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM t").await.unwrap();
    let (set, version) = (set(&files), pointsman_migration::Version::parse("1.0.0").unwrap());
    let order = RunOrder { lock_budget_ms: 1_500, ..ground.order(Phase::Down) };
    let down = migrate::down(&ground.settings, &set, &version, &order, &Crew(1), &ground.progress);
    let problem = down.await.unwrap_err();
    assert_eq!(problem.code, Code::LockNotHad, "{problem}");
    assert!(problem.message.contains("(report, idle in transaction"), "{problem}");
    reader.batch_execute("COMMIT").await.unwrap();
    ground.down(&files, "1.0.0").await.unwrap();
}

#[tokio::test]
async fn down_takes_the_newest_version_back_and_no_other() {
    let ground = Ground::new(T);
    let before = ground.contents();
    let files = [
        ("v1.0.0.sql", "CREATE TABLE u (id int)"),
        ("v1.0.0.down.sql", "DROP TABLE u"),
        ("v1.1.0.sql", "ALTER TABLE u ADD COLUMN b int; CREATE INDEX CONCURRENTLY u_b ON u (b)"),
        ("v1.1.0.down.sql", "ALTER TABLE u DROP COLUMN b"),
    ];
    ground.expand(&files).await.unwrap();
    let problem = ground.down(&files, "1.0.0").await.unwrap_err();
    assert_eq!(problem.code, Code::NoWayDown, "{problem}");
    for version in ["1.1.0", "1.0.0"] {
        let back = ground.down(&files, version).await.unwrap();
        assert_eq!(back.applied.iter().map(|file| file.version.to_string()).collect::<Vec<_>>(), [version]);
    }
    assert_eq!(ground.contents(), before);
    assert!(ground.down(&files, "1.0.0").await.unwrap().already);
    assert_eq!(ground.status().await.schema_version, None);
    // And forward again.
    assert_eq!(ground.expand(&files).await.unwrap().applied.len(), 2);
    let problem = ground.down(&[files[0], files[2]], "1.1.0").await.unwrap_err();
    assert_eq!(problem.code, Code::NoWayDown);
}

#[tokio::test]
async fn an_older_epoch_is_refused_and_a_newer_one_waits_for_the_running_transaction() {
    let mut ground = Ground::new(T);
    ground.epoch = 5;
    ground.expand(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    ground.epoch = 4;
    let problem = ground.expand(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap_err();
    assert_eq!(problem.code, Code::Fenced);
    assert_eq!(
        migrate::fence(&ground.settings, pointsman_core::Epoch(4)).await.unwrap_err().code,
        Code::Fenced
    );
    migrate::fence(&ground.settings, pointsman_core::Epoch(9)).await.unwrap();
    assert_eq!(ground.status().await.epoch, Some(pointsman_core::Epoch(9)));
    let order = ground.order(Phase::Expand);
    let late = migrate::run(&ground.settings, &set(&[]), &order, &Crew(8), &ground.progress).await;
    assert_eq!(late.unwrap_err().code, Code::Fenced);
}

/// Sequences follow no rollback: a failure that says nothing of them would say too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_what_outlives_its_rollback() {
    let ground = Ground::new("CREATE SEQUENCE s; CREATE TABLE t (id int)");
    let files = [("v1.0.0.sql", "SELECT setval('s', 41); INSERT INTO t VALUES (1 / 0)")];
    let problem = ground.expand(&files).await.unwrap_err();
    assert_eq!(ground.sql("SELECT last_value FROM s"), "41");
    assert!(problem.causes.iter().any(|cause| cause.contains("`setval`")), "{problem:?}");
    let files = [("v1.0.0.sql", "INSERT INTO t VALUES (1 / 0); SELECT setval('s', 42)")];
    let problem = ground.expand(&files).await.unwrap_err();
    assert!(!problem.causes.iter().any(|cause| cause.contains("`setval`")), "it did not run: {problem:?}");
}
