//! The text of an XML document, in the encoding that it says it has: `MapServer` before 7 writes ISO-8859-1 unless its map
//! file says otherwise.

use std::borrow::Cow;

/// How far the declaration of a document is looked for, in bytes: it is its first line.
const DECLARATION_BYTES: usize = 256;

/// Where windows-1252 differs from ISO-8859-1: the letters for 0x80 to 0x9f. The five that it leaves open stand for themselves.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The text of a document; `charset` is what the answer's header said of it. A document that is no UTF-8, and does not say
/// that it is something else, is none.
///
/// What is UTF-8 throughout is taken for that, whatever it says: letters of another encoding are UTF-8 next to never, and
/// servers and proxies that say something else than they send are common.
pub fn text<'a>(body: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(text) = std::str::from_utf8(body) {
        return Ok(Cow::Borrowed(text));
    }
    let said = declared(body).or_else(|| charset.map(str::to_owned)).map(|name| name.to_ascii_lowercase());
    let one_by_one = |letter: fn(u8) -> char| Ok(Cow::Owned(body.iter().map(|byte| letter(*byte)).collect()));
    match said.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii") => Err("the answer is no UTF-8 text".to_owned()),
        // As everybody reads the first: windows-1252 is often sent under its name, and it has no letters of its own there.
        Some("iso-8859-1" | "latin1" | "windows-1252" | "cp1252") => one_by_one(windows_1252),
        Some("iso-8859-15" | "latin9") => one_by_one(iso_8859_15),
        // Elements and most names are written in ASCII, so a document says enough without its other letters.
        Some(_) => Ok(String::from_utf8_lossy(body)),
    }
}

/// The encoding that the declaration of a document names.
fn declared(body: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(body.get(..DECLARATION_BYTES).unwrap_or(body));
    let (declaration, _) = head.trim_start().strip_prefix("<?xml")?.split_once("?>")?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    value.split(quote).nth(1).map(str::to_owned)
}

fn windows_1252(byte: u8) -> char {
    let own = byte.checked_sub(0x80).and_then(|index| WINDOWS_1252.get(usize::from(index)));
    own.copied().unwrap_or(char::from(byte))
}

fn iso_8859_15(byte: u8) -> char {
    match byte {
        0xa4 => '€',
        0xa6 => 'Š',
        0xa8 => 'š',
        0xb4 => 'Ž',
        0xb8 => 'ž',
        0xbc => 'Œ',
        0xbd => 'œ',
        0xbe => 'Ÿ',
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(encoding: &str, letters: &[u8], charset: Option<&str>) -> Result<String, String> {
        let head = format!("<?xml version='1.0' {encoding} standalone=\"no\" ?>\n<a>");
        let body = [head.as_bytes(), letters, b"</a>"].concat();
        let text = text(&body, charset)?;
        Ok(text.split_once("<a>").unwrap().1.trim_end_matches("</a>").to_owned())
    }

    #[test]
    fn letters_are_those_of_the_encoding_that_is_declared() {
        for (encoding, letters, charset, expected) in [
            ("encoding=\"ISO-8859-1\"", &b"Gr\xf6\xdfe \xc3\x9f"[..], None, "Größe Ã\u{178}"),
            ("encoding = 'windows-1252'", b"\x80 \x9c", None, "€ œ"),
            ("encoding='iso-8859-15'", b"\xa4 \xe4", None, "€ ä"),
            ("", b"\xe4", Some("ISO-8859-1"), "ä"),
            ("encoding='ISO-8859-2'", b"b\xb3a", None, "b\u{fffd}a"),
            // What it is counts more than what it says.
            ("encoding='ISO-8859-1'", "ä".as_bytes(), None, "ä"),
            ("encoding='UTF-8'", "ä".as_bytes(), Some("iso-8859-1"), "ä"),
        ] {
            assert_eq!(read(encoding, letters, charset).as_deref(), Ok(expected), "{encoding}");
        }
    }

    #[test]
    fn what_is_no_text_is_told() {
        for (encoding, charset) in
            [("", None), ("encoding='UTF-8'", None), ("encoding=", None), ("", Some("utf-8"))]
        {
            assert_eq!(read(encoding, b"\xe4", charset).unwrap_err(), "the answer is no UTF-8 text");
        }
        assert!(text(b"\xff\xd8\xff", None).is_err());
        assert_eq!(text(b"\xef\xbb\xbf<a/>", None).as_deref(), Ok("<a/>"));
        assert_eq!(text(b"", None).as_deref(), Ok(""));
    }
}
