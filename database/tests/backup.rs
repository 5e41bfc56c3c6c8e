//! Backups of a real database: taken, found again, checked, kept.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::{Place, SCATTERED, rule, until};
use pointsman_core::Code;
use pointsman_database::backup::{self, Format};
use pointsman_database::preflight::{self, Verdict};
use pointsman_database::{BackupFormat, Progress, Session, Settings, VerifyLevel, scratch};
use pointsman_database_testkit::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_once_for_a_release_and_restores_to_the_same() {
    let place = Place::new();
    let findings = preflight::look(&place.settings).await;
    preflight::judge(&findings, Verdict::Warning).unwrap();
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
async fn a_template_of_somebody_else_is_said_before_a_restore_needs_it() {
    let place = Place::new();
    let template = format!("pointsman_template_{}", place.settings.name);
    place.sql_in("postgres", &format!("ALTER DATABASE {template} OWNER TO postgres"));
    let refused = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
    let told = format!("{refused} {:?} {}", refused.causes, refused.hint);
    assert!(told.contains("belongs to `postgres`") && told.contains("OWNER TO"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_for_a_rehearsal_is_kept_and_found_when_it_is_left_over() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    assert_eq!(place.sql_in(&copy.database, "SELECT count(*) FROM features"), "3000");
    assert_eq!(place.sql_in(&copy.database, "SELECT count(*) FROM spatial_ref_sys WHERE srid = 990001"), "1");
    assert!(!place.is_open_to_everybody(&copy.database));
    // What only looks like ours stays.
    place.sql_in("postgres", "CREATE DATABASE pointsman_verify_0123456789abcdef");
    let dropped = scratch::drop_left_over(&place.settings).await.unwrap();
    assert_eq!(dropped, std::slice::from_ref(&copy.database));
    // Fails if it is not there.
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
    // The extensions belong to a superuser, and the agent is none.
    let verified = place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    assert_eq!(verified.backup.verified, Some(VerifyLevel::RestoreTest));
    let manifest =
        std::fs::read(place.settings.backup.dir.join(format!("{}.manifest.json", taken.id))).unwrap();
    let manifest: backup::Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.format, Format::SqlGz);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_do_not_share_a_folder() {
    let mut place = Place::new();
    let refused = async |place: &Place| {
        let findings = pointsman_database::preflight::look(&place.settings).await;
        let folder = findings.into_iter().find(|finding| finding.check == "folder's database").unwrap();
        folder.verdict == pointsman_database::preflight::Verdict::Refused
    };
    place.take("r1").await.unwrap();
    assert!(!refused(&place).await);
    place.settings.name = "postgres".to_owned();
    assert!(refused(&place).await);
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
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()");
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

/// Somebody's schema change is stuck, or was forgotten: the tables are counted in vain, or `pg_dump` waits in vain for one that has no
/// rows to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_a_backup_from_its_tables_is_named() {
    let place = Place::new();
    let owner = format!("{}_owner", place.settings.name);
    place.sql(&format!("SET ROLE {owner}; CREATE TABLE parts (id int) PARTITION BY RANGE (id)"));
    let held = |refused: &pointsman_core::Problem, by: &str, end: &str| {
        assert_eq!(refused.code, Code::LockNotHad, "{refused:?}");
        assert!(refused.causes[0].contains(by) && refused.hint.contains(end), "{refused:?}");
        assert_eq!(place.files(), Vec::<String>::new());
        place.sql(end);
    };
    for table in ["features", "parts"] {
        let mut psql = place.cluster.client("psql", "postgres", &place.settings.name);
        let sql = format!("BEGIN; LOCK TABLE ONLY {table}; SELECT pg_sleep(600)");
        let silent = std::process::Stdio::null;
        let mut stuck =
            psql.args(["-X", "-q", "-c", &sql]).stdout(silent()).stderr(silent()).spawn().unwrap();
        let holder = format!(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE ONLY {table}%' AND wait_event = 'PgSleep'"
        );
        let pid = until("the lock", || Some(place.sql(&holder)).filter(|pid| !pid.is_empty())).await;
        let refused = place.take("r1").await.unwrap_err();
        if table == "parts" {
            assert!(refused.message.contains("dump the database"), "{refused:?}");
        }
        let by = format!("`{table}` is held by pid {pid} (psql, active, ");
        held(&refused, &by, &format!("SELECT pg_terminate_backend({pid})"));
        stuck.wait().unwrap();
    }
    place.sql("BEGIN; LOCK TABLE visits; PREPARE TRANSACTION 'forgotten'");
    let refused = place.take("r1").await.unwrap_err();
    held(
        &refused,
        "`visits` is held by the prepared transaction `forgotten` of postgres",
        "ROLLBACK PREPARED 'forgotten'",
    );
    place.take("r1").await.unwrap();
}

/// Whoever rewrites the server's own tables (`VACUUM FULL`) waits for the locks of all who read them, and all who come later wait for
/// him: `pg_dump` too, for which the backup waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_keeps_no_lock_while_it_waits_and_names_who_holds_the_servers_own_tables() {
    let place = Place::new();
    {
        let _holder = place.hold("features").await;
        let order = place.order("r1");
        let (authority, progress) = (rule(), Progress::default());
        let taking = backup::take(&place.settings, &order, &authority, &progress);
        let of_snapshot = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'pointsman-snapshot' AND locktype = 'relation'";
        let waits = format!("SELECT count(*) {of_snapshot} AND NOT granted");
        tokio::select! {
            _ = taking => panic!("it did not wait"),
            () = until("a count that waits", || (place.sql(&waits) != "0").then_some(())) => {}
        }
        assert_eq!(place.sql(&format!("SELECT count(*) {of_snapshot} AND granted")), "0");
    }
    for table in ["pg_class", "pg_largeobject_metadata"] {
        let holder = place.hold(table).await;
        let refused = place.take("r1").await.unwrap_err();
        assert_eq!(refused.code, Code::LockNotHad, "{refused:?}");
        let by = format!("`{table}` is held by pid {} (psql, active, ", holder.pid);
        assert!(
            refused.causes[0].contains(&by) && refused.hint.contains("pointsman db backup ENV"),
            "{refused:?}"
        );
    }
    place.take("r1").await.unwrap();
}

/// A server that answers that it is full is not to be looked at by its unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_connection_left_is_told_to_have_more() {
    let place = Place::new();
    let name = place.settings.name.clone();
    let to_look_at = |problem: &pointsman_core::Problem, cause: &str| {
        assert_eq!(problem.code, Code::DatabaseUnreachable, "{problem:?}");
        assert!(problem.causes.iter().any(|told| told.contains(cause)), "{problem:?}");
        assert!(problem.hint.contains("pg_stat_activity") && problem.hint.contains("CONNECTION LIMIT"));
        let (query, _) = problem.hint.split_once('`').and_then(|(_, rest)| rest.split_once('`')).unwrap();
        assert!(place.sql(query).contains("psql"), "{query}");
    };
    let limited = |sessions| {
        place.sql_in("postgres", &format!("ALTER DATABASE {name} CONNECTION LIMIT {sessions}"));
    };
    limited(0);
    let refused = Session::open(&place.settings, &name, "test").await.err().unwrap();
    to_look_at(&refused, "53300: too many connections for database");
    // The agent's own session has the only one, and its `pg_dump` finds none.
    limited(1);
    let refused = place.take("r1").await.unwrap_err();
    to_look_at(&refused, "too many connections for database");
    // Sessions that were refused, or have ended, are gone a moment later.
    limited(50);
    place.take("r1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment() {
    const WRITERS: usize = 4;
    let place = Place::new();
    place.sql(&format!(
        "SET ROLE {0}_owner; CREATE TABLE accounts (id int PRIMARY KEY, amount bigint NOT NULL);
         INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 100) i; GRANT ALL ON accounts TO {0}_app;
         GRANT ALL ON features TO {0}_app; GRANT ALL ON SEQUENCE features_id_seq TO {0}_app;",
        place.settings.name
    ));
    let app = Settings { user: format!("{}_app", place.settings.name), ..place.settings.clone() };
    let (over, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(writer(app.clone(), Arc::clone(&over), Arc::clone(&moved))))
        .collect();
    let moved_more = |than: u64| moved.load(Ordering::SeqCst).checked_sub(than).filter(|more| *more > 20);
    until("writers", || moved_more(0)).await;
    let taken = place.take("r1").await.unwrap();
    let at_backup = moved.load(Ordering::SeqCst);
    until("writers that go on", || moved_more(at_backup)).await;
    over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    // Every transfer is in it as a whole or not at all, and the next number is free.
    assert_eq!(place.sql_in(&copy.database, "SELECT sum(amount) FROM accounts"), "100000");
    place.sql_in(&copy.database, "INSERT INTO features (name) VALUES ('next')");
    copy.remove(&place.settings).await.unwrap();
}

/// Extensions may be in a schema of their own, which the template then brings along with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_in_a_schema_of_its_own_is_restored() {
    let mut place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE SCHEMA \"the tools\" AUTHORIZATION {name}_owner; CREATE EXTENSION pageinspect SCHEMA \"the tools\";
         GRANT USAGE ON SCHEMA \"the tools\" TO {name}_app; COMMENT ON SCHEMA \"the tools\" IS 'not for visitors'"
    ));
    place.run_role_script();
    let rights = "SELECT nspacl::text || obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'the tools'";
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap();
        assert_eq!(place.sql_in(&copy.database, rights), place.sql(rights));
        copy.remove(&place.settings).await.unwrap();
    }
}

