//! The switch, with a fake HAProxy that fails where it is told to. What is reported must be what stands.

use pointsman_core::{Action, Aftermath, Code, Epoch, Retry};
use pointsman_proto::convert::ReceivedOrder;

use crate::fake::{Answer, Fake, KEY};
use crate::rig::{Agent, P, Rig, Setup, V, route, switch};

/// The route after those.
const NEXT: &str = "be_green:be_blue:0:7";

#[tokio::test]
async fn disk_first_then_the_worker_then_read_back() {
    let rig = Rig::new().await;
    let map = rig.agent.map.clone();
    rig.fake.with(|world| {
        world.instead("set map", 1, move |_| {
            let on_disk = std::fs::read_to_string(&map).unwrap();
            assert_eq!(on_disk, format!("{KEY} {V}\n"), "a reload at this moment would bring the old route");
            None
        });
    });
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    let done = done.unwrap();
    assert!(!done.already && done.detail.contains(V), "{done:?}");
    assert_eq!(rig.commands("set map"), 1);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&rig.agent.map).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o644);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    let first = rig.agent.send(&order).await.unwrap();
    rig.fake.with(|world| world.commands.clear());
    assert_eq!(rig.agent.send(&order).await.unwrap(), first);
    assert_eq!(
        rig.fake.with(|world| world.commands.clone()),
        Vec::<String>::new(),
        "answered from the receipt"
    );
    // Another release that wants the same route finds it there.
    assert!(rig.agent.set_route(P, V).await.unwrap().already);
    assert_eq!(rig.commands("set map"), 0);
}

#[tokio::test]
async fn what_is_refused_before_anything_moves() {
    let down = |status: &'static str, check: &'static str| {
        move |rig: &Rig| {
            rig.fake.with(|world| {
                for server in world.servers.get_mut("be_green").unwrap() {
                    (server.1, server.2) = (status.to_owned(), check.to_owned());
                }
            });
        }
    };
    let nothing = |_: &Rig| {};
    type Before = Box<dyn Fn(&Rig)>;
    let cases: Vec<(&str, Before, &str, &str, Code)> = vec![
        ("drift", Box::new(nothing), "be_blue:be_green:0:4", V, Code::RouteDrift),
        ("older epoch", Box::new(nothing), P, "be_green:be_blue:0:4", Code::RouteEpochOld),
        ("equal epoch, other content", Box::new(nothing), P, "be_green:be_blue:0:5", Code::RouteEpochOld),
        (
            "older than one that was given away",
            Box::new(|rig| std::fs::write(rig.agent.state.join("highest-route-epoch"), "9\n").unwrap()),
            P,
            "be_green:be_blue:0:9",
            Code::RouteEpochOld,
        ),
        (
            "granted, but HAProxy lacks it",
            Box::new(nothing),
            P,
            "be_nowhere:be_blue:0:6",
            Code::BackendUnknown,
        ),
        ("canary that HAProxy lacks", Box::new(nothing), P, "be_green:be_nowhere:0:6", Code::BackendUnknown),
        ("not granted", Box::new(nothing), P, "be_secret:be_blue:0:6", Code::NotGranted),
        ("canary not granted", Box::new(nothing), P, "be_blue:be_secret:0:6", Code::NotGranted),
        ("down", Box::new(down("DOWN", "L4CON")), P, V, Code::BackendUnhealthy),
        ("maintenance", Box::new(down("MAINT", "")), P, V, Code::BackendUnhealthy),
        ("draining", Box::new(down("DRAIN", "L7OK")), P, V, Code::BackendUnhealthy),
        ("up by decree", Box::new(down("UP 1/3", "L7OK")), P, V, Code::BackendUnhealthy),
        ("not checked at all", Box::new(down("no check", "")), P, V, Code::BackendUnhealthy),
        (
            "unhealthy canary",
            Box::new(down("DOWN", "L7STS")),
            P,
            "be_blue:be_green:1:6",
            Code::BackendUnhealthy,
        ),
    ];
    for (name, before, expected, wanted, code) in cases {
        let rig = Rig::new().await;
        before(&rig);
        let refused = rig.agent.set_route(expected, wanted).await.unwrap_err();
        assert_eq!((refused.code, refused.aftermath), (code, Aftermath::Unchanged), "{name}: {refused:?}");
        assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]), "{name}");
        assert_eq!(rig.commands("set map"), 0, "{name}");
    }
}

