//! Checks through the load balancer, pinned to one backend by the side of the route it is on.

use std::time::Duration;

use pointsman_chassis::http_check::{self, Answer, Target};
use pointsman_core::{BackendName, Check, Code, Evidence, Problem, Route, RouteEpoch};
use tokio::time::Instant;

use crate::balancer::{Balancer, health};

/// How often the servers are looked at while they become healthy.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// By which side of the route trusted clients reach a backend.
fn side_of(route: &Route, backend: &BackendName) -> Result<&'static str, Problem> {
    if route.stable == *backend {
        return Ok("stable");
    }
    if route.canary == *backend {
        return Ok("canary");
    }
    Err(Problem::new(Code::RouteDrift, format!("route `{route}` leads nobody to `{backend}`"))
        .hint("see the route: `pointsman traffic show ENV`"))
}

/// Waits until enough servers are healthy, then makes every check and looks at who answered.
pub async fn probe(
    balancer: &Balancer,
    checks: &[Check],
    backend: &BackendName,
    epoch: RouteEpoch,
    min_up: u32,
    patience: Duration,
) -> Result<Evidence, Problem> {
    balancer.granted(backend)?;
    let give_up = Instant::now() + patience;
    loop {
        let rows = balancer.workers.stat().await?;
        match balancer.healthy_enough(&rows, backend, min_up) {
            Ok(()) => break,
            Err(problem) if Instant::now() >= give_up => return Err(problem),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    let route = balancer.standing_route().await?;
    if route.epoch != epoch {
        return Err(Problem::new(
            Code::RouteDrift,
            format!("the route is `{route}`, expected epoch {epoch}"),
        )
        .cause("somebody or something else has changed it")
        .hint("see it: `pointsman traffic show ENV`"));
    }
    if !balancer.shows_epoch() {
        ask_servers(balancer, checks, backend, &route).await?;
        return passed(balancer, checks, backend).await;
    }
    let side = side_of(&route, backend)?;
    let answered_by = |answer: &Answer| {
        let (found_epoch, found_side) = (answer.mark("epoch"), answer.mark("side"));
        if found_epoch == Some(epoch.to_string().as_str()) && found_side == Some(side) {
            return Ok(());
        }
        Err(format!(
            "was answered on side `{}` of epoch {}, expected `{side}` of {epoch}",
            found_side.unwrap_or("none"),
            found_epoch.unwrap_or("none")
        ))
    };
    for check in checks {
        http_check::make(check, &balancer.frontend, Some(side), answered_by).await?;
    }
    passed(balancer, checks, backend).await
}

/// Where testers cannot be led to a backend: through the frontend if everybody goes there, else at its servers.
async fn ask_servers(
    balancer: &Balancer,
    checks: &[Check],
    backend: &BackendName,
    route: &Route,
) -> Result<(), Problem> {
    if checks.is_empty() {
        return Ok(());
    }
    let targets = if route.share_of(backend) == 100 {
        vec![balancer.frontend.clone()]
    } else {
        let addresses = balancer.workers.addresses(backend).await?;
        let host = &balancer.frontend.host;
        addresses.into_iter().map(|address| Target { address, host: host.clone(), tls: None }).collect()
    };
    for check in checks {
        for target in &targets {
            http_check::make(check, target, None, |_| Ok(())).await?;
        }
    }
    Ok(())
}

async fn passed(balancer: &Balancer, checks: &[Check], backend: &BackendName) -> Result<Evidence, Problem> {
    let health = health(&balancer.workers.stat().await?, backend);
    let detail = format!(
        "{} checks on `{backend}` passed, {} of {} servers healthy",
        checks.len(),
        health.up,
        health.total
    );
    Ok(Evidence { already: false, detail, ..Evidence::default() })
}
