//! Draining: a slot is called empty only when nobody is seen on it. HAProxy is a fake here.

use pointsman_core::{Action, Aftermath, Code, DrainEnd};

use crate::fake::Answer;
use crate::rig::{P, Rig};

fn drain(backend: &str, end: DrainEnd) -> Action {
    Action::Drain { backend: backend.parse().unwrap(), timeout_ms: 300, end }
}

fn busy(rig: &Rig) {
    rig.fake.with(|world| world.servers.get_mut("be_green").unwrap()[1].3 = 3);
}

#[tokio::test]
async fn a_slot_that_visitors_are_sent_to_is_refused() {
    let rig = Rig::new().await;
    let refused = rig.agent.perform(drain("be_blue", DrainEnd::Cut)).await.unwrap_err();
    assert_eq!(refused.code, Code::DrainIncomplete);
    assert_eq!(
        rig.agent.perform(drain("be_secret", DrainEnd::Cut)).await.unwrap_err().code,
        Code::NotGranted
    );
    assert_eq!(rig.commands("shutdown"), 0);
}

#[tokio::test]
async fn empty_left_and_cut() {
    let rig = Rig::new().await;
    assert!(
        rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap().detail.contains("serves nobody")
    );
    busy(&rig);
    let left = rig.agent.perform(drain("be_green", DrainEnd::Leave)).await.unwrap();
    assert!(left.detail.contains("3 requests left"), "{left:?}");
    let cut = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap();
    assert!(cut.detail.contains("3 requests") && cut.detail.contains("cut"), "{cut:?}");
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
}

#[tokio::test]
async fn what_outlives_the_cut_is_reported() {
    let rig = Rig::new().await;
    busy(&rig);
    rig.fake.with(|world| world.instead("shutdown", usize::MAX, |_| Some(Answer::text("\n"))));
    let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
    assert_eq!(problem.code, Code::DrainIncomplete);
}

/// What an old worker says to the end of a session is read: that it has ended by itself is well, and else it is told who still serves it.
#[tokio::test]
async fn what_an_old_worker_keeps_is_told() {
    let session = "0x5581: proto=tcpv4 src=127.0.0.1:4 fe=fe be=be_green srv=s1 ts=00 age=2s calls=4\n0x5582: proto=tcpv4 src=127.0.0.1:4 fe=fe be=be_blue srv=s1 ts=00 age=2s calls=4\n0x5583: proto=tcpv4 src=127.0.0.1:4 fe=fe be=be_green srv=<none> ts=00 age=2s calls=4\n\n";
    for (answer, said) in [
        ("No such session (use 'show sess').\n\n", None),
        ("Permission denied\n\n", Some("Permission denied")),
    ] {
        let rig = Rig::new().await;
        busy(&rig);
        rig.fake.with(|world| {
            world.reload();
            world.instead("@!100 show sess", usize::MAX, move |_| Some(Answer::text(session)));
            world.instead("@!100 shutdown session", usize::MAX, move |_| Some(Answer::text(answer)));
            world.instead("shutdown sessions", usize::MAX, |_| Some(Answer::text("\n")));
        });
        let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
        match said {
            Some(said) => assert!(
                problem.to_string().contains(said) || problem.causes.join(" ").contains(said),
                "{problem:?}"
            ),
            None => {
                assert_eq!(problem.code, Code::DrainIncomplete, "{problem:?}");
                let see =
                    problem.hint.contains("@!100 show sess;quit") && problem.hint.contains("`kill 100`");
                assert!(see, "{problem:?}");
            }
        }
        assert!(rig.commands("@!100 shutdown session 0x5581") > 0);
        assert_eq!(
            rig.commands("@!100 shutdown session 0x5582") + rig.commands("@!100 shutdown session 0x5583"),
            0
        );
    }
}

