//! What a rehearsal on a copy tells and refuses; the live database stays as it was.

use pointsman_core::{Aftermath, Code, Problem};
use pointsman_database::migrate::{self, Rehearsal, Replanned};
use pointsman_migration::Phase;

use crate::kit::{Crew, Ground, set};

const T: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT n, n FROM generate_series(1, 1000) n";

/// Rehearses on a copy; the live database must be the same before and after.
async fn rehearse(ground: &Ground, files: &[(&str, &str)]) -> Result<Rehearsal, Problem> {
    let before = ground.contents();
    let copy = ground.copy().await;
    let order = ground.order(Phase::Expand);
    let told =
        migrate::rehearse(&ground.settings, &copy, &set(files), &order, &Crew(1), &ground.progress).await;
    assert_eq!(ground.contents(), before, "the live database was touched");
    assert_eq!(
        ground.sql("SELECT to_regclass('pointsman.migration') IS NULL"),
        "t",
        "records were made in the live database"
    );
    ground.cluster.psql("postgres", &format!("DROP DATABASE {copy} WITH (FORCE)")).unwrap();
    told
}

#[tokio::test]
async fn locks_rewrites_and_durations_are_measured() {
    let ground = Ground::new(&format!("{T}; CREATE TABLE u (a int)"));
    let file = "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int;\nALTER TABLE t ALTER COLUMN a TYPE bigint;\nCREATE INDEX u_a ON u (a)";
    let order_file = [("v1.0.0.contract.sql", file)];
    let copy = ground.copy().await;
    let order = ground.order(Phase::Contract);
    let told =
        migrate::rehearse(&ground.settings, &copy, &set(&order_file), &order, &Crew(1), &ground.progress)
            .await
            .unwrap();
    let [add, change, index] = &told.statements[..] else { panic!("{told:?}") };
    let exclusive = ("t".to_owned(), "AccessExclusiveLock".to_owned());
    assert!(
        add.place == "v1.0.0.contract.sql:2:1" && add.locks.contains(&exclusive) && add.rewritten_bytes == 0,
        "{add:?}"
    );
    assert!(change.rewritten_bytes > 20_000, "{change:?}");
    assert!(
        index.locks.contains(&("u".to_owned(), "ShareLock".to_owned())) && index.rewritten_bytes == 0,
        "{index:?}"
    );
}

#[tokio::test]
async fn a_rewrite_that_nobody_allowed_is_refused() {
    let ground = Ground::new(T);
    let problem = rehearse(&ground, &[("v1.0.0.sql", "CREATE INDEX t_a ON t (a)")]).await.unwrap_err();
    assert_eq!(problem.code, Code::MigrationDangerous, "{problem}");
    assert!(problem.message.starts_with("v1.0.0.sql:1:1: writes wait"), "{problem}");
}

