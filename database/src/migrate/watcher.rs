//! Looks, while our own statement runs, at who waits for it, and cancels it when somebody has waited too long.
//!
//! What is counted are sessions of clients that wait for a lock of ours, or behind one that we wait for. Those that want
//! what only other maintenance wants (`VACUUM`, another index build) are left out: no visitor waits with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::blockers::{self, Blocker};
use super::fault::Fault;
use crate::Session;

/// Pause between two looks: a wait is seen at most this much, and the look itself, after its beginning.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest a look may take; then the watcher counts as blind.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// A cancelled statement that still stalls somebody this much later has its session ended.
const END_AFTER: Duration = Duration::from_secs(1);

/// Asked of the waiting sessions alone: `pg_blocking_pids` takes every partition of the lock table for a moment. When a
/// wait began the server tells from version 14 on, and not in its very first moment.
const STALLED: &str = "
WITH waiting AS MATERIALIZED (
    SELECT pid, query_start FROM pg_catalog.pg_stat_activity
     WHERE wait_event_type = 'Lock' AND backend_type = 'client backend' AND datname = current_database()
       AND pid <> $1 AND pid <> pg_backend_pid())
SELECT w.pid, coalesce(w.query_start::text, ''),
       (extract(epoch FROM clock_timestamp() - (to_jsonb(l) ->> 'waitstart')::timestamptz) * 1000)::float8
  FROM waiting w JOIN pg_catalog.pg_locks l ON l.pid = w.pid AND NOT l.granted
 WHERE l.mode <> 'ShareUpdateExclusiveLock' AND $1 = ANY (pg_catalog.pg_blocking_pids(w.pid))";

const WAITS: &str =
    "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";

/// What a watch stops for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Longest wait of somebody else.
    pub(crate) max_stall: Duration,
    /// Longest wait of the watched session itself, where the server is not told to bound it.
    pub(crate) max_wait: Option<Duration>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Different sessions that waited.
    pub(crate) sessions: BTreeSet<i32>,
    /// The longest wait.
    pub(crate) longest: Duration,
    /// Why our statement was cancelled, if it was.
    pub(crate) stopped: Option<Stopped>,
    /// Why nothing could be seen any more.
    pub(crate) blind: Option<String>,
}

/// Why our statement was cancelled.
#[derive(Clone, Debug)]
pub(crate) enum Stopped {
    /// Somebody waited for it too long.
    Stalled,
    /// It waited too long itself, for these.
    Waited(Vec<Blocker>),
}

/// A running watch; it ends with this.
pub(crate) struct Watch {
    tripped: Arc<AtomicBool>,
    blind: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Seen>,
}

