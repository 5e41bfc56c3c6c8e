//! Accepting connections: bounded, never held up by one slow handshake, never ended by one failed accept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{Code, Problem};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

use super::{Accept, Credentials, Peer, TlsConnection, peer_of_certificate};

/// Handshakes under way at once: enough for a fleet that reconnects together, few enough that a flood of slow
/// strangers costs little memory.
const MAX_HANDSHAKES: usize = 256;
/// A handshake that takes longer is a slow stranger or a broken network: our own clients wait no longer either, see
/// [`super::ChannelLimits::connect`].
const HANDSHAKE: Duration = Duration::from_secs(4);
/// After a failed accept (too many open files, say) the listener rests instead of spinning.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// Connections as they are accepted. No one of them ends the stream.
pub type Connections<S> = ReceiverStream<std::io::Result<TlsConnection<S>>>;

/// Binds a port and gives out its verified connections.
pub async fn listen(
    address: SocketAddr,
    credentials: Arc<Credentials>,
) -> Result<(SocketAddr, Connections<TcpStream>), Problem> {
    let cannot = |error: std::io::Error| {
        Problem::new(Code::ConfigInvalid, format!("cannot listen on `{address}`"))
            .because(&error)
            .hint(format!("see who listens there: `ss -ltnp 'sport = :{}'`", address.port()))
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    Ok((bound, connections(listener, credentials)))
}

/// Gives out the verified connections of a listener.
pub fn connections<A: Accept>(listener: A, credentials: Arc<Credentials>) -> Connections<A::Stream> {
    let (accepted, connections) = mpsc::channel(64);
    tokio::spawn(accept_all(listener, credentials, accepted));
    ReceiverStream::new(connections)
}

async fn accept_all<A: Accept>(
    listener: A,
    credentials: Arc<Credentials>,
    accepted: mpsc::Sender<std::io::Result<TlsConnection<A::Stream>>>,
) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while !accepted.is_closed() {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(credentials.server());
        let accepted = accepted.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, shake_hands(acceptor, stream)).await {
                // The receiver is gone only when the server ends.
                Ok(Ok(connection)) => drop(accepted.send(Ok(connection)).await),
                Ok(Err(reason)) => debug!(%from, reason, "refused a connection"),
                Err(_) => debug!(%from, "refused a connection: its handshake took too long"),
            }
            drop(permit);
        });
    }
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    stream: S,
) -> Result<TlsConnection<S>, String> {
    let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
    let peer: Peer = peer_of_certificate(certificate).map_err(|problem| problem.message)?;
    Ok(TlsConnection::new(stream, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_may_not_hang_longer_than_a_connection() {
        assert!(HANDSHAKE <= super::super::ChannelLimits::default().connect);
    }
}
