//! The switch: one route, made ready beside the map file, put in its place by a rename, then set in the worker that takes
//! new connections, then in the old ones, then read back and seen by requests. It ends in the old route or the new one,
//! and says which.
//!
//! What takes time and can be refused comes before the rename, so that several load balancers can have it behind them
//! (`prepare`) and then move within a few milliseconds of each other.

use std::time::Duration;

use futures_util::future::join_all;
use pointsman_chassis::agent_service::Rule;
use pointsman_chassis::http_check::Answer;
use pointsman_chassis::{SystemClock, failpoint};
use pointsman_core::route_change::{self, Known, Lease};
use pointsman_core::{Aftermath, Code, Evidence, Order, Problem, Route};
use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::balancer::{Balancer, Needed};
use crate::events::Kind;
use crate::own_address;
use crate::reply::WorkerId;
use crate::route_file::Staged;
use crate::workers::OldWorker;

/// New connections that must show the new route before it is reported. HAProxy's answer to `set map` is a barrier
/// for every thread, so these find what the barrier cannot: a frontend that reads another map.
const REQUESTS_THAT_MUST_SEE: usize = 3;

/// How often a change is confirmed anew because HAProxy was reloaded meanwhile.
const RELOADS_FOLLOWED: u32 = 5;

/// How long a worker that starts is waited for in all, and how often it is looked for. One that takes longer is told by
/// the guard.
const START_WAITED: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long whoever leads visitors back waits, after they were led, for OPNsense to keep the route: as long as it takes where
/// it is well. A longer wait is the guard's.
const KEPT_WAITED: Duration = Duration::from_secs(3);

/// The orders that lead back and wait for their turn. Whoever has it and waits for OPNsense gives up for them.
#[derive(Clone, Debug)]
pub struct WaysBack(watch::Sender<usize>);

/// An order that leads back, for as long as it waits for its turn.
struct Waiting<'a>(&'a WaysBack);

impl Default for WaysBack {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl WaysBack {
    /// Ends when an order that leads back waits; at once where one does already.
    async fn wanted(&self) {
        // It cannot be closed: this is its sender.
        let _ = self.0.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    fn wait(&self) -> Waiting<'_> {
        self.0.send_modify(|waiting| *waiting = waiting.saturating_add(1));
        Waiting(self)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

/// The right to change the route, when it is this order's turn: at once, or nearly, for one that leads back.
async fn turn(balancer: &Balancer, back: bool) -> MutexGuard<'_, Option<Prepared>> {
    let _waiting = back.then(|| balancer.ways_back.wait());
    balancer.changing.lock().await
}

/// What is held ready for one order. Dropped it is gone, with the new map file.
#[derive(Debug)]
pub struct Prepared {
    lease: Lease,
    since: Instant,
    ready: Ready,
}

impl Prepared {
    fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it may still be taken: until then nothing but an order moves the route.
    pub fn holds(&self) -> bool {
        self.age_ms() < route_change::LEASE_MS
    }
}

/// A route for which everything was looked at and made ready, so that little is left to do.
#[derive(Debug)]
pub struct Ready {
    expected: Vec<Route>,
    wanted: Route,
    /// What stood when it was made ready.
    before: Route,
    /// The worker that took new connections then.
    worker: WorkerId,
    /// The new map file, flushed, beside the one in place. None where the route is on disk already.
    staged: Option<Staged>,
    /// It leads back: that nobody else can keep it now is no reason not to.
    back: bool,
}

/// What an order to set a route says.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The routes that may stand now.
    pub expected: &'a [Route],
    /// The route that is to stand.
    pub wanted: &'a Route,
    /// Going forward the hosts that each backend whose share grows must have a server for; else healthy servers that it must
    /// have.
    pub min_up: u32,
    /// It leads back, or to the page or from it.
    pub back: bool,
}

impl Move<'_> {
    fn needed(&self) -> Needed {
        if self.back { Needed::AtLeast(self.min_up) } else { Needed::Every { hosts: self.min_up } }
    }
}

