//! One standing channel to each agent, and the calls over it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use pointsman_chassis::tls::{self, ChannelLimits, Credentials, Dial, Tcp};
use pointsman_chassis::{SystemClock, failpoint};
use pointsman_core::ports::{Clock as _, Fleet, Memory};
use pointsman_core::receipt::{self, Fence};
use pointsman_core::{
    Action, Activation, Aftermath, Code, EnvironmentName, Epoch, Evidence, HostName, Order, PeerName,
    Problem, Step,
};
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::convert::{self, Exchange, ReceivedOrder};
use pointsman_proto::{MAX_MESSAGE_BYTES, agent_v1, v1};
use tonic::transport::Channel;
use tracing::warn;

use super::Transfers;
use super::transfer::send_artifact;
use crate::artifact_store::ArtifactStore;
use crate::environment::Environment;
use crate::journal::JournalStore;
use crate::visitors::Read;

/// The agents of one environment.
#[derive(Clone)]
pub struct GrpcFleet {
    environment: EnvironmentName,
    links: Arc<BTreeMap<HostName, Channel>>,
    store: ArtifactStore,
    journal: JournalStore,
    transfers: Transfers,
    /// Which life of a coordinator this is: see [`agent_v1::FenceRequest::holder`].
    holder: Arc<[u8]>,
}

impl GrpcFleet {
    /// Channels to every agent of the environment. They connect when they are first used.
    pub fn new(
        environment: &Environment,
        credentials: &Arc<Credentials>,
        store: ArtifactStore,
        journal: JournalStore,
    ) -> Result<Self, Problem> {
        Self::over(Tcp, environment, credentials, store, journal)
    }

    /// [`GrpcFleet::new`] over another network than the machine's own.
    pub fn over(
        network: impl Dial,
        environment: &Environment,
        credentials: &Arc<Credentials>,
        store: ArtifactStore,
        journal: JournalStore,
    ) -> Result<Self, Problem> {
        let own = credentials.name();
        let mut links = BTreeMap::new();
        for (host, address) in &environment.agents {
            let role = environment.role_of(host);
            let expected = PeerName::new(&own.trust_domain, environment.name.clone(), role, host.as_str())
                .map_err(|error| {
                    Problem::new(Code::ConfigInvalid, "an agent's name cannot stand in a certificate")
                        .because(&error)
                })?;
            let (network, credentials) = (network.clone(), Arc::clone(credentials));
            let limits = ChannelLimits::default();
            let channel = tls::channel_over(network, credentials, address, &expected, limits)?;
            links.insert(host.clone(), channel);
        }
        let environment = environment.name.clone();
        let (links, transfers) = (Arc::new(links), Transfers::default());
        let holder = drawn();
        Ok(Self { environment, links, store, journal, transfers, holder })
    }

    /// The transfers under way.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Whether the environment's file has this agent: a release that began before it was taken out of there may ask it still.
    pub fn knows(&self, host: &HostName) -> bool {
        self.links.contains_key(host)
    }

