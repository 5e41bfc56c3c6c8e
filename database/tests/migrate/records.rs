//! The records, where they are not as expected.

use pointsman_core::Code;

use crate::kit::Ground;

#[tokio::test]
async fn a_database_without_records_has_a_status_and_gets_none_by_looking() {
    let ground = Ground::new("CREATE TABLE t (a int)");
    assert_eq!(ground.status().await, pointsman_database::migrate::Status::default());
    pointsman_database::migrate::fence(&ground.settings, pointsman_core::Epoch(3)).await.unwrap();
    assert_eq!(ground.sql("SELECT to_regnamespace('pointsman') IS NULL"), "t");
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_left_alone() {
    let ground = Ground::new("CREATE SCHEMA pointsman; CREATE TABLE pointsman.own (a int)");
    let problem = ground.expand(&[("v1.0.0.sql", "CREATE TABLE t (a int)")]).await.unwrap_err();
    assert_eq!(problem.code, Code::RecordsUnfit);
    assert_eq!(ground.sql("SELECT to_regclass('t') IS NULL"), "t");
}

#[tokio::test]
async fn records_of_a_later_format_are_refused() {
    let ground = Ground::new("");
    ground.expand(&[("v1.0.0.sql", "CREATE TABLE t (a int)")]).await.unwrap();
    ground.sql("UPDATE pointsman.fence SET format = 99");
    let problem = ground.expand(&[("v1.1.0.sql", "CREATE TABLE u (a int)")]).await.unwrap_err();
    assert_eq!(problem.code, Code::StateTooNew);
}

#[tokio::test]
async fn records_of_the_first_format_are_looked_at_and_brought_up_to_date() {
    let ground = Ground::new("");
    let files = [("v1.0.0.sql", "CREATE TABLE t (a int)"), ("v1.1.0.sql", "CREATE TABLE u (a int)")];
    ground.expand(&files[..1]).await.unwrap();
    ground.sql("ALTER TABLE pointsman.attempt DROP COLUMN token_hash; UPDATE pointsman.fence SET format = 1");
    assert_eq!(ground.status().await.schema_version.as_deref(), Some("1.0.0"));
    assert_eq!(ground.expand(&files).await.unwrap().applied.len(), 1);
    assert_eq!(ground.sql("SELECT format FROM pointsman.fence"), "2");
}

#[tokio::test]
async fn a_superuser_is_refused_unless_allowed() {
    let mut ground = Ground::new("");
    ground.settings.user = "postgres".to_owned();
    let file = [("v1.0.0.sql", "CREATE TABLE t (a int)")];
    assert_eq!(ground.expand(&file).await.unwrap_err().code, Code::DatabaseUnfit);
    ground.settings.allow_superuser = true;
    ground.expand(&file).await.unwrap();
}

#[tokio::test]
async fn what_files_make_belongs_to_the_databases_owner() {
    let ground = Ground::new("");
    let name = &ground.settings.name;
    let sql = format!(
        "CREATE ROLE {name}_owner NOLOGIN; GRANT {name}_owner TO pointsman; ALTER DATABASE {name} OWNER TO {name}_owner"
    );
    ground.cluster.psql("postgres", &sql).unwrap();
    ground
        .expand(&[("v1.0.0.sql", "CREATE TABLE t (a int); CREATE INDEX CONCURRENTLY t_a ON t (a)")])
        .await
        .unwrap();
    assert_eq!(ground.sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'"), format!("{name}_owner"));
    assert!(
        ground
            .expand(&[("v1.0.0.sql", "CREATE TABLE t (a int); CREATE INDEX CONCURRENTLY t_a ON t (a)")])
            .await
            .unwrap()
            .already
    );
}

#[tokio::test]
async fn nothing_that_a_file_makes_is_put_among_the_records() {
    // The role is called as the schema is, so `"$user"` on its search path means the records.
    let ground = Ground::new("");
    ground
        .expand(&[("v1.0.0.sql", "CREATE TABLE t (a int); CREATE INDEX CONCURRENTLY t_a ON t (a)")])
        .await
        .unwrap();
    assert_eq!(ground.sql("SELECT schemaname FROM pg_tables WHERE tablename = 't'"), "public");
}
