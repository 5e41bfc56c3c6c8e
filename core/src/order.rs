//! Orders: what the coordinator tells an agent to do. Every effect is absolute ("the route is X"), never
//! relative, so that repeating an order changes nothing.

use crate::{
    Activation, ArtifactDigest, BackendName, BackupId, Check, CheckSeen, Epoch, HostName, Migrations,
    ReleaseId, Route, RouteEpoch, Step, SwapTo, Timestamp, VerifyLevel,
};

/// Which order of a release this is: the key of its receipt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey {
    /// The step it belongs to.
    pub step: Step,
    /// The host it is for.
    pub host: HostName,
}

/// What happens to connections that outlive the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrainEnd {
    /// They are cut.
    Cut,
    /// They are left to end by themselves.
    Leave,
}

/// What an agent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Web host: say whether it is fit to take this artifact, and change nothing.
    InspectHost {
        /// The artifact that is to come.
        artifact: ArtifactDigest,
        /// What will be done after the change.
        activation: Activation,
    },
    /// Load balancer: say whether it is fit for the release, and change nothing.
    InspectBalancer {
        /// The route that must stand.
        expected: Route,
        /// The backends that the release will use.
        backends: Vec<BackendName>,
        /// Whether visitors are led away from what serves because it fares badly: that it does not answer is then no
        /// reason to stay.
        leaving: bool,
    },
    /// Web host: have the artifact complete and verified beside what runs.
    Stage {
        /// The artifact.
        artifact: ArtifactDigest,
    },
    /// Web host: drop what an unfinished `Stage` left.
    Discard {
        /// The artifact.
        artifact: ArtifactDigest,
    },
    /// Web host: make `current` point to the artifact (or to nothing), then run the activation.
    Activate {
        /// What is to be current; `None` takes the link away.
        artifact: Option<ArtifactDigest>,
        /// Units to restart and hooks to run after a change.
        activation: Activation,
    },
    /// Load balancer: wait until nobody is served by the backend.
    Drain {
        /// The backend that is to be empty.
        backend: BackendName,
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
        /// What then.
        end: DrainEnd,
    },
    /// Load balancer: make this the route, on disk and in every worker.
    SetRoute {
        /// The routes that may stand now; anything else is drift and refused.
        expected: Vec<Route>,
        /// The route that is to stand.
        wanted: Route,
        /// Where it leads back, healthy servers that each backend whose share grows must have. Going forward all its servers
        /// must be healthy, and be at least so many.
        min_up: u32,
        /// Whether visitors are led back, to the page or from it: that nobody can keep the route for HAProxy's next start now
        /// is then no reason to leave them where they are.
        back: bool,
    },
    /// Web host: make these checks against the local server.
    ProbeHost {
        /// The checks.
        checks: Vec<Check>,
        /// The artifact that must be whole and current there, whatever its server answers: a host that was replaced or put
        /// back to an older disk answers well, with something else. None where nobody says.
        artifact: Option<ArtifactDigest>,
    },
    /// Load balancer: make these checks through it, pinned to one side of the route.
    ProbeBalancer {
        /// The checks.
        checks: Vec<Check>,
        /// The backend that must be healthy, and answer.
        backend: BackendName,
        /// The route epoch that answers must carry.
        epoch: RouteEpoch,
        /// Healthy servers that the backend must have during a watch. Before the switch all its servers must be healthy, and
        /// be at least so many.
        min_up: u32,
        /// How long they may take to become healthy, in milliseconds.
        patience_ms: u64,
    },
    /// Web host: have the maintenance file there, or not.
    SetFlag {
        /// Whether it is to be there.
        on: bool,
    },
    /// Database host: say whether it is fit for what the release does with the database, and change nothing.
    InspectDatabase {
        /// How far the backup will be checked: what that needs must be there.
        verify: VerifyLevel,
        /// The versions that must be pending.
        pending: Option<Migrations>,
    },
    /// Database host: have a checked backup taken for this release.
    BackUp {
        /// How far it is checked.
        verify: VerifyLevel,
    },
    /// Database host: check a backup that was taken before.
    VerifyBackup {
        /// The backup.
        backup: BackupId,
        /// How far it is checked.
        verify: VerifyLevel,
    },
    /// Database host: try the migrations on a copy restored from this release's backup.
    Rehearse {
        /// The migrations.
        migrations: Migrations,
    },
    /// Database host: have the migrations applied.
    Migrate {
        /// The migrations.
        migrations: Migrations,
    },
    /// Database host: have the backup restored beside the live database.
    Restore {
        /// The backup.
        backup: BackupId,
        /// How many rows written since the backup may be lost by a swap that follows; None where none follows.
        accept_loss: Option<u64>,
    },
    /// Database host: make this the live database.
    SwapDatabase {
        /// The backup that one of the two was restored from.
        backup: BackupId,
        /// Which of the two.
        to: SwapTo,
    },
    /// Database host: have the other database of a restore dropped.
    SettleRestore {
        /// The backup.
        backup: BackupId,
    },
}

impl Action {
    /// Whether the action only looks. What only looks is done anew each time it is asked for: an old answer says
    /// nothing about now.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::InspectHost { .. }
                | Self::InspectBalancer { .. }
                | Self::ProbeHost { .. }
                | Self::ProbeBalancer { .. }
                | Self::InspectDatabase { .. }
        )
    }
}

/// An action with its address, its fence and its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The release it belongs to.
    pub release: ReleaseId,
    /// The key of its receipt within the release.
    pub key: OrderKey,
    /// How often it has been sent, from 1; for logs only.
    pub attempt: u32,
    /// The fencing token of the coordinator that sends it.
    pub epoch: Epoch,
    /// When it is too late to begin, by the coordinator's clock: an order that was delayed on its way must not act on what
    /// was so before.
    pub deadline: Timestamp,
    /// It leads visitors back, to the page that a person puts up, or in again, and is too late never: what it brings is wanted until the journal says
    /// otherwise, and then a newer entry or epoch refuses it. What differs may be the clocks, and those keep nobody from the
    /// way back.
    pub leads_back: bool,
    /// What to do.
    pub action: Action,
}

/// What an agent saw when it confirmed an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The world was so already: nothing had to be done.
    pub already: bool,
    /// What was found, in words for people.
    pub detail: String,
    /// How long order and answer took, in microseconds, as the coordinator saw it.
    pub took_us: u64,
    /// When it took effect, in microseconds since 1970 by the clock of whoever holds this; only of what moves visitors,
    /// and only where it moved them now.
    pub effect_at_us: Option<u64>,
    /// Whom it may not have reached although it is done, in words for people: visitors on connections of an old worker that
    /// could not be told.
    pub unreached: Option<String>,
    /// Why the next start or reload of HAProxy may bring the route before although it is done, in words for people: whoever
    /// keeps the route for HAProxy has not taken it yet, and is asked again.
    pub unkept: Option<String>,
    /// The checks that were made, of an order to make some.
    pub checks: Vec<CheckSeen>,
}