    fn client(&self, host: &HostName) -> Result<AgentClient<Channel>, Problem> {
        let unknown =
            || Problem::new(Code::ConfigInvalid, format!("`{host}` has no address in the environment file"));
        let channel = self.links.get(host).cloned().ok_or_else(unknown)?;
        Ok(AgentClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// How a host stands, or why it could not be asked.
    pub async fn describe(&self, host: &HostName, timeout_ms: u64) -> Result<v1::AgentStatus, Problem> {
        let mut client = self.client(host)?;
        let request = agent_v1::DescribeRequest { environment: self.environment.to_string() };
        let mut described = bounded(host, timeout_ms, client.describe(request))
            .await
            .map_err(|problem| self.named(problem))?;
        let problem = described.problem.take().and_then(convert::problem_from_wire);
        described.problem = problem.map(|problem| convert::problem_to_wire(&self.named(problem)));
        Ok(described)
    }

    /// An order as it goes out, with the journal's newest entry.
    fn received(&self, order: &Order) -> ReceivedOrder {
        let head = *self.journal.head().borrow();
        ReceivedOrder {
            environment: self.environment.clone(),
            order: order.clone(),
            journal_seq: head.seq,
            journal_hash: head.hash,
            only_prepared: false,
        }
    }

    /// What visitors meet at a load balancer, from where it was read to, or from now on.
    pub(crate) async fn signals(
        &self,
        host: &HostName,
        so_far: &Read,
        timeout_ms: u64,
    ) -> Result<tonic::Streaming<v1::SignalTick>, Problem> {
        let mut client = self.client(host)?;
        let request = agent_v1::SignalsRequest {
            environment: self.environment.to_string(),
            life: so_far.life.clone(),
            after: so_far.number,
        };
        bounded(host, timeout_ms, client.signals(request))
            .await
            .map_err(|problem| self.named(problem).on(host))
    }

    /// Has a load balancer serve a renewed certificate.
    pub async fn deploy_certificate(
        &self,
        host: &HostName,
        request: agent_v1::DeployCertificateRequest,
        timeout_ms: u64,
    ) -> Result<agent_v1::Done, Problem> {
        let mut client = self.client(host)?;
        let deployed = bounded(host, timeout_ms, client.deploy_certificate(request)).await;
        deployed.map_err(|problem| self.named(problem))
    }

    /// Looks into a load balancer's tables of rate limits, after having it forget an address if the request names one.
    pub async fn rate_limits(
        &self,
        host: &HostName,
        request: agent_v1::RateLimitsRequest,
        timeout_ms: u64,
    ) -> Result<v1::RateLimitsReply, Problem> {
        let mut client = self.client(host)?;
        bounded(host, timeout_ms, client.rate_limits(request)).await.map_err(|problem| self.named(problem))
    }

    /// What an agent finds of all that orders will need of its host; `None` when it is too old to look.
    pub async fn diagnose(
        &self,
        host: &HostName,
        activation: &Activation,
        timeout_ms: u64,
    ) -> Result<Option<Vec<v1::Finding>>, Problem> {
        let mut client = self.client(host)?;
        let request = agent_v1::DiagnoseRequest {
            environment: self.environment.to_string(),
            restart: activation.restart.iter().map(ToString::to_string).collect(),
            hooks: activation.hooks.iter().map(ToString::to_string).collect(),
        };
        let call = async {
            match client.diagnose(request).await {
                Err(status) if status.code() == tonic::Code::Unimplemented => Ok(tonic::Response::new(None)),
                answer => answer.map(|response| response.map(Some)),
            }
        };
        match bounded(host, timeout_ms, call).await {
            Ok(answer) => Ok(answer.map(|answer| self.named_in(answer.findings))),
            // What is not in an agent's table of calls it refuses before it looks whether there is such a call.
            Err(problem) if problem.code == Code::NotAllowed => Ok(None),
            Err(problem) => Err(self.named(problem)),
        }
    }

    /// The agents do not know what people call their environment on the command line.
    fn named(&self, problem: Problem) -> Problem {
        problem.in_environment(&self.environment)
    }

    /// The same for what is to be done about findings.
    fn named_in(&self, mut findings: Vec<v1::Finding>) -> Vec<v1::Finding> {
        for finding in &mut findings {
            finding.fix = finding.fix.replace(" ENV", &format!(" {}", self.environment));
        }
        findings
    }

    async fn fence_call(
        &self,
        host: &HostName,
        request: agent_v1::FenceRequest,
        until: tokio::time::Instant,
    ) -> Result<agent_v1::FenceReply, Problem> {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut client = self.client(host)?;
        let answer = bounded(host, left_ms, client.fence(request)).await;
        answer.map_err(|problem| self.named(problem).aftermath(Aftermath::Unchanged))
    }

    /// Refuses to act on a journal that is older than what an agent has acted on: its tail was lost.
    async fn compare_head(&self, host: &HostName, fence: &agent_v1::FenceReply) -> Result<(), Problem> {
        let fence = stands_at(host, fence)?;
        let known = self.journal.hash_of(fence.head_seq).await?;
        receipt::journal_holds(&fence, known).map_err(|problem| problem.on(host))
    }
}

/// A number that no other life of a coordinator draws, from the standard library's keys: the system's own chance.
fn drawn() -> Arc<[u8]> {
    let half = || RandomState::new().build_hasher().finish().to_be_bytes();
    [half(), half()].concat().into()
}

/// Makes a call with a bound, and says which host did not answer.
async fn bounded<T>(
    host: &HostName,
    timeout_ms: u64,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Problem> {
    bounded_for(host, timeout_ms, None, call).await
}

/// The same for an order of this step, of which some take as long as the environment's file lets them.
async fn bounded_for<T>(
    host: &HostName,
    timeout_ms: u64,
    step: Option<Step>,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(Duration::from_millis(timeout_ms), call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            Err(located(tls::explain(&status, Code::AgentUnreachable, &format!("agent `{host}`")), host))
        }
        Err(_) => Err(late(host, timeout_ms, step)),
    }
}

/// An agent that did not answer in time. One with a database may be at work all along: then more time helps, and no restart.
fn late(host: &HostName, timeout_ms: u64, step: Option<Step>) -> Problem {
    let message = format!("no answer from agent `{host}` within {timeout_ms} ms");
    let problem =
        Problem::new(Code::AgentUnreachable, message).aftermath(Aftermath::Unknown).retry_useful().on(host);
    let service = format!("on `{host}`: `systemctl status 'pointsman-*agent'`");
    let Some((step, keys)) = step.and_then(|step| Some((step, database_keys(step)?))) else {
        return problem.hint(service);
    };
    problem
        .cause(format!("the agent may still be at `{step}`: {keys} in `[database]` of the environment's file bounds it"))
        .hint(format!(
            "how far it is: `pointsman db status ENV`; if it works, give it longer ({keys}, then on the coordinator: \
             `systemctl restart pointsman-coordinator`); if it does not, {service}"
        ))
}

/// The keys that say how long an attempt of a step of the database may take, as `Plan::attempt_ms` adds them up.
fn database_keys(step: Step) -> Option<&'static str> {
    match step {
        Step::Backup | Step::Restore | Step::Swap | Step::Unswap => Some("`backup`"),
        Step::Rehearse => Some("`backup` and `migrate`"),
        Step::Expand | Step::Contract => Some("`migrate`"),
        _ => None,
    }
}

fn located(problem: Problem, host: &HostName) -> Problem {
    let hint = format!("on `{host}`: `systemctl status 'pointsman-*agent'`");
    match problem.code {
        Code::AgentUnreachable => problem.on(host).hint(hint),
        _ => problem.on(host),
    }
}

impl GrpcFleet {
    /// Sends an order to be done, and waits for what came of it.
    async fn have_done(&self, received: &ReceivedOrder) -> Result<Evidence, Problem> {
        let host = &received.order.key.host;
        let (mut client, began_us) = (self.client(host)?, SystemClock.now_us());
        failpoint::pass("order-before-send");
        let left_ms = received.order.deadline.ms_since(SystemClock.now());
        let step = Some(received.order.key.step);
        let done = bounded_for(host, left_ms, step, client.perform(convert::order_to_wire(received)))
            .await
            .map_err(|problem| self.named(problem))?;
        failpoint::pass("order-after-answer");
        let exchange = Exchange { began_us, ended_us: SystemClock.now_us() };
        Ok(convert::evidence_from_wire(&done, exchange))
    }
}

impl Memory for GrpcFleet {
    async fn remembered(&self, host: &HostName, timeout_ms: u64) -> Result<Fence, Problem> {
        let until = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        let look = agent_v1::FenceRequest {
            environment: self.environment.to_string(),
            look: true,
            ..Default::default()
        };
        match self.fence_call(host, look, until).await {
            Ok(stands) => return stands_at(host, &stands),
            // An older agent knows no looking, and refuses to acknowledge epoch 0. It can describe itself.
            Err(problem) if problem.code == Code::Fenced => {}
            Err(problem) => return Err(problem),
        }
        let told = self.describe(host, timeout_ms).await?;
        // An agent that cannot read its own records says so, and names none.
        if let (true, Some(problem)) = (told.head_hash.is_empty(), told.problem) {
            return Err(convert::problem_from_wire(problem).unwrap_or_else(|| unread(host)));
        }
        let head_hash = told.head_hash.as_slice().try_into().map_err(|_| unread(host))?;
        Ok(Fence { epoch: Epoch(told.epoch), head_seq: told.head_seq, head_hash })
    }

