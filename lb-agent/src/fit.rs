//! Which driver fits a HAProxy, and why: said before anything is moved.

use std::collections::BTreeMap;
use std::fmt;

use pointsman_core::Problem;

use crate::balancer::Balancer;
use crate::config::Driver;

/// A server of the driver `server-state`, as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenServer {
    /// Its name as `[haproxy.servers]` has it.
    pub name: String,
    /// HAProxy has it.
    pub known: bool,
    /// HAProxy checks it.
    pub checked: bool,
    /// HAProxy asks a program on it for its state and weight.
    pub has_agent: bool,
}

/// What was seen of a HAProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often the key stands in the map; `None` if HAProxy has no such map.
    pub map_entries: Option<usize>,
    /// Answers of the frontend show the route's epoch, so it looks the route up.
    pub shows_epoch: bool,
    /// What it answers otherwise, if anything: a redirect, or a handshake that fails.
    pub otherwise: Option<String>,
    /// The servers that the configuration names.
    pub servers: Vec<SeenServer>,
    /// Servers beside them that take visitors, whatever the route.
    pub strangers: Vec<String>,
    /// By what algorithm each of HAProxy's backends picks a server.
    pub algorithms: BTreeMap<String, String>,
}

/// Which driver fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The better one of those that fit, if one does.
    pub driver: Option<Driver>,
    /// Why not the map; empty if it fits.
    pub not_map: Vec<String>,
    /// Why not states of servers; empty if they fit.
    pub not_states: Vec<String>,
    /// What the driver cannot do.
    pub limits: Vec<String>,
    /// Servers of `[haproxy.servers]` on which a program is asked for their state and weight.
    pub with_agents: Vec<String>,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.driver {
            Some(Driver::Map) => f.write_str("the driver `map` fits: the frontend looks the route up"),
            Some(Driver::ServerState) => write!(
                f,
                "the driver `server-state` fits, `map` does not ({}); {}",
                self.not_map.join(", "),
                self.limits.join(", ")
            ),
            None => write!(
                f,
                "no driver fits: not `map` ({}), not `server-state` ({})",
                self.not_map.join(", "),
                self.not_states.join(", ")
            ),
        }
    }
}

/// Says which driver fits. The map is better wherever it works: one write moves everybody.
pub fn driver_fit(seen: &Seen) -> Fit {
    let mut not_map = Vec::new();
    match seen.map_entries {
        Some(1) => {}
        Some(times) => not_map.push(format!("the key stands {times} times in the map")),
        None => not_map.push("HAProxy has no such map".to_owned()),
    }
    if !seen.shows_epoch {
        let otherwise = seen.otherwise.as_ref().map(|answer| format!(": {answer}")).unwrap_or_default();
        not_map.push(format!("the frontend does not show the route's epoch in `X-Pointsman`{otherwise}"));
    }
    let mut not_states = Vec::new();
    if seen.servers.is_empty() {
        not_states.push("`[haproxy.servers]` names no servers".to_owned());
    }
    for server in &seen.servers {
        match (server.known, server.checked) {
            (false, _) => not_states.push(format!("HAProxy has no server `{}`", server.name)),
            (true, false) => not_states.push(format!("HAProxy does not check `{}`", server.name)),
            (true, true) => {}
        }
    }
    for stranger in &seen.strangers {
        not_states
            .push(format!("`{stranger}` takes visitors too, and no line of `[haproxy.servers]` names it"));
    }
    let driver = match (not_map.is_empty(), not_states.is_empty()) {
        (true, _) => Some(Driver::Map),
        (false, true) => Some(Driver::ServerState),
        (false, false) => None,
    };
    let limits = if driver == Some(Driver::ServerState) { limits(seen) } else { Vec::new() };
    let agents = seen.servers.iter().filter(|server| server.has_agent);
    let with_agents = agents.map(|server| server.name.clone()).collect();
    Fit { driver, not_map, not_states, limits, with_agents }
}

fn limits(seen: &Seen) -> Vec<String> {
    let mut limits = vec![
        "a switch is several commands".to_owned(),
        "old processes keep their servers".to_owned(),
        "testers cannot be led to the idle slot".to_owned(),
    ];
    let agents = seen.servers.iter().filter(|server| server.has_agent);
    limits.extend(
        agents.map(|server| format!("the `agent-check` of `{}` takes a drain or a weight back", server.name)),
    );
    let backends =
        seen.servers.iter().filter_map(|server| server.name.split_once('/')).map(|(backend, _)| backend);
    let mut fixed: Vec<String> = backends
        .filter_map(|backend| {
            let algorithm =
                seen.algorithms.get(backend).map_or("an algorithm that is not shown", String::as_str);
            (!crate::states::takes_weights(algorithm))
                .then(|| format!("no split of visitors: `{backend}` has balance {algorithm}"))
        })
        .collect();
    fixed.sort();
    fixed.dedup();
    limits.extend(fixed);
    limits
}

