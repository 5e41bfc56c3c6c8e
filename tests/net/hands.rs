//! Hands of an agent that change nothing but the simulated world. They take their time, look whether their
//! coordinator still rules, and then do it in one moment, as the real ones do.

use std::sync::Mutex;
use std::time::Duration;

use pointsman_chassis::agent_service::{Hands, Rule};
use pointsman_chassis::artifact::{Offer, PieceCheck, receive_pieces};
use pointsman_core::manifest::Manifest;
use pointsman_core::{Action, Code, Evidence, HostName, Order, Problem};
use pointsman_proto::v1;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::chance::Chance;
use crate::world::{Deed, World};

/// How long orders take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The seed of each order's own time.
    pub seed: u64,
    /// The longest time before the change, in milliseconds.
    pub before_ms: u64,
    /// The longest time after the change, in milliseconds.
    pub after_ms: u64,
}

/// The hands of one agent.
pub struct WorldHands {
    host: HostName,
    world: World,
    pace: Pace,
    offered: Mutex<Option<Manifest>>,
}

impl WorldHands {
    /// The hands on `host`.
    pub fn new(host: HostName, world: World, pace: Pace) -> Self {
        Self { host, world, pace, offered: Mutex::default() }
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl Hands for WorldHands {
    async fn act(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        let purpose = format!("{} {} {}", order.key.host, order.key.step, order.attempt);
        let mut chance = Chance::new(self.pace.seed, &purpose);
        pause(chance.between(0, self.pace.before_ms)).await;
        rule.check()?;
        self.world.note(Deed::Acts(Order { epoch: rule.epoch(), ..order.clone() }));
        if order.action.only_looks() {
            return self.world.look(&self.host, &order.action);
        }
        let evidence = self.world.change(order)?;
        pause(chance.between(0, self.pace.after_ms)).await;
        self.world.note(Deed::Acted(order.key.clone()));
        Ok(evidence)
    }

    async fn prepare(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        rule.check()?;
        self.world.note(Deed::Prepared(order.key.clone()));
        Ok(Evidence::default())
    }

    async fn commit(&self, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
        self.act(order, rule).await
    }

    async fn observe(&self, action: &Action) -> Result<Evidence, Problem> {
        self.world.look(&self.host, action)
    }

    async fn describe(&self) -> v1::AgentStatus {
        v1::AgentStatus::default()
    }

    async fn offer(&self, offer: Offer, _: &Rule) -> Result<v1::ArtifactNeed, Problem> {
        let complete = self.world.contents(&self.host, false);
        let all = 0..u32::try_from(offer.manifest.contents().len()).unwrap();
        let missing = if complete { Vec::new() } else { all.collect() };
        *self.offered.lock().unwrap() = Some(offer.manifest);
        Ok(v1::ArtifactNeed { artifact: offer.artifact.to_string(), complete, missing })
    }

    async fn contents(
        &self,
        first: v1::ContentPiece,
        messages: Streaming<v1::ContentPiece>,
        rule: &Rule,
    ) -> Result<v1::ContentReceipt, Problem> {
        let lost = || Problem::new(Code::TransferBroken, "nothing was offered").retry_useful();
        let manifest = self.offered.lock().unwrap().clone().ok_or_else(lost)?;
        let (sink, mut pieces) = mpsc::channel(1);
        let receiving = receive_pieces(messages, PieceCheck::new(&manifest), sink, Duration::from_secs(30));
        let draining = async { while pieces.recv().await.is_some() {} };
        let (received, ()) = tokio::join!(receiving, draining);
        let (received_bytes, received_contents) = received?;
        rule.check()?;
        self.world.contents(&self.host, true);
        Ok(v1::ContentReceipt { artifact: first.artifact, received_bytes, received_contents })
    }
}
