//! What is wanted of a run, and what came of it.

use std::time::Duration;

use pointsman_migration::{Class, Phase, Version};

/// What is to be run, where, within which limits. All of it comes from the plan.
#[derive(Clone, Debug)]
pub struct RunOrder<'a> {
    /// Expand before the switch, contract after *confirm*.
    pub phase: Phase,
    /// The release that wants it.
    pub release: String,
    /// Versions below the current one that the release names, and so may be applied.
    pub out_of_order: Vec<Version>,
    /// How long a session may wait for us before our own statement is cancelled.
    pub max_stall_ms: u64,
    /// How long locks are asked for before the run fails, with nothing changed.
    pub lock_budget_ms: u64,
    /// The database: the live one, or a scratch copy of it.
    pub database: &'a str,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Files that were applied, in their order; those of an earlier try of the same release are not in it.
    pub applied: Vec<Applied>,
    /// Whether there was nothing left to do.
    pub already: bool,
    /// What an operator should know: healed indexes, adopted leftovers.
    pub notes: Vec<String>,
}

/// One file that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: Version,
    /// Its phase.
    pub phase: Phase,
    /// The file, as the set has it.
    pub path: String,
    /// From the first statement to the confirmed last one, waiting for locks included.
    pub duration: Duration,
    /// What each transaction, or statement outside of one, cost others.
    pub segments: Vec<SegmentCost>,
}

/// What a transaction, or a statement outside of one, cost others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentCost {
    /// Its first statement, from 1.
    pub first: usize,
    /// Its last statement.
    pub last: usize,
    /// How often its locks were asked for.
    pub lock_tries: u32,
    /// How long they were held, the commit included; nothing where it took none that could stall anybody.
    pub lock_held: Duration,
    /// Sessions that were seen to wait for it.
    pub stalled_sessions: usize,
    /// The longest of these waits, as it was seen.
    pub longest_stall: Duration,
}

/// What a statement did on the copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The file, as the set has it.
    pub path: String,
    /// Its place among the statements of the file, from 1.
    pub ordinal: usize,
    /// Where it stands: `path:line:column`.
    pub place: String,
    /// Its class, as the text tells it.
    pub class: Class,
    /// How long it ran.
    pub duration: Duration,
    /// Locks that it added to those before it, on relations that are there for others: relation and mode.
    pub locks: Vec<(String, String)>,
    /// Bytes of tables and indexes that it wrote anew.
    pub rewritten_bytes: u64,
}

/// Whether a statement of the running slot works on the new schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replanned {
    /// It can be planned.
    Works,
    /// It can be planned on the schema of today, and no longer on the new one.
    Broken {
        /// The statement, shortened.
        query: String,
        /// What the server said.
        why: String,
    },
    /// It can be planned on neither: nothing can be told from it.
    Undecided {
        /// The statement, shortened.
        query: String,
        /// What the server said.
        why: String,
    },
}

/// What a rehearsal found; it is returned only if the live run may follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rehearsal {
    /// Every statement that was run, in its order.
    pub statements: Vec<Measured>,
    /// What the run itself tells.
    pub ran: Ran,
    /// The running slot's statements that were planned again.
    pub replanned: Vec<Replanned>,
    /// What an operator should know, also why something could not be looked at.
    pub notes: Vec<String>,
}
