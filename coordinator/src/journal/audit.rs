//! The walk along the whole chain that shows whether the journal is what was written.

use std::collections::BTreeMap;
use std::path::Path;

use pointsman_core::Problem;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Head;
use super::fault::{Fault, corrupt, corrupt_entry};
use super::row::{Raw, signed};
use super::schema;

/// What a walk along the whole chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How many entries are what was written, counted from the first.
    pub entries: u64,
    /// The newest of them: to be compared with what agents remember, for nothing in the file shows that its end was
    /// cut off.
    pub head: Head,
    /// The first thing that is wrong. It names the entry and says what is wrong with it.
    pub first_problem: Option<Problem>,
}

/// How closely entries are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// That they are what was written.
    Chain,
    /// Also that this version understands them.
    Records,
}

/// Verifies the journal in a file, also one that no coordinator uses just now, and changes nothing. Where the file has
/// no `-wal` beside it nothing is written at all. An error means that it could not be looked at.
pub fn verify_file(path: &Path) -> Result<Verification, Problem> {
    let connection = schema::open_to_read(path);
    connection
        .and_then(|connection| verify(&connection, Depth::Records, path))
        .map_err(|fault| fault.at(path))
}

/// Verifies the journal behind a connection, all at one moment of it.
pub fn verify(connection: &Connection, depth: Depth, path: &Path) -> Result<Verification, Fault> {
    let moment = connection.unchecked_transaction()?;
    let mut found = Verification { entries: 0, head: Head::default(), first_problem: None };
    let whole = walk(&moment, depth, (0, None), &mut found.head).and_then(|epochs| {
        leases(&moment, &epochs)?;
        structure(&moment)
    });
    found.entries = found.head.seq;
    match whole {
        Ok(()) => {}
        Err(fault) if fault.is_damage() => found.first_problem = Some(named(fault, found.head, path)),
        Err(Fault::Known(problem)) => found.first_problem = Some(problem),
        Err(fault) => return Err(fault),
    }
    Ok(found)
}

/// Verifies the chain from an entry on, up to another one or to the newest, and that no lease is behind what is there. Whether the
/// first of them follows the one before it is not looked at. Says which entry was the last.
pub fn verify_part(
    connection: &Connection,
    (from, to): (u64, Option<u64>),
    path: &Path,
) -> Result<Head, Fault> {
    let moment = connection.unchecked_transaction()?;
    let mut head = Head::default();
    let walked = walk(&moment, Depth::Chain, (from, to), &mut head).and_then(|epochs| {
        leases(&moment, &epochs)?;
        match to {
            Some(to) if head.seq < to => Err(corrupt_entry(head.seq.saturating_add(1), "is missing").into()),
            _ => Ok(()),
        }
    });
    match walked {
        Err(fault) if fault.is_damage() => {
            let before = head.seq.max(from.saturating_sub(1));
            Err(named(fault, Head { seq: before, ..head }, path).into())
        }
        walked => walked.map(|()| head),
    }
}

/// Verifies that an entry, known from elsewhere, is in the journal as it was then.
pub fn must_hold(connection: &Connection, known: Head, found: &mut Verification) -> Result<(), Fault> {
    if found.first_problem.is_some() || known == Head::default() {
        return Ok(());
    }
    let sql = "SELECT hash FROM entry WHERE seq = ?1";
    let hash: Option<[u8; 32]> =
        connection.query_row(sql, params![signed(known.seq)], |row| row.get(0)).optional()?;
    if hash != Some(known.hash) {
        let what = if hash.is_some() { "is not what was recorded" } else { "was recorded and is not there" };
        found.first_problem = Some(corrupt_entry(known.seq, what));
    }
    Ok(())
}

/// Damage that shows by an error while an entry was read: the one after the last good one.
fn named(fault: Fault, head: Head, path: &Path) -> Problem {
    match fault {
        Fault::Known(problem) => problem,
        Fault::Sqlite(_) => {
            let below = fault.at(path);
            let problem = corrupt_entry(head.seq.saturating_add(1), "cannot be read: the file is damaged");
            below.causes.iter().fold(problem, Problem::cause)
        }
    }
}

/// The highest epoch of each environment, and the entry that was written in it.
type Epochs = BTreeMap<String, (u64, u64)>;

/// Walks the chain, all of it where it is to begin with 0: every edit, removal, insertion and reordering breaks it. `head` is the
/// last entry that was good.
fn walk(
    connection: &Connection,
    depth: Depth,
    (from, to): (u64, Option<u64>),
    head: &mut Head,
) -> Result<Epochs, Fault> {
    // What stands before the first entry is looked for, too.
    let least = if from == 0 { i64::MIN } else { signed(from) };
    let sql = format!("SELECT {} FROM entry WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq", Raw::COLUMNS);
    let mut statement = connection.prepare(&sql)?;
    let mut epochs = Epochs::new();
    let mut before = (from > 0).then_some(from.saturating_sub(1));
    for row in statement.query_map(params![least, to.map_or(i64::MAX, signed)], Raw::of)? {
        let raw = row?;
        let expected = before.unwrap_or(head.seq).saturating_add(1);
        if raw.seq < expected {
            return Err(corrupt_entry(raw.seq, "stands before the first").into());
        }
        if raw.seq > expected {
            return Err(corrupt_entry(expected, "is missing").into());
        }
        if before.take().is_none() && raw.prev_hash != head.hash {
            return Err(corrupt_entry(raw.seq, "does not follow the one before it").into());
        }
        if raw.computed_hash() != raw.hash {
            return Err(corrupt_entry(raw.seq, "was changed after it was written").into());
        }
        let good = Head { seq: raw.seq, hash: raw.hash };
        match epochs.get_mut(&raw.environment) {
            Some(highest) => *highest = (*highest).max((raw.epoch, raw.seq)),
            None => drop(epochs.insert(raw.environment.clone(), (raw.epoch, raw.seq))),
        }
        if depth == Depth::Records {
            raw.entry()?;
        }
        *head = good;
    }
    Ok(epochs)
}

/// A lease is behind no entry that was written under it. It stands outside of the chain, and one that went back would
/// give the same epoch out twice.
fn leases(connection: &Connection, epochs: &Epochs) -> Result<(), Fault> {
    for (environment, (epoch, seq)) in epochs {
        let sql = "SELECT epoch FROM lease WHERE environment = ?1";
        let lease: Option<i64> =
            connection.query_row(sql, params![environment], |row| row.get(0)).optional()?;
        if lease.is_none_or(|lease| lease < signed(*epoch)) {
            let lease = lease.map_or_else(|| "gone".to_owned(), |lease| format!("at epoch {lease}"));
            let what = format!("was written in epoch {epoch}, but the lease of `{environment}` is {lease}");
            return Err(corrupt_entry(*seq, what).into());
        }
    }
    Ok(())
}

/// What is not in the chain but decides what is found by it: pages and indexes.
fn structure(connection: &Connection) -> Result<(), Fault> {
    let told: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if told == "ok" { Ok(()) } else { Err(corrupt("the journal's file is damaged").cause(told).into()) }
}
