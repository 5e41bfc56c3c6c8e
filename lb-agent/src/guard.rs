//! The guard of the route: looks all the time whether it stands on disk and in HAProxy as it was confirmed last.
//!
//! A reload that began before a switch and ends after it brings the old route back, because the new worker has read the
//! map before it was written: the guard sets the route again. It does not fight a person: a route that changed while the
//! worker stayed the same was changed by hand, and is reported and left, unless the configuration says otherwise.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pointsman_chassis::SystemClock;
use pointsman_chassis::hints::Hints;
use pointsman_core::ports::Clock as _;
use pointsman_core::{Code, Problem, Route, Timestamp, route_change, several};
use tokio::time::Instant;
use tracing::warn;

use crate::balancer::Balancer;
use crate::drift::{self, Change, Found, Look};
use crate::events::Kind;
use crate::loaded;
use crate::reply::WorkerId;
use crate::route_file::Caught;
use crate::switch::{self, Prepared};

/// How often the guard looks, and how often soon after a switch, when such a reload may be under way.
const CALM: Duration = Duration::from_millis(500);
const ALERT: Duration = Duration::from_millis(100);
/// How long after a switch: longer than a reload takes.
const ALERT_FOR: Duration = Duration::from_secs(10);
/// Shortest time between two looks, however many hints come.
const REST: Duration = Duration::from_millis(20);

/// How often the master is asked whether reloads have failed: at rest, and as long after a change of the configuration.
const MASTER_CALM: Duration = Duration::from_secs(30);
const MASTER_ALERT: Duration = Duration::from_secs(2);

/// How often OPNsense is asked while it may keep another route than stands: at first, and at most after long silence.
const OPNSENSE_CALM: Duration = Duration::from_secs(1);
const OPNSENSE_SELDOM: Duration = Duration::from_secs(60);

/// How long a start waits for OPNsense to say which route it keeps. Whoever has lost that waits no longer for the agent.
const OPNSENSE_START: Duration = Duration::from_secs(3);

/// How long whoever asks how it is waits for a look that is under way. A change of the route takes longer, and is not
/// waited for.
const TURN: Duration = Duration::from_millis(200);

/// Remembers when a route was last set.
#[derive(Clone, Debug)]
pub struct Guard {
    started: Instant,
    set_at_ms: Arc<AtomicU64>,
    old_behind: Arc<AtomicBool>,
    /// When that was by the wall clock, and the epoch of which visitors were told who do not go by it.
    set_at: Arc<AtomicU64>,
    astray_of: Arc<AtomicU64>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            set_at_ms: Arc::default(),
            old_behind: Arc::default(),
            set_at: Arc::default(),
            astray_of: Arc::default(),
        }
    }
}

impl Guard {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A route was set: the guard is alert for a while.
    pub fn route_was_set(&self) {
        self.set_at_ms.store(self.now_ms().max(1), Ordering::Relaxed);
        self.set_at.store(SystemClock.now().0, Ordering::Relaxed);
    }

    /// Notes whether an old worker keeps another route, or could not be asked: it is told again with the next look. Returns
    /// whether that was so before.
    pub fn old_are_behind(&self, behind: bool) -> bool {
        self.old_behind.swap(behind, Ordering::Relaxed)
    }

    fn is_alert(&self) -> bool {
        let set_at_ms = self.set_at_ms.load(Ordering::Relaxed);
        let alert_ms = u64::try_from(ALERT_FOR.as_millis()).unwrap_or(u64::MAX);
        set_at_ms > 0 && self.now_ms().saturating_sub(set_at_ms) < alert_ms
    }

    fn pause(&self) -> Duration {
        if self.is_alert() { ALERT } else { CALM }
    }
}

/// Guards the route for ever, and what HAProxy's next start would bring.
pub async fn watch(balancer: Balancer) {
    tokio::join!(watch_route(&balancer), watch_reloads(&balancer), catch_up(&balancer));
}

/// Catches up with OPNsense, which keeps the route for HAProxy's next start: with what it is owed, and with what is not known
/// of it. Each try is bounded, and they come ever more seldom while it is down. No change of the route waits for one.
async fn catch_up(balancer: &Balancer) {
    let mut pause = OPNSENSE_CALM;
    loop {
        tokio::time::sleep(pause).await;
        if !balancer.file.is_behind() {
            pause = OPNSENSE_CALM;
            continue;
        }
        pause = match balancer.file.catch_up().await {
            Ok(caught) => {
                if let Caught::Kept(route) = caught {
                    balancer.events.tell(Kind::Kept, format!("OPNsense keeps route `{route}` now"));
                }
                OPNSENSE_CALM
            }
            Err(problem) => {
                warn!(problem = %problem.in_full(), "OPNsense may keep another route than stands");
                pause.saturating_mul(2).min(OPNSENSE_SELDOM)
            }
        };
    }
}

