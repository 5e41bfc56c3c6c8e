//! Peers that are not what they should be: without a certificate that counts, or silent where they should speak.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::tls::{self, ChannelLimits, Credentials};
use pointsman_core::{Aftermath, Code, PeerName, Problem};
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::v1;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use crate::hands::{Pace, WorldHands};
use crate::network::{PORT, Simulated};
use crate::release::CENTRE;
use crate::run::folder;
use crate::world::World;
use crate::{agent, identities, plans};

const HOST: &str = "blue1";
const ADDRESS: (&str, u16) = (HOST, PORT);

/// The longest way of a message, and some ticks.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// Both sides notice within this time that the other one is silent.
const SILENCE: Duration = Duration::from_secs(5);
/// No simulation here takes longer.
const LONGEST: Duration = Duration::from_secs(60);

fn simulation<'a>() -> Sim<'a> {
    identities::ready();
    turmoil::Builder::new()
        .tick_duration(Duration::from_millis(10))
        .max_message_latency(Duration::from_millis(50))
        // Otherwise the simulated kernel falls over a crowd that knocks at once.
        .tcp_capacity(1_024)
        .simulation_duration(LONGEST)
        .build()
}

/// Runs what a caller does against a real agent.
fn against_an_agent(caller: impl Future<Output = turmoil::Result> + 'static) {
    let folder = folder();
    let plan = plans::plan(plans::maintenance(true), plans::Site::of(1, 1));
    let (world, path) = (World::before(&plan, None), folder.path().to_owned());
    let mut sim = simulation();
    sim.host(HOST, move || {
        let pace = Pace { seed: 1, before_ms: 0, after_ms: 0 };
        agent::run(HOST.to_owned(), path.clone(), WorldHands::new(plans::host(HOST), world.clone(), pace))
    });
    sim.client("caller", caller);
    sim.run().unwrap();
}

/// Asks the agent whether it is well.
async fn ask(credentials: Arc<Credentials>) -> Result<(), Problem> {
    let limits = ChannelLimits::default();
    let address = format!("{HOST}:{PORT}");
    let channel = tls::channel_over(Simulated, credentials, &address, &expected(), limits)?;
    let answer = AgentClient::new(channel).health(v1::HealthRequest {}).await;
    answer.map(drop).map_err(|status| tls::explain(&status, Code::AgentUnreachable, HOST))
}

fn expected() -> PeerName {
    identities::of(HOST).name()
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_and_not_unreachable() {
    against_an_agent(async {
        let problem = ask(identities::stranger()).await.unwrap_err();
        assert_eq!((problem.code, problem.aftermath), (Code::CertificateRefused, Aftermath::Unchanged));
        Ok(ask(identities::of(CENTRE)).await?)
    });
}

#[test]
fn nobody_without_a_certificate_is_heard() {
    against_an_agent(async {
        let connector = TlsConnector::from(identities::nobody());
        let stream = TcpStream::connect(ADDRESS).await?;
        let mut stream = connector.connect(ServerName::try_from(HOST)?, stream).await?;
        let refused = stream.read_u8().await.unwrap_err();
        let reason = refused.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let expected = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(reason, Some(&expected), "{refused}");
        Ok(ask(identities::of(CENTRE)).await?)
    });
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let mut sim = simulation();
    sim.host(HOST, || async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let mut silent = Vec::new();
        loop {
            silent.push(listener.accept().await?);
        }
    });
    sim.client("caller", async {
        let begun = Instant::now();
        let problem = ask(identities::of(CENTRE)).await.unwrap_err();
        assert_eq!(problem.code, Code::AgentUnreachable);
        let waited = begun.elapsed();
        assert!(waited < ChannelLimits::default().connect + ON_ITS_WAY, "waited for {waited:?}");
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn clients_that_never_shake_hands_keep_nobody_waiting_and_are_dropped() {
    /// Fewer than a server shakes hands with at once.
    const SILENT: usize = 200;
    against_an_agent(async {
        let mut silent = JoinSet::new();
        for _ in 0..SILENT {
            silent.spawn(async {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(ADDRESS).await?;
                // An end or an error: only silence would be wrong.
                let _ = stream.read_u8().await;
                Ok::<_, std::io::Error>(begun.elapsed())
            });
        }
        tokio::time::sleep(ON_ITS_WAY).await;
        let asked = Instant::now();
        ask(identities::of(CENTRE)).await?;
        assert!(asked.elapsed() < ON_ITS_WAY, "waited for {:?}", asked.elapsed());
        for lasted in silent.join_all().await {
            let lasted = lasted?;
            // As long as our own clients would wait for a handshake.
            assert!(lasted < ChannelLimits::default().connect + ON_ITS_WAY, "kept for {lasted:?}");
        }
        Ok(())
    });
}

#[test]
fn a_client_that_falls_silent_after_the_handshake_is_dropped() {
    against_an_agent(async {
        let connector = TlsConnector::from(identities::of(CENTRE).client());
        let stream = TcpStream::connect(ADDRESS).await?;
        let mut stream = connector.connect(ServerName::try_from(HOST)?, stream).await?;
        let begun = Instant::now();
        let mut words = Vec::new();
        // What the server says first is read; nothing is answered.
        let _ = stream.read_to_end(&mut words).await;
        assert!(begun.elapsed() < SILENCE, "kept for {:?}", begun.elapsed());
        Ok(())
    });
}
