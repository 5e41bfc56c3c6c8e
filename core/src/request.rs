//! What a person, or CI on their behalf, asks of a running release.

use crate::HostName;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// Stop before the switch and clean up.
    Abort,
    /// Move visitors back to the old slot.
    Rollback,
    /// Stop where it stands and wait for a person. What watches the release goes on watching.
    Pause,
    /// Leave `held` and go on where it stopped.
    Resume,
    /// End the watch as soon as its gates are green, without waiting for its time to be over.
    Promote,
}

impl RequestKind {
    /// Every kind, for tables.
    pub const ALL: [Self; 5] = [Self::Abort, Self::Rollback, Self::Pause, Self::Resume, Self::Promote];

    /// The verb operators type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
        }
    }

    /// Finds the kind that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A request with who made it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: RequestKind,
    /// The principal who asked.
    pub by: String,
    /// The reason given, if any.
    pub reason: Option<String>,
    /// Hosts that are gone for good, and left out of the way back: of [`RequestKind::Resume`] only.
    pub without: Vec<HostName>,
}
