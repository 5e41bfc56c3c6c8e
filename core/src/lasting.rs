//! How long a certificate of pointsman's own still lasts, and how long a release may. A certificate that ends in the middle
//! of a release keeps it from going back, so both are known before it begins.

use crate::{Plan, Step, several};

/// A certificate that ends sooner is named, in seconds: time enough to renew it in office hours.
const SOON_S: i64 = 30 * DAY_S;
/// One that ends sooner is an alarm, in seconds: it may be gone after the next holidays.
const CRITICAL_S: i64 = 7 * DAY_S;
/// Whoever makes a certificate for less than this has a program that renews it, in seconds: by hand it is made for a year.
const BY_PROGRAM_S: i64 = 90 * DAY_S;
const DAY_S: i64 = 86_400;

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// It lasts for long.
    Long,
    /// It is to be renewed.
    Soon,
    /// It is to be renewed at once.
    Critical,
    /// It has ended: whoever shows it is refused.
    Ended,
}

impl Lasting {
    /// Of a certificate that lasts for so many more seconds.
    pub fn of(left_s: i64) -> Self {
        match left_s {
            ..=0 => Self::Ended,
            left_s if left_s < CRITICAL_S => Self::Critical,
            left_s if left_s < SOON_S => Self::Soon,
            _ => Self::Long,
        }
    }
}

/// When a certificate ends that lasts from `begin_s` to `end_s`, as far as somebody is to hear of it: 0 where nobody is. One that is
/// made for less than three months is renewed by a program, as it is meant to be, and its end is never far: it is told of
/// when the last tenth of its life has begun and nothing has renewed it. All in seconds since 1970.
pub fn end_to_tell(begin_s: i64, end_s: i64, now_s: i64) -> i64 {
    let lasts_s = end_s.saturating_sub(begin_s);
    let by_program = lasts_s < BY_PROGRAM_S && end_s.saturating_sub(now_s) > lasts_s / 10;
    if by_program { 0 } else { end_s }
}

/// When it ends, in words, by the seconds that are left: `ends in 5 days`, `ended 3 hours ago`.
pub fn ends(left_s: i64) -> String {
    let span = span(left_s.saturating_abs());
    if left_s > 0 { format!("ends in {span}") } else { format!("ended {span} ago") }
}

/// A length of time as coarse as it may be told: `90 seconds`, `5 days`.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..120 => several(seconds, "second", "seconds"),
        120..7_200 => several(seconds / 60, "minute", "minutes"),
        7_200..172_800 => several(seconds / 3_600, "hour", "hours"),
        _ => several(seconds / DAY_S, "day", "days"),
    }
}

/// What to type to renew the certificate of this name.
pub fn renewal(name: &str) -> String {
    format!(
        "make a new one, by the command of `pointsman init` with `--renew {name}`, and copy it to where it is used: \
         docs/operators.md"
    )
}

impl Plan {
    /// How long the release may take at most, in milliseconds: every attempt of every step, its watches, the watch after its
    /// end, and the way back from there. Of what the database does one attempt: each is given hours, and hardly ever takes
    /// them. A person who holds it may take longer.
    pub fn longest_ms(&self) -> u64 {
        let step_ms = |step: &Step| {
            let attempts = if step.is_of_database() { 1 } else { u64::from(self.limits.attempts) };
            let tries_ms = self.attempt_ms(*step).saturating_mul(attempts);
            tries_ms.saturating_add(self.watch_ms(*step).unwrap_or_default())
        };
        let steps_ms = self.steps().iter().map(step_ms).fold(0, u64::saturating_add);
        let back_ms = self.limits.persist_ms.saturating_add(self.attempt_ms(Step::RouteBack));
        steps_ms.saturating_add(self.verdict.after_ms).saturating_add(back_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_renews_is_told_of_when_it_was_not_renewed() {
        let year = 365 * DAY_S;
        assert_eq!(end_to_tell(0, year, 0), year);
        assert_eq!(end_to_tell(0, year, year), year);
        // A day long, and renewed after two thirds of it.
        for (now_s, told) in [(0, 0), (DAY_S * 2 / 3, 0), (DAY_S * 9 / 10, DAY_S), (DAY_S * 2, DAY_S)] {
            assert_eq!(end_to_tell(0, DAY_S, now_s), told, "{now_s}");
        }
    }

    #[test]
    fn a_certificate_is_named_a_month_before_its_end_and_an_alarm_in_its_last_week() {
        use Lasting::{Critical, Ended, Long, Soon};
        let cases =
            [(i64::MIN, Ended), (0, Ended), (1, Critical), (7 * DAY_S - 1, Critical), (7 * DAY_S, Soon)];
        let later = [(30 * DAY_S - 1, Soon), (30 * DAY_S, Long), (i64::MAX, Long)];
        for (left_s, lasting) in cases.into_iter().chain(later) {
            assert_eq!(Lasting::of(left_s), lasting, "{left_s}");
        }
    }

    #[test]
    fn the_end_is_told_as_finely_as_it_matters() {
        let told = [90, 3_600, 86_400, 172_800, -1, -86_400 * 5].map(ends);
        let wanted = ["ends in 90 seconds", "ends in 60 minutes", "ends in 24 hours", "ends in 2 days"];
        assert_eq!(told[..4], wanted);
        assert_eq!(told[4..], ["ended 1 second ago", "ended 5 days ago"]);
    }
}
