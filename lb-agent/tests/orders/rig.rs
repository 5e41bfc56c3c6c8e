//! An lb-agent in the test's own process: its real service, called as the coordinator calls it, and its state in a
//! folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_chassis::agent_service::{AgentService, SignalTicks};
use pointsman_chassis::ledger::Ledger;
use pointsman_chassis::tls::Peer;
use pointsman_core::{
    Action, Aftermath, Code, Epoch, Evidence, HostName, Order, OrderKey, PeerName, Problem, ReleaseId, Route,
    Step, Timestamp,
};
use pointsman_lb_agent::{Config, LbHands, RouteFile};
use pointsman_proto::agent_v1::agent_server::Agent as _;
use pointsman_proto::convert::{self, ReceivedOrder};
use pointsman_proto::{agent_v1, problem_of_status, v1};
use tempfile::TempDir;

use crate::fake::{Fake, KEY};

/// Where every story begins, and where most lead.
pub const P: &str = "be_blue:be_green:0:5";
pub const V: &str = "be_green:be_blue:0:6";

pub fn route(text: &str) -> Route {
    Route::parse(text).unwrap()
}

/// What a rig is made of.
pub struct Setup {
    pub map: PathBuf,
    pub key: String,
    pub socket: PathBuf,
    pub master: Option<PathBuf>,
    pub frontend: SocketAddr,
    pub state: PathBuf,
    /// Where access lines are listened for, if anywhere.
    pub signals: Option<SocketAddr>,
    /// More lines of `[haproxy]`, and tables after it.
    pub more: String,
}

impl Setup {
    /// An agent beside an HAProxy whose parts lie in this folder; it takes no access lines in.
    pub fn beside(folder: &Path, frontend: SocketAddr) -> Self {
        Self {
            map: folder.join("route.map"),
            key: KEY.to_owned(),
            socket: folder.join("admin.sock"),
            master: Some(folder.join("master.sock")),
            frontend,
            state: folder.join("state"),
            signals: None,
            more: String::new(),
        }
    }
}

/// The agent alone.
pub struct Agent {
    pub service: AgentService<LbHands>,
    pub hands: LbHands,
    pub ledger: Ledger,
    pub map: PathBuf,
    pub state: PathBuf,
    orders: AtomicU64,
}

/// The agent, with a fake HAProxy.
pub struct Rig {
    pub agent: Agent,
    pub fake: Fake,
    pub folder: TempDir,
}

fn peer(uri: &str) -> Peer {
    Peer { name: PeerName::parse(uri).unwrap(), serial: "01".to_owned(), not_before: 0, not_after: i64::MAX }
}

fn asked<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(peer("spiffe://test/env/production/role/coordinator/host/c1"));
    request
}

pub fn problem(status: tonic::Status) -> Problem {
    problem_of_status(&status, Code::AgentUnreachable, "lb1")
}

pub fn config(setup: &Setup) -> Config {
    let master = setup
        .master
        .as_ref()
        .map_or(String::new(), |path| format!("master = {:?}", path.display().to_string()));
    let signals = setup.signals.map_or(String::new(), |listen| format!("[signals]\nlisten = \"{listen}\"\n"));
    let text = format!(
        r#"listen = "127.0.0.1:1"
state = {:?}
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
socket = {:?}
{master}
map = {:?}
key = {:?}
backends = ["be_blue", "be_green", "be_canary", "be_nowhere"]
maintenance_backend = "be_maint"
{}
[frontend]
address = "{}"
host = "www.example.org"
{signals}"#,
        setup.state.display().to_string(),
        setup.socket.display().to_string(),
        setup.map.display().to_string(),
        setup.key,
        setup.more,
        setup.frontend,
    );
    pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap()
}

/// What an answer says, without the times that it carries.
fn evidence(done: &agent_v1::Done) -> Evidence {
    let exchange = convert::Exchange { began_us: 0, ended_us: 0 };
    Evidence { effect_at_us: None, ..convert::evidence_from_wire(done, exchange) }
}

impl Agent {
    pub fn start(setup: &Setup) -> Self {
        std::fs::create_dir_all(&setup.state).unwrap();
        Self::of(config(setup), setup.map.clone())
    }

