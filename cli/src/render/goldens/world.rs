//! Environments as the coordinator shows them: what stands by the journal, and what the agents say.

use pointsman_core::{
    Found, LiveRelease, ReleaseId, SlotName, Standing, Step, Timestamp, TurnedBack, Unaccounted,
};
use pointsman_proto::{convert, v1};

use super::story::{Story, T0, artifact, old_artifact, route};

/// Blue serves 9c01d2e, green still holds 77ab012.
pub fn before() -> Standing {
    let live = |slot: &str, release: &str, byte| LiveRelease {
        slot: SlotName::parse(slot).unwrap(),
        release: Some(ReleaseId::parse(release).unwrap()),
        artifact: Some(artifact(byte)),
    };
    Standing {
        live: Some(live("blue", "9c01d2e", 0x9c)),
        previous: Some(live("green", "77ab012", 0x77)),
        route: Some(route("be_blue:be_green:0:40")),
        ..Standing::default()
    }
}

/// A journal was accepted while a tenth of the visitors was on green.
pub fn accepted() -> Standing {
    let slot = |name: &str| SlotName::parse(name).unwrap();
    let found = Found {
        slot: Some(slot("blue")),
        page: false,
        unaccounted: Some(Unaccounted { slot: slot("green"), percent: 10 }),
    };
    Standing::found(&found, "operator anna", T0)
}

fn backend(name: &str, up: u32, sessions: u64) -> v1::BackendFacts {
    v1::BackendFacts {
        name: name.to_owned(),
        slot: name.trim_start_matches("be_").to_owned(),
        servers_up: up,
        servers_total: 1,
        sessions,
        requests_total: 18_402,
        responses_5xx: 3,
        ..Default::default()
    }
}

pub fn facts() -> v1::HostFacts {
    v1::HostFacts {
        disk_free_bytes: 44_120_551_424,
        disk_total_bytes: 105_089_261_568,
        inodes_free: 5_912_004,
        inodes_total: 6_553_600,
        load1_milli: 420,
        memory_available_bytes: 3_221_225_472,
        memory_total_bytes: 8_589_934_592,
        clock_ms: T0.0,
    }
}

