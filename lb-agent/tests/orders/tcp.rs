//! A real HAProxy reached over a TCP socket, without a master socket: as from a virtual machine beside a firewall.

use std::path::Path;

use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, P, Setup, V, route};

fn start() -> Option<Haproxy> {
    let commands = crate::net::free();
    Haproxy::begin(
        |folder, frontend| {
            let line = format!("global\n  stats socket ipv4@{commands} level admin\n");
            configuration(folder, frontend).replacen("global\n", &line, 1)
        },
        |folder, frontend| {
            Agent::start(&Setup {
                map: folder.join("route.map"),
                key: "route".to_owned(),
                socket: Path::new(&format!("tcp://{commands}")).to_owned(),
                master: None,
                frontend,
                state: folder.join("state"),
                signals: None,
                more: String::new(),
            })
        },
    )
}

#[tokio::test]
async fn a_whole_switch_and_a_reload_over_tcp() {
    let Some(haproxy) = start() else { return };
    haproxy.healthy().await;
    haproxy.agent.inspect(P).await.unwrap();
    let done = haproxy.agent.set_route(P, V).await.unwrap();
    assert!(!done.already && done.detail.contains("seen by 3 new connections"), "{done:?}");
    // HAProxy has just been started: whether that was a reload cannot be seen.
    assert!(done.detail.contains("an old process may keep the old route"), "{done:?}");
    assert_eq!(haproxy.agent.on_disk(), Some(route(V)));
    let facts = haproxy.agent.describe().await.balancer.unwrap();
    assert_eq!((facts.route.as_str(), facts.stale_workers.len()), (V, 1), "{facts:?}");
    // A slot that an old process may serve is not called empty.
    let drain = pointsman_core::Action::Drain {
        backend: "be_blue".parse().unwrap(),
        timeout_ms: 100,
        end: pointsman_core::DrainEnd::Leave,
    };
    let unsure = haproxy.agent.perform(drain).await.unwrap_err();
    assert!(unsure.message.contains("an old HAProxy process may serve `be_blue`"), "{unsure:?}");
    haproxy.reload().await;
    haproxy.agent.inspect(V).await.unwrap();
    let back = "be_blue:be_blue:0:7";
    haproxy.agent.set_route(V, back).await.unwrap();
    assert_eq!(haproxy.agent.describe().await.balancer.unwrap().route, back);
}