/// Tells of reloads that failed: the worker of before goes on, and nothing else shows that a start would fail. The master
/// is a door with few places, and is asked only now and then, or for a while after something has changed in a folder of the files
/// that HAProxy runs by.
async fn watch_reloads(balancer: &Balancer) {
    let mut watched = BTreeSet::new();
    let mut hints = Hints::of([]);
    let (mut failed_before, mut changed) = (0, None::<Instant>);
    loop {
        let loaded = balancer.loaded.ask(&balancer.workers).await;
        let folders = loaded::folders(&balancer.config.haproxy.config, loaded.as_deref());
        if folders != watched {
            hints = Hints::of(folders.iter().map(PathBuf::as_path));
            watched = folders;
        }
        if let Some(Ok(processes)) = balancer.workers.processes().await {
            let failed = processes.failed_reloads;
            if failed > failed_before {
                let what = format!(
                    "{}: HAProxy goes on with the configuration before: {} failed",
                    Code::HaproxyConfigBroken,
                    several(u64::from(failed), "reload", "reloads")
                );
                balancer.events.tell(Kind::ReloadFailed, what);
            } else if failed == 0 && failed_before > 0 {
                balancer.events.tell(Kind::ReloadWorks, "HAProxy has loaded its configuration");
            }
            failed_before = failed;
        }
        let pause = match changed {
            Some(at) if at.elapsed() < MASTER_CALM => MASTER_ALERT,
            _ => MASTER_CALM,
        };
        if hints.within(pause).await {
            changed = Some(Instant::now());
            // Whoever has changed a file checks it and reloads: that takes longer than this.
            tokio::time::sleep(MASTER_ALERT).await;
        }
    }
}

async fn watch_route(balancer: &Balancer) {
    let haproxy = &balancer.config.haproxy;
    let map = balancer.file.folder().map(std::path::Path::to_owned);
    let config = haproxy.config.iter().filter_map(|path| path.parent());
    let mut hints = Hints::of(map.as_deref().into_iter().chain(config));
    loop {
        if hints.within(balancer.guard.pause()).await {
            tokio::time::sleep(REST).await;
        }
        // Whoever changes the route just now looks after it.
        let Ok(mut changing) = balancer.changing.try_lock() else { continue };
        // What is held ready is held for the route that stood then: until it is taken, or too old, this is only told.
        if changing.as_ref().is_some_and(Prepared::holds) {
            tell(balancer).await;
            continue;
        }
        *changing = None;
        look(balancer).await;
    }
}

/// What a look has found.
struct Seen {
    found: Found,
    worker: WorkerId,
    on_disk: Option<Route>,
    runtime: Option<Route>,
    confirmed: Option<Route>,
}

/// Nothing while HAProxy is down or busy: the next look will tell.
async fn see(balancer: &Balancer) -> Option<Seen> {
    let (workers, file) = (&balancer.workers, &balancer.file);
    let (info, runtime) = (workers.info().await.ok()?, workers.route().await.ok()?);
    // Of a map that HAProxy does not have there is no list either.
    let keys = match (workers.key_count().await, &runtime) {
        (Ok(keys), _) => keys,
        (Err(problem), None) if problem.code == Code::HaproxyReplyUnexpected => 0,
        (Err(_), _) => return None,
    };
    let (confirmed, begun) = (file.remembered(), file.begun());
    // An answer of OPNsense that was lost is nobody's change by hand: forward nothing goes until it is known what it keeps.
    let on_disk = file.stands().or_else(|| confirmed.clone().filter(|_| file.in_doubt()));
    let given_away = file.given_away();
    let found = drift::judge(&Look {
        worker: info.worker(),
        settled: balancer.file.settled(),
        on_disk: on_disk.as_ref(),
        runtime: runtime.as_ref(),
        keys,
        confirmed: confirmed.as_ref(),
        begun: begun.as_ref(),
        given_away: given_away.as_ref(),
        by_states: !balancer.shows_epoch(),
        cut_short: workers.cut_short(),
    });
    Some(Seen { found, worker: info.worker(), on_disk, runtime, confirmed })
}