#[tokio::test]
async fn as_many_healthy_servers_as_the_order_asks_for() {
    for (min_up, back, fits) in [
        (0, true, true),
        (1, true, true),
        (2, true, false),
        (u32::MAX, true, false),
        // Forward all of them, however few hosts there are.
        (0, false, false),
        (1, false, false),
    ] {
        let rig = Rig::new().await;
        rig.fake.with(|world| world.servers.get_mut("be_green").unwrap()[0].1 = "DOWN".to_owned());
        let action = Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up, back };
        let done = rig.agent.perform(action).await;
        assert_eq!(done.is_ok(), fits, "{min_up} {back}: {done:?}");
        rig.told_the_truth(V, &done);
    }
}

#[tokio::test]
async fn the_way_to_the_maintenance_page_and_off_a_dying_slot_is_open() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        for backend in ["be_blue", "be_green"] {
            world
                .servers
                .get_mut(backend)
                .unwrap()
                .iter_mut()
                .for_each(|server| server.1 = "DOWN".to_owned());
        }
    });
    let maintenance = "be_maint:be_green:0:6";
    let done = rig.agent.set_route(P, maintenance).await;
    rig.told_the_truth(maintenance, &done);
    done.unwrap();
}

#[tokio::test]
async fn a_text_for_an_answer_is_a_refusal() {
    for text in ["Permission denied\n\n", "Unknown map identifier. Please use #<id> or <file>.\n\n"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| world.instead("set map", 1, |_| Some(Answer::text(text))));
        let refused = rig.agent.set_route(P, V).await;
        rig.told_the_truth(V, &refused);
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.aftermath), (Code::RouteNotApplied, Aftermath::Unchanged));
        assert!(refused.message.contains(text.trim()), "{refused:?}");
    }
}

/// The command had its effect; only its answer is strange, cut or none. Reading back is what counts.
#[tokio::test]
async fn a_strange_answer_to_a_command_that_was_obeyed() {
    for answer in ["", "\n\n", "warning: set map needs level admin from 3.4 on\n\n", "\u{0}"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| world.after("set map", 1, |_| Some(Answer::text(answer))));
        let done = rig.agent.set_route(P, V).await;
        println!("answer {answer:?}: {done:?}");
        rig.told_the_truth(V, &done);
    }
    let rig = Rig::new().await;
    rig.fake.with(|world| world.after("set map", 1, |_| Some(Answer::Bytes(vec![0xff, b'\n']))));
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
}

#[tokio::test]
async fn a_lost_answer_leads_to_a_look() {
    // The command arrived.
    let rig = Rig::new().await;
    rig.fake.with(|world| world.after("set map", 1, |_| Some(Answer::silence())));
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    done.unwrap();
    // It did not: it is sent once more.
    let rig = Rig::new().await;
    rig.fake.with(|world| world.instead("set map", 1, |_| Some(Answer::silence())));
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    done.unwrap();
    assert_eq!(rig.commands("set map"), 2);
}

/// `Unchanged` and worth a retry, so the coordinator sends the same order again: it must have a chance.
#[tokio::test]
async fn an_order_that_may_be_retried_goes_through_when_retried() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.instead("set map", 2, |_| Some(Answer::silence())));
    let order = rig.agent.order(switch(P, V));
    let failed = rig.agent.send(&order).await;
    rig.told_the_truth(V, &failed);
    let failed = failed.unwrap_err();
    assert_eq!((failed.aftermath, failed.retry), (Aftermath::Unchanged, Retry::Useful), "{failed:?}");
    // Each attempt has an intent of its own in the journal; a mere copy of the first is refused.
    let copy = rig.agent.send(&order).await.unwrap_err();
    assert_eq!(copy.code, Code::Superseded);
    let again = ReceivedOrder { journal_seq: order.journal_seq + 1, ..order.clone() };
    let done = rig.agent.send(&again).await;
    rig.told_the_truth(V, &done);
    done.unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_at_the_command_is_unknown() {
    let rig = Rig::new().await;
    let socket = rig.fake.socket.clone();
    rig.fake.with(|world| {
        world.instead("set map", 1, move |_| {
            std::fs::remove_file(&socket).unwrap();
            Some(Answer::silence())
        });
    });
    let problem = rig.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((problem.code, problem.aftermath), (Code::RuntimeSocketUnreachable, Aftermath::Unknown));
    // What the next worker starts with is the new route.
    assert_eq!(rig.stands().0, V);
}

