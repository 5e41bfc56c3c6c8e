//! Old workers and reloads around a switch. HAProxy is a fake here.

use pointsman_core::{Action, Aftermath, Code, RouteEpoch};
use pointsman_proto::convert;

use crate::fake::{Answer, KEY};
use crate::rig::{P, Rig, V};

#[tokio::test]
async fn old_workers_follow() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.reload();
    });
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    let done = done.unwrap();
    assert!(done.detail.contains("2 old workers follow") && done.unreached.is_none(), "{done:?}");
}

#[tokio::test]
async fn an_old_worker_that_has_gone_counts_as_done() {
    // It is still listed; its answer leaves the connection open.
    for at in ["@!100 show backend", "@!100 set map"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.reload();
            world.instead(at, 1, |world| {
                world.old.clear();
                None
            });
        });
        let started = std::time::Instant::now();
        let done = rig.agent.set_route(P, V).await;
        rig.told_the_truth(V, &done);
        let done = done.unwrap();
        assert!(!done.detail.contains("keep"), "{at}: {done:?}");
        // The agent's bound on one command is 2 s: it must not have waited for the end of the connection.
        assert!(started.elapsed().as_millis() < 1900, "{at}: waited {:?}", started.elapsed());
    }
}

/// A worker that ends while it is asked through the master gives no answer at all; the next one says that it has gone.
#[tokio::test]
async fn an_old_worker_that_goes_while_it_is_asked_counts_as_gone() {
    for command in ["show backend", "set map", "get map", "show stat"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.reload();
            world.instead(&format!("@!100 {command}"), 1, |world| {
                world.old.clear();
                Some(Answer::text(""))
            });
        });
        let described = rig.agent.describe().await;
        assert_eq!(described.problem, None, "{command}");
        let done = rig.agent.set_route(P, V).await.unwrap();
        assert!(!done.detail.contains("keep"), "{command}: {done:?}");
    }
}

/// A master that starts itself anew closes without an answer too, and the worker that it was asked for goes on.
#[tokio::test]
async fn an_old_worker_is_not_gone_because_the_master_says_nothing() {
    for command in ["show backend", "set map", "get map"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.reload();
            world.instead(&format!("@!100 {command}"), 2, |_| Some(Answer::text("")));
        });
        let done = rig.agent.set_route(P, V).await;
        rig.told_the_truth(V, &done);
        assert!(done.unwrap().detail.contains("1 old worker follows"), "{command}");
    }
    // What it never says is not known.
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.instead("@!100 ", usize::MAX, |_| Some(Answer::text("")));
    });
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("old workers 100 keep"), "{done:?}");
}

#[tokio::test]
async fn an_old_worker_of_before_a_change_of_the_configuration_is_left_alone() {
    let cases = [
        ("be_green", V, "it lacks where everybody would go"),
        ("be_green", "be_blue:be_green:10:6", "it lacks where a tenth of its visitors would go"),
    ];
    for (lacking, wanted, why) in cases {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.reload();
            world.old.get_mut(&100).unwrap().backends.retain(|name| name != lacking);
        });
        let done = rig.agent.set_route(P, wanted).await.unwrap();
        let (disk, current, old) = rig.stands();
        assert_eq!((disk.as_str(), current.as_str()), (wanted, wanted));
        assert_eq!(old, [P], "{why}: the default backend is the maintenance page");
        assert!(done.detail.contains("100") && done.detail.contains("keep"), "{done:?}");
    }
}

#[tokio::test]
async fn an_old_worker_that_does_not_answer_is_named() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.instead("@!100 ", 9, |_| Some(Answer::silence()));
    });
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("old workers 100 keep"), "{done:?}");
    assert!(done.unreached.is_some_and(|whom| whom.starts_with("old workers 100")));
}

#[tokio::test]
async fn an_old_worker_is_believed_by_what_it_routes_by() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.instead("@!100 set map", 9, |_| Some(Answer::text("\n")));
    });
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("old workers 100 keep"), "{done:?}");
}

#[tokio::test]
async fn old_workers_that_cannot_be_seen_are_said_to_be_so() {
    let rig = Rig::new().await;
    std::fs::remove_file(&rig.fake.master).unwrap();
    // A release waits for the master; whoever leaves what serves does not, and is told whom it may not reach.
    let refused = rig.agent.inspect(P).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.aftermath),
        (Code::OldWorkersUnseen, Aftermath::Unchanged),
        "{refused:?}"
    );
    rig.agent.inspect_as(P, true).await.unwrap();
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("could not be seen"), "{done:?}");
    assert_eq!(done.unreached.as_deref(), Some("old workers could not be seen"));
}

