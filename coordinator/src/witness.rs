//! What visitors meet on the new slot while a release is watched, added up for its checklist. It decides nothing, and no
//! release waits for it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::histogram::Histogram;
use pointsman_core::{Note, Phase, ReleaseId, SlotName, Step, TrafficSeen};
use pointsman_proto::{convert, v1};
use tokio_stream::StreamExt as _;
use tracing::warn;

use crate::office::Office;
use crate::traffic::Watchers;

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
        let met = meet(&office, &watchers, &release, &slot).await;
        // Nothing is noted of nothing: the checklist says that there is no data.
        if met.seconds == 0 {
            continue;
        }
        if let Err(problem) = office.note(&release, Note::Traffic(met)).await {
            warn!(%release, problem = %problem.in_full(), "what visitors met is not noted");
        }
    }
}

/// The release whose last watch runs, with its slot: all visitors are on it.
fn watched(office: &Office) -> Option<(ReleaseId, SlotName)> {
    let open = office.open_release()?;
    let kept = office.release(Some(&open)).ok().flatten()?;
    let watching = matches!(kept.state.phase, Phase::Watching { after: Step::Switch, .. });
    watching.then(|| (open, kept.state.plan.to.name.clone()))
}

/// Adds up until the watch is over.
async fn meet(
    office: &Arc<Office>,
    watchers: &Watchers,
    release: &ReleaseId,
    slot: &SlotName,
) -> TrafficSeen {
    let mut met = Met::default();
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
        }
    }
    met.seen()
}

/// What has been met so far.
#[derive(Default)]
struct Met {
    seen: TrafficSeen,
    latency: Histogram,
    /// Some second said nothing of latencies: what the others say is not the whole.
    silent: bool,
}

impl Met {
    fn add(&mut self, tick: &v1::TrafficTick, release: &ReleaseId, slot: &SlotName) {
        if tick.balancers.is_empty() {
            return;
        }
        self.seen.seconds = self.seen.seconds.saturating_add(1);
        self.silent |= !tick.latency_usable;
        let slots = tick.slots.iter().filter(|found| found.slot == slot.as_str());
        let cells = slots.flat_map(|slot| &slot.cells).filter(|cell| cell.release == release.as_str());
        for cell in cells.filter_map(|cell| cell.cell.as_ref()) {
            let Ok((_, cell)) = convert::cell_from_wire(cell) else { continue };
            // A request that its visitor broke off says nothing of the release.
            self.seen.requests = self.seen.requests.saturating_add(cell.judged());
            self.seen.failures = self.seen.failures.saturating_add(cell.failures);
            self.latency.merge(&cell.latency);
        }
    }

    fn seen(mut self) -> TrafficSeen {
        let p99 = self.latency.quantile_ms(990).filter(|_| !self.silent);
        // Rounded up: a limit that is just missed is missed.
        self.seen.p99_ms = p99.map(|ms| ms.ceil() as u64);
        self.seen
    }
}
