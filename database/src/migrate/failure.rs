//! Failures of migrations in words: where, which statement, what the server said, what stands now, what to type next.

use pointsman_core::{Aftermath, Code, Problem};
use pointsman_migration::{Class, Finding, Script, Statement};
use tokio_postgres::error::SqlState;

use super::fault::{self, Fault, Refusal, Stray};
use super::watcher::{Seen, Stopped};
use super::{blockers, elsewhere};

/// A file while it is run, as failures tell of it.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    /// The file.
    pub(crate) script: &'a Script,
    /// Statements of it that stand, from the first.
    pub(crate) done: usize,
    /// Rows that batches of the statement after those have changed; none where no batch stands.
    pub(crate) batched: Option<i64>,
}

impl File<'_> {
    fn total(&self) -> usize {
        self.script.statements().count()
    }

    /// What stands of it now.
    pub(crate) fn stands(&self) -> String {
        if let Some(rows) = self.batched {
            let before = match self.done {
                0 => String::new(),
                1 => "its statement 1 stands, ".to_owned(),
                done => format!("its statements 1 to {done} stand, "),
            };
            let number = self.done.saturating_add(1);
            return format!(
                "{before}the {rows} rows that statement {number} has changed so far stand and are recorded; the next try \
                 goes on after them"
            );
        }
        match self.done {
            0 => "nothing of the file was applied".to_owned(),
            1 => "its statement 1 stands and is recorded, the rest was not applied".to_owned(),
            done => format!("its statements 1 to {done} stand and are recorded, the rest was not applied"),
        }
    }

    fn aftermath(&self) -> Aftermath {
        if self.done == 0 && self.batched.is_none() { Aftermath::Unchanged } else { Aftermath::Changed }
    }

    /// Another failure, of what is no statement, with what stands beside it.
    pub(crate) fn beside(&self, problem: Problem) -> Problem {
        let aftermath = match problem.aftermath {
            Aftermath::Unchanged => self.aftermath(),
            told => told,
        };
        problem.aftermath(aftermath).cause(format!("{}: {}", self.script.path, self.stands()))
    }

    /// `path:line:column`.
    pub(crate) fn place(&self, statement: &Statement) -> String {
        format!("{}:{}:{}", self.script.path, statement.line, statement.column)
    }

    /// A statement did not succeed.
    pub(crate) fn failed(&self, statement: &Statement, fault: Fault) -> Problem {
        let refusal = match fault {
            Fault::Lost(why) => return self.lost(statement, &why),
            Fault::Strayed(stray) => return self.strayed(statement, &stray),
            Fault::Refused(refusal) => refusal,
        };
        let (line, column) = place_within(statement, refusal.position);
        let message = format!(
            "{}:{line}:{column}: statement {} of {} {}; {}",
            self.script.path,
            statement.ordinal,
            self.total(),
            said(&refusal),
            self.stands()
        );
        self.problem(message, &refusal)
    }

    /// What is checked at the end of a transaction failed: deferred constraints, the records themselves.
    pub(crate) fn failed_at_end(&self, fault: Fault) -> Problem {
        match fault {
            Fault::Lost(why) => fault::lost(&format!("commit {}", self.script.path)).cause(why),
            fault @ Fault::Strayed(_) => fault.while_doing(&format!("commit {}", self.script.path)),
            Fault::Refused(refusal) => {
                let (path, said) = (&self.script.path, said(&refusal));
                let message = format!(
                    "{path}: what is checked at the end of its transaction {said}; {}",
                    self.stands()
                );
                self.problem(message, &refusal)
            }
        }
    }

    /// The failure, beside what no rollback takes back of the statements that ran.
    pub(crate) fn outlived<'s>(ran: impl IntoIterator<Item = &'s Statement>, problem: Problem) -> Problem {
        if !ran.into_iter().any(|statement| statement.sql.to_ascii_lowercase().contains("setval")) {
            return problem;
        }
        problem.cause(
            "what `setval` did to a sequence stands: no rollback takes it back; compare `SELECT * FROM pg_sequences` with the tables",
        )
    }

    fn problem(&self, message: String, refusal: &Refusal) -> Problem {
        let code = match elsewhere::is_refusal(refusal) {
            true => Code::MigrationsUnfit,
            false => Code::StatementFailed,
        };
        let hint = match self.batched {
            _ if code == Code::MigrationsUnfit => elsewhere::HINT,
            // A procedure, or what it calls, committed: there is no header under which it could.
            None if refusal.state == SqlState::INVALID_TRANSACTION_TERMINATION.code() => {
                "what ends transactions by itself cannot be told whole or not at all: write its loop as `UPDATE` or `DELETE` \
                 with `-- pointsman: batch=COLUMN:ROWS`, or call it by hand when the release is over"
            }
            None => "correct the file and release again: `pointsman deploy ENV`",
            Some(_) => {
                "correct the row that it failed at, leave the statement as it is, and release again: `pointsman deploy ENV`; \
                 where it cannot end: `pointsman explain PM0330`"
            }
        };
        let problem = Problem::new(code, message).aftermath(self.aftermath()).hint(hint);
        refusal.more.iter().fold(problem, Problem::cause)
    }

    fn strayed(&self, statement: &Statement, stray: &Stray) -> Problem {
        let at = format!("{}: statement {} of {}", self.place(statement), statement.ordinal, self.total());
        Problem::new(Code::StatementFailed, format!("{at} {}; {}", stray.how, self.stands()))
            .aftermath(self.aftermath())
            .cause(stray.why)
            .hint(stray.hint)
    }

    fn lost(&self, statement: &Statement, why: &str) -> Problem {
        let what =
            format!("run {} (statement {} of {})", self.place(statement), statement.ordinal, self.total());
        fault::lost(&what).cause(why)
    }

    /// The watch cancelled a statement.
    pub(crate) fn stopped(&self, statement: &Statement, seen: &Seen, max_stall_ms: u64) -> Problem {
        let at = format!("{}: statement {} of {}", self.place(statement), statement.ordinal, self.total());
        match &seen.stopped {
            Some(Stopped::Waited(blockers)) => {
                let message = format!(
                    "{at} waited too long and was cancelled: {}; {}",
                    blockers::named(blockers),
                    self.stands()
                );
                let problem = Problem::new(Code::LockNotHad, message).aftermath(self.aftermath());
                problem.retry_useful().hint(blockers::way_out(blockers))
            }
            Some(Stopped::Stalled) => {
                let message = format!(
                    "{at} was cancelled: {} sessions waited for it, one for {} ms, and {max_stall_ms} ms are allowed; {}",
                    seen.sessions.len(),
                    seen.longest.as_millis(),
                    self.stands()
                );
                let hint = match statement.class {
                    Class::Backfill => {
                        "leave the statement as it is and let its batches be smaller (`batch=COLUMN:ROWS`), then: \
                         `pointsman deploy ENV`"
                    }
                    _ => {
                        "write it in smaller steps (`NOT VALID` and `VALIDATE`, `CONCURRENTLY`, `batch=`), then: \
                         `pointsman deploy ENV`"
                    }
                };
                Problem::new(Code::StallStopped, message).aftermath(self.aftermath()).hint(hint)
            }
            None => {
                let why = seen.blind.as_deref().unwrap_or("the watch ended");
                fault::lost(&format!("watch {at}")).cause(why)
            }
        }
    }
}

/// Findings as one failure: the first in the message, the others as causes.
pub(crate) fn refused(code: Code, findings: &[Finding]) -> Problem {
    let Some(first) = findings.first() else { return Problem::new(code, "refused without a finding") };
    let Finding { path, line, column, rule, message, .. } = first;
    let problem = Problem::new(code, format!("{path}:{line}:{column}: {message} [{rule}]")).hint(&first.hint);
    findings.iter().skip(1).fold(problem, |problem, finding| problem.cause(finding.to_string()))
}

/// What the server said instead of success.
fn said(refusal: &Refusal) -> String {
    match elsewhere::is_ours(refusal) {
        true => refusal.message.clone(),
        false => format!("failed with {}: {}", refusal.state, refusal.message),
    }
}

/// Line and column in the file of a place within the statement.
fn place_within(statement: &Statement, position: Option<usize>) -> (u32, u32) {
    let start = (statement.line, statement.column);
    let Some(position) = position else { return start };
    statement.sql.chars().take(position).fold(start, |(line, column), character| match character {
        '\n' => (line.saturating_add(1), 1),
        _ => (line, column.saturating_add(1)),
    })
}