/// What the reload brings: the value on disk when the new worker read it.
#[derive(Clone, Copy, Debug)]
enum Brings {
    /// It began after the new route was on disk.
    Disk,
    /// It began before: the new worker comes up with the old route.
    Before,
}

#[tokio::test]
async fn a_reload_during_a_switch_is_followed() {
    // After these commands, the n-th time they come.
    let moments = [("set map", 0), ("show proc", 0), ("show info", 0), ("get map", 1), ("show info", 1)];
    let mut wrong = Vec::new();
    for (command, nth) in moments {
        for brings in [Brings::Disk, Brings::Before] {
            let rig = Rig::new().await;
            rig.fake.with(|world| {
                world.after(command, nth, |_| None);
                world.after(command, 1, move |world| {
                    match brings {
                        Brings::Disk => world.reload(),
                        Brings::Before => world.reload_with(P),
                    }
                    None
                });
            });
            let done = rig.agent.set_route(P, V).await;
            let (disk, current, _) = rig.stands();
            let reported =
                done.as_ref().map(|done| &*done.detail).map_err(|problem| (problem.code, problem.aftermath));
            let moment =
                format!("{brings:?} after {command} {nth}: disk {disk}, worker {current}, {reported:?}");
            // The last look is over: what a reload brings then is for the next look to find.
            if command == "show info" && nth == 1 {
                continue;
            }
            if done.is_err() || disk != V || current != V {
                wrong.push(moment);
            }
        }
    }
    assert!(wrong.is_empty(), "not followed:\n{}", wrong.join("\n"));
}

/// Version 3.1 and later: the master answers while a new worker reads its configuration, and with it the old route.
#[tokio::test]
async fn a_worker_that_starts_during_a_switch_is_waited_for() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.starting = Some(999);
        // It takes over a while after it is first seen.
        world.after("show proc", 3, |_| None);
        world.after("show proc", 1, |world| {
            world.starting = None;
            world.reload_with(P);
            None
        });
    });
    let done = rig.agent.set_route(P, V).await;
    rig.told_the_truth(V, &done);
    let (disk, current, old) = rig.stands();
    assert_eq!((disk.as_str(), current.as_str(), old), (V, V, vec![V.to_owned()]), "{done:?}");
}

#[tokio::test]
async fn a_worker_that_starts_for_long_is_said_to() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.starting = Some(999));
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("a reload is under way"), "{done:?}");
}

/// Between the end of a worker and the master's knowing of it.
#[tokio::test]
async fn a_worker_that_the_master_cannot_reach_is_asked_for_again() {
    for command in ["show backend", "set map", "get map", "show stat"] {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            world.reload();
            world.instead(&format!("@!100 {command}"), 2, |world| {
                world.old.clear();
                Some(Answer::HeldOpen(b"Can't connect to the target CLI!\n".to_vec()))
            });
        });
        let described = rig.agent.describe().await;
        assert_eq!(described.problem, None, "{command}");
        let done = rig.agent.set_route(P, V).await.unwrap();
        assert!(!done.detail.contains("keep"), "{command}: {done:?}");
    }
}

/// After a reload HAProxy shows servers as up that it has not checked yet, or not often enough. Before visitors are moved
/// they are waited for; while visitors are there nobody knows, which is no failure.
#[tokio::test]
async fn servers_that_a_new_worker_has_not_checked_yet_have_not_failed() {
    let seen = async |status: &'static str, check: &'static str| {
        let rig = Rig::new().await;
        rig.fake.with(|world| {
            for row in world.servers.get_mut("be_blue").unwrap() {
                (row.1, row.2) = (status.to_owned(), check.to_owned());
            }
        });
        let action = Action::ProbeBalancer {
            checks: Vec::new(),
            backend: "be_blue".parse().unwrap(),
            epoch: RouteEpoch(5),
            min_up: 1,
            patience_ms: 0,
        };
        rig.agent.observe(convert::action_to_wire(&action)).await.err().map(|problem| problem.code)
    };
    for (status, check) in [("UP 1/3", "INI"), ("UP", "INI"), ("UP -1/3", "* INI"), ("UP 0/3", "L7OK")] {
        assert_eq!(seen(status, check).await, Some(Code::WatchBlind), "{status} {check}");
    }
    for (status, check) in [("UP 2/3", "L4CON"), ("DOWN", "INI"), ("DOWN", "L7STS")] {
        assert_eq!(seen(status, check).await, Some(Code::BackendUnhealthy), "{status} {check}");
    }
    assert_eq!(seen("UP", "L7OK").await, None);
}

