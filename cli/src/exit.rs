//! Exit codes: few, stable, and the worst thing that is true.

use pointsman_core::{Code, Problem};
use pointsman_proto::v1;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed, and traffic is where it was.
    Failed,
    /// Wrong usage or configuration; nothing was started.
    Usage,
    /// Traffic is back on the old slot. For verbs that look: not good.
    RolledBack,
    /// Refused, nothing was started. For verbs that look: unknown, or not over yet.
    Refused,
    /// Another release holds the environment.
    Busy,
    /// A person is needed.
    Held,
    /// The coordinator, or before any change an agent, cannot be reached.
    Unreachable,
    /// `--timeout` ran out; the release goes on.
    TimedOut,
    /// Detached; the release goes on.
    Detached,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::RolledBack => 3,
            Self::Refused => 4,
            Self::Busy => 5,
            Self::Held => 6,
            Self::Unreachable => 7,
            Self::TimedOut => 124,
            Self::Detached => 130,
        }
    }

    /// How a command ends that could not do its work.
    pub fn of_problem(problem: &Problem) -> Self {
        match problem.code {
            Code::UsageWrong
            | Code::ConfigInvalid
            | Code::EnvironmentUnknown
            | Code::FileExists
            | Code::CertificateUnusable
            | Code::NotAllowed
            | Code::ReleaseUnknown
            | Code::ReleaseIdTaken => Self::Usage,
            // Nothing was begun anywhere: after the first load balancer it would be a failure.
            Code::SiteCertificateUnfit | Code::CertificateUnknown | Code::RateTableUnknown
                if problem.aftermath == pointsman_core::Aftermath::Unchanged =>
            {
                Self::Usage
            }
            Code::PlanOutOfDate
            | Code::NotPossibleNow
            | Code::NotLeftOut
            | Code::RequestIdTaken
            | Code::OverLimitsAlready
            | Code::NothingToRollBack
            | Code::NothingToMigrate
            | Code::MigrationsRefused
            | Code::MigrationBreaking
            | Code::RouteDrift
            | Code::CertificateEnds
            | Code::WasTurnedBack
            | Code::LossGrown
            | Code::CopyMissing => Self::Refused,
            Code::EnvironmentBusy => Self::Busy,
            Code::JournalCorrupt
            | Code::JournalBehind
            | Code::JournalUnwritable
            | Code::JournalFull
            | Code::JournalSilent
            | Code::InvariantBroken => Self::Held,
            Code::CoordinatorUnreachable | Code::AgentUnreachable | Code::CertificateRefused => {
                Self::Unreachable
            }
            _ => Self::Failed,
        }
    }

    /// How a command ends that waited for a release; `None` while it runs.
    pub fn of_release(release: &v1::Release) -> Option<Self> {
        let unreachable = || {
            let code = release.turned_back.as_ref().and_then(|problem| Code::parse(&problem.code));
            matches!(code, Some(Code::AgentUnreachable | Code::CertificateRefused))
        };
        let too_much = || {
            let code = release.turned_back.as_ref().and_then(|problem| Code::parse(&problem.code));
            code == Some(Code::LossGrown)
        };
        match release.outcome.as_str() {
            "confirmed" => Some(Self::Done),
            "rolled-back" => Some(Self::RolledBack),
            "refused" if unreachable() => Some(Self::Unreachable),
            "refused" if too_much() => Some(Self::Refused),
            "aborted" | "refused" => Some(Self::Failed),
            _ if release.held.is_some() => Some(Self::Held),
            _ => None,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
