//! One file of a migration: checked, split, and put into the transactions that it will run in.

use squawk_syntax::ast::{self, AstNode, Stmt};

use crate::depth;
use crate::footprint::{self, Footprint};
use crate::headers::{self, Headers};
use crate::parse;
use crate::place::Places;
use crate::refusal;
use crate::scene;
use crate::split::split;
use crate::token::{Kind, Token, lex};
use crate::{Class, Finding, Phase, Relation, Statement, digest, statement};

/// A file that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file, as its path was given.
    pub path: String,
    /// When it runs.
    pub phase: Phase,
    /// Hash of the bytes.
    pub raw_hash: [u8; 32],
    /// Hash of what it says: headers and tokens.
    pub token_hash: [u8; 32],
    /// What it asks for.
    pub headers: Headers,
    /// Its transactions, in order.
    pub segments: Vec<Segment>,
    /// Where another tool's mark says that it is taken back from there on.
    pub(crate) way_down: Option<Finding>,
}

/// Statements that go into one transaction, or one that must not be in any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whether it is one transaction. If not it holds one statement: one that PostgreSQL refuses within a transaction,
    /// or a backfill, which is one transaction per batch.
    pub transactional: bool,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
}

impl Script {
    /// All statements, in order.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.segments.iter().flat_map(|segment| &segment.statements)
    }

    /// Tables that it makes. Given to the gates of the scripts that run after it in one release, they count as new.
    pub fn makes(&self) -> Vec<Relation> {
        let trees = self.statements().filter_map(Statement::tree);
        trees.fold(Vec::new(), |mut made, tree| {
            made.extend(scene::makes(&tree, &made));
            made
        })
    }
}

/// Longest file, in bytes: what people write is a thousand times shorter, and rows belong into `INSERT`s of several files.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;
/// Most statements in a file.
const MAX_STATEMENTS: usize = 5_000;
/// Most findings told of one file: more say nothing more.
const MAX_FINDINGS: usize = 50;

/// A file on its way to a script.
struct Reading<'s> {
    path: &'s str,
    text: &'s str,
    places: Places,
    findings: Vec<Finding>,
}

/// Reads a file; `phase` is what its name says.
pub(crate) fn read(path: &str, bytes: &[u8], phase: Option<Phase>) -> Result<Script, Vec<Finding>> {
    let text = text_of(path, bytes).map_err(|finding| vec![finding])?;
    let mut reading = Reading { path, text, places: Places::of(text), findings: Vec::new() };
    let script = reading.script(phase);
    reading.findings.truncate(MAX_FINDINGS);
    match script {
        Some(script) if reading.findings.is_empty() => Ok(script),
        _ => Err(reading.findings),
    }
}

/// The bytes as text, if they can be SQL at all.
fn text_of<'b>(path: &str, bytes: &'b [u8]) -> Result<&'b str, Finding> {
    let whole = |rule, message: String, hint: &str| Err(Finding::whole(path, rule, message, hint));
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("{} bytes; a migration has at most {MAX_FILE_BYTES}", bytes.len());
        return whole("file-size", message, "split it into several versions");
    }
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        return whole(
            "byte-order-mark",
            "the file begins with a byte order mark".into(),
            "save it as UTF-8 without BOM",
        );
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return whole("not-utf-8", "the file is UTF-16".into(), "save it as UTF-8");
    }
    let (valid, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (std::str::from_utf8(valid).unwrap_or_default(), Some("not-utf-8"))
        }
    };
    let at = |offset: usize, rule, message: &str, hint: &str| {
        let (line, column) = Places::of(valid).at(offset);
        Finding { path: path.to_owned(), line, column, rule, message: message.into(), hint: hint.into() }
    };
    if let Some(nul) = valid.find('\0') {
        return Err(at(nul, "nul-byte", "a NUL byte", "remove it; is this a text file?"));
    }
    match fault {
        Some(rule) => Err(at(valid.len(), rule, "bytes that are no UTF-8", "save the file as UTF-8")),
        None => Ok(valid),
    }
}

