//! The command as an operator or a CI job runs it, without any coordinator: what it prints, how it ends, what it
//! leaves on disk.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "../../src/render/goldens/compare.rs"]
mod compare;
mod errors;
mod explain;
mod help;
mod init;
mod kit;
