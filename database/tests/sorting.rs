//! A copy sorts as the database that it is one of, whoever sorts in the cluster around it.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::panic, reason = "all of it is test")]

mod kit;

use std::sync::Arc;

use kit::{Place, rule};
use pointsman_database::preflight::{self, Verdict};
use pointsman_database::{Progress, VerifyLevel, backup, restore};
use pointsman_database_testkit::Cluster;

/// A cluster in which others sort than in the database, and what both are made with. Versions before 15 know of libc alone.
const MIXED: [(&[&str], &str, &str); 2] = [
    (&[], "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'", "a Ä B c"),
    (&["--locale-provider=icu", "--icu-locale=en-US"], "LOCALE_PROVIDER libc", "B a c Ä"),
];

fn place(arguments: &[&str], how: &str) -> Option<Place> {
    let cluster = Arc::new(Cluster::made_with(arguments, "").ok()?);
    (cluster.server().major >= 15).then(|| Place::created(cluster, "mixed", how))
}

/// Who sorts in a database, and what comes of it.
fn sorting(place: &Place, database: &str) -> String {
    place.sql_in(
        database,
        "SELECT d.datlocprovider, d.datcollate, coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                (SELECT string_agg(w, ' ' ORDER BY w) FROM unnest('{a,B,c,Ä}'::text[]) AS w)
           FROM pg_database d WHERE datname = current_database()",
    )
}

async fn assert_copied(place: &Place, release: &str, order: &str) {
    preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap();
    let taken = place.take(release).await.unwrap();
    let kept = backup::verify_keeping(&place.settings, &taken.id, &rule(), &Progress::default()).await;
    let (_, copy) = kept.unwrap();
    let expected = sorting(place, "mixed");
    assert!(expected.ends_with(order), "{expected}");
    assert_eq!(sorting(place, &copy.database), expected);
    copy.remove(&place.settings).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_sorts_as_its_database_and_not_as_its_cluster() {
    for (arguments, how, order) in MIXED {
        let Some(place) = place(arguments, how) else { return };
        assert_copied(&place, "r1", order).await;
        // Without a template the copy begins from the cluster's own.
        place.sql("DROP TABLE features; DROP EXTENSION postgis");
        place.sql_in("postgres", "DROP DATABASE pointsman_template_mixed");
        assert_copied(&place, "r2", order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_sorts_otherwise_is_told_before_a_restore_needs_it_and_made_anew() {
    for (arguments, how, order) in MIXED {
        let Some(place) = place(arguments, how) else { return };
        let other = format!(
            "CREATE DATABASE pointsman_template_mixed OWNER {} TEMPLATE template0",
            place.settings.user
        );
        place.sql_in("postgres", "DROP DATABASE pointsman_template_mixed");
        place.sql_in("postgres", &other);
        place.sql_in("pointsman_template_mixed", "CREATE EXTENSION postgis");
        let refused =
            preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
        assert!(refused.message.contains("stores or sorts texts otherwise"), "{refused:?}");
        assert!(
            refused.hint.contains("-v database=mixed -v owner=mixed_owner -v role=mixed_agent"),
            "{refused:?}"
        );
        place.run_role_script();
        assert_copied(&place, "r1", order).await;
    }
}

/// A copy that was kept from before has wrong indexes, and the server lets nothing begin from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_copy_from_before_an_upgrade_of_the_system_is_not_used() {
    let (arguments, how, _) = MIXED[0];
    let Some(place) = place(arguments, how) else { return };
    let (settings, progress) = (&place.settings, Progress::default());
    let taken = place.take("r1").await.unwrap();
    let (_, copy) = restore::prepare(settings, &taken.id, &rule(), &progress).await.unwrap();
    let older = format!("UPDATE pg_database SET datcollversion = '1' WHERE datname = '{}'", copy.database);
    place.sql_in("postgres", &older);
    let made = restore::beside(settings, &taken.id, &rule(), &progress).await.unwrap();
    let version =
        "SELECT datcollversion = pg_database_collation_actual_version(oid) FROM pg_database WHERE datname";
    assert_eq!(place.sql_in("postgres", &format!("{version} = '{}'", made.database)), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_upgrade_of_the_system_does_to_the_order_of_texts_is_told() {
    let (arguments, how, order) = MIXED[0];
    let Some(place) = place(arguments, how) else { return };
    let older =
        "UPDATE pg_database SET datcollversion = '1' WHERE datname IN ('mixed', 'pointsman_template_mixed')";
    place.sql_in("postgres", older);
    let refused = preflight::judge(&preflight::look(&place.settings).await, Verdict::Warning).unwrap_err();
    assert!(refused.message.contains("lets no restore begin from it"), "{refused:?}");
    let refresh = "ALTER DATABASE \"pointsman_template_mixed\" REFRESH COLLATION VERSION";
    assert!(refused.hint.contains(refresh), "{refused:?}");
    let taken = place.take("r0").await.unwrap();
    place.verify(&taken.id, VerifyLevel::RestoreTest).await.unwrap_err();

    place.run_role_script();
    assert_copied(&place, "r1", order).await;
    let told = |findings: Vec<preflight::Finding>| {
        findings.into_iter().find(|found| found.check == "collation").unwrap()
    };
    let warned = told(preflight::look(&place.settings).await);
    assert_eq!(warned.verdict, Verdict::Warning, "{warned:?}");
    assert!(warned.hint.contains("REINDEX DATABASE \"mixed\""), "{warned:?}");
    place.sql("REINDEX DATABASE mixed");
    place.sql("ALTER DATABASE mixed REFRESH COLLATION VERSION");
    assert_eq!(told(preflight::look(&place.settings).await).verdict, Verdict::Fine);
}
