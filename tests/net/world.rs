//! What outlives every crash: how the hosts stand, and everything that was done, in order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::{
    Action, Aftermath, ArtifactDigest, Code, Epoch, Evidence, HostName, Order, OrderKey, Phase, Plan,
    Problem, Purpose, Route, State,
};

use crate::network::now_ms;

/// How one host stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The route, on load balancers.
    pub route: Option<Route>,
    /// What `current` points to.
    pub link: Option<ArtifactDigest>,
    /// The contents of the artifact have arrived.
    pub contents: bool,
    /// The artifact is complete and verified.
    pub staged: bool,
    /// The maintenance file.
    pub flag: bool,
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub enum Deed {
    /// The network or a host broke, or was mended.
    Fault(String),
    /// A coordinator begins.
    Begun,
    /// An intent is in the journal.
    Intended(OrderKey, u32),
    /// An agent told the coordinator that it has acknowledged an epoch.
    Acknowledged(HostName, Epoch),
    /// The coordinator had an answer to an order.
    Answered(OrderKey, u32, Result<(), Problem>),
    /// An agent has made ready for an order.
    Prepared(OrderKey),
    /// An agent does what an order says, whether that changes anything or not.
    Acts(Order),
    /// An order changed its host.
    Changed(Order),
    /// The agent has done it, and gives its answer to the ledger.
    Acted(OrderKey),
    /// The release turned back.
    TurnedBack(Problem),
    /// The release waits for a person.
    Held(Problem),
    /// A person asked for the release to go on.
    Resumed,
    /// Something that must never be.
    Wrong(String),
}

#[derive(Debug)]
struct Inner {
    hosts: BTreeMap<HostName, Host>,
    log: Vec<(u64, Deed)>,
    state: Option<State>,
    person_there: bool,
    sick_from_ms: Option<u64>,
}

