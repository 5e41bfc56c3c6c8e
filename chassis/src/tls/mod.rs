//! Mutual TLS: every connection has two named ends. TLS is ended here and not in tonic, because tonic cannot load
//! renewed certificates without a restart.

mod client;
mod connection;
mod credentials;
mod peer;
mod server;
mod transport;

pub use client::{ChannelLimits, channel, channel_over, explain};
pub use connection::TlsConnection;
pub use credentials::Credentials;
pub use peer::{Peer, end_of_certificate, peer_of_certificate};
pub use server::{Connections, connections, listen};
pub use transport::{Accept, Dial, Tcp};

/// Installs the one crypto provider of the process. The first line of every `main`.
pub fn install_crypto() {
    // An error means that it is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
