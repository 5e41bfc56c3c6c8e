//! Hashes of what a migration says, which formatters, licence headers and line endings leave alone.

use crate::token::{Kind, Token};

/// Names the form of the stream: another form needs another name, so that hashes of two forms never meet.
const STREAM: &[u8] = b"pointsman migration tokens 1\n";

/// Hash of the bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Hash of statements and headers without comments, blanks and semicolons between statements.
///
/// Words are folded to lower case: PostgreSQL does that to keywords and names alike. Within strings and function
/// bodies `\r\n` counts as `\n`, because version control turns one into the other.
pub(crate) fn tokens(headers: &str, statements: &[&[Token<'_>]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(STREAM);
    put(&mut hasher, b'h', headers);
    for statement in statements {
        hasher.update(b"s");
        for token in *statement {
            put_token(&mut hasher, token);
        }
    }
    *hasher.finalize().as_bytes()
}

fn put_token(hasher: &mut blake3::Hasher, token: &Token<'_>) {
    match token.kind {
        Kind::Word => put(hasher, b'w', &token.text.to_ascii_lowercase()),
        Kind::Quoted => put(hasher, b'q', token.text),
        Kind::Text => put(hasher, b't', &token.text.replace("\r\n", "\n")),
        Kind::Number => put(hasher, b'n', &token.text.to_ascii_lowercase()),
        Kind::Operator => put(hasher, b'o', token.text),
        Kind::Mark | Kind::Semicolon => put(hasher, b'm', token.text),
    }
}

/// Kind, length, bytes: no two streams look alike.
fn put(hasher: &mut blake3::Hasher, kind: u8, text: &str) {
    hasher.update(&[kind]);
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::split;
    use crate::token::lex;

    fn of(sql: &str) -> [u8; 32] {
        let lexed = lex(sql);
        tokens("", &split(&lexed.tokens))
    }

    #[test]
    fn what_says_the_same_is_the_same() {
        for (one, other) in [
            ("SELECT a FROM T;", "-- licence\nselect  a\r\nfrom /* x */ t"),
            ("select a;select b", "select a;;\n;select b;"),
            ("select a=-1", "select a = - 1"),
            ("select $$a\r\nb$$", "select $$a\nb$$"),
            ("select 1E5", "select 1e5"),
        ] {
            assert_eq!(of(one), of(other), "{one}");
        }
    }

    #[test]
    fn what_says_something_else_differs() {
        for (one, other) in [
            ("select a", "select b"),
            ("select 'A'", "select 'a'"),
            ("select \"A\"", "select \"a\""),
            ("select \"a\"", "select a"),
            ("select a;b", "select a b"),
            ("select ab", "select a b"),
            ("select a <= b", "select a < = b"),
            ("select $$ a $$", "select $$a$$"),
            ("select 'a' 'b'", "select 'a'' ''b'"),
        ] {
            assert_ne!(of(one), of(other), "{one}");
        }
    }
}
