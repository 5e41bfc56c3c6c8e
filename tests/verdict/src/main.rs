//! `pointsman-verdict`: the watch of pointsman over simulated traffic, beside the rules of other tools on the same
//! traffic. Prints figures; asserts that no good release is rolled back. It opens no socket and reads no file.

mod bound;
mod chance;
mod cost;
mod figures;
mod ours;
mod peers;
mod requests;
mod rule;
mod studies;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

use figures::rounded;
use studies::{Detection, Size};
use traffic::Load;

/// Simulates watches of good and bad releases, and says what pointsman and the rules of other tools make of them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many good releases; times to notice come from a fifth of that, the other scenarios have a fiftieth each, at least 40.
    #[arg(long, default_value_t = 10_000)]
    releases: u64,
    /// The seed: the same seed is the same traffic, on every machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: many lines.
    Text,
    /// One line.
    Json,
}

/// What the figures mean, for whoever finds them without this program.
const METHOD: &str = "simulated traffic: requests come by themselves at a mean rate (Poisson), one tick a second, judged with the \
    default parameters and the dispersion measured on the old slot in 300 s before (900 s for promotions). good_releases: both \
    slots fail and are slow at the same 0.1, 0.5 or 0.9 %, at 1, 10, 100 and 1000 requests/s, 10 and 50 % on the new slot, \
    singly or in bunches of 10 and 50 within a second, watched for 30 minutes. pages_and_polls: both slots alike, pages of 40 requests that \
    are all well and lone requests that fail, so that the share of all requests is under the limit. Detection: the new slot fails from the start, \
    the old one 0.1 %, 100 requests/s, half of them on the new slot; null is: not within two hours. bad_requests: served by \
    the new slot until the rollback. bound_ratio: median over what no test can beat (Wald), at 10 requests/s and 50 %. \
    Peers are rebuilt from their sources and documents, see the same traffic, and have ideal scrapes each 15 s. \
    tick_us: one tick judged and its state made ready to be written, of one environment. thousand_environments_cpu: the share of one \
    processor that a thousand take, each second of two load balancers read and added up, judged, told and written durably. live_reaction_ms is not measured here: it needs a \
    load balancer, and `scripts/bench.sh verdict` adds it.";

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let others = arguments.releases.div_euclid(50).max(40);
    let size = Size { releases: arguments.releases, others, seed: arguments.seed };
    let good = studies::good_releases(&size);
    // Of two hundred watches a median is a second or two off.
    let more = Size { others: others.saturating_mul(10), ..size };
    let usual = studies::detection(&more, 500, Load { per_second: 100.0, split: 0.5 }, true);
    let fewer = studies::detection(&size, 550, Load { per_second: 10.0, split: 0.5 }, false);
    let (promoted, promoted_falsely) = studies::promotion(&size);
    let (median, p95, bad) = usual.told(0);
    let cost = cost::of_a_tick(arguments.seed)?;
    let found = json!({
        "kind": "verdict-benchmark",
        "seed": arguments.seed,
        "good_releases": good.releases,
        "false_rollbacks": good.false_rollbacks,
        "detect_median_s": median,
        "detect_p95_s": p95,
        "bad_requests_median": bad,
        "peers": peers_told(&usual, &good.by_rule),
        "bound_ratio": fewer.bound_ratio(),
        "tick_us": rounded(cost.judged_us),
        "tick_told_us": rounded(cost.told_us),
        "thousand_environments_cpu": rounded(cost::of_a_thousand(arguments.seed)?),
        "live_reaction_ms": Value::Null,
        "false_rollback_percent": good.by_rule,
        "false_rollback_percent_by_request": good.by_request_percent,
        "pages_and_polls_false_rollback_percent": studies::pages_and_polls(&more),
        "detect_elsewhere": studies::detection_elsewhere(&size),
        "late_failure_s": studies::late_failure(&size),
        "shared_incident_rollback_percent": studies::shared_incident(&size),
        "slow_new_slot_by_p99_s": studies::slowness(&size),
        "promote_s": promoted,
        "false_promotion_percent": promoted_falsely,
        "method": METHOD,
    });
    if arguments.output == Output::Json {
        say(&found.to_string());
    } else {
        say(&serde_json::to_string_pretty(&found)?);
    }
    Ok(if good.false_rollbacks > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The peers by name, with the same figures as ours.
fn peers_told(detection: &Detection, false_rollbacks: &Value) -> Value {
    let mut told = Map::new();
    for (rule, name) in (1..).zip(peers::NAMES) {
        let (median, p95, bad) = detection.told(rule);
        let falsely: Map<String, Value> = false_rollbacks
            .as_object()
            .into_iter()
            .flatten()
            .map(|(bunches, by_rule)| (bunches.clone(), by_rule.get(name).cloned().unwrap_or_default()))
            .collect();
        let row = json!({
            "detect_median_s": median,
            "detect_p95_s": p95,
            "bad_requests_median": bad,
            "false_rollback_percent": falsely,
        });
        told.insert(name.to_owned(), row);
    }
    told.into()
}
