//! The lb-agent as its coordinator meets it: orders through the gRPC service, against a fake HAProxy that can be made
//! to fail at any command, and against a real one. Every order ends in the old route or the new one, on disk and in
//! all workers, and says which.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests: a panic is how they fail"
)]

mod alone;
mod astray;
mod certificates;
mod certificates_real;
mod drain;
mod drain_real;
mod drift;
mod drift_real;
mod fake;
mod full_disk;
#[path = "../haproxy/mod.rs"]
mod haproxy;
mod lease;
mod limits;
#[path = "../net/mod.rs"]
mod net;
mod opnsense;
mod own_address;
mod pki;
mod proxy_protocol;
mod real;
mod rig;
mod signals;
mod slot_servers;
mod sockets;
mod states;
mod switch;
mod tcp;
mod two_sites;
mod wild;
mod workers;
