//! Waiting for a condition, with a deadline. Nothing in the tests sleeps blindly.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something, at most for `within`.
pub async fn until<T, F, L>(what: &str, within: Duration, mut look: L) -> Result<T>
where
    F: Future<Output = Option<T>>,
    L: FnMut() -> F,
{
    let give_up = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() >= give_up {
            bail!("waited {} s in vain: {what}", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
