//! What a tick led to, with every number behind it.

use std::fmt;

use super::explain::{Outlook, Rate};
use super::ledger::{Ledger, Values};
use super::params::{Params, Rule};
use super::promotion::Comparison;
use super::tick::{Refused, Slot};

/// What is to happen, in the order in which it takes precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Visitors go back to the old slot.
    Rollback,
    /// Nothing moves until a person has looked: going back would not help, or nothing can be seen.
    Hold,
    /// The new slot is good.
    Promote,
    /// Neither is proven, and the time is up: only a person may promote.
    Inconclusive,
    /// Neither is proven yet.
    Undecided,
}

impl Verdict {
    /// Every verdict, for tables.
    pub const ALL: [Self; 5] =
        [Self::Rollback, Self::Hold, Self::Promote, Self::Inconclusive, Self::Undecided];

    /// The word operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Hold => "hold",
            Self::Promote => "promote",
            Self::Inconclusive => "inconclusive",
            Self::Undecided => "undecided",
        }
    }

    /// Finds the verdict that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Failed requests.
    Errors,
    /// Requests that took too long.
    Slowness,
}

/// Why the verdict is what it is. It decides the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The new slot is worse than the old one.
    WorseThanOld(Metric),
    /// The new slot is over the limit, and the old one is not.
    OverLimit(Metric),
    /// Both slots are in trouble, or the old one was before.
    BothSick(Metric),
    /// So many ticks in a row were refused.
    Blind,
    /// The new slot is good in everything.
    Proven,
    /// There was no evidence enough, either way, within `max_watch`.
    OutOfTime,
    /// It cannot be promoted on what is not there.
    NoFreshData,
    /// It was not watched long enough.
    TooEarly,
    /// Something may be wrong: nothing is promoted meanwhile.
    Suspicious(Metric),
    /// Slowness cannot be seen now.
    LatencyUnknown,
    /// It is not proven yet that it is good.
    Unproven(Metric),
}

impl Reason {
    /// What follows from it.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::WorseThanOld(_) | Self::OverLimit(_) => Verdict::Rollback,
            Self::BothSick(_) | Self::Blind => Verdict::Hold,
            Self::Proven => Verdict::Promote,
            Self::OutOfTime => Verdict::Inconclusive,
            Self::NoFreshData
            | Self::TooEarly
            | Self::Suspicious(_)
            | Self::LatencyUnknown
            | Self::Unproven(_) => Verdict::Undecided,
        }
    }
}

/// What is known of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// E-value against "the new slot keeps to the limit".
    pub over_limit: f64,
    /// E-value against "the new slot is under the floor or no worse than the old one": the weaker of the two, because
    /// both must be refuted.
    pub worse_than_old: f64,
    /// E-value against "the old slot keeps to the limit".
    pub old_over_limit: f64,
    /// Whether the old slot seems to be in the same trouble, or was before.
    pub both_sick: bool,
    /// The old slot has no requests, what served before was over the limit, and nothing says that the new slot is worse.
    pub as_before: bool,
    /// Evidence that the new slot keeps to the limit.
    pub within_limit: f64,
    /// Evidence that the new slot is under the floor or no worse than the old one.
    pub not_worse: f64,
    /// Requests over the limit on the new slot since the watch began, and on the old one.
    pub limit: (Rate, Rate),
    /// The same for what both slots are compared by: for slowness another threshold.
    pub baseline: (Rate, Rate),
    /// Share of requests over the limit on the new slot and on the old one in about the last half minute.
    pub lately: (Option<f64>, Option<f64>),
    outlook: Outlook,
}

