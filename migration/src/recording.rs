//! Whether a file records its own version, as files of older tools do.

use squawk_syntax::ast::Stmt;

use crate::parse::fold;
use crate::token::{Kind, Token, lex};
use crate::{Relation, Script, body};

/// Whether the script itself inserts into the version table, so that the agent must not do so again. What a function
/// does that the script calls is not seen: look for the row too.
pub fn records_itself(script: &Script, table: &Relation) -> bool {
    script.statements().any(|statement| {
        let lexed = lex(&statement.sql);
        let is_block = matches!(statement.tree(), Some(Stmt::Do(_)));
        let hidden =
            || lexed.tokens.iter().filter_map(body::of).any(|body| inserts(&lex(body).tokens, table));
        inserts(&lexed.tokens, table) || (is_block && hidden())
    })
}

/// Whether `INSERT INTO` this table stands among the tokens.
fn inserts(tokens: &[Token<'_>], table: &Relation) -> bool {
    tokens.windows(2).enumerate().any(|(at, pair)| {
        matches!(pair, [insert, into] if insert.is("insert") && into.is("into"))
            && named(tokens.get(at + 2..).unwrap_or_default()).is_some_and(|into| into.may_be(table))
    })
}

/// The name at the start of these tokens.
fn named(tokens: &[Token<'_>]) -> Option<Relation> {
    let name = |token: &Token<'_>| matches!(token.kind, Kind::Word | Kind::Quoted).then(|| fold(token.text));
    let first = name(tokens.first()?)?;
    match tokens {
        [_, dot, second, ..] if dot.text == "." => {
            Some(Relation { schema: Some(first), name: name(second)? })
        }
        _ => Some(Relation::unqualified(first)),
    }
}
