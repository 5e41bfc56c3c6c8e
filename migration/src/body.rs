//! What stands in a string between dollar marks: the body of a function or block.

use crate::token::{Kind, Token};

/// The body in a token, if it is a string between dollar marks.
pub(crate) fn of<'s>(token: &Token<'s>) -> Option<&'s str> {
    if token.kind != Kind::Text {
        return None;
    }
    let tag = token.text.strip_prefix('$')?.find('$')?;
    let mark = tag + 2;
    token.text.get(mark..token.text.len().checked_sub(mark)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::lex;

    #[test]
    fn a_body_is_what_the_marks_enclose() {
        for (sql, body) in [
            ("$$ a; $$", Some(" a; ")),
            ("$tag$a $$ b$tag$", Some("a $$ b")),
            ("$$$$", Some("")),
            ("'a'", None),
            ("a$$b", None),
            ("$1", None),
        ] {
            assert_eq!(lex(sql).tokens.first().and_then(of), body, "{sql}");
        }
    }
}
