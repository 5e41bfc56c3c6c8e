//! A backup that is restored ahead of need: a database that nobody may connect to, so that nothing in it changes. A
//! restore then copies its files instead of loading a dump.

use pointsman_core::Problem;
use tokio_postgres::Client;

use super::gate;
use crate::backup;
use crate::scratch::{self, Scratch};
use crate::shape::Shape;
use crate::statement::{field, quoted, refused};
use crate::{Authority, Progress, Session, Settings};

/// Restores and checks a backup and keeps the result, shut. It takes as much room as the database.
pub async fn prepare(
    settings: &Settings,
    id: &str,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Scratch, Problem> {
    let (_, scratch) = backup::verify_keeping(settings, id, authority, progress).await?;
    let session = Session::open(settings, &settings.maintenance, "prepare").await?;
    gate::shut(session.client(), &scratch.database).await?;
    Ok(scratch)
}

/// The prepared copy of a backup, if there is one. One that can be connected to may have been changed.
pub(super) async fn of(settings: &Settings, client: &Client, id: &str) -> Result<Option<String>, Problem> {
    let scratch = Scratch::of(settings, id);
    let found = client
        .query_opt(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1 AND NOT datallowconn",
            &[&scratch.database],
        )
        .await
        .map_err(|error| refused("look for a prepared copy", &error))?;
    let comment: Option<String> = found.map(|row| field(&row, 0)).transpose()?.flatten();
    Ok((comment == Some(Scratch::comment(settings, id))).then_some(scratch.database))
}

/// Makes a database from the prepared one, which stays.
pub(super) async fn copy(client: &Client, shape: &Shape, prepared: &str, name: &str) -> Result<(), Problem> {
    let created = client.batch_execute(&shape.creation(name, prepared)).await;
    created.map_err(|error| refused(&format!("copy the prepared database to `{}`", quoted(name)), &error))
}

/// Drops the prepared copy of a backup.
pub async fn unprepare(settings: &Settings, id: &str) -> Result<(), Problem> {
    let session = Session::open(settings, &settings.maintenance, "prepare").await?;
    let scratch = Scratch::of(settings, id);
    scratch::drop_if_ours(session.client(), &scratch.database).await.map(|_| ())
}