/// Has the events say whether the route stands now, and not whether it stood half a second ago, for whoever asks how it
/// is. Changes no route: that is the guard's.
pub async fn refresh(balancer: &Balancer) {
    let Ok(_changing) = tokio::time::timeout(TURN, balancer.changing.lock()).await else { return };
    tell(balancer).await;
}

async fn tell(balancer: &Balancer) {
    match see(balancer).await.map(|seen| seen.found) {
        Some(Found::Stands) => balancer.events.stands(),
        Some(Found::Changed(change)) => balancer.events.drifted(&change.words()),
        Some(Found::Reloaded | Found::BroughtBack) | None => {}
    }
}

async fn look(balancer: &Balancer) {
    let Some(Seen { found, worker, on_disk, runtime, confirmed }) = see(balancer).await else { return };
    match (found, on_disk) {
        (Found::Stands, on_disk) => {
            balancer.events.stands();
            if let Some(route) = on_disk.as_ref().filter(|_| balancer.shows_epoch()) {
                tell_who_is_astray(balancer, route);
            }
            if let Some(route) = on_disk.filter(|_| balancer.guard.old_behind.load(Ordering::Relaxed)) {
                switch::set_old_workers(balancer, &route).await;
            }
        }
        (Found::Reloaded, Some(route)) => {
            let first = balancer.file.settled().is_none();
            let old = follow(balancer, worker, &route).await;
            if !first {
                let pid = worker.pid;
                let what = format!("HAProxy has a new worker, {pid}: route `{route}` stands{old}");
                balancer.events.tell(Kind::ReloadSeen, what);
            }
            balancer.events.stands();
        }
        (Found::BroughtBack, Some(route)) => restore(balancer, worker, runtime.as_ref(), &route).await,
        (Found::Changed(change), _) => changed(balancer, &change, confirmed.as_ref()).await,
        // Without a route on disk there is none to set again.
        (Found::Reloaded | Found::BroughtBack, None) => {}
    }
}

/// After a move, tells once of visitors who do not go by the route that stands. It was confirmed by what HAProxy says and by
/// requests of the agent's own, and both pass where a rule leads other paths elsewhere, or another frontend looks nothing up.
/// Nothing is turned back for it: whoever keeps some people on a slot by a rule of their own is no failure of the release.
fn tell_who_is_astray(balancer: &Balancer, route: &Route) {
    let (Some(signals), guard) = (&balancer.signals, &balancer.guard) else { return };
    if !guard.is_alert() || guard.astray_of.load(Ordering::Relaxed) == route.epoch.0 {
        return;
    }
    let since = Timestamp(guard.set_at.load(Ordering::Relaxed));
    if let Some(found) = signals.astray(route, since).words() {
        guard.astray_of.store(route.epoch.0, Ordering::Relaxed);
        let what =
            format!("{}: requests of visitors since route `{route}` stands: {found}", Code::OldSlotServes);
        balancer.events.tell(Kind::OldSlotServes, what);
    }
}

/// Sets the route again in a worker that a reload has given an older one, or one that was taken back.
async fn restore(balancer: &Balancer, worker: WorkerId, found: Option<&Route>, route: &Route) {
    let found = found.map_or_else(|| "none".to_owned(), |found| format!("`{found}`"));
    let pid = worker.pid;
    if let Err(problem) = balancer.workers.set_route(route).await {
        let what =
            format!("HAProxy's new worker {pid} has route {found}, and `{route}` cannot be set: {problem}");
        return balancer.events.drifted(&what);
    }
    balancer.file.older_was_brought();
    let old = follow(balancer, worker, route).await;
    let what = format!("HAProxy's new worker {pid} had route {found}: `{route}` is set again{old}");
    balancer.events.tell(Kind::ReloadRestored, what);
    balancer.events.stands();
}

/// Of two reloads in a row, the worker of the first is an old one already, perhaps with the old map. Says what came of it.
async fn follow(balancer: &Balancer, worker: WorkerId, route: &Route) -> String {
    let old = switch::set_old_workers(balancer, route).await;
    balancer.file.settle(worker);
    old.said
}