#[tokio::test]
async fn locks_that_are_held_too_long_on_the_copy_are_refused() {
    let ground = Ground::new(T);
    let file = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int; SELECT pg_sleep(2.5)")];
    let problem = rehearse(&ground, &file).await.unwrap_err();
    assert!(
        problem.code == Code::MigrationDangerous && problem.message.contains("2000 ms are allowed"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_file_that_may_rewrite_may_hold_locks_for_nothing_else() {
    let ground = Ground::new(T);
    let slow = "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int; SELECT pg_sleep(2.5)";
    let problem = rehearse(&ground, &[("v1.0.0.sql", slow)]).await.unwrap_err();
    assert!(problem.message.contains("2000 ms are allowed"), "{problem}");
    let rewrites = "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c float8 DEFAULT random(); SELECT pg_sleep(2.5)";
    rehearse(&ground, &[("v1.0.0.sql", rewrites)]).await.unwrap();
}

#[tokio::test]
async fn locks_that_only_a_function_tells_of_are_seen() {
    let ground = Ground::new(&format!(
        "{T}; CREATE FUNCTION add() RETURNS void LANGUAGE plpgsql AS 'BEGIN ALTER TABLE public.t ADD COLUMN c int; END'"
    ));
    let file = [("v1.0.0.sql", "SELECT add(); SELECT pg_sleep(2.5)")];
    let problem = rehearse(&ground, &file).await.unwrap_err();
    assert!(problem.message.contains("2000 ms are allowed"), "{problem}");
}

#[tokio::test]
async fn a_block_that_leaves_another_role_behind_is_refused() {
    let ground = Ground::new(T);
    ground.cluster.psql("postgres", "CREATE ROLE keeper; GRANT keeper TO pointsman").unwrap();
    let rehearse = async |file: &str| {
        let (copy, order) = (ground.copy().await, ground.order(Phase::Contract));
        let files = set(&[("v1.0.0.contract.sql", file)]);
        migrate::rehearse(&ground.settings, &copy, &files, &order, &Crew(1), &ground.progress).await
    };
    let block = "DO $$ BEGIN EXECUTE 'SET ROLE keeper'; END $$; CREATE TABLE made (a int)";
    let local = block.replace("SET ROLE", "SET LOCAL ROLE");
    for file in [block, &local, &format!("-- pointsman: no-transaction\n{block}")] {
        let problem = rehearse(file).await.unwrap_err();
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::StatementFailed, Aftermath::Unchanged),
            "{problem}"
        );
        let told = "statement 1 of 2 leaves the session with the role `keeper` instead of `pointsman`";
        assert!(problem.message.contains(told), "{problem}");
    }
    let back = "DO $$ BEGIN EXECUTE 'SET ROLE keeper'; EXECUTE 'SET ROLE pointsman'; END $$; CREATE TABLE made (a int)";
    rehearse(back).await.unwrap();
}

#[tokio::test]
async fn what_is_set_for_a_role_or_a_database_by_a_function_is_refused_before_anybody_sees_it() {
    let ground = Ground::new(T);
    let name = &ground.settings.name;
    ground.sql(
        "CREATE FUNCTION says(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN EXECUTE what; END'",
    );
    for what in [
        format!("ALTER DATABASE {name} SET search_path = other, public"),
        format!("ALTER ROLE pointsman IN DATABASE {name} SET work_mem = ''5MB''"),
    ] {
        for header in ["", "-- pointsman: no-transaction\n"] {
            let file = format!("{header}SELECT says('{what}'); ALTER TABLE t ADD COLUMN c int");
            let problem = rehearse(&ground, &[("v1.0.0.sql", &file)]).await.unwrap_err();
            assert_eq!(
                (problem.code, problem.aftermath),
                (Code::StatementFailed, Aftermath::Unchanged),
                "{problem}"
            );
            let told =
                "statement 1 of 2 changes roles or databases, or what is set for them (`pg_db_role_setting`)";
            assert!(problem.message.contains(told), "{problem}");
        }
    }
    let said = format!(
        "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = '{name}'"
    );
    assert_eq!(ground.sql(&said), "0");
}

#[tokio::test]
async fn what_a_block_sets_for_its_session_ends_with_its_transaction_and_what_the_live_database_sets_holds() {
    let ground = Ground::new(
        "CREATE TABLE t (a int); CREATE TABLE seen (id serial, mem text, of_app text, zone text, tenant text)",
    );
    let name = &ground.settings.name;
    let of_live = format!(
        "ALTER ROLE pointsman IN DATABASE {name} SET timezone = 'Asia/Tokyo';
         ALTER ROLE pointsman IN DATABASE {name} SET app.tenant = 'seven'"
    );
    ground.cluster.psql("postgres", &of_live).unwrap();
    let looks = "INSERT INTO seen (mem, of_app, zone, tenant)
        SELECT current_setting('work_mem'), current_setting('app.x', true), current_setting('timezone'), current_setting('app.tenant', true)";
    let sets = "DO $$ BEGIN SET work_mem = '77MB'; PERFORM set_config('app.x', 'on', false); END $$";
    let first = format!("{sets}; {looks}; CREATE INDEX CONCURRENTLY t_a ON t (a); {looks}");
    let each = format!("-- pointsman: no-transaction\n{sets}; {looks}");
    let files = [("v1.0.0.sql", first.as_str()), ("v1.1.0.sql", &each), ("v1.2.0.sql", looks)];
    let (copy, order) = (ground.copy().await, ground.order(Phase::Expand));
    let rehearsed =
        migrate::rehearse(&ground.settings, &copy, &set(&files), &order, &Crew(1), &ground.progress).await;
    rehearsed.unwrap();
    ground.expand(&files).await.unwrap();
    let seen = "SELECT string_agg(concat_ws(' ', mem, nullif(of_app, ''), zone, tenant), ', ' ORDER BY id) FROM seen";
    let rest = "4MB Asia/Tokyo seven";
    let expected = format!("77MB on Asia/Tokyo seven, {rest}, {rest}, {rest}");
    assert_eq!(ground.cluster.psql(&copy, seen).unwrap(), expected);
    assert_eq!(ground.sql(seen), expected);
}

#[tokio::test]
async fn what_breaks_the_slot_that_serves_is_refused() {
    let ground = Ground::new(T);
    let problem =
        rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t RENAME COLUMN a TO b")]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::MigrationBreaking, Aftermath::Unchanged));
}

#[tokio::test]
async fn a_statement_that_fails_on_the_data_fails_on_the_copy() {
    let ground = Ground::new(T);
    let file = "ALTER TABLE t ADD CONSTRAINT small CHECK (a < 500) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT small";
    let problem = rehearse(&ground, &[("v1.0.0.sql", file)]).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Unchanged));
    assert!(problem.message.contains("23514"), "{problem}");
    assert!(problem.causes.iter().any(|cause| cause.contains("was not touched")), "{problem:?}");
}