/// Whose extensions are, where, and in which version.
const HOMES: &str = "
SELECT string_agg(concat_ws(' ', extname, extversion, extowner::regrole, n.nspname, n.nspowner::regrole), ', ' ORDER BY extname)
  FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace";

/// What an application created by itself it must be able to update and drop in a copy too, as its migrations do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_of_the_applications_is_the_applications_in_a_copy() {
    let mut place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "SET ROLE {name}_owner; CREATE SCHEMA pairs; CREATE EXTENSION hstore SCHEMA pairs VERSION '1.7'; CREATE EXTENSION cube;
         CREATE TABLE tags (id int PRIMARY KEY, of_it pairs.hstore); INSERT INTO tags VALUES (1, 'a=>1');
         RESET ROLE; CREATE EXTENSION pg_trgm"
    ));
    // What a superuser had and dropped, for the application to create it, is the application's.
    place.sql_in(&format!("pointsman_template_{name}"), "CREATE EXTENSION cube");
    place.run_role_script();
    let live = place.sql(HOMES);
    assert!(live.contains(&format!("hstore 1.7 {name}_owner pairs {name}_owner")), "{live}");
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap();
        assert_eq!(place.sql_in(&copy.database, HOMES), live);
        place.sql_in(&copy.database, &format!("SET ROLE {name}_owner; ALTER EXTENSION hstore UPDATE"));
        copy.remove(&place.settings).await.unwrap();
    }
}

/// `größe`, `fällt`, `länge`.
const SIZE: &str = r#"U&"gr\00F6\00DFe""#;
const FALLS: &str = r#"U&"f\00E4llt""#;
const LENGTH: &str = r#"U&"l\00E4nge""#;

/// A database of another encoding than everything around it, with names that have letters of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_another_encoding_is_looked_at_and_restored() {
    let mut place = Place::created(kit::cluster(), "latin", "ENCODING 'LATIN1' LOCALE 'C'");
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE SCHEMA {SIZE} AUTHORIZATION {name}_owner; CREATE EXTENSION pageinspect SCHEMA {SIZE}; CREATE SCHEMA {FALLS};
         GRANT ALL ON SCHEMA {FALLS} TO {name}_owner; SET ROLE {name}_owner; CREATE TABLE {SIZE}.{LENGTH} ({LENGTH} text);
         INSERT INTO {SIZE}.{LENGTH} VALUES (U&'zw\\00F6lf'); CREATE TABLE {FALLS}.off (id int); COMMENT ON SCHEMA {SIZE} IS U&'gro\\00DF'"
    ));
    place.run_role_script();
    let judged = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning);
    judged.unwrap_or_else(|problem| panic!("{problem} {:?} {}", problem.causes, problem.hint));
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap_or_else(|problem| panic!("{problem} {:?}", problem.causes));
        let read = format!("SELECT {LENGTH} = U&'zw\\00F6lf', getdatabaseencoding() FROM {SIZE}.{LENGTH}");
        assert_eq!(place.sql_in(&copy.database, &read), "t|LATIN1");
        copy.remove(&place.settings).await.unwrap();
    }
}

