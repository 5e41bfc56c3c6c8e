//! One row of the table `entry`, and the hash that chains it to the row before.

use pointsman_core::{Entry, ReleaseId, Stamped, Timestamp};
use ring::digest::{Context, SHA256};
use rusqlite::types::Type;
use rusqlite::{Row, Statement, params};

use super::fault::{Fault, corrupt_entry, too_new};
use super::record::{self, Unreadable};

/// A row as it lies on the disk.
pub struct Raw {
    pub seq: u64,
    pub at_ms: u64,
    pub environment: String,
    pub epoch: u64,
    pub kind: String,
    pub release: String,
    pub principal: String,
    pub body: Vec<u8>,
    pub prev_hash: [u8; 32],
    pub hash: [u8; 32],
}

/// `SQLite` keeps signed numbers. Times, epochs and numbers of entries never come near their end.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column that is never negative: one that is was not written by pointsman, and must not read like another number.
pub fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error));
    u64::try_from(number).map_err(wrong)
}

impl Raw {
    /// The columns, in the order of [`Raw::of`] and [`Raw::insert`].
    pub const COLUMNS: &'static str =
        "seq, at_ms, environment, epoch, kind, release, principal, body, prev_hash, hash";

    /// Reads a row of these columns.
    pub fn of(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            seq: unsigned(row, 0)?,
            at_ms: unsigned(row, 1)?,
            environment: row.get(2)?,
            epoch: unsigned(row, 3)?,
            kind: row.get(4)?,
            release: row.get(5)?,
            principal: row.get(6)?,
            body: row.get(7)?,
            prev_hash: row.get(8)?,
            hash: row.get(9)?,
        })
    }

    /// Writes the row with an `INSERT` of ten values.
    pub fn insert(&self, insert: &mut Statement<'_>) -> Result<(), rusqlite::Error> {
        let inserted = insert.execute(params![
            signed(self.seq),
            signed(self.at_ms),
            self.environment,
            signed(self.epoch),
            self.kind,
            self.release,
            self.principal,
            self.body,
            self.prev_hash.as_slice(),
            self.hash.as_slice()
        ]);
        inserted.map(drop)
    }

    /// SHA-256 over the hash before and every field in column order, each with its length before it.
    pub fn computed_hash(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let numbers = [self.seq.to_be_bytes(), self.at_ms.to_be_bytes(), self.epoch.to_be_bytes()];
        let [seq, at_ms, epoch] = &numbers;
        let fields: [&[u8]; 9] = [
            &self.prev_hash,
            seq,
            at_ms,
            self.environment.as_bytes(),
            epoch,
            self.kind.as_bytes(),
            self.release.as_bytes(),
            self.principal.as_bytes(),
            &self.body,
        ];
        for field in fields {
            context.update(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(field);
        }
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        hash
    }

    /// The entry that the row holds.
    pub fn entry(self) -> Result<Entry, Fault> {
        let event = record::decode(&self.body).map_err(|why| match why {
            Unreadable::Newer(version) => {
                too_new(&format!("journal entry {}", self.seq), version, record::VERSION)
            }
            Unreadable::Malformed(what) => corrupt_entry(self.seq, what),
        })?;
        let release = ReleaseId::parse(&self.release)
            .map_err(|error| corrupt_entry(self.seq, "names no release").because(&error))?;
        Ok(Entry { seq: self.seq, release, fact: Stamped { at: Timestamp(self.at_ms), event } })
    }
}
