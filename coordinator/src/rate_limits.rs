//! Whom the load balancers of an environment limit, and taking one address out of their tables.

use pointsman_core::{Code, Problem};
use pointsman_proto::{agent_v1, v1};

use crate::office::Office;

/// What the load balancers count, or after forgetting an address what is left of it. One that cannot be asked fails the
/// whole: half a list would look like a whole one. Single tables that cannot be read are named. The others have been told all the same.
pub async fn rate_limits(
    office: &Office,
    unblock: &str,
    min_rate: u32,
) -> Result<v1::RateLimitsReply, Problem> {
    if let Some(trouble) = office.trouble().filter(|_| !unblock.is_empty()) {
        return Err(trouble);
    }
    let mut all = v1::RateLimitsReply::default();
    let mut failed = None;
    for host in &office.environment().balancers {
        let request = agent_v1::RateLimitsRequest {
            environment: office.environment().name.to_string(),
            host: host.to_string(),
            epoch: office.epoch().0,
            table: String::new(),
            unblock: unblock.to_owned(),
            min_rate,
        };
        match office.fleet().rate_limits(host, request, LOOK_MS).await {
            Ok(reply) => {
                all.found = all.found.saturating_add(reply.found);
                let named = |entry| v1::RateEntry { host: host.to_string(), ..entry };
                all.entries.extend(reply.entries.into_iter().map(named));
                let at = |problem| v1::Problem { host: host.to_string(), ..problem };
                all.unread.extend(reply.unread.into_iter().map(at));
            }
            Err(problem) => drop(failed.get_or_insert(problem)),
        }
    }
    match failed {
        Some(problem) => Err(problem),
        None => Ok(all),
    }
}

/// Bound on one look into the tables of one load balancer, two commands for each table.
const LOOK_MS: u64 = 10_000;

/// An address as agents take it.
pub fn address(text: &str) -> Result<String, Problem> {
    let parsed = text.parse::<std::net::IpAddr>();
    parsed.map(|address| address.to_string()).map_err(|_| {
        Problem::new(
            Code::MessageInvalid,
            format!("field `address`: `{}` is no IP address", text.escape_default()),
        )
    })
}