/// A load balancer that routes by this, in memory and on disk.
pub fn balancer(host: &str, route: &str) -> v1::AgentStatus {
    let serves = |name: &str| route.starts_with(name);
    v1::AgentStatus {
        host: host.to_owned(),
        role: "lb-agent".to_owned(),
        facts: Some(facts()),
        version: "0.1.0".to_owned(),
        balancer: Some(v1::BalancerFacts {
            route: route.to_owned(),
            route_on_disk: route.to_owned(),
            backends: vec![
                backend("be_blue", 1, if serves("be_blue") { 17 } else { 0 }),
                backend("be_green", 1, if serves("be_green") { 17 } else { 0 }),
            ],
            haproxy_version: "3.2.4".to_owned(),
            highest_epoch: 41,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn web(host: &str, slot: &str, current: &str) -> v1::AgentStatus {
    v1::AgentStatus {
        host: host.to_owned(),
        role: "web-agent".to_owned(),
        slot: slot.to_owned(),
        facts: Some(facts()),
        version: "0.1.0".to_owned(),
        web: Some(v1::WebFacts {
            current: current.to_owned(),
            previous: String::new(),
            artifacts: vec![current.to_owned()],
            maintenance_file: false,
        }),
        ..Default::default()
    }
}

fn live(live: &LiveRelease) -> v1::Live {
    v1::Live {
        slot: live.slot.to_string(),
        release: live.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        artifact: live.artifact.map(|artifact| artifact.to_string()).unwrap_or_default(),
    }
}

fn closed_by(turned: &TurnedBack) -> v1::WayBack {
    let TurnedBack { what, at, why } = turned;
    let release = what.release.as_ref().map(ToString::to_string).unwrap_or_default();
    let at = super::super::time(at.0);
    v1::WayBack {
        ready: false,
        found: format!("nothing well to go back to: `{release}` was turned back at {at}, because {why}"),
        slot: what.slot.to_string(),
        release,
    }
}

/// The answer of the coordinator, as `coordinator::api` puts it together, with agents that show `seen`.
pub fn status(
    standing: &Standing,
    release: Option<v1::Release>,
    now: Timestamp,
    seen: &str,
) -> v1::StatusReply {
    let settled = release.as_ref().is_none_or(|release| !release.outcome.is_empty());
    let turned = standing.turned_back.as_ref().filter(|_| settled && standing.previous.is_none());
    v1::StatusReply {
        watched_on: None,
        environment: "production".to_owned(),
        url: "https://www.example.org".to_owned(),
        live: standing.live.as_ref().map(live),
        previous: standing.previous.as_ref().map(live),
        turned_back: turned.map(|turned| v1::TurnedBack {
            what: Some(live(&turned.what)),
            at_ms: turned.at.0,
            why: turned.why.clone(),
        }),
        wanted_route: standing.route.as_ref().map(ToString::to_string).unwrap_or_default(),
        maintenance: standing.maintenance.as_ref().map(|page| v1::Maintenance {
            on: true,
            since_ms: page.since.0,
            by: page.by.clone(),
            reason: page.reason.clone().unwrap_or_default(),
            until_ms: page.until.map_or(0, |until| until.0),
        }),
        unaccounted: standing
            .unaccounted
            .as_ref()
            .filter(|_| settled)
            .map(|share| v1::Unaccounted { slot: share.slot.to_string(), percent: u32::from(share.percent) }),
        release,
        agents: vec![
            balancer("lb1", seen),
            balancer("lb2", seen),
            web("web1", "blue", &old_artifact().to_string()),
            web("web2", "green", &artifact(0x77).to_string()),
        ],
        way_back: turned.map(closed_by).or_else(|| {
            standing.previous.as_ref().map(|_| v1::WayBack {
                ready: true,
                found: "2 of 2 up, 2 of 2 up".to_owned(),
                slot: "blue".to_owned(),
                release: "r1".to_owned(),
            })
        }),
        now_ms: now.0,
        coordinator_version: "0.1.0".to_owned(),
        trouble: None,
        trouble_since_ms: 0,
        certificate_ends_s: 0,
        coordinator: "coordinator1".to_owned(),
    }
}

/// The route that a load balancer has confirmed last.
fn route_on(story: &Story, name: &str) -> String {
    use Step::{Conceal, Expose, Maintain, RouteBack, Switch, Unmaintain};
    let done = |step: &Step| {
        story.state.progress(*step, &super::story::host(name)).is_some_and(|progress| progress.done.is_some())
    };
    let latest = [Unmaintain, RouteBack, Conceal, Maintain, Switch, Expose].into_iter().find(done);
    let plan = &story.state.plan;
    latest.and_then(|step| plan.route(step)).unwrap_or_else(|| plan.route_before.clone()).to_string()
}

/// The environment in the middle of a story, or after it, 1.5 s after its last fact.
pub fn during(standing: &Standing, story: &Story) -> v1::StatusReply {
    let mut standing = standing.clone();
    standing.fold(&story.state);
    let mut status = status(&standing, Some(story.wire()), story.now.plus_ms(1_500), "");
    for agent in status.agents.iter_mut().filter(|agent| agent.role == "lb-agent") {
        *agent = balancer(&agent.host, &route_on(story, &agent.host));
    }
    if let Some(held) = story.wire().held.filter(|problem| problem.code == "PM0501") {
        for agent in status.agents.iter_mut().filter(|agent| agent.host == held.host) {
            *agent = silent(&agent.host, &agent.role, &agent.slot);
        }
    }
    // What `current` is on the target's hosts, once it was moved there.
    let moved = story.state.complete(Step::Activate) && !story.state.complete(Step::LinkBack);
    for agent in status
        .agents
        .iter_mut()
        .filter(|agent| moved && story.state.plan.to.hosts.iter().any(|host| host.as_str() == agent.host))
    {
        if let (Some(web), Some(new)) = (&mut agent.web, story.state.plan.artifact()) {
            web.current = new.to_string();
        }
    }
    status
}

/// A status that nothing runs in.
pub fn settled() -> v1::StatusReply {
    status(&before(), None, T0, "be_blue:be_green:0:40")
}

/// One load balancer of a status, to be changed.
pub fn first_balancer(status: &mut v1::StatusReply) -> &mut v1::BalancerFacts {
    status.agents.iter_mut().find_map(|agent| agent.balancer.as_mut()).unwrap()
}

/// An agent that could not be asked, as the coordinator's office fills it in.
pub fn silent(host: &str, role: &str, slot: &str) -> v1::AgentStatus {
    v1::AgentStatus {
        host: host.to_owned(),
        role: role.to_owned(),
        slot: slot.to_owned(),
        problem: Some(convert::problem_to_wire(&super::story::unreachable(host))),
        ..Default::default()
    }
}