    async fn forget(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        let mut client = self.client(host)?;
        let accepted = *self.journal.head().borrow();
        let request = agent_v1::FenceRequest {
            environment: self.environment.to_string(),
            epoch: epoch.0,
            forget: true,
            head_seq: accepted.seq,
            head_hash: accepted.hash.to_vec(),
            ..Default::default()
        };
        let forgotten = bounded(host, timeout_ms, client.fence(request)).await;
        let stands = forgotten.map_err(|problem| self.named(problem))?;
        if stands.head_seq != accepted.seq {
            let environment = &self.environment;
            warn!(%environment, %host, "an older agent keeps no entry of the accepted journal: only its epoch keeps older copies away");
        }
        Ok(())
    }
}

/// Where an agent says that its fence stands.
fn stands_at(host: &HostName, told: &agent_v1::FenceReply) -> Result<Fence, Problem> {
    let head_hash = told.head_hash.as_slice().try_into().map_err(|_| unread(host))?;
    Ok(Fence { epoch: Epoch(told.epoch), head_seq: told.head_seq, head_hash })
}

/// An agent that does not say where its fence stands.
fn unread(host: &HostName) -> Problem {
    Problem::new(Code::MessageInvalid, "the agent named a journal entry without its hash").on(host)
}

impl Fleet for GrpcFleet {
    async fn fence(&self, host: &HostName, epoch: Epoch, timeout_ms: u64) -> Result<(), Problem> {
        let look = agent_v1::FenceRequest {
            environment: self.environment.to_string(),
            epoch: epoch.0,
            look: true,
            holder: self.holder.to_vec(),
            ..Default::default()
        };
        // Before the agent refuses all others: one that holds a copy of an older journal must not take the orders away from
        // whoever holds the newest. Both calls are within the bound of one.
        let until = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        let stands = self.fence_call(host, look.clone(), until).await?;
        self.compare_head(host, &stands).await?;
        // Fencing twice is fencing once, so a lost answer leaves nothing in doubt.
        let fence = self.fence_call(host, agent_v1::FenceRequest { look: false, ..look }, until).await?;
        self.compare_head(host, &fence).await
    }

