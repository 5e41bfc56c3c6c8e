//! Databases that had migrations before pointsman.

use pointsman_core::Code;
use pointsman_database::migrate;

use crate::kit::{Crew, Ground, set};

const FILES: [(&str, &str); 3] = [
    ("v1.9.0.sql", "CREATE TABLE a (id int)"),
    ("v1.10.0.sql", "CREATE TABLE b (id int)"),
    ("v1.11.0.sql", "CREATE TABLE c (id int)"),
];

fn ground(sql: &str) -> Ground {
    let mut ground = Ground::new(sql);
    ground.settings.version_table = Some("schema_version".to_owned());
    ground
}

#[tokio::test]
async fn files_up_to_the_tables_version_are_marked_and_the_table_is_kept_up_in_its_style() {
    let ground = ground(
        "CREATE TABLE schema_version (version varchar(20) PRIMARY KEY, at timestamptz DEFAULT now());
         INSERT INTO schema_version VALUES ('v1.9.0'), ('v1.10.0'); CREATE TABLE a (id int); CREATE TABLE b (id int)",
    );
    assert_eq!(ground.status().await.schema_version.as_deref(), Some("1.10.0"), "by number, not by text");
    let problem = ground.expand(&FILES).await.unwrap_err();
    assert_eq!(problem.code, Code::NotAdopted, "{problem}");
    let adopted = migrate::adopt(&ground.settings, &set(&FILES), &Crew(1)).await.unwrap();
    assert_eq!((adopted.version.to_string(), adopted.marked.len()), ("1.10.0".to_owned(), 2));
    assert_eq!(migrate::adopt(&ground.settings, &set(&FILES), &Crew(1)).await.unwrap().marked, vec![]);
    assert_eq!(ground.sql("SELECT count(*) FROM schema_version"), "2");
    let ran = ground.expand(&FILES).await.unwrap();
    assert_eq!(ran.applied.len(), 1);
    assert_eq!(
        ground.sql("SELECT version FROM schema_version ORDER BY at, version"),
        "v1.10.0\nv1.9.0\nv1.11.0"
    );
}

#[tokio::test]
async fn a_file_that_records_itself_is_not_recorded_twice_and_a_failed_one_not_at_all() {
    let ground = ground("CREATE TABLE schema_version (version text)");
    let own = "CREATE TABLE a (id int); INSERT INTO schema_version (version) VALUES ('1.9')";
    ground.expand(&[("v1.9.0.sql", own)]).await.unwrap();
    assert_eq!(ground.sql("SELECT version FROM schema_version"), "1.9");
    let bad = ("v1.10.0.sql", "CREATE TABLE b (id int); SELECT 1/0");
    assert_eq!(ground.expand(&[("v1.9.0.sql", own), bad]).await.unwrap_err().code, Code::StatementFailed);
    assert_eq!(ground.sql("SELECT version FROM schema_version"), "1.9");
}

#[tokio::test]
async fn what_cannot_be_adopted_is_refused_with_what_was_found() {
    for (sql, found) in [
        ("", "has no table `schema_version`"),
        ("CREATE TABLE schema_version (version text)", "is empty"),
        (
            "CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('latest')",
            "`latest`",
        ),
    ] {
        let ground = ground(sql);
        let problem = migrate::adopt(&ground.settings, &set(&FILES), &Crew(1)).await.unwrap_err();
        assert!(problem.code == Code::AdoptionRefused && problem.message.contains(found), "{problem}");
    }
    let odd = ground("CREATE TABLE schema_version (number text)");
    assert_eq!(
        migrate::adopt(&odd.settings, &set(&FILES), &Crew(1)).await.unwrap_err().code,
        Code::RecordsUnfit
    );
}

/// Tables that people made themselves want more of a row than its version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_gets_the_time_that_its_table_wants_and_the_rest_from_the_file() {
    let timed =
        ground("CREATE TABLE schema_version (version text PRIMARY KEY, \"applied At\" timestamptz NOT NULL)");
    timed.expand(&[("v1.0.0.sql", "CREATE TABLE a (id int)")]).await.unwrap();
    assert_eq!(timed.sql("SELECT version, now() - \"applied At\" < '1 hour' FROM schema_version"), "1.0.0|t");

    let told = ground("CREATE TABLE schema_version (version text, \"who's 100%\" text NOT NULL, note text)");
    let refused = told.expand(&[("v1.0.0.sql", "CREATE TABLE a (id int)")]).await.unwrap_err();
    assert_eq!(refused.code, Code::StatementFailed);
    assert!(
        refused.message.contains("needs a value for \"who's 100%\"")
            && refused.message.contains("VALUES ('1.0.0', ...)"),
        "{refused}"
    );
    assert_eq!(told.sql("SELECT to_regclass('a') IS NULL"), "t");
    let own = "CREATE TABLE a (id int); INSERT INTO schema_version VALUES ('1.0.0', 'eve', NULL)";
    told.expand(&[("v1.0.0.sql", own)]).await.unwrap();
}

/// What was done to a database before must be known: a name that is not found is no empty history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_not_found_is_not_an_empty_one() {
    let files = [("v1.0.0.sql", "CREATE TABLE IF NOT EXISTS a (id int); INSERT INTO a VALUES (1)")];
    let elsewhere =
        "CREATE SCHEMA shop; CREATE TABLE shop.schema_version (version text); CREATE TABLE a (id int);
                     INSERT INTO shop.schema_version VALUES ('1.0.0')";
    for named in [Some("schema_version"), None] {
        let mut ground = ground(elsewhere);
        ground.settings.version_table = named.map(str::to_owned);
        let refused = ground.expand(&files).await.unwrap_err();
        assert_eq!(refused.code, Code::AdoptionRefused, "{refused:?}");
        assert!(refused.hint.contains("version_table = \"shop.schema_version\""), "{refused:?}");
        assert_eq!(ground.sql("SELECT count(*) FROM a"), "0");
    }
    let typo = ground("CREATE TABLE a (id int)");
    assert_eq!(typo.expand(&files).await.unwrap_err().code, Code::AdoptionRefused);
    // Nothing was there before: the first file may make it.
    let fresh = ground("");
    fresh.expand(&[("v1.0.0.sql", "CREATE TABLE schema_version (version text)")]).await.unwrap();
    // What is recorded is known, whatever becomes of the table.
    fresh.sql("DROP TABLE schema_version");
    let on = [
        ("v1.0.0.sql", "CREATE TABLE schema_version (version text)"),
        ("v1.1.0.sql", "CREATE TABLE b (id int)"),
    ];
    fresh.expand(&on).await.unwrap();
}

/// Other tools note a version before its work is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_another_tool_did_not_finish_is_not_adopted() {
    for (columns, row) in [("dirty boolean NOT NULL", "true"), ("success boolean", "false")] {
        let ground = ground(&format!(
            "CREATE TABLE schema_version (version bigint, {columns}); INSERT INTO schema_version VALUES (1, NOT {row}), (2, {row})"
        ));
        let refused = migrate::adopt(&ground.settings, &set(&[]), &Crew(1)).await.unwrap_err();
        assert_eq!(refused.code, Code::AdoptionRefused, "{refused:?}");
        assert!(refused.message.contains("version 2 has"), "{refused:?}");
    }
}
