//! One access line: `key=value` words in any order after the word `pm1`. Words that are not known are left alone, so that
//! a site may log more. Read as bytes, without copying: there are tens of thousands a second.

use pointsman_core::signal::Retries;

/// The word that the keys follow. Its number changes when the meaning of a key does.
const MARK: &[u8] = b"pm1 ";

/// What HAProxy prints where a variable is not set.
const UNSET: &[u8] = b"-";

/// The class of requests that `haproxy.cfg` puts into none.
const OTHER: &[u8] = b"other";

/// A request, as its line tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The backend (`be`); the frontend's own name where HAProxy answered before it chose one.
    pub backend: &'a [u8],
    /// The server (`sv`), where the log-format has it; `<NOSRV>` where none was asked.
    pub server: Option<&'a [u8]>,
    /// The status (`st`); 0 where none was sent.
    pub status: u16,
    /// The first two letters of the termination state (`tsc`).
    pub termination: [u8; 2],
    /// The whole time of the request (`ta`), in milliseconds; `None` where HAProxy does not know it.
    pub took_ms: Option<u64>,
    /// The route's epoch (`epoch`); 0 where the rule that reads the route was not reached.
    pub epoch: u64,
    /// The class (`class`).
    pub class: &'a [u8],
    /// Further tries (`rc`), where the log-format has them.
    pub retries: Option<Retries>,
    /// Who asked (`vid`), as a number that HAProxy makes of what it knows them by; where the log-format has it.
    pub visitor: Option<u32>,
}

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// A request.
    Request(Line<'a>),
    /// It says it is an access line, and cannot be read.
    Broken,
    /// Something else that HAProxy logs, as a server that goes down.
    Foreign,
}

/// Reads a line without its end.
pub fn read(line: &[u8]) -> Read<'_> {
    let words = match line.strip_prefix(MARK) {
        Some(words) => words,
        // Other formats than `raw` put a header before it.
        None => match line.windows(MARK.len().saturating_add(1)).position(is_mark) {
            Some(at) => line.get(at.saturating_add(MARK.len()).saturating_add(1)..).unwrap_or_default(),
            None => return Read::Foreign,
        },
    };
    request(words).map_or(Read::Broken, Read::Request)
}

fn is_mark(window: &[u8]) -> bool {
    window.strip_prefix(b" ") == Some(MARK)
}

fn request(words: &[u8]) -> Option<Line<'_>> {
    let (mut backend, mut status, mut termination, mut took, mut epoch) = (None, None, None, None, None);
    let (mut class, mut retries, mut server, mut visitor) = (OTHER, None, None, None);
    for word in words.split(|byte| *byte == b' ') {
        let Some(at) = word.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = word.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"be" if !value.is_empty() => backend = Some(value),
            b"sv" if !value.is_empty() => server = Some(value),
            b"st" => status = Some(status_of(value)?),
            b"tsc" => termination = Some(*value.first_chunk::<2>()?),
            b"ta" => took = Some(time_of(value)?),
            b"epoch" => epoch = Some(if value == UNSET { 0 } else { number(value)? }),
            b"class" if value != UNSET => class = value,
            b"rc" => retries = Some(retries_of(value)?),
            b"vid" if value != UNSET => visitor = Some(u32::try_from(number(value)?).ok()?),
            _ => {}
        }
    }
    Some(Line {
        backend: backend?,
        server,
        status: status?,
        termination: termination?,
        took_ms: took?,
        epoch: epoch?,
        class,
        retries,
        visitor,
    })
}

/// Plain decimal digits. Longer ones than a `u64` holds are no number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte.saturating_sub(b'0')))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// `-1` stands for an answer that was never sent.
fn status_of(value: &[u8]) -> Option<u16> {
    if value == b"-1" {
        return Some(0);
    }
    number(value).and_then(|status| u16::try_from(status).ok()).filter(|status| *status <= 999)
}

/// `-1` stands for a time that HAProxy does not know, a leading `+` for one that went on after the line was written.
fn time_of(value: &[u8]) -> Option<Option<u64>> {
    if value == b"-1" {
        return Some(None);
    }
    match value.strip_prefix(b"+") {
        Some(part) => number(part).map(|_| None),
        None => number(value).map(Some),
    }
}

