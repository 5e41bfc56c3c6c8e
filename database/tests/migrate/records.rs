//! The records, where they are not as expected.

use pointsman_core::Code;
use pointsman_database::migrate;
use pointsman_migration::Phase;

use crate::kit::{Crew, Ground, set};

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
    ground.sql(
        "ALTER TABLE pointsman.attempt DROP COLUMN token_hash; ALTER TABLE pointsman.backfill DROP COLUMN token_hash,
             DROP COLUMN key; UPDATE pointsman.fence SET format = 1",
    );
    assert_eq!(ground.status().await.schema_version.as_deref(), Some("1.0.0"));
    assert_eq!(ground.expand(&files).await.unwrap().applied.len(), 1);
    assert_eq!(ground.sql("SELECT format FROM pointsman.fence"), "3");
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
async fn what_files_make_without_a_schema_is_where_the_owners_sessions_make_it() {
    for (settings, expected) in [
        ("ALTER ROLE OWNER IN DATABASE NAME SET search_path = shop, public", "shop"),
        ("ALTER ROLE OWNER SET search_path = shop", "shop"),
        (
            "ALTER ROLE OWNER SET search_path = \"$user\", other; ALTER ROLE OWNER IN DATABASE NAME SET search_path = \"Shop's\"",
            "Shop's",
        ),
        ("ALTER DATABASE NAME SET search_path = shop, public", "shop"),
        (
            "ALTER DATABASE NAME SET search_path = shop, public; ALTER ROLE OWNER SET search_path = other, public",
            "other",
        ),
        ("SELECT 1", "public"),
    ] {
        // Its versions are named by the agent's own path, which the owner's does not hide.
        let mut ground = Ground::new(
            "CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('0.9.0')",
        );
        ground.settings.version_table = Some("schema_version".to_owned());
        let (name, owner) = (ground.settings.name.clone(), format!("{}_owner", ground.settings.name));
        let sql = format!(
            "CREATE ROLE OWNER; GRANT OWNER TO pointsman; ALTER DATABASE NAME OWNER TO OWNER; {settings}"
        );
        let sql = sql.replace("NAME OWNER TO OWNER", &format!("NAME OWNER TO {owner}"));
        let sql = sql
            .replace("ROLE OWNER", &format!("ROLE {owner}"))
            .replace("GRANT OWNER", &format!("GRANT {owner}"));
        ground.cluster.psql("postgres", &sql.replace("NAME", &name)).unwrap();
        let schemas = format!(
            "ALTER SCHEMA public OWNER TO {owner}; ALTER TABLE public.schema_version OWNER TO {owner}; SET ROLE {owner};
             CREATE SCHEMA shop; CREATE SCHEMA other; CREATE SCHEMA \"Shop's\""
        );
        ground.cluster.psql("postgres", &format!("GRANT CREATE ON DATABASE {name} TO {owner}")).unwrap();
        ground.cluster.psql(&name, &schemas).unwrap();
        let files = [
            ("v1.0.0.sql", "CREATE TABLE made (a int); CREATE INDEX CONCURRENTLY made_a ON made (a)"),
            ("v1.0.0.verify.sql", "SELECT a FROM made"),
        ];
        // The copy is called otherwise, and has none of the database's settings.
        let copy = ground.copy().await;
        ground.cluster.psql("postgres", &format!("ALTER DATABASE {copy} OWNER TO {owner}")).unwrap();
        let order = ground.order(Phase::Expand);
        let rehearsed =
            migrate::rehearse(&ground.settings, &copy, &set(&files), &order, &Crew(1), &ground.progress)
                .await;
        rehearsed.unwrap_or_else(|problem| panic!("{settings}: {problem:?}"));
        ground.expand(&files).await.unwrap_or_else(|problem| panic!("{settings}: {problem:?}"));
        let place = "SELECT schemaname FROM pg_tables WHERE tablename = 'made'";
        assert_eq!(ground.cluster.psql(&copy, place).unwrap(), expected, "{settings}");
        assert_eq!(ground.sql(place), expected, "{settings}");
        assert_eq!(ground.sql("SELECT max(version) FROM public.schema_version"), "1.0.0", "{settings}");
    }
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
