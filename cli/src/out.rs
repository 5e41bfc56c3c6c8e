//! The two streams: results to standard output, everything else to standard error. A reader that goes away ends the
//! command quietly.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};

use pointsman_core::{EnvironmentName, Problem};

use crate::args::Output;
use crate::exit::Exit;
use crate::render;

/// Where and how the command speaks.
pub struct Out {
    mode: Output,
    environment: Option<EnvironmentName>,
    /// Nobody reads standard output any more.
    unread: Cell<bool>,
}

impl Out {
    /// Decides once how to speak.
    pub fn new(asked: Output, environment: Option<EnvironmentName>) -> Self {
        let live = io::stderr().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
            && std::env::var_os("CI").is_none();
        let mode = match asked {
            Output::Auto if live => Output::Tty,
            Output::Auto => Output::Plain,
            chosen => chosen,
        };
        Self { mode, environment, unread: Cell::new(false) }
    }

    /// One JSON document is wanted.
    pub fn json(&self) -> bool {
        self.mode == Output::Json
    }

    /// A form is wanted that only checklists have.
    pub fn document_of_checklist(&self) -> bool {
        self.markdown() || self.junit()
    }

    /// Markdown is wanted.
    pub fn markdown(&self) -> bool {
        self.mode == Output::Md
    }

    /// JUnit's XML is wanted.
    pub fn junit(&self) -> bool {
        self.mode == Output::Junit
    }

    /// A moving line is wanted.
    pub fn live(&self) -> bool {
        self.mode == Output::Tty
    }

    /// Whether somebody can be asked.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// A result. When nobody reads any more the rest is left unsaid; how the command ends is the same.
    pub fn result(&self, text: &str) {
        if self.unread.get() {
            return;
        }
        let mut stdout = anstream::stdout().lock();
        let written = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
        self.unread.set(written.is_err());
    }

    /// A result as JSON, with its version.
    pub fn document(&self, mut document: serde_json::Value) {
        if let Some(fields) = document.as_object_mut() {
            fields.insert("format_version".to_owned(), "1.0".into());
        }
        self.result(&format!("{document:#}"));
    }

    /// One of many results as JSON, each on a line of its own.
    pub fn document_line(&self, mut document: serde_json::Value) {
        if let Some(fields) = document.as_object_mut() {
            fields.insert("format_version".to_owned(), "1.0".into());
        }
        self.result(&document.to_string());
    }

    /// Nobody reads standard output any more.
    pub fn unread(&self) -> bool {
        self.unread.get()
    }

    /// A screen on standard output may be drawn anew.
    pub fn redraws(&self) -> bool {
        self.live() && io::stdout().is_terminal()
    }

    /// Something said on the way.
    pub fn say(&self, text: &str) {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(anstream::stderr().lock(), "{}", text.trim_end());
    }

    /// A problem that ends the command.
    pub fn problem(&self, problem: &Problem, exit: Exit) {
        let problem = match &self.environment {
            Some(environment) => problem.clone().in_environment(environment),
            None => problem.clone(),
        };
        if self.json() {
            self.error_document(&problem, exit);
        }
        self.say(&render::problem(&problem));
    }

    /// The document of a problem that ends the command.
    pub fn error_document(&self, problem: &Problem, exit: Exit) {
        let mut document = render::json::problem(problem);
        if let Some(fields) = document.as_object_mut() {
            fields.insert("kind".to_owned(), "error".into());
            fields.insert("exit_code".to_owned(), exit.code().into());
        }
        self.document(document);
    }

    /// Asks a person; without one, refuses and names the flag.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<bool, Problem> {
        if yes {
            return Ok(true);
        }
        if !self.can_ask() {
            return Err(Problem::new(
                pointsman_core::Code::UsageWrong,
                "this needs a yes, and there is no terminal to ask on",
            )
            .hint("say it beforehand: `--yes`"));
        }
        let mut stderr = anstream::stderr().lock();
        let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).unwrap_or(0);
        Ok(read > 0 && matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
