//! Named places between two effects, where a test may have this process killed. Builds without debug assertions,
//! which is what people install, hold nothing of it.

/// The variable that says where: `PLACE`, or `PLACE:N` for the N-th time it is passed.
pub const VARIABLE: &str = "POINTSMAN_KILL_AT";

/// Every place: what tests go through one by one.
pub const PLACES: &[&str] = &[
    "journal-before-commit",
    "journal-after-commit",
    "order-before-send",
    "order-after-answer",
    "order-before-receipt",
    "order-begun",
    "order-acted",
    "order-settled",
    "stage-before-mark",
    "link-before-rename",
    "link-after-rename",
    "flag-changed",
    "route-on-disk",
    "route-in-worker",
    "route-confirmed",
];

/// Places in the work on a database, beside those above: its own tests go through them.
pub const MIGRATE_PLACES: &[&str] = &[
    "migrate-intended",
    "migrate-locked",
    "migrate-statement",
    "migrate-statement-done",
    "migrate-commit",
    "migrate-committed",
    "migrate-confirmed",
    "migrate-outside",
    "migrate-outside-done",
    "migrate-outside-recorded",
];

/// Those of a backup that comes or goes, and of a database that a restore makes.
pub const BACKUP_PLACES: &[&str] =
    &["backup-published", "backup-withdrawn", "restore-recorded", "restore-created"];

/// What ends the value of the variable where the process is to be stopped, as by `kill -STOP`, instead of killed: a test
/// then does something to the world around it, and lets it go on.
pub const STOP: &str = ":stop";

/// Those of a swap of databases, which the tests of that go through.
pub const SWAP_PLACES: &[&str] =
    &["swap-intended", "swap-shut", "swap-cleared", "swap-renamed", "swap-committed", "swap-opened"];

/// Kills this process, as `kill -9` would, if a test asked for it here.
#[inline]
pub fn pass(place: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use rustix::process::{Signal, getpid, kill_process};

    /// How long some thread may take to take a signal, and how often it is looked whether one has.
    const TAKEN_WITHIN: Duration = Duration::from_secs(5);
    const LOOK_EVERY: Duration = Duration::from_micros(100);

    struct Armed {
        place: String,
        times: u32,
        signal: Signal,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    fn armed() -> Option<Armed> {
        let text = std::env::var(super::VARIABLE).ok()?;
        let (text, signal) = match text.strip_suffix(super::STOP) {
            Some(text) => (text, Signal::STOP),
            None => (text.as_str(), Signal::KILL),
        };
        let (place, times) = text.split_once(':').unwrap_or((text, "1"));
        Some(Armed { place: place.to_owned(), times: times.parse().ok()?, signal })
    }

    pub fn pass(place: &'static str) {
        let known = [super::PLACES, super::MIGRATE_PLACES, super::SWAP_PLACES, super::BACKUP_PLACES]
            .iter()
            .any(|list| list.contains(&place));
        debug_assert!(known, "`{place}` is not in a list");
        let Some(armed) = ARMED.get_or_init(armed) else { return };
        if armed.place == place && PASSED.fetch_add(1, Ordering::SeqCst).saturating_add(1) == armed.times {
            let _ = kill_process(getpid(), armed.signal);
            // A thread that sleeps may be the one to take the signal. This one must not go on before it has: by then all are
            // to stop, and this one does as soon as it has looked.
            let give_up = Instant::now() + TAKEN_WITHIN;
            while armed.signal == Signal::STOP && stop_is_pending() && Instant::now() < give_up {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Whether a signal to stop waits for this process. Where nobody can tell it is taken to have come.
    fn stop_is_pending() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        let stop = u32::try_from(Signal::STOP.as_raw()).unwrap_or(0);
        pending & 1u64.checked_shl(stop.saturating_sub(1)).unwrap_or(0) != 0
    }
}
