//! When a load balancer's agent lets a route follow another. Pure: the agent looks and acts, the simulated one too.

use crate::{BackendName, Code, Epoch, Order, OrderKey, Problem, ReleaseId, Route, RouteEpoch};

/// How long an agent holds what it made ready for an order, in milliseconds. The coordinator takes it as soon as all agents
/// are ready, so this is several times what that takes, and less than a person needs to see that nothing moves.
pub const LEASE_MS: u64 = 10_000;

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

/// For which order an agent holds itself ready. Until it is taken, given up or [`LEASE_MS`] old, nothing that the agent
/// does by itself moves the route, and nobody else's order takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    release: ReleaseId,
    key: OrderKey,
    attempt: u32,
    epoch: Epoch,
}

impl Lease {
    /// The lease that an order asks for, and may take.
    pub fn of(order: &Order) -> Self {
        let Order { release, key, attempt, epoch, .. } = order;
        Self { release: release.clone(), key: key.clone(), attempt: *attempt, epoch: *epoch }
    }

    /// Permits `order` to take what was made ready `age_ms` ago, while `before` stood and now `standing` does.
    pub fn permit(
        &self,
        order: &Order,
        age_ms: u64,
        before: &Route,
        standing: Option<&Route>,
    ) -> Result<(), Problem> {
        if *self != Self::of(order) {
            let Self { release, key, attempt, .. } = self;
            return Err(lapsed(format!(
                "it is held ready for step `{}` of release `{release}`, try {attempt}",
                key.step
            )));
        }
        if age_ms >= LEASE_MS {
            return Err(lapsed(format!("it was made ready {age_ms} ms ago and held for {LEASE_MS}")));
        }
        if standing != Some(before) {
            let found = standing.map_or_else(|| "none".to_owned(), |route| format!("`{route}`"));
            return Err(lapsed(format!("the route was `{before}` then, and is {found}")));
        }
        Ok(())
    }
}

/// What an order to take what was made ready is refused with, where that does not hold. Nothing was done.
pub fn lapsed(why: impl AsRef<str>) -> Problem {
    Problem::new(Code::LeaseLapsed, "what was made ready for this move does not hold any more")
        .retry_useful()
        .cause(why)
        .hint("it is made ready anew and tried again; if that goes on: `pointsman doctor ENV`")
}

/// The backends whose share grows: each must have healthy servers enough.
pub fn growing<'a>(standing: &Route, wanted: &'a Route) -> impl Iterator<Item = &'a BackendName> {
    let standing = standing.clone();
    [&wanted.stable, &wanted.canary]
        .into_iter()
        .filter(move |backend| wanted.share_of(backend) > standing.share_of(backend))
}

/// The route that is to stand on disk and in HAProxy when an agent starts and finds a newer one on disk than HAProxy has:
/// none where it does not. A route that was confirmed stands, whatever a reload has brought back since. One that never was
/// is of a move that a crash cut short, and what stood before it is the route confirmed last, unless HAProxy's is newer.
pub fn at_start<'a>(
    standing: &'a Route,
    on_disk: &'a Route,
    confirmed: Option<&'a Route>,
) -> Option<&'a Route> {
    if standing.epoch >= on_disk.epoch {
        return None;
    }
    let before = confirmed.filter(|known| *known == on_disk || known.epoch < on_disk.epoch);
    Some(before.filter(|known| known.epoch > standing.epoch).unwrap_or(standing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_leads_to_the_route_that_was_confirmed_last() {
        let of = |epoch: u64| Route::parse(&format!("be_blue:be_green:0:{epoch}")).unwrap();
        for (standing, on_disk, confirmed, wanted) in [
            // As it should be, or moved on by somebody else.
            (5, 5, Some(5), None),
            (6, 5, Some(5), None),
            // A reload brought an older one back.
            (4, 5, Some(5), Some(5)),
            // A crash cut a move short before it moved anybody.
            (4, 5, Some(4), Some(4)),
            (4, 5, Some(3), Some(4)),
            (4, 5, None, Some(4)),
            // Both: what the reload brought back is not what stood before the move.
            (3, 5, Some(4), Some(4)),
            // What was confirmed is no part of this.
            (3, 5, Some(6), Some(3)),
        ] {
            let confirmed = confirmed.map(of);
            assert_eq!(
                at_start(&of(standing), &of(on_disk), confirmed.as_ref()),
                wanted.map(of).as_ref(),
                "{standing} stands, {on_disk} on disk, {confirmed:?} confirmed"
            );
        }
    }
}
