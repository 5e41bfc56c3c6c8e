//! Verdicts, as people look at them.

use pointsman_core::verdict::{Expected, Metric, requests_to_promote};
use pointsman_core::{Counted, Judged, MetricJudged, Plan, VerdictMode};

use crate::v1;

fn millionths(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

fn thousandths(milli: u64) -> f64 {
    milli as f64 / 1_000.0
}

fn count_to_wire(counted: &Counted) -> v1::VerdictCount {
    let (low, high) = counted.between_ppm;
    v1::VerdictCount {
        bad: counted.bad,
        requests: counted.requests,
        low: millionths(low),
        high: millionths(high),
    }
}

fn metric_to_wire(metric: &MetricJudged) -> v1::VerdictMetric {
    v1::VerdictMetric {
        new_slot: Some(count_to_wire(&metric.new)),
        old_slot: Some(count_to_wire(&metric.old)),
        e_over_limit: thousandths(metric.over_limit_milli),
        e_worse_than_old: thousandths(metric.worse_milli),
        evidence_within_limit: thousandths(metric.within_milli),
        evidence_not_worse: thousandths(metric.not_worse_milli),
    }
}

/// A verdict for the wire, as it was recorded in a release of this plan.
pub fn verdict_to_wire(plan: &Plan, judged: &Judged) -> v1::Verdict {
    v1::Verdict {
        verdict: judged.verdict.to_string(),
        told: judged.told.clone(),
        errors: Some(metric_to_wire(&judged.errors)),
        slowness: Some(metric_to_wire(&judged.slowness)),
        seconds: judged.seconds,
        rollback_at: thousandths(judged.rollback_at_milli),
        promote_at: thousandths(judged.promote_at_milli),
        requests_needed: judged.needed,
        warns: judged.warns,
        shared: judged.shared,
        chart: Vec::new(),
        blind: String::new(),
        unkept: String::new(),
        no_way_back: String::new(),
        probes_new: None,
        probes_old: None,
        shadow: plan.verdict.mode == VerdictMode::Shadow,
    }
}

/// What a plan is judged by, with what to expect of it; nothing where visitors are not watched.
pub fn verdict_plan_to_wire(plan: &Plan) -> Option<v1::VerdictPlan> {
    if plan.watched_ms() == 0 {
        return None;
    }
    let verdict = &plan.verdict;
    let before = &verdict.before;
    let needed = verdict.params(plan.watched_ms()).ok().and_then(|params| {
        // What only warns needs no proof.
        let counts = |metric, ppm| if verdict.counting().contains(&metric) { millionths(ppm) } else { 0.0 };
        let errors = counts(Metric::Errors, before.errors_ppm);
        let over_limit = counts(Metric::Slowness, before.over_limit_ppm);
        // What is slower than before is, before, rarer than one in a hundred.
        requests_to_promote(&params, &Expected { errors, over_limit, over_baseline: over_limit })
    });
    let rate = if before.seconds > 0 { before.requests as f64 / before.seconds as f64 } else { 0.0 };
    let undecided = if verdict.undecided_turns_back { "rollback" } else { "hold" };
    Some(v1::VerdictPlan {
        mode: verdict.mode.as_str().to_owned(),
        min_watch_ms: verdict.min_watch_ms.unwrap_or(0),
        max_watch_ms: verdict.max_watch_ms.unwrap_or(0),
        min_requests: verdict.min_requests,
        on_undecided: if verdict.must_decide() { undecided.to_owned() } else { String::new() },
        error_rate: millionths(verdict.errors_ppm),
        on_errors: verdict.on_errors.as_str().to_owned(),
        p99_ms: verdict.p99_ms,
        on_slowness: verdict.on_slowness.as_str().to_owned(),
        announced: announced(plan, needed, rate),
        requests_needed: needed.unwrap_or(0),
        rate,
        p99_before_ms: before.p99_ms.unwrap_or(0),
        after_ms: verdict.after_ms,
        fix_forward: verdict.fix_forward,
        errors_held_to: verdict.limit(Metric::Errors).unwrap_or(0.0),
        slow_held_to: verdict.limit(Metric::Slowness).unwrap_or(0.0),
    })
}

/// Time in which so many requests come, in words.
fn in_time(requests: u64, rate: f64) -> String {
    let seconds = requests as f64 / rate;
    match seconds {
        _ if seconds < 100.0 => format!("{seconds:.0} s"),
        _ if seconds < 6_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// What to expect of the visitors' signals, before anything begins.
fn announced(plan: &Plan, needed: Option<u64>, rate: f64) -> String {
    let verdict = &plan.verdict;
    if verdict.mode == VerdictMode::Off {
        let released = matches!(plan.purpose, pointsman_core::Purpose::Deploy { .. });
        return match released {
            true => "they decide nothing here: no load balancer has signals of them, or `verdict = \"off\"`"
                .to_owned(),
            false => String::new(),
        };
    }
    let Some(needed) = needed else {
        return "visitors fail or wait so often already that no number of requests proves a release good"
            .to_owned();
    };
    let needed = needed.max(verdict.min_requests);
    let proof = format!("proving it good needs about {needed} requests on `{}`", plan.to.name);
    if rate <= 0.0 {
        return format!("{proof}; no visitor was seen lately, so nobody knows how long that takes");
    }
    let share = plan.splits.first().map_or(100, |split| split.percent);
    let there = rate * f64::from(share) / 100.0;
    let at = format!("{} at {rate:.1} requests/s", in_time(needed, there));
    match share {
        100 => format!("{proof}: {at}"),
        share => format!("{proof}: {at} and {share} % of them there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        let cases = [(50, 10.0, "5 s"), (2_350, 0.5, "78 min"), (2_350, 0.1, "6.5 h"), (1_320, 50.0, "26 s")];
        for (requests, rate, expected) in cases {
            assert_eq!(in_time(requests, rate), expected);
        }
    }
}
