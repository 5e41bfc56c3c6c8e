//! Making plans: every choice of a release from what the environment file says, what the journal remembers and what
//! the hosts show now. Observes nothing itself, and changes nothing.

use std::collections::BTreeMap;

use pointsman_core::verdict::Metric;
use pointsman_core::{
    ArtifactDigest, BackendName, Before, Code, DatabasePlan, DatabaseWork, EnvironmentName, HostName,
    LiveRelease, MigrationPhase, Migrations, OverAlready, Plan, Problem, Purpose, ReleaseId, RequestId,
    Route, RouteEpoch, SlotPlan, Standing, Timestamp, VerdictMode, VerdictPlan,
};
use pointsman_proto::{convert, v1};

use crate::environment::Environment;
use crate::lasts;
use crate::unaccounted;
use crate::way_back;

/// What a release is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Make this artifact live.
    Deploy {
        /// The artifact.
        artifact: ArtifactDigest,
        /// All visitors at once, whatever the environment's strategy says.
        at_once: bool,
        /// It mends a site that is over its limits already: it is held to what was counted before instead.
        fix_forward: bool,
        /// The files of its migrations, if it brings some.
        migrations: Option<Files>,
    },
    /// Go back to what was live before.
    Rollback,
    /// Put the maintenance page up, perhaps with an end in mind.
    MaintenanceOn(Option<u64>),
    /// Take the maintenance page down.
    MaintenanceOff,
    /// Something of the database alone, with the files of migrations where it is about them.
    Database(DatabaseWork, Option<Files>),
}

/// Files of migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The artifact with them.
    pub artifact: ArtifactDigest,
    /// Versions that may be older than one which is applied already.
    pub out_of_order: Vec<String>,
}

impl Wanted {
    /// The files of migrations, and which of them are meant.
    pub fn files(&self) -> Option<(&Files, MigrationPhase)> {
        match self {
            Self::Deploy { migrations: Some(files), .. } => Some((files, MigrationPhase::Expand)),
            Self::Database(DatabaseWork::Down { .. }, Some(files)) => Some((files, MigrationPhase::Down)),
            Self::Database(_, Some(files)) => Some((files, MigrationPhase::Contract)),
            _ => None,
        }
    }

    /// Whether it is about the database alone.
    pub fn database_only(&self) -> bool {
        matches!(self, Self::Database(..))
    }
}

/// What was asked for, by whom and when.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What for.
    pub wanted: Wanted,
    /// Under which id.
    pub release: ReleaseId,
    /// What CI calls it.
    pub request_id: Option<RequestId>,
    /// Why.
    pub reason: Option<String>,
    /// By whom.
    pub by: String,
    /// Load balancers that are out of service.
    pub without: Vec<HostName>,
    /// When.
    pub now: Timestamp,
}

/// What the hosts show.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The facts of every load balancer that takes part.
    pub balancers: BTreeMap<HostName, v1::BalancerFacts>,
    /// The web hosts' facts.
    pub hosts: BTreeMap<HostName, v1::WebFacts>,
    /// Hosts that could not be asked, and why.
    pub silent: BTreeMap<HostName, Problem>,
    /// The database's facts.
    pub database: Option<v1::DatabaseFacts>,
    /// The versions of migrations that are wanted and not applied yet, in order.
    pub pending: Vec<String>,
    /// What visitors met lately, by backend.
    pub visitors: BTreeMap<BackendName, Before>,
    /// A load balancer says that it has no signals of visitors.
    pub without_signals: bool,
    /// When pointsman's own certificates end.
    pub certificates: lasts::Ends,
}

/// Which load balancers take part. One is left out only where a person says that it is out of service and it does not
/// answer: one that answers would go on as it was, and its visitors with it.
fn taking_part(
    environment: &Environment,
    without: &[HostName],
    seen: &Seen,
) -> Result<Vec<HostName>, Problem> {
    for host in without {
        if !environment.balancers.contains(host) {
            let known: Vec<&str> = environment.balancers.iter().map(HostName::as_str).collect();
            return Err(Problem::new(
                Code::UsageWrong,
                format!("`{host}` is no load balancer of `{}`", environment.name),
            )
            .cause(format!("it has {}", known.join(", ")))
            .hint("name the one that is out of service: `--without HOST`"));
        }
        if !seen.silent.contains_key(host) {
            return Err(Problem::new(Code::UsageWrong, format!("load balancer `{host}` answers"))
                .cause("its visitors would stay where they are")
                .hint("leave `--without` out, or stop its agent and HAProxy first"));
        }
    }
    let taking: Vec<HostName> =
        environment.balancers.iter().filter(|host| !without.contains(host)).cloned().collect();
    if taking.is_empty() {
        return Err(Problem::new(Code::UsageWrong, "no load balancer is left to move visitors on")
            .hint("bring one back first"));
    }
    Ok(taking)
}

/// Refuses while somebody else has changed a route: what a release would build on is not what was confirmed. Also where HAProxy
/// routes by another one than a start would bring: after a reload that stands only until the agent puts it right, and a plan
/// that began with it would lead back to what is gone. Where the route is not kept yet the agent says so, and a way back may go.
fn as_confirmed(seen: &Seen) -> Result<(), Problem> {
    if let Some((host, facts)) = seen.balancers.iter().find(|(_, facts)| !facts.drift.is_empty()) {
        return Err(Problem::new(Code::RouteDrift, facts.drift.clone())
            .on(host)
            .cause("somebody or something else has changed it")
            .hint(
                "see it: `pointsman traffic show ENV`; the line that puts it back: `pointsman doctor lb ENV`",
            ));
    }
    let passes = |(_, facts): &(&HostName, &v1::BalancerFacts)| {
        let kept = facts.unkept.is_empty() && !facts.route_on_disk.is_empty();
        kept && facts.route != facts.route_on_disk
    };
    let Some((host, v1::BalancerFacts { route, route_on_disk, .. })) = seen.balancers.iter().find(passes)
    else {
        return Ok(());
    };
    Err(Problem::new(
        Code::RouteDrift,
        format!("HAProxy routes by `{route}`, and its next start would by `{route_on_disk}`"),
    )
    .on(host)
    .cause("a reload has just brought an older route back, or somebody else has changed it")
    .retry_useful()
    .hint("after a reload the agent puts it right within seconds: try again; if it stays: `pointsman traffic show ENV`"))
}

