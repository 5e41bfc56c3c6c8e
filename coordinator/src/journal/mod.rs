//! The journal: the coordinator's append-only record of intents and outcomes, hash-chained, in one SQLite file.

mod audit;
mod fault;
mod line;
mod note;
mod record;
mod row;
mod salvage;
mod schema;
mod standing_record;
mod store;
mod verdict_record;
mod waits;

pub use audit::{Verification, verify_file};
pub use record::plan_bytes;
#[cfg(test)]
pub(crate) use record::{decode, encode};
pub use salvage::{Salvaged, salvage, text as salvaged_text};
pub use store::{Head, JournalStore, Which};
pub use waits::told_of;
