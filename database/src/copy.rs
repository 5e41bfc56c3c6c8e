//! A database that is made from a backup: for a test of the backup, for a rehearsal, or to become the live one.

use pointsman_core::{Code, Problem};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::backup::{Archive, Jobs, Manifest, load};
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, quoted, refused};
use crate::tools::Tools;
use crate::{Progress, Session, Settings, contents};

/// Longest name of a database that is worked with: names end at 63 bytes, and the longest that is made from one is
/// `NAME_restore_20261126T103029Z_2`.
pub(crate) const MAX_NAME_BYTES: usize = 36;

/// The database that new ones are copied from, if it is there: it holds the extensions that a superuser created or only
/// one can.
pub(crate) fn template_of(settings: &Settings) -> String {
    format!("pointsman_template_{}", settings.name)
}

/// Refuses before anything is created when a role or an extension that the backup needs is missing.
pub(crate) async fn must_be_possible(client: &Client, manifest: &Manifest) -> Result<(), Problem> {
    let roles = present(client, "SELECT rolname::text FROM pg_roles").await?;
    let extensions = present(client, "SELECT name::text FROM pg_available_extensions").await?;
    let owner = std::iter::once(&manifest.shape.owner);
    let missing_roles = manifest.contents.roles.iter().chain(owner).filter(|role| !roles.contains(role));
    let missing_extensions = manifest.contents.extensions.keys().filter(|name| !extensions.contains(name));
    let missing: Vec<String> = missing_roles
        .map(|role| format!("role `{role}`"))
        .chain(missing_extensions.map(|name| format!("extension `{name}`")))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let problem = Problem::new(
        Code::BackupUnrestorable,
        format!("backup `{}` cannot be restored here: {} missing", manifest.id, missing.join(", ")),
    );
    Err(problem.hint(
        "`CREATE ROLE` what the file `.roles.sql` beside the backup names; `apt-get install` the extension",
    ))
}

async fn present(client: &Client, sql: &str) -> Result<Vec<String>, Problem> {
    let rows = client.query(sql, &[]).await.map_err(|error| refused("look what the server has", &error))?;
    rows.iter().map(|row| field(row, 0)).collect()
}

/// Creates an empty database of this shape, from the template where there is one. The comment tells whose it is.
pub(crate) async fn create(
    settings: &Settings,
    client: &Client,
    shape: &Shape,
    name: &str,
    comment: &str,
) -> Result<(), Problem> {
    let template = template_of(settings);
    let found = Shape::ask(client, &template).await?;
    let template = if found.is_some() { template.as_str() } else { "template0" };
    shape.create(client, name, template).await?;
    say_whose(client, name, comment).await
}

/// Notes in a comment whose a database is.
pub(crate) async fn say_whose(client: &Client, name: &str, comment: &str) -> Result<(), Problem> {
    let comment = format!("COMMENT ON DATABASE {} IS {}", quoted(name), crate::statement::literal(comment));
    let noted = client.batch_execute(&comment).await;
    noted.map_err(|error| refused(&format!("note whose the database `{name}` is"), &error))
}

/// Fills an empty database from a backup and compares it with the manifest.
pub(crate) async fn fill(
    settings: &Settings,
    tools: &Tools,
    archive: &Archive,
    (database, jobs): (&str, Jobs),
    progress: &Progress,
) -> Result<(), Problem> {
    load(settings, tools, archive, (database, jobs), progress).await?;
    compare(settings, &archive.manifest, database, progress).await
}

/// Whether what several jobs could not load may be loaded by one, into a database that is made anew: only that tells of
/// the backup.
pub(crate) fn is_worth_one_job(loaded: &Result<(), Problem>, jobs: Jobs, progress: &Progress) -> bool {
    let Err(problem) = loaded else { return false };
    let is_worth = jobs == Jobs::Several && problem.code == Code::BackupUnrestorable;
    if is_worth {
        tracing::warn!(%problem, causes = ?problem.causes, "what several jobs could not load is loaded by one");
        progress.say("restore: once more, by one job");
    }
    is_worth
}

