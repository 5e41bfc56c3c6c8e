//! Which migrations of an artifact are pending, by its files and what the database has recorded.

use pointsman_core::{Code, MigrationPhase, Problem};
use pointsman_proto::v1;

use crate::artifact_store::ArtifactStore;
use crate::planner::Files;

/// The versions that are to be applied, in order. Files that cannot be released are refused, with all that is wrong.
pub async fn pending(
    store: &ArtifactStore,
    files: &Files,
    phase: MigrationPhase,
    database: Option<&v1::DatabaseFacts>,
) -> Result<Vec<String>, Problem> {
    let _ = (store, files, phase, database);
    Err(Problem::new(Code::MigrationsRefused, "not yet"))
}
