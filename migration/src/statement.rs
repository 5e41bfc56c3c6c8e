//! One statement of a script: what is sent, where it stands, what it does.

use squawk_syntax::ast::Stmt;

use crate::token::Token;
use crate::{Class, Finding, Lock, Probe, digest, parse};

/// A statement, sent as one message of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Place in the script, from 1.
    pub ordinal: u32,
    /// Its text as it stands in the file, without the semicolon and without comments around it.
    pub sql: String,
    /// Line of its first character, from 1.
    pub line: u32,
    /// Column of its first character, in characters, from 1.
    pub column: u32,
    /// How it behaves in time.
    pub class: Class,
    /// Locks on tables that were there before the script, as far as its text tells. Tables that the script itself
    /// makes or renames are left out: nobody can lock them beforehand.
    pub locks: Vec<Lock>,
    /// Hash of its tokens.
    pub token_hash: [u8; 32],
    /// Where to look after a crash, if it runs outside of a transaction.
    pub probe: Probe,
}

impl Statement {
    /// The statement as a tree again. It was read before, so `None` does not happen.
    pub(crate) fn tree(&self) -> Option<Stmt> {
        parse::one(&self.sql).ok()
    }

    /// A finding at a byte offset within the statement.
    pub(crate) fn finding(
        &self,
        path: &str,
        offset: usize,
        rule: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        let before = self.sql.get(..offset).unwrap_or_default();
        let (lines, last) = before
            .bytes()
            .filter(|byte| *byte == b'\n')
            .count()
            .checked_sub(1)
            .map_or((0, before), |more| (more + 1, before.rsplit('\n').next().unwrap_or_default()));
        let column = u32::try_from(last.chars().count()).unwrap_or(u32::MAX);
        let (line, column) = match u32::try_from(lines) {
            Ok(0) | Err(_) => (self.line, self.column.saturating_add(column)),
            Ok(lines) => (self.line.saturating_add(lines), column.saturating_add(1)),
        };
        Finding { path: path.to_owned(), line, column, rule, message: message.into(), hint: hint.into() }
    }
}

/// Hash of one statement's tokens.
pub(crate) fn hash(tokens: &[Token<'_>]) -> [u8; 32] {
    digest::tokens("", &[tokens])
}
