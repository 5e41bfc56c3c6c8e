//! Live tests: real HAProxy, real nginx, the real programs and real certificates, on loopback addresses.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod accept;
mod audit;
mod balancers;
mod canary;
mod checks;
mod crash;
mod database;
mod database_crash;
mod drift;
mod failover;
mod gives_way;
mod haproxy_killed;
mod hostile;
mod identity;
mod init;
mod journal;
mod left_out;
mod maintenance;
mod npm;
mod one_record;
mod output;
mod own_certificates;
mod pause;
mod prometheus;
mod release;
mod reload;
mod single_flight;
mod traffic;
mod unhealthy;
mod verdict;
mod watch;
mod websocket;
