//! Running a daemon: certificates, port, access, gRPC limits, systemd, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{Code, PeerName, Problem, Role};
use pointsman_proto::MAX_MESSAGE_BYTES;
use pointsman_proto::agent_v1::agent_server::AgentServer;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};
use tracing::{error, info, warn};

use crate::access::AccessLayer;
use crate::agent_service::{AgentService, Hands};
use crate::config::Pki;
use crate::service::{self, Shutdown};
use crate::tls::{self, Credentials};

/// Streams of one connection at once, and requests among them that run: a command line uses a handful.
const MAX_STREAMS: u32 = 64;
const MAX_REQUESTS: usize = 32;
/// Largest headers: pointsman's own are a few hundred bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Silence after which a client is asked for a sign of life, and how long it may take: as the clients do, see
/// [`tls::ChannelLimits`], so that both sides notice within five seconds that the other one hangs. A follower whose
/// machine slept must come back at once, not find its place among the streams taken.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2));
/// Window of one stream: see [`tls::ChannelLimits`].
const WINDOW_BYTES: u32 = 8 << 20;
/// How long requests under way may take to end when the daemon is asked to.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// A daemon with its certificates and its ears open for signals.
pub struct Daemon {
    credentials: Arc<Credentials>,
    shutdown: Shutdown,
}

/// Threads for work that blocks on disks: more would only queue there, and systemd bounds the tasks of each daemon.
const BLOCKING_THREADS: usize = 16;

/// The runtime of every daemon: two threads do for what they do.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

/// A problem for a `main` to end with: code, causes and hint.
pub fn explain(problem: Problem) -> anyhow::Error {
    let causes: String = problem.causes.iter().map(|cause| format!("\n  cause: {cause}")).collect();
    anyhow::anyhow!("[{}] {problem}{causes}\n  hint: {}", problem.code, problem.hint)
}

impl Daemon {
    /// Loads the certificates, which must name one of these roles, and listens for signals.
    pub fn start(pki: Pki, roles: &[Role]) -> Result<Self, Problem> {
        let path = pki.cert.display().to_string();
        let credentials = Credentials::load(pki)?;
        let name = credentials.name();
        if !roles.contains(&name.role) {
            let message =
                format!("the certificate `{path}` names `{name}`, which is not the role of this daemon");
            return Err(
                Problem::new(Code::CertificateUnusable, message).hint("put the right certificate there")
            );
        }
        let reloading = Arc::clone(&credentials);
        let shutdown = service::listen(move || reloading.reload()).map_err(|error| {
            Problem::new(Code::ConfigInvalid, "cannot listen for signals").because(&error)
        })?;
        tokio::spawn(Arc::clone(&credentials).follow_files());
        Ok(Self { credentials, shutdown })
    }

    /// The name in the daemon's certificate.
    pub fn name(&self) -> PeerName {
        self.credentials.name()
    }

    /// The daemon's certificates.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// Tells when the daemon is to end.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Serves an agent until the daemon is asked to end.
    pub async fn serve_agent<H: Hands>(
        self,
        listen: SocketAddr,
        service: AgentService<H>,
        alive: impl Fn() -> Result<(), Problem> + Send + Sync + 'static,
    ) -> Result<(), Problem> {
        let service = service.until(self.shutdown()).showing(self.credentials());
        let ledger = service.ledger();
        // What a way back has used is set aside anew as soon as there is room; `doctor` says where there is none.
        let alive = move || {
            _ = ledger.keep_room();
            alive()
        };
        self.serve(listen, agent_routes(service), alive).await
    }

    /// Serves until the daemon is asked to end. `alive` touches what the daemon cannot work without; while it
    /// succeeds systemd hears that the daemon lives.
    pub async fn serve(
        self,
        listen: SocketAddr,
        routes: Routes,
        alive: impl Fn() -> Result<(), Problem> + Send + Sync + 'static,
    ) -> Result<(), Problem> {
        let (bound, connections) = tls::listen(listen, Arc::clone(&self.credentials)).await?;
        let server = router(&self.credentials, routes)
            .serve_with_incoming_shutdown(connections, self.shutdown.clone().requested());
        let heart = tokio::spawn(beat(Arc::new(alive)));
        service::ready(&format!("listening on {bound}"));
        info!(%bound, "ready");
        let ended = tokio::select! {
            ended = server => ended,
            () = after(self.shutdown.clone()) => Ok(()),
        };
        heart.abort();
        ended.map_err(|error| Problem::new(Code::ConfigInvalid, "the server ended").because(&error))
    }
}

/// What an agent serves.
pub fn agent_routes<H: Hands>(service: AgentService<H>) -> Routes {
    let service = AgentServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Routes::new(service)
}

/// The gRPC server of a daemon, for whatever connections it is given: bounds, and who may call what, before everything.
pub fn router(credentials: &Credentials, routes: Routes) -> Router<Stack<AccessLayer, Identity>> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .concurrency_limit_per_connection(MAX_REQUESTS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES.saturating_mul(2))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(AccessLayer::new(credentials.name().trust_domain))
        .add_routes(routes)
}

async fn after(shutdown: Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(LAST_REQUESTS).await;
    warn!("requests under way did not end in time: ending without them");
}

/// Tells systemd that the daemon lives as long as `alive` succeeds.
async fn beat(alive: Arc<dyn Fn() -> Result<(), Problem> + Send + Sync>) {
    loop {
        let check = Arc::clone(&alive);
        match tokio::task::spawn_blocking(move || check()).await {
            Ok(Ok(())) => service::alive(),
            Ok(Err(problem)) => error!(problem = %problem.in_full(), "the daemon cannot work"),
            Err(error) => error!(%error, "the daemon cannot look at itself"),
        }
        tokio::time::sleep(service::alive_every()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_hangs_is_noticed_within_five_seconds_by_what_is_set() {
        let longest = Duration::from_secs(5);
        let limits = tls::ChannelLimits::default();
        assert!(KEEPALIVE.0 + KEEPALIVE.1 <= longest, "the server notices too late");
        assert!(limits.keepalive.0 + limits.keepalive.1 <= longest, "the client notices too late");
        assert!(limits.connect <= longest, "a handshake may hang for too long");
        // A follower is asked before it would be taken for dead, and has time to answer over a slow line.
        assert!(KEEPALIVE.1 >= Duration::from_secs(1) && limits.keepalive.1 >= Duration::from_secs(1));
    }
}