/// The route that all load balancers agree on.
pub fn agreed_route(seen: &Seen) -> Result<(Route, RouteEpoch), Problem> {
    let mut routes = seen.balancers.iter().map(|(host, facts)| (host, facts.route.as_str()));
    let nothing = || Problem::new(Code::BalancersDisagree, "no load balancer was seen");
    let (first_host, first) = routes.next().ok_or_else(nothing)?;
    if let Some((host, other)) = routes.find(|(_, route)| *route != first) {
        return Err(Problem::new(
            Code::BalancersDisagree,
            format!("`{first_host}` routes by `{first}`, `{host}` by `{other}`"),
        )
        .hint("see them: `pointsman traffic show ENV`"));
    }
    let route = Route::parse(first).map_err(|error| {
        Problem::new(Code::RouteDrift, format!("the map of `{first_host}` holds no valid route"))
            .because(&error)
            .hint("put one there: see docs/haproxy.md")
    })?;
    let highest = seen.balancers.values().map(|facts| facts.highest_epoch).fold(route.epoch.0, u64::max);
    Ok((route, RouteEpoch(highest)))
}

/// The same where it is the one that the journal knows.
fn confirmed_route(
    environment: &Environment,
    standing: &Standing,
    seen: &Seen,
) -> Result<(Route, RouteEpoch), Problem> {
    let (route, base) = agreed_route(seen)?;
    if let Some(known) = &standing.route
        && *known != route
    {
        return Err(Problem::new(
            Code::RouteDrift,
            format!("the load balancers route by `{route}`, the journal says `{known}`"),
        )
        .cause("somebody or something else has moved traffic")
        .hint(format!(
            "see it: `pointsman traffic show {}`; put the route of the journal back before releasing",
            environment.name
        )));
    }
    Ok((route, base))
}

/// Makes the plan.
pub fn plan(
    environment: &Environment,
    standing: &Standing,
    wish: Wish,
    seen: &Seen,
) -> Result<Plan, Problem> {
    if let Wanted::Database(work, _) = &wish.wanted {
        let work = work.clone();
        return database_alone(environment, standing, wish, work, seen);
    }
    let balancers = taking_part(environment, &wish.without, seen)?;
    as_confirmed(seen)?;
    let (route, route_epoch_base) = confirmed_route(environment, standing, seen)?;
    let under_maintenance = standing.maintenance.is_some();
    let live = live_slot(environment, standing, &route, under_maintenance)?;
    let unaccounted = environment.unaccounted(&route);
    let (purpose, to) = match (&live, &unaccounted, &wish.wanted) {
        (Some(serves), Some(share), Wanted::Deploy { .. }) => {
            return Err(unaccounted::refused(share, serves, &environment.name));
        }
        // Whom no release accounts for comes first: what was live before the others' slot is where the next one leads.
        (Some(serves), Some(_), Wanted::Rollback) => gather(standing, serves),
        _ => purpose_and_target(environment, standing, &wish, live.as_ref())?,
    };
    let links_before = links(&to, seen)?;
    // A share of the visitors can be moved only from a slot that serves them.
    let splits = match wish.wanted {
        Wanted::Deploy { at_once: false, .. } if live.is_some() && !under_maintenance => {
            environment.splits.clone()
        }
        _ => Vec::new(),
    };
    // Whom HAProxy takes for a split follows from the block that the epoch is in.
    let route_epoch_base = if splits.is_empty() { route_epoch_base } else { route_epoch_base.begins_block() };
    let database = database_plan(environment, &wish.wanted, seen)?.filter(|plan| plan.migrations.is_some());
    let verdict = match under_maintenance {
        // Nobody is there to be watched.
        true => VerdictPlan { mode: VerdictMode::Off, ..environment.verdict },
        false => verdict(environment, live.as_ref(), &wish.wanted, seen),
    };
    match &purpose {
        Purpose::Deploy { .. } => {
            within_limits(&verdict, &environment.name)?;
            all_answer(&to, seen)?;
            shows_no_page(environment, standing, &to, seen)?;
        }
        Purpose::Rollback { artifact, .. } => {
            // Most visitors are where the others are led back to, whatever is there.
            if unaccounted.is_none() {
                still_holds(*artifact, &to, &links_before, seen)?;
            }
            shows_no_page(environment, standing, &to, seen)?;
        }
        Purpose::Maintenance { on: false, .. } => would_show_the_site(environment, &to, seen)?,
        Purpose::Maintenance { .. } | Purpose::Database(_) => {}
    }
    let answering = match &purpose {
        Purpose::Deploy { .. } => Some(&wish.release),
        Purpose::Rollback { to, .. } => to.as_ref(),
        Purpose::Maintenance { .. } | Purpose::Database(_) => None,
    };
    let bound = |check| pointsman_checks::bind(check, answering, &to.name);
    let checks = environment.checks.iter().map(bound).collect();
    // The load balancers' page is what visitors see. A host that cannot be asked is left out: a file that stays where it
    // should not is named by `doctor`, keeps releases from that slot, and goes with the next `maintenance off`.
    let flag_hosts =
        environment.flag_hosts.iter().filter(|host| !seen.silent.contains_key(*host)).cloned().collect();
    let plan = Plan {
        release: wish.release,
        environment: environment.name.clone(),
        purpose,
        created_at: wish.now,
        created_by: wish.by,
        request_id: wish.request_id,
        reason: wish.reason,
        balancers,
        without: wish.without,
        from: live,
        to,
        maintenance_backend: environment.maintenance_backend.clone(),
        under_maintenance,
        flag_hosts,
        route_before: route,
        route_epoch_base,
        links_before,
        activation: environment.activation.clone(),
        database,
        splits,
        checks,
        watch: environment.watch,
        verdict,
        automatic_rollback: environment.automatic_rollback,
        drain_end: environment.drain_end,
        limits: environment.limits,
        found_ill: None,
        stood: None,
    };
    // What leads back, or shows the page, is not refused for what may come.
    if matches!(plan.purpose, Purpose::Deploy { .. }) {
        seen.certificates.outlast(&plan)?;
    }
    Ok(plan)
}

/// What the release has to do with the database.
fn database_plan(
    environment: &Environment,
    wanted: &Wanted,
    seen: &Seen,
) -> Result<Option<DatabasePlan>, Problem> {
    let files = wanted.files();
    if files.is_none() && !wanted.database_only() {
        return Ok(None);
    }
    let none = || {
        Problem::new(Code::ConfigInvalid, format!("`{}` has no database", environment.name)).hint(format!(
            "name the database's agent in `[database]` of {}.toml on the coordinator, or leave `--migrations` out",
            environment.name
        ))
    };
    let database = environment.database.as_ref().ok_or_else(none)?;
    if let Some(problem) = seen.silent.get(&database.host) {
        return Err(problem.clone());
    }
    let migrations = files.filter(|_| !seen.pending.is_empty()).map(|(files, phase)| Migrations {
        artifact: files.artifact,
        phase,
        versions: seen.pending.clone(),
        out_of_order: files.out_of_order.clone(),
        max_stall_ms: database.max_stall_ms,
        lock_budget_ms: database.lock_budget_ms,
    });
    Ok(Some(DatabasePlan {
        host: database.host.clone(),
        migrations,
        verify: database.verify,
        keeps_away: false,
        backup_ms: database.backup_ms,
        migrate_ms: database.migrate_ms,
    }))
}

