//! The rules of squawk that matter here, run on the statements of a script.

use std::panic::{AssertUnwindSafe, catch_unwind};

use squawk_linter::{Linter, Rule};
use squawk_syntax::SourceFile;

use crate::token::lex;
use crate::{Finding, Script};

/// A rule of squawk under our name, with our words.
pub(crate) struct Known {
    rule: Rule,
    name: &'static str,
    message: &'static str,
    hint: &'static str,
}

const fn known(rule: Rule, name: &'static str, message: &'static str, hint: &'static str) -> Known {
    Known { rule, name, message, hint }
}

const CONTRACT: &str = "do it in a contract file, once the old version no longer runs";

/// What the version that serves may still use.
pub(crate) const BREAKING: &[Known] = &[
    known(Rule::RenamingColumn, "renaming-column", "the version that serves uses the old name", CONTRACT),
    known(Rule::RenamingTable, "renaming-table", "the version that serves uses the old name", CONTRACT),
    known(Rule::BanDropColumn, "ban-drop-column", "the version that serves may use this column", CONTRACT),
    known(Rule::BanDropTable, "ban-drop-table", "the version that serves may use this table", CONTRACT),
];

/// What stalls visitors.
pub(crate) const DANGEROUS: &[Known] = &[];

/// What the given rules find in a script.
pub(crate) fn findings(script: &Script, rules: &[Known]) -> Vec<Finding> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for statement in script.statements() {
        starts.push((text.len(), statement));
        text.push_str(&without_comments(&statement.sql));
        text.push_str(";\n");
    }
    let found = catch_unwind(AssertUnwindSafe(|| {
        let mut linter = Linter::from(rules.iter().map(|known| known.rule));
        linter.lint(&SourceFile::parse(&text), &text)
    }))
    .unwrap_or_default();
    let mut findings = Vec::new();
    for violation in found {
        let at = usize::from(violation.text_range.start());
        let Some(known) = rules.iter().find(|known| known.rule == violation.code) else { continue };
        let Some((start, statement)) = starts.iter().rev().find(|(start, _)| *start <= at) else { continue };
        findings.push(statement.finding(&script.path, at - start, known.name, known.message, known.hint));
    }
    findings
}

/// The same text with comments as blanks: squawk obeys comments that switch its rules off.
fn without_comments(sql: &str) -> String {
    let mut bytes = sql.as_bytes().to_vec();
    for comment in lex(sql).comments {
        if let Some(place) = bytes.get_mut(comment.at..comment.at + comment.text.len()) {
            place.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
