//! Files of migrations as they were brought to this host.

use std::io::Read as _;

use pointsman_chassis::artifact::file_problem;
use pointsman_core::manifest::Kind;
use pointsman_core::{ArtifactDigest, Code, Problem};
use pointsman_migration::Set;

use crate::host::Site;

/// Largest file of migrations, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads the files of a complete artifact as migrations. Every byte was verified when it was brought; what has been changed
/// since shows in the hashes that the database keeps.
pub fn read(site: &Site, artifact: &ArtifactDigest) -> Result<Set, Problem> {
    if !site.is_complete(artifact)? {
        let message = format!("the migrations of artifact {} are not on this host", artifact.short());
        return Err(Problem::new(Code::ArtifactMissing, message));
    }
    let (manifest, _) = site.manifest(artifact)?;
    let mut files = Vec::new();
    for entry in manifest.entries() {
        let Kind::File { size, .. } = entry.kind else { continue };
        let mut bytes = Vec::new();
        let file = site.root().open(&format!("artifacts/{artifact}/{}", entry.path));
        let read = file.and_then(|file| file.take(size.min(MAX_BYTES)).read_to_end(&mut bytes));
        read.map_err(|error| file_problem(format!("cannot read `{}`", entry.path), &error))?;
        files.push((entry.path.clone(), bytes));
    }
    Set::read(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))).map_err(|findings| {
        let lines = findings.iter().map(ToString::to_string);
        lines.fold(Problem::new(Code::MigrationsRefused, "the migrations cannot be read"), Problem::cause)
    })
}
