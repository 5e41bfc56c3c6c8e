//! Which migrations of an artifact are pending, by its files and what the database has recorded.

use std::collections::BTreeSet;
use std::io::Read as _;

use pointsman_chassis::artifact::hash_of;
use pointsman_core::manifest::Kind;
use pointsman_core::{ArtifactDigest, Code, MigrationPhase, Problem};
use pointsman_migration::{Begun, Finding, Gate, Phase, Recorded, Set, Version};
use pointsman_proto::v1;

use crate::artifact_store::ArtifactStore;
use crate::planner::Files;

/// Largest folder of migrations, in bytes: the text of a thousand long files.
const MAX_BYTES: u64 = 64 << 20;
/// Findings that are told at once. Who has more begins with these.
const MAX_FINDINGS: usize = 7;

/// The versions that are to be applied, or were and have not passed their verify file, in order. Files that cannot be released are refused, with all that is wrong.
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
    let set = set_of(store, files).await?;
    still_to_apply(&set, phase, facts, &files.out_of_order)
}

/// Refuses to take a version back that is not the newest that is applied, or that has no way down.
pub async fn may_go_down(
    store: &ArtifactStore,
    files: &Files,
    version: &str,
    database: Option<&v1::DatabaseFacts>,
) -> Result<(), Problem> {
    let Some(facts) = database else { return Ok(()) };
    if let Some(problem) = facts.problem.clone().and_then(pointsman_proto::convert::problem_from_wire) {
        return Err(problem);
    }
    way_down(&set_of(store, files).await?, version, facts)
}

async fn set_of(store: &ArtifactStore, files: &Files) -> Result<Set, Problem> {
    let (store, artifact) = (store.clone(), files.artifact);
    let read = tokio::task::spawn_blocking(move || read(&store, &artifact)).await;
    read.map_err(|error| {
        Problem::new(Code::StoreUnwritable, "reading the store ended abruptly").because(&error)
    })?
}

