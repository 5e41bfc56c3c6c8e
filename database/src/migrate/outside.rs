//! One statement that PostgreSQL runs outside of transactions. Its intent is recorded before, its end after it; in between,
//! only the catalog knows.

use std::time::{Duration, Instant};

use pointsman_chassis::failpoint;
use pointsman_core::{Aftermath, Code, Problem};
use pointsman_migration::{Class, Probe, Statement};

use super::catalog::{self, Found};
use super::fault::Fault;
use super::ledger::{Attempt, Open};
use super::limits;
use super::order::SegmentCost;
use super::run::{Job, Run, place};
use super::transaction::{own, watched};
use super::watcher::{Bounds, Seen, Watch};
use super::{elsewhere, fence, lookback};
use crate::Session;

/// How long clearing up after a failure waits for others: whoever made it fail may still be there.
const CLEAR_WAIT: Duration = Duration::from_secs(2);

/// Whether an earlier try was cut short at this place of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Never,
    /// One of the statement that stands there now.
    Same,
    /// Only ones of statements that stood there before the file was corrected.
    Another,
}

impl Tried {
    fn of(open: &[Open]) -> Self {
        match (open.is_empty(), open.iter().any(|open| open.same)) {
            (true, _) => Self::Never,
            (false, true) => Self::Same,
            (false, false) => Self::Another,
        }
    }
}

impl<'a> Run<'a> {
    /// Runs the statement, unless an earlier try has done it.
    pub(crate) async fn outside(
        &mut self,
        job: &Job<'a>,
        statement: &'a Statement,
        last: bool,
    ) -> Result<SegmentCost, Problem> {
        if statement.class == Class::Backfill {
            return self.backfill(job, statement, last).await;
        }
        self.may_go_on()?;
        let (entry, second) = (self.entry(job), self.sessions.second.clone());
        let tried = Tried::of(&entry.open_attempts(&second, statement).await?);
        let mut cost =
            SegmentCost { first: place(statement), last: place(statement), ..SegmentCost::default() };
        let already = self.as_it_stands(job, statement, tried).await?;
        lookback::settle(&entry, &second, statement).await?;
        let attempt = entry.intend(&second, statement, self.sessions.work.pid()).await?;
        failpoint::pass("migrate-intended");
        if !already {
            let seen = self.alone(job, statement, attempt).await?;
            cost.stalled_sessions = seen.sessions.len();
            cost.longest_stall = seen.longest;
            cost.lock_tries = 1;
        }
        self.record(job, statement, attempt, last).await?;
        failpoint::pass("migrate-outside-recorded");
        Ok(cost)
    }

    /// Whether there is nothing to do any more; what is half done is cleared away or finished first.
    async fn as_it_stands(
        &mut self,
        job: &Job<'a>,
        statement: &Statement,
        tried: Tried,
    ) -> Result<bool, Problem> {
        let at = job.file().place(statement);
        match catalog::look(&self.sessions.work, &statement.probe).await? {
            // What a statement made that stood there before the file was corrected is not what this one is to make.
            Found::Done if tried == Tried::Another && matches!(statement.probe, Probe::IndexValid { .. }) => {
                self.notes.push(format!(
                    "{at}: an earlier try, cut short, said something else here; the index that is there may be its"
                ));
                Ok(false)
            }
            Found::Done if tried != Tried::Never => {
                self.notes.push(format!("{at}: done by an earlier try"));
                Ok(true)
            }
            // Whoever did it, the server judges: `IF NOT EXISTS` passes, without it the name is taken.
            Found::Done | Found::NotDone => Ok(false),
            Found::Half { commands, finishes, what } => {
                let cleared = self.clear(&commands, self.lock_budget()).await;
                cleared.map_err(|fault| fault.while_doing(&format!("clear up before {at}")))?;
                self.notes.push(format!("{at}: {what}"));
                Ok(finishes)
            }
            Found::Unseen if tried != Tried::Never => Err(Problem::new(
                Code::StandsUnclear,
                format!("{at}: an earlier try of this statement was cut short, and the catalog does not show whether it took effect"),
            )
            .aftermath(Aftermath::Unknown)
            .hint("look yourself, then tell the records as `pointsman explain PM0338` says")),
            Found::Unseen => Ok(false),
        }
    }

    /// Clears away or finishes what is half done. Cut short, it leaves it half done, for the next try.
    async fn clear(&self, commands: &[String], waiting: Duration) -> Result<(), Fault> {
        own(
            &self.sessions.work,
            &format!("SET statement_timeout = 0; SET lock_timeout = {}", waiting.as_millis()),
        )
        .await?;
        let patience = limits::patience(Class::Concurrent);
        for command in commands {
            let sent = tokio::time::timeout(patience, self.sessions.work.client().batch_execute(command));
            sent.await
                .map_err(|_| Fault::Lost(format!("no answer within {patience:?}")))?
                .map_err(Fault::from)?;
        }
        Ok(())
    }