impl Ready {
    /// Whether this is what an order asks for.
    fn serves(&self, asked: &Move<'_>) -> bool {
        self.wanted == *asked.wanted && self.expected == asked.expected && self.back == asked.back
    }

    fn already(&self) -> bool {
        self.before == self.wanted && self.staged.is_none()
    }
}

/// Looks at everything that a change of the route depends on and lays the map file ready. Changes nothing.
async fn make_ready(balancer: &Balancer, asked: &Move<'_>, rule: &Rule) -> Result<Ready, Problem> {
    let Move { expected, wanted, back, .. } = *asked;
    // Whoever leads back is told that nobody could see it.
    if let Some(why) = balancer.elsewhere().filter(|_| !back) {
        let problem = own_address::problem(&balancer.config.frontend, why);
        return Err(problem.aftermath(Aftermath::Unchanged));
    }
    let before = precheck(balancer, expected, wanted, asked.needed()).await?;
    let worker =
        balancer.workers.info().await.map_err(|problem| problem.aftermath(Aftermath::Unchanged))?.worker();
    let on_disk = if back { balancer.file.stands() } else { balancer.file.read() };
    let mut staged = None;
    if on_disk.as_ref() != Some(wanted) {
        rule.check()?;
        staged = Some(balancer.file.stage(wanted)?);
    }
    Ok(Ready { expected: expected.to_vec(), wanted: wanted.clone(), before, worker, staged, back })
}

/// Makes everything ready for a route and holds it, so that several load balancers can take it at one moment. What was
/// held before is dropped.
pub async fn prepare(
    balancer: &Balancer,
    lease: Lease,
    asked: &Move<'_>,
    rule: &Rule,
) -> Result<Evidence, Problem> {
    let mut changing = turn(balancer, asked.back).await;
    *changing = None;
    let ready = make_ready(balancer, asked, rule).await?;
    let evidence = Evidence {
        already: ready.already(),
        detail: format!("ready for route `{}`", asked.wanted),
        ..Evidence::default()
    };
    *changing = Some(Prepared { lease, since: Instant::now(), ready });
    Ok(evidence)
}

/// Sets the route that is held ready for this order, or refuses: what the other load balancers do meanwhile they do because
/// this one was ready, by what it saw then.
pub async fn commit(balancer: &Balancer, order: &Order, rule: &Rule) -> Result<Evidence, Problem> {
    let mut changing = balancer.changing.lock().await;
    let standing =
        balancer.workers.route().await.map_err(|problem| problem.aftermath(Aftermath::Unchanged))?;
    let Some(prepared) = changing.take() else {
        return Err(route_change::lapsed(
            "nothing is held ready: it was dropped, or this agent was started anew",
        ));
    };
    // What a worker has lost is on disk, as it was when this was made ready.
    let standing = standing.or_else(|| balancer.file.read());
    if let Err(problem) =
        prepared.lease.permit(order, prepared.age_ms(), &prepared.ready.before, standing.as_ref())
    {
        // Another's stays what it is.
        *changing = Some(prepared).filter(|prepared| prepared.lease != Lease::of(order));
        return Err(problem);
    }
    let (wanted, back) = (prepared.ready.wanted.clone(), prepared.ready.back);
    let done = take(balancer, prepared.ready, rule).await?;
    drop(changing);
    Ok(if back { kept_or_said(balancer, &wanted, done).await } else { done })
}

/// Sets a route. Of what was made ready for it not long ago only the route is looked at again: somebody may have changed it
/// by hand.
pub async fn set_route(balancer: &Balancer, asked: &Move<'_>, rule: &Rule) -> Result<Evidence, Problem> {
    let mut changing = turn(balancer, asked.back).await;
    let prepared = still_good(balancer, changing.take(), asked).await;
    let ready = match prepared {
        Some(ready) => ready,
        None => make_ready(balancer, asked, rule).await?,
    };
    let done = take(balancer, ready, rule).await?;
    drop(changing);
    Ok(if asked.back { kept_or_said(balancer, asked.wanted, done).await } else { done })
}