    async fn commit(&self, order: &Order) -> Result<Evidence, Problem> {
        self.have_done(&ReceivedOrder { only_prepared: true, ..self.received(order) }).await
    }

    async fn prepare(&self, order: &Order, timeout_ms: u64) -> Result<Evidence, Problem> {
        let (host, began_us) = (&order.key.host, SystemClock.now_us());
        let mut client = self.client(host)?;
        let prepared = client.prepare(convert::order_to_wire(&self.received(order)));
        // Nothing takes effect while something is prepared, so a lost answer leaves nothing in doubt.
        let done = bounded(host, timeout_ms, prepared)
            .await
            .map_err(|problem| self.named(problem).aftermath(Aftermath::Unchanged))?;
        let exchange = Exchange { began_us, ended_us: SystemClock.now_us() };
        Ok(convert::evidence_from_wire(&done, exchange))
    }

    async fn perform(&self, order: &Order) -> Result<Evidence, Problem> {
        let host = &order.key.host;
        if let Action::Stage { artifact } = &order.action {
            let scope = (&self.environment, order.epoch);
            send_artifact(self.client(host)?, self.store.clone(), &self.transfers, scope, host, *artifact)
                .await
                .map_err(|problem| self.named(problem).on(host))?;
        }
        self.have_done(&self.received(order)).await
    }

    async fn observe(&self, host: &HostName, action: &Action, timeout_ms: u64) -> Result<Evidence, Problem> {
        let mut client = self.client(host)?;
        let request = agent_v1::ObserveRequest {
            environment: self.environment.to_string(),
            host: host.to_string(),
            action: Some(convert::action_to_wire(action)),
        };
        let began_us = SystemClock.now_us();
        let done = bounded(host, timeout_ms, client.observe(request))
            .await
            .map_err(|problem| self.named(problem))?;
        let exchange = Exchange { began_us, ended_us: SystemClock.now_us() };
        Ok(convert::evidence_from_wire(&done, exchange))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_takes_longer_is_told_which_keys_bound_it() {
        let host = HostName::parse("db").unwrap();
        for (step, key) in [
            (Step::Backup, "longer (`backup`, then"),
            (Step::Rehearse, "longer (`backup` and `migrate`, then"),
            (Step::Expand, "longer (`migrate`, then"),
        ] {
            let problem = late(&host, 3_600_000, Some(step));
            assert_eq!((problem.code, problem.aftermath), (Code::AgentUnreachable, Aftermath::Unknown));
            assert!(problem.hint.contains(key) && problem.hint.contains("db status ENV"), "{problem:?}");
        }
        for step in [None, Some(Step::Stage)] {
            let problem = late(&host, 5_000, step);
            assert_eq!(problem.hint, "on `db`: `systemctl status 'pointsman-*agent'`");
            assert!(problem.causes.is_empty());
        }
    }

    #[test]
    fn every_step_of_the_database_is_bounded_by_keys_that_are_named() {
        for step in Step::ALL {
            let works = step.is_of_database() || step == Step::Unswap;
            assert_eq!(database_keys(step).is_some(), works, "{step}");
        }
    }
}