#[tokio::test]
async fn queries_of_the_running_slot_are_planned_again() {
    let ground = Ground::new(&format!("{T}; CREATE VIEW v AS SELECT id, a FROM t"));
    ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
    let app = ground.client("app", "app").await;
    app.query("SELECT a FROM v WHERE id = $1", &[&1]).await.unwrap();
    app.query("SELECT id FROM v WHERE a = 7", &[]).await.unwrap();
    drop(app);
    let told = rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    assert!(
        told.replanned.iter().filter(|replanned| **replanned == Replanned::Works).count() >= 2,
        "{:?}",
        told.replanned
    );
    // No rule of the text sees this: the view is there again.
    let hidden = "DROP VIEW v; CREATE VIEW v AS SELECT id FROM t";
    let problem = rehearse(&ground, &[("v1.0.0.sql", hidden)]).await.unwrap_err();
    assert_eq!(problem.code, Code::QueriesBroken);
    let told = format!("{problem:?}");
    assert!(
        told.contains("SELECT a FROM v WHERE id = $1") && told.contains("SELECT id FROM v WHERE a = $1"),
        "{told}"
    );
}

#[tokio::test]
async fn queries_of_a_role_with_a_schema_of_its_own_are_planned_as_that_role_finds_its_tables() {
    let ground = Ground::new(&format!(
        "{T}; CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO app; CREATE VIEW app.v AS SELECT id, a FROM t; GRANT SELECT ON app.v TO app"
    ));
    ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
    let app = ground.client("app", "app").await;
    app.query("SELECT a FROM v WHERE id = $1", &[&1]).await.unwrap();
    drop(app);
    let told = rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    assert_eq!((undecided(&told, "FROM v"), told.notes), (false, Vec::new()));
    let hidden = "DROP VIEW app.v; CREATE VIEW app.v AS SELECT id FROM t; GRANT SELECT ON app.v TO app";
    let problem = rehearse(&ground, &[("v1.0.0.sql", hidden)]).await.unwrap_err();
    assert_eq!(problem.code, Code::QueriesBroken, "{problem}");
}

fn undecided(told: &Rehearsal, part: &str) -> bool {
    let of_it = |replanned: &Replanned| matches!(replanned, Replanned::Undecided { query, .. } if query.contains(part));
    told.replanned.iter().any(of_it)
}

#[tokio::test]
async fn where_nothing_can_be_told_of_any_query_of_a_role_that_is_said() {
    let ground = Ground::new(T);
    ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
    let app = ground.client("app", "app").await;
    app.batch_execute("CREATE TEMPORARY TABLE mine (n int)").await.unwrap();
    app.query("SELECT n FROM mine", &[]).await.unwrap();
    drop(app);
    let file = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")];
    let told = rehearse(&ground, &file).await.unwrap();
    let [note] = told.notes.as_slice() else { panic!("{:?}", told.notes) };
    assert!(undecided(&told, "FROM mine") && note.contains("of the 1 query that `app` calls none"), "{note}");
    // One that can be planned shows that it is not for want of something that all of them need.
    let app = ground.client("app", "app").await;
    app.query("SELECT a FROM t", &[]).await.unwrap();
    drop(app);
    let told = rehearse(&ground, &file).await.unwrap();
    assert_eq!((undecided(&told, "FROM mine"), told.notes), (true, Vec::new()));
}

