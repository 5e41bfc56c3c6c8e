//! The agent on a load balancer: keeps the wanted route on disk and in every HAProxy worker, and says what is true.
//!
//! It decides nothing about releases. What it may touch (sockets, map, backends) stands in its own configuration.

mod balancer;
mod certificates;
mod config;
pub mod doctor;
mod drain;
mod guard;
mod hands;
pub mod haproxy_cfg;
mod inspect;
mod probe;
mod rate_limits;
pub mod reply;
mod route_file;
pub mod signals;
mod snippet;
mod socket;
mod switch;
mod workers;

pub use config::{Config, Haproxy};
pub use hands::LbHands;
pub use route_file::RouteFile;
pub use snippet::{Server, Wishes, snippet};
