//! What clients that connect again notice of a swap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use pointsman_database::{Progress, Session, Settings, restore};
use serde_json::{Value, json};

use super::ROUNDS;
use super::cost::middle;
use super::place::{Place, rule};
use crate::figures::rounded;

const CLIENTS: usize = 8;
/// How long clients are served before and after a swap.
const AROUND: Duration = Duration::from_secs(2);

pub async fn measure(place: &Place) -> Result<Value> {
    eprintln!("== swaps");
    let taken = place.take("swapped").await?;
    let (authority, progress) = (rule(), Progress::default());
    let (mut gaps, mut shut, mut errors) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        restore::beside(&place.settings, &taken.id, &authority, &progress).await?;
        // Of the clients no one writes: what came before them counts.
        let loss = restore::loss(&place.settings, &taken.id, &progress).await?.total();
        let served = Arc::new(Served {
            start: Instant::now(),
            last_us: 0.into(),
            gap_us: 0.into(),
            over: false.into(),
        });
        let settings = Settings { user: format!("{}_app", place.settings.name), ..place.settings.clone() };
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(client(settings.clone(), Arc::clone(&served)))).collect();
        tokio::time::sleep(AROUND).await;
        served.gap_us.store(0, Ordering::SeqCst);
        let swapped = restore::swap(&place.settings, &taken.id, loss, &authority, &progress).await?;
        tokio::time::sleep(AROUND).await;
        served.over.store(true, Ordering::SeqCst);
        for client in clients {
            errors = errors.max(client.await?);
        }
        gaps.push(served.gap_us.load(Ordering::SeqCst) as f64 / 1000.0);
        shut.push(swapped.gap_ms as f64);
        restore::confirm(&place.settings, &authority).await.context("the old database")?;
    }
    Ok(json!({
        "swap_gap_ms": rounded(middle(gaps)),
        "swap_shut_ms": rounded(middle(shut)),
        "swap_errors_per_session": errors,
    }))
}

/// What all clients see together.
struct Served {
    start: Instant,
    last_us: AtomicU64,
    gap_us: AtomicU64,
    over: AtomicBool,
}

impl Served {
    fn answered(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let last = self.last_us.fetch_max(now, Ordering::SeqCst);
        self.gap_us.fetch_max(now.saturating_sub(last), Ordering::SeqCst);
    }
}

/// Reads until it is over and connects again at once. Returns how many of its sessions broke.
async fn client(settings: Settings, served: Arc<Served>) -> u64 {
    let mut broken = 0;
    while !served.over.load(Ordering::SeqCst) {
        let Ok(session) = Session::open(&settings, &settings.name, "visitor").await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        while !served.over.load(Ordering::SeqCst) {
            let read = session.client().query("SELECT name FROM features WHERE id = 7", &[]).await;
            if read.is_err() {
                broken += 1;
                break;
            }
            served.answered();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    broken
}
