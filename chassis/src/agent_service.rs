//! The gRPC service of every agent: takes orders in, fences, answers repeated ones from receipts, and runs the
//! rest so that a lost connection does not stop them half-way. What an order does is the agent's [`Hands`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_core::ports::Clock as _;
use pointsman_core::receipt::{self, Admission, Fate};
use pointsman_core::{
    Action, Activation, Aftermath, Code, EnvironmentName, Epoch, Evidence, HostName, Order, OrderDigest,
    OrderKey, PeerName, Problem, ReleaseId, Step,
};
use pointsman_proto::agent_v1::agent_server::Agent;
use pointsman_proto::convert::{self, ReceivedOrder};
use pointsman_proto::{agent_v1, status_of_problem, v1};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::SystemClock;
use crate::access::{peer_of, same_environment};
use crate::artifact::{Offer, join_offer};
use crate::failpoint;
use crate::ledger::Ledger;
use crate::order_digest;
use crate::service::Shutdown;
use crate::site_certificate::{CertifiedName, SiteCertificate};
use crate::tls::Credentials;

/// Asked right before every visible change of a long order: does the coordinator that wants it still rule?
#[derive(Clone)]
pub struct Rule {
    ledger: Ledger,
    epoch: Arc<AtomicU64>,
}

impl Rule {
    fn of(ledger: &Ledger, epoch: Epoch) -> Self {
        Self { ledger: ledger.clone(), epoch: Arc::new(AtomicU64::new(epoch.0)) }
    }

    /// The epoch of the coordinator in whose name the order is done: of the one that gave it or, after a restart, of one
    /// that wants the same.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Refuses when a newer coordinator has taken over.
    pub fn check(&self) -> Result<(), Problem> {
        self.ledger.still_rules(self.epoch())
    }

    /// A coordinator that was started anew wants the same: what is under way goes on in its name.
    fn adopt(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::SeqCst);
    }
}

/// Longest number by which a coordinator says who it is: what is beyond that is not kept.
const MAX_HOLDER_BYTES: usize = 32;

/// How often an order is taken in anew because what was under way for an older coordinator ended for that reason.
const TAKEN_IN_AT_MOST: u32 = 3;

/// What one kind of agent can do on its host.
pub trait Hands: Send + Sync + 'static {
    /// Does what an order says, and confirms it by looking. Doing it again must change nothing.
    fn act(&self, order: &Order, rule: &Rule) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// Makes everything ready for an order, without any effect.
    fn prepare(&self, order: &Order, rule: &Rule) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// Does what an order says by what was prepared for it, or refuses where that does not hold any more. A role that
    /// prepares nothing has nothing to take.
    fn commit(&self, order: &Order, rule: &Rule) -> impl Future<Output = Result<Evidence, Problem>> + Send {
        let _ = (order, rule);
        async { Err(not_a_balancer("moves that are prepared")) }
    }

    /// Looks, and changes nothing.
    fn observe(&self, action: &Action) -> impl Future<Output = Result<Evidence, Problem>> + Send;

    /// How the host stands.
    fn describe(&self) -> impl Future<Output = v1::AgentStatus> + Send;

    /// Looks at everything that orders will need, on a web host at what follows a change of version. A role without
    /// checks of its own has nothing to say.
    fn diagnose(&self, activation: &Activation) -> impl Future<Output = Vec<v1::Finding>> + Send {
        _ = activation;
        std::future::ready(Vec::new())
    }

    /// Takes an offer of an artifact.
    fn offer(
        &self,
        offer: Offer,
        rule: &Rule,
    ) -> impl Future<Output = Result<v1::ArtifactNeed, Problem>> + Send;

    /// Takes what was missing of an artifact. The first message, which names it, has been read.
    fn contents(
        &self,
        first: v1::ContentPiece,
        messages: Streaming<v1::ContentPiece>,
        rule: &Rule,
    ) -> impl Future<Output = Result<v1::ContentReceipt, Problem>> + Send;

    /// What visitors meet, from a tick on.
    fn signals(&self, _from: SignalsFrom) -> Result<SignalTicks, Problem> {
        Err(Problem::new(Code::WrongAddressee, "this agent is not a load balancer's: no visitor passes it"))
    }

    /// Has a renewed certificate served, which may lack the names in `drop`. What only a load balancer does, others refuse.
    fn deploy_certificate(
        &self,
        path: &str,
        certificate: SiteCertificate,
        drop: &[CertifiedName],
        rule: &Rule,
    ) -> impl Future<Output = Result<Evidence, Problem>> + Send {
        let _ = (path, certificate, drop, rule);
        async { Err(not_a_balancer("certificates")) }
    }

    /// Looks into the tables of rate limits, after forgetting one address if the request names one.
    fn rate_limits(
        &self,
        request: &agent_v1::RateLimitsRequest,
        rule: &Rule,
    ) -> impl Future<Output = Result<v1::RateLimitsReply, Problem>> + Send {
        let _ = (request, rule);
        async { Err(not_a_balancer("rate limits")) }
    }
}