/// The world. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    /// The world as it is when the plan is made. From `sick_from_ms` on every check of the new version fails.
    pub fn before(plan: &Plan, sick_from_ms: Option<u64>) -> Self {
        let host = |name: &HostName| Host {
            route: plan.balancers.contains(name).then(|| plan.route_before.clone()),
            link: plan.links_before.get(name).copied().flatten(),
            contents: false,
            staged: false,
            flag: plan.flag_hosts.contains(name)
                && matches!(plan.purpose, Purpose::Maintenance { on: false, .. }),
        };
        let hosts = plan.hosts().map(|name| (name.clone(), host(name))).collect();
        Self(Arc::new(Mutex::new(Inner {
            hosts,
            log: Vec::new(),
            state: None,
            person_there: false,
            sick_from_ms,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was done.
    pub fn note(&self, deed: Deed) {
        self.note_at(now_ms(), deed);
    }

    /// Notes what was done from outside of the simulation, which has no clock there.
    pub fn note_at(&self, ms: u64, deed: Deed) {
        self.lock().log.push((ms, deed));
    }

    /// Keeps where the release stands.
    pub fn publish(&self, state: &State) {
        let mut inner = self.lock();
        let before = inner.state.replace(state.clone());
        let (was_back, was_held) =
            before.map(|before| (before.turned_back.clone(), held(&before))).unwrap_or_default();
        let turned = state.turned_back.clone().filter(|_| was_back.is_none()).map(Deed::TurnedBack);
        let waits = held(state).filter(|_| was_held.is_none()).map(Deed::Held);
        inner.log.extend(turned.into_iter().chain(waits).map(|deed| (now_ms(), deed)));
    }

    /// Where the release stands, as far as a coordinator has said so.
    pub fn state(&self) -> Option<State> {
        self.lock().state.clone()
    }

    /// Whether a coordinator has said that the release is over.
    pub fn over(&self) -> bool {
        self.lock().state.as_ref().is_some_and(|state| state.outcome().is_some())
    }

    /// From now on somebody looks after held releases.
    pub fn send_for_a_person(&self) {
        self.lock().person_there = true;
    }

    /// Whether somebody is there, and the release waits for them.
    pub fn person_is_to_act(&self) -> bool {
        let inner = self.lock();
        inner.person_there && inner.state.as_ref().and_then(held).is_some()
    }

    /// How the hosts stand.
    pub fn hosts(&self) -> BTreeMap<HostName, Host> {
        self.lock().hosts.clone()
    }

    /// Everything that was done, with its moment in milliseconds.
    pub fn log(&self) -> Vec<(u64, Deed)> {
        self.lock().log.clone()
    }

    /// Whether every content has arrived at a host; with `arrived` they have now.
    pub fn contents(&self, host: &HostName, arrived: bool) -> bool {
        let mut inner = self.lock();
        let host = inner.hosts.get_mut(host).unwrap();
        host.contents |= arrived;
        host.contents
    }

    /// Looks, as an agent does for `Inspect*` and `Probe*`.
    pub fn look(&self, host: &HostName, action: &Action) -> Result<Evidence, Problem> {
        let inner = self.lock();
        let route = inner.hosts.get(host).unwrap().route.as_ref();
        let sick = inner.sick_from_ms.is_some_and(|from| now_ms() >= from);
        match action {
            Action::InspectBalancer { expected, .. } if route != Some(expected) => Err(drifted(route)),
            Action::ProbeBalancer { epoch, .. } if route.is_none_or(|route| route.epoch != *epoch) => {
                Err(Problem::new(Code::RouteNotSeen, "another route stands"))
            }
            Action::ProbeHost { .. } | Action::ProbeBalancer { .. } if sick => {
                Err(Problem::new(Code::CheckFailed, "the new version is sick"))
            }
            _ => Ok(Evidence::default()),
        }
    }

    /// Does what an order says, in one moment.
    pub fn change(&self, order: &Order) -> Result<Evidence, Problem> {
        let mut inner = self.lock();
        let before = inner.hosts.get(&order.key.host).unwrap().clone();
        let mut after = before.clone();
        match &order.action {
            Action::SetRoute { expected, wanted, .. } => {
                let stands = before.route.as_ref();
                if stands != Some(wanted) && !expected.iter().any(|route| stands == Some(route)) {
                    return Err(drifted(stands));
                }
                after.route = Some(wanted.clone());
            }
            Action::Stage { .. } if !before.contents => {
                return Err(Problem::new(Code::TransferBroken, "contents are missing").retry_useful());
            }
            Action::Stage { .. } => after.staged = true,
            Action::Discard { .. } => (after.contents, after.staged) = (false, false),
            Action::Activate { artifact, .. } => after.link = *artifact,
            Action::SetFlag { on } => after.flag = *on,
            _ => {}
        }
        let already = before == after;
        if !already {
            inner.hosts.insert(order.key.host.clone(), after);
            inner.log.push((now_ms(), Deed::Changed(order.clone())));
        }
        Ok(Evidence { already, ..Evidence::default() })
    }
}

fn held(state: &State) -> Option<Problem> {
    match &state.phase {
        Phase::Held { why, .. } => Some(why.clone()),
        _ => None,
    }
}

fn drifted(stands: Option<&Route>) -> Problem {
    let stands = stands.map(ToString::to_string).unwrap_or_default();
    Problem::new(Code::RouteDrift, format!("the route is `{stands}`")).aftermath(Aftermath::Unchanged)
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(what) => write!(f, "-- {what}"),
            Self::Begun => write!(f, "a coordinator begins"),
            Self::Intended(key, attempt) => {
                write!(f, "{} {} intended, attempt {attempt}", key.host, key.step)
            }
            Self::Acknowledged(host, epoch) => write!(f, "{host} has acknowledged epoch {epoch}"),
            Self::Answered(key, attempt, Ok(())) => {
                write!(f, "{} {} done, attempt {attempt}", key.host, key.step)
            }
            Self::Answered(key, attempt, Err(problem)) => {
                let (host, step, code) = (&key.host, key.step, problem.code);
                let (aftermath, retry) = (problem.aftermath, problem.retry);
                write!(
                    f,
                    "{host} {step} failed, attempt {attempt}: {code} {problem} ({aftermath:?}, {retry:?})"
                )
            }
            Self::Changed(order) => write!(f, "{} {} CHANGED THE HOST", order.key.host, order.key.step),
            Self::Prepared(key) => write!(f, "{} is ready for {}", key.host, key.step),
            Self::Acts(order) => {
                let (key, attempt, epoch) = (&order.key, order.attempt, order.epoch);
                write!(f, "{} {} acts, attempt {attempt}, epoch {epoch}", key.host, key.step)
            }
            Self::Acted(key) => write!(f, "{} {} has acted", key.host, key.step),
            Self::TurnedBack(problem) => write!(f, "TURNED BACK: {} {problem}", problem.code),
            Self::Held(problem) => write!(f, "HELD: {} {problem}; {}", problem.code, problem.hint),
            Self::Resumed => write!(f, "a person resumes"),
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}