/// Has OPNsense keep the route that visitors were led back by, and says so where it does not. Nobody is kept from changing the
/// route meanwhile.
async fn kept_or_said(balancer: &Balancer, wanted: &Route, done: Evidence) -> Evidence {
    if balancer.file.owed().is_none() {
        return done;
    }
    // What it says is noted, and what is late goes on being tried.
    let _ = tokio::time::timeout(KEPT_WAITED, balancer.file.catch_up()).await;
    let Some(unkept) = balancer.file.unkept().filter(|_| balancer.file.owed().as_ref() == Some(wanted))
    else {
        return done;
    };
    balancer.events.tell(Kind::NotKept, format!("{}: {unkept}", Code::RouteNotKept));
    Evidence { detail: format!("{}; {unkept}", done.detail), unkept: Some(unkept), ..done }
}

/// Takes what is ready: on disk, in the current worker, in the old ones; then reads back and looks.
async fn take(balancer: &Balancer, ready: Ready, rule: &Rule) -> Result<Evidence, Problem> {
    let (before, already, wanted, back) = (ready.before.clone(), ready.already(), &ready.wanted, ready.back);
    let mut effect_at_us = None;
    if !already {
        rule.check()?;
        let on_disk = balancer.file.read();
        // Not before: what is only made ready is no move, and may never become one.
        balancer.file.begin(wanted);
        match &ready.staged {
            // The agent's own note makes up for what OPNsense does not keep yet: the guard sets the route after a reload.
            Some(Staged::Call(route)) if ready.back => balancer.file.owe(route)?,
            Some(staged) => publish(balancer, staged, on_disk.as_ref().unwrap_or(&before)).await?,
            None => {}
        }
        failpoint::pass("route-on-disk");
        if before != *wanted {
            // Writing to disk took its time, and another coordinator may have come meanwhile.
            if let Err(problem) = rule.check() {
                return Err(take_disk_back(balancer, &before, ready.back, problem).await);
            }
            set_runtime(balancer, wanted, &before, ready.back).await?;
            effect_at_us = Some(SystemClock.now_us());
        }
        failpoint::pass("route-in-worker");
    }
    // The flush of the folder takes as long as all the rest: it is waited for beside it, and before anything is answered.
    let (confirmed, settled) =
        tokio::join!(confirm(balancer, wanted, ready.worker), settle(balancer, ready.staged));
    failpoint::pass("route-confirmed");
    balancer.guard.route_was_set();
    match settled.and(confirmed) {
        Ok(Confirmed { detail, unreached, worker }) => {
            // Before anybody else looks: what an order has set is no change by hand.
            balancer.file.confirm(wanted);
            // After the answer: nobody waits for the copy.
            let file = balancer.file.clone();
            tokio::task::spawn_blocking(move || {
                file.keep_copy();
                file.settle(worker);
            });
            Ok(Evidence { already, detail, effect_at_us, unreached, ..Evidence::default() })
        }
        Err(problem) if problem.aftermath == Aftermath::Unknown => Err(problem),
        Err(problem) => Err(take_back(balancer, &before, wanted, back, problem).await),
    }
}

/// What was made ready, if it is what this order asks for and the route of then still stands. Anything else is dropped
/// here, before another is made: both would lie at the same place, and whoever is dropped clears it.
async fn still_good(balancer: &Balancer, prepared: Option<Prepared>, asked: &Move<'_>) -> Option<Ready> {
    let ready = prepared.filter(Prepared::holds)?.ready;
    if !ready.serves(asked) {
        return None;
    }
    let standing = balancer.workers.route().await.ok().flatten();
    (standing.as_ref() == Some(&ready.before)).then_some(ready)
}

/// Flushes what was published, on a thread that may wait for the disk.
async fn settle(balancer: &Balancer, staged: Option<Staged>) -> Result<(), Problem> {
    let Some(staged) = staged else { return Ok(()) };
    let file = balancer.file.clone();
    let settled = tokio::task::spawn_blocking(move || file.settle_on_disk(&staged)).await;
    settled.unwrap_or_else(|error| {
        Err(Problem::new(Code::MapFileUnwritable, "flushing the map's folder ended abruptly").because(&error))
    })
}