/// Rows and expressions are read by what is set for the database: a copy has it before it has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_for_a_database_holds_in_a_copy_while_it_is_loaded() {
    let place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!("ALTER DATABASE {name} SET app.tenant = '7'"));
    place.sql(&format!(
        "SET ROLE {name}_owner; CREATE MATERIALIZED VIEW of_tenant AS SELECT current_setting('app.tenant') AS tenant; RESET ROLE;
         ALTER DATABASE {name} SET default_transaction_read_only = on; ALTER DATABASE {name} SET log_statement = 'none'"
    ));
    let told = async || {
        let findings = preflight::look(&place.settings).await;
        findings.into_iter().filter(|found| found.found.contains("app.tenant a copy of it lacks")).count()
    };
    assert_eq!(told().await, 1);
    if place.cluster.server().major < 15 {
        return;
    }
    place.run_role_script();
    assert_eq!(told().await, 0);
    let taken = place.take("r1").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap_or_else(|problem| panic!("{problem} {:?}", problem.causes));
    assert_eq!(place.sql_in(&copy.database, "SELECT tenant FROM of_tenant"), "7");
    copy.remove(&place.settings).await.unwrap();
}

/// Rights on what is a superuser's, whose its schemas are, and what is said of them.
const OF_SUPERUSERS: &str = "
SELECT string_agg(format('%s of %s: %s to %s', t.name, t.owner, a.privilege_type, a.grantee::regrole), ', ' ORDER BY t.name, a.privilege_type, a.grantee)
  FROM (SELECT oid::regprocedure::text AS name, '' AS owner, proacl AS acl FROM pg_proc WHERE proname = 'pgstattuple'
        UNION ALL SELECT relname, '', relacl FROM pg_class WHERE relname IN ('spatial_ref_sys', 'geometry_columns')
        UNION ALL SELECT coalesce(obj_description(oid, 'pg_namespace'), nspname), nspowner::regrole::text, nspacl FROM pg_namespace
                   WHERE nspname IN ('topology', 'the tools', 'public')) t
 CROSS JOIN LATERAL aclexplode(t.acl) a
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 WHERE g.rolname NOT LIKE '%\\_agent'";

/// A superuser has made schemas, for extensions and for people, and given rights on them and on what extensions made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_a_superusers_is_restored_with_the_rights_on_it() {
    let mut place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE SCHEMA \"the tools\"; CREATE EXTENSION pageinspect SCHEMA \"the tools\"; CREATE EXTENSION pgstattuple;
         CREATE EXTENSION postgis_topology;
         COMMENT ON SCHEMA \"the tools\" IS 'not for visitors,
but for people';
         GRANT USAGE ON SCHEMA \"the tools\" TO {name}_app; GRANT ALL ON SCHEMA \"the tools\" TO {name}_owner;
         GRANT USAGE ON SCHEMA topology TO {name}_app; GRANT EXECUTE ON FUNCTION pgstattuple(text) TO {name}_app WITH GRANT OPTION;
         REVOKE ALL ON spatial_ref_sys FROM PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_app;
         ALTER SCHEMA public OWNER TO postgres; GRANT ALL ON SCHEMA public TO {name}_owner; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
         CREATE TABLE \"the tools\".notes (id int); ALTER TABLE \"the tools\".notes OWNER TO {name}_owner"
    ));
    let told = async || preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning);
    told().await.unwrap_err();
    let found = preflight::look(&place.settings).await;
    let of_schema = |one: &preflight::Finding| {
        one.found.contains("schema \"the tools\", schema ")
            && one.hint.contains("`database-role.sql` once more")
    };
    assert!(found.iter().any(of_schema), "{found:?}");
    place.run_role_script();
    told().await.unwrap_or_else(|problem| panic!("{problem} {:?} {}", problem.causes, problem.hint));
    assert_eq!(of_template(&place).await, [Verdict::Fine]);
    let live = place.sql(OF_SUPERUSERS);
    assert!(
        live.contains("but for people of postgres: USAGE") && live.contains("Topology schema of "),
        "{live}"
    );
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap();
        assert_eq!(place.sql_in(&copy.database, OF_SUPERUSERS), live);
        copy.remove(&place.settings).await.unwrap();
    }
    // What is changed again is told, and taken over again.
    let own = if place.cluster.server().major >= 15 { "pg_database_owner" } else { "postgres" };
    place.sql(&format!(
        "REVOKE ALL ON SCHEMA topology FROM {name}_app; GRANT SELECT ON spatial_ref_sys TO PUBLIC; ALTER SCHEMA public OWNER TO {own};
         GRANT USAGE ON SCHEMA public TO PUBLIC"
    ));
    assert_eq!(of_template(&place).await, [Verdict::Warning]);
    place.run_role_script();
    assert_eq!(of_template(&place).await, [Verdict::Fine]);
    place.settings.backup.format = BackupFormat::Custom;
    let taken = place.take("r3").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    assert_eq!(place.sql_in(&copy.database, OF_SUPERUSERS), place.sql(OF_SUPERUSERS));
    copy.remove(&place.settings).await.unwrap();
}

/// Names with blanks in them: neither is one taken for another that begins alike, nor an owner for one that ends alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_begin_or_end_alike_are_told_apart() {
    let place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE ROLE \"Admin {name}\" SUPERUSER; CREATE ROLE \"App {name}_other\"; CREATE ROLE {name}_other;
         GRANT \"App {name}_other\" TO {name}_agent; CREATE SCHEMA \"Laden 1\" AUTHORIZATION \"App {name}_other\";
         CREATE SCHEMA mein AUTHORIZATION {name}_owner; CREATE SCHEMA \"mein Laden\" AUTHORIZATION {name}_owner;
         CREATE EXTENSION pageinspect SCHEMA mein; SET ROLE \"Admin {name}\"; CREATE EXTENSION pg_stat_statements; RESET ROLE;
         SET ROLE {name}_owner; CREATE TABLE \"mein Laden\".waren (id int); RESET ROLE;
         SET ROLE \"App {name}_other\"; CREATE TABLE \"Laden 1\".q (id int); GRANT SELECT ON \"Laden 1\".q TO {name}_app; RESET ROLE;
         GRANT SELECT ON pg_stat_statements TO {name}_app"
    ));
    place.run_role_script();
    let judged = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning);
    judged.unwrap_or_else(|problem| panic!("{problem} {:?} {}", problem.causes, problem.hint));
    let rights = format!(
        "SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY relname) FROM pg_class c, aclexplode(relacl) a
          WHERE a.grantee = '{name}_app'::regrole AND relname IN ('waren', 'q', 'pg_stat_statements')"
    );
    assert_eq!(place.sql(&rights), "pg_stat_statements, \"Laden 1\".q");
    let taken = place.take("r1").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap_or_else(|problem| panic!("{problem} {:?}", problem.causes));
    assert_eq!(place.sql_in(&copy.database, &rights), place.sql(&rights));
    copy.remove(&place.settings).await.unwrap();
}

