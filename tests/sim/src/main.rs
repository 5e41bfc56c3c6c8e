//! `pointsman-sim`: histories of releases by the hundred thousand, every crash at every point, and pointsman without each
//! of its guards.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use pointsman_sim::guard::Guard;
use pointsman_sim::history::{Options, Report, run};
use pointsman_sim::scenario::Scenario;
use pointsman_sim::{crash_points, mutants, seeds, shorten};
use serde_json::{Map, Value, json};

/// Simulates releases of pointsman: the real state machine, driver and planner in a world where everything fails.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many histories.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Tell the history of this one seed, event by event.
    #[arg(long)]
    seed: Option<u64>,
    /// Try every single crash at every point of the calm scenarios instead.
    #[arg(long)]
    crash_points: bool,
    /// And so many pairs of crashes, drawn by chance.
    #[arg(long, default_value_t = 0, requires = "crash_points")]
    pairs: u64,
    /// Switch every guard off, one by one, and see each of them missed within so many seeds.
    #[arg(long)]
    mutants: bool,
    /// Switch this guard off, as `--mutants` names it: what comes of it is to be seen.
    #[arg(long, value_parser = guard)]
    without: Option<Guard>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Seeds within which every mutant is caught.
const MUTANT_SEEDS: u64 = 10_000;

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

/// For people, whatever standard output is for.
fn say_aside(line: &str) {
    eprintln!("{line}");
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (text, found) = if let Some(seed) = arguments.seed {
        return one(seed, arguments.without);
    } else if arguments.crash_points {
        crashes(arguments.pairs)?
    } else if arguments.mutants {
        hunt()?
    } else {
        histories(&arguments)?
    };
    if arguments.output == Output::Json {
        say(&text.to_string());
    } else {
        say(&serde_json::to_string_pretty(&text)?);
    }
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn guard(name: &str) -> Result<Guard, String> {
    Guard::named(name).ok_or_else(|| format!("there is no guard `{name}`"))
}

fn one(seed: u64, off: Option<Guard>) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::of(seed);
    let report = run(scenario.clone(), Options { off, trace: true, ..Options::default() })?;
    tell(say, &scenario, &report);
    Ok(if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A history for people.
fn tell(say: fn(&str), scenario: &Scenario, report: &Report) {
    say(&format!("{scenario:#?}"));
    report.trace.iter().for_each(|line| say(line));
    say(&format!("ended {:?}, helped {} times, {:?}", report.outcomes, report.helped, report.violation));
}

fn histories(arguments: &Arguments) -> anyhow::Result<(Value, bool)> {
    let options = Options { off: arguments.without, ..Options::default() };
    let tally = seeds::walk(arguments.first, arguments.seeds, options)?;
    if let Some((seed, violation)) = tally.failed.first() {
        let (scenario, report) = shorten::shorten(Scenario::of(*seed), options, violation.rule)?;
        say_aside(&format!("seed {seed} breaks {}; shortened, this happens:", violation.rule));
        tell(say_aside, &scenario, &report);
    }
    let coverage: Map<String, Value> = tally
        .coverage
        .iter()
        .map(|((phase, event), times)| (format!("{phase}/{event}"), json!(times)))
        .collect();
    let failed: Vec<Value> = tally
        .failed
        .iter()
        .map(|(seed, violation)| json!({ "seed": seed, "rule": violation.rule, "what": violation.what }))
        .collect();
    let per_cpu_second = if tally.cpu_s > 0.0 { tally.seeds as f64 / tally.cpu_s } else { 0.0 };
    let found = json!({
        "seeds": tally.seeds,
        "events": tally.events,
        "violations": tally.violations,
        "seeds_per_cpu_second": per_cpu_second.round(),
        "outcomes": tally.outcomes,
        "failed": failed,
        "coverage": coverage,
    });
    Ok((found, tally.violations > 0))
}

fn crashes(pairs: u64) -> anyhow::Result<(Value, bool)> {
    let crashes = crash_points::try_all(pairs)?;
    if let Some((scenario, report)) = crashes.first_story()? {
        say_aside("a crash is not resolved; this happens:");
        tell(say_aside, &scenario, &report);
    }
    let unresolved: Vec<String> =
        crashes.unresolved.iter().map(|(name, at, wrong)| format!("{name}: {at:?}: {wrong}")).collect();
    let found = json!({
        "scenarios": crashes.scenarios,
        "points": crashes.points,
        "runs": crashes.runs,
        "resolved": crashes.resolved,
        "ended_otherwise": crashes.otherwise,
        "unresolved": unresolved,
    });
    Ok((found, crashes.resolved < crashes.runs))
}

fn hunt() -> anyhow::Result<(Value, bool)> {
    let caught = mutants::hunt(MUTANT_SEEDS)?;
    let killed = caught.values().flatten().count();
    let seeds: Map<String, Value> = caught
        .iter()
        .map(|(name, found)| (name.clone(), json!(found.as_ref().map(|(seeds, _)| seeds))))
        .collect();
    let rules: Map<String, Value> = caught
        .iter()
        .map(|(name, found)| (name.clone(), json!(found.as_ref().map(|(_, broken)| broken.rule))))
        .collect();
    let found =
        json!({ "mutants": caught.len(), "killed": killed, "seeds_to_kill": seeds, "rule_broken": rules });
    Ok((found, killed < caught.len()))
}
