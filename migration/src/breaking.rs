//! The compatibility gate: what in an expand script would break the version that still serves.
//!
//! Names of rules are squawk's where squawk has the rule, so that its pages explain them. What only running queries
//! tell, such as a view that loses a column, is found by rehearsal.

use squawk_syntax::SyntaxKind;
use squawk_syntax::ast::{self, AlterColumnOption, AlterTableAction, AstNode, Constraint, Stmt};

use crate::alter_table::is_using_index;
use crate::default_value::is_serial;
use crate::lint;
use crate::object::{self, Object};
use crate::parse::{holds, name, says};
use crate::scene::{Scene, Told, scenes, told};
use crate::token::{Token, lex};
use crate::{Finding, Relation, Script, body};

const CONTRACT: &str =
    "move it to a contract file (`.contract.sql`), which runs once the old version is gone";

/// What in an expand script would break the version that still serves. Empty: nothing that its text shows.
pub fn breaking(script: &Script) -> Vec<Finding> {
    breaking_after(script, &[])
}

/// The same for a script that runs after others in one release, whose new tables are given: the version that serves
/// does not know them.
pub fn breaking_after(script: &Script, made_before: &[Relation]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let scenes = scenes(script, made_before);
    let mut judged = Vec::new();
    for scene in &scenes {
        let told = tell(scene);
        if !told.is_empty()
            || scene.is_harmless()
            || !scene.recreated.is_empty()
            || is_known_well(&scene.tree)
        {
            judged.push(scene.statement.ordinal);
        }
        findings.extend(told.iter().map(|told| told.finding(script, scene.statement)));
    }
    findings.extend(lint::findings(script, lint::BREAKING, &judged));
    findings.sort();
    findings
}

/// Whether `tell` looks at all of a statement, so that nobody else needs to.
fn is_known_well(tree: &Stmt) -> bool {
    matches!(tree, Stmt::DropTable(_) | Stmt::CreateIndex(_) | Stmt::CreateTable(_))
}

fn tell(scene: &Scene<'_>) -> Vec<Told> {
    let tree = &scene.tree;
    if scene.is_harmless() {
        return Vec::new();
    }
    match tree {
        Stmt::AlterTable(alter) => alter.actions().filter_map(|action| action_breaks(&action)).collect(),
        Stmt::AlterForeignTable(alter) => {
            alter.actions().filter_map(|action| action_breaks(&action)).collect()
        }
        Stmt::CreateIndex(create)
            if create.unique_token().is_some() && create.concurrently_token().is_none() =>
        {
            let hint = "build it with `CREATE UNIQUE INDEX CONCURRENTLY`: rows of the old version that break it show \
                        before anybody depends on it";
            vec![told(
                tree.syntax(),
                "unique-index-at-once",
                "a unique index that refuses writes at once",
                hint,
            )]
        }
        Stmt::Truncate(truncate) => truncated(truncate, scene),
        Stmt::Revoke(_) => {
            vec![told(tree.syntax(), "ban-revoke", "the version that serves may use these rights", CONTRACT)]
        }
        Stmt::AlterDomain(alter) => domain(alter),
        Stmt::AlterType(alter) => type_change(alter),
        Stmt::Do(block) => hidden(block),
        _ => dropped(scene).or_else(|| moved(tree)).into_iter().collect(),
    }
}

fn action_breaks(action: &AlterTableAction) -> Option<Told> {
    let node = action.syntax();
    let old = "the version that serves";
    match action {
        AlterTableAction::RenameColumn(_) => {
            let hint = "add the new column, write both for a release, drop the old one in a contract file";
            Some(told(node, "renaming-column", format!("{old} still uses the old name"), hint))
        }
        AlterTableAction::TableRenameTo(_) => {
            let hint = "keep the name, or make a view with the new one; rename in a contract file";
            Some(told(node, "renaming-table", format!("{old} still uses the old name"), hint))
        }
        AlterTableAction::DropColumn(drop) => {
            let column = drop.column_name_ref().and_then(|column| name(column.syntax())).unwrap_or_default();
            Some(told(node, "ban-drop-column", format!("{old} may use column `{column}`"), CONTRACT))
        }
        AlterTableAction::SetSchema(_) => {
            Some(told(node, "ban-set-schema", format!("{old} looks for the table where it was"), CONTRACT))
        }
        AlterTableAction::AlterColumn(alter) => column_breaks(alter),
        AlterTableAction::AddColumn(add) => required(add),
        AlterTableAction::AddConstraint(add) => constraint_at_once(add),
        AlterTableAction::DetachPartition(_) | AlterTableAction::NoInheritTable(_) => {
            Some(told(node, "detach", format!("{old} no longer finds these rows in the table"), CONTRACT))
        }
        AlterTableAction::EnableRls(_) | AlterTableAction::ForceRls(_) => {
            Some(told(node, "row-level-security", format!("rows vanish from the view of {old}"), CONTRACT))
        }
        AlterTableAction::DisableTrigger(_) | AlterTableAction::DisableRule(_) => {
            Some(told(node, "ban-disable-trigger", format!("{old} relies on what this does"), CONTRACT))
        }
        _ => None,
    }
}

