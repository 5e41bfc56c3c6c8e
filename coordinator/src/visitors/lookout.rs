//! The lookout of one environment: it hears every load balancer all the time, tells whoever listens, and remembers the last
//! quarter of an hour. What a release is compared with, and what to expect of it, is known from here before it begins.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_core::ports::{Heard, Position, Second};
use pointsman_core::signal::Tick;
use pointsman_core::{BackendName, Before, Code, HostName, Problem};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ears::{Ears, LookoutEar};
use super::merger::{Merger, Whole, too_few_lines};
use super::past::Past;
use super::reading::{REPORTS, Read, read};
use crate::fleet::GrpcFleet;

/// Where nothing comes that is told this often.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a plan waits for every load balancer to say whether it has signals: a stream is opened within its bound.
const KNOWN: Duration = Duration::from_millis(3_500);

/// Whether the load balancers have signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivers {
    /// Not all of them have said.
    #[default]
    Unknown,
    /// They have.
    Yes,
    /// All say that they have none.
    No,
}

/// The lookout of one environment.
#[derive(Debug)]
pub struct Lookout {
    ears: Ears,
    past: Mutex<Past>,
    delivers: watch::Sender<Delivers>,
}

impl Lookout {
    /// A lookout that hears nothing yet. Slower than `limit_ms` is too slow.
    pub fn new(limit_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            ears: Ears::default(),
            past: Mutex::new(Past::new(limit_ms)),
            delivers: watch::Sender::new(Delivers::Unknown),
        })
    }

    /// Hears these load balancers from now on, as long as anybody keeps the lookout. Where another coordinator has heard
    /// them up to `from`, what came since then is heard first, and remembered for whoever goes on there.
    pub fn begin(self: &Arc<Self>, balancers: &[HostName], fleet: &GrpcFleet, from: Option<Position>) {
        if from.is_some() {
            self.ears.expect();
        }
        tokio::spawn(look_out(Arc::downgrade(self), balancers.to_vec(), fleet.clone(), from));
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a backend was like lately.
    pub fn before(&self, backend: &BackendName) -> Before {
        self.past().of(backend)
    }

    /// Whether the load balancers have signals, as soon as that is known: a load balancer that does not answer is not
    /// taken for one that has none.
    pub async fn delivers(&self) -> Delivers {
        let mut known = self.delivers.subscribe();
        let told = known.wait_for(|delivers| *delivers != Delivers::Unknown);
        match tokio::time::timeout(KNOWN, told).await {
            Ok(Ok(delivers)) => *delivers,
            _ => Delivers::Unknown,
        }
    }

    /// An ear for what comes from now on; with `after` for what came since that second, too, as far as it is remembered.
    pub fn listen(&self, after: Option<u64>) -> LookoutEar {
        self.ears.listen(after)
    }

    fn tell(&self, heard: Heard) {
        if let Heard::Second(second) = &heard {
            self.past().take(second);
        }
        self.ears.tell(&heard);
    }

    fn note(&self, merger: &Merger) {
        let now = match merger.without_signals() {
            true => Delivers::No,
            false if merger.heard_of_all() => Delivers::Yes,
            false => return,
        };
        self.delivers.send_if_modified(|known| std::mem::replace(known, now) != now);
    }
}

/// Hears until nobody keeps the lookout any more.
async fn look_out(
    lookout: std::sync::Weak<Lookout>,
    balancers: Vec<HostName>,
    fleet: GrpcFleet,
    from: Option<Position>,
) {
    let mut numbers = Numbers { last: from.as_ref().map_or(0, |from| from.number) };
    let marks = from.map(|from| from.read).unwrap_or_default();
    let (report, mut reports) = mpsc::channel(REPORTS);
    let mut readers = JoinSet::new();
    for host in &balancers {
        let so_far = marks.get(host).map(Read::from).unwrap_or_default();
        readers.spawn(read(fleet.clone(), host.clone(), so_far, report.clone()));
    }
    drop(report);
    let mut last = Instant::now();
    let mut merger = Merger::going_on(&balancers, marks, last);
    loop {
        let due = merger.due().unwrap_or_else(|| last + SILENCE);
        tokio::select! {
            came = reports.recv() => match came {
                Some((host, report)) => merger.take(host, report, Instant::now()),
                None => return,
            },
            () = tokio::time::sleep_until(due) => {}
        }
        let Some(lookout) = lookout.upgrade() else { return };
        lookout.note(&merger);
        while let Some(whole) = merger.whole(Instant::now()) {
            last = Instant::now();
            let number = numbers.of(whole.second);
            lookout.tell(Heard::Second(second_of(&merger, number, whole)));
        }
        if last.elapsed() >= SILENCE {
            last = Instant::now();
            lookout.tell(Heard::Silence(merger.why_silent()));
        }
    }
}

/// Numbers of seconds: those of the coordinator's clock, and growing also where it was set back, because nobody judges a
/// number twice.
#[derive(Debug, Default)]
struct Numbers {
    last: u64,
}

impl Numbers {
    fn of(&mut self, second: u64) -> u64 {
        self.last = second.max(self.last.saturating_add(1));
        self.last
    }
}

/// A second, with what is not in it.
fn second_of(merger: &Merger, number: u64, whole: Whole) -> Second {
    let Whole { merged, told, troubles, read, .. } = whole;
    let missing = merger.missing(&told).into_iter().next();
    let blind = missing.or_else(|| troubles.into_values().next()).or_else(|| lost_lines(&merged));
    Second { position: Position { number, read }, seen: Arc::new(merged), blind }
}

/// Lines are not lost evenly: where too few came, of all or of one slot, nothing is made of them. Where HAProxy was just
/// reloaded nobody knows how many there should be, and only the times are left out, for as long as that takes.
fn lost_lines(merged: &Tick) -> Option<Problem> {
    let problem = Problem::new(Code::SignalsMissing, too_few_lines(merged)?);
    Some(problem.hint("see docs/signals.md: when coverage is below 99 %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_whatever_the_clock_does() {
        let mut numbers = Numbers::default();
        let found = [100, 101, 104, 40, 41, 107, 108].map(|second| numbers.of(second));
        assert_eq!(found, [100, 101, 104, 105, 106, 107, 108]);
    }
}
