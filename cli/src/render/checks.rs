//! Checks that were made now, one a line.

use pointsman_proto::{convert, v1};

use super::{or, problem_line, span};

/// What came of every check, and who made none.
pub fn checks(made: &v1::MakeChecksReply) -> String {
    let release = or(&made.release, "a release that nobody knows");
    let mut text = format!("slot {}, which holds {release}\n", made.slot);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for check in &made.checks {
        let Some(seen) = &check.seen else { continue };
        let word = match seen.verdict.as_str() {
            "passed" => "✔ passed",
            "not-made" => "? not made",
            _ => "✖ failed",
        };
        table.add_row([
            word.to_owned(),
            check.host.clone(),
            seen.name.clone(),
            span(seen.took_ms),
            seen.what.clone(),
        ]);
    }
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    for problem in &made.silent {
        text.push_str(&format!("? unknown {}\n", problem_line(problem)));
    }
    if made.checks.is_empty() && made.silent.is_empty() {
        text.push_str("there is no check: see `[[checks]]` in the environment file\n");
    }
    let failing: Vec<&str> = made
        .checks
        .iter()
        .filter_map(|check| check.seen.as_ref())
        .filter(|seen| seen.verdict != "passed")
        .map(|seen| seen.name.as_str())
        .collect();
    if let Some(first) = failing.first() {
        text.push_str(&format!(
            "{} of {} did not pass; one alone: `--name {first}`\n",
            failing.len(),
            made.checks.len()
        ));
    }
    let hints = made.silent.iter().filter_map(|wire| convert::problem_from_wire(wire.clone()));
    for hint in hints.map(|problem| problem.hint).take(1) {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    text
}
