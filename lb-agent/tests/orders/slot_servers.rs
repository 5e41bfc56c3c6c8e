//! Which servers of a slot count, and how many of them must be up: with a fake for every case, and with a real HAProxy.

use pointsman_core::{Action, Aftermath, Code, RouteEpoch};
use pointsman_proto::convert;

use crate::real::{Haproxy, configuration, server};
use crate::rig::{Agent, P, Rig, Setup, V, route};

fn probe(patience_ms: u64) -> Action {
    Action::ProbeBalancer {
        checks: Vec::new(),
        backend: "be_green".parse().unwrap(),
        epoch: RouteEpoch(5),
        min_up: 1,
        patience_ms,
    }
}

/// HAProxy's configuration with these lines of servers in the slot that visitors are to be led to.
fn with_servers(text: &str, lines: &str) -> String {
    let (before, rest) = text.split_once("backend be_green\n  option httpchk\n").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    format!("{before}backend be_green\n  option httpchk\n{lines}{after}")
}

/// A real HAProxy with these servers in that slot, and more lines in `[haproxy]` of the agent's file.
fn haproxy(lines: &str, more: &str) -> Option<Haproxy> {
    Haproxy::begin(
        |folder, frontend| with_servers(&configuration(folder, frontend), lines),
        |folder, frontend| {
            Agent::start(&Setup {
                map: folder.join("route.map"),
                key: "route".to_owned(),
                socket: folder.join("admin.sock"),
                master: Some(folder.join("master.sock")),
                frontend,
                state: folder.join("state"),
                signals: None,
                more: more.to_owned(),
            })
        },
    )
}

/// HAProxy has looked at a server and knows that it is so.
async fn until_it_is(haproxy: &Haproxy, server: &str, state: &str) {
    haproxy
        .until(&format!("{server} {state}"), async |haproxy| {
            let rows = haproxy.admin("show stat be_green 4 -1").await;
            rows.lines()
                .any(|row| row.contains(&format!(",{server},")) && row.contains(&format!(",{state},")))
        })
        .await;
}

#[tokio::test]
async fn a_backup_counts_as_no_server_of_a_slot() {
    // Whether the slot's own server is up, whether the other is marked, and what is said of it.
    for (up, marked, fits, counted) in
        [(false, true, false, (0, 1)), (true, true, true, (1, 1)), (false, false, true, (1, 2))]
    {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.backups.extend(marked.then(|| "be_green/s2".to_owned()));
            world.servers.get_mut("be_green").unwrap()[0].1 = if up { "UP" } else { "DOWN" }.to_owned();
        });
        let described = rig.agent.describe().await.balancer.unwrap();
        let green = described.backends.iter().find(|backend| backend.name == "be_green").unwrap();
        assert_eq!((green.servers_up, green.servers_total), counted);
        // A watch sees the same as who looks before the switch.
        for seen in [
            rig.agent.perform(probe(0)).await,
            rig.agent.observe(convert::action_to_wire(&probe(0))).await,
            // As on the way back: one server is enough there.
            rig.agent
                .perform(Action::SetRoute {
                    expected: vec![route(P)],
                    wanted: route(V),
                    min_up: 1,
                    back: true,
                })
                .await,
        ] {
            assert_eq!(seen.is_ok(), fits, "{up} {marked}: {seen:?}");
            let Err(problem) = seen else { continue };
            assert_eq!((problem.code, problem.message.contains("0 of 1")), (Code::BackendUnhealthy, true));
            let causes = problem.causes.join(" ");
            assert!(causes.contains("s2 is UP (L7OK), a `backup`, which counts for none"), "{problem:?}");
        }
    }
}

#[tokio::test]
async fn where_all_are_backups_they_are_the_servers() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.backups.extend(["be_green/s1", "be_green/s2"].map(str::to_owned)));
    rig.agent.set_route(P, V).await.unwrap();
}

/// The server of the slot is dead, and one that says sorry answers well in its place.
#[tokio::test]
async fn nobody_is_led_to_a_slot_where_only_a_sorry_server_answers() {
    let (own, sorry) = (server(), server());
    let lines = format!(
        "  server s1 127.0.0.1:9 check inter 100ms fall 1 rise 1\n  server sorry {sorry} check inter 100ms backup\n"
    );
    let Some(haproxy) = haproxy(&lines, "") else { return };
    until_it_is(&haproxy, "s1", "DOWN").await;
    until_it_is(&haproxy, "sorry", "UP").await;
    let refused = haproxy.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
    assert!(refused.message.contains("0 of 1 servers"), "{refused:?}");
    assert_eq!(haproxy.agent.perform(probe(0)).await.unwrap_err().code, Code::BackendUnhealthy);
    haproxy.admin(&format!("set server be_green/s1 addr 127.0.0.1 port {}", own.port())).await;
    haproxy.agent.perform(probe(10_000)).await.unwrap();
    haproxy.agent.set_route(P, V).await.unwrap();
}
