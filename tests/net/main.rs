//! The real services on a simulated network: a coordinator that drives a release, agents with their ledgers, gRPC
//! and mutual TLS between them, and a network that delays, loses, holds back and repairs. Time is simulated: an hour
//! of waiting costs nothing. Only what an order does to a host is made up.
//!
//! Each run follows from its seed. A failing seed is printed with its faults and with everything that was done, and
//! belongs into `seeds::ONCE_FAILED`. Threads that write to SQLite are real, so a seed repeats its faults exactly
//! and its story almost.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how they fail")]

mod agent;
mod chance;
mod coordinator;
mod fault;
mod hands;
mod hang;
mod identities;
mod network;
#[path = "../../core/tests/plans/mod.rs"]
mod plans;
mod release;
mod rules;
mod run;
mod seeds;
mod strangers;
mod world;
