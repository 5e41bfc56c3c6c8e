//! SQL as tokens: what is left when comments and blanks are gone, in a form that formatters do not change.

use squawk_lexer::{LiteralKind, TokenKind, tokenize};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keyword or identifier without quotes.
    Word,
    /// Identifier in double quotes.
    Quoted,
    /// String or bit string of any spelling.
    Text,
    /// Number or positional parameter.
    Number,
    /// One or more operator characters.
    Operator,
    /// Bracket, comma, dot, colon.
    Mark,
    /// `;`
    Semicolon,
}

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'s> {
    pub(crate) kind: Kind,
    pub(crate) text: &'s str,
    /// Byte offset in the text.
    pub(crate) at: usize,
}

impl Token<'_> {
    /// Byte offset of its end.
    pub(crate) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// Whether it is this keyword; `word` in lower case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// A comment with its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comment<'s> {
    pub(crate) text: &'s str,
    pub(crate) at: usize,
}

/// Something that is no SQL at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) rule: &'static str,
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

/// A text taken apart.
#[derive(Debug, Default)]
pub(crate) struct Lexed<'s> {
    pub(crate) tokens: Vec<Token<'s>>,
    pub(crate) comments: Vec<Comment<'s>>,
    pub(crate) faults: Vec<Fault>,
}

/// Longest identifier that PostgreSQL keeps, in bytes (`NAMEDATALEN - 1`).
const MAX_IDENTIFIER_BYTES: usize = 63;

/// Takes a text apart. Strings are read as with `standard_conforming_strings = on`, PostgreSQL's default since 9.1.
pub(crate) fn lex(text: &str) -> Lexed<'_> {
    let mut lexed = Lexed::default();
    let mut at = 0;
    for raw in tokenize(text) {
        let end = at + raw.len as usize;
        let Some(piece) = text.get(at..end) else { break };
        lexed.take(raw.kind, piece, at);
        at = end;
    }
    lexed.tokens = join_operators(text, &lexed.tokens);
    lexed
}

impl<'s> Lexed<'s> {
    fn take(&mut self, raw: TokenKind, text: &'s str, at: usize) {
        if text.is_empty() || raw == TokenKind::Whitespace {
            return;
        }
        self.faults.extend(fault(raw, text, at));
        match kind(raw) {
            Some(kind) => self.tokens.push(Token { kind, text, at }),
            None if text.starts_with("--") || text.starts_with("/*") => {
                self.comments.push(Comment { text, at });
            }
            None => {}
        }
    }
}

fn kind(raw: TokenKind) -> Option<Kind> {
    Some(match raw {
        TokenKind::Ident => Kind::Word,
        TokenKind::QuotedIdent { .. } => Kind::Quoted,
        TokenKind::PositionalParam { .. } => Kind::Number,
        TokenKind::Literal { kind: LiteralKind::Int { .. } | LiteralKind::Numeric { .. } } => Kind::Number,
        TokenKind::Literal { .. } => Kind::Text,
        TokenKind::Semi => Kind::Semicolon,
        TokenKind::Comma
        | TokenKind::Dot
        | TokenKind::DotDot
        | TokenKind::Colon
        | TokenKind::OpenParen
        | TokenKind::CloseParen
        | TokenKind::OpenBracket
        | TokenKind::CloseBracket
        | TokenKind::OpenCurly
        | TokenKind::CloseCurly => Kind::Mark,
        TokenKind::LineComment
        | TokenKind::BlockComment { .. }
        | TokenKind::Whitespace
        | TokenKind::Eof
        | TokenKind::Unknown => return None,
        _ => Kind::Operator,
    })
}

fn fault(raw: TokenKind, text: &str, at: usize) -> Option<Fault> {
    let (rule, message, hint) = match raw {
        TokenKind::Unknown if text.starts_with('\\') => (
            "psql-command",
            "a psql command (`\\…`) is no SQL",
            "write the statements themselves; values of variables too",
        ),
        TokenKind::Unknown => ("parse-error", "a character that SQL does not know", "remove it or quote it"),
        TokenKind::BlockComment { terminated: false } => {
            ("parse-error", "this comment never ends", "close it with `*/`; comments nest in PostgreSQL")
        }
        TokenKind::QuotedIdent { terminated: false, .. } => {
            ("parse-error", "this quoted name never ends", "close it with `\"`")
        }
        TokenKind::QuotedIdent { uescape: true, .. } => (
            "escaped-name",
            "names written as `U&\"…\"` are not read",
            "write the characters themselves: the file is UTF-8",
        ),
        TokenKind::Ident if text.len() > MAX_IDENTIFIER_BYTES => LONG_NAME,
        // Two quotes stand around it.
        TokenKind::QuotedIdent { .. } if text.replace("\"\"", "\"").len() > MAX_IDENTIFIER_BYTES + 2 => {
            LONG_NAME
        }
        TokenKind::Literal { kind } if !terminated(kind) => {
            ("parse-error", "this string never ends", "close it with the mark that opened it")
        }
        _ => return None,
    };
    Some(Fault { at, rule, message, hint })
}

