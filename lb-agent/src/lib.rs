//! The agent on a load balancer: keeps the wanted route on disk and in every HAProxy worker, and says what is true.
//!
//! It decides nothing about releases. What it may touch (sockets, map, backends) stands in its own configuration.

mod balancer;
mod certificates;
mod config;
mod drain;
mod guard;
mod hands;
mod inspect;
mod probe;
mod rate_limits;
pub mod reply;
mod route_file;
pub mod signals;
mod socket;
mod switch;
mod workers;

pub use config::Config;
pub use hands::LbHands;
pub use route_file::RouteFile;
