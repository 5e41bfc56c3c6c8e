//! Looking at the balancer without changing anything: for the preflight, and for `status`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman_chassis::host_facts;
use pointsman_core::{BackendName, Code, Evidence, Problem, Route};
use pointsman_proto::{convert, v1};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::balancer::{Balancer, health};
use crate::certificates;
use crate::drain::{running, sessions};
use crate::reply::StatRow;
use crate::states::refuse_strangers;
use crate::workers::OldWorker;
use crate::{fit, guard, own_address, switch};

/// How long whoever leaves what serves waits for OPNsense to say which route it keeps.
const OPNSENSE_LOOK: Duration = Duration::from_secs(2);

/// Says whether the balancer is fit for a release that starts from `expected` and uses `backends`. Whoever is `leaving` what
/// serves may do so although it does not answer.
pub async fn inspect(
    balancer: &Balancer,
    expected: &Route,
    backends: &[BackendName],
    leaving: bool,
) -> Result<Evidence, Problem> {
    let drift = |message: String| {
        Problem::new(Code::RouteDrift, message).hint("see it: `pointsman traffic show ENV`")
    };
    for backend in backends {
        balancer.granted(backend)?;
    }
    let known = balancer.workers.backends().await?;
    balancer.workers.permit(expected).await?;
    if let Some(missing) = backends.iter().find(|backend| !known.iter().any(|name| name == backend.as_str()))
    {
        return Err(Problem::new(Code::BackendUnknown, format!("HAProxy has no backend `{missing}`"))
            .cause(format!("it has {}", known.join(", ")))
            .hint("add the backend to haproxy.cfg and reload, or correct the slot's `backend`"));
    }
    let route = balancer.standing_route().await?;
    if route != *expected {
        return Err(drift(format!("the route is `{route}`, expected `{expected}`")));
    }
    let processes = balancer.workers.processes().await;
    if let Some(Err(problem)) = &processes
        && !leaving
    {
        return Err(old_unseen(problem));
    }
    if let Some(Ok(processes)) = processes
        && processes.failed_reloads > 0
    {
        let message = "HAProxy's configuration on disk does not load: its last reload failed";
        return Err(Problem::new(Code::HaproxyConfigBroken, message)
            .cause("the worker from before goes on; a restart would leave nobody to serve visitors")
            .hint("`pointsman doctor lb ENV` prints the command that names the line, with the files that HAProxy reads; mend it, `systemctl reload haproxy`"));
    }
    let entries = balancer.workers.key_count().await?;
    if entries != 1 {
        return Err(drift(format!("the route stands {entries} times in HAProxy's map, expected once")));
    }
    let unkept = kept(balancer, &route, leaving).await?;
    let elsewhere = balancer.elsewhere();
    if let Some(why) = elsewhere.clone().filter(|_| !leaving) {
        return Err(own_address::problem(&balancer.config.frontend, why));
    }
    let seen = match balancer.look("stable").await {
        // Another machine's answer.
        _ if elsewhere.is_some() => None,
        Ok(seen) => Some(seen),
        // What is led to is looked at by the switch, before it counts as done.
        Err(_) if leaving => None,
        Err(reason) => {
            return Err(Problem::new(
                Code::RouteNotSeen,
                "a request through the load balancer got no answer",
            )
            .retry_useful()
            .cause(reason)
            .hint(
                "compare `[frontend]` in lb-agent.toml with haproxy.cfg; where what serves hangs: \
                     `pointsman rollback ENV`, or `pointsman deploy ENV --fix-forward ...`",
            ));
        }
    };
    let shown = match seen.as_ref().filter(|_| balancer.shows_epoch()) {
        Some(seen) => switch::shows(balancer, &route, seen).await,
        None => Ok(None),
    };
    let (itself, astray) = shown.map_or_else(|problem| (None, Some(problem)), |itself| (itself, None));
    let looked_up =
        seen.as_ref().is_some_and(|seen| seen.mark("epoch") == Some(route.epoch.to_string().as_str()));
    if let Some(problem) = astray.clone().filter(|_| !(leaving && looked_up)) {
        let fits = fit::look(balancer).await.map_or_else(|problem| problem.message, |fit| fit.to_string());
        return Err(problem.cause(fits));
    }
    let info = balancer.workers.info().await?;
    let mut detail = format!("HAProxy {}, route `{route}`", info.version);
    if let Some(itself) = itself {
        detail = format!("{detail}, looked up by a request {itself}");
    }
    // Somebody may answer in place of what is left, a page for a slot that is down: no reason to stay.
    if let Some(problem) = astray {
        detail = format!("{detail}; {}", problem.message);
    }
    match elsewhere {
        Some(why) => detail = format!("{detail}; not looked up by a request: {why}"),
        None if seen.is_none() => detail.push_str("; what serves does not answer"),
        None => {}
    }
    if let Some(unkept) = unkept {
        detail = format!("{detail}; {unkept}");
    }
    if !balancer.shows_epoch() {
        let strangers = balancer.workers.strangers(&balancer.workers.haproxy_stat().await?).await?;
        match refuse_strangers(&strangers) {
            Err(problem) if !leaving => return Err(problem),
            // They had their visitors before, and keep them: no reason to stay.
            Err(_) => detail = format!("{detail}; {} take visitors whatever the route", strangers.join(", ")),
            Ok(()) if seen.is_some() => detail = format!("{detail}; {}", fit::look(balancer).await?),
            Ok(()) => {}
        }
    }
    Ok(Evidence { already: true, detail, ..Evidence::default() })
}

