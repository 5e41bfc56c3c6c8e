//! The last words of a command that waited.

use pointsman_core::{Code, EnvironmentName};
use pointsman_proto::v1;

use super::{or, span};
use crate::exit::Exit;

/// How a release ended, what is true now, and what to type next.
pub fn ending(release: &v1::Release) -> String {
    let plan = release.plan.clone().unwrap_or_default();
    let took = span(release.entered_at_ms.saturating_sub(release.started_at_ms));
    let gone = super::left_out::ended(release);
    if release.held.is_some() {
        return held(release, &plan, &took);
    }
    match (release.outcome.as_str(), plan.purpose.as_str()) {
        ("confirmed", _) => format!(
            "done in {took}{}: {}{}{}{}{}{}",
            done_but(release),
            confirmed(&plan, release),
            together(release),
            left_out(&plan),
            super::verdict::met(release),
            warnings(release),
            watched_on(release, &plan)
        ),
        // Its way back leads to the same slot.
        ("rolled-back", _) if super::gathers(&plan) => {
            format!("led back after {took}, at another try: {}{gone}", gathered(&plan))
        }
        ("aborted" | "refused", _) if super::gathers(&plan) => {
            format!("not led back after {took}: visitors of {} are where they were{gone}", plan.environment)
        }
        ("rolled-back" | "aborted" | "refused", "rollback") => format!(
            "not rolled back after {took}: visitors of {} are still on {}{gone}",
            plan.environment,
            or(&plan.from_slot, "the maintenance page")
        ),
        ("rolled-back" | "aborted" | "refused", "maintenance-on") => {
            format!("not put up after {took}: {} serves its visitors as before{gone}", plan.environment)
        }
        ("rolled-back" | "aborted" | "refused", "maintenance-off") => {
            format!(
                "not taken down after {took}: the maintenance page of {} is still up{gone}",
                plan.environment
            )
        }
        ("rolled-back" | "aborted", purpose) if purpose.starts_with("db-") => format!(
            "not done after {took}: {}{}; what is true of the database: `pointsman db status {}`{gone}",
            if led_away(release) { "visitors waited meanwhile, and " } else { "" },
            visitors(&plan),
            plan.environment
        ),
        ("rolled-back", _) => format!(
            "rolled back after {took}: {}{}; {} stays on {} to be looked at{gone}",
            visitors(&plan),
            super::verdict::met(release),
            plan.release,
            plan.to_slot
        ),
        ("aborted", _) => {
            let but = super::left_out::hosts(release).map(|hosts| format!(" but on {hosts}"));
            format!(
                "aborted after {took}: no visitor was moved, what {} prepared is undone{}; {}{gone}",
                plan.release,
                but.unwrap_or_default(),
                visitors(&plan)
            )
        }
        ("refused", _) => {
            format!("refused after {took}: {} touched nothing; {}", plan.release, visitors(&plan))
        }
        (other, _) => {
            format!("release {} of {}: {}", plan.release, plan.environment, or(other, "still running"))
        }
    }
}

/// Where everybody is once no share is on another slot any more.
fn gathered(plan: &v1::Plan) -> String {
    format!("every visitor of {} is on {}", plan.environment, plan.to_slot)
}

/// Whether visitors were led away from the slot that serves them while something was done.
fn led_away(release: &v1::Release) -> bool {
    release.orders.iter().any(|order| order.step == "maintain" && order.state == "done")
}

/// What goes on after the end, and where it is seen: whoever followed a release follows it to its end only, so that a job does
/// not wait for hours.
fn watched_on(release: &v1::Release, plan: &v1::Plan) -> String {
    if release.watched_on_until_ms == 0 {
        return String::new();
    }
    let (until, environment) = (super::time(release.watched_on_until_ms), &plan.environment);
    format!(
        "\n  its visitors are watched on until {until}: back by itself if they fare too badly\n  see them: `pointsman status {environment}`, with a chart; second by second: `pointsman traffic watch {environment}`"
    )
}

/// Checks that only warn and do not pass.
fn warnings(release: &v1::Release) -> String {
    match release.warnings.as_slice() {
        [] => String::new(),
        warnings => format!("; {}", pointsman_proto::convert::warning(warnings)),
    }
}

