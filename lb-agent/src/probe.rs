//! Checks through the load balancer, pinned to one backend by the side of the route it is on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman_chassis::http_check::Target;
use pointsman_checks::{Memory, Pin, Place};
use pointsman_core::{BackendName, Check, Code, Evidence, Problem, Route, RouteEpoch, several};
use tokio::time::Instant;

use crate::balancer::{Balancer, Needed, health};
use crate::guard;

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
    // Nothing is wrong with it: a slot is named by the route only while a release brings visitors to it, or may take them back.
    let message = format!("no check is led to `{backend}` now: the route `{route}` names other slots");
    Err(Problem::new(Code::SlotOffRoute, message)
        .hint("ask its hosts: checks with `from = \"hosts\"` are made there; a deploy leads the others to it before any visitor"))
}

/// Waits until enough servers are healthy, before visitors come all of them, then makes every check and looks at who answered.
pub async fn probe(
    balancer: &Balancer,
    checks: &[Check],
    backend: &BackendName,
    epoch: RouteEpoch,
    min_up: u32,
    patience: Duration,
    memory: Option<&Memory>,
) -> Result<Evidence, Problem> {
    balancer.granted(backend)?;
    let give_up = Instant::now() + patience;
    loop {
        let rows = balancer.workers.stat().await?;
        let healthy = match memory {
            None => balancer.healthy_enough(&rows, backend, Needed::Every { hosts: min_up }),
            Some(_) => balancer.stays_healthy(&rows, backend, min_up),
        };
        match healthy {
            Ok(()) => break,
            Err(problem) if Instant::now() >= give_up => return Err(problem),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    let route = balancer.standing_route().await?;
    let drift = |message: String| {
        Problem::new(Code::RouteDrift, message)
            .cause("somebody or something else has changed it")
            .hint("see it: `pointsman traffic show ENV`")
    };
    if route.epoch != epoch {
        return Err(drift(format!("the route is `{route}`, expected epoch {epoch}")));
    }
    // Checks are pinned to a side of the route, so they pass wherever visitors are: an epoch is easily copied.
    guard::refresh(balancer).await;
    if let Some((what, _)) = balancer.events.drift() {
        return Err(drift(what));
    }
    let places = if checks.is_empty() && !balancer.shows_epoch() {
        Vec::new()
    } else {
        places(balancer, backend, &route).await?
    };
    // All at once: there is time for the checks of one place.
    let made =
        places.iter().map(async |place| Ok((place, pointsman_checks::run(checks, place, memory).await?)));
    let made: Vec<_> = join_all(made).await.into_iter().collect::<Result<_, Problem>>()?;
    let all = pointsman_checks::judged(checks, made)?;
    let rows = balancer.workers.stat().await?;
    let health = health(&rows, backend);
    let passed = match checks.len() {
        0 => format!("no checks to make on `{backend}`"),
        made => format!("{} on `{}` passed", several(made, "check", "checks"), backend),
    };
    let mut detail = format!("{passed}, {} of {} servers healthy", health.up, health.total);
    for away in balancer.put_away(&rows, backend) {
        detail = format!("{detail}, `{}` is put away ({})", away.server, away.status);
    }
    Ok(pointsman_checks::evidence(all, detail))
}

/// Where the backend is asked: through the frontend, pinned to its side of the route. Where testers cannot be led to a
/// backend: through the frontend if everybody goes there, else at its servers.
async fn places(balancer: &Balancer, backend: &BackendName, route: &Route) -> Result<Vec<Place>, Problem> {
    let place = |server: Target, pin: Option<Pin>| {
        let grants = Arc::clone(&balancer.grants);
        let authorities = balancer.config.frontend.tls_ca.clone().filter(|_| server.tls.is_some());
        let key = format!("{backend} {} {}", route.epoch, server.address);
        Place { server, authorities, pin, grants, key }
    };
    if balancer.shows_epoch() {
        let pin = Pin { side: side_of(route, backend)?, epoch: route.epoch.to_string() };
        return Ok(vec![place(balancer.frontend.clone(), Some(pin))]);
    }
    if route.share_of(backend) == 100 {
        return Ok(vec![place(balancer.frontend.clone(), None)]);
    }
    let host = &balancer.frontend.host;
    let addresses = balancer.workers.addresses(backend).await?;
    Ok(addresses
        .into_iter()
        .map(|address| place(Target { address, host: host.clone(), tls: None, proxy_protocol: false }, None))
        .collect())
}