    /// An agent of any configuration; `map` is where its route file lies.
    pub fn of(config: Config, map: PathBuf) -> Self {
        let (state, gathers) = (config.state.clone(), config.signals.is_some());
        let ledger = Ledger::open(&state.join("receipts.db")).unwrap();
        let hands = LbHands::new(config).unwrap();
        let own = PeerName::parse("spiffe://test/env/production/role/lb-agent/host/lb1").unwrap();
        let service = AgentService::new(hands.clone(), ledger.clone(), own);
        if gathers {
            let gathering = hands.clone();
            tokio::spawn(async move { gathering.gather_signals().await });
        }
        Self { service, hands, ledger, map, state, orders: AtomicU64::new(1) }
    }

    /// A new order.
    pub fn order(&self, action: Action) -> ReceivedOrder {
        let number = self.orders.fetch_add(1, Ordering::SeqCst);
        ReceivedOrder {
            environment: "production".parse().unwrap(),
            order: Order {
                release: ReleaseId::parse(&format!("r{number}")).unwrap(),
                key: OrderKey { step: Step::Switch, host: HostName::parse("lb1").unwrap() },
                attempt: 1,
                epoch: Epoch(1),
                deadline: Timestamp(u64::MAX / 2),
                leads_back: false,
                action,
            },
            journal_seq: number,
            journal_hash: [0; 32],
            only_prepared: false,
        }
    }

    pub async fn prepare(&self, order: &ReceivedOrder) -> Result<Evidence, Problem> {
        let done = self.service.prepare(asked(convert::order_to_wire(order))).await.map_err(problem)?;
        Ok(evidence(done.get_ref()))
    }

    /// Has an order done by what was prepared for it.
    pub async fn commit(&self, order: &ReceivedOrder) -> Result<Evidence, Problem> {
        self.send(&ReceivedOrder { only_prepared: true, ..order.clone() }).await
    }

    pub async fn send(&self, order: &ReceivedOrder) -> Result<Evidence, Problem> {
        self.send_wire(convert::order_to_wire(order)).await
    }

    pub async fn send_wire(&self, order: agent_v1::Order) -> Result<Evidence, Problem> {
        let done = self.service.perform(asked(order)).await.map_err(problem)?;
        Ok(evidence(done.get_ref()))
    }

    pub async fn perform(&self, action: Action) -> Result<Evidence, Problem> {
        self.send(&self.order(action)).await
    }

    pub async fn set_route(&self, expected: &str, wanted: &str) -> Result<Evidence, Problem> {
        self.perform(switch(expected, wanted)).await
    }

    pub async fn inspect(&self, expected: &str) -> Result<Evidence, Problem> {
        self.inspect_as(expected, false).await
    }

    pub async fn inspect_as(&self, expected: &str, leaving: bool) -> Result<Evidence, Problem> {
        let backends = ["be_blue", "be_green"].map(|name| name.parse().unwrap()).to_vec();
        let action = Action::InspectBalancer { expected: route(expected), backends, leaving };
        self.observe(convert::action_to_wire(&action)).await
    }

    pub async fn observe(&self, action: agent_v1::Action) -> Result<Evidence, Problem> {
        let request = agent_v1::ObserveRequest {
            environment: "production".to_owned(),
            host: "lb1".to_owned(),
            action: Some(action),
        };
        let done = self.service.observe(asked(request)).await.map_err(problem)?;
        Ok(evidence(done.get_ref()))
    }

    /// The ticks that come from now on.
    pub async fn signals(&self) -> Result<SignalTicks, Problem> {
        let request = agent_v1::SignalsRequest { environment: "production".to_owned(), ..Default::default() };
        self.service.signals(asked(request)).await.map(tonic::Response::into_inner).map_err(problem)
    }

    pub async fn deploy_certificate(&self, pem: &str) -> Result<Evidence, Problem> {
        self.deploy_certificate_as(Epoch(1), "", pem).await
    }

    pub async fn deploy_certificate_as(
        &self,
        epoch: Epoch,
        path: &str,
        pem: &str,
    ) -> Result<Evidence, Problem> {
        self.deploy_certificate_without(&[], epoch, path, pem).await
    }

    /// With names that it may lack.
    pub async fn deploy_certificate_without(
        &self,
        drop: &[&str],
        epoch: Epoch,
        path: &str,
        pem: &str,
    ) -> Result<Evidence, Problem> {
        let request = agent_v1::DeployCertificateRequest {
            environment: "production".to_owned(),
            host: "lb1".to_owned(),
            epoch: epoch.0,
            path: path.to_owned(),
            pem: pem.as_bytes().to_vec(),
            drop_names: drop.iter().map(|name| (*name).to_owned()).collect(),
        };
        let done = self.service.deploy_certificate(asked(request)).await.map_err(problem)?;
        Ok(evidence(done.get_ref()))
    }