fn not_a_balancer(what: &str) -> Problem {
    Problem::new(
        Code::WrongAddressee,
        format!("this agent is on no load balancer: it has nothing to do with {what}"),
    )
    .hint("compare the agents named in the environment file with their roles")
}

/// Where a reader of signals goes on: after this tick of this life of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalsFrom {
    /// The life; empty for whoever has read nothing yet.
    pub life: String,
    /// The tick's number.
    pub after: u64,
}

/// Ticks as they come.
pub type SignalTicks = Pin<Box<dyn Stream<Item = Result<v1::SignalTick, Status>> + Send>>;

type Settled = Option<Result<Evidence, Problem>>;
type Running = BTreeMap<(ReleaseId, OrderKey), UnderWay>;

/// An order that is being done.
struct UnderWay {
    digest: OrderDigest,
    rule: Rule,
    settled: watch::Receiver<Settled>,
}

/// The service.
pub struct AgentService<H> {
    hands: Arc<H>,
    ledger: Ledger,
    own: PeerName,
    running: Arc<Mutex<Running>>,
    shutdown: Option<Shutdown>,
    credentials: Option<Arc<Credentials>>,
}

/// The room for the way back was used, or never could be set aside.
fn no_room(problem: Problem) -> v1::Finding {
    v1::Finding {
        verdict: "fail".to_owned(),
        check: "room".to_owned(),
        what: "no room is set aside for the way back".to_owned(),
        why: "on a full disk this host could not be led back, and no release begins".to_owned(),
        fix: problem.hint.clone(),
        problem: Some(convert::problem_to_wire(&problem)),
        ..Default::default()
    }
}

fn not_whole(problem: Problem) -> v1::Finding {
    v1::Finding {
        verdict: "fail".to_owned(),
        check: "receipts".to_owned(),
        what: problem.message.clone(),
        why: "an order that meets that fails, also one that leads back".to_owned(),
        fix: problem.hint.clone(),
        problem: Some(convert::problem_to_wire(&problem)),
        ..Default::default()
    }
}

/// What was put aside at a start stays until a person has looked at it.
fn were_damaged(kept: &[PathBuf]) -> Option<v1::Finding> {
    let newest = kept.last()?.display();
    Some(v1::Finding {
        verdict: "warn".to_owned(),
        check: "receipts".to_owned(),
        what: format!("the receipts were damaged, and are put aside as `{newest}`"),
        why: "the disk may damage more".to_owned(),
        fix: format!("`dmesg | tail`, `findmnt -T {newest}`; then remove it"),
        ..Default::default()
    })
}

