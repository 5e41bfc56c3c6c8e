//! A change of many rows, cut into ranges of a key.

use squawk_syntax::ast::{AstNode, Stmt, WhereClause};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use crate::parse::{name, relation};
use crate::relation::quoted;
use crate::{Batch, Relation, Statement};

/// An `UPDATE` or `DELETE` that can be restricted to a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The table that it changes.
    pub table: Relation,
    /// The key's column as SQL, with the table's name or alias before it, for use in a range.
    pub key: String,
    /// The statement up to where the range goes, and after it.
    parts: (String, String),
}

impl Backfill {
    /// Takes the statement apart. `None` if it is no `UPDATE` or `DELETE`, or follows a cursor.
    pub fn of(statement: &Statement, batch: &Batch) -> Option<Self> {
        let (node, target, alias) = match statement.tree()? {
            Stmt::Update(update) => (update.syntax().clone(), update.relation_name()?, update.alias()),
            Stmt::Delete(delete) => (delete.syntax().clone(), delete.relation_name()?, delete.alias()),
            _ => return None,
        };
        let table = relation(target.relation_name_ref()?.syntax())?;
        let qualifier = match alias {
            Some(alias) => quoted(&name(alias.syntax())?),
            None => table.as_sql(),
        };
        Some(Self {
            key: format!("{qualifier}.{}", quoted(&batch.key)),
            parts: parts(&statement.sql, &node)?,
            table,
        })
    }

    /// The statement for the rows of a range: a condition in SQL, of which this asks no more than that it is one.
    pub fn within(&self, range: &str) -> String {
        format!("{}{range}{}", self.parts.0, self.parts.1)
    }
}

/// The statement cut where a condition can be put in.
fn parts(sql: &str, node: &SyntaxNode) -> Option<(String, String)> {
    if let Some(condition) = node.children().find_map(WhereClause::cast) {
        let condition = condition.expr()?;
        let range = condition.syntax().text_range();
        let (start, end) = (usize::from(range.start()), usize::from(range.end()));
        let (before, inner, after) = (sql.get(..start)?, sql.get(start..end)?, sql.get(end..)?);
        // A comment may be the last thing in the condition: the bracket goes to a line of its own.
        return Some((format!("{before}({inner}\n) AND ("), format!("){after}")));
    }
    if node.children().any(|child| child.kind() == SyntaxKind::WHERE_CURRENT_OF) {
        return None;
    }
    let returning = node.children().find(|child| child.kind() == SyntaxKind::RETURNING_CLAUSE);
    let end = returning.map_or(sql.len(), |clause| usize::from(clause.text_range().start()));
    let (before, after) = (sql.get(..end)?, sql.get(end..)?);
    Some((format!("{before}\nWHERE ("), format!(") {after}").trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Set;

    fn within(sql: &str) -> Option<(String, String)> {
        let text = format!("-- pointsman: batch=Id:10\n{sql}");
        let set = Set::read([("v1.sql", text.as_bytes())]).unwrap();
        let script = set.migrations().first()?.expand.as_ref()?;
        let backfill = Backfill::of(script.statements().next()?, script.headers.batch.as_ref()?)?;
        let whole = backfill.within("RANGE");
        assert!(crate::parse::one(&whole).is_ok(), "{whole}");
        Some((whole.split_whitespace().collect::<Vec<_>>().join(" "), backfill.key))
    }

    #[test]
    fn the_range_joins_the_condition() {
        for (sql, whole, key) in [
            ("UPDATE t SET a = 1", "UPDATE t SET a = 1 WHERE (RANGE)", "\"t\".\"id\""),
            (
                "UPDATE public.t AS x SET a = 1 WHERE b OR c RETURNING a",
                "UPDATE public.t AS x SET a = 1 WHERE (b OR c ) AND (RANGE) RETURNING a",
                "\"x\".\"id\"",
            ),
            (
                "DELETE FROM only s.T WHERE b -- why\n OR c",
                "DELETE FROM only s.T WHERE (b -- why OR c ) AND (RANGE)",
                "\"s\".\"t\".\"id\"",
            ),
            (
                "UPDATE t SET a = (SELECT 1 WHERE z) FROM u RETURNING 1",
                "UPDATE t SET a = (SELECT 1 WHERE z) FROM u WHERE (RANGE) RETURNING 1",
                "\"t\".\"id\"",
            ),
        ] {
            assert_eq!(within(sql), Some((whole.to_owned(), key.to_owned())), "{sql}");
        }
    }
}
