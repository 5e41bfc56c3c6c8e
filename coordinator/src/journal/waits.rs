//! Work with the state's disk at a start, before there is a journal that could say whether its disk answers. It is waited for
//! however long it takes, as nothing can be done before it; but whoever looks why nothing starts is told within seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::{Code, Problem, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::fault;
use super::line::Silence;

/// After this it is told what is waited for: as long as any record is waited for later.
const SOON: Duration = Duration::from_secs(5);
/// How often it is looked at in this time.
const LOOKS: u32 = 5;
/// It is told again after twice as long, and never more seldom than this.
const LONGEST: Duration = Duration::from_secs(60);

/// What a thread is at that has not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It has read or written something a moment ago: a long journal takes its time.
    Work,
    /// It has not, or nobody can say.
    Nothing,
}

/// Has work done in a thread that may block, and says in the log what it waits for while that takes too long: `journal` is the
/// file that is told of.
pub async fn told_of<T: Send + 'static>(
    journal: &Path,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let mut late = false;
    let worked = waited(SOON, work, |since, at| {
        late = true;
        let seconds = SystemClock.now().ms_since(since) / 1_000;
        match at {
            At::Work => info!(seconds, journal = %journal.display(), "the journal is being read"),
            At::Nothing => {
                let problem = fault::silent(Silence { since, sent: false }, journal);
                let hint = &problem.hint;
                warn!(seconds, problem = %problem.in_full(), hint, "the coordinator cannot start before it does");
            }
        }
    });
    let worked = worked.await;
    if late {
        info!("the journal's disk has answered");
    }
    worked
}

async fn waited<T: Send + 'static>(
    soon: Duration,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    mut tell: impl FnMut(Timestamp, At),
) -> Result<T, Problem> {
    let (thread, named) = oneshot::channel();
    let since = SystemClock.now();
    let mut working = tokio::task::spawn_blocking(move || {
        // Whoever does not hear which thread it is only knows less of it.
        let _ = thread.send(io_of_this_thread());
        work()
    });
    let counts = tokio::time::timeout(soon, named).await.ok().and_then(Result::ok).flatten();
    let look = || counts.as_deref().and_then(bytes_moved);
    let (mut moved, mut moved_at) = (look(), Instant::now());
    let (mut gap, mut tell_at, mut told) = (soon, moved_at + soon, None);
    loop {
        tokio::select! { biased;
            worked = &mut working => {
                return worked.unwrap_or_else(|error| {
                    Err(Problem::new(Code::JournalUnwritable, "opening the journal ended abruptly").because(&error))
                });
            }
            () = tokio::time::sleep(soon / LOOKS) => {}
        }
        let (before, now) = (std::mem::replace(&mut moved, look()), Instant::now());
        if moved != before {
            moved_at = now;
        }
        let at = if now - moved_at >= soon / 2 { At::Nothing } else { At::Work };
        // That it has stopped is news.
        let stopped = told == Some(At::Work) && now - moved_at >= soon;
        if now >= tell_at || stopped {
            tell(since, at);
            gap = (gap * 2).min(LONGEST);
            (told, tell_at) = (Some(at), now + gap);
        }
    }
}

/// Where the kernel counts what this thread reads and writes.
fn io_of_this_thread() -> Option<PathBuf> {
    let thread = std::fs::read_link("/proc/thread-self").ok()?;
    Some(Path::new("/proc").join(thread).join("io"))
}

/// Bytes that a thread has read and written so far, also of what was in memory already.
fn bytes_moved(counts: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(counts).ok()?;
    let count =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(count("rchar:")?.saturating_add(count("wchar:")?))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_thread_that_hangs_is_told_of_again_and_again_until_it_comes_back() {
        let (answer, answered) = mpsc::channel::<()>();
        let (mut answer, mut told) = (Some(answer), Vec::new());
        let work = move || {
            // Whoever drops the other end lets it go on.
            let _ = answered.recv();
            Ok(7)
        };
        let worked = waited(SHORT, work, |_, at| {
            told.push(at);
            if told.len() == 4 {
                answer.take();
            }
        });
        assert_eq!(worked.await, Ok(7));
        assert_eq!(told.get(..4), Some(&[At::Nothing; 4][..]), "{told:?}");
    }

    #[tokio::test]
    async fn one_that_reads_is_said_to_read() {
        let (enough, is_enough) = mpsc::channel::<()>();
        let (mut enough, mut times) = (Some(enough), 0);
        let work = move || {
            while is_enough.try_recv() == Err(mpsc::TryRecvError::Empty) {
                assert!(std::fs::read("/proc/self/status").is_ok());
            }
            Ok(())
        };
        // On a busy machine it may stand still in between.
        let worked = waited(SHORT, work, |_, at| {
            times += u32::from(at == At::Work);
            if times == 3 {
                enough.take();
            }
        });
        assert_eq!(tokio::time::timeout(LONGEST, worked).await, Ok(Ok(())), "it was never said to read");
    }

    #[tokio::test]
    async fn what_comes_back_in_time_is_not_told_of() {
        let problem = Problem::new(Code::JournalCorrupt, "it is damaged");
        let failed = problem.clone();
        let worked = waited(SOON, move || Err::<(), _>(failed), |_, at| panic!("told of as {at:?}"));
        assert_eq!(worked.await, Err(problem));
    }
}
