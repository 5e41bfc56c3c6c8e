//! What a file says about itself in comments before its first statement: `-- pointsman: no-transaction, batch=id:5000`.

use std::fmt;

use crate::Phase;
use crate::parse::fold;
use crate::relation::quoted;
use crate::token::{Fault, Kind, Lexed, lex};

/// What a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `no-transaction`: the file is not one transaction; every statement is a segment of its own, so that a crash
    /// leaves those before it applied.
    pub no_transaction: bool,
    /// `lock-timeout=50ms`: how long one try may wait for a lock, in milliseconds, instead of the agent's own ladder. Never
    /// longer than a request may wait for it: `max_stall`.
    pub lock_timeout_ms: Option<u64>,
    /// `allow-rewrite`: whole tables may be rewritten or read under a strong lock.
    pub allow_rewrite: bool,
    /// `batch=id:5000`: `UPDATE` and `DELETE` run in batches by this key.
    pub batch: Option<Batch>,
}

/// How a backfill is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The column that orders the rows, as the catalog has it; never null, and the first of an index.
    pub key: String,
    /// Rows in one transaction.
    pub rows: u32,
}

/// As a header has it: quoted only where the name needs it.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, rows } = self;
        if column(key).as_ref() == Some(key) {
            write!(f, "{key}:{rows}")
        } else {
            write!(f, "{}:{rows}", quoted(key))
        }
    }
}

/// Longest lock timeout a file may ask for: visitors may wait this long behind each try.
const MAX_LOCK_TIMEOUT_MS: u64 = 5_000;
/// Most rows in a batch: a batch's locks must be gone before somebody waits long for a row.
const MAX_BATCH_ROWS: u32 = 100_000;

const HINT: &str = "known headers: `phase=expand`, `phase=contract`, `no-transaction`, `lock-timeout=50ms`, \
                    `allow-rewrite`, `batch=COLUMN:ROWS`";

/// Headers as they were read, with the phase that they name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) headers: Headers,
    pub(crate) phase: Option<Phase>,
}

/// What is wrong with a header and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderFault {
    pub(crate) fault: Fault,
    /// The entry that is wrong.
    pub(crate) entry: String,
}

impl Headers {
    /// The headers in one spelling, for the hash. What is not said leaves no trace, so that new headers change no hash.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::new();
        if self.no_transaction {
            text.push_str("no-transaction\n");
        }
        if let Some(ms) = self.lock_timeout_ms {
            text.push_str(&format!("lock-timeout={ms}ms\n"));
        }
        if self.allow_rewrite {
            text.push_str("allow-rewrite\n");
        }
        if let Some(batch) = &self.batch {
            text.push_str(&format!("batch={batch}\n"));
        }
        text
    }
}

/// Reads the headers of a file.
pub(crate) fn read(lexed: &Lexed<'_>) -> Result<Read, Vec<HeaderFault>> {
    let first_statement = lexed.tokens.first().map_or(usize::MAX, |token| token.at);
    let mut read = Read::default();
    let mut faults = Vec::new();
    for comment in &lexed.comments {
        let Some(entries) = header_of(comment.text) else { continue };
        let mut tell = |message, entry: &str| {
            let fault = Fault { at: comment.at, rule: "header", message, hint: HINT };
            faults.push(HeaderFault { fault, entry: entry.to_owned() });
        };
        if comment.at > first_statement {
            tell("headers stand before the first statement", entries);
            continue;
        }
        for entry in split(entries) {
            if let Err(message) = read.take(entry) {
                tell(message, entry);
            }
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

/// Where another tool's mark stands that begins the part which takes the file back, and what it says.
pub(crate) fn way_down<'s>(lexed: &Lexed<'s>) -> Option<(usize, &'s str)> {
    lexed.comments.iter().find_map(|comment| Some((comment.at, mark_of_way_down(comment.text)?)))
}

/// The mark, as dbmate, goose, sql-migrate and MyBatis write it.
fn mark_of_way_down(comment: &str) -> Option<&str> {
    const MARKS: [&str; 4] = ["migrate:down", "+goose down", "+migrate down", "//@undo"];
    let mark = comment.strip_prefix("--")?.trim();
    let lower = mark.to_ascii_lowercase();
    MARKS.iter().any(|begin| lower.starts_with(begin)).then_some(mark)
}

/// What stands after `-- pointsman:`.
fn header_of(comment: &str) -> Option<&str> {
    comment.strip_prefix("--")?.trim_start().strip_prefix("pointsman:").map(str::trim)
}

/// The entries of a header, between commas and blanks that stand in no quotes.
fn split(entries: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = entries.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && matches!(c, ',' | ' ' | '\t')
    });
    parts.filter(|entry| !entry.is_empty())
}