impl<H: Hands> AgentService<H> {
    /// The service of the host that `own` names.
    pub fn new(hands: H, ledger: Ledger, own: PeerName) -> Self {
        Self {
            hands: Arc::new(hands),
            ledger,
            own,
            running: Arc::default(),
            shutdown: None,
            credentials: None,
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Ends what it streams when the daemon is to end.
    #[must_use]
    pub(crate) fn until(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }

    /// Tells with how it stands when the certificate that it shows ends, also after that was renewed.
    #[must_use]
    pub fn showing(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = Some(credentials);
        self
    }

    fn for_us<T>(&self, request: &Request<T>, environment: &str) -> Result<EnvironmentName, Status> {
        let environment =
            convert::field("environment", environment).map_err(|problem| status_of_problem(&problem))?;
        let peer = peer_of(request)?;
        self.right_environment(&environment)
            .and_then(|()| same_environment(&peer, &environment))
            .map_err(|problem| status_of_problem(&problem))?;
        Ok(environment)
    }

    fn right_environment(&self, environment: &EnvironmentName) -> Result<(), Problem> {
        if *environment == self.own.environment {
            return Ok(());
        }
        let message =
            format!("this agent belongs to environment `{}`, not `{environment}`", self.own.environment);
        Err(Problem::new(Code::WrongAddressee, message))
    }

    fn right_host(&self, host: &HostName) -> Result<(), Problem> {
        if host.as_str() == self.own.name {
            return Ok(());
        }
        let message = format!("this agent is `{}`, not `{host}`", self.own.name);
        Err(Problem::new(Code::WrongAddressee, message)
            .hint("compare the hosts' addresses in the environment file with their certificates"))
    }

    fn rule(&self, epoch: Epoch) -> Rule {
        Rule::of(&self.ledger, epoch)
    }

    /// Whether an order has reached the right host in time. One that has not is refused for good: whoever sent it goes on as if it
    /// were nowhere.
    async fn acceptable(&self, received: &ReceivedOrder) -> Result<(), Problem> {
        self.right_environment(&received.environment)?;
        self.right_host(&received.order.key.host)?;
        let Err(late) = receipt::in_time(&received.order, SystemClock.now()) else { return Ok(()) };
        let (ledger, order) = (self.ledger.clone(), received.clone());
        blocking(move || ledger.hear(&order)).await?;
        Err(late)
    }

    /// Takes an order in and makes everything ready for it. From then on its receipt stands as begun: what it says may
    /// come at any moment, and then little is left to do.
    async fn prepare_order(&self, received: ReceivedOrder) -> Result<Evidence, Problem> {
        self.acceptable(&received).await?;
        let digest = order_digest(&received.order);
        let (ledger, order) = (self.ledger.clone(), received.clone());
        if let Admission::Done(evidence) = blocking(move || ledger.admit(&order, digest)).await? {
            return Ok(evidence);
        }
        let rule = self.rule(received.order.epoch);
        let prepared = self.hands.prepare(&received.order, &rule).await;
        if let Err(problem) = &prepared
            && problem.aftermath == Aftermath::Unchanged
        {
            let (ledger, order) = (self.ledger.clone(), received.order);
            blocking(move || ledger.forget(&order.release, &order.key)).await?;
        }
        prepared
    }

    /// Runs an order, or waits for the run that is under way, or answers from the receipt.
    async fn perform_order(&self, received: ReceivedOrder) -> Result<Evidence, Problem> {
        self.acceptable(&received).await?;
        let digest = order_digest(&received.order);
        let id = (received.order.release.clone(), received.order.key.clone());
        let mut taken_in = 1;
        loop {
            let mut settled = match self.running_or_admitted(&received, &id, digest).await? {
                Begin::Answered(evidence) => return Ok(evidence),
                Begin::UnderWay(settled) => settled,
            };
            let settled = settled.wait_for(Option::is_some).await.ok().and_then(|settled| settled.clone());
            match settled.unwrap_or_else(|| Err(lost(&id.1))) {
                // What was under way was an older coordinator's and stopped for that reason, just before it was adopted.
                Err(problem)
                    if problem.code == Code::Fenced
                        && taken_in < TAKEN_IN_AT_MOST
                        && self.ledger.still_rules(received.order.epoch).is_ok() =>
                {
                    taken_in += 1;
                }
                result => return result,
            }
        }
    }

    async fn running_or_admitted(
        &self,
        received: &ReceivedOrder,
        id: &(ReleaseId, OrderKey),
        digest: OrderDigest,
    ) -> Result<Begin, Problem> {
        {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(under_way) = running.get(id) {
                self.ledger.still_rules(received.order.epoch)?;
                if under_way.digest != digest {
                    return Err(reused(id));
                }
                under_way.rule.adopt(received.order.epoch);
                return Ok(Begin::UnderWay(under_way.settled.clone()));
            }
        }
        failpoint::pass("order-before-receipt");
        let (ledger, order) = (self.ledger.clone(), received.clone());
        let admission = blocking(move || ledger.admit(&order, digest)).await?;
        if let Admission::Done(evidence) = admission {
            return Ok(Begin::Answered(evidence));
        }
        let (settle, settled) = watch::channel(None);
        let rule = self.rule(received.order.epoch);
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(under_way) = running.get(id) {
                under_way.rule.adopt(received.order.epoch);
                return Ok(Begin::UnderWay(under_way.settled.clone()));
            }
            let under_way = UnderWay { digest, rule: rule.clone(), settled: settled.clone() };
            running.insert(id.clone(), under_way);
        }
        // On a task of its own: the order goes on when the connection that brought it is lost.
        tokio::spawn(run(Arc::clone(&self.hands), rule, received.clone(), Arc::clone(&self.running), settle));
        Ok(Begin::UnderWay(settled))
    }
}

enum Begin {
    Answered(Evidence),
    UnderWay(watch::Receiver<Settled>),
}

fn lost(key: &OrderKey) -> Problem {
    Problem::new(Code::AnswerLost, format!("step `{}` ended without an answer", key.step))
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .hint("look at the agent's log: `journalctl -u 'pointsman-*agent' -n 50`")
}

fn reused((release, key): &(ReleaseId, OrderKey)) -> Problem {
    Problem::new(
        Code::KeyReused,
        format!("step `{}` of release `{release}` is running with another content", key.step),
    )
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        Err(Problem::new(Code::ReceiptsUnavailable, "the agent's own work ended abruptly")
            .aftermath(Aftermath::Unknown)
            .retry_useful()
            .because(&error))
    })
}

