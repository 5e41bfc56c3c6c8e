//! The machine's own clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pointsman_core::Timestamp;
use pointsman_core::ports::Clock;

/// Where the time that does not jump begins: when it was first asked for.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's wall clock, and its monotonic one for pauses and for what was waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The time now, in microseconds since 1970: for measuring how far apart two things happened on two hosts.
    pub fn now_us(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970: every deadline has then passed, and nothing is done.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn steady_ms(&self) -> u64 {
        u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn pause(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
