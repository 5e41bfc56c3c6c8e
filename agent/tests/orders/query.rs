//! What became of an order, asked over gRPC: it never arrived, is being done, was done, or nobody here can know.

use std::path::Path;
use std::time::{Duration, Instant};

use pointsman_core::{Action, Activation, Step};
use pointsman_proto::agent_v1::QueryRequest;
use pointsman_proto::agent_v1::query_reply::Fate;
use pointsman_proto::convert::ReceivedOrder;

use crate::rig::{Options, Rig, site};

/// Longest time for an order to be taken in.
const LONGEST: Duration = Duration::from_secs(30);

fn question(order: &ReceivedOrder) -> QueryRequest {
    QueryRequest {
        environment: order.environment.to_string(),
        release: order.order.release.to_string(),
        step: order.order.key.step.to_string(),
        journal_seq: order.journal_seq,
    }
}

/// The fate as it is on the wire, and the detail of what was done.
async fn fate(rig: &Rig, order: &ReceivedOrder) -> (i32, Option<String>) {
    let reply = rig.client.clone().query(question(order)).await.unwrap().into_inner();
    (reply.fate, reply.done.map(|done| done.detail))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + LONGEST;
    while !holds().await {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An agent with a hook that says it has begun, and then waits until a file is there.
async fn slow(begun: &Path, goes_on: &Path) -> Rig {
    let script =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done", begun.display(), goes_on.display());
    let extra = format!("hooks.slow = {{ argv = [\"/bin/sh\", \"-c\", {script:?}], timeout = \"60s\" }}");
    Rig::with(Options { extra, ..Options::default() }).await
}

#[tokio::test]
async fn each_fate_has_an_answer_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, goes_on) = (folder.path().join("begun"), folder.path().join("goes-on"));
    let rig = slow(&begun, &goes_on).await;
    let made = site("x");

    // An agent that has heard of nothing yet may have lost its disk.
    let early =
        rig.order(Step::Activate, Action::Activate { artifact: None, activation: Activation::default() });
    assert_eq!(fate(&rig, &early).await, (Fate::Unknown.into(), None));
    rig.bring(&made).await.unwrap();
    assert_eq!(fate(&rig, &early).await, (Fate::Unknown.into(), None), "older than its records");

    let hooks = vec!["slow".parse().unwrap()];
    let activation = Activation { restart: Vec::new(), hooks };
    let order = rig.order(Step::Activate, Action::Activate { artifact: Some(made.digest), activation });
    assert_eq!(fate(&rig, &order).await, (Fate::NeverSeen.into(), None));

    let sending = async { rig.send(&order).await };
    let asking = async {
        until("the hook begins", async || begun.exists()).await;
        let running = fate(&rig, &order).await;
        std::fs::write(&goes_on, "").unwrap();
        running
    };
    let (sent, running) = tokio::join!(sending, asking);
    assert_eq!(running, (Fate::Running.into(), None));
    assert_eq!(fate(&rig, &order).await, (Fate::Done.into(), Some(sent.unwrap().detail)));
}

#[tokio::test]
async fn what_a_process_that_is_gone_has_begun_is_unknown() {
    let rig = Rig::new().await;
    let order = rig.order(Step::Maintain, Action::SetFlag { on: true });
    let digest = pointsman_chassis::order_digest(&order.order);
    // As a killed agent leaves it: taken in, and no end recorded.
    rig.ledger.admit(&order, digest).unwrap();
    assert_eq!(fate(&rig, &order).await, (Fate::Unknown.into(), None));
    // The same order, sent again, finds out.
    rig.send(&order).await.unwrap();
    assert!(matches!(fate(&rig, &order).await, (fate, Some(_)) if fate == i32::from(Fate::Done)));
}

#[tokio::test]
async fn a_question_that_names_no_step_is_refused() {
    let rig = Rig::new().await;
    let order = rig.order(Step::Maintain, Action::SetFlag { on: true });
    let wrong = QueryRequest { step: "dance".to_owned(), ..question(&order) };
    let refused = crate::rig::problem(rig.client.clone().query(wrong).await.unwrap_err());
    assert_eq!(refused.code, pointsman_core::Code::MessageInvalid);
}
