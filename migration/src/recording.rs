//! Whether a file records its own version, as files of older tools do.

use squawk_syntax::ast::{AstNode, Stmt};

use crate::parse::relation;
use crate::{Relation, Script};

/// Whether the script itself inserts into the version table, so that the agent must not do so again.
pub fn records_itself(script: &Script, table: &Relation) -> bool {
    script.statements().filter_map(|statement| statement.tree()).any(|tree| match tree {
        Stmt::Insert(insert) => insert
            .relation_name_ref()
            .and_then(|name| relation(name.syntax()))
            .is_some_and(|into| into.may_be(table)),
        _ => false,
    })
}
