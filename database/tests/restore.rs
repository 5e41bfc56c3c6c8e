//! A restore: beside, counted, swapped, taken back, and cut short at every place.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kit::{Place, SCATTERED, rule, until};
use pointsman_chassis::failpoint;
use pointsman_core::Code;
use pointsman_database::preflight::{self, Verdict};
use pointsman_database::restore::{self, Recovered, Stage};
use pointsman_database::{BackupFormat, Progress, Settings, VerifyLevel, backup, migrate, scratch};
use pointsman_migration::{Phase, Set};

async fn beside(place: &Place, id: &str) -> restore::Beside {
    restore::beside(&place.settings, id, &rule(), &Progress::default()).await.unwrap()
}

async fn swap(place: &Place, id: &str, accepted: u64) -> Result<restore::Swapped, pointsman_core::Problem> {
    restore::swap(&place.settings, id, accepted, &rule(), &Progress::default()).await
}

fn stage(place: &Place) -> Option<Stage> {
    restore::pending(&place.settings).unwrap().map(|pending| pending.stage)
}

/// A release's damage: 3 rows new, 2 changed (which the trigger notes as 2 more), 1 gone, in tables with and without key, and a
/// large object new.
const WRITES: &str = "
    INSERT INTO features (name) VALUES ('x'), ('y');
    UPDATE features SET name = 'broken' WHERE id IN (1, 2);
    DELETE FROM features WHERE id = 3;
    SELECT lo_from_bytea(0, 'third');
    INSERT INTO visits VALUES (now(), '/new');
    UPDATE pointsman.fence SET epoch = 6;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_restored_beside_swapped_taken_back_and_swapped_again() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let shape =
        "SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), datconnlimit, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
                        (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0)
                   FROM pg_database d WHERE datname = ";
    let before = place.sql(&format!("{shape} '{}'", place.settings.name));
    place.sql(&format!("SET ROLE {}_owner; {WRITES}", place.settings.name));
    until("counters", || {
        let counted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'visits'";
        (place.sql(counted) == "501").then_some(())
    })
    .await;
    let estimate = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    assert!(!estimate.exact && !estimate.at_least);
    assert_eq!(estimate.total(), 2 + 2 + 1 + 1 + 2);

    let made = beside(&place, &taken.id).await;
    assert_eq!((made.already, made.not_copied.len()), (false, 0));
    assert!(beside(&place, &taken.id).await.already);
    assert_eq!(place.sql_in(&made.database, "SELECT epoch FROM pointsman.fence"), "7");
    // The live one was not touched.
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'broken'"), "2");

    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    assert!(loss.exact);
    let table = |name: &str| loss.tables.iter().find(|table| table.table == name).unwrap();
    let features = table("features");
    assert_eq!((features.inserted, features.updated, features.deleted), (2, 2, 1));
    assert_eq!((table("visits").inserted, table("changes").inserted), (1, 2));
    assert_eq!((table("pg_largeobject").inserted, loss.total()), (1, 9));
    // Kept for whoever comes later to accept it.
    let kept = restore::pending(&place.settings).unwrap().unwrap().compared.unwrap();
    assert_eq!((kept.rows, kept.of_tables, &kept.tables[0]), (9, loss.tables.len(), features));
    assert!(kept.at_ms > 0);

    let refused = swap(&place, &taken.id, 8).await.unwrap_err();
    assert_eq!((refused.code, stage(&place)), (Code::LossGrown, Some(Stage::Ready)));
    let swapped = swap(&place, &taken.id, 9).await.unwrap();
    assert_eq!((swapped.lost, swapped.already), (9, false));
    assert!(swapped.aside.starts_with(&format!("{}_old_", place.settings.name)));
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'broken'"), "0");
    assert_eq!(place.sql(&format!("{shape} '{}'", place.settings.name)), before);
    // The next insert finds its sequence where it was.
    place.sql("INSERT INTO features (name) VALUES ('after')");
    let open = format!("SELECT datallowconn FROM pg_database WHERE datname = '{}'", swapped.aside);
    assert_eq!(place.sql(&open), "f");
    assert!(swap(&place, &taken.id, 8).await.unwrap().already);
    let other = place.take("r2").await.unwrap();
    let pending = restore::beside(&place.settings, &other.id, &rule(), &Progress::default()).await;
    assert_eq!(pending.unwrap_err().code, Code::RestorePending);

    until("counters", || {
        let counted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'features'";
        (place.sql(counted) == "3001").then_some(())
    })
    .await;
    let refused = restore::swap_back(&place.settings, 0, &rule(), &Progress::default()).await.unwrap_err();
    assert_eq!((refused.code, stage(&place)), (Code::LossGrown, Some(Stage::Swapped)));
    let back = restore::swap_back(&place.settings, 1, &rule(), &Progress::default()).await.unwrap();
    assert_eq!((back.lost, back.aside.as_str()), (1, made.database.as_str()));
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'broken'"), "2");
    assert!(restore::swap_back(&place.settings, 1, &rule(), &Progress::default()).await.unwrap().already);

    // A new restore does not take the one that was written to.
    let again = beside(&place, &taken.id).await;
    assert!(!again.already && again.database != made.database);
    swap(&place, &taken.id, 9).await.unwrap();
    assert_eq!(restore::confirm(&place.settings, &rule()).await.unwrap(), None);
    assert_eq!(stage(&place), None);
    assert!(!place.databases().contains("_old_"), "{}", place.databases());
}

/// The server hands out no value of more than a gigabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_of_any_size_are_compared() {
    let place = Place::new();
    let piece = 1 << 20;
    let owner = format!("SET ROLE {}_owner", place.settings.name);
    // Whole pieces, one less, and nothing.
    place.sql(&format!(
        "{owner}; SELECT lo_from_bytea(71, decode(repeat('ab', {}), 'hex')), lo_from_bytea(72, decode(repeat('cd', {}), 'hex')),
                         lo_from_bytea(73, decode(repeat('ef', {}), 'hex')), lo_create(74)",
        2 * piece,
        2 * piece,
        2 * piece - 1
    ));
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let loss = async || {
        let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
        let mut objects = loss.tables.iter().filter(|table| table.table == "pg_largeobject");
        objects.next().map(|table| (table.inserted, table.updated, table.deleted))
    };
    assert_eq!(loss().await, None);
    // The last byte of one, another byte after the others' ends, and one with nothing before its only byte.
    place.sql(&format!(
        "{owner}; SELECT lo_put(71, {}, 'x'), lo_put(73, {0}, 'x'), lo_put(74, 0, 'x'), lo_put(lo_create(75), 1300000000, 'x')",
        2 * piece - 1
    ));
    assert_eq!(loss().await, Some((1, 3, 0)));
    swap(&place, &taken.id, 4).await.unwrap();
}

