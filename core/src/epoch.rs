//! The two numbers that only grow: who may order, and which route is newest.

use std::fmt;

/// The fencing token of a coordinator: an agent that has seen epoch `e` refuses every order of a smaller one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The number of a route, counted up with every move of traffic. Visitors' answers carry it in `X-Pointsman`,
/// so what a request was routed by can be proved from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteEpoch(pub u64);

/// How many route epochs belong together: those of one release's splits never lie in two such blocks, and never in one with
/// another's. HAProxy divides by this number to choose other visitors first in each release. More than the moves of a
/// release, with every split and the way back.
pub const EPOCHS_OF_A_RELEASE: u64 = 16;

impl RouteEpoch {
    /// The epoch from which the moves of a release with splits are counted, at this one or after it: the first of a block.
    pub fn begins_block(self) -> Self {
        let blocks = self.0.div_ceil(EPOCHS_OF_A_RELEASE);
        Self(blocks.saturating_mul(EPOCHS_OF_A_RELEASE))
    }

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
