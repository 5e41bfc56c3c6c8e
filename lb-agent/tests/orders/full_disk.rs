//! The map file cannot be written: the route before stands, on disk and in the worker, and that is what is said. Where the
//! whole disk is full, what leads back goes all the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman_core::{Aftermath, Code, Step};
use pointsman_proto::convert::ReceivedOrder;

use crate::alone::in_own_mounts;
use crate::fake::KEY;
use crate::rig::{Agent, P, Rig, Setup, V, route, switch};

async fn refused(rig: &Rig) {
    let refused = rig.agent.set_route(P, V).await;
    println!("{refused:?}");
    rig.told_the_truth(V, &refused);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, Code::MapFileUnwritable);
    assert_eq!(rig.stands(), (P.to_owned(), P.to_owned(), vec![]));
    assert_eq!(rig.commands("set map"), 0);
    assert_eq!(
        refused.aftermath,
        Aftermath::Unchanged,
        "the old route stands on disk and in the worker: {refused:?}"
    );
}

#[tokio::test]
async fn the_temporary_file_cannot_be_written() {
    let rig = Rig::new().await;
    std::fs::create_dir(rig.agent.map.with_extension("map.tmp")).unwrap();
    refused(&rig).await;
    // And when the trouble is over, the same move succeeds.
    std::fs::remove_dir(rig.agent.map.with_extension("map.tmp")).unwrap();
    rig.agent.set_route(P, V).await.unwrap();
}

async fn mounted(options: &str, break_it: impl FnOnce(&Path)) {
    let rig = Rig::new().await;
    let folder = rig.agent.map.parent().unwrap().to_owned();
    let mount = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).arg(&folder).status().unwrap().success());
    };
    mount(&["-t", "tmpfs", "-o", options, "tmpfs"]);
    std::fs::write(&rig.agent.map, format!("route {P}\n")).unwrap();
    break_it(&folder);
    refused(&rig).await;
}

#[tokio::test]
async fn the_disk_is_full() {
    if in_own_mounts("full_disk::the_disk_is_full") {
        mounted("size=64k", |folder| drop(std::fs::write(folder.join("filler"), vec![0; 1 << 20]))).await;
    }
}

#[tokio::test]
async fn the_folder_is_read_only() {
    if in_own_mounts("full_disk::the_folder_is_read_only") {
        mounted("size=64k", |folder| {
            assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(folder).status().unwrap().success());
        })
        .await;
    }
}

const BACK: &str = "be_blue:be_green:0:8";

/// A load balancer of which receipts and routes are on one small disk, and the agent there, which is not started yet.
async fn on_one_disk(options: &str) -> (Rig, PathBuf, Setup) {
    let rig = Rig::new().await;
    let folder = rig.agent.map.parent().unwrap().to_owned();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).status();
    assert!(mounted.unwrap().success());
    std::fs::write(&rig.agent.map, format!("route {P}\n")).unwrap();
    let setup = Setup {
        map: rig.agent.map.clone(),
        key: KEY.to_owned(),
        socket: rig.fake.socket.clone(),
        master: Some(rig.fake.master.clone()),
        frontend: rig.fake.frontend,
        state: folder.join("state"),
        signals: None,
        more: String::new(),
    };
    (rig, folder, setup)
}

fn at(step: Step, leads_back: bool, mut order: ReceivedOrder) -> ReceivedOrder {
    (order.order.key.step, order.order.leads_back) = (step, leads_back);
    order
}

fn preflight(of: &Agent, stands: &str) -> ReceivedOrder {
    let backends = ["be_blue", "be_green"].map(|name| name.parse().unwrap()).to_vec();
    let looks = pointsman_core::Action::InspectBalancer { expected: route(stands), backends, leaving: false };
    at(Step::Preflight, false, of.order(looks))
}

/// Receipts and routes are on one disk, and somebody's log fills it while visitors are on the new version.
#[tokio::test]
async fn a_full_disk_keeps_nobody_from_going_back() {
    if !in_own_mounts("full_disk::a_full_disk_keeps_nobody_from_going_back") {
        return;
    }
    let (rig, folder, setup) = on_one_disk("size=6m").await;
    let agent = Agent::start(&setup);
    agent.send(&preflight(&agent, P)).await.unwrap();
    agent.set_route(P, V).await.unwrap();

    let filler = folder.join("filler");
    let mut log = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut log, &[0; 512]).is_ok() {}
    let forward = agent.set_route(V, "be_blue:be_green:0:7").await.unwrap_err();
    println!("{forward:?}");
    assert_eq!(agent.on_disk(), Some(route(V)));
    assert_eq!(rig.fake.with(|world| world.route()), V);
    assert!(folder.join("state/receipts.db.ballast").exists(), "it was given up for a way forward");

    let back = at(Step::RouteBack, true, agent.order(switch(V, BACK)));
    agent.send(&back).await.unwrap();
    assert_eq!(agent.on_disk(), Some(route(BACK)));
    assert_eq!(rig.fake.with(|world| world.route()), BACK);
    // An agent that is started on such a disk still answers for it.
    drop(pointsman_chassis::ledger::Ledger::open(&folder.join("state/receipts.db")).unwrap());

    while std::io::Write::write_all(&mut log, &[0; 512]).is_ok() {}
    let room = agent.ledger.keep_room().unwrap_err();
    assert!(room.hint.contains("df -h"), "{room:?}");
    let refused = agent.send(&preflight(&agent, BACK)).await.unwrap_err();
    assert_eq!(refused.code, Code::ReceiptsUnavailable, "{refused:?}");
    std::fs::remove_file(&filler).unwrap();
    drop(log);
    // Somebody makes room, and no release comes for days.
    agent.ledger.keep_room().unwrap();
    assert!(folder.join("state/receipts.db.ballast").exists());
    std::fs::remove_file(folder.join("state/receipts.db.ballast")).unwrap();
    agent.send(&preflight(&agent, BACK)).await.unwrap();
    assert!(folder.join("state/receipts.db.ballast").exists());
}

/// Makes empty files until there is no inode left.
fn take_inodes(folder: &Path) {
    let number = std::fs::read_dir(folder).unwrap().count();
    let _ = (number..1000)
        .try_for_each(|number| std::fs::File::create(folder.join(format!("filler-{number}"))).map(drop));
}

/// The agent is upgraded, or its host is booted, while visitors are on the new version.
#[tokio::test]
async fn a_disk_without_inodes_keeps_nobody_who_is_started_anew_from_leading_back() {
    if !in_own_mounts("full_disk::a_disk_without_inodes_keeps_nobody_who_is_started_anew_from_leading_back") {
        return;
    }
    let (rig, folder, setup) = on_one_disk("size=16m,nr_inodes=60").await;
    let agent = Agent::start(&setup);
    agent.send(&preflight(&agent, P)).await.unwrap();
    agent.set_route(P, V).await.unwrap();
    let next = agent.order(switch(V, BACK));
    let mut agent = Some(agent);
    for _ in 0..3 {
        take_inodes(&folder);
        // It ends in order: what it made beside its receipts is removed, and somebody takes that, too.
        drop(agent.take());
        assert!(!folder.join("state/receipts.db-wal").exists());
        take_inodes(&folder);
        agent = Some(Agent::start(&setup));
    }
    agent.unwrap().send(&at(Step::RouteBack, true, next)).await.unwrap();
    assert_eq!(rig.agent.on_disk(), Some(route(BACK)));
    assert_eq!(rig.fake.with(|world| world.route()), BACK);
}
