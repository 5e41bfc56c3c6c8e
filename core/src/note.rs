//! What is noted of a release for its checklist. Nothing follows from a note: the release goes on as without it.

use crate::{CheckName, CheckSeen, HostName, Step};

/// Something seen or said of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Checks as one place made them.
    Checks {
        /// The step they belong to: `check`, or the step whose watch they were read in.
        step: Step,
        /// Whose agent made them.
        host: HostName,
        /// What came of each.
        seen: Vec<CheckSeen>,
    },
    /// What visitors met on the new slot from when they were first led there.
    Traffic(TrafficSeen),
    /// A person ticked a point of the checklist.
    Tick {
        /// Which.
        point: CheckName,
        /// Who.
        by: String,
        /// In their words, if they said anything.
        text: Option<String>,
    },
}

/// What visitors met over a stretch of time. A watch has several, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSeen {
    /// How long was looked, in seconds with data.
    pub seconds: u64,
    /// Seconds of them in which a load balancer said nothing, or not everything, and one for each coordinator that found the
    /// release under way when it began.
    pub incomplete: u64,
    /// Seconds of those in which HAProxy's own counters do not say either how many requests there were; `None` in journals from
    /// before that was noted.
    pub blind: Option<u64>,
    /// Requests to the slot that the counters know to have ended, and of which no access line came: after a reload the old process
    /// writes none. `None` in journals from before that was noted.
    pub lost: Option<u64>,
    /// Those of them that by the counters may have failed, at most; `None` in journals from before that was noted.
    pub lost_failures: Option<u64>,
    /// Requests that ended.
    pub requests: u64,
    /// Those that failed: 5xx, or broken off by the server.
    pub failures: u64,
    /// Requests of which it is known how long they took: not those that became a `WebSocket`, nor lines without times. `None` in
    /// journals from before that was noted.
    pub timed: Option<u64>,
    /// Those that took two seconds or longer; `None` in journals from before that was noted.
    pub slow: Option<u64>,
    /// Their 99th percentile, in milliseconds; `None` where nothing can be said of latencies.
    pub p99_ms: Option<u64>,
    /// Those that took longer than the plan allows, or whose visitors gave up after that; `None` in journals from before that
    /// was noted.
    pub too_slow: Option<u64>,
    /// The release went back, and this goes on to the moment from which nobody was led to its slot any more.
    pub to_the_end: bool,
}

impl TrafficSeen {
    /// This stretch and another one as one.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| {
            one.zip(other).map(|(one, other)| one.saturating_add(other))
        };
        Self {
            seconds: self.seconds.saturating_add(other.seconds),
            incomplete: self.incomplete.saturating_add(other.incomplete),
            blind: both(self.blind, other.blind),
            lost: both(self.lost, other.lost),
            lost_failures: both(self.lost_failures, other.lost_failures),
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
            timed: both(self.timed, other.timed),
            slow: both(self.slow, other.slow),
            p99_ms: self.p99_ms.max(other.p99_ms),
            too_slow: both(self.too_slow, other.too_slow),
            to_the_end: self.to_the_end || other.to_the_end,
        }
    }
}
