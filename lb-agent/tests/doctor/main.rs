//! The preflight of the load balancer: every check on a configuration that has what it needs and on one that lacks it,
//! and the fragment of `config-snippet` through the real HAProxy.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests: a panic is how they fail"
)]

mod files;
#[path = "../haproxy/mod.rs"]
mod haproxy;
mod live;
#[path = "../net/mod.rs"]
mod net;
mod real;
mod world;
