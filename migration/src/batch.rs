//! An `UPDATE` or `DELETE` cut into batches: the statement as it stands, with a range of the key added to its condition.

use squawk_syntax::ast::{AstNode, Stmt, WhereClauseOrCurrentOf};

use crate::relation::quoted;
use crate::{Relation, Statement, parse};

/// A statement that can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batched {
    /// The table whose key cuts it.
    pub table: Relation,
    /// What the statement calls that table: its alias or its name, as SQL.
    called: String,
    before: String,
    condition: Option<String>,
    after: String,
}

impl Batched {
    /// The statement for rows whose key is above `above`, if that is said, and not above `up_to`. Both are SQL.
    pub fn sql(&self, key: &str, above: Option<&str>, up_to: &str) -> String {
        let key = format!("{}.{}", self.called, quoted(key));
        let mut range = format!("{key} <= {up_to}");
        if let Some(above) = above {
            range = format!("{key} > {above} AND {range}");
        }
        let condition = self.condition.as_ref().map(|own| format!("({own}\n) AND ")).unwrap_or_default();
        format!("{}\nWHERE {condition}{range}\n{}", self.before.trim_end(), self.after.trim_start())
    }
}

/// Takes a statement apart. `None` for what cannot be cut without changing what it does: `WITH`, `WHERE CURRENT OF`, and
/// what is neither `UPDATE` nor `DELETE`.
pub fn batched(statement: &Statement) -> Option<Batched> {
    let (name, alias, condition, after) = match statement.tree()? {
        Stmt::Update(update) if update.with_clause().is_none() => (
            update.relation_name()?,
            update.alias(),
            update.where_clause_or_current_of(),
            update.returning_clause().map(|clause| clause.syntax().text_range().start()),
        ),
        Stmt::Delete(delete) if delete.with_clause().is_none() => (
            delete.relation_name()?,
            delete.alias(),
            delete.where_clause_or_current_of(),
            delete.returning_clause().map(|clause| clause.syntax().text_range().start()),
        ),
        _ => return None,
    };
    let table = parse::relation(name.syntax())?;
    let called = match alias {
        Some(alias) => quoted(&parse::name(alias.name()?.syntax())?),
        None => quoted(&table.name),
    };
    let sql = &statement.sql;
    let tail = after.map_or(sql.len(), usize::from);
    let after = sql.get(tail..)?.to_owned();
    let (before, condition) = match condition {
        None => (sql.get(..tail)?.to_owned(), None),
        Some(WhereClauseOrCurrentOf::WhereClause(clause)) => {
            let own = clause.expr()?.syntax().text().to_string();
            (sql.get(..usize::from(clause.syntax().text_range().start()))?.to_owned(), Some(own))
        }
        Some(WhereClauseOrCurrentOf::WhereCurrentOf(_)) => return None,
    };
    Some(Batched { table, called, before, condition, after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Phase, Set};

    fn cut(sql: &str) -> Option<Batched> {
        let file = format!("-- pointsman: batch=id:10\n{sql}");
        let set = Set::read([("v1.0.0.sql", file.as_bytes())]).unwrap();
        let script = set.migrations()[0].script(Phase::Expand).unwrap();
        batched(script.statements().next().unwrap())
    }

    fn words(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_range_is_added_to_the_condition() {
        for (sql, expected) in [
            ("UPDATE t SET a = 1", "UPDATE t SET a = 1 WHERE \"t\".\"id\" > 5 AND \"t\".\"id\" <= 9"),
            (
                "UPDATE s.t AS x SET a = b.c FROM b WHERE b.id = x.b OR x.a IS NULL -- why\n RETURNING x.id",
                "UPDATE s.t AS x SET a = b.c FROM b WHERE (b.id = x.b OR x.a IS NULL ) AND \"x\".\"id\" > 5 AND \"x\".\"id\" <= 9 \
                 RETURNING x.id",
            ),
            (
                "DELETE FROM \"T\" WHERE a",
                "DELETE FROM \"T\" WHERE (a ) AND \"T\".\"id\" > 5 AND \"T\".\"id\" <= 9",
            ),
        ] {
            assert_eq!(words(&cut(sql).unwrap().sql("id", Some("5"), "9")), expected, "{sql}");
        }
        assert_eq!(
            words(&cut("DELETE FROM t").unwrap().sql("id", None, "9")),
            "DELETE FROM t WHERE \"t\".\"id\" <= 9"
        );
    }

    #[test]
    fn what_a_range_would_change_is_not_cut() {
        assert_eq!(
            cut("WITH w AS (DELETE FROM t RETURNING *) UPDATE u SET a = 1 FROM w WHERE w.id = u.id"),
            None
        );
    }
}