async fn precheck(
    balancer: &Balancer,
    expected: &[Route],
    wanted: &Route,
    needed: Needed,
) -> Result<Route, Problem> {
    balancer.granted(&wanted.stable)?;
    balancer.granted(&wanted.canary)?;
    let unchanged = |problem: Problem| problem.aftermath(Aftermath::Unchanged);
    balancer.workers.permit(wanted).await.map_err(unchanged)?;
    let (route, backends, rows) =
        tokio::try_join!(balancer.workers.route(), balancer.workers.backends(), balancer.workers.stat())
            .map_err(unchanged)?;
    for backend in [&wanted.stable, &wanted.canary] {
        if !backends.iter().any(|name| name == backend.as_str()) {
            return Err(Problem::new(Code::BackendUnknown, format!("HAProxy has no backend `{backend}`"))
                .cause(format!("it has {}", backends.join(", ")))
                .hint("add the backend to haproxy.cfg and reload, or correct the slot's `backend`"));
        }
    }
    if route.is_none() && !balancer.shows_epoch() {
        return Err(balancer.states_differ());
    }
    let standing = route.or_else(|| balancer.file.stands()).unwrap_or_else(|| wanted.clone());
    let (on_disk, given_away) = (balancer.file.stands(), balancer.file.given_away());
    let known = Known {
        standing: &standing,
        on_disk: on_disk.as_ref(),
        highest: balancer.file.highest_epoch(),
        given_away: given_away.as_ref(),
    };
    route_change::permit(&known, expected, wanted)?;
    for backend in route_change::growing(&standing, wanted) {
        balancer.healthy_enough(&rows, backend, needed)?;
    }
    Ok(standing)
}

async fn publish(balancer: &Balancer, staged: &Staged, before: &Route) -> Result<(), Problem> {
    let problem = match balancer.file.publish(staged, balancer.ways_back.wanted()).await {
        Some(Ok(())) => return Ok(()),
        Some(Err(problem)) => problem,
        None => Problem::new(
            Code::OpnsenseSilent,
            "an order that leads visitors back came while OPNsense was asked to keep the route",
        )
        .cause("it goes first, and waits for no answer of OPNsense's")
        .hint("where visitors are now: `pointsman traffic show ENV`"),
    };
    Err(match put_back(balancer, before, false).await {
        Ok(()) => problem.aftermath(Aftermath::Unchanged),
        // What refused the one write refused the other too; the old file was never touched.
        Err(_) if balancer.file.stands().as_ref() == Some(before) => problem.aftermath(Aftermath::Unchanged),
        // Neither is on disk for certain: a reload may now bring either.
        Err(second) => problem.aftermath(Aftermath::Unknown).cause(second.to_string()),
    })
}

/// Tells the current worker. A lost answer leads to a look, never to a guess.
async fn set_runtime(balancer: &Balancer, wanted: &Route, before: &Route, back: bool) -> Result<(), Problem> {
    for last_try in [false, true] {
        match balancer.workers.set_route(wanted).await {
            Ok(()) => return Ok(()),
            // Whatever came for an answer, or none: only reading back says what the command did.
            Err(problem) => match balancer.workers.route().await {
                Ok(Some(found)) if found == *wanted => return Ok(()),
                Ok(_) if !last_try && problem.code == Code::RuntimeSocketUnreachable => {}
                // Some servers are as before and some are not. The guard goes on towards what is on disk.
                Ok(None) if !balancer.shows_epoch() => return Err(problem.aftermath(Aftermath::Unknown)),
                Ok(_) => return Err(take_disk_back(balancer, before, back, problem).await),
                Err(silence) => return Err(silence.aftermath(Aftermath::Unknown)),
            },
        }
    }
    Ok(())
}

