//! The command sockets when they misbehave: everything ends, nothing is believed by half, and no value of a message
//! becomes a second command. HAProxy is a fake here.

use std::time::Duration;

use pointsman_core::{Aftermath, BackendName, Code, Route};
use pointsman_proto::agent_v1::{self, action::Kind};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::fake::{Answer, KEY};
use crate::rig::{P, Rig, V};

/// Far above the agent's own bound on a command: what takes longer hangs.
const HANGS: Duration = Duration::from_secs(20);

/// The same on both transports.
async fn inspected(answer: Answer) -> Code {
    let (unix, tcp) = tokio::join!(
        inspected_on(Rig::new().await, answer.clone()),
        inspected_on(Rig::over_tcp().await, answer)
    );
    assert_eq!(unix, tcp);
    unix
}

async fn inspected_on(rig: Rig, answer: Answer) -> Code {
    rig.fake.with(|world| world.instead("show backend", 9, move |_| Some(answer.clone())));
    let inspected = tokio::time::timeout(HANGS, rig.agent.inspect(P)).await.unwrap();
    let problem = inspected.unwrap_err();
    assert!(problem.message.len() < 500, "{}", problem.message);
    problem.code
}

#[tokio::test]
async fn silence_ends() {
    assert_eq!(inspected(Answer::silence()).await, Code::RuntimeSocketUnreachable);
}

#[tokio::test]
async fn an_answer_that_stops_and_stays_open_ends() {
    assert_eq!(inspected(Answer::HeldOpen(b"# name\nbe_bl".to_vec())).await, Code::RuntimeSocketUnreachable);
}

#[tokio::test]
async fn answers_that_cannot_be_read() {
    let not_text = b"# name\nbe_blue\nbe_\xff\xfe\n\n".to_vec();
    let cases = [
        Answer::Flood(100 << 20),
        Answer::Bytes(not_text),
        Answer::text(""),
        Answer::text("\n"),
        Answer::text("# na"),
    ];
    for answer in cases {
        assert_eq!(inspected(answer.clone()).await, Code::HaproxyReplyUnexpected, "{answer:?}");
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_an_answer() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.instead("", usize::MAX, |_| None));
    rig.fake.with(|world| world.after("show", 3, |_| Some(Answer::OneByOne)));
    rig.agent.inspect(P).await.unwrap();
    let rig = Rig::new().await;
    rig.fake.with(|world| world.after("", usize::MAX, |_| Some(Answer::OneByOne)));
    rig.agent.inspect(P).await.unwrap();
    rig.agent.set_route(P, V).await.unwrap();
    let rig = Rig::over_tcp().await;
    rig.fake.with(|world| world.after("", usize::MAX, |_| Some(Answer::OneByOne)));
    rig.agent.set_route(P, V).await.unwrap();
    assert_eq!(rig.stands().1, V);
}

#[tokio::test]
async fn every_command_has_a_connection_of_its_own_over_tcp_too() {
    let rig = Rig::over_tcp().await;
    rig.agent.inspect(P).await.unwrap();
    rig.agent.set_route(P, V).await.unwrap();
    assert_eq!(rig.commands("set map"), 1);
    assert_eq!(rig.stands().1, V);
    assert!(rig.fake.with(|world| world.commands.iter().all(|command| is_own(command))));
}

#[tokio::test]
async fn no_socket_and_nobody_behind_it() {
    let rig = Rig::new().await;
    std::fs::remove_file(&rig.fake.socket).unwrap();
    let missing = rig.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((missing.code, missing.aftermath), (Code::RuntimeSocketUnreachable, Aftermath::Unchanged));
    // Bound and dropped: the file is there, and connections are refused.
    drop(std::os::unix::net::UnixListener::bind(&rig.fake.socket).unwrap());
    let refused = rig.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::RuntimeSocketUnreachable, Aftermath::Unchanged));
    assert!(refused.causes[0].contains("refused"), "{refused:?}");
    assert_eq!(rig.stands().0, P);
    assert_eq!(rig.agent.describe().await.problem.unwrap().code, "PM0101");
}

