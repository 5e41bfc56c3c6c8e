//! How the database stands, for `status` and for plans.

use std::path::Path;

use pointsman_chassis::host_facts;
use pointsman_core::Problem;
use pointsman_database::backup::{self, Backup};
use pointsman_database::migrate::{self, Status};
use pointsman_database::{Progress, Session, Settings, restore};
use pointsman_migration::Begun;
use pointsman_proto::{convert, v1};

use super::words;

/// Backups that are told: the newest.
const BACKUPS: usize = 200;
/// Applied files that are told: the newest.
const APPLIED: usize = 1_000;

/// How the host and its database stand. What cannot be read is said in its place.
pub async fn describe(settings: &Settings, progress: &Progress) -> v1::AgentStatus {
    let mut database =
        v1::DatabaseFacts { name: settings.name.clone(), progress: progress.words(), ..Default::default() };
    if let Err(problem) = look(settings, &mut database).await {
        database.problem = Some(convert::problem_to_wire(&problem));
    }
    let facts = Some(host_facts(folder(settings)));
    v1::AgentStatus { facts, database: Some(database), ..Default::default() }
}

/// The folder whose disk matters.
fn folder(settings: &Settings) -> &Path {
    &settings.backup.dir
}

async fn look(settings: &Settings, facts: &mut v1::DatabaseFacts) -> Result<(), Problem> {
    let mut backups = backup::list(settings).await?;
    backups.reverse();
    facts.backups = backups.iter().take(BACKUPS).map(backup_facts).collect();
    let session = Session::open(settings, &settings.name, "look").await?;
    let row = session
        .client()
        .query_one("SELECT current_setting('server_version'), pg_database_size(current_database())", &[])
        .await
        .map_err(|error| refused(&error))?;
    facts.server_version = row.try_get(0).map_err(|error| refused(&error))?;
    let bytes: i64 = row.try_get(1).map_err(|error| refused(&error))?;
    facts.bytes = u64::try_from(bytes).unwrap_or(0);
    let status = migrate::status(settings).await?;
    facts.schema_version = status.schema_version.clone().unwrap_or_default();
    facts.adoptable = status.records.is_empty() && status.schema_version.is_some();
    let earlier = status.records.len().saturating_sub(APPLIED);
    facts.applied = applied(&status, earlier);
    let unverified = status.records.iter().filter(|record| record.unverified).map(words::unverified);
    facts.unfinished = status.leftovers.iter().map(words::unfinished).chain(unverified).collect();
    facts.begun = status.leftovers.iter().filter_map(migrate::Leftover::begun).map(begun).collect();
    let pending = restore::pending(settings)?;
    facts.beside = pending.iter().map(words::pending).collect();
    facts.compared = pending.as_ref().and_then(words::compared);
    facts.written_since_swap = restore::written_since_swap(settings, &session).await?;
    Ok(())
}

fn refused(error: &tokio_postgres::Error) -> Problem {
    Problem::new(pointsman_core::Code::DatabaseUnreachable, "the database did not say how it stands")
        .retry_useful()
        .because(error)
}

fn state(record: &migrate::Record) -> &'static str {
    match record {
        migrate::Record { adopted: true, .. } => "adopted",
        migrate::Record { unverified: true, .. } => "unverified",
        _ => "applied",
    }
}

fn applied(status: &Status, earlier: usize) -> Vec<v1::AppliedMigration> {
    let wire = |record: &migrate::Record| v1::AppliedMigration {
        version: record.version.to_string(),
        phase: record.phase.as_str().to_owned(),
        state: state(record).to_owned(),
        raw_hash: record.raw_hash.to_vec(),
        token_hash: record.token_hash.to_vec(),
    };
    status.records.iter().skip(earlier).map(wire).collect()
}

fn begun(begun: Begun) -> v1::BegunMigration {
    let (version, phase) = (begun.version.to_string(), begun.phase.as_str().to_owned());
    v1::BegunMigration { version, phase, stands: begun.stands }
}

fn backup_facts(backup: &Backup) -> v1::BackupFacts {
    v1::BackupFacts {
        id: backup.id.clone(),
        bytes: backup.bytes,
        taken_at_ms: backup.taken_at_ms,
        release: backup.release.clone(),
        verified: match (&backup.fault, backup.verified) {
            (Some(_), _) => "damaged".to_owned(),
            (None, verified) => verified.map(|level| level.as_str().to_owned()).unwrap_or_default(),
        },
        schema_version: backup.schema_version.clone().unwrap_or_default(),
        rows: backup.rows,
    }
}
