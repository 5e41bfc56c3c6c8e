//! How locks are asked for: at first without ever standing in the queue, because whoever waits for a strong lock makes all
//! who come later wait too; then, only where nobody old is in the way, for moments that are short against the pauses
//! between them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem, several};

use super::blockers::{self, Blocker};
use super::fault::Fault;
use super::limits::UNFORESEEN_LOCK_MS;
use super::lock_set::LockSet;
use crate::{Progress, Session, Settings};

/// Pause between two tries that do not wait.
const PAUSE: Duration = Duration::from_millis(100);
/// After this long without an old holder the table is a busy one, and a lock has to be waited for a moment.
const BUSY_AFTER: Duration = Duration::from_secs(5);
/// The moments, in milliseconds: each missed try goes one further.
const MOMENTS_MS: [u64; 3] = [20, 50, 100];
/// Pauses after a moment are this many times as long, and up to half as much again.
const PAUSE_FACTOR: u32 = 10;
/// How often the holders are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an application that may be cancelled is waited for first, and between two times.
const CANCEL_AFTER: Duration = Duration::from_secs(2);

/// How the next try asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Not waiting at all.
    Nowait,
    /// Waiting this many milliseconds at most.
    Moment(u64),
}

/// The tries for one transaction's locks.
pub(crate) struct Ladder<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
    budget: Duration,
    max_stall: Duration,
    own_moment_ms: Option<u64>,
    began: Instant,
    tries: u32,
    moments: usize,
    looked: Option<Instant>,
    cancelled: Option<Instant>,
    blockers: Vec<Blocker>,
    last_old: Instant,
}

/// How long one lock of several may be waited for, in milliseconds: the server counts anew for each, while whoever needs
/// one that is held already waits for all that follow.
fn share_of_moment(ms: u64, max_stall: Duration, locks: usize) -> u64 {
    let longest = u64::try_from(max_stall.as_millis()).unwrap_or(u64::MAX);
    let locks = u64::try_from(locks).unwrap_or(u64::MAX).max(1);
    // None at all would be no limit.
    ms.min(longest).checked_div(locks).unwrap_or(1).max(1)
}

