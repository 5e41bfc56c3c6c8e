//! The steps of a release: the table that plan, machine and display agree on.

use std::fmt;

/// One idempotent piece of work on some hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Is everything fit for the release? Changes nothing.
    Preflight,
    /// Bring the artifact beside what runs on the idle slot.
    Stage,
    /// Take a backup of the database and check it.
    Backup,
    /// Try the migrations on a restored copy of the database.
    Rehearse,
    /// Apply the migrations that the version which still serves does not notice.
    Expand,
    /// Wait until nobody is served by the idle slot any more.
    Drain,
    /// Make the artifact current on the idle slot.
    Activate,
    /// Let testers reach the idle slot through the load balancers.
    Expose,
    /// Local checks on every host, and the named checks through the load balancers.
    Check,
    /// Move a share of the visitors to the new slot and watch how they fare: the splits of the plan, counted from 1.
    Canary(u8),
    /// Move all visitors to the new slot.
    Switch,
    /// Read the gates while visitors use the new slot.
    Watch,
    /// Put the maintenance page up or take it down.
    Maintain,
    /// Apply the migrations that the version before would not have survived, or take one back.
    Contract,
    /// Restore a backup beside the live database.
    Restore,
    /// Put another database in the place of the live one.
    Swap,
    /// Lead visitors back to where they were before another database was put in the live one's place.
    Lift,
    /// Undo `Swap`.
    Unswap,
    /// Undo `Maintain`.
    Unmaintain,
    /// Undo `Switch`: all visitors back to the old slot.
    RouteBack,
    /// Undo `Expose`: testers no longer reach the idle slot.
    Conceal,
    /// Undo `Activate`: what was current before is current again.
    LinkBack,
    /// Undo `Stage`: drop what was staged.
    Discard,
}

/// How a step stands to the visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On the way to the new version.
    Forward,
    /// On the way back.
    Backward,
}

/// Most splits of one plan: each is a moment in which somebody could have decided, and more than this nobody needs.
pub const MAX_SPLITS: usize = 8;

impl Step {
    /// Every step, for tables.
    pub const ALL: [Self; 22 + MAX_SPLITS] = [
        Self::Preflight,
        Self::Stage,
        Self::Backup,
        Self::Rehearse,
        Self::Expand,
        Self::Drain,
        Self::Activate,
        Self::Expose,
        Self::Check,
        Self::Canary(1),
        Self::Canary(2),
        Self::Canary(3),
        Self::Canary(4),
        Self::Canary(5),
        Self::Canary(6),
        Self::Canary(7),
        Self::Canary(8),
        Self::Switch,
        Self::Watch,
        Self::Maintain,
        Self::Contract,
        Self::Restore,
        Self::Swap,
        Self::Lift,
        Self::Unswap,
        Self::Unmaintain,
        Self::RouteBack,
        Self::Conceal,
        Self::LinkBack,
        Self::Discard,
    ];

    /// The word operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Stage => "stage",
            Self::Backup => "backup",
            Self::Rehearse => "rehearse",
            Self::Expand => "expand",
            Self::Drain => "drain",
            Self::Activate => "activate",
            Self::Expose => "expose",
            Self::Check => "check",
            Self::Canary(number) => CANARY_WORDS
                .get(usize::from(number).saturating_sub(1))
                .copied()
                // No plan has more splits than there are words.
                .unwrap_or("canary"),
            Self::Switch => "switch",
            Self::Watch => "watch",
            Self::Maintain => "maintain",
            Self::Contract => "contract",
            Self::Restore => "restore",
            Self::Swap => "swap",
            Self::Lift => "lift",
            Self::Unswap => "unswap",
            Self::Unmaintain => "unmaintain",
            Self::RouteBack => "route-back",
            Self::Conceal => "conceal",
            Self::LinkBack => "link-back",
            Self::Discard => "discard",
        }
    }

    /// Finds the step that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }

    /// Whether the step moves visitors to the new slot: some of them, or all.
    pub fn moves_visitors(self) -> bool {
        matches!(self, Self::Canary(_) | Self::Switch)
    }

    /// Whether the step, in whatever release, leads back, or lets visitors in again: what it brings is wanted however late.
    pub fn leads_back(self) -> bool {
        self.kind() == Kind::Backward || self == Self::Lift
    }

    /// Whether the step works on the database, forward.
    pub fn is_of_database(self) -> bool {
        matches!(
            self,
            Self::Backup | Self::Rehearse | Self::Expand | Self::Contract | Self::Restore | Self::Swap
        )
    }

    /// Whether all load balancers take a new route in this step together: it is prepared on every one of them before any
    /// takes it. On the way back each goes as soon as it can.
    pub fn together(self) -> bool {
        matches!(self, Self::Expose | Self::Canary(_) | Self::Switch | Self::Maintain | Self::Lift)
    }

    /// Whether the step goes forward or back.
    pub fn kind(self) -> Kind {
        match self {
            Self::RouteBack
            | Self::Conceal
            | Self::LinkBack
            | Self::Discard
            | Self::Unmaintain
            | Self::Unswap => Kind::Backward,
            _ => Kind::Forward,
        }
    }
}

/// The words for the splits, as each of them is a step of its own.
const CANARY_WORDS: [&str; MAX_SPLITS] =
    ["canary-1", "canary-2", "canary-3", "canary-4", "canary-5", "canary-6", "canary-7", "canary-8"];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_word_of_its_own() {
        for step in Step::ALL {
            assert_eq!(Step::parse(step.as_str()), Some(step));
        }
    }
}
