//! What a script is for: when in a release it runs.

use std::fmt;

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before visitors reach the new version; the version that serves keeps working on it.
    Expand,
    /// After *confirm*, when the old version no longer runs; may take things away.
    Contract,
    /// Takes an unconfirmed expand back.
    Down,
    /// Only looks: every statement must succeed and, where it returns a boolean, return true.
    Verify,
}

impl Phase {
    /// All phases.
    pub const ALL: [Phase; 4] = [Phase::Expand, Phase::Contract, Phase::Down, Phase::Verify];

    /// The word in file names and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Expand => "expand",
            Phase::Contract => "contract",
            Phase::Down => "down",
            Phase::Verify => "verify",
        }
    }

    /// The phase of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == word)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
