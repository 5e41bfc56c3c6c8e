//! Looking at the host without changing anything: for the preflight, and for `status`.

use pointsman_chassis::artifact::file_problem;
use pointsman_chassis::host_facts;
use pointsman_core::{ArtifactDigest, Code, Evidence, Problem};
use pointsman_proto::{convert, v1};

use super::{Site, flag};

/// Room that small files and links may need at least, in inodes.
const MIN_INODES: u64 = 1_000;

/// Says whether the host is fit to take an artifact. How much room it needs exactly is known when it is offered.
pub fn inspect(site: &Site, artifact: &ArtifactDigest, floor_bytes: u64) -> Result<Evidence, Problem> {
    site.link("current")?;
    site.link("previous")?;
    let facts = host_facts(site.path());
    let full =
        facts.disk_free_bytes < floor_bytes || (facts.inodes_total > 0 && facts.inodes_free < MIN_INODES);
    // What is here already needs no room.
    if full && !site.is_complete(artifact)? {
        let message = format!(
            "{} bytes and {} inodes are free on `{}`",
            facts.disk_free_bytes,
            facts.inodes_free,
            site.path().display()
        );
        return Err(Problem::new(Code::NoRoom, message).hint("make room on this host: `df -h` and `df -i`"));
    }
    // The one write of a preflight, of nothing: a read-only mount must show before anything is sent.
    let probe = ".pointsman/.writable";
    let writable = site.root().folder(".pointsman").and_then(|folder| {
        folder.remove(".writable")?;
        folder.create(".writable", 0o600)?;
        folder.remove(".writable")
    });
    writable.map_err(|error| file_problem(format!("cannot write `{probe}` in the site root"), &error))?;
    let room_gb = facts.disk_free_bytes / 1_000_000_000;
    Ok(Evidence { already: true, detail: format!("writable, {room_gb} GB free"), ..Evidence::default() })
}

/// How the host stands.
pub fn describe(site: &Site) -> v1::AgentStatus {
    let facts = Some(host_facts(site.path()));
    let text = |link: Option<ArtifactDigest>| link.map(|digest| digest.to_string()).unwrap_or_default();
    let found = || -> Result<v1::WebFacts, Problem> {
        Ok(v1::WebFacts {
            current: text(site.link("current")?),
            // No rollback depends on it; a preflight refuses what it should not be.
            previous: text(site.link("previous").unwrap_or_default()),
            artifacts: site.artifacts().iter().map(ToString::to_string).collect(),
            maintenance_file: flag::is_there(site)
                .map_err(|error| file_problem("cannot look for the maintenance file", &error))?,
        })
    };
    match found() {
        Ok(web) => v1::AgentStatus { facts, web: Some(web), ..Default::default() },
        Err(problem) => {
            v1::AgentStatus { facts, problem: Some(convert::problem_to_wire(&problem)), ..Default::default() }
        }
    }
}
