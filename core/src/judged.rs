//! A judgement as it is recorded and shown: whole numbers and words, so that it is the same wherever it is read.

use std::fmt;

use crate::verdict::{Finding, Judgement, Metric, Rate, Reason, Verdict};
use crate::{OnFail, Plan};

/// Bad requests of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bad requests since the judge began.
    pub bad: u64,
    /// All requests since then.
    pub requests: u64,
    /// Where the true share lies, in millionths: right at every look at once with a chance of 95 %.
    pub between_ppm: (u32, u32),
}

impl Counted {
    fn of(rate: &Rate) -> Self {
        let ppm = |share: f64| (share * 1e6).round() as u32;
        let (low, high) = rate.interval();
        Self { bad: rate.bad, requests: rate.requests, between_ppm: (ppm(low), ppm(high)) }
    }
}

/// What is known of one metric. E-values and evidence are in thousandths, and end where a whole number does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricJudged {
    /// On the slot that is being released.
    pub new: Counted,
    /// On the slot that served before.
    pub old: Counted,
    /// Against "the new slot keeps to the limit".
    pub over_limit_milli: u64,
    /// Against "the new slot is no worse than the old one".
    pub worse_milli: u64,
    /// For "the new slot keeps to the limit".
    pub within_milli: u64,
    /// For "the new slot is no worse than the old one".
    pub not_worse_milli: u64,
}

fn milli(value: f64) -> u64 {
    (value * 1_000.0).round() as u64
}

impl MetricJudged {
    fn of(finding: &Finding) -> Self {
        Self {
            new: Counted::of(&finding.limit.0),
            old: Counted::of(&finding.limit.1),
            over_limit_milli: milli(finding.over_limit),
            worse_milli: milli(finding.worse_than_old),
            within_milli: milli(finding.within_limit),
            not_worse_milli: milli(finding.not_worse),
        }
    }
}

/// A verdict with every number behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What is to happen, with the plan's action for what went wrong taken into account: what only warns decides nothing.
    pub verdict: Verdict,
    /// Something is too bad that the plan only warns of.
    pub warns: bool,
    /// What is too bad is so on both slots: going back would not help.
    pub shared: bool,
    /// In one line.
    pub told: String,
    /// Failed requests.
    pub errors: MetricJudged,
    /// Requests over the limit.
    pub slowness: MetricJudged,
    /// Seconds that were counted.
    pub seconds: u64,
    /// E-value at which a test rejects, in thousandths.
    pub rollback_at_milli: u64,
    /// Evidence at which the release is proven good, in thousandths.
    pub promote_at_milli: u64,
    /// Requests on the new slot until it is proven good, if it goes on as it did. None: never.
    pub needed: Option<u64>,
    /// Requests on the new slot that took longer than before the release, where they are clearly more than is no worse, and nobody
    /// is on the old slot to compare with: nothing follows from it, and a person should know.
    pub slowed: Option<Counted>,
}

/// What a plan makes of a judgement, without its numbers: made every second, told seldom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ruling {
    /// What is to happen, with the plan's action for what went wrong taken into account: what only warns decides nothing.
    pub verdict: Verdict,
    /// Something is too bad that the plan only warns of.
    pub warns: bool,
    /// What is too bad is so on both slots: going back would not help.
    pub shared: bool,
    /// It is clearly slower than what served before, which nobody is left to compare it with.
    pub slowed: bool,
    /// Why.
    reason: Reason,
}

impl Ruling {
    /// What a plan makes of a judgement.
    pub fn of(plan: &Plan, judgement: &Judgement) -> Self {
        let worst = [Metric::Slowness, Metric::Errors]
            .into_iter()
            .filter_map(|metric| Some((action(plan, judgement, metric)?, judgement.against(metric)?)))
            // Of two that are as bad the last is told: errors.
            .max_by_key(|(action, _)| *action);
        let enough = judgement.errors.limit.0.requests >= plan.verdict.min_requests;
        let proven = enough && plan.verdict.counting().iter().all(|metric| judgement.proven_in(*metric));
        let verdict = match worst {
            Some((OnFail::Rollback, _)) => Verdict::Rollback,
            Some((OnFail::Hold, _)) => Verdict::Hold,
            _ if proven => Verdict::Promote,
            None if judgement.verdict() == Verdict::Hold => Verdict::Hold,
            Some((OnFail::Warn, _)) | None => Verdict::Undecided,
        };
        let reason = if verdict == Verdict::Promote { Reason::Proven } else { judgement.reason };
        Self {
            verdict,
            warns: matches!(worst, Some((OnFail::Warn, _))),
            shared: matches!(worst, Some((_, Reason::BothSick(_)))),
            slowed: slowed(plan, judgement),
            reason: worst.map_or(reason, |(_, reason)| reason),
        }
    }
}

impl Judged {
    /// What a plan makes of a judgement, with all numbers: this takes a while, as each share gets its interval.
    pub fn of(plan: &Plan, judgement: &Judgement) -> Self {
        let ruling = Ruling::of(plan, judgement);
        let old = plan.from.as_ref().unwrap_or(&plan.to);
        let counting = plan.verdict.counting();
        let mut told = *judgement;
        told.reason = ruling.reason;
        Self {
            verdict: ruling.verdict,
            warns: ruling.warns,
            shared: ruling.shared,
            told: told.told_in(&plan.to.name, &old.name, counting).to_string(),
            errors: MetricJudged::of(&judgement.errors),
            slowness: MetricJudged::of(&judgement.slowness),
            seconds: judgement.watched,
            rollback_at_milli: milli(judgement.rollback_at),
            promote_at_milli: milli(judgement.promote_at),
            needed: judgement.requests_needed_in(counting),
            slowed: ruling.slowed.then(|| Counted::of(&judgement.slowness.baseline.0)),
        }
    }
}

/// Whether the new slot is clearly slower than what served before the release, by the measure of a comparison of both slots, while
/// nobody is on the old one to compare with. An hour ago is no moment to compare with either, so nothing follows from it by itself.
fn slowed(plan: &Plan, judgement: &Judgement) -> bool {
    let Some((_, no_worse)) = plan.verdict.slower_before() else { return false };
    let slowness = judgement.finding(Metric::Slowness);
    let (_, old) = slowness.lately;
    old.is_none() && slowness.baseline.0.is_above(no_worse)
}

/// What follows from one metric: what strikes both slots is never blamed on the new one.
fn action(plan: &Plan, judgement: &Judgement, metric: Metric) -> Option<OnFail> {
    let wanted = plan.verdict.on_fail(metric);
    match judgement.against(metric)? {
        Reason::BothSick(_) => Some(wanted.min(OnFail::Hold)),
        _ => Some(wanted),
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told)
    }
}