const LONG_NAME: (&str, &str, &str) = (
    "long-name",
    "PostgreSQL cuts names after 63 bytes",
    "choose a shorter name, so that the catalog has the same",
);

fn terminated(kind: LiteralKind) -> bool {
    match kind {
        LiteralKind::Int { .. } | LiteralKind::Numeric { .. } => true,
        LiteralKind::Str { terminated }
        | LiteralKind::NationalStr { terminated }
        | LiteralKind::ByteStr { terminated }
        | LiteralKind::BitStr { terminated }
        | LiteralKind::DollarQuotedString { terminated }
        | LiteralKind::UnicodeEscStr { terminated }
        | LiteralKind::EscStr { terminated } => terminated,
    }
}

/// Joins operator characters that touch, as PostgreSQL does, and `::` and `:=`: `a <= b` is not `a < = b`, but
/// `a=-1` is `a = -1`.
fn join_operators<'s>(text: &'s str, single: &[Token<'s>]) -> Vec<Token<'s>> {
    let mut joined: Vec<Token<'s>> = Vec::with_capacity(single.len());
    let mut rest = single;
    while let Some((first, after)) = rest.split_first() {
        let run = run_length(first, after);
        let last = rest.get(run - 1).unwrap_or(first);
        let piece = text.get(first.at..last.end()).unwrap_or(first.text);
        joined.push(Token { kind: first.kind, text: piece, at: first.at });
        rest = rest.get(run..).unwrap_or_default();
    }
    joined
}

/// How many single tokens, `first` among them, are one.
fn run_length(first: &Token<'_>, after: &[Token<'_>]) -> usize {
    if first.text == ":" {
        let pair = after.first().is_some_and(|next| next.at == first.end() && matches!(next.text, ":" | "="));
        return if pair { 2 } else { 1 };
    }
    if first.kind != Kind::Operator {
        return 1;
    }
    let mut end = first.end();
    let touching = after.iter().take_while(|next| {
        let touches = next.kind == Kind::Operator && next.at == end;
        end = next.end();
        touches
    });
    let run: Vec<&str> = std::iter::once(first.text).chain(touching.map(|token| token.text)).collect();
    // An operator may end in + or - only if it has one of these characters (PostgreSQL's documentation, 4.1.3).
    if run.iter().any(|c| matches!(*c, "~" | "!" | "@" | "#" | "%" | "^" | "&" | "|" | "`" | "?")) {
        return run.len();
    }
    let signs = run.iter().rev().take_while(|c| matches!(**c, "+" | "-")).count();
    (run.len() - signs).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        lex(sql).tokens.iter().map(|token| token.text).collect()
    }

    #[test]
    fn operators_are_joined_as_postgresql_joins_them() {
        for (sql, expected) in [
            ("a<=b", vec!["a", "<=", "b"]),
            ("a< =b", vec!["a", "<", "=", "b"]),
            ("a=-1", vec!["a", "=", "-", "1"]),
            ("a@-1", vec!["a", "@-", "1"]),
            ("- -1", vec!["-", "-", "1"]),
            ("a::int", vec!["a", "::", "int"]),
            ("a:=1", vec!["a", ":=", "1"]),
            ("a[1:2]", vec!["a", "[", "1", ":", "2", "]"]),
            ("j->>'k'", vec!["j", "->>", "'k'"]),
            ("a/*c*/+b--x", vec!["a", "+", "b"]),
            ("+-+", vec!["+", "-", "+"]),
        ] {
            assert_eq!(texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn strings_hide_what_is_in_them() {
        for sql in [
            "$$ ; -- /* $$",
            "$a$ $$ ; $b$ $a$",
            "'it''s ; --'",
            "E'\\'; --'",
            "\"a;\"\"b\"",
            "U&'\\0041;'",
            "B'01'",
        ] {
            assert_eq!(texts(sql), vec![sql]);
        }
        assert_eq!(texts("a/* /* ; */ ; */b"), vec!["a", "b"], "comments nest");
        assert_eq!(texts("a$$b"), vec!["a$$b"], "a dollar inside of a name opens no string");
    }

    #[test]
    fn what_is_no_sql_is_told() {
        for (sql, at, rule) in [
            ("select 1;\n\\i other.sql", 10, "psql-command"),
            ("select 'open", 7, "parse-error"),
            ("select \"open", 7, "parse-error"),
            ("select $$open", 7, "parse-error"),
            ("/* /* */", 0, "parse-error"),
            ("select U&\"d\\0061t\"", 7, "escaped-name"),
        ] {
            let faults = lex(sql).faults;
            assert_eq!(faults.first().map(|fault| (fault.at, fault.rule)), Some((at, rule)), "{sql}");
        }
        let long = format!("select {}", "a".repeat(64));
        assert_eq!(lex(&long).faults.first().map(|fault| fault.rule), Some("long-name"));
        assert!(lex(&format!("select {}", "a".repeat(63))).faults.is_empty());
    }
}
