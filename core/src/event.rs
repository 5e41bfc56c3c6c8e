//! Facts of a release, past tense: what the journal holds and the state is folded from.

use std::sync::Arc;

use crate::{
    Epoch, Evidence, HostName, Judged, Note, OrderKey, Plan, Problem, Reading, ReleaseId, Request, SlotName,
    Step, Timestamp,
};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The release was planned and accepted; its life begins.
    Planned(Arc<Plan>),
    /// A coordinator took the lease: everything it ordered before is to be asked for again.
    EpochTaken(Epoch),
    /// An agent acknowledged the epoch: no older one acts there any more.
    Fenced(HostName),
    /// An order is about to leave. Committed before it does.
    OrderIntended {
        /// Which order.
        key: OrderKey,
        /// How often it has now been sent.
        attempt: u32,
    },
    /// An agent confirmed an order.
    OrderDone {
        /// Which order.
        key: OrderKey,
        /// What it saw.
        evidence: Evidence,
    },
    /// An order failed, or its answer was lost.
    OrderFailed {
        /// Which order.
        key: OrderKey,
        /// What went wrong.
        problem: Problem,
    },
    /// The gates were read and said something worth remembering.
    GatesRead(Reading),
    /// The checks before the switch are too old to move visitors on: they are made again.
    GatesExpired,
    /// Time passed that nobody watched, or the clock was set: the watch ends at another moment.
    WatchMoved {
        /// When it ends now.
        until: Timestamp,
    },
    /// What the visitors met led to a verdict worth remembering.
    Judged(Box<Judged>),
    /// The watch ended well.
    WatchPassed,
    /// Somebody asked for something.
    Requested(Request),
    /// The release turned back.
    TurnedBack(Problem),
    /// The release stopped for a person.
    Held(Problem),
    /// Something was seen or said that belongs on the release's checklist. Also of a release that is over.
    Noted(Note),
    /// Of no release: a person accepted a journal whose newest entries are gone. What it says of the world before this is
    /// not so any more, and what was open then is void.
    Adopted {
        /// Who.
        by: String,
        /// What visitors got at that moment.
        found: Found,
    },
}

/// What visitors get where no journal says it: read from the load balancers' routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The slot that serves, or is behind the page. None where no route could be read, or leads to no slot.
    pub slot: Option<SlotName>,
    /// Visitors are kept away from it: the maintenance page is up, or they wait for a swap of databases.
    pub page: bool,
    /// The share of them that was on another slot.
    pub unaccounted: Option<Unaccounted>,
}

/// A share of the visitors on another slot than the one that serves the others, while no release is open: the one that led them
/// there is void, or somebody led them by hand. Nobody watches or judges what they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaccounted {
    /// Where they are.
    pub slot: SlotName,
    /// How many of all visitors they are, in percent: 1 to 100.
    pub percent: u8,
}

/// A fact with the moment it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// When it was recorded.
    pub at: Timestamp,
    /// The fact.
    pub event: Event,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, counted from 1 without gaps.
    pub seq: u64,
    /// The release it is about.
    pub release: ReleaseId,
    /// The fact, with its moment.
    pub fact: Stamped,
}

impl Event {
    /// Whether the fact only leads a release of this plan on, or says something beside it: it may fail for want of room. Every
    /// other one decides about visitors, tells what became of an order, ends something, or leads back.
    pub fn leads_on(&self, plan: Option<&Plan>) -> bool {
        match self {
            Self::Planned(plan) => !plan.leads_back(Step::Preflight),
            Self::OrderIntended { key, .. } => match plan {
                Some(plan) => !plan.leads_back(key.step),
                None => !key.step.leads_back(),
            },
            Self::Noted(_) | Self::GatesExpired => true,
            _ => false,
        }
    }

    /// The event's kind in a word, for tables and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Planned(_) => "planned",
            Self::EpochTaken(_) => "epoch-taken",
            Self::Fenced(_) => "fenced",
            Self::OrderIntended { .. } => "order-intended",
            Self::OrderDone { .. } => "order-done",
            Self::OrderFailed { .. } => "order-failed",
            Self::GatesRead(_) => "gates-read",
            Self::GatesExpired => "gates-expired",
            Self::WatchMoved { .. } => "watch-moved",
            Self::Judged(_) => "judged",
            Self::WatchPassed => "watch-passed",
            Self::Requested(_) => "requested",
            Self::TurnedBack(_) => "turned-back",
            Self::Held(_) => "held",
            Self::Noted(_) => "noted",
            Self::Adopted { .. } => "adopted",
        }
    }
}
