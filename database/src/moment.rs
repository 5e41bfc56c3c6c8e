//! The clock, and how moments stand in names.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    Timestamp::now().as_millisecond().unsigned_abs()
}

/// `20240115T101500Z`.
pub(crate) fn stamp(ms: u64) -> String {
    shown(ms, "%Y%m%dT%H%M%SZ")
}

/// `20240115`, in UTC.
pub(crate) fn day(ms: u64) -> String {
    shown(ms, "%Y%m%d")
}

fn shown(ms: u64, form: &str) -> String {
    let moment =
        i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    moment.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_sort_as_their_names_do() {
        assert_eq!(super::stamp(1_705_313_700_000), "20240115T101500Z");
        assert_eq!(super::day(1_705_313_700_000), "20240115");
    }
}