/// A plan of work on the database alone. It goes also where the load balancers cannot be asked: it moves no visitor.
fn database_alone(
    environment: &Environment,
    standing: &Standing,
    wish: Wish,
    work: DatabaseWork,
    seen: &Seen,
) -> Result<Plan, Problem> {
    let database = database_plan(environment, &wish.wanted, seen)?;
    let backups = seen.database.as_ref().map(|facts| facts.backups.as_slice()).unwrap_or_default();
    if let DatabaseWork::Verify { backup }
    | DatabaseWork::Restore { backup }
    | DatabaseWork::Swap { backup, .. } = &work
        && !backups.iter().any(|known| known.id == backup.as_str())
    {
        return Err(Problem::new(Code::BackupUnknown, format!("there is no backup `{backup}`"))
            .hint(format!("`pointsman db list {}` names them", environment.name)));
    }
    if work == DatabaseWork::Contract
        && database.as_ref().is_none_or(|database| database.migrations.is_none())
    {
        return Err(Problem::new(Code::NothingToMigrate, "no contract migration is pending")
            .hint(format!("see what is applied: `pointsman db status {}`", environment.name)));
    }
    if let (DatabaseWork::Contract, Some(database)) = (&work, &database) {
        survives(standing, database, &environment.name)?;
    }
    if let DatabaseWork::Down { version } = &work {
        lives_without(standing, version, &environment.name)?;
    }
    if matches!(work, DatabaseWork::Swap { .. } | DatabaseWork::SwapBack { .. }) {
        can_be_swapped(environment, &work, seen)?;
    }
    let away = away(environment, standing, &work, seen)?;
    let database = database.map(|database| DatabasePlan { keeps_away: away.is_some(), ..database });
    let (route, base) = match &away {
        Some(away) => (Some(away.route.clone()), away.base),
        None => {
            let seen = agreed_route(seen).ok().map(|(route, _)| route);
            (standing.route.clone().or(seen), RouteEpoch(0))
        }
    };
    let known = standing.live.as_ref().and_then(|live| environment.slots.get(&live.slot));
    let slot = away.as_ref().map(|away| &away.live).or(known);
    let to = slot
        .or_else(|| environment.slots.values().next())
        .cloned()
        .ok_or_else(|| Problem::new(Code::ConfigInvalid, format!("`{}` has no slots", environment.name)))?;
    let maintenance = away.as_ref().map_or(&environment.maintenance_backend, |away| &away.backend).clone();
    let nowhere =
        Route { stable: maintenance.clone(), canary: maintenance.clone(), percent: 0, epoch: RouteEpoch(0) };
    Ok(Plan {
        release: wish.release,
        environment: environment.name.clone(),
        purpose: Purpose::Database(work),
        created_at: wish.now,
        created_by: wish.by,
        request_id: wish.request_id,
        reason: wish.reason,
        balancers: environment.balancers.clone(),
        from: slot.cloned(),
        to,
        maintenance_backend: maintenance,
        under_maintenance: standing.maintenance.is_some(),
        flag_hosts: Vec::new(),
        without: Vec::new(),
        route_before: route.unwrap_or(nowhere),
        route_epoch_base: base,
        links_before: BTreeMap::new(),
        activation: pointsman_core::Activation::default(),
        database,
        splits: Vec::new(),
        checks: Vec::new(),
        verdict: VerdictPlan { mode: VerdictMode::Off, ..environment.verdict },
        watch: environment.watch,
        automatic_rollback: environment.automatic_rollback,
        drain_end: environment.drain_end,
        limits: environment.limits,
        found_ill: None,
        stood: None,
    })
}

/// Refuses a swap before anybody is led away for it: from a database that cannot be asked, and where a swap back would lose
/// too much or there is none to take back. What a swap itself loses is counted in its first step.
fn can_be_swapped(environment: &Environment, work: &DatabaseWork, seen: &Seen) -> Result<(), Problem> {
    let Some(facts) = &seen.database else {
        let silent =
            environment.database.as_ref().and_then(|database| seen.silent.get(&database.host)).cloned();
        return Err(silent.unwrap_or_else(|| {
            Problem::new(Code::DatabaseUnreachable, "nobody knows how the database stands").retry_useful()
        }));
    };
    if let Some(problem) = facts.problem.clone().and_then(convert::problem_from_wire) {
        return Err(problem);
    }
    let DatabaseWork::SwapBack { backup, accept_loss } = work else { return Ok(()) };
    let environment = &environment.name;
    let Some(written) = facts.written_since_swap else {
        return Err(Problem::new(Code::CopyMissing, "no swap is there to take back")
            .hint(format!("`pointsman db status {environment}` shows where a restore stands")));
    };
    if written <= *accept_loss {
        return Ok(());
    }
    let message = format!("{written} rows were written since the swap, {accept_loss} are given up");
    Err(Problem::new(Code::LossGrown, message).hint(format!(
        "`pointsman db restore {environment} --backup {backup} --undo --accept-loss {written}` gives them up"
    )))
}

/// Refuses to contract what was expanded after the version that serves had been released: by one that was rolled back, say.
/// The version that serves knows nothing of it, and may use just what would be dropped.
fn survives(
    standing: &Standing,
    database: &DatabasePlan,
    environment: &EnvironmentName,
) -> Result<(), Problem> {
    let mut versions = database.migrations.iter().flat_map(|migrations| &migrations.versions);
    let Some(version) = versions.find(|version| standing.ahead_of_live.contains(*version)) else {
        return Ok(());
    };
    let message =
        format!("migration `{version}` was expanded after the version that serves had been released");
    Err(Problem::new(Code::MigrationBreaking, message)
        .cause("its contract may drop what that version uses")
        .hint(format!(
            "release a version that knows it first: `pointsman deploy {environment} --migrations FOLDER`"
        )))
}

/// Refuses to take back what the version that serves was released with, or after: it may need it.
fn lives_without(standing: &Standing, version: &str, environment: &EnvironmentName) -> Result<(), Problem> {
    if standing.live.is_none() || standing.ahead_of_live.contains(version) {
        return Ok(());
    }
    let message = format!(
        "the version that serves was released when migration `{version}` stood already, and may need it"
    );
    Err(Problem::new(Code::NoWayDown, message)
        .cause("what would be dropped was there for it from its first visitor on")
        .hint(format!("lead visitors back to a version that knows nothing of it first: `pointsman rollback {environment}`")))
}