impl<'a> Ladder<'a> {
    /// A ladder that is climbed for `budget`; a file may ask for moments of its own length. None is longer than `max_stall`,
    /// in which all of its locks are waited for.
    pub(crate) fn new(
        settings: &'a Settings,
        progress: &'a Progress,
        (budget, max_stall): (Duration, Duration),
        own_moment_ms: Option<u64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            progress,
            budget,
            max_stall,
            own_moment_ms,
            began: now,
            tries: 0,
            moments: 0,
            looked: None,
            cancelled: None,
            blockers: Vec::new(),
            last_old: now,
        }
    }

    /// Tries so far.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// How the next try asks.
    pub(crate) fn ask(&self) -> Ask {
        if let Some(ms) = self.own_moment_ms {
            return Ask::Moment(ms);
        }
        if self.last_old.elapsed() < BUSY_AFTER {
            return Ask::Nowait;
        }
        let moment = MOMENTS_MS.get(self.moments).or(MOMENTS_MS.last()).copied();
        moment.map_or(Ask::Nowait, Ask::Moment)
    }

    /// Asks for the locks in the transaction that is open. What a statement asks for later, unforeseen, has the short limit
    /// that the transaction began with.
    pub(crate) async fn climb(&mut self, work: &Session, locks: &LockSet) -> Result<(), Fault> {
        self.tries = self.tries.saturating_add(1);
        let ask = self.ask();
        if let Ask::Moment(ms) = ask {
            self.moments = self.moments.saturating_add(1);
            let ms = share_of_moment(ms, self.max_stall, locks.len());
            work.client().batch_execute(&format!("SET LOCAL lock_timeout = {ms}")).await?;
        }
        for command in locks.as_sql(ask == Ask::Nowait) {
            work.client().batch_execute(&command).await?;
        }
        if ask != Ask::Nowait {
            work.client().batch_execute(&format!("SET LOCAL lock_timeout = {UNFORESEEN_LOCK_MS}")).await?;
        }
        Ok(())
    }

    /// A try missed: looks who is in the way, pauses, and ends when the budget is used up. Where a statement `waited` itself,
    /// with all other locks held, the pause is as long as after a moment.
    pub(crate) async fn missed(
        &mut self,
        second: &Session,
        working: i32,
        locks: &LockSet,
        waited: bool,
    ) -> Result<(), Problem> {
        let asked = self.ask();
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) || self.is_over() {
            self.look(second, working, locks).await?;
        }
        if self.is_over() {
            return Err(self.over());
        }
        let unforeseen = if waited { pause(Ask::Moment(UNFORESEEN_LOCK_MS)) } else { Duration::ZERO };
        tokio::time::sleep(pause(asked).max(unforeseen)).await;
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= self.budget
    }

    async fn look(&mut self, second: &Session, working: i32, locks: &LockSet) -> Result<(), Problem> {
        self.looked = Some(Instant::now());
        let found = blockers::holders(second, locks.met(), working).await;
        self.blockers = found.map_err(|fault| fault.while_doing("see who holds a table"))?;
        if self.blockers.iter().any(Blocker::is_old) {
            self.last_old = Instant::now();
            self.moments = 0;
        }
        let waited = self.began.elapsed().as_secs();
        self.progress.say(format!("asking for locks since {waited} s: {}", blockers::named(&self.blockers)));
        // Where others are in the way too, it may as well go on.
        let vacuumed = self.blockers.first().filter(|_| self.blockers.iter().all(Blocker::gives_way));
        if let Some(table) = vacuumed.and_then(|vacuum| vacuum.relation_oid) {
            let sent = blockers::send_vacuum_away(second, table).await;
            sent.map_err(|fault| fault.while_doing("send a vacuum away"))?;
        }
        self.cancel(second).await
    }

    /// Cancels the queries of applications that the agent's own configuration lists.
    async fn cancel(&mut self, second: &Session) -> Result<(), Problem> {
        let due = self.cancelled.unwrap_or(self.began).elapsed() >= CANCEL_AFTER;
        let may = |blocker: &&Blocker| self.settings.may_cancel.contains(&blocker.application);
        let pids: Vec<i32> = self.blockers.iter().filter(may).filter_map(|blocker| blocker.pid).collect();
        if !due || pids.is_empty() {
            return Ok(());
        }
        self.cancelled = Some(Instant::now());
        let sql = "SELECT pg_cancel_backend(pid) FROM unnest($1::int[]) AS pid";
        let asked = second.client().query(sql, &[&pids]).await;
        asked.map_err(|error| Fault::from(error).while_doing("cancel a query that may be cancelled"))?;
        Ok(())
    }

    fn over(&self) -> Problem {
        let message = format!(
            "a lock could not be had within {} s ({}): {}",
            self.budget.as_secs_f64(),
            several(self.tries, "try", "tries"),
            blockers::named(&self.blockers)
        );
        Problem::new(Code::LockNotHad, message).retry_useful().hint(blockers::way_out(&self.blockers))
    }
}

fn pause(asked: Ask) -> Duration {
    match asked {
        Ask::Nowait => PAUSE,
        Ask::Moment(ms) => {
            let least = Duration::from_millis(ms).saturating_mul(PAUSE_FACTOR);
            least + least.mul_f64(jitter() / 2.0)
        }
    }
}

/// Between 0 and 1, other at each call, so that two agents do not keep step. No secret hangs on it.
fn jitter() -> f64 {
    let word = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    f64::from(word) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_followed_by_a_pause_of_ten_times_its_length() {
        for ms in MOMENTS_MS {
            let pause = pause(Ask::Moment(ms)).as_millis();
            assert!((u128::from(ms) * 10..=u128::from(ms) * 15).contains(&pause), "{ms}: {pause}");
        }
    }
}
