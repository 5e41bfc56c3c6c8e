//! The plan: every choice of a release, made before it starts and frozen.

use std::collections::BTreeMap;

use crate::{
    Action, ArtifactDigest, BackendName, Check, CheckFrom, CheckMoment, DatabasePlan, DatabaseWork, DrainEnd,
    EnvironmentName, HookName, HostName, MAX_SPLITS, ReleaseId, RequestId, Route, RouteEpoch, SlotName,
    Standing, Step, SwapTo, Timestamp, UnitName, VerdictPlan, VerifyLevel,
};

/// What a release is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Make this artifact live on the idle slot.
    Deploy {
        /// The artifact.
        artifact: ArtifactDigest,
    },
    /// Move visitors back to a slot that was live before, with what is on it; or a share of them to the slot that serves the
    /// others: see [`Plan::gathers`].
    Rollback {
        /// What must be current there; unknown for a slot that pointsman never filled.
        artifact: Option<ArtifactDigest>,
        /// The release that was live with it.
        to: Option<ReleaseId>,
    },
    /// Put the maintenance page up or take it down.
    Maintenance {
        /// Up or down.
        on: bool,
        /// When it must be down again, if a bound was given. People are reminded; nothing happens by itself.
        until: Option<Timestamp>,
    },
    /// Work on the database alone. Visitors stay where they are.
    Database(DatabaseWork),
}

/// A slot with the hosts it stands on, as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPlan {
    /// The slot.
    pub name: SlotName,
    /// Its backend on the load balancers.
    pub backend: BackendName,
    /// Its hosts.
    pub hosts: Vec<HostName>,
}

/// What a host does after `current` has moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Activation {
    /// Units to restart, in order. The agent's own file must allow them.
    pub restart: Vec<UnitName>,
    /// Hooks to run, in order. The agent's own file says what they are.
    pub hooks: Vec<HookName>,
}

/// One share of the visitors that the new slot gets before it gets all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The share, in percent: 1 to 99.
    pub percent: u8,
    /// How long it is watched before more follow, in milliseconds.
    pub hold_ms: u64,
}

/// How the release is watched after the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPlan {
    /// How long, in milliseconds.
    pub duration_ms: u64,
    /// Time between two readings of the gates, in milliseconds.
    pub interval_ms: u64,
    /// Failed readings in a row that roll the release back.
    pub fail_after: u32,
    /// How long the gates may be unreadable before the release is held, in milliseconds.
    pub blind_ms: u64,
}

/// The bounds of every wait, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One attempt to fence or inspect an agent.
    pub inspect_ms: u64,
    /// One attempt to bring the artifact to one host.
    pub stage_ms: u64,
    /// One attempt to activate, with its hooks.
    pub activate_ms: u64,
    /// One attempt to move a route.
    pub route_ms: u64,
    /// One attempt to make all checks from one place.
    pub check_ms: u64,
    /// How long the servers of a slot may take to be healthy for the load balancers after an activation.
    pub healthy_ms: u64,
    /// How long requests on the idle slot may take to end.
    pub drain_ms: u64,
    /// How old the checks may be when visitors are moved on the strength of them.
    pub gate_ttl_ms: u64,
    /// How often an order is tried on the way forward.
    pub attempts: u32,
    /// How long an order on the way back, or a fence, is tried before the release is held.
    pub persist_ms: u64,
}

