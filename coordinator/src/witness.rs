//! What visitors meet on the new slot while a release is watched, added up for its checklist. It decides nothing, and no
//! release waits for it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::histogram::Histogram;
use pointsman_core::{Note, ReleaseId, SlotName, TrafficSeen};
use pointsman_proto::{convert, v1};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tracing::warn;

use crate::checklist::P99_LIMIT_MS;
use crate::office::Office;
use crate::visitors::traffic::Watchers;

/// How often what was met is noted: so much of it a coordinator that is killed forgets.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether a watch has begun, or is over, where nothing else tells.
const LOOK: Duration = Duration::from_millis(500);

/// Bears witness of every watch of an environment, for ever.
pub async fn witness(office: Arc<Office>) {
    let watchers = Watchers::default();
    loop {
        let Some((release, slot)) = watched(&office) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        meet(&office, &watchers, &release, &slot).await;
    }
}

/// The release whose visitors are watched, with its slot: a split's share of them, or all; also while it is held there.
fn watched(office: &Office) -> Option<(ReleaseId, SlotName)> {
    let open = office.open_release()?;
    let kept = office.release(Some(&open)).ok().flatten()?;
    kept.state.watched_after().map(|_| (open, kept.state.plan.to.name.clone()))
}

/// Notes what has been met, and begins anew. Nothing is noted of nothing: the checklist says that there is no data.
async fn note(office: &Office, release: &ReleaseId, met: &mut Met) {
    let seen = std::mem::take(met).seen();
    if seen.seconds == 0 {
        return;
    }
    if let Err(problem) = office.note(release, Note::Traffic(seen)).await {
        warn!(%release, problem = %problem.in_full(), "what visitors met is not noted");
    }
}

/// Adds up until the watch is over.
async fn meet(office: &Arc<Office>, watchers: &Watchers, release: &ReleaseId, slot: &SlotName) {
    let mut met = Met::default();
    let mut note_at = Instant::now() + NOTE_EVERY;
    // The end of the watch is seen at once: whoever asks for the checklist right after it is to find this in it.
    let mut moves = office.moves();
    let runs = || watched(office).is_some_and(|(running, _)| running == *release);
    while runs() {
        let Ok(mut ticks) = watchers.watch(Arc::clone(office)) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        while runs() {
            tokio::select! {
                tick = ticks.next() => match tick {
                    Some(Ok(tick)) => met.add(&tick, release, slot),
                    // There are no signals: nothing will come before the watch is over.
                    Some(Err(_)) | None => {
                        tokio::time::sleep(LOOK).await;
                        break;
                    }
                },
                Ok(()) = moves.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            if Instant::now() >= note_at {
                note(office, release, &mut met).await;
                note_at = Instant::now() + NOTE_EVERY;
            }
        }
    }
    note(office, release, &mut met).await;
}

/// What has been met so far.
#[derive(Default)]
struct Met {
    seen: TrafficSeen,
    latency: Histogram,
}

impl Met {
    fn add(&mut self, tick: &v1::TrafficTick, release: &ReleaseId, slot: &SlotName) {
        if tick.balancers.is_empty() {
            return;
        }
        self.seen.seconds = self.seen.seconds.saturating_add(1);
        self.seen.incomplete = self.seen.incomplete.saturating_add(u64::from(!tick.latency_usable));
        let slots = tick.slots.iter().filter(|found| found.slot == slot.as_str());
        let cells = slots.flat_map(|slot| &slot.cells).filter(|cell| cell.release == release.as_str());
        for cell in cells.filter_map(|cell| cell.cell.as_ref()) {
            let Ok((_, cell)) = convert::cell_from_wire(cell) else { continue };
            // A request that its visitor broke off says nothing of the release.
            self.seen.requests = self.seen.requests.saturating_add(cell.judged());
            self.seen.failures = self.seen.failures.saturating_add(cell.failed_by_servers());
            self.latency.merge(&cell.latency);
        }
    }

    fn seen(mut self) -> TrafficSeen {
        // Rounded up: a limit that is just missed is missed.
        self.seen.p99_ms = self.latency.quantile_ms(990).map(|ms| ms.ceil() as u64);
        self.seen.timed = Some(self.latency.total());
        self.seen.slow = Some(self.latency.above(P99_LIMIT_MS - 1));
        self.seen
    }
}