/// Reports what somebody else has changed, and sets it back where the configuration says so.
async fn changed(balancer: &Balancer, change: &Change, confirmed: Option<&Route>) {
    let what = change.words();
    balancer.events.drifted(&what);
    let (true, Some(route)) = (balancer.config.haproxy.enforce, confirmed) else { return };
    let set_back = match change {
        Change::Runtime(_) => balancer.workers.set_route(route).await,
        // The epoch that was in the file has been given away, by whomever.
        Change::File(_) => balancer.file.put_back_owed(route),
        Change::Both(_) => set_everywhere(balancer, route).await,
        // Only a reload rids a map of a second entry; setting one sets both.
        Change::Keys(_) => return,
    };
    match set_back {
        Ok(()) => balancer.events.tell(Kind::Enforced, format!("`{route}` is set again, because {what}")),
        Err(problem) => balancer.events.drifted(&format!("{what}; `{route}` cannot be set again: {problem}")),
    }
}

async fn set_everywhere(balancer: &Balancer, route: &Route) -> Result<(), Problem> {
    balancer.file.put_back_owed(route)?;
    balancer.workers.set_route(route).await
}

/// At the start of the agent, before any order comes: what an earlier life left half-done is finished or taken back.
///
/// A route on disk that is newer than HAProxy's was confirmed, and a reload has brought an older one back: it is set
/// again. One that never was confirmed is of a switch that a crash cut short: what stood before it is put back, and the
/// coordinator, which knows the gates, orders it again if it still wants it.
pub async fn at_start(balancer: &Balancer) {
    if balancer.file.is_behind() && balancer.file.owed().is_none() {
        match tokio::time::timeout(OPNSENSE_START, balancer.file.catch_up()).await {
            Ok(Ok(_)) => {}
            Ok(Err(problem)) => warn!(problem = %problem.in_full(), "cannot see which route OPNsense keeps"),
            Err(_) => warn!("OPNsense does not say in time which route it keeps"),
        }
    }
    let Some(on_disk) = balancer.file.stands() else { return };
    let runtime = match balancer.workers.route().await {
        Ok(Some(runtime)) => runtime,
        Ok(None) => return,
        Err(problem) => return warn!(problem = %problem.in_full(), "cannot see HAProxy's route"),
    };
    let confirmed = balancer.file.remembered();
    let Some(wanted) = route_change::at_start(&runtime, &on_disk, confirmed.as_ref()) else {
        return adopt(balancer, &runtime, &on_disk, confirmed.as_ref());
    };
    let led = lead_to(balancer, (&runtime, &on_disk), wanted).await;
    if led.is_ok() {
        balancer.file.remember(wanted);
    }
    match led {
        Ok(()) if *wanted == on_disk => {
            let what = format!("HAProxy had route `{runtime}`: `{wanted}` is set again");
            balancer.events.tell(Kind::ReloadRestored, what);
        }
        Ok(()) => {
            let what = format!("a move to `{on_disk}` was cut short: `{wanted}` is on disk again");
            balancer.events.tell(Kind::CutShort, what);
        }
        Err(problem) => {
            let what = format!(
                "HAProxy routes by `{runtime}`, the map file holds `{on_disk}`, and that cannot be mended: {problem}"
            );
            balancer.events.drifted(&what);
        }
    }
}

/// Takes what stands in both places as it is: so a person brings a load balancer that was away to the route of the others.
/// Whether it is that one the coordinator says. A route with the epoch of the confirmed one would not be told from it by
/// its answers, and stays a change by hand.
fn adopt(balancer: &Balancer, runtime: &Route, on_disk: &Route, confirmed: Option<&Route>) {
    let Some(confirmed) = confirmed.filter(|known| runtime == on_disk && known.epoch != runtime.epoch) else {
        return;
    };
    balancer.file.remember(runtime);
    // A move of its own that was cut short between both notes is nobody's change.
    if balancer.file.begun().as_ref() != Some(runtime) {
        let what =
            format!("route `{runtime}` stands and is taken as it is: `{confirmed}` was confirmed last");
        balancer.events.tell(Kind::Adopted, what);
    }
}

/// Has a route on disk and in HAProxy, each where it is not yet.
async fn lead_to(
    balancer: &Balancer,
    (runtime, on_disk): (&Route, &Route),
    wanted: &Route,
) -> Result<(), Problem> {
    if wanted != on_disk {
        balancer.file.put_back_owed(wanted)?;
    }
    if wanted != runtime {
        balancer.workers.set_route(wanted).await?;
    }
    Ok(())
}
