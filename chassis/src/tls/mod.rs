//! Mutual TLS: every connection has two named ends. TLS is ended here and not in tonic, because tonic cannot load
//! renewed certificates without a restart.

mod client;
mod connection;
mod credentials;
mod peer;
mod server;

pub use client::{ChannelLimits, channel, explain};
pub use connection::TlsConnection;
pub use credentials::Credentials;
pub use peer::{Peer, peer_of_certificate};
pub use server::listen;

/// Installs the one crypto provider of the process. The first line of every `main`.
pub fn install_crypto() {
    // An error means that it is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
