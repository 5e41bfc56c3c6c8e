//! Making the checks of a slot now, because somebody wants to know: no release, no order, no entry in the journal.

use futures_util::future::join_all;
use pointsman_core::ports::Fleet as _;
use pointsman_core::{
    Action, Check, CheckFrom, CheckName, CheckSeen, CheckVerdict, Code, HostName, Problem, ReleaseId, Route,
    SlotName, SlotPlan,
};
use pointsman_proto::{LONGEST_CHECKS, convert, v1};

use crate::noted;
use crate::office::Office;

/// Time for the way there and back beside what the checks may take, in milliseconds.
const WAY_MS: u64 = 2_000;

/// Makes the checks of a slot, or one of them.
pub async fn make(
    office: &Office,
    slot: Option<&SlotName>,
    name: Option<&CheckName>,
) -> Result<v1::MakeChecksReply, Problem> {
    let slot = slot_of(office, slot)?;
    let checks = &office.environment().checks;
    let wanted = match name {
        Some(name) => chosen(checks, name)?,
        None => checks.clone(),
    };
    Ok(make_of(office, &slot, &wanted).await)
}

/// Makes these checks of a slot.
pub async fn make_of(office: &Office, slot: &SlotPlan, checks: &[Check]) -> v1::MakeChecksReply {
    let release = release_on(office, slot);
    let checks: Vec<Check> = checks
        .iter()
        .map(|check| pointsman_checks::anew(&pointsman_checks::bind(check, release.as_ref(), &slot.name)))
        .collect();
    let from = |from| checks.iter().filter(|check| check.from == from).cloned().collect::<Vec<_>>();
    let (local, through) = (from(CheckFrom::Hosts), from(CheckFrom::Balancers));
    let routes = if through.is_empty() { Vec::new() } else { routes(office).await };
    let mut asked: Vec<(HostName, Result<Action, Problem>, &[Check])> = Vec::new();
    for (host, route) in routes {
        let action = route.map(|route| Action::ProbeBalancer {
            checks: through.clone(),
            backend: slot.backend.clone(),
            epoch: route.epoch,
            min_up: 0,
            patience_ms: 0,
        });
        asked.push((host, action, &through));
    }
    for host in slot.hosts.iter().filter(|_| !local.is_empty()) {
        asked.push((host.clone(), Ok(Action::ProbeHost { checks: local.clone(), artifact: None }), &local));
    }
    let answers = join_all(asked.into_iter().map(|(host, action, checks)| async move {
        let bound: u64 = checks.iter().map(|check| check.bound_ms.max(check.timeout_ms)).sum();
        let longest_ms = u64::try_from(LONGEST_CHECKS.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = bound.saturating_add(WAY_MS).min(longest_ms);
        let mut answer = match action {
            Ok(action) => office.fleet().observe(&host, &action, timeout_ms).await,
            Err(problem) => Err(problem),
        };
        let seen = noted::taken(&mut answer);
        (answer.err().map(|problem| problem.on(&host)), seen, host)
    }))
    .await;
    let mut reply = v1::MakeChecksReply {
        slot: slot.name.to_string(),
        release: release.map(|release| release.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    for (problem, seen, host) in answers {
        if let Some(problem) = problem.filter(|_| !says_itself(&seen)) {
            reply.silent.push(convert::problem_to_wire(&problem));
        }
        let made = |seen| v1::CheckMade { host: host.to_string(), seen: Some(seen) };
        reply.checks.extend(convert::seen_to_wire(&seen).into_iter().map(made));
    }
    reply
}

/// Whether what was seen says that something is wrong. What made no check has another reason, and where many were made the
/// one that failed may not have come through.
fn says_itself(seen: &[CheckSeen]) -> bool {
    seen.iter().any(|seen| seen.verdict != CheckVerdict::Passed)
}

/// The slot that was named, or the one that serves.
fn slot_of(office: &Office, named: Option<&SlotName>) -> Result<SlotPlan, Problem> {
    let environment = office.environment();
    let live = office.standing().live.map(|live| live.slot);
    let name = named.cloned().or(live).ok_or_else(|| {
        Problem::new(Code::UsageWrong, "no slot serves yet, so one must be named")
            .hint("name one: `pointsman check ENV --slot SLOT`")
    })?;
    environment.slots.get(&name).cloned().ok_or_else(|| {
        let known: Vec<&str> = environment.slots.keys().map(SlotName::as_str).collect();
        Problem::new(Code::UsageWrong, format!("there is no slot `{name}`; there are: {}", known.join(", ")))
            .hint("name one of them: `pointsman check ENV --slot SLOT`")
    })
}

/// The release that is on a slot, as far as the journal knows.
fn release_on(office: &Office, slot: &SlotPlan) -> Option<ReleaseId> {
    let standing = office.standing();
    let on = [standing.live, standing.previous].into_iter().flatten().find(|live| live.slot == slot.name);
    let moved = office.running().filter(|kept| kept.state.plan.to.name == slot.name);
    // While a release fills the slot, nobody can say which answers.
    if moved.is_some() { None } else { on.and_then(|live| live.release) }
}

/// One check with those that it comes after, in their order.
pub fn chosen(checks: &[Check], name: &CheckName) -> Result<Vec<Check>, Problem> {
    let (mut wanted, mut next) = (Vec::new(), Some(name.clone()));
    while let Some(name) = next.take() {
        let found = checks.iter().find(|check| check.name == name);
        let Some(check) = found else {
            let known: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
            let message = format!("there is no check `{name}`; there are: {}", known.join(", "));
            return Err(
                Problem::new(Code::UsageWrong, message).hint("name one: `pointsman check ENV --name NAME`")
            );
        };
        next = pointsman_checks::after_of(check).ok().flatten();
        wanted.push(check.clone());
    }
    wanted.reverse();
    Ok(wanted)
}

/// The route of every load balancer, or why it is not known.
async fn routes(office: &Office) -> Vec<(HostName, Result<Route, Problem>)> {
    let balancers = &office.environment().balancers;
    let route = |host: &HostName, status: v1::AgentStatus| {
        if let Some(problem) = status.problem.and_then(convert::problem_from_wire) {
            return Err(problem.on(host));
        }
        let facts = status.balancer.unwrap_or_default();
        Route::parse(&facts.route)
            .map_err(|error| Problem::new(Code::RouteDrift, "no valid route stands").on(host).because(&error))
    };
    let look = office.look().await;
    let known = |host: &HostName| look.iter().find(|status| status.host == host.as_str()).cloned();
    balancers.iter().map(|host| (host.clone(), route(host, known(host).unwrap_or_default()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_unless_a_check_tells_it() {
        let of = |verdicts: &[CheckVerdict]| -> Vec<CheckSeen> {
            let seen = |verdict: &CheckVerdict| CheckSeen::new("api".parse().unwrap(), *verdict, 1, "seen");
            verdicts.iter().map(seen).collect()
        };
        assert!(!says_itself(&[]));
        assert!(!says_itself(&of(&[CheckVerdict::Passed, CheckVerdict::Passed])));
        assert!(says_itself(&of(&[CheckVerdict::Passed, CheckVerdict::Failed])));
        assert!(says_itself(&of(&[CheckVerdict::NotMade])));
    }
}
