//! One statement as a syntax tree, and the names in it.
//!
//! The parser is a crate of its own with a hand-written grammar; what it panics on is refused like what it cannot read.

use std::panic::{AssertUnwindSafe, catch_unwind};

use squawk_syntax::ast::{AstNode, Stmt};
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use crate::Relation;

/// Why a text is not one statement; `at` is a byte offset in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseFault {
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// Reads one statement, without its semicolon.
pub(crate) fn one(sql: &str) -> Result<Stmt, Vec<ParseFault>> {
    catch_unwind(AssertUnwindSafe(|| parse(sql))).unwrap_or_else(|_| {
        Err(vec![ParseFault { at: 0, message: "the parser gave up on this statement".to_owned() }])
    })
}

fn parse(sql: &str) -> Result<Stmt, Vec<ParseFault>> {
    let parse = SourceFile::parse(sql);
    let faults: Vec<ParseFault> = parse
        .errors()
        .iter()
        .map(|error| ParseFault { at: error.range().start().into(), message: error.message().to_lowercase() })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut statements = parse.tree().stmts();
    match (statements.next(), statements.next()) {
        (Some(statement), None) if !matches!(statement, Stmt::EmptyStmt(_)) => Ok(statement),
        (_, Some(second)) => Err(vec![ParseFault {
            at: second.syntax().text_range().start().into(),
            message: "a second statement begins here without a semicolon before it".to_owned(),
        }]),
        _ => Err(vec![ParseFault { at: 0, message: "this is no statement".to_owned() }]),
    }
}

/// The relation that a node names: the first path in it, perhaps within `ONLY (…)` or after `ON`.
pub(crate) fn relation(node: &SyntaxNode) -> Option<Relation> {
    let path =
        node.descendants().find(|below| matches!(below.kind(), SyntaxKind::PATH | SyntaxKind::PATH_REF));
    let mut names = names(path.as_ref().unwrap_or(node));
    let name = names.pop()?;
    Some(Relation { schema: names.pop(), name })
}

/// The relation that a column's full name begins with: `schema.table.column`.
pub(crate) fn relation_of_column(node: &SyntaxNode) -> Option<Relation> {
    let mut names = names(node);
    names.pop()?;
    let name = names.pop()?;
    Some(Relation { schema: names.pop(), name })
}

/// The last name that a node holds.
pub(crate) fn name(node: &SyntaxNode) -> Option<String> {
    names(node).pop()
}

/// All names of a path, folded and unquoted.
fn names(node: &SyntaxNode) -> Vec<String> {
    node.descendants_with_tokens()
        .filter_map(|element| element.into_token())
        .filter(|token| !token.kind().is_trivia() && !is_mark(token.kind()))
        .map(|token| fold(token.text()))
        .collect()
}

fn is_mark(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::DOT | SyntaxKind::L_PAREN | SyntaxKind::R_PAREN | SyntaxKind::STAR)
}

/// An identifier as the catalog has it.
pub(crate) fn fold(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    }
}

/// Whether a node has this keyword or mark among its own tokens.
pub(crate) fn says(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens().any(|element| element.kind() == kind)
}

/// Whether a node of this kind is anywhere below.
pub(crate) fn holds(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.descendants().any(|below| below.kind() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_exactly_one() {
        assert!(one("select 1").is_ok());
        assert!(one("create function f() returns int begin atomic select 1; select 2; end").is_ok());
        for sql in ["", "-- nothing", "select 1; select 2", "select from where", "commit commit"] {
            assert!(one(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn names_are_as_the_catalog_has_them() {
        for (sql, schema, name) in [
            ("alter table Features drop a", None, "features"),
            ("alter table if exists only \"Odd\"\"Name\" drop a", None, "Odd\"Name"),
            ("alter table only (public.features) drop a", Some("public"), "features"),
            ("alter table db.public.features * drop a", Some("public"), "features"),
            ("alter table \"only\" drop a", None, "only"),
        ] {
            let Stmt::AlterTable(alter) = one(sql).unwrap() else { panic!("{sql}") };
            let found = relation(alter.table_relation_name().unwrap().syntax());
            assert_eq!(
                found,
                Some(Relation { schema: schema.map(str::to_owned), name: name.into() }),
                "{sql}"
            );
        }
    }
}
