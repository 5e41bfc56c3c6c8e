//! Which migrations of an artifact are pending, by its files and what the database has recorded.

use std::io::Read as _;

use pointsman_core::manifest::Kind;
use pointsman_core::{ArtifactDigest, Code, MigrationPhase, Problem};
use pointsman_migration::{Finding, Phase, Recorded, Set, Version, breaking};
use pointsman_proto::v1;

use crate::artifact_store::ArtifactStore;
use crate::planner::Files;

/// Largest folder of migrations, in bytes: the text of a thousand long files.
const MAX_BYTES: u64 = 64 << 20;
/// Findings that are told at once. Who has more begins with these.
const MAX_FINDINGS: usize = 7;

/// The versions that are to be applied, in order. Files that cannot be released are refused, with all that is wrong.
pub async fn pending(
    store: &ArtifactStore,
    files: &Files,
    phase: MigrationPhase,
    database: Option<&v1::DatabaseFacts>,
) -> Result<Vec<String>, Problem> {
    let Some(facts) = database else { return Ok(Vec::new()) };
    if let Some(problem) = facts.problem.clone().and_then(pointsman_proto::convert::problem_from_wire) {
        return Err(problem);
    }
    let (store, artifact) = (store.clone(), files.artifact);
    let read = tokio::task::spawn_blocking(move || read(&store, &artifact)).await;
    let set = read.map_err(|error| {
        Problem::new(Code::StoreUnwritable, "reading the store ended abruptly").because(&error)
    })??;
    still_to_apply(&set, phase, facts, &files.out_of_order)
}

/// Reads the files of an artifact as migrations.
fn read(store: &ArtifactStore, artifact: &ArtifactDigest) -> Result<Set, Problem> {
    let (manifest, _) = store.manifest(artifact)?;
    if manifest.total_bytes() > MAX_BYTES {
        let message =
            format!("the folder of migrations has {} bytes, more than {MAX_BYTES}", manifest.total_bytes());
        return Err(Problem::new(Code::MigrationsRefused, message)
            .hint("name the folder with the `.sql` files, not one above it"));
    }
    let mut files = Vec::new();
    for entry in manifest.entries() {
        let Kind::File { content, .. } = &entry.kind else { continue };
        let mut bytes = Vec::new();
        let unreadable = |error: std::io::Error| {
            Problem::new(Code::StoreUnwritable, format!("cannot read `{}` from the store", entry.path))
                .because(&error)
        };
        let mut file = store.content(content).map_err(unreadable)?;
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        files.push((entry.path.clone(), bytes));
    }
    Set::read(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))
        .map_err(|findings| refused(&findings))
}

fn still_to_apply(
    set: &Set,
    phase: MigrationPhase,
    facts: &v1::DatabaseFacts,
    out_of_order: &[String],
) -> Result<Vec<String>, Problem> {
    let phase = match phase {
        MigrationPhase::Expand => Phase::Expand,
        MigrationPhase::Contract => Phase::Contract,
    };
    let named: Vec<Version> = out_of_order.iter().map(|version| parsed(version)).collect::<Result<_, _>>()?;
    let mut recorded: Vec<Recorded> = facts.applied.iter().filter_map(recorded).collect();
    if facts.adoptable {
        let current = parsed(&facts.schema_version)?;
        let known = set.migrations().iter().filter(|migration| migration.version <= current);
        recorded.extend(known.map(|migration| Recorded {
            version: migration.version.clone(),
            phase,
            adopted: true,
            raw_hash: None,
            token_hash: None,
        }));
    }
    let pending =
        pointsman_migration::pending(set, phase, &recorded, &named).map_err(|findings| refused(&findings))?;
    let scripts = pending.scripts.iter().filter_map(|migration| migration.script(phase));
    let broken: Vec<Finding> = match phase {
        Phase::Expand => scripts.flat_map(breaking).collect(),
        _ => Vec::new(),
    };
    if !broken.is_empty() {
        return Err(refused(&broken));
    }
    Ok(pending.scripts.iter().map(|migration| migration.version.to_string()).collect())
}