/// Looks at HAProxy and says which driver fits.
pub async fn look(balancer: &Balancer) -> Result<Fit, Problem> {
    Ok(driver_fit(&seen(balancer).await?))
}

async fn seen(balancer: &Balancer) -> Result<Seen, Problem> {
    let haproxy = &balancer.config.haproxy;
    let rows = balancer.workers.haproxy_stat().await?;
    let servers = haproxy.servers.values().flatten().map(|name| {
        let name = name.0.to_string();
        let row = rows.iter().find(|row| format!("{}/{}", row.backend, row.server) == name);
        // `no check` has no result of a check, and a server in maintenance none either: that one is looked at later.
        let checked = row.is_some_and(|row| row.status != "no check");
        let has_agent = row.is_some_and(|row| row.has_agent);
        SeenServer { name, known: row.is_some(), checked, has_agent }
    });
    let servers = servers.collect();
    let answer = balancer.look("stable").await;
    let shows_epoch = answer.as_ref().is_ok_and(|answer| answer.mark("epoch").is_some());
    let otherwise = match answer {
        Err(reason) => Some(reason),
        Ok(answer) if !(200..300).contains(&answer.status) => Some(format!("it answers {}", answer.status)),
        Ok(_) => None,
    };
    // An answer that is no map says that there is none of this name.
    let map_entries = match balancer.shows_epoch() {
        true => balancer.workers.key_count().await.ok(),
        false => None,
    };
    Ok(Seen {
        map_entries,
        shows_epoch,
        otherwise,
        servers,
        strangers: balancer.workers.strangers(&rows).await?,
        algorithms: balancer.workers.algorithms().await?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, known: bool, checked: bool) -> SeenServer {
        SeenServer { name: name.to_owned(), known, checked, has_agent: false }
    }

    #[test]
    fn the_map_where_it_works() {
        let seen = Seen {
            map_entries: Some(1),
            shows_epoch: true,
            servers: vec![server("a/b", true, true)],
            ..Seen::default()
        };
        assert_eq!(driver_fit(&seen).driver, Some(Driver::Map));
    }

    #[test]
    fn states_where_the_frontend_looks_nothing_up_and_every_server_is_checked() {
        let servers = vec![server("be_app/blue1", true, true), server("be_app/green1", true, true)];
        let algorithms = BTreeMap::from([("be_app".to_owned(), "source".to_owned())]);
        let seen = Seen { servers, algorithms, ..Seen::default() };
        let fit = driver_fit(&seen);
        assert_eq!(fit.driver, Some(Driver::ServerState));
        let text = fit.to_string();
        assert!(text.contains("no such map") && text.contains("several commands"), "{text}");
        assert!(text.contains("no split of visitors: `be_app` has balance source"), "{text}");
        let dynamic = BTreeMap::from([("be_app".to_owned(), "roundrobin".to_owned())]);
        assert!(!driver_fit(&Seen { algorithms: dynamic, ..seen }).to_string().contains("no split"));
    }

    #[test]
    fn servers_that_nobody_named_take_visitors_from_both_slots() {
        let servers = vec![server("be_app/blue1", true, true), server("be_app/green1", true, true)];
        let seen = Seen { servers, strangers: vec!["be_app/legacy1".to_owned()], ..Seen::default() };
        let fit = driver_fit(&seen);
        assert_eq!(fit.driver, None);
        assert!(fit.to_string().contains("`be_app/legacy1` takes visitors too"), "{fit}");
    }

    #[test]
    fn none_and_why() {
        let servers = vec![server("be_app/blue1", true, false), server("be_app/green1", false, false)];
        let otherwise = Some("it answers 301".to_owned());
        let fit = driver_fit(&Seen { map_entries: Some(2), servers, otherwise, ..Seen::default() });
        assert_eq!(fit.driver, None);
        assert_eq!(
            fit.to_string(),
            "no driver fits: not `map` (the key stands 2 times in the map, the frontend does not show the route's \
             epoch in `X-Pointsman`: it answers 301), not `server-state` (HAProxy does not check `be_app/blue1`, HAProxy has no server \
             `be_app/green1`)"
        );
    }
}
