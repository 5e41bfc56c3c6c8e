//! What existing haproxy.cfg files are made of besides, all of it at once: the route goes through it as through a plain one.

use std::net::SocketAddr;
use std::path::Path;

use pointsman_core::{Action, DrainEnd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::haproxy::server;
use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, P, Setup, V};

/// Threads, sockets of every level, pooled and reused connections, compression, names that are resolved, servers by template,
/// consistent hashes, rewritten paths, and a second frontend by the same map.
fn wild(folder: &Path, frontend: SocketAddr, second: SocketAddr) -> String {
    let text = configuration(folder, frontend);
    let port = server().port();
    let global = format!(
        "global\n  nbthread 4\n  stats socket {0}/user.sock mode 600 level user\n  stats socket {0}/operator.sock mode 600 level operator\n",
        folder.display()
    );
    let defaults = "defaults\n  http-reuse always\n  compression algo gzip\n  compression type text/plain\n  \
                    default-server inter 100ms fall 2 rise 1 maxconn 50 pool-max-conn 20 init-addr last,libc,none\n";
    let slot = format!(
        "backend be_green\n  option httpchk\n  balance uri\n  hash-type consistent\n  http-request set-path /app%[path]\n  \
         server-template web 1-3 localhost:{port} check resolvers dns\nbackend be_other\n"
    );
    let text = text.replacen("global\n", &global, 1).replacen("defaults\n", defaults, 1);
    let text = text.replacen("backend be_green\n", &slot, 1);
    let (_, lines) = text.split_once(&format!("frontend fe\n  bind {frontend}\n")).unwrap();
    let (lines, _) = lines.split_once("\nbackend ").unwrap();
    let beside = format!("frontend fe2\n  bind {second}\n{lines}\n");
    let resolvers = "resolvers dns\n  nameserver none 127.0.0.1:9\n  hold timeout 60s\n  hold refused 60s\n";
    format!("{text}{beside}{resolvers}")
}

/// Which epoch and backend a visitor's answer shows.
async fn met(frontend: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(frontend).await.unwrap();
    let request = "GET /tile HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    let shown = answer.lines().find_map(|line| line.strip_prefix("x-pointsman: ")).unwrap_or_default();
    shown.replace(" side=stable", "")
}

#[tokio::test]
async fn the_route_goes_through_what_a_grown_configuration_has_besides() {
    let second = crate::net::free();
    let begun = Haproxy::begin(
        |folder, frontend| wild(folder, frontend, second),
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    );
    let Some(haproxy) = begun else { return };
    haproxy.healthy().await;
    let all_up = async |haproxy: &Haproxy| haproxy.agent.set_route(P, V).await.is_ok();
    haproxy.until("every server of the template is up", all_up).await;
    for (of, expected) in [(haproxy.frontend, "epoch=6 be=be_green"), (second, "epoch=6 be=be_green")] {
        assert_eq!(met(of).await, expected);
    }
    let backend = "be_blue".parse().unwrap();
    let drained = haproxy.agent.perform(Action::Drain { backend, timeout_ms: 2_000, end: DrainEnd::Leave });
    drained.await.unwrap();
    haproxy.replaced().await;
    haproxy
        .until("the route stands after a reload", async |haproxy| haproxy.agent.inspect(V).await.is_ok())
        .await;
    let back = "be_blue:be_blue:0:7";
    haproxy.until("back", async |haproxy| haproxy.agent.set_route(V, back).await.is_ok()).await;
    for of in [haproxy.frontend, second] {
        assert_eq!(met(of).await, "epoch=7 be=be_blue");
    }
}
