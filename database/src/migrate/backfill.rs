//! An `UPDATE` or `DELETE` over many rows, batch by batch along a key: each batch is a transaction that saves how far it
//! came, so an interrupted one goes on with the next batch and no row is changed twice.

use std::time::{Duration, Instant};

use pointsman_chassis::failpoint;
use pointsman_core::{Code, Problem};
use pointsman_migration::{Backfill, Batch, Class, Statement};

use super::failure::File;
use super::fault::Fault;
use super::ledger::{self, literal};
use super::limits::{self, ROW_LOCK_MS};
use super::order::SegmentCost;
use super::run::{Job, Run, place};
use super::transaction::{own, watched};
use super::watcher::{Bounds, Watch};
use super::{fence, filling, lookback};

/// A batch is followed by a pause as long as itself, at most this: half of the server stays with visitors.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often a batch that misses a row's lock is tried in a row.
const MAX_MISSES: u32 = 30;
/// How far replicas may be behind before the next batch waits.
const MAX_LAG: Duration = Duration::from_secs(5);
/// How many times as many rows as asked for a batch may have, because they share the key's last value.
const MAX_SHARING: u32 = 10;
/// How long replicas are waited for in all, per batch.
const LAG_WAIT: Duration = Duration::from_secs(60);

/// The key must lead through all rows in an order that an index has: a column that is never null. Rows that share a value go
/// together.
const KEY: &str = "
SELECT format_type(a.atttypid, a.atttypmod), a.attnotnull AND i.leads, i.leads_alone
  FROM pg_catalog.pg_attribute a
 CROSS JOIN LATERAL (
    SELECT count(*) > 0 AS leads, coalesce(bool_or(i.indisunique AND i.indnkeyatts = 1), false) AS leads_alone
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
     WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indkey[0] = a.attnum AND i.indpred IS NULL
       AND m.amname = 'btree') i
 WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped";

/// The column that somebody means who forgot its quotes.
const MEANT: &str = "
SELECT attname::text FROM pg_catalog.pg_attribute
 WHERE attrelid = to_regclass($1) AND lower(attname) = lower($2) AND attnum > 0 AND NOT attisdropped LIMIT 1";

const LAG: &str =
    "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_catalog.pg_stat_replication";

/// A backfill on its way.
struct Walk<'a> {
    batch: &'a Batch,
    cut: Backfill,
    kind: String,
    /// Whether several rows may have one key.
    shared: bool,
    /// The last key that is done.
    last: Option<String>,
    rows: i64,
    /// Rows that earlier tries had changed; none where they saved no batch.
    found: Option<i64>,
}

impl Walk<'_> {
    fn key(&self, text: &str) -> String {
        format!("{}::{}", literal(text), self.kind)
    }

    /// The rows of the next batch, where the key is called so.
    fn range(&self, key: &str, up_to: &str) -> String {
        let up_to = self.key(up_to);
        match &self.last {
            None => format!("{key} <= {up_to}"),
            Some(last) => format!("{key} > {} AND {key} <= {up_to}", self.key(last)),
        }
    }
}

