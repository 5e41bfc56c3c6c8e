//! Which daemon passes which place, and how often in a release that nothing disturbs.

use std::fmt;

use anyhow::Result;
use kit::{Daemon, KillAt};

/// A daemon by its part in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The coordinator.
    Coordinator,
    /// The agent on the load balancer; on the first, where there are two.
    Balancer,
    /// The agent on the second load balancer.
    SecondBalancer,
    /// The agent on the web host that is not live: the one a release goes to.
    Idle,
    /// The agent on the web host that is live.
    Live,
}

/// A daemon and a place it passes.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// The place.
    pub place: &'static str,
    /// The daemon.
    pub who: Who,
    /// How often it passes in a deploy.
    pub deploy: u32,
    /// How often it passes when the maintenance page goes up or comes down.
    pub page: u32,
}

const fn passes(who: Who, place: &'static str, deploy: u32, page: u32) -> Passing {
    Passing { place, who, deploy, page }
}

/// Every daemon with every place it passes. The counts are of the site of the kit: one load balancer, two slots of one
/// host each. With a second load balancer the coordinator passes its places more often, and the others theirs as often.
pub const PASSINGS: &[Passing] = &[
    passes(Who::Coordinator, "journal-before-commit", 19, 6),
    passes(Who::Coordinator, "journal-after-commit", 19, 6),
    passes(Who::Coordinator, "order-before-send", 9, 3),
    passes(Who::Coordinator, "order-after-answer", 9, 3),
    passes(Who::Balancer, "order-before-receipt", 5, 1),
    passes(Who::Balancer, "order-begun", 5, 1),
    passes(Who::Balancer, "order-acted", 5, 1),
    passes(Who::Balancer, "order-settled", 5, 1),
    passes(Who::Balancer, "route-on-disk", 2, 1),
    passes(Who::Balancer, "route-in-worker", 2, 1),
    passes(Who::Balancer, "route-confirmed", 2, 1),
    passes(Who::Idle, "order-before-receipt", 4, 1),
    passes(Who::Idle, "order-begun", 4, 1),
    passes(Who::Idle, "order-acted", 4, 1),
    passes(Who::Idle, "order-settled", 4, 1),
    passes(Who::Idle, "stage-before-mark", 1, 0),
    passes(Who::Idle, "link-before-rename", 1, 0),
    passes(Who::Idle, "link-after-rename", 1, 0),
    passes(Who::Idle, "flag-changed", 0, 1),
    passes(Who::Live, "order-begun", 0, 1),
    passes(Who::Live, "flag-changed", 0, 1),
];

impl Who {
    /// The daemon, while `live` is the slot that visitors use.
    pub fn daemon(self, live: Daemon) -> Result<Daemon> {
        Ok(match self {
            Self::Coordinator => Daemon::Coordinator,
            Self::Balancer => Daemon::LbAgent,
            Self::SecondBalancer => Daemon::SecondLbAgent,
            Self::Live => live,
            Self::Idle => Daemon::of_slot(if live == Daemon::Blue { "green" } else { "blue" })?,
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Balancer => "lb-agent",
            Self::SecondBalancer => "second-lb-agent",
            Self::Idle => "idle-agent",
            Self::Live => "live-agent",
        })
    }
}

impl Passing {
    /// The same of the agent on the second load balancer, where it is of the first.
    pub fn of_second(self) -> Option<Self> {
        (self.who == Who::Balancer).then_some(Self { who: Who::SecondBalancer, ..self })
    }

    /// The n-th passing.
    pub fn at(&self, nth: u32) -> KillAt {
        KillAt { place: self.place, nth }
    }
}
