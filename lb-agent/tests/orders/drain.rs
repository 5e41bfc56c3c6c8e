//! Draining: a slot is called empty only when nobody is seen on it. HAProxy is a fake here.

use pointsman_core::{Action, Code, DrainEnd};

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
    rig.fake.with(|world| world.instead("shutdown", 9, |_| Some(Answer::text("\n"))));
    let problem = rig.agent.perform(drain("be_green", DrainEnd::Cut)).await.unwrap_err();
    assert_eq!(problem.code, Code::DrainIncomplete);
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
