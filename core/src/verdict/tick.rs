//! What the load balancers saw in one tick, and which ticks are fit to be judged.

/// What one slot did in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered, or that failed.
    pub requests: u32,
    /// Requests that failed.
    pub errors: u32,
    /// Requests that their visitors gave up after more than the limit without a word from the slot: neither answered nor failed,
    /// but slow, and among those that are.
    pub given_up: u32,
    /// Requests whose time is known, or known to be over the limit: only of these can be said how many were slow.
    pub timed: u32,
    /// Requests that took longer than the limit.
    pub over_limit: u32,
    /// Requests that took longer than the frozen threshold, which comes from what the old slot did before the release.
    pub over_baseline: u32,
}

impl Counts {
    fn add_up(&self, latency: Latency) -> bool {
        let slow = self.over_limit.max(self.over_baseline);
        let ended = self.requests.saturating_add(self.given_up);
        let times = latency == Latency::Unknown || (slow <= self.timed && self.timed <= ended);
        self.errors <= self.requests && times
    }
}

/// Whether the times of (nearly) all requests of a tick are known that have one: a WebSocket has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// They are.
    Known,
    /// Too many log lines were lost: slowness has no data in this tick, whatever was counted.
    Unknown,
}

/// One tick of the watch, usually a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its number. Numbers grow; one that is left out is a tick without data.
    pub number: u64,
    /// What the slot that is being released did.
    pub new: Counts,
    /// What the slot that served before did meanwhile.
    pub old: Counts,
    /// Whether slowness can be judged by it.
    pub latency: Latency,
}

/// Why a tick was not counted. It stands for no data: neither for success nor for failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More failures than requests.
    #[error("tick counts more failures than requests")]
    DoesNotAddUp,
    /// The number is not above the last one: the tick was counted before, or whoever counts has started over.
    #[error("tick is not newer than the last one")]
    NotNewer,
}

impl Tick {
    /// Whether the tick may follow the one numbered `last`.
    pub(super) fn admit(&self, last: Option<u64>) -> Result<(), Refused> {
        if last.is_some_and(|last| self.number <= last) {
            return Err(Refused::NotNewer);
        }
        if self.new.add_up(self.latency) && self.old.add_up(self.latency) {
            return Ok(());
        }
        Err(Refused::DoesNotAddUp)
    }

    /// Failures as the tests count them.
    pub(super) fn errors(&self) -> Sample {
        let count = |counts: Counts| Slot {
            requests: counts.requests.into(),
            over_limit: counts.errors.into(),
            over_baseline: counts.errors.into(),
        };
        Sample { new: count(self.new), old: count(self.old) }
    }

    /// Slow requests as the tests count them: none at all, and no requests either, while latency is unknown.
    pub(super) fn slowness(&self) -> Sample {
        if self.latency == Latency::Unknown {
            return Sample::default();
        }
        let count = |counts: Counts| Slot {
            requests: counts.timed.into(),
            over_limit: counts.over_limit.into(),
            over_baseline: counts.over_baseline.into(),
        };
        Sample { new: count(self.new), old: count(self.old) }
    }
}

/// One metric of one slot in one or more ticks. Counts are whole numbers far below 2^53, so doubles are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slot {
    pub requests: f64,
    /// Bad ones by the absolute test.
    pub over_limit: f64,
    /// Bad ones by the relative test: for errors the same.
    pub over_baseline: f64,
}

impl Slot {
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            over_limit: self.over_limit + other.over_limit,
            over_baseline: self.over_baseline + other.over_baseline,
        }
    }

    pub fn share_over_limit(self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.over_limit / self.requests)
    }

    pub fn share_over_baseline(self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.over_baseline / self.requests)
    }
}

/// One metric of both slots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub new: Slot,
    pub old: Slot,
}

impl Sample {
    pub fn plus(self, other: Self) -> Self {
        Self { new: self.new.plus(other.new), old: self.old.plus(other.old) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ticks_are_refused() {
        let counts = |requests, errors, over_limit, over_baseline| Counts {
            requests,
            errors,
            timed: requests,
            over_limit,
            over_baseline,
            ..Counts::default()
        };
        let timed = |timed| Counts { timed, ..counts(5, 0, 3, 0) };
        let good = counts(5, 5, 0, 5);
        let cases = [
            (good, Latency::Known, Some(6), Ok(())),
            (good, Latency::Known, None, Ok(())),
            (good, Latency::Known, Some(7), Err(Refused::NotNewer)),
            (good, Latency::Known, Some(8), Err(Refused::NotNewer)),
            (counts(5, 6, 0, 0), Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (counts(5, 0, 6, 0), Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (counts(5, 0, 0, 6), Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (counts(5, 0, 0, 6), Latency::Unknown, None, Ok(())),
            (timed(3), Latency::Known, None, Ok(())),
            (timed(2), Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (timed(6), Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (Counts { given_up: 1, ..timed(6) }, Latency::Known, None, Ok(())),
            (Counts { given_up: 1, ..timed(7) }, Latency::Known, None, Err(Refused::DoesNotAddUp)),
            (counts(5, 6, 0, 0), Latency::Unknown, None, Err(Refused::DoesNotAddUp)),
        ];
        for (counts, latency, last, expected) in cases {
            let new = Tick { number: 7, new: counts, old: good, latency };
            let old = Tick { number: 7, new: good, old: counts, latency };
            assert_eq!(new.admit(last), expected, "{new:?}");
            assert_eq!(old.admit(last), expected, "{old:?}");
        }
    }
}