#[tokio::test]
async fn a_command_that_would_be_two_is_never_sent() {
    for key in ["route;show info", "route\nshow info", "route\\ x", "route\rx", "röute"] {
        let rig = Rig::with_key(key).await;
        let refused = rig.agent.set_route(P, V).await.unwrap_err();
        assert_eq!(refused.code, Code::HaproxyReplyUnexpected, "{key:?}");
        let unsafe_sent = rig
            .fake
            .with(|world| world.commands.iter().any(|c| !["show backend", "show stat"].contains(&&**c)));
        assert!(!unsafe_sent, "{key:?}: {:?}", rig.fake.with(|world| world.commands.clone()));
    }
}

/// The only commands that the agent has words for.
fn is_own(command: &str) -> bool {
    if let Some((pid, inner)) = command.strip_prefix("@!").and_then(|rest| rest.split_once(' ')) {
        return pid.parse::<u32>().is_ok() && is_own(inner);
    }
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["show", "info" | "backend" | "stat" | "proc"] => true,
        ["show", "map", map] => map.ends_with("/route.map"),
        ["get", "map", map, key] => map.ends_with("/route.map") && *key == KEY,
        ["set", "map", map, key, value] => {
            map.ends_with("/route.map") && *key == KEY && Route::parse(value).is_ok()
        }
        ["shutdown", "sessions", "server", name] => name
            .split_once('/')
            .is_some_and(|(backend, server)| BackendName::parse(backend).is_ok() && server.starts_with('s')),
        _ => false,
    }
}

/// Texts that are nearly names and routes, with what would make a second command of them.
fn nearly() -> impl Strategy<Value = String> {
    let bait = "(;|\n|\r|\\\\| |\0|<<|@1 |;quit;|\nshutdown frontend fe\n|:|be_blue|é){0,2}";
    let text = "(be_blue|be_green|be_maint)?(:be_green)?(:0)?(:[0-9]{1,2})?";
    (text, bait, text).prop_map(|(a, b, c)| format!("{a}{b}{c}"))
}

fn kinds() -> impl Strategy<Value = Kind> {
    let set =
        (nearly(), nearly(), any::<u32>(), any::<bool>()).prop_map(|(expected, wanted, min_up, back)| {
            Kind::SetRoute(agent_v1::SetRoute {
                expected: vec![P.to_owned(), expected],
                wanted,
                min_up,
                back,
            })
        });
    let drain =
        nearly().prop_map(|backend| Kind::Drain(agent_v1::Drain { backend, timeout_ms: 0, cut: true }));
    let inspect = (nearly(), nearly()).prop_map(|(expected_route, backend)| {
        Kind::InspectBalancer(agent_v1::InspectBalancer {
            expected_route,
            backends: vec![backend],
            ..Default::default()
        })
    });
    let probe = nearly().prop_map(|backend| {
        Kind::ProbeBalancer(agent_v1::ProbeBalancer { backend, ..agent_v1::ProbeBalancer::default() })
    });
    prop_oneof![set, drain, inspect, probe]
}

#[test]
fn no_value_of_a_message_becomes_a_second_command() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::new());
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    };
    proptest!(config, |(kind in kinds())| {
        runtime.block_on(async {
            let action = agent_v1::Action { kind: Some(kind) };
            let mut order = pointsman_proto::convert::order_to_wire(&rig.agent.order(crate::rig::switch(P, V)));
            order.action = Some(action.clone());
            let _ = rig.agent.send_wire(order).await;
            let _ = rig.agent.observe(action).await;
        });
        for command in rig.fake.with(|world| std::mem::take(&mut world.commands)) {
            prop_assert!(is_own(&command), "sent {command:?}");
        }
    });
}
