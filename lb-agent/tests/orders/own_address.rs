//! The address at which the agent asks comes and goes while it is asked, as keepalived moves it.

use pointsman_core::Action;

use crate::alone::{in_own_network, ip};
use crate::fake::{Fake, KEY};
use crate::rig::{Agent, P, Setup, V, route};

/// Of a network for documentation.
const ADDRESS: &str = "192.0.2.100";

/// When the looks began it was another's, and when they had ended it was here: they say nothing of the route here.
#[tokio::test]
async fn an_address_that_comes_while_it_is_asked_is_no_reason_to_turn_back() {
    if !in_own_network("own_address::an_address_that_comes_while_it_is_asked_is_no_reason_to_turn_back") {
        return;
    }
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
        frontend: format!("{ADDRESS}:443").parse().unwrap(),
        state: folder.path().join("state"),
        signals: None,
        more: String::new(),
    });
    fake.with(|world| {
        world.after("set map", 1, |world| {
            // The old workers are listed while the frontend is asked.
            world.after("show proc", 1, |_| {
                ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
                None
            });
            None
        });
    });
    let back = Action::SetRoute { expected: vec![route(P)], wanted: route(V), min_up: 1, back: true };
    let led = agent.perform(back).await.unwrap();
    assert!(led.detail.contains("not seen by a request"), "{led:?}");
    assert_eq!((fake.with(|world| world.route()), agent.on_disk()), (V.to_owned(), Some(route(V))));
}
