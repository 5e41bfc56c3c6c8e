//! The lines of a release on its way.

use pointsman_core::Code;
use pointsman_proto::v1;

use super::{problem_line, span, time};

/// One line for an update; `None` for what is no news to people. On a terminal without the moment, which the moving
/// line shows.
pub fn update(update: &v1::ReleaseUpdate, live: bool) -> Option<String> {
    let word = match update.kind.as_str() {
        "order-done" => "✔ done",
        "order-failed" | "gates-read" if update.problem.is_some() => "✖ failed",
        "gates-unknown" if update.problem.as_ref().is_some_and(is_failure) => "✖ failed",
        "gates-unknown" => "? unknown",
        "gates-read" | "watch-passed" => "✔ done",
        "turned-back" => "✖ turning back",
        "held" => "॥ held",
        "requested" => "◌ asked",
        "epoch-taken" => "◌ going on",
        "gates-expired" => "◌ again",
        "watch-moved" => "◌ moved",
        "check-warns" => "॥ warning",
        "judged" => judged(update)?,
        // Said already by the command itself, or said better by what follows.
        _ => return None,
    };
    let release = update.release.clone().unwrap_or_default();
    let step = match (update.step.as_str(), update.kind.as_str()) {
        ("", _) => release.step.as_str(),
        (step, _) => step,
    };
    let number =
        steps_of(&release).iter().position(|known| known.step == step).map(|index| index.saturating_add(1));
    let counter =
        number.map_or_else(|| "[back]".to_owned(), |number| format!("[{number}/{}]", release.step_count));
    let host = if update.host.is_empty() { "coordinator" } else { update.host.as_str() };
    let detail = update
        .problem
        .as_ref()
        .map_or_else(|| update.detail.clone(), |problem| problem_line(&own(problem, host)));
    let took = release
        .orders
        .iter()
        .find(|order| order.step == update.step && order.host == update.host && order.state == "done")
        .map_or_else(String::new, |order| format!("  ({})", took(order.took_us)));
    let again = match failed_order(&release, update) {
        Some(order) if release.turned_back.is_none() => format!("  (attempt {})", order.attempts),
        _ => String::new(),
    };
    let line = format!("{counter:<6} {host:<12} {step:<10} {word:<10} {detail}{took}{again}");
    Some(if live { line } else { format!("{} {line}", time(update.at_ms)) })
}

fn failed_order<'a>(release: &'a v1::Release, update: &v1::ReleaseUpdate) -> Option<&'a v1::OrderView> {
    let failed =
        release.orders.iter().filter(|order| order.state == "failed" && update.kind == "order-failed");
    failed.into_iter().find(|order| order.step == update.step && order.host == update.host)
}

/// The host stands in the line already.
fn own(problem: &v1::Problem, host: &str) -> v1::Problem {
    let mut shown = problem.clone();
    if shown.host == host {
        shown.host.clear();
    }
    shown
}

fn steps_of(release: &v1::Release) -> &[v1::PlanStep] {
    release.plan.as_ref().map_or(&[], |plan| plan.steps.as_slice())
}

/// Microseconds: `0.4 ms`, `120 ms`, `3.2 s`.
pub fn took(us: u64) -> String {
    if us < 10_000 { format!("{}.{} ms", us / 1_000, us % 1_000 / 100) } else { span(us / 1_000) }
}

/// What the moving line says.
pub fn moving(update: &v1::ReleaseUpdate) -> String {
    if update.kind == "progress" {
        return format!("{} {}: {}", update.step, update.host, update.detail);
    }
    let release = update.release.clone().unwrap_or_default();
    where_it_stands(&release)
}

/// Whether it was seen to fail: a check that holds the release does, and nobody is blind.
fn is_failure(problem: &v1::Problem) -> bool {
    problem.code == Code::CheckHolds.as_str()
}

/// Whether a watch does not go on because a check holds it, and not because nobody sees how its visitors fare.
pub fn holds(blind: &v1::Blind) -> bool {
    blind.why.as_ref().is_some_and(is_failure)
}

/// A watch that nobody can see in: since when, why, and when it will be held.
pub fn blind(blind: &v1::Blind) -> String {
    let why = blind.why.clone().unwrap_or_default();
    // Of visitors who are out of sight the source is the cause.
    let from = why.causes.first().map_or_else(String::new, |cause| format!(" ({cause})"));
    let then = match blind.held_at_ms {
        0 => String::new(),
        at => format!("; held at {} if it stays so", time(at)),
    };
    format!("since {}: {}{from}{then}", time(blind.since_ms), problem_line(&why))
}

fn where_it_stands(release: &v1::Release) -> String {
    let waiting: Vec<&str> = release
        .orders
        .iter()
        .filter(|order| order.state == "running")
        .map(|order| order.host.as_str())
        .collect();
    let on = if waiting.is_empty() { String::new() } else { format!(", waiting for {}", waiting.join(", ")) };
    let counter = if release.step_number > 0 {
        format!("[{}/{}] ", release.step_number, release.step_count)
    } else {
        String::new()
    };
    let until = match &release.blind {
        Some(seen) if release.watch_until_ms > 0 => {
            format!(", {} {}", if holds(seen) { "failing" } else { "blind" }, blind(seen))
        }
        _ if release.watch_until_ms > 0 => format!(", until {}", time(release.watch_until_ms)),
        _ => String::new(),
    };
    format!("{counter}{}{on}{until}{}", release.phase, super::verdict::moving(release))
}

/// The word for a verdict; none where what follows from it says the same.
fn judged(update: &v1::ReleaseUpdate) -> Option<&'static str> {
    let verdict = update.release.as_ref()?.verdict.as_ref()?;
    match verdict.verdict.as_str() {
        "promote" => Some("✔ proven"),
        "undecided" if verdict.warns || verdict.slowed.is_some() => Some("॥ warning"),
        "undecided" => Some("◌ judged"),
        _ if verdict.shadow => Some("॥ would be"),
        _ => None,
    }
}

/// A line for a time without news.
pub fn heartbeat(release: &v1::Release) -> String {
    format!("still {}, since {}", where_it_stands(release), time(release.entered_at_ms))
}
