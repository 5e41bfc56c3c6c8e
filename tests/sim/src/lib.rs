//! Releases of pointsman in a simulated world: the real state machine, driver, planner and opening, against hosts, load
//! balancers, a network and a journal that fail in every way they can. One seed is one history; everything that changes
//! is looked at, and nothing depends on anything but the seed.

pub mod agent;
pub mod balancer;
pub mod chance;
pub mod coordinator;
pub mod crash_points;
pub mod database;
pub mod guard;
pub mod history;
pub mod host;
pub mod journal;
pub mod mutants;
pub mod network;
pub mod scenario;
pub mod schema;
pub mod seeds;
pub mod server;
pub mod shorten;
pub mod site;
pub mod truth;
pub mod visitors;
pub mod web;
pub mod world;