/// A release, complete: nothing is left to choose while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The release.
    pub release: ReleaseId,
    /// Its environment.
    pub environment: EnvironmentName,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made.
    pub created_at: Timestamp,
    /// The principal who asked for it.
    pub created_by: String,
    /// What CI calls the request.
    pub request_id: Option<RequestId>,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// The load balancers of the site that take part: all but those that are out of service.
    pub balancers: Vec<HostName>,
    /// Load balancers that did not answer and that a person said are out of service. They are asked nothing, and stand as
    /// they stood.
    pub without: Vec<HostName>,
    /// The slot that serves now; none before the first release.
    pub from: Option<SlotPlan>,
    /// The slot that is to serve. For maintenance: the slot that serves now or, before the first release, any.
    pub to: SlotPlan,
    /// The backend that answers with the maintenance page.
    pub maintenance_backend: BackendName,
    /// The maintenance page is up, and stays up: visitors are moved when it comes down.
    pub under_maintenance: bool,
    /// Hosts that keep a maintenance file of their own.
    pub flag_hosts: Vec<HostName>,
    /// The route that stood on every load balancer when the plan was made.
    pub route_before: Route,
    /// The highest route epoch that any load balancer has ever been given: this release counts on from it.
    pub route_epoch_base: RouteEpoch,
    /// What `current` pointed to on each host of the target slot.
    pub links_before: BTreeMap<HostName, Option<ArtifactDigest>>,
    /// What hosts do after `current` has moved.
    pub activation: Activation,
    /// What the release does with the database, if anything.
    pub database: Option<DatabasePlan>,
    /// The shares of the visitors that the new slot gets first, in order. Empty: all of them at once.
    pub splits: Vec<Split>,
    /// The checks.
    pub checks: Vec<Check>,
    /// The watch.
    pub watch: WatchPlan,
    /// What the visitors' signals decide.
    pub verdict: VerdictPlan,
    /// Whether a failing watch moves visitors back by itself, or holds for a person.
    pub automatic_rollback: bool,
    /// What happens to connections that outlive the drain.
    pub drain_end: DrainEnd,
    /// The bounds.
    pub limits: Limits,
    /// What was found against the release that a rollback leads away from; none where nothing was: see [`Plan::ill`].
    pub found_ill: Option<String>,
    /// How the environment stood when the release began: whoever reads the journal from here on needs nothing of before.
    /// None before it begins, and in releases from before this was said.
    pub stood: Option<Box<Standing>>,
}

/// The steps of a deploy with `N` minus eight splits or, with migrations, minus eleven.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated while compiling: an index out of bounds does not compile"
)]
const fn deploy_steps<const N: usize>(migrates: bool) -> [Step; N] {
    let mut steps = [Step::Preflight; N];
    let plain: &[Step] =
        &[Step::Preflight, Step::Stage, Step::Drain, Step::Activate, Step::Expose, Step::Check];
    let migrating: &[Step] = &[
        Step::Preflight,
        Step::Stage,
        Step::Backup,
        Step::Rehearse,
        Step::Expand,
        Step::Drain,
        Step::Activate,
        Step::Expose,
        Step::Check,
    ];
    let before = if migrates { migrating } else { plain };
    let mut index = 0;
    let mut number = 1;
    while index < N {
        steps[index] = if index < before.len() {
            before[index]
        } else if index == N - 1 {
            Step::Watch
        } else if index == N - 2 {
            Step::Switch
        } else {
            number += 1;
            Step::Canary(number - 1)
        };
        index += 1;
    }
    steps
}

/// The steps of a deploy, by the number of its splits.
static DEPLOYS: [&[Step]; MAX_SPLITS + 1] = [
    &deploy_steps::<8>(false),
    &deploy_steps::<9>(false),
    &deploy_steps::<10>(false),
    &deploy_steps::<11>(false),
    &deploy_steps::<12>(false),
    &deploy_steps::<13>(false),
    &deploy_steps::<14>(false),
    &deploy_steps::<15>(false),
    &deploy_steps::<16>(false),
];

/// The same with migrations. They come before the new version runs anywhere: it is checked on the schema it was made for.
static MIGRATING_DEPLOYS: [&[Step]; MAX_SPLITS + 1] = [
    &deploy_steps::<11>(true),
    &deploy_steps::<12>(true),
    &deploy_steps::<13>(true),
    &deploy_steps::<14>(true),
    &deploy_steps::<15>(true),
    &deploy_steps::<16>(true),
    &deploy_steps::<17>(true),
    &deploy_steps::<18>(true),
    &deploy_steps::<19>(true),
];

