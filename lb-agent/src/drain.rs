//! Waiting until nobody is served by a backend any more, on any worker, and cutting what outlives its time.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_chassis::agent_service::Rule;
use pointsman_core::{Aftermath, BackendName, Code, DrainEnd, Evidence, Problem, several};
use pointsman_proto::v1;
use tokio::time::Instant;

use crate::balancer::Balancer;
use crate::reply::{Session, StatRow};
use crate::socket::Endpoint;
use crate::workers::OldWorker;

/// How often the sessions are counted while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long cut sessions may take to be gone.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// How often it is cut meanwhile.
const CUT_AGAIN: Duration = Duration::from_millis(300);

/// How long nothing may begin on a backend before it is called empty: a frontend that leads there without the route sends
/// its visitors more often than this, if it sends any that matter.
const STILL: Duration = Duration::from_secs(1);

/// Requests that a backend serves now: those on its servers, and those that have none yet, because they wait for one or
/// because HAProxy still takes them in.
pub fn sessions(rows: &[StatRow], backend: &BackendName) -> u64 {
    let on_servers: u64 = on_servers(rows, backend).map(|row| row.sessions).sum();
    on_servers.max(own(rows, backend).map(|row| row.sessions).sum())
}

fn on_servers<'a>(rows: &'a [StatRow], backend: &'a BackendName) -> impl Iterator<Item = &'a StatRow> {
    rows.iter().filter(|row| row.backend == backend.as_str() && row.server != "BACKEND")
}

/// The row of the backend itself, of each worker.
fn own<'a>(rows: &'a [StatRow], backend: &'a BackendName) -> impl Iterator<Item = &'a StatRow> {
    rows.iter().filter(|row| row.backend == backend.as_str() && row.server == "BACKEND")
}

/// How a backend stands, on all workers.
struct Look {
    rows: Vec<StatRow>,
    /// Requests that began on it since the workers started.
    begun: u64,
    /// An old worker that leads there, or may.
    led_by: Option<String>,
}

async fn look(balancer: &Balancer, backend: &BackendName) -> Result<Look, Problem> {
    let workers = &balancer.workers;
    let mut rows = workers.stat().await?;
    let mut led_by = None;
    for worker in workers.old().await? {
        let Some(its) = worker.stat().await? else { continue };
        // One of before the slot was made cannot lead there, and has no route to read perhaps.
        if own(&its, backend).next().is_some() {
            led_by = leads_there(balancer, &worker, backend).await.or(led_by);
        }
        rows.extend(its);
    }
    let begun = own(&rows, backend).map(|row| row.begun).sum();
    Ok(Look { rows, begun, led_by })
}

/// Whether an old worker sends the next request of its clients to a backend, in words. It serves nobody there while they are
/// idle.
async fn leads_there(balancer: &Balancer, worker: &OldWorker, backend: &BackendName) -> Option<String> {
    let pid = worker.pid;
    match balancer.workers.old_route(worker).await {
        Ok(None) => None,
        Ok(Some(Some(route))) if route.share_of(backend) == 0 => None,
        Ok(Some(Some(route))) => Some(format!("old worker {pid} still routes by `{route}`")),
        Ok(Some(None)) => Some(format!("old worker {pid} routes by no route that can be read")),
        Err(problem) => Some(format!("the route of old worker {pid} cannot be read: {problem}")),
    }
}

/// How waiting ended.
enum Waited {
    /// Nobody is served, and nothing began for a while: since the beginning, or after this long.
    Empty { already: bool, after: Duration },
    /// So many requests still run.
    Running(u64),
    /// None runs, but they go on beginning: so many while it was waited.
    Begins(u64),
    /// Nobody is there, and an old worker still leads there: why it does.
    Led(String),
}