#[tokio::test]
async fn a_contract_may_take_what_only_versions_that_are_gone_have_called() {
    let ground = Ground::new(T);
    ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
    let app = ground.client("app", "app").await;
    app.query("SELECT a FROM t WHERE id = $1", &[&1]).await.unwrap();
    drop(app);
    let files = [("v1.0.0.contract.sql", "ALTER TABLE t DROP COLUMN a")];
    let rehearse = async |copy: &str| {
        let (set, order) = (set(&files), ground.order(Phase::Contract));
        migrate::rehearse(&ground.settings, copy, &set, &order, &Crew(1), &ground.progress).await
    };
    let told = rehearse(&ground.copy().await).await.unwrap();
    assert!(told.notes.iter().any(|note| note.contains("1 query that nobody called")), "{:?}", told.notes);
    // One that is called while it is rehearsed is in use.
    let copy = ground.copy().await;
    let app = ground.client("app", "app").await;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let calling = async {
        let mut end = end;
        while end.try_recv().is_err() {
            app.query("SELECT a FROM t WHERE id = $1", &[&1]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let rehearsing = async {
        let told = rehearse(&copy).await;
        ended.send(()).unwrap();
        told
    };
    let (told, ()) = tokio::join!(rehearsing, calling);
    assert_eq!(told.unwrap_err().code, Code::QueriesBroken);
}

#[tokio::test]
async fn an_upsert_that_misses_its_index_is_broken() {
    let ground = Ground::new(&format!("{T}; CREATE UNIQUE INDEX t_a ON t (a)"));
    ground.cluster.psql(&ground.settings.name, "CREATE EXTENSION pg_stat_statements").unwrap();
    let app = ground.client("app", "app").await;
    app.execute("INSERT INTO t VALUES (1, 1) ON CONFLICT (a) DO NOTHING", &[]).await.unwrap();
    drop(app);
    let problem = rehearse(&ground, &[("v1.0.0.sql", "DROP INDEX CONCURRENTLY t_a")]).await.unwrap_err();
    assert_eq!(problem.code, Code::QueriesBroken, "{problem}");
    assert!(problem.message.contains("42P10"), "{problem}");
}

#[tokio::test]
async fn what_was_there_before_the_copy_was_adopted_is_nobodys_to_judge() {
    let mut ground = Ground::new(&format!(
        "{T}; CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('1.0.0')"
    ));
    ground.settings.version_table = Some("schema_version".to_owned());
    let files = [("v1.0.0.sql", "DROP TABLE old"), ("v1.1.0.sql", "ALTER TABLE t ADD COLUMN c int")];
    let copy = ground.copy().await;
    let on_copy = pointsman_database::Settings { name: copy.clone(), ..ground.settings.clone() };
    migrate::adopt(&on_copy, &set(&files), &Crew(1)).await.unwrap();
    let order = ground.order(Phase::Expand);
    let told =
        migrate::rehearse(&ground.settings, &copy, &set(&files), &order, &Crew(1), &ground.progress).await;
    assert_eq!(told.unwrap().ran.applied.len(), 1);
}

#[tokio::test]
async fn a_column_that_a_trigger_fills_for_the_old_version_may_be_demanded() {
    let ground = Ground::new(T);
    let fill = "ALTER TABLE t ADD COLUMN c int;
                CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS
                    'BEGIN NEW.c := NEW.a; RETURN NEW; END';
                CREATE TRIGGER fill BEFORE INSERT OR UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION fill()";
    let demand = "ALTER TABLE t ADD CONSTRAINT filled CHECK (c IS NOT NULL) NOT VALID";
    let files = [
        ("v1.0.0.sql", fill),
        ("v1.1.0.sql", "-- pointsman: batch=id:400\nUPDATE t SET c = a WHERE c IS NULL"),
        ("v1.2.0.sql", demand),
    ];
    rehearse(&ground, &files).await.unwrap();
    // Without the trigger the old version would be refused.
    let column = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"), files[1], files[2]];
    assert_eq!(rehearse(&ground, &column).await.unwrap_err().code, Code::MigrationBreaking);
    // A table that is empty afterwards cannot be tried.
    let emptied = [
        ("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"),
        ("v1.1.0.sql", "-- pointsman: batch=id:400\nDELETE FROM t"),
    ];
    rehearse(&ground, &emptied).await.unwrap();
}

#[tokio::test]
async fn rows_are_written_to_what_files_mean_by_a_name() {
    let ground = Ground::new(
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, a int); INSERT INTO shop.orders VALUES (1, 1)",
    );
    // It holds in no copy, and for sessions of the agent in none either.
    let name = &ground.settings.name;
    ground.sql(&format!("ALTER ROLE pointsman IN DATABASE {name} SET search_path = shop, public"));
    let files = [
        ("v1.0.0.sql", "ALTER TABLE orders ADD COLUMN c int"),
        ("v1.1.0.sql", "ALTER TABLE orders ADD CONSTRAINT filled CHECK (c IS NOT NULL) NOT VALID"),
    ];
    assert_eq!(rehearse(&ground, &files).await.unwrap_err().code, Code::MigrationBreaking);
    rehearse(&ground, &files[..1]).await.unwrap();
}

#[tokio::test]
async fn without_statistics_of_statements_it_says_so() {
    let ground = Ground::new(T);
    let told = rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
    assert!(told.notes.iter().any(|note| note.contains("pg_stat_statements")), "{:?}", told.notes);
    let order = ground.order(Phase::Expand);
    let live = migrate::rehearse(
        &ground.settings,
        &ground.settings.name,
        &set(&[]),
        &order,
        &Crew(1),
        &ground.progress,
    )
    .await;
    assert_eq!(live.unwrap_err().code, Code::UsageWrong);
}

#[tokio::test]
async fn columns_that_a_key_only_carries_are_no_key() {
    let ground = Ground::new(
        "CREATE TABLE t (id int, note text, more json, PRIMARY KEY (id) INCLUDE (note, more));
         INSERT INTO t VALUES (1, NULL, '{}')",
    );
    rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_gone_hides_nothing_else() {
    let ground = Ground::new(&format!(
        "{T}; CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public AS
              'BEGIN EXECUTE ''ALTER TABLE t RENAME COLUMN id TO number''; END'"
    ));
    let file = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int; SELECT tidy()")];
    let problem = rehearse(&ground, &file).await.unwrap_err();
    assert_eq!(problem.code, Code::MigrationBreaking, "{problem:?}");
    assert!(format!("{problem:?}").contains("t.id"), "{problem:?}");
}

/// Looks at many tables take longer than any lock may be held.
#[tokio::test]
async fn what_is_looked_at_meanwhile_is_no_time_that_a_lock_was_held() {
    let many = "DO 'BEGIN FOR n IN 1..3000 LOOP EXECUTE format(''CREATE TABLE many_%s (id int)'', n); END LOOP; END'";
    // On a server of its own: dumps of so many tables would push the queries of other tests out of the statistics.
    let ground = Ground::on("", &format!("{T}; {many}"));
    let statements: Vec<String> = (0..8)
        .map(|n| format!("COMMENT ON COLUMN t.a IS '{n}'; ALTER TABLE t ADD COLUMN c{n} int"))
        .collect();
    rehearse(&ground, &[("v1.0.0.sql", &statements.join("; "))]).await.unwrap();
}

/// Looks for a table by its bare name, which a restore does not find.
const BARE: &str = "
    CREATE TABLE factors (f int); INSERT INTO factors VALUES (2);
    CREATE FUNCTION times(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN RETURN $1 * (SELECT max(f) FROM factors); END'";

#[tokio::test]
async fn what_a_restore_computes_is_tried_as_a_restore_finds_it() {
    let files = [
        (
            "-- pointsman: allow-rewrite\nALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS (times(a)) STORED",
            "column c of public.t",
        ),
        ("CREATE MATERIALIZED VIEW sums AS SELECT times(a) FROM t", "materialized view public.sums"),
        (
            "CREATE VIEW timed AS SELECT times(a) AS b FROM t; CREATE MATERIALIZED VIEW sums AS SELECT sum(b) FROM timed",
            "materialized view public.sums",
        ),
        (
            "CREATE DOMAIN small AS int CHECK (times(VALUE) < 1000000); CREATE DOMAIN smaller AS small;
          CREATE TABLE u (n smaller); INSERT INTO u VALUES (1)",
            "type public.smaller of the column n of public.u",
        ),
        (
            "CREATE TABLE u (n int CHECK (times(n) > 0)); INSERT INTO u VALUES (1)",
            "constraint u_n_check of public.u",
        ),
    ];
    for (file, what) in files {
        let ground = Ground::new(&format!("{T}; {BARE}"));
        let problem = rehearse(&ground, &[("v1.0.0.sql", file)]).await.expect_err(file);
        // Since version 17 the server itself fills such a view with nothing on the search path.
        if ground.cluster.server().major >= 17 && file.contains("MATERIALIZED") {
            assert_eq!(problem.code, Code::StatementFailed, "{file}: {problem}");
            continue;
        }
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::MigrationDangerous, Aftermath::Unchanged),
            "{file}: {problem}"
        );
        assert!(problem.message.contains(what), "{file}: {problem}");
        assert!(
            problem.causes.iter().any(|cause| cause.contains("\"factors\" does not exist")),
            "{file}: {problem:?}"
        );
        // With a path of its own the function finds it.
        ground.sql("ALTER FUNCTION times SET search_path = public");
        rehearse(&ground, &[("v1.0.0.sql", file)]).await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_a_restore_does_not_look_at_keep_nobody_away() {
    let ground = Ground::new(&format!(
        "{T}; CREATE TABLE docs (kind text, data text);
         CREATE FUNCTION to_day(text) RETURNS date LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN RETURN make_date(substr($1, 1, 4)::int, substr($1, 6, 2)::int, substr($1, 9, 2)::int); END';
         INSERT INTO docs VALUES ('note', 'buy milk'), ('event', '2024-01-15');
         CREATE INDEX ON docs (to_day(data)) WHERE kind = 'event';
         ALTER TABLE docs ADD CHECK (to_day(data) > '2000-01-01') NOT VALID;
         CREATE MATERIALIZED VIEW days AS SELECT to_day(data) FROM docs WITH NO DATA"
    ));
    rehearse(&ground, &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")]).await.unwrap();
}

#[tokio::test]
async fn a_verify_file_that_fails_says_what_stands_on_the_copy_alone_and_what_in_the_live_database() {
    let ground = Ground::new("CREATE TABLE t (a int)");
    let files = [("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"), ("v1.0.0.verify.sql", "SELECT false")];
    for (live, hint) in [(false, "correct the migration"), (true, "the migration stands")] {
        if live {
            let problem = ground.expand(&files).await.unwrap_err();
            assert_eq!(problem.aftermath, Aftermath::Changed);
            assert!(problem.hint.starts_with(hint), "{problem:?}");
        }
        let (copy, set, order) = (ground.copy().await, set(&files), ground.order(Phase::Expand));
        let rehearsed = migrate::rehearse(&ground.settings, &copy, &set, &order, &Crew(1), &ground.progress);
        let problem = rehearsed.await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::VerifyFailed, Aftermath::Unchanged));
        assert!(problem.hint.starts_with(hint), "live {live}: {problem:?}");
    }
}

/// Another database, and what opens it for everybody: as its owner no superuser, so with a password.
fn far(ground: &Ground) -> String {
    let far = format!("{}_far", ground.settings.name);
    let cluster = &ground.cluster;
    cluster.psql("postgres", &format!("CREATE ROLE {far} LOGIN PASSWORD 'p' IN ROLE guarded")).unwrap();
    cluster.psql("postgres", &format!("CREATE DATABASE {far} OWNER {far}")).unwrap();
    cluster.psql(&far, &format!("SET ROLE {far}; CREATE TABLE audit (id int)")).unwrap();
    let (name, socket) = (&ground.settings.name, cluster.socket());
    let server = |server: &str, wrapper: &str| {
        format!(
            "CREATE SERVER {server} FOREIGN DATA WRAPPER {wrapper} OPTIONS (host '{}', dbname '{far}');
             CREATE USER MAPPING FOR PUBLIC SERVER {server} OPTIONS (user '{far}', password 'p');",
            socket.display()
        )
    };
    let wrappers = "CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink;
                    GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw, dblink_fdw TO pointsman";
    cluster.psql(name, wrappers).unwrap();
    ground.sql(&format!(
        "{} {} CREATE FOREIGN TABLE audit (id int) SERVER far",
        server("far", "postgres_fdw"),
        server("calls", "dblink_fdw")
    ));
    far
}

#[tokio::test]
async fn a_rehearsal_writes_to_no_other_database_and_says_which_file_would() {
    let ground = Ground::new(&format!(
        "{T}; CREATE TABLE parted (id int) PARTITION BY RANGE (id);
         CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
             'BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END';
         CREATE FUNCTION opened() RETURNS void LANGUAGE plpgsql SET search_path = public AS
             'BEGIN ALTER FOREIGN TABLE audit DISABLE TRIGGER USER; END'"
    ));
    let far = far(&ground);
    ground.sql(
        "CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES FROM (1) TO (10) SERVER far OPTIONS (table_name 'audit');
         CREATE TABLE parted_here PARTITION OF parted FOR VALUES FROM (10) TO (20); INSERT INTO parted VALUES (11);
         CREATE TABLE u (id int PRIMARY KEY, a int); INSERT INTO u SELECT n, n FROM generate_series(1, 9) n;
         CREATE TRIGGER noted AFTER UPDATE ON u FOR EACH ROW EXECUTE FUNCTION noted()",
    );
    let there = || ground.cluster.psql(&far, "SELECT count(*) FROM audit").unwrap();
    ground.sql("INSERT INTO audit VALUES (1)");
    let table = "writes to the foreign table public.audit on the server far";
    let files = [
        ("INSERT INTO audit VALUES (2)", table),
        ("UPDATE audit SET id = 3 WHERE id > 0", table),
        ("DELETE FROM audit WHERE id > 0", table),
        ("-- pointsman: no-transaction\nSELECT 1; DELETE FROM audit WHERE id > 0", table),
        ("-- pointsman: batch=id:2\nUPDATE u SET a = 0 WHERE id <= 3", table),
        ("UPDATE u SET a = 0 WHERE id > 5", table),
        ("INSERT INTO parted VALUES (2)", "public.parted_far on the server far"),
        ("UPDATE parted SET id = 2 WHERE id = 11", "public.parted_far on the server far"),
        // What the file makes itself, or opens again.
        (
            "CREATE FOREIGN TABLE more (id int) SERVER far OPTIONS (table_name 'audit'); INSERT INTO more VALUES (2)",
            "public.more on the server far",
        ),
        (
            "-- pointsman: no-transaction\nCREATE FOREIGN TABLE more (id int) SERVER far OPTIONS (table_name 'audit');
             INSERT INTO more VALUES (2)",
            "public.more on the server far",
        ),
        ("SELECT opened(); INSERT INTO audit VALUES (2)", table),
        ("SELECT dblink_exec('calls', 'INSERT INTO audit VALUES (2)')", "foreign server calls"),
    ];
    for (file, what) in files {
        let problem = rehearse(&ground, &[("v1.0.0.sql", file)]).await.expect_err(file);
        assert_eq!(
            (problem.code, problem.aftermath),
            (Code::MigrationsUnfit, Aftermath::Unchanged),
            "{file}: {problem}"
        );
        assert!(
            problem.message.contains(what) && problem.hint.contains("outside of a release"),
            "{file}: {problem:?}"
        );
        assert_eq!(there(), "1", "{file}");
    }
    // What triggers tell of from version 16 on, and an option before; nothing at all could be emptied before 14.
    let (copy, set) = (ground.copy().await, set(&[("v1.0.0.contract.sql", "TRUNCATE audit")]));
    let order = ground.order(Phase::Contract);
    let emptied = migrate::rehearse(&ground.settings, &copy, &set, &order, &Crew(1), &ground.progress).await;
    let emptied = emptied.unwrap_err();
    assert_eq!(emptied.aftermath, Aftermath::Unchanged);
    assert!(emptied.code == Code::MigrationsUnfit || ground.cluster.server().major < 14, "{emptied}");
    assert_eq!(there(), "1");
    // The live database is as open as it was.
    ground.sql("INSERT INTO audit VALUES (2); UPDATE u SET a = 0 WHERE id = 1");
    ground.sql("SELECT dblink_exec('calls', 'DELETE FROM audit WHERE id = 2')");
    assert_eq!(there(), "2");
}

#[tokio::test]
async fn what_reads_other_databases_is_rehearsed_and_what_only_a_look_would_write_there_is_passed_over() {
    let ground = Ground::new(T);
    let far = far(&ground);
    ground.cluster.psql(&far, "INSERT INTO audit VALUES (7000)").unwrap();
    ground.sql(
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
             'BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END';
         CREATE TRIGGER noted AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE TABLE u (id int PRIMARY KEY)",
    );
    let reads = "INSERT INTO u SELECT id FROM audit; CREATE FOREIGN TABLE more (id int) SERVER far OPTIONS (table_name 'audit');
                 ALTER FOREIGN TABLE more ADD COLUMN a int; ALTER TABLE t ADD COLUMN c int";
    let told = rehearse(&ground, &[("v1.0.0.sql", reads)]).await.unwrap();
    assert_eq!(told.statements.len(), 4, "{told:?}");
    // The row that is written to see how it is taken tells as before.
    let breaks =
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN RAISE EXCEPTION ''no''; END';
                  CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()";
    let problem = rehearse(&ground, &[("v1.0.0.sql", breaks)]).await.unwrap_err();
    assert_eq!(problem.code, Code::MigrationBreaking, "{problem:?}");
    assert!(problem.message.contains("to change a row of \"t\" as before is refused"), "{problem:?}");
    assert_eq!(ground.cluster.psql(&far, "SELECT count(*) FROM audit").unwrap(), "1");
}

#[tokio::test]
async fn what_a_restore_left_empty_is_filled_where_a_file_reads_it_and_only_there() {
    let ground = Ground::new(T);
    let far = far(&ground);
    ground.cluster.psql(&far, "INSERT INTO audit VALUES (7)").unwrap();
    ground.sql(
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM audit; CREATE UNIQUE INDEX ON kept (id);
         CREATE MATERIALIZED VIEW sums AS SELECT sum(id) AS n FROM kept; CREATE TABLE u (id int PRIMARY KEY)",
    );
    let rehearse = async |files: &[(&str, &str)], more: &str| {
        let (copy, order) = (ground.copy().await, ground.order(Phase::Expand));
        let emptied = format!(
            "SET ROLE pointsman; REFRESH MATERIALIZED VIEW kept WITH NO DATA; REFRESH MATERIALIZED VIEW sums WITH NO DATA; {more}"
        );
        ground.cluster.psql(&copy, &emptied).unwrap();
        let rehearsed =
            migrate::rehearse(&ground.settings, &copy, &set(files), &order, &Crew(1), &ground.progress).await;
        let filled = "SELECT count(*) FROM pg_class WHERE relkind = 'm' AND relispopulated";
        (rehearsed, ground.cluster.psql(&copy, filled).unwrap())
    };
    let looks = "SELECT n = 7 FROM sums";
    for files in [
        [("v1.0.0.sql", "INSERT INTO u SELECT n FROM sums; ALTER TABLE t ADD COLUMN c int")].as_slice(),
        &[("v1.0.0.sql", "REFRESH MATERIALIZED VIEW CONCURRENTLY kept")],
        &[("v1.0.0.sql", "-- pointsman: batch=id:5000\nUPDATE t SET a = 0 WHERE id = (SELECT n FROM sums)")],
        &[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int"), ("v1.0.0.verify.sql", looks)],
    ] {
        let (rehearsed, filled) = rehearse(files, "").await;
        rehearsed.unwrap();
        assert_eq!(filled, "2", "{files:?}");
    }
    let gone = "ALTER SERVER far OPTIONS (SET host '/nowhere')";
    let (rehearsed, filled) = rehearse(&[("v1.0.0.sql", "ALTER TABLE t ADD COLUMN c int")], gone).await;
    rehearsed.unwrap();
    assert_eq!(filled, "0");
    let (rehearsed, _) = rehearse(&[("v1.0.0.sql", "INSERT INTO u SELECT n FROM sums")], gone).await;
    let problem = rehearsed.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::StatementFailed, Aftermath::Unchanged), "{problem}");
    let why = "public.kept is empty on the copy, because its rows come from other databases";
    assert!(problem.causes.iter().any(|cause| cause.starts_with(why)), "{problem:?}");
}