async fn take_disk_back(balancer: &Balancer, before: &Route, back: bool, problem: Problem) -> Problem {
    // A reload may have read meanwhile what is taken back here.
    balancer.guard.route_was_set();
    match put_back(balancer, before, back).await {
        Ok(()) => problem.aftermath(Aftermath::Unchanged),
        Err(second) => problem.aftermath(Aftermath::Unknown).cause(second.to_string()),
    }
}

/// Puts an earlier route where HAProxy's next start finds it. What could be done without OPNsense is undone without it, and
/// so is what keeps an order that leads back waiting.
async fn put_back(balancer: &Balancer, before: &Route, back: bool) -> Result<(), Problem> {
    if back {
        return balancer.file.put_back_owed(before);
    }
    balancer.file.put_back(before, balancer.ways_back.wanted()).await
}

/// What came of telling the old workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct OldTold {
    /// In words that go on after others; empty where there are none.
    pub said: String,
    /// Visitors that may keep the old route, in words; none where all follow.
    pub unreached: Option<String>,
}

impl OldTold {
    fn all(said: String) -> Self {
        Self { said, unreached: None }
    }

    fn not_all(why: String) -> Self {
        Self { said: format!("; {why}"), unreached: Some(why) }
    }
}

/// Tells the old workers, a few at a time as the master lets in, and names those that keep their route. The guard tells them again until they follow
/// or end, which they do by themselves with `hard-stop-after`.
pub(crate) async fn set_old_workers(balancer: &Balancer, wanted: &Route) -> OldTold {
    let old = match balancer.workers.old().await {
        Ok(old) => old,
        Err(problem) => {
            if !balancer.guard.old_are_behind(true) {
                warn!(problem = %problem.in_full(), "cannot see the old workers");
            }
            return OldTold::not_all("old workers could not be seen".to_owned());
        }
    };
    let count = old.len();
    let told =
        join_all(old.iter().map(async |worker| (worker.pid, leads(balancer, worker, wanted).await))).await;
    let behind = || told.iter().filter_map(|(pid, led)| Some((pid, led.as_ref().err()?)));
    let stale: Vec<String> = behind().map(|(pid, _)| pid.to_string()).collect();
    if !balancer.guard.old_are_behind(!stale.is_empty()) {
        behind().for_each(|(pid, problem)| {
            warn!(pid, problem = %problem.in_full(), "an old worker keeps its route, and is told again and again");
        });
    }
    match (count, stale.as_slice()) {
        (0, _) => unseen_old_process(balancer).await,
        (1, []) => OldTold::all("; 1 old worker follows".to_owned()),
        (_, []) => OldTold::all(format!("; {count} old workers follow")),
        _ => OldTold::not_all(format!("old workers {} keep the old route until they end", stale.join(", "))),
    }
}

/// Sets the route in an old worker and reads it back. One that has ended meanwhile serves nobody.
async fn leads(balancer: &Balancer, worker: &OldWorker, wanted: &Route) -> Result<(), Problem> {
    balancer.workers.set_old_route(worker, wanted).await?;
    match balancer.workers.old_route(worker).await? {
        Some(found) if found.as_ref() != Some(wanted) => {
            let found = found.map_or_else(|| "nothing".to_owned(), |route| route.to_string());
            let message = format!(
                "the route `{wanted}` was set in old worker {}, but `{found}` was read back",
                worker.pid
            );
            Err(Problem::new(Code::OldWorkerStale, message).hint("it ends with `hard-stop-after`"))
        }
        _ => Ok(()),
    }
}

/// Says that a process of before a reload may be alive, where no master leads to it.
async fn unseen_old_process(balancer: &Balancer) -> OldTold {
    match balancer.workers.unseen_old_process().await {
        Ok(Some(left)) => {
            let left_s = left.as_secs().max(1);
            OldTold::not_all(format!("an old process may keep the old route for {left_s} s"))
        }
        _ => OldTold::default(),
    }
}

/// A route that stands and was seen.
struct Confirmed {
    detail: String,
    unreached: Option<String>,
    /// The worker that takes new connections by it.
    worker: WorkerId,
}

