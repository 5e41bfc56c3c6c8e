//! What a statement takes from a table that may tie it to others: a foreign key that goes is locked out on both tables, and
//! only the catalog knows the other one.

use squawk_syntax::ast::{AlterTableAction, AstNode as _, Stmt};

use crate::parse::{name, relation};
use crate::{Relation, Statement};

/// A table that a statement drops, or takes something from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Severed {
    /// The table.
    pub table: Relation,
    /// What it loses.
    pub part: Part,
}

/// What of a table goes, with its foreign keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// A constraint of this name.
    Constraint(String),
    /// A column of this name.
    Column(String),
}

impl Statement {
    /// What this statement severs, as its text tells.
    pub fn severed(&self) -> Vec<Severed> {
        match self.tree() {
            Some(Stmt::DropTable(drop)) => drop
                .table_name_refs()
                .filter_map(|table| relation(table.syntax()))
                .map(|table| Severed { table, part: Part::Whole })
                .collect(),
            Some(Stmt::AlterTable(alter)) => {
                let node = alter.table_relation_name();
                let Some(table) = node.and_then(|node| relation(node.syntax())) else { return Vec::new() };
                let parts = alter.actions().filter_map(|action| part(&action));
                parts.map(|part| Severed { table: table.clone(), part }).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn part(action: &AlterTableAction) -> Option<Part> {
    match action {
        AlterTableAction::DropConstraint(drop) => {
            name(drop.constraint_name_ref()?.syntax()).map(Part::Constraint)
        }
        AlterTableAction::DropColumn(drop) => name(drop.column_name_ref()?.syntax()).map(Part::Column),
        _ => None,
    }
}
