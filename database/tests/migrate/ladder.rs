//! How locks are asked for behind those who hold them for long: never in the queue, with the holders' names.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};
use pointsman_database::migrate::Ran;
use pointsman_migration::Phase;
use tokio::task::JoinHandle;

use crate::kit::{Ground, SOON, soon};

/// Enough rows that a dump of them fills a pipe.
const FEATURES: &str = "CREATE TABLE features (id int PRIMARY KEY, name text);
INSERT INTO features SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n";
const ALTER: &str = "ALTER TABLE features ADD COLUMN c_new int";
/// How long the table is held after the migration has begun to ask for it.
const HOLD: Duration = Duration::from_secs(4);
/// Whoever stands in the queue makes visitors wait for as long as the table is held; a busy machine alone does not make
/// them wait for half of it.
const STALLED_MS: f64 = 2_000.0;
/// Visitors that ask again and again.
const VISITORS: usize = 8;

/// Visitors, and somebody who looks at how long any of them waits for a lock.
struct Traffic {
    over: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<u64>>,
    looking: JoinHandle<f64>,
}

impl Traffic {
    async fn begin(ground: &Ground) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut visitors = Vec::new();
        for _ in 0..VISITORS {
            let (client, over) = (ground.client("visitor", "app").await, Arc::clone(&over));
            visitors.push(tokio::spawn(async move {
                let mut served = 0;
                while !over.load(Ordering::SeqCst) {
                    client.query_one("SELECT name FROM features WHERE id = 7", &[]).await.unwrap();
                    served += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                served
            }));
        }
        let (client, looked) = (ground.client("looking", "postgres").await, Arc::clone(&over));
        let looking = tokio::spawn(async move {
            let mut longest = 0.0_f64;
            while !looked.load(Ordering::SeqCst) {
                longest = longest.max(longest_wait(&client).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            longest
        });
        Self { over, visitors, looking }
    }

    /// The longest wait of a visitor for a lock, in milliseconds.
    async fn end(self) -> f64 {
        self.over.store(true, Ordering::SeqCst);
        for visitor in self.visitors {
            assert!(visitor.await.unwrap() > 0);
        }
        self.looking.await.unwrap()
    }
}

async fn longest_wait(client: &tokio_postgres::Client) -> f64 {
    // A visitor's statement has nothing else to wait for; when the wait itself began is told since version 14 only.
    let sql = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - a.query_start)) * 1000, 0)::float8
                 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name = 'visitor' AND a.datname = current_database()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Runs the files; ends what blocks them once the ladder has named it so often, and tells the longest wait of a visitor.
