//! When a load balancer's agent lets a route follow another. Pure: the agent looks and acts, the simulated one too.

use crate::{BackendName, Code, Problem, Route, RouteEpoch};

/// What an agent knows of its routes.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The route that stands for new connections.
    pub standing: &'a Route,
    /// The route on disk, which a reload would bring.
    pub on_disk: Option<&'a Route>,
    /// The highest epoch that was ever on disk.
    pub highest: RouteEpoch,
    /// The route that was given that epoch and then taken back.
    pub given_away: Option<&'a Route>,
}

/// Permits `wanted` where only the routes `expected` may stand: anything else is drift. A route epoch is given away
/// once, but the same route may come again with it.
pub fn permit(known: &Known<'_>, expected: &[Route], wanted: &Route) -> Result<(), Problem> {
    let standing = known.standing;
    if standing != wanted && !expected.contains(standing) {
        let allowed: Vec<String> = expected.iter().map(ToString::to_string).collect();
        return Err(Problem::new(
            Code::RouteDrift,
            format!("the route is `{standing}`, expected `{}`", allowed.join("` or `")),
        )
        .cause("somebody or something else has changed it")
        .hint("see it: `pointsman traffic show ENV`"));
    }
    let taken_back = wanted.epoch == known.highest && known.given_away == Some(wanted);
    let resumed = taken_back || known.on_disk == Some(wanted) || standing == wanted;
    if wanted.epoch > known.highest || resumed {
        return Ok(());
    }
    let message = format!("route epoch {} is not above {}", wanted.epoch, known.highest);
    Err(Problem::new(Code::RouteEpochOld, message)
        .hint("make a new plan: it counts on from the highest epoch"))
}

/// The backends whose share grows: each must have healthy servers enough.
pub fn growing<'a>(standing: &Route, wanted: &'a Route) -> impl Iterator<Item = &'a BackendName> {
    let standing = standing.clone();
    [&wanted.stable, &wanted.canary]
        .into_iter()
        .filter(move |backend| wanted.share_of(backend) > standing.share_of(backend))
}
