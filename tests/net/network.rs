//! The simulated network and its clock, as the daemons' own transports and clock.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::tls::{Accept, Credentials, Dial};
use pointsman_chassis::{serve, tls};
use pointsman_core::Timestamp;
use pointsman_core::ports::Clock;
use tonic::service::Routes;
use turmoil::net::{TcpListener, TcpStream};

/// Where every simulated daemon listens.
pub const PORT: u16 = 7443;

/// The simulated network.
#[derive(Clone, Copy, Debug)]
pub struct Simulated;

impl Dial for Simulated {
    type Stream = TcpStream;

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

struct Listener(TcpListener);

impl Accept for Listener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// Serves as a daemon does, on the simulated host that calls this.
pub async fn serve(credentials: Arc<Credentials>, routes: Routes) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let connections = tls::connections(Listener(listener), Arc::clone(&credentials));
    Ok(serve::router(&credentials, routes).serve_with_incoming(connections).await?)
}

/// Simulated time. It begins far ahead of the machine's own clock, so that deadlines, which some parts compare with
/// that one, never end anything: what ends here ends by simulated time.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedClock;

const BEGINNING: Timestamp = Timestamp(4_102_444_800_000);

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        BEGINNING.plus_ms(now_ms())
    }

    fn steady_ms(&self) -> u64 {
        now_ms()
    }

    async fn pause(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Milliseconds since the simulation began; 0 outside of one.
pub fn now_ms() -> u64 {
    u64::try_from(turmoil::sim_elapsed().unwrap_or_default().as_millis()).unwrap()
}
