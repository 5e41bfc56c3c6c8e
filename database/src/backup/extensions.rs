//! Extensions that a role of the application may create by itself, as `hstore` or `pg_trgm`: a dump does not know whose they
//! are, and no statement gives them to somebody else. Created as their owner before the rest is loaded, they are the same
//! role's again, and a migration may do with them what it may in the live database.

use std::collections::BTreeSet;

use pointsman_core::Problem;
use tokio_postgres::Client;

use super::manifest::Manifest;
use crate::contents::Home;
use crate::statement::{field, literal, quoted, refused};
use crate::{Session, Settings};

/// Creates in an empty database those that are not there yet and whose owner the agent can become. What cannot be created so
/// is left to the load, which creates it as the agent.
pub(super) async fn create(settings: &Settings, manifest: &Manifest, database: &str) -> Result<(), Problem> {
    let session = Session::open(settings, database, "restore").await?;
    let client = session.client();
    let rows = client.query("SELECT extname::text FROM pg_extension", &[]).await;
    let rows = rows.map_err(|error| refused("list what the template brought", &error))?;
    let there: BTreeSet<String> = rows.iter().map(|row| field(row, 0)).collect::<Result<_, _>>()?;
    let mut left: Vec<_> =
        manifest.contents.homes.iter().filter(|(name, _)| !there.contains(*name)).collect();
    // One may need another: whatever could be created in a round may let more be in the next.
    loop {
        let before = left.len();
        let mut again = Vec::new();
        for (name, home) in left {
            let version = manifest.contents.extensions.get(name).map(String::as_str);
            if let Err(refusal) = created(client, name, version, home).await? {
                again.push((name, home));
                tracing::debug!(extension = name, owner = home.owner, refusal, "not created as its owner");
            }
        }
        if again.is_empty() || again.len() == before {
            return Ok(());
        }
        left = again;
    }
}

/// Creates one as its owner, in its version where the server still has that; or says why it could not.
async fn created(
    client: &Client,
    name: &str,
    version: Option<&str>,
    home: &Home,
) -> Result<Result<(), String>, Problem> {
    let (extension, schema) = (quoted(name), quoted(&home.schema));
    let failed = |error| refused(&format!("create the extension `{name}`"), &error);
    let asked = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let is_there: bool = field(&client.query_one(asked, &[&home.schema]).await.map_err(failed)?, 0)?;
    let make_schema = match &home.schema_owner {
        Some(owner) if !is_there => {
            format!("CREATE SCHEMA {schema} AUTHORIZATION {};", quoted(owner))
        }
        _ => String::new(),
    };
    let versions = version.map(|version| format!(" VERSION {}", literal(version)));
    let mut refusal = String::new();
    for version in versions.iter().map(String::as_str).chain([""]) {
        let statements = format!(
            "BEGIN; {make_schema} SET LOCAL ROLE {}; CREATE EXTENSION {extension} WITH SCHEMA {schema}{version}; COMMIT",
            quoted(&home.owner)
        );
        let Err(error) = client.batch_execute(&statements).await else { return Ok(Ok(())) };
        let Some(told) = error.as_db_error() else { return Err(failed(error)) };
        refusal = told.message().to_owned();
        client.batch_execute("ROLLBACK").await.map_err(failed)?;
    }
    Ok(Err(refusal))
}
