//! Whether the address at which the agent asks the frontend is this host's: then HAProxy beside it answers. An address that
//! moves between load balancers is at times another's, whose answers say nothing of the route here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use pointsman_core::{Code, Problem};

use crate::config::{Frontend, Haproxy};
use crate::socket::Endpoint;

/// The address that a connection to `target` comes from. Connecting a datagram socket sends nothing.
pub fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether a connection that comes from `source` has not left the host: to an address of its own a host comes from that very
/// address, or from loopback.
fn stays_here(source: Option<IpAddr>, target: IpAddr) -> bool {
    source.is_some_and(|source| source == target || source.is_loopback())
}

/// Why what answers at the frontend's address is not the HAProxy that this agent steers; none where it may be. One that is reached over TCP
/// is on another machine, and so is its frontend.
pub fn elsewhere(haproxy: &Haproxy, frontend: &Frontend, source: Option<IpAddr>) -> Option<String> {
    let beside = matches!(haproxy.socket.0, Endpoint::Unix(_)) && !frontend.elsewhere;
    if !beside || stays_here(source, frontend.address.ip()) {
        return None;
    }
    let from =
        source.map_or_else(|| "no way leads there".to_owned(), |source| format!("it is asked from {source}"));
    Some(format!("`{}` is no address of this host now: {from}", frontend.address))
}

/// What a person adds so that the agent asks its own HAProxy.
pub fn line(frontend: &Frontend) -> String {
    let port = frontend.address.port();
    format!(
        "beside the `bind` that is there, with the same words after the address: `bind 127.0.0.1:{port} ...`, and `address = \"127.0.0.1:{port}\"` in `[frontend]` of lb-agent.toml"
    )
}

/// That the agent would look at another machine's frontend.
pub fn problem(frontend: &Frontend, why: String) -> Problem {
    Problem::new(Code::RouteNotSeen, why)
        .retry_useful()
        .cause("whoever has that address answers instead of the HAProxy here: with keepalived, the other load balancer")
        .hint(format!(
            "in haproxy.cfg, {}; where HAProxy itself has that address, in a container, `elsewhere = true` there",
            line(frontend)
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_stays_here() {
        for (source, target, stays) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.11", true),
            ("::1", "::1", true),
            ("10.0.0.11", "10.0.0.11", true),
            ("10.0.0.11", "10.0.0.100", false),
            ("fd00::1", "fd00::2", false),
        ] {
            assert_eq!(stays_here(source.parse().ok(), target.parse().unwrap()), stays, "{source} {target}");
        }
        assert!(!stays_here(None, "10.0.0.100".parse().unwrap()));
        assert!(source_towards("127.0.0.11:443".parse().unwrap()).is_some_and(|source| source.is_loopback()));
    }
}
