//! The form of verdicts on disk: what a plan is judged by, and what was judged.

use pointsman_core as domain;
use pointsman_core::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// What a plan is judged by. Plans of before there were verdicts have none: nobody listened.
#[derive(Serialize, Deserialize)]
pub(super) struct VerdictPlan {
    mode: String,
    min_watch_ms: Option<u64>,
    max_watch_ms: Option<u64>,
    // Records of before there was any of them have none.
    #[serde(default)]
    after_ms: u64,
    #[serde(default)]
    warm_up_ms: u64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    blip_s: u64,
    #[serde(default)]
    fix_forward: bool,
    min_requests: u64,
    undecided_turns_back: bool,
    errors_ppm: u32,
    on_errors: String,
    p99_ms: u64,
    on_slowness: String,
    pub(super) before: Option<Before>,
}

/// Each second was judged by itself before anything else could be written.
fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_one(number: &u64) -> bool {
    *number == 1
}

/// What was measured when the plan was made.
#[derive(Serialize, Deserialize)]
pub(super) struct Before {
    seconds: u64,
    requests: u64,
    errors_ppm: u32,
    over_limit_ppm: u32,
    p99_ms: Option<u64>,
    bunches_milli: Option<(u64, u64)>,
    // Records of before this was kept say nothing of it, and are judged without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usual: Option<(Usual, Usual)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slower: Option<Slower>,
}

/// Requests slower than before.
#[derive(Serialize, Deserialize)]
struct Slower {
    ppm: u32,
    bunches_milli: u64,
}

/// Bad requests and all of them: over all that was remembered, and lately.
#[derive(Serialize, Deserialize)]
struct Usual {
    whole: (u64, u64),
    lately: (u64, u64),
}

fn usual_of(usual: &domain::Usual) -> Usual {
    let part = |part: domain::Part| (part.bad, part.requests);
    Usual { whole: part(usual.whole), lately: part(usual.lately) }
}

fn usual_from(record: &Usual) -> domain::Usual {
    let part = |(bad, requests)| domain::Part { bad, requests };
    domain::Usual { whole: part(record.whole), lately: part(record.lately) }
}

#[derive(Serialize, Deserialize)]
struct Counted {
    bad: u64,
    requests: u64,
    between_ppm: (u32, u32),
}

#[derive(Serialize, Deserialize)]
struct Metric {
    new: Counted,
    old: Counted,
    over_limit_milli: u64,
    worse_milli: u64,
    within_milli: u64,
    not_worse_milli: u64,
}

/// What was judged.
#[derive(Serialize, Deserialize)]
pub(super) struct Judged {
    verdict: String,
    warns: bool,
    shared: bool,
    told: String,
    errors: Metric,
    slowness: Metric,
    seconds: u64,
    rollback_at_milli: u64,
    promote_at_milli: u64,
    needed: Option<u64>,
    // Records of before this was looked for have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slowed: Option<Counted>,
}

pub(super) fn plan_of(plan: &domain::VerdictPlan) -> VerdictPlan {
    let before = &plan.before;
    VerdictPlan {
        mode: plan.mode.as_str().to_owned(),
        min_watch_ms: plan.min_watch_ms,
        max_watch_ms: plan.max_watch_ms,
        after_ms: plan.after_ms,
        warm_up_ms: plan.warm_up_ms,
        blip_s: plan.blip_s,
        fix_forward: plan.fix_forward,
        min_requests: plan.min_requests,
        undecided_turns_back: plan.undecided_turns_back,
        errors_ppm: plan.errors_ppm,
        on_errors: plan.on_errors.as_str().to_owned(),
        p99_ms: plan.p99_ms,
        on_slowness: plan.on_slowness.as_str().to_owned(),
        before: Some(Before {
            seconds: before.seconds,
            requests: before.requests,
            errors_ppm: before.errors_ppm,
            over_limit_ppm: before.over_limit_ppm,
            p99_ms: before.p99_ms,
            bunches_milli: before.bunches_milli,
            slower: before
                .slower
                .map(|slower| Slower { ppm: slower.ppm, bunches_milli: slower.bunches_milli }),
            usual: before.usual.map(|(errors, over_limit)| (usual_of(&errors), usual_of(&over_limit))),
        }),
    }
}

pub(super) fn plan_from(record: Option<&VerdictPlan>) -> Option<domain::VerdictPlan> {
    let Some(record) = record else { return Some(domain::VerdictPlan::default()) };
    let before = record.before.as_ref().map(|before| domain::Before {
        seconds: before.seconds,
        requests: before.requests,
        errors_ppm: before.errors_ppm,
        over_limit_ppm: before.over_limit_ppm,
        p99_ms: before.p99_ms,
        bunches_milli: before.bunches_milli,
        slower: before
            .slower
            .as_ref()
            .map(|slower| domain::Slower { ppm: slower.ppm, bunches_milli: slower.bunches_milli }),
        usual: before.usual.as_ref().map(|(errors, over_limit)| (usual_from(errors), usual_from(over_limit))),
    });
    Some(domain::VerdictPlan {
        mode: domain::VerdictMode::parse(&record.mode)?,
        min_watch_ms: record.min_watch_ms,
        max_watch_ms: record.max_watch_ms,
        after_ms: record.after_ms,
        warm_up_ms: record.warm_up_ms,
        blip_s: record.blip_s,
        fix_forward: record.fix_forward,
        min_requests: record.min_requests,
        undecided_turns_back: record.undecided_turns_back,
        errors_ppm: record.errors_ppm,
        on_errors: domain::OnFail::parse(&record.on_errors)?,
        p99_ms: record.p99_ms,
        on_slowness: domain::OnFail::parse(&record.on_slowness)?,
        before: before.unwrap_or_default(),
    })
}