impl Finding {
    pub(super) fn of(ledger: &Ledger, values: &Values, rule: &Rule, params: &Params) -> Self {
        let (new, old) = (ledger.total.new, ledger.total.old);
        let dispersions = ledger.dispersions(rule);
        let limit = |slot: Slot| rate(slot.over_limit, slot.requests, dispersions.0);
        let baseline = |slot: Slot| rate(slot.over_baseline, slot.requests, dispersions.1);
        let sick = ledger.lately.sick(rule.bounds.ratio);
        let no_worse = values.excused.is_some_and(|worse| worse < params.rollback_at());
        let as_before = no_worse && ledger.lately.old_is_silent();
        let each = if new.requests > 0.0 { 1.0 / new.requests } else { 0.0 };
        let share = |bad: f64| if new.requests > 0.0 { bad / new.requests } else { 0.0 };
        Self {
            over_limit: values.limit,
            worse_than_old: values.floor.min(values.ratio),
            old_over_limit: values.old_limit,
            both_sick: sick || as_before,
            as_before: as_before && !sick,
            within_limit: ledger.within_limit(rule, dispersions.0),
            not_worse: ledger.not_worse(rule, dispersions.1),
            limit: (limit(new), limit(old)),
            baseline: (baseline(new), baseline(old)),
            lately: ledger.lately.shares(),
            outlook: Outlook {
                seen: new,
                limit_share: share(new.over_limit),
                baseline_share: share(new.over_baseline),
                comparison: ledger.comparison,
                each: Comparison::default().plus(each, &ledger.comparison),
                rule: *rule,
                dispersions,
                limit_counts: params.limits_count(),
                target: params.promote_at(),
            },
        }
    }

    /// Requests on the new slot until this metric is good enough to promote, if it goes on as it did. `None` is: never.
    pub fn requests_needed(&self) -> Option<u64> {
        self.outlook.requests_needed()
    }

    pub(super) fn limit_counts(&self) -> bool {
        self.outlook.limit_counts
    }

    /// The strongest evidence against the new slot, of what counts.
    pub(super) fn against(&self) -> f64 {
        if self.limit_counts() { self.over_limit.max(self.worse_than_old) } else { self.worse_than_old }
    }

    pub(super) fn limit_bound(&self) -> f64 {
        self.outlook.rule.bounds.limit
    }

    pub(super) fn ratio_bound(&self) -> f64 {
        self.outlook.rule.bounds.ratio
    }
}

fn rate(bad: f64, requests: f64, dispersion: f64) -> Rate {
    Rate { bad: bad as u64, requests: requests as u64, dispersion }
}

/// Which metrics the tick just counted proves good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub errors: bool,
    pub slowness: bool,
}

/// What a tick led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Why, which decides the verdict.
    pub reason: Reason,
    /// The newest tick that was counted.
    pub tick: Option<u64>,
    /// Why the tick just offered was not counted, if it was not.
    pub refused: Option<Refused>,
    /// Ticks that were refused since the watch began.
    pub refused_ticks: u64,
    /// Ticks since the watch began, whether they came or not.
    pub elapsed: u64,
    /// Ticks that were counted.
    pub watched: u64,
    /// Ticks that must be counted before anything is promoted.
    pub min_watch: u64,
    /// E-value at which a test rejects.
    pub rollback_at: f64,
    /// Evidence at which a criterion of promotion is met.
    pub promote_at: f64,
    /// What is known of errors.
    pub errors: Finding,
    /// What is known of slow requests.
    pub slowness: Finding,
    pub(super) proven: Proven,
}

impl Judgement {
    /// What is to happen.
    pub fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }

    /// What is known of a metric.
    pub fn finding(&self, metric: Metric) -> &Finding {
        match metric {
            Metric::Errors => &self.errors,
            Metric::Slowness => &self.slowness,
        }
    }

    /// What speaks against the new slot in one metric, whatever the other one says.
    pub fn against(&self, metric: Metric) -> Option<Reason> {
        let finding = self.finding(metric);
        if finding.worse_than_old >= self.rollback_at {
            return Some(Reason::WorseThanOld(metric));
        }
        let over = finding.limit_counts() && finding.over_limit >= self.rollback_at;
        over.then_some(if finding.both_sick { Reason::BothSick(metric) } else { Reason::OverLimit(metric) })
    }

    /// Whether the new slot is proven good in one metric, whatever the other one says.
    pub fn proven_in(&self, metric: Metric) -> bool {
        match metric {
            Metric::Errors => self.proven.errors,
            Metric::Slowness => self.proven.slowness,
        }
    }

    /// Requests on the new slot until it may be promoted, if it goes on as it did. `None` is: never.
    pub fn requests_needed(&self) -> Option<u64> {
        self.requests_needed_in(&[Metric::Errors, Metric::Slowness])
    }

    /// The same where only these metrics count.
    pub fn requests_needed_in(&self, metrics: &[Metric]) -> Option<u64> {
        metrics
            .iter()
            .try_fold(0, |most: u64, metric| Some(most.max(self.finding(*metric).requests_needed()?)))
    }
}
