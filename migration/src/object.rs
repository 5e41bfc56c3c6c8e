//! Which named things a statement makes and drops, so that what a script drops and makes again is no loss.

use squawk_syntax::SyntaxKind;
use squawk_syntax::ast::{self, AstNode, Stmt};

use crate::Relation;
use crate::parse::{name, relation};

/// A thing in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) name: Relation,
}

impl Object {
    fn new(kind: &'static str, node: Option<impl AstNode>) -> Option<Self> {
        Some(Self { kind, name: relation(node?.syntax())? })
    }

    /// What belongs to a table: trigger, policy, rule.
    fn on(kind: &'static str, part: Option<impl AstNode>, table: Option<impl AstNode>) -> Option<Self> {
        let table = relation(table?.syntax())?;
        Some(Self {
            kind,
            name: Relation { name: format!("{} on {}", name(part?.syntax())?, table.name), ..table },
        })
    }

    /// Whether both are the same thing, as far as names tell.
    pub(crate) fn is(&self, other: &Object) -> bool {
        self.kind == other.kind && self.name.is(&other.name)
    }

    /// Whether it holds nothing: made again, it is what it was. A table would come back empty, a sequence at its beginning,
    /// and what is of a type or domain goes with it.
    pub(crate) fn is_code(&self) -> bool {
        !matches!(self.kind, "table" | "sequence" | "type" | "domain")
    }
}

/// What a statement makes.
pub(crate) fn created(tree: &Stmt) -> Option<Object> {
    match tree {
        Stmt::CreateTable(create) => Object::new("table", create.table_name()),
        Stmt::CreateTableAs(create) => Object::new("table", create.table_name()),
        Stmt::CreateView(create) => Object::new("view", create.view()),
        Stmt::CreateMaterializedView(create) => Object::new("materialized view", create.view()),
        Stmt::CreateFunction(create) => Object::new("function", create.name()),
        Stmt::CreateProcedure(create) => Object::new("procedure", create.name()),
        Stmt::CreateSequence(create) => Object::new("sequence", create.sequence()),
        Stmt::CreateType(create) => Object::new("type", create.type_name()),
        Stmt::CreateDomain(create) => Object::new("domain", create.domain()),
        Stmt::CreateTrigger(create) => Object::on(
            "trigger",
            create.trigger(),
            create.on_relation().and_then(|on| on.relation_name_ref()),
        ),
        Stmt::CreatePolicy(create) => {
            Object::on("policy", create.policy(), create.on_table().and_then(|on| on.table_name_ref()))
        }
        Stmt::CreateRule(create) => {
            Object::on("rule", create.rule(), create.rule_on().and_then(|on| on.relation_name_ref()))
        }
        _ => None,
    }
}

/// What a statement drops; empty if it is none of the kinds that `created` knows.
pub(crate) fn dropped(tree: &Stmt) -> Vec<Object> {
    let all = |kind, below: SyntaxKind| {
        let named = tree.syntax().descendants().filter(|node| node.kind() == below);
        named.filter_map(|node| relation(&node)).map(|name| Object { kind, name }).collect()
    };
    match tree {
        Stmt::DropTable(_) => all("table", SyntaxKind::TABLE_NAME_REF),
        Stmt::DropView(_) => all("view", SyntaxKind::VIEW_REF),
        Stmt::DropMaterializedView(_) => all("materialized view", SyntaxKind::VIEW_REF),
        Stmt::DropFunction(_) => all("function", SyntaxKind::FUNCTION_NAME_REF),
        Stmt::DropProcedure(_) => all("procedure", SyntaxKind::PROCEDURE_NAME_REF),
        Stmt::DropSequence(_) => all("sequence", SyntaxKind::SEQUENCE_REF),
        Stmt::DropType(_) => all("type", SyntaxKind::TYPE_NAME_REF),
        Stmt::DropDomain(_) => all("domain", SyntaxKind::DOMAIN_REF),
        Stmt::DropTrigger(drop) => {
            on("trigger", drop.trigger_ref(), drop.on_relation().and_then(|on| on.relation_name_ref()))
        }
        Stmt::DropRule(drop) => {
            on("rule", drop.rule_ref(), drop.on_relation().and_then(|on| on.relation_name_ref()))
        }
        Stmt::DropPolicy(drop) => {
            on("policy", drop.policy_ref(), drop.on_table().and_then(|on| on.table_name_ref()))
        }
        _ => Vec::new(),
    }
}

fn on(kind: &'static str, part: Option<impl AstNode>, table: Option<impl AstNode>) -> Vec<Object> {
    Object::on(kind, part, table).into_iter().collect()
}

/// The table that a statement changes, where its damage would end with that table.
pub(crate) fn target(tree: &Stmt) -> Option<Relation> {
    let node = match tree {
        Stmt::AlterTable(alter) => alter.table_relation_name()?.table_name_ref()?.syntax().clone(),
        Stmt::CreateIndex(create) => create.table_relation_name()?.table_name_ref()?.syntax().clone(),
        Stmt::CreateTrigger(create) => create.on_relation()?.relation_name_ref()?.syntax().clone(),
        Stmt::CreateRule(create) => create.rule_on()?.relation_name_ref()?.syntax().clone(),
        Stmt::CreatePolicy(create) => create.on_table()?.table_name_ref()?.syntax().clone(),
        Stmt::Update(update) => update.relation_name()?.relation_name_ref()?.syntax().clone(),
        Stmt::Delete(delete) => delete.relation_name()?.relation_name_ref()?.syntax().clone(),
        _ => return None,
    };
    relation(&node)
}

/// Names of functions that a statement calls or has called.
pub(crate) fn called(tree: &Stmt) -> Vec<Relation> {
    tree.syntax()
        .descendants()
        .filter_map(ast::CallExpr::cast)
        .filter_map(|call| relation(call.expr()?.syntax()))
        .collect()
}