/// A worker that dies within its answer leaves a part of it. The servers that are missing from it still serve.
#[tokio::test]
async fn a_cut_list_of_servers_is_not_an_empty_slot() {
    for part in [
        "# pxname,svname,scur,status,check_status,hrsp_5xx,req_tot,\n",
        "# pxname,svname,scur,status,check_status,hrsp_5xx,req_tot,\nbe_blue,s1,0,UP,L7OK,0,10,\n",
    ] {
        let rig = Rig::new().await;
        busy(&rig);
        rig.fake.with(|world| world.instead("show stat", 1, |_| Some(Answer::text(part))));
        let drained = rig.agent.perform(drain("be_green", DrainEnd::Leave)).await;
        let empty = drained.as_ref().is_ok_and(|done| done.detail.contains("serves nobody"));
        assert!(!empty, "3 requests run on the slot, and this was said: {drained:?}");
    }
}

/// Right after a reload: the worker of before serves a request, and the master that starts anew says nothing of it.
#[tokio::test]
async fn a_worker_that_the_master_does_not_speak_of_is_not_empty() {
    let idle = "# pxname,svname,scur,status,check_status,hrsp_5xx,req_tot,\nbe_green,s1,0,UP,L7OK,0,10,\nbe_green,BACKEND,0,UP,,0,10,\n\n";
    let rig = Rig::new().await;
    busy(&rig);
    rig.fake.with(|world| {
        world.reload();
        world.instead("show stat", usize::MAX, move |_| Some(Answer::text(idle)));
        world.instead("@!100 show stat", 1, |_| Some(Answer::text("")));
    });
    let left = rig.agent.perform(drain("be_green", DrainEnd::Leave)).await.unwrap();
    assert!(left.detail.contains("3 requests left"), "{left:?}");
}

/// Requests that come and go between two looks: a frontend that does not look the route up leads there.
#[tokio::test]
async fn a_slot_on_which_requests_go_on_beginning_is_not_empty() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        world.instead("show stat", usize::MAX, |world| {
            *world.begun.entry("be_green".to_owned()).or_default() += 1;
            None
        });
    });
    let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
    assert_eq!(
        (problem.code, problem.aftermath),
        (Code::DrainIncomplete, Aftermath::Unchanged),
        "{problem:?}"
    );
    assert!(
        problem.message.contains("began on `be_green`") && problem.hint.contains("doctor lb"),
        "{problem:?}"
    );
    // Whoever leaves what runs leaves this too, and says so.
    let left = rig.agent.perform(drain("be_green", DrainEnd::Leave)).await.unwrap();
    assert!(left.detail.contains("began on `be_green`"), "{left:?}");
}

/// A body that HAProxy still takes in is on no server's row.
#[tokio::test]
async fn a_request_that_has_no_server_yet_counts() {
    let rig = Rig::new().await;
    rig.fake.with(|world| world.waiting.insert("be_green".to_owned(), 2));
    let left = rig.agent.perform(drain("be_green", DrainEnd::Leave)).await.unwrap();
    assert!(
        left.detail.contains("2 requests left") && left.detail.contains("2 on no server yet"),
        "{left:?}"
    );
}

/// One that keeps the old route serves nobody while its clients are idle, and leads their next requests to the slot.
#[tokio::test]
async fn an_old_worker_that_still_leads_there_is_waited_for() {
    let rig = Rig::new().await;
    rig.fake.with(|world| {
        // It is of before a change of the configuration, and keeps its route.
        world.reload_with(P);
        let old = world.old.get_mut(&100).unwrap();
        old.map[0].1 = "be_green:be_blue:0:4".to_owned();
    });
    let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
    assert_eq!(problem.code, Code::DrainIncomplete, "{problem:?}");
    assert!(problem.message.contains("old worker 100 still routes by `be_green:be_blue:0:4`"), "{problem:?}");
    rig.fake.with(|world| world.instead("@!100 get map", usize::MAX, |_| Some(Answer::text("nonsense\n\n"))));
    let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
    assert!(problem.message.contains("the route of old worker 100 cannot be read"), "{problem:?}");
    // It goes.
    rig.fake.with(|world| world.old.clear());
    rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap();
}
