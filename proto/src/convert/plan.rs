//! Plans, as people look at them.

use pointsman_core::{Action, DatabaseWork, MigrationPhase, Plan, Purpose, Step, SwapTo};

use crate::v1;

/// A plan for the wire. `size` is the artifact's file count and bytes, where they are known.
pub fn plan_to_wire(plan: &Plan, size: Option<(u64, u64)>) -> v1::Plan {
    let (artifact_files, artifact_bytes) = size.unwrap_or_default();
    let last = plan.steps().iter().rev().find_map(|step| plan.route(*step));
    let to_release = match &plan.purpose {
        Purpose::Rollback { to: Some(to), .. } => to.to_string(),
        _ => String::new(),
    };
    v1::Plan {
        environment: plan.environment.to_string(),
        release: plan.release.to_string(),
        purpose: purpose_word(&plan.purpose).to_owned(),
        artifact: plan.artifact().map(|artifact| artifact.to_string()).unwrap_or_default(),
        artifact_files,
        artifact_bytes,
        from_slot: plan.from.as_ref().map(|slot| slot.name.to_string()).unwrap_or_default(),
        to_slot: plan.to.name.to_string(),
        to_hosts: plan.to.hosts.iter().map(ToString::to_string).collect(),
        balancers: plan.balancers.iter().map(ToString::to_string).collect(),
        without: plan.without.iter().map(ToString::to_string).collect(),
        route_before: plan.route_before.to_string(),
        route_after: last.as_ref().unwrap_or(&plan.route_before).to_string(),
        steps: plan.steps().iter().map(|step| step_to_wire(plan, *step)).collect(),
        checks: plan.checks.iter().map(|check| check.name.to_string()).collect(),
        watch_ms: plan.watch_ms(Step::Switch).unwrap_or_default(),
        under_maintenance: plan.under_maintenance,
        created_by: plan.created_by.clone(),
        reason: plan.reason.clone().unwrap_or_default(),
        created_at_ms: plan.created_at.0,
        to_release,
        splits: plan
            .splits
            .iter()
            .map(|split| v1::PlanSplit { percent: u32::from(split.percent), hold_ms: split.hold_ms })
            .collect(),
        migrations: plan
            .database
            .as_ref()
            .and_then(|database| database.migrations.as_ref())
            .map(|migrations| migrations.versions.clone())
            .unwrap_or_default(),
        verdict: super::verdict_plan_to_wire(plan),
        ill: plan.ill().unwrap_or_default().to_owned(),
    }
}

/// The purpose as one word.
fn purpose_word(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Deploy { .. } => "deploy",
        Purpose::Rollback { .. } => "rollback",
        Purpose::Maintenance { on: true, .. } => "maintenance-on",
        Purpose::Maintenance { on: false, .. } => "maintenance-off",
        Purpose::Database(DatabaseWork::Backup) => "db-backup",
        Purpose::Database(DatabaseWork::Verify { .. }) => "db-verify",
        Purpose::Database(DatabaseWork::Contract) => "db-contract",
        Purpose::Database(DatabaseWork::Down { .. }) => "db-down",
        Purpose::Database(DatabaseWork::Restore { .. }) => "db-restore",
        Purpose::Database(DatabaseWork::Swap { .. }) => "db-swap",
        Purpose::Database(DatabaseWork::SwapBack { .. }) => "db-swap-back",
        Purpose::Database(DatabaseWork::Settle { .. }) => "db-settle",
    }
}

fn versions(versions: &[String]) -> String {
    let named: Vec<String> = versions.iter().map(|version| format!("v{version}")).collect();
    named.join(", ")
}

