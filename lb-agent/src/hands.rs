//! What the agent on a load balancer does with each order.

use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::agent_service::{Hands, Rule, SignalTicks, SignalsFrom};
use pointsman_chassis::artifact::Offer;
use pointsman_chassis::site_certificate::{CertifiedName, SiteCertificate};
use pointsman_checks::Memory;
use pointsman_core::route_change::Lease;
use pointsman_core::{Action, Activation, Code, Evidence, Order, Problem};
use pointsman_proto::{agent_v1, v1};
use tonic::Streaming;

use crate::balancer::Balancer;
use crate::config::Config;
use crate::fit::{self, Fit};
use crate::switch::Move;
use crate::{certificates, doctor, drain, guard, inspect, probe, rate_limits, signals, switch};

/// The hands of the lb-agent.
#[derive(Clone)]
pub struct LbHands {
    balancer: Balancer,
    memory: Arc<Memory>,
}

fn not_ours(what: &str) -> Problem {
    Problem::new(
        Code::WrongAddressee,
        format!("this is a load balancer agent: it has nothing to do with {what}"),
    )
    .hint("compare the agents named in the environment file with their roles")
}

impl LbHands {
    /// Says which driver fits this HAProxy, and why.
    pub async fn driver_fit(&self) -> Result<Fit, Problem> {
        fit::look(&self.balancer).await
    }

    /// The hands for this configuration.
    pub fn new(config: Config) -> Result<Self, Problem> {
        Ok(Self { balancer: Balancer::new(config)?, memory: Arc::default() })
    }

    /// Guards the route between orders, for ever.
    pub async fn guard_route(&self) {
        guard::watch(self.balancer.clone()).await;
    }

    /// Gathers signals, for ever; without `[signals]` in the configuration there is nothing to do.
    pub async fn gather_signals(&self) {
        if let Some(signals) = &self.balancer.signals {
            signals.gather().await;
        }
    }

    /// Looks after the site's certificates, for ever.
    pub async fn watch_certificates(&self) {
        certificates::watch(self.balancer.clone()).await;
    }

    /// Before any order comes: finishes or takes back what an earlier life of the agent left half-done.
    pub async fn settle_at_start(&self) {
        guard::at_start(&self.balancer).await;
    }
}

impl Hands for LbHands {
    async fn act(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        match &order.action {
            Action::SetRoute { expected, wanted, min_up, back } => {
                let asked = Move { expected, wanted, min_up: *min_up, back: *back };
                switch::set_route(&self.balancer, &asked, rule).await
            }
            Action::Drain { backend, timeout_ms, end } => {
                drain::drain(&self.balancer, backend, Duration::from_millis(*timeout_ms), *end, rule).await
            }
            // What was seen before a release moved anything counts for nothing after it.
            Action::ProbeBalancer { checks, backend, epoch, min_up, patience_ms } => {
                self.memory.forget();
                let patience = Duration::from_millis(*patience_ms);
                probe::probe(&self.balancer, checks, backend, *epoch, *min_up, patience, None).await
            }
            looking => self.observe(looking).await,
        }
    }

    async fn prepare(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        match &order.action {
            Action::SetRoute { expected, wanted, min_up, back } => {
                let asked = Move { expected, wanted, min_up: *min_up, back: *back };
                switch::prepare(&self.balancer, Lease::of(order), &asked, rule).await
            }
            _ => Err(not_ours("preparing anything but a route")),
        }
    }

    async fn commit(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        switch::commit(&self.balancer, order, rule).await
    }

    async fn observe(&self, action: &Action) -> Result<Evidence, Problem> {
        match action {
            Action::InspectBalancer { expected, backends, leaving } => {
                inspect::inspect(&self.balancer, expected, backends, *leaving).await
            }
            Action::ProbeBalancer { checks, backend, epoch, min_up, patience_ms } => {
                let patience = Duration::from_millis(*patience_ms);
                probe::probe(&self.balancer, checks, backend, *epoch, *min_up, patience, Some(&self.memory))
                    .await
            }
            _ => Err(not_ours("this action")),
        }
    }

    async fn describe(&self) -> v1::AgentStatus {
        inspect::describe(&self.balancer).await
    }

    fn signals(&self, from: SignalsFrom) -> Result<SignalTicks, Problem> {
        self.balancer.signals.as_ref().map(|signals| signals.ticks(&from)).ok_or_else(signals::missing)
    }

    async fn diagnose(&self, _: &Activation) -> Vec<v1::Finding> {
        // Where access lines are taken in; without such a place HAProxy's log is not looked at.
        let log_to = self.balancer.config.signals.as_ref().map(|signals| signals.listen);
        doctor::diagnose(&self.balancer, log_to).await
    }

    async fn offer(&self, _: Offer, _: &Rule) -> Result<v1::ArtifactNeed, Problem> {
        Err(not_ours("artifacts"))
    }

    async fn contents(
        &self,
        _: v1::ContentPiece,
        _: Streaming<v1::ContentPiece>,
        _: &Rule,
    ) -> Result<v1::ContentReceipt, Problem> {
        Err(not_ours("artifacts"))
    }

    async fn deploy_certificate(
        &self,
        path: &str,
        certificate: SiteCertificate,
        drop: &[CertifiedName],
        rule: &Rule,
    ) -> Result<Evidence, Problem> {
        let granted = self.balancer.certificates.named(path)?;
        certificates::deploy(&self.balancer, granted, &certificate, drop, || rule.check()).await
    }

    async fn rate_limits(
        &self,
        request: &agent_v1::RateLimitsRequest,
        rule: &Rule,
    ) -> Result<v1::RateLimitsReply, Problem> {
        rate_limits::rate_limits(&self.balancer, request, rule).await
    }
}