/// Takes the order off the list of running ones whatever happens, also when its action panics.
struct Ended {
    running: Arc<Mutex<Running>>,
    id: (ReleaseId, OrderKey),
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn run<H: Hands>(
    hands: Arc<H>,
    rule: Rule,
    received: ReceivedOrder,
    running: Arc<Mutex<Running>>,
    settle: watch::Sender<Settled>,
) {
    let ReceivedOrder { order, only_prepared, .. } = received;
    let ended = Ended { running, id: (order.release.clone(), order.key.clone()) };
    failpoint::pass("order-begun");
    let acted = match only_prepared {
        true => hands.commit(&order, &rule).await,
        false => hands.act(&order, &rule).await,
    };
    failpoint::pass("order-acted");
    let recorded = record(rule.ledger, &order, acted).await;
    failpoint::pass("order-settled");
    match &recorded {
        Ok(evidence) => {
            info!(release = %order.release, step = %order.key.step, epoch = order.epoch.0, already = evidence.already, detail = evidence.detail, "order done");
        }
        Err(problem) => {
            warn!(release = %order.release, step = %order.key.step, code = %problem.code, problem = %problem.in_full(), "order failed");
        }
    }
    drop(ended);
    // Nobody may be waiting any more; the receipt answers them later.
    let _ = settle.send(Some(recorded));
}

/// Makes the answer durable before anybody hears it. What changed nothing is forgotten and may come again.
async fn record(
    ledger: Ledger,
    order: &Order,
    acted: Result<Evidence, Problem>,
) -> Result<Evidence, Problem> {
    let (release, key, looked) = (order.release.clone(), order.key.clone(), order.action.only_looks());
    blocking(move || match acted {
        Ok(evidence) if looked => ledger.forget(&release, &key).map(|()| evidence),
        Ok(evidence) => ledger.settle(&release, &key, &evidence).map(|()| evidence),
        Err(problem) if problem.aftermath == Aftermath::Unchanged => {
            ledger.forget(&release, &key)?;
            Err(problem)
        }
        // Half done or uncertain: the receipt stays `started`, and the same order goes on from what it finds.
        Err(problem) => Err(problem),
    })
    .await
}

/// Evidence for the wire, of an order that arrived at this moment.
fn answer(evidence: &Evidence, arrived_us: u64) -> agent_v1::Done {
    let exchange = convert::Exchange { began_us: arrived_us, ended_us: SystemClock.now_us() };
    convert::evidence_to_wire(evidence, exchange)
}

fn reply<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| status_of_problem(&problem))
}