/// Refuses where HAProxy's next start or reload would bring another route than stands, or may. Whoever leaves what serves is
/// kept by what a person wrote only: that OPNsense does not answer is told, in words that go on after others.
async fn kept(balancer: &Balancer, route: &Route, leaving: bool) -> Result<Option<String>, Problem> {
    let (file, unkept) = (&balancer.file, balancer.file.unkept());
    if let Some(unkept) = unkept.filter(|_| leaving || file.owed().as_ref() == Some(route)) {
        if leaving {
            return Ok(Some(unkept));
        }
        return Err(Problem::new(Code::RouteNotKept, unkept)
            .retry_useful()
            .cause("an Apply in OPNsense would bring the route before, until the agent has set this one again")
            .hint("it is tried again by itself: see `pointsman traffic show ENV`, and OPNsense's API from the agent's host"));
    }
    match file.read() {
        Some(on_disk) if on_disk == *route => {}
        on_disk => {
            let found = on_disk.map_or_else(|| "no route".to_owned(), |route| format!("`{route}`"));
            let message = format!("the map file holds {found}, HAProxy routes by `{route}`");
            return Err(Problem::new(Code::RouteDrift, message)
                .cause("a reload would move visitors")
                .hint("see it: `pointsman traffic show ENV`"));
        }
    }
    if !leaving {
        return file.check_kept(route).await.map(|()| None);
    }
    match tokio::time::timeout(OPNSENSE_LOOK, file.check_kept(route)).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(problem)) if problem.code == Code::RouteDrift => Err(problem),
        Ok(Err(problem)) => Ok(Some(problem.message)),
        Err(_) => Ok(Some("OPNsense does not say in time which route it keeps".to_owned())),
    }
}

/// A release may wait until the master can be asked; whoever goes back, or puts the page up, does not, and is told whom it may
/// not reach.
fn old_unseen(problem: &Problem) -> Problem {
    Problem::new(Code::OldWorkersUnseen, "HAProxy's master socket does not answer: old workers could not be told of a move")
        .retry_useful()
        .cause(&problem.message)
        .cause(problem.causes.first().map_or("", String::as_str))
        .hint("on the load balancer: `systemctl status haproxy`, and `master` in lb-agent.toml against HAProxy's option `-S`")
}

/// Looks that go on at once. Behind those of some dashboards that wait for a worker that hangs there is room for whoever goes
/// back.
const AT_ONCE: usize = 4;

/// How the balancer stood when it was looked at last, for all who had asked by then: however many ask at once, HAProxy is not
/// asked by each of them.
#[derive(Clone, Debug)]
pub struct Looks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    turns: Semaphore,
    /// The last look, and when it began.
    last: Mutex<Option<(Instant, v1::AgentStatus)>>,
}

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Shared { turns: Semaphore::new(AT_ONCE), last: Mutex::default() }))
    }
}

impl Looks {
    /// What came of a look that began after now: another's, or one's own. It waits as long as the looks before it take,
    /// each of which has its bounds.
    async fn look(&self, own: impl Future<Output = v1::AgentStatus>) -> v1::AgentStatus {
        let asked = Instant::now();
        // It is never closed.
        let _turn = self.0.turns.acquire().await;
        let last = || self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, status)) = last().as_ref().filter(|(began, _)| *began >= asked) {
            return status.clone();
        }
        let began = Instant::now();
        let status = own.await;
        let mut last = last();
        if last.as_ref().is_none_or(|(newer, _)| *newer < began) {
            *last = Some((began, status.clone()));
        }
        status
    }
}

/// How the balancer stands, by a look that began after it was asked.
pub async fn describe(balancer: &Balancer) -> v1::AgentStatus {
    balancer.looks.look(status(balancer)).await
}

async fn status(balancer: &Balancer) -> v1::AgentStatus {
    let facts = Some(host_facts(&balancer.config.state));
    match balancer_facts(balancer).await {
        Ok(found) => v1::AgentStatus { facts, balancer: Some(found), ..Default::default() },
        Err(problem) => {
            v1::AgentStatus { facts, problem: Some(convert::problem_to_wire(&problem)), ..Default::default() }
        }
    }
}

