//! What happened to the route lately that no order asked for: for people who look, and for the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_chassis::SystemClock;
use pointsman_core::ports::Clock as _;
use pointsman_proto::v1;
use tracing::{info, warn};

/// Events kept: enough to see what a night of reloads did, small enough for every answer.
const KEPT: usize = 32;

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy was reloaded or started, and has the route.
    ReloadSeen,
    /// HAProxy was reloaded or started with an older route, and has been given the route again.
    ReloadRestored,
    /// A switch that a crash cut short was taken back: nobody had been moved.
    CutShort,
    /// At the agent's start another route stood in HAProxy and on disk than was confirmed last, and is taken as it is.
    Adopted,
    /// Somebody else has changed the route.
    Changed,
    /// What somebody else had changed was set back, because the configuration says so.
    Enforced,
    /// Visitors reach a slot that the route leads nobody to.
    OldSlotServes,
    /// Visitors are led by a route that OPNsense does not keep yet.
    NotKept,
    /// OPNsense keeps it now.
    Kept,
    /// HAProxy could not load the configuration on disk, and goes on with the one before.
    ReloadFailed,
    /// It has loaded one since.
    ReloadWorks,
    /// The route is as it was confirmed again.
    WellAgain,
}

impl Kind {
    /// The word on the wire.
    fn as_str(self) -> &'static str {
        match self {
            Self::ReloadSeen => "reload-seen",
            Self::ReloadRestored => "reload-restored",
            Self::CutShort => "cut-short",
            Self::Adopted => "adopted",
            Self::Changed => "changed",
            Self::Enforced => "enforced",
            Self::OldSlotServes => "old-slot-serves",
            Self::NotKept => "not-kept",
            Self::Kept => "kept",
            Self::ReloadFailed => "reload-failed",
            Self::ReloadWorks => "reload-works",
            Self::WellAgain => "well-again",
        }
    }

    fn is_alarm(self) -> bool {
        matches!(
            self,
            Self::Adopted
                | Self::Changed
                | Self::Enforced
                | Self::OldSlotServes
                | Self::NotKept
                | Self::ReloadFailed
        )
    }
}

#[derive(Debug, Default)]
struct Told {
    events: VecDeque<v1::BalancerEvent>,
    /// What somebody else has changed, and since when.
    drift: Option<(String, u64)>,
}

/// The events, and what is not as it should be now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Told>>);

impl Events {
    /// Tells an event.
    pub fn tell(&self, kind: Kind, detail: impl Into<String>) {
        let (detail, at_ms) = (detail.into(), SystemClock.now().0);
        if kind.is_alarm() {
            warn!(event = kind.as_str(), "{detail}");
        } else {
            info!(event = kind.as_str(), "{detail}");
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.events.len() >= KEPT {
            told.events.pop_front();
        }
        told.events.push_back(v1::BalancerEvent { at_ms, kind: kind.as_str().to_owned(), detail });
    }

    /// Notes what is not as it should be. It is told once, and again when it changes.
    pub fn drifted(&self, what: &str) {
        let known = {
            let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = told.drift.as_ref().is_some_and(|(known, _)| known == what);
            if !known {
                told.drift = Some((what.to_owned(), SystemClock.now().0));
            }
            known
        };
        if !known {
            self.tell(Kind::Changed, what);
        }
    }

    /// All is as it should be.
    pub fn stands(&self) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).drift.take();
        if let Some((what, _)) = before {
            self.tell(Kind::WellAgain, format!("no longer so: {what}"));
        }
    }

    /// What somebody else has changed, and since when, in milliseconds since 1970.
    pub fn drift(&self) -> Option<(String, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drift.clone()
    }

    /// The events, oldest first.
    pub fn all(&self) -> Vec<v1::BalancerEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.iter().cloned().collect()
    }
}
