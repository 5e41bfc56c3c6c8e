//! The guard of the route: a reload that began before a switch and ends after it brings the old route back, because
//! the new worker has read the map before it was written. The guard sees that and sets the route again.
//!
//! It never fights a person: a route that changed while the worker stayed the same was changed by hand, and is left for
//! people to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::balancer::Balancer;
use crate::switch;

/// How often the guard looks, and how often soon after a switch, when such a reload may be under way.
const CALM: Duration = Duration::from_secs(1);
const ALERT: Duration = Duration::from_millis(100);
/// How long after a switch: longer than a reload takes.
const ALERT_FOR: Duration = Duration::from_secs(10);

/// Remembers when a route was last set.
#[derive(Clone, Debug)]
pub struct Guard {
    started: Instant,
    set_at_ms: Arc<AtomicU64>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { started: Instant::now(), set_at_ms: Arc::default() }
    }
}

impl Guard {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A route was set: the guard is alert for a while.
    pub fn route_was_set(&self) {
        self.set_at_ms.store(self.now_ms().max(1), Ordering::Relaxed);
    }

    fn pause(&self) -> Duration {
        let set_at_ms = self.set_at_ms.load(Ordering::Relaxed);
        let alert_ms = u64::try_from(ALERT_FOR.as_millis()).unwrap_or(u64::MAX);
        let alert = set_at_ms > 0 && self.now_ms().saturating_sub(set_at_ms) < alert_ms;
        if alert { ALERT } else { CALM }
    }
}

/// Guards the route for ever.
pub async fn watch(balancer: Balancer) {
    loop {
        tokio::time::sleep(balancer.guard.pause()).await;
        // Whoever changes the route just now looks after it.
        let Ok(_changing) = balancer.changing.try_lock() else { continue };
        balancer.file.look_again().await;
        let Some(on_disk) = balancer.file.read() else { continue };
        // HAProxy is down or busy: the next look will tell.
        let (Ok(info), Ok(runtime)) = (balancer.workers.info().await, balancer.workers.route().await) else {
            continue;
        };
        // States of servers: a start makes all of them ready, the first one too, and that is no person's doing. Nor
        // is what the agent itself left half-done.
        let by_states = !balancer.shows_epoch();
        if runtime.is_none() && !by_states {
            continue;
        }
        let settled = balancer.file.settled();
        if settled == Some(info.pid) && !balancer.workers.cut_short() {
            continue;
        }
        let reloaded = settled.is_some() || by_states;
        let older = runtime.as_ref().is_none_or(|runtime| runtime.epoch < on_disk.epoch);
        if reloaded && older {
            let found = runtime.map_or_else(|| "none".to_owned(), |runtime| runtime.to_string());
            info!(pid = info.pid, found, wanted = %on_disk, "a reload brought an older route back: setting it again");
            if let Err(problem) = balancer.workers.set_route(&on_disk).await {
                warn!(%problem, "could not set the route again");
                continue;
            }
            balancer.file.keep_again(&on_disk).await;
        } else if runtime.as_ref() != Some(&on_disk) {
            continue;
        }
        // Of two reloads in a row, the worker of the first is an old one already, perhaps with the old map.
        if reloaded {
            let told = switch::set_old_workers(&balancer, &on_disk).await;
            info!(pid = info.pid, "HAProxy was reloaded, the route stands{told}");
        }
        balancer.file.settle(info.pid);
    }
}