#[tonic::async_trait]
impl<H: Hands> Agent for AgentService<H> {
    type SignalsStream = SignalTicks;

    async fn signals(
        &self,
        request: Request<agent_v1::SignalsRequest>,
    ) -> Result<Response<SignalTicks>, Status> {
        self.for_us(&request, &request.get_ref().environment)?;
        let agent_v1::SignalsRequest { life, after, .. } = request.into_inner();
        let ticks = self.hands.signals(SignalsFrom { life, after });
        reply(ticks.map(|ticks| match self.shutdown.clone() {
            Some(shutdown) => Box::pin(shutdown.bounds(ticks)),
            None => ticks,
        }))
    }

    async fn health(&self, _: Request<v1::HealthRequest>) -> Result<Response<v1::HealthReply>, Status> {
        Ok(Response::new(v1::HealthReply { version: env!("CARGO_PKG_VERSION").to_owned() }))
    }

    async fn fence(
        &self,
        request: Request<agent_v1::FenceRequest>,
    ) -> Result<Response<agent_v1::FenceReply>, Status> {
        self.for_us(&request, &request.get_ref().environment)?;
        let (ledger, asked) = (self.ledger.clone(), request.into_inner());
        let epoch = Epoch(asked.epoch);
        let fenced = blocking(move || match (asked.look, asked.forget) {
            (true, _) => ledger.fence_state(),
            (false, true) => ledger.forget_all(&convert::accepted_from_wire(&asked)?),
            (false, false) => {
                ledger.fence(epoch, asked.holder.get(..MAX_HOLDER_BYTES).unwrap_or(&asked.holder))
            }
        })
        .await;
        reply(fenced.map(|fence| agent_v1::FenceReply {
            epoch: fence.epoch.0,
            head_seq: fence.head_seq,
            head_hash: fence.head_hash.to_vec(),
        }))
    }

    async fn prepare(&self, request: Request<agent_v1::Order>) -> Result<Response<agent_v1::Done>, Status> {
        let arrived_us = SystemClock.now_us();
        self.for_us(&request, &request.get_ref().environment)?;
        let prepared = match convert::order_from_wire(request.get_ref()) {
            Ok(received) => self.prepare_order(received).await,
            Err(problem) => Err(problem),
        };
        reply(prepared.map(|evidence| answer(&evidence, arrived_us)))
    }

    async fn perform(&self, request: Request<agent_v1::Order>) -> Result<Response<agent_v1::Done>, Status> {
        let arrived_us = SystemClock.now_us();
        self.for_us(&request, &request.get_ref().environment)?;
        let performed = match convert::order_from_wire(request.get_ref()) {
            Ok(received) => self.perform_order(received).await,
            Err(problem) => Err(problem),
        };
        reply(performed.map(|evidence| answer(&evidence, arrived_us)))
    }

    async fn observe(
        &self,
        request: Request<agent_v1::ObserveRequest>,
    ) -> Result<Response<agent_v1::Done>, Status> {
        let arrived_us = SystemClock.now_us();
        self.for_us(&request, &request.get_ref().environment)?;
        let asked = || -> Result<Action, Problem> {
            self.right_host(&convert::field("host", &request.get_ref().host)?)?;
            let wire = request.get_ref().action.clone().unwrap_or_default();
            convert::action_from_wire(&wire)
        };
        let observed = match asked() {
            Ok(action) => self.hands.observe(&action).await,
            Err(problem) => Err(problem),
        };
        reply(observed.map(|evidence| answer(&evidence, arrived_us)))
    }

