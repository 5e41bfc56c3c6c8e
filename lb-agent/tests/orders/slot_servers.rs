//! Which servers of a slot count, and how many of them must be up: with a fake for every case, and with a real HAProxy.

use pointsman_core::{Action, Aftermath, Code, RouteEpoch};
use pointsman_proto::convert;

use crate::haproxy::server;
use crate::real::{Haproxy, configuration};
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
        |folder, frontend| Agent::start(&Setup { more: more.to_owned(), ..Setup::beside(folder, frontend) }),
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
        let back = Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up: 1, back: true };
        for (seen, fits) in [
            // Before the switch all must be up; a watch and the way back do with one.
            (rig.agent.perform(probe(0)).await, up),
            (rig.agent.observe(convert::action_to_wire(&probe(0))).await, fits),
            (rig.agent.perform(back).await, fits),
        ] {
            assert_eq!(seen.is_ok(), fits, "{up} {marked}: {seen:?}");
            let Err(problem) = seen else { continue };
            assert_eq!(problem.code, Code::BackendUnhealthy, "{problem:?}");
            if !marked {
                continue;
            }
            assert!(problem.message.contains("0 of 1"), "{problem:?}");
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

fn forward(min_up: u32) -> Action {
    Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up, back: false }
}

#[tokio::test]
async fn forward_every_server_of_a_slot_is_up_that_takes_visitors() {
    let (web, api) = (("UP", "L7OK"), "L7OK");
    for (api, check, hosts, more, said) in [
        ("UP", api, 1, "", None),
        ("UP", api, 2, "", None),
        // A host without a server.
        ("UP", api, 3, "", Some("has 2 servers in HAProxy, and its slot has 3 hosts")),
        (
            "DOWN",
            "L4CON",
            1,
            "",
            Some("1 of 2 servers healthy, and visitors are led there when all are: s2 is not up"),
        ),
        ("UP 1/3", api, 1, "", Some("s2 is not up")),
        ("no check", "", 1, "", Some("s2 is not up")),
        ("NOLB", "L7OKC", 1, "", Some("s2 is not up")),
        ("MAINT (resolution)", "", 1, "", Some("s2 is not up")),
        // By a person's word.
        ("MAINT", "", 1, "", None),
        ("MAINT", "", 2, "", None),
        ("MAINT (via be_blue/s2)", "", 1, "", None),
        ("DRAIN", api, 1, "", None),
        ("DOWN", "L4CON", 1, "optional_servers = [\"be_green/s2\"]\n", None),
        ("DOWN", "L4CON", 1, "optional_servers = [\"be_blue/s2\"]\n", Some("s2 is not up")),
        ("DOWN", "L4CON", 1, "optional_servers = [\"be_green/s1\"]\n", Some("0 of 1 servers healthy")),
    ] {
        let rig = Rig::with(crate::fake::KEY, |_, _| more.to_owned()).await;
        rig.fake.with(|world| {
            let servers = world.servers.get_mut("be_green").unwrap();
            (servers[0].1, servers[0].2) = (web.0.to_owned(), web.1.to_owned());
            (servers[1].1, servers[1].2) = (api.to_owned(), check.to_owned());
        });
        let Action::ProbeBalancer { checks, backend, epoch, patience_ms, .. } = probe(0) else {
            unreachable!()
        };
        let before = Action::ProbeBalancer { checks, backend, epoch, min_up: hosts, patience_ms };
        for seen in [rig.agent.perform(before).await, rig.agent.perform(forward(hosts)).await] {
            assert_eq!(seen.is_ok(), said.is_none(), "{api} {hosts} {more}: {seen:?}");
            if let (Err(problem), Some(said)) = (seen, said) {
                assert!(
                    problem.code == Code::BackendUnhealthy && problem.message.contains(said),
                    "{problem:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn nobody_is_led_to_a_slot_that_is_put_away() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world
            .servers
            .get_mut("be_green")
            .unwrap()
            .iter_mut()
            .for_each(|server| server.1 = "MAINT".to_owned());
    });
    let refused = rig.agent.perform(forward(2)).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
    assert!(refused.message.contains("0 of 2 servers healthy"), "{refused:?}");
}

/// A watch does not end, and no way back is shut, for one of several; nor is one that may be down the one that is enough.
#[tokio::test]
async fn where_visitors_are_and_back_one_server_is_enough() {
    for (more, fits) in [("", true), ("optional_servers = [\"be_green/s2\"]\n", false)] {
        let rig = Rig::with(crate::fake::KEY, |_, _| more.to_owned()).await;
        rig.fake.with(|world| world.servers.get_mut("be_green").unwrap()[0].1 = "DOWN".to_owned());
        let watched = rig.agent.observe(convert::action_to_wire(&probe(0))).await;
        assert_eq!(watched.is_ok(), fits, "{watched:?}");
        let back = Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up: 1, back: true };
        let led = rig.agent.perform(back).await;
        assert_eq!(led.is_ok(), fits, "{led:?}");
    }
}

/// What a template keeps for addresses to come is no server that is down; the slot's hosts have theirs all the same.
#[tokio::test]
async fn a_spare_place_of_a_template_is_no_server() {
    // The name of each server, which are unresolved, how many hosts, and what is said.
    for (names, unresolved, hosts, said) in [
        (["web", "web"], [false, true], 1, None),
        (
            ["web", "web"],
            [false, true],
            2,
            Some("has 1 server in HAProxy beside 1 place without an address, and its slot has 2 hosts"),
        ),
        (
            ["web", "web"],
            [true, true],
            1,
            Some("has 0 servers in HAProxy beside 2 places without an address"),
        ),
        // Each the only one of its name.
        (["web", "api"], [false, true], 1, Some("s2 is not up")),
    ] {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            for (at, server) in world.servers.get_mut("be_green").unwrap().iter_mut().enumerate() {
                world.names.insert(format!("be_green/{}", server.0), names[at].to_owned());
                if unresolved[at] {
                    (server.1, server.2) = ("MAINT (resolution)".to_owned(), String::new());
                }
            }
        });
        let led = rig.agent.perform(forward(hosts)).await;
        assert_eq!(led.is_ok(), said.is_none(), "{names:?} {unresolved:?}: {led:?}");
        let described = rig.agent.describe().await.balancer.unwrap();
        let green = described.backends.iter().find(|backend| backend.name == "be_green").unwrap();
        let total = if names[0] == names[1] && unresolved != [true, true] { 1 } else { 2 };
        assert_eq!((green.servers_up, green.servers_total), (u32::from(!unresolved[0]), total));
        let (Err(problem), Some(said)) = (led, said) else { continue };
        assert!(problem.code == Code::BackendUnhealthy && problem.message.contains(said), "{problem:?}");
        // `set server ... state maint` leaves it as it is.
        if hosts == 1 {
            assert!(
                problem.hint.contains("has no address") && !problem.hint.contains("state maint"),
                "{problem:?}"
            );
        }
    }
}

