//! What visitors meet, second by second, and the place where what was made of it survives.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::verdict::Judgement;
use crate::{HostName, Plan, Problem, signal};

/// How far one load balancer was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The life of the agent that counted the tick.
    pub life: String,
    /// The tick's number in that life.
    pub number: u64,
    /// How far the load balancer's clock was ahead of the coordinator's, in seconds.
    pub ahead_s: i64,
}

/// How far the signals of an environment were heard: whoever goes on after it counts no second twice, and leaves none out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of the newest second that was heard.
    pub number: u64,
    /// The newest tick of each load balancer that is in that second or in one before it.
    pub read: BTreeMap<HostName, Mark>,
}

/// A second of signals from all load balancers.
#[derive(Clone, Debug)]
pub struct Second {
    /// Where this second ends. Its number is seconds of the coordinator's clock; numbers grow, and each comes once.
    pub position: Position,
    /// What all load balancers that told of it saw together.
    pub seen: Arc<signal::Tick>,
    /// Why it tells less than everything, if it does: what some visitors met is not in it.
    pub blind: Option<Problem>,
}

/// What comes of listening.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A second.
    Second(Second),
    /// Nothing for a while, and why.
    Silence(Problem),
}

/// An ear for one environment's signals.
pub trait Ear: Send {
    /// The next second, or that none came for a while. What was heard is not lost when the wait for it is given up.
    fn next(&mut self) -> impl Future<Output = Heard> + Send;
}

/// The signals of an environment.
pub trait Signals: Send + Sync {
    /// What listens.
    type Ear: Ear;

    /// Listens from now on; where `after` is given to the seconds that came since that number first, as far as they are
    /// remembered.
    fn listen(&self, plan: &Plan, after: Option<u64>) -> Self::Ear;

    /// What was kept last for this environment; nothing where there is nothing, or nothing that can be read.
    fn kept(&self, plan: &Plan) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Keeps bytes in place of those before. They survive a crash when this returns.
    fn keep(&self, plan: &Plan, bytes: Vec<u8>) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Shows people what is known now, with the requests that were no visitors' since then, and why visitors cannot be seen,
    /// if they cannot.
    fn show(&self, plan: &Arc<Plan>, judgement: &Judgement, probed: &signal::Probed, heard: &Heard);
}