#[tokio::test]
async fn a_frontend_that_reads_another_map_takes_the_route_back_everywhere() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.shown_epoch = Some(3);
    });
    let refused = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &refused);
    let refused = refused.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::RouteNotSeen, Aftermath::Unchanged), "{refused:?}");
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![P.to_owned()]));
    // The epoch was given away all the same: it never comes back with another meaning.
    assert_eq!(rig.agent.describe().await.balancer.unwrap().highest_epoch, 6);
    rig.fake.with(|world| world.shown_epoch = None);
    let reused = rig.agent.set_route(P, "be_blue:be_canary:0:6").await.unwrap_err();
    assert_eq!(reused.code, Code::RouteEpochOld);
}

#[tokio::test]
async fn a_key_that_was_deleted_at_runtime() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.current.map.clear());
    let refused = rig.agent.inspect(P).await.unwrap_err();
    assert_eq!(refused.code, Code::RouteDrift);
    assert!(refused.hint.contains("systemctl reload haproxy"), "{refused:?}");
    // Whoever switches all the same adds it again: everybody is on the maintenance page meanwhile.
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    done.unwrap();
}

#[tokio::test]
async fn what_an_inspection_finds() {
    let rig = Rig::new().await;
    rig.agent.inspect(P).await.unwrap();
    assert_eq!(rig.agent.inspect(V).await.unwrap_err().code, Code::RouteDrift);
    rig.fake.with(|world| world.current.map.push((KEY.to_owned(), P.to_owned())));
    let twice = rig.agent.inspect(P).await.unwrap_err();
    assert!(twice.code == Code::RouteDrift && twice.message.contains("2 times"), "{twice:?}");
    rig.fake.with(|world| world.current.map.truncate(1));
    std::fs::write(&rig.agent.map, format!("{KEY} {V}\n")).unwrap();
    let disk = rig.agent.inspect(P).await.unwrap_err();
    assert!(disk.code == Code::RouteDrift && disk.message.contains("map file"), "{disk:?}");
    std::fs::write(&rig.agent.map, format!("{KEY} {P}\n")).unwrap();
    rig.fake.with(|world| world.shown_epoch = Some(4));
    assert_eq!(rig.agent.inspect(P).await.unwrap_err().code, Code::RouteNotSeen);
    assert_eq!(rig.commands("set map"), 0, "an inspection changes nothing");
}

/// Whoever goes back leaves what serves, and least of all can wait for its answer.
#[tokio::test]
async fn what_serves_and_hangs_keeps_nobody_from_leaving_it() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.silent = true);
    let refused = rig.agent.inspect(P).await.unwrap_err();
    assert!(
        refused.code == Code::RouteNotSeen && refused.hint.contains("pointsman rollback ENV"),
        "{refused:?}"
    );
    let leaving = rig.agent.inspect_as(P, true).await.unwrap();
    assert!(leaving.detail.contains("what serves does not answer"), "{leaving:?}");
    rig.fake.with(|world| world.silent = false);
    rig.fake.with(|world| world.shown_epoch = Some(4));
    assert_eq!(
        rig.agent.inspect_as(P, true).await.unwrap_err().code,
        Code::RouteNotSeen,
        "an answer is judged"
    );
}