/// What the database has recorded of a version. What cannot be read is not taken for applied.
fn recorded(applied: &v1::AppliedMigration) -> Option<Recorded> {
    Some(Recorded {
        version: Version::parse(&applied.version).ok()?,
        phase: Phase::parse(&applied.phase)?,
        adopted: applied.state == "adopted",
        raw_hash: applied.raw_hash.as_slice().try_into().ok(),
        token_hash: applied.token_hash.as_slice().try_into().ok(),
    })
}

fn parsed(version: &str) -> Result<Version, Problem> {
    Version::parse(version).map_err(|error| {
        Problem::new(Code::MigrationsRefused, format!("`{version}` is no version"))
            .because(&error)
            .hint("versions are semantic ones, as `1.2.0`")
    })
}

/// All that is wrong, the first of it as the message.
fn refused(findings: &[Finding]) -> Problem {
    let Some((first, rest)) = findings.split_first() else {
        return Problem::new(Code::MigrationsRefused, "the files cannot be read as migrations");
    };
    let line = |finding: &Finding| {
        format!(
            "{}:{}:{}: {} [{}]",
            finding.path, finding.line, finding.column, finding.message, finding.rule
        )
    };
    let problem = Problem::new(Code::MigrationsRefused, line(first)).hint(first.hint.clone());
    let problem =
        rest.iter().take(MAX_FINDINGS).fold(problem, |problem, finding| problem.cause(line(finding)));
    match rest.len().saturating_sub(MAX_FINDINGS) {
        0 => problem,
        more => problem.cause(format!("and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Set {
        Set::read(files.iter().map(|(path, text)| (*path, text.as_bytes()))).unwrap()
    }

    fn facts(applied: &[&str]) -> v1::DatabaseFacts {
        let applied = applied.iter().map(|version| v1::AppliedMigration {
            version: (*version).to_owned(),
            phase: "expand".to_owned(),
            state: "adopted".to_owned(),
            ..Default::default()
        });
        v1::DatabaseFacts { applied: applied.collect(), ..Default::default() }
    }

    const THREE: [(&str, &str); 3] = [
        ("v1.9.0.sql", "CREATE TABLE a (id int);"),
        ("v1.10.0.sql", "ALTER TABLE a ADD COLUMN b int;"),
        ("v1.10.0.contract.sql", "ALTER TABLE a DROP COLUMN c;"),
    ];

    #[test]
    fn what_is_not_recorded_is_pending_in_the_order_of_versions() {
        let pending = |facts, phase| still_to_apply(&set(&THREE), phase, &facts, &[]);
        assert_eq!(pending(facts(&[]), MigrationPhase::Expand).unwrap(), ["1.9.0", "1.10.0"]);
        assert_eq!(pending(facts(&["1.9.0"]), MigrationPhase::Expand).unwrap(), ["1.10.0"]);
        assert!(pending(facts(&["1.9.0", "1.10.0"]), MigrationPhase::Expand).unwrap().is_empty());
        assert_eq!(pending(facts(&[]), MigrationPhase::Contract).unwrap(), ["1.10.0"]);
    }

    #[test]
    fn a_table_from_before_says_what_is_applied() {
        let from_before =
            v1::DatabaseFacts { adoptable: true, schema_version: "1.9.0".to_owned(), ..facts(&[]) };
        let pending = still_to_apply(&set(&THREE), MigrationPhase::Expand, &from_before, &[]).unwrap();
        assert_eq!(pending, ["1.10.0"]);
    }

    #[test]
    fn what_would_break_the_version_that_serves_is_refused_with_its_place() {
        let breaks = set(&[("v1.0.0.sql", "CREATE TABLE z (id int);\nALTER TABLE a DROP COLUMN b;\n")]);
        let problem = still_to_apply(&breaks, MigrationPhase::Expand, &facts(&[]), &[]).unwrap_err();
        assert_eq!(problem.code, Code::MigrationsRefused);
        assert!(problem.message.starts_with("v1.0.0.sql:2:"), "{problem:?}");
    }
}