#[tokio::test]
async fn one_reload_after_another_ends() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.after("show info", usize::MAX, |world| {
            world.pid += 1;
            None
        });
    });
    let problem = rig.agent.set_route(P, V).await.unwrap_err();
    assert_eq!(problem.code, Code::RouteNotApplied);
    assert_eq!(problem.aftermath, pointsman_core::Aftermath::Unknown);
}

#[tokio::test]
async fn status_names_workers_that_keep_another_route() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.reload_with(V));
    std::fs::write(&rig.agent.map, format!("route {V}\n")).unwrap();
    let facts = rig.agent.describe().await.balancer.unwrap();
    assert_eq!((facts.route.as_str(), facts.route_on_disk.as_str()), (V, V));
    assert_eq!(facts.stale_workers, [format!("100: {P}")]);
}

/// Whoever wants to go back must not be kept from it by a worker of before that hangs.
#[tokio::test]
async fn an_old_worker_that_hangs_hides_nothing_and_is_told_again_until_it_follows() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.reload();
        world.instead("@!100 ", 12, |_| Some(Answer::silence()));
    });
    let done = rig.agent.set_route(P, V).await.unwrap();
    assert!(done.detail.contains("old workers 100 keep"), "{done:?}");
    let described = rig.agent.describe().await;
    assert_eq!(described.problem, None, "how the balancer stands is known all the same");
    let found = described.balancer.unwrap();
    assert_eq!(found.route, V);
    assert!(found.stale_workers.iter().any(|stale| stale.starts_with("100: not told")), "{found:?}");

    let hands = rig.agent.hands.clone();
    let guard = tokio::spawn(async move { hands.guard_route().await });
    let follows = async {
        while rig.stands().2 != [V] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), follows).await.expect("it is never told again");
    guard.abort();
    assert_eq!(rig.agent.describe().await.balancer.unwrap().stale_workers, Vec::<String>::new());
}

/// One of before a change of the configuration counts in no such table; the one after it does.
#[tokio::test]
async fn an_address_is_forgotten_by_every_worker_that_counts_it() {
    let rig = Rig::with(KEY, |_, _| "rate_limit_tables = [\"st_rl\"]\n".to_owned()).await;
    rig.fake.with(|world| {
        world.reload();
        world.reload();
        world.instead("@!100 clear table", 1, |_| Some(Answer::text("No such table\n\n")));
    });
    let left = rig.agent.rate_limits("st_rl", "192.0.2.4", 0).await.unwrap();
    assert!(left.entries.is_empty());
    assert_eq!(rig.commands("@!101 clear table"), 1);
    // One that fails is said, and keeps no other from forgetting.
    rig.fake
        .with(|world| world.instead("@!100 clear table", 1, |_| Some(Answer::text("Permission denied\n"))));
    rig.agent.rate_limits("st_rl", "192.0.2.4", 0).await.unwrap_err();
    assert_eq!(rig.commands("@!101 clear table"), 2);
}

/// A master that hangs while its worker serves: whoever wants to go back is told how the balancer stands all the same, and
/// before the four seconds are over that the coordinator gives it.
#[tokio::test]
async fn a_master_that_hangs_hides_nothing() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.instead("show proc", usize::MAX, |_| Some(Answer::silence())));
    let described = rig.agent.describe().await;
    assert_eq!(described.problem, None);
    let found = described.balancer.unwrap();
    assert_eq!(found.route, P);
    assert!(found.stale_workers[0].starts_with("not seen, may be by another route"), "{found:?}");
    assert_eq!(rig.commands("show proc"), 1, "each question costs whoever waits its bound");
}

/// However many ask how it is, HAProxy is asked for a few of them, and all are told.
#[tokio::test]
async fn who_asks_at_the_same_time_is_told_the_same() {
    let rig = Rig::new().await;
    rig.fake.with(|world| (0..20).for_each(|_| world.reload()));
    let looked = rig.agent.describe().await;
    assert_eq!(looked.problem, None);
    let of_one = rig.commands("show proc");
    let described = futures_util::future::join_all((0..50).map(|_| rig.agent.describe())).await;
    for status in &described {
        let balancer = status.balancer.as_ref().unwrap_or_else(|| panic!("{:?}", status.problem));
        assert!(balancer.route == P && balancer.stale_workers.is_empty(), "{balancer:?}");
    }
    let of_all = rig.commands("show proc") - of_one;
    assert!(of_all <= 10 * of_one, "{of_all} of {of_one}");
    // Whoever asks after a change is told of it.
    rig.agent.set_route(P, V).await.unwrap();
    assert_eq!(rig.agent.describe().await.balancer.unwrap().route, V);
}
