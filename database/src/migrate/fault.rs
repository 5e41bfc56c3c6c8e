//! What PostgreSQL answered instead of success, read once: the rest of the executor decides by this.

use pointsman_core::{Aftermath, Code, Problem};
use tokio_postgres::Error;
use tokio_postgres::error::{ErrorPosition, Severity, SqlState};

use crate::statement;

/// Why a statement did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server refused; the transaction, if there was one, is aborted.
    Refused(Refusal),
    /// The session ended. Whether the last statement took effect is not known from here.
    Lost(String),
    /// It did, and something that it must not beside.
    Strayed(Stray),
}

/// What a statement did that its text does not tell.
#[derive(Debug)]
pub(crate) struct Stray {
    /// In words: `leaves …`.
    pub(crate) how: String,
    /// Why it must not.
    pub(crate) why: &'static str,
    /// What to do instead.
    pub(crate) hint: &'static str,
}

/// An error that the server sent.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// `SQLSTATE`, five characters.
    pub(crate) state: String,
    /// What it said.
    pub(crate) message: String,
    /// Its detail and hint.
    pub(crate) more: Vec<String>,
    /// Where in the statement, in characters from 0.
    pub(crate) position: Option<usize>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let Some(refused) = error.as_db_error() else { return Self::Lost(told(&error)) };
        // The server says goodbye with an error of its own: shutdown, crash of a neighbour, termination.
        if matches!(refused.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
            return Self::Lost(format!("{}: {}", refused.code().code(), refused.message()));
        }
        let position = match refused.position() {
            Some(ErrorPosition::Original(at)) => usize::try_from(*at).ok().and_then(|at| at.checked_sub(1)),
            _ => None,
        };
        let mut more = statement::details(refused);
        more.extend(refused.hint().map(str::to_owned));
        Self::Refused(Refusal {
            state: refused.code().code().to_owned(),
            message: refused.message().to_owned(),
            more,
            position,
        })
    }
}

impl Fault {
    /// Whether a lock was not free: worth another try, because nothing happened.
    pub(crate) fn is_lock_missed(&self) -> bool {
        let passing = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        self.state().is_some_and(|state| passing.iter().any(|passing| passing.code() == state))
    }

    /// Whether this is the server's error of that code.
    pub(crate) fn is(&self, state: &SqlState) -> bool {
        self.state() == Some(state.code())
    }

    fn state(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.state),
            Self::Lost(_) | Self::Strayed(_) => None,
        }
    }

    /// In words: `42P01: relation "x" does not exist`.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Refused(refusal) => format!("{}: {}", refusal.state, refusal.message),
            Self::Lost(why) => why.clone(),
            Self::Strayed(stray) => stray.how.clone(),
        }
    }

    /// A problem about something else than a statement of a file: reading records, settings, the catalog.
    pub(crate) fn while_doing(self, what: &str) -> Problem {
        match self {
            Self::Lost(why) => lost(what).cause(why),
            Self::Strayed(Stray { how, .. }) => {
                Problem::new(Code::StatementFailed, format!("cannot {what}: a statement {how}"))
            }
            Self::Refused(refusal) => {
                let problem = Problem::new(Code::RecordsUnfit, format!("the database refused to {what}"));
                let problem = problem.cause(format!("{}: {}", refusal.state, refusal.message));
                refusal.more.iter().fold(problem, Problem::cause)
            }
        }
    }
}

/// The session ended while something was done whose effect the records tell.
pub(crate) fn lost(what: &str) -> Problem {
    Problem::new(Code::SessionLost, format!("the session with the database ended while it was to {what}"))
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .hint("what stands: `pointsman db status ENV`; the next try goes on exactly from there")
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(next) = below {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = next.source();
    }
    text
}