/// What a database is set to show values and names by, and to read them by, is nothing to copy or compare it by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_restored_and_compared_however_a_database_shows_them() {
    let place = Place::new();
    let name = &place.settings.name;
    for set in [
        "extra_float_digits = 0",
        "array_nulls = off",
        "quote_all_identifiers = on",
        "DateStyle = 'SQL, DMY'",
    ] {
        place.sql(&format!("ALTER DATABASE {name} SET {set}"));
    }
    place.sql(&format!(
        "SET ROLE {name}_owner; CREATE TABLE shown (id int PRIMARY KEY, f float8, a text[]);
         INSERT INTO shown SELECT i, 1.1 * i, ARRAY[NULL, 'NULL'] FROM generate_series(1, 10) i"
    ));
    let failed = preflight::look(&place.settings)
        .await
        .into_iter()
        .filter(|found| found.verdict >= Verdict::Unrestorable);
    assert_eq!(failed.map(|found| found.found).collect::<Vec<_>>(), Vec::<String>::new());
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    let nulls = "SELECT count(*) FROM shown WHERE a[1] IS NULL AND a[2] = 'NULL'";
    assert_eq!(place.sql_in(&made.database, nulls), "10");
    let loss = async || restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    assert_eq!(loss().await.tables, []);
    // Less than fifteen digits show.
    place.sql("UPDATE shown SET f = f * (1 + 3e-16) WHERE id <= 4");
    assert_eq!(loss().await.total(), 4);
}

/// It is what the release before would come back to, and the name of a release says nothing of the database that it was for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_what_a_swap_replaced_is_none_of_what_is_live() {
    let place = Place::new();
    let before = place.take("r1").await.unwrap();
    beside(&place, &before.id).await;
    swap(&place, &before.id, 0).await.unwrap();
    let of_live = place.take("r1").await.unwrap();
    assert!(!of_live.already && of_live.id != before.id, "{of_live:?}");
    let again = place.take("r1").await.unwrap();
    assert_eq!((again.already, &again.id), (true, &of_live.id));
    // Taken back, what it was taken of is live again.
    restore::swap_back(&place.settings, 0, &rule(), &Progress::default()).await.unwrap();
    let back = place.take("r1").await.unwrap();
    assert_eq!((back.already, &back.id), (true, &before.id));
}

/// The server's counters begin anew after a crash of it: what they say then is no count of what was written since the swap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_not_taken_back_by_counters_that_began_anew() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    swap(&place, &taken.id, 0).await.unwrap();
    place.sql("SELECT pg_stat_reset()");
    place.sql("INSERT INTO features (name) VALUES ('after')");
    let back = |accepted| {
        let settings = place.settings.clone();
        async move { restore::swap_back(&settings, accepted, &rule(), &Progress::default()).await }
    };
    let refused = back(1).await.unwrap_err();
    assert_eq!((refused.code, stage(&place)), (Code::LossGrown, Some(Stage::Swapped)));
    assert_eq!(place.sql("SELECT count(*) FROM features WHERE name = 'after'"), "1", "and it is still there");
    // As many as there are, at most: a person may say so.
    let taken_back = back(1_000_000).await.unwrap();
    assert!((3_000..100_000).contains(&taken_back.lost), "{taken_back:?}");
}

/// A restored database in which the application looks for its tables elsewhere is not put in the live one's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_roles_have_set_goes_along_or_nothing_is_swapped() {
    let place = Place::new();
    let (name, user) = (place.settings.name.clone(), place.settings.user.clone());
    let (owner, app) = (format!("{name}_owner"), format!("{name}_app"));
    // The agent may act as the owner, and not as the application.
    place.sql(&format!(
        "ALTER ROLE {owner} IN DATABASE {name} SET search_path = shop, public;
         ALTER ROLE {app} IN DATABASE {name} SET search_path = shop, public;
         ALTER ROLE {app} IN DATABASE {name} SET work_mem = '1MB'"
    ));
    let findings = pointsman_database::preflight::look(&place.settings).await;
    let told = findings.iter().find(|finding| finding.check == "role settings").unwrap();
    assert!(told.found.contains(&app) && !told.found.contains(&owner), "{told:?}");
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    assert!(made.not_copied.iter().all(|statement| statement.contains(&app)), "{made:?}");
    let refused = swap(&place, &taken.id, 0).await.unwrap_err();
    assert_eq!((refused.code, stage(&place)), (Code::SwapRefused, Some(Stage::Ready)));
    let [cause] = &refused.causes[..] else { panic!("{refused:?}") };
    place.sql(cause);
    swap(&place, &taken.id, 0).await.unwrap();
    let paths = format!(
        "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
          WHERE d.datname = '{name}' AND s.setconfig @> ARRAY['search_path=shop, public'] AND setrole <> 0"
    );
    assert_eq!(place.sql(&paths), "2");

    // As a member it sets it by itself.
    restore::swap_back(&place.settings, 0, &rule(), &Progress::default()).await.unwrap();
    place.sql(&format!("GRANT {app} TO {user}"));
    let again = beside(&place, &taken.id).await;
    assert_eq!(again.not_copied, Vec::<String>::new());
    swap(&place, &taken.id, 0).await.unwrap();
}

