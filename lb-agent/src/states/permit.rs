//! What states of servers cannot do on a HAProxy: routes that they cannot express, and servers that take visitors whatever
//! the route.

use std::collections::BTreeMap;

use pointsman_core::{Aftermath, Code, Problem, Route};

use super::{ServerName, ServerStates, share_is_whole, takes_weights};
use crate::reply::{ServerState, StatRow};

impl ServerStates {
    /// Servers that take visitors beside the named ones, or would as soon as they are up, whatever the route: no command is
    /// ever sent to them. One that a person has drained, put away or given no weight takes none until a person says so, and
    /// one of the last resort only where nobody else can.
    pub fn strangers(&self, rows: &[StatRow], states: &[ServerState]) -> Vec<String> {
        let backends = self.haproxy_backends();
        let is = |state: &ServerState, name: &ServerName| {
            name.backend() == state.backend && name.server() == state.server
        };
        let named = |state: &&ServerState| self.slots.values().flatten().any(|name| is(state, name));
        let last_resort = |state: &&ServerState| {
            let own = |row: &&StatRow| row.backend == state.backend && row.server == state.server;
            rows.iter().find(own).is_some_and(|row| row.backup)
        };
        let takes = |state: &&ServerState| !state.drained && !state.in_maintenance && state.weight > 0;
        let theirs = states.iter().filter(|state| backends.contains(state.backend.as_str()));
        theirs
            .filter(|state| takes(state) && !named(state) && !last_resort(state))
            .map(|state| format!("{}/{}", state.backend, state.server))
            .collect()
    }

    /// Refuses a route that states cannot express. Servers that nobody named are no reason to stay where visitors are: all
    /// can be moved at once all the same. A share of them cannot be had.
    pub fn permit(
        &self,
        route: &Route,
        algorithms: &BTreeMap<String, String>,
        rows: &[StatRow],
        states: &[ServerState],
    ) -> Result<(), Problem> {
        let cannot = |message: String| Problem::new(Code::DriverCannot, message);
        let shows_page = [&route.stable, &route.canary].into_iter().any(|slot| {
            *slot == self.maintenance && route.share_of(slot) > 0 && self.servers(slot).is_empty()
        });
        if shows_page {
            return Err(cannot(format!("the driver `server-state` cannot send visitors to `{}`", self.maintenance))
                .cause("without a server for it HAProxy would answer every visitor with its own bare 503")
                .hint(format!(
                    "name servers that answer with the page in lb-agent.toml: `[haproxy.servers]`, `{} = [\"be_app/page\"]`; or use the driver `map`",
                    self.maintenance
                )));
        }
        if share_is_whole(route) {
            return Ok(());
        }
        refuse_strangers(&self.strangers(rows, states))?;
        let fixed =
            self.haproxy_backends().into_iter().find(|backend| self.is_static(algorithms.get(*backend)));
        let Some(backend) = fixed else { return Ok(()) };
        let named = algorithms.get(backend).map_or("an unknown algorithm", String::as_str);
        Err(cannot(format!("HAProxy's backend `{backend}` cannot split visitors {} to {}", 100 - route.percent, route.percent))
            .cause(format!("its balance is {named}: a static one takes the weights 0 % and 100 % only"))
            .hint("move all visitors at once, set `balance roundrobin`, or use the driver `map`; with `hash-type consistent` set `balance_static = false` in lb-agent.toml"))
    }

    fn is_static(&self, algorithm: Option<&String>) -> bool {
        let known = algorithm.is_some_and(|algorithm| takes_weights(algorithm));
        self.balance_static.unwrap_or(!known)
    }
}

/// Refuses where servers that are in no slot take visitors, or would when they are up.
pub fn refuse_strangers(strangers: &[String]) -> Result<(), Problem> {
    if strangers.is_empty() {
        return Ok(());
    }
    let named = strangers.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Err(Problem::new(Code::DriverCannot, "servers that are in no slot take visitors when they are up, whatever the route")
        .aftermath(Aftermath::Unchanged)
        .cause(format!("{named}: no line of `[haproxy.servers]` in lb-agent.toml names them"))
        .hint("name each in its slot's line, or take it out of haproxy.cfg; until then: `set server ... state drain`"))
}