impl<'s> Reading<'s> {
    fn tell(&mut self, at: usize, rule: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        let (line, column) = self.places.at(at);
        let path = self.path.to_owned();
        self.findings.push(Finding { path, line, column, rule, message: message.into(), hint: hint.into() });
    }

    /// `None`, or an unusable script, where there are findings.
    fn script(&mut self, named: Option<Phase>) -> Option<Script> {
        let lexed = lex(self.text);
        let header = headers::read(&lexed).unwrap_or_else(|faults| {
            for headers::HeaderFault { fault, entry } in faults {
                self.tell(fault.at, fault.rule, format!("`{entry}`: {}", fault.message), fault.hint);
            }
            headers::Read::default()
        });
        let phase = self.phase(named, header.phase);
        let copied = copy_data(&lexed.tokens);
        for fault in lexed.faults.iter().filter(|fault| fault.at < copied) {
            self.tell(fault.at, fault.rule, fault.message, fault.hint);
        }
        let broken = lexed.faults.iter().map(|fault| fault.at).min().unwrap_or(usize::MAX).min(copied);
        let parts = split(&lexed.tokens);
        if parts.is_empty() && self.findings.is_empty() {
            self.tell(0, "empty", "no statement in this file", "remove the file, or write what it is for");
        }
        if parts.len() > MAX_STATEMENTS {
            let message = format!("{} statements; a migration has at most {MAX_STATEMENTS}", parts.len());
            self.tell(0, "file-size", message, "split it into several versions");
            return None;
        }
        let whole: Vec<&[Token<'_>]> = parts
            .iter()
            .copied()
            .filter(|part| part.last().is_some_and(|last| last.end() <= broken))
            .collect();
        let read = self.statements(&whole, phase, &header.headers);
        let alone = used_later(&read);
        Some(Script {
            path: self.path.to_owned(),
            phase,
            raw_hash: digest::raw(self.text.as_bytes()),
            token_hash: digest::tokens(&header.headers.canonical(), &parts),
            segments: segments(read, &header.headers, &alone),
            headers: header.headers,
            way_down: headers::way_down(&lexed).map(|(at, mark)| self.taken_back_from(at, mark)),
        })
    }

    fn taken_back_from(&self, at: usize, mark: &str) -> Finding {
        let (line, column) = self.places.at(at);
        Finding {
            path: self.path.to_owned(),
            line,
            column,
            rule: "way-down",
            message: format!("`{mark}`: what follows takes the migration back, and would run right after it"),
            hint: "write it into a file of its own, `v1.2.0.down.sql`".to_owned(),
        }
    }

    fn phase(&mut self, named: Option<Phase>, header: Option<Phase>) -> Phase {
        if let (Some(named), Some(header)) = (named, header)
            && named != header
        {
            let message = format!("the name says `{named}`, the header says `{header}`");
            self.tell(0, "header", message, "keep one of them");
        }
        named.or(header).unwrap_or(Phase::Expand)
    }

    fn statements(&mut self, parts: &[&[Token<'s>]], phase: Phase, headers: &Headers) -> Vec<Part> {
        let mut made: Vec<Relation> = Vec::new();
        let mut renamed: Vec<Relation> = Vec::new();
        let mut read = Vec::new();
        for (index, tokens) in parts.iter().enumerate() {
            let Some((tree, sql, at)) = self.parsed(tokens) else { continue };
            if let Some(refusal) = refusal::of(&tree, tokens, phase, headers.batch.as_ref()) {
                self.tell(at, refusal.rule, refusal.message, refusal.hint);
                continue;
            }
            let is_new = |relation: &Relation| made.iter().any(|new| new.is(relation));
            let mut print = footprint::of(&tree, &is_new);
            print
                .locks
                .retain(|lock| !is_new(&lock.relation) && !renamed.iter().any(|new| new.is(&lock.relation)));
            if headers.batch.is_some() {
                print = Footprint { class: Class::Backfill, transactional: false, ..print };
            }
            made.append(&mut print.made);
            renamed.append(&mut print.renamed);
            let (line, column) = self.places.at(at);
            let statement = Statement {
                ordinal: u32::try_from(index + 1).unwrap_or(u32::MAX),
                sql: sql.to_owned(),
                line,
                column,
                class: print.class,
                locks: print.locks,
                token_hash: statement::hash(tokens),
                probe: print.probe,
            };
            let texts = tokens.iter().filter(|t| t.kind == Kind::Text).map(|t| t.text.to_owned()).collect();
            read.push(Part {
                statement,
                transactional: print.transactional,
                label: added_label(&tree),
                texts,
            });
        }
        read
    }

    /// The tree of a statement, its text and where it begins.
    fn parsed(&mut self, tokens: &[Token<'s>]) -> Option<(Stmt, &'s str, usize)> {
        let (first, last) = (tokens.first()?, tokens.last()?);
        let sql = self.text.get(first.at..last.end())?;
        if let Some(at) = depth::too_deep(tokens) {
            self.tell(
                at,
                "too-deep",
                "this statement nests too deep to be read",
                "write it in several statements",
            );
            return None;
        }
        match parse::one(sql) {
            Ok(tree) => Some((tree, sql, first.at)),
            Err(faults) => {
                // What follows the first in the same statement mostly follows from it.
                if let Some(fault) = faults.into_iter().min_by_key(|fault| fault.at) {
                    let hint = "check it with the PostgreSQL version that you use";
                    self.tell(first.at + fault.at, "parse-error", fault.message, hint);
                }
                None
            }
        }
    }
}

/// A statement with what decides about its transaction.
struct Part {
    statement: Statement,
    transactional: bool,
    /// The label that it adds to an enum.
    label: Option<String>,
    /// Its strings.
    texts: Vec<String>,
}

/// Where rows after `COPY … FROM stdin` begin: nothing after that is SQL.
fn copy_data(tokens: &[Token<'_>]) -> usize {
    split(tokens)
        .into_iter()
        .find(|part| {
            part.first().is_some_and(|first| first.is("copy"))
                && part
                    .windows(2)
                    .any(|pair| matches!(pair, [from, stdin] if from.is("from") && stdin.is("stdin")))
        })
        .and_then(|part| part.last())
        .map_or(usize::MAX, Token::end)
}

fn added_label(tree: &Stmt) -> Option<String> {
    let Stmt::AlterType(alter) = tree else { return None };
    let add = alter.syntax().descendants().find_map(ast::AddValue::cast)?;
    Some(add.literal()?.syntax().text().to_string())
}

/// The statements that add a label which a later one uses: PostgreSQL lets nobody use it before the commit.
fn used_later(parts: &[Part]) -> Vec<bool> {
    (0..parts.len())
        .map(|index| {
            let label = parts.get(index).and_then(|part| part.label.as_ref());
            let later = parts.get(index + 1..).unwrap_or_default();
            label.is_some_and(|label| {
                later.iter().any(|part| part.texts.iter().any(|text| text.contains(label)))
            })
        })
        .collect()
}

fn segments(parts: Vec<Part>, headers: &Headers, used_later: &[bool]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut open = false;
    for (index, part) in parts.into_iter().enumerate() {
        let alone = !part.transactional
            || part.statement.class == Class::Validate
            || headers.no_transaction
            || used_later.get(index).copied().unwrap_or(false);
        match segments.last_mut() {
            Some(last) if open && !alone => last.statements.push(part.statement),
            _ => {
                segments.push(Segment { transactional: part.transactional, statements: vec![part.statement] })
            }
        }
        open = !alone;
    }
    segments
}