/// Answers every question for an address of version 4 with these.
fn name_server(addresses: &'static [[u8; 4]]) -> std::net::SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut asked) {
            // The question ends with the name's empty label, the type and the class.
            let name = asked[12..count].iter().position(|byte| *byte == 0).unwrap();
            let question = &asked[12..12 + name + 5];
            let found = if question[name + 2] == 1 { addresses } else { &[] };
            let mut answer = [
                &asked[..2],
                &[0x81, 0x80, 0, 1, 0, u8::try_from(found.len()).unwrap(), 0, 0, 0, 0],
                question,
            ]
            .concat();
            for address in found {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                answer.extend(address);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

#[tokio::test]
async fn visitors_are_led_to_a_template_that_is_not_full() {
    let (port, names) = (server().port(), name_server(&[[127, 0, 0, 1]]));
    let lines = format!(
        "  server-template web 1-3 web.example.org:{port} check inter 100ms rise 1 resolvers dns resolve-prefer ipv4 init-addr none\n"
    );
    let resolvers = format!("resolvers dns\n  nameserver here {names}\n  timeout resolve 100ms\n");
    let begun = Haproxy::begin(
        |folder, frontend| with_servers(&configuration(folder, frontend), &lines) + &resolvers,
        |folder, frontend| Agent::start(&Setup::beside(folder, frontend)),
    );
    let Some(haproxy) = begun else { return };
    until_it_is(&haproxy, "web1", "UP").await;
    until_it_is(&haproxy, "web3", "MAINT (resolution)").await;
    let refused = haproxy.agent.perform(forward(2)).await.unwrap_err();
    assert!(
        refused.message.contains("1 server in HAProxy beside 2 places without an address"),
        "{refused:?}"
    );
    haproxy.agent.perform(probe(0)).await.unwrap();
    haproxy.agent.set_route(P, V).await.unwrap();
}

/// `use-server` sends some paths to a server of their own, and HAProxy leaves the line out while that is down.
#[tokio::test]
async fn nobody_is_led_to_a_slot_whose_second_server_is_dead() {
    let (web, api) = (server(), server());
    let lines = format!(
        "  use-server api if {{ path_beg /api/ }}\n  server web {web} check inter 100ms rise 1\n  server api 127.0.0.1:9 check inter 100ms fall 1 rise 1\n"
    );
    let Some(haproxy) = haproxy(&lines, "") else { return };
    until_it_is(&haproxy, "web", "UP").await;
    until_it_is(&haproxy, "api", "DOWN").await;
    let refused = haproxy.agent.set_route(P, V).await.unwrap_err();
    assert!(refused.message.contains("1 of 2") && refused.message.contains("api is not up"), "{refused:?}");
    assert_eq!((refused.code, refused.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
    // As the hint says.
    assert!(refused.hint.contains("set server ... state maint"), "{refused:?}");
    haproxy.admin("set server be_green/api state maint").await;
    let checked = haproxy.agent.perform(probe(0)).await.unwrap();
    assert!(checked.detail.contains("`api` is put away (MAINT)"), "{checked:?}");
    // Ready again it is awaited again, and found once it answers.
    haproxy.admin(&format!("set server be_green/api addr 127.0.0.1 port {}", api.port())).await;
    haproxy.admin("set server be_green/api state ready").await;
    haproxy.agent.perform(probe(10_000)).await.unwrap();
    haproxy.agent.set_route(P, V).await.unwrap();
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
