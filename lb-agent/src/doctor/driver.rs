//! Whether the driver that moves visitors is one that fits, and the better of those that do.

use pointsman_core::Problem;

use super::Said;
use super::seen::Seen;
use crate::config::Driver;

/// Where to say it, and what.
fn say(driver: &str) -> String {
    format!("in lb-agent.toml:\n  [haproxy]\n  driver = \"{driver}\"")
}

pub(super) fn fits(seen: &Seen) -> Result<Said, &Problem> {
    let (fit, wanted) = (seen.fit.as_ref()?, seen.wanted.driver);
    let what = fit.to_string();
    Ok(match (wanted, fit.driver) {
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
