//! Named checks: yes-or-no observations that let a release go on.

use crate::{CheckName, HttpPath};

/// Where a check is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckFrom {
    /// On each host of the slot, by its agent.
    Hosts,
    /// Through each load balancer, pinned to the slot, by the agent there.
    Balancers,
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMoment {
    /// Before the switch: a failure aborts the release.
    BeforeSwitch,
    /// Again and again while the release is watched: failures roll it back.
    AfterSwitch,
}

/// One HTTP request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The name in the environment file.
    pub name: CheckName,
    /// Where it is made from.
    pub from: CheckFrom,
    /// Whether it gates the switch.
    pub before_switch: bool,
    /// Whether it is read during the watch.
    pub after_switch: bool,
    /// What is asked for.
    pub path: HttpPath,
    /// The status that the answer must have.
    pub status: u16,
    /// A text that the body must contain, if any.
    pub body_contains: Option<String>,
    /// Bound on one request, in milliseconds.
    pub timeout_ms: u64,
    /// How long an unanswered or failing check is repeated before it counts as failed, in milliseconds.
    pub patience_ms: u64,
}

impl Check {
    /// Whether the check is made at this moment.
    pub fn applies(&self, moment: CheckMoment) -> bool {
        match moment {
            CheckMoment::BeforeSwitch => self.before_switch,
            CheckMoment::AfterSwitch => self.after_switch,
        }
    }
}