/// How long requests that are being served are waited for before a swap of databases, in milliseconds: others are kept
/// waiting meanwhile.
const LONGEST_QUIET_MS: u64 = 1_000;

/// What a reading of the gates may take beside its checks, in milliseconds.
const READING_MS: u64 = 1_000;

/// Who begins a rollback that nobody asked for. A person's name has the role before it.
pub const BY_ITSELF: &str = "pointsman";
/// How the reason of such a rollback begins.
pub const AFTER_ITS_END: &str = "after its end: ";

impl Plan {
    /// Why the release that this rollback leads visitors away from is not to have them again without being watched; none where
    /// nothing was found against it. Plans of before this was kept say it by who began them.
    pub fn ill(&self) -> Option<&str> {
        let leads_away = matches!(self.purpose, Purpose::Rollback { .. }) && !self.gathers();
        let of_before = || {
            let why = self.reason.as_deref().filter(|_| self.created_by == BY_ITSELF)?;
            Some(why.strip_prefix(AFTER_ITS_END).unwrap_or(why))
        };
        self.found_ill.as_deref().or_else(of_before).filter(|_| leads_away)
    }

    /// The steps on the way forward, in order.
    pub fn steps(&self) -> &'static [Step] {
        match self.purpose {
            // The splits of a plan are bounded where it is made and where it is read.
            Purpose::Deploy { .. } => {
                let deploys = if self.database.is_some() { &MIGRATING_DEPLOYS } else { &DEPLOYS };
                deploys.get(self.splits.len()).copied().unwrap_or_default()
            }
            Purpose::Rollback { .. } => &[Step::Preflight, Step::Switch],
            Purpose::Maintenance { .. } => &[Step::Maintain],
            Purpose::Database(DatabaseWork::Backup) => &[Step::Preflight, Step::Backup],
            Purpose::Database(DatabaseWork::Verify { .. }) => &[Step::Backup],
            Purpose::Database(DatabaseWork::Contract | DatabaseWork::Down { .. }) => {
                &[Step::Preflight, Step::Stage, Step::Backup, Step::Rehearse, Step::Contract]
            }
            Purpose::Database(DatabaseWork::Restore { .. } | DatabaseWork::Settle { .. }) => &[Step::Restore],
            // What would be lost is counted while visitors are still served: it may take long.
            Purpose::Database(DatabaseWork::Swap { .. }) if self.keeps_away() => {
                &[Step::Restore, Step::Maintain, Step::Drain, Step::Swap, Step::Lift]
            }
            Purpose::Database(DatabaseWork::SwapBack { .. }) if self.keeps_away() => {
                &[Step::Maintain, Step::Drain, Step::Swap, Step::Lift]
            }
            Purpose::Database(DatabaseWork::Swap { .. } | DatabaseWork::SwapBack { .. }) => &[Step::Swap],
        }
    }

    /// Whether visitors are kept away while another database is put in the live one's place.
    pub fn keeps_away(&self) -> bool {
        let swaps = matches!(
            self.purpose,
            Purpose::Database(DatabaseWork::Swap { .. } | DatabaseWork::SwapBack { .. })
        );
        swaps && self.database.as_ref().is_some_and(|database| database.keeps_away)
    }

    /// Whether it leads a share of the visitors back for which no release accounts: to the slot that serves the others, from
    /// which nobody is moved. What is live stays what it was, and its way back leads to the same slot.
    pub fn gathers(&self) -> bool {
        let same = self.from.as_ref().is_some_and(|from| from.name == self.to.name);
        same && matches!(self.purpose, Purpose::Rollback { .. })
    }

    /// The step after `step` on the way forward.
    pub fn step_after(&self, step: Step) -> Option<Step> {
        self.steps().iter().copied().skip_while(|s| *s != step).nth(1)
    }

    /// The step before `step` on the way forward.
    pub fn step_before(&self, step: Step) -> Option<Step> {
        self.steps().iter().copied().take_while(|s| *s != step).last()
    }

    /// How long visitors are watched after this step, in milliseconds; `None` after a step that moves none, or that
    /// nothing watches.
    pub fn watch_ms(&self, after: Step) -> Option<u64> {
        let longest_ms = self.verdict.max_watch_ms.filter(|_| self.verdict.must_decide());
        match after {
            Step::Canary(number) => {
                let split = self.splits.get(usize::from(number).checked_sub(1)?)?;
                Some(longest_ms.unwrap_or(split.hold_ms))
            }
            Step::Switch if self.steps().contains(&Step::Watch) => {
                Some(longest_ms.unwrap_or(self.watch.duration_ms))
            }
            _ => None,
        }
    }

    /// The artifact that is to be live at the end, as far as it is known.
    pub fn artifact(&self) -> Option<ArtifactDigest> {
        match &self.purpose {
            Purpose::Deploy { artifact } => Some(*artifact),
            Purpose::Rollback { artifact, .. } => *artifact,
            Purpose::Maintenance { .. } | Purpose::Database(_) => None,
        }
    }

    /// All hosts that the release talks to.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        let (balancers, others) = match self.purpose {
            Purpose::Maintenance { .. } => (self.balancers.as_slice(), self.flag_hosts.as_slice()),
            Purpose::Deploy { .. } => (self.balancers.as_slice(), self.to.hosts.as_slice()),
            // The way back is the load balancers' alone: an agent that is down on the old slot must not block it.
            Purpose::Rollback { .. } => (self.balancers.as_slice(), [].as_slice()),
            Purpose::Database(_) if self.keeps_away() => (self.balancers.as_slice(), [].as_slice()),
            Purpose::Database(_) => ([].as_slice(), [].as_slice()),
        };
        balancers.iter().chain(others).chain(self.database.as_ref().map(|database| &database.host))
    }

    /// The hosts that a step's orders go to.
    pub fn targets(&self, step: Step) -> Vec<HostName> {
        self.asked(step).cloned().collect()
    }

    /// [`Self::targets`], one after the other.
    pub fn asked(&self, step: Step) -> impl Iterator<Item = &HostName> {
        let migrates = self.database.as_ref().filter(|database| database.migrations.is_some());
        let database = match step {
            Step::Preflight
            | Step::Backup
            | Step::Rehearse
            | Step::Expand
            | Step::Contract
            | Step::Restore
            | Step::Swap
            | Step::Unswap => self.database.as_ref(),
            // Files of migrations are brought like those of the site.
            Step::Stage | Step::Discard => migrates,
            _ => None,
        };
        let (balancers, others): (&[HostName], &[HostName]) = match (step, &self.purpose) {
            (Step::Maintain | Step::Drain | Step::Lift | Step::Unmaintain, Purpose::Database(_))
                if self.keeps_away() =>
            {
                (&self.balancers, &[])
            }
            (_, Purpose::Database(_)) => (&[], &[]),
            (Step::Preflight, Purpose::Maintenance { .. }) => (&self.balancers, &self.flag_hosts),
            (Step::Preflight, Purpose::Rollback { .. }) => (&self.balancers, &[]),
            (Step::Preflight | Step::Check, _) => (&self.balancers, &self.to.hosts),
            (Step::Stage | Step::Activate | Step::LinkBack | Step::Discard, _) => (&[], &self.to.hosts),
            (Step::Maintain | Step::Unmaintain, _) => (&self.balancers, &self.flag_hosts),
            (
                Step::Watch
                | Step::Backup
                | Step::Rehearse
                | Step::Expand
                | Step::Contract
                | Step::Restore
                | Step::Swap
                | Step::Unswap,
                _,
            ) => (&[], &[]),
            (
                Step::Drain
                | Step::Expose
                | Step::Conceal
                | Step::Canary(_)
                | Step::Switch
                | Step::RouteBack
                | Step::Lift,
                _,
            ) => (&self.balancers, &[]),
        };
        balancers.iter().chain(others).chain(database.map(|database| &database.host))
    }

    /// Whether a step has an order for this host.
    pub fn asks(&self, step: Step, host: &HostName) -> bool {
        self.asked(step).any(|asked| asked == host)
    }

    fn backend_of(&self, slot: Option<&SlotPlan>) -> BackendName {
        slot.map_or_else(|| self.maintenance_backend.clone(), |slot| slot.backend.clone())
    }

    /// Where visitors are to be: on the slot, unless the maintenance page is up.
    fn visitors_on(&self, slot: Option<&SlotPlan>) -> BackendName {
        if self.under_maintenance { self.maintenance_backend.clone() } else { self.backend_of(slot) }
    }

    /// The route that a step sets. Each step has a route epoch of its own, so no two moves look alike.
    pub fn route(&self, step: Step) -> Option<Route> {
        let (from, to) = (self.from.as_ref(), Some(&self.to));
        let splits = u64::try_from(self.splits.len()).unwrap_or(u64::MAX);
        let (stable, canary, moves) = match step {
            Step::Expose => (self.visitors_on(from), self.backend_of(to), 1),
            Step::Canary(number) => {
                let split = self.splits.get(usize::from(number).checked_sub(1)?)?;
                let epoch = self.route_epoch_base.after(u64::from(number).saturating_add(1));
                let (stable, canary) = (self.visitors_on(from), self.backend_of(to));
                return Some(Route { stable, canary, percent: split.percent, epoch });
            }
            Step::Switch if self.under_maintenance => (self.visitors_on(to), self.backend_of(to), 2),
            Step::Switch => (self.backend_of(to), self.backend_of(from), splits.saturating_add(2)),
            Step::Conceal => (self.visitors_on(from), self.backend_of(from), splits.saturating_add(3)),
            Step::RouteBack if self.under_maintenance => (self.visitors_on(from), self.backend_of(from), 4),
            Step::RouteBack => (self.backend_of(from), self.backend_of(to), splits.saturating_add(4)),
            Step::Maintain | Step::Lift | Step::Unmaintain if self.keeps_away() => {
                return Some(self.away_route(step));
            }
            Step::Maintain => return self.maintenance_route(1, false),
            Step::Unmaintain => return self.maintenance_route(2, true),
            _ => return None,
        };
        Some(Route { stable, canary, percent: 0, epoch: self.route_epoch_base.after(moves) })
    }

    fn maintenance_route(&self, moves: u64, inverse: bool) -> Option<Route> {
        let Purpose::Maintenance { on, .. } = self.purpose else { return None };
        if inverse {
            return Some(Route { epoch: self.route_epoch_base.after(moves), ..self.route_before.clone() });
        }
        let live = self.backend_of(self.from.as_ref());
        let stable = if on { self.maintenance_backend.clone() } else { live.clone() };
        Some(Route { stable, canary: live, percent: 0, epoch: self.route_epoch_base.after(moves) })
    }

    /// The route of a step around a swap of databases: away from the slot that serves, and back to what was.
    fn away_route(&self, step: Step) -> Route {
        let (back, moves) = match step {
            Step::Maintain => (false, 1),
            Step::Lift => (true, 2),
            _ => (true, 3),
        };
        let epoch = self.route_epoch_base.after(moves);
        if back {
            return Route { epoch, ..self.route_before.clone() };
        }
        let live = self.backend_of(self.from.as_ref());
        Route { stable: self.maintenance_backend.clone(), canary: live, percent: 0, epoch }
    }

    /// Whether a step moves visitors although nobody can keep the route now: it leads them back, or to the page or from it because
    /// a person says so. The page that a swap of databases puts up is part of the way forward: it waits until it is kept.
    fn goes_unkept(&self, step: Step) -> bool {
        match step {
            Step::Conceal | Step::RouteBack | Step::Lift | Step::Unmaintain => true,
            Step::Maintain => matches!(self.purpose, Purpose::Maintenance { .. }),
            Step::Switch => matches!(self.purpose, Purpose::Rollback { .. }),
            _ => false,
        }
    }

    /// Whether a step leads visitors back, to the page or in again: see [`crate::Order::leads_back`]. The page that a swap of
    /// databases puts up is part of the way forward.
    pub fn leads_back(&self, step: Step) -> bool {
        let whole = matches!(self.purpose, Purpose::Rollback { .. } | Purpose::Maintenance { .. });
        whole || step.leads_back()
    }

    /// Whether it leads visitors away from a version because that fares badly.
    fn leads_away(&self) -> bool {
        matches!(self.purpose, Purpose::Rollback { .. }) || self.verdict.fix_forward
    }

    /// The routes that may stand when a step moves traffic. On the way back that is every route that this
    /// release may have set.
    fn expected_routes(&self, step: Step) -> Vec<Route> {
        let before = [self.route_before.clone()].into_iter();
        match step {
            // Between the checks and the first move, and between two moves, the route is that of the last step with one.
            Step::Canary(_) | Step::Switch if self.steps().contains(&Step::Expose) => {
                let earlier = self.steps().iter().take_while(|earlier| **earlier != step);
                earlier.filter_map(|earlier| self.route(*earlier)).last().into_iter().collect()
            }
            Step::Conceal => before.chain(self.route(Step::Expose)).collect(),
            Step::RouteBack => {
                let set = self.steps().iter().filter_map(|step| self.route(*step));
                before.chain(set).collect()
            }
            Step::Lift => self.route(Step::Maintain).into_iter().collect(),
            Step::Unmaintain => {
                let set = [Step::Maintain, Step::Lift].into_iter();
                before.chain(set.filter_map(|step| self.route(step))).collect()
            }
            _ => before.collect(),
        }
    }

    /// What a step asks of a host.
    pub fn action(&self, step: Step, host: &HostName) -> Option<Action> {
        if let Some(database) = self.database.as_ref().filter(|database| database.host == *host) {
            return self.database_action(database, step);
        }
        let on_balancer = self.balancers.contains(host);
        match step {
            Step::Preflight if on_balancer => Some(Action::InspectBalancer {
                expected: self.route_before.clone(),
                backends: [self.from.as_ref(), Some(&self.to)]
                    .into_iter()
                    .flatten()
                    .map(|slot| slot.backend.clone())
                    .chain([self.maintenance_backend.clone()])
                    .collect(),
                leaving: self.leads_away(),
            }),
            Step::Preflight => {
                let activation = self.activation.clone();
                self.artifact().map(|artifact| Action::InspectHost { artifact, activation })
            }
            Step::Stage => self.artifact().map(|artifact| Action::Stage { artifact }),
            Step::Discard => self.artifact().map(|artifact| Action::Discard { artifact }),
            // Whoever is still served may meet a broken connection; whoever waits should not wait long for that.
            Step::Drain if self.keeps_away() => Some(Action::Drain {
                backend: self.to.backend.clone(),
                timeout_ms: self.limits.drain_ms.min(LONGEST_QUIET_MS),
                end: DrainEnd::Leave,
            }),
            Step::Drain => Some(Action::Drain {
                backend: self.to.backend.clone(),
                timeout_ms: self.limits.drain_ms,
                end: self.drain_end,
            }),
            Step::Activate => {
                Some(Action::Activate { artifact: self.artifact(), activation: self.activation.clone() })
            }
            Step::LinkBack => Some(Action::Activate {
                artifact: self.links_before.get(host).copied().flatten(),
                activation: self.activation.clone(),
            }),
            Step::Check if on_balancer => self.probe_balancer(CheckMoment::BeforeSwitch, Step::Expose),
            Step::Check => Some(self.probe_host(self.checks(CheckFrom::Hosts, CheckMoment::BeforeSwitch))),
            Step::Maintain | Step::Unmaintain if !on_balancer => match self.purpose {
                Purpose::Maintenance { on, .. } if step == Step::Maintain => Some(Action::SetFlag { on }),
                // Back to what was, which is not always the opposite: the page may have been up, or down, already.
                Purpose::Maintenance { .. } => Some(Action::SetFlag { on: self.under_maintenance }),
                _ => None,
            },
            step => Some(Action::SetRoute {
                expected: self.expected_routes(step),
                wanted: self.route(step)?,
                min_up: self.min_up(step),
                back: self.goes_unkept(step),
            }),
        }
    }

    /// What a step asks of the database's host.
    fn database_action(&self, database: &DatabasePlan, step: Step) -> Option<Action> {
        let (verify, migrations) = (database.verify, database.migrations.clone());
        let work = match &self.purpose {
            Purpose::Database(work) => Some(work),
            _ => None,
        };
        match (step, work) {
            (Step::Preflight, _) => Some(Action::InspectDatabase { verify, pending: migrations }),
            (Step::Stage, _) => Some(Action::Stage { artifact: migrations?.artifact }),
            (Step::Discard, _) => Some(Action::Discard { artifact: migrations?.artifact }),
            (Step::Backup, Some(DatabaseWork::Verify { backup })) => {
                Some(Action::VerifyBackup { backup: backup.clone(), verify })
            }
            // The rehearsal restores it: what comes next is that check, and it need not be made twice.
            (Step::Backup, _) if migrations.is_some() => {
                Some(Action::BackUp { verify: verify.min(VerifyLevel::Read) })
            }
            (Step::Backup, _) => Some(Action::BackUp { verify }),
            (Step::Rehearse, _) => Some(Action::Rehearse { migrations: migrations? }),
            (Step::Expand | Step::Contract, _) => Some(Action::Migrate { migrations: migrations? }),
            // Restored already: found again, and what would be lost is counted anew.
            (Step::Restore, Some(DatabaseWork::Restore { backup })) => {
                Some(Action::Restore { backup: backup.clone(), accept_loss: None })
            }
            // A swap that would lose too much is refused here, before anybody is led away for it.
            (Step::Restore, Some(DatabaseWork::Swap { backup, accept_loss })) => {
                Some(Action::Restore { backup: backup.clone(), accept_loss: Some(*accept_loss) })
            }
            (Step::Swap, Some(DatabaseWork::Swap { backup, accept_loss })) => {
                let to = SwapTo::Restored { accept_loss: *accept_loss };
                Some(Action::SwapDatabase { backup: backup.clone(), to })
            }
            (Step::Restore, Some(DatabaseWork::Settle { backup })) => {
                Some(Action::SettleRestore { backup: backup.clone() })
            }
            (Step::Swap, Some(DatabaseWork::SwapBack { backup, accept_loss })) => {
                let to = SwapTo::Before { accept_loss: *accept_loss };
                Some(Action::SwapDatabase { backup: backup.clone(), to })
            }
            // Nobody has accepted that anything is lost on this way: with a row written since, a person decides.
            (Step::Unswap, Some(DatabaseWork::Swap { backup, .. })) => {
                Some(Action::SwapDatabase { backup: backup.clone(), to: SwapTo::Before { accept_loss: 0 } })
            }
            _ => None,
        }
    }

    /// Servers that a slot must have to get visitors. Going forward one for each host, and whatever it has is healthy, as the
    /// load balancer sees to; going back, one healthy one is better than none.
    fn min_up(&self, step: Step) -> u32 {
        match (step, &self.purpose) {
            (Step::Canary(_) | Step::Switch, Purpose::Deploy { .. }) => {
                u32::try_from(self.to.hosts.len()).unwrap_or(u32::MAX)
            }
            _ => 1,
        }
    }

    /// The checks made from a place at a moment. During the watch each is made once per reading: patience is the
    /// watch's own.
    fn checks(&self, from: CheckFrom, moment: CheckMoment) -> Vec<Check> {
        let patience = |check: &Check| match moment {
            CheckMoment::BeforeSwitch => check.patience_ms,
            CheckMoment::AfterSwitch => 0,
        };
        let made = self.checks.iter().filter(|check| check.from == from && check.applies(moment));
        made.map(|check| Check { patience_ms: patience(check), ..check.clone() }).collect()
    }

    /// The checks through a load balancer while the route of `step` stands.
    fn probe_balancer(&self, moment: CheckMoment, step: Step) -> Option<Action> {
        let (min_up, patience_ms) = match moment {
            CheckMoment::BeforeSwitch => {
                (u32::try_from(self.to.hosts.len()).unwrap_or(u32::MAX), self.limits.healthy_ms)
            }
            CheckMoment::AfterSwitch => (1, 0),
        };
        Some(Action::ProbeBalancer {
            checks: self.checks(CheckFrom::Balancers, moment),
            backend: self.to.backend.clone(),
            epoch: self.route(step)?.epoch,
            min_up,
            patience_ms,
        })
    }

    /// What is asked, and of whom, each time the gates of the watch after this step are read.
    pub fn gates(&self, after: Step) -> Vec<(HostName, Action)> {
        let through = self.probe_balancer(CheckMoment::AfterSwitch, after);
        let balancers = self.balancers.iter().filter_map(|host| Some((host.clone(), through.clone()?)));
        let local = self.checks(CheckFrom::Hosts, CheckMoment::AfterSwitch);
        let local = self.probe_host(local);
        balancers.chain(self.to.hosts.iter().map(|host| (host.clone(), local.clone()))).collect()
    }

    /// The checks on a host that must hold what the release brought there.
    fn probe_host(&self, checks: Vec<Check>) -> Action {
        let brought = matches!(self.purpose, Purpose::Deploy { .. });
        Action::ProbeHost { checks, artifact: self.artifact().filter(|_| brought) }
    }

    /// Bound on one reading of the gates, in milliseconds: what its slowest checks may take one after the other, and a
    /// moment for the way there and back.
    pub fn reading_ms(&self) -> u64 {
        let made = |from: CheckFrom| {
            self.checks
                .iter()
                .filter(move |check| check.from == from && check.applies(CheckMoment::AfterSwitch))
        };
        let of =
            |from: CheckFrom| -> u64 { made(from).map(|check| check.bound_ms.max(check.timeout_ms)).sum() };
        let slowest = of(CheckFrom::Hosts).max(of(CheckFrom::Balancers));
        slowest.saturating_add(READING_MS).min(self.limits.check_ms)
    }

    /// Bound on one attempt of a step's order, in milliseconds.
    pub fn attempt_ms(&self, step: Step) -> u64 {
        let limits = &self.limits;
        let (backup_ms, migrate_ms) =
            self.database.as_ref().map_or((0, 0), |database| (database.backup_ms, database.migrate_ms));
        match step {
            Step::Backup | Step::Restore | Step::Swap | Step::Unswap => backup_ms,
            Step::Rehearse => backup_ms.saturating_add(migrate_ms),
            Step::Expand | Step::Contract => migrate_ms,
            Step::Preflight => limits.inspect_ms,
            Step::Stage | Step::Discard => limits.stage_ms,
            // Time to wait, then time to cut and look again.
            Step::Drain => limits.drain_ms.saturating_add(limits.route_ms),
            Step::Activate | Step::LinkBack => limits.activate_ms,
            Step::Check | Step::Watch => limits.check_ms,
            _ => limits.route_ms,
        }
    }
}
