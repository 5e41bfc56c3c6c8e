//! Waiting until nobody is served by a backend any more, on any worker, and cutting what outlives its time.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_chassis::agent_service::Rule;
use pointsman_core::{Aftermath, BackendName, Code, DrainEnd, Evidence, Problem, several};
use pointsman_proto::v1;
use tokio::time::Instant;

use crate::balancer::Balancer;
use crate::reply::StatRow;

/// How often the sessions are counted while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long cut sessions may take to be gone.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// Servers and backends of the current worker and of the old ones.
pub async fn rows_of_all(balancer: &Balancer) -> Result<Vec<StatRow>, Problem> {
    let mut rows = balancer.workers.stat().await?;
    for worker in balancer.workers.old().await? {
        rows.extend(worker.stat().await?.unwrap_or_default());
    }
    Ok(rows)
}

/// Requests that a backend serves now.
pub fn sessions(rows: &[StatRow], backend: &BackendName) -> u64 {
    on_servers(rows, backend).map(|row| row.sessions).sum()
}

fn on_servers<'a>(rows: &'a [StatRow], backend: &'a BackendName) -> impl Iterator<Item = &'a StatRow> {
    rows.iter().filter(|row| row.backend == backend.as_str() && row.server != "BACKEND")
}

async fn wait_empty(balancer: &Balancer, backend: &BackendName, until: Instant) -> Result<u64, Problem> {
    let unchanged = |problem: Problem| problem.aftermath(Aftermath::Unchanged);
    loop {
        let rows = rows_of_all(balancer).await.map_err(unchanged)?;
        let left = sessions(&rows, backend);
        // What cannot be seen is not empty: a process of before a reload may serve the slot.
        let unseen = balancer.workers.unseen_old_process().await.map_err(unchanged)?;
        match unseen {
            Some(more) if left == 0 && Instant::now() >= until => return Err(unseen_problem(backend, more)),
            _ => {}
        }
        if (left == 0 && unseen.is_none()) || Instant::now() >= until {
            return Ok(left);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The servers of a backend with requests running, and for how long the oldest of them has. Which servers serve is told
/// by the counters; how long, by the list of sessions, which a busy HAProxy may be too long to give.
pub async fn running(
    balancer: &Balancer,
    rows: &[StatRow],
    backend: &BackendName,
) -> Vec<v1::ServerSessions> {
    let mut servers: BTreeMap<&str, u64> = BTreeMap::new();
    for row in on_servers(rows, backend).filter(|row| row.sessions > 0) {
        let sum = servers.entry(&row.server).or_default();
        *sum = sum.saturating_add(row.sessions);
    }
    if servers.is_empty() {
        return Vec::new();
    }
    let sessions = balancer.workers.running().await.unwrap_or_default();
    let oldest_of = |server: &str| {
        let here = sessions.iter().filter(|session| {
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
    let Ok(rows) = rows_of_all(balancer).await else { return String::new() };
    let words = |found: &v1::ServerSessions| {
        // Less than a second, or not known because the list of sessions was too long to read.
        let age = match found.oldest_s {
            0 => String::new(),
            oldest => format!(", the oldest for {oldest} s"),
        };
        format!("{} on {}{age}", found.sessions, found.server)
    };
    let found: Vec<String> = running(balancer, &rows, backend).await.iter().map(words).collect();
    if found.is_empty() { String::new() } else { format!(": {}", found.join("; ")) }
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
    let started = Instant::now();
    let left = wait_empty(balancer, backend, started + timeout).await?;
    if left == 0 {
        let waited_ms = started.elapsed().as_millis();
        return Ok(Evidence {
            already: waited_ms < 100,
            detail: format!("`{backend}` serves nobody, after {waited_ms} ms"),
            ..Evidence::default()
        });
    }
    if end == DrainEnd::Leave {
        let detail = format!(
            "{} left running on `{backend}`{}",
            several(left, "request", "requests"),
            by_server(balancer, backend).await
        );
        return Ok(Evidence { already: false, detail, ..Evidence::default() });
    }
    let cut = by_server(balancer, backend).await;
    // The wait was long: another coordinator may want these requests to go on.
    rule.check()?;
    let rows = balancer.workers.stat().await?;
    for server in on_servers(&rows, backend) {
        balancer.workers.cut(backend.as_str(), &server.server).await?;
    }
    match wait_empty(balancer, backend, Instant::now() + AFTER_CUT).await? {
        0 => Ok(Evidence {
            already: false,
            detail: format!(
                "{} on `{backend}` cut after {} s{cut}",
                several(left, "request", "requests"),
                timeout.as_secs()
            ),
            ..Evidence::default()
        }),
        still => Err(Problem::new(
            Code::DrainIncomplete,
            format!("{still} requests on `{backend}` are still running after they were cut"),
        )
        .aftermath(Aftermath::Changed)
        .retry_useful()
        .hint(format!("see them: {}", balancer.config.haproxy.socket.0.by_hand("show sess")))),
    }
}
