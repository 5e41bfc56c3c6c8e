//! The visitors of an environment's releases: the coordinator's adapter of [`pointsman_core::ports::Signals`]. It hears by
//! the lookout, keeps what a judge knows in a small file, and shows the newest to people.

mod ears;
pub mod kept;
pub(crate) mod lookout;
mod merger;
mod offset;
mod past;
mod reading;
pub(crate) mod traffic;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_chassis::newest::{self, Newest};
use pointsman_core::ports::{Heard, Position, Signals};
use pointsman_core::signal::{Probed, Probes};
use pointsman_core::verdict::Judgement;
use pointsman_core::{Aftermath, Code, EnvironmentName, Judged, Plan, Problem, ReleaseId, SlotPlan};
use pointsman_proto::{convert, v1};
use tokio::sync::watch;
use tracing::warn;

use ears::LookoutEar;
use kept::Kept;
use lookout::Lookout;
pub(crate) use reading::Read;

/// Seconds in the chart that people see.
const CHART_SECONDS: usize = 60;
/// Longest wait for the disk: the next second is there by then, and what is known is put away with it. Without this a slow
/// disk would have the same second put away again and again.
const KEEP: Duration = Duration::from_secs(1);
/// So many seconds in a row that were not put away are told.
const UNKEPT_SECONDS: u32 = 5;
/// Bytes of the checksum at the end of a file of before it had two places, and the largest that is read.
const CHECKSUM: usize = 32;
const MOST_OF_BEFORE: u64 = 64 * 1024;

/// What is shown of the visitors of one release.
#[derive(Clone, Debug)]
struct Shown {
    plan: Arc<Plan>,
    judgement: Judgement,
    probed: Probed,
    blind: String,
    /// Of each second the failed and the slow requests of every hundred.
    chart: VecDeque<[f32; 2]>,
}

/// What could not be put away.
#[derive(Debug, Default)]
struct Unkept {
    /// Seconds in a row.
    seconds: u32,
    why: String,
}

/// The visitors of an environment's releases. Cheap to clone.
#[derive(Clone)]
pub struct Visitors {
    lookout: Option<Arc<Lookout>>,
    file: Arc<Path>,
    shown: Arc<Mutex<Option<Shown>>>,
    unkept: Arc<Mutex<Unkept>>,
    no_way_back: Arc<Mutex<String>>,
    changed: watch::Sender<u64>,
    /// Held by whoever writes the file: a writer that nobody waits for any more goes on.
    writing: Arc<tokio::sync::Mutex<Newest>>,
}

impl Visitors {
    /// The visitors of an environment; what is known of them is kept in a folder of the coordinator's state.
    pub fn new(folder: &Path, environment: &EnvironmentName, lookout: Option<Arc<Lookout>>) -> Self {
        let file: PathBuf = folder.join(environment.as_str());
        let (shown, changed) = (Arc::default(), watch::Sender::new(0));
        let writing = Arc::new(tokio::sync::Mutex::new(Newest::new(file.clone())));
        let (unkept, no_way_back) = (Arc::default(), Arc::default());
        Self { lookout, file: file.into(), shown, unkept, no_way_back, changed, writing }
    }

    /// Why what is known has not been put away for some seconds; empty where it was. Nothing waits for it: only a
    /// coordinator that starts anew would have to begin anew.
    fn unkept(&self) -> String {
        let unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        if unkept.seconds < UNKEPT_SECONDS { String::new() } else { unkept.why.clone() }
    }

    fn note_kept(&self, kept: &Result<(), Problem>) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        *unkept = match kept {
            Ok(()) => Unkept::default(),
            Err(problem) => {
                Unkept { seconds: unkept.seconds.saturating_add(1), why: problem.in_full().to_string() }
            }
        };
    }

    async fn put_away(&self, bytes: Vec<u8>) -> Result<(), Problem> {
        let file = Arc::clone(&self.file);
        let lost = || {
            Problem::new(Code::JournalUnwritable, format!("`{}` cannot be written", self.file.display()))
                .aftermath(Aftermath::Unknown)
                .retry_useful()
        };
        let written = async {
            let mut newest = Arc::clone(&self.writing).lock_owned().await;
            let written = tokio::task::spawn_blocking(move || {
                if let Some(folder) = file.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                newest.write(&bytes)
            });
            written.await
        };
        let written = tokio::time::timeout(KEEP, written).await;
        let written = written.map_err(|_| lost().cause(format!("the disk takes longer than {KEEP:?}")))?;
        written.map_err(|error| lost().because(&error))?.map_err(|error| lost().because(&error))
    }

    async fn read(&self) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || read(&file))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
    }

    /// How far visitors were heard when that was put away last, whoever's they were. What cannot be read says nothing, and
    /// is told of when a judge is looked for in it.
    pub async fn heard_to(&self) -> Option<Position> {
        Kept::parse(&self.read().await.ok()?)?.position
    }

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now of the visitors of a release, if they were heard by this coordinator.
    pub fn now(&self, release: &ReleaseId) -> Option<v1::Verdict> {
        let shown = self.shown().clone().filter(|shown| shown.plan.release == *release)?;
        let verdict = convert::verdict_to_wire(&shown.plan, &Judged::of(&shown.plan, &shown.judgement));
        let no_way_back = self.no_way_back.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unkept = self.unkept();
        let probes = |slot: &SlotPlan, probes: Probes| {
            (probes.requests > 0).then(|| convert::probes_to_wire(&slot.backend, probes))
        };
        Some(v1::Verdict {
            chart: shown.chart.iter().map(|[failed, _]| *failed).collect(),
            chart_slow: shown.chart.iter().map(|[_, slow]| *slow).collect(),
            blind: shown.blind,
            unkept,
            no_way_back,
            probes_new: probes(&shown.plan.to, shown.probed.new),
            probes_old: shown.plan.from.as_ref().and_then(|slot| probes(slot, shown.probed.old)),
            ..verdict
        })
    }

    /// Notes why a rollback would lead nowhere just now; empty where it would lead back. Says whether that is news.
    pub fn note_way_back(&self, closed: String) -> bool {
        let mut known = self.no_way_back.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *known != closed;
        *known = closed;
        news
    }

    /// Changes with every second that is heard.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The lookout, where somebody looks out.
    pub fn lookout(&self) -> Option<&Arc<Lookout>> {
        self.lookout.as_ref()
    }
}

