//! What visitors get, in a few words: the first line of `status`. It is taken from the journal as long as that can be believed,
//! and else from the routes that were read back: the two differ exactly when the line matters most.

use pointsman_core::Route;
use pointsman_proto::v1;

use super::look::{drifted, live, split_of};
use super::or;

/// The first thing that must be true.
pub fn headline(status: &v1::StatusReply) -> String {
    let nobody = nobody_served(status);
    if status.trouble.is_some() || differs(status) || stands_still(status) || !nobody.is_empty() {
        let journal = match by_journal(status) {
            Some(journal) => format!("by the journal {journal}"),
            None => "the journal knows of no release".to_owned(),
        };
        return format!("{}{nobody}; {journal}", read_back(status));
    }
    by_journal(status).map_or_else(|| "nothing was released yet".to_owned(), |journal| begun(&journal))
}

/// Without the word that has it follow another sentence.
fn begun(journal: &str) -> String {
    journal.strip_prefix("it ").unwrap_or(journal).to_owned()
}

/// Traffic is not where the journal says. In the middle of a release it is not to be there.
fn differs(status: &v1::StatusReply) -> bool {
    let open = status.release.as_ref().is_some_and(|release| release.outcome.is_empty());
    let by_hand =
        |agent: &v1::AgentStatus| agent.balancer.as_ref().is_some_and(|found| !found.drift.is_empty());
    if open { status.agents.iter().any(by_hand) } else { drifted(status) }
}

/// Held on its way back: who is back, and who is not, only the routes tell.
fn stands_still(status: &v1::StatusReply) -> bool {
    let stands = |release: &v1::Release| {
        release.outcome.is_empty()
            && release.held.is_some()
            && release.turned_back.is_some()
            && release.visitors_moved
    };
    status.release.as_ref().is_some_and(stands)
}

/// Where visitors are by each load balancer: those that lead them alike are named together.
fn read_back(status: &v1::StatusReply) -> String {
    let mut places: Vec<(String, Vec<&str>)> = Vec::new();
    let mut unread: Vec<&str> = Vec::new();
    for agent in status.agents.iter().filter(|agent| agent.role == "lb-agent") {
        let Some(place) = place(agent) else {
            unread.push(&agent.host);
            continue;
        };
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, hosts)) => hosts.push(&agent.host),
            None => places.push((place, vec![&agent.host])),
        }
    }
    let told: Vec<String> =
        places.iter().map(|(place, hosts)| format!("{place} by {}", hosts.join(" and "))).collect();
    match (told.is_empty(), unread.is_empty()) {
        (true, _) => "where visitors are is not known: no load balancer could be read".to_owned(),
        (false, true) => format!("visitors are {}", told.join(", ")),
        (false, false) => format!("visitors are {}, unknown by {}", told.join(", "), unread.join(" and ")),
    }
}

/// Where one load balancer leads its visitors; none where it could not be read.
fn place(agent: &v1::AgentStatus) -> Option<String> {
    let found = agent.balancer.as_ref().filter(|_| agent.problem.is_none())?;
    let route = Route::parse(&found.route).ok()?;
    let (stable, canary) = (slot(found, route.stable.as_str()), slot(found, route.canary.as_str()));
    Some(match route.percent {
        0 => format!("on {stable}"),
        percent if stable == canary || percent == 100 => format!("on {canary}"),
        percent => format!("on {stable}, {percent} % of them on {canary},"),
    })
}

/// The slot behind a backend; a backend of no slot, or of an agent that does not say, by its own name.
fn slot(found: &v1::BalancerFacts, backend: &str) -> String {
    let slot = found.backends.iter().find(|known| known.name == backend).map_or("", |known| &known.slot);
    or(slot, backend).to_owned()
}

/// Slots that visitors are led to and no server of which is up.
fn nobody_served(status: &v1::StatusReply) -> String {
    let mut told = String::new();
    for agent in status.agents.iter().filter(|agent| agent.problem.is_none()) {
        let Some(found) = &agent.balancer else { continue };
        for backend in &found.backends {
            let empty = backend.servers_up == 0 && backend.servers_total > 0;
            if empty && super::look::share_of(&found.route, &backend.name) > 0 {
                let slot = or(&backend.slot, &backend.name);
                told.push_str(&format!(
                    "; ✖ {slot} serves nobody by {}: 0 of {} servers up",
                    agent.host, backend.servers_total
                ));
            }
        }
    }
    told
}

/// A share of the visitors that nobody watches, and what ends that.
fn unaccounted(status: &v1::StatusReply) -> String {
    status.unaccounted.as_ref().map_or_else(String::new, |share| {
        format!(
            "; ✖ {} % of the visitors are on {}, which no release accounts for; type `pointsman rollback {}`",
            share.percent, share.slot, status.environment
        )
    })
}

/// Whether nobody sees how its visitors fare: where a check holds it somebody does.
fn unseen(release: &v1::Release) -> bool {
    release.blind.as_ref().is_some_and(|blind| !super::lines::holds(blind))
}

/// The same by the journal; none where that knows of nothing.
fn by_journal(status: &v1::StatusReply) -> Option<String> {
    let before = live(status.live.as_ref());
    if status.maintenance.as_ref().is_some_and(|page| page.on) {
        return Some(format!("it shows the maintenance page, {before} behind it"));
    }
    let moving =
        status.release.as_ref().filter(|release| release.outcome.is_empty() && release.visitors_moved);
    let Some((release, plan)) = moving.and_then(|release| Some((release, release.plan.as_ref()?))) else {
        return status.live.as_ref().map(|_| format!("it serves {before}{}", unaccounted(status)));
    };
    Some(match release.step.as_str() {
        canary if canary.starts_with("canary") && release.watch_until_ms > 0 => {
            let share = split_of(plan, canary);
            let blind = if unseen(release) { ", and nobody sees how they fare" } else { "" };
            format!(
                "it serves {before}; {share} % of the visitors are on {} ({}){blind}",
                plan.to_slot, plan.release
            )
        }
        "watch" => {
            let unwatched = status.trouble.is_some() || unseen(release);
            let watched = if unwatched { "not being watched" } else { "being watched" };
            format!("it serves {} on {}, {watched}; before it {before}", plan.release, plan.to_slot)
        }
        step if super::gathers(plan) => {
            let still = release.held.is_some() || status.trouble.is_some();
            let leads = if still { "stands still while it leads" } else { "is leading" };
            format!("it {leads} every visitor back to {} ({step})", plan.to_slot)
        }
        step => {
            let from = or(&plan.from_slot, "the maintenance page");
            let still = release.held.is_some() || status.trouble.is_some();
            let moves = if still { "stands still with" } else { "is moving" };
            format!("it {moves} visitors between {from} and {} ({step})", plan.to_slot)
        }
    })
}