impl Watch {
    /// Begins to watch the session with this process.
    pub(crate) fn begin(second: &Arc<Session>, working: i32, bounds: Bounds) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tripped, blind) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let looking = Looking {
            second: Arc::clone(second),
            working,
            bounds,
            tripped: Arc::clone(&tripped),
            blind: Arc::clone(&blind),
            waits_since: None,
            stalled: Stalled::default(),
            seen: Seen::default(),
        };
        Self { tripped, blind, stop: Some(stop), task: tokio::spawn(looking.until(stopped)) }
    }

    /// Whether our work has to stop: somebody waited too long, or nobody can see whether.
    pub(crate) fn has_tripped(&self) -> bool {
        self.tripped.load(Ordering::SeqCst)
    }

    /// Ends when nothing can be seen any more: our statement must not run on unwatched.
    pub(crate) async fn blinded(&self) {
        self.blind.notified().await;
    }

    /// Ends it and tells what was seen. No cancel of it is on its way any more.
    pub(crate) async fn end(mut self) -> Seen {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
        let ended = tokio::time::timeout(LOOK_LIMIT * 2, &mut self.task).await;
        match ended {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) | Err(_) => {
                Seen { blind: Some("the watch did not end".to_owned()), ..Seen::default() }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Looking {
    second: Arc<Session>,
    working: i32,
    bounds: Bounds,
    tripped: Arc<AtomicBool>,
    blind: Arc<Notify>,
    waits_since: Option<Instant>,
    stalled: Stalled,
    seen: Seen,
}

/// A session's query: its process, and when it began.
type Query = (i32, String);

/// Queries that were seen to wait at the last look, and since when they have been.
#[derive(Debug, Default)]
struct Stalled(BTreeMap<Query, Instant>);

impl Stalled {
    /// How long each of these has waited: by the server where it tells, otherwise since it was first seen waiting. Never
    /// since its query began: that may have worked for minutes before.
    fn waits(&mut self, found: Vec<(Query, Option<f64>)>, now: Instant) -> Vec<(i32, Duration)> {
        let before = std::mem::take(&mut self.0);
        let mut waits = Vec::with_capacity(found.len());
        for (query, told_ms) in found {
            let pid = query.0;
            let since = before.get(&query).copied().unwrap_or(now);
            let told = told_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
            waits.push((pid, told.unwrap_or_else(|| now.saturating_duration_since(since))));
            self.0.insert(query, since);
        }
        waits
    }
}

impl Looking {
    async fn until(mut self, mut stopped: oneshot::Receiver<()>) -> Seen {
        loop {
            // Work that is over within one pause is not looked at: it cannot have stalled anybody for longer.
            tokio::select! {
                _ = &mut stopped => return self.seen,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let looked = tokio::time::timeout(LOOK_LIMIT, self.look()).await;
            let why = match looked {
                Ok(Ok(())) => continue,
                Ok(Err(fault)) => fault.words(),
                Err(_) => format!("no answer within {LOOK_LIMIT:?}"),
            };
            self.tripped.store(true, Ordering::SeqCst);
            self.seen.blind = Some(why);
            self.blind.notify_one();
            return self.seen;
        }
    }

    async fn look(&mut self) -> Result<(), Fault> {
        let rows = self.second.client().query(STALLED, &[&self.working]).await?;
        let found = rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?)));
        let found = found.collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
        let waits = self.stalled.waits(found, Instant::now());
        self.seen.sessions.extend(waits.iter().map(|(pid, _)| *pid));
        let now_longest = waits.iter().map(|(_, wait)| *wait).max().unwrap_or_default();
        self.seen.longest = self.seen.longest.max(now_longest);
        if !waits.is_empty() && now_longest >= self.bounds.max_stall {
            let end = now_longest >= self.bounds.max_stall + END_AFTER;
            self.seen.stopped.get_or_insert(Stopped::Stalled);
            return self.stop_work(end).await;
        }
        self.look_at_itself().await
    }

    async fn look_at_itself(&mut self) -> Result<(), Fault> {
        let Some(max_wait) = self.bounds.max_wait else { return Ok(()) };
        let row = self.second.client().query_one(WAITS, &[&self.working]).await?;
        if row.try_get::<_, i64>(0)? == 0 {
            self.waits_since = None;
            return Ok(());
        }
        if self.waits_since.get_or_insert_with(Instant::now).elapsed() < max_wait
            || self.seen.stopped.is_some()
        {
            return Ok(());
        }
        let blockers = blockers::waited_for(&self.second, self.working).await?;
        self.seen.stopped = Some(Stopped::Waited(blockers));
        self.stop_work(false).await
    }

    async fn stop_work(&self, end_session: bool) -> Result<(), Fault> {
        self.tripped.store(true, Ordering::SeqCst);
        let how =
            if end_session { "SELECT pg_terminate_backend($1)" } else { "SELECT pg_cancel_backend($1)" };
        self.second.client().query_one(how, &[&self.working]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_from_its_own_beginning_and_not_from_the_querys() {
        let mut stalled = Stalled::default();
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let report = || ((7, "10:00".to_owned()), None);
        let told = ((8, "10:01".to_owned()), Some(120.0));
        let ms = Duration::from_millis;
        assert_eq!(stalled.waits(vec![report(), told], at(0)), [(7, ms(0)), (8, ms(120))]);
        assert_eq!(stalled.waits(vec![report()], at(90)), [(7, ms(90))]);
        // Between two looks it had what it waited for, or it is another query.
        assert_eq!(stalled.waits(vec![], at(140)), []);
        assert_eq!(stalled.waits(vec![report()], at(190)), [(7, ms(0))]);
        assert_eq!(stalled.waits(vec![((7, "10:02".to_owned()), None)], at(240)), [(7, ms(0))]);
    }
}