fn way_down(set: &Set, version: &str, facts: &v1::DatabaseFacts) -> Result<(), Problem> {
    let version = parsed(version)?;
    let refuse = |message: String, hint: &str| Err(Problem::new(Code::NoWayDown, message).hint(hint));
    let recorded: Vec<Recorded> = facts.applied.iter().filter_map(recorded).collect();
    let of = |phase: Phase| recorded.iter().filter(move |record| record.phase == phase);
    if of(Phase::Contract).any(|record| record.version == version) {
        let hint = "the way back is a restore, with its loss: `pointsman db list ENV`, `pointsman db restore ENV --backup ID`";
        return refuse(format!("the contract of v{version} is applied: nothing leads back before it"), hint);
    }
    match of(Phase::Expand).max_by(|one, other| one.version.cmp(&other.version)) {
        Some(newest) if newest.version == version && !newest.adopted => {}
        Some(newest) if newest.version == version => {
            let hint = "take it back by hand, or restore a backup from before it: `pointsman db list ENV`";
            return refuse(format!("v{version} was there before pointsman"), hint);
        }
        Some(newest) => {
            let hint = "versions are taken back one by one, the newest first: `pointsman db status ENV`";
            return refuse(
                format!("v{version} is not the newest that is applied: v{} is", newest.version),
                hint,
            );
        }
        None => return refuse(format!("v{version} is not applied"), "`pointsman db status ENV`"),
    }
    if set.get(&version).is_none_or(|migration| migration.down.is_none()) {
        let hint = "write one, or leave the expanded schema: the version before works on it";
        return refuse(format!("v{version} has no down file"), hint);
    }
    Ok(())
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
        if hash_of(&bytes) != *content {
            store.must_be_whole(&[*content])?;
        }
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
        MigrationPhase::Down => Phase::Down,
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
    let begun: Vec<Begun> = facts.begun.iter().filter_map(begun).collect();
    let pending = pointsman_migration::pending(set, phase, &recorded, &begun, &named)
        .map_err(|findings| refused(&findings))?;
    // As the agent judges them, before anything is copied, backed up or restored for them.
    let Gate { mut breaking, dangerous } =
        Gate::of(pending.scripts.iter().filter_map(|migration| migration.script(phase)));
    breaking.extend(dangerous);
    if !breaking.is_empty() {
        return Err(refused(&breaking));
    }
    let stands = |version: &Version| {
        facts.applied.iter().filter(|applied| applied.state == "unverified").any(|applied| {
            Phase::parse(&applied.phase) == Some(phase)
                && Version::parse(&applied.version).is_ok_and(|applied| applied == *version)
        })
    };
    let looked_at = set.migrations().iter().filter(|m| m.verify.is_some() && stands(&m.version));
    let versions: BTreeSet<&Version> =
        pending.scripts.iter().copied().chain(looked_at).map(|migration| &migration.version).collect();
    Ok(versions.into_iter().map(Version::to_string).collect())
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

/// What the database has begun and not ended.
fn begun(begun: &v1::BegunMigration) -> Option<Begun> {
    let (version, phase) = (Version::parse(&begun.version).ok()?, Phase::parse(&begun.phase)?);
    Some(Begun { version, phase, stands: begun.stands.clone() })
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
    fn what_would_stall_visitors_is_refused_when_the_release_is_planned() {
        let files =
            [("v1.0.0.sql", "CREATE INDEX i ON old (a);"), ("v1.1.0.sql", "ALTER TABLE old DROP COLUMN b;")];
        let refused = still_to_apply(&set(&files), MigrationPhase::Expand, &facts(&[]), &[]).unwrap_err();
        let told = format!("{refused:?}");
        assert!(told.contains("v1.0.0.sql:1:1") && told.contains("v1.1.0.sql:1:17"), "{told}");
    }

    #[test]
    fn what_is_not_recorded_is_pending_in_the_order_of_versions() {
        let pending = |facts, phase| still_to_apply(&set(&THREE), phase, &facts, &[]);
        assert_eq!(pending(facts(&[]), MigrationPhase::Expand).unwrap(), ["1.9.0", "1.10.0"]);
        assert_eq!(pending(facts(&["1.9.0"]), MigrationPhase::Expand).unwrap(), ["1.10.0"]);
        assert!(pending(facts(&["1.9.0", "1.10.0"]), MigrationPhase::Expand).unwrap().is_empty());
        assert_eq!(pending(facts(&[]), MigrationPhase::Contract).unwrap(), ["1.10.0"]);
    }

    #[test]
    fn what_stands_and_was_not_verified_is_looked_at_again_by_the_next_release() {
        let mut stands = facts(&["1.9.0", "1.10.0"]);
        stands.applied[0].state = "unverified".to_owned();
        let looks = [&THREE[..], &[("v1.9.0.verify.sql", "SELECT true;")]].concat();
        let pending =
            |files: &[(&str, &str)], phase| still_to_apply(&set(files), phase, &stands, &[]).unwrap();
        assert_eq!(pending(&looks, MigrationPhase::Expand), ["1.9.0"]);
        // Who takes the verify file away wants no look.
        assert!(pending(&THREE, MigrationPhase::Expand).is_empty());
        assert_eq!(pending(&looks, MigrationPhase::Contract), ["1.10.0"]);
    }

    #[test]
    fn a_table_from_before_says_what_is_applied() {
        let from_before =
            v1::DatabaseFacts { adoptable: true, schema_version: "1.9.0".to_owned(), ..facts(&[]) };
        let pending = still_to_apply(&set(&THREE), MigrationPhase::Expand, &from_before, &[]).unwrap();
        assert_eq!(pending, ["1.10.0"]);
    }

    #[test]
    fn a_begun_file_that_is_gone_stops_the_release_before_anything_is_backed_up() {
        let mut half = facts(&["1.9.0"]);
        let (version, phase) = ("1.9.5".to_owned(), "expand".to_owned());
        half.begun = vec![v1::BegunMigration { version, phase, stands: "1 statement stands".to_owned() }];
        let problem = still_to_apply(&set(&THREE), MigrationPhase::Expand, &half, &[]).unwrap_err();
        assert_eq!(problem.code, Code::MigrationsRefused);
        assert!(problem.message.starts_with("v1.9.5.expand.sql:1:1: the expand file"), "{problem:?}");
        let there = [&THREE[..], &[("v1.9.5.sql", "CREATE TABLE d (id int);")]].concat();
        let pending = still_to_apply(&set(&there), MigrationPhase::Expand, &half, &[]).unwrap();
        assert_eq!(pending, ["1.9.5", "1.10.0"]);
    }

    #[test]
    fn what_would_break_the_version_that_serves_is_refused_with_its_place() {
        let breaks = set(&[("v1.0.0.sql", "CREATE TABLE z (id int);\nALTER TABLE a DROP COLUMN b;\n")]);
        let problem = still_to_apply(&breaks, MigrationPhase::Expand, &facts(&[]), &[]).unwrap_err();
        assert_eq!(problem.code, Code::MigrationsRefused);
        assert!(problem.message.starts_with("v1.0.0.sql:2:"), "{problem:?}");
    }

    #[test]
    fn only_the_newest_version_with_a_down_file_is_taken_back() {
        let applied = |versions: &[(&str, &str, &str)]| {
            let applied = versions.iter().map(|(version, phase, state)| v1::AppliedMigration {
                version: (*version).to_owned(),
                phase: (*phase).to_owned(),
                state: (*state).to_owned(),
                ..Default::default()
            });
            v1::DatabaseFacts { applied: applied.collect(), ..Default::default() }
        };
        let down = set(&[
            ("v1.9.0.sql", "CREATE TABLE a (id int);"),
            ("v1.9.0.down.sql", "DROP TABLE a;"),
            ("v1.10.0.sql", "CREATE TABLE b (id int);"),
            ("v1.10.0.down.sql", "DROP TABLE b;"),
            ("v1.11.0.sql", "CREATE TABLE c (id int);"),
        ]);
        let both = applied(&[("1.9.0", "expand", "applied"), ("1.10.0", "expand", "applied")]);
        assert!(way_down(&down, "1.10.0", &both).is_ok());
        for (version, facts, says) in [
            ("1.9.0", both.clone(), "v1.9.0 is not the newest that is applied: v1.10.0 is"),
            ("1.10.0", applied(&[("1.10.0", "expand", "adopted")]), "before pointsman"),
            ("1.11.0", applied(&[("1.11.0", "expand", "applied")]), "no down file"),
            ("1.10.0", applied(&[]), "is not applied"),
            (
                "1.10.0",
                applied(&[("1.10.0", "expand", "applied"), ("1.10.0", "contract", "applied")]),
                "contract of v1.10.0",
            ),
        ] {
            let problem = way_down(&down, version, &facts).unwrap_err();
            assert_eq!(problem.code, Code::NoWayDown);
            assert!(problem.message.contains(says), "{problem:?}");
        }
    }
}