impl Read {
    fn take(&mut self, entry: &str) -> Result<(), &'static str> {
        let (name, value) = entry.split_once('=').map_or((entry, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("no-transaction", None) => set(&mut self.headers.no_transaction),
            ("allow-rewrite", None) => set(&mut self.headers.allow_rewrite),
            ("phase", Some(word)) => put(&mut self.phase, phase(word)),
            ("lock-timeout", Some(text)) => put(&mut self.headers.lock_timeout_ms, milliseconds(text)),
            ("batch", Some(text)) => put(&mut self.headers.batch, batch(text)),
            ("runner", Some(_)) => Err("other runners than the agent itself are not offered"),
            _ => Err("no such header"),
        }
    }
}

fn set(flag: &mut bool) -> Result<(), &'static str> {
    if std::mem::replace(flag, true) { Err("said twice") } else { Ok(()) }
}

fn put<T>(place: &mut Option<T>, value: Result<T, &'static str>) -> Result<(), &'static str> {
    if place.replace(value?).is_some() { Err("said twice") } else { Ok(()) }
}

fn phase(word: &str) -> Result<Phase, &'static str> {
    match Phase::parse(word) {
        Some(phase @ (Phase::Expand | Phase::Contract)) => Ok(phase),
        _ => Err("a header names `expand` or `contract`; other phases stand in the file's name"),
    }
}

fn milliseconds(text: &str) -> Result<u64, &'static str> {
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err("a duration needs its unit, `ms` or `s`"),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    ms.filter(|ms| (1..=MAX_LOCK_TIMEOUT_MS).contains(ms)).ok_or("a lock timeout is between 1ms and 5s")
}

fn batch(text: &str) -> Result<Batch, &'static str> {
    let (key, rows) = text.rsplit_once(':').ok_or("a batch is `COLUMN:ROWS`")?;
    let rows = rows.parse::<u32>().ok().filter(|rows| (1..=MAX_BATCH_ROWS).contains(rows));
    match (rows, column(key)) {
        (None, _) => Err("a batch has between 1 and 100000 rows"),
        (Some(_), None) => Err("the key of a batch is one column, written as in SQL: `id`, `\"userId\"`"),
        (Some(rows), Some(key)) => Ok(Batch { key, rows }),
    }
}

