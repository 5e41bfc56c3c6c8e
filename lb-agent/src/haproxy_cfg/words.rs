//! One line of a HAProxy configuration taken apart into words, as HAProxy does it: quotes, `\` escapes, comments.
//! Environment variables are left as they are: what they hold is known to HAProxy alone.

/// Within which quotes a character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// The words of a line, without its comment. A quote that is never closed ends with the line.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = Quote::None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('#', Quote::None) => break,
            (' ' | '\t' | '\r' | '\n', Quote::None) => words.extend(word.take()),
            ('\'', Quote::None) => quote = opened(&mut word, Quote::Single),
            ('"', Quote::None) => quote = opened(&mut word, Quote::Double),
            ('\'', Quote::Single) | ('"', Quote::Double) => quote = Quote::None,
            ('\\', Quote::None | Quote::Double) => {
                escaped(&mut rest, word.get_or_insert_default());
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// An opening quote begins a word, be it an empty one.
fn opened(word: &mut Option<String>, quote: Quote) -> Quote {
    word.get_or_insert_default();
    quote
}

/// What follows a `\`. An escape that HAProxy does not know stays as it was written.
fn escaped(rest: &mut std::str::Chars<'_>, word: &mut String) {
    let Some(next) = rest.clone().next() else {
        return word.push('\\');
    };
    let plain = match next {
        ' ' | '\\' | '#' | '\'' | '"' | '$' => Some(next),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        _ => None,
    };
    if let Some(plain) = plain {
        rest.next();
        return word.push(plain);
    }
    let digits: String = rest.clone().skip(1).take(2).collect();
    match u8::from_str_radix(&digits, 16) {
        Ok(byte) if next == 'x' && digits.len() == 2 && byte.is_ascii() => {
            rest.nth(2);
            word.push(char::from(byte));
        }
        _ => word.push('\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn lines_come_apart_as_haproxy_takes_them() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # a comment", &[]),
            ("  bind :80 # public", &["bind", ":80"]),
            ("a#b", &["a"]),
            (r"a\#b c\ d", &["a#b", "c d"]),
            (r#"log-format "pm1 be=%b # no comment""#, &["log-format", "pm1 be=%b # no comment"]),
            (r#"x "a\"b" 'c\d' """#, &["x", "a\"b", r"c\d", ""]),
            (r#"x pre"mid dle"post"#, &["x", "premid dlepost"]),
            (r"x \x41\x4 \q \", &["x", r"A\x4", r"\q", r"\"]),
            (
                r#"stats socket "${DIR}/a.sock" mode 600"#,
                &["stats", "socket", "${DIR}/a.sock", "mode", "600"],
            ),
            ("tab\tand\r", &["tab", "and"]),
            ("x \"never closed # still", &["x", "never closed # still"]),
        ] {
            assert_eq!(words(line), expected, "{line:?}");
        }
    }
}
