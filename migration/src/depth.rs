//! How deep a statement nests, bounded before the parser sees it: parser and tree work by recursion, and a stack that
//! overflows ends the process.

use crate::token::Token;

/// Most weight of one chain, measured: the parser takes 3 000 prefix operators on a stack of 2 MiB in a debug build.
/// A list of any length weighs as much as its heaviest item.
const MAX_WEIGHT: usize = 2_000;
/// What a bracket weighs: `(SELECT (SELECT …` takes about eight times the stack of `- - …`.
const BRACKET: usize = 8;

/// The byte offset where a statement becomes too deep.
pub(crate) fn too_deep(tokens: &[Token<'_>]) -> Option<usize> {
    // Weight of the open item at each level of brackets.
    let mut levels: Vec<usize> = vec![0];
    let mut total = 0usize;
    for token in tokens {
        match token.text {
            "(" | "[" => {
                levels.push(BRACKET);
                total += BRACKET;
            }
            ")" | "]" if levels.len() > 1 => total -= levels.pop().unwrap_or_default(),
            "," | ";" => {
                if let Some(item) = levels.last_mut() {
                    total -= std::mem::take(item);
                }
            }
            _ => {}
        }
        if let Some(item) = levels.last_mut() {
            *item += 1;
            total += 1;
        }
        if total > MAX_WEIGHT {
            return Some(token.at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::lex;

    fn is_deep(sql: &str) -> bool {
        too_deep(&lex(sql).tokens).is_some()
    }

    #[test]
    fn long_lists_are_shallow() {
        assert!(!is_deep(&format!("insert into t values (1, 'a'){}", ", (2, 'b')".repeat(10_000))));
        assert!(!is_deep(&format!("select 1 from t where {}", "a = 1 or ".repeat(400))));
        assert!(!is_deep(&format!("select {}", "(1) + ".repeat(300))));
        assert!(!is_deep("select ) ) ) (1"));
    }

    #[test]
    fn nests_and_chains_are_deep() {
        for sql in ["(", "- ", "not ", "array[", "(select ", "case when a then ", "1 + ", "explain ", "a, ("]
        {
            assert!(is_deep(&sql.repeat(3000)), "{sql}");
        }
    }
}
