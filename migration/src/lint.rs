//! The rules of squawk that matter here, as a second opinion on statements that our own rules do not know.

use std::panic::{AssertUnwindSafe, catch_unwind};

use squawk_linter::{Linter, Rule};
use squawk_syntax::SourceFile;

use crate::token::lex;
use crate::{Finding, Script};

/// A rule of squawk under its own name, with our words.
pub(crate) struct Known {
    rule: Rule,
    name: &'static str,
    message: &'static str,
    hint: &'static str,
}

const fn known(rule: Rule, name: &'static str, message: &'static str, hint: &'static str) -> Known {
    Known { rule, name, message, hint }
}

const CONTRACT: &str =
    "move it to a contract file (`.contract.sql`), which runs once the old version is gone";
const GONE: &str = "the version that serves may use this";
const OTHER_NAME: &str = "the version that serves still uses the old name";
const OTHER_PLACE: &str = "the version that serves looks for it where it was";
const STRICTER: &str = "what the version that serves writes may no longer be allowed";

/// What the version that serves may still use.
pub(crate) const BREAKING: &[Known] = &[
    known(Rule::AddingRequiredField, "adding-required-field", STRICTER, CONTRACT),
    known(Rule::AddingNotNullableField, "adding-not-nullable-field", STRICTER, CONTRACT),
    known(Rule::BanAlterDomainWithAddConstraint, "ban-alter-domain-with-add-constraint", STRICTER, CONTRACT),
    known(Rule::BanDropColumn, "ban-drop-column", GONE, CONTRACT),
    known(Rule::BanDropDefault, "ban-drop-default", GONE, CONTRACT),
    known(Rule::BanDropDomain, "ban-drop-domain", GONE, CONTRACT),
    known(Rule::BanDropExtension, "ban-drop-extension", GONE, CONTRACT),
    known(Rule::BanDropFunction, "ban-drop-function", GONE, CONTRACT),
    known(Rule::BanDropPolicy, "ban-drop-policy", GONE, CONTRACT),
    known(Rule::BanDropSchema, "ban-drop-schema", GONE, CONTRACT),
    known(Rule::BanDropSequence, "ban-drop-sequence", GONE, CONTRACT),
    known(Rule::BanDropTable, "ban-drop-table", GONE, CONTRACT),
    known(Rule::BanDropTrigger, "ban-drop-trigger", GONE, CONTRACT),
    known(Rule::BanDropType, "ban-drop-type", GONE, CONTRACT),
    known(Rule::BanDropView, "ban-drop-view", GONE, CONTRACT),
    known(Rule::BanSetSchema, "ban-set-schema", OTHER_PLACE, CONTRACT),
    known(Rule::BanTruncateCascade, "ban-truncate-cascade", GONE, CONTRACT),
    known(Rule::RenamingColumn, "renaming-column", OTHER_NAME, CONTRACT),
    known(Rule::RenamingObject, "renaming-object", OTHER_NAME, CONTRACT),
    known(Rule::RenamingTable, "renaming-table", OTHER_NAME, CONTRACT),
];

/// What the given rules find in statements that are not yet judged, which are named by their ordinals.
pub(crate) fn findings(script: &Script, rules: &[Known], judged: &[u32]) -> Vec<Finding> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for statement in script.statements() {
        starts.push((text.len(), statement));
        text.push_str(&without_comments(&statement.sql));
        text.push_str(";\n");
    }
    let lint = || {
        let mut linter = Linter::from(rules.iter().map(|known| known.rule));
        linter.lint(&SourceFile::parse(&text), &text)
    };
    // Our own rules have spoken already; a second opinion that fails is none.
    let found = catch_unwind(AssertUnwindSafe(lint)).unwrap_or_default();
    let mut findings = Vec::new();
    for violation in found {
        let at = usize::from(violation.text_range.start());
        let Some(known) = rules.iter().find(|known| known.rule == violation.code) else { continue };
        let Some((start, statement)) = starts.iter().rev().find(|(start, _)| *start <= at) else { continue };
        if !judged.contains(&statement.ordinal) {
            findings.push(statement.finding(&script.path, at - start, known.name, known.message, known.hint));
        }
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
