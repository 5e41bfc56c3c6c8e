//! Orders that come after their deadline by this host's clock: they were delayed, or the clocks are apart.

use pointsman_core::{Action, Code, Step, Timestamp};
use pointsman_proto::convert::{self, ReceivedOrder};

use crate::rig::{Options, Rig};

/// As an agent sees it whose clock is far ahead.
fn long_ago(mut order: ReceivedOrder) -> ReceivedOrder {
    order.order.deadline = Timestamp(1_000_000);
    order
}

#[tokio::test]
async fn only_what_leads_back_is_never_too_late() {
    let rig = Rig::with(Options::default()).await;
    let forward = long_ago(rig.order(Step::Maintain, Action::SetFlag { on: true }));
    assert_eq!(rig.send(&forward).await.unwrap_err().code, Code::DeadlinePassed);
    // A copy of it, by a clock that was set back meanwhile: the release may have been given up.
    let deadline = rig.order(Step::Maintain, Action::SetFlag { on: true }).order.deadline;
    let mut copy = forward.clone();
    copy.order.deadline = deadline;
    assert_eq!(rig.send(&copy).await.unwrap_err().code, Code::Superseded);
    assert!(!rig.at(".maintenance").exists());

    let mut page = rig.order(Step::Maintain, Action::SetFlag { on: true });
    rig.send(&page).await.unwrap();
    assert!(rig.at(".maintenance").exists());
    page = long_ago(rig.order(Step::Maintain, Action::SetFlag { on: false }));
    page.order.leads_back = true;
    rig.send(&page).await.unwrap();
    assert!(!rig.at(".maintenance").exists(), "a page that is lifted is wanted lifted");
}

/// A coordinator of before does not say what leads back; the step does.
#[tokio::test]
async fn the_way_back_of_an_older_coordinator_is_known_by_its_step() {
    let rig = Rig::with(Options::default()).await;
    let order = long_ago(rig.order(Step::Unmaintain, Action::SetFlag { on: false }));
    let wire = convert::order_to_wire(&order);
    assert!(!wire.leads_back);
    rig.client.clone().perform(wire).await.unwrap();
}
