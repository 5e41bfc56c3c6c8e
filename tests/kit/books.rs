//! What is written of releases: the coordinator's journal, and each agent's receipts. Read as an operator would with
//! `sqlite3`, by nothing of the programs that wrote it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{Daemon, Site};

/// Steps whose orders only look: an old answer says nothing about now, so agents keep none.
const LOOKING: [&str; 2] = ["preflight", "check"];

/// One entry of the journal.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its number.
    pub seq: i64,
    /// When it was recorded, in milliseconds since 1970.
    pub at_ms: i64,
    /// The fencing token of the coordinator that recorded it.
    pub epoch: i64,
    /// Its release.
    pub release: String,
    /// The fact.
    pub body: Value,
    hash: Vec<u8>,
}

/// One receipt of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Receipt {
    release: String,
    step: String,
    state: String,
}

/// Journal and receipts at one moment. To be read while the daemons run: a reader that is the only one would tidy up
/// what a crash left.
#[derive(Clone, Debug)]
pub struct Books {
    /// The journal, in order.
    pub facts: Vec<Fact>,
    lease: i64,
    receipts: BTreeMap<&'static str, Vec<Receipt>>,
    fences: BTreeMap<&'static str, (i64, i64, Vec<u8>)>,
}

impl Fact {
    /// A field of the fact that is a text; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// What kind of fact it is, as `order-done`.
    pub fn event(&self) -> &str {
        self.text("event")
    }

    fn is(&self, event: &str, step: &str, host: &str) -> bool {
        self.event() == event && self.text("step") == step && self.text("host") == host
    }
}

fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn facts(journal: &Connection) -> Result<Vec<Fact>> {
    let sql = "SELECT seq, at_ms, epoch, release, body, hash FROM entry ORDER BY seq";
    let mut statement = journal.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let body: Vec<u8> = row.get(4)?;
        Ok(Fact {
            seq: row.get(0)?,
            at_ms: row.get(1)?,
            epoch: row.get(2)?,
            release: row.get(3)?,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            hash: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Books {
    /// Reads them all.
    pub fn read(site: &Site) -> Result<Self> {
        let journal = open(&site.journal()).context("cannot read the journal")?;
        let lease = "SELECT coalesce(max(epoch), 0) FROM lease";
        let mut books = Self {
            facts: facts(&journal)?,
            lease: journal.query_row(lease, [], |row| row.get(0))?,
            receipts: BTreeMap::new(),
            fences: BTreeMap::new(),
        };
        let mut agents = vec![
            (Daemon::LbAgent, "lb1/state"),
            (Daemon::Blue, "blue/agent-state"),
            (Daemon::Green, "green/agent-state"),
        ];
        if site.second.is_some() {
            agents.push((Daemon::SecondLbAgent, "lb2/state"));
        }
        for (daemon, state) in agents {
            let ledger = open(&site.folder().join(state).join("receipts.db"))?;
            let mut statement = ledger.prepare("SELECT release, step, state FROM receipt")?;
            let rows = statement.query_map([], |row| {
                Ok(Receipt { release: row.get(0)?, step: row.get(1)?, state: row.get(2)? })
            })?;
            books.receipts.insert(daemon.host(), rows.collect::<Result<_, _>>()?);
            let fence = "SELECT epoch, head_seq, head_hash FROM fence";
            let fence = ledger.query_row(fence, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            books.fences.insert(daemon.host(), fence);
        }
        Ok(books)
    }

    /// The entries of one release.
    pub fn of<'a>(&'a self, release: &'a str) -> impl Iterator<Item = &'a Fact> {
        self.facts.iter().filter(move |fact| fact.release == release)
    }

    /// The entries of one release, a line each, for people.
    pub fn lines(&self, release: &str) -> String {
        let mut text = String::new();
        for fact in self.of(release).filter(|fact| fact.event() != "planned") {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:>5} {} epoch {} {}", fact.seq, fact.at_ms, fact.epoch, fact.body);
        }
        text
    }

    /// Everything in which the receipts contradict the journal: an effect without an intent, an outcome of this release
    /// without its effect (of older ones agents forget), an agent that knows more than was ever recorded.
    pub fn contradictions(&self, release: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (host, receipts) in &self.receipts {
            for Receipt { release, step, .. } in receipts {
                if !self.of(release).any(|fact| fact.is("order-intended", step, host)) {
                    found.push(format!(
                        "`{host}` has a receipt of `{release}` {step}, which was never intended"
                    ));
                }
            }
            for done in self.of(release).filter(|fact| fact.is("order-done", fact.text("step"), host)) {
                let step = done.text("step");
                let settled = LOOKING.contains(&step)
                    || receipts.iter().any(|receipt| {
                        receipt.release == release && receipt.step == step && receipt.state == "done"
                    });
                if !settled {
                    found.push(format!("`{host}` has no receipt of `{release}` {step}, which was done"));
                }
            }
        }
        for (host, (epoch, head, hash)) in &self.fences {
            let known = *head == 0 || self.facts.iter().any(|fact| fact.seq == *head && fact.hash == *hash);
            if *epoch > self.lease || !known {
                found.push(format!("`{host}` knows epoch {epoch} and entry {head}, the journal does not"));
            }
        }
        found
    }
}