/// Compares a database with what a manifest says was in the one that was dumped.
pub(crate) async fn compare(
    settings: &Settings,
    manifest: &Manifest,
    database: &str,
    progress: &Progress,
) -> Result<(), Problem> {
    let session = Session::open(settings, database, "compare").await?;
    let client = session.client();
    for statement in ["SET row_security = off", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
        client.batch_execute(statement).await.map_err(|error| refused("look into the copy", &error))?;
    }
    let copied = contents::take(client, progress, "restore").await?;
    let scattered = contents::Scattered::ask(client).await?;
    let other_server = manifest.server_major() != Some(Server::ask(&session).await?.major());
    let contents::Differences { wrong, upgraded } =
        contents::differences(&manifest.contents, &copied, &scattered, other_server);
    if !upgraded.is_empty() {
        tracing::warn!(
            backup = manifest.id,
            ?upgraded,
            "server or extensions were upgraded since the backup"
        );
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("`{database}` differs from backup `{}` that it was restored from", manifest.id);
    let problem = Problem::new(Code::CopyDiffers, message)
        .hint("take another backup: `pointsman db backup ENV`; an older one: `pointsman db list ENV`");
    Err(wrong.into_iter().fold(problem, Problem::cause))
}

/// What is here, where there are tables whose partitions or children are elsewhere: the server would ask those too, and where one
/// does not answer gather nothing at all. Named, a partitioned table brings its partitions.
const HERE: &str = "
WITH RECURSIVE of_others AS (
    SELECT i.inhparent AS id FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'f'
     UNION
    SELECT i.inhparent FROM of_others JOIN pg_inherits i ON i.inhrelid = of_others.id)
SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
 WHERE EXISTS (SELECT FROM of_others) AND c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
   AND c.relnamespace <> 'information_schema'::regnamespace AND c.oid NOT IN (SELECT id FROM of_others)
   AND NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid AND a.relid::oid NOT IN (SELECT id FROM of_others))";

/// Has the server look how values are spread, for its plans to be good from the first request on.
pub(crate) async fn analyze(settings: &Settings, database: &str) -> Result<(), Problem> {
    let session = Session::open(settings, database, "analyze").await?;
    let failed = |error| refused("gather statistics of the restored database", &error);
    let row = session.client().query_one(HERE, &[]).await.map_err(failed)?;
    let here: Option<String> = field(&row, 0)?;
    let analyze = format!("ANALYZE {}", here.unwrap_or_default());
    session.client().batch_execute(&analyze).await.map_err(failed)
}

/// Whether that was done: what is known goes along when a database is created from another.
pub(crate) async fn is_analyzed(settings: &Settings, database: &str) -> Result<bool, Problem> {
    let session = Session::open(settings, database, "analyze").await?;
    let sql = "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema')";
    let row = session.client().query_one(sql, &[]).await;
    field(&row.map_err(|error| refused("look for statistics of the restored database", &error))?, 0)
}

/// How often a database that others are connected to is tried to be dropped. The server waits 5 s each time.
const DROP_TRIES: usize = 3;

/// Drops a database of ours, with whoever is connected to it.
///
/// Only a superuser may end a worker of autovacuum or a superuser's session: by force nothing is dropped then, and nobody's
/// session ended. Without force the server itself sends workers of autovacuum away, and waits for the others.
pub(crate) async fn drop_database(client: &Client, name: &str) -> Result<(), Problem> {
    let drop = format!("DROP DATABASE IF EXISTS {}", quoted(name));
    let failed = |error| refused(&format!("drop the database `{name}`"), &error);
    for _ in 0..DROP_TRIES {
        match client.batch_execute(&format!("{drop} WITH (FORCE)")).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            dropped => return dropped.map_err(failed),
        }
        match client.batch_execute(&drop).await {
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {}
            dropped => return dropped.map_err(failed),
        }
    }
    let message = format!("cannot drop the database `{name}`: a superuser is connected to it");
    let problem = Problem::new(Code::StatementRefused, message).retry_useful();
    let problem = problem.hint("end the sessions that are named, then try again");
    Err(connected(client, name).await?.into_iter().fold(problem, Problem::cause))
}

/// Who is connected to a database, in words.
async fn connected(client: &Client, name: &str) -> Result<Vec<String>, Problem> {
    let sql = "SELECT format('%s (pid %s, role %s)', coalesce(nullif(application_name, ''), backend_type), pid, usename)
                 FROM pg_stat_activity WHERE datname = $1 ORDER BY pid LIMIT 10";
    let rows = client.query(sql, &[&name]).await;
    let rows = rows.map_err(|error| refused(&format!("look who is connected to `{name}`"), &error))?;
    rows.iter().map(|row| field(row, 0)).collect()
}