/// A leading `+` stands for a last try at another server.
fn retries_of(value: &[u8]) -> Option<Retries> {
    let (digits, redispatched) = value.strip_prefix(b"+").map_or((value, false), |digits| (digits, true));
    number(digits).map(|count| Retries { count, redispatched })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &str =
        "pm1 be=be_blue sv=s1 st=200 tsc=---- ta=1504 tw=0 tc=1 tr=1503 by=116 epoch=4 side=- class=api rc=0";

    fn line(text: &str) -> Line<'_> {
        match read(text.as_bytes()) {
            Read::Request(line) => line,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn lines_of_a_real_haproxy() {
        let plain = Line {
            backend: b"be_blue",
            server: Some(b"s1"),
            status: 200,
            termination: *b"--",
            took_ms: Some(1504),
            epoch: 4,
            class: b"api",
            retries: Some(Retries { count: 0, redispatched: false }),
            visitor: None,
        };
        assert_eq!(line(REAL), plain);
        assert_eq!(line(&format!("<134>Nov 25 13:22:12 haproxy[7]: {REAL}")), plain);
        assert_eq!(line(&REAL.replace(" rc=0", "")), Line { retries: None, ..plain });
        assert_eq!(
            line("pm1 rc=+3 class=- epoch=- st=-1 tsc=CH-- ta=-1 be=fe later=x =y z"),
            Line {
                backend: b"fe",
                server: None,
                status: 0,
                termination: *b"CH",
                took_ms: None,
                epoch: 0,
                class: b"other",
                retries: Some(Retries { count: 3, redispatched: true }),
                visitor: None,
            }
        );
        assert_eq!(line(&format!("{REAL} vid=4294967295")).visitor, Some(u32::MAX));
        assert_eq!(line(&format!("{REAL} vid=-")).visitor, None);
        assert_eq!(line(&REAL.replace("ta=1504", "ta=+1504")).took_ms, None);
        assert_eq!(line(&REAL.replace(" class=api", "")).class, b"other");
    }

    #[test]
    fn what_cannot_be_read_is_broken_and_what_is_something_else_is_foreign() {
        let broken = [
            "pm1 ",
            "pm1 be=be_blue",
            &REAL.replace("be=be_blue ", ""),
            &REAL.replace("be=be_blue", "be="),
            &REAL.replace("st=200", "st="),
            &REAL.replace("st=200", "st=2000"),
            &REAL.replace("st=200", "st=-2"),
            &REAL.replace("st=200", "st=0x1"),
            &REAL.replace("tsc=----", "tsc=-"),
            &REAL.replace("ta=1504", "ta=-5"),
            &REAL.replace("ta=1504", "ta=99999999999999999999"),
            &REAL.replace("epoch=4", "epoch=four"),
            &REAL.replace("rc=0", "rc="),
            &format!("{REAL} vid=4294967296"),
            &format!("{REAL} vid="),
        ];
        for text in broken {
            assert_eq!(read(text.as_bytes()), Read::Broken, "{text}");
        }
        for text in ["", "pm1", "pm2 be=be_blue", "Server be_green/s1 is DOWN.", "xpm1 be=be_blue st=200"] {
            assert_eq!(read(text.as_bytes()), Read::Foreign, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
            read(&[MARK, &bytes].concat());
        }

        #[test]
        fn a_line_that_is_cut_or_spoilt_is_never_a_panic(cut in 0..REAL.len(), at in 0..REAL.len(), byte in any::<u8>()) {
            read(&REAL.as_bytes()[..cut]);
            let mut spoilt = REAL.as_bytes().to_vec();
            spoilt[at] = byte;
            read(&spoilt);
        }

        #[test]
        fn the_order_of_the_words_is_all_the_same(words in Just(REAL.split(' ').skip(1).collect::<Vec<_>>()).prop_shuffle()) {
            let text = format!("pm1 {}", words.join(" "));
            prop_assert_eq!(line(&text), line(REAL));
        }
    }
}
