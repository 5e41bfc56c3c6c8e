//! What tests across the parts stand on: a whole site of real parts on loopback addresses of its own, visitors that
//! keep it busy, artifacts to release to it, and ways to look at it. It asserts nothing about pointsman.

mod age;
mod artifact;
mod books;
mod cli;
mod client;
mod daemon;
mod database;
mod haproxy;
mod knock;
mod load;
mod net;
mod nginx;
mod pair;
mod pki;
mod process;
mod runtime_socket;
mod sides;
mod site;
pub mod tree;
mod wait;
mod web_host;
mod wire;
mod world;

pub use age::age;
pub use artifact::{Source, manifest_of, publish, read_source};
pub use books::{Books, Fact};
pub use cli::Told;
pub use client::{Client, Seen, agent, deploy_request, problem_of, refused};
pub use daemon::{Daemon, KillAt};
pub use database::{DATABASE, DatabaseHost};
pub use haproxy::Haproxy;
pub use knock::{Knocked, knock};
pub use load::{Load, LoadPlan, Report, Visit};
pub use net::{ask, ask_with, reserve};
pub use nginx::PASSWORD;
pub use pair::{Pair, in_own_network};
pub use pki::{Authority, Identity, Subject, uri};
pub use process::{Process, binary};
pub use sides::{Met, ids, sides, sigmas};
pub use site::{ENVIRONMENT, Second, Site, SiteBuilder, TRUST_DOMAIN};
pub use wait::until;
pub use web_host::WebHost;
pub use wire::{Reply, Wire};
pub use world::World;