/// Tables that extensions made and people fill, which everybody may not read, and which refer to one another: a dump has
/// their rows in order, and notes no reason for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_extensions_are_filled_in_order_and_counted() {
    let place = Place::new();
    let name = &place.settings.name;
    place.sql(&format!(
        "CREATE EXTENSION address_standardizer_data_us; CREATE EXTENSION postgis_topology;
         ALTER SCHEMA topology OWNER TO {name}_owner;
         INSERT INTO topology.topology VALUES (1, 'net', 4326, 0, false);
         INSERT INTO topology.layer (topology_id, layer_id, schema_name, table_name, feature_column, feature_type, level)
         SELECT 1, n, 'public', 'features', 'at' || n, 1, 0 FROM generate_series(1, 100) n"
    ));
    // Settings of the database that would end the script half-way, or change how it names things.
    let template = format!("pointsman_template_{name}");
    place.sql(&format!(
        "ALTER DATABASE {name} SET quote_all_identifiers = on; ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    place.run_role_script();
    place.run_role_script();
    place.sql_in("postgres", &format!("ALTER DATABASE {name} RESET ALL"));
    let languages = place.sql_in(&template, "SELECT count(*) FROM pg_extension WHERE extname = 'plpgsql'");
    assert_eq!(languages, "1");
    for _ in 0..3 {
        let taken = place.take("r1").await.unwrap();
        place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    }
    place.sql_in(&template, &format!("REVOKE ALL ON us_gaz FROM {}", place.settings.user));
    let found = preflight::look(&place.settings).await;
    let told = |one: &preflight::Finding| {
        one.verdict == Verdict::Unrestorable && one.found.contains("may not read and fill us_gaz")
    };
    assert!(found.iter().any(told), "{found:?}");
}

/// A table that is dropped, and one that takes the place of another, wait for the dump and go ahead right after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_or_renamed_beside_a_backup_fails_none() {
    let place = Place::new();
    place.sql(&format!(
        "SET ROLE {}_owner; CREATE TABLE gone (id serial PRIMARY KEY); CREATE TABLE new (id serial PRIMARY KEY); CREATE TABLE old (id serial PRIMARY KEY);
         SELECT setval('new_id_seq', 700), setval('old_id_seq', 7);
         CREATE TABLE zz_big AS SELECT n, repeat(md5(n::text), 8) AS t FROM generate_series(1, 300000) n",
        place.settings.name
    ));
    let (cluster, name) = (Arc::clone(&place.cluster), place.settings.name.clone());
    let dumped = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE a.application_name = 'pointsman-dump' AND l.relation = 'old'::regclass AND l.granted";
    let swapped = "BEGIN; DROP TABLE gone; ALTER TABLE old RENAME TO older; ALTER SEQUENCE old_id_seq RENAME TO older_id_seq;
                   ALTER TABLE new RENAME TO old; ALTER SEQUENCE new_id_seq RENAME TO old_id_seq; COMMIT";
    let beside = std::thread::spawn(move || {
        let give_up = Instant::now() + Duration::from_secs(30);
        while cluster.psql(&name, dumped).unwrap() == "0" {
            assert!(Instant::now() < give_up, "nothing is dumped");
            std::thread::sleep(Duration::from_millis(5));
        }
        cluster.psql(&name, swapped).unwrap();
    });
    let taken = place.take("r1").await.unwrap();
    beside.join().unwrap();
    assert_eq!(place.sql("SELECT to_regclass('gone') IS NULL"), "t");
    let path = place.settings.backup.dir.join(format!("{}.manifest.json", taken.id));
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sequences = manifest["contents"]["sequences"].as_array().unwrap();
    let old = sequences.iter().find(|one| one["name"] == "old_id_seq").unwrap();
    assert_eq!((old["before"].as_i64(), old["after"].as_i64()), (Some(7), Some(7)));
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

/// An index that a concurrent build left unfinished is in no dump, and no difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_build_left_is_no_reason_to_doubt_a_backup() {
    let place = Place::new();
    place.sql("INSERT INTO visits SELECT * FROM visits");
    let build = "CREATE UNIQUE INDEX CONCURRENTLY visits_at ON visits (at)";
    assert!(place.cluster.psql(&place.settings.name, build).is_err());
    assert_eq!(place.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'visits_at'::regclass"), "f");
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

/// Moves amounts between accounts and takes numbers until it is over.
async fn writer(settings: Settings, over: Arc<AtomicBool>, moved: Arc<AtomicU64>) {
    let mut session = Session::open(&settings, &settings.name, "writer").await.unwrap();
    while !over.load(Ordering::SeqCst) {
        let transaction = session.client_mut().transaction().await.unwrap();
        // In one order, so that no two wait for each other.
        let change =
            "UPDATE accounts SET amount = amount + CASE id WHEN 1 THEN -1 ELSE 1 END WHERE id IN (1, 2)";
        transaction
            .execute("SELECT FROM accounts WHERE id IN (1, 2) ORDER BY id FOR UPDATE", &[])
            .await
            .unwrap();
        transaction.execute(change, &[]).await.unwrap();
        transaction.execute("INSERT INTO features (name) VALUES ('under load')", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        moved.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_in_no_argument_and_no_environment_and_gone_afterwards() {
    const PASSWORD: &str = "s3cret:with\\signs";
    let mut place = Place::new();
    let (name, user) = (place.settings.name.clone(), place.settings.user.clone());
    place.sql(&format!("GRANT guarded TO {user}; ALTER ROLE {user} PASSWORD '{PASSWORD}'"));
    assert_eq!(place.take("r0").await.unwrap_err().code, Code::DatabaseUnreachable);
    let file = place.folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    place.settings.password_file = Some(file.clone());
    place.settings.backup.dir = place.folder.path().join("backups");
    std::fs::create_dir(&place.settings.backup.dir).unwrap();

    let mut blocker = place.cluster.client("psql", "postgres", &name);
    let mut blocker =
        blocker.args(["-X", "-q", "-c", "BEGIN; LOCK TABLE features; SELECT pg_sleep(60)"]).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'features'::regclass AND granted";
    until("the lock", || (place.sql(held) != "0").then_some(())).await;
    let looking = until("pg_dump", || {
        let pid = kit::damage::dump_of(&name)?;
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        Some((read("cmdline"), read("environ")))
    });
    let (taken, (arguments, environment)) = tokio::join!(place.take("r1"), looking);
    // It gave up waiting for the lock by itself.
    let refused = taken.unwrap_err();
    assert_eq!(refused.code, Code::LockNotHad, "{refused:?}");
    blocker.kill().unwrap();
    blocker.wait().unwrap();
    for told in [&arguments, &environment] {
        assert!(!told.is_empty() && !told.windows(6).any(|window| window == b"s3cret"));
    }
    let environment = String::from_utf8(environment).unwrap();
    let passed = environment.split('\0').find_map(|variable| variable.strip_prefix("PGPASSFILE=")).unwrap();
    assert!(!std::path::Path::new(passed).exists());
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'BEGIN; LOCK%' AND pid <> pg_backend_pid()");
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    for file in place.files() {
        let content = std::fs::read(place.settings.backup.dir.join(&file)).unwrap();
        assert!(!content.windows(6).any(|window| window == b"s3cret"), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_seems_to_need_a_superuser_is_no_obstacle() {
    let place = Place::new();
    let owner = format!("{}_owner", place.settings.name);
    place.sql(&format!(
        "SET ROLE {owner};
         CREATE TYPE span AS RANGE (subtype = float8);
         CREATE FUNCTION added(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';
         CREATE AGGREGATE total (int) (sfunc = added, stype = int, initcond = 0);
         CREATE TABLE spans (id int PRIMARY KEY, during span);"
    ));
    preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap();
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_told_where_a_restore_would_lose_them() {
    let place = Place::new();
    let name = place.settings.name.clone();
    // It is gone since version 17.
    let adminpack = if place.cluster.server().major < 17 { "CREATE EXTENSION adminpack;" } else { "" };
    // What others set up: trusted ones and others, one that needs another, one in the server's own schema, tables of an extension
    // that only its owner may read, a server elsewhere, rights taken from everybody and given to some.
    place.sql(&format!(
        "CREATE ROLE {name}_reader; CREATE EXTENSION earthdistance CASCADE; {adminpack} CREATE EXTENSION postgres_fdw;
         CREATE EXTENSION pgstattuple; SET ROLE {name}_owner; CREATE EXTENSION fuzzystrmatch; RESET ROLE;
         REVOKE EXECUTE ON FUNCTION levenshtein(text, text) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION pgstattuple(text) TO {name}_reader;
         REVOKE SELECT ON spatial_ref_sys FROM PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}_reader;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {name}_owner;
         SET ROLE {name}_owner; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE USER MAPPING FOR {name}_app SERVER far OPTIONS (user 'a', password 'secret');
         CREATE USER MAPPING FOR PUBLIC SERVER far;"
    ));
    let found = preflight::look(&place.settings).await;
    let refused = preflight::judge(&found, Verdict::Warning).unwrap_err();
    let told = format!("{refused} {:?} {}", refused.causes, refused.hint);
    assert!(told.contains("foreign-data wrapper postgres_fdw"), "{told}");
    assert!(
        found
            .iter()
            .any(|one| one.found.contains("spatial_ref_sys") && one.hint.contains("database-role.sql")),
        "{found:?}"
    );
    place.run_role_script();
    // Again is as good as once.
    place.run_role_script();
    let found = preflight::look(&place.settings).await;
    let judged = preflight::judge(&found, Verdict::Warning);
    judged.unwrap_or_else(|problem| panic!("{problem} {:?} {}", problem.causes, problem.hint));
    let warned =
        |what: &str| found.iter().any(|one| one.verdict == Verdict::Warning && one.found.contains(what));
    // What a restore makes by itself nobody but a superuser can give to others.
    assert!(warned("others may use what is a superuser's") && warned("levenshtein"), "{found:?}");
    assert!(!warned("spatial_ref_sys") && !warned("pgstattuple"), "{found:?}");
    assert!(warned(&format!("user mapping of {name}_app for far")), "{found:?}");
    // That of everybody is the owner's to see, and has no options.
    assert!(!warned("user mapping of public for far"), "{found:?}");
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

/// Extensions that whoever has the rights of a schema may create, and ones that everybody may, are a superuser's all the same
/// where one has created them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_superuser_created_and_others_could_have_is_restored_as_his() {
    for schema in ["", "CREATE SCHEMA tiger AUTHORIZATION %owner;"] {
        let mut place = Place::new();
        let name = place.settings.name.clone();
        let (owner, app) = (format!("{name}_owner"), format!("{name}_app"));
        place.sql(&format!(
            "{} CREATE EXTENSION fuzzystrmatch; CREATE EXTENSION postgis_tiger_geocoder; CREATE EXTENSION hstore;
             CREATE SCHEMA extensions AUTHORIZATION {owner}; CREATE EXTENSION pgcrypto SCHEMA extensions;
             GRANT USAGE ON SCHEMA tiger TO {app}; GRANT SELECT ON tiger.county TO {app};
             REVOKE EXECUTE ON FUNCTION extensions.digest(text, text) FROM PUBLIC;
             GRANT EXECUTE ON FUNCTION extensions.digest(text, text) TO {app};
             REVOKE USAGE ON TYPE hstore FROM PUBLIC; GRANT USAGE ON TYPE hstore TO {owner};
             SET ROLE {owner}; CREATE TABLE tags (id int PRIMARY KEY, of_it hstore)",
            schema.replace("%owner", &owner)
        ));
        let found = preflight::look(&place.settings).await;
        let refused = preflight::judge(&found, Verdict::Warning).unwrap_err();
        assert!(refused.message.contains("`postgis_tiger_geocoder`"), "{refused}");
        for thing in ["function extensions.digest(", "type public.hstore"] {
            let told = found.iter().find(|one| one.found.contains(thing));
            let told = told.unwrap_or_else(|| panic!("{thing}: {found:?}"));
            assert!(told.hint.contains("database-role.sql"), "{told:?}");
        }
        place.run_role_script();
        let template = format!("pointsman_template_{name}");
        let numbers = "SELECT array_agg(oid ORDER BY oid) FROM pg_extension";
        let made = place.sql_in(&template, numbers);
        // Again is as good as once.
        place.run_role_script();
        assert_eq!(place.sql_in(&template, numbers), made);
        let found = preflight::look(&place.settings).await;
        assert!(found.iter().all(|one| one.verdict == Verdict::Fine || one.check != "template"), "{found:?}");
        preflight::judge(&found, Verdict::Warning).unwrap();
        let rights = format!(
            "SELECT concat_ws(' ', has_table_privilege('{app}', 'tiger.county', 'SELECT'), has_table_privilege('{owner}', 'tiger.county', 'SELECT'),
                              has_function_privilege('public', 'extensions.digest(text, text)', 'EXECUTE'),
                              has_function_privilege('{app}', 'extensions.digest(text, text)', 'EXECUTE'),
                              has_type_privilege('public', 'hstore', 'USAGE'), has_type_privilege('{owner}', 'hstore', 'USAGE'),
                              (SELECT relowner::regrole FROM pg_class WHERE oid = 'tiger.county'::regclass), ({HOMES}))"
        );
        let live = place.sql(&rights);
        assert!(live.starts_with("t f f t f t postgres"), "{live}");
        for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
            place.settings.backup.format = format;
            let taken = place.take(release).await.unwrap();
            let kept =
                backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
            let (_, copy) = kept.unwrap();
            assert_eq!(place.sql_in(&copy.database, &rights), live);
            copy.remove(&place.settings).await.unwrap();
        }
    }
}

/// What an enum's value hashes to is another number in each database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_restore_puts_into_other_partitions_are_counted_where_they_are_together() {
    let mut place = Place::new();
    place.sql(&format!("SET ROLE {}_owner; {SCATTERED}", place.settings.name));
    let each = "SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM shades GROUP BY tableoid ORDER BY tableoid::regclass::text) s";
    let live = place.sql(each);
    let mut moved = false;
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap();
        moved |= place.sql_in(&copy.database, each) != live;
        copy.remove(&place.settings).await.unwrap();
        // One that is lost on the way is missed all the same.
        let path = place.settings.backup.dir.join(format!("{}.manifest.json", taken.id));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tables = manifest["contents"]["tables"].as_array_mut().unwrap();
        let part = tables.iter_mut().find(|table| table["name"] == "shades_1").unwrap();
        part["rows"] = (part["rows"].as_u64().unwrap() + 1).into();
        std::fs::write(&path, manifest.to_string()).unwrap();
        let problem = place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap_err();
        assert_eq!(problem.code, Code::CopyDiffers);
        assert_eq!(problem.causes, ["rows of `public.shades`: 300 instead of 301"]);
    }
    assert!(moved, "no row is in another partition: this shows nothing");
}

/// The same of what holds enums, which `pg_dump` does not see by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_partitioned_by_the_hash_of_what_holds_enums_are_restored() {
    let mut place = Place::new();
    let mut keys = vec![
        ("lists", "ARRAY[('s' || (n % 60 + 1))::shade]", "key shade[]", "key"),
        ("spans", "span(('s' || (n % 60 + 1))::shade, NULL)", "key span", "key"),
        ("made", "('s' || (n % 60 + 1))::shade", "key shade", "(ARRAY[key])"),
    ];
    if place.cluster.server().major >= 14 {
        keys.push(("pairs", "ROW(('s' || (n % 60 + 1))::shade, n)::pair", "key pair", "key"));
        keys.push(("many", "spans_of(span(('s' || (n % 60 + 1))::shade, NULL))", "key spans_of", "key"));
    }
    let shades: Vec<String> = (1..=60).map(|n| format!("'s{n}'")).collect();
    let types = match place.cluster.server().major {
        14.. => "CREATE TYPE span AS RANGE (subtype = shade, multirange_type_name = spans_of)",
        _ => "CREATE TYPE span AS RANGE (subtype = shade)",
    };
    let tables = keys.iter().map(|(table, value, column, key)| {
        let parts = (0..3).map(|part| {
            format!("CREATE TABLE {table}_{part} PARTITION OF {table} FOR VALUES WITH (MODULUS 3, REMAINDER {part});")
        });
        format!(
            "CREATE TABLE {table} ({column}, id int) PARTITION BY HASH ({key}); {}
             INSERT INTO {table} SELECT {value}, n FROM generate_series(1, 300) n;",
            parts.collect::<String>()
        )
    });
    place.sql(&format!(
        "SET ROLE {}_owner; CREATE TYPE shade AS ENUM ({}); {types}; CREATE TYPE pair AS (a shade, b int); {}",
        place.settings.name,
        shades.join(", "),
        tables.collect::<String>()
    ));
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
        let (_, copy) = kept.unwrap();
        for (table, ..) in &keys {
            let each = format!(
                "SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM {table} GROUP BY tableoid ORDER BY tableoid::regclass::text) s"
            );
            let (live, copied) = (place.sql(&each), place.sql_in(&copy.database, &each));
            assert_ne!(live, copied, "{table}: no row is in another partition: this shows nothing");
            assert_eq!(place.sql_in(&copy.database, &format!("SELECT count(*) FROM {table}")), "300");
        }
        copy.remove(&place.settings).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_could_become_a_superuser_is_taken_for_one() {
    let place = Place::new();
    let (name, agent) = (place.settings.name.clone(), place.settings.user.clone());
    place.sql(&format!("CREATE ROLE {name}_root SUPERUSER; GRANT {name}_root TO {agent}"));
    let refused = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
    assert!(refused.message.contains(&format!("member of the superuser `{name}_root`")), "{refused}");
    assert!(refused.hint.contains(&format!("REVOKE \"{name}_root\" FROM \"{agent}\"")), "{}", refused.hint);
    assert_eq!(place.take("r1").await.unwrap_err().code, Code::DatabaseUnfit);
    place.sql(&format!("REVOKE {name}_root FROM {agent}; ALTER DATABASE {name} OWNER TO {name}_root"));
    let refused = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
    assert!(
        refused.message.contains("a superuser") && refused.hint.contains("ALTER DATABASE"),
        "{refused} {}",
        refused.hint
    );
    // The script makes no such role.
    let variables =
        [("database", name.as_str()), ("owner", &format!("{name}_root")), ("role", agent.as_str())];
    let failed = place.cluster.psql_file("postgres", &kit::role_script(), &variables).unwrap_err();
    assert!(failed.to_string().contains("belongs to a superuser"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tables_than_the_server_can_lock_are_counted_one_after_the_other() {
    let cluster = Cluster::start_with("max_locks_per_transaction = 16").unwrap();
    let place = Place::of(Arc::new(cluster), "many");
    // Each that is counted takes a lock, and one for each of its indexes: the server has room for about three thousand.
    let columns: Vec<String> = (0..12).map(|number| format!("c{number} int UNIQUE")).collect();
    place.sql("CREATE SCHEMA tenants AUTHORIZATION many_owner");
    for batch in 1..=10 {
        place.sql(&format!(
            "SET ROLE many_owner;
             DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('CREATE TABLE tenants.t{batch}_%s ({})', i); END LOOP; END $$",
            columns.join(", ")
        ));
    }
    place.take("r1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_gives_up_no_newer_backup() {
    let mut place = Place::new();
    place.settings.backup.keep = 1;
    for release in ["r1", "r2"] {
        let taken = place.take(release).await.unwrap();
        place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    }
    let listed = backup::list(&place.settings).await.unwrap();
    let [first, second] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((first.release.as_str(), second.release.as_str()), ("r1", "r2"));
    assert!(first.sequence < second.sequence);
    // As if the second was taken a day before the first.
    let path = place.settings.backup.dir.join(format!("{}.manifest.json", second.id));
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["taken_at_ms"] = (first.taken_at_ms - 86_400_000).into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let retained = backup::retain(&place.settings, &[]).await.unwrap();
    assert_eq!((retained.kept, retained.removed), (vec![second.id.clone()], vec![first.id.clone()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_was_given_up_is_given_up_in_the_template_too() {
    let place = Place::new();
    place.sql("DROP TABLE features; DROP EXTENSION postgis CASCADE; CREATE EXTENSION pg_stat_statements");
    let refused = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
    let told = format!("{refused} {:?} {}", refused.causes, refused.hint);
    assert!(told.contains("has `postgis` and") && told.contains("database-role.sql"), "{told}");
    // A backup can be taken all the same, where none is restored for its check.
    assert_eq!(of_template(&place).await, [Verdict::Unrestorable]);
    place.run_role_script();
    assert_eq!(of_template(&place).await, [Verdict::Fine]);
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

async fn of_template(place: &Place) -> Vec<Verdict> {
    let findings = preflight::look(&place.settings).await;
    findings.into_iter().filter(|found| found.check == "template").map(|found| found.verdict).collect()
}

/// An extension that was put into another schema, and one of another version: what restores begin from follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_was_put_elsewhere_or_updated_is_so_in_the_template_too() {
    let place = Place::new();
    let of_it = async || {
        let findings = preflight::look(&place.settings).await;
        let of_it = findings.into_iter().filter(|found| found.found.contains("`pageinspect`"));
        of_it.map(|found| (found.check, found.verdict)).collect::<Vec<_>>()
    };
    let name = &place.settings.name;
    place.sql(&format!(
        "CREATE SCHEMA tools AUTHORIZATION {name}_owner; CREATE EXTENSION pageinspect SCHEMA tools VERSION '1.7'"
    ));
    place.run_role_script();
    assert_eq!(of_it().await, []);
    for (change, verdict) in [
        ("ALTER EXTENSION pageinspect UPDATE TO '1.8'", Verdict::Warning),
        ("ALTER EXTENSION pageinspect SET SCHEMA public; DROP SCHEMA tools", Verdict::Unrestorable),
    ] {
        place.sql(change);
        assert_eq!(of_it().await, [("template", verdict)], "{change}");
        place.run_role_script();
        assert_eq!(of_it().await, [], "{change}");
    }
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
}

/// What each makes of the live database, whether it can be restored, and what is told of it.
const OBSTACLES: &[(&str, &[&str])] = &[
    // Before version 15 everybody creates in `public`, and not in a schema that somebody made.
    ("CREATE SCHEMA shop AUTHORIZATION %owner; GRANT CREATE ON SCHEMA shop TO %rep; CREATE TABLE shop.reports (id int);
      ALTER TABLE shop.reports OWNER TO %rep", &[
        "table shop.reports", "ALTER TABLE shop.reports OWNER TO %owner; GRANT ALL ON TABLE shop.reports TO %rep",
    ]),
    ("CREATE SCHEMA others AUTHORIZATION %rep; CREATE TABLE others.t (id int); ALTER TABLE others.t OWNER TO %rep", &[
        "schema others, table others.t", "GRANT \"%rep\" TO \"%agent\"",
    ]),
    ("CREATE SCHEMA others AUTHORIZATION %rep; GRANT %rep TO %agent; CREATE TABLE others.t (id int); ALTER TABLE others.t OWNER TO %owner", &[
        "table others.t", "ALTER SCHEMA others OWNER TO %owner; GRANT ALL ON SCHEMA others TO %rep",
    ]),
    ("CREATE TABLE mine (id int); CREATE TYPE pair AS (a int, b int)", &[
        "type public.pair", "table public.mine", "ALTER TYPE public.pair OWNER TO %owner",
    ]),
    ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", &["ALTER FUNCTION public.one() OWNER TO %owner"]),
    ("SELECT lo_create(77)", &["ALTER LARGE OBJECT 77 OWNER TO %owner"]),
    ("CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; ALTER FUNCTION noted() OWNER TO %owner;
      CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION noted()", &[
        "event trigger noting", "DROP EVENT TRIGGER noting",
    ]),
    ("CREATE PUBLICATION all_of_it FOR ALL TABLES; ALTER PUBLICATION all_of_it OWNER TO postgres", &[
        "publication all_of_it", "CREATE PUBLICATION all_of_it FOR TABLE",
    ]),
    ("CREATE FUNCTION quiet() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'; ALTER FUNCTION quiet() OWNER TO %owner", &[
        "ALTER ROUTINE quiet() NOT LEAKPROOF",
    ]),
    ("CREATE AGGREGATE gathered (float8) (sfunc = float8_accum, stype = float8[], initcond = '{0,0,0}');
      CREATE AGGREGATE mean (int8) (sfunc = int8_avg_accum, stype = internal, finalfunc = numeric_poly_avg);
      ALTER AGGREGATE mean(int8) OWNER TO %owner; ALTER AGGREGATE gathered(float8) OWNER TO %owner", &["DROP ROUTINE mean(bigint)"]),
    ("CREATE FUNCTION loud() RETURNS int LANGUAGE sql SET log_statement = 'all' AS 'SELECT 1'; ALTER FUNCTION loud() OWNER TO %owner", &[
        "ALTER ROUTINE loud() RESET log_statement",
    ]),
    ("CREATE TEXT SEARCH TEMPLATE plain (lexize = dsimple_lexize, init = dsimple_init)", &["DROP TEXT SEARCH TEMPLATE public.plain"]),
    ("CREATE TEXT SEARCH PARSER words (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype)", &[
        "DROP TEXT SEARCH PARSER public.words",
    ]),
    ("CREATE OPERATOR CLASS backwards FOR TYPE int USING btree AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <,
      FUNCTION 1 btint4cmp(int, int); ALTER OPERATOR CLASS backwards USING btree OWNER TO %owner;
      ALTER OPERATOR FAMILY backwards USING btree OWNER TO %owner", &["DROP OPERATOR FAMILY public.backwards USING btree"]),
    ("CREATE CAST (text AS json) WITHOUT FUNCTION", &["DROP CAST (text AS json)"]),
    ("CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler", &["DROP ACCESS METHOD heap_too"]),
    ("GRANT SELECT ON visits TO %rep WITH GRANT OPTION; SET ROLE %rep; GRANT SELECT ON visits TO %app", &[
        "SELECT of table public.visits to %app",
        "SET ROLE %rep; REVOKE SELECT ON TABLE public.visits FROM %app; RESET ROLE; GRANT SELECT ON TABLE public.visits TO %app",
    ]),
    ("GRANT SELECT (path) ON visits TO %rep WITH GRANT OPTION; SET ROLE %rep; GRANT SELECT (path) ON visits TO %app", &[
        "REVOKE SELECT (path) ON TABLE public.visits FROM %app",
    ]),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE %rep GRANT SELECT ON TABLES TO %app", &[
        "GRANT \"%rep\" TO \"%agent\"", "ALTER DEFAULT PRIVILEGES FOR ROLE %rep REVOKE ALL ON TABLES FROM %app",
    ]),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO %app", &[
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public REVOKE ALL ON TABLES FROM %app",
    ]),
    ("GRANT EXECUTE ON FUNCTION pg_stat_reset() TO %rep", &[
        "pg_stat_reset", "REVOKE EXECUTE ON ROUTINE pg_catalog.pg_stat_reset() FROM %rep",
    ]),
    ("CREATE TABLE unread (id int); ALTER TABLE unread OWNER TO %rep; GRANT CREATE ON SCHEMA public TO %rep", &[
        "cannot read all of it, so no backup can be taken: public.unread", "GRANT %rep TO %agent",
    ]),
    ("CREATE TABLE hidden (id int); ALTER TABLE hidden OWNER TO %owner; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", &[
        "cannot read all of it, so no backup can be taken: public.hidden", "ALTER ROLE %agent BYPASSRLS",
    ]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_role_could_not_restore_is_told_before_a_release_meets_it_and_what_is_told_helps() {
    let place = Place::new();
    let name = place.settings.name.clone();
    let words = |text: &str| {
        ["rep", "app", "owner", "agent"]
            .iter()
            .fold(text.to_owned(), |text, role| text.replace(&format!("%{role}"), &format!("{name}_{role}")))
    };
    // Before version 15 a dump does not tell whose `public` is.
    let public: (&str, &[&str]) = (
        "ALTER SCHEMA public OWNER TO postgres; GRANT ALL ON SCHEMA public TO %owner",
        &["schema public", "ALTER SCHEMA public OWNER TO %owner"],
    );
    let public = (place.cluster.server().major >= 15).then_some(&public);
    for (number, (sql, expected)) in OBSTACLES.iter().chain(public).enumerate() {
        place.sql(&words("CREATE ROLE %rep"));
        place.sql(&words(sql));
        let bad = async || {
            let found = preflight::look(&place.settings).await;
            found.into_iter().filter(|found| found.verdict > Verdict::Warning).collect::<Vec<_>>()
        };
        let told = bad().await;
        let all: String = told.iter().map(|found| format!("{}\n{}\n", found.found, found.hint)).collect();
        // What cannot even be read stands in the way of every backup.
        let is_as_told = |found: &preflight::Finding| match found.found.contains("cannot read all of it") {
            true => found.verdict == Verdict::Refused,
            false => found.verdict == Verdict::Unrestorable,
        };
        assert!(told.iter().all(is_as_told), "{sql}: {all}");
        for expected in *expected {
            assert!(all.contains(&words(expected)), "{sql}: {all}");
        }
        // It is as it is told: the backup cannot be taken, or not restored.
        let restored = async |when: &str| {
            let taken = place.take(&format!("{when} {number}")).await?;
            place.verify(&taken.id, VerifyLevel::RestoreTest).await.map(drop)
        };
        restored("before").await.expect_err(sql);
        for hint in told.iter().map(|found| &found.hint) {
            let (_, typed) = hint.split_once("superuser: `").unwrap();
            let typed = typed.split_once('`').unwrap().0.replace("FOR TABLE ...", "FOR TABLE visits");
            place.cluster.psql(&name, &typed).unwrap_or_else(|error| panic!("{sql}: {all}: {error}"));
        }
        assert_eq!(bad().await, [], "{sql}");
        restored("after").await.unwrap_or_else(|problem| panic!("{sql}: {problem} {:?}", problem.causes));
        place.sql(&words("REVOKE %rep FROM %agent; DROP OWNED BY %rep CASCADE; DROP ROLE %rep"));
    }
}
