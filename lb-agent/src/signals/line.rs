//! One access line: `key=value` words in any order after the word `pm1`. Words that are not known are left alone, so that
//! a site may log more. Read as bytes, without copying: there are tens of thousands a second.
//!
//! Lines of other forms may come by the same ring, and hold what a visitor wrote. So the mark counts where no visitor can put it,
//! at the line's start or right behind a header of HAProxy's; and of equal words the first counts, so that what a site adds at
//! the end takes nothing back.

use pointsman_core::signal::Retries;

/// The word that the keys follow. Its number changes when the meaning of a key does.
const MARK: &[u8] = b"pm1 ";

/// Most digits of the level before a line.
const LEVEL_DIGITS: usize = 3;

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
    match message(line).strip_prefix(MARK) {
        Some(words) => request(words).map_or(Read::Broken, Read::Request),
        None => Read::Foreign,
    }
}

/// Whether a line begins as ours do, with a header or without.
pub fn begins_as_ours(line: &[u8]) -> bool {
    line.starts_with(MARK) || behind_level(line).is_some()
}

/// What stands behind the header that every format but `raw` puts before a line.
fn message(line: &[u8]) -> &[u8] {
    let rest = behind_level(line).unwrap_or(line);
    behind_tag(rest).or_else(|| behind_syslog(rest)).or_else(|| behind_date(rest)).unwrap_or(rest)
}

/// Behind `<134>`, as all formats but `raw` and `iso` begin.
fn behind_level(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"<")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    rest.get(digits..)?.strip_prefix(b">").filter(|_| (1..=LEVEL_DIGITS).contains(&digits))
}

/// Behind `Nov 25 13:22:12 [HOST ]haproxy[7]: `, the header of `local` and `rfc3164`.
fn behind_tag(rest: &[u8]) -> Option<&[u8]> {
    let (date, rest) = rest.split_at_checked("Nov 25 13:22:12 ".len())?;
    let is_date = [(3, b' '), (6, b' '), (9, b':'), (12, b':'), (15, b' ')];
    if !is_date.iter().all(|(at, byte)| date.get(*at) == Some(byte)) {
        return None;
    }
    let (word, after) = word(rest)?;
    let is_tag = |word: &[u8]| word.ends_with(b":");
    if is_tag(word) {
        return Some(after);
    }
    let (tag, after) = self::word(after)?;
    is_tag(tag).then_some(after)
}

/// Behind `1 2026-11-25T13:22:12+00:00 HOST haproxy 7 - - `, the header of `rfc5424`.
fn behind_syslog(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = behind_date(rest.strip_prefix(b"1 ")?)?;
    for _ in ["host", "tag", "process", "message"] {
        rest = word(rest)?.1;
    }
    rest.strip_prefix(b"- ")
}

/// Behind `2026-11-25T13:22:12+00:00 `, the header of `iso` and `timed`.
fn behind_date(rest: &[u8]) -> Option<&[u8]> {
    let (date, after) = word(rest)?;
    let is_date = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    is_date.iter().all(|(at, byte)| date.get(*at) == Some(byte)).then_some(after)
}

/// The first word, and what comes after the blank behind it.
fn word(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = rest.iter().position(|byte| *byte == b' ')?;
    Some((rest.get(..end)?, rest.get(end.saturating_add(1)..)?))
}

fn request(words: &[u8]) -> Option<Line<'_>> {
    let (mut backend, mut status, mut termination, mut took, mut epoch) = (None, None, None, None, None);
    let (mut class, mut retries, mut server, mut visitor) = (None, None, None, None);
    for word in words.split(|byte| *byte == b' ') {
        let Some(at) = word.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = word.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"be" if backend.is_none() => backend = Some(value),
            b"sv" if server.is_none() => server = Some(value),
            b"st" if status.is_none() => status = Some(status_of(value)?),
            b"tsc" if termination.is_none() => termination = Some(*value.first_chunk::<2>()?),
            b"ta" if took.is_none() => took = Some(time_of(value)?),
            b"epoch" if epoch.is_none() => epoch = Some(unless_unset(value, number)?.unwrap_or(0)),
            b"class" if class.is_none() => class = Some(if value == UNSET { OTHER } else { value }),
            b"rc" if retries.is_none() => retries = Some(retries_of(value)?),
            b"vid" if visitor.is_none() => visitor = Some(unless_unset(value, visitor_of)?),
            _ => {}
        }
    }
    Some(Line {
        backend: backend.filter(|name| !name.is_empty())?,
        server: server.filter(|name| !name.is_empty()),
        status: status?,
        termination: termination?,
        took_ms: took?,
        epoch: epoch?,
        class: class.unwrap_or(OTHER),
        retries,
        visitor: visitor.flatten(),
    })
}

/// What a value says; nothing where HAProxy had none. `None` where it cannot be read.
fn unless_unset<T>(value: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value == UNSET { Some(None) } else { read(value).map(Some) }
}

fn visitor_of(value: &[u8]) -> Option<u32> {
    number(value).and_then(|visitor| u32::try_from(visitor).ok())
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
        // Every format that a ring may have; a name of this host; a day of one digit.
        for header in [
            "<134>Nov 25 13:22:12 haproxy[7]: ",
            "<134>Nov  5 13:22:12 lb1 haproxy[7]: ",
            "<134>1 2026-11-25T13:22:12.010203+00:00 lb1 haproxy 7 - - ",
            "<6>",
            "<134>",
            "<134>2026-11-25T13:22:12+00:00 ",
            "2026-11-25T13:22:12+00:00 ",
        ] {
            assert_eq!(line(&format!("{header}{REAL}")), plain, "{header}");
        }
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

    /// What the visitors of another frontend write into its lines, which come by the same ring: a name of theirs for a browser, a path.
    #[test]
    fn a_visitor_makes_no_line_up() {
        for before in [
            "127.0.0.1:57016 [27/Nov/2026:16:30:43.868] in in/<NOSRV> 0/-1/-1/-1/0 200 49 - - LR-- 1/1/0/0/0 0/0 {x ",
            "<134>Nov 25 13:22:12 haproxy[7]: 127.0.0.1:57016 [27/Nov/2026:16:30:43.868] in in/<NOSRV> {x: ",
            "<134>Nov 25 13:22:12 haproxy[7]: 200 agent: ",
            "<134>1 2026-11-25T13:22:12+00:00 lb1 haproxy 7 - - x ",
            "<134>1 2026-11-25T13:22:12+00:00 lb1 haproxy 7 - [x y=\"z\"] ",
            "2026-11-25T13:22:12+00:00 x ",
            "<6>x ",
            "x ",
            " ",
            "<> ",
            "<1344>",
        ] {
            assert_eq!(read(format!("{before}{REAL}").as_bytes()), Read::Foreign, "{before}");
        }
    }

    /// What a site adds to its lines holds what visitors write, most often: it takes back nothing that stands before it.
    #[test]
    fn of_equal_words_the_first_counts() {
        let full = format!("{REAL} vid=7");
        let forged = "ua=x be=be_green sv=s2 st=500 tsc=SH-- ta=9 epoch=9 class=check rc=+3 vid=9 st=x tsc=x ta=x rc=x vid=x";
        assert_eq!(line(&format!("{full} {forged}")), line(&full));
        let unset =
            full.replace("epoch=4", "epoch=-").replace("class=api", "class=-").replace("vid=7", "vid=-");
        assert_eq!(line(&format!("{unset} {forged}")), line(&unset));
        assert_eq!((line(&unset).epoch, line(&unset).class, line(&unset).visitor), (0, &b"other"[..], None));
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