/// Waits until nobody is served and nothing has begun for `still`. What is quiet at `until`, but not for that long, is given
/// the time to be.
async fn wait_empty(
    balancer: &Balancer,
    backend: &BackendName,
    until: Instant,
    still: Duration,
) -> Result<Waited, Problem> {
    let unchanged = |problem: Problem| problem.aftermath(Aftermath::Unchanged);
    let (started, give_up) = (Instant::now(), until + still);
    // When it was looked at first, and what had begun by then.
    let mut first: Option<(Instant, u64)> = None;
    let mut quiet: Option<(Instant, u64)> = None;
    loop {
        let seen = look(balancer, backend).await.map_err(unchanged)?;
        let left = sessions(&seen.rows, backend);
        // What cannot be seen is not empty: a process of before a reload may serve the slot.
        let unseen = balancer.workers.unseen_old_process().await.map_err(unchanged)?;
        let now = Instant::now();
        let (looked_first, begun_first) = *first.get_or_insert((now, seen.begun));
        let empty = left == 0 && unseen.is_none() && seen.led_by.is_none();
        // A worker that comes or goes changes the sum too, and is looked at as long again.
        quiet =
            quiet.filter(|(_, begun)| empty && *begun == seen.begun).or(empty.then_some((now, seen.begun)));
        match quiet {
            Some((since, _)) if now.saturating_duration_since(since) >= still => {
                let after = since.saturating_duration_since(started);
                return Ok(Waited::Empty { already: since == looked_first, after });
            }
            Some(_) if now >= give_up => {
                return Ok(Waited::Begins(seen.begun.saturating_sub(begun_first)));
            }
            Some(_) => {}
            None if now < until => {}
            None if left > 0 => return Ok(Waited::Running(left)),
            None => {
                return match (unseen, seen.led_by) {
                    (Some(more), _) => Err(unseen_problem(backend, more)),
                    (None, why) => Ok(Waited::Led(why.unwrap_or_default())),
                };
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where requests count that have no server yet.
const NOWHERE: &str = "no server yet";

/// The servers of a backend with requests running, and for how long the oldest of them has. Which servers serve is told
/// by the counters; how long, by the list of sessions, which a busy HAProxy may be too long to give.
pub fn running(known: &[Session], rows: &[StatRow], backend: &BackendName) -> Vec<v1::ServerSessions> {
    let mut servers: BTreeMap<&str, u64> = BTreeMap::new();
    for row in on_servers(rows, backend).filter(|row| row.sessions > 0) {
        let sum = servers.entry(&row.server).or_default();
        *sum = sum.saturating_add(row.sessions);
    }
    let nowhere = sessions(rows, backend).saturating_sub(servers.values().sum());
    if nowhere > 0 {
        servers.insert(NOWHERE, nowhere);
    }
    let oldest_of = |server: &str| {
        let here = known.iter().filter(|session| {
            let named = format!("{}/{}", session.backend, session.server);
            (session.backend == backend.as_str() && session.server == server) || named == server
        });
        here.map(|session| session.age_s).max().unwrap_or(0)
    };
    servers
        .into_iter()
        .map(|(server, sessions)| v1::ServerSessions {
            server: server.to_owned(),
            sessions,
            oldest_s: oldest_of(server),
        })
        .collect()
}

/// The same in words, after a colon; empty where nothing is known.
async fn by_server(balancer: &Balancer, backend: &BackendName) -> String {
    let Ok(Look { rows, .. }) = look(balancer, backend).await else { return String::new() };
    let old = balancer.workers.old().await.unwrap_or_default();
    let known = balancer.workers.running(&old).await.unwrap_or_default();
    let words = |found: &v1::ServerSessions| {
        // Less than a second, or not known because the list of sessions was too long to read.
        let age = match found.oldest_s {
            0 => String::new(),
            oldest => format!(", the oldest for {oldest} s"),
        };
        format!("{} on {}{age}", found.sessions, found.server)
    };
    let found: Vec<String> = running(&known, &rows, backend).iter().map(words).collect();
    if found.is_empty() { String::new() } else { format!(": {}", found.join("; ")) }
}

fn begins_problem(backend: &BackendName, begun: u64) -> Problem {
    let message = format!(
        "{} began on `{backend}` while it was waited for, and the route leads nobody there",
        several(begun, "request", "requests")
    );
    Problem::new(Code::DrainIncomplete, message)
        .retry_useful()
        .cause("visitors come by a frontend or a rule that does not go by the route, or testers are at work")
        .hint("find the line: `pointsman doctor lb ENV`")
}

fn led_problem(backend: &BackendName, why: &str) -> Problem {
    Problem::new(Code::DrainIncomplete, format!("`{backend}` is empty, but {why}"))
        .retry_useful()
        .cause("the next request on a connection that it still holds may come to this slot")
        .hint("it ends with `hard-stop-after`, or with `kill PID` on the load balancer")
}

fn unseen_problem(backend: &BackendName, more: Duration) -> Problem {
    let message =
        format!("an old HAProxy process may serve `{backend}` for {} s more", more.as_secs().max(1));
    Problem::new(Code::DrainIncomplete, message)
        .retry_useful()
        .cause("HAProxy was started or reloaded, and without a master socket its old process cannot be seen")
        .hint("wait for it, or set `old_process_s` in lb-agent.toml to HAProxy's `hard-stop-after`")
}

/// Drains a backend that gets no visitors by the route. One that does is refused: it would never be empty.
pub async fn drain(
    balancer: &Balancer,
    backend: &BackendName,
    timeout: Duration,
    end: DrainEnd,
    rule: &Rule,
) -> Result<Evidence, Problem> {
    balancer.granted(backend)?;
    let route = balancer.standing_route().await.map_err(|problem| problem.aftermath(Aftermath::Unchanged))?;
    if route.share_of(backend) > 0 {
        let message =
            format!("`{backend}` gets {} % of the visitors by route `{route}`", route.share_of(backend));
        return Err(
            Problem::new(Code::DrainIncomplete, message).hint("see the route: `pointsman traffic show ENV`")
        );
    }
    // While requests are held every moment counts, and nothing is overwritten.
    let held = balancer.config.haproxy.hold_backend.as_ref().is_some_and(|hold| hold.0 == route.stable);
    let still = if held { Duration::ZERO } else { STILL };
    let waited = wait_empty(balancer, backend, Instant::now() + timeout, still).await?;
    let left = match (waited, end) {
        (Waited::Empty { already, after }, _) => {
            let quiet = if held {
                String::new()
            } else {
                format!(", and nothing began on it for {} s", still.as_secs())
            };
            let detail = format!("`{backend}` serves nobody, after {} ms{quiet}", after.as_millis());
            return Ok(Evidence { already, detail, ..Evidence::default() });
        }
        (Waited::Begins(begun), DrainEnd::Cut) => return Err(begins_problem(backend, begun)),
        (Waited::Begins(begun), DrainEnd::Leave) => {
            let begun = several(begun, "request", "requests");
            let detail = format!("{begun} began on `{backend}` while it was waited for, and are left to");
            return Ok(Evidence { already: false, detail, ..Evidence::default() });
        }
        (Waited::Led(why), DrainEnd::Cut) => return Err(led_problem(backend, &why)),
        (Waited::Led(why), DrainEnd::Leave) => {
            // It may be there for hours, with clients that ask for nothing: whoever has requests running is left to, too.
            let detail = led_problem(backend, &why).message;
            return Ok(Evidence { already: false, detail, ..Evidence::default() });
        }
        (Waited::Running(left), _) => left,
    };
    if end == DrainEnd::Leave {
        let detail = format!(
            "{} left running on `{backend}`{}",
            several(left, "request", "requests"),
            by_server(balancer, backend).await
        );
        return Ok(Evidence { already: false, detail, ..Evidence::default() });
    }
    let cut = by_server(balancer, backend).await;
    let waited = cut_all(balancer, backend, still, rule).await?;
    match waited {
        Waited::Empty { .. } => Ok(Evidence {
            already: false,
            detail: format!(
                "{} on `{backend}` cut after {} s{cut}",
                several(left, "request", "requests"),
                timeout.as_secs()
            ),
            ..Evidence::default()
        }),
        Waited::Begins(begun) => Err(begins_problem(backend, begun).aftermath(Aftermath::Changed)),
        Waited::Led(why) => Err(led_problem(backend, &why).aftermath(Aftermath::Changed)),
        Waited::Running(left) => Err(uncut_problem(balancer, backend, left).await),
    }
}

/// Cuts what is on the servers of a backend, again and again for a while: whoever waits in a queue gets the place of whom was cut.
async fn cut_all(
    balancer: &Balancer,
    backend: &BackendName,
    still: Duration,
    rule: &Rule,
) -> Result<Waited, Problem> {
    let give_up = Instant::now() + AFTER_CUT;
    loop {
        // The wait was long: another coordinator may want these requests to go on.
        rule.check()?;
        let rows = balancer.workers.stat().await?;
        for server in on_servers(&rows, backend) {
            balancer.workers.cut(backend.as_str(), &server.server).await?;
        }
        balancer.workers.cut_old(backend).await?;
        let until = give_up.min(Instant::now() + CUT_AGAIN);
        match wait_empty(balancer, backend, until, still).await? {
            empty @ Waited::Empty { .. } => return Ok(empty),
            // An old worker may end a moment after its last request was cut.
            _ if Instant::now() < give_up => {}
            waited => return Ok(waited),
        }
    }
}

/// Where what is left is seen: the list of the current worker has nothing of the old ones.
async fn served_by(balancer: &Balancer, backend: &BackendName) -> String {
    for worker in balancer.workers.old().await.unwrap_or_default() {
        let rows = worker.stat().await.ok().flatten().unwrap_or_default();
        let master = balancer.config.haproxy.master.as_ref().filter(|_| sessions(&rows, backend) > 0);
        if let Some(master) = master {
            let (pid, master) = (worker.pid, Endpoint::Unix(master.0.0.clone()));
            let see = master.by_hand(&format!("@!{pid} show sess;quit"));
            return format!(
                "old worker {pid} serves them, see them: {see}; on the load balancer `kill {pid}` ends it with all that it serves"
            );
        }
    }
    format!("see them: {}", balancer.config.haproxy.socket.0.by_hand("show sess"))
}

/// What is left after all that can be cut was. HAProxy cuts a request by its server; one that has none it would only let hang
/// (measured on 2.6: `shutdown session` keeps it, without an answer, until the client's time is up).
async fn uncut_problem(balancer: &Balancer, backend: &BackendName, left: u64) -> Problem {
    let nowhere = match look(balancer, backend).await {
        Ok(seen) => sessions(&seen.rows, backend)
            .saturating_sub(on_servers(&seen.rows, backend).map(|row| row.sessions).sum()),
        Err(_) => 0,
    };
    let problem = |message: String| {
        Problem::new(Code::DrainIncomplete, message).aftermath(Aftermath::Changed).retry_useful()
    };
    if nowhere == 0 {
        return problem(format!(
            "{} on `{backend}` after they were cut",
            several(left, "request still runs", "requests still run")
        ))
        .hint(served_by(balancer, backend).await);
    }
    problem(format!(
        "{} on `{backend}`, and HAProxy cannot cut what has no server",
        several(nowhere, "request has no server yet", "requests have no server yet")
    ))
    .cause("their bodies are still on their way (`option http-buffer-request`, `wait-for-body`), or they wait in a queue")
    .hint("HAProxy ends them by `timeout http-request`, the `time` of `wait-for-body`, or `timeout queue`: set these below the drain's time, and try again")
}
