//! Where one statement ends and the next begins, found in the tokens as psql finds it.
//!
//! The parser has its own opinion; a statement that it does not see as exactly one is refused (`parse.rs`), so that
//! nothing is sent which the two read differently.

use crate::token::{Kind, Token};

/// The statements of a text, without their semicolons; empty ones are left out.
pub(crate) fn split<'t, 's>(tokens: &'t [Token<'s>]) -> Vec<&'t [Token<'s>]> {
    let mut statements = Vec::new();
    let mut rest = tokens;
    while !rest.is_empty() {
        let end = statement_end(rest);
        let (statement, after) = rest.split_at(end);
        if !statement.is_empty() {
            statements.push(statement);
        }
        rest = after.get(1..).unwrap_or_default();
    }
    statements
}

/// The place of the first semicolon that is neither in brackets nor in the body of a `BEGIN ATOMIC` function.
fn statement_end(tokens: &[Token<'_>]) -> usize {
    let mut brackets = 0usize;
    let mut blocks = 0usize;
    let routine = creates_routine(tokens);
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Semicolon if brackets == 0 && blocks == 0 => return index,
            Kind::Mark if token.text == "(" => brackets += 1,
            Kind::Mark if token.text == ")" => brackets = brackets.saturating_sub(1),
            Kind::Word if routine && brackets == 0 => {
                let atomic = tokens.get(index + 1).is_some_and(|next| next.is("atomic"));
                if (token.is("begin") && atomic) || (token.is("case") && blocks > 0) {
                    blocks += 1;
                } else if token.is("end") {
                    blocks = blocks.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

fn creates_routine(tokens: &[Token<'_>]) -> bool {
    let mut words = tokens.iter();
    let mut next = words.next().filter(|token| token.is("create")).and(words.next());
    if next.is_some_and(|token| token.is("or")) {
        next = words.next().filter(|token| token.is("replace")).and(words.next());
    }
    next.is_some_and(|token| token.is("function") || token.is("procedure"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::lex;

    fn pieces(sql: &str) -> Vec<String> {
        let lexed = lex(sql);
        let join = |tokens: &[Token<'_>]| tokens.iter().map(|t| t.text).collect::<Vec<_>>().join(" ");
        split(&lexed.tokens).into_iter().map(join).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_everything() {
        for (sql, expected) in [
            ("", vec![]),
            (";;  ;", vec![]),
            ("a;b", vec!["a", "b"]),
            ("a ;; b ;", vec!["a", "b"]),
            ("select $$;$$;b", vec!["select $$;$$", "b"]),
            ("select ';' -- ;\n;b", vec!["select ';'", "b"]),
            (
                "create rule r as on insert to t do (a; b); c",
                vec!["create rule r as on insert to t do ( a ; b )", "c"],
            ),
            (
                "create function f() begin atomic select case when a then b end; select 2; end; c",
                vec![
                    "create function f ( ) begin atomic select case when a then b end ; select 2 ; end",
                    "c",
                ],
            ),
            (
                "create or replace procedure p() begin atomic a; end; begin; b; end;",
                vec!["create or replace procedure p ( ) begin atomic a ; end", "begin", "b", "end"],
            ),
        ] {
            assert_eq!(pieces(sql), expected, "{sql}");
        }
    }
}