/// Load balancers that stand as they stood.
fn left_out(plan: &v1::Plan) -> String {
    match plan.without.as_slice() {
        [] => String::new(),
        out => {
            format!("; without {}, out of service, which leads visitors as before when back", out.join(", "))
        }
    }
}

/// Where several load balancers stand now, and how far apart they moved the visitors, where that is known: each was read back.
fn together(release: &v1::Release) -> String {
    let Some((balancers, skew_us)) = skew_us(release) else { return String::new() };
    let plan = release.plan.clone().unwrap_or_default();
    let route = pointsman_core::Route::parse(&plan.route_after).ok();
    let epoch = route.map_or_else(String::new, |route| format!(" to epoch {}", route.epoch));
    format!("; {balancers} load balancers moved{epoch} within {}", super::lines::took(skew_us))
}

/// How many load balancers made the last move of visitors, and how far apart, in microseconds: none where there is only
/// one, or where it is not known of all.
pub fn skew_us(release: &v1::Release) -> Option<(usize, u64)> {
    // Behind the maintenance page nobody is moved.
    let plan = release.plan.as_ref().filter(|plan| !plan.under_maintenance)?;
    let moves = |step: &&v1::PlanStep| step.step == "switch" || step.step.starts_with("canary");
    let last =
        plan.steps.iter().rev().filter(moves).find(|step| {
            release.orders.iter().any(|order| order.step == step.step && order.state == "done")
        })?;
    let moments: Vec<u64> = release
        .orders
        .iter()
        .filter(|order| order.step == last.step && order.effect_at_us > 0)
        .map(|order| order.effect_at_us)
        .collect();
    let all = moments.len() == plan.balancers.len() && moments.len() > 1;
    let skew = moments.iter().max()?.saturating_sub(*moments.iter().min()?);
    all.then_some((moments.len(), skew))
}

/// Where visitors are when a release did not move them, or moved them back.
fn visitors(plan: &v1::Plan) -> String {
    // Of work on the database before the first release nobody asked a load balancer, whether there is one or not.
    if plan.from_slot.is_empty() && (plan.balancers.is_empty() || plan.purpose.starts_with("db-")) {
        return format!("visitors of {} were not moved", plan.environment);
    }
    let from = or(&plan.from_slot, "the maintenance page");
    if plan.under_maintenance {
        return format!("visitors of {} see the maintenance page, {from} is behind it", plan.environment);
    }
    format!("visitors of {} are on {from}", plan.environment)
}

/// What is said of the last move of visitors, by load balancer; nothing of those that have nothing to say.
fn of_last_move(release: &v1::Release, says: fn(&v1::OrderView) -> &str) -> Vec<String> {
    let plan = release.plan.clone().unwrap_or_default();
    let last = plan.steps.iter().rev().find_map(|step| {
        let mut orders =
            release.orders.iter().filter(|order| order.step == step.step && order.state == "done");
        let moved = |order: &v1::OrderView| {
            order.effect_at_us > 0 || !order.unreached.is_empty() || !order.unkept.is_empty()
        };
        orders.any(moved).then_some(&step.step)
    });
    let orders = release.orders.iter().filter(|order| Some(&order.step) == last && !says(order).is_empty());
    orders.map(|order| format!("{}: {}", order.host, says(order))).collect()
}

/// Whom the last move of visitors may not have reached.
fn unreached(release: &v1::Release) -> Vec<String> {
    of_last_move(release, |order| &order.unreached)
}

/// Where the last move of visitors is not kept for HAProxy's next start.
fn unkept(release: &v1::Release) -> Vec<String> {
    of_last_move(release, |order| &order.unkept)
}

/// What must not be missed of something that is done.
fn done_but(release: &v1::Release) -> &'static str {
    match (unreached(release).is_empty(), unkept(release).is_empty()) {
        (true, true) => "",
        (false, true) => ", but perhaps not for everybody",
        (true, false) => ", but not kept yet",
        (false, false) => ", but perhaps not for everybody and not kept yet",
    }
}

fn confirmed(plan: &v1::Plan, release: &v1::Release) -> String {
    let (unreached, unkept) = (unreached(release), unkept(release));
    let mut said = said_done(plan, unreached.is_empty());
    let see = format!("`pointsman traffic show {}`", plan.environment);
    if !unreached.is_empty() {
        let away = "visitors on connections from before the last reload of HAProxy may be where they were";
        said = format!("{said}; {away} ({}): {see}", unreached.join("; "));
    }
    if !unkept.is_empty() {
        let away = "a reload of HAProxy brings the route before for a moment, and no release goes forward until it is kept";
        said = format!("{said}; {away} ({}): {see}", unkept.join("; "));
    }
    said
}

