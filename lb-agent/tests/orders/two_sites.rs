//! Two sites of pointsman behind one real HAProxy, in one frontend: an agent for each, with its own map, and nothing that one
//! does is seen by the other.

use std::path::Path;

use pointsman_lb_agent::Config;

use crate::haproxy::server;
use crate::real::{Haproxy, configuration};
use crate::rig::{Agent, P, Setup, V};

const P2: &str = "be_old:be_new:0:5";
const V2: &str = "be_new:be_old:0:6";

/// The other site: its host decides which map is looked up, and all else goes by the same variables.
fn both(folder: &Path, text: &str) -> String {
    let lookup = format!(
        "http-request set-var(txn.route)  str(route),map({}/route.map,be_maint:be_maint:0:0)\n",
        folder.display()
    );
    let other = lookup.replace("/route.map", "/other.map");
    let of_host = |line: &str, when: &str| {
        format!("{} {when} {{ req.hdr(host) -i other.example.org }}\n", line.trim_end())
    };
    let lines = format!("{}  {}", of_host(&lookup, "unless"), of_host(&other, "if"));
    assert!(text.contains(&lookup), "{text}");
    let slot = |name: &str| {
        format!(
            "backend {name}\n  option httpchk\n  server s1 {} check inter 100ms fall 2 rise 1\n",
            server()
        )
    };
    let socket =
        format!("  stats socket {}/other.sock mode 600 level admin\n  hard-stop-after", folder.display());
    text.replace(&lookup, &lines).replacen("  hard-stop-after", &socket, 1)
        + &slot("be_old")
        + &slot("be_new")
}

fn other_agent(haproxy: &Haproxy) -> Agent {
    let folder = haproxy.folder.path();
    let text = format!(
        r#"listen = "127.0.0.1:1"
state = "{0}/other"
[pki]
cert = "none"
key = "none"
ca = "none"
[haproxy]
socket = "{0}/other.sock"
master = "{0}/master.sock"
map = "{0}/other.map"
backends = ["be_old", "be_new"]
maintenance_backend = "be_maint"
[frontend]
address = "{1}"
host = "other.example.org"
"#,
        folder.display(),
        haproxy.frontend
    );
    let config: Config = pointsman_chassis::config::parse(Path::new("lb-agent.toml"), &text).unwrap();
    std::fs::create_dir(&config.state).unwrap();
    Agent::of(config, folder.join("other.map"))
}

async fn stands(agent: &Agent, wanted: &str) -> bool {
    let found = agent.describe().await.balancer.unwrap_or_default();
    (found.route.as_str(), found.route_on_disk.as_str(), found.drift.as_str()) == (wanted, wanted, "")
        && found.stale_workers.is_empty()
}

#[tokio::test]
async fn each_agent_leads_its_own_site() {
    let begun = Haproxy::begin(
        |folder, frontend| {
            std::fs::write(folder.join("other.map"), format!("route {P2}\n")).unwrap();
            both(folder, &configuration(folder, frontend))
        },
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    );
    let Some(haproxy) = begun else { return };
    let other = other_agent(&haproxy);
    haproxy.healthy().await;
    haproxy
        .until("the other site's slots are healthy", async |_| {
            let found = other.describe().await.balancer.unwrap_or_default();
            found.backends.len() == 2 && found.backends.iter().all(|backend| backend.servers_up == 1)
        })
        .await;
    let guards = [haproxy.agent.hands.clone(), other.hands.clone()]
        .map(|hands| tokio::spawn(async move { hands.guard_route().await }));
    haproxy.agent.set_route(P, V).await.unwrap();
    assert!(stands(&haproxy.agent, V).await && stands(&other, P2).await);
    // The answers to the other agent are of its own route, of the epoch that the first one has left.
    let done = other.set_route(P2, V2).await.unwrap();
    assert!(done.detail.contains("seen by 3 new connections"), "{done:?}");
    haproxy.replaced().await;
    haproxy
        .until("both routes stand after a reload", async |haproxy| {
            stands(&haproxy.agent, V).await && stands(&other, V2).await
        })
        .await;
    let page = "be_maint:be_new:0:7";
    haproxy.until("the other site has its page", async |_| other.set_route(V2, page).await.is_ok()).await;
    assert!(stands(&haproxy.agent, V).await && stands(&other, page).await);
    guards.iter().for_each(tokio::task::JoinHandle::abort);
}
