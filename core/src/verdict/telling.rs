//! A judgement in the words that operators see: one line, lower case, every number that matters.

use std::fmt;

use super::explain::Rate;
use super::judgement::{Finding, Judgement, Metric, Reason};
use crate::SlotName;

/// E-values above this are not told to the last digit.
const MOST_TOLD: f64 = 1e6;

impl Judgement {
    /// The judgement in words, with the names of the slot that is being released and of the one that served before.
    pub fn told<'a>(&'a self, new: &'a SlotName, old: &'a SlotName) -> Told<'a> {
        self.told_in(new, old, &[Metric::Errors, Metric::Slowness])
    }

    /// The same where only these metrics must be proven good.
    pub fn told_in<'a>(&'a self, new: &'a SlotName, old: &'a SlotName, metrics: &'a [Metric]) -> Told<'a> {
        Told { judgement: self, new, old, metrics }
    }
}

/// A judgement that is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    judgement: &'a Judgement,
    new: &'a SlotName,
    old: &'a SlotName,
    metrics: &'a [Metric],
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { judgement, new, old, .. } = *self;
        match judgement.reason {
            Reason::OverLimit(metric) => {
                let finding = judgement.finding(metric);
                write!(f, "{} on `{new}`: {}", over_limit(metric), Against(&finding.limit.0))?;
                lately(f, &finding.limit.0, finding.lately.0)?;
                write!(f, ", limit {} %, ", figure(finding.limit_bound() * 100.0))?;
                self.evidence(f, finding.over_limit)
            }
            Reason::WorseThanOld(metric) => {
                let finding = judgement.finding(metric);
                let (ours, theirs) = (Against(&finding.baseline.0), Against(&finding.baseline.1));
                write!(f, "{} on `{new}`: {ours}, on `{old}`: {theirs}, ", compared(metric))?;
                write!(f, "limit {} times as many, ", figure(finding.ratio_bound()))?;
                self.evidence(f, finding.worse_than_old)
            }
            Reason::BothSick(metric) if judgement.finding(metric).as_before => {
                let finding = judgement.finding(metric);
                write!(f, "{} on `{new}`: {}", over_limit(metric), Against(&finding.limit.0))?;
                write!(f, ", limit {} %, ", figure(finding.limit_bound() * 100.0))?;
                self.evidence(f, finding.over_limit)?;
                write!(f, ": no worse than `{old}` was before the release, and going back would not help")
            }
            Reason::BothSick(metric) => {
                let finding = judgement.finding(metric);
                let (ours, theirs) = (Against(&finding.limit.0), Against(&finding.limit.1));
                write!(f, "{} on both slots: `{new}`: {ours}, `{old}`: {theirs}, ", over_limit(metric))?;
                self.evidence(f, finding.over_limit)?;
                f.write_str(": going back would not help")
            }
            Reason::Blind => {
                let refused = grouped(judgement.refused_ticks);
                write!(f, "traffic cannot be counted: {refused} ticks refused, the last ones in a row")?;
                judgement.refused.map_or(Ok(()), |refused| write!(f, ": {refused}"))
            }
            Reason::Proven => {
                write!(f, "`{new}` is good: ")?;
                self.both(f)
            }
            Reason::OutOfTime => {
                let elapsed = grouped(judgement.elapsed);
                write!(f, "not decided in {elapsed} ticks: ")?;
                self.both(f)?;
                self.needed(f)
            }
            Reason::NoFreshData => self.open(f, "no data in this tick"),
            Reason::TooEarly => {
                let left = judgement.min_watch.saturating_sub(judgement.watched);
                self.open(f, &format!("{} ticks more to watch", grouped(left)))
            }
            Reason::Suspicious(metric) => {
                let value = told(judgement.finding(metric).against());
                let what = format!("{} on `{new}` are suspicious, e-value {value}", over_limit(metric));
                self.open(f, &what)
            }
            Reason::LatencyUnknown => self.open(f, "times of requests are not known"),
            Reason::Unproven(metric) => self.open(f, &format!("{} need more evidence", over_limit(metric))),
        }
    }
}

