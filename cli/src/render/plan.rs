//! A plan, before anything is done.

use pointsman_core::bytes;
use pointsman_proto::v1;

use super::{or, short, span};

/// Everything that was chosen.
pub fn plan(plan: &v1::Plan) -> String {
    let mut text = format!("plan of {} for {}, release {}\n", plan.purpose, plan.environment, plan.release);
    if !plan.artifact.is_empty() {
        text.push_str(&format!(
            "artifact  {}  {}, {}\n",
            short(&plan.artifact),
            super::several(plan.artifact_files, "file"),
            bytes(plan.artifact_bytes)
        ));
    }
    if !plan.migrations.is_empty() {
        let versions: Vec<String> = plan.migrations.iter().map(|version| format!("v{version}")).collect();
        text.push_str(&format!("migrates  {}\n", versions.join(", ")));
    }
    if plan.purpose.starts_with("db-") {
        text.push_str("visitors  stay where they are\n");
    }
    text.push_str(&format!(
        "from      {}\nto        {} ({})\n",
        or(&plan.from_slot, "nothing"),
        plan.to_slot,
        plan.to_hosts.join(", ")
    ));
    text.push_str(&format!("route     {} -> {}\n", plan.route_before, plan.route_after));
    if !plan.without.is_empty() {
        text.push_str(&format!(
            "without   {}: out of service, asked nothing, and as it stood when it comes back\n",
            plan.without.join(", ")
        ));
    }
    if plan.under_maintenance {
        text.push_str("note      the maintenance page is up and stays up\n");
    }
    for (number, step) in (1..).zip(&plan.steps) {
        let hosts =
            if step.hosts.is_empty() { String::new() } else { format!("{}: ", step.hosts.join(", ")) };
        let bound = if step.step == "watch" {
            String::new()
        } else {
            format!("; each try at most {}", span(step.attempt_ms))
        };
        text.push_str(&format!(
            "  [{number}/{}] {:<10} {hosts}{}{bound}\n",
            plan.steps.len(),
            step.step,
            step.what
        ));
    }
    if !plan.checks.is_empty() {
        text.push_str(&format!("checks    {}\n", plan.checks.join(", ")));
    }
    if let Some(announced) = super::verdict::announced(plan) {
        text.push_str(&format!("visitors  {announced}\n"));
    }
    let verdict = plan.verdict.clone().unwrap_or_default();
    if verdict.fix_forward {
        text.push_str(&format!("          {}\n", super::verdict::held_to(&verdict)));
    }
    if verdict.blip_s > 1 && verdict.mode != "off" {
        text.push_str(&format!(
            "          {0} s are judged as one: a failure of {0} s turns nothing back, and what is bad is noticed later\n",
            verdict.blip_s
        ));
    }
    let held_to_anything = !verdict.fix_forward || verdict.errors_held_to > 0.0;
    if verdict.after_ms > 0 && verdict.mode == "act" && held_to_anything {
        text.push_str(&format!(
            "          watched on for {} after the release is over: back by itself if they fare too badly\n",
            span(verdict.after_ms)
        ));
    }
    text.push_str(&format!(
        "by        {}{}\n",
        plan.created_by,
        if plan.reason.is_empty() { String::new() } else { format!(": {}", plan.reason) }
    ));
    if plan.watch_ms > 0 {
        let after = match plan.from_slot.as_str() {
            "" => "it is the first release: there is none to go back to",
            _ => "`pointsman rollback` goes back at any time after it",
        };
        text.push_str(&format!("if anything fails before the switch everything is undone; {after}\n"));
    }
    text
}
