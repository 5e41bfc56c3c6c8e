//! What weighs what: failures, what could not be seen, what only warns, in one place and in several.

use pointsman_checks::{Place, judged, run};
use pointsman_core::{Check, CheckVerdict, Code};

use crate::{World, check};

const MISSING: &str = "http = { path = \"/gone\" }";

fn patient(name: &str, path: &str) -> Check {
    Check { patience_ms: 5_000, ..check(name, &format!("http = {{ path = \"{path}\" }}")) }
}

/// The verdict on a patient check that would pass at its third try, made after another one.
async fn after(first: &str) -> CheckVerdict {
    let world = World::start().await;
    world.site.fail("/api/health", 2);
    let seen = world.run(&[world.check("first", first), patient("second", "/api/health")]).await;
    assert_ne!(seen[0].verdict, CheckVerdict::Passed, "{seen:?}");
    seen[1].verdict
}

#[tokio::test]
async fn only_what_turns_a_release_back_ends_the_patience_of_others() {
    assert_eq!(after(MISSING).await, CheckVerdict::Failed);
    assert_eq!(after(&format!("{MISSING}\non_fail = \"warn\"")).await, CheckVerdict::Passed);
    assert_eq!(after(&format!("{MISSING}\non_fail = \"hold\"")).await, CheckVerdict::Passed);
    let blind = "metric = { url = \"http://127.0.0.1:1\", query = \"up\", min = 1 }";
    assert_eq!(after(blind).await, CheckVerdict::Passed);
}

#[tokio::test]
async fn what_the_agent_itself_lacks_is_no_failure_of_the_release() {
    let world = World::start().await;
    let grants = "hurl = { command = \"/nonexistent/hurl\", files = \"/nonexistent\" }";
    let granted = Place { grants: std::sync::Arc::new(toml::from_str(grants).unwrap()), ..world.place() };
    let secret = "secrets = { a = \"SECRETS/none\" }\n[[steps]]\nget = \"/\"";
    for (place, written) in [
        (&world.place(), secret),
        (&world.place(), "tls = { min_left = \"14d\" }"),
        (&world.place(), "hurl = \"login.hurl\""),
        (&granted, "hurl = \"login.hurl\""),
    ] {
        let checks = [world.check("one", written)];
        let made = run(&checks, place, None).await.unwrap();
        assert_eq!(made.seen[0].verdict, CheckVerdict::NotMade, "{written}: {made:?}");
        let problem = judged(&checks, vec![(place, made)]).unwrap_err();
        // Nobody was asked.
        assert_eq!((problem.code, problem.causes.len()), (Code::CheckBlind, 0), "{problem:?}");
    }
}

#[tokio::test]
async fn the_gravest_of_all_places_counts() {
    let world = World::start().await;
    let place = world.place();
    let checks = [
        check("holds", "http = { path = \"/api/health\" }\non_fail = \"hold\""),
        check("fails", "http = { path = \"/\" }"),
    ];
    let mut made = Vec::new();
    for path in ["/api/health", "/"] {
        world.site.fail(path, 1);
        made.push((&place, run(&checks, &place, None).await.unwrap()));
    }
    let problem = judged(&checks, made.clone()).unwrap_err();
    assert_eq!((problem.code, problem.checks.len()), (Code::CheckFailed, 4), "{problem:?}");
    assert!(problem.message.starts_with("check `fails`"), "{problem:?}");
    made.pop();
    assert_eq!(judged(&checks, made).unwrap_err().code, Code::CheckHolds);
}

#[tokio::test]
async fn nothing_that_objects_builds_on_what_only_warns() {
    let world = World::start().await;
    let base = check("base", &format!("{MISSING}\non_fail = \"warn\""));
    let next = |written: &str| [base.clone(), check("next", &format!("after = \"base\"\n{written}"))];
    let error = run(&next(MISSING), &world.place(), None).await.unwrap_err();
    assert!(error.message.contains("`base`, which only warns"), "{error:?}");
    let checks = next(&format!("{MISSING}\non_fail = \"warn\""));
    let place = world.place();
    let made = run(&checks, &place, None).await.unwrap();
    assert_eq!(made.seen[1].verdict, CheckVerdict::NotMade);
    assert!(judged(&checks, vec![(&place, made)]).is_ok());
}
