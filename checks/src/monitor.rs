//! Asking a monitoring service, which is not the server under test: its silence says nothing of the release.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;
use pointsman_chassis::http_check::Target;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::client::{self, Ask};
use crate::grants::{Grants, Monitor};
use crate::place::Place;
use crate::session::Session;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Asks the service at `url`, which the agent's file grants as `granted`, for a path below it.
pub async fn ask(
    url: &str,
    granted: &Monitor,
    path: &str,
    grants: &Arc<Grants>,
    until: Instant,
) -> Result<Answer, String> {
    let tls = granted.tls().map_err(|problem| problem.to_string())?;
    let (authority, prefix) = split(url)?;
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let looked_up = tokio::time::timeout_at(until, tokio::net::lookup_host((name.as_str(), port))).await;
    let addresses = looked_up
        .map_err(|_| format!("`{authority}` was not found in time"))?
        .map_err(|error| format!("`{authority}` is not found: {error}"))?;
    let path = format!("{prefix}{path}");
    let mut silence = format!("`{authority}` has no address");
    let addresses: Vec<SocketAddr> = addresses.take(MOST_ADDRESSES).collect();
    for (index, address) in addresses.iter().copied().enumerate() {
        // One that swallows what is sent to it leaves the others their share of the time.
        let untried = u32::try_from(addresses.len().saturating_sub(index)).unwrap_or(1);
        let until = Instant::now() + until.saturating_duration_since(Instant::now()) / untried.max(1);
        let host = if tls.is_some() { name.clone() } else { authority.to_string() };
        let server = Target { address, host, tls: tls.clone(), proxy_protocol: false };
        let (grants, key) = (Arc::clone(grants), String::new());
        let place = Place { server, authorities: None, pin: None, grants, key };
        let ask = Ask::get(&path);
        match client::send(&place, &mut Session::default(), ask, until).await {
            Ok(answer) => return Ok(answer),
            // A name may have an address that nothing listens at: `localhost` has two.
            Err(error) => silence = format!("`{authority}` at {address} {error}"),
        }
    }
    Err(silence)
}

fn split(url: &str) -> Result<(Authority, &str), String> {
    let no_address = || format!("`{url}` is no address");
    let (_, rest) = url.split_once("://").ok_or_else(no_address)?;
    let (authority, path) =
        rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).ok_or_else(no_address)?;
    Ok((authority.parse().map_err(|_| no_address())?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_perhaps_a_path() {
        let parts = |url| {
            let (authority, path) = split(url).unwrap();
            (authority.host().to_owned(), authority.port_u16(), path)
        };
        assert_eq!(parts("http://m:9093/am"), ("m".to_owned(), Some(9093), "/am"));
        assert_eq!(parts("https://m"), ("m".to_owned(), None, ""));
        assert_eq!(parts("http://[::1]:9090"), ("[::1]".to_owned(), Some(9090), ""));
        assert!(split("m:9090").is_err() && split("http://a b/").is_err());
    }
}