/// Who restores has stopped the writers first, as one does; and what only a superuser sees is named, with no value in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_made_read_only_is_restored_and_no_secret_is_told() {
    let place = Place::new();
    let (name, app) = (place.settings.name.clone(), format!("{}_app", place.settings.name));
    place.sql(&format!(
        "ALTER ROLE {app} IN DATABASE {name} SET pgrst.jwt_secret = 'do not tell';
         CREATE EXTENSION file_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER file_fdw TO {name}_owner;
         CREATE SERVER far FOREIGN DATA WRAPPER file_fdw; ALTER SERVER far OWNER TO {name}_owner;
         CREATE USER MAPPING FOR {app} SERVER far; ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    place.run_role_script();
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    let expected = [
        format!("ALTER ROLE \"{app}\" IN DATABASE \"{}\" SET \"pgrst\".\"jwt_secret\" TO …", made.database),
        format!("ALTER USER MAPPING FOR {app} SERVER far OPTIONS (...)"),
    ];
    assert_eq!(made.not_copied, expected);
    assert_eq!(place.sql_in(&made.database, "SELECT epoch FROM pointsman.fence"), "7");
}

/// Other databases may be gone when one is restored; and a restore test asks nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_filled_from_other_databases_stays_empty_and_what_fills_it_is_told() {
    let mut place = Place::new();
    let name = place.settings.name.clone();
    let far = format!("{name}_far");
    place.sql_in("postgres", &format!("CREATE ROLE {far} LOGIN PASSWORD 'p' IN ROLE guarded"));
    place.sql_in("postgres", &format!("CREATE DATABASE {far} OWNER {far}"));
    place.sql_in(
        &far,
        &format!("SET ROLE {far}; CREATE TABLE audit (id int); INSERT INTO audit VALUES (1), (2)"),
    );
    let servers = |sql: &str| sql.replace("%host", &place.settings.host).replace("%far", &far);
    place.sql(&format!(
        "CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw, dblink_fdw TO {name}_owner; SET ROLE {name}_owner; {}
         CREATE FOREIGN TABLE audit (id int) SERVER reads; CREATE VIEW seen AS SELECT id FROM audit;
         CREATE MATERIALIZED VIEW kept AS SELECT id FROM seen; CREATE UNIQUE INDEX kept_id ON kept (id);
         CREATE VIEW over AS SELECT count(*) AS n FROM kept; CREATE MATERIALIZED VIEW \"Summe (fern)\" AS SELECT n FROM over;
         CREATE FUNCTION told() RETURNS bigint LANGUAGE plpgsql AS
             'BEGIN RETURN (SELECT n FROM public.\"Summe (fern)\"); END';
         CREATE MATERIALIZED VIEW a_text AS SELECT told();
         CREATE TABLE parted (id int) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES FROM (0) TO (10) SERVER reads OPTIONS (table_name 'audit');
         CREATE MATERIALIZED VIEW parts AS SELECT id FROM parted;
         CREATE MATERIALIZED VIEW called AS SELECT id FROM dblink('calls', 'SELECT id FROM audit') AS t (id int);
         CREATE MATERIALIZED VIEW never AS SELECT id FROM audit WITH NO DATA;
         CREATE MATERIALIZED VIEW here AS SELECT count(*) FROM features",
        servers(
            "CREATE SERVER reads FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%host', dbname '%far');
             CREATE SERVER calls FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host '%host', dbname '%far');
             CREATE USER MAPPING FOR PUBLIC SERVER reads OPTIONS (user '%far', password 'p');
             CREATE USER MAPPING FOR PUBLIC SERVER calls OPTIONS (user '%far', password 'p');"
        )
    ));
    place.run_role_script();
    let moved = |host: &str| {
        ["reads", "calls"]
            .map(|server| format!("ALTER SERVER {server} OPTIONS (SET host '{host}')"))
            .join("; ")
    };
    place.sql(&moved("/nowhere"));
    let mut ids = Vec::new();
    for (release, format) in [("r1", BackupFormat::Custom), ("r2", BackupFormat::SqlGz)] {
        place.settings.backup.format = format;
        let taken = place.take(release).await.unwrap();
        place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
        ids.push(taken.id);
    }
    let made = beside(&place, &ids[1]).await;
    let filled = |view: &str| format!("REFRESH MATERIALIZED VIEW public.{view}");
    let expected = ["called", "kept", "parts", "\"Summe (fern)\"", "a_text"].map(filled);
    assert_eq!((made.not_filled.as_slice(), made.not_copied.len()), (expected.as_slice(), 0));
    let there = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND relispopulated";
    assert_eq!(place.sql_in(&made.database, there), "here");
    assert_eq!(
        place
            .sql_in(&made.database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'kept_id'::regclass"),
        "t"
    );
    place.sql_in(&made.database, &moved(&place.settings.host));
    let first = &made.not_filled[..3].join("; ");
    place.sql_in(&made.database, &format!("SET ROLE {name}_owner; {first}"));
    let again = beside(&place, &ids[1]).await;
    assert_eq!((again.already, again.not_filled.as_slice()), (true, &expected[3..]));
    place.sql_in(&made.database, &format!("SET ROLE {name}_owner; {}", again.not_filled.join("; ")));
    assert_eq!(place.sql_in(&made.database, "SELECT told FROM a_text"), "2");
    swap(&place, &ids[1], 0).await.unwrap();
}

/// Logical replication stays with the database that it was made on: who restores must know beforehand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_swap_would_leave_behind_is_told_by_the_preflight() {
    let place = Place::new();
    let told = async || {
        let findings = pointsman_database::preflight::look(&place.settings).await;
        let found = findings.into_iter().find(|finding| finding.check == "replication").unwrap();
        (found.verdict, found.found)
    };
    assert_eq!(told().await.0, pointsman_database::preflight::Verdict::Fine);
    place.sql("CREATE SUBSCRIPTION elsewhere CONNECTION 'dbname=nobody' PUBLICATION all_of_it WITH (connect = false)");
    let (verdict, found) = told().await;
    assert_eq!(verdict, pointsman_database::preflight::Verdict::Warning);
    assert!(found.contains("subscription `elsewhere`"), "{found}");
    place.sql("ALTER SUBSCRIPTION elsewhere SET (slot_name = NONE); DROP SUBSCRIPTION elsewhere");
}

/// Where somebody's writes are not counted, counters that stand still prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_not_taken_back_by_counters_that_do_not_count() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let role = format!("{}_app", place.settings.name);
    let name = &place.settings.name;
    let uncounted = format!("ALTER ROLE {role} IN DATABASE {name} SET track_counts = off");
    place.sql(&format!("GRANT ALL ON features TO {role}; GRANT ALL ON SEQUENCE features_id_seq TO {role}"));
    place.sql(&uncounted);
    assert!(restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap().at_least);
    beside(&place, &taken.id).await;
    swap(&place, &taken.id, 0).await.unwrap();
    // Only a superuser may say this of a role, so it does not go along.
    place.sql(&uncounted);
    let mut writing = place.cluster.client("psql", &role, name);
    let wrote = writing.args(["-X", "-q", "-c", "INSERT INTO features (name) VALUES ('after')"]).status();
    assert!(wrote.unwrap().success());
    let refused = restore::swap_back(&place.settings, 1, &rule(), &Progress::default()).await.unwrap_err();
    assert_eq!((refused.code, stage(&place)), (Code::LossGrown, Some(Stage::Swapped)));
}

/// Whom only a superuser may end: workers of autovacuum, which the server itself sends away, and another superuser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_a_superuser_looks_at_is_dropped_when_he_is_gone() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    let look = async |database: &str, seconds: u32| {
        let mut looking = place.cluster.client("psql", "postgres", database);
        let looking = looking.args(["-X", "-q", "-c", &format!("SELECT pg_sleep({seconds})")]).spawn();
        let seen = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        until("somebody who looks", || (place.sql(&seen) == "1").then_some(())).await;
        looking.unwrap()
    };
    let mut short = look(&made.database, 2).await;
    restore::discard(&place.settings, &rule()).await.unwrap();
    short.wait().unwrap();
    assert!(!place.databases().contains(&made.database));

    let made = beside(&place, &taken.id).await;
    let mut long = look(&made.database, 600).await;
    let refused = restore::discard(&place.settings, &rule()).await.unwrap_err();
    assert_eq!(refused.code, Code::StatementRefused);
    assert!(
        refused.causes.iter().any(|cause| cause.contains("psql") && cause.contains("role postgres")),
        "{refused:?}"
    );
    place.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        made.database
    ));
    long.wait().unwrap();
    restore::discard(&place.settings, &rule()).await.unwrap();
}