fn counted_of(counted: &domain::Counted) -> Counted {
    Counted { bad: counted.bad, requests: counted.requests, between_ppm: counted.between_ppm }
}

fn counted_from(record: &Counted) -> domain::Counted {
    domain::Counted { bad: record.bad, requests: record.requests, between_ppm: record.between_ppm }
}

fn metric_of(metric: &domain::MetricJudged) -> Metric {
    Metric {
        new: counted_of(&metric.new),
        old: counted_of(&metric.old),
        over_limit_milli: metric.over_limit_milli,
        worse_milli: metric.worse_milli,
        within_milli: metric.within_milli,
        not_worse_milli: metric.not_worse_milli,
    }
}

fn metric_from(record: &Metric) -> domain::MetricJudged {
    domain::MetricJudged {
        new: counted_from(&record.new),
        old: counted_from(&record.old),
        over_limit_milli: record.over_limit_milli,
        worse_milli: record.worse_milli,
        within_milli: record.within_milli,
        not_worse_milli: record.not_worse_milli,
    }
}

pub(super) fn judged_of(judged: &domain::Judged) -> Judged {
    Judged {
        verdict: judged.verdict.as_str().to_owned(),
        warns: judged.warns,
        shared: judged.shared,
        told: judged.told.clone(),
        errors: metric_of(&judged.errors),
        slowness: metric_of(&judged.slowness),
        seconds: judged.seconds,
        rollback_at_milli: judged.rollback_at_milli,
        promote_at_milli: judged.promote_at_milli,
        needed: judged.needed,
        slowed: judged.slowed.as_ref().map(counted_of),
    }
}

pub(super) fn judged_from(record: Judged) -> Option<domain::Judged> {
    Some(domain::Judged {
        verdict: Verdict::parse(&record.verdict)?,
        warns: record.warns,
        shared: record.shared,
        errors: metric_from(&record.errors),
        slowness: metric_from(&record.slowness),
        told: record.told,
        seconds: record.seconds,
        rollback_at_milli: record.rollback_at_milli,
        promote_at_milli: record.promote_at_milli,
        needed: record.needed,
        slowed: record.slowed.as_ref().map(counted_from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> domain::VerdictPlan {
        let part = |bad| domain::Part { bad, requests: 9_000 };
        let usual = |bad| domain::Usual { whole: part(bad), lately: part(bad / 2) };
        let slower = Some(domain::Slower { ppm: 3_000, bunches_milli: 1_200 });
        let bunches_milli = Some((2_000, 3_000));
        let before = domain::Before {
            slower,
            bunches_milli,
            requests: 9_000,
            usual: Some((usual(270), usual(8))),
            ..domain::Before::default()
        };
        domain::VerdictPlan { before, warm_up_ms: 9_000, blip_s: 5, ..domain::VerdictPlan::default() }
    }

    fn read(json: &serde_json::Value) -> domain::VerdictPlan {
        plan_from(Some(&serde_json::from_value(json.clone()).unwrap())).unwrap()
    }

    #[test]
    fn what_is_measured_before_comes_back_as_it_went() {
        assert_eq!(read(&serde_json::to_value(plan_of(&plan())).unwrap()), plan());
    }

    #[test]
    fn what_was_judged_comes_back_as_it_went_and_that_of_before_without_what_was_not_looked_for() {
        let counted = |bad| domain::Counted { bad, requests: 3_000, between_ppm: (1, 2) };
        let metric =
            domain::MetricJudged { new: counted(3), worse_milli: 7, ..domain::MetricJudged::default() };
        let judged = domain::Judged {
            verdict: Verdict::Undecided,
            warns: true,
            shared: false,
            told: "a line".to_owned(),
            errors: metric,
            slowness: domain::MetricJudged::default(),
            seconds: 9,
            rollback_at_milli: 4_000_000,
            promote_at_milli: 100_000,
            needed: Some(7),
            slowed: Some(counted(990)),
        };
        let mut json = serde_json::to_value(judged_of(&judged)).unwrap();
        assert_eq!(judged_from(serde_json::from_value(json.clone()).unwrap()), Some(judged.clone()));
        json.as_object_mut().unwrap().remove("slowed").unwrap();
        let before = domain::Judged { slowed: None, ..judged };
        assert_eq!(judged_from(serde_json::from_value(json).unwrap()), Some(before));
    }

    /// A judge that was put away goes on only with the parameters that it had.
    #[test]
    fn a_plan_of_before_all_of_this_was_kept_is_judged_as_it_was() {
        let mut json = serde_json::to_value(plan_of(&plan())).unwrap();
        for kept in ["usual", "slower"] {
            json["before"].as_object_mut().unwrap().remove(kept).unwrap();
        }
        for kept in ["warm_up_ms", "blip_s"] {
            json.as_object_mut().unwrap().remove(kept).unwrap();
        }
        let old = read(&json);
        let known = domain::Before { usual: None, slower: None, ..plan().before };
        assert_eq!(old, domain::VerdictPlan { before: known, warm_up_ms: 0, blip_s: 1, ..plan() });
        let choices = *old.params(0).unwrap().choices();
        assert_eq!(choices.excused, domain::verdict::Excused::default());
        assert_eq!(choices.errors, domain::verdict::Bounds::ERRORS);
        assert_eq!((choices.dispersions.over_baseline, choices.blip), (3.0, 1));
    }
}