/// Failed and slow requests of every hundred of the new slot in a second; -1 where none came, or nobody judges it.
fn bars(plan: &Plan, heard: &Heard) -> [f32; 2] {
    let Heard::Second(second) = heard else { return [-1.0; 2] };
    if second.blind.is_some() {
        return [-1.0; 2];
    }
    let new = plan.judged_new(&second.seen);
    let of_hundred = |part: u32, all: u32| match all {
        0 => -1.0,
        all => (f64::from(part) * 100.0 / f64::from(all)) as f32,
    };
    [of_hundred(new.errors, new.requests), of_hundred(new.over_limit, new.timed)]
}

/// What was put away last, by this coordinator or one of before a file had two places.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let newest = newest::read(file);
    match &newest {
        Err(error) if error.kind() != io::ErrorKind::NotFound => of_before(file)?.map_or(newest, Ok),
        _ => newest,
    }
}

/// A file of before it had two places: a content, and its checksum.
fn of_before(file: &Path) -> io::Result<Option<Vec<u8>>> {
    if std::fs::metadata(file)?.len() > MOST_OF_BEFORE {
        return Ok(None);
    }
    let mut bytes = std::fs::read(file)?;
    let kept = bytes.len().saturating_sub(CHECKSUM);
    let checksum = bytes.split_off(kept);
    Ok((checksum == blake3::hash(&bytes).as_bytes()).then_some(bytes))
}

impl Signals for Visitors {
    type Ear = VisitorsEar;

    fn listen(&self, _plan: &Plan, after: Option<u64>) -> VisitorsEar {
        VisitorsEar(self.lookout.as_ref().map(|lookout| lookout.listen(after)))
    }

    async fn kept(&self, plan: &Plan) -> Option<Vec<u8>> {
        match self.read().await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = self.file.display();
                warn!(release = %plan.release, %file, %error, "what was known of the visitors cannot be read: their judge begins anew");
                None
            }
        }
    }

    async fn keep(&self, _plan: &Plan, bytes: Vec<u8>) -> Result<(), Problem> {
        let kept = self.put_away(bytes).await;
        self.note_kept(&kept);
        kept
    }

    fn show(&self, plan: &Arc<Plan>, judgement: &Judgement, probed: &Probed, heard: &Heard) {
        {
            let mut shown = self.shown();
            let before = shown.take().filter(|shown| shown.plan.release == plan.release);
            let mut chart = before.map(|shown| shown.chart).unwrap_or_default();
            chart.push_back(bars(plan, heard));
            if chart.len() > CHART_SECONDS {
                chart.pop_front();
            }
            let blind = match heard {
                Heard::Second(second) => second.blind.as_ref().map(ToString::to_string).unwrap_or_default(),
                Heard::Silence(problem) => problem.to_string(),
            };
            let (plan, judgement, probed) = (Arc::clone(plan), *judgement, *probed);
            *shown = Some(Shown { plan, judgement, probed, blind, chart });
        }
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }
}

/// An ear for the visitors; deaf where nobody looks out.
pub struct VisitorsEar(Option<LookoutEar>);

impl pointsman_core::ports::Ear for VisitorsEar {
    async fn next(&mut self) -> Heard {
        match &mut self.0 {
            Some(ear) => ear.next().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_whole_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("verdicts/production");
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        let visitors = Visitors::new(&folder.path().join("verdicts"), &"production".parse().unwrap(), None);
        visitors.put_away(vec![7; 2_000]).await.unwrap();
        visitors.put_away(vec![8; 2_000]).await.unwrap();
        assert_eq!(read(&file).unwrap(), vec![8; 2_000]);
        std::fs::write(&file, b"").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("checksum"));
        std::fs::write(&file, vec![0; 1 << 18]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn what_an_older_coordinator_put_away_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("production");
        let mut bytes = vec![7; 2_000];
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(read(&file).unwrap(), vec![7; 2_000]);
        bytes.truncate(1_000);
        std::fs::write(&file, &bytes).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("checksum"));
    }

    #[tokio::test]
    async fn what_cannot_be_put_away_is_told_after_some_seconds() {
        let folder = tempfile::tempdir().unwrap();
        // A file stands where the folder should be.
        let taken = folder.path().join("verdicts");
        std::fs::write(&taken, b"").unwrap();
        let visitors = Visitors::new(&taken, &"production".parse().unwrap(), None);
        let keep = async || {
            let kept = visitors.put_away(vec![7]).await;
            visitors.note_kept(&kept);
            visitors.unkept()
        };
        for _ in 1..UNKEPT_SECONDS {
            assert_eq!(keep().await, "");
        }
        assert!(keep().await.contains("cannot be written"), "{}", visitors.unkept());
        std::fs::remove_file(&taken).unwrap();
        assert_eq!(keep().await, "");
    }
}
