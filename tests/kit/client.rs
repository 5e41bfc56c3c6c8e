//! A caller of the coordinator's API, with the certificate of a person.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pointsman_chassis::tls::{self, ChannelLimits, Credentials};
use pointsman_core::{Code, PeerName, Problem};
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::v1::coordinator_client::CoordinatorClient;
use pointsman_proto::v1::{self, plan_request::Purpose};
use tonic::Status;
use tonic::transport::Channel;

use crate::ENVIRONMENT;
use crate::pki::Identity;

/// Longest time for a release of a test to end.
const LONGEST: Duration = Duration::from_secs(90);

/// A caller of the coordinator.
#[derive(Clone)]
pub struct Client {
    /// The generated client, for what has no function here.
    pub api: CoordinatorClient<Channel>,
}

/// An update of a release with the moment it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived here.
    pub arrived: Instant,
    /// The update.
    pub update: v1::ReleaseUpdate,
}

impl Seen {
    /// Whether it says that a step's order was done.
    pub fn done(&self, step: &str) -> bool {
        self.update.kind == "order-done" && self.update.step == step
    }

    /// How the release ended, if this update ended it.
    pub fn outcome(&self) -> Option<&str> {
        let outcome = self.update.release.as_ref()?.outcome.as_str();
        Some(outcome).filter(|outcome| !outcome.is_empty())
    }
}

/// The problem behind a failed call.
pub fn problem_of(status: &Status) -> Problem {
    tls::explain(status, Code::CoordinatorUnreachable, "the peer")
}

/// The problem behind a call that must have been refused.
pub fn refused<T>(answer: Result<T, Status>) -> Result<Problem> {
    match answer {
        Ok(_) => bail!("the call was not refused"),
        Err(status) => Ok(problem_of(&status)),
    }
}

/// A caller of an agent, with any identity, who expects the server at `address` to be `server`.
pub fn agent(identity: &Identity, address: SocketAddr, server: &str) -> Result<AgentClient<Channel>> {
    Ok(AgentClient::new(channel(identity, address, server)?))
}

fn channel(identity: &Identity, address: SocketAddr, server: &str) -> Result<Channel> {
    tls::install_crypto();
    let credentials = Credentials::load(identity.files())?;
    let server = PeerName::parse(server)?;
    Ok(tls::channel(credentials, &address.to_string(), &server, ChannelLimits::default())?)
}

impl Client {
    /// A caller with this identity, who expects the server at `address` to be `server`.
    pub fn new(identity: &Identity, address: SocketAddr, server: &str) -> Result<Self> {
        Ok(Self { api: CoordinatorClient::new(channel(identity, address, server)?) })
    }

    /// Starts a release.
    pub async fn create(&mut self, plan: v1::PlanRequest) -> Result<String, Status> {
        let request = v1::CreateReleaseRequest { plan: Some(plan), fingerprint: String::new() };
        Ok(self.api.create_release(request).await?.into_inner().release)
    }

    /// Starts the release of an artifact.
    pub async fn deploy(&mut self, artifact: &str, release: &str) -> Result<String, Status> {
        self.create(deploy_request(artifact, release)).await
    }

    /// Follows a release until `enough` is satisfied or it is over, and returns all that was heard.
    pub async fn follow(&mut self, release: &str, enough: impl Fn(&Seen) -> bool) -> Result<Vec<Seen>> {
        let request = v1::FollowRequest {
            environment: ENVIRONMENT.to_owned(),
            release: release.to_owned(),
            after_seq: 0,
        };
        let following = async {
            let mut updates = self.api.follow(request).await?.into_inner();
            let mut heard = Vec::new();
            while let Some(update) = updates.message().await? {
                let seen = Seen { arrived: Instant::now(), update };
                let end = enough(&seen);
                heard.push(seen);
                if end {
                    break;
                }
            }
            Ok::<_, Status>(heard)
        };
        let heard = tokio::time::timeout(LONGEST, following)
            .await
            .with_context(|| format!("release `{release}` did not end in {} s", LONGEST.as_secs()))?;
        Ok(heard?)
    }

    /// Follows a release to its end and returns the outcome.
    pub async fn outcome(&mut self, release: &str) -> Result<String> {
        let heard = self.follow(release, |_| false).await?;
        let outcome = heard.last().and_then(Seen::outcome).context("the updates ended before the release")?;
        Ok(outcome.to_owned())
    }

    /// Follows a release to its end, and fails with the reason unless it is confirmed.
    pub async fn confirmed(&mut self, release: &str) -> Result<()> {
        let heard = self.follow(release, |_| false).await?;
        let last = heard.last().context("the updates ended before the release")?;
        if last.outcome() == Some("confirmed") {
            return Ok(());
        }
        let turned = last.update.release.as_ref().and_then(|release| release.turned_back.clone());
        bail!("release `{release}` ended as {:?} because of {turned:?}", last.outcome())
    }

    /// How the environment stands.
    pub async fn status(&mut self) -> Result<v1::StatusReply, Status> {
        let request = v1::StatusRequest { environment: ENVIRONMENT.to_owned(), release: String::new() };
        Ok(self.api.get_status(request).await?.into_inner())
    }

    /// The releases that were, newest first.
    pub async fn releases(&mut self) -> Result<Vec<v1::Release>, Status> {
        let request = v1::ListReleasesRequest { environment: ENVIRONMENT.to_owned(), limit: 0 };
        Ok(self.api.list_releases(request).await?.into_inner().releases)
    }

    /// Puts the maintenance page up or takes it down. Returns the release, empty if it stood so already.
    pub async fn maintenance(&mut self, on: bool) -> Result<String, Status> {
        let request = v1::SetMaintenanceRequest {
            environment: ENVIRONMENT.to_owned(),
            on,
            for_ms: 0,
            reason: "test".to_owned(),
            without: Vec::new(),
        };
        Ok(self.api.set_maintenance(request).await?.into_inner().release)
    }
}

/// A request to release an artifact.
pub fn deploy_request(artifact: &str, release: &str) -> v1::PlanRequest {
    v1::PlanRequest {
        environment: ENVIRONMENT.to_owned(),
        release: release.to_owned(),
        purpose: Some(Purpose::Deploy(v1::DeployPurpose {
            artifact: artifact.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}
