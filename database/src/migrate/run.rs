//! A run: what is pending, file by file, in the order of versions. Again is as good as once, and a run after a crash goes
//! on exactly where the one before it ended.

use std::time::{Duration, Instant};

use pointsman_core::{Code, Problem};
use pointsman_migration::{Migration, Phase, Script, Segment, Set, Statement, Version};

use super::failure::File;
use super::fault::Fault;
use super::filling::Filling;
use super::ledger::{self, Entry, Record};
use super::measure::Measure;
use super::order::{Applied, Ran, RunOrder, SegmentCost};
use super::sessions::Sessions;
use super::verify::Stands;
use super::version_table::VersionTable;
use super::{fence, gate, status, verify};
use crate::{Authority, Progress, Settings};

/// Applies what is pending of the order's phase. An error says what stands; what it says to have been applied is durable.
pub async fn run(
    settings: &Settings,
    set: &Set,
    order: &RunOrder<'_>,
    authority: &dyn Authority,
    progress: &Progress,
) -> Result<Ran, Problem> {
    let mut run = Run::open(settings, order, authority, progress).await?;
    let ran = run.everything(set).await;
    progress.done();
    ran
}

/// A run, with all that its parts need.
pub(crate) struct Run<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) order: &'a RunOrder<'a>,
    pub(crate) authority: &'a dyn Authority,
    pub(crate) progress: &'a Progress,
    pub(crate) sessions: Sessions,
    pub(crate) epoch: i64,
    pub(crate) table: Option<VersionTable>,
    /// What each statement does, where that is wanted.
    pub(crate) measure: Option<Measure>,
    pub(crate) filling: Filling,
    pub(crate) notes: Vec<String>,
}

/// What a file's last transaction records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The version is there.
    Applied {
        /// Whether a verify file has still to look at it.
        to_verify: bool,
    },
    /// The version was taken back.
    Undone,
}

/// A file on its way: what is to be recorded of it.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) version: &'a Version,
    pub(crate) script: &'a Script,
    pub(crate) ending: Ending,
    /// Statements that stand, from the first.
    pub(crate) done: usize,
}

impl<'a> Job<'a> {
    pub(crate) fn file(&self) -> File<'a> {
        File { script: self.script, done: self.done, batched: None }
    }
}

impl<'a> Run<'a> {
    /// Opens the sessions under the guard and the epoch.
    pub(crate) async fn open(
        settings: &'a Settings,
        order: &'a RunOrder<'a>,
        authority: &'a dyn Authority,
        progress: &'a Progress,
    ) -> Result<Self, Problem> {
        authority.check()?;
        let sessions = Sessions::open(settings, order.database, authority.epoch()).await?;
        ledger::settle(&sessions.second).await?;
        let epoch = fence::as_number(authority.epoch())?;
        let mut run = Self {
            settings,
            order,
            authority,
            progress,
            sessions,
            epoch,
            table: None,
            measure: None,
            filling: Filling::default(),
            notes: Vec::new(),
        };
        run.read_table().await?;
        Ok(run)
    }

    async fn read_table(&mut self) -> Result<(), Problem> {
        if let Some(name) = self.settings.named_version_table() {
            self.table = VersionTable::read(&self.sessions.work, name).await?;
        }
        Ok(())
    }

