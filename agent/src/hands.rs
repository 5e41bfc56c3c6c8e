//! What the agent on a web host does with each order.

use std::sync::Arc;

use pointsman_chassis::agent_service::{Hands, Rule};
use pointsman_chassis::artifact::Offer;
use pointsman_chassis::http_check::Target;
use pointsman_checks::{Memory, Place};
use pointsman_core::{Action, Activation, ArtifactDigest, Check, Code, Evidence, Order, Problem, several};
use pointsman_proto::v1;
use tonic::Streaming;

use crate::config::{Config, Web};
use crate::host::{self, Site, on_disk};

/// The hands of the web agent.
#[derive(Clone)]
pub struct WebHands {
    config: Arc<Config>,
    web: Arc<Web>,
    site: Site,
    place: Place,
    memory: Arc<Memory>,
}

fn not_ours() -> Problem {
    Problem::new(Code::WrongAddressee, "this is a web agent: it has nothing to do with load balancers")
        .hint("compare the agents named in the environment file with their roles")
}

impl WebHands {
    /// The hands for this configuration of this site.
    pub fn new(config: Config, web: Web) -> Result<Self, Problem> {
        let site = Site::open(web.root.clone())?;
        let server = Target { address: web.server, host: web.host.clone(), tls: None, proxy_protocol: false };
        let (grants, key) = (Arc::new(config.checks.clone()), String::new());
        let place = Place { server, authorities: None, pin: None, grants, key };
        Ok(Self { config: Arc::new(config), web: Arc::new(web), site, place, memory: Arc::default() })
    }

    /// Refuses unless an artifact is whole and current here, where one must be.
    async fn holds(&self, artifact: Option<ArtifactDigest>) -> Result<(), Problem> {
        let Some(artifact) = artifact else { return Ok(()) };
        let site = self.site.clone();
        on_disk(move || host::holds(&site, &artifact)).await
    }

    /// Makes checks against the local server. What was seen before a release moved anything counts for nothing after it.
    async fn probe(&self, checks: &[Check], memory: Option<&Memory>) -> Result<Evidence, Problem> {
        if memory.is_none() {
            self.memory.forget();
        }
        let seen = pointsman_checks::run(checks, &self.place, memory).await?;
        let seen = pointsman_checks::judged(checks, vec![(&self.place, seen)])?;
        let detail = match checks.len() {
            0 => format!("no checks to make on `{}`", self.place.server.address),
            made => format!("{} on `{}` passed", several(made, "check", "checks"), self.place.server.address),
        };
        Ok(pointsman_checks::evidence(seen, detail))
    }
}

impl Hands for WebHands {
    async fn act(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        let (site, rule) = (self.site.clone(), rule.clone());
        match order.action.clone() {
            Action::Stage { artifact } => on_disk(move || host::seal(&site, &artifact, &rule)).await,
            Action::Discard { artifact } => on_disk(move || host::discard(&site, &artifact, &rule)).await,
            Action::Activate { artifact, activation } => {
                host::activate(
                    &site,
                    (&self.config, self.web.keep),
                    (&order.release, order.key.step),
                    artifact,
                    &activation,
                    &rule,
                )
                .await
            }
            Action::SetFlag { on } => on_disk(move || host::set_flag(&site, on, &rule)).await,
            Action::ProbeHost { checks, artifact } => {
                self.holds(artifact).await?;
                self.probe(&checks, None).await
            }
            looking => self.observe(&looking).await,
        }
    }

    async fn prepare(&self, _: &Order, _: &Rule) -> Result<Evidence, Problem> {
        // Nothing that hosts do is done together with others.
        Err(not_ours())
    }

    async fn observe(&self, action: &Action) -> Result<Evidence, Problem> {
        match action {
            Action::InspectHost { artifact, activation } => {
                let (site, artifact, floor) = (self.site.clone(), *artifact, self.web.floor_bytes);
                let evidence = on_disk(move || host::inspect(&site, &artifact, floor)).await?;
                host::fit(&self.config, activation).await.map(|()| evidence)
            }
            Action::ProbeHost { checks, artifact } => {
                self.holds(*artifact).await?;
                self.probe(checks, Some(&self.memory)).await
            }
            _ => Err(not_ours()),
        }
    }

    async fn diagnose(&self, activation: &Activation) -> Vec<v1::Finding> {
        host::findings(&self.config, activation).await
    }

    async fn describe(&self) -> v1::AgentStatus {
        let site = self.site.clone();
        let described = on_disk(move || Ok(host::describe(&site))).await;
        described.unwrap_or_else(|problem| v1::AgentStatus {
            problem: Some(pointsman_proto::convert::problem_to_wire(&problem)),
            ..Default::default()
        })
    }

    async fn offer(&self, offer: Offer, _: &Rule) -> Result<v1::ArtifactNeed, Problem> {
        let (site, floor) = (self.site.clone(), self.web.floor_bytes);
        on_disk(move || host::accept_offer(&site, &offer, floor)).await
    }

    async fn contents(
        &self,
        first: v1::ContentPiece,
        messages: Streaming<v1::ContentPiece>,
        rule: &Rule,
    ) -> Result<v1::ContentReceipt, Problem> {
        host::receive(self.site.clone(), first, messages, rule).await
    }
}
