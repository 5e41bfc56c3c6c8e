//! Databases that exist only to try something in: a restore, a migration. Their names and their comments both tell that
//! they are ours. Only what bears both is ever dropped, or what bears such a name and no comment at all: a crash may have
//! come between.

use std::time::Duration;

use pointsman_core::Problem;
use tokio_postgres::Client;

use crate::copy::drop_database;
use crate::guard::Guard;
use crate::statement::{field, refused};
use crate::{Session, Settings, backup};

/// What every name begins with.
const PREFIX: &str = "pointsman_verify_";
/// What every comment begins with.
const COMMENT: &str = "pointsman: a copy to try something in, made from ";
/// How many hexadecimal digits follow in a name.
const DIGITS: usize = 16;
/// How long another dump, migration or restore is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// A database to try something in. Whoever is done with it has it removed; what a crash leaves is removed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Its name.
    pub database: String,
}

impl Scratch {
    /// The one of a backup.
    pub(crate) fn of(settings: &Settings, backup: &str) -> Self {
        let hash = blake3::hash(format!("{}/{backup}", settings.name).as_bytes()).to_hex();
        Self { database: format!("{PREFIX}{}", hash.chars().take(DIGITS).collect::<String>()) }
    }

    /// The one to try something in that changes it, beside that of a backup.
    pub(crate) fn branch_of(settings: &Settings, backup: &str) -> Self {
        Self::of(settings, &format!("{backup}, tried"))
    }

    /// What stands beside it in the server's list.
    pub(crate) fn comment(settings: &Settings, backup: &str) -> String {
        format!("{COMMENT}{} of {}", backup, settings.name)
    }

    /// Drops it.
    pub async fn remove(self, settings: &Settings) -> Result<(), Problem> {
        let session = Session::open(settings, &settings.maintenance, "scratch").await?;
        drop_if_ours(session.client(), &self.database).await.map(|_| ())
    }
}

/// Drops the ones of this database that earlier crashes left, and returns their names. One that is shut is kept for a
/// restore, where such are kept. Waits for work that is under way.
pub async fn drop_left_over(settings: &Settings) -> Result<Vec<String>, Problem> {
    let guard = Guard::take(settings, GUARD_WAIT).await?;
    let client = guard.session().client();
    let told = ours(settings, client).await?;
    let told = told.into_iter().filter(|found| found.open || !settings.backup.keep_copy);
    let mut dropped = drop_all(client, told.map(|found| found.name)).await?;
    dropped.extend(drop_all(client, untold(settings, client).await?).await?);
    Ok(dropped)
}

/// Those of this database's backups that no comment tells of: the server goes on creating one from another while whoever
/// ordered it is gone.
async fn untold(settings: &Settings, client: &Client) -> Result<Vec<String>, Problem> {
    let backups = backup::list(settings).await?;
    let both = |id: &str| [Scratch::of(settings, id), Scratch::branch_of(settings, id)];
    let names: Vec<String> =
        backups.iter().flat_map(|backup| both(&backup.id)).map(|copy| copy.database).collect();
    let rows = client
        .query(
            "SELECT datname::text FROM pg_database
              WHERE datname = ANY ($1) AND shobj_description(oid, 'pg_database') IS NULL",
            &[&names],
        )
        .await
        .map_err(|error| refused("look for left-over databases", &error))?;
    rows.iter().map(|row| field(row, 0)).collect()
}

/// Drops every one of this database but one.
pub(crate) async fn drop_others(settings: &Settings, client: &Client, kept: &str) -> Result<(), Problem> {
    let all = ours(settings, client).await?;
    let others = all.into_iter().map(|found| found.name).filter(|name| name != kept);
    drop_all(client, others).await.map(drop)
}

/// One that is there, and whether it can be connected to.
struct Found {
    name: String,
    open: bool,
}

/// The ones of this database.
async fn ours(settings: &Settings, client: &Client) -> Result<Vec<Found>, Problem> {
    let rows = client
        .query(
            "SELECT d.datname::text, d.datallowconn FROM pg_database d
               JOIN pg_shdescription s ON s.objoid = d.oid AND s.classoid = 'pg_database'::regclass
              WHERE starts_with(d.datname::text, $1) AND starts_with(s.description, $2)
                AND right(s.description, length($3)) = $3",
            &[&PREFIX, &COMMENT, &format!(" of {}", settings.name)],
        )
        .await
        .map_err(|error| refused("look for left-over databases", &error))?;
    rows.iter().map(|row| Ok(Found { name: field(row, 0)?, open: field(row, 1)? })).collect()
}

async fn drop_all(client: &Client, names: impl IntoIterator<Item = String>) -> Result<Vec<String>, Problem> {
    let mut dropped = Vec::new();
    for name in names {
        if drop_if_ours(client, &name).await? {
            dropped.push(name);
        }
    }
    Ok(dropped)
}

/// Drops a database if both its name and its comment are those of one of ours, or it has the name and no comment yet.
pub(crate) async fn drop_if_ours(client: &Client, name: &str) -> Result<bool, Problem> {
    let row = client
        .query_opt(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1",
            &[&name],
        )
        .await
        .map_err(|error| refused(&format!("look at `{name}`"), &error))?;
    let Some(row) = row else { return Ok(false) };
    let comment: String = field(&row, 0)?;
    if !is_ours(name) || !(comment.is_empty() || comment.starts_with(COMMENT)) {
        return Ok(false);
    }
    drop_database(client, name).await?;
    Ok(true)
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_strictly() {
        assert!(is_ours("pointsman_verify_0123456789abcdef"));
        for name in [
            "pointsman_verify_",
            "pointsman_verify_0123456789ABCDEF",
            "pointsman_verify_0123456789abcdef0",
            "p2d2",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
