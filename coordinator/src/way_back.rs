//! Whether a rollback would lead anywhere just now, by what the agents said a moment ago.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::{Code, LiveRelease, Purpose, SlotPlan, Standing, Timestamp, TurnedBack};
use pointsman_proto::v1;
use tracing::{info, warn};

use crate::office::Office;
use crate::opening::Kept;

/// How often it is looked at while visitors of a release are watched.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many looks in a row that find it closed are told: one may have met a reload.
const TOLD_AFTER: u32 = 2;

/// Looks after the way back while a release has visitors that it may have to lose again, for ever. Nothing follows but that
/// it is told: whoever has no way back should know before it is needed.
pub async fn keep_known(office: Arc<Office>) {
    let mut closed_looks: u32 = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let closed = closed_now(&office).await;
        closed_looks = if closed.is_some() { closed_looks.saturating_add(1) } else { 0 };
        let told = closed.filter(|_| closed_looks >= TOLD_AFTER).unwrap_or_default();
        if closed_looks > 0 && told.is_empty() {
            continue;
        }
        let found = told.clone();
        if office.visitors().note_way_back(told) {
            match found.as_str() {
                "" => info!(environment = %office.environment().name, "there is a way back again"),
                found => warn!(environment = %office.environment().name, found, "no way back just now"),
            }
        }
    }
}

/// Why there is no way back; nothing where there is one, or nobody may need it.
async fn closed_now(office: &Office) -> Option<String> {
    let running = office.running();
    let met = running.as_ref().is_some_and(|kept| kept.state.judged_after().is_some());
    if !met && office.watched_on().is_none() {
        return None;
    }
    let back = leads_back(&office.standing(), running.as_ref())?;
    let slot = office.environment().slots.get(&back.slot)?;
    let found = with_checks(office, way_back(&back, slot, &office.look().await));
    (!found.ready).then_some(found.found)
}

/// Where a rollback would lead. While a release moves visitors that is where they were before it.
pub fn leads_back(standing: &Standing, open: Option<&Kept>) -> Option<LiveRelease> {
    let plan = open.map(|kept| &kept.state.plan);
    let moving =
        plan.filter(|plan| matches!(plan.purpose, Purpose::Deploy { .. } | Purpose::Rollback { .. }));
    let Some(plan) = moving else { return standing.previous.clone() };
    // Nobody is to be led to what is just being turned back.
    plan.from.as_ref().filter(|_| plan.ill().is_none()).map(|from| held_by(from, standing))
}

/// What was turned back, where that is why no rollback leads anywhere, by what is said of an environment that nothing moves.
pub fn turned_back<'a>(standing: &'a Standing, open: Option<&Kept>) -> Option<&'a TurnedBack> {
    let moves = open.is_some_and(|kept| !matches!(kept.state.plan.purpose, Purpose::Database(_)));
    standing.turned_back.as_ref().filter(|_| !moves && standing.previous.is_none())
}

/// Why no rollback leads to what was turned back.
pub fn nothing_well(TurnedBack { what, at, why }: &TurnedBack) -> String {
    let what = match &what.release {
        Some(release) => format!("`{release}`"),
        None => format!("what `{}` holds", what.slot),
    };
    format!("nothing well to go back to: {what} was turned back at {}, because {why}", date_and_time(*at))
}

