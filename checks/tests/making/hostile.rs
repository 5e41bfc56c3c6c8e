//! Servers that mean harm, or are as broken as if they did: a check of them fails in its time and its bounds.

use std::time::Duration;

use crate::{World, check};
use pointsman_checks::run;
use pointsman_core::{Check, CheckVerdict};

#[tokio::test]
async fn no_server_holds_a_check_up_or_fills_its_memory() {
    let world = World::start().await;
    let get = |path: &str| format!("http = {{ path = \"{path}\" }}");
    for (written, expected) in [
        (get("/endless"), "the body ended early or is over 16777216 bytes"),
        (get("/slow"), "no answer within"),
        (get("/many-headers"), "no answer"),
        (get("/long-header"), "no answer"),
        (get("/cut"), "the body ended early"),
        (get("/garbage"), "no answer"),
        (get("/packed"), "packed as `gzip`, which was not asked for"),
        (get("/moved"), "expected status 200, got 301"),
        ("http = { path = \"/away\", follow = 5 }".to_owned(), "leads to another host: it is not followed"),
        ("http = { path = \"/around\", follow = 5 }".to_owned(), "expected status 200, got 302"),
        (
            "ows = { service = \"WFS\", version = \"2.0.0\", path = \"/bomb\" }".to_owned(),
            "GetCapabilities of /bomb the XML declares entities of its own",
        ),
    ] {
        let check = Check { timeout_ms: 1_000, ..check("hostile", &written) };
        let place = world.place();
        let made =
            tokio::time::timeout(Duration::from_secs(20), run(std::slice::from_ref(&check), &place, None));
        let seen = made.await.expect(&written).unwrap().seen.remove(0);
        assert_eq!(seen.verdict, CheckVerdict::Failed, "{written}");
        assert!(seen.what.contains(expected), "{written}: {}", seen.what);
    }
    let asked = world.site.came();
    assert_eq!(asked.iter().filter(|came| *came == "GET /around").count(), 6, "{asked:?}");
    world.one("http = { path = \"/moved\", follow = 1 }").await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_a_failure_too() {
    let world = World::start().await;
    let mut place = world.place();
    // A port that was just free.
    place.server.address = std::net::TcpListener::bind("127.99.0.1:0").unwrap().local_addr().unwrap();
    let seen = run(&[check("gone", "http = { path = \"/\" }")], &place, None).await.unwrap().seen;
    assert!(seen[0].what.starts_with("/ cannot connect"), "{seen:?}");
    let tls = run(&[check("tls", "tls = { min_left = \"14d\" }")], &place, None).await.unwrap().seen;
    assert!(tls[0].what.starts_with("nothing is asked with TLS here"), "{tls:?}");
}
