//! Logs: to journald with fields where it is there, else lines on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::journald::Journald;

/// Starts logging. `POINTSMAN_LOG` filters, as `info` or `pointsman_agent=debug`.
///
/// Under systemd every field becomes a journald field with the prefix `POINTSMAN_` as well, so that
/// `journalctl POINTSMAN_RELEASE=4f2c1ab` works on every host.
pub fn start() {
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    match Journald::connect() {
        Ok(journald) if under_systemd => registry.with(journald).init(),
        _ => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
            .init(),
    }
}
