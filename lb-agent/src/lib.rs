//! The agent on a load balancer: keeps the wanted route on disk and in every HAProxy worker, and says what is true.
//!
//! It decides nothing about releases. What it may touch (sockets, map, backends) stands in its own configuration.

mod balancer;
mod certificates;
pub mod command;
mod config;
pub mod doctor;
mod drain;
mod drift;
mod events;
mod fit;
mod guard;
mod hands;
pub mod haproxy_cfg;
mod inspect;
mod loaded;
mod opnsense;
mod own_address;
mod probe;
mod rate_limits;
pub mod reply;
mod route_file;
pub mod signals;
mod snippet;
mod socket;
mod states;
mod switch;
mod sys;
mod workers;

pub use config::{CertificatePath, Config, Driver, Haproxy};
pub use fit::{Fit, Seen, SeenServer, driver_fit};
pub use hands::LbHands;
pub use route_file::RouteFile;
pub use snippet::{Server, Wishes, snippet};
