//! The coordinator: the only one that knows what a release is. It decides by `core`, records in its journal, orders
//! the agents, and serves the command line and CI.

mod afterwatch;
mod api;
mod archive;
mod artifact_store;
pub mod audit;
mod certificates;
mod check_config;
mod check_now;
mod checklist;
mod config;
mod diagnose;
pub mod driver;
mod environment;
mod fileless;
mod fingerprint;
#[cfg(test)]
mod fixture;
mod fleet;
mod gates;
pub mod journal;
pub mod lasts;
mod left_out;
mod migrations;
mod noted;
mod office;
pub mod old_side;
pub mod opening;
pub mod planner;
mod rate_limits;
mod release_ids;
mod repeated;
mod retention;
mod state_lock;
mod unaccounted;
pub mod visitors;
mod warnings;
mod watch_file;
mod watcher;
mod way_back;
mod witness;

pub use api::Api;
pub use artifact_store::ArtifactStore;
pub use config::Config;
pub use environment::Environment;
pub use fileless::FilelessEnvironments;
pub use fleet::GrpcFleet;
pub use office::Office;
pub use retention::look_after_disk;
pub use state_lock::lock;
