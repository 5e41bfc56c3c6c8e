//! What is released in a run: the site, its environment file, an artifact in a real store, and the plan.

use std::fs;
use std::path::Path;

use pointsman_chassis::artifact::{Offer, digest_of, hash_of};
use pointsman_coordinator::{ArtifactStore, Environment};
use pointsman_core::manifest::{Entry, Kind, Manifest};
use pointsman_core::{ArtifactDigest, EnvironmentName, Epoch, Limits, Plan, Purpose, VerdictPlan, WatchPlan};

use crate::chance::Chance;
use crate::plans::{self, Site};

/// The environment.
pub const ENVIRONMENT: &str = "production";
/// The coordinator's host.
pub const CENTRE: &str = "centre";
/// Every host with an agent.
pub const HOSTS: [&str; 6] = ["lb1", "lb2", "blue1", "blue2", "green1", "green2"];

const FILE: &str = r#"
    schema = 1
    environment = "production"
    url = "https://www.example.org"
    lb = { agents = ["lb1", "lb2"] }
    maintenance = { backend = "be_maintenance", agents = ["blue1", "blue2"] }
    [agents]
    lb1 = "lb1:7443"
    lb2 = "lb2:7443"
    blue1 = "blue1:7443"
    blue2 = "blue2:7443"
    green1 = "green1:7443"
    green2 = "green2:7443"
    [slots]
    blue = { backend = "be_blue", hosts = ["blue1", "blue2"] }
    green = { backend = "be_green", hosts = ["green1", "green2"] }
"#;

/// What an agent's certificate says it is.
pub fn role_of(host: &str) -> &'static str {
    if host.starts_with("lb") { "lb-agent" } else { "web-agent" }
}

/// The environment as its file has it.
pub fn environment() -> Environment {
    Environment::parse(Path::new("production.toml"), FILE).unwrap()
}

/// Its name.
pub fn environment_name() -> EnvironmentName {
    EnvironmentName::parse(ENVIRONMENT).unwrap()
}

/// A store with one small artifact in it.
pub fn stored_artifact(folder: &Path) -> (ArtifactStore, ArtifactDigest) {
    let texts: [&[u8]; 3] = [b"<div id=app>", b"body {}", b""];
    let store = ArtifactStore::open(folder.to_owned()).unwrap();
    let entries = (0..).zip(texts).map(|(number, text): (u32, _)| {
        let content = hash_of(text);
        let name = content.to_string();
        let (fan, rest) = name.split_at(2);
        fs::create_dir_all(folder.join("objects").join(fan)).unwrap();
        fs::write(folder.join("objects").join(fan).join(rest), text).unwrap();
        let size = u64::try_from(text.len()).unwrap();
        Entry { path: format!("file-{number}"), kind: Kind::File { size, content, executable: false } }
    });
    let manifest = Manifest::new(entries.collect()).unwrap();
    let manifest_bytes = manifest.encode();
    let artifact = digest_of(&manifest_bytes);
    let (environment, mtimes) = (environment_name(), Vec::new());
    let offer = Offer { environment, epoch: Epoch(0), artifact, manifest, manifest_bytes, mtimes };
    assert!(store.offer(&offer).unwrap().complete, "the store does not find contents where they were put");
    (store, artifact)
}

/// A plan that follows from chance: mostly deploys. Bounds are short, so that faults of seconds reach them.
pub fn plan(chance: &mut Chance, artifact: ArtifactDigest) -> Plan {
    let purpose = match chance.between(1, 100) {
        1..=70 => plans::deploy(),
        71..=80 => plans::rollback(),
        81..=90 => plans::maintenance(true),
        _ => plans::maintenance(false),
    };
    let planned = plans::plan(purpose, Site::of(2, 2));
    let purpose = match planned.purpose {
        Purpose::Deploy { .. } => Purpose::Deploy { artifact },
        other => other,
    };
    Plan {
        purpose,
        splits: Vec::new(),
        watch: WatchPlan { duration_ms: 2_000, interval_ms: 400, fail_after: 3, blind_ms: 3_000 },
        verdict: VerdictPlan::default(),
        limits: Limits {
            inspect_ms: 2_000,
            stage_ms: 4_000,
            activate_ms: 4_000,
            route_ms: 3_000,
            check_ms: 2_000,
            drain_ms: 500,
            attempts: 3,
            persist_ms: 8_000,
            ..planned.limits
        },
        ..planned
    }
}
