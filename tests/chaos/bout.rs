//! One release and what is done to it: which daemon is killed or stopped, where and when.

use std::fmt;
use std::time::Duration;

use kit::KillAt;

use crate::places::Who;

/// What a release is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A deploy that nothing speaks against.
    Confirm,
    /// A deploy whose new version fails its checks before visitors are moved.
    Abort,
    /// A deploy whose new version fails once visitors use it.
    RollBack,
    /// The maintenance page goes up.
    PageUp,
    /// It comes down.
    PageDown,
}

/// When something is done.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// When this is recorded of a step.
    Recorded(&'static str, &'static str),
    /// So long after the release was asked for; for the end of a stop, after its beginning.
    After(Duration),
    /// When so many more visits were answered.
    Visits(u64),
}

/// A process of HAProxy.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The master.
    Master,
    /// The worker that takes new connections.
    Worker,
}

/// A load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first, or the only one.
    First,
    /// The second.
    Second,
}

/// What is done to a release.
#[derive(Clone, Debug)]
pub enum Blow {
    /// A daemon kills itself at a place.
    Itself(Who, KillAt),
    /// Daemons are killed from outside, all at once.
    Outside(Vec<Who>, Moment),
    /// A daemon is stopped, and goes on later.
    Stop(Who, Moment, Moment),
    /// The HAProxy of a load balancer loses a process, and with it all of them.
    Haproxy(Which, Part, Moment),
}

/// One release and what is done to it.
#[derive(Clone, Debug)]
pub struct Bout {
    /// What it is to come to.
    pub goal: Goal,
    /// The outcomes that are right.
    pub ends: &'static [&'static str],
    /// What is done to it.
    pub blows: Vec<Blow>,
    /// How long a killed daemon stays away.
    pub away: Duration,
    /// How many files of 1 MiB the artifact has beside its pages.
    pub mebibytes: u64,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The release.
    pub release: String,
    /// How it ended.
    pub outcome: String,
    /// The blows that fell, by their names.
    pub fell: Vec<String>,
    /// The blows that did not: their moment never came.
    pub missed: Vec<String>,
    /// Requests of visitors.
    pub requests: usize,
    /// Those that failed and should not have, in words.
    pub failures: Vec<String>,
    /// From each start of the coordinator, in the middle of the release, to the release going on, in milliseconds.
    pub back_ms: Vec<i64>,
}

impl Bout {
    /// A release that comes to its goal although these things are done to it.
    pub fn new(goal: Goal, blows: Vec<Blow>) -> Self {
        let ends: &[&str] = match goal {
            Goal::Confirm | Goal::PageUp | Goal::PageDown => &["confirmed"],
            Goal::Abort => &["aborted"],
            Goal::RollBack => &["rolled-back"],
        };
        Self { goal, ends, blows, away: Duration::ZERO, mebibytes: 0 }
    }

    /// Whether HAProxy itself is hurt, which visitors notice.
    pub fn hurts_haproxy(&self) -> bool {
        self.blows.iter().any(|blow| matches!(blow, Blow::Haproxy(..)))
    }

    /// Whether the maintenance page is what visitors get for a while.
    pub fn moves_page(&self) -> bool {
        matches!(self.goal, Goal::PageUp | Goal::PageDown)
    }
}

impl Blow {
    /// Its name without its moment, to be counted by.
    pub fn name(&self) -> String {
        match self {
            Self::Itself(who, at) => format!("{}@{who}", at.place),
            Self::Outside(who, _) => {
                let who: Vec<String> = who.iter().map(ToString::to_string).collect();
                format!("kill@{}", who.join("+"))
            }
            Self::Stop(who, ..) => format!("stop@{who}"),
            Self::Haproxy(which, part, _) => {
                let part = if matches!(part, Part::Master) { "master" } else { "worker" };
                let second = if *which == Which::Second { "second-" } else { "" };
                format!("kill@{second}haproxy-{part}")
            }
        }
    }
}

impl fmt::Display for Bout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} MiB, away {:?}: {:?}", self.goal, self.mebibytes, self.away, self.blows)
    }
}
