//! A script's statements again as trees, each with what stands before and around it: what both gates look at.

use squawk_syntax::ast::{AstNode as _, Stmt};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use crate::footprint::{self, Footprint};
use crate::object::{self, Object};
use crate::{Finding, Relation, Script, Statement};

/// One statement in its surroundings.
pub(crate) struct Scene<'s> {
    pub(crate) statement: &'s Statement,
    pub(crate) tree: Stmt,
    /// Number of its segment.
    pub(crate) segment: usize,
    /// Tables that visitors cannot know yet: made before this statement by the script, or by those before it.
    pub(crate) new_tables: Vec<Relation>,
    /// What it drops and the same transaction makes again later, if nothing is lost by that.
    pub(crate) recreated: Vec<Object>,
}

/// Something wrong with a statement; `at` is a byte offset within it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) at: usize,
    pub(crate) rule: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Told {
    pub(crate) fn finding(&self, script: &Script, statement: &Statement) -> Finding {
        statement.finding(&script.path, self.at, self.rule, self.message.as_str(), self.hint.as_str())
    }
}

/// Something wrong with a node: told at its first token.
pub(crate) fn told(node: &SyntaxNode, rule: &'static str, message: impl Into<String>, hint: &str) -> Told {
    let first = node
        .descendants_with_tokens()
        .find(|element| element.as_token().is_some_and(|token| !token.kind().is_trivia()));
    let at = first.map_or(node.text_range().start(), |element| element.text_range().start());
    Told { at: at.into(), rule, message: message.into(), hint: hint.to_owned() }
}

impl Scene<'_> {
    /// Whether a table is one that visitors cannot know yet: made under this very name, because another schema may hold one
    /// that they know well.
    pub(crate) fn is_new(&self, table: &Relation) -> bool {
        self.new_tables.iter().any(|new| new.is(table))
    }

    /// Whether the statement changes such a table alone.
    pub(crate) fn is_harmless(&self) -> bool {
        object::target(&self.tree).is_some_and(|table| self.is_new(&table))
    }
}

/// The statements of a script, in order. `made_before` are tables of scripts that run before it in the same release.
pub(crate) fn scenes<'s>(script: &'s Script, made_before: &[Relation]) -> Vec<Scene<'s>> {
    let mut made = made_before.to_vec();
    let mut scenes: Vec<Scene<'s>> = Vec::new();
    for (segment, part) in script.segments.iter().enumerate() {
        for statement in &part.statements {
            let Some(tree) = statement.tree() else { continue };
            let next = makes(&tree, &made);
            scenes.push(Scene { statement, tree, segment, new_tables: made.clone(), recreated: Vec::new() });
            made.extend(next);
        }
    }
    find_recreated(&mut scenes);
    scenes
}

/// Tables that are new once a statement has run.
pub(crate) fn makes(tree: &Stmt, made: &[Relation]) -> Vec<Relation> {
    let is_new = |table: &Relation| made.iter().any(|new| new.is(table));
    let Footprint { made, .. } = footprint::of(tree, &is_new);
    made
}

fn find_recreated(scenes: &mut [Scene<'_>]) {
    let created: Vec<(usize, Option<Object>)> =
        scenes.iter().map(|scene| (scene.segment, object::created(&scene.tree))).collect();
    for (index, scene) in scenes.iter_mut().enumerate() {
        let later = created.get(index + 1..).unwrap_or_default();
        // With it goes what depends on it, and that nobody makes again.
        let mut words = scene.tree.syntax().descendants_with_tokens();
        if words.any(|element| element.kind() == SyntaxKind::CASCADE_KW) {
            continue;
        }
        let again = |object: &Object| {
            object.is_code()
                && later.iter().any(|(of, made)| {
                    *of == scene.segment && made.as_ref().is_some_and(|made| made.is(object))
                })
        };
        scene.recreated = object::dropped(&scene.tree).into_iter().filter(again).collect();
    }
}
