//! Releases, as people look at them.

use pointsman_core::{HostName, LeftOut, Phase, Progress, State, Step, Timestamp, TrafficSeen, left_out};

use super::{plan_to_wire, problem_to_wire, verdict_to_wire};
use crate::v1;

/// A release for the wire. `size` is the artifact's file count and bytes, where they are known.
pub fn release_to_wire(state: &State, started_at: Timestamp, size: Option<(u64, u64)>) -> v1::Release {
    let steps = state.plan.steps();
    let step = state.step();
    let number = step
        .and_then(|step| steps.iter().position(|s| *s == step))
        .map_or(0, |index| index.saturating_add(1));
    let (held, watch_until) = match &state.phase {
        Phase::Held { why, .. } => (Some(problem_to_wire(why)), 0),
        Phase::Watching { until, .. } => (None, until.0),
        _ => (None, 0),
    };
    v1::Release {
        plan: Some(plan_to_wire(&state.plan, size)),
        phase: phase_word(state).to_owned(),
        step: step.map(|step| step.to_string()).unwrap_or_default(),
        step_number: u32::try_from(number).unwrap_or(0),
        step_count: u32::try_from(steps.len()).unwrap_or(0),
        outcome: state.outcome().map(|outcome| outcome.as_str().to_owned()).unwrap_or_default(),
        turned_back: state.turned_back.as_ref().map(problem_to_wire),
        held,
        started_at_ms: started_at.0,
        entered_at_ms: state.entered_at.0,
        watch_until_ms: watch_until,
        orders: state
            .orders
            .iter()
            .map(|(key, progress)| {
                let left_out = state.left_out_of(key.step, &key.host);
                order_to_wire(key.step, key.host.as_str(), progress, left_out)
            })
            .collect(),
        epoch: state.epoch.0,
        visitors_moved: state.visitors_moved(),
        verdict: state.verdict.last.as_ref().map(|judged| verdict_to_wire(&state.plan, judged)),
        // Only the coordinator knows whether it is the last word.
        watched_on_until_ms: 0,
        after_end: None,
        left_out: state.left_out.iter().map(|(host, left_out)| left_out_to_wire(host, left_out)).collect(),
        may_leave_out: left_out::candidates(state).iter().map(ToString::to_string).collect(),
        // What is noted of visitors is no part of where it stands.
        met: None,
        // Which of the checks that do not pass only warn whoever can read them knows.
        warnings: Vec::new(),
        blind: state.blind().map(|blind| v1::Blind {
            since_ms: blind.since.0,
            why: Some(problem_to_wire(&blind.why)),
            held_at_ms: state.blind_until().map_or(0, |until| until.0),
        }),
    }
}

/// What visitors met on the slot of a release, for the wire.
pub fn met_to_wire(met: &TrafficSeen) -> v1::VisitorsMet {
    v1::VisitorsMet {
        seconds: met.seconds,
        incomplete: met.incomplete,
        requests: met.requests,
        failures: met.failures,
        too_slow: met.too_slow.unwrap_or(0),
        to_the_end: met.to_the_end,
    }
}

fn phase_word(state: &State) -> &'static str {
    match &state.phase {
        Phase::Held { .. } => "held",
        Phase::Finished(outcome) => outcome.as_str(),
        Phase::Doing(_) | Phase::Watching { .. } => state.step().map_or("", Step::as_str),
    }
}

fn left_out_to_wire(host: &HostName, left_out: &LeftOut) -> v1::LeftOut {
    v1::LeftOut {
        host: host.to_string(),
        by: left_out.by.clone(),
        reason: left_out.reason.clone().unwrap_or_default(),
        at_ms: left_out.at.0,
    }
}

fn order_to_wire(step: Step, host: &str, progress: &Progress, left_out: bool) -> v1::OrderView {
    let state = match progress {
        Progress { done: Some(_), .. } => "done",
        _ if left_out => "left-out",
        Progress { open: true, .. } => "running",
        Progress { problem: Some(_), .. } => "failed",
        _ => "waiting",
    };
    let done = progress.done.clone().unwrap_or_default();
    v1::OrderView {
        step: step.to_string(),
        host: host.to_owned(),
        state: state.to_owned(),
        attempts: progress.attempts,
        detail: done.detail,
        took_us: done.took_us,
        problem: progress.problem.as_ref().map(problem_to_wire),
        effect_at_us: done.effect_at_us.unwrap_or(0),
        unreached: done.unreached.unwrap_or_default(),
        unkept: done.unkept.unwrap_or_default(),
    }
}
