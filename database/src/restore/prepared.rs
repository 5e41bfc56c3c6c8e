//! A backup that is restored ahead of need: a database that nobody may connect to, so that nothing in it changes. A
//! restore then copies its files instead of loading a dump.

use pointsman_core::Problem;
use tokio_postgres::Client;

use super::gate;
use crate::backup::{self, BackupId, Manifest, Verified};
use crate::collation;
use crate::copy::{self, say_whose};
use crate::scratch::{self, Scratch};
use crate::server::Server;
use crate::shape::Shape;
use crate::statement::{field, refused};
use crate::{Authority, Progress, Session, Settings, room};

/// Restores and checks a backup and keeps the result, shut; those of earlier backups are dropped. It takes as much room as
/// the database.
pub async fn prepare(
    settings: &Settings,
    id: &str,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<(Verified, Scratch), Problem> {
    let (verified, scratch) = backup::verify_keeping(settings, id, authority, progress).await?;
    progress.say("restore: gathering statistics");
    copy::analyze(settings, &scratch.database).await?;
    progress.done();
    let session = Session::open(settings, &settings.maintenance, "prepare").await?;
    gate::shut(session.client(), &scratch.database).await?;
    scratch::drop_others(settings, session.client(), &scratch.database).await?;
    Ok((verified, scratch))
}

/// A copy of a prepared one, to try something in that changes it.
pub async fn branch(settings: &Settings, id: &str, prepared: &Scratch) -> Result<Scratch, Problem> {
    let session = Session::open(settings, &settings.maintenance, "prepare").await?;
    let client = session.client();
    let branch = Scratch::branch_of(settings, id);
    scratch::drop_if_ours(client, &branch.database).await?;
    let manifest = Manifest::read(&settings.backup.dir, &BackupId::parse(id)?)?;
    room::for_copy(settings, &session, &manifest).await?;
    let shape = Shape::of(client, &prepared.database).await?;
    shape.create(client, &branch.database, &prepared.database).await?;
    say_whose(client, &branch.database, &Scratch::comment(settings, id)).await?;
    Ok(branch)
}

/// The prepared copy of a backup, if there is one. One that can be connected to may have been changed; and in one from
/// before the system sorted otherwise the indexes on texts are wrong, and the server copies it no more.
pub(super) async fn of(
    settings: &Settings,
    client: &Client,
    server: &Server,
    id: &str,
) -> Result<Option<String>, Problem> {
    let scratch = Scratch::of(settings, id);
    let sorts_as_then = match server.major() >= collation::REMEMBERED_FROM {
        true => "AND datcollversion IS NOT DISTINCT FROM pg_database_collation_actual_version(oid)",
        false => "",
    };
    let sql = format!(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database
          WHERE datname = $1 AND NOT datallowconn {sorts_as_then}"
    );
    let found = client
        .query_opt(&sql, &[&scratch.database])
        .await
        .map_err(|error| refused("look for a prepared copy", &error))?;
    let comment: Option<String> = found.map(|row| field(&row, 0)).transpose()?.flatten();
    Ok((comment == Some(Scratch::comment(settings, id))).then_some(scratch.database))
}
