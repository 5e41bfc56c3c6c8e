//! The sites of the simulated world: environment files as an operator would write them, small enough that a history of
//! a minute shows everything.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use pointsman_coordinator::Environment;
use pointsman_core::ArtifactDigest;

use crate::scenario::{Files, Quality, Scenario, Verdicts, Wish};
use crate::server::Versions;

/// The backend of the maintenance page.
pub const PAGE: &str = "be_maint";

/// What was live before the first wish.
pub const FIRST: ArtifactDigest = ArtifactDigest::from_bytes([1; 32]);

/// The version that the `number`-th wish brings.
pub fn version(number: usize) -> ArtifactDigest {
    let mut bytes = [2; 32];
    if let Some(last) = bytes.last_mut() {
        *last = u8::try_from(number).unwrap_or(u8::MAX);
    }
    ArtifactDigest::from_bytes(bytes)
}

/// How good a version is, by its digest.
pub fn quality(scenario: &Scenario, artifact: ArtifactDigest) -> Quality {
    match wish_of(scenario, artifact).map(|(_, wish)| wish) {
        Some(Wish::Deploy(quality) | Wish::Migrating(quality, _)) => quality,
        _ => Quality::Good,
    }
}

/// The wish that brought an artifact, and its number.
fn wish_of(scenario: &Scenario, artifact: ArtifactDigest) -> Option<(u8, Wish)> {
    let number = (0..scenario.wishes.len()).find(|number| version(*number) == artifact)?;
    Some((u8::try_from(number).ok()?, scenario.wishes.get(number).copied()?))
}

/// The folder of migrations as it is at the `number`-th wish.
pub fn migrations(number: usize) -> ArtifactDigest {
    let mut bytes = [3; 32];
    if let Some(last) = bytes.last_mut() {
        *last = u8::try_from(number).unwrap_or(u8::MAX);
    }
    ArtifactDigest::from_bytes(bytes)
}

/// How the files of a version of migrations are.
pub fn files(scenario: &Scenario, version: u8) -> Files {
    match scenario.wishes.get(usize::from(version)) {
        Some(Wish::Migrating(_, files)) => *files,
        _ => Files::Good,
    }
}

/// The versions of migrations in the folder as it is at a wish: what it brings, and what those before it brought.
pub fn brought(scenario: &Scenario, number: u8) -> Versions {
    let mut all = Versions::default();
    for (version, wish) in (0..=number).zip(&scenario.wishes) {
        if matches!(wish, Wish::Migrating(..)) {
            all.add(version);
        }
    }
    all
}

/// What an artifact needs of the schema, and what it knows of: it survives the contract of nothing else.
pub fn schema_of(scenario: &Scenario, artifact: ArtifactDigest) -> (Versions, Versions) {
    let Some((number, wish)) = wish_of(scenario, artifact) else { return Default::default() };
    let knows = brought(scenario, number);
    let needs = if matches!(wish, Wish::Migrating(..)) { knows } else { Versions::default() };
    (needs, knows)
}

/// A version of migrations as files and orders write it.
pub fn written(version: u8) -> String {
    format!("{version}.0.0")
}

/// The version that a text names.
pub fn number(written: &str) -> Option<u8> {
    written.split('.').next()?.parse().ok()
}

fn text(scenario: &Scenario) -> String {
    let Scenario { balancers, hosts, splits, automatic, verdict, database, .. } = *scenario;
    let names = |prefix: &str, count: u64| -> Vec<String> {
        (1..=count).map(|number| format!("{prefix}{number}")).collect()
    };
    let list = |names: &[String]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        quoted.join(", ")
    };
    let (lbs, blue, green) = (names("lb", balancers), names("blue", hosts), names("green", hosts));
    let db = names("db", u64::from(database));
    let all: Vec<String> = [&lbs, &blue, &green, &db].into_iter().flatten().cloned().collect();
    let strategy = match splits {
        0 => "kind = \"blue-green\"",
        1 => "kind = \"canary\", canary = { splits = [10], hold = \"6s\" }",
        _ => "kind = \"canary\", canary = { splits = [10, 50], hold = \"6s\" }",
    };
    let agents: Vec<String> = all.iter().map(|name| format!("{name} = \"{name}:1\"")).collect();
    format!(
        r#"
        schema = 1
        environment = "production"
        url = "https://www.example.org"
        agents = {{ {agents} }}
        lb = {{ agents = [{lbs}], drain = "2s", drain_end = "cut" }}
        maintenance = {{ backend = "{PAGE}", agents = [{flags}] }}
        slots.blue = {{ backend = "be_blue", hosts = [{blue}] }}
        slots.green = {{ backend = "be_green", hosts = [{green}] }}
        {database}
        strategy = {{ {strategy} }}
        watch = {{ duration = "12s", interval = "2s", fail_after = 2, blind = "8s", {verdict} }}
        rollback = {{ automatic = {automatic} }}
        limits = {{ inspect = "1s", stage = "5s", activate = "3s", route = "2s", check = "1500ms", healthy = "2s", gate_ttl = "60s", persist = "8s" }}
        [[checks]]
        name = "local"
        phase = ["before-switch", "after-switch"]
        from = "hosts"
        timeout = "500ms"
        http = {{ path = "/health" }}
        [[checks]]
        name = "outside"
        timeout = "500ms"
        phase = ["before-switch", "after-switch"]
        http = {{ path = "/" }}
        "#,
        verdict = match verdict {
            Verdicts::Off => "verdict = \"off\"",
            Verdicts::Fixed => "verdict = \"act\"",
            Verdicts::Early => "verdict = \"act\", min_watch = \"4s\"",
            Verdicts::Decided => "verdict = \"act\", min_watch = \"4s\", max_watch = \"30s\"",
        },
        database = if database {
            r#"database = { agent = "db1", verify = "read", lock_budget = "2s", backup = "12s", migrate = "6s" }"#
        } else {
            ""
        },
        agents = agents.join(", "),
        lbs = list(&lbs),
        blue = list(&blue),
        green = list(&green),
        flags = list(&blue),
    )
}

/// The environment of a scenario. There are few, and each is read once.
pub fn environment(scenario: &Scenario) -> anyhow::Result<Arc<Environment>> {
    static READ: [OnceLock<Arc<Environment>>; 192] = [const { OnceLock::new() }; 192];
    let (balancers, hosts) = (scenario.balancers.clamp(1, 2), scenario.hosts.clamp(1, 2));
    let splits = scenario.splits.min(2);
    let index = splits * 8 + (balancers - 1) * 4 + (hosts - 1) * 2 + u64::from(scenario.automatic);
    let index = (index * 4 + scenario.verdict as u64) * 2 + u64::from(scenario.database);
    let place = usize::try_from(index).ok().and_then(|index| READ.get(index));
    if let Some(known) = place.and_then(OnceLock::get) {
        return Ok(Arc::clone(known));
    }
    let text = text(&Scenario { balancers, hosts, splits, ..scenario.clone() });
    let read = Environment::parse(Path::new("production.toml"), &text)
        .map_err(|problem| anyhow::anyhow!("{problem}: {:?}", problem.causes))?;
    let read = Arc::new(read);
    if let Some(place) = place {
        let _ = place.set(Arc::clone(&read));
    }
    Ok(read)
}
