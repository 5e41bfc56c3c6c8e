//! Statements in one transaction, with all that is recorded of them in it too: either everything of it stands, or nothing.

use std::time::{Duration, Instant};

use pointsman_chassis::failpoint;
use pointsman_core::{Aftermath, Problem};
use pointsman_migration::{Class, Statement};

use super::failure::File;
use super::fault::Fault;
use super::ladder::Ladder;
use super::ledger::Attempt;
use super::limits::{self, UNFORESEEN_LOCK_MS};
use super::lock_set::LockSet;
use super::measure::Measure;
use super::order::SegmentCost;
use super::run::{Job, Run, place};
use super::watcher::{Bounds, Seen, Watch};
use super::{elsewhere, fence, filling, lookback};
use crate::Session;

/// How long a transaction may lie idle, in seconds: the agent hung, and its locks must go.
const IDLE_LIMIT_S: u64 = 10;

/// Why a try of a transaction did not commit.
enum Trouble {
    /// A lock was not free; nothing happened. Whether a statement waited for it, with the locks of the others held.
    Missed { waited: bool },
    /// On a copy something that is empty there may be the reason.
    Empty(Problem),
    /// Anything else.
    Failed(Problem),
}

/// A try whose locks are had.
struct Try<'r, 'a> {
    job: &'r Job<'a>,
    statements: &'r [&'a Statement],
    attempt: Attempt,
    /// What is recorded of the file in it, beside its statements.
    ending: String,
    locks: &'r LockSet,
}

impl<'a> Run<'a> {
    /// Runs the statements, of which the last may end the file, in one transaction, as often as its locks take.
    pub(crate) async fn transaction(
        &mut self,
        job: &Job<'a>,
        statements: &[&'a Statement],
        last: bool,
    ) -> Result<SegmentCost, Problem> {
        let Some(first) = statements.first() else { return Ok(SegmentCost::default()) };
        self.may_go_on()?;
        let (entry, second) = (self.entry(job), self.sessions.second.clone());
        lookback::settle(&entry, &second, first).await?;
        let ending = if last { self.ending_sql(job)? } else { String::new() };
        let locks = self.locks(statements).await?;
        let attempt = entry.intend(&second, first, self.sessions.work.pid()).await?;
        failpoint::pass("migrate-intended");
        let mut ladder = Ladder::new(
            self.settings,
            self.progress,
            (self.lock_budget(), self.max_stall()),
            job.script.headers.lock_timeout_ms,
        );
        let this = Try { job, statements, attempt, ending, locks: &locks };
        let ended = loop {
            let waited = match self.one_try(&this, &mut ladder).await {
                Ok(cost) => break Ok(cost),
                Err(Trouble::Failed(problem)) => break Err(problem),
                Err(Trouble::Empty(problem)) => match self.fill_for(problem).await {
                    Ok(()) => continue,
                    Err(problem) => break Err(problem),
                },
                Err(Trouble::Missed { waited }) => waited,
            };
            if let Err(problem) = ladder.missed(&second, self.sessions.work.pid(), &locks, waited).await {
                break Err(problem.cause(job.file().stands()));
            }
            if let Err(problem) = self.may_go_on() {
                break Err(problem);
            }
        };
        match ended {
            Ok(cost) => {
                entry.confirm(&second, attempt).await?;
                failpoint::pass("migrate-confirmed");
                Ok(cost)
            }
            Err(problem) => {
                // Of what is not known nothing is noted: the next run looks.
                if problem.aftermath != Aftermath::Unknown {
                    entry.note_outcome(&second, attempt, &problem.message).await;
                }
                Err(problem)
            }
        }
    }

    /// The locks to ask for. Where statements are measured each asks for its own, so that it shows which.
    async fn locks(&self, statements: &[&Statement]) -> Result<LockSet, Problem> {
        let locks = LockSet::of(&self.sessions.work, statements).await;
        let locks = locks.map_err(|fault| fault.while_doing("look up the tables of a file"))?;
        Ok(if self.measure.is_some() { locks.only_met() } else { locks })
    }

    async fn one_try(&mut self, this: &Try<'_, 'a>, ladder: &mut Ladder<'_>) -> Result<SegmentCost, Trouble> {
        let measured = self.measure.as_ref().map_or(0, Measure::len);
        let tried = self.begun(this, ladder).await;
        if let Some(measure) = &mut self.measure {
            measure.transaction_ended(if tried.is_ok() { usize::MAX } else { measured });
        }
        if tried.is_err() {
            // What fails here too has lost its session, and the server rolls back by itself.
            _ = own(&self.sessions.work, "ROLLBACK").await;
        }
        tried
    }

    async fn begun(&mut self, this: &Try<'_, 'a>, ladder: &mut Ladder<'_>) -> Result<SegmentCost, Trouble> {
        let file = this.job.file();
        let trouble = |fault: Fault| match fault.is_lock_missed() {
            true => Trouble::Missed { waited: false },
            false => Trouble::Failed(fault.while_doing("begin a transaction")),
        };
        let first =
            this.statements.first().map_or(limits::OWN, |first| limits::statement_timeout(first.class));
        own(&self.sessions.work, &begin(first)).await.map_err(trouble)?;
        let obeys = fence::obey(&self.sessions.work, self.epoch).await.map_err(trouble)?;
        let xid = obeys.ok_or_else(|| Trouble::Failed(fence::fenced(self.epoch, None)))?;
        self.entry(this.job).note_xid(&self.sessions.second, this.attempt, &xid).await.map_err(trouble)?;
        // From here to the commit others may have to wait: every message to the server counts.
        ladder.climb(&self.sessions.work, this.locks).await.map_err(trouble)?;
        let had = Instant::now();
        failpoint::pass("migrate-locked");
        let bounds = Bounds { max_stall: self.max_stall(), max_wait: None };
        let watch = Watch::begin(&self.sessions.second, self.sessions.work.pid(), bounds);
        let body = self.body(this, &watch, first).await;
        let measuring = self.measure.as_mut().map(Measure::time_taken).unwrap_or_default();
        let (held, seen) = (had.elapsed().saturating_sub(measuring), watch.end().await);
        match body {
            Ok(()) => {
                let found = self.measure.as_ref().is_some_and(Measure::stalls_visitors);
                Ok(cost(this, ladder, held, &seen, found))
            }
            Err(Broken { fault, at: Some(statement) }) if !fault.is_lock_missed() => {
                let stopped = seen.stopped.is_some() || seen.blind.is_some();
                let trouble = if filling::may_help(&fault) { Trouble::Empty } else { Trouble::Failed };
                let problem = if stopped {
                    file.stopped(statement, &seen, self.order.max_stall_ms)
                } else {
                    file.failed(statement, fault)
                };
                let ran = this.statements.iter().copied().take_while(|ran| ran.ordinal <= statement.ordinal);
                Err(trouble(File::outlived(ran, problem)))
            }
            Err(Broken { fault, at: None }) if !fault.is_lock_missed() => {
                let ran = this.statements.iter().copied();
                Err(Trouble::Failed(File::outlived(ran, file.failed_at_end(fault))))
            }
            Err(_) => Err(Trouble::Missed { waited: true }),
        }
    }

    /// From the first statement to the commit.
    async fn body(
        &mut self,
        this: &Try<'_, 'a>,
        watch: &Watch,
        mut limit: Duration,
    ) -> Result<(), Broken<'a>> {
        for statement in this.statements.iter().copied() {
            let broken = |fault: Fault| Broken { fault, at: Some(statement) };
            let wanted = limits::statement_timeout(statement.class);
            if wanted != limit {
                let set = format!("SET LOCAL statement_timeout = {}", wanted.as_millis());
                own(&self.sessions.work, &set).await.map_err(broken)?;
                limit = wanted;
            }
            failpoint::pass("migrate-statement");
            let began = Instant::now();
            let sent = self.sessions.work.client().batch_execute(&statement.sql);
            watched(sent, statement.class, watch).await.map_err(broken)?;
            let took = began.elapsed();
            if let Some(measure) = &mut self.measure {
                measure
                    .statement(&self.sessions.work, &this.job.file(), statement, took)
                    .await
                    .map_err(broken)?;
                elsewhere::close(&self.sessions.work).await.map_err(broken)?;
            }
            failpoint::pass("migrate-statement-done");
        }
        self.finish(this, watch).await
    }