    async fn query(
        &self,
        request: Request<agent_v1::QueryRequest>,
    ) -> Result<Response<agent_v1::QueryReply>, Status> {
        use agent_v1::query_reply::Fate as Wire;
        self.for_us(&request, &request.get_ref().environment)?;
        let asked = || -> Result<(ReleaseId, OrderKey), Problem> {
            let wrong = || Problem::new(Code::MessageInvalid, "field `step` of the message names no step");
            let step = Step::parse(&request.get_ref().step).ok_or_else(wrong)?;
            let host = convert::field("host", &self.own.name)?;
            Ok((convert::field("release", &request.get_ref().release)?, OrderKey { step, host }))
        };
        let (release, key) = asked().map_err(|problem| status_of_problem(&problem))?;
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&(release.clone(), key.clone()));
        let ledger = self.ledger.clone();
        let journal_seq = request.get_ref().journal_seq;
        let fate = blocking(move || ledger.fate(&release, &key, journal_seq)).await;
        reply(fate.map(|fate| match fate {
            _ if running => agent_v1::QueryReply { fate: Wire::Running.into(), done: None },
            Fate::NeverSeen => agent_v1::QueryReply { fate: Wire::NeverSeen.into(), done: None },
            // Begun before this process started, or before its records begin: the same order, sent again, finds out.
            Fate::Started | Fate::Unknown => agent_v1::QueryReply { fate: Wire::Unknown.into(), done: None },
            Fate::Done(evidence) => {
                agent_v1::QueryReply { fate: Wire::Done.into(), done: Some(answer(&evidence, 0)) }
            }
        }))
    }

    async fn describe(
        &self,
        request: Request<agent_v1::DescribeRequest>,
    ) -> Result<Response<v1::AgentStatus>, Status> {
        self.for_us(&request, &request.get_ref().environment)?;
        let mut described = self.hands.describe().await;
        described.host.clone_from(&self.own.name);
        described.role = self.own.role.to_string();
        described.version = env!("CARGO_PKG_VERSION").to_owned();
        described.certificate_ends_s =
            self.credentials.as_ref().map_or(0, |credentials| credentials.end_to_tell());
        let ledger = self.ledger.clone();
        match blocking(move || ledger.fence_state()).await {
            Ok(fence) => {
                (described.head_seq, described.head_hash) = (fence.head_seq, fence.head_hash.to_vec());
                described.epoch = fence.epoch.0;
            }
            Err(problem) => {
                described.problem.get_or_insert_with(|| convert::problem_to_wire(&problem));
            }
        }
        Ok(Response::new(described))
    }

    async fn diagnose(
        &self,
        request: Request<agent_v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseReply>, Status> {
        let asked = request.get_ref();
        self.for_us(&request, &asked.environment)?;
        let activation = convert::activation_from_wire("diagnose_request", &asked.restart, &asked.hooks)
            .map_err(|problem| status_of_problem(&problem))?;
        let mut findings = self.hands.diagnose(&activation).await;
        let ledger = self.ledger.clone();
        let found = blocking(move || {
            let room = ledger.keep_room().err().map(no_room);
            let damage = ledger.must_be_whole().err().map(not_whole);
            Ok(room.into_iter().chain(damage).chain(were_damaged(&ledger.put_aside())).collect::<Vec<_>>())
        });
        findings.extend(found.await.unwrap_or_else(|problem| vec![not_whole(problem)]));
        for finding in &mut findings {
            finding.subject.clone_from(&self.own.name);
        }
        Ok(Response::new(v1::DiagnoseReply { findings }))
    }

    async fn offer_artifact(
        &self,
        request: Request<Streaming<v1::ArtifactOffer>>,
    ) -> Result<Response<v1::ArtifactNeed>, Status> {
        let peer = peer_of(&request)?;
        let offered = async {
            let admit = |environment: &EnvironmentName, epoch: Epoch| {
                self.right_environment(environment)?;
                same_environment(&peer, environment)?;
                self.rule(epoch).check()
            };
            let joined = join_offer(request.into_inner(), admit);
            let offer = tokio::time::timeout(OFFER, joined).await.map_err(|_| too_slow())??;
            let rule = self.rule(offer.epoch);
            rule.check()?;
            self.hands.offer(offer, &rule).await
        };
        reply(offered.await)
    }

    async fn send_contents(
        &self,
        request: Request<Streaming<v1::ContentPiece>>,
    ) -> Result<Response<v1::ContentReceipt>, Status> {
        let peer = peer_of(&request)?;
        let received = async {
            let mut messages = request.into_inner();
            let first = tokio::time::timeout(OFFER, messages.message()).await.map_err(|_| too_slow())?;
            let first = first.map_err(|status| too_slow().because(&status))?.ok_or_else(too_slow)?;
            let environment = convert::field("environment", &first.environment)?;
            self.right_environment(&environment)?;
            same_environment(&peer, &environment)?;
            let rule = self.rule(Epoch(first.epoch));
            rule.check()?;
            self.hands.contents(first, messages, &rule).await
        };
        reply(received.await)
    }

    async fn deploy_certificate(
        &self,
        mut request: Request<agent_v1::DeployCertificateRequest>,
    ) -> Result<Response<agent_v1::Done>, Status> {
        let arrived_us = SystemClock.now_us();
        let pem = Zeroizing::new(std::mem::take(&mut request.get_mut().pem));
        self.for_us(&request, &request.get_ref().environment)?;
        let asked = request.into_inner();
        let rule = self.rule(Epoch(asked.epoch));
        let hands = Arc::clone(&self.hands);
        let begun = || -> Result<(SiteCertificate, Vec<CertifiedName>), Problem> {
            self.right_host(&convert::field("host", &asked.host)?)?;
            rule.check()?;
            let names = asked.drop_names.iter().map(|name| convert::field("drop_names", name));
            Ok((SiteCertificate::parse(&pem)?, names.collect::<Result<_, _>>()?))
        };
        let deployed = match begun() {
            // On a task of its own: it goes on to an end when the connection that brought it is lost.
            Ok((certificate, drop)) => {
                let (rule, path) = (rule.clone(), asked.path);
                let task = async move { hands.deploy_certificate(&path, certificate, &drop, &rule).await };
                tokio::spawn(task).await.unwrap_or_else(|error| Err(ended_abruptly(&error)))
            }
            Err(problem) => Err(problem),
        };
        match &deployed {
            Ok(evidence) => {
                info!(already = evidence.already, detail = evidence.detail, "certificate deployed");
            }
            Err(problem) => {
                warn!(code = %problem.code, problem = %problem.in_full(), "certificate not deployed");
            }
        }
        reply(deployed.map(|evidence| answer(&evidence, arrived_us)))
    }

    async fn rate_limits(
        &self,
        request: Request<agent_v1::RateLimitsRequest>,
    ) -> Result<Response<v1::RateLimitsReply>, Status> {
        self.for_us(&request, &request.get_ref().environment)?;
        let asked = request.into_inner();
        let looked = async {
            self.right_host(&convert::field("host", &asked.host)?)?;
            let rule = self.rule(Epoch(asked.epoch));
            rule.check()?;
            self.hands.rate_limits(&asked, &rule).await
        };
        reply(looked.await)
    }
}

fn ended_abruptly(error: &tokio::task::JoinError) -> Problem {
    // What a panic says may hold a part of what it was about.
    let how = if error.is_panic() { "it panicked" } else { "it was stopped" };
    Problem::new(Code::AnswerLost, "deploying the certificate ended without an answer")
        .aftermath(Aftermath::Unknown)
        .retry_useful()
        .cause(how)
        .hint("see what is served: `pointsman cert show ENV`")
}

/// Longest time for an offer to arrive: a manifest of the largest allowed size over a slow line.
const OFFER: Duration = Duration::from_secs(120);

fn too_slow() -> Problem {
    Problem::new(Code::TransferBroken, "a transfer began with nothing, or too slowly").retry_useful()
}
