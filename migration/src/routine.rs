//! Functions that a script makes, and which of them a restore of the database will run.

use std::collections::BTreeSet;

use squawk_syntax::SyntaxKind;
use squawk_syntax::ast::{self, AstNode, Stmt};

use crate::Relation;
use crate::object::called;
use crate::parse::{fold, name, relation};
use crate::scene::Scene;

/// A function or procedure that a statement makes.
pub(crate) struct Routine {
    pub(crate) name: Relation,
    pub(crate) has_search_path: bool,
    /// Whether its body is a string, read anew at each call; the names in a `BEGIN ATOMIC` body are resolved once.
    pub(crate) has_text_body: bool,
    pub(crate) is_definer: bool,
    pub(crate) returns_trigger: bool,
}

impl Routine {
    /// The routine that a statement makes.
    pub(crate) fn of(tree: &Stmt) -> Option<Self> {
        let (named, options, returns) = match tree {
            Stmt::CreateFunction(create) => {
                (create.name().map(|n| n.syntax().clone()), create.option_list(), create.ret_type())
            }
            Stmt::CreateProcedure(create) => {
                (create.name().map(|n| n.syntax().clone()), create.option_list(), None)
            }
            _ => return None,
        };
        let options: Vec<ast::FuncOption> = options.into_iter().flat_map(|list| list.options()).collect();
        Some(Self {
            name: relation(&named?)?,
            has_search_path: options.iter().any(sets_search_path),
            has_text_body: options.iter().any(is_text_body),
            is_definer: options.iter().any(|o| matches!(o, ast::FuncOption::SecurityDefinerFuncOption(_))),
            returns_trigger: returns
                .and_then(|returns| name(returns.syntax()))
                .is_some_and(|returned| returned == "trigger"),
        })
    }
}

fn sets_search_path(option: &ast::FuncOption) -> bool {
    let ast::FuncOption::SetFuncOption(set) = option else { return false };
    let parameter = set.syntax().descendants().find_map(ast::ConfigParameterRef::cast);
    parameter.is_some_and(|parameter| fold(parameter.syntax().text().to_string().trim()) == "search_path")
}

/// In C and other compiled languages the string names a library, and nothing is looked up by `search_path`.
fn is_text_body(option: &ast::FuncOption) -> bool {
    let ast::FuncOption::AsFuncOption(body) = option else { return false };
    !body.syntax().descendants_with_tokens().any(|element| element.kind() == SyntaxKind::COMMA)
}

/// Functions that are run while a dump is restored: in indexes, generated columns, checks, materialized views.
pub(crate) fn used_while_restoring(scenes: &[Scene<'_>]) -> BTreeSet<String> {
    let runs = |tree: &Stmt| {
        matches!(
            tree,
            Stmt::CreateIndex(_)
                | Stmt::CreateTable(_)
                | Stmt::AlterTable(_)
                | Stmt::CreateMaterializedView(_)
        )
    };
    scenes
        .iter()
        .filter(|scene| runs(&scene.tree))
        .flat_map(|scene| called(&scene.tree))
        .map(|f| f.name)
        .collect()
}
