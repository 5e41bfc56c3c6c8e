//! Whether a rollback would lead anywhere just now, by what the agents said a moment ago.

use pointsman_core::{LiveRelease, SlotPlan};
use pointsman_proto::v1;

/// What is known of the slot that was live before.
pub fn way_back(previous: &LiveRelease, slot: &SlotPlan, agents: &[v1::AgentStatus]) -> v1::WayBack {
    let (mut closed, mut unknown, mut up) = (Vec::new(), Vec::new(), Vec::new());
    for agent in agents {
        let ours = slot.hosts.iter().any(|host| host.as_str() == agent.host);
        match (&agent.web, &agent.balancer) {
            (Some(web), _) if ours => {
                let wanted = previous.artifact.map(|artifact| artifact.to_string());
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
            _ if agent.problem.is_some() && ours => unknown.push(format!("{} cannot be asked", agent.host)),
            _ => {}
        }
    }
    let ready = closed.is_empty();
    let said = if ready { up.into_iter().chain(unknown).collect() } else { closed };
    v1::WayBack { ready, found: said.join(", ") }
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
        assert_eq!(look(&[web("b1", 1), silent("lb1", "lb-agent")]), said(false, "lb1 cannot be asked"));
    }
}