    async fn alone(
        &mut self,
        job: &Job<'a>,
        statement: &'a Statement,
        attempt: Attempt,
    ) -> Result<Seen, Problem> {
        self.obeys().await?;
        let limit = limits::statement_timeout(statement.class).as_millis();
        let set = format!("SET statement_timeout = {limit}; SET lock_timeout = 0");
        own(&self.sessions.work, &set).await.map_err(|fault| fault.while_doing("prepare a session"))?;
        failpoint::pass("migrate-outside");
        let bounds = Bounds { max_stall: self.max_stall(), max_wait: Some(self.lock_budget()) };
        let watch = Watch::begin(&self.sessions.second, self.sessions.work.pid(), bounds);
        let began = Instant::now();
        let sent = self.sessions.work.client().batch_execute(&statement.sql);
        let sent = watched(sent, statement.class, &watch).await;
        let (took, seen) = (began.elapsed(), watch.end().await);
        failpoint::pass("migrate-outside-done");
        let Err(fault) = sent else {
            self.has_effect(job, statement).await?;
            if let Some(measure) = &mut self.measure {
                let kept = measure.keeps_role(&self.sessions.work).await;
                kept.map_err(|fault| job.file().failed(statement, fault))?;
                measure.outside(&job.file(), statement, took);
                elsewhere::close_all(&self.sessions.work).await?;
            }
            return Ok(seen);
        };
        Err(self.not_done(job, statement, attempt, fault, &seen).await)
    }

    /// The last look at the fence; nothing holds a newer coordinator off a statement outside of a transaction.
    async fn obeys(&self) -> Result<(), Problem> {
        let sql = "SELECT 1 FROM pointsman.fence WHERE epoch = $1";
        let row = self.sessions.work.client().query_opt(sql, &[&self.epoch]).await;
        match row.map_err(|error| Fault::from(error).while_doing("read the epoch"))? {
            Some(_) => Ok(()),
            None => Err(fence::fenced(self.epoch, None)),
        }
    }

    /// `IF NOT EXISTS` reports success over an invalid index; only looking tells.
    async fn has_effect(&self, job: &Job<'a>, statement: &Statement) -> Result<(), Problem> {
        match catalog::look(&self.sessions.work, &statement.probe).await? {
            Found::Done | Found::Unseen => Ok(()),
            Found::NotDone | Found::Half { .. } if statement.probe.is_repeatable() => Ok(()),
            Found::NotDone | Found::Half { .. } => {
                let at = job.file().place(statement);
                Err(Problem::new(
                    Code::StandsUnclear,
                    format!("{at}: the server reports success, and the catalog does not show the effect"),
                )
                .aftermath(Aftermath::Unknown)
                .hint(
                    "on the database: look at what the statement makes; then the same command again: \
                     `pointsman deploy ENV ...` or `pointsman db contract ENV ...`",
                ))
            }
        }
    }

    /// The statement failed: clears away what it left, and says so.
    async fn not_done(
        &mut self,
        job: &Job<'a>,
        statement: &'a Statement,
        attempt: Attempt,
        fault: Fault,
        seen: &Seen,
    ) -> Problem {
        if let Fault::Lost(_) = fault
            && seen.stopped.is_none()
        {
            return job.file().failed(statement, fault);
        }
        let problem = match (&seen.stopped, &seen.blind) {
            (None, None) => job.file().failed(statement, fault),
            _ => job.file().stopped(statement, seen, self.order.max_stall_ms),
        };
        let left = catalog::look(&self.sessions.work, &statement.probe).await;
        let problem = match left {
            Ok(Found::Half { commands, finishes: false, .. }) => {
                match self.clear(&commands, CLEAR_WAIT).await {
                    Ok(()) => problem.cause("the invalid index that it left was dropped"),
                    Err(fault) => problem.cause(format!(
                        "it left an invalid index, dropped by the next try: {}",
                        fault.words()
                    )),
                }
            }
            _ => problem,
        };
        self.entry(job).note_outcome(&self.sessions.second, attempt, &problem.message).await;
        problem
    }

    /// Records the statement as done, flushed.
    async fn record(
        &self,
        job: &Job<'a>,
        statement: &Statement,
        attempt: Attempt,
        last: bool,
    ) -> Result<(), Problem> {
        let entry = self.entry(job);
        let done = entry.done_sql(attempt, &[statement], self.sessions.work.pid());
        let ending = if last { self.ending_sql(job)? } else { String::new() };
        let second: &Session = &self.sessions.second;
        let recorded = own(second, &format!("BEGIN; {done} {ending} COMMIT")).await;
        if let Err(fault) = recorded {
            _ = own(second, "ROLLBACK").await;
            return Err(fault
                .while_doing(&format!("record {}", job.file().place(statement)))
                .aftermath(Aftermath::Unknown));
        }
        entry.confirm(second, attempt).await
    }
}