    pub(crate) fn entry(&self, job: &Job<'a>) -> Entry<'a> {
        Entry { version: job.version, script: job.script, release: &self.order.release, epoch: self.epoch }
    }

    pub(crate) async fn everything(&mut self, set: &'a Set) -> Result<Ran, Problem> {
        if !matches!(self.order.phase, Phase::Expand | Phase::Contract) {
            let message = format!("a run is of phase expand or contract, not {}", self.order.phase);
            return Err(Problem::new(Code::MigrationsUnfit, message));
        }
        let records = ledger::records(&self.sessions.second).await?;
        let leftovers = status::leftovers(&self.sessions.second).await?;
        let pending = status::left(&records, &leftovers, set, self.order.phase, &self.order.out_of_order)?;
        self.notes.extend(pending.notes);
        if records.is_empty() && !pending.scripts.is_empty() {
            VersionTable::must_be_known(&self.sessions.work, self.settings.version_table.as_deref()).await?;
        }
        self.notes.extend(self.added_later(set, &records));
        self.adopted_first(&pending.scripts).await?;
        self.expanded_first(&pending.scripts, &records)?;
        let scripts: Vec<_> =
            pending.scripts.iter().filter_map(|migration| migration.script(self.order.phase)).collect();
        gate::check(&scripts)?;
        let mut ran = Ran::default();
        for migration in &pending.scripts {
            let Some(script) = migration.script(self.order.phase) else { continue };
            let ending = Ending::Applied { to_verify: migration.verify.is_some() };
            let applied = self.apply(&migration.version, script, ending).await;
            ran.applied.push(applied.map_err(|problem| after(problem, &ran.applied))?);
        }
        ran.already = ran.applied.is_empty();
        self.verify(set, &ran.applied, &records).await?;
        ran.notes = std::mem::take(&mut self.notes);
        Ok(ran)
    }

    /// Verify files of what this release applied, in this try or an earlier one, and of whatever no release has seen pass.
    async fn verify(&mut self, set: &Set, applied: &[Applied], records: &[Record]) -> Result<(), Problem> {
        let (phase, release) = (self.order.phase, &self.order.release);
        let wanted = |row: &&Record| row.unverified || (!row.adopted && row.release == *release);
        let earlier = records.iter().filter(|row| row.phase == phase).filter(wanted);
        let versions = earlier.map(|row| &row.version).chain(applied.iter().map(|file| &file.version));
        for migration in versions.filter_map(|version| set.get(version)) {
            let Some(script) = &migration.verify else { continue };
            self.progress.say(format!("looking at {}", script.path));
            self.sessions.prepare_work().await?;
            // What stood before a rehearsal stands in the live database, too.
            let on_copy =
                self.measure.is_some() && applied.iter().any(|file| file.version == migration.version);
            let stands = if on_copy { Stands::OnCopy } else { Stands::Live };
            if let Err(problem) = verify::look(&self.sessions.work, script, stands).await {
                self.fill_for(problem).await?;
                verify::look(&self.sessions.work, script, stands).await?;
            }
            ledger::verified(&self.sessions.second, &migration.version, phase).await?;
        }
        Ok(())
    }

    /// Verify files that came after what they verify had been applied. They are not looked at: later versions may have made untrue
    /// what they say. Of what was there before pointsman nothing was ever verified.
    fn added_later(&self, set: &Set, records: &[Record]) -> Vec<String> {
        let (phase, release) = (self.order.phase, &self.order.release);
        let never = |row: &&Record| {
            row.phase == phase && !row.adopted && !row.had_verify_file && row.release != *release
        };
        let rows = records.iter().filter(never);
        let added = rows.filter_map(|row| Some((row, set.get(&row.version)?.verify.as_ref()?)));
        let note = |(row, script): (&Record, &Script)| {
            format!(
                "{}: was added after v{} had been applied, and is not looked at: put what it says into the verify file of a new version",
                script.path, row.version
            )
        };
        added.map(note).collect()
    }

    /// Refuses to run files whose versions the database had before pointsman: they are adopted, not run.
    async fn adopted_first(&self, pending: &[&Migration]) -> Result<(), Problem> {
        let Some(table) = self.table.as_ref().filter(|_| self.order.phase == Phase::Expand) else {
            return Ok(());
        };
        for migration in pending.iter().filter(|migration| table.holds(&migration.version)) {
            let Some(script) = &migration.expand else { continue };
            let ending = Ending::Applied { to_verify: false };
            let job = Job { version: &migration.version, script, ending, done: 0 };
            // A file that records its own version early, and was interrupted after that, is ours to finish.
            if self.entry(&job).done(&self.sessions.second).await?.is_empty() {
                let message = format!(
                    "{}: the table {} says that version {} is there, and pointsman did not apply it",
                    script.path,
                    table.name(),
                    migration.version
                );
                return Err(Problem::new(Code::NotAdopted, message).hint(
                    "is its work there? leave its file out of the folder; if not, delete its row from the table; \
                     then `pointsman deploy ENV ...`",
                ));
            }
        }
        Ok(())
    }

    /// Refuses a contract whose expand is not there.
    fn expanded_first(&self, pending: &[&Migration], records: &[Record]) -> Result<(), Problem> {
        let there = |version: &Version| {
            records.iter().any(|row| row.phase == Phase::Expand && row.version == *version)
        };
        let early = pending.iter().find(|migration| migration.expand.is_some() && !there(&migration.version));
        match early.filter(|_| self.order.phase == Phase::Contract) {
            None => Ok(()),
            Some(migration) => {
                let message = format!(
                    "version {} has a contract file whose expand file is not applied",
                    migration.version
                );
                Err(Problem::new(Code::MigrationsUnfit, message)
                    .hint("release the expand first: `pointsman deploy ENV`"))
            }
        }
    }

    /// Runs one file from where an earlier try left it.
    pub(crate) async fn apply(
        &mut self,
        version: &'a Version,
        script: &'a Script,
        ending: Ending,
    ) -> Result<Applied, Problem> {
        let began = Instant::now();
        self.sessions.prepare_work().await?;
        let mut job = Job { version, script, ending, done: 0 };
        job.done = self.prefix(&job).await?;
        if job.done > 0 {
            self.notes.push(format!("{}: an earlier try did its first {} statements", script.path, job.done));
        }
        if let Some(measure) = &mut self.measure {
            measure.begin(&self.sessions.second, &self.sessions.work).await?;
        }
        let mut segments = Vec::new();
        for (index, segment) in script.segments.iter().enumerate() {
            let left: Vec<&'a Statement> =
                segment.statements.iter().filter(|s| !is_done(s, job.done)).collect();
            if left.is_empty() {
                continue;
            }
            // What a block or a function before it set for the session a try that goes on here after a crash would not have.
            if !segments.is_empty() {
                self.sessions.prepare_work().await?;
            }
            let last = index + 1 == script.segments.len();
            segments.push(self.segment(&job, segment, &left, last).await?);
            job.done = left.last().map_or(job.done, |statement| place(statement));
        }
        if segments.is_empty() {
            self.close(&job).await?;
        }
        let path = script.path.clone();
        Ok(Applied {
            version: version.clone(),
            phase: script.phase,
            path,
            duration: began.elapsed(),
            segments,
        })
    }

    async fn segment(
        &mut self,
        job: &Job<'a>,
        segment: &Segment,
        left: &[&'a Statement],
        last: bool,
    ) -> Result<SegmentCost, Problem> {
        let ends = left.last().map_or(0, |statement| place(statement));
        let total = job.script.statements().count();
        self.progress.say(format!("running {}, up to statement {ends} of {total}", job.script.path));
        match (segment.transactional, left) {
            (false, [statement]) => self.outside(job, statement, last).await,
            _ => self.transaction(job, left, last).await,
        }
    }

    /// Statements of the file that stand, from the first; refuses if they, or one of which batches stand, were others than the
    /// file's.
    async fn prefix(&self, job: &Job<'a>) -> Result<usize, Problem> {
        let done = self.entry(job).done(&self.sessions.second).await?;
        let mut statements = job.script.statements();
        for (at, hash) in &done {
            let same = statements.next().is_some_and(|statement| {
                i32::try_from(statement.ordinal) == Ok(*at)
                    && statement.token_hash.as_slice() == hash.as_slice()
            });
            if !same {
                let message = format!(
                    "{}: statement {at} was applied by an earlier try and says something else now; {}",
                    job.script.path,
                    File { done: done.len(), ..job.file() }.stands()
                );
                return Err(Problem::new(Code::MigrationsUnfit, message)
                    .aftermath(pointsman_core::Aftermath::Changed)
                    .hint("put the old statements back and change only those after them"));
            }
        }
        for saved in self.entry(job).saved(&self.sessions.second).await? {
            saved.must_be_of(&Job { done: done.len(), ..*job })?;
        }
        Ok(done.len())
    }

    /// What the last transaction of a file records beside its statements.
    pub(crate) fn ending_sql(&self, job: &Job<'a>) -> Result<String, Problem> {
        let entry = self.entry(job);
        let table = self.table.as_ref();
        Ok(match job.ending {
            Ending::Undone => {
                let rows = table.map(|table| table.delete_sql(job.version)).unwrap_or_default();
                entry.undone_sql() + &rows
            }
            Ending::Applied { to_verify } => {
                let table = table.filter(|_| job.script.phase == Phase::Expand);
                let row = table.map(|table| table.insert_sql(job.version)).transpose()?.unwrap_or_default();
                let look = if to_verify { entry.owed_look_sql() } else { String::new() };
                entry.applied_sql() + &row + &look
            }
        })
    }

    /// Records a file all of whose statements stood already.
    async fn close(&self, job: &Job<'a>) -> Result<(), Problem> {
        let sql = format!("BEGIN; {} COMMIT", self.ending_sql(job)?);
        let closed = self.sessions.second.client().batch_execute(&sql).await;
        closed.map_err(|error| Fault::from(error).while_doing("record a file whose statements stand"))
    }

    /// Asked before everything that others can see.
    pub(crate) fn may_go_on(&self) -> Result<(), Problem> {
        self.sessions.check()?;
        self.authority.check()
    }

    pub(crate) fn max_stall(&self) -> Duration {
        Duration::from_millis(self.order.max_stall_ms)
    }

    pub(crate) fn lock_budget(&self) -> Duration {
        Duration::from_millis(self.order.lock_budget_ms)
    }
}

/// A statement's place in its file, from 1.
pub(crate) fn place(statement: &Statement) -> usize {
    usize::try_from(statement.ordinal).unwrap_or(usize::MAX)
}

fn is_done(statement: &Statement, done: usize) -> bool {
    place(statement) <= done
}

/// Says which files of the same run stand beside the failed one.
fn after(problem: Problem, applied: &[Applied]) -> Problem {
    let versions: Vec<String> = applied.iter().map(|file| file.version.to_string()).collect();
    if versions.is_empty() {
        return problem;
    }
    let changed = match problem.aftermath {
        pointsman_core::Aftermath::Unchanged => pointsman_core::Aftermath::Changed,
        other => other,
    };
    problem.aftermath(changed).cause(format!("applied before it, and standing: {}", versions.join(", ")))
}
