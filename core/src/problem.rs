//! What went wrong, as every part of pointsman tells every other: code, aftermath, message, hint.

use std::fmt;

use crate::{CheckSeen, Code, EnvironmentName, HostName};

/// What may have changed when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aftermath {
    /// The world is as before.
    Unchanged,
    /// Something took effect.
    Changed,
    /// It may or may not have taken effect: observe before anything else.
    Unknown,
}

/// Whether the same again, a little later, may go better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    /// A passing fault: worth another try.
    Useful,
    /// The same will happen again until somebody changes something.
    Useless,
}

/// A failure, complete: what an operator is shown and what the state machine decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable code; programs decide by this, never by the text.
    pub code: Code,
    /// What may have changed.
    pub aftermath: Aftermath,
    /// Whether another try makes sense.
    pub retry: Retry,
    /// Where it happened, if on one host.
    pub host: Option<HostName>,
    /// What was tried, on what, and what came instead. Lower case, no full stop.
    pub message: String,
    /// The causes below it, outermost first.
    pub causes: Vec<String>,
    /// What the operator can do, ready to paste.
    pub hint: String,
    /// The checks that were made before it was known, of an order to make some. They are noted apart: a problem that is
    /// recorded holds none.
    pub checks: Vec<CheckSeen>,
}

/// Longest message, cause or hint kept from outside, in characters.
const MAX_TEXT_CHARS: usize = 2000;
/// Longest chain of causes kept.
const MAX_CAUSES: usize = 8;

/// Text from outside without control characters and of bounded length, fit for terminals, logs and the journal.
pub fn clean(text: &str) -> String {
    let text = text.trim_end();
    if text.len() <= MAX_TEXT_CHARS && !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Problem {
    /// A failure that left everything as it was and will repeat itself.
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Self {
            code,
            aftermath: Aftermath::Unchanged,
            retry: Retry::Useless,
            host: None,
            message: clean(message.as_ref()),
            causes: Vec::new(),
            hint: format!("`pointsman explain {code}`"),
            checks: Vec::new(),
        }
    }

    /// Sets what may have changed.
    #[must_use]
    pub fn aftermath(mut self, aftermath: Aftermath) -> Self {
        self.aftermath = aftermath;
        self
    }

    /// Marks the failure as passing.
    #[must_use]
    pub fn retry_useful(mut self) -> Self {
        self.retry = Retry::Useful;
        self
    }

    /// Names where it happened.
    #[must_use]
    pub fn on(mut self, host: &HostName) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Puts the environment's name into a hint of a part that does not know it and wrote `ENV`.
    #[must_use]
    pub fn in_environment(mut self, environment: &EnvironmentName) -> Self {
        self.hint = self.hint.replace(" ENV", &format!(" {environment}"));
        self
    }

    /// Says what to do, ready to paste.
    #[must_use]
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = clean(hint.as_ref());
        self
    }

    /// Adds the checks that were made.
    #[must_use]
    pub fn with_checks(mut self, checks: Vec<CheckSeen>) -> Self {
        self.checks = checks;
        self
    }

    /// Adds a cause in words.
    #[must_use]
    pub fn cause(mut self, cause: impl AsRef<str>) -> Self {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(clean(cause.as_ref()));
        }
        self
    }

    /// Adds an error and all below it as causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Wrappers often repeat what they wrap.
            if self.causes.last() != Some(&clean(&text)) {
                self = self.cause(text);
            }
            next = error.source();
        }
        self
    }

    /// Code, message and causes in one line, for logs.
    pub fn in_full(&self) -> String {
        let mut line = format!("[{}] {self}", self.code);
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Problem {}