fn said_done(plan: &v1::Plan, everybody: bool) -> String {
    let (environment, slot) = (&plan.environment, &plan.to_slot);
    match plan.purpose.as_str() {
        "deploy" if plan.under_maintenance => format!(
            "{environment} will serve {} on {slot} when the maintenance page comes down: `pointsman maintenance off {environment}`",
            plan.release
        ),
        "rollback" if plan.under_maintenance => format!(
            "{environment} will be on {slot} again when the maintenance page comes down: `pointsman maintenance off {environment}`"
        ),
        "deploy" if plan.from_slot.is_empty() => {
            format!(
                "{environment} serves {} on {slot}; it is the first, so there is no way back yet",
                plan.release
            )
        }
        "deploy" => {
            format!(
                "{environment} serves {} on {slot}; way back: `pointsman rollback {environment}`",
                plan.release
            )
        }
        "rollback" if super::gathers(plan) => gathered(plan),
        "rollback" => {
            let now = match plan.to_release.as_str() {
                "" => format!("{environment} is on {slot} again"),
                release => format!("{environment} serves {release} on {slot} again"),
            };
            match plan.ill.as_str() {
                "" => format!("{now}; forward again: `pointsman rollback {environment}`"),
                ill => format!("{now}; what it served before was turned back: {ill}"),
            }
        }
        "maintenance-on" => format!(
            "every {}visitor of {environment} sees the maintenance page; to end it: `pointsman maintenance off {environment}`",
            if everybody { "" } else { "new " }
        ),
        "maintenance-off" => format!("the maintenance page of {environment} is down"),
        "db-backup" | "db-verify" => {
            format!("what there is to go back to: `pointsman db list {environment}`")
        }
        purpose if purpose.starts_with("db-") => {
            format!("the database of {environment} as it stands: `pointsman db status {environment}`")
        }
        purpose => format!("{purpose} of {environment} is done"),
    }
}

fn held(release: &v1::Release, plan: &v1::Plan, took: &str) -> String {
    let environment = &plan.environment;
    let step = or(&release.step, "watch");
    let held = format!(
        "held after {took}: release {} of {environment} waits for a person in step {step}\n  meanwhile: {}",
        plan.release,
        meanwhile(release, plan, step)
    );
    let go_on = format!("\n  to go on: `pointsman resume {environment}`");
    match (&release.held, &release.turned_back) {
        // On its way back there is nothing to stop.
        (Some(why), Some(_)) if why.code == Code::OperatorStopped.as_str() => format!("{held}{go_on}"),
        (Some(why), Some(_)) => format!("{held}\n  next: {}", super::held::way_on(release, why, environment)),
        _ => {
            let undo = if release.visitors_moved { "rollback" } else { "abort" };
            format!("{held}{go_on}\n  to stop:  `pointsman {undo} {environment}`")
        }
    }
}

/// What is true while a release is held.
fn meanwhile(release: &v1::Release, plan: &v1::Plan, step: &str) -> String {
    let environment = &plan.environment;
    if step.starts_with("canary") && release.visitors_moved {
        let (share, to) = (super::look::split_of(plan, step), &plan.to_slot);
        return format!(
            "up to {share} % of the visitors of {environment} are on {to}, and what watches them goes on"
        );
    }
    if step == "watch" && release.visitors_moved {
        return format!("visitors of {environment} are on {}, and the watch goes on", plan.to_slot);
    }
    if release.visitors_moved || plan.purpose.starts_with("maintenance") {
        return format!("`pointsman traffic show {environment}` shows where visitors are");
    }
    visitors(plan)
}

/// What is said when the command leaves and the release goes on.
pub fn left(environment: &EnvironmentName, release: &str, last: Option<&v1::Release>, exit: Exit) -> String {
    let why = if exit == Exit::TimedOut { "time is up" } else { "detached" };
    let undo = if last.is_some_and(|last| !last.visitors_moved) { "abort" } else { "rollback" };
    format!(
        "{why}: release {release} of {environment} goes on by itself\n  follow it: `pointsman status {environment} --release {release} -f`\n  stop it:   `pointsman {undo} {environment}`"
    )
}
