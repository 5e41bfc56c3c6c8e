//! One call at a time to a disk that may hang. Whoever calls waits for a while and is told then that nothing comes back; while a
//! call is out for too long nobody else is sent after it. It knows nothing of what is called.

use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_core::Timestamp;
use pointsman_core::ports::Clock as _;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::warn;

/// Something on a disk, behind which callers stand in line.
pub struct Line<T> {
    place: Arc<Mutex<T>>,
    /// The call that is out, if one is.
    out: Arc<watch::Sender<Option<Out>>>,
}

/// A call that has not come back.
#[derive(Clone, Copy)]
struct Out {
    since: Timestamp,
    /// From when on it takes too long.
    due: Instant,
}

/// For how long a call is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this it takes too long, and nobody else is sent after it.
    pub soon: Duration,
    /// Whether its own caller gives up then, too. One who does not learns what came of it.
    pub gives_up: bool,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Lost {
    /// Its disk, or that of the call before it, has not answered since then.
    Silent(Silence),
    /// It ended abruptly: nobody knows what it did.
    Abrupt(JoinError),
}

/// A disk that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since when.
    pub since: Timestamp,
    /// Whether the call was sent: it may take effect whenever the disk answers. One that was not is never sent.
    pub sent: bool,
}

/// A call on its way. It goes on when nobody waits for it any more, and lets the next one in when it is over.
struct Turn<T> {
    place: OwnedMutexGuard<T>,
    out: Arc<watch::Sender<Option<Out>>>,
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        let late = self.out.send_replace(None).filter(|out| out.due <= Instant::now());
        if let Some(late) = late {
            let seconds = SystemClock.now().ms_since(late.since) / 1_000;
            warn!(seconds, "the journal's disk answers again");
        }
    }
}

impl<T: Send + 'static> Line<T> {
    /// Nobody stands in it yet.
    pub fn before(place: T) -> Self {
        Self { place: Arc::new(Mutex::new(place)), out: Arc::new(watch::Sender::new(None)) }
    }

    /// Since when the call that is out takes too long, if it does.
    pub fn silent_since(&self) -> Option<Timestamp> {
        (*self.out.borrow()).filter(|out| out.due <= Instant::now()).map(|out| out.since)
    }

    /// Has work done in a thread that may block, when it is its turn. Each call before it is waited for as long as its own
    /// caller said, so that a long one which is to be long is no silence.
    pub async fn call<R: Send + 'static>(
        &self,
        Patience { soon, gives_up }: Patience,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Lost> {
        let silent = |since, sent| Err(Lost::Silent(Silence { since, sent }));
        if let Some(since) = self.silent_since() {
            return silent(since, false);
        }
        let place = tokio::select! { biased;
            place = Arc::clone(&self.place).lock_owned() => place,
            since = self.silence() => return silent(since, false),
        };
        let (since, due) = (SystemClock.now(), Instant::now() + soon);
        let mut turn = Turn { place, out: Arc::clone(&self.out) };
        self.out.send_replace(Some(Out { since, due }));
        let working = tokio::task::spawn_blocking(move || work(&mut *turn.place));
        tokio::select! { biased;
            worked = working => worked.map_err(Lost::Abrupt),
            () = tokio::time::sleep_until(due), if gives_up => silent(since, true),
        }
    }

    /// Waits until a call takes too long, and says since when it is out.
    async fn silence(&self) -> Timestamp {
        let mut out = self.out.subscribe();
        loop {
            let call = *out.borrow_and_update();
            let too_long = async {
                match call {
                    Some(call) => tokio::time::sleep_until(call.due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                // The sender is this line's own: it is never gone.
                _ = out.changed() => {}
                () = too_long => return call.map_or_else(|| SystemClock.now(), |call| call.since),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Patience = Patience { soon: Duration::from_millis(20), gives_up: true };
    const LONG: Patience = Patience { soon: Duration::from_secs(60), gives_up: true };

    /// A disk that counts what reaches it.
    fn line() -> Arc<Line<u32>> {
        Arc::new(Line::before(0))
    }

    /// Work that comes back when it is told to.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce(&mut u32) -> u32 + Send + 'static) {
        let (answer, answered) = mpsc::channel();
        let work = move |reached: &mut u32| {
            // Whoever drops the other end lets it go on, too.
            let _ = answered.recv();
            *reached += 1;
            *reached
        };
        (answer, work)
    }

    fn reach(reached: &mut u32) -> u32 {
        *reached += 1;
        *reached
    }

    fn silence<R: std::fmt::Debug>(called: Result<R, Lost>) -> Silence {
        match called {
            Err(Lost::Silent(silence)) => silence,
            other => panic!("it was answered: {other:?}"),
        }
    }

    #[tokio::test]
    async fn one_call_is_out_and_none_is_sent_after_it_before_it_comes_back() {
        let line = line();
        let (answer, work) = hanging();
        let first = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.call(SHORT, work).await }
        });
        // It stands in line before the first takes too long, and hears of that.
        while line.out.borrow().is_none() {
            tokio::task::yield_now().await;
        }
        let waited = silence(line.call(LONG, reach).await);
        let sent = silence(first.await.unwrap());
        let refused = silence(line.call(LONG, reach).await);
        assert_eq!((sent.sent, waited.sent, refused.sent), (true, false, false));
        assert_eq!(line.silent_since(), Some(sent.since));
        assert_eq!([waited.since, refused.since], [sent.since; 2]);

        // What was sent reaches the disk when that answers, and nothing else ever does.
        answer.send(()).unwrap();
        while line.silent_since().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(line.call(LONG, reach).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_is_out_all_the_same() {
        let line = line();
        let (answer, work) = hanging();
        let given_up = tokio::time::timeout(SHORT.soon, line.call(LONG, work)).await;
        assert!(given_up.is_err());
        // It is to take long: whoever comes next waits for it, and is not told of a disk that hangs.
        assert_eq!(line.silent_since(), None);
        let next = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.call(SHORT, reach).await }
        });
        answer.send(()).unwrap();
        assert_eq!(next.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn who_does_not_give_up_learns_what_came_of_it_while_others_hear_of_the_silence() {
        let line = line();
        let (answer, work) = hanging();
        let patient = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.call(Patience { gives_up: false, ..SHORT }, work).await }
        });
        while line.silent_since().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(!silence(line.call(SHORT, reach).await).sent);
        answer.send(()).unwrap();
        assert_eq!(patient.await.unwrap().unwrap(), 1);
        assert_eq!(line.silent_since(), None);
    }
}