fn date_and_time(at: Timestamp) -> String {
    let moment = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(String::new, |moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The same as what is known of the way back. What its servers are like says nothing of that: it is there, and not well.
pub fn closed_by(turned: &TurnedBack) -> v1::WayBack {
    v1::WayBack {
        ready: false,
        found: nothing_well(turned),
        slot: turned.what.slot.to_string(),
        release: turned.what.release.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What the slot holds that visitors are being moved from.
fn held_by(from: &SlotPlan, standing: &Standing) -> LiveRelease {
    let live = standing.live.clone().filter(|live| live.slot == from.name);
    // What was there before pointsman has no name.
    live.unwrap_or_else(|| LiveRelease { slot: from.name.clone(), release: None, artifact: None })
}

/// What is known of the slot that was live before.
pub fn way_back(previous: &LiveRelease, slot: &SlotPlan, agents: &[v1::AgentStatus]) -> v1::WayBack {
    let (mut closed, mut unknown, mut up) = (Vec::new(), Vec::new(), Vec::new());
    for agent in agents {
        let ours = slot.hosts.iter().any(|host| host.as_str() == agent.host);
        match (&agent.web, &agent.balancer) {
            (Some(web), _) if ours => {
                let wanted = previous.artifact.map(|artifact| artifact.to_string());
                if previous.artifact.is_none() && web.current.is_empty() {
                    closed.push(format!("{} has never served anything", agent.host));
                }
                if wanted.is_some_and(|wanted| wanted != web.current) {
                    closed.push(format!("{} does not hold its artifact any more", agent.host));
                }
            }
            (_, Some(balancer)) => {
                let found = balancer.backends.iter().find(|found| found.name == slot.backend.as_str());
                match found {
                    Some(found) if found.servers_up == 0 => {
                        closed
                            .push(format!("{} sees none of its {} servers", agent.host, found.servers_total));
                    }
                    Some(found) => up.push(format!("{} of {} up", found.servers_up, found.servers_total)),
                    None => closed.push(format!("{} has no backend `{}`", agent.host, slot.backend)),
                }
            }
            // A host that cannot be asked does not block the way back; a load balancer that cannot be asked does.
            _ if agent.problem.is_some() && agent.role == "lb-agent" => {
                closed.push(format!("{} cannot be asked", agent.host));
            }
            _ if ours && previous.artifact.is_some() && is_unfit(agent) => {
                closed.push(format!("what {} holds is no artifact", agent.host));
            }
            _ if agent.problem.is_some() && ours => unknown.push(format!("{} cannot be asked", agent.host)),
            _ => {}
        }
    }
    let ready = closed.is_empty();
    let said = if ready { up.into_iter().chain(unknown).collect() } else { closed };
    v1::WayBack {
        ready,
        found: said.join(", "),
        slot: slot.name.to_string(),
        release: previous.release.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The same with what the slot's own checks say, while they are made there: a server that answers may still answer wrongly.
pub fn with_checks(office: &Office, found: v1::WayBack) -> v1::WayBack {
    let running = office.running().map(|kept| kept.state.plan.release.clone());
    let watched = running.or_else(|| office.watched_on().map(|(state, _)| state.plan.release.clone()));
    joined(found, watched.and_then(|release| office.old_side().seen(&release)))
}

fn joined(found: v1::WayBack, checks: Option<Result<String, String>>) -> v1::WayBack {
    let (ready, said) = match (found.ready, checks) {
        (true, Some(Err(fails))) => (false, fails),
        (ready, Some(Err(said))) | (ready @ true, Some(Ok(said))) => {
            let known = Some(found.found.clone()).filter(|known| !known.is_empty());
            (ready, known.into_iter().chain([said]).collect::<Vec<_>>().join(", "))
        }
        (ready, _) => (ready, found.found.clone()),
    };
    v1::WayBack { ready, found: said, ..found }
}

fn is_unfit(agent: &v1::AgentStatus) -> bool {
    agent.problem.as_ref().is_some_and(|problem| problem.code == Code::SiteRootUnfit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::ArtifactDigest;

    fn web(host: &str, digest: u8) -> v1::AgentStatus {
        let current = ArtifactDigest::from_bytes([digest; 32]).to_string();
        let web = Some(v1::WebFacts { current, ..Default::default() });
        v1::AgentStatus { host: host.to_owned(), role: "web-agent".to_owned(), web, ..Default::default() }
    }

    fn balancer(backend: &str, servers_up: u32) -> v1::AgentStatus {
        let facts =
            v1::BackendFacts { name: backend.to_owned(), servers_up, servers_total: 2, ..Default::default() };
        let balancer = Some(v1::BalancerFacts { backends: vec![facts], ..Default::default() });
        v1::AgentStatus {
            host: "lb1".to_owned(),
            role: "lb-agent".to_owned(),
            balancer,
            ..Default::default()
        }
    }

    fn silent(host: &str, role: &str) -> v1::AgentStatus {
        let problem = Some(v1::Problem::default());
        v1::AgentStatus { host: host.to_owned(), role: role.to_owned(), problem, ..Default::default() }
    }

    #[test]
    fn the_way_back_is_open_where_a_rollback_would_go() {
        let slot = SlotPlan {
            name: "blue".parse().unwrap(),
            backend: "be_blue".parse().unwrap(),
            hosts: vec!["b1".parse().unwrap()],
        };
        let previous = LiveRelease {
            slot: slot.name.clone(),
            release: None,
            artifact: Some(ArtifactDigest::from_bytes([1; 32])),
        };
        let look = |agents: &[v1::AgentStatus]| {
            let found = way_back(&previous, &slot, agents);
            (found.ready, found.found)
        };
        let said = |ready, text: &str| (ready, text.to_owned());
        assert_eq!(look(&[web("b1", 1), web("g1", 2), balancer("be_blue", 1)]), said(true, "1 of 2 up"));
        let held = "b1 does not hold its artifact any more";
        assert_eq!(look(&[web("b1", 2), balancer("be_blue", 2)]), said(false, held));
        assert_eq!(
            look(&[web("b1", 1), balancer("be_blue", 0)]),
            said(false, "lb1 sees none of its 2 servers")
        );
        assert_eq!(look(&[web("b1", 1), balancer("x", 1)]), said(false, "lb1 has no backend `be_blue`"));
        let quiet = [silent("b1", "web-agent"), balancer("be_blue", 2)];
        assert_eq!(look(&quiet), said(true, "2 of 2 up, b1 cannot be asked"));
        let mut other = silent("b1", "web-agent");
        other.problem =
            Some(v1::Problem { code: Code::SiteRootUnfit.as_str().to_owned(), ..Default::default() });
        assert_eq!(look(&[other, balancer("be_blue", 2)]), said(false, "what b1 holds is no artifact"));
        assert_eq!(look(&[web("b1", 1), silent("lb1", "lb-agent")]), said(false, "lb1 cannot be asked"));
    }

    #[test]
    fn servers_that_are_up_are_no_way_back_where_checks_fail() {
        let look = |ready, checks| {
            let found = joined(v1::WayBack { ready, found: "seen".to_owned(), ..Default::default() }, checks);
            (found.ready, found.found)
        };
        let said = |ready, text: &str| (ready, text.to_owned());
        assert_eq!(look(true, None), said(true, "seen"));
        assert_eq!(look(true, Some(Ok("passed".to_owned()))), said(true, "seen, passed"));
        assert_eq!(look(true, Some(Err("fails".to_owned()))), said(false, "fails"));
        assert_eq!(look(false, Some(Err("fails".to_owned()))), said(false, "seen, fails"));
        assert_eq!(look(false, Some(Ok("passed".to_owned()))), said(false, "seen"));
    }

    #[test]
    fn while_visitors_are_moved_the_way_back_leads_to_where_they_were() {
        let slot = SlotPlan {
            name: "blue".parse().unwrap(),
            backend: "be_blue".parse().unwrap(),
            hosts: Vec::new(),
        };
        let live = |slot: &str, release: &str| LiveRelease {
            slot: slot.parse().unwrap(),
            release: Some(release.parse().unwrap()),
            artifact: None,
        };
        let standing = Standing {
            live: Some(live("blue", "r2")),
            previous: Some(live("green", "r1")),
            ..Standing::default()
        };
        assert_eq!(leads_back(&standing, None), standing.previous);
        assert_eq!(held_by(&slot, &standing), live("blue", "r2"));
        let adopted = held_by(&slot, &Standing::default());
        let turned =
            TurnedBack { what: live("green", "r1"), at: Timestamp(5), why: "errors on `green`".to_owned() };
        let well = Standing { turned_back: Some(turned.clone()), ..standing.clone() };
        assert_eq!(turned_back(&well, None), None, "there is another way back");
        let closed = Standing { previous: None, ..well };
        assert_eq!((leads_back(&closed, None), turned_back(&closed, None)), (None, Some(&turned)));
        let said = closed_by(&turned);
        assert_eq!((said.ready, said.slot.as_str(), said.release.as_str()), (false, "green", "r1"));
        let why = "`r1` was turned back at 1970-01-01T00:00:00Z, because errors on `green`";
        assert!(said.found.contains(why), "{}", said.found);

        // While everybody is led away from what is ill, that is not offered as the way back.
        let mut open = crate::fixture::plan(&crate::fixture::environment(&["lb1"], ""), "r3");
        open.purpose = Purpose::Rollback { artifact: None, to: None };
        let begun = |plan: &pointsman_core::Plan| {
            let state = pointsman_core::State::begin(plan.clone(), pointsman_core::Epoch(1), Timestamp(5));
            Kept::new(Timestamp(5), 1, state)
        };
        assert_eq!(leads_back(&standing, Some(&begun(&open))), standing.live);
        open.found_ill = Some("errors".to_owned());
        assert_eq!(leads_back(&standing, Some(&begun(&open))), None);
        assert_eq!(turned_back(&closed, Some(&begun(&open))), None);
        assert_eq!((adopted.slot.as_str(), adopted.release), ("blue", None));
    }
}