/// Bound on each of the three questions about old workers: which there are, how each stands, what they serve. The master
/// answers in milliseconds, or a reload is under way; whoever waits for the whole answer gives it four seconds, and must
/// have it to go back.
const OLD_LOOK: Duration = Duration::from_secs(1);

async fn within<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = |_| {
        let message = format!("no answer through HAProxy's master socket within {} s", OLD_LOOK.as_secs());
        Err(Problem::new(Code::RuntimeSocketUnreachable, message).retry_useful())
    };
    tokio::time::timeout(OLD_LOOK, work).await.unwrap_or_else(late)
}

/// An old worker, as far as it answered.
struct Old {
    worker: OldWorker,
    route: Result<Option<Option<Route>>, Problem>,
    rows: Result<Option<Vec<StatRow>>, Problem>,
}

/// The old workers, looked at once. What cannot be seen of them must not hide how the balancer stands, least of all from
/// whoever wants to go back.
async fn old_workers(balancer: &Balancer) -> Result<Vec<Old>, Problem> {
    let workers = &balancer.workers;
    let looked = async |worker: OldWorker| {
        let (route, rows) = tokio::join!(within(workers.old_route(&worker)), within(worker.stat()));
        Old { worker, route, rows }
    };
    Ok(join_all(within(workers.old()).await?.into_iter().map(looked)).await)
}

/// Old workers that route otherwise, or may, in words.
async fn stale_workers(
    balancer: &Balancer,
    route: Option<&Route>,
    old: &Result<Vec<Old>, Problem>,
) -> Vec<String> {
    let old = match old {
        Ok(old) => old,
        Err(problem) => return vec![format!("not seen, may be by another route: {problem}")],
    };
    let told = |Old { worker, route: found, .. }: &Old| match found {
        Ok(Some(found)) if found.as_ref() != route => {
            let found = found.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            Some(format!("{}: {found}", worker.pid))
        }
        Ok(_) => None,
        Err(problem) => Some(format!("{}: not told, {}", worker.pid, problem.message)),
    };
    let mut stale: Vec<String> = old.iter().filter_map(told).collect();
    if let Ok(Some(left)) = balancer.workers.unseen_old_process().await {
        stale.push(format!("not seen, {} s left: may be by another route", left.as_secs().max(1)));
    }
    stale
}

async fn balancer_facts(balancer: &Balancer) -> Result<v1::BalancerFacts, Problem> {
    guard::refresh(balancer).await;
    let balancer = &Balancer { workers: balancer.workers.for_looks(), ..balancer.clone() };
    let workers = &balancer.workers;
    let route = workers.route().await?;
    let rows = workers.stat().await?;
    let old = old_workers(balancer).await;
    let stale_workers = stale_workers(balancer, route.as_ref(), &old).await;
    // One that does not answer is named there, and serves requests that nobody can count.
    let mut all_rows = rows.clone();
    let mut heard = Vec::new();
    for one in old.unwrap_or_default() {
        if let Ok(Some(rows)) = one.rows {
            all_rows.extend(rows);
            heard.push(one.worker);
        }
    }
    let granted = || balancer.config.haproxy.backends.iter().map(|granted| &granted.0);
    let known = match granted().any(|backend| sessions(&all_rows, backend) > 0) {
        true => within(workers.running(&heard)).await.unwrap_or_default(),
        false => Vec::new(),
    };
    let mut backends = Vec::new();
    for granted in granted() {
        let counted = health(&rows, granted);
        let own = rows.iter().find(|row| row.backend == granted.as_str() && row.server == "BACKEND");
        backends.push(v1::BackendFacts {
            name: granted.to_string(),
            servers_up: counted.up,
            servers_total: counted.total,
            sessions: sessions(&all_rows, granted),
            running: running(&known, &all_rows, granted),
            requests_total: own.map_or(0, |row| row.requests_total),
            responses_5xx: own.map_or(0, |row| row.responses_5xx),
            // Which slot that is only the coordinator knows.
            slot: String::new(),
        });
    }
    let signals = balancer.signals.as_ref().map(|signals| signals.facts());
    let (signals_listen, signals_connections, signals_problem) = signals.unwrap_or_default();
    let (drift, drift_since_ms) = balancer.events.drift().unwrap_or_default();
    Ok(v1::BalancerFacts {
        events: balancer.events.all(),
        drift,
        drift_since_ms,
        signals_listen,
        signals_connections,
        signals_problem: signals_problem.as_ref().map(convert::problem_to_wire),
        route: route.map(|route| route.to_string()).unwrap_or_default(),
        route_on_disk: balancer.file.read().map(|route| route.to_string()).unwrap_or_default(),
        unkept: balancer.file.unkept().unwrap_or_default(),
        stale_workers,
        backends,
        haproxy_version: workers.info().await?.version,
        highest_epoch: balancer.file.highest_epoch().0,
        certificates: certificates::facts(balancer).await,
    })
}
