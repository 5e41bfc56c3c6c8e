//! Cutting a stream of bytes into lines: by line feeds (`log-proto legacy`), or by a length before each (`log-proto
//! octet-count`). By which, the first line of ours on a connection tells: lines of another form that come by the same ring
//! may begin with a number, and would swallow ours as its bytes. Bounded: what is longer than a line can be is dropped up to its end,
//! and counted.

use super::line::begins_as_ours;

/// Longest line: HAProxy's own `maxlen` is 1024 unless it is raised, ours are about 120 bytes.
pub const MAX_LINE_BYTES: usize = 8 << 10;

/// Most digits of a length before a line.
const LENGTH_DIGITS: usize = 5;

/// With so many bytes of a line it is known whether it begins as ours do: `<134>` is the longest beginning.
const OURS_BYTES: usize = 5;

/// The bytes of a line that is not complete yet, and how lines are told apart.
#[derive(Debug, Default)]
pub struct Framer {
    begun: Vec<u8>,
    framing: Framing,
    /// The line was too long: what comes up to the next line feed belongs to it.
    skipping: bool,
}

/// How the lines of a connection are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    /// None of ours has come yet.
    #[default]
    Unknown,
    /// By line feeds.
    Feeds,
    /// By a length before each.
    Lengths,
}

/// What was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// A line that was too long.
    TooLong,
}

/// A frame with a length before it: where it begins and ends.
enum Counted {
    Is(usize, usize),
    /// More bytes may make it one.
    Perhaps,
    No,
}

fn counted(bytes: &[u8]) -> Counted {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match bytes.get(digits) {
        _ if digits == 0 || digits > LENGTH_DIGITS => Counted::No,
        None => Counted::Perhaps,
        Some(b' ') => {
            let length = bytes.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
            let length = length.and_then(|digits| digits.parse::<usize>().ok());
            let begin = digits.saturating_add(1);
            match length.filter(|length| *length <= MAX_LINE_BYTES) {
                Some(length) => Counted::Is(begin, begin.saturating_add(length)),
                None => Counted::No,
            }
        }
        Some(_) => Counted::No,
    }
}