/// Where visitors are led while databases are swapped, and what stands before that.
struct Away {
    backend: BackendName,
    live: SlotPlan,
    route: Route,
    base: RouteEpoch,
}

/// Whether visitors are to be kept away during this work. Where the page is up already, or nobody was ever served, nobody
/// is.
fn away(
    environment: &Environment,
    standing: &Standing,
    work: &DatabaseWork,
    seen: &Seen,
) -> Result<Option<Away>, Problem> {
    let swaps = matches!(work, DatabaseWork::Swap { .. } | DatabaseWork::SwapBack { .. });
    let backend = environment.database.as_ref().and_then(|database| database.away.clone());
    let Some(backend) = backend.filter(|_| swaps && standing.maintenance.is_none()) else { return Ok(None) };
    let without = "or have nobody kept away: `during_swap = \"nothing\"` in `[database]` on the coordinator";
    if let Some(problem) = environment.balancers.iter().find_map(|host| seen.silent.get(host)) {
        return Err(problem.clone().hint(format!("bring this load balancer's agent back, {without}")));
    }
    as_confirmed(seen)?;
    let (route, base) = confirmed_route(environment, standing, seen)?;
    let live = live_slot(environment, standing, &route, false)?;
    Ok(live.map(|live| Away { backend, live, route, base }))
}

/// What the visitors' signals decide. Where nobody has said that they must, they do so only if there are any.
fn verdict(environment: &Environment, live: Option<&SlotPlan>, wanted: &Wanted, seen: &Seen) -> VerdictPlan {
    let fix_forward = matches!(wanted, Wanted::Deploy { fix_forward: true, .. });
    let before = live.and_then(|slot| seen.visitors.get(&slot.backend)).copied().unwrap_or_default();
    let unheard = environment.verdict_where_heard && seen.without_signals;
    let mode = if unheard { VerdictMode::Off } else { environment.verdict.mode };
    VerdictPlan { mode, before, fix_forward, ..environment.verdict }
}

