//! The journal: the coordinator's append-only record of intents and outcomes, hash-chained, in one SQLite file.

mod record;
mod store;

pub use record::plan_bytes;
pub use store::{Head, JournalStore};