impl Framer {
    /// Takes what was read, and hands on every line that is complete with it.
    pub fn feed(&mut self, chunk: &[u8], mut take: impl FnMut(Frame<'_>)) {
        let joined;
        let mut rest = if self.begun.is_empty() {
            chunk
        } else {
            self.begun.extend_from_slice(chunk);
            joined = std::mem::take(&mut self.begun);
            joined.as_slice()
        };
        while let Some(after) = self.cut(rest, &mut take) {
            rest = after;
        }
        if self.skipping {
            return;
        }
        if rest.len() > MAX_LINE_BYTES.saturating_add(LENGTH_DIGITS) {
            self.skipping = true;
            return take(Frame::TooLong);
        }
        self.begun.extend_from_slice(rest);
    }

    /// Cuts one line off; what is left after it. `None` when it is not complete.
    fn cut<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(Frame<'_>)) -> Option<&'a [u8]> {
        if !self.skipping && self.framing != Framing::Feeds {
            if self.framing == Framing::Lengths && bytes.starts_with(b"\n") {
                return bytes.get(1..);
            }
            match counted(bytes) {
                Counted::Is(begin, end) => {
                    let line = bytes.get(begin..end.min(bytes.len())).unwrap_or_default();
                    if self.framing == Framing::Lengths || begins_as_ours(line) {
                        let line = bytes.get(begin..end)?;
                        self.framing = Framing::Lengths;
                        take(Frame::Line(trimmed(line)));
                        return bytes.get(end..);
                    }
                    // Too little of it to know whose it is.
                    if line.len() < OURS_BYTES && end > bytes.len() && !line.contains(&b'\n') {
                        return None;
                    }
                }
                Counted::Perhaps => return None,
                // What looked like lengths were none.
                Counted::No if !bytes.is_empty() && self.framing == Framing::Lengths => {
                    self.framing = Framing::Feeds
                }
                Counted::No => {}
            }
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = bytes.split_at(end);
        if !std::mem::take(&mut self.skipping) {
            if begins_as_ours(line) {
                self.framing = Framing::Feeds;
            }
            match trimmed(line) {
                [] => {}
                line if line.len() > MAX_LINE_BYTES => take(Frame::TooLong),
                line => take(Frame::Line(line)),
            }
        }
        rest.get(1..)
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for chunk in chunks {
            framer.feed(chunk, |frame| {
                found.push(match frame {
                    Frame::Line(line) => String::from_utf8_lossy(line).into_owned(),
                    Frame::TooLong => "too long".to_owned(),
                });
            });
            assert!(framer.begun.len() <= MAX_LINE_BYTES + LENGTH_DIGITS);
        }
        found
    }

    #[test]
    fn by_line_feeds_and_by_length() {
        assert_eq!(lines(&[b"a b\nc\r\n\n\nd"]), ["a b", "c"]);
        assert_eq!(lines(&[b"a", b" b", b"\n"]), ["a b"]);
        assert_eq!(lines(&[b"7 pm1 a b3 c\nd4 <6>e1 f"]), ["pm1 a b", "c\nd", "<6>e", "f"]);
        assert_eq!(lines(&[b"1", b"5 p", b"m1", b" hello", b" world", b"x\n"]), ["pm1 hello world", "x"]);
        // A number that is no length is a line like any other.
        assert_eq!(lines(&[b"123456 x\n12y\n99999 z\n"]), ["123456 x", "12y", "99999 z"]);
        // What HAProxy says of itself may come first.
        assert_eq!(
            lines(&[b"Server a/b is DOWN.\npm1 a\n5 pm1 b\n"]),
            ["Server a/b is DOWN.", "pm1 a", "5 pm1 b"]
        );
    }

    /// Another frontend logs to the same ring, in a form that begins with a number.
    #[test]
    fn a_number_that_begins_a_line_of_another_swallows_none_of_ours() {
        let other = "200 49 0/0/0/1/1 x\n";
        for first in ["", "pm1 be=a\n", "Server a/b is DOWN.\n"] {
            let whole = format!("{first}{}", format!("{other}pm1 be=b\n").repeat(20));
            let expected: Vec<&str> = whole.lines().collect();
            assert_eq!(lines(&[whole.as_bytes()]), expected);
            let bytes: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
            assert_eq!(lines(&bytes), expected);
        }
        // A visitor who is the first of a connection, and writes what ours begin with, is believed once.
        let whole = format!("31 pm1 be=b st=500\n{}", "pm1 be=b st=200 x=y z\n".repeat(9));
        assert_eq!(lines(&[whole.as_bytes()])[2..], ["pm1 be=b st=200 x=y z"; 8]);
    }

    #[test]
    fn a_line_without_end_is_dropped_and_the_next_is_read() {
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        assert_eq!(lines(&[&long, &long, b"\nafter\n"]), ["too long", "after"]);
        assert_eq!(lines(&[&[&long[..], b"\nafter\n"].concat()]), ["too long", "after"]);
    }

    proptest! {
        #[test]
        fn the_cuts_of_the_network_do_not_matter(
            texts in prop::collection::vec("(pm1 |<6>)[a-z=]{1,40}", 0..20),
            counted in any::<bool>(),
            cuts in prop::collection::vec(1usize..60, 1..40),
        ) {
            let whole: String = texts
                .iter()
                .map(|text| if counted { format!("{} {text}\n", text.len() + 1) } else { format!("{text}\n") })
                .collect();
            let (mut rest, mut chunks) = (whole.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(lines(&chunks), texts);
        }

        #[test]
        fn any_bytes_are_bounded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..40)) {
            lines(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
