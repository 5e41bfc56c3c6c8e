//! Asking a monitoring service, which is not the server under test: its silence says nothing of the release.

use std::sync::Arc;

use pointsman_chassis::http_check::Target;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::client::{self, Ask, MAX_DOCUMENT_BYTES};
use crate::grants::{Grants, Monitor};
use crate::place::Place;
use crate::session::Session;

/// Asks the service at `url`, which the agent's file grants as `granted`, for a path below it.
pub async fn ask(
    url: &str,
    granted: &Monitor,
    path: &str,
    grants: &Arc<Grants>,
    until: Instant,
) -> Result<Answer, String> {
    let tls = granted.tls().map_err(|problem| problem.to_string())?;
    let (host, prefix) = split(url)?;
    let port = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{}", if tls.is_some() { 443 } else { 80 })
    };
    let looked_up = tokio::time::timeout_at(until, tokio::net::lookup_host(port)).await;
    let mut addresses = looked_up
        .map_err(|_| format!("`{host}` was not found in time"))?
        .map_err(|error| format!("`{host}` is not found: {error}"))?;
    let address = addresses.next().ok_or_else(|| format!("`{host}` has no address"))?;
    let name = host.split(':').next().unwrap_or_default().to_owned();
    let server = Target { address, host: if tls.is_some() { name } else { host.to_owned() }, tls };
    let place = Place { server, pin: None, grants: Arc::clone(grants), key: String::new() };
    let path = format!("{prefix}{path}");
    let ask = Ask { most: MAX_DOCUMENT_BYTES, ..Ask::get(&path) };
    client::send(&place, &mut Session::default(), ask, until)
        .await
        .map_err(|error| format!("`{host}` {error}"))
}

fn split(url: &str) -> Result<(&str, &str), String> {
    let rest = url.split_once("://").map(|(_, rest)| rest).ok_or_else(|| format!("`{url}` is no address"))?;
    let end = rest.find('/').unwrap_or(rest.len());
    rest.split_at_checked(end).ok_or_else(|| format!("`{url}` is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_perhaps_a_path() {
        assert_eq!(split("http://m:9093/am").unwrap(), ("m:9093", "/am"));
        assert_eq!(split("https://m").unwrap(), ("m", ""));
    }
}
