//! Backups: taken, listed, checked, kept.

mod archive;
mod catalog;
mod dump;
mod extensions;
mod given;
mod load;
mod manifest;
mod name;
mod part;
mod plain;
mod retain;
mod snapshot;
mod stream;
mod take;
mod verify;

pub use catalog::{Backup, list};
pub use manifest::{Format, Manifest};
pub use retain::{Retained, retain};
pub use take::{BackupOrder, take};
pub use verify::{Verified, load_into_scratch, verify, verify_keeping};

pub(crate) use archive::Archive;
pub(crate) use catalog::{last_sizes, neighbour, untold};
pub(crate) use load::{Jobs, best, load};
pub(crate) use name::BackupId;
pub(crate) use verify::{must_be_of, must_be_whole};