#[tokio::test]
async fn of_two_orders_at_once_one_moves_and_one_is_drift() {
    let rig = Rig::new().await;
    let (one, other) =
        tokio::join!(rig.agent.set_route(P, V), rig.agent.set_route(P, "be_canary:be_blue:0:7"));
    let (disk, current, _) = rig.stands();
    assert_eq!(disk, current);
    let won = if one.is_ok() { V } else { "be_canary:be_blue:0:7" };
    assert_eq!(current, won);
    // An order that the journal wrote down later may be admitted first: then the earlier one is
    // refused as overtaken, unless it was admitted in time to find another route standing.
    let late = if one.is_ok() { vec![Code::RouteDrift] } else { vec![Code::RouteDrift, Code::Superseded] };
    let lost = [one, other].into_iter().find_map(Result::err).expect("both moved the route");
    assert!(late.contains(&lost.code), "{won} stands, the other: {lost:?}");
    assert_eq!(lost.aftermath, Aftermath::Unchanged, "{lost:?}");
}

#[tokio::test]
async fn a_coordinator_that_was_replaced_moves_nothing() {
    let rig = Rig::new().await;
    // Fenced while the order is being checked: right before the first write.
    let ledger = rig.agent.ledger.clone();
    rig.fake.with(|world| {
        world.instead("show stat", 1, move |_| {
            ledger.fence(Epoch(2), b"").unwrap();
            None
        });
    });
    let refused = rig.agent.set_route(P, V).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::Fenced, Aftermath::Unchanged));
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
    rig.fake.with(|world| world.commands.clear());
    assert_eq!(rig.agent.set_route(P, V).await.unwrap_err().code, Code::Fenced);
    assert_eq!(rig.fake.with(|world| world.commands.len()), 0);
}

#[tokio::test]
async fn an_agent_that_was_killed_moves_nobody_by_itself() {
    // Between disk and worker nobody was moved: the route is taken back, and the order, sent again, does it all.
    let rig = Rig::new().await;
    std::fs::write(&rig.agent.map, format!("{KEY} {V}\n")).unwrap();
    rig.agent.hands.settle_at_start().await;
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    assert!(!done.unwrap().already);
    // A route that was confirmed, and that a reload took from the worker, is set again.
    kit_until(|| {
        std::fs::read_to_string(rig.agent.state.join("route.copy")).is_ok_and(|copy| copy.trim() == V)
    });
    rig.fake.with(|world| world.current.map[0].1 = P.to_owned());
    rig.agent.hands.settle_at_start().await;
    assert_eq!(rig.stands(), (V.to_owned(), V.to_owned(), vec![]));
    // A move from there was cut short, and meanwhile a reload brought back what had stood before it: what was confirmed
    // last is what the move began from, and what the coordinator expects.
    std::fs::write(&rig.agent.map, format!("{KEY} {NEXT}\n")).unwrap();
    rig.fake.with(|world| world.current.map[0].1 = P.to_owned());
    rig.agent.hands.settle_at_start().await;
    assert_eq!(rig.stands(), (V.to_owned(), V.to_owned(), vec![]));
    let done = rig.agent.set_route(V, NEXT).await;
    rig.told_the_truth(NEXT, &done);
    assert!(done.is_ok(), "{done:?}");
    // Somebody else moved the worker on: that is for the coordinator to see.
    let rig = Rig::new().await;
    rig.fake.with(|world| world.current.map[0].1 = V.to_owned());
    rig.agent.hands.settle_at_start().await;
    assert_eq!(rig.stands(), (P.to_owned(), V.to_owned(), vec![]));
    // No map file, or none that can be read: nothing is guessed.
    std::fs::write(&rig.agent.map, "rubbish").unwrap();
    rig.agent.hands.settle_at_start().await;
    assert_eq!(rig.commands("set map"), 0);
}

/// Waits for something that another thread does.
fn kit_until(what: impl Fn() -> bool) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !what() {
        assert!(std::time::Instant::now() < give_up, "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_was_prepared_is_performed_without_looking_at_everything_again() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    let ready = rig.agent.prepare(&order).await.unwrap();
    assert!(!ready.already && ready.detail.contains(V), "{ready:?}");
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]), "nothing is changed by preparing");
    rig.fake.with(|world| world.commands.clear());
    let done = rig.agent.send(&order).await;
    rig.told_the_truth(V, &done);
    assert_eq!(rig.commands("show stat"), 0);
    assert_eq!(rig.commands("set map"), 1);
    // Once more, as after a lost answer: from the receipt, prepared or not.
    assert_eq!(rig.agent.prepare(&order).await.unwrap(), done.clone().unwrap());
    assert_eq!(rig.agent.send(&order).await.unwrap(), done.unwrap());
}

