//! Whether the driver that moves visitors is one that fits, and the better of those that do.

use pointsman_core::Problem;

use super::seen::Seen;
use super::{Said, listed};
use crate::config::Driver;
use crate::haproxy_cfg::Line;

/// Where to say it, and what.
fn say(driver: &str) -> String {
    format!("in lb-agent.toml:\n  [haproxy]\n  driver = \"{driver}\"")
}

pub(super) fn fits(seen: &Seen) -> Result<Said, &Problem> {
    let (fit, wanted) = (seen.fit.as_ref()?, seen.wanted.driver);
    let what = fit.to_string();
    Ok(match (wanted, fit.driver) {
        (Driver::ServerState, Some(Driver::ServerState)) if !fit.with_agents.is_empty() => {
            with_agents(seen, &fit.with_agents)
        }
        (wanted, Some(fits)) if wanted == fits => Said::ok(what),
        (_, None) => Said::fail(
            what,
            "print the lines that the map needs:\n  pointsman-lb-agent config-snippet\nor name the servers of each backend under \
             `[haproxy.servers]` in lb-agent.toml, each with `check`",
        ),
        (_, Some(Driver::ServerState)) => Said::fail(what, say("server-state")),
        (_, Some(Driver::Map)) => Said::warn(what, say("map")),
    })
}

/// A program on a server that says `ready` or a weight takes back what the driver says of that server.
fn with_agents(seen: &Seen, servers: &[String]) -> Said {
    let have = if servers.len() == 1 { "has" } else { "have" };
    let what = format!(
        "{} {have} an `agent-check`: what it says of state and weight takes back what a release says",
        listed(servers)
    );
    let place = |server: &str| {
        let config = &seen.written.as_ref().ok()?.config;
        let (backend, name) = server.split_once('/')?;
        let rules = config.rules(config.backend(backend)?).into_iter();
        let is_it = |line: &&Line| {
            line.has("agent-check") && (line.word(0) == "default-server" || line.word(1) == name)
        };
        rules.map(|(_, line)| line).find(is_it).map(|line| &line.place)
    };
    let fix = servers.iter().map(|server| {
        let for_good = place(server).map_or_else(String::new, |place| {
            format!("without `agent-check` at {place}; until it is loaded, ")
        });
        format!(
            "{for_good}on the load balancer:\n  echo 'disable agent {server}' | {}",
            seen.wanted.socket.0.socat()
        )
    });
    Said::warn(what, fix.collect::<Vec<_>>().join("\n"))
}
