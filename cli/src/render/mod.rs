//! What people read: pure functions from messages to text. Golden files hold what they give.

mod audit;
mod cert;
mod checklist;
mod checks;
mod database;
mod ending;
#[cfg(test)]
mod goldens;
mod headline;
mod held;
pub mod json;
mod lasting;
mod left_out;
mod limits;
mod lines;
mod look;
mod plan;
mod ticks;
mod verdict;

pub use audit::audit;
pub use cert::{certificate, certificate_deployed, certificates};
pub use checklist::{checklist, checklist_junit, checklist_markdown};
pub use checks::checks;
pub use database::{backups, database, loss, schema_version};
pub use ending::{ending, left};
pub use lasting::{alarm, own};
pub use limits::{limits, unblocked};
pub use lines::{heartbeat, moving, update};
pub use look::{findings, history, maintenance, share_of, status, traffic};
pub use plan::plan;
pub use ticks::{tick_block, tick_json, tick_lines};

use pointsman_core::Problem;
use pointsman_proto::v1;

/// A moment, in UTC: `2026-11-23T17:45:12Z`.
pub fn time(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| "unknown".to_owned(), |moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `1 file`, `12 files`
pub fn several(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A length of time: `850 ms`, `12.3 s`, `4 m 05 s`, `2 h 10 m`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {:02} m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// The first twelve digits of a digest.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A word for an empty text.
fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

/// Whether a release leads a share of the visitors back to the slot that serves the others.
pub fn gathers(plan: &v1::Plan) -> bool {
    plan.purpose == "rollback" && plan.from_slot == plan.to_slot
}

/// An error as people see it: code, what, causes, what to do.
pub fn problem(problem: &Problem) -> String {
    let mut text = format!("error[{}]: {problem}\n", problem.code);
    for cause in &problem.causes {
        text.push_str(&format!("  cause: {cause}\n"));
    }
    text.push_str(&format!("  hint: {}\n", problem.hint));
    if !problem.hint.contains("explain") {
        text.push_str(&format!("  more: `pointsman explain {}`\n", problem.code));
    }
    text
}

/// A failure inside other text, in one line.
fn problem_line(wire: &v1::Problem) -> String {
    let host = if wire.host.is_empty() { String::new() } else { format!("{}: ", wire.host) };
    format!("[{}] {host}{}", wire.code, wire.message)
}