/// A share of requests for people, to the hundredth of a percent.
fn percent(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

/// Refuses to release by limits that what serves does not keep: with nobody left on the old slot to compare with, a version
/// that is as good would be turned back within seconds, and a better one as well.
fn within_limits(verdict: &VerdictPlan, environment: &EnvironmentName) -> Result<(), Problem> {
    let Some(OverAlready { metric, usual, limit }) = verdict.over_already() else { return Ok(()) };
    let (does, name) = match metric {
        Metric::Errors => ("fails".to_owned(), "error-rate"),
        Metric::Slowness => (format!("takes longer than {} ms for", verdict.p99_ms), "p99"),
    };
    let (whole, lately) = (usual.whole, usual.lately);
    let message = format!(
        "what serves now {does} {} of its requests already, limit {}: {} of {} in the last {} min, {} of {} lately",
        percent(whole.share()),
        percent(limit),
        whole.bad,
        whole.requests,
        verdict.before.seconds.div_ceil(60),
        lately.bad,
        lately.requests,
    );
    Err(Problem::new(Code::OverLimitsAlready, message)
        .cause("a version that is no worse would be turned back, or held, for what it does not bring")
        .hint(format!(
            "if this version mends it: `pointsman deploy {environment} … --fix-forward`; if the site is like that: \
             raise `max` of the limit `{name}` in `[watch]` of {environment}.toml on the coordinator"
        )))
}

/// The slot that serves, or will when the maintenance page comes down. `None` before the first release.
fn live_slot(
    environment: &Environment,
    standing: &Standing,
    route: &Route,
    under_maintenance: bool,
) -> Result<Option<SlotPlan>, Problem> {
    let backend = if under_maintenance { &route.canary } else { &route.stable };
    if *backend == environment.maintenance_backend {
        return match (&standing.live, under_maintenance) {
            (Some(_), false) => Err(Problem::new(
                Code::RouteDrift,
                "visitors are on the maintenance page, but no maintenance is on",
            )
            .hint(format!("see it: `pointsman traffic show {}`", environment.name))),
            _ => Ok(None),
        };
    }
    environment.slot_behind(backend).cloned().map(Some).ok_or_else(|| {
        Problem::new(
            Code::ConfigInvalid,
            format!("the route leads to `{backend}`, which is no slot's backend"),
        )
        .hint(format!("compare `[slots]` in {}.toml with the route `{route}`", environment.name))
    })
}

/// A rollback of a share of the visitors to the slot that serves the others.
fn gather(standing: &Standing, serves: &SlotPlan) -> (Purpose, SlotPlan) {
    let known = standing.live.as_ref().filter(|live| live.slot == serves.name);
    let artifact = known.and_then(|live| live.artifact);
    (Purpose::Rollback { artifact, to: known.and_then(|live| live.release.clone()) }, serves.clone())
}

fn purpose_and_target(
    environment: &Environment,
    standing: &Standing,
    wish: &Wish,
    live: Option<&SlotPlan>,
) -> Result<(Purpose, SlotPlan), Problem> {
    let idle = || {
        let mut others = environment
            .slots
            .values()
            .filter(|slot| Some(slot.name.as_str()) != live.map(|live| live.name.as_str()));
        others.find(|slot| slot.name.as_str() != "canary").cloned()
    };
    let no_slot = || Problem::new(Code::ConfigInvalid, "there is no idle slot to release to");
    let page = |on, until| {
        let target = live.cloned().or_else(idle).ok_or_else(no_slot)?;
        Ok((Purpose::Maintenance { on, until }, target))
    };
    match wish.wanted {
        Wanted::Deploy { artifact, .. } => Ok((Purpose::Deploy { artifact }, idle().ok_or_else(no_slot)?)),
        Wanted::MaintenanceOn(for_ms) => page(true, for_ms.map(|ms| wish.now.plus_ms(ms))),
        Wanted::MaintenanceOff => page(false, None),
        // Planned elsewhere: it has nothing to do with slots.
        Wanted::Database(..) => Err(no_slot()),
        Wanted::Rollback => {
            let nothing = || no_way_back(standing, &environment.name);
            let LiveRelease { slot, release, artifact } = standing.previous.clone().ok_or_else(nothing)?;
            let target = environment.slots.get(&slot).cloned().ok_or_else(nothing)?;
            if Some(&target) == live {
                return Err(nothing());
            }
            Ok((Purpose::Rollback { artifact, to: release }, target))
        }
    }
}

/// Says that no rollback leads anywhere, and why where what stands on the other slot was turned back.
fn no_way_back(standing: &Standing, environment: &EnvironmentName) -> Problem {
    let Some(turned) = &standing.turned_back else { return nothing_to_roll_back(environment) };
    Problem::new(Code::WasTurnedBack, way_back::nothing_well(turned))
        .cause("a rollback is not watched: it leads only to what was live before and well")
        .hint(format!(
            "to try it again, watched, deploy it anew: `pointsman deploy {environment} --artifact DIR --release ID`;              `pointsman history {environment}` names earlier ones"
        ))
}

/// Says that no rollback leads anywhere.
pub fn nothing_to_roll_back(environment: &EnvironmentName) -> Problem {
    Problem::new(
        Code::NothingToRollBack,
        "no slot is known that was live before and still holds what it held",
    )
    .hint(format!("deploy an earlier artifact: `pointsman history {environment}` names them"))
}

/// A slot is filled on all its hosts or not at all.
fn all_answer(to: &SlotPlan, seen: &Seen) -> Result<(), Problem> {
    to.hosts.iter().find_map(|host| seen.silent.get(host)).map_or(Ok(()), |problem| Err(problem.clone()))
}

/// Refuses to lead visitors to hosts that would show them the maintenance page: one was left out when it was lifted.
fn shows_no_page(
    environment: &Environment,
    standing: &Standing,
    to: &SlotPlan,
    seen: &Seen,
) -> Result<(), Problem> {
    let shows = |host: &&HostName| seen.hosts.get(*host).is_some_and(|facts| facts.maintenance_file);
    match to.hosts.iter().find(shows).filter(|_| standing.maintenance.is_none()) {
        Some(host) => {
            let message = "its maintenance file is still there: visitors would get the page";
            Err(Problem::new(Code::NotPossibleNow, message)
                .on(host)
                .cause("it could not be asked when the page was lifted, or somebody has made it since")
                .hint(format!("`pointsman maintenance off {}` removes it", environment.name)))
        }
        None => Ok(()),
    }
}

/// Refuses to lift the page while a host that visitors would be led to cannot be asked for its file: as long as HAProxy
/// takes every server of the slot for healthy they would get the page from that host.
fn would_show_the_site(environment: &Environment, to: &SlotPlan, seen: &Seen) -> Result<(), Problem> {
    let silent = to.hosts.iter().filter(|host| environment.flag_hosts.contains(host));
    let Some((host, problem)) =
        silent.into_iter().find_map(|host| seen.silent.get(host).map(|problem| (host, problem)))
    else {
        return Ok(());
    };
    let backends = seen.balancers.values().flat_map(|facts| &facts.backends);
    let mut backends = backends.filter(|backend| backend.name == to.backend.as_str());
    // A server that is down serves nobody: it may well be the host that does not answer.
    if backends.any(|backend| backend.servers_up < backend.servers_total) {
        return Ok(());
    }
    let name = &environment.name;
    Err(problem.clone().cause(format!("its maintenance file would stay, and visitors of `{host}` get the page")).hint(
        format!(
            "bring its agent back: on `{host}`, `systemctl restart pointsman-agent`; or take `{host}` out of `agents` in \
             `[maintenance]` of {name}.toml, and the file away by hand"
        ),
    ))
}

/// Refuses to go back to a slot that holds something else by now. A host that cannot be asked does not block the way
/// back: nobody but pointsman fills slots, and the load balancers judge its health. One that says that its `current` is no
/// artifact does.
fn still_holds(
    artifact: Option<ArtifactDigest>,
    to: &SlotPlan,
    links: &BTreeMap<HostName, Option<ArtifactDigest>>,
    seen: &Seen,
) -> Result<(), Problem> {
    let Some(wanted) = artifact else {
        // What was there before pointsman is no artifact, and still the way back; where nothing was, there is none.
        let Some((host, _)) = links.iter().find(|(_, current)| current.is_none()) else { return Ok(()) };
        return Err(Problem::new(
            Code::NothingToRollBack,
            "nothing was live there before: `current` is not there",
        )
        .on(host)
        .hint("deploy an earlier artifact: `pointsman history ENV` names them"));
    };
    let silent = to.hosts.iter().filter_map(|host| seen.silent.get(host));
    if let Some(problem) = silent.into_iter().find(|problem| problem.code == Code::SiteRootUnfit) {
        return Err(problem.clone());
    }
    let Some((host, current)) = links.iter().find(|(_, current)| **current != Some(wanted)) else {
        return Ok(());
    };
    let found = current.map_or_else(|| "nothing".to_owned(), |current| current.short());
    Err(Problem::new(Code::PlanOutOfDate, format!("`current` is {found}, expected {}", wanted.short()))
        .on(host)
        .hint("deploy that artifact anew: `pointsman deploy ENV --artifact DIGEST --release ID`"))
}

fn links(to: &SlotPlan, seen: &Seen) -> Result<BTreeMap<HostName, Option<ArtifactDigest>>, Problem> {
    let mut links = BTreeMap::new();
    for (host, facts) in seen.hosts.iter().filter(|(host, _)| to.hosts.contains(host)) {
        let current = match facts.current.as_str() {
            "" => None,
            digest => Some(ArtifactDigest::parse(digest).map_err(|error| {
                Problem::new(Code::MessageInvalid, "the agent named a current artifact that is none")
                    .on(host)
                    .because(&error)
            })?),
        };
        links.insert(host.clone(), current);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{Found, Part, Unaccounted, Usual};
    use std::path::Path;

    use crate::fixture;

    fn environment() -> Environment {
        fixture::environment(&["lb1", "lb2"], "")
    }

    fn seen(routes: &[(&str, &str, u64)]) -> Seen {
        let facts = |(host, route, highest): &(&str, &str, u64)| {
            let facts = v1::BalancerFacts {
                route: (*route).to_owned(),
                highest_epoch: *highest,
                ..Default::default()
            };
            (HostName::parse(host).unwrap(), facts)
        };
        Seen { balancers: routes.iter().map(facts).collect(), ..Seen::default() }
    }

    fn wish(wanted: Wanted) -> Wish {
        fixture::wish(wanted, "r1")
    }

    fn deploy() -> Wish {
        fixture::deploy("r1")
    }

    fn code(result: Result<Plan, Problem>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn the_idle_slot_is_the_target_and_epochs_count_on() {
        let seen = seen(&[("lb1", "be_blue:be_blue:0:7", 9), ("lb2", "be_blue:be_blue:0:7", 7)]);
        let plan = plan(&environment(), &Standing::default(), deploy(), &seen).unwrap();
        assert_eq!((plan.from.unwrap().name.as_str(), plan.to.name.as_str()), ("blue", "green"));
        assert_eq!(plan.route_epoch_base, RouteEpoch(9));
    }

    /// The same visitors on the canary in every split of a release, and others in the next release.
    #[test]
    fn the_splits_of_a_release_have_a_block_of_epochs_to_themselves() {
        let mut environment = environment();
        let split = pointsman_core::Split { percent: 1, hold_ms: 1 };
        environment.splits = vec![split; pointsman_core::MAX_SPLITS];
        for first in 0..40 {
            let (mut highest, mut before) = (first, None);
            for _ in 0..3 {
                let seen = seen(&[("lb1", "be_blue:be_blue:0:7", highest)]);
                let plan = plan(&environment, &Standing::default(), deploy(), &seen).unwrap();
                let number = |step: pointsman_core::Step| plan.route(step).unwrap().epoch.0;
                let of = |number: u64| number / pointsman_core::EPOCHS_OF_A_RELEASE;
                let (one, last) =
                    (number(pointsman_core::Step::Expose), number(pointsman_core::Step::RouteBack));
                assert!(one > highest.max(7), "{one} after {highest}");
                assert_eq!(of(one), of(last), "the moves from {one} to {last}");
                assert!(
                    before.is_none_or(|before| of(one) > before),
                    "the release before had block {before:?} too"
                );
                (highest, before) = (last, Some(of(one)));
            }
        }
    }

    #[test]
    fn a_share_that_no_release_accounts_for_is_led_back_before_anything_is_deployed() {
        let site = environment();
        let found = Found {
            slot: "blue".parse().ok(),
            page: false,
            unaccounted: Some(Unaccounted { slot: "green".parse().unwrap(), percent: 10 }),
        };
        let accepted = Standing::found(&found, "ada", Timestamp(1));
        // Of a slot that was live before nobody is led anywhere first.
        let known = Standing {
            previous: Some(LiveRelease { slot: "green".parse().unwrap(), release: None, artifact: None }),
            ..accepted.clone()
        };
        let share = "be_blue:be_green:10:7";
        let both = seen(&[("lb1", share, 7), ("lb2", share, 9)]);
        for standing in [&accepted, &known] {
            let refused = plan(&site, standing, deploy(), &both).unwrap_err();
            assert_eq!(refused.code, Code::NotPossibleNow);
            assert!(refused.message.contains("10 % of the visitors are on `green`"), "{refused:?}");
            assert!(refused.hint.contains("`pointsman rollback production`"), "{refused:?}");

            let back = plan(&site, standing, wish(Wanted::Rollback), &both).unwrap();
            assert!(back.gathers());
            let route = |step| back.route(step).map(|route| route.to_string());
            assert_eq!(route(pointsman_core::Step::Switch).as_deref(), Some("be_blue:be_blue:0:11"));
            assert_eq!(route(pointsman_core::Step::RouteBack).as_deref(), Some("be_blue:be_blue:0:13"));
            assert_eq!(back.database, None);
            let asked: Vec<&HostName> = back.hosts().collect();
            assert_eq!(asked, back.balancers.iter().collect::<Vec<_>>(), "no web host is asked anything");
        }
        // Nobody is anywhere else: then it leads to what was live before, if anything was.
        let well = seen(&[("lb1", "be_blue:be_green:0:7", 7), ("lb2", "be_blue:be_green:0:7", 7)]);
        assert!(plan(&site, &accepted, deploy(), &well).is_ok());
        assert_eq!(code(plan(&site, &accepted, wish(Wanted::Rollback), &well)), Code::NothingToRollBack);
        assert!(!plan(&site, &known, wish(Wanted::Rollback), &well).unwrap().gathers());
    }

    /// A load balancer that is gone for good keeps nobody from leading the others' visitors back; one that answers is
    /// never left out.
    #[test]
    fn one_that_is_out_of_service_is_left_out_only_where_it_does_not_answer() {
        let host = |name: &str| HostName::parse(name).unwrap();
        let out = |names: &[&str]| Wish {
            without: names.iter().map(|name| host(name)).collect(),
            ..wish(Wanted::MaintenanceOn(None))
        };
        let route = "be_blue:be_blue:0:7";
        let all = seen(&[("lb1", route, 7), ("lb2", route, 7)]);
        let mut one = seen(&[("lb1", route, 7)]);
        one.silent = [(host("lb2"), Problem::new(Code::AgentUnreachable, "no answer"))].into();
        let planned = |wish, seen: &Seen| plan(&environment(), &Standing::default(), wish, seen);
        let without = planned(out(&["lb2"]), &one).unwrap();
        assert_eq!(
            (without.balancers.clone(), without.without.clone()),
            (vec![host("lb1")], vec![host("lb2")])
        );
        let asked = |host: &HostName| {
            without.steps().iter().any(|step| without.asked(*step).any(|asked| asked == host))
        };
        assert!(asked(&host("lb1")) && !asked(&host("lb2")), "it is asked nothing");
        let fact = pointsman_core::Event::Planned(std::sync::Arc::new(without.clone()));
        let kept = crate::journal::decode(&crate::journal::encode(&fact));
        assert_eq!(kept.unwrap(), fact, "and the journal says so");
        assert_eq!(planned(out(&[]), &all).unwrap().balancers.len(), 2);
        for (names, seen, why) in [
            (&["lb2"][..], &all, "`lb2` answers"),
            (&["lb1", "lb2"], &one, "`lb1` answers"),
            (&["lb3"], &one, "no load balancer of"),
            (&["blue"], &one, "no load balancer of"),
        ] {
            let refused = planned(out(names), seen).unwrap_err();
            assert!(refused.code == Code::UsageWrong && refused.message.contains(why), "{refused:?}");
        }
        let gone = |name| (host(name), Problem::new(Code::AgentUnreachable, "gone"));
        let none = Seen { silent: ["lb1", "lb2"].map(gone).into(), ..Seen::default() };
        assert!(
            planned(out(&["lb1", "lb2"]), &none).unwrap_err().message.contains("no load balancer is left")
        );
    }

    #[test]
    fn before_the_first_release_nothing_is_live() {
        let seen = seen(&[("lb1", "be_maint:be_maint:0:0", 0)]);
        let plan = plan(&environment(), &Standing::default(), deploy(), &seen).unwrap();
        assert_eq!((plan.from, plan.to.name.as_str()), (None, "blue"));
    }

    #[test]
    fn visitors_decide_where_the_load_balancers_have_signals_or_must() {
        let mode = |environment: &Environment, without_signals| {
            let mut seen = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
            let before = Before { requests: 5, ..Before::default() };
            seen.visitors = [("be_blue".parse().unwrap(), before)].into();
            seen.without_signals = without_signals;
            let plan = plan(environment, &Standing::default(), deploy(), &seen).unwrap();
            assert_eq!(plan.verdict.before, before);
            plan.verdict.mode
        };
        let mut site = environment();
        assert_eq!(mode(&site, false), VerdictMode::Act);
        assert_eq!(mode(&site, true), VerdictMode::Off);
        site.verdict_where_heard = false;
        assert_eq!(mode(&site, true), VerdictMode::Act);
        site.verdict.mode = VerdictMode::Off;
        assert_eq!(mode(&site, false), VerdictMode::Off);
    }

    #[test]
    fn a_site_over_its_limits_is_deployed_to_only_by_what_is_to_mend_it() {
        let part = |bad, requests| Part { bad, requests };
        let failing = Usual { whole: part(279, 9_000), lately: part(36, 1_200) };
        let well = Usual { whole: part(0, 9_000), lately: part(0, 1_200) };
        let (seconds, requests, bunches_milli) = (900, 9_000, Some((1_000, 1_000)));
        let before = Before { seconds, requests, bunches_milli, ..Before::default() };
        let planned = |site: &Environment, wish, usual, seen: &Seen| {
            let before = Before { usual: Some(usual), ..before };
            let visitors = [("be_blue".parse().unwrap(), before)].into();
            plan(site, &Standing::default(), wish, &Seen { visitors, ..seen.clone() })
        };
        let here = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
        let mut site = environment();
        let problem = planned(&site, deploy(), (failing, well), &here).unwrap_err();
        assert_eq!(problem.code, Code::OverLimitsAlready);
        assert_eq!(
            problem.message,
            "what serves now fails 3.1 % of its requests already, limit 1 %: 279 of 9000 in the last 15 min, 36 of 1200 \
             lately"
        );
        assert!(problem.hint.contains("deploy production … --fix-forward"), "{}", problem.hint);
        let slow = planned(&site, deploy(), (well, failing), &here).unwrap_err();
        assert!(slow.message.contains("takes longer than 2000 ms for 3.1 %"), "{}", slow.message);
        assert!(slow.hint.contains("limit `p99`"), "{}", slow.hint);
        let mut mend = deploy();
        if let Wanted::Deploy { fix_forward, .. } = &mut mend.wanted {
            *fix_forward = true;
        }
        assert!(planned(&site, mend, (failing, well), &here).is_ok());
        assert!(planned(&site, deploy(), (well, well), &here).is_ok());
        assert!(planned(&site, wish(Wanted::MaintenanceOn(None)), (failing, well), &here).is_ok());
        // Where nobody is asked to judge, nobody is refused for what they would say.
        let deaf = Seen { without_signals: true, ..here.clone() };
        assert!(planned(&site, deploy(), (failing, well), &deaf).is_ok());
        site.verdict.mode = VerdictMode::Shadow;
        assert!(planned(&site, deploy(), (failing, well), &here).is_ok());
    }

    #[test]
    fn a_way_back_from_a_site_over_its_limits_is_never_refused() {
        let standing = Standing {
            previous: Some(LiveRelease { slot: "green".parse().unwrap(), release: None, artifact: None }),
            ..Standing::default()
        };
        let mut seen = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
        seen.silent.insert("green".parse().unwrap(), Problem::new(Code::SiteRootUnfit, "a plain folder"));
        let failing = Usual {
            whole: Part { bad: 9_000, requests: 9_000 },
            lately: Part { bad: 1_200, requests: 1_200 },
        };
        let before =
            Before { seconds: 900, requests: 9_000, usual: Some((failing, failing)), ..Before::default() };
        seen.visitors = [("be_blue".parse().unwrap(), before)].into();
        assert!(plan(&environment(), &standing, wish(Wanted::Rollback), &seen).is_ok());
        assert_eq!(code(plan(&environment(), &standing, deploy(), &seen)), Code::OverLimitsAlready);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let plan =
            |standing: &Standing, wish, routes: &[_]| plan(&environment(), standing, wish, &seen(routes));
        let fresh = Standing::default();
        assert_eq!(
            code(plan(
                &fresh,
                deploy(),
                &[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_green:be_green:0:7", 7)]
            )),
            Code::BalancersDisagree
        );
        assert_eq!(code(plan(&fresh, deploy(), &[("lb1", "", 0)])), Code::RouteDrift);
        assert_eq!(code(plan(&fresh, deploy(), &[("lb1", "be_other:be_other:0:1", 1)])), Code::ConfigInvalid);
        assert_eq!(
            code(plan(&fresh, wish(Wanted::Rollback), &[("lb1", "be_blue:be_blue:0:7", 7)])),
            Code::NothingToRollBack
        );
        let moved = Standing { route: Route::parse("be_blue:be_green:0:6").ok(), ..Standing::default() };
        assert_eq!(code(plan(&moved, deploy(), &[("lb1", "be_blue:be_blue:0:7", 7)])), Code::RouteDrift);
    }

    #[test]
    fn what_was_turned_back_is_no_way_back_and_the_refusal_says_when_and_why() {
        let green = LiveRelease {
            slot: "green".parse().unwrap(),
            release: Some("a1".parse().unwrap()),
            artifact: None,
        };
        let turned = pointsman_core::TurnedBack {
            what: green.clone(),
            at: Timestamp(1_795_000_000_000),
            why: "errors on `green`".to_owned(),
        };
        let standing = Standing { turned_back: Some(turned), ..Standing::default() };
        // What the agents say of its slot does not matter: it stands there, and is up.
        let seen = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
        let refused = plan(&environment(), &standing, wish(Wanted::Rollback), &seen).unwrap_err();
        assert_eq!(refused.code, Code::WasTurnedBack);
        assert_eq!(
            refused.message,
            "nothing well to go back to: `a1` was turned back at 2026-11-18T11:06:40Z, because errors on `green`"
        );
        assert!(refused.hint.contains("`pointsman deploy production --artifact"), "{}", refused.hint);
        assert!(plan(&environment(), &standing, deploy(), &seen).is_ok());
        // What was live before on another slot is still the way back.
        let known = Standing { previous: Some(green), ..standing };
        assert!(plan(&environment(), &known, wish(Wanted::Rollback), &seen).is_ok());
    }

    /// With nothing in the journal to compare it with, as before the first release or after a journal was accepted.
    #[test]
    fn no_release_begins_with_a_route_that_stands_for_a_moment() {
        let planned = |change: &dyn Fn(&mut v1::BalancerFacts), wanted: Wish| {
            let mut seen = seen(&[("lb1", "be_blue:be_blue:0:7", 9), ("lb2", "be_blue:be_blue:0:7", 9)]);
            for facts in seen.balancers.values_mut() {
                facts.route_on_disk.clone_from(&facts.route);
            }
            change(seen.balancers.values_mut().last().unwrap());
            plan(&environment(), &Standing::default(), wanted, &seen)
        };
        let wishes = || [deploy(), wish(Wanted::MaintenanceOn(None)), wish(Wanted::MaintenanceOff)];
        let older = |facts: &mut v1::BalancerFacts| facts.route_on_disk = "be_blue:be_green:0:9".to_owned();
        let unkept = |facts: &mut v1::BalancerFacts| {
            older(facts);
            facts.unkept = "OPNsense did not answer".to_owned();
        };
        for wanted in wishes() {
            assert!(planned(&|_| {}, wanted.clone()).is_ok());
            let refused = planned(&older, wanted.clone()).unwrap_err();
            assert_eq!((refused.code, refused.retry), (Code::RouteDrift, pointsman_core::Retry::Useful));
            assert_eq!(refused.host, HostName::parse("lb2").ok());
            assert!(refused.message.contains("`be_blue:be_green:0:9`"), "{refused}");
            // What is owed to the disk is told by the agent itself, and nothing keeps a way back from beginning then.
            assert!(planned(&unkept, wanted.clone()).is_ok());
            assert!(planned(&|facts| facts.route_on_disk.clear(), wanted).is_ok());
        }
    }

    #[test]
    fn a_silent_host_does_not_block_the_way_back_and_one_that_holds_something_else_does() {
        let standing = Standing {
            previous: Some(LiveRelease {
                slot: "green".parse().unwrap(),
                release: None,
                artifact: Some(ArtifactDigest::from_bytes([1; 32])),
            }),
            ..Standing::default()
        };
        let back = |standing: &Standing, said| {
            let mut seen = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
            seen.silent.insert("green".parse().unwrap(), Problem::new(said, "says its agent"));
            plan(&environment(), standing, wish(Wanted::Rollback), &seen)
        };
        assert_eq!(back(&standing, Code::AgentUnreachable).unwrap().to.name.as_str(), "green");
        assert_eq!(code(back(&standing, Code::SiteRootUnfit)), Code::SiteRootUnfit);
        // What served before pointsman may well be a plain folder.
        let previous = standing.previous.clone().map(|previous| LiveRelease { artifact: None, ..previous });
        let adopted = Standing { previous, ..standing };
        assert_eq!(back(&adopted, Code::SiteRootUnfit).unwrap().to.name.as_str(), "green");
        let mut empty = seen(&[("lb1", "be_blue:be_blue:0:7", 7), ("lb2", "be_blue:be_blue:0:7", 7)]);
        empty.hosts.insert("green".parse().unwrap(), v1::WebFacts::default());
        assert_eq!(
            code(plan(&environment(), &adopted, wish(Wanted::Rollback), &empty)),
            Code::NothingToRollBack
        );
    }

    #[test]
    fn nobody_is_led_to_a_host_that_would_show_the_page() {
        let mut site = environment();
        site.flag_hosts = ["blue", "green"].map(|host| HostName::parse(host).unwrap()).to_vec();
        let routes = |route: &'static str| seen(&[("lb1", route, 7), ("lb2", route, 7)]);
        let flagged = v1::WebFacts { maintenance_file: true, ..Default::default() };
        let mut left = routes("be_blue:be_blue:0:7");
        left.hosts.insert("green".parse().unwrap(), flagged);
        let to_green =
            |standing: &Standing| plan(&site, standing, deploy(), &left).map_err(|problem| problem.hint);
        assert_eq!(
            to_green(&Standing::default()).unwrap_err(),
            "`pointsman maintenance off production` removes it"
        );
        let off = |seen: &Seen| plan(&site, &Standing::default(), wish(Wanted::MaintenanceOff), seen);
        assert_eq!(off(&left).unwrap().flag_hosts.len(), 2);

        let mut silent = routes("be_blue:be_blue:0:7");
        silent.silent.insert("green".parse().unwrap(), Problem::new(Code::AgentUnreachable, "green"));
        assert_eq!(off(&silent).unwrap().flag_hosts.len(), 1, "nobody is led there");
        silent.silent.insert("blue".parse().unwrap(), Problem::new(Code::AgentUnreachable, "blue"));
        assert_eq!(code(off(&silent)), Code::AgentUnreachable);
        let facts = silent.balancers.values_mut().next().unwrap();
        let down = v1::BackendFacts {
            name: "be_blue".to_owned(),
            servers_total: 2,
            servers_up: 1,
            ..Default::default()
        };
        facts.backends.push(down);
        assert!(off(&silent).is_ok(), "the silent host is down, and serves nobody");
    }

    #[test]
    fn what_the_version_that_serves_does_not_know_is_not_contracted() {
        let text = r#"
            schema = 1
            environment = "production"
            url = "https://www.example.org"
            agents = { lb1 = "h:1", blue = "h:3", green = "h:4", db = "h:5" }
            lb = { agents = ["lb1"] }
            maintenance = { backend = "be_maint" }
            database = { agent = "db" }
            [slots]
            blue = { backend = "be_blue", hosts = ["blue"] }
            green = { backend = "be_green", hosts = ["green"] }
        "#;
        let site = Environment::parse(Path::new("production.toml"), text).unwrap();
        let seen = Seen { pending: vec!["1.2.0".to_owned()], ..seen(&[("lb1", "be_blue:be_blue:0:7", 7)]) };
        let files = Files { artifact: ArtifactDigest::from_bytes([2; 32]), out_of_order: Vec::new() };
        let contract = || wish(Wanted::Database(DatabaseWork::Contract, Some(files.clone())));
        assert!(plan(&site, &Standing::default(), contract(), &seen).is_ok());
        let ahead = Standing { ahead_of_live: ["1.2.0".to_owned()].into(), ..Standing::default() };
        assert_eq!(code(plan(&site, &ahead, contract(), &seen)), Code::MigrationBreaking);
        // The other way round: only what the version that serves knows nothing of can be taken from under it.
        let down = || {
            let work = DatabaseWork::Down { version: "1.2.0".to_owned() };
            wish(Wanted::Database(work, Some(files.clone())))
        };
        let live = || {
            Some(LiveRelease {
                slot: pointsman_core::SlotName::parse("blue").unwrap(),
                release: None,
                artifact: None,
            })
        };
        let needs = Standing { live: live(), ..Standing::default() };
        assert_eq!(code(plan(&site, &needs, down(), &seen)), Code::NoWayDown);
        assert!(plan(&site, &Standing { live: live(), ..ahead }, down(), &seen).is_ok());
    }
}
