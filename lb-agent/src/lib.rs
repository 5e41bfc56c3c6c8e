//! The agent on a load balancer: keeps the wanted route on disk and in every HAProxy worker, and says what is true.
//!
//! It decides nothing about releases. What it may touch (sockets, map, backends) stands in its own configuration.

mod balancer;
pub mod command;
mod config;
mod drain;
mod fit;
mod guard;
mod hands;
mod inspect;
mod opnsense;
mod probe;
pub mod reply;
mod route_file;
mod socket;
mod states;
mod switch;
mod sys;
mod workers;

pub use config::{Config, Driver};
pub use fit::{Fit, Seen, SeenServer, driver_fit};
pub use hands::LbHands;
pub use route_file::RouteFile;
