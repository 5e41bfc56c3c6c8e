//! The sites of the simulated world: environment files as an operator would write them, small enough that a history of
//! a minute shows everything.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use pointsman_coordinator::Environment;
use pointsman_core::ArtifactDigest;

use crate::scenario::{Quality, Scenario, Verdicts};

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
    use crate::scenario::Wish;
    let number = (0..scenario.wishes.len()).find(|number| version(*number) == artifact);
    match number.and_then(|number| scenario.wishes.get(number)) {
        Some(Wish::Deploy(quality)) => *quality,
        _ => Quality::Good,
    }
}

fn text(balancers: u64, hosts: u64, splits: u64, automatic: bool, verdict: Verdicts) -> String {
    let names = |prefix: &str, count: u64| -> Vec<String> {
        (1..=count).map(|number| format!("{prefix}{number}")).collect()
    };
    let list = |names: &[String]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        quoted.join(", ")
    };
    let (lbs, blue, green) = (names("lb", balancers), names("blue", hosts), names("green", hosts));
    let all: Vec<String> = [&lbs, &blue, &green].into_iter().flatten().cloned().collect();
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
        agents = agents.join(", "),
        lbs = list(&lbs),
        blue = list(&blue),
        green = list(&green),
        flags = list(&blue),
    )
}

/// The environment of a scenario. There are few, and each is read once.
pub fn environment(scenario: &Scenario) -> anyhow::Result<Arc<Environment>> {
    static READ: [OnceLock<Arc<Environment>>; 96] = [const { OnceLock::new() }; 96];
    let (balancers, hosts) = (scenario.balancers.clamp(1, 2), scenario.hosts.clamp(1, 2));
    let splits = scenario.splits.min(2);
    let index = splits * 8 + (balancers - 1) * 4 + (hosts - 1) * 2 + u64::from(scenario.automatic);
    let index = index * 4 + scenario.verdict as u64;
    let place = usize::try_from(index).ok().and_then(|index| READ.get(index));
    if let Some(known) = place.and_then(OnceLock::get) {
        return Ok(Arc::clone(known));
    }
    let text = text(balancers, hosts, splits, scenario.automatic, scenario.verdict);
    let read = Environment::parse(Path::new("production.toml"), &text)
        .map_err(|problem| anyhow::anyhow!("{problem}: {:?}", problem.causes))?;
    let read = Arc::new(read);
    if let Some(place) = place {
        let _ = place.set(Arc::clone(&read));
    }
    Ok(read)
}