/// Tells the old workers, reads back, and looks with new connections; all of it again if HAProxy was reloaded since
/// the worker `told` was told. A worker that is just starting has read the map as it was when it began, so it is told like the first.
async fn confirm(balancer: &Balancer, wanted: &Route, mut told: WorkerId) -> Result<Confirmed, Problem> {
    let give_up = Instant::now() + START_WAITED;
    for _ in 0..RELOADS_FOLLOWED {
        let elsewhere = balancer.elsewhere();
        let looks = [(); REQUESTS_THAT_MUST_SEE].map(|()| balancer.look("stable"));
        // Listing the workers waits for a master that is starting anew. The last look at the pid comes after it, so a
        // worker that took over meanwhile is seen.
        let (old, info, found, looks) = tokio::join!(
            set_old_workers(balancer, wanted),
            balancer.workers.info(),
            balancer.workers.route(),
            join_all(looks)
        );
        let (worker, found) = (info?.worker(), found?);
        if worker != told {
            balancer.workers.set_route(wanted).await?;
            told = worker;
            continue;
        }
        if found.as_ref() != Some(wanted) {
            // Another worker may have answered this than the one that named itself.
            if balancer.workers.info().await?.worker() != told {
                continue;
            }
            let found = found.map_or_else(|| "nothing".to_owned(), |route| route.to_string());
            let message = format!("the route `{wanted}` was set, but `{found}` was read back");
            return Err(Problem::new(Code::RouteNotApplied, message));
        }
        // The address may have moved to another load balancer meanwhile, whose answers are about its own route, or from there.
        let seen = match elsewhere.or_else(|| balancer.elsewhere()) {
            Some(why) => Ok(format!("not seen by a request: {why}")),
            None => all_see(balancer, wanted, looks).await.map(|itself| {
                let itself = itself.map_or_else(String::new, |itself| format!(", {itself}"));
                format!("seen by {REQUESTS_THAT_MUST_SEE} new connections{itself}")
            }),
        };
        let starts = match start_ends(balancer, give_up).await {
            Start::None => "",
            Start::Ended => continue,
            Start::Lasts => "; a reload is under way, and its worker is told when it takes over",
        };
        // After the look for one that starts: it may have taken over in between.
        if balancer.workers.info().await?.worker() != told {
            continue;
        }
        let detail = format!("route `{wanted}` read back, {}{}{starts}", seen?, old.said);
        return Ok(Confirmed { detail, unreached: old.unreached, worker: told });
    }
    let message =
        format!("HAProxy was reloaded {RELOADS_FOLLOWED} times while the route `{wanted}` was confirmed");
    Err(Problem::new(Code::RouteNotApplied, message).aftermath(Aftermath::Unknown).retry_useful())
}

/// How it stands with a worker that was starting.
enum Start {
    /// There is none.
    None,
    /// It has taken over, or failed, meanwhile.
    Ended,
    /// It takes longer than is waited for.
    Lasts,
}

