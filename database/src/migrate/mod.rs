//! Migrations: what is pending is rehearsed on a copy, then run on the live database without making visitors wait, and its
//! state is exact after every crash.
//!
//! A run has three sessions (`sessions.rs`): one holds the guard, one works, one watches and writes records. A file is cut
//! into transactions and statements outside of one; a transaction (`transaction.rs`) holds its own record, so it is the
//! proof of itself; of a statement outside (`outside.rs`) the catalog is asked (`catalog.rs`).

mod adopt;
mod backfill;
pub(crate) mod blockers;
mod catalog;
mod down;
mod elsewhere;
mod failure;
mod fault;
mod fence;
mod filling;
mod gate;
mod ladder;
mod ledger;
mod limits;
mod lock_set;
mod lookback;
mod measure;
mod order;
mod outside;
mod pooler;
mod records;
mod rehearse;
mod relied_on;
mod replan;
mod restorable;
mod run;
mod saved;
mod sessions;
mod status;
mod transaction;
mod unvalidated;
mod verify;
mod version_table;
mod watcher;
mod written;

pub use adopt::{Adopted, adopt, history_is_known};
pub use blockers::Blocker;
pub use down::down;
pub use fence::fence;
pub use ledger::Record;
pub use order::{Applied, Measured, Ran, Rehearsal, Replanned, RunOrder, SegmentCost};
pub(crate) use pooler::refuse as refuse_pooler;
pub use rehearse::{rehearse, rehearse_down};
pub use run::run;
pub use status::{Leftover, Status, pending, status};
