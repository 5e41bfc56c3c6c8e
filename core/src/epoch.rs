//! The two numbers that only grow: who may order, and which route is newest.

use std::fmt;

/// The fencing token of a coordinator: an agent that has seen epoch `e` refuses every order of a smaller one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The number of a route, counted up with every move of traffic. Visitors' answers carry it in `X-Pointsman`,
/// so what a request was routed by can be proved from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteEpoch(pub u64);

impl RouteEpoch {
    /// The epoch `moves` moves of traffic later.
    pub fn after(self, moves: u64) -> Self {
        Self(self.0.saturating_add(moves))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RouteEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