impl<'a> Run<'a> {
    /// Runs a statement batch by batch, from the last one that is saved.
    pub(crate) async fn backfill(
        &mut self,
        job: &Job<'a>,
        statement: &'a Statement,
        last: bool,
    ) -> Result<SegmentCost, Problem> {
        let mut walk = self.walk(job, statement).await?;
        let (entry, second) = (self.entry(job), self.sessions.second.clone());
        lookback::settle(&entry, &second, statement).await?;
        let attempt = entry.intend(&second, statement, self.sessions.work.pid()).await?;
        failpoint::pass("migrate-intended");
        let began = Instant::now();
        let mut cost =
            SegmentCost { first: place(statement), last: place(statement), ..SegmentCost::default() };
        while let Some(up_to) =
            self.next(&walk).await.map_err(|problem| self.at(job, &walk).beside(problem))?
        {
            let batch_began = Instant::now();
            self.one_batch(job, statement, &mut walk, up_to, &mut cost).await?;
            self.progress.say(format!("{}: {} rows so far", job.file().place(statement), walk.rows));
            tokio::time::sleep(batch_began.elapsed().min(MAX_PAUSE)).await;
        }
        if let Some(measure) = &mut self.measure {
            measure.outside(&job.file(), statement, began.elapsed());
        }
        let done = entry.done_sql(attempt, &[statement], self.sessions.work.pid());
        let ending = if last { self.ending_sql(job)? } else { String::new() };
        let recorded = own(&second, &format!("BEGIN; {done} {ending} COMMIT")).await;
        recorded.map_err(|fault| {
            let what = format!("record {}", job.file().place(statement));
            self.at(job, &walk).beside(fault.while_doing(&what))
        })?;
        entry.confirm(&second, attempt).await?;
        failpoint::pass("migrate-outside-recorded");
        Ok(cost)
    }