    /// Deferred constraints, the records and the commit, in one message: the locks are held.
    async fn finish(&self, this: &Try<'_, 'a>, watch: &Watch) -> Result<(), Broken<'a>> {
        if watch.has_tripped() {
            let fault = Fault::Lost("stopped by the watch".to_owned());
            return Err(Broken { fault, at: this.statements.last().copied() });
        }
        let done = self.entry(this.job).done_sql(this.attempt, this.statements, self.sessions.work.pid());
        let sql = format!("SET CONSTRAINTS ALL IMMEDIATE; {done} {} COMMIT", this.ending);
        failpoint::pass("migrate-commit");
        own(&self.sessions.work, &sql).await.map_err(|fault| Broken { fault, at: None })?;
        failpoint::pass("migrate-committed");
        Ok(())
    }
}

/// What stopped a transaction, at which statement; none at its end.
struct Broken<'a> {
    fault: Fault,
    at: Option<&'a Statement>,
}

fn begin(limit: Duration) -> String {
    format!(
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT_S}s'; SET LOCAL synchronous_commit = off;
         SET LOCAL lock_timeout = {UNFORESEEN_LOCK_MS}; SET LOCAL statement_timeout = {}",
        limit.as_millis()
    )
}

fn cost(this: &Try<'_, '_>, ladder: &Ladder<'_>, held: Duration, seen: &Seen, found: bool) -> SegmentCost {
    let mut told = this.statements.iter().flat_map(|statement| &statement.locks);
    let stalls = found || told.any(|lock| lock.mode.stalls_visitors());
    SegmentCost {
        first: this.statements.first().map_or(0, |statement| place(statement)),
        last: this.statements.last().map_or(0, |statement| place(statement)),
        lock_tries: ladder.tries(),
        lock_held: if stalls { held } else { Duration::ZERO },
        stalled_sessions: seen.sessions.len(),
        longest_stall: seen.longest,
    }
}

/// A small command of our own.
pub(crate) async fn own(session: &Session, sql: &str) -> Result<(), Fault> {
    let sent = tokio::time::timeout(limits::OWN, session.client().batch_execute(sql)).await;
    sent.map_err(|_| Fault::Lost(format!("no answer within {:?}", limits::OWN)))?.map_err(Fault::from)
}

/// A statement of a file, sent; it does not run on when nobody can see whom it stalls.
pub(crate) async fn watched<T>(
    sent: impl Future<Output = Result<T, tokio_postgres::Error>>,
    class: Class,
    watch: &Watch,
) -> Result<T, Fault> {
    if watch.has_tripped() {
        return Err(Fault::Lost("stopped by the watch".to_owned()));
    }
    let patience = limits::patience(class);
    tokio::select! {
        sent = tokio::time::timeout(patience, sent) => {
            sent.map_err(|_| Fault::Lost(format!("no answer within {patience:?}")))?.map_err(Fault::from)
        }
        () = watch.blinded() => Err(Fault::Lost("the watch sees nothing any more".to_owned())),
    }
}