fn step_to_wire(plan: &Plan, step: Step) -> v1::PlanStep {
    let hosts = plan.targets(step);
    let what = match (step, hosts.first().and_then(|host| plan.action(step, host))) {
        (Step::Preflight, Some(Action::InspectDatabase { .. })) => {
            "database reachable, tools and room there; changes nothing".to_owned()
        }
        (Step::Preflight, _) => {
            "agents reachable, load balancers fit, room on the hosts; changes nothing".to_owned()
        }
        (_, Some(Action::BackUp { verify })) => {
            format!("a backup of the database, checked by `{}`", verify.as_str())
        }
        (_, Some(Action::VerifyBackup { backup, verify })) => {
            format!("backup `{backup}`, checked by `{}`", verify.as_str())
        }
        (_, Some(Action::Rehearse { migrations })) => {
            format!("{} on a copy restored from the backup", versions(&migrations.versions))
        }
        (_, Some(Action::Migrate { migrations })) => {
            let (stall, budget) = (migrations.max_stall_ms, migrations.lock_budget_ms / 1000);
            let which = match migrations.phase {
                MigrationPhase::Expand => "the version that serves goes on as it is",
                MigrationPhase::Contract => "the version before cannot come back",
                MigrationPhase::Down => "taken back, and what came in by it is lost",
            };
            let applied = versions(&migrations.versions);
            format!(
                "{applied}: {which}; no request waits longer than {stall} ms, locks are tried for {budget} s"
            )
        }
        (_, Some(Action::Restore { backup, accept_loss: None })) => {
            format!("backup `{backup}` into a database of its own, compared with its manifest")
        }
        (_, Some(Action::Restore { backup, accept_loss: Some(rows) })) => {
            format!("backup `{backup}` beside; it ends here where more than {rows} rows would be lost")
        }
        (_, Some(Action::SwapDatabase { backup, to: SwapTo::Restored { accept_loss } })) => {
            format!(
                "the database from `{backup}` becomes the live one; at most {accept_loss} rows are given up"
            )
        }
        (_, Some(Action::SwapDatabase { to: SwapTo::Before { accept_loss }, .. })) => format!(
            "the database that was live before becomes the live one; at most {accept_loss} rows are given up"
        ),
        (_, Some(Action::SettleRestore { .. })) => {
            "the database that is not live is dropped: nothing leads back to it".to_owned()
        }
        (Step::Watch, _) => {
            let seconds = plan.watch_ms(Step::Switch).unwrap_or_default() / 1000;
            let fails = plan.watch.fail_after;
            let then = if plan.automatic_rollback { "roll back" } else { "hold for a person" };
            format!("the checks again and again for {seconds} s; {fails} failed readings in a row {then}")
        }
        (Step::Check, _) => format!(
            "{} checks, on the hosts and through the load balancers",
            plan.checks.iter().filter(|c| c.before_switch).count()
        ),
        (_, Some(Action::Stage { artifact })) => {
            let migrations = plan.database.as_ref().and_then(|database| database.migrations.as_ref());
            match (plan.artifact(), migrations) {
                (None, _) => format!("migrations {}, every byte verified", artifact.short()),
                (Some(site), None) => {
                    format!("artifact {} beside what runs, every byte verified", site.short())
                }
                (Some(site), Some(migrations)) => format!(
                    "artifact {} beside what runs, migrations {} on the database's host, every byte verified",
                    site.short(),
                    migrations.artifact.short()
                ),
            }
        }
        (_, Some(Action::Activate { activation, .. })) => {
            format!(
                "`current` to the new artifact; {} units, {} hooks",
                activation.restart.len(),
                activation.hooks.len()
            )
        }
        (_, Some(Action::Drain { backend, timeout_ms, .. })) => {
            format!("until `{backend}` serves nobody, at most {} s", timeout_ms / 1000)
        }
        (Step::Canary(_), Some(Action::SetRoute { wanted, .. })) => {
            let seconds = plan.watch_ms(step).unwrap_or_default() / 1000;
            format!("{} % of the visitors: route `{wanted}`, watched for {seconds} s", wanted.percent)
        }
        (_, Some(Action::SetRoute { wanted, .. })) => format!("route `{wanted}`, read back on every worker"),
        (_, Some(Action::SetFlag { on })) => {
            format!("maintenance file {}", if on { "there" } else { "gone" })
        }
        _ => String::new(),
    };
    v1::PlanStep {
        step: step.to_string(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        what,
        attempt_ms: match step {
            Step::Watch => plan.watch_ms(Step::Switch).unwrap_or_default(),
            step => plan.attempt_ms(step),
        },
    }
}
