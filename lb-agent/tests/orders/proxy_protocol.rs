//! A real HAProxy whose only `bind` awaits the PROXY protocol, as behind another load balancer.

use std::path::Path;

use pointsman_core::{Code, RouteEpoch};
use pointsman_lb_agent::Config;

use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, P, V};

/// Trusted is whoever connects from loopback: by the header the agent claims no other address.
async fn started(proxy_protocol: bool) -> Option<Haproxy> {
    let haproxy = Haproxy::begin(
        |folder, frontend| {
            let text = configuration(folder, frontend);
            let text =
                text.replace(&format!("  bind {frontend}\n"), &format!("  bind {frontend} accept-proxy\n"));
            assert!(text.contains("accept-proxy"));
            text.replace(
                "{ req.hdr(X-Pointsman) -m str canary }",
                "{ src 127.0.0.0/8 } { req.hdr(X-Pointsman) -m str canary }",
            )
        },
        |folder, frontend| {
            let text = format!(
                r#"listen = "127.0.0.1:1"
state = "{0}/state"
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
socket = "{0}/admin.sock"
master = "{0}/master.sock"
map = "{0}/route.map"
backends = ["be_blue", "be_green"]
maintenance_backend = "be_maint"
[frontend]
address = "{frontend}"
host = "www.example.org"
proxy_protocol = {proxy_protocol}
"#,
                folder.display()
            );
            let config: Config = pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap();
            std::fs::create_dir(&config.state).unwrap();
            Agent::of(config, folder.join("route.map"))
        },
    )?;
    haproxy.healthy().await;
    Some(haproxy)
}

#[tokio::test]
async fn the_agent_asks_where_the_proxy_protocol_is_awaited() {
    let Some(haproxy) = started(true).await else { return };
    haproxy.agent.inspect(P).await.unwrap();
    // The idle slot too: the agent is who it is there.
    let probe = pointsman_core::Action::ProbeBalancer {
        checks: vec![pointsman_core::Check {
            name: "health".parse().unwrap(),
            from: pointsman_core::CheckFrom::Balancers,
            before_switch: true,
            after_switch: true,
            spec: pointsman_core::CheckSpec::get(&"/".parse().unwrap(), 200, Some("ok")),
            timeout_ms: 2_000,
            patience_ms: 0,
            bound_ms: 2_000,
        }],
        backend: "be_green".parse().unwrap(),
        epoch: RouteEpoch(5),
        min_up: 1,
        patience_ms: 2_000,
    };
    haproxy.agent.observe(pointsman_proto::convert::action_to_wire(&probe)).await.unwrap();
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("seen by 3 new connections"), "{done:?}");
}

#[tokio::test]
async fn who_does_not_speak_it_sees_nothing_and_moves_nobody() {
    let Some(haproxy) = started(false).await else { return };
    let refused = haproxy.agent.inspect(P).await.unwrap_err();
    assert_eq!(refused.code, Code::RouteNotSeen, "{refused:?}");
    haproxy.agent.set_route(P, V).await.unwrap_err();
}
