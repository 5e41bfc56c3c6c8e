//! Publishing: a folder becomes an artifact in the coordinator's store.

mod scan;
mod upload;

pub use upload::publish;