/// Waits for the end of a reload that is under way: its worker began with the route of before.
async fn start_ends(balancer: &Balancer, give_up: Instant) -> Start {
    let mut waited = false;
    // What cannot be seen was said where the old workers were told.
    while balancer.workers.starting().await.unwrap_or(false) {
        if Instant::now() >= give_up {
            return Start::Lasts;
        }
        waited = true;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    if waited { Start::Ended } else { Start::None }
}

/// A new request is answered by some server: all that can be seen from outside where HAProxy shows no epoch. Which
/// servers those are was read back.
fn is_answered(seen: Result<Answer, String>) -> Result<(), Problem> {
    let why = match seen {
        Ok(answer) if !matches!(answer.status, 502..=504) => return Ok(()),
        Ok(answer) => format!("status {}", answer.status),
        Err(reason) => reason,
    };
    Err(Problem::new(Code::RouteNotSeen, "a new request through the load balancer reaches no server")
        .retry_useful()
        .cause(why)
        .hint("on the load balancer: `systemctl status haproxy`; compare `[frontend]` in lb-agent.toml"))
}

/// What the looks of one change show together: as [`shows`], of each of them.
async fn all_see(
    balancer: &Balancer,
    wanted: &Route,
    looks: Vec<Result<Answer, String>>,
) -> Result<Option<String>, Problem> {
    let mut itself = None;
    for seen in looks {
        match balancer.shows_epoch() {
            true => itself = sees(balancer, wanted, seen).await?.or(itself),
            false => is_answered(seen)?,
        }
    }
    Ok(itself)
}

async fn sees(
    balancer: &Balancer,
    wanted: &Route,
    seen: Result<Answer, String>,
) -> Result<Option<String>, Problem> {
    match seen {
        Ok(answer) => shows(balancer, wanted, &answer).await,
        // The request itself got no answer: the frontend is full or gone. What the map says was read back.
        Err(reason) => {
            Err(Problem::new(Code::RouteNotSeen, "a new request through the load balancer got no answer")
                .aftermath(Aftermath::Unknown)
                .retry_useful()
                .cause(reason)
                .hint(
                    "on the load balancer: `systemctl status haproxy`; compare `[frontend]` in lb-agent.toml",
                ))
        }
    }
}

/// Whether an answer came by this route: it shows the route's epoch, and the backend that gave it is the one that the route
/// names. The epoch alone only says that the frontend has looked the route up. A frontend that an earlier `config-snippet`
/// wrote does not show the backend, and is believed by the epoch, as it was before. So is one that asks for a password or
/// sends elsewhere by itself: then this says so, in words that go on after others.
pub(crate) async fn shows(
    balancer: &Balancer,
    route: &Route,
    answer: &Answer,
) -> Result<Option<String>, Problem> {
    let epoch = answer.mark("epoch").unwrap_or("none");
    if epoch != route.epoch.to_string() {
        let message = format!("a new request shows route epoch {epoch}, expected {}", route.epoch);
        let carries = answer.pointsman.as_deref().unwrap_or("nothing");
        return Err(Problem::new(Code::RouteNotSeen, message)
            .cause(format!("the answer, with status {}, carries `{carries}` in `X-Pointsman`", answer.status))
            .hint("the frontend must read this map and set `X-Pointsman`, above every rule by which it answers itself; the agent's address must be in its `trusted` list"));
    }
    let named = if answer.mark("side") == Some("canary") { &route.canary } else { &route.stable };
    let Some(other) = answer.mark("be").filter(|backend| *backend != named.as_str()) else {
        return Ok(None);
    };
    // What a frontend answers before it picks a backend bears its own name, which no backend has.
    if !balancer.workers.names_backend(other).await? {
        return Ok(Some(format!(
            "which `{other}` answered by a rule of its own, with status {}: where the route leads was not seen",
            answer.status
        )));
    }
    Err(Problem::new(
        Code::RouteNotSeen,
        format!("a new request was answered by `{other}`, and the route leads to `{named}`"),
    )
    .cause("a rule in haproxy.cfg takes requests before the route does")
    .hint("find it: `pointsman doctor lb ENV`; where it is right for that path, set another `path` in `[frontend]` of lb-agent.toml"))
}

/// The new route is not what visitors get: puts the old one back everywhere and says whether that worked.
async fn take_back(
    balancer: &Balancer,
    before: &Route,
    wanted: &Route,
    back: bool,
    problem: Problem,
) -> Problem {
    if before == wanted {
        return problem.aftermath(Aftermath::Changed);
    }
    let put_back = async {
        put_back(balancer, before, back).await?;
        balancer.workers.set_route(before).await?;
        set_old_workers(balancer, before).await;
        balancer.standing_route().await
    };
    match put_back.await {
        Ok(found) if found == *before => {
            problem.aftermath(Aftermath::Unchanged).cause("the route before is back")
        }
        _ => {
            problem.aftermath(Aftermath::Unknown).cause("the route before could not be put back for certain")
        }
    }
}
