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

    static ARMED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    fn armed() -> Option<(String, u32)> {
        let text = std::env::var(super::VARIABLE).ok()?;
        let (place, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((place.to_owned(), times.parse().ok()?))
    }

    pub fn pass(place: &'static str) {
        let known = super::PLACES.contains(&place) || super::SWAP_PLACES.contains(&place);
        debug_assert!(known, "`{place}` is in no list");
        let Some((wanted, times)) = ARMED.get_or_init(armed) else { return };
        if wanted == place && PASSED.fetch_add(1, Ordering::SeqCst).saturating_add(1) == *times {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
