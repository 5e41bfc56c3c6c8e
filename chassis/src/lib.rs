//! What each pointsman daemon needs and none should write again: configuration files, mutual TLS, who may call
//! what, logs, systemd, receipts for orders, durable files, HTTP checks.

pub mod access;
pub mod agent_service;
pub mod artifact;
pub mod ballast;
mod clock;
pub mod config;
pub mod durable;
pub mod failpoint;
pub mod hints;
mod host_facts;
pub mod http_check;
mod journald;
pub mod ledger;
pub mod logs;
pub mod newest;
mod order_digest;
pub mod process;
pub mod serve;
pub mod service;
pub mod site_certificate;
pub mod tls;

pub use clock::SystemClock;
pub use host_facts::host_facts;
pub use order_digest::order_digest;