fn column_breaks(alter: &ast::AlterColumn) -> Option<Told> {
    let node = alter.syntax();
    let column = alter.column_name_ref().and_then(|column| name(column.syntax())).unwrap_or_default();
    match alter.option()? {
        AlterColumnOption::SetType(_) => {
            let hint =
                "add a column of the new type, write both for a release, drop the old one in a contract file";
            let message =
                format!("the version that serves reads `{column}` as it was, and every row is rewritten");
            Some(told(node, "changing-column-type", message, hint))
        }
        AlterColumnOption::SetNotNull(_) => {
            let message = format!("the version that serves may still write NULL to `{column}`");
            Some(told(node, "adding-not-nullable-field", message, CONTRACT))
        }
        AlterColumnOption::DropDefault(_) => {
            let message = format!("the version that serves may leave `{column}` out and rely on its default");
            Some(told(node, "ban-drop-default", message, CONTRACT))
        }
        AlterColumnOption::DropIdentity(_) => {
            let message = format!("the version that serves relies on `{column}` being filled");
            Some(told(node, "ban-alter-identity", message, CONTRACT))
        }
        AlterColumnOption::AddGenerated(_) | AlterColumnOption::SetGeneratedOptions(_)
            if says_always(node) =>
        {
            let message =
                format!("the version that serves may write `{column}` itself, which is refused then");
            Some(told(node, "ban-alter-identity", message, "use `GENERATED BY DEFAULT`"))
        }
        AlterColumnOption::SetExpression(_) => {
            let message = format!("the version that serves reads `{column}` as it was computed before");
            Some(told(node, "ban-alter-generated-expression", message, CONTRACT))
        }
        _ => None,
    }
}

fn says_always(node: &squawk_syntax::SyntaxNode) -> bool {
    node.descendants_with_tokens().any(|element| element.kind() == SyntaxKind::ALWAYS_KW)
}

fn required(add: &ast::AddColumn) -> Option<Told> {
    let is = |wanted: fn(&Constraint) -> bool| add.constraints().any(|constraint| wanted(&constraint));
    let needs = is(|c| matches!(c, Constraint::NotNullConstraint(_) | Constraint::PrimaryKeyConstraint(_)));
    let has = is(|c| matches!(c, Constraint::DefaultConstraint(_) | Constraint::GeneratedConstraint(_)));
    if !needs || has || is_serial(add) {
        return None;
    }
    let column = add.column_name().and_then(|column| name(column.syntax())).unwrap_or_default();
    let message = format!("column `{column}` is required and the version that serves does not write it");
    let hint = "give it a constant default, or leave it nullable until the contract file";
    Some(told(add.syntax(), "adding-required-field", message, hint))
}

/// A constraint that is checked when it is added.
pub(crate) fn constraint_at_once(add: &ast::AddConstraint) -> Option<Told> {
    let later = holds(add.syntax(), SyntaxKind::NOT_VALID) || holds(add.syntax(), SyntaxKind::NOT_ENFORCED);
    if later || is_using_index(add) {
        return None;
    }
    let (rule, what, hint) = match add.constraint()? {
        Constraint::UniqueConstraint(_) | Constraint::PrimaryKeyConstraint(_) => (
            "disallowed-unique-constraint",
            "a unique constraint builds its index while nobody can read or write",
            "`CREATE UNIQUE INDEX CONCURRENTLY`, then `ADD CONSTRAINT … USING INDEX`",
        ),
        Constraint::ExcludeConstraint(_) => (
            "exclusion-at-once",
            "an exclusion constraint is checked against every row at once, and there is no other way",
            CONTRACT,
        ),
        Constraint::ForeignKeyConstraint(_) => (
            "adding-foreign-key-constraint",
            "a foreign key is checked against every row while writes wait, on both tables",
            "add it `NOT VALID`, then `VALIDATE CONSTRAINT` as a statement of its own",
        ),
        _ => (
            "constraint-missing-not-valid",
            "a constraint is checked against every row at once",
            "add it `NOT VALID`, then `VALIDATE CONSTRAINT` as a statement of its own",
        ),
    };
    Some(told(add.syntax(), rule, what, hint))
}

fn truncated(truncate: &ast::Truncate, scene: &Scene<'_>) -> Vec<Told> {
    let tables = truncate.table_list().into_iter().flat_map(|list| list.table_relation_names());
    let old =
        tables.filter_map(|table| crate::parse::relation(table.syntax())).any(|table| !scene.is_new(&table));
    let message = "rows of the version that serves would be gone";
    if old { vec![told(truncate.syntax(), "truncate", message, CONTRACT)] } else { Vec::new() }
}