/// The column that this names in SQL, as the catalog has it.
fn column(name: &str) -> Option<String> {
    let lexed = lex(name);
    let [token] = lexed.tokens.as_slice() else { return None };
    let is_name = matches!(token.kind, Kind::Word | Kind::Quoted) && token.text == name && name != "\"\"";
    (is_name && lexed.faults.is_empty()).then(|| fold(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::lex;

    #[test]
    fn headers_are_read_from_the_comments_before_the_first_statement() {
        let sql = "/* licence */\n-- pointsman: no-transaction, lock-timeout=2s\n--pointsman: batch=ID:5000 allow-rewrite\n\
                   -- pointsman: phase=contract\n-- pointsman is great\nselect 1; -- plain comment";
        let read = read(&lex(sql)).unwrap();
        let batch = Some(Batch { key: "id".into(), rows: 5000 });
        let headers =
            Headers { no_transaction: true, lock_timeout_ms: Some(2000), allow_rewrite: true, batch };
        assert_eq!(read, Read { headers: headers.clone(), phase: Some(Phase::Contract) });
        assert_eq!(
            headers.canonical(),
            "no-transaction\nlock-timeout=2000ms\nallow-rewrite\nbatch=id:5000\n"
        );
    }

    #[test]
    fn a_key_is_a_column_as_sql_names_it() {
        for (header, key, canonical) in [
            ("batch=ID:5", "id", "id:5"),
            ("batch=\"id\":5", "id", "id:5"),
            ("allow-rewrite,batch=\"userId\":5", "userId", "\"userId\":5"),
            ("batch=\"a, b:1\":5 allow-rewrite", "a, b:1", "\"a, b:1\":5"),
            ("batch=\"a\"\"b\":5", "a\"b", "\"a\"\"b\":5"),
            ("batch=Schlüssel:5", "schlüssel", "schlüssel:5"),
            ("batch=\"Schlüssel\":5", "Schlüssel", "\"Schlüssel\":5"),
        ] {
            let sql = format!("-- pointsman: {header}\nselect 1");
            let headers = read(&lex(&sql)).unwrap().headers;
            assert_eq!(headers.batch, Some(Batch { key: key.into(), rows: 5 }), "{header}");
            assert!(headers.canonical().ends_with(&format!("batch={canonical}\n")), "{header}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_entry_by_entry() {
        for (header, entries) in [
            ("no-transactions", vec!["no-transactions"]),
            ("no-transaction=1 allow-rewrite allow-rewrite", vec!["no-transaction=1", "allow-rewrite"]),
            ("lock-timeout=50", vec!["lock-timeout=50"]),
            ("lock-timeout=0ms", vec!["lock-timeout=0ms"]),
            ("lock-timeout=1h", vec!["lock-timeout=1h"]),
            ("lock-timeout=99999999999999999999s", vec!["lock-timeout=99999999999999999999s"]),
            ("batch=id", vec!["batch=id"]),
            ("batch=id:0", vec!["batch=id:0"]),
            ("batch=a;b:5", vec!["batch=a;b:5"]),
            ("batch=a.b:5", vec!["batch=a.b:5"]),
            ("batch=\"\":5", vec!["batch=\"\":5"]),
            ("batch=\"a\"b:5", vec!["batch=\"a\"b:5"]),
            ("batch=\"a b:5 allow-rewrite", vec!["batch=\"a b:5 allow-rewrite"]),
            ("batch=U&\"\\0041\":5", vec!["batch=U&\"\\0041\":5"]),
            ("batch='id':5", vec!["batch='id':5"]),
            ("phase=down phase=later", vec!["phase=down", "phase=later"]),
            ("runner=psql", vec!["runner=psql"]),
        ] {
            let sql = format!("-- pointsman: {header}\nselect 1");
            let faults = read(&lex(&sql)).unwrap_err();
            assert_eq!(
                faults.iter().map(|fault| fault.entry.as_str()).collect::<Vec<_>>(),
                entries,
                "{header}"
            );
        }
        assert_eq!(read(&lex("select 1;\n-- pointsman: allow-rewrite")).unwrap_err().len(), 1, "too late");
    }

    #[test]
    fn a_part_that_takes_the_file_back_is_found_wherever_it_stands() {
        for mark in ["-- migrate:down", "--migrate:down transaction:false", "-- +goose Down", "-- //@UNDO"] {
            let sql = format!("-- migrate:up\nselect 1;\n{mark}\nselect 2;");
            assert_eq!(way_down(&lex(&sql)), Some((24, mark.trim_start_matches("--").trim())), "{mark}");
        }
        assert_eq!(way_down(&lex("-- +goose Up\nselect 1; -- we migrate:down later")), None);
    }
}