/// A kill comes between any two steps: neither half an unpacked dump nor a copy that nobody has named yet is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_left_of_a_check_does_not_keep_the_next_from_being_made() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    let (name, user) = (copy.database.clone(), &place.settings.user);
    copy.remove(&place.settings).await.unwrap();
    place.sql_in("postgres", &format!("CREATE DATABASE {name} OWNER {user}"));
    let spool = place.settings.backup.dir.join(format!("{}.spool.part", taken.id));
    std::fs::write(&spool, "half").unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    assert!(!spool.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_the_server_end_no_session_of_the_agent() {
    let place = Place::new();
    let (name, user) = (&place.settings.name, &place.settings.user);
    let server = place.cluster.server().major;
    let limits = [
        ("statement_timeout", 13),
        ("lock_timeout", 13),
        ("idle_in_transaction_session_timeout", 13),
        ("idle_session_timeout", 14),
        ("transaction_timeout", 17),
    ];
    for (limit, _) in limits.iter().filter(|(_, since)| *since <= server) {
        // Of the role, because the agent works in the maintenance database too; of the database, because that goes along.
        place.sql_in("postgres", &format!("ALTER ROLE {user} SET {limit} = '300ms'"));
        place.sql_in("postgres", &format!("ALTER ROLE {user} IN DATABASE {name} SET {limit} = '300ms'"));
    }
    let taken = place.take("r1").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap();
    beside(&place, &taken.id).await;
    swap(&place, &taken.id, 0).await.unwrap();
    restore::swap_back(&place.settings, 0, &rule(), &Progress::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_went_on_is_compared_by_what_both_have() {
    let place = Place::new();
    place.sql(&format!(
        "SET ROLE {}_owner; CREATE TABLE people AS SELECT generate_series(1, 2) AS n",
        place.settings.name
    ));
    let taken = place.take("r1").await.unwrap();
    place.sql(&format!(
        "SET ROLE {}_owner;
         ALTER TABLE features ADD COLUMN layer int NOT NULL DEFAULT 1, ADD COLUMN colour text,
             ADD COLUMN shown boolean NOT NULL DEFAULT false, ADD COLUMN price numeric(10, 2) DEFAULT 0, ADD COLUMN code char(4) DEFAULT 'ab',
             ADD COLUMN tags text[] DEFAULT ARRAY['a', 'b'], ADD COLUMN host inet DEFAULT '10.0.0.1'; DROP TABLE visits;
         CREATE DOMAIN mail AS text NOT NULL CHECK (value LIKE '%@%'); CREATE DOMAIN kept AS mail;
         ALTER TABLE features ADD COLUMN asked kept DEFAULT 'c@(d)';
         ALTER TABLE people ADD COLUMN sent mail DEFAULT 'a@b'; ALTER TABLE people ALTER sent DROP DEFAULT;
         CREATE SEQUENCE numbers; CREATE FUNCTION \"Next 2\"() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('numbers') $$;
         ALTER TABLE features ADD COLUMN number bigint; ALTER TABLE features ALTER number SET DEFAULT \"Next 2\"();
         UPDATE features SET layer = 7 WHERE id IN (1, 2); UPDATE features SET colour = 'red' WHERE id IN (2, 3);
         CREATE TABLE fresh AS SELECT generate_series(1, 5) AS n; UPDATE features SET name = 'z' WHERE id = 9;",
        place.settings.name
    ));
    beside(&place, &taken.id).await;
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    let told: Vec<_> =
        loss.tables.iter().map(|t| (t.table.as_str(), t.inserted, t.updated, t.deleted)).collect();
    // What everybody was given by a default that is gone is told as everybody's own.
    let expected = [
        ("changes", 5, 0, 0),
        ("features", 0, 4, 0),
        ("fresh", 5, 0, 0),
        ("people", 0, 2, 0),
        ("visits", 0, 0, 500),
    ];
    assert_eq!(told, expected);
    restore::discard(&place.settings, &rule()).await.unwrap();
    assert!(!place.databases().contains("_restore_"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_differs_is_not_swapped_and_stays_to_be_looked_at() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let path = place.settings.backup.dir.join(format!("{}.manifest.json", taken.id));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"rows\": 3000", "\"rows\": 3001")).unwrap();
    let refused =
        restore::beside(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap_err();
    assert_eq!(refused.code, Code::CopyDiffers);
    assert_eq!(refused.causes, ["rows of `public.features`: 3000 instead of 3001"]);
    assert_eq!(stage(&place), Some(Stage::Filling));
    assert!(place.databases().contains("_restore_"));
    assert_eq!(swap(&place, &taken.id, 100).await.unwrap_err().code, Code::CopyMissing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_ended_is_named_before_anything_is_shut() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    place.sql("BEGIN; INSERT INTO visits VALUES (now(), 'prepared'); PREPARE TRANSACTION 'forgotten'");
    let refused = swap(&place, &taken.id, 10).await.unwrap_err();
    assert_eq!(refused.code, Code::SwapRefused);
    assert!(refused.causes[0].contains("`forgotten`"), "{refused:?}");
    place.sql("ROLLBACK PREPARED 'forgotten'");
    let mut superuser = place.cluster.client("psql", "postgres", &place.settings.name);
    let mut superuser = superuser.args(["-X", "-q", "-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
    until("the superuser", || (place.sql(there) != "0").then_some(())).await;
    let refused = swap(&place, &taken.id, 10).await.unwrap_err();
    assert!(refused.causes[0].contains("superuser `postgres`"), "{refused:?}");
    superuser.kill().unwrap();
    superuser.wait().unwrap();
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND pid <> pg_backend_pid()");
    until("its end", || (place.sql(there) == "0").then_some(())).await;
    swap(&place, &taken.id, 10).await.unwrap();
}

/// The whole database is gone, as on a new server: its backup tells what the new one needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_restored_with_all_that_it_had() {
    let place = Place::new();
    let name = place.settings.name.clone();
    // What everybody may create, too, is a superuser's again where one had created it.
    place.sql(&format!(
        "ALTER ROLE {name}_owner IN DATABASE {name} SET timezone = 'UTC'; CREATE EXTENSION hstore;
         SET ROLE {name}_owner; CREATE EXTENSION cube"
    ));
    let owners = "SELECT string_agg(extowner::regrole::text, ' ' ORDER BY extname) FROM pg_extension WHERE extname IN ('cube', 'hstore')";
    let shape = format!(
        "SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), datconnlimit, datdba::regrole, shobj_description(oid, 'pg_database'),
                (SELECT array_agg(concat_ws(' ', setrole::regrole, setconfig) ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
           FROM pg_database d WHERE datname = '{name}'"
    );
    let before = place.sql(&shape);
    assert!(before.contains("the map") && before.contains("TimeZone=UTC"), "{before}");
    let taken = place.take("r1").await.unwrap();
    place.sql_in("postgres", &format!("DROP DATABASE {name}"));
    let gone = restore::beside(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap_err();
    assert!(gone.hint.contains("with the backup's manifest"), "{gone:?}");
    place.sql_in("postgres", &format!("CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0"));
    // On the same server the template is left as it was; on a new one there is none.
    place.run_role_script();
    assert_eq!(
        place.sql_in(
            &format!("pointsman_template_{name}"),
            "SELECT count(*) FROM pg_extension WHERE extname = 'postgis'"
        ),
        "1"
    );
    place.sql_in("postgres", &format!("DROP DATABASE pointsman_template_{name}"));
    place.run_role_script_with(&place.folder.path().join(format!("{}.manifest.json", taken.id)));
    let made = beside(&place, &taken.id).await;
    assert_eq!(made.not_copied, Vec::<String>::new());
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    swap(&place, &taken.id, loss.total()).await.unwrap();
    assert_eq!(place.sql(&shape), before);
    assert_eq!(place.sql(owners), format!("{name}_owner postgres"));
    assert_eq!(place.sql("SELECT count(*), postgis_lib_version() IS NOT NULL FROM features"), "3000|t");
}

/// An extension that is made in the new database sets a search path for it, which is not what the one that is gone had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_extension_sets_is_not_taken_for_what_a_database_that_is_gone_had_set() {
    let place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE EXTENSION postgis_topology; CREATE SCHEMA \"Mein Schema\" AUTHORIZATION {name}_owner;
         ALTER DATABASE {name} SET search_path = \"Mein Schema\", public"
    ));
    place.run_role_script();
    let set = format!(
        "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE setrole = 0 AND datname = '{name}'"
    );
    let before = place.sql(&set);
    assert!(before.contains("Mein Schema"), "{before}");
    let taken = place.take("r1").await.unwrap();
    let manifest = place.folder.path().join(format!("{}.manifest.json", taken.id));
    let anew = || {
        place.sql_in("postgres", &format!("DROP DATABASE {name}"));
        place.sql_in("postgres", &format!("CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0"));
    };
    anew();
    let own = format!(
        "ALTER DATABASE {name} SET work_mem = '8MB'; ALTER DATABASE {name} SET search_path = \"a b\", public"
    );
    place.sql_in("postgres", &own);
    let of_new = place.sql(&set);
    place.run_role_script_with(&manifest);
    assert_eq!(place.sql(&set), of_new);
    anew();
    place.run_role_script_with(&manifest);
    assert_eq!(place.sql(&set), "");

    // One that was made ready by hand, or before the script took it back.
    place.sql_in("postgres", &format!("ALTER DATABASE {name} SET search_path = \"$user\", public, topology"));
    let made = beside(&place, &taken.id).await;
    assert_eq!(made.not_copied, Vec::<String>::new());
    restore::must_look_alike(&place.settings, &taken.id, &made.database).await.unwrap();
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    swap(&place, &taken.id, loss.total()).await.unwrap();
    assert_eq!(place.sql(&set), before);
}

/// In the emergency somebody holds a table, and somebody else has put rows aside as a superuser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_rows_from_being_compared_is_named() {
    let place = Place::new();
    // Of its own columns some have defaults, and one is computed.
    place.sql(
        "ALTER TABLE visits ADD id serial, ADD kept text DEFAULT 'a (b', ADD twice text GENERATED ALWAYS AS (path || path) STORED",
    );
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let mut psql = place.cluster.client("psql", "postgres", &place.settings.name);
    let stuck = ["-X", "-q", "-c", "BEGIN; LOCK TABLE visits; SELECT pg_sleep(600)"];
    let mut stuck = psql.args(stuck).stdout(Stdio::null()).spawn().unwrap();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE visits%' AND wait_event = 'PgSleep'";
    until("the lock", || (place.sql(there) == "1").then_some(())).await;
    let (settings, id, progress) = (place.settings.clone(), taken.id.clone(), Progress::default());
    let told = progress.clone();
    let counting = tokio::spawn(async move { restore::loss(&settings, &id, &told).await });
    until("its name", || progress.words().contains("public.visits: `visits` is held by pid ").then_some(()))
        .await;
    place.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE visits%' AND pid <> pg_backend_pid()");
    stuck.wait().unwrap();
    assert_eq!(counting.await.unwrap().unwrap().total(), 0);

    place.sql("CREATE TABLE rescued AS SELECT * FROM visits LIMIT 3");
    let refused = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap_err();
    let grant = format!("GRANT SELECT ON public.rescued TO {};", place.settings.user);
    assert!(refused.message.contains("public.rescued") && refused.hint.contains(&grant), "{refused:?}");
    place.sql(&grant);
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    assert_eq!(loss.total(), 3);
}

/// A rewrite of the server's own tables (`VACUUM FULL`) holds them against everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_the_servers_own_tables_is_waited_for_and_named() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let holder = place.hold("pg_largeobject").await;
    let (settings, id, progress) = (place.settings.clone(), taken.id.clone(), Progress::default());
    let told = progress.clone();
    let counting = tokio::spawn(async move { restore::loss(&settings, &id, &told).await });
    let name = format!("pg_catalog.pg_largeobject: `pg_largeobject` is held by pid {} ", holder.pid);
    until("its name", || progress.words().contains(&name).then_some(())).await;
    let of_catalog = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                       WHERE application_name = 'pointsman-loss' AND relation IN ('pg_class'::regclass, 'pg_attribute'::regclass)";
    until("a look without locks", || (place.sql(of_catalog) == "0").then_some(())).await;
    drop(holder);
    assert_eq!(counting.await.unwrap().unwrap().total(), 0);

    let holder = place.hold("pg_class").await;
    let refused = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap_err();
    assert_eq!(refused.code, Code::LockNotHad, "{refused:?}");
    let by = format!("`pg_class` is held by pid {} (psql, active, ", holder.pid);
    assert!(
        refused.causes[0].contains(&by) && refused.hint.contains("the same command again"),
        "{refused:?}"
    );
    drop(holder);
    restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_epoch_in_the_database_refuses_the_swap() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    place.sql("UPDATE pointsman.fence SET epoch = 8");
    assert_eq!(swap(&place, &taken.id, 10).await.unwrap_err().code, Code::Fenced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_copy_is_used_as_long_as_nobody_could_have_changed_it() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let (_, prepared) =
        restore::prepare(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap();
    assert!(place.cluster.psql(&prepared.database, "SELECT 1").is_err());
    // Files of a copy keep their numbers, a load makes new ones.
    let file = "SELECT pg_relation_filenode('features')";
    let made = beside(&place, &taken.id).await;
    let copied = place.sql_in(&made.database, file);
    assert_eq!(place.sql_in(&made.database, "SELECT count(*) FROM features"), "3000");
    restore::discard(&place.settings, &rule()).await.unwrap();
    place.sql_in("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", prepared.database));
    assert_eq!(place.sql_in(&prepared.database, file), copied);
    place.sql_in(&prepared.database, "UPDATE features SET name = 'changed'");
    let made = beside(&place, &taken.id).await;
    assert_ne!(place.sql_in(&made.database, file), copied);
    assert_eq!(place.sql_in(&made.database, "SELECT count(*) FROM features WHERE name = 'changed'"), "0");
    prepared.clone().remove(&place.settings).await.unwrap();
    assert!(!place.databases().contains(&prepared.database));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_prepared_copy_is_kept_and_what_is_tried_is_tried_on_a_copy_of_it() {
    let mut place = Place::new();
    place.settings.backup.keep_copy = true;
    let (first, second) = (place.take("r1").await.unwrap(), place.take("r2").await.unwrap());
    let prepare = |id: String| {
        let settings = place.settings.clone();
        async move { restore::prepare(&settings, &id, &rule(), &Progress::default()).await.unwrap().1 }
    };
    let (old, new) = (prepare(first.id).await, prepare(second.id.clone()).await);
    assert!(!place.databases().contains(&old.database) && place.databases().contains(&new.database));
    let tried = restore::branch(&place.settings, &second.id, &new).await.unwrap();
    place.sql_in(&tried.database, "UPDATE features SET name = 'tried'");
    // The agent starts again: what is shut is meant to stay, what was tried in is left over.
    let dropped = scratch::drop_left_over(&place.settings).await.unwrap();
    assert_eq!(dropped, std::slice::from_ref(&tried.database));
    // A crash comes while the server still creates one: it is whole, and nothing tells of it.
    let tried = restore::branch(&place.settings, &second.id, &new).await.unwrap();
    place.sql_in("postgres", &format!("COMMENT ON DATABASE {} IS NULL", tried.database));
    assert_eq!(scratch::drop_left_over(&place.settings).await.unwrap(), [tried.database]);
    let made = beside(&place, &second.id).await;
    assert_eq!(place.sql_in(&made.database, "SELECT count(*) FROM features WHERE name = 'tried'"), "0");
    place.settings.backup.keep_copy = false;
    assert_eq!(scratch::drop_left_over(&place.settings).await.unwrap(), [new.database]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compared_before_is_not_compared_again_while_visitors_wait() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    place.sql("DELETE FROM visits WHERE path IN ('/map/1', '/map/2')");
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap().total();
    assert_eq!(loss, 2);
    // A number that only the record can tell.
    let record = place.settings.backup.dir.join("restore.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"lost\": 2", "\"lost\": 40")).unwrap();
    place.sql("DELETE FROM visits WHERE path = '/map/3'");
    // Servers before 15 count too late to be believed: there it is compared again all the same.
    let expected = if place.cluster.server().major >= 15 { 41 } else { 3 };
    assert_eq!(swap(&place, &taken.id, 100).await.unwrap().lost, expected, "and what came since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_with_a_database_that_was_written_to_since_does_not_count() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    place.sql_in(&made.database, "DELETE FROM visits WHERE path IN ('/map/1', '/map/2')");
    assert_eq!(swap(&place, &taken.id, 100).await.unwrap().lost, 2, "rows that only the live one has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_from_before_is_live_already_where_nothing_was_swapped() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let back = restore::swap_back(&place.settings, 0, &rule(), &Progress::default()).await.unwrap();
    assert!(back.already);
    assert_eq!(stage(&place), Some(Stage::Ready));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_until_the_last_moment_is_told_as_lost() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    place.sql(&format!("GRANT ALL ON visits TO {}_app", place.settings.name));
    let settings = Settings { user: format!("{}_app", place.settings.name), ..place.settings.clone() };
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let writer = tokio::spawn(async move {
        let session = pointsman_database::Session::open(&settings, &settings.name, "writer").await.unwrap();
        let insert = "INSERT INTO visits VALUES (now(), 'under load')";
        while session.client().execute(insert, &[]).await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    until("a writer", || (written.load(Ordering::SeqCst) > 50).then_some(())).await;
    let loss = restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap().total();
    until("more", || (written.load(Ordering::SeqCst) > loss).then_some(())).await;
    assert_eq!(swap(&place, &taken.id, loss).await.unwrap_err().code, Code::LossGrown);
    let swapped = swap(&place, &taken.id, 1_000_000).await.unwrap();
    writer.await.unwrap();
    place.sql_in("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", swapped.aside));
    let lost: u64 = place.sql_in(&swapped.aside, "SELECT count(*) - 500 FROM visits").parse().unwrap();
    assert!(lost >= written.load(Ordering::SeqCst) && swapped.lost >= lost, "{lost} lost, told {swapped:?}");
}

/// Clients of an application that connect again whenever they are thrown out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_that_connect_again_lose_one_answer_each() {
    const CLIENTS: usize = 8;
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let settings = Settings { user: format!("{}_app", place.settings.name), ..place.settings.clone() };
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(settings.clone(), Arc::clone(&over), Arc::clone(&served))))
        .collect();
    let served_more = |than: u64| served.load(Ordering::SeqCst).checked_sub(than).filter(|more| *more > 100);
    until("clients that are served", || served_more(0)).await;
    let swapped = swap(&place, &taken.id, 0).await.unwrap();
    let at_swap = served.load(Ordering::SeqCst);
    until("clients that are served again", || served_more(at_swap)).await;
    over.store(true, Ordering::SeqCst);
    let mut broken = 0;
    for client in clients {
        broken += client.await.unwrap();
    }
    assert!(broken <= CLIENTS as u64, "{broken} sessions broke");
    eprintln!("gap {} ms, {broken} broken sessions of {CLIENTS} clients", swapped.gap_ms);
}

/// Reads until it is over. Returns how many of its sessions broke; attempts to connect while nobody may do not count.
async fn client(settings: Settings, over: Arc<AtomicBool>, served: Arc<AtomicU64>) -> u64 {
    let mut broken = 0;
    while !over.load(Ordering::SeqCst) {
        let Ok(session) = pointsman_database::Session::open(&settings, &settings.name, "visitor").await
        else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        while !over.load(Ordering::SeqCst) {
            if session.client().query("SELECT count(*) FROM features WHERE id < 10", &[]).await.is_err() {
                broken += 1;
                break;
            }
            served.fetch_add(1, Ordering::SeqCst);
        }
    }
    broken
}

/// The variables that tell a copy of this program what to do until it kills itself.
const CHILD: &str = "POINTSMAN_TEST_SWAP";

/// Not a test: what the copies of this program do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_works() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let told: Vec<&str> = text.split('\n').collect();
    let [name, host, user, dir, id, what] = told.as_slice() else { panic!("{text}") };
    let settings = serde_json::json!({
        "name": name, "host": host, "user": user, "backup": { "dir": dir, "keep": 1 },
    });
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let progress = Progress::default();
    match *what {
        "back" => drop(restore::swap_back(&settings, 1000, &rule(), &progress).await.unwrap()),
        "forth" => drop(restore::swap(&settings, id, 1000, &rule(), &progress).await.unwrap()),
        "beside" => drop(restore::beside(&settings, id, &rule(), &progress).await.unwrap()),
        "take" => {
            let order = backup::BackupOrder { release: (*id).to_owned(), label: "1.2.0".to_owned() };
            drop(backup::take(&settings, &order, &rule(), &progress).await.unwrap());
        }
        _ => drop(backup::retain(&settings, &[]).await.unwrap()),
    }
}

/// Has a copy of this program do something and kill itself at a place.
fn killed_at(place: &Place, id: &str, what: &str, at: &str) {
    let settings = &place.settings;
    let dir = settings.backup.dir.display().to_string();
    let told = [settings.name.as_str(), &settings.host, &settings.user, &dir, id, what].join("\n");
    // Where sessions do not end in time, on a busy machine, the swap is refused and nothing has happened: once more.
    for _ in 0..5 {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_works", "--nocapture"])
            .env(CHILD, &told)
            .env(failpoint::VARIABLE, at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "it was not killed at {at}");
        if status.signal().is_some() {
            return;
        }
    }
    panic!("it did not come to {at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_is_killed_anywhere_is_finished_or_opened_again() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    place.sql("INSERT INTO visits VALUES (now(), 'lost')");
    beside(&place, &taken.id).await;
    let open = format!("SELECT datallowconn FROM pg_database WHERE datname = '{}'", place.settings.name);
    let rows = || place.sql("SELECT count(*) FROM visits");
    let places = failpoint::SWAP_PLACES.iter().flat_map(|at| match *at {
        "swap-renamed" => vec!["swap-renamed:1", "swap-renamed:2"],
        at => vec![at],
    });
    for at in places {
        // Forth and, from there, back: each from a database that stands as it should.
        for back in ["forth", "back"] {
            killed_at(&place, &taken.id, back, at);
            let happened = ["swap-committed", "swap-opened"].contains(&at);
            let recovered = restore::recover(&place.settings).await.unwrap();
            let expected = if happened { Recovered::Finished } else { Recovered::Opened };
            assert_eq!(recovered, expected, "{at} {back}");
            assert_eq!(place.sql_in("postgres", &open), "t", "{at} {back}");
            assert_eq!(restore::recover(&place.settings).await.unwrap(), Recovered::Nothing);
            let (there, gone) = if back == "forth" { ("500", "501") } else { ("501", "500") };
            assert_eq!(rows(), if happened { there } else { gone }, "{at} {back}");
            // Asked for again it is done, once.
            let progress = Progress::default();
            let again = if back == "forth" {
                swap(&place, &taken.id, 1).await
            } else {
                restore::swap_back(&place.settings, 0, &rule(), &progress).await
            };
            assert_eq!(again.unwrap().already, happened, "{at} {back}");
            assert_eq!(rows(), there, "{at} {back}");
        }
        beside(&place, &taken.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_nobody_waits_for_any_more_leaves_the_database_open() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    // A session that holds out keeps the swap in the middle: stopped, it cannot hear that it is to end.
    let app = format!("{}_app", place.settings.name);
    let mut held = place.cluster.client("psql", &app, &place.settings.name);
    let mut held = held.args(["-X", "-q", "-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    let find =
        "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND pid <> pg_backend_pid()";
    let pid = until("the session", || Some(place.sql(find)).filter(|pid| !pid.is_empty())).await;
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let open = format!("SELECT datallowconn FROM pg_database WHERE datname = '{}'", place.settings.name);
    {
        let (authority, progress) = (rule(), Progress::default());
        let swapping = restore::swap(&place.settings, &taken.id, 10, &authority, &progress);
        tokio::select! {
            _ = swapping => panic!("it did not wait"),
            () = until("a shut database", || (place.sql_in("postgres", &open) == "f").then_some(())) => {}
        }
    }
    until("an open database", || (place.sql_in("postgres", &open) == "t").then_some(())).await;
    signal("-CONT");
    held.kill().unwrap();
    held.wait().unwrap();
    until("the record", || (stage(&place) == Some(Stage::Ready)).then_some(())).await;
    swap(&place, &taken.id, 10).await.unwrap();
}

/// A new database is open to everybody, and what is restored into it is all there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_never_open_to_more_than_the_live_database_is() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let (settings, id) = (place.settings.clone(), taken.id.clone());
    let restoring =
        tokio::spawn(async move { restore::beside(&settings, &id, &rule(), &Progress::default()).await });
    // While it is filled: its rights come last.
    let name = until("the new database", || {
        let new = format!("{}_restore_", place.settings.name);
        place.databases().split(' ').find(|name| name.starts_with(&new)).map(str::to_owned)
    })
    .await;
    assert!(!place.is_open_to_everybody(&name));
    let made = restoring.await.unwrap().unwrap();
    assert_eq!(made.database, name);
    assert!(!place.is_open_to_everybody(&name));
    // Where the live one is as a new one is, so is the restored one.
    let as_new = format!("UPDATE pg_database SET datacl = NULL WHERE datname = '{}'", place.settings.name);
    place.sql_in("postgres", &as_new);
    assert!(beside(&place, &taken.id).await.already);
    assert!(place.is_open_to_everybody(&name));

    let (_, prepared) =
        restore::prepare(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap();
    let branch = restore::branch(&place.settings, &taken.id, &prepared).await.unwrap();
    for copy in [&prepared, &branch] {
        assert!(!place.is_open_to_everybody(&copy.database));
    }
    branch.remove(&place.settings).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_a_killed_restore_made_is_removed_by_the_next_or_by_whoever_settles() {
    let place = Place::new();
    let taken = place.take("r1").await.unwrap();
    let made = || place.databases().split(' ').filter(|name| name.contains("_restore_")).count();
    let settle = async || restore::discard(&place.settings, &rule()).await.unwrap();
    for (at, left) in [("restore-recorded", 0), ("restore-created", 1)] {
        // It is told of, and who settles it is rid of it.
        killed_at(&place, &taken.id, "beside", at);
        assert_eq!((made(), stage(&place)), (left, Some(Stage::Filling)), "{at}");
        settle().await;
        assert_eq!((made(), stage(&place)), (0, None), "{at}");
        killed_at(&place, &taken.id, "beside", at);
        assert!(!beside(&place, &taken.id).await.already);
        assert_eq!((made(), stage(&place)), (1, Some(Stage::Ready)), "{at}");
        settle().await;
    }
    // Somebody else's database is not taken for it, whatever it is called.
    killed_at(&place, &taken.id, "beside", "restore-recorded");
    let name = restore::pending(&place.settings).unwrap().unwrap().restored;
    place.sql_in("postgres", &format!("CREATE DATABASE {name}"));
    place.sql_in("postgres", &format!("COMMENT ON DATABASE {name} IS 'mine'"));
    settle().await;
    assert_eq!(made(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_leaves_of_a_backup_that_comes_or_goes_is_removed_by_the_next_and_nothing_else() {
    let mut place = Place::new();
    let dumps = |place: &Place| place.files().into_iter().filter(|file| file.ends_with(".dump.zst")).count();
    // As the commands from before called theirs.
    let old = place.settings.backup.dir.join("pre-migration-20240115.sql.gz");
    std::fs::write(&old, "somebody's").unwrap();
    killed_at(&place, "r0", "take", "backup-published");
    assert_eq!((dumps(&place), backup::list(&place.settings).await.unwrap().len()), (1, 0));
    let first = place.take("r1").await.unwrap();
    assert_eq!((dumps(&place), place.files().len()), (1, 1 + 5));

    place.verify(&first.id, VerifyLevel::Read).await.unwrap();
    let second = place.take("r2").await.unwrap();
    place.verify(&second.id, VerifyLevel::Read).await.unwrap();
    place.settings.backup.keep = 1;
    killed_at(&place, "", "retain", "backup-withdrawn");
    assert_eq!((dumps(&place), backup::list(&place.settings).await.unwrap().len()), (2, 1));
    let third = place.take("r3").await.unwrap();
    let of_backups = [second, third].map(|backup| backup.id);
    let left = place.files();
    assert!(
        left.iter().all(|file| of_backups.iter().any(|id| file.starts_with(id)) || old.ends_with(file)),
        "{left:?}"
    );
    assert_eq!((left.len(), std::fs::read(&old).unwrap()), (1 + 2 * 5, b"somebody's".to_vec()));

    // One whose manifest is gone is told of and left alone.
    let manifest = format!("{}.manifest.json", of_backups[0]);
    std::fs::remove_file(place.settings.backup.dir.join(manifest)).unwrap();
    place.take("r4").await.unwrap();
    assert_eq!(dumps(&place), 3);
    let told = preflight::look(&place.settings).await;
    let told = told.into_iter().find(|finding| finding.check == "dumps").unwrap();
    assert!(told.verdict == Verdict::Warning && told.found.contains(&of_backups[0]), "{told:?}");
}

/// What is lost of a table whose rows are in other partitions after a restore is what was written, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_in_another_partition_are_not_lost() {
    let place = Place::new();
    place.sql(&format!("SET ROLE {}_owner; {SCATTERED}", place.settings.name));
    let taken = place.take("r1").await.unwrap();
    beside(&place, &taken.id).await;
    let loss = async || restore::loss(&place.settings, &taken.id, &Progress::default()).await.unwrap();
    assert_eq!(loss().await.tables, []);
    place.sql(
        "UPDATE shades SET note = 'changed' WHERE id IN (1, 2); DELETE FROM shades WHERE id = 3;
         INSERT INTO shades VALUES ('s1', 999, 'new')",
    );
    let lost = loss().await;
    let [shades] = &lost.tables[..] else { panic!("{lost:?}") };
    assert_eq!(
        (shades.table.as_str(), shades.inserted, shades.updated, shades.deleted),
        ("shades", 1, 2, 1),
        "{lost:?}"
    );
    // Made since the backup, it is lost whole.
    place.sql("DROP TABLE shades");
    assert_eq!(loss().await.total(), 300);
}

/// A rehearsal must not write to other databases; what becomes the live one must.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_closed_for_a_rehearsal_is_open_in_what_is_restored() {
    let mut place = Place::new();
    place.settings.backup.keep_copy = true;
    let name = place.settings.name.clone();
    let far = format!("{name}_far");
    place.sql_in("postgres", &format!("CREATE ROLE {far} LOGIN PASSWORD 'p' IN ROLE guarded"));
    place.sql_in("postgres", &format!("CREATE DATABASE {far} OWNER {far}"));
    place.sql_in(&far, &format!("SET ROLE {far}; CREATE TABLE audit (id int)"));
    place.sql(&format!(
        "CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {name}_owner;
         DROP SCHEMA pointsman CASCADE; SET ROLE {name}_owner;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname '{far}');
         CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user '{far}', password 'p');
         CREATE FOREIGN TABLE audit (id int) SERVER far",
        place.settings.host
    ));
    place.run_role_script();
    let taken = place.take("r1").await.unwrap();
    let (_, prepared) =
        restore::prepare(&place.settings, &taken.id, &rule(), &Progress::default()).await.unwrap();
    let branch = restore::branch(&place.settings, &taken.id, &prepared).await.unwrap();
    let files = [("v2.0.0.sql", b"INSERT INTO audit VALUES (1)".as_slice())];
    let order = migrate::RunOrder {
        phase: Phase::Expand,
        release: "r1".to_owned(),
        out_of_order: Vec::new(),
        max_stall_ms: 2_000,
        lock_budget_ms: 30_000,
        database: &branch.database,
    };
    let (set, progress) = (Set::read(files).unwrap(), Progress::default());
    let rehearsed =
        migrate::rehearse(&place.settings, &branch.database, &set, &order, &rule(), &progress).await;
    let refused = rehearsed.unwrap_err();
    assert!(refused.message.contains("writes to the foreign table public.audit"), "{refused}");
    branch.remove(&place.settings).await.unwrap();
    assert_eq!(place.sql_in(&far, "SELECT count(*) FROM audit"), "0");

    beside(&place, &taken.id).await;
    swap(&place, &taken.id, 0).await.unwrap();
    place.sql(&format!("SET ROLE {name}_owner; INSERT INTO audit VALUES (2)"));
    assert_eq!(place.sql_in(&far, "SELECT id FROM audit"), "2");
    assert_eq!(place.sql("SELECT to_regnamespace('pointsman_rehearsal') IS NULL"), "t");
}

/// In the emergency other databases may be gone, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_asks_no_other_database_whose_tables_are_partitions_here() {
    let place = Place::new();
    let name = place.settings.name.clone();
    place.sql(&format!(
        "CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {name}_owner; SET ROLE {name}_owner;
         CREATE SERVER gone FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere');
         CREATE USER MAPPING FOR PUBLIC SERVER gone OPTIONS (user 'u', password 'p');
         CREATE TABLE parted (id int) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES FROM (0) TO (10) SERVER gone;
         CREATE TABLE parted_here PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE parted_low PARTITION OF parted_here FOR VALUES FROM (10) TO (15); INSERT INTO parted VALUES (11), (12)"
    ));
    place.run_role_script();
    let taken = place.take("r1").await.unwrap();
    let made = beside(&place, &taken.id).await;
    let known = "SELECT string_agg(DISTINCT tablename, ' ' ORDER BY tablename) FROM pg_stats WHERE tablename LIKE 'parted%' OR tablename = 'features'";
    assert_eq!(place.sql_in(&made.database, known), "features parted_here parted_low");
    swap(&place, &taken.id, 0).await.unwrap();
}
