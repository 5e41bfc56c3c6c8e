//! Something wrong in a migration, at its place, with what to do about it.

use std::fmt;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as its path was given.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The rule's stable name; programs decide by this.
    pub rule: &'static str,
    /// What is wrong. Lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    /// A finding about a file as a whole.
    pub(crate) fn whole(
        path: &str,
        rule: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { path: path.to_owned(), line: 1, column: 1, rule, message: message.into(), hint: hint.into() }
    }
}

/// `path:line:column: message [rule]; hint`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, column, rule, message, hint } = self;
        write!(f, "{path}:{line}:{column}: {message} [{rule}]; {hint}")
    }
}