    async fn walk(&self, job: &Job<'a>, statement: &Statement) -> Result<Walk<'a>, Problem> {
        let at = job.file().place(statement);
        let unfit = |message: String| Problem::new(Code::MigrationsUnfit, format!("{at}: {message}"));
        let batch = job.script.headers.batch.as_ref();
        let batch = batch.ok_or_else(|| unfit("a backfill without the header `batch`".into()))?;
        let cut = Backfill::of(statement, batch).ok_or_else(|| {
            unfit("this statement cannot be cut into batches".into())
                .hint("write it without `WHERE CURRENT OF`")
        })?;
        let table = cut.table.as_sql();
        let row = self.sessions.work.client().query_opt(KEY, &[&table, &batch.key]).await.map_err(failed)?;
        let read =
            |row: tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, bool>(2)?));
        let (kind, shared) = match row.map(read).transpose().map_err(failed)? {
            Some((kind, true, unique)) => (kind, !unique),
            found => {
                let why = if found.is_some() {
                    "is not `NOT NULL` and the first column of an index"
                } else {
                    "is no column of it"
                };
                let hint = match self.meant(&table, &batch.key).await? {
                    Some(key) if found.is_none() => {
                        format!("write its name as SQL does: `batch={}`", Batch { key, rows: batch.rows })
                    }
                    _ => "name the first column of the primary key in the header `batch=COLUMN:ROWS`, or one that \
                          an earlier version gives an index: `CREATE INDEX CONCURRENTLY`"
                        .to_owned(),
                };
                return Err(unfit(format!("`{}` of {} cannot cut batches: it {why}", batch.key, cut.table))
                    .hint(hint));
            }
        };
        // Whatever is saved is this statement's: `prefix` has looked, and nobody else writes under the guard.
        let saved = self.entry(job).saved(&self.sessions.second).await?;
        let saved = saved.into_iter().find(|saved| saved.ordinal == ledger::ordinal(statement));
        let found = saved.as_ref().map(|saved| saved.rows);
        let last = saved.map(|saved| saved.last_key);
        Ok(Walk { batch, cut, kind, shared, last, rows: found.unwrap_or_default(), found })
    }

    async fn meant(&self, table: &str, key: &str) -> Result<Option<String>, Problem> {
        let row = self.sessions.work.client().query_opt(MEANT, &[&table, &key]).await.map_err(failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    /// The file with what stands of the walk. What a rehearsal does stands on the copy alone, and binds nobody.
    fn at(&self, job: &Job<'a>, walk: &Walk<'_>) -> File<'a> {
        let batched = if self.measure.is_some() { walk.found } else { walk.last.as_ref().map(|_| walk.rows) };
        File { batched, ..job.file() }
    }

    /// The last key of the next batch, once it may begin; none when all are done.
    async fn next(&self, walk: &Walk<'_>) -> Result<Option<String>, Problem> {
        let Some(up_to) = self.next_key(walk).await? else { return Ok(None) };
        if walk.shared {
            self.few_share(walk, &up_to).await?;
        }
        self.may_go_on()?;
        self.replicas().await?;
        Ok(Some(up_to))
    }

    /// The last key of the next batch; none when all are done. Its text must be the key's very value, however the database
    /// is set to show values.
    async fn next_key(&self, walk: &Walk<'_>) -> Result<Option<String>, Problem> {
        let key = format!("\"{}\"", walk.batch.key.replace('"', "\"\""));
        let above =
            walk.last.as_ref().map(|last| format!("WHERE {key} > {}", walk.key(last))).unwrap_or_default();
        let sql = format!(
            "SELECT s.k::text FROM (SELECT {key} AS k FROM {} {above} ORDER BY 1 LIMIT {}) s ORDER BY s.k DESC LIMIT 1",
            walk.cut.table.as_sql(),
            walk.batch.rows
        );
        let work = &self.sessions.work;
        let exact = "BEGIN READ ONLY; SET LOCAL extra_float_digits = 3; SET LOCAL datestyle = 'ISO'";
        let asked = async {
            own(work, exact).await?;
            Ok::<_, Fault>(work.client().query_opt(&sql, &[]).await?)
        };
        let (row, unread) = (asked.await, |fault: Fault| fault.while_doing("walk along a key"));
        own(work, "ROLLBACK").await.map_err(unread)?;
        row.map_err(unread)?.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    /// Refuses a batch that a value which many rows share makes much larger than was asked for: it would hold them all.
    async fn few_share(&self, walk: &Walk<'_>, up_to: &str) -> Result<(), Problem> {
        let most = i64::from(walk.batch.rows).saturating_mul(i64::from(MAX_SHARING));
        // The table is counted, not what the statement changes of it: its own condition may be dear.
        let sql = format!(
            "SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT {}) s",
            walk.cut.table.as_sql(),
            walk.range(&format!("\"{}\"", walk.batch.key.replace('"', "\"\"")), up_to),
            most.saturating_add(1)
        );
        let row = self.sessions.work.client().query_one(&sql, &[]).await.map_err(failed)?;
        let rows: i64 = row.try_get(0).map_err(failed)?;
        if rows <= most {
            return Ok(());
        }
        let message = format!(
            "more than {most} rows of {} share `{}` = {up_to}: a batch of {} would hold them all",
            walk.cut.table, walk.batch.key, walk.batch.rows
        );
        Err(Problem::new(Code::MigrationsUnfit, message)
            .hint("name a column in the header `batch=COLUMN:ROWS` whose values fewer rows share"))
    }

    async fn one_batch(
        &mut self,
        job: &Job<'a>,
        statement: &'a Statement,
        walk: &mut Walk<'_>,
        up_to: String,
        cost: &mut SegmentCost,
    ) -> Result<(), Problem> {
        let at = self.at(job, walk);
        let (sql, up_to) = (walk.cut.within(&walk.range(&walk.cut.key, &up_to)), up_to.as_str());
        for _ in 0..MAX_MISSES {
            cost.lock_tries = cost.lock_tries.saturating_add(1);
            let bounds = Bounds { max_stall: self.max_stall(), max_wait: None };
            let watch = Watch::begin(&self.sessions.second, self.sessions.work.pid(), bounds);
            failpoint::pass("migrate-statement");
            let changed = self.in_transaction(job, statement, walk, &sql, up_to, &watch).await;
            let seen = watch.end().await;
            cost.stalled_sessions = cost.stalled_sessions.max(seen.sessions.len());
            cost.longest_stall = cost.longest_stall.max(seen.longest);
            match changed {
                Ok(rows) => {
                    failpoint::pass("migrate-committed");
                    walk.rows = rows;
                    walk.last = Some(up_to.to_owned());
                    return Ok(());
                }
                Err(problem) => {
                    _ = own(&self.sessions.work, "ROLLBACK").await;
                    match problem {
                        Stop::Missed => {}
                        Stop::Fenced => return Err(at.beside(fence::fenced(self.epoch, None))),
                        Stop::Failed(_) if seen.stopped.is_some() || seen.blind.is_some() => {
                            return Err(at.stopped(statement, &seen, self.order.max_stall_ms));
                        }
                        Stop::Failed(fault) if filling::may_help(&fault) => {
                            self.fill_for(at.failed(statement, fault)).await?;
                        }
                        Stop::Failed(fault) => return Err(at.failed(statement, fault)),
                    }
                }
            }
            tokio::time::sleep(MAX_PAUSE).await;
        }
        let message = format!("{}: visitors hold rows of the next batch", at.place(statement));
        Err(at.beside(Problem::new(Code::LockNotHad, message).retry_useful().hint(
            "who holds them: `SELECT * FROM pg_stat_activity WHERE xact_start < now() - interval '2 s'`; then \
             the same command again: `pointsman deploy ENV ...` or `pointsman db contract ENV ...`",
        )))
    }

    /// Returns the rows of all batches so far.
    async fn in_transaction(
        &self,
        job: &Job<'a>,
        statement: &Statement,
        walk: &Walk<'_>,
        sql: &str,
        up_to: &str,
        watch: &Watch,
    ) -> Result<i64, Stop> {
        let begin = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL idle_in_transaction_session_timeout = '10s';
             SET LOCAL lock_timeout = {ROW_LOCK_MS}; SET LOCAL statement_timeout = {}",
            limits::statement_timeout(Class::Backfill).as_millis()
        );
        own(&self.sessions.work, &begin).await.map_err(Stop::of)?;
        if fence::obey(&self.sessions.work, self.epoch).await.map_err(Stop::of)?.is_none() {
            return Err(Stop::Fenced);
        }
        let sent = self.sessions.work.client().execute(sql, &[]);
        let changed = watched(sent, Class::Backfill, watch).await.map_err(Stop::of)?;
        failpoint::pass("migrate-statement-done");
        let rows = walk.rows.saturating_add(i64::try_from(changed).unwrap_or(i64::MAX));
        let save = self.entry(job).save_sql(statement, walk.batch, up_to, rows);
        own(&self.sessions.work, &save).await.map_err(Stop::of)?;
        failpoint::pass("migrate-commit");
        own(&self.sessions.work, "COMMIT").await.map_err(Stop::of)?;
        Ok(rows)
    }

    /// Waits until replicas have come near.
    async fn replicas(&self) -> Result<(), Problem> {
        let began = Instant::now();
        while began.elapsed() < LAG_WAIT {
            let row = self.sessions.second.client().query_one(LAG, &[]).await.map_err(failed)?;
            let lag: f64 = row.try_get(0).map_err(failed)?;
            if lag <= MAX_LAG.as_secs_f64() {
                return Ok(());
            }
            self.progress.say(format!("replicas are {lag:.0} s behind: the next batch waits"));
            tokio::time::sleep(MAX_PAUSE).await;
        }
        Err(Problem::new(
            Code::DatabaseBusy,
            format!("replicas stay more than {} s behind", MAX_LAG.as_secs()),
        )
        .retry_useful()
        .hint(
            "on the database: `SELECT * FROM pg_stat_replication`; then the same command again: \
             `pointsman deploy ENV ...` or `pointsman db contract ENV ...`",
        ))
    }
}

/// Why a batch did not commit.
enum Stop {
    Missed,
    Fenced,
    Failed(Fault),
}

impl Stop {
    fn of(fault: Fault) -> Self {
        if fault.is_lock_missed() { Self::Missed } else { Self::Failed(fault) }
    }
}

fn failed(error: tokio_postgres::Error) -> Problem {
    Fault::from(error).while_doing("walk along a key")
}
