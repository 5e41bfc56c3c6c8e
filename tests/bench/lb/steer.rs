//! An lb-agent driven as its coordinator drives it, over gRPC and mutual TLS, with the coordinator's own certificate.
//! The coordinator itself must have ended: agents obey one at a time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kit::{ENVIRONMENT, Site, uri};
use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_core::{Action, Aftermath, Epoch, HostName, Order, OrderKey, ReleaseId, Retry, Route, Step};
use pointsman_proto::agent_v1::agent_client::AgentClient;
use pointsman_proto::agent_v1::{self as wire, FenceRequest};
use pointsman_proto::convert::{self, ReceivedOrder};
use tonic::transport::Channel;

/// Above every epoch that the site's own coordinator has had.
const EPOCH: u64 = 1 << 20;
/// Time that an order has.
const ORDER_MS: u64 = 5_000;
/// How long an order that changed nothing is sent again, and how soon.
const AGAIN_FOR: Duration = Duration::from_secs(15);
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A load balancer's agent, and the route it was given last.
pub struct Steered {
    host: &'static str,
    agent: AgentClient<Channel>,
    seq: u64,
    /// The route that stands.
    pub route: Route,
}

/// A route that was set.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// From the order's arrival to its answer, by the agent's clock.
    pub took: Duration,
    /// When it took effect, in microseconds since 1970 by the agent's clock.
    pub effect_at_us: u64,
    /// How often it was refused before without any change, as while servers are not checked yet after a reload.
    pub refused: u32,
}

impl Steered {
    /// Takes an agent over from the coordinator that was. `route` is what stands there.
    pub async fn take(site: &Site, host: &'static str, route: &str) -> Result<Self> {
        let address = site.lb_agents().into_iter().find(|(name, _)| *name == host);
        let (_, address) = address.with_context(|| format!("there is no load balancer `{host}`"))?;
        let server = uri(ENVIRONMENT, "lb-agent", "host", host);
        let mut agent = kit::agent(&site.identity_of("coordinator"), address, &server)?;
        let fence = FenceRequest { environment: ENVIRONMENT.to_owned(), epoch: EPOCH, ..Default::default() };
        let seq = agent.fence(fence).await?.into_inner().head_seq;
        Ok(Self { host, agent, seq, route: Route::parse(route)? })
    }

    /// The route with everybody on the other slot.
    pub fn flipped(&self) -> Route {
        let Route { stable, canary, .. } = self.route.clone();
        Route { stable: canary, canary: stable, percent: 0, epoch: self.route.epoch.after(1) }
    }

    fn order(&mut self, wanted: &Route) -> Result<wire::Order> {
        self.seq = self.seq.saturating_add(1);
        let order = Order {
            // One release for each route: its order may come again, and each is done once.
            release: ReleaseId::parse(&format!("bench-{}", wanted.epoch))?,
            key: OrderKey { step: Step::Switch, host: HostName::parse(self.host)? },
            attempt: 1,
            epoch: Epoch(EPOCH),
            deadline: SystemClock.now().plus_ms(ORDER_MS),
            leads_back: false,
            action: Action::SetRoute {
                expected: vec![self.route.clone()],
                wanted: wanted.clone(),
                min_up: 1,
                back: false,
            },
        };
        Ok(convert::order_to_wire(&ReceivedOrder {
            environment: ENVIRONMENT.parse()?,
            order,
            journal_seq: self.seq,
            journal_hash: [7; 32],
            only_prepared: false,
        }))
    }

    /// Has the agent make ready for a route. Returns the order to perform.
    pub async fn prepare(&mut self, wanted: &Route) -> Result<wire::Order> {
        let mut again = Again::new(self.host, wanted);
        loop {
            let order = self.order(wanted)?;
            match self.agent.prepare(order.clone()).await {
                Ok(_) => return Ok(order),
                Err(status) => again.after(&status).await?,
            }
        }
    }

    /// Has the agent do what it made ready for.
    pub async fn perform(&mut self, order: wire::Order, wanted: &Route) -> Result<Moved> {
        let done = self.agent.perform(order).await?.into_inner();
        self.route = wanted.clone();
        moved(&done, 0)
    }

    /// Sets a route. An order that is refused without any change is sent again, as a coordinator does.
    pub async fn set(&mut self, wanted: &Route) -> Result<Moved> {
        let mut again = Again::new(self.host, wanted);
        loop {
            let order = self.order(wanted)?;
            match self.agent.perform(order).await {
                Ok(done) => {
                    self.route = wanted.clone();
                    return moved(&done.into_inner(), again.refused);
                }
                Err(status) => again.after(&status).await?,
            }
        }
    }
}

/// Patience with an order that is refused without any change.
struct Again {
    what: String,
    give_up: Instant,
    refused: u32,
}

impl Again {
    fn new(host: &str, wanted: &Route) -> Self {
        let what = format!("`{host}` did not take `{wanted}`");
        Self { what, give_up: Instant::now() + AGAIN_FOR, refused: 0 }
    }

    async fn after(&mut self, status: &tonic::Status) -> Result<()> {
        let problem = kit::problem_of(status);
        let passing = problem.aftermath == Aftermath::Unchanged && problem.retry == Retry::Useful;
        if !passing || Instant::now() > self.give_up {
            bail!("{}: {problem:?}", self.what);
        }
        self.refused = self.refused.saturating_add(1);
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(())
    }
}

fn moved(done: &wire::Done, refused: u32) -> Result<Moved> {
    if done.already || done.effect_at_us == 0 {
        bail!("the route stood already: {done:?}");
    }
    let took = Duration::from_micros(done.answered_at_us.saturating_sub(done.arrived_at_us));
    Ok(Moved { took, effect_at_us: done.effect_at_us, refused })
}