fn domain(alter: &ast::AlterDomain) -> Vec<Told> {
    let message = "what the version that serves writes may no longer be allowed";
    match alter.action() {
        Some(ast::AlterDomainAction::AddConstraint(add)) if !holds(add.syntax(), SyntaxKind::NOT_VALID) => {
            let hint = "add it `NOT VALID`, then `VALIDATE CONSTRAINT` as a statement of its own";
            vec![told(alter.syntax(), "ban-alter-domain-with-add-constraint", message, hint)]
        }
        Some(ast::AlterDomainAction::SetNotNull(_)) => {
            vec![told(alter.syntax(), "ban-alter-domain-with-add-constraint", message, CONTRACT)]
        }
        _ => moved(&Stmt::AlterDomain(alter.clone())).into_iter().collect(),
    }
}

fn type_change(alter: &ast::AlterType) -> Vec<Told> {
    let message = "the version that serves uses the type as it was";
    match alter.action() {
        Some(ast::AlterTypeAction::RenameValue(_) | ast::AlterTypeAction::RenameAttribute(_)) => {
            vec![told(alter.syntax(), "renaming-object", message, CONTRACT)]
        }
        Some(ast::AlterTypeAction::AlterTypeAttributeActionList(list))
            if list.actions().any(|a| !matches!(a, ast::AlterTypeAttributeAction::AddAttribute(_))) =>
        {
            vec![told(alter.syntax(), "changing-type", message, CONTRACT)]
        }
        _ => moved(&Stmt::AlterType(alter.clone())).into_iter().collect(),
    }
}

/// Words in a `DO` block that change more than rows.
const CHANGES: &[&str] = &["alter", "drop", "truncate", "rename", "revoke", "execute"];

/// A block hides its statements from every gate.
fn hidden(block: &ast::Do) -> Vec<Told> {
    let text = block.syntax().text().to_string();
    let changes = |token: &Token<'_>| CHANGES.iter().find(|word| token.is(word)).copied();
    let found = lex(&text)
        .tokens
        .iter()
        .filter_map(body::of)
        .find_map(|body| lex(body).tokens.iter().find_map(changes));
    // A body in plain quotes is not looked into: it would have to be unescaped first.
    let quoted = text.contains('\'') && !text.contains('$');
    let Some(word) = found.or(quoted.then_some("a body in plain quotes")) else { return Vec::new() };
    let message = format!("`{word}` in a `DO` block cannot be judged");
    let hint = "write it as a statement of its own, or move the block to a contract file";
    vec![told(block.syntax(), "hidden-change", message, hint)]
}

/// A thing that is gone after the statement and not made again.
fn dropped(scene: &Scene<'_>) -> Option<Told> {
    let tree = &scene.tree;
    if !says(tree.syntax(), SyntaxKind::DROP_KW) {
        return None;
    }
    let (rule, what) = match tree {
        Stmt::DropTable(_) | Stmt::DropForeignTable(_) => ("ban-drop-table", "table"),
        Stmt::DropView(_) | Stmt::DropMaterializedView(_) => ("ban-drop-view", "view"),
        Stmt::DropFunction(_)
        | Stmt::DropProcedure(_)
        | Stmt::DropRoutine(_)
        | Stmt::DropAggregate(_)
        | Stmt::DropOperator(_)
        | Stmt::DropCast(_) => ("ban-drop-function", "function"),
        Stmt::DropSequence(_) => ("ban-drop-sequence", "sequence"),
        Stmt::DropType(_) => ("ban-drop-type", "type"),
        Stmt::DropDomain(_) => ("ban-drop-domain", "domain"),
        Stmt::DropSchema(_) => ("ban-drop-schema", "schema"),
        Stmt::DropExtension(_) => ("ban-drop-extension", "extension"),
        Stmt::DropTrigger(_) | Stmt::DropRule(_) => ("ban-drop-trigger", "trigger"),
        Stmt::DropPolicy(_) => ("ban-drop-policy", "policy"),
        _ => return None,
    };
    let objects = object::dropped(tree);
    let excused = |object: &Object| {
        scene.recreated.iter().any(|again| again.is(object))
            || (object.kind == "table" && scene.is_new(&object.name))
    };
    if !objects.is_empty() && objects.iter().all(excused) {
        return None;
    }
    Some(told(tree.syntax(), rule, format!("the version that serves may use this {what}"), CONTRACT))
}

/// A thing that has another name or place after the statement.
fn moved(tree: &Stmt) -> Option<Told> {
    // The version that serves knows none of these names.
    if !says(tree.syntax(), SyntaxKind::ALTER_KW)
        || matches!(tree, Stmt::AlterIndex(_) | Stmt::AlterStatistics(_))
    {
        return None;
    }
    if holds(tree.syntax(), SyntaxKind::SET_SCHEMA) {
        let message = "the version that serves looks for it where it was";
        return Some(told(tree.syntax(), "ban-set-schema", message, CONTRACT));
    }
    let renames =
        tree.syntax().descendants_with_tokens().any(|element| element.kind() == SyntaxKind::RENAME_KW);
    let message = "the version that serves still uses the old name";
    renames.then(|| told(tree.syntax(), "renaming-object", message, CONTRACT))
}