impl Told<'_> {
    fn evidence(&self, f: &mut fmt::Formatter<'_>, value: f64) -> fmt::Result {
        write!(f, "e-value {} of {} needed", told(value), told(self.judgement.rollback_at))
    }

    fn open(&self, f: &mut fmt::Formatter<'_>, why: &str) -> fmt::Result {
        write!(f, "{why}; ")?;
        self.both(f)?;
        self.needed(f)
    }

    fn both(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judgement { errors, slowness, .. } = self.judgement;
        let rate = |finding: &Finding| Counted(&finding.limit.0).to_string();
        write!(f, "errors {}, slow requests {}", rate(errors), rate(slowness))
    }

    fn needed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.judgement.requests_needed_in(self.metrics) {
            Some(0) => Ok(()),
            Some(needed) => write!(f, ", about {} requests more", grouped(needed)),
            None => f.write_str(", no number of requests proves it good at these rates"),
        }
    }
}

/// A rate since the watch began hides what began just now, so that is told beside it where it is more.
fn lately(f: &mut fmt::Formatter<'_>, whole: &Rate, lately: Option<f64>) -> fmt::Result {
    match (whole.share(), lately) {
        (Some(whole), Some(lately)) if lately > whole * 1.5 => write!(f, ", lately {} %", percent(lately)),
        _ => Ok(()),
    }
}

fn over_limit(metric: Metric) -> &'static str {
    match metric {
        Metric::Errors => "errors",
        Metric::Slowness => "slow requests",
    }
}

fn compared(metric: Metric) -> &'static str {
    match metric {
        Metric::Errors => "errors",
        Metric::Slowness => "requests slower than before the release",
    }
}

/// `31 of 412 (7.5 %, 5.1-10.6 %)`
struct Counted<'a>(&'a Rate);

impl Counted<'_> {
    fn with(&self, f: &mut fmt::Formatter<'_>, condition: &str) -> fmt::Result {
        let Some(share) = self.0.share() else { return f.write_str("0 of 0") };
        let (low, high) = self.0.interval();
        write!(f, "{} of {} ", grouped(self.0.bad), grouped(self.0.requests))?;
        write!(f, "({} %, {}-{} %{condition})", percent(share), percent(low), percent(high))
    }
}

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(f, "")
    }
}

/// The same beside the e-value of a test: that takes a second for one observation, and the interval a bunch of bad requests, wherever
/// they are. Where bunches are large, or not known, the interval holds shares that the test has ruled out, and says why.
struct Against<'a>(&'a Rate);

impl fmt::Display for Against<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bunches = self.0.dispersion.round();
        let condition =
            if bunches > 1.0 { format!(" if in bunches of {}", figure(bunches)) } else { String::new() };
        Counted(self.0).with(f, &condition)
    }
}

/// Two digits that mean something, as far as that is short.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent == 0.0 => "0".to_owned(),
        _ if percent >= 99.95 => "100".to_owned(),
        _ if percent >= 1.0 => format!("{percent:.1}"),
        _ if percent >= 0.1 => format!("{percent:.2}"),
        _ => format!("{percent:.3}"),
    }
}

/// A bound as somebody wrote it.
fn figure(number: f64) -> String {
    ((number * 10_000.0).round() / 10_000.0).to_string()
}

/// An e-value.
fn told(value: f64) -> String {
    match value {
        _ if value > MOST_TOLD => format!("above {}", grouped(MOST_TOLD as u64)),
        _ if value < 10.0 => format!("{value:.1}"),
        _ => grouped(value as u64),
    }
}

/// `5 210`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [(0, "0"), (999, "999"), (5_210, "5 210"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), expected);
        }
        for (share, expected) in
            [(0.0, "0"), (0.000_21, "0.021"), (0.0021, "0.21"), (0.075, "7.5"), (0.106, "10.6"), (1.0, "100")]
        {
            assert_eq!(percent(share), expected);
        }
        for (value, expected) in
            [(0.4, "0.4"), (5_210.7, "5 210"), (999_999.0, "999 999"), (1e12, "above 1 000 000")]
        {
            assert_eq!(told(value), expected);
        }
        let rate = |dispersion| Rate { bad: 9, requests: 136, dispersion };
        assert_eq!(Against(&rate(10.0)).to_string(), "9 of 136 (6.6 %, 0.016-43.0 % if in bunches of 10)");
        assert_eq!(Against(&rate(1.2)).to_string(), Counted(&rate(1.2)).to_string());
        assert_eq!((figure(0.07 * 100.0), figure(1.25)), ("7".to_owned(), "1.25".to_owned()));
    }
}