#[tokio::test]
async fn what_cannot_be_prepared_is_refused_before_anything_moves() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        for server in world.servers.get_mut("be_green").unwrap() {
            server.1 = "DOWN".to_owned();
        }
    });
    let order = rig.agent.order(switch(P, V));
    let refused = rig.agent.prepare(&order).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::BackendUnhealthy, Aftermath::Unchanged));
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
    // Another coordinator has come: neither prepared nor performed.
    let order = rig.agent.order(switch(P, V));
    rig.agent.ledger.fence(Epoch(9), b"").unwrap();
    assert_eq!(rig.agent.prepare(&order).await.unwrap_err().code, Code::Fenced);
}

/// What was made ready is not good for a world that has changed since.
#[tokio::test]
async fn what_somebody_changed_after_it_was_prepared_is_seen() {
    let rig = Rig::new().await;
    let order = rig.agent.order(switch(P, V));
    rig.agent.prepare(&order).await.unwrap();
    rig.fake.with(|world| world.current.map[0].1 = "be_blue:be_blue:0:77".to_owned());
    let refused = rig.agent.send(&order).await.unwrap_err();
    assert_eq!((refused.code, refused.aftermath), (Code::RouteDrift, Aftermath::Unchanged), "{refused:?}");
    assert_eq!(rig.commands("set map"), 0);
}

/// Another of the routes that may stand: everything is made ready anew, and nothing of the first time is in the way.
#[tokio::test]
async fn what_was_prepared_for_another_route_is_made_ready_anew() {
    let rig = Rig::new().await;
    let other = "be_blue:be_blue:0:4";
    let action =
        Action::SetRoute { expected: vec![route(P), route(other)], wanted: route(V), min_up: 1, back: false };
    let order = rig.agent.order(action);
    rig.agent.prepare(&order).await.unwrap();
    rig.fake.with(|world| world.current.map[0].1 = other.to_owned());
    let done = rig.agent.send(&order).await;
    rig.told_the_truth(V, &done);
    done.unwrap();
}

/// The address that visitors come by is another load balancer's now: its answers are about its own route. Nobody is led forward
/// unseen; whoever goes back does, and is told.
#[tokio::test]
async fn another_load_balancers_frontend_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map/route.map");
    std::fs::create_dir(folder.path().join("map")).unwrap();
    std::fs::write(&map, format!("{KEY} {P}\n")).unwrap();
    let fake = Fake::start(folder.path(), &map, P).await;
    let agent = Agent::start(&Setup {
        map,
        key: KEY.to_owned(),
        socket: fake.socket.clone(),
        master: Some(fake.master.clone()),
        // Of a network for documentation: nobody's.
        frontend: "192.0.2.100:443".parse().unwrap(),
        state: folder.path().join("state"),
        signals: None,
        more: String::new(),
    });
    let elsewhere = "`192.0.2.100:443` is no address of this host now";
    for refused in [agent.inspect(P).await.unwrap_err(), agent.set_route(P, V).await.unwrap_err()] {
        assert_eq!((refused.code, refused.aftermath), (Code::RouteNotSeen, Aftermath::Unchanged));
        assert!(refused.message.contains(elsewhere), "{refused:?}");
        assert!(refused.hint.contains("bind 127.0.0.1:443"), "{refused:?}");
    }
    assert_eq!((fake.with(|world| world.route()), agent.on_disk()), (P.to_owned(), Some(route(P))));
    let leaving = agent.inspect_as(P, true).await.unwrap();
    assert!(leaving.detail.contains(&format!("not looked up by a request: {elsewhere}")), "{leaving:?}");
    let back = Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up: 1, back: true };
    let led = agent.perform(back).await.unwrap();
    assert!(led.detail.contains(&format!("not seen by a request: {elsewhere}")), "{led:?}");
    assert_eq!((fake.with(|world| world.route()), agent.on_disk()), (V.to_owned(), Some(route(V))));
}