    pub async fn rate_limits(
        &self,
        table: &str,
        unblock: &str,
        min_rate: u32,
    ) -> Result<v1::RateLimitsReply, Problem> {
        let request = agent_v1::RateLimitsRequest {
            environment: "production".to_owned(),
            host: "lb1".to_owned(),
            epoch: 1,
            table: table.to_owned(),
            unblock: unblock.to_owned(),
            min_rate,
        };
        Ok(self.service.rate_limits(asked(request)).await.map_err(problem)?.into_inner())
    }

    pub async fn describe(&self) -> v1::AgentStatus {
        let request = agent_v1::DescribeRequest { environment: "production".to_owned() };
        self.service.describe(asked(request)).await.unwrap().into_inner()
    }

    pub fn on_disk(&self) -> Option<Route> {
        RouteFile::new(&self.map, KEY, &self.state).read()
    }
}

pub fn switch(expected: &str, wanted: &str) -> Action {
    Action::SetRoute { expected: vec![route(expected)], wanted: route(wanted), min_up: 1, back: false }
}

impl Rig {
    /// An agent and a fake HAProxy, both at `P`.
    pub async fn new() -> Self {
        Self::with_key(KEY).await
    }

    /// The same over a TCP socket.
    pub async fn over_tcp() -> Self {
        Self::built(KEY, |fake| PathBuf::from(format!("tcp://{}", fake.tcp)), |_, _| String::new()).await
    }

    pub async fn with_key(key: &str) -> Self {
        Self::with(key, |_, _| String::new()).await
    }

    /// With more lines in the agent's configuration, which may depend on its folder and the fake.
    pub async fn with(key: &str, more: impl FnOnce(&Path, &Fake) -> String) -> Self {
        Self::built(key, |fake| fake.socket.clone(), more).await
    }

    async fn built(
        key: &str,
        socket: impl FnOnce(&Fake) -> PathBuf,
        more: impl FnOnce(&Path, &Fake) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("map/route.map");
        std::fs::create_dir(folder.path().join("map")).unwrap();
        std::fs::write(&map, format!("{KEY} {P}\n")).unwrap();
        let fake = Fake::start(folder.path(), &map, P).await;
        let agent = Agent::start(&Setup {
            map,
            key: key.to_owned(),
            socket: socket(&fake),
            master: Some(fake.master.clone()),
            frontend: fake.frontend,
            state: folder.path().join("state"),
            signals: None,
            more: more(folder.path(), &fake),
        });
        Self { agent, fake, folder }
    }

    /// What stands: on disk, in the current worker, in the old ones.
    pub fn stands(&self) -> (String, String, Vec<String>) {
        let disk = self.agent.on_disk().map(|route| route.to_string()).unwrap_or_default();
        self.fake.with(|world| {
            let old = world.old.values().map(|worker| worker.map[0].1.clone()).collect();
            (disk, world.route(), old)
        })
    }

    /// The old route or the new one, everywhere, and what was reported is true.
    pub fn told_the_truth(&self, wanted: &str, result: &Result<Evidence, Problem>) {
        let (disk, current, old) = self.stands();
        match result {
            Ok(evidence) => {
                assert_eq!(
                    (disk.as_str(), current.as_str()),
                    (wanted, wanted),
                    "reported as done: {evidence:?}"
                );
                assert!(
                    old.iter().all(|route| route == wanted),
                    "reported as done: {evidence:?}, old workers {old:?}"
                );
            }
            Err(problem) if problem.aftermath == Aftermath::Unchanged => {
                assert_eq!((disk.as_str(), current.as_str()), (P, P), "reported as unchanged: {problem:?}");
                assert!(
                    old.iter().all(|route| route == P),
                    "reported as unchanged: {problem:?}, old workers {old:?}"
                );
            }
            Err(_) => assert!([P, wanted].contains(&disk.as_str()), "{disk}"),
        }
    }

    pub fn commands(&self, starts: &str) -> usize {
        self.fake.with(|world| world.commands.iter().filter(|command| command.starts_with(starts)).count())
    }
}