async fn behind(ground: &Ground, named: &str, release: impl AsyncFnOnce()) -> (Result<Ran, Problem>, f64) {
    let traffic = Traffic::begin(ground).await;
    let waiting = async {
        let give_up = Instant::now() + SOON;
        while !ground.progress.words().contains(named) {
            assert!(Instant::now() < give_up, "never named: {}", ground.progress.words());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(HOLD).await;
        release().await;
    };
    let files = [("v1.0.0.sql", ALTER)];
    let (ran, ()) = tokio::join!(ground.expand(&files), waiting);
    (ran, traffic.end().await)
}

fn assert_polite(ran: &Ran, longest: f64) {
    let segment = &ran.applied[0].segments[0];
    assert!(segment.lock_tries > 5, "{segment:?}");
    assert!(longest < STALLED_MS, "a visitor waited {longest} ms for a lock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_report_nobody_waits_and_a_plain_alter_stalls_them() {
    let ground = Ground::new(FEATURES);
    let report = ground.client("report-job", "app").await;
    report.batch_execute("BEGIN; SELECT count(*) FROM features").await.unwrap();
    let (ran, longest) =
        behind(&ground, "report-job", async || report.batch_execute("COMMIT").await.unwrap()).await;
    assert_polite(&ran.unwrap(), longest);
    assert_eq!(ground.sql("SELECT count(*) FROM features WHERE c_new IS NULL"), "20000");
    // The same without the ladder.
    report.batch_execute("BEGIN; SELECT count(*) FROM features").await.unwrap();
    let traffic = Traffic::begin(&ground).await;
    let plain = ground.client("plain", "pointsman").await;
    let alter =
        tokio::spawn(async move { plain.batch_execute("ALTER TABLE features ADD COLUMN c_plain int").await });
    tokio::time::sleep(HOLD).await;
    report.batch_execute("COMMIT").await.unwrap();
    alter.await.unwrap().unwrap();
    let longest = traffic.end().await;
    assert!(longest > STALLED_MS, "the plain one stalled nobody: {longest} ms; what is measured here?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_idle_transaction_nobody_waits() {
    let ground = Ground::new(FEATURES);
    let idle = ground.client("forgotten", "app").await;
    idle.batch_execute("BEGIN; INSERT INTO features VALUES (0, 'x')").await.unwrap();
    let (ran, longest) =
        behind(&ground, "idle in transaction", async || idle.batch_execute("COMMIT").await.unwrap()).await;
    assert_polite(&ran.unwrap(), longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_dump_nobody_waits() {
    let ground = Ground::new(FEATURES);
    let mut dump = ground.cluster.client("pg_dump", "postgres", &ground.settings.name);
    let mut dump = dump.args(["--inserts"]).stdout(Stdio::piped()).spawn().unwrap();
    // Nobody reads its pipe, so it stands still with its locks.
    soon(|| {
        (ground.sql("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'pg_dump' AND l.relation = 'features'::regclass") != "0").then_some(())
    });
    let (ran, longest) = behind(&ground, "pg_dump", async || {
        let mut rest = Vec::new();
        let mut pipe = dump.stdout.take().unwrap();
        tokio::task::block_in_place(|| pipe.read_to_end(&mut rest).unwrap());
        assert!(dump.wait().unwrap().success(), "the dump was harmed");
    })
    .await;
    assert_polite(&ran.unwrap(), longest);
}

#[tokio::test]
async fn after_the_budget_the_holder_is_named_and_nothing_is_changed() {
    let ground = Ground::new(FEATURES);
    let before = ground.contents();
    let report = ground.client("report-job", "app").await;
    let pid: i32 = report.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    report.batch_execute("BEGIN; SELECT count(*) FROM features").await.unwrap();
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 1_500;
    let problem = ground.run(&[("v1.0.0.sql", ALTER)], &order).await.unwrap_err();
    assert_eq!(problem.code, Code::LockNotHad);
    for part in [
        format!("pid {pid}"),
        "report-job".into(),
        "idle in transaction".into(),
        "SELECT count(*)".into(),
        "public.features".replace("public.", ""),
    ] {
        assert!(problem.message.contains(&part), "{part}: {problem}");
    }
    assert!(problem.hint.contains(&format!("pg_cancel_backend({pid})")), "{}", problem.hint);
    report.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ground.contents(), before);
}

#[tokio::test]
async fn a_prepared_transaction_in_the_way_is_named_by_its_gid() {
    let ground = Ground::new(FEATURES);
    ground.sql("BEGIN; LOCK TABLE features IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'left-over'");
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 1_000;
    let problem = ground.run(&[("v1.0.0.sql", ALTER)], &order).await.unwrap_err();
    ground.sql("ROLLBACK PREPARED 'left-over'");
    assert!(problem.message.contains("prepared transaction `left-over` of pointsman"), "{problem}");
    assert!(problem.hint.contains("ROLLBACK PREPARED 'left-over'"), "{}", problem.hint);
}

#[tokio::test]
async fn only_applications_that_the_configuration_lists_are_cancelled() {
    let mut ground = Ground::new(FEATURES);
    ground.settings.may_cancel.push("nightly".to_owned());
    let nightly = ground.client("nightly", "app").await;
    nightly.batch_execute("BEGIN; SELECT count(*) FROM features").await.unwrap();
    let asleep = tokio::spawn(async move { nightly.batch_execute("SELECT pg_sleep(600); COMMIT").await });
    ground.expand(&[("v1.0.0.sql", ALTER)]).await.unwrap();
    let cancelled = asleep.await.unwrap().unwrap_err();
    assert_eq!(cancelled.code().map(|code| code.code()), Some("57014"));
}

#[tokio::test]
async fn a_lock_that_no_text_shows_is_not_waited_for_either() {
    // The trigger's function writes to a table that the file does not name.
    let ground = Ground::new(
        "CREATE TABLE t (a int); CREATE TABLE hidden (a int);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE hidden IN ACCESS EXCLUSIVE MODE; RETURN new; END $$;
         CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    let report = ground.client("report-job", "app").await;
    report.batch_execute("BEGIN; SELECT count(*) FROM hidden").await.unwrap();
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 1_000;
    let file = [("v1.0.0.sql", "INSERT INTO t VALUES (1)")];
    assert_eq!(ground.run(&file, &order).await.unwrap_err().code, Code::LockNotHad);
    report.batch_execute("COMMIT").await.unwrap();
    ground.run(&file, &order).await.unwrap();
    assert_eq!(ground.sql("SELECT count(*) FROM t"), "1");
}

/// Whoever only reads is in nobody's way who locks out writers: waiting for him would be waiting for nothing, and a report that
/// may be cancelled would be for nothing too.
#[tokio::test]
async fn only_those_in_the_way_are_waited_for_and_named() {
    let mut ground = Ground::new(&format!(
        "{FEATURES}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'"
    ));
    ground.settings.may_cancel.push("report".to_owned());
    let report = ground.client("report", "app").await;
    report.batch_execute("BEGIN; SELECT count(*) FROM features").await.unwrap();
    let asleep = tokio::spawn(async move { report.batch_execute("SELECT pg_sleep(600)").await });
    let writer = ground.client("writer", "app").await;
    writer.batch_execute("BEGIN; UPDATE features SET name = 'y' WHERE id = 1").await.unwrap();
    let file = "CREATE TRIGGER g BEFORE INSERT ON features FOR EACH ROW EXECUTE FUNCTION f()";
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 4_000;
    let problem = ground.run(&[("v1.0.0.sql", file)], &order).await.unwrap_err();
    assert_eq!(problem.code, Code::LockNotHad);
    assert!(problem.message.contains("writer") && !problem.message.contains("report"), "{problem}");
    assert!(!asleep.is_finished(), "it was cancelled for nothing");
    asleep.abort();
}

/// The other table of a foreign key is locked too when the key goes, and its text does not say which that is.
#[tokio::test]
async fn the_other_table_of_a_foreign_key_is_not_waited_for_with_locks_in_hand() {
    let ground = Ground::new(
        "CREATE TABLE users (id int PRIMARY KEY);
         CREATE TABLE orders (id int PRIMARY KEY, owner int CONSTRAINT owner REFERENCES users, other int)",
    );
    let report = ground.client("report-job", "app").await;
    for file in [
        "ALTER TABLE orders DROP CONSTRAINT owner",
        "ALTER TABLE orders DROP COLUMN owner",
        "DROP TABLE orders",
    ] {
        report.batch_execute("BEGIN; SELECT count(*) FROM users").await.unwrap();
        let mut order = ground.order(Phase::Contract);
        order.lock_budget_ms = 1_500;
        let problem = ground.run(&[("v1.0.0.contract.sql", file)], &order).await.unwrap_err();
        assert_eq!(problem.code, Code::LockNotHad);
        assert!(
            problem.message.contains("`users` is held by pid") && problem.message.contains("report-job"),
            "{problem}"
        );
        report.batch_execute("COMMIT").await.unwrap();
    }
    // A column without a key needs nothing of the other table.
    report.batch_execute("BEGIN; SELECT count(*) FROM users").await.unwrap();
    let mut order = ground.order(Phase::Contract);
    order.lock_budget_ms = 1_500;
    ground.run(&[("v1.0.0.contract.sql", "ALTER TABLE orders DROP COLUMN other")], &order).await.unwrap();
    report.batch_execute("COMMIT").await.unwrap();
}

/// A partition that comes leaves those alone that are there.
#[tokio::test]
async fn a_partition_that_is_read_is_in_no_new_ones_way() {
    let ground = Ground::new(
        "CREATE TABLE events (n int) PARTITION BY RANGE (n);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100)",
    );
    let report = ground.client("report-job", "app").await;
    report.batch_execute("BEGIN; SELECT count(*) FROM events_1").await.unwrap();
    let first = "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200)";
    let files = [("v1.0.0.sql", first), ("v1.1.0.sql", "ALTER TABLE events ADD COLUMN c int")];
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 1_500;
    ground.run(&files[..1], &order).await.unwrap();
    report.batch_execute("COMMIT").await.unwrap();
    // Who holds a partition is named where the table is locked with all of them.
    report.batch_execute("BEGIN; SELECT count(*) FROM events_1").await.unwrap();
    let problem = ground.run(&files, &order).await.unwrap_err();
    assert!(problem.message.contains("`events_1` is held by pid"), "{problem}");
}

/// The server's own vacuum gives way to whoever waits for it a second, which the tries never do.
#[tokio::test]
async fn a_vacuum_of_the_server_gives_way() {
    // Each page costs a pause: it would take minutes.
    let ground = Ground::on(
        "autovacuum = on\nautovacuum_naptime = 1s\nautovacuum_vacuum_cost_delay = 100ms\nautovacuum_vacuum_cost_limit = 1\n",
        &format!("{FEATURES}; DELETE FROM features WHERE id % 2 = 0"),
    );
    let vacuum = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE l.relation = 'features'::regclass AND a.backend_type = 'autovacuum worker'
                     AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted";
    soon(|| (ground.cluster.psql(&ground.settings.name, vacuum).unwrap() != "0").then_some(()));
    let mut order = ground.order(Phase::Expand);
    order.lock_budget_ms = 20_000;
    ground.run(&[("v1.0.0.sql", ALTER)], &order).await.unwrap();
}
